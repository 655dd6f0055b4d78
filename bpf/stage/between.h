/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Who has a say about a packet between ports: the egress policy of the port that opened the flow, and the ingress policy of the one it is for.
 * Both must allow. An end that is no port (the host or what is behind it, the wire) has no policy here. See track.h.
 */
#ifndef HEDDLE_STAGE_BETWEEN_H
#define HEDDLE_STAGE_BETWEEN_H

#include "flow.h"
#include "mac.h"
#include "policy.h"
#include "port.h"
#include "scratch.h"

#include <heddle/overlay.h>
#include <maps/network.bpf.h>

static __always_inline bool is_port(__u32 device)
{
	return device && !(device & HD_DEVICE_PEER); /* HD_DEVICE_WIRE and HD_DEVICE_OUTSIDE have that bit too */
}

static __always_inline bool is_peer(__u32 device)
{
	return device & HD_DEVICE_PEER && device != HD_DEVICE_WIRE && device != HD_DEVICE_OUTSIDE;
}

static __always_inline const struct hd_roots *network_roots(__u32 network, __u32 generation)
{
	const struct hd_network *record = bpf_map_lookup_elem(&networks, &network);
	int at = record ? hd_network_roots_at(record, generation) : -1;

	return at < 0 ? NULL : &record->roots[at & 1];
}

static __always_inline __u32 peer_network(const struct pkt *p, bool source)
{
	return source ? p->source_network : p->destination_network;
}

static __always_inline void event_place(struct hd_event *e, const struct pkt *p)
{
	e->network = p->direction == HD_EGRESS ? p->source_network : p->destination_network;
	e->mtu = p->mtu;
	e->peer = p->peer ? p->peer : is_peer(p->to) ? p->to & ~HD_DEVICE_PEER : 0;
}

static __always_inline __u32 fragment_version(const struct pkt *p)
{
	/* What comes from the wire or a peer follows nothing that somebody else sent. */
	return by_direction(p->version, p->direction) + p->other_version[HD_INGRESS] + (is_port(p->from) ? 0 : p->from);
}

/* What the host's stack forwards has been judged where it came from; here it is judged like any packet. */
static __always_inline int forwarded(HOOK_CTX *ctx, struct pkt *p)
{
	asm volatile("" : : "r"(ctx)); /* or clang passes anything for an argument that is not used */
	return 0;
}

/* The packet as that port sees it. */
static __always_inline bool seen_by(struct pkt *view, const struct pkt *p, __u32 ifindex)
{
	*view = *p;
	view->ifindex = ifindex;
	return port_policy(view, ifindex);
}

/* The second set of rules in place of the first. False: there is none, and the packet may pass. */
static __always_inline bool passed_on(struct pkt *view, __u32 direction)
{
	const struct hd_port *port = port_find(view->ifindex);
	const struct hd_port_policy *policy;
	int at = port ? hd_port_policy_at(port, view->generation) : -1;

	if (at < 0)
		return false;
	policy = &port->policy[at & 1];
	view->set[0] = policy->pass_set[0];
	view->set[1] = policy->pass_set[1];
	view->root[0] = policy->pass_root[0];
	view->root[1] = policy->pass_root[1];
	return by_direction(view->set, direction) != 0;
}

static __always_inline int judge_view(struct pkt *view, __u32 direction, __u32 reply)
{
	int r = policy_judge(view, direction, reply);

	if (unlikely(view->pass) && !r && passed_on(view, direction))
		r = policy_judge(view, direction, reply);
	return r;
}

/* The answer of one port's policy; rule, verdict and log are noted in p. */
__noinline int ask_port(struct pkt *p, __u32 ifindex, __u32 direction, __u32 reply)
{
	struct hd_scratch *room = scratch_room();
	struct pkt *view;
	int r;

	if (!p || !room)
		return HD_R_RULE_TREE;
	view = &room->packet;
	if (!seen_by(view, p, ifindex))
		return HD_R_NOT_READY;
	r = judge_view(view, direction, reply);
	p->rule = view->rule;
	p->verdict = view->verdict;
	p->log = view->log;
	return r;
}

