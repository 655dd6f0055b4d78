/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Interfaces that the agent guards: one record each in the direct-mapped array `ports`. */
#ifndef HEDDLE_PORT_H
#define HEDDLE_PORT_H

#include <heddle/types.h>

/* `ports` is indexed by ifindex & (HD_PORT_SLOTS - 1), the full ifindex checked; on a collision the record is in ports_hash. */
#define HD_PORT_SLOTS 4096

enum hd_port_flags {
	HD_PORT_UPLINK = 1 << 0,
	HD_PORT_XDP = 1 << 1,		/* our XDP program is attached: TC ingress believes metadata with our magic */
	HD_PORT_FORWARD_JUDGE = 1 << 2, /* traffic the host routes is judged too */
	HD_PORT_XDP_TX = 1 << 3,	/* the driver can XDP_TX: rejects are answered there */
};

/* The policy of a port in one generation. Roots are values with tag, of the sets' own rule trees (rules for any peer). */
struct hd_port_policy {
	__u32 generation;
	__u32 set[2];	  /* by enum hd_direction */
	__u32 version[2]; /* the generation in which the set's meaning last changed: flows compare it */
	__u32 root[2];
};
static_assert(sizeof(struct hd_port_policy) == 28, "hd_port_policy");

struct hd_port {
	__u32 ifindex; /* 0: empty */
	__u16 network;
	__u8 flags; /* enum hd_port_flags */
	__u8 reserved;
	struct hd_port_policy policy[2]; /* hd_port_policy_at() says which one counts */
};
static_assert(sizeof(struct hd_port) == 64, "hd_port");

static inline int hd_port_policy_at(const struct hd_port *port, __u32 g)
{
	return hd_entry_at(port->policy[0].generation, port->policy[1].generation, g);
}

/* What xdp_uplink writes in front of a packet it let through, for tc_uplink (XDP metadata, bpf_xdp_adjust_meta). */
#define HD_META_MAGIC 0x6865646cu
struct hd_meta {
	__u32 magic;
	__u32 generation;
	__u32 rule;
	__u32 reserved;
};
static_assert(sizeof(struct hd_meta) == 16, "hd_meta");

#endif
