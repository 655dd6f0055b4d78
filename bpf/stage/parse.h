/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Frame to struct pkt: Ethernet, tags, IPv4, IPv6. Fail closed: what is not understood has a drop reason. The common frame (no tag, no
 * option, no extension header) is read by direct access and inline; the rest stands in functions of its own, which the verifier
 * checks once each.
 */
#ifndef HEDDLE_STAGE_PARSE_H
#define HEDDLE_STAGE_PARSE_H

#include "l4.h"
#include "packet.h"

#define EXTENSIONS_MAX 6
#define FRAME_8021Q 0x8100
#define FRAME_8021AD 0x88a8
#define FRAME_ARP 0x0806
#define FRAME_IP4 0x0800
#define FRAME_IP6 0x86dd
#define FRAME_LLC 0x0600 /* below: a length */

/* Up to two tags. The one that driver or stack took out of the frame, if any, stands in vlan[0] already and is one of the two. */
__noinline int parse_tags(HOOK_CTX *ctx, struct pkt *p)
{
	struct {
		__be16 tci, next;
	} tag;
	int i;

	if (!p)
		return HD_R_VLAN_TRUNCATED;
	for (i = 0; i < 2; i++) {
		if (p->ethertype != FRAME_8021Q && p->ethertype != FRAME_8021AD)
			return 0;
		if (p->vlan[1])
			return HD_R_VLAN_DEPTH;
		if (hook_load(ctx, p->l3, &tag, sizeof(tag)))
			return HD_R_VLAN_TRUNCATED;
		p->vlan[p->vlan[0] ? 1 : 0] = (bpf_ntohs(tag.tci) & 0xfff) | 0x1000;
		p->ethertype = bpf_ntohs(tag.next);
		p->l3 += sizeof(tag);
	}
	return p->ethertype == FRAME_8021Q || p->ethertype == FRAME_8021AD ? HD_R_VLAN_DEPTH : 0;
}

/* Frames that are not IP: ARP must have its form, the rest is known by its EtherType alone. */
__noinline int parse_other(HOOK_CTX *ctx, struct pkt *p)
{
	struct {
		__be16 hardware, protocol;
		__u8 hardware_length, protocol_length;
		__be16 operation;
		__u8 addresses[20];
	} arp;

	if (!p)
		return HD_R_ETH_TRUNCATED;
	p->length = hook_length(ctx);
	p->l3_length = p->length - p->l3;
	if (p->ethertype < FRAME_LLC)
		p->ethertype = 0;
	if (p->ethertype != FRAME_ARP)
		return 0;
	if (hook_load(ctx, p->l3, &arp, sizeof(arp)))
		return HD_R_ARP_MALFORMED;
	if (arp.hardware != bpf_htons(1) || arp.protocol != bpf_htons(FRAME_IP4) || arp.hardware_length != 6 ||
		arp.protocol_length != 4)
		return HD_R_ARP_MALFORMED;
	return 0;
}

/* Options let a sender choose the way back past a filter: source routes are refused (RFC 7126 section 4.3), and so is what does not add up. */
__noinline int parse_ip4_options(HOOK_CTX *ctx, struct pkt *p)
{
	__u8 options[40];
	__u32 length, at, step;
	int i;

	if (!p)
		return HD_R_IP4_OPTIONS;
	at = p->zero;
	length = p->l4 - p->l3 - sizeof(struct iphdr);
	if (length < 4 || length > sizeof(options))
		return HD_R_IP4_OPTIONS;
	__builtin_memset(options, 0, sizeof(options));
	if (hook_load(ctx, p->l3 + sizeof(struct iphdr), options, length))
		return HD_R_IP4_TRUNCATED;
	for (i = 0; i < 40; i++) {
		if (at >= length || at >= sizeof(options))
			return 0;
		switch (options[at]) {
		case IP4_OPTION_END:
			return 0;
		case IP4_OPTION_NOP:
			step = 1;
			break;
		case IP4_OPTION_LSRR:
		case IP4_OPTION_SSRR:
			return HD_R_IP4_OPTIONS;
		default:
			if (at + 1 >= length || at + 1 >= sizeof(options))
				return HD_R_IP4_OPTIONS;
			step = options[at + 1];
			if (step < 2 || at + step > length)
				return HD_R_IP4_OPTIONS;
		}
		at = (at + step) & 63;
	}
	return 0;
}

