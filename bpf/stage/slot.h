/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Slots of proven TCP flows: taken when a flow is promoted, given back by whoever deletes it, packet or sweep, exactly once. */
#ifndef HEDDLE_STAGE_SLOT_H
#define HEDDLE_STAGE_SLOT_H

#include "compat.h"

#include <maps/flow.bpf.h>

/* `used` and `epoch` as one number: they change hands together. */
static __always_inline __u64 slot_owner(__u32 used, __u32 epoch)
{
	return (__u64)epoch << 32 | used;
}

static __always_inline void slot_free(__u32 index, __u32 used, __u32 epoch)
{
	struct hd_flow_slot *slot = bpf_map_lookup_elem(&flow_slots, &index);
	__u64 owner = slot_owner(used, epoch);

	/* Packet and sweep may both get here for one flow; only one finds its owner still in place. */
	if (slot && __sync_val_compare_and_swap((__u64 *)slot, owner, 0) == owner)
		bpf_map_push_elem(&flow_free, &index, 0);
}

static __always_inline void slot_use(__u32 index, __u32 used, const union hd_flow_key *key, __u32 epoch)
{
	struct hd_flow_slot *slot = bpf_map_lookup_elem(&flow_slots, &index);

	if (!slot)
		return;
	slot->key6 = key->key6; /* the whole of the union */
	*(volatile __u64 *)slot = slot_owner(used, epoch);
}

#endif
