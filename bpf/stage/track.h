/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Packets and flows: who may open one, who may ride on one, and when a flow is judged again. */
#ifndef HEDDLE_STAGE_TRACK_H
#define HEDDLE_STAGE_TRACK_H

#include "flow.h"
#include "policy.h"
#include "port.h"
#include "tcp.h"

/*
 * Who has a say about a packet, in uplink.h or between.h:
 *   forwarded(ctx, p)       it passes through the host unjudged
 *   ask(p, reply)           the policy's answer about a packet without a flow; reply: taken as the answer to one that the other end opened
 *   opened_by(p, reply)     HD_FLOW_DIR_EGRESS or 0, of a flow that it opens
 *   flow_stamp(p, flow)     notes in a new flow who judged it
 *   pickup_answers(p)       while running connections are picked up, a segment may also be the answer to what the other end opened
 *   flow_ours(p, flow)      the flow belongs to the ends that the packet has; between ports it may say that its way is another one
 *   track_current(p, flow)  whether the flow may still be used by this packet: 0 or the drop reason
 *   flow_told(p, flow, side) an ICMP error on this way can be about what that side of the flow sent
 */
static __always_inline __u32 first_state(const struct pkt *p)
{
	switch (p->protocol) {
	case PROTO_TCP:
		return HD_FS_TCP_SYN_SENT;
	case PROTO_UDP:
		return HD_FS_UDP_NEW;
	case PROTO_ICMP:
	case PROTO_ICMPV6:
		return HD_FS_ICMP_NEW;
	}
	return HD_FS_OTHER_NEW;
}

static __always_inline int pickup_time(const struct pkt *p)
{
	__u32 zero = 0;
	struct hd_control *c = bpf_map_lookup_elem(&control, &zero);

	return c && c->flags & HD_CONTROL_PICKUP && (__s32)(c->pickup_until - p->now) > 0;
}

/* A connection that ran before we came: judged as new, first as it stands, then, at an uplink, as the answer to one that the other end opened. */
static __always_inline int pick_up(HOOK_CTX *ctx, struct pkt *p)
{
	__u32 flags = HD_FLOW_PICKUP, side = HD_ORIG;
	union hd_flow_key key = {};
	struct hd_flow *flow;
	int r;

	if (forwarded(ctx, p)) {
		p->rule = HD_RULE_FORWARD;
		flags |= HD_FLOW_FORWARDED;
		EXPLAIN(forwarded = 1);
	} else {
		r = ask(p, 0);
		if (r && r != HD_R_RULE_TREE && pickup_answers(p) && !ask(p, 1)) {
			r = 0;
			side = HD_REPLY;
		}
		if (r)
			return r;
	}
	flags |= opened_by(p, side == HD_REPLY);
	EXPLAIN(picked_up = 1);
	r = flow_create(p, HD_FS_TCP_ESTABLISHED, flags, side);
	if (r || dry_run)
		return r;
	total_add(HD_TOTAL_PICKED_UP);
	flow_key(p, &key);
	flow = flow_lookup(p, TABLE_NEW, &key);
	if (flow)
		flow_promote(p, flow);
	return 0;
}

/* A packet without a flow. */
__noinline int track_new(HOOK_CTX *ctx, struct pkt *p)
{
	__u32 flags = 0;
	int r;

	if (!p)
		return HD_R_RULE_TREE;
	if (p->protocol == PROTO_TCP && (p->tcp_flags & (TCP_SYN | TCP_ACK)) != TCP_SYN) {
		if (p->tcp_flags & (TCP_SYN | TCP_RST) || !pickup_time(p))
			return HD_R_TCP_NO_FLOW;
		return pick_up(ctx, p);
	}
	if ((p->protocol == PROTO_ICMP && p->family == 4 && p->icmp_type == ICMP_ECHO_REPLY) ||
		(p->protocol == PROTO_ICMPV6 && p->family == 6 && p->icmp_type == ICMPV6_ECHO_REPLY))
		return HD_R_ICMP_UNRELATED;
	if (forwarded(ctx, p)) {
		p->rule = HD_RULE_FORWARD;
		flags = HD_FLOW_FORWARDED;
		EXPLAIN(forwarded = 1);
	} else {
		r = ask(p, 0);
		if (r)
			return r;
	}
	return flow_create(p, first_state(p), flags | opened_by(p, 0), HD_ORIG);
}

