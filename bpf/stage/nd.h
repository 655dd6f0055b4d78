/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Neighbour discovery from a port (RFC 4861, RFC 4862): who it speaks for, and the answers that are given here. The parser has checked the
 * hop limit. Routers are not made by sending an advertisement.
 */
#ifndef HEDDLE_STAGE_ND_H
#define HEDDLE_STAGE_ND_H

#include "forward.h"

#define ND_OPTIONS_MAX 6
#define ND_SOURCE_MAC 1
#define ND_TARGET_MAC 2

struct nd {
	__u8 type, code;
	__be16 checksum;
	__be32 flags;
	struct hd_addr target;
};
static_assert(sizeof(struct nd) == 24, "nd");

struct nd_option {
	__u8 type, length; /* in units of 8 bytes */
	__u8 mac[6];
};

#define ND_ROUTER 0x80000000u
#define ND_SOLICITED 0x40000000u
#define ND_OVERRIDE 0x20000000u

static __always_inline bool nd_is(const struct pkt *p)
{
	return p->family == 6 && p->protocol == PROTO_ICMPV6 && p->fragment != FRAGMENT_LATER &&
	       p->icmp_type >= ICMPV6_ND_FIRST && p->icmp_type <= ICMPV6_ND_LAST;
}

static __always_inline bool mld_is(const struct pkt *p)
{
	return p->family == 6 && p->protocol == PROTO_ICMPV6 && p->fragment != FRAGMENT_LATER &&
	       ((p->icmp_type >= ICMPV6_MLD_FIRST && p->icmp_type <= ICMPV6_MLD_LAST) || p->icmp_type == ICMPV6_MLD2_REPORT);
}

/* The link-layer address that a message gives, where it gives one, must be its sender's. What is not read to its end is refused. */
static __always_inline int nd_options(HOOK_CTX *ctx, const struct pkt *p, __u32 at, const __u8 *mac, bool anonymous)
{
	struct nd_option option;
	__u32 end = p->l4 + p->l4_length;
	int i;

	for (i = 0; i < ND_OPTIONS_MAX; i++) {
		if (at >= end)
			return 0;
		if (at + sizeof(option) > end || hook_load(ctx, at, &option, sizeof(option)) || !option.length)
			return HD_R_ND_SOURCE;
		if ((option.type == ND_SOURCE_MAC || option.type == ND_TARGET_MAC) &&
			(option.length != 1 || !mac_equal(option.mac, mac)))
			return HD_R_ND_SOURCE;
		/* Who has no address yet gives none (RFC 4861 section 4.3). */
		if (option.type == ND_SOURCE_MAC && anonymous)
			return HD_R_ND_SOURCE;
		at += option.length * 8u;
	}
	return at >= end ? 0 : HD_R_ND_SOURCE;
}

__noinline int nd_judge(HOOK_CTX *ctx, struct pkt *p)
{
	struct ethhdr eth;
	struct nd nd = {};
	__u32 size = sizeof(nd);
	bool anonymous;
	int r;

	if (!p || hook_load(ctx, 0, &eth, sizeof(eth)))
		return HD_R_ND_SOURCE;
	/* None of these is ever sent in pieces (RFC 6980). */
	if (p->fragment || (p->icmp_type != ICMPV6_ROUTER_SOLICITATION && p->icmp_type != ICMPV6_NEIGHBOUR_SOLICITATION &&
				   p->icmp_type != ICMPV6_NEIGHBOUR_ADVERTISEMENT))
		return HD_R_ND_SOURCE;
	if (p->icmp_type == ICMPV6_ROUTER_SOLICITATION)
		size = 8;
	else if (p->l4_length < sizeof(nd) || hook_load(ctx, p->l4, &nd, sizeof(nd)))
		return HD_R_ICMP_TRUNCATED;
	anonymous = address_none(&p->source);
	if (anonymous ? p->icmp_type == ICMPV6_NEIGHBOUR_ADVERTISEMENT || !address_group(p)
		      : !address_owned(p, &p->source, eth.h_source))
		return HD_R_ND_SOURCE;
	r = nd_options(ctx, p, p->l4 + size, eth.h_source, anonymous);
	if (r)
		return r;
	if (p->icmp_type == ICMPV6_NEIGHBOUR_ADVERTISEMENT && !address_owned(p, &nd.target, eth.h_source))
		return HD_R_ND_TARGET;
	p->rule = HD_RULE_ND;
	if (p->icmp_type == ICMPV6_NEIGHBOUR_SOLICITATION && !address_of_mac(&nd.target, eth.h_source)) {
		p->destination = nd.target;
		r = forward_resolution(p, HD_ACT_ANSWER_ND);
		if (r)
			return r;
		if (p->action == HD_ACT_ANSWER_ND) {
			p->rule = HD_RULE_GATEWAY;
			return 0;
		}
	}
	return forward_frame(ctx, p);
}

