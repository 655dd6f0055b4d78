/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What busy flows lend to the cache: see heddle/hot.h. Twins do not look here, they know a flow from its slot. */
#ifndef HEDDLE_STAGE_HOT_H
#define HEDDLE_STAGE_HOT_H

#include "compat.h"
#include "slot.h"

#include <heddle/hot.h>
#include <heddle/port.h>

static __always_inline struct hd_hot *hot_entry4(__u32 index, const union hd_flow_key *key)
{
	struct hd_hot4 *entry = bpf_map_lookup_elem(&flow_hot4, &index);

	return entry && entry->key[0] == key->q[0] && entry->key[1] == key->q[1] ? &entry->hot : NULL;
}

static __always_inline struct hd_hot *hot_entry6(__u32 index, const union hd_flow_key *key)
{
	struct hd_hot6 *entry = bpf_map_lookup_elem(&flow_hot6, &index);

	if (!entry || entry->key[0] != key->q[0] || entry->key[1] != key->q[1] || entry->key[2] != key->q[2])
		return NULL;
	return entry->key[3] == key->q[3] && entry->key[4] == key->q[4] ? &entry->hot : NULL;
}

static __always_inline __u32 hot_index(__u32 family, const union hd_flow_key *key)
{
	return hd_flow_hash(family, key) & (HD_HOT_ENTRIES - 1);
}

/* The flow's entry, or NULL. */
static __always_inline struct hd_hot *hot_find(__u32 family, const union hd_flow_key *key)
{
	__u32 index = hot_index(family, key);
	struct hd_hot *hot;

	if (family == 4) {
		hot = hot_entry4(index, key);
		if (unlikely(!hot))
			hot = hot_entry4(index ^ 1, key);
	} else {
		hot = hot_entry6(index, key);
		if (unlikely(!hot))
			hot = hot_entry6(index ^ 1, key);
	}
	return hot && HD_HOT_FLAGS(hot) & HD_HOT_USED ? hot : NULL;
}

static __always_inline bool hot_due(const struct hd_hot *hot, __u32 now)
{
	return (__s32)(now - hot->lent) >= HD_HOT_TICKS;
}

/* The side of the flow that is the host's. */
static __always_inline __u32 hot_host(const struct hd_hot *hot)
{
	return HD_HOT_FLAGS(hot) & HD_HOT_EGRESS ? HD_ORIG : HD_REPLY;
}

static __always_inline __u32 hot_window(const struct hd_hot *hot)
{
	return (__u32)hot->window << (HD_HOT_FLAGS(hot) >> HD_HOT_SCALE & 15);
}

/* What was lent, up to now. Whoever takes a counter takes it alone. */
static __always_inline void hot_settle(struct hd_hot *hot, struct hd_flow *flow, __u32 now)
{
	__u32 packets = __sync_lock_test_and_set(&hot->all_packets, 0), last = hot->lent + HD_HOT_TICKS;

	flow->packets[HD_ORIG] += packets & 0xffff;
	flow->packets[HD_REPLY] += packets >> 16;
	flow->bytes[HD_ORIG] += __sync_lock_test_and_set(&hot->bytes[HD_ORIG], 0);
	flow->bytes[HD_REPLY] += __sync_lock_test_and_set(&hot->bytes[HD_REPLY], 0);
	flow->seq_end[HD_ORIG] = hot->seq_end[HD_ORIG];
	flow->seq_end[HD_REPLY] = hot->seq_end[HD_REPLY];
	flow->ack[HD_ORIG] = hot->ack[HD_ORIG];
	flow->ack[HD_REPLY] = hot->ack[HD_REPLY];
	if (hot_host(hot) == HD_ORIG)
		flow->win[HD_ORIG] = hot_window(hot);
	else
		flow->win[HD_REPLY] = hot_window(hot);
	/* When its last packet came is not known better than this; a flow never ends too soon for it. */
	if (packets)
		flow->last_seen = (__s32)(now - last) < 0 ? now : last;
}

/* Gives back what was lent, and frees the entry. */
static __always_inline void hot_return(struct hd_hot *hot, struct hd_flow *flow, __u32 now)
{
	hot_settle(hot, flow, now);
	flow->flags &= ~HD_FLOW_HOT;
	*(volatile __u32 *)&hot->rule = 0;
}

