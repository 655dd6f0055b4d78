/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Whether some fast path of an uplink wants a packet: one lookup for each shape that its matches have, whatever their number. */
#ifndef HEDDLE_STAGE_MATCH_H
#define HEDDLE_STAGE_MATCH_H

#include "explain.h"
#include "packet.h"
#include "steer.h"

static __always_inline void match_address(struct hd_addr *to, const struct hd_addr *from, const struct hd_addr *mask)
{
	to->q[0] = from->q[0] & mask->q[0];
	to->q[1] = from->q[1] & mask->q[1];
}

/* After the verdict, of a packet that may pass. As steer_to(), or STEER_FORWARD. */
__noinline int steer_matching(struct xdp_md *ctx, struct pkt *p)
{
	const struct hd_fast_device *device;
	const struct hd_match *match;
	struct hd_match_key key;
	__u32 ifindex, i;

	if (!p)
		return 0;
	ifindex = p->ifindex;
	device = bpf_map_lookup_elem(&fast_devices, &ifindex);
	/* The kernel must see all fragments of a datagram or none. */
	if (!device || p->fragment)
		return 0;
	for (i = 0; i < HD_FAST_SHAPES && i < device->shapes; i++) {
		const struct hd_match_shape *shape = &device->shape[i];
		__u32 fields = shape->fields;

		__builtin_memset(&key, 0, sizeof(key));
		key.ifindex = ifindex;
		key.shape = shape->id;
		match_address(&key.source, &p->source, &shape->source);
		match_address(&key.destination, &p->destination, &shape->destination);
		if (fields & HD_MATCH_RULE)
			key.rule = p->rule;
		if (fields & HD_MATCH_PROTOCOL)
			key.protocol = p->protocol;
		if (fields & HD_MATCH_SPORT)
			key.sport = p->sport;
		if (fields & HD_MATCH_DPORT)
			key.dport = p->dport;
		if (fields & HD_MATCH_VLAN)
			key.vlan = p->vlan[0] & 0xfff;
		match = bpf_map_lookup_elem(&fast_matches, &key);
		if (!match)
			continue;
		if (dry_run) {
			EXPLAIN(fast_path = match->index + 1);
			return 0;
		}
		return match->flags & HD_FAST_FORWARD ? STEER_FORWARD : steer_to(ctx, match->index, match->flags);
	}
	return 0;
}

#endif
