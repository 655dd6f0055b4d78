/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The host's own stack and workloads behind peers: by hd_tunnel.stack it sends to them, and gets what answers it. What it sends is its own, or what it
 * forwards for a port of ours whose destination it has changed (a Service). Nothing but answers comes back.
 */
#ifndef HEDDLE_STAGE_STACK_H
#define HEDDLE_STAGE_STACK_H

#include "encap.h"
#include "switch.h"

/* Whom the host's stack sends as. Of an address that is no host's own, the one who has it here must have sent it. */
static __always_inline int stack_source(struct pkt *p)
{
	const struct hd_endpoint *endpoint = endpoint_find(&p->source, p->network);
	const struct hd_port *sender;

	if (endpoint && endpoint->flags & HD_ENDPOINT_TAKEN)
		return 0;
	sender = endpoint && endpoint->ifindex && endpoint->ifindex == p->arrived_on ? port_find(endpoint->ifindex) : NULL;
	if (!sender || !port_versions(sender, p->generation, p->other_version))
		return p->family == 4 ? HD_R_SOURCE_IP4 : HD_R_SOURCE_IP6;
	p->turned = p->arrived_on;
	return 0;
}

/* The network that the destination is in. */
static __always_inline bool stack_network(struct pkt *p)
{
	const struct hd_route *route = p->family ? route_find(0, &p->destination) : NULL;

	if (!route || !route->network)
		return false;
	p->network = p->source_network = p->destination_network = route->network;
	p->routed = 1;
	return true;
}

/* Everything but what ordinary_stack() knows. */
__noinline int judge_stack(HOOK_CTX *ctx, struct pkt *p)
{
	const struct hd_endpoint *endpoint;
	struct hd_control *c;
	__u32 zero = 0, peer;
	int r;

	c = bpf_map_lookup_elem(&control, &zero);
	if (!p || !c)
		return HD_R_RULE_TREE;
	p->rule = p->second_rule = p->to = p->turned = 0;
	if (!p->family || address_group(p) || address_local(p) || address_link_local(&p->destination))
		return HD_R_NOT_ROUTED;
	if (!p->network)
		return HD_R_NO_DESTINATION;
	endpoint = endpoint_find(&p->destination, p->network);
	peer = endpoint && endpoint->flags & HD_ENDPOINT_NODE ? 0 : peer_of(p, &p->destination, p->network);
	r = peer ? forward_peer(p, peer, p->network) : HD_R_NO_DESTINATION;
	if (!r)
		r = stack_source(p);
	if (!r && p->hop_limit <= 1)
		r = HD_R_TTL_EXCEEDED;
	/* Another address is its source by now: whose it was is told by the device that it came in by. */
	if (!r && unlikely(!dry_run && ctx->mark & HD_MARK_UNJUDGED) && !p->turned && p->arrived_on)
		r = ask_port(p, p->arrived_on, HD_EGRESS, 0);
	if (!r)
		r = judge_flow(ctx, p, c);
	return r ? r : too_big(ctx, p);
}

/* Of a known flow that the host opened. */
static __always_inline bool ordinary_stack(HOOK_CTX *ctx, struct pkt *p, const struct hd_control *c)
{
	struct hd_flow *flow;
	__u32 to;

	if (p->fragment || opens_tcp(p) || (icmp_is(p) && !icmp_echo(p)) || (!dry_run && ctx->mark & HD_MARK_UNJUDGED))
		return false;
	flow = known_flow(p);
	if (!flow || flow_side(p, flow) != HD_ORIG || flow->device[HD_ORIG] || unlikely(flow->flags & HD_FLOW_TURNED))
		return false;
	to = flow->device[HD_REPLY];
	if (!is_peer(to) || !ordinary_peer(ctx, p, NULL, flow, c, true, to))
		return false;
	p->to = to;
	return ordinary_flow(p, flow, c);
}

/* --- and back --- */

/* What is for the host's stack, out of a tunnel, answers it, or a port that it has led elsewhere. */
static __always_inline bool stack_takes(const struct pkt *p)
{
	const struct hd_tunnel *own = tunnel_find();

	return own && own->stack && (p->replies || p->turned || p->fragment == FRAGMENT_LATER);
}

/* Into the stack by the device that it went out by, whose MAC is the gateway's. */
__noinline int deliver_stack(HOOK_CTX *ctx)
{
	static const __u8 gateway[6] = HD_GATEWAY_MAC;
	const struct hd_tunnel *own = tunnel_find();

	if (!own || !own->stack || bpf_skb_store_bytes(ctx, 0, gateway, sizeof(gateway), 0))
		return HD_R_NO_DESTINATION;
	ctx->mark = 0;
	return bpf_redirect(own->stack, BPF_F_INGRESS) == TC_ACT_REDIRECT ? 0 : HD_R_NO_DESTINATION;
}

#endif
