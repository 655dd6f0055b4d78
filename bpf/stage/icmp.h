/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * ICMP errors are let through for the sake of the flow they speak of, if the packet they quote is one that flow really sent, from where
 * the error goes to where it came from. All other ICMP but echo is judged packet by packet and leaves no flow behind.
 */
#ifndef HEDDLE_STAGE_ICMP_H
#define HEDDLE_STAGE_ICMP_H

#include "flow.h"
#include "parse.h"
#include "track.h"

static __always_inline bool icmp_is(const struct pkt *p)
{
	return (p->protocol == PROTO_ICMP && p->family == 4) || (p->protocol == PROTO_ICMPV6 && p->family == 6);
}

static __always_inline bool icmp_echo(const struct pkt *p)
{
	if (p->family == 4)
		return p->icmp_type == ICMP_ECHO_REQUEST || p->icmp_type == ICMP_ECHO_REPLY;
	return p->icmp_type == ICMPV6_ECHO_REQUEST || p->icmp_type == ICMPV6_ECHO_REPLY;
}

/* Redirects and source quench are not among them: nothing a flow needs, and both are means of attack (RFC 5927, RFC 6633). */
static __always_inline bool icmp_error(const struct pkt *p)
{
	if (p->family == 4)
		return p->icmp_type == ICMP_UNREACHABLE || p->icmp_type == ICMP_TIME_EXCEEDED || p->icmp_type == ICMP_PARAMETER;
	return p->icmp_type >= ICMPV6_UNREACHABLE && p->icmp_type <= ICMPV6_PARAMETER;
}

/*
 * The quoted packet as q. At least 8 bytes of its L4 header must be there (RFC 792); its own lengths are not checked, the quote is cut.
 * Fills fragment when the quote is of a later fragment, which has no ports to go by.
 */
__noinline int icmp_quote(HOOK_CTX *ctx, struct pkt *p, struct pkt *q)
{
	union {
		struct iphdr ip4;
		struct ipv6hdr ip6;
		struct {
			__be16 sport, dport;
			__be32 seq;
		};
		struct {
			__u8 type, code;
			__be16 checksum, identifier;
		};
	} header = {};
	__u32 at, left, size;

	if (!p || !q)
		return HD_R_ICMP_EMBEDDED;
	q->family = p->family;
	q->network = p->network;
	q->now = p->now;
	at = p->l4 + 8;
	left = p->l4_length - 8;
	if (p->family == 4) {
		if (left < sizeof(header.ip4) || hook_load(ctx, at, &header, sizeof(header.ip4)))
			return HD_R_ICMP_EMBEDDED;
		size = header.ip4.ihl * 4;
		if (header.ip4.version != 4 || size < sizeof(header.ip4))
			return HD_R_ICMP_EMBEDDED;
		q->protocol = header.ip4.protocol;
		q->source.w[2] = q->destination.w[2] = bpf_htonl(0xffff);
		q->source.w[3] = header.ip4.saddr;
		q->destination.w[3] = header.ip4.daddr;
		if (header.ip4.frag_off & bpf_htons(IP4_OFFSET))
			q->fragment = FRAGMENT_LATER;
	} else {
		if (left < sizeof(header.ip6) || hook_load(ctx, at, &header, sizeof(header.ip6)))
			return HD_R_ICMP_EMBEDDED;
		if (header.ip6.version != 6)
			return HD_R_ICMP_EMBEDDED;
		size = sizeof(header.ip6);
		q->protocol = header.ip6.nexthdr;
		__builtin_memcpy(&q->source, &header.ip6.saddr, sizeof(q->source));
		__builtin_memcpy(&q->destination, &header.ip6.daddr, sizeof(q->destination));
		q->l4 = at + size;
		q->l4_length = left - size;
		if (left >= size && extension(q->protocol)) {
			if (parse_ip6_extensions(ctx, q))
				return HD_R_ICMP_EMBEDDED;
			size = q->l4 - at;
		}
	}
	/* Whoever gets an error about a packet must have sent that. */
	if (p->destination.q[0] != q->source.q[0] || p->destination.q[1] != q->source.q[1])
		return HD_R_ICMP_EMBEDDED;
	if (q->fragment == FRAGMENT_LATER)
		return 0;
	if (left < size + 8 || hook_load(ctx, at + size, &header, 8))
		return HD_R_ICMP_EMBEDDED;
	if (q->protocol == PROTO_TCP || q->protocol == PROTO_UDP || q->protocol == PROTO_SCTP) {
		q->sport = header.sport;
		q->dport = header.dport;
		q->seq = bpf_ntohl(header.seq);
	} else if (icmp_is(q)) {
		q->icmp_type = header.type;
		q->icmp_code = header.code;
		if (icmp_echo(q))
			q->sport = q->dport = header.identifier;
	}
	return 0;
}

/* The quoted segment must be one that its sender may have in flight (RFC 5927 section 4.1). Unknown numbers (0) check nothing. */
static __always_inline bool icmp_in_flight(const struct hd_flow *flow, const struct pkt *q, __u32 side)
{
	__u32 end = flow->seq_end[side & 1];

	if (q->protocol != PROTO_TCP || flow->flags & HD_FLOW_PICKUP || !end)
		return true;
	return seq_within(q->seq, flow->ack[(side ^ 1) & 1] - TCP_SLACK, end);
}

/* 0: related; a drop reason; or -1: not about a flow we know, so judged like any packet. */
__noinline int icmp_related(HOOK_CTX *ctx, struct pkt *p)
{
	struct hd_scratch *room = scratch_room();
	union hd_flow_key *key;
	struct hd_flow *flow;
	struct pkt *q;
	__u32 zero = 0, side;
	struct hd_control *c;
	int r;

	if (!p || !room)
		return HD_R_RULE_TREE;
	q = &room->packet;
	key = &room->packet_key;
	__builtin_memset(q, 0, sizeof(*q));
	__builtin_memset(key, 0, sizeof(*key));
	r = icmp_quote(ctx, p, q);
	if (r)
		return r;
	c = bpf_map_lookup_elem(&control, &zero);
	if (!c || q->fragment == FRAGMENT_LATER || (icmp_is(q) && !icmp_echo(q)))
		return -1;
	q->found = HD_FOUND_PROVEN;
	flow_key(q, key);
	flow = flow_lookup(q, TABLE_PROVEN, key);
	if (!flow) {
		q->found = HD_FOUND_NEW;
		flow = flow_lookup(q, TABLE_NEW, key);
	}
	if (!flow || flow_expired(flow, c, p->now))
		return -1;
	if (flow->flags & HD_FLOW_HOT)
		flow_recall(q, flow);
	side = flow_side(q, flow);
	if (!flow_told(p, flow, side) || !icmp_in_flight(flow, q, side))
		return -1;
	p->found = q->found;
	p->rule = HD_RULE_RELATED;
	EXPLAIN(related = 1);
	EXPLAIN(flow_state = flow->state);
	if (!dry_run) {
		flow->packets[(side ^ 1) & 1] += p->segments;
		flow->bytes[(side ^ 1) & 1] += p->l3_length;
	}
	return 0;
}

/* ICMP other than echo: no flow comes of it. */
__noinline int icmp_judge(HOOK_CTX *ctx, struct pkt *p)
{
	int r;

	if (!p)
		return HD_R_RULE_TREE;
	if (icmp_error(p)) {
		r = icmp_related(ctx, p);
		if (r >= 0)
			return r;
	}
	if (forwarded(ctx, p)) {
		p->rule = HD_RULE_FORWARD;
		EXPLAIN(forwarded = 1);
		return 0;
	}
	return ask(p, 0);
}

#endif
