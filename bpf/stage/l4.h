/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* L4 headers, of whole packets and of first fragments. */
#ifndef HEDDLE_STAGE_L4_H
#define HEDDLE_STAGE_L4_H

#include "packet.h"

/* A header past the readable part: either the frame ends there, or the driver left it in a later buffer. */
static __always_inline int short_of(HOOK_CTX *ctx, const struct pkt *p, int reason)
{
	__u32 readable = (__u32)(hook_data_end(ctx) - hook_data(ctx));

	return hook_length(ctx) > readable ? HD_R_NONLINEAR : reason;
}

static __always_inline int l4_short(const struct pkt *p, int reason)
{
	return p->fragment == FRAGMENT_FIRST ? HD_R_FRAG_TINY : reason;
}

static __always_inline int parse_tcp(HOOK_CTX *ctx, struct pkt *p, void *header, void *end)
{
	struct tcphdr *tcp = header;
	__u8 flags;

	if (p->l4_length < sizeof(*tcp))
		return l4_short(p, HD_R_TCP_TRUNCATED);
	if ((void *)(tcp + 1) > end)
		return short_of(ctx, p, HD_R_TCP_TRUNCATED);
	p->tcp_offset = tcp->doff * 4;
	if (p->tcp_offset < sizeof(*tcp))
		return HD_R_TCP_OFFSET;
	if (p->tcp_offset > p->l4_length)
		return l4_short(p, HD_R_TCP_OFFSET);
	flags = ((__u8 *)tcp)[13];
	p->tcp_flags = flags;
	if (!(flags & (TCP_SYN | TCP_RST | TCP_ACK)))
		return HD_R_TCP_FLAGS;
	if (flags & TCP_FIN && (flags & (TCP_SYN | TCP_RST) || !(flags & TCP_ACK)))
		return HD_R_TCP_FLAGS;
	if ((flags & (TCP_SYN | TCP_RST)) == (TCP_SYN | TCP_RST))
		return HD_R_TCP_FLAGS;
	p->sport = tcp->source;
	p->dport = tcp->dest;
	p->seq = bpf_ntohl(tcp->seq);
	p->ack = bpf_ntohl(tcp->ack_seq);
	p->window = bpf_ntohs(tcp->window);
	p->payload = p->l4_length - p->tcp_offset;
	return 0;
}

static __always_inline int parse_udp(HOOK_CTX *ctx, struct pkt *p, void *header, void *end)
{
	struct udphdr *udp = header;
	__u32 length;

	if (p->l4_length < sizeof(*udp))
		return l4_short(p, HD_R_UDP_TRUNCATED);
	if ((void *)(udp + 1) > end)
		return short_of(ctx, p, HD_R_UDP_TRUNCATED);
	/* May be less than the packet holds (RFC 9868), never more. GSO packets carry the length of the whole. */
	length = bpf_ntohs(udp->len);
	if (length < sizeof(*udp) || (length > p->l4_length && p->fragment != FRAGMENT_FIRST))
		return HD_R_UDP_LENGTH;
	p->sport = udp->source;
	p->dport = udp->dest;
	return 0;
}

static __always_inline __u32 l4_least(__u8 protocol)
{
	switch (protocol) {
	case PROTO_GRE:
		return 4;
	case PROTO_ESP:
	case PROTO_UDPLITE:
		return 8;
	case PROTO_DCCP:
	case PROTO_AH:
		return 12;
	}
	return 0;
}

/* ICMP, SCTP, and the protocols that are known by their number alone. */
__noinline int parse_l4_other(HOOK_CTX *ctx, struct pkt *p)
{
	struct {
		union {
			__be16 ports[2];
			struct {
				__u8 type, code;
				__be16 checksum;
			};
		};
		__be16 identifier, sequence;
	} header;

	if (!p)
		return HD_R_L4_TRUNCATED;
	if (p->protocol == PROTO_SCTP) {
		/* common header and one chunk header: a packet without a chunk means nothing */
		if (p->l4_length < 16 || hook_load(ctx, p->l4, &header, sizeof(header)))
			return l4_short(p, HD_R_SCTP_TRUNCATED);
		p->sport = header.ports[0];
		p->dport = header.ports[1];
		return 0;
	}
	if ((p->protocol == PROTO_ICMP && p->family == 4) || (p->protocol == PROTO_ICMPV6 && p->family == 6)) {
		if (p->l4_length < 8 || hook_load(ctx, p->l4, &header, sizeof(header)))
			return l4_short(p, HD_R_ICMP_TRUNCATED);
		p->icmp_type = header.type;
		p->icmp_code = header.code;
		if (p->family == 6 && p->icmp_type >= ICMPV6_ND_FIRST && p->icmp_type <= ICMPV6_ND_LAST && p->hop_limit != 255)
			return HD_R_ND_HOP_LIMIT;
		if ((p->family == 4 && (p->icmp_type == ICMP_ECHO_REQUEST || p->icmp_type == ICMP_ECHO_REPLY)) ||
			(p->family == 6 && (p->icmp_type == ICMPV6_ECHO_REQUEST || p->icmp_type == ICMPV6_ECHO_REPLY)))
			p->sport = p->dport = header.identifier;
		return 0;
	}
	if (p->l4_length < l4_least(p->protocol))
		return l4_short(p, HD_R_L4_TRUNCATED);
	return 0;
}

static __always_inline int parse_l4(HOOK_CTX *ctx, struct pkt *p)
{
	void *header = hook_data(ctx) + (p->l4 & 0x3fff); /* at most two tags, IPv6 and six extension headers */

	if (likely(p->protocol == PROTO_TCP))
		return parse_tcp(ctx, p, header, hook_data_end(ctx));
	if (p->protocol == PROTO_UDP)
		return parse_udp(ctx, p, header, hook_data_end(ctx));
	return parse_l4_other(ctx, p);
}

#endif