/* The flow in the slot that an entry names, if it is still the one that lent. */
static __always_inline struct hd_flow *hot_lender(const struct hd_hot *hot, __u32 family, const union hd_flow_key *key)
{
	__u32 index = hot->slot;
	struct hd_flow_slot *slot = bpf_map_lookup_elem(&flow_slots, &index);

	return slot && slot_is(slot, family, key) && slot->flow.flags & HD_FLOW_HOT ? &slot->flow : NULL;
}

/* A flow in its slot wants back what it lent. */
static __always_inline void hot_recall(__u32 family, const union hd_flow_key *key, struct hd_flow *flow, __u32 now)
{
	struct hd_hot *hot = hot_find(family, key);

	if (hot)
		hot_return(hot, flow, now);
	flow->flags &= ~HD_FLOW_HOT;
}

/* Makes an entry of the pair free, if its flow has been quiet: true when it is. */
static __always_inline bool hot_vacant(struct hd_hot *hot, __u32 family, const __u64 *key, __u32 now)
{
	struct hd_flow *flow;

	if (!(HD_HOT_FLAGS(hot) & HD_HOT_USED))
		return true;
	if (!hot_due(hot, now))
		return false;
	flow = hot_lender(hot, family, (const union hd_flow_key *)key);
	if (flow)
		hot_return(hot, flow, now);
	return true;
}

static __always_inline void hot_fill(struct hd_hot *hot, struct hd_flow *flow, __u32 now)
{
	bool egress = flow->flags & HD_FLOW_DIR_EGRESS;
	__u8 scale = egress ? flow->wscale[HD_ORIG] : flow->wscale[HD_REPLY];
	__u32 window = egress ? flow->win[HD_ORIG] : flow->win[HD_REPLY];
	__u32 flags = HD_HOT_USED | (flow->flags & HD_FLOW_ORIG_IS_HI ? HD_HOT_ORIG_IS_HI : 0) | (egress ? HD_HOT_EGRESS : 0);

	if (scale > 14) /* picked up */
		scale = 14;
	hot->version = flow->version;
	hot->lent = now;
	hot->slot = flow->slot;
	hot->seq_end[HD_ORIG] = flow->seq_end[HD_ORIG];
	hot->seq_end[HD_REPLY] = flow->seq_end[HD_REPLY];
	hot->ack[HD_ORIG] = flow->ack[HD_ORIG];
	hot->ack[HD_REPLY] = flow->ack[HD_REPLY];
	hot->port = flow->ifindex & (HD_PORT_SLOTS - 1);
	hot->window = window >> scale;
	hot->all_packets = 0;
	hot->bytes[HD_ORIG] = hot->bytes[HD_REPLY] = 0;
	flow->flags |= HD_FLOW_HOT;
	/* Last of all: with it the entry counts. */
	*(volatile __u32 *)&hot->rule = (flow->rule & HD_HOT_RULE_MASK) | (flags | (__u32)scale << HD_HOT_SCALE) << 24;
}

static __always_inline bool hot_lend4(__u32 index, const union hd_flow_key *key, struct hd_flow *flow, __u32 now)
{
	struct hd_hot4 *entry = bpf_map_lookup_elem(&flow_hot4, &index);

	if (!entry || !hot_vacant(&entry->hot, 4, entry->key, now))
		return false;
	*(volatile __u32 *)&entry->hot.rule = 0;
	entry->key[0] = key->q[0];
	entry->key[1] = key->q[1];
	hot_fill(&entry->hot, flow, now);
	return true;
}

static __always_inline bool hot_lend6(__u32 index, const union hd_flow_key *key, struct hd_flow *flow, __u32 now)
{
	struct hd_hot6 *entry = bpf_map_lookup_elem(&flow_hot6, &index);
	int i;

	if (!entry || !hot_vacant(&entry->hot, 6, entry->key, now))
		return false;
	*(volatile __u32 *)&entry->hot.rule = 0;
	for (i = 0; i < 5; i++)
		entry->key[i] = key->q[i];
	hot_fill(&entry->hot, flow, now);
	return true;
}

#endif
