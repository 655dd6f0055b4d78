/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Frames on an uplink that belong to a network: by the id of the outer tag. That is an 802.1Q tag in segment 0, in another one an 802.1ad tag around
 * the 802.1Q tag of the segment. Asked only about frames that have a tag. XDP leaves them to tc_uplink_in, which calls tc_wire_in; where that
 * is not there, they are judged like any other frame.
 */
#ifndef HEDDLE_STAGE_WIRE_H
#define HEDDLE_STAGE_WIRE_H

#include "packet.h"

#include <maps/wire.bpf.h>

static __always_inline const struct hd_wire *wire_find(__u32 tag)
{
	struct hd_wire_key key = {.vlan = tag & 0xfff};

	return bpf_map_lookup_elem(&wire_vlans, &key);
}

/* An 802.1Q tag, or, around one that says the segment, an 802.1ad tag. Types in network byte order. */
static __always_inline bool wire_types(__u32 outer, __u32 inner)
{
	return outer == bpf_htons(ETH_P_8021Q) || (outer == bpf_htons(ETH_P_8021AD) && inner == bpf_htons(ETH_P_8021Q));
}

/* The outer tag is in the frame, and has been parsed. */
static __always_inline bool wire_inline(HOOK_CTX *ctx, const struct pkt *p)
{
	const struct {
		struct ethhdr eth;
		__be16 tci, inner;
	} *frame = hook_data(ctx);

	if (!p->vlan[0] || (void *)(frame + 1) > hook_data_end(ctx) || !wire_types(frame->eth.h_proto, frame->inner))
		return false;
	return wire_find(p->vlan[0]) != NULL;
}

#endif
