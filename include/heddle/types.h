/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Basic types that the BPF programs and user space share. Fixed width, no pointers. */
#ifndef HEDDLE_TYPES_H
#define HEDDLE_TYPES_H

#include <linux/types.h>
#ifdef __bpf__
#include <stddef.h>
#define static_assert _Static_assert
#else
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#endif

/* Version of every pinned layout. Raise it when a struct in include/heddle changes in size or meaning. */
#define HD_SCHEMA_VERSION 1

/*
 * An address of either family. IPv4 is held IPv4-mapped (::ffff:a.b.c.d, RFC 4291 section 2.5.5.2), so that one code path
 * serves both; network byte order. A real packet that carries ::ffff:0:0/96 in an IPv6 header is dropped by the parser
 * (reason ip6-mapped), so the two families cannot be taken for each other.
 */
struct hd_addr {
	union {
		__u8 b[16];
		__be32 w[4];
		__be64 q[2];
	};
};
static_assert(sizeof(struct hd_addr) == 16, "hd_addr");

/*
 * Direction relative to whom the policy is for: the host at an uplink, the workload at a port. Ingress = from the wire to the host, or to the
 * workload. Index of counters, sets and roots.
 */
enum hd_direction { HD_INGRESS = 0, HD_EGRESS = 1, HD_DIRECTIONS = 2 };

/* The hook that judged a packet. */
enum hd_hook {
	HD_HOOK_XDP_UPLINK = 0,
	HD_HOOK_TC_UPLINK_IN = 1,
	HD_HOOK_TC_UPLINK_OUT = 2,
	HD_HOOK_TC_PORT_IN = 3,	  /* from a port */
	HD_HOOK_TC_PORT_OUT = 4,  /* from the host's stack to a port */
	HD_HOOK_TC_WIRE_IN = 5,	  /* from an uplink, with the tag of a network: called by tc_uplink_in */
	HD_HOOK_TC_TUNNEL_IN = 6, /* from a peer, out of its tunnel: called by tc_uplink_in */
	HD_HOOK_TC_HOST_OUT = 7,  /* from the host's stack to somebody behind a peer */
	HD_HOOKS = 8
};

/* What a rule asks for, and what a packet gets. HD_DROP is never a rule's: a reason says why (HD_REASONS). */
enum hd_verdict { HD_ALLOW = 0, HD_DENY = 1, HD_REJECT = 2, HD_DROP = 3 };

/*
 * Records that change with the policy hold two entries, each with the generation it is in force from: the newer one that is not past
 * generation g counts. Its index (generations are compared by difference; 0 never holds); -1: none.
 */
static inline int hd_entry_at(__u32 a, __u32 b, __u32 g)
{
	int a_ok = a && (__s32)(g - a) >= 0, b_ok = b && (__s32)(g - b) >= 0;

	if (a_ok && b_ok)
		return (__s32)(b - a) > 0;
	return a_ok ? 0 : b_ok ? 1 : -1;
}

/*
 * Time in the data plane is counted in ticks: the lower 32 bits of the kernel's jiffies, which a program reads without a call (a call of
 * the cheapest clock costs 20 ns where the kernel has to guard its returns). They wrap after 49 days at 1000 Hz, so they are only ever compared
 * by signed difference, and no timeout is longer than HD_TICKS_MAX. User space asks the ageing program for the time and clock_getres()
 * for the length of a tick.
 */
#define HD_TICKS_MAX 0x3fffffffu

#endif
