/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The whole way of a packet from a port, and of one to a port from the host's stack. Read this first. */
#ifndef HEDDLE_STAGE_SWITCH_H
#define HEDDLE_STAGE_SWITCH_H

#include "between.h"

#include "arp.h"
#include "classify.h"
#include "deliver.h"
#include "encap.h"
#include "flood.h"
#include "forward.h"
#include "known.h"
#include "nd.h"
#include "source.h"

/* Bytes of L3 of the packet, or of the largest piece of it that a device will cut. */
static __always_inline __u32 l3_size(HOOK_CTX *ctx, const struct pkt *p)
{
	__u32 head = p->l4 - p->l3, size = dry_run ? 0 : ctx->gso_size;

	if (!size)
		return p->l3_length;
	return head + (p->protocol == PROTO_TCP ? p->tcp_offset : sizeof(struct udphdr)) + size;
}

static __always_inline bool fits(HOOK_CTX *ctx, const struct pkt *p, const struct hd_port *port)
{
	return !port->mtu || p->l3_length <= port->mtu || l3_size(ctx, p) <= port->mtu;
}

/* Bytes of L3 that fit through the tunnel, or 0: all do. */
static __always_inline __u32 too_big_for(
	HOOK_CTX *ctx, const struct pkt *p, const struct hd_peer *peer, const struct hd_control *c)
{
	const struct hd_tunnel *own = tunnel_find();
	__u32 room;

	if (!own)
		return 0;
	room = peer_room(peer, own, p->now, c->fragment_timeout);
	if (unlikely(p->vlan[0] || p->segment))
		room -= 4 * encap_tag_count(p);
	return likely(p->l3_length <= room) || l3_size(ctx, p) <= room ? 0 : room;
}

static __always_inline bool may_be_cut(HOOK_CTX *ctx, const struct pkt *p)
{
	__be16 fragment = 0;

	return p->family == 4 && !hook_load(ctx, p->l3 + offsetof(struct iphdr, frag_off), &fragment, sizeof(fragment)) &&
	       !(fragment & bpf_htons(IP4_DONT));
}

#define IP6_MTU_MIN 1280

/*
 * Too large for the tunnel: its sender is told, on an L2 network too. What may be cut is cut on the outside, as are frames that nobody can be told
 * of, and what IPv6 may not be told of (RFC 2473 section 7.1). What is a fragment already is cut on the inside (struct hd_slow): the other host would have to put the outer packet together, and smaller ones
 * behind overtake it there. All of a datagram take the way by the agent once its first one has. Fragments that nobody here judges, and of which
 * nothing is noted, are told of like any packet.
 */
__noinline int fits_tunnel(HOOK_CTX *ctx, struct pkt *p)
{
	const struct hd_tunnel *own = tunnel_find();
	const struct hd_control *c;
	const struct hd_peer *peer;
	struct hd_frag *first;
	__u32 zero = 0, room;

	c = bpf_map_lookup_elem(&control, &zero);
	if (!p || !c || !own)
		return HD_R_NO_WAY;
	if (unlikely(p->node) && p->hop_limit <= 1) /* its flow has led it here, past forward_address() */
		return HD_R_TTL_EXCEEDED;
	first = unlikely(p->fragment) ? fragment_find(p) : NULL;
	peer = peer_find(p->to);
	if (!peer || (!HD_PEER_WAYS_COUNT(peer->ways) && !own->slow))
		return HD_R_NO_WAY;
	room = too_big_for(ctx, p, peer, c);
	if (!room) {
		p->slow = p->fragment == FRAGMENT_LATER && first && first->flags & HD_FRAG_SLOW;
		return 0;
	}
	p->slow = own->slow && (!p->fragment || first) &&
		  (!p->family || may_be_cut(ctx, p) || (p->family == 6 && l3_size(ctx, p) <= IP6_MTU_MIN));
	if (p->slow && first && p->fragment == FRAGMENT_FIRST && !dry_run)
		first->flags |= HD_FRAG_SLOW;
	/* No less is told to IPv6, which has to get through (RFC 8200 section 5). */
	p->mtu = !p->slow && p->family == 6 && own->slow && room < IP6_MTU_MIN ? IP6_MTU_MIN : room;
	return p->slow ? 0 : HD_R_TOO_BIG;
}

/* Routed, too large, and nobody may cut it. What may be cut goes on as it is: its receiver takes it. */
static __always_inline int too_big(HOOK_CTX *ctx, struct pkt *p)
{
	const struct hd_port *port = p->routed && p->action == HD_ACT_PORT ? port_find(p->to) : NULL;

	if (p->action == HD_ACT_PEER)
		return fits_tunnel(ctx, p);
	if (!port || fits(ctx, p, port) || may_be_cut(ctx, p))
		return 0;
	p->mtu = port->mtu;
	return HD_R_TOO_BIG;
}

