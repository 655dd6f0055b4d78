/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Packets and flows: who may open one, who may ride on one, and when a flow is judged again. */
#ifndef HEDDLE_STAGE_TRACK_H
#define HEDDLE_STAGE_TRACK_H

#include "flow.h"
#include "policy.h"
#include "port.h"
#include "tcp.h"

/*
 * forward: pass. On egress the packet says itself that it came in elsewhere; on ingress the routing table says whether it will leave
 * again. A host that does not forward pays for one test only.
 */
__noinline int forwarded(HOOK_CTX *ctx, struct pkt *p)
{
	struct bpf_fib_lookup fib = {};
	long r;

	if (!p || p->port_flags & HD_PORT_FORWARD_JUDGE)
		return 0;
	if (p->direction == HD_EGRESS)
		return p->arrived_on != 0;
	fib.l4_protocol = p->protocol;
	fib.tot_len = 0; /* no MTU check */
	fib.ifindex = p->ifindex;
	if (p->family == 4) {
		fib.family = AF_INET;
		fib.ipv4_src = p->source.w[3];
		fib.ipv4_dst = p->destination.w[3];
	} else {
		if (p->destination.b[0] == 0xff)
			return 0;
		fib.family = AF_INET6;
		__builtin_memcpy(fib.ipv6_src, &p->source, sizeof(fib.ipv6_src));
		__builtin_memcpy(fib.ipv6_dst, &p->destination, sizeof(fib.ipv6_dst));
	}
	r = bpf_fib_lookup(ctx, &fib, sizeof(fib), 0);
	return r == BPF_FIB_LKUP_RET_SUCCESS || r == BPF_FIB_LKUP_RET_UNSUPP_LWT || r == BPF_FIB_LKUP_RET_NO_NEIGH ||
	       r == BPF_FIB_LKUP_RET_FRAG_NEEDED;
}

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

/* A connection that ran before we came: judged as new, first as it stands, then as the answer to one that the other end opened. */
static __always_inline int pick_up(HOOK_CTX *ctx, struct pkt *p)
{
	__u32 flags = HD_FLOW_PICKUP, side = HD_ORIG;
	union hd_flow_key key = {};
	struct hd_flow *flow;
	int r;

	if (forwarded(ctx, p)) {
		p->rule = HD_RULE_FORWARD;
		flags |= HD_FLOW_FORWARDED | (p->direction == HD_EGRESS ? HD_FLOW_DIR_EGRESS : 0);
		EXPLAIN(forwarded = 1);
	} else {
		r = policy_judge(p, p->direction, 0);
		if (r && r != HD_R_RULE_TREE && !policy_judge(p, !p->direction, 1)) {
			r = 0;
			side = HD_REPLY;
		}
		if (r)
			return r;
		if ((p->direction == HD_EGRESS) == (side == HD_ORIG))
			flags |= HD_FLOW_DIR_EGRESS;
	}
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
		r = policy_judge(p, p->direction, 0);
		if (r)
			return r;
	}
	if (p->direction == HD_EGRESS)
		flags |= HD_FLOW_DIR_EGRESS;
	return flow_create(p, first_state(p), flags, HD_ORIG);
}

/*
 * The policy that opened the flow has changed since: ask it again, about the packet that opened it. Denied: the flow ends here and this
 * packet with it. p holds the packet's own port's policy, or by now that of the flow's home.
 */
