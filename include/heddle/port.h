/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Interfaces that the agent guards (uplinks) or switches (ports): one record each in the direct-mapped array `ports`. */
#ifndef HEDDLE_PORT_H
#define HEDDLE_PORT_H

#include <heddle/limit.h>
#include <heddle/types.h>

/*
 * `ports` is indexed by ifindex & (HD_PORT_SLOTS - 1), the full ifindex checked; on a collision the record is in ports_hash. That costs every
 * packet a hash lookup, so there are more slots than a host has interfaces.
 */
#define HD_PORT_SLOTS 16384

enum hd_port_flags {
	HD_PORT_UPLINK = 1 << 0,
	HD_PORT_XDP = 1 << 1,		/* our XDP program is attached: TC ingress believes metadata with our magic */
	HD_PORT_FORWARD_JUDGE = 1 << 2, /* traffic the host routes is judged too */
	HD_PORT_TUNNEL = 1 << 3,	/* of an uplink: packets of the tunnel come in here */
	/* Of ports, not of uplinks: */
	HD_PORT_L2 = 1 << 4,	   /* its network switches by MAC; else it routes only */
	HD_PORT_LEARNING = 1 << 5, /* source MACs that no document gives are learnt */
	HD_PORT_HOST = 1 << 6,	   /* its network routes to the host: what it does not know itself goes to the host's stack */
	HD_PORT_PEER = 1 << 7,	   /* a veth whose peer is in another namespace: delivered by bpf_redirect_peer */
	HD_PORT_ACCESS = 1 << 8,   /* sends untagged frames only, which belong to `vlan` */
	HD_PORT_TRUNK = 1 << 9,	   /* sends tags that port_vlans allows; untagged frames belong to `vlan`, 0: none may be */
	HD_PORT_QINQ = 1 << 10,	   /* beside ACCESS: whatever tags it sends are its own affair, and go along */
	/* Of uplinks, beside XDP and TUNNEL: */
	HD_PORT_DECAP =
		1
		<< 11, /* XDP takes frames out of their tunnel, so that they are put together (GRO) before anything else sees them */
	HD_PORT_FAST = 1 << 12, /* beside XDP: some packets go to AF_XDP sockets (heddle/steer.h) */
	HD_PORT_SUM =
		1
		<< 15, /* beside TUNNEL: our own device, where its packets get their UDP checksum: hd_tunnel.sum is its other end */
	/* Of ports: limit[] has a rate in that direction. */
	HD_PORT_LIMIT_IN = 1 << 13,
	HD_PORT_LIMIT_OUT = 1 << 14,
};

/*
 * The policy of a port in one generation. Roots are values with tag, of the sets' own rule trees (rules for any peer). pass_*: where the
 * search goes on when the rule that decides says pass; set 0: nowhere, the packet may pass.
 */
struct hd_port_policy {
	__u32 generation;
	__u32 set[2];	  /* by enum hd_direction; of a port: ingress is to the workload, egress from it */
	__u32 version[2]; /* the generation in which the set's meaning last changed: flows compare it */
	__u32 root[2];
	__u32 pass_set[2];
	__u32 pass_root[2];
};
static_assert(sizeof(struct hd_port_policy) == 44, "hd_port_policy");

struct hd_port {
	__u32 ifindex;			 /* 0: empty */
	__u16 network;			 /* index in `networks`; 0: the host's own */
	__u16 flags;			 /* enum hd_port_flags */
	struct hd_port_policy policy[2]; /* hd_port_policy_at() says which one counts */
	__u8 mac[6]; /* of the workload: the only source MAC it may use unless learning; where routed packets go */
	__u16 vlan;  /* id; see the flags */
	__u16 mtu;   /* bytes of L3 */
	__u16 reserved;
	/*
	 * Tick, 0: never. A flow last seen before it looks up again where its ends are. Set when an address or MAC of the port came, went or moved,
	 * after that is done, and a little into the future, since a packet may still be on its way through.
	 */
	__u32 moved;
	struct hd_limit limit[2]; /* by enum hd_direction, as the policy */
};
static_assert(sizeof(struct hd_port) == 128, "hd_port");

/* Index of the policy that holds in generation g; -1: none. */
static inline int hd_port_policy_at(const struct hd_port *port, __u32 g)
{
	return hd_entry_at(port->policy[0].generation, port->policy[1].generation, g);
}

/* Since its tick `last_seen` a flow has to look up again where the end is whose record says `moved`. */
static inline int hd_moved_since(__u32 moved, __u32 last_seen)
{
	return moved && (__s32)(moved - last_seen) >= 0;
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