struct nd_answer {
	struct nd nd;
	struct nd_option option;
};

/* Makes the solicitation its own answer, whose length is always the same. */
static __always_inline int nd_answer(HOOK_CTX *ctx, const struct pkt *p, const __u8 mac[6])
{
	struct {
		struct hd_addr source, destination;
		__be32 length, next;
	} pseudo = {};
	struct nd_answer answer = {};
	struct ethhdr eth;
	struct {
		__be16 length;
		__u8 next, hop_limit;
	} head = {bpf_htons(sizeof(answer)), PROTO_ICMPV6, 255};
	__u32 l4 = p->l3 + sizeof(struct ipv6hdr);
	bool anonymous = address_none(&p->source), gateway = mac_gateway(mac);
	__u64 sum;

	/* Where extension headers stood in front of the solicitation, they go. */
	if (hook_load(ctx, 0, &eth, sizeof(eth)) || bpf_skb_change_tail(ctx, l4 + sizeof(answer), 0))
		return -1;
	mac_copy(eth.h_dest, eth.h_source);
	mac_copy(eth.h_source, mac);
	pseudo.source = answer.nd.target = p->destination;
	pseudo.destination = p->source;
	if (anonymous) { /* to all nodes, RFC 4861 section 7.2.4 */
		pseudo.destination.w[0] = bpf_htonl(0xff020000);
		pseudo.destination.w[1] = pseudo.destination.w[2] = 0;
		pseudo.destination.w[3] = bpf_htonl(1);
		eth.h_dest[0] = eth.h_dest[1] = 0x33;
		eth.h_dest[2] = eth.h_dest[3] = eth.h_dest[4] = 0;
		eth.h_dest[5] = 1;
	}
	pseudo.length = bpf_htonl(sizeof(answer));
	pseudo.next = bpf_htonl(PROTO_ICMPV6);
	answer.nd.type = ICMPV6_NEIGHBOUR_ADVERTISEMENT;
	answer.nd.flags = bpf_htonl(ND_OVERRIDE | (anonymous ? 0 : ND_SOLICITED) | (gateway ? ND_ROUTER : 0));
	answer.option.type = ND_TARGET_MAC;
	answer.option.length = 1;
	mac_copy(answer.option.mac, mac);
	sum = bpf_csum_diff(NULL, 0, (__be32 *)&pseudo, sizeof(pseudo), 0);
	sum = bpf_csum_diff(NULL, 0, (__be32 *)&answer, sizeof(answer), sum);
	sum = (sum & 0xffff) + (sum >> 16 & 0xffff);
	sum = (sum & 0xffff) + (sum >> 16);
	answer.nd.checksum = ~sum;
	return bpf_skb_store_bytes(ctx, 0, &eth, 2 * sizeof(eth.h_dest), 0) ||
	       bpf_skb_store_bytes(ctx, p->l3 + offsetof(struct ipv6hdr, payload_len), &head, sizeof(head), 0) ||
	       bpf_skb_store_bytes(ctx, p->l3 + offsetof(struct ipv6hdr, saddr), &pseudo, 2 * sizeof(pseudo.source), 0) ||
	       bpf_skb_store_bytes(ctx, l4, &answer, sizeof(answer), 0);
}

#endif
