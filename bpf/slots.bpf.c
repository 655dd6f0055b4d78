/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Fills the list of free flow slots, once, when it is made: the agent runs this by BPF_PROG_TEST_RUN. A stack map has no batch
 * operation, and some hundred thousand system calls would be most of the agent's start.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <maps/flow.bpf.h>

static long push_slot(__u32 index, void *unused)
{
	__u32 slot = index + 1;

	(void)unused;
	return bpf_map_push_elem(&flow_free, &slot, 0) ? 1 : 0;
}

/* How many: the agent sets it to one less than the slots there are, since slot 0 is never used. */
volatile const __u32 slot_count = 0;

/* 0: all pushed. */
SEC("tc")
int fill_slots(struct __sk_buff *skb)
{
	(void)skb;
	return bpf_loop(slot_count, push_slot, NULL, 0) == (long)slot_count ? 0 : 1;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
