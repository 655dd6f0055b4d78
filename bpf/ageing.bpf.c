/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Ageing of proven TCP flows, by a timer in the kernel: it goes on when the agent is dead. A run looks at a bounded piece of the slots
 * array. A flow past its timeout is marked first and deleted when it still is so a whole sweep later; in between, packets treat it as
 * absent already, so the mark only settles the race with a packet that saw it a moment before its time.
 */
#include "stage/compat.h"
#include "stage/hot.h"
#include "stage/slot.h"

#include <heddle/event.h>
#include <maps/flow.bpf.h>
#include <maps/observe.bpf.h>
#include <maps/policy.bpf.h>

#define CLOCK_MONOTONIC 1
#define PERIOD_NS 125000000
#define SLOTS_A_RUN 4096 /* 262144 slots are swept in 8 s; a full run takes less than half a millisecond */

/* What changes from slot to slot is kept in maps: the verifier would follow a number on the stack through every one of the steps. */
struct sweep {
	struct hd_flow_timer *state;
	const struct hd_control *control;
	__u32 now;
};

static long sweep_slot(__u32 step, struct sweep *s)
{
	struct hd_flow_slot *slot;
	struct hd_flow *flow;
	__u32 index = s->state->next_slot, total = HD_TOTAL_FLOWS_AGED;
	struct hd_counter *counter;

	slot = bpf_map_lookup_elem(&flow_slots, &index);
	if (!slot) { /* past the end: from the start at the next run */
		s->state->next_slot = 0;
		return 1;
	}
	s->state->next_slot = index + 1;
	if (!slot->used)
		return 0;
	flow = &slot->flow;
	/* Gone quiet with its numbers lent. */
	if (flow->flags & HD_FLOW_HOT && (__s32)(s->now - flow->last_seen) > 2 * HD_HOT_TICKS)
		hot_recall(slot->used, &slot->key, flow, s->now);
	if ((__s32)(s->now - flow->last_seen) <= (__s32)s->control->timeout[flow->state & 15]) {
		if (flow->flags & HD_FLOW_MARKED)
			flow->flags &= ~HD_FLOW_MARKED;
		return 0;
	}
	if (!(flow->flags & HD_FLOW_MARKED)) {
		flow->flags |= HD_FLOW_MARKED;
		return 0;
	}
	if (flow->flags & HD_FLOW_HOT)
		hot_recall(slot->used, &slot->key, flow, s->now);
	slot_remove(index, slot->used, &slot->key, slot->epoch);
	counter = bpf_map_lookup_elem(&totals, &total);
	if (counter)
		counter->packets++;
	return 0;
}

static int sweep(void *map, __u32 *key, struct hd_flow_timer *state)
{
	struct sweep s = {.state = state, .now = bpf_jiffies64()};
	__u32 zero = 0;

	s.control = bpf_map_lookup_elem(&control, &zero);
	if (s.control)
		bpf_loop(SLOTS_A_RUN, sweep_slot, &s, 0);
	bpf_timer_start(&state->timer, PERIOD_NS, 0);
	return 0;
}

/* Run once by each agent through BPF_PROG_TEST_RUN. A timer that an earlier one armed goes on with this program's sweep. */
SEC("tc")
int ageing_start(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct hd_flow_timer *state = bpf_map_lookup_elem(&flow_timer, &zero);
	long r;

	if (!state)
		return -2;
	r = bpf_timer_init(&state->timer, &flow_timer, CLOCK_MONOTONIC);
	if (r && r != -16) /* -EBUSY: initialised before */
		return r;
	r = bpf_timer_set_callback(&state->timer, sweep);
	if (r)
		return r;
	state->armed = 1;
	return bpf_timer_start(&state->timer, PERIOD_NS, 0);
}

/* The time in ticks, for user space. */
SEC("tc")
int tick_now(struct __sk_buff *skb)
{
	return bpf_jiffies64();
}

char _license[] SEC("license") = "Dual BSD/GPL";
