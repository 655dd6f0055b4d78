/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The whole way of a packet over an uplink. Read this first. */
#ifndef HEDDLE_STAGE_JUDGE_H
#define HEDDLE_STAGE_JUDGE_H

#include "uplink.h"

#include "classify.h"

/*
 * The ordinary packet: its flow is proven and judged by the policy in force, and it changes nothing but numbers. True: it may pass, and is
 * accounted for in its flow.
 */
static __always_inline bool ordinary(struct pkt *p, struct hd_flow *flow, const struct hd_control *c)
{
	__u32 side = flow_side(p, flow);

	if (flow->version != by_direction(p->version, flow_direction(flow)) || flow->ifindex != p->ifindex ||
		flow->flags & HD_FLOW_FORWARDED)
		return false;
	if (p->fragment || flow_expired(flow, c, p->now))
		return false;
	if (p->protocol == PROTO_TCP && !tcp_ordinary(flow, p, side))
		return false;
	flow_count(flow, p, side);
	p->found = HD_FOUND_PROVEN;
	p->rule = flow->rule;
	EXPLAIN(flow_state = flow->state);
	EXPLAIN(flow_reply = side);
	return true;
}

/* Everything but what the cache knows. */
__noinline int judge(HOOK_CTX *ctx, struct pkt *p)
{
	struct hd_scratch *room = scratch_room();
	struct hd_flow *flow = NULL;
	union hd_flow_key *key;
	struct hd_control *c;
	__u32 zero = 0;
	int reason;

	c = bpf_map_lookup_elem(&control, &zero);
	if (!p || !c || !room)
		return HD_R_RULE_TREE;
	key = &room->key;
	__builtin_memset(key, 0, sizeof(*key));
	if (p->family && p->fragment != FRAGMENT_LATER && !(icmp_is(p) && !icmp_echo(p))) {
		flow_key(p, key);
		flow = flow_lookup(p, TABLE_PROVEN, key);
		if (flow && flow->flags & HD_FLOW_HOT)
			flow_recall(p, flow);
		if (flow && ordinary(p, flow, c)) {
			if (p->protocol == PROTO_TCP && flow->packets[0] + flow->packets[1] >= HD_HOT_PACKETS)
				flow_lend(p, flow);
			return 0;
		}
	}
	reason = p->family ? classify(ctx, p, flow, key, c) : policy_judge(p, p->direction, 0);
	if (p->fragment == FRAGMENT_FIRST)
		fragment_first(p, reason);
	return reason;
}

/* Most packets are of busy connections. One that opens or ends a connection is none of theirs: it need not touch that memory. */
static __always_inline bool judge_busy(struct pkt *p)
{
	union hd_flow_key key;
	struct hd_hot *hot;

	if (likely(p->family && p->protocol == PROTO_TCP && !p->fragment && !dry_run) &&
		!(p->tcp_flags & (TCP_SYN | TCP_FIN | TCP_RST))) {
		flow_key(p, &key);
		hot = hot_find(p->family, &key);
		if (likely(hot)) {
			if (unlikely(hot_due(hot, p->now)))
				flow_renew(p);
			if (likely(tcp_hot(hot, p)))
				return true;
		}
	}
	return false;
}

/* After parse(). 0 or the drop reason. */
static __always_inline int judge_parsed(HOOK_CTX *ctx, struct pkt *p)
{
	return judge_busy(p) ? 0 : judge(ctx, p);
}

#endif