/* offset and frag_more are set; length: of this fragment's payload. */
static __always_inline int parse_fragment(struct pkt *p, __u32 length)
{
	if ((__u32)p->frag_offset + length > 65535)
		return HD_R_FRAG_LENGTH;
	if (p->frag_more && length & 7)
		return HD_R_FRAG_LENGTH;
	p->fragment = p->frag_offset ? FRAGMENT_LATER : FRAGMENT_FIRST;
	return 0;
}

static __always_inline bool extension(__u8 protocol)
{
	return protocol == PROTO_HOPOPTS || protocol == PROTO_ROUTING || protocol == PROTO_FRAGMENT ||
	       protocol == PROTO_DSTOPTS || protocol == PROTO_AH;
}

/* One of them: p->l4 and p->protocol go on to what follows it. */
static __always_inline int parse_ip6_extension(HOOK_CTX *ctx, struct pkt *p, bool first)
{
	struct {
		__u8 next, length;
		__be16 offset; /* fragment header */
		__be32 id;
	} header;
	__u8 protocol = p->protocol;
	__u32 size;

	if (protocol == PROTO_HOPOPTS && !first)
		return HD_R_IP6_EXT_CHAIN;
	if (p->l4_length < sizeof(header) || hook_load(ctx, p->l4, &header, sizeof(header)))
		return p->fragment ? HD_R_FRAG_TINY : HD_R_IP6_EXT_TRUNCATED;
	size = ((__u32)header.length + 1) * 8;
	if (protocol == PROTO_AH)
		size = ((__u32)header.length + 2) * 4;
	if (protocol == PROTO_FRAGMENT)
		size = sizeof(header);
	if (size > p->l4_length)
		return p->fragment ? HD_R_FRAG_TINY : HD_R_IP6_EXT_TRUNCATED;
	if (protocol == PROTO_ROUTING && bpf_ntohs(header.offset) >> 8 == 0)
		return HD_R_IP6_ROUTING;
	p->protocol = header.next;
	p->l4 += size;
	p->l4_length -= size;
	if (protocol != PROTO_FRAGMENT)
		return 0;
	if (p->fragment)
		return HD_R_IP6_EXT_CHAIN;
	p->frag_offset = bpf_ntohs(header.offset) & 0xfff8;
	p->frag_more = bpf_ntohs(header.offset) & 1;
	p->frag_id = header.id;
	/* An atomic fragment is a whole packet (RFC 6946). */
	if (!p->frag_offset && !p->frag_more)
		return 0;
	return parse_fragment(p, p->l4_length);
}

/* Walks hop-by-hop, routing, destination options, AH and fragment headers to the L4 header (RFC 8200 section 4.1, RFC 4302). */
__noinline int parse_ip6_extensions(HOOK_CTX *ctx, struct pkt *p)
{
	int i, r;

	if (!p)
		return HD_R_IP6_EXT_CHAIN;
	for (i = 0; i < EXTENSIONS_MAX; i++) {
		r = parse_ip6_extension(ctx, p, !i);
		if (r)
			return r;
		/* What is behind a later fragment's header is a piece of payload, whatever the header says. */
		if (p->fragment == FRAGMENT_LATER || !extension(p->protocol))
			return 0;
	}
	return HD_R_IP6_EXT_CHAIN;
}

/* A frame may be longer than its packet (padding), and longer than what is in the first buffer; never shorter. */
static __always_inline bool too_long(HOOK_CTX *ctx, struct pkt *p, __u32 l3_length)
{
	if (likely(p->l3 + l3_length <= p->length))
		return false;
	p->length = hook_length(ctx);
	return p->l3 + l3_length > p->length;
}

