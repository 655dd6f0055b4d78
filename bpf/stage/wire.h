/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Frames on an uplink that belong to a network: by the id of an 802.1Q tag, the outer one. Asked only about frames that have a tag. XDP leaves them
 * to tc_uplink_in, which calls tc_wire_in; where that is not there, they are judged like any other frame.
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

/* The outer tag is in the frame, and has been parsed. */
static __always_inline bool wire_inline(HOOK_CTX *ctx, const struct pkt *p)
{
	const struct ethhdr *eth = hook_data(ctx);

	if (!p->vlan[0] || (void *)(eth + 1) > hook_data_end(ctx) || eth->h_proto != bpf_htons(ETH_P_8021Q))
		return false;
	return wire_find(p->vlan[0]) != NULL;
}

#endif