/* Towards a peer: where its frames go was found out when the flow began, too. */
static __always_inline bool ordinary_peer(HOOK_CTX *ctx, struct pkt *p, const struct ethhdr *eth, const struct hd_flow *flow,
	const struct hd_control *c, bool routed, __u32 to)
{
	const struct hd_peer *peer = peer_find(to);

	if (!peer || moved_since(peer->moved, flow) || !HD_PEER_WAYS_COUNT(peer->ways) || p->port_flags & HD_PORT_TRUNK)
		return false;
	if (routed ? p->hop_limit <= 1 : !mac_equal(eth->h_dest, flow->peer_mac))
		return false;
	p->routed = routed;
	if (too_big_for(ctx, p, peer, c))
		return false;
	mac_copy(p->peer_mac, flow->peer_mac);
	p->action = HD_ACT_PEER;
	return true;
}

/*
 * Most packets are of flows that are known: one lookup tells who may send it and where it goes, since both were found out when the flow
 * began. True: it may pass, and is accounted for. Frames between segments take the long way.
 */
static __always_inline bool ordinary_from(HOOK_CTX *ctx, struct pkt *p, const struct ethhdr *eth, const struct hd_control *c)
{
	const struct hd_port *other;
	struct hd_flow *flow;
	bool routed;
	__u32 to;

	if (!p->family || p->fragment || opens_tcp(p) || (icmp_is(p) && !icmp_echo(p)))
		return false;
	flow = known_flow(p);
	if (!flow || moved_since(p->moved, flow))
		return false;
	to = flow_side(p, flow) == HD_ORIG ? flow->device[HD_REPLY] : flow->device[HD_ORIG];
	if ((flow_side(p, flow) == HD_ORIG ? flow->device[HD_ORIG] : flow->device[HD_REPLY]) != p->ifindex)
		return false;
	routed = !(p->port_flags & HD_PORT_L2) || for_gateway(ctx, p, eth->h_dest);
	if (mac_group(eth->h_dest))
		return false;
	if (to == HD_DEVICE_WIRE) {
		return false; /* by which uplink is known to the fdb only */
	} else if (to & HD_DEVICE_PEER) {
		if (!ordinary_peer(ctx, p, eth, flow, c, routed, to))
			return false;
	} else if (!to) {
		if (!routed || !(p->port_flags & HD_PORT_HOST) || unlikely(flow->flags & HD_FLOW_TURNED))
			return false;
		p->action = HD_ACT_NEXT;
	} else {
		other = port_find(to);
		if (!other || other->network != p->network || moved_since(other->moved, flow) ||
			!port_versions(other, p->generation, p->other_version))
			return false;
		if ((p->port_flags | other->flags) & HD_PORT_TRUNK || p->vlan_of_port != other->vlan)
			return false;
		if (routed ? p->hop_limit <= 1 || !fits(ctx, p, other) : !mac_equal(eth->h_dest, other->mac))
			return false;
		p->action = HD_ACT_PORT;
	}
	p->from = p->ifindex;
	p->to = to;
	p->routed = routed;
	return ordinary_flow(p, flow, c);
}

/* Frames of this age of a flow take the long way once, so that their MAC is learnt again. */
#define LEARN_TICKS 256

/* The same for what came out of a tunnel. */
static __always_inline bool ordinary_behind(HOOK_CTX *ctx, struct pkt *p, const struct ethhdr *eth, const struct hd_control *c)
{
	const struct hd_peer *peer = peer_find(p->peer);
	const struct hd_port *other;
	struct hd_flow *flow;
	bool routed;
	__u32 to;

	if (!peer || !p->family || p->fragment || opens_tcp(p) || (icmp_is(p) && !icmp_echo(p)) || mac_group(eth->h_dest))
		return false;
	flow = known_flow(p);
	if (!flow || moved_since(peer->moved, flow))
		return false;
	to = flow_side(p, flow) == HD_ORIG ? flow->device[HD_REPLY] : flow->device[HD_ORIG];
	if ((flow_side(p, flow) == HD_ORIG ? flow->device[HD_ORIG] : flow->device[HD_REPLY]) != (HD_DEVICE_PEER | p->peer))
		return false;
	if (p->port_flags & HD_PORT_L2 && !mac_equal(eth->h_source, flow->peer_mac) && !mac_gateway(eth->h_source))
		return false;
	if (p->port_flags & HD_PORT_LEARNING && (p->now ^ flow->last_seen) / LEARN_TICKS)
		return false;
	other = is_port(to) ? port_find(to) : NULL;
	if (!other || other->network != p->network || moved_since(other->moved, flow) ||
		!port_versions(other, p->generation, p->other_version))
		return false;
	routed = !(p->port_flags & HD_PORT_L2) || mac_gateway(eth->h_dest);
	if (other->flags & HD_PORT_TRUNK || !in_segment(other, p->segment))
		return false;
	if (routed ? !fits(ctx, p, other) : !mac_equal(eth->h_dest, other->mac))
		return false;
	p->action = HD_ACT_PORT;
	p->from = HD_DEVICE_PEER | p->peer;
	p->to = to;
	p->routed = routed;
	return ordinary_flow(p, flow, c);
}