static __always_inline int parse_ip4(HOOK_CTX *ctx, struct pkt *p, void *header, void *end)
{
	struct iphdr *ip = header;
	__u32 total, size;
	__u16 fragment;
	int r;

	if ((void *)(ip + 1) > end)
		return short_of(ctx, p, HD_R_IP4_TRUNCATED);
	if (ip->version != 4)
		return HD_R_IP4_VERSION;
	size = ip->ihl * 4;
	if (size < sizeof(*ip))
		return HD_R_IP4_IHL;
	total = bpf_ntohs(ip->tot_len);
	if (!total && p->segments > 1) /* BIG TCP */
		total = p->length - p->l3;
	if (total < sizeof(*ip) || too_long(ctx, p, total))
		return HD_R_IP4_TOTAL_LENGTH;
	if (size > total)
		return HD_R_IP4_IHL;
	p->family = 4;
	p->l3_length = total;
	p->l4 = p->l3 + size;
	p->l4_length = total - size;
	p->protocol = ip->protocol;
	p->hop_limit = ip->ttl;
	p->source.q[0] = 0;
	p->source.w[2] = bpf_htonl(0xffff);
	p->source.w[3] = ip->saddr;
	p->destination.q[0] = 0;
	p->destination.w[2] = bpf_htonl(0xffff);
	p->destination.w[3] = ip->daddr;
	fragment = bpf_ntohs(ip->frag_off);
	p->frag_id = bpf_htonl(bpf_ntohs(ip->id));
	if (unlikely(size > sizeof(*ip))) {
		r = parse_ip4_options(ctx, p);
		if (r)
			return r;
	}
	if (unlikely(fragment & (IP4_MORE | IP4_OFFSET))) {
		p->frag_offset = (fragment & IP4_OFFSET) << 3;
		p->frag_more = !!(fragment & IP4_MORE);
		return parse_fragment(p, p->l4_length);
	}
	return 0;
}

static __always_inline int parse_ip6(HOOK_CTX *ctx, struct pkt *p, void *header, void *end)
{
	struct ipv6hdr *ip = header;
	__u32 payload;

	if ((void *)(ip + 1) > end)
		return short_of(ctx, p, HD_R_IP6_TRUNCATED);
	if (ip->version != 6)
		return HD_R_IP6_VERSION;
	payload = bpf_ntohs(ip->payload_len);
	if (unlikely(!payload)) {
		/* BIG TCP inside the host, with or without a jumbo option; on the wire a jumbogram (RFC 2675) is not spoken. */
		if (p->segments > 1)
			payload = p->length - p->l3 - sizeof(*ip);
		else if (ip->nexthdr == PROTO_HOPOPTS)
			return HD_R_IP6_PAYLOAD_LENGTH;
	}
	if (too_long(ctx, p, payload + sizeof(*ip)))
		return HD_R_IP6_PAYLOAD_LENGTH;
	p->family = 6;
	p->l3_length = payload + sizeof(*ip);
	p->l4 = p->l3 + sizeof(*ip);
	p->l4_length = payload;
	p->protocol = ip->nexthdr;
	p->hop_limit = ip->hop_limit;
	__builtin_memcpy(&p->source, &ip->saddr, sizeof(p->source));
	__builtin_memcpy(&p->destination, &ip->daddr, sizeof(p->destination));
	p->frag_id = 0;
	if ((!p->source.q[0] && p->source.w[2] == bpf_htonl(0xffff)) ||
		(!p->destination.q[0] && p->destination.w[2] == bpf_htonl(0xffff)))
		return HD_R_IP6_MAPPED;
	if (unlikely(extension(p->protocol)))
		return parse_ip6_extensions(ctx, p);
	return 0;
}

/* bare: the frame begins with its L3 header, and p->ethertype says which. */
static __always_inline int parse(HOOK_CTX *ctx, struct pkt *p, bool bare)
{
	void *data = hook_data(ctx), *end = hook_data_end(ctx), *header = data;
	struct ethhdr *eth = data;
	int r;

	if (likely(!bare)) {
		p->l3 = sizeof(*eth);
		if ((void *)(eth + 1) > end)
			return short_of(ctx, p, HD_R_ETH_TRUNCATED);
		p->ethertype = bpf_ntohs(eth->h_proto);
		header = eth + 1;
	}
	if (unlikely(p->ethertype == FRAME_8021Q || p->ethertype == FRAME_8021AD)) {
		r = parse_tags(ctx, p);
		if (r)
			return r;
		/* The helpers in there forget what was known of the frame's bounds. */
		data = hook_data(ctx);
		end = hook_data_end(ctx);
		header = data + (p->l3 & 31);
	}
	if (p->ethertype == FRAME_IP4)
		r = parse_ip4(ctx, p, header, end);
	else if (p->ethertype == FRAME_IP6)
		r = parse_ip6(ctx, p, header, end);
	else
		return parse_other(ctx, p);
	if (r || p->fragment == FRAGMENT_LATER)
		return r;
	return parse_l4(ctx, p);
}

#endif
