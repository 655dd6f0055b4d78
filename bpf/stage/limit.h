/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * How much a port may send, and be sent. One clock a direction (struct hd_limit_state) is all there is, for what is dropped and for what is delayed
 * alike: a packet that is ahead of the rate by less than a burst goes on, with the time at which it should. Where it leaves by the fq queue of an uplink it
 * waits there until then; everywhere else it goes at once, and the burst is that of a token bucket. Neither starves the other. Two CPUs at once may
 * both find room for a packet where there is room for one; both are counted, so the rate holds.
 */
#ifndef HEDDLE_STAGE_LIMIT_H
#define HEDDLE_STAGE_LIMIT_H

#include "event.h"
#include "port.h"

#include <maps/limit.bpf.h>

/* As many bytes as the devices behind will make of it. */
static __always_inline __u32 limit_bytes(HOOK_CTX *ctx, const struct pkt *p)
{
	__u32 size = dry_run ? 0 : ctx->gso_size, head;

	if (!size || !p->family)
		return p->l3_length;
	head = p->l4 - p->l3 + (p->protocol == PROTO_TCP ? p->tcp_offset : sizeof(struct udphdr));
	if (p->l3_length <= head + size)
		return p->l3_length;
	return p->l3_length + (p->l3_length - head - 1) / size * head;
}

static __always_inline struct hd_limit_state *limit_state(__u32 ifindex)
{
	struct hd_limit_state *state = bpf_map_lookup_elem(&port_limits, &ifindex);
	struct hd_limit_state fresh = {};

	if (likely(state) || dry_run)
		return state;
	/* Another CPU may be first. */
	bpf_map_update_elem(&port_limits, &ifindex, &fresh, BPF_NOEXIST);
	return bpf_map_lookup_elem(&port_limits, &ifindex);
}

/*
 * Acknowledgements, resolution, questions to a name server: they have another burst for themselves. Else a bulk transfer that keeps the first one used up would
 * starve one the other way of its acknowledgements, until that one's timeouts are minutes.
 */
#define LIMIT_SMALL 128
/* fq drops what is to wait for longer than 10 s, by default. */
#define STAMP_MAX 2000000000ll

/* When it shall leave an uplink. What goes to a port or up the host's stack to a process has left before; what is not IP cannot be told it. */
static __always_inline void limit_stamp(HOOK_CTX *ctx, const struct pkt *p, __u64 when)
{
	__u32 zero = 0;
	const struct hd_control *c = bpf_map_lookup_elem(&control, &zero);

	if (c && c->flags & HD_CONTROL_FQ && p->action != HD_ACT_PORT)
		bpf_skb_set_tstamp(ctx, when, BPF_SKB_TSTAMP_DELIVERY_MONO);
}

/* Whether the packet is too early, in one direction of the port that has a rate there. 0 or the drop reason. */
__noinline int limit(HOOK_CTX *ctx, struct pkt *p, __u32 ifindex, __u32 direction)
{
	struct hd_limit_state *state;
	const struct hd_port *port;
	__u64 now, next, burst;
	__u32 rate, bytes;
	__s64 ahead;

	if (!p)
		return HD_R_BANDWIDTH;
	direction &= 1;
	port = port_find(ifindex);
	rate = port ? port->limit[direction].rate : 0;
	if (!rate)
		return 0; /* taken away meanwhile */
	burst = (__u64)port->limit[direction].burst * 1000;
	state = limit_state(ifindex);
	if (!state)
		return dry_run ? 0 : HD_R_BANDWIDTH;
	now = bpf_ktime_get_ns();
	next = READ_ONCE(state->next[direction]);
	ahead = (__s64)(next - now);
	if (unlikely(state->rate[direction] != rate) && !dry_run) {
		/* What was ahead by another rate's measure may be so for hours by this one's. */
		state->rate[direction] = rate;
		if (ahead > (__s64)burst) {
			__sync_val_compare_and_swap(&state->next[direction], next, now + burst);
			ahead = burst;
		}
	}
	if (ahead < 0) {
		/* Whoever was faster has set it to the same, or moved it on from there. */
		if (!dry_run)
			__sync_val_compare_and_swap(&state->next[direction], next, now);
		ahead = 0;
	}
	bytes = limit_bytes(ctx, p);
	if (ahead > (__s64)burst && (bytes > LIMIT_SMALL || ahead > (__s64)burst * 2)) {
		if (!dry_run) {
			__sync_fetch_and_add(&state->packets[direction], p->segments);
			__sync_fetch_and_add(&state->bytes[direction], bytes);
		}
		return HD_R_BANDWIDTH;
	}
	if (dry_run)
		return 0;
	__sync_fetch_and_add(&state->next[direction], (__u64)bytes * 8000000 / rate);
	if (direction == HD_EGRESS)
		limit_stamp(ctx, p, now + (ahead < STAMP_MAX ? ahead : STAMP_MAX));
	if (ahead > (__s64)burst / 2 && p->family)
		bpf_skb_ecn_set_ce(ctx);
	return 0;
}

/* Of where the packet goes, in a dry run. */
static __always_inline int limit_to(HOOK_CTX *ctx, struct pkt *p)
{
	const struct hd_port *port = port_find(p->to);

	return port && port->flags & HD_PORT_LIMIT_IN ? limit(ctx, p, p->to, HD_INGRESS) : 0;
}

#endif
