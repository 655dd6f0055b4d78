/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Packets of flows between ports that are known, and about which nothing is new. */
#ifndef HEDDLE_STAGE_KNOWN_H
#define HEDDLE_STAGE_KNOWN_H

#include "between.h"

#include "tcp.h"

/* The flow is known, and nothing about it is new: policy, ends, state. */
static __always_inline bool unchanged_flow(const struct pkt *p, const struct hd_flow *flow, const struct hd_control *c)
{
	if (p->fragment || flow_expired(flow, c, p->now) || !flow_current(p, flow))
		return false;
	if (p->protocol == PROTO_TCP)
		return p->found == HD_FOUND_PROVEN && !(p->tcp_flags & (TCP_SYN | TCP_FIN | TCP_RST)) &&
		       flow->state == HD_FS_TCP_ESTABLISHED;
	return p->found == HD_FOUND_PROVEN || flow_side(p, flow) == HD_ORIG; /* else it proves it */
}

/* Whose flow it is known to be, and nothing about it is new: policy, ends, state. */
static __always_inline bool ordinary_flow(struct pkt *p, struct hd_flow *flow, const struct hd_control *c)
{
	__u32 side = flow_side(p, flow);

	if (p->fragment || flow_expired(flow, c, p->now) || !flow_current(p, flow))
		return false;
	if (p->protocol == PROTO_TCP) {
		if (p->found != HD_FOUND_PROVEN || !tcp_ordinary(flow, p, side))
			return false;
	} else if (p->found != HD_FOUND_PROVEN && side == HD_REPLY) {
		return false; /* proves it */
	}
	flow_count(flow, p, side);
	p->rule = flow->rule;
	p->second_rule = flow->second_rule;
	EXPLAIN(flow_state = flow->state);
	EXPLAIN(flow_reply = side);
	return true;
}

/* An address of the port has moved since the flow was last seen. */
static __always_inline bool moved_since(__u32 moved, const struct hd_flow *flow)
{
	return hd_moved_since(moved, flow->last_seen);
}

/* Nothing about it can be ordinary: it is no use to look for its flow first. */
static __always_inline bool opens_tcp(const struct pkt *p)
{
	return p->protocol == PROTO_TCP && p->tcp_flags & TCP_SYN;
}

/*
 * One lookup, mostly, of flows that are not TCP, too: the hint says in which table this one was last, and where it is wrong the other one is
 * asked. The hints are those of TCP: one flow that takes the other's costs it a lookup.
 */
static __always_inline struct hd_flow *known_flow(struct pkt *p)
{
	struct hd_scratch *room = scratch_room();
	__u32 *hint, at, table = TABLE_PROVEN;
	union hd_flow_key *key;
	struct hd_flow *flow;

	if (!room)
		return NULL;
	key = &room->key;
	__builtin_memset(key, 0, sizeof(*key));
	flow_key(p, key);
	p->found = HD_FOUND_PROVEN;
	if (p->protocol == PROTO_TCP)
		return flow_lookup(p, TABLE_PROVEN, key);
	at = slot_hint(p->family, key);
	hint = bpf_map_lookup_elem(&flow_hints, &at);
	if (hint && *hint == HD_FLOW_HINT_NEW)
		table = TABLE_NEW;
	flow = flow_lookup(p, table, key);
	if (!flow) {
		table = table == TABLE_NEW ? TABLE_PROVEN : TABLE_NEW;
		flow = flow_lookup(p, table, key);
		if (flow)
			flow_give_hint(p, table, key);
	}
	if (table == TABLE_NEW)
		p->found = HD_FOUND_NEW;
	if (dry_run && !flow)
		p->found = HD_FOUND_NONE; /* or a packet that is dropped before it is looked for again is told to have one */
	return flow;
}

#endif
