/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Where a judged packet goes on: to another port, to the wire, to the host's stack, or back as an answer. Changes the frame. */
#ifndef HEDDLE_STAGE_DELIVER_H
#define HEDDLE_STAGE_DELIVER_H

#include "arp.h"
#include "endpoint.h"
#include "limit.h"
#include "nd.h"

/* --- tags --- */

/* That says the segment. */
static __always_inline __u32 tag_present(const struct pkt *p)
{
	return p->port_flags & HD_PORT_QINQ ? 0 : p->vlan[0] & 0xfff;
}

/* Only a trunk says in a tag which segment it is: always where another tag follows, which would be taken for it. */
static __always_inline bool tag_wanted(const struct pkt *p, const struct hd_port *port, __u32 segment)
{
	return port->flags & HD_PORT_TRUNK && (segment != port->vlan || p->vlan[1] || p->port_flags & HD_PORT_QINQ);
}

/*
 * vlan 0: untagged, whatever priority a tag with id 0 says stays. Otherwise the tag's id; a service tag (802.1ad) around what is the sender's own. 0 or the
 * drop reason.
 */
static __always_inline int retag(HOOK_CTX *ctx, const struct pkt *p, __u32 vlan)
{
	__u32 tag = tag_present(p), tci = vlan;
	__be16 inline_tci = 0;

	if (tag == vlan)
		return 0;
	if (p->port_flags & HD_PORT_QINQ) {
		if (p->vlan[1])
			return HD_R_VLAN_DEPTH;
		return bpf_skb_vlan_push(ctx, bpf_htons(ETH_P_8021AD), vlan) ? HD_R_NONLINEAR : 0;
	}
	if (!tag && p->vlan[0]) { /* the priority goes along */
		if (ctx->vlan_present)
			tci |= ctx->vlan_tci & 0xe000;
		else if (!hook_load(ctx, sizeof(struct ethhdr), &inline_tci, sizeof(inline_tci)))
			tci |= bpf_ntohs(inline_tci) & 0xe000;
	}
	if (p->vlan[0] && bpf_skb_vlan_pop(ctx))
		return HD_R_NONLINEAR;
	return vlan && bpf_skb_vlan_push(ctx, bpf_htons(ETH_P_8021Q), tci) ? HD_R_NONLINEAR : 0;
}

/* The network's tag, around that of the segment, if it is in one. tagged: that one is there by now, as retag() makes it for a port. */
static __always_inline int retag_wire(HOOK_CTX *ctx, const struct pkt *p, __u32 vlan, bool tagged)
{
	bool own = p->port_flags & HD_PORT_QINQ;
	int r = 0;

	if (!p->segment)
		return retag(ctx, p, vlan);
	/* With a tag of the sender's own there would be three. */
	if (p->vlan[1] || (own && p->vlan[0]))
		return HD_R_VLAN_DEPTH;
	if (own && tagged && bpf_skb_vlan_pop(ctx))
		return HD_R_NONLINEAR;
	if (own || (!tagged && tag_present(p)))
		r = bpf_skb_vlan_push(ctx, bpf_htons(ETH_P_8021Q), p->segment) ? HD_R_NONLINEAR : 0;
	else if (!tagged)
		r = retag(ctx, p, p->segment);
	if (!r && bpf_skb_vlan_push(ctx, bpf_htons(ETH_P_8021AD), vlan))
		r = HD_R_NONLINEAR;
	return r;
}

/* --- routing --- */

/* RFC 1624; the TTL is the upper half of its word. */
static __always_inline __u16 checksum_after(__u16 checksum)
{
	__u32 sum = checksum + bpf_htons(0x0100);

	return sum + (sum >= 0xffff);
}

static __always_inline long route_ttl(HOOK_CTX *ctx, const struct pkt *p)
{
	struct {
		__u8 ttl, protocol;
		__u16 checksum;
	} ip4;
	__u8 hop_limit = p->hop_limit - 1;

	if (p->family == 6)
		return bpf_skb_store_bytes(ctx, p->l3 + offsetof(struct ipv6hdr, hop_limit), &hop_limit, 1, BPF_F_RECOMPUTE_CSUM);
	if (hook_load(ctx, p->l3 + offsetof(struct iphdr, ttl), &ip4, sizeof(ip4)))
		return -1;
	ip4.checksum = checksum_after(ip4.checksum);
	ip4.ttl = hop_limit;
	return bpf_skb_store_bytes(ctx, p->l3 + offsetof(struct iphdr, ttl), &ip4, sizeof(ip4), 0);
}

