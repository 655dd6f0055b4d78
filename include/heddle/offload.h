/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What a NIC has counted, of flows that it forwards and of what it drops, on its way into the tables. */
#ifndef HEDDLE_OFFLOAD_H
#define HEDDLE_OFFLOAD_H

#include <heddle/flow.h>

enum hd_credit_flags {
	HD_CREDIT_SEEN = 1 << 0, /* packets have come since the last time: the flow is alive */
	/*
	 * The NIC begins. What TCP says of its numbers is not seen from here on: as of a connection that was picked up, they are not known
	 * (HD_FLOW_PICKUP).
	 */
	HD_CREDIT_BEGINS = 1 << 1,
};

/* The frame that `offload_credit` is run with. It returns 0, or 1: there is no such flow any more. */
struct hd_credit {
	__u8 ethernet[16]; /* 0: every frame has an Ethernet header */
	union hd_flow_key key;
	__u32 epoch; /* of the flow that is meant */
	__u8 family; /* 4 or 6 */
	__u8 flags;  /* enum hd_credit_flags */
	__u16 reserved;
	__u64 packets[2]; /* by enum hd_flow_side: what came in addition */
	__u64 bytes[2];	  /* of L3 */
};
static_assert(sizeof(struct hd_credit) == 96, "hd_credit");

/* The frame that `offload_deny` is run with: packets that a port sent and policy denies. It returns 0. */
struct hd_denied {
	__u8 ethernet[16];
	__u32 rule;
	__u32 reserved;
	__u64 packets;
	__u64 bytes;  /* of L3 */
	__u64 frames; /* bytes of whole frames */
};
static_assert(sizeof(struct hd_denied) == 48, "hd_denied");

#endif
