/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Who has a say about a packet that crosses an uplink: the policy of that device in the packet's direction. See track.h. */
#ifndef HEDDLE_STAGE_UPLINK_H
#define HEDDLE_STAGE_UPLINK_H

#include "flow.h"
#include "policy.h"
#include "port.h"

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

static __always_inline const struct hd_roots *network_roots(__u32 network, __u32 generation)
{
	return NULL;
}

static __always_inline __u32 peer_network(const struct pkt *p, bool source)
{
	return 0;
}

static __always_inline void event_place(struct hd_event *e, const struct pkt *p)
{
	e->network = p->network;
	e->mtu = 0;
	e->peer = 0;
}

static __always_inline __u32 fragment_version(const struct pkt *p)
{
	return by_direction(p->version, p->direction);
}

static __always_inline int ask(struct pkt *p, __u32 reply)
{
	return policy_judge(p, reply ? !p->direction : p->direction, reply);
}

static __always_inline bool pickup_answers(const struct pkt *p)
{
	(void)p;
	return true;
}

static __always_inline __u32 opened_by(const struct pkt *p, bool reply)
{
	return (p->direction == HD_EGRESS) != reply ? HD_FLOW_DIR_EGRESS : 0;
}

static __always_inline void flow_stamp(const struct pkt *p, struct hd_flow *flow)
{
	flow->version = by_direction(p->version, flow_direction(flow));
	flow->rule = p->rule;
}

static __always_inline bool flow_ours(struct pkt *p, const struct hd_flow *flow)
{
	return true;
}

/* What the host sent is answered from the wire. */
static __always_inline bool flow_told(const struct pkt *p, const struct hd_flow *flow, __u32 side)
{
	bool sent_out = (side == HD_ORIG) == (flow_direction(flow) == HD_EGRESS);

	if (!(flow->flags & HD_FLOW_FORWARDED) && sent_out != (p->direction == HD_INGRESS))
		return false;
	/* A flow that the policy no longer wants ends with its own next packet; until it has been asked, nothing rides on it. */
	return flow->version == by_direction(p->version, flow_direction(flow)) || flow->ifindex != p->ifindex;
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

#endif