/* The state of a flow whose both ends have spoken. */
static __always_inline __u8 replied_state(const struct pkt *p)
{
	switch (p->protocol) {
	case PROTO_UDP:
		return HD_FS_UDP_REPLIED;
	case PROTO_ICMP:
	case PROTO_ICMPV6:
		return HD_FS_ICMP_REPLIED;
	}
	return HD_FS_OTHER_REPLIED;
}

static __always_inline int track_tcp(struct pkt *p, struct hd_flow *flow, __u32 side)
{
	__u32 before = flow->state, seen = flow->last_seen, flags = flow->flags;
	__u32 rule = p->rule;
	int r;

	r = tcp_segment(flow, p, side);
	if (r == TCP_RENEW)
		return r;
	if (r == TCP_ASK) {
		if (flags & HD_FLOW_FORWARDED)
			return 0;
		r = ask(p, 0);
		p->log = 0;
		if (!r)
			p->rule = rule;
		return r;
	}
	if (r || dry_run)
		return r;
	flow_count(flow, p, side);
	if (flow->state == HD_FS_TCP_CLOSED) {
		if (p->found == HD_FOUND_PROVEN)
			flow_demote(p, flow);
		return 0;
	}
	/* Where the table was full, once more with each tick. */
	if (p->found == HD_FOUND_NEW && flow->state >= HD_FS_TCP_ESTABLISHED && (before != flow->state || seen != p->now))
		flow_promote(p, flow);
	return 0;
}

/* A packet with its flow; p->found says where that was. */
__noinline int track_known(struct pkt *p, struct hd_flow *flow)
{
	__u32 side;

	if (!p || !flow)
		return HD_R_RULE_TREE;
	side = flow_side(p, flow);
	if (p->protocol == PROTO_TCP)
		return track_tcp(p, flow, side);
	if (dry_run)
		return 0;
	flow_count(flow, p, side);
	if (side == HD_REPLY && p->found == HD_FOUND_NEW) {
		flow->state = replied_state(p);
		flow_promote(p, flow);
	}
	return 0;
}

/* proven: the flow, if there is one among the proven. 0 or the drop reason. */
static __always_inline int track(
	HOOK_CTX *ctx, struct pkt *p, struct hd_flow *proven, const union hd_flow_key *key, const struct hd_control *c)
{
	struct hd_flow *flow = proven;
	int r;

	if (p->protocol == PROTO_TCP && p->tcp_flags & TCP_SYN)
		tcp_options(ctx, p);
	p->found = HD_FOUND_PROVEN;
	if (flow && (flow_expired(flow, c, p->now) || !flow_ours(p, flow))) {
		flow_delete(p, flow);
		flow = NULL;
	}
	if (!flow) {
		p->found = HD_FOUND_NEW;
		flow = flow_lookup(p, TABLE_NEW, key);
		/* Past its time it is overwritten or displaced, which needs no help. */
		if (flow && (flow_expired(flow, c, p->now) || !flow_ours(p, flow)))
			flow = NULL;
	}
	if (!flow) {
		p->found = HD_FOUND_NONE;
		return track_new(ctx, p);
	}
	p->rule = flow->rule;
	EXPLAIN(flow_state = flow->state);
	EXPLAIN(flow_reply = flow_side(p, flow));
	if (flow->flags & HD_FLOW_FORWARDED)
		EXPLAIN(forwarded = 1);
	r = track_current(p, flow);
	if (r)
		return r;
	r = track_known(p, flow);
	if (r != TCP_RENEW)
		return r;
	flow_delete(p, flow);
	p->found = HD_FOUND_NONE;
	return track_new(ctx, p);
}

#endif