/* Up to the checksum of IPv4. */
struct route_head {
	struct ethhdr eth;
	__u8 ip[8];
	__u8 ttl, protocol;
	__u16 checksum;
} __attribute__((packed, aligned(2)));
static_assert(sizeof(struct route_head) == sizeof(struct ethhdr) + offsetof(struct iphdr, saddr), "as on the wire");

/*
 * MACs and TTL of the plain IPv4 frame in one write: each of them is a call, and makes sure of the frame again. What is in between is written as it is.
 * False: it is no such frame.
 */
static __always_inline bool route_plain(HOOK_CTX *ctx, const struct pkt *p, const __u8 *mac, long *ret)
{
	static const __u8 gateway[6] = HD_GATEWAY_MAC;
	const struct route_head *have = hook_data(ctx);
	struct route_head head;

	if (p->family != 4 || p->l3 != sizeof(struct ethhdr) || p->peer || (void *)(have + 1) > hook_data_end(ctx))
		return false;
	head = *have;
	mac_copy(head.eth.h_dest, mac);
	mac_copy(head.eth.h_source, gateway);
	head.ttl--;
	head.checksum = checksum_after(head.checksum);
	*ret = bpf_skb_store_bytes(ctx, 0, &head, sizeof(head), 0);
	return true;
}

/*
 * TTL and MACs. Only what routes pays for a frame that has to be made writable. What came out of a tunnel has had its TTL lowered by the host that
 * put it in.
 */
static __always_inline long route_rewrite(HOOK_CTX *ctx, const struct pkt *p, const struct hd_port *port)
{
	struct ethhdr eth = {.h_source = HD_GATEWAY_MAC};
	long r;

	mac_copy(eth.h_dest, port->mac);
	if (unlikely(port->flags & HD_PORT_LEARNING)) { /* several may live there, each with a MAC of its own */
		const struct hd_endpoint *endpoint = endpoint_find(&p->destination, p->destination_network);

		if (endpoint && mac_given(endpoint->mac))
			mac_copy(eth.h_dest, endpoint->mac);
	}
	if (likely(route_plain(ctx, p, eth.h_dest, &r)))
		return r;
	if (bpf_skb_store_bytes(ctx, 0, &eth, 2 * sizeof(eth.h_dest), 0))
		return -1;
	return p->peer ? 0 : route_ttl(ctx, p);
}

/* --- ways out: 0 or the drop reason. A frame that cannot be changed has no better one than that it could not be reached into. --- */

static __always_inline int deliver_port(HOOK_CTX *ctx, struct pkt *p)
{
	const struct hd_port *port = port_find(p->to);
	__u32 flags, to = p->to;

	if (!port)
		return HD_R_NO_DESTINATION;
	flags = port->flags;
	if (unlikely(flags & HD_PORT_LIMIT_IN)) {
		int r = limit(ctx, p, to, HD_INGRESS);

		if (r)
			return r;
	}
	if (p->routed && route_rewrite(ctx, p, port))
		return HD_R_NONLINEAR;
	if (unlikely(p->vlan[0] || flags & HD_PORT_TRUNK)) {
		__u32 segment = p->routed ? 0 : p->segment;
		__u32 vlan = segment && tag_wanted(p, port, segment) ? segment : 0;
		int r = retag(ctx, p, vlan);

		if (r)
			return r;
		/* Of a tag that was put around another, 6.1 counts 4 bytes too many as the Ethernet header: bpf_redirect_peer would skip them. */
		if (vlan && p->port_flags & HD_PORT_QINQ && p->vlan[0])
			flags &= ~HD_PORT_PEER;
	}
	/* bpf_redirect_peer hands skb->protocol on as it is; over a device it is read from the frame again. */
	if (flags & HD_PORT_PEER && likely(!p->mistaken)) {
		/* It is for whom it reaches, though not for the device it came in by. */
		if (ctx->pkt_type != FRAME_FOR_HOST)
			bpf_skb_change_type(ctx, FRAME_FOR_HOST);
		return bpf_redirect_peer(to, 0) == TC_ACT_REDIRECT ? 0 : HD_R_NO_DESTINATION;
	}
	ctx->mark = HD_MARK;
	return bpf_redirect(to, 0) == TC_ACT_REDIRECT ? 0 : HD_R_NO_DESTINATION;
}