/* All of a datagram go to the host's stack, or to a peer's host, once its first fragment has. */
__noinline int fragment_turned(struct pkt *p)
{
	struct hd_frag *first = p && p->from ? fragment_find(p) : NULL; /* from the host's stack nothing is turned any more */

	if (!first)
		return 0;
	if (p->turned)
		first->flags |= HD_FRAG_TURNED;
	if (first->flags & HD_FRAG_TURNED) {
		p->to = 0;
		p->action = HD_ACT_NEXT;
	}
	if (!p->node)
		return 0;
	if (p->action == HD_ACT_PEER)
		first->flags |= HD_FRAG_NODE;
	if (first->flags & HD_FRAG_NODE) {
		p->to = HD_DEVICE_PEER | p->node;
		p->action = HD_ACT_PEER;
	}
	return 0;
}

/* After forward_packet(): the flow is looked up where it is now known to be. */
static __always_inline int judge_flow(HOOK_CTX *ctx, struct pkt *p, const struct hd_control *c)
{
	struct hd_scratch *room = scratch_room();
	struct hd_flow *flow = NULL;
	union hd_flow_key *key;
	int reason;

	if (!room)
		return HD_R_RULE_TREE;
	key = &room->key;
	__builtin_memset(key, 0, sizeof(*key));
	p->found = HD_FOUND_NONE;
	if (p->fragment != FRAGMENT_LATER && !(icmp_is(p) && !icmp_echo(p))) {
		flow_key(p, key);
		flow = flow_lookup(p, TABLE_PROVEN, key);
		if (flow && p->protocol != PROTO_TCP) /* also where an older one is left among the unproven */
			flow_give_hint(p, TABLE_PROVEN, key);
		/* Of a time when the route was another one. */
		if (flow && p->replies && flow_side(p, flow) == HD_ORIG)
			return HD_R_NO_DESTINATION;
	}
	reason = classify(ctx, p, flow, key, c);
	if (p->fragment == FRAGMENT_FIRST)
		fragment_first(p, reason);
	if (unlikely(p->fragment) && !reason && !dry_run && p->direction == HD_EGRESS && p->action != HD_ACT_FLOOD)
		fragment_turned(p);
	return reason;
}

/*
 * To a group: no flow, the policy says each time what may be sent; flood() asks for those who get it. Each of them would have to remember what
 * its policy made of a first fragment: the later ones, which nobody can judge, stay here.
 */
static __always_inline int judge_group(struct pkt *p)
{
	p->judged = 1;
	if (p->fragment == FRAGMENT_LATER)
		return HD_R_FRAG_UNKNOWN;
	if (from_outside(p)) {
		p->rule = HD_RULE_SWITCHED;
		return 0;
	}
	return ask_port(p, p->ifindex, HD_EGRESS, 0);
}

/*
 * To somebody nobody knows, on a network that is on the wire or has peers: that is where the answer is going to come from. It needs a flow. Who may
 * answer is asked of the answer: a peer or the wire, if the address can be theirs.
 */
static __always_inline bool leads_outside(struct pkt *p, const __u8 *destination)
{
	const struct hd_network *record;
	__u32 network = p->source_network;

	if (p->fragment || from_outside(p) || mac_group(destination))
		return false;
	record = bpf_map_lookup_elem(&networks, &network);
	if (!record)
		return false;
	if (record->vni && record->peers)
		p->to = HD_DEVICE_OUTSIDE;
	else if (record->vlan)
		p->to = HD_DEVICE_WIRE;
	else
		return false;
	p->judged = 1;
	return true;
}