__noinline int ask(struct pkt *p, __u32 reply)
{
	__u32 opener, target, rule, log;
	int r;

	if (!p)
		return HD_R_RULE_TREE;
	opener = p->turned ? p->turned : reply ? p->to : p->from;
	target = reply ? p->from : p->to;
	p->second_rule = 0;
	EXPLAIN(first_rule = 0);
	/* No flow says that the other network asked. */
	if (!reply && p->replies)
		return HD_R_NO_DESTINATION;
	if (is_port(opener)) {
		r = ask_port(p, opener, HD_EGRESS, reply);
		if (unlikely(p->service) && (r == HD_R_POLICY_DENY || r == HD_R_POLICY_REJECT)) {
			p->rule = HD_RULE_SERVICE;
			p->verdict = HD_ALLOW;
			p->log = 0;
			return 0;
		}
		if (r || !is_port(target))
			return r;
	} else if (!opener && !reply && (!p->arrived_on || !is_port(target))) {
		p->rule = HD_RULE_NODE;
		p->log = 0;
		return 0;
	}
	rule = p->rule;
	log = p->log;
	if (is_port(opener))
		EXPLAIN(first_rule = rule);
	r = ask_port(p, target, HD_INGRESS, reply);
	if (!r && is_port(opener)) {
		p->second_rule = p->rule;
		p->rule = rule;
		p->log |= log;
	}
	return r;
}

/*
 * A segment between ports counts for itself only. Taken for an answer it would let a workload send where its policy lets it not, to
 * whoever may open connections to it; the other end's own next segment picks the connection up.
 */
static __always_inline bool pickup_answers(const struct pkt *p)
{
	(void)p;
	return false;
}

static __always_inline __u32 opened_by(const struct pkt *p, bool reply)
{
	return p->turned ? HD_FLOW_TURNED : is_port(reply ? p->to : p->from) ? HD_FLOW_DIR_EGRESS : 0;
}

/* One of the two ends is the port whose record p has, the other, where it is a port at all, the one it goes to or comes from. */
static __always_inline __u32 device_version(const struct pkt *p, __u32 ifindex, __u32 direction)
{
	return by_direction(ifindex == p->ifindex ? p->version : p->other_version, direction);
}

static __always_inline __u32 first_version(const struct pkt *p, const struct hd_flow *flow, __u32 opener)
{
	return is_port(opener) ? device_version(p, opener, HD_EGRESS) : device_version(p, flow->device[HD_REPLY], HD_INGRESS);
}

static __always_inline __u32 second_version(const struct pkt *p, const struct hd_flow *flow, __u32 opener)
{
	__u32 target = flow->device[HD_REPLY];

	return is_port(target) && is_port(opener) ? device_version(p, target, HD_INGRESS) : 0;
}

static __always_inline bool current_for(const struct pkt *p, const struct hd_flow *flow, __u32 opener)
{
	return flow->version == first_version(p, flow, opener) && flow->second_version == second_version(p, flow, opener);
}

/* Of one that is not turned: those take the long way. */
static __always_inline bool flow_current(const struct pkt *p, const struct hd_flow *flow)
{
	return current_for(p, flow, flow->device[HD_ORIG]);
}

static __always_inline __u32 opener_of(const struct pkt *p, const struct hd_flow *flow)
{
	return p->turned ? p->turned : flow->device[HD_ORIG];
}

static __always_inline void flow_judged(const struct pkt *p, struct hd_flow *flow)
{
	__u32 opener = opener_of(p, flow);

	flow->version = first_version(p, flow, opener);
	flow->second_version = second_version(p, flow, opener);
	flow->rule = p->rule;
	flow->second_rule = p->second_rule;
}

/*
 * Where frames for the end behind a peer go, so that a packet of a known flow need not look for it. On the wire it is whom the port's frames name, for those
 * who give the flow to a NIC.
 */
static __always_inline void flow_peer(const struct pkt *p, struct hd_flow *flow)
{
	if (is_peer(p->from) || is_peer(p->to) || (p->to == HD_DEVICE_WIRE && mac_given(p->peer_mac)))
		__builtin_memcpy(flow->peer_mac, p->peer_mac, sizeof(flow->peer_mac));
}

static __always_inline void flow_stamp(const struct pkt *p, struct hd_flow *flow)
{
	bool original = flow_side(p, flow) == HD_ORIG;

	flow->device[HD_ORIG] = original ? p->from : p->to;
	flow->device[HD_REPLY] = original ? p->to : p->from;
	if (p->turned)
		flow->ifindex = p->turned;
	flow_peer(p, flow);
	flow_judged(p, flow);
}

/* The place that the flow knows, and the packet's: where one of the two says no more than that it is outside, any peer or the wire is the same. */
static __always_inline bool same_place(__u32 known, __u32 seen)
{
	return known == seen || (known & seen & HD_DEVICE_PEER && (known == HD_DEVICE_OUTSIDE || seen == HD_DEVICE_OUTSIDE));
}

