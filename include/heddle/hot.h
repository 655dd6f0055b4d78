/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The hot part of busy flows: one cache line for an IPv4 flow, found by a hash of its key without a call. With ten thousand flows
 * speaking in turn, memory is what a packet costs: hint, slot and key are 4 lines, which do not stay in the cache of a core; this one does.
 *
 * An entry is a loan from the flow in its slot: numbers go on here and are given back after HD_HOT_TICKS, or as soon as a packet comes that
 * does more than carry data. A flow that lent has HD_FLOW_HOT set. Entries are in pairs (index and index ^ 1); one that is in use by
 * another flow stays, so that nothing is lost where three flows meet: the third goes by its slot.
 */
#ifndef HEDDLE_HOT_H
#define HEDDLE_HOT_H

#include <heddle/flow.h>

#define HD_HOT_ENTRIES 65536 /* of each family; a power of two */
#define HD_HOT_TICKS 32	     /* 0.03 s at 1000 Hz, 0.13 s at 250 Hz: so late may a flow's counters and time be */
#define HD_HOT_PACKETS 16    /* a flow must have had so many: short connections are not worth it */

/* hd_hot.flags */
enum hd_hot_flags {
	HD_HOT_USED = 1 << 0,
	HD_HOT_ORIG_IS_HI = 1 << 1,
	HD_HOT_EGRESS = 1 << 2, /* as HD_FLOW_DIR_EGRESS: the originator is the host's side; else the responder */
	HD_HOT_SCALE = 3,	/* shift: window scale of the host's side, 4 bits */
};

struct hd_hot {
	__u32 version; /* as in hd_flow */
	__u32 rule;    /* id; the upper 8 bits: enum hd_hot_flags */
	__u32 lent;    /* tick */
	__u32 slot;
	__u32 seq_end[2], ack[2]; /* as in hd_flow */
	__u16 port;		  /* index in the map `ports` */
	__u16 window;		  /* last one the host announced, unscaled */
	union {
		__u16 packets[2]; /* by side, since it was lent */
		__u32 all_packets;
	};
	__u32 bytes[2];
};
static_assert(sizeof(struct hd_hot) == 48, "hd_hot");
#define HD_HOT_RULE_MASK 0x00ffffffu
#define HD_HOT_FLAGS(hot) ((hot)->rule >> 24)

struct hd_hot4 {
	__u64 key[2]; /* struct hd_flow_key4 */
	struct hd_hot hot;
};
static_assert(sizeof(struct hd_hot4) == 64, "hd_hot4");

struct hd_hot6 {
	__u64 key[5]; /* struct hd_flow_key6 */
	struct hd_hot hot;
	__u64 reserved[5];
};
static_assert(sizeof(struct hd_hot6) == 128, "hd_hot6");

/*
 * Spreads keys over tables whose size is a power of two up to 2^24. IPv4 has the first two words of the key only. Each word has a factor of its
 * own: addresses and ports are often counted up together, and must not cancel each other out. The upper half comes down first: what
 * changes from peer to peer is there in network byte order, and a product carries nothing downwards.
 */
#define HD_FLOW_MIX(word, factor) (((word) ^ (word) >> 32) * factor)
static inline __attribute__((always_inline, unused)) __u32 hd_flow_hash(__u32 family, const union hd_flow_key *key)
{
	__u64 x = HD_FLOW_MIX(key->q[0], 0x9e3779b97f4a7c15ull) ^ HD_FLOW_MIX(key->q[1], 0xc2b2ae3d27d4eb4full);

	if (family == 6)
		x ^= HD_FLOW_MIX(key->q[2], 0xff51afd7ed558ccdull) ^ HD_FLOW_MIX(key->q[3], 0xd6e8feb86659fd93ull) ^
		     HD_FLOW_MIX(key->q[4], 0xa0761d6478bd642full);
	x ^= x >> 32;
	x *= 0xe7037ed1a0b428dbull;
	return x >> 40;
}

#endif