/* From a port or a peer, everything but what ordinary_from() and ordinary_behind() know; from the wire, everything. */
__noinline int judge_from(HOOK_CTX *ctx, struct pkt *p)
{
	struct ethhdr eth;
	struct hd_control *c;
	__u32 zero = 0;
	int r;

	c = bpf_map_lookup_elem(&control, &zero);
	if (!p || !c || hook_load(ctx, 0, &eth, sizeof(eth)))
		return HD_R_RULE_TREE;
	p->rule = p->second_rule = p->to = p->routed = p->replies = p->service = p->turned = 0;
	p->from = on_wire(p) ? HD_DEVICE_WIRE : p->peer ? HD_DEVICE_PEER | p->peer : p->ifindex;
	if (!p->family) {
		if (p->ethertype == FRAME_ARP)
			return arp_judge(ctx, p);
		p->rule = HD_RULE_SWITCHED;
		r = p->port_flags & HD_PORT_L2 ? forward_frame(ctx, p) : HD_R_NOT_ROUTED;
		return r ? r : too_big(ctx, p);
	}
	if (nd_is(p))
		return nd_judge(ctx, p);
	if (mld_is(p) && (address_none(&p->source) || address_link_local(&p->source))) {
		if (!address_none(&p->source) && source_address(p, eth.h_source))
			return HD_R_SOURCE_IP6;
		p->rule = HD_RULE_MLD;
		return forward_frame(ctx, p);
	}
	r = source_address(p, eth.h_source);
	if (r)
		return r;
	r = forward_packet(ctx, p);
	if (r)
		return r;
	if (p->action == HD_ACT_ANSWER_ECHO) {
		p->rule = HD_RULE_GATEWAY;
		return 0;
	}
	/* Between peers and the wire: whoever is there has a host that asks. */
	if (from_outside(p) && (p->action == HD_ACT_PEER || p->action == HD_ACT_WIRE)) {
		p->rule = HD_RULE_SWITCHED;
		return too_big(ctx, p);
	}
	r = p->action == HD_ACT_FLOOD && !leads_outside(p, eth.h_dest) ? judge_group(p) : judge_flow(ctx, p, c);
	return r ? r : too_big(ctx, p);
}

/* To a port from the host's stack: everything but what ordinary_to() knows. */
__noinline int judge_to(HOOK_CTX *ctx, struct pkt *p)
{
	const struct hd_endpoint *endpoint;
	const struct hd_port *sender;
	struct hd_control *c;
	__u32 zero = 0;
	int r;

	c = bpf_map_lookup_elem(&control, &zero);
	if (!p || !c)
		return HD_R_RULE_TREE;
	p->rule = p->second_rule = p->service = p->turned = 0;
	p->to = p->ifindex;
	if (!(p->port_flags & HD_PORT_HOST))
		return HD_R_NO_DESTINATION;
	if (!p->family || nd_is(p) || mld_is(p)) {
		p->rule = p->family		      ? (nd_is(p) ? HD_RULE_ND : HD_RULE_MLD)
			  : p->ethertype == FRAME_ARP ? HD_RULE_ARP
						      : HD_RULE_NODE;
		return 0;
	}
	/*
	 * What ports send to each other comes this way only where they sent it elsewhere, and the host has changed the destination. Then it came in by
	 * that port's device, where it was seen that the address is the port's own.
	 */
	endpoint = endpoint_find(&p->source, p->network);
	if (endpoint && (endpoint->ifindex || endpoint->peer) && !(endpoint->flags & HD_ENDPOINT_NODE)) {
		sender = endpoint->ifindex == p->arrived_on ? port_find(endpoint->ifindex) : NULL;
		if (!sender || !port_versions(sender, p->generation, p->other_version))
			return p->family == 4 ? HD_R_SOURCE_IP4 : HD_R_SOURCE_IP6;
		p->turned = p->arrived_on;
	}
	/* Another address is its source by now: whose it was is told by the device that it came in by. */
	if (unlikely(!dry_run && ctx->mark & HD_MARK_UNJUDGED) && !p->turned && p->arrived_on) {
		r = ask_port(p, p->arrived_on, HD_EGRESS, 0);
		if (r)
			return r;
	}
	return judge_flow(ctx, p, c);
}

static __always_inline bool ordinary_to(struct pkt *p, const struct hd_control *c)
{
	struct hd_flow *flow;
	bool original;

	if (!p->family || p->fragment || (icmp_is(p) && !icmp_echo(p)) || !(p->port_flags & HD_PORT_HOST))
		return false;
	flow = known_flow(p);
	if (!flow || moved_since(p->moved, flow) || unlikely(flow->flags & HD_FLOW_TURNED))
		return false;
	original = flow_side(p, flow) == HD_ORIG;
	if ((original ? flow->device[HD_ORIG] : flow->device[HD_REPLY]) ||
		(original ? flow->device[HD_REPLY] : flow->device[HD_ORIG]) != p->ifindex)
		return false;
	p->to = p->ifindex;
	return ordinary_flow(p, flow, c);
}

#endif