/*
 * An answer whose way is not the one to its address. To the port that opened it by way of the host's stack, which knows it by another destination (a
 * Service, a port of the host): that has to turn the answer back. To the host of a peer, which opened it: back where that came from; what a port
 * opens towards that host goes by our own host's stack. True: it goes to the host's stack, and is the flow's.
 */
__noinline int turn_answer(struct pkt *p, const struct hd_flow *flow)
{
	if (!p || !flow || flow->device[HD_REPLY] != p->from)
		return false;
	if (flow->flags & HD_FLOW_TURNED && flow->ifindex == p->to) {
		p->turned = p->to;
		p->to = 0;
		p->action = HD_ACT_NEXT;
		return true;
	}
	if (p->node && flow->device[HD_ORIG] == (HD_DEVICE_PEER | p->node)) {
		p->to = HD_DEVICE_PEER | p->node;
		p->action = HD_ACT_PEER;
	}
	return false;
}

/* There may be another way for what answers it. */
static __always_inline bool turns(const struct pkt *p, const struct hd_flow *flow)
{
	return unlikely(flow->flags & HD_FLOW_TURNED) || unlikely(p->node);
}

/*
 * Both ends are where the flow knows them. They have been looked up: a flow whose ends are elsewhere is of somebody who has gone. What the host's stack
 * has turned is of who sent it.
 */
static __always_inline bool flow_ours(struct pkt *p, const struct hd_flow *flow)
{
	bool original = flow_side(p, flow) == HD_ORIG;

	if (!original && turns(p, flow) && turn_answer(p, flow))
		return true;
	if (p->turned != (flow->flags & HD_FLOW_TURNED ? flow->ifindex : 0))
		return false;
	return same_place(flow->device[HD_ORIG], original ? p->from : p->to) &&
	       same_place(flow->device[HD_REPLY], original ? p->to : p->from);
}

/* Somebody who was outside has been heard, or learnt. Who opened a flow was known then. */
static __always_inline void flow_place(const struct pkt *p, struct hd_flow *flow)
{
	if (unlikely(flow->device[HD_REPLY] == HD_DEVICE_OUTSIDE))
		flow->device[HD_REPLY] = flow_side(p, flow) == HD_ORIG ? p->to : p->from;
}

/* side sent what the error is about: the error comes from the other end, and goes to that one. */
static __always_inline bool flow_told(struct pkt *p, const struct hd_flow *flow, __u32 side)
{
	__u32 sender = side == HD_ORIG ? flow->device[HD_ORIG] : flow->device[HD_REPLY];
	__u32 other = side == HD_ORIG ? flow->device[HD_REPLY] : flow->device[HD_ORIG];

	if (side == HD_ORIG && turns(p, flow) && turn_answer(p, flow))
		return current_for(p, flow, p->turned);
	return same_place(sender, p->to) && same_place(other, p->from) && current_for(p, flow, opener_of(p, flow));
}

/* One of the policies that let the flow be has changed: both are asked again, about the packet that opened it. */
__noinline int track_again(struct pkt *p, struct hd_flow *flow)
{
	__u32 reply;
	__u8 icmp_type;
	int r = 0;

	if (!p || !flow)
		return HD_R_RULE_TREE;
	EXPLAIN(rejudged = 1);
	reply = flow_side(p, flow) == HD_REPLY;
	p->service |= flow->rule == HD_RULE_SERVICE;
	icmp_type = p->icmp_type;
	if (p->protocol == PROTO_ICMP || p->protocol == PROTO_ICMPV6)
		p->icmp_type = p->family == 4 ? ICMP_ECHO_REQUEST : ICMPV6_ECHO_REQUEST;
	/* What the host itself opened is no policy's. */
	if (flow->device[HD_ORIG] || flow->rule != HD_RULE_NODE)
		r = ask(p, reply);
	p->icmp_type = icmp_type;
	if (dry_run)
		return r;
	if (!r) {
		flow_judged(p, flow);
		total_add(HD_TOTAL_REJUDGED);
	} else if (r != HD_R_RULE_TREE) {
		total_add(HD_TOTAL_REJUDGED);
		total_add(HD_TOTAL_CUT);
		flow_delete(p, flow);
	}
	return r;
}

static __always_inline int track_current(struct pkt *p, struct hd_flow *flow)
{
	p->second_rule = flow->second_rule;
	if (!dry_run) {
		flow_place(p, flow);
		flow_peer(p, flow);
	}
	return current_for(p, flow, opener_of(p, flow)) ? 0 : track_again(p, flow);
}

#endif