__noinline int deliver_wire(HOOK_CTX *ctx)
{
	struct hd_scratch *room = scratch_room();
	const struct pkt *p;
	__u32 vlan, uplink;
	int r;

	if (!room)
		return HD_R_RULE_TREE;
	p = &room->port;
	uplink = p->uplink;
	vlan = wire_vlan(p->destination_network);
	if (!vlan)
		return HD_R_NO_DESTINATION;
	r = retag_wire(ctx, p, vlan, tag_present(p));
	if (r)
		return r;
	ctx->mark = HD_MARK;
	return bpf_redirect(uplink, 0) == TC_ACT_REDIRECT ? 0 : HD_R_NO_DESTINATION;
}

static __always_inline int deliver_host(HOOK_CTX *ctx, const struct pkt *p)
{
	if (unlikely(tag_present(p)) && retag(ctx, p, 0))
		return HD_R_NONLINEAR;
	if (ctx->pkt_type != FRAME_FOR_HOST)
		bpf_skb_change_type(ctx, FRAME_FOR_HOST);
	if (unlikely(p->rule == HD_RULE_SERVICE))
		ctx->mark = HD_MARK_UNJUDGED;
	return 0;
}

/* An echo request becomes its reply: source and destination change places, which no checksum sees. */
static __always_inline long echo_answer(HOOK_CTX *ctx, const struct pkt *p)
{
	__u8 type = p->family == 4 ? ICMP_ECHO_REPLY : ICMPV6_ECHO_REPLY;
	__u8 mac[6];
	struct hd_addr pair[2];
	struct ethhdr eth;
	__be16 before, after;

	if (hook_load(ctx, 0, &eth, sizeof(eth)) || hook_load(ctx, p->l4, &before, sizeof(before)))
		return -1;
	mac_copy(mac, eth.h_dest);
	mac_copy(eth.h_dest, eth.h_source);
	mac_copy(eth.h_source, mac);
	after = (before & bpf_htons(0x00ff)) | bpf_htons(type << 8);
	if (bpf_skb_store_bytes(ctx, 0, &eth, 2 * sizeof(eth.h_dest), 0) ||
		bpf_skb_store_bytes(ctx, p->l4, &after, sizeof(after), 0) ||
		bpf_l4_csum_replace(ctx, p->l4 + 2, before, after, sizeof(after)))
		return -1;
	pair[0] = p->destination;
	pair[1] = p->source;
	if (p->family == 6)
		return bpf_skb_store_bytes(ctx, p->l3 + offsetof(struct ipv6hdr, saddr), pair, sizeof(pair), 0);
	pair[0].w[0] = p->destination.w[3];
	pair[0].w[1] = p->source.w[3];
	return bpf_skb_store_bytes(ctx, p->l3 + offsetof(struct iphdr, saddr), pair, 8, 0);
}

__noinline int deliver_answer(HOOK_CTX *ctx)
{
	struct hd_scratch *room = scratch_room();
	const struct pkt *p;
	long r;

	if (!room)
		return HD_R_RULE_TREE;
	p = &room->port;
	if (p->action == HD_ACT_ANSWER_ARP)
		r = arp_answer(ctx, p, room->answer);
	else if (p->action == HD_ACT_ANSWER_ND)
		r = nd_answer(ctx, p, room->answer);
	else
		r = echo_answer(ctx, p);
	if (r)
		return HD_R_NONLINEAR;
	ctx->mark = HD_MARK;
	return bpf_redirect(p->ifindex, 0) == TC_ACT_REDIRECT ? 0 : HD_R_NO_DESTINATION;
}

#endif