__noinline int track_again(struct pkt *p, struct hd_flow *flow)
{
	__u32 direction, reply, icmp_type;
	__u8 flags;
	int r;

	if (!p || !flow)
		return HD_R_RULE_TREE;
	flags = flow->flags;
	direction = flow_direction(flow);
	if (flags & HD_FLOW_FORWARDED && !(p->port_flags & HD_PORT_FORWARD_JUDGE)) {
		if (!dry_run)
			flow->version = by_direction(p->version, direction);
		return 0;
	}
	EXPLAIN(rejudged = 1);
	/* The opener's packet: the peer of policy_judge turns with `reply`. An echo flow was opened by a request. */
	reply = flow_side(p, flow) == HD_REPLY;
	icmp_type = p->icmp_type;
	if (p->protocol == PROTO_ICMP || p->protocol == PROTO_ICMPV6)
		p->icmp_type = p->family == 4 ? ICMP_ECHO_REQUEST : ICMPV6_ECHO_REQUEST;
	r = policy_judge(p, direction, reply);
	p->icmp_type = icmp_type;
	if (dry_run)
		return r;
	if (!r) {
		flow->version = by_direction(p->version, direction);
		flow->rule = p->rule;
		flow->flags = flags & ~HD_FLOW_FORWARDED;
		total_add(HD_TOTAL_REJUDGED);
	} else if (r != HD_R_RULE_TREE) {
		total_add(HD_TOTAL_REJUDGED);
		total_add(HD_TOTAL_CUT);
		flow_delete(p, flow);
	}
	return r;
}

/*
 * Under forward: judge, what came in by one guarded uplink and leaves by another is judged by the egress policy of that one as well: its
 * version and rule are the flow's second ones.
 */
static __always_inline int track_egress_too(struct pkt *p, struct hd_flow *flow)
{
	__u32 rule = p->rule;
	int r;

	if (flow->second_version == p->version[HD_EGRESS])
		return 0;
	r = policy_judge(p, HD_EGRESS, 0);
	if (r)
		return r;
	if (!dry_run) {
		flow->second_version = p->version[HD_EGRESS];
		flow->second_rule = p->rule;
	}
	p->rule = rule;
	return 0;
}

/* A flow seen elsewhere than where it was opened: the policy of its home decides. */
static __always_inline int track_home(struct pkt *p, struct hd_flow *flow)
{
	struct hd_scratch *room = scratch_room();
	struct pkt *home;
	int r;

	if (!room)
		return HD_R_RULE_TREE;
	home = &room->packet;
	*home = *p;
	if (!port_policy(home, flow->ifindex) || flow->version == by_direction(home->version, flow_direction(flow)))
		return 0;
	r = track_again(home, flow);
	p->rule = home->rule;
	p->verdict = home->verdict;
	p->log = home->log;
	return r;
}

/* Whether the flow may still be used by this packet: 0 or the drop reason. */
__noinline int track_current(struct pkt *p, struct hd_flow *flow)
{
	__u32 direction, side;
	bool away, stale;
	int r;

	if (!p || !flow)
		return HD_R_RULE_TREE;
	direction = flow_direction(flow);
	side = flow_side(p, flow);
	away = flow->ifindex != p->ifindex;

	if (away && side == HD_ORIG && direction == p->direction) {
		/* The opener's packets take another uplink now: that one's policy counts from here on. */
		r = track_again(p, flow);
		if (r)
			return r;
		if (!dry_run)
			flow->ifindex = p->ifindex;
		return 0;
	}
	if (away) {
		r = track_home(p, flow);
		if (r)
			return r;
		if (p->arrived_on && p->port_flags & HD_PORT_FORWARD_JUDGE && side == HD_ORIG && p->direction == HD_EGRESS)
			return track_egress_too(p, flow);
		return 0;
	}
	stale = flow->version != by_direction(p->version, direction) ||
		(flow->flags & HD_FLOW_FORWARDED && p->port_flags & HD_PORT_FORWARD_JUDGE);
	return stale ? track_again(p, flow) : 0;
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
		r = policy_judge(p, p->direction, 0);
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
	if (flow && flow_expired(flow, c, p->now)) {
		flow_delete(p, flow);
		flow = NULL;
	}
	if (!flow) {
		p->found = HD_FOUND_NEW;
		flow = flow_lookup(p, TABLE_NEW, key);
		/* Past its time it is overwritten or displaced, which needs no help. */
		if (flow && flow_expired(flow, c, p->now))
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
