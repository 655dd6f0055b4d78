/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Counting and reporting: the only place that writes counters and events. */
#ifndef HEDDLE_STAGE_EVENT_H
#define HEDDLE_STAGE_EVENT_H

#include "explain.h"
#include "packet.h"

#include <heddle/event.h>
#include <maps/observe.bpf.h>
#include <maps/policy.bpf.h>

static __always_inline void counter_add(void *map, __u32 index, __u32 packets, __u32 bytes)
{
	struct hd_counter *counter;

	if (dry_run)
		return;
	counter = bpf_map_lookup_elem(map, &index);
	if (counter) {
		counter->packets += packets;
		counter->bytes += bytes;
	}
}

static __always_inline void total_add(__u32 index)
{
	counter_add(&totals, index, 1, 0);
}

/* One token of this CPU's bucket; rate is also the depth: a second's worth. */
static __always_inline bool rate_take(__u32 which, __u32 rate)
{
	struct hd_bucket *bucket = bpf_map_lookup_elem(&rates, &which);
	__u64 now = bpf_ktime_get_coarse_ns(), elapsed, more;

	if (!bucket)
		return false;
	elapsed = now - bucket->refilled;
	if (elapsed >= 1000000000) { /* also the first use, and a clock that seems to step back */
		bucket->tokens = rate;
		bucket->refilled = now;
	} else {
		more = elapsed * rate / 1000000000;
		if (more) {
			more += bucket->tokens;
			bucket->tokens = more > rate ? rate : more;
			bucket->refilled = now;
		}
	}
	if (!bucket->tokens)
		return false;
	bucket->tokens--;
	return true;
}

/* Of uplink.h or between.h: network and mtu. */
static __always_inline void event_place(struct hd_event *e, const struct pkt *p);

static __always_inline void event_fill(struct hd_event *e, const struct pkt *p, __u32 type, __u32 reason)
{
	e->time = bpf_ktime_get_coarse_ns();
	e->type = type;
	e->hook = p->hook;
	e->direction = p->direction;
	e->verdict = (type == HD_EVENT_DROP || type == HD_EVENT_REJECT) && reason > HD_R_POLICY_REJECT ? HD_DROP : p->verdict;
	e->reason = reason;
	e->packet_length = 0;
	e->rule = p->rule;
	e->ifindex = p->ifindex;
	e->length = p->length;
	e->generation = p->generation;
	e->source = p->source;
	e->destination = p->destination;
	e->source_port = p->sport;
	e->destination_port = p->dport;
	if (p->protocol == PROTO_ICMP || p->protocol == PROTO_ICMPV6)
		e->destination_port = bpf_htons(p->icmp_type << 8 | p->icmp_code);
	e->ethertype = bpf_htons(p->ethertype);
	e->protocol = p->protocol;
	e->tcp_flags = p->tcp_flags;
	e->vlan[0] = p->vlan[0];
	e->vlan[1] = p->vlan[1];
	e->l3_offset = p->l3;
	e->reserved = 0;
	event_place(e, p);
	__builtin_memset(e->reserved2, 0, sizeof(e->reserved2));
}

/* The start of the frame goes along, so that the agent can answer it. */
static __always_inline void event_reject(HOOK_CTX *ctx, const struct pkt *p, __u32 reason)
{
	struct hd_event *e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	__u32 length = p->length;

	if (!e) {
		total_add(HD_TOTAL_EVENTS_LOST);
		return;
	}
	event_fill(e, p, HD_EVENT_REJECT, reason);
	__builtin_memset(e->packet, 0, sizeof(e->packet));
	if (length > HD_EVENT_PACKET)
		length = HD_EVENT_PACKET;
	asm volatile("" : "+r"(length)); /* keeps clang from joining both bounds in one comparison, which 6.1 does not follow */
	if (length >= sizeof(struct ethhdr) && hook_load(ctx, 0, e->packet, length) == 0)
		e->packet_length = length;
	bpf_ringbuf_submit(e, 0);
}

static __always_inline void event_short(const struct pkt *p, __u32 type, __u32 reason)
{
	struct hd_event *e = bpf_ringbuf_reserve(&events, HD_EVENT_SHORT, 0);

	if (!e) {
		total_add(HD_TOTAL_EVENTS_LOST);
		return;
	}
	event_fill(e, p, type, reason);
	bpf_ringbuf_submit(e, 0);
}

/* An event of the general kind, rate limited. */
static __always_inline void event_limited(const struct pkt *p, __u32 type, __u32 reason)
{
	__u32 zero = 0;
	struct hd_control *c;

	if (dry_run)
		return;
	c = bpf_map_lookup_elem(&control, &zero);
	if (!c)
		return;
	if (rate_take(HD_RATE_EVENT, c->event_rate))
		event_short(p, type, reason);
	else
		total_add(HD_TOTAL_EVENTS_LIMITED);
}

