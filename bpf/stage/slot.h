/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Slots of proven TCP flows: taken when a flow is promoted, given back by whoever deletes it, packet or sweep, exactly once.
 *
 * The way to a flow goes by a hint first: an array lookup and a comparison are inline, while a hash lookup is a call with calls in it, 60 ns
 * against 10 where the kernel guards its returns. Hints are overwritten freely; the hash is what counts.
 */
#ifndef HEDDLE_STAGE_SLOT_H
#define HEDDLE_STAGE_SLOT_H

#include "compat.h"

#include <maps/flow.bpf.h>

/* `used` and `epoch` as one number: they change hands together. */
static __always_inline __u64 slot_owner(__u32 used, __u32 epoch)
{
	return (__u64)epoch << 32 | used;
}

static __always_inline __u32 slot_hint(__u32 family, const union hd_flow_key *key)
{
	return hd_flow_hash(family, key) & (HD_FLOW_HINTS - 1);
}

static __always_inline bool slot_is(const struct hd_flow_slot *slot, __u32 family, const union hd_flow_key *key)
{
	if (slot->used != family || slot->key.q[0] != key->q[0] || slot->key.q[1] != key->q[1])
		return false;
	return family == 4 || (slot->key.q[2] == key->q[2] && slot->key.q[3] == key->q[3] && slot->key.q[4] == key->q[4]);
}

static __always_inline struct hd_flow *slot_by_hint(__u32 family, const union hd_flow_key *key)
{
	__u32 at = slot_hint(family, key), *hint = bpf_map_lookup_elem(&flow_hints, &at);
	struct hd_flow_slot *slot = hint ? bpf_map_lookup_elem(&flow_slots, hint) : NULL;

	return slot && slot_is(slot, family, key) ? &slot->flow : NULL;
}

static __always_inline void slot_give_hint(__u32 family, const union hd_flow_key *key, __u32 index)
{
	__u32 at = slot_hint(family, key), *hint = bpf_map_lookup_elem(&flow_hints, &at);

	if (hint)
		*hint = index;
}

static __always_inline struct hd_flow *slot_by_hash(__u32 family, const union hd_flow_key *key)
{
	__u32 *index = family == 4 ? bpf_map_lookup_elem(&flows4, &key->key4) : bpf_map_lookup_elem(&flows6, &key->key6);
	struct hd_flow_slot *slot = index ? bpf_map_lookup_elem(&flow_slots, index) : NULL;

	return slot && slot_is(slot, family, key) ? &slot->flow : NULL;
}

static __always_inline void slot_free(__u32 index, __u32 used, __u32 epoch)
{
	struct hd_flow_slot *slot = bpf_map_lookup_elem(&flow_slots, &index);
	__u64 owner = slot_owner(used, epoch);

	/* Packet and sweep may both get here for one flow; only one finds its owner still in place. */
	if (slot && __sync_val_compare_and_swap((__u64 *)&slot->used, owner, 0) == owner)
		bpf_map_push_elem(&flow_free, &index, 0);
}

/* Out of the hash first, so that nobody finds a slot that is free, or somebody else's by now. */
static __always_inline void slot_remove(__u32 index, __u32 family, const union hd_flow_key *key, __u32 epoch)
{
	if (family == 4)
		bpf_map_delete_elem(&flows4, &key->key4);
	else
		bpf_map_delete_elem(&flows6, &key->key6);
	slot_free(index, family, epoch);
}

/* 0; -ENOSPC: no slot is free; -EEXIST: another CPU was first; what the hash says otherwise. flow->slot is set. */
static __always_inline long slot_insert(__u32 family, const union hd_flow_key *key, struct hd_flow *flow)
{
	struct hd_flow_slot *slot;
	__u32 index = 0;
	long r;

	if (bpf_map_pop_elem(&flow_free, &index))
		return -28;
	slot = bpf_map_lookup_elem(&flow_slots, &index);
	if (!slot)
		return -28;
	flow->slot = index;
	slot->key = *key;
	slot->flow = *flow;
	*(volatile __u64 *)&slot->used = slot_owner(family, flow->epoch);
	r = family == 4 ? bpf_map_update_elem(&flows4, &key->key4, &index, BPF_NOEXIST)
			: bpf_map_update_elem(&flows6, &key->key6, &index, BPF_NOEXIST);
	if (r)
		slot_free(index, family, flow->epoch);
	else
		slot_give_hint(family, key, index);
	return r;
}

#endif
