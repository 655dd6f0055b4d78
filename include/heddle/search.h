/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The search inside one node of the policy trees, shared by the BPF programs and by user space (the compiler's own lookup, tests).
 *
 * Binary search without branches: the outcome of each comparison depends on the packet, so a branch would be mispredicted half
 * of the time. BPF has no set-on-condition, hence the borrow of a subtraction. The index is built bit by bit; its bounds are said
 * once more by a mask, which 6.1 needs (it forgets them at the second |).
 */
#ifndef HEDDLE_SEARCH_H
#define HEDDLE_SEARCH_H

#include <heddle/policy.h>

#ifdef __bpf__
#define HD_SEARCH_INLINE static inline __attribute__((always_inline, unused))
/* Keeps clang from recognising the comparison and making a branch of it again. */
#define HD_OPAQUE(x) asm volatile("" : "+r"(x))
#else
#define HD_SEARCH_INLINE static inline __attribute__((unused))
#define HD_OPAQUE(x) ((void)0)
#endif

/* i with its bits within mask, as they are, for the verifier to see too. */
HD_SEARCH_INLINE __u64 hd_bounded(__u64 i, __u64 mask)
{
	HD_OPAQUE(i);
	return i & mask;
}

/* 1: a >= b, else 0. For any 64-bit numbers: the borrow out of a - b (Hacker's Delight, section 2-13). */
HD_SEARCH_INLINE __u64 hd_not_below64(__u64 a, __u64 b)
{
	__u64 borrow = (~a & b) | ((~a | b) & (a - b));

	HD_OPAQUE(borrow);
	return (borrow >> 63) ^ 1;
}

/* The same for numbers below 2^32, where the sign of the 64-bit difference is enough. */
HD_SEARCH_INLINE __u64 hd_not_below32(__u32 a, __u32 b)
{
	__u64 difference = (__u64)a - (__u64)b;

	HD_OPAQUE(difference);
	return (difference >> 63) ^ 1;
}

/* The last entry whose key is not above `key`: 0..HD_ADDR_FANOUT-1. key[0] is never read: the way down guarantees it. */
HD_SEARCH_INLINE __u32 hd_addr6_node_find(const struct hd_addr6_node *n, __u64 key)
{
	__u64 i = hd_not_below64(key, n->key[8]) << 3;

	i |= hd_not_below64(key, n->key[i | 4]) << 2;
	i = hd_bounded(i, 12);
	i |= hd_not_below64(key, n->key[i | 2]) << 1;
	i = hd_bounded(i, 14);
	i |= hd_not_below64(key, n->key[i | 1]);
	return (__u32)hd_bounded(i, 15);
}

/* The same in a node of IPv4. */
HD_SEARCH_INLINE __u32 hd_addr4_node_find(const struct hd_addr4_node *n, __u32 key)
{
	__u64 i = hd_not_below32(key, n->key[8]) << 3;

	i |= hd_not_below32(key, n->key[i | 4]) << 2;
	i = hd_bounded(i, 12);
	i |= hd_not_below32(key, n->key[i | 2]) << 1;
	i = hd_bounded(i, 14);
	i |= hd_not_below32(key, n->key[i | 1]);
	return (__u32)hd_bounded(i, 15);
}

static inline __u32 hd_table_shift(__u32 value)
{
	return value >> HD_TABLE_SHIFT & 31;
}

/* Where an address lies within all that the first table of a tree covers: what the slots of this table and those behind it go by. */
HD_SEARCH_INLINE __u64 hd_table_offset(__u32 value, __u32 base, __u32 key)
{
	__u64 last = ((__u64)HD_TABLE_SLOTS << hd_table_shift(value)) - 1, offset = key < base ? 0 : key - base;

	return offset < last ? offset : last;
}

/* The slot of a table: 0..HD_TABLE_SLOTS-1. */
HD_SEARCH_INLINE __u32 hd_table_slot(__u32 value, __u64 offset)
{
	return (__u32)hd_bounded(offset >> hd_table_shift(value), HD_TABLE_SLOTS - 1);
}

/* The same in a rule tree: 0..HD_RULE_FANOUT-1. */
HD_SEARCH_INLINE __u32 hd_rule_node_find(const struct hd_rule_node *n, __u32 key)
{
	__u64 i = hd_not_below32(key, n->key[4]) << 2;

	i |= hd_not_below32(key, n->key[i | 2]) << 1;
	i = hd_bounded(i, 6);
	i |= hd_not_below32(key, n->key[i | 1]);
	return (__u32)hd_bounded(i, 7);
}

static_assert(HD_ADDR_FANOUT == 16 && HD_RULE_FANOUT == 8, "the searches above are written out for these");

#endif