/* Every log_every-th decision of this CPU is logged. */
static __always_inline bool log_sampled(__u32 every)
{
	__u32 which = HD_RATE_EVENT;
	struct hd_bucket *bucket = bpf_map_lookup_elem(&rates, &which);

	if (!bucket)
		return false;
	if (++bucket->log_count < every)
		return false;
	bucket->log_count = 0;
	return true;
}

/* A new flow was let in by a rule. */
__noinline int event_flow(struct pkt *p)
{
	__u32 zero = 0;
	struct hd_control *c;

	if (!p || dry_run)
		return 0;
	total_add(HD_TOTAL_FLOWS_CREATED);
	c = bpf_map_lookup_elem(&control, &zero);
	if (!c)
		return 0;
	if (p->log && log_sampled(c->log_every))
		event_limited(p, HD_EVENT_LOG, HD_R_NONE);
	else if (c->flags & HD_CONTROL_MONITOR)
		event_limited(p, HD_EVENT_FLOW, HD_R_NONE);
	return 0;
}

/* A table took no entry: its name, not the packet's fate, is the news. */
__noinline int event_full(struct pkt *p, __u32 table)
{
	__u64 *count;

	if (!p || dry_run)
		return 0;
	count = bpf_map_lookup_elem(&full, &table);
	if (count)
		(*count)++;
	/* One a second and CPU says it all. */
	if (rate_take(HD_RATE_FULL, 1))
		event_short(p, HD_EVENT_FULL, table);
	return 0;
}

/* What the sender is told by the agent. */
static __always_inline bool event_answered(__u32 reason)
{
	return reason == HD_R_POLICY_REJECT || (reason >= HD_R_NO_DESTINATION && reason <= HD_R_TOO_BIG);
}

/* Nobody is answered who did not ask, or who would answer back (RFC 1122 section 3.2.2, RFC 4443 section 2.4). */
static __always_inline bool answerable(HOOK_CTX *ctx, const struct pkt *p)
{
	__u8 mac = 0;

	/* Nor is anybody on the wire or behind a peer: the agent's answers would go out without a tag, or without a tunnel. */
	if (!p->family || p->fragment == FRAGMENT_LATER || p->hook == HD_HOOK_TC_WIRE_IN || p->hook == HD_HOOK_TC_TUNNEL_IN)
		return false;
	if (hook_load(ctx, 0, &mac, 1) || mac & 1) /* sent to a group on the link: a subnet's broadcast address shows here only */
		return false;
	if (p->protocol == PROTO_TCP && p->tcp_flags & TCP_RST)
		return false;
	if (p->family == 4) {
		__u32 source = bpf_ntohl(p->source.w[3]), destination = bpf_ntohl(p->destination.w[3]);

		/* multicast, reserved and limited broadcast begin at 224.0.0.0 */
		if (source >= 0xe0000000 || destination >= 0xe0000000 || !source)
			return false;
		return p->protocol != PROTO_ICMP || p->icmp_type == ICMP_ECHO_REQUEST || p->icmp_type == ICMP_ECHO_REPLY;
	}
	if (p->source.b[0] == 0xff || p->destination.b[0] == 0xff || !(p->source.q[0] | p->source.q[1]))
		return false;
	return p->protocol != PROTO_ICMPV6 || p->icmp_type >= ICMPV6_ECHO_REQUEST;
}

/* The end of every packet that is not let through. */
__noinline int drop(HOOK_CTX *ctx, struct pkt *p, __u32 reason)
{
	__u32 zero = 0, verdict = HD_DROP;
	struct hd_control *c;

	if (!p)
		return 0;
	if (reason == HD_R_POLICY_DENY || reason == HD_R_POLICY_REJECT)
		verdict = p->verdict;
	if (dry_run) {
		explain_verdict(p, verdict, reason);
		return 0;
	}
	p->length = hook_length(ctx);
	counter_add(&drops, HD_DROP_INDEX(reason, p->direction), p->segments, p->length);
	counter_add(&totals, p->direction, p->segments, p->l3_length);
	if (p->rule)
		counter_add(&rule_counters, p->rule, p->segments, p->l3_length);
	c = bpf_map_lookup_elem(&control, &zero);
	if (!c)
		return 0;
	if (p->log && log_sampled(c->log_every)) {
		event_limited(p, HD_EVENT_LOG, reason);
		if (reason != HD_R_POLICY_REJECT)
			return 0;
	}
	if (event_answered(reason) && answerable(ctx, p)) {
		if (rate_take(HD_RATE_REJECT, c->reject_rate)) {
			event_reject(ctx, p, reason);
			return 0;
		}
		total_add(HD_TOTAL_REJECTS_LIMITED);
	}
	event_limited(p, HD_EVENT_DROP, reason);
	return 0;
}

/* The end of every packet that is. */
static __always_inline void pass(const struct pkt *p)
{
	explain_verdict(p, HD_ALLOW, HD_R_NONE);
	counter_add(&rule_counters, p->rule, p->segments, p->l3_length);
	counter_add(&totals, p->direction, p->segments, p->l3_length);
}

#endif
