/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Gives a flow, or a rule that denies, what a NIC has counted of it. Run by the agent through BPF_PROG_TEST_RUN: from user space an entry of a hash could only be written as a
 * whole, over what packets of the same flow count in the meantime. To look it up from here also keeps it from being displaced.
 */
#include "stage/compat.h"
#include "stage/slot.h"

#include <heddle/offload.h>
#include <maps/flow.bpf.h>
#include <maps/observe.bpf.h>

static __always_inline struct hd_flow *credited_flow(const struct hd_credit *credit, const union hd_flow_key *key)
{
	/* Of both families in the same place. */
	if (key->key4.protocol == PROTO_TCP)
		return slot_by_hash(credit->family, key);
	return credit->family == 4 ? bpf_map_lookup_elem(&flows4_other, &key->key4)
				   : bpf_map_lookup_elem(&flows6_other, &key->key6);
}

static __always_inline void credit_counter(void *map, __u32 index, __u64 packets, __u64 bytes)
{
	struct hd_counter *counter = bpf_map_lookup_elem(map, &index);

	if (counter) {
		counter->packets += packets;
		counter->bytes += bytes;
	}
}

SEC("tc")
int offload_credit(struct __sk_buff *skb)
{
	const struct hd_credit *credit = (void *)(long)skb->data;
	union hd_flow_key key;
	struct hd_flow *flow;
	__u64 packets, bytes;

	if ((void *)(credit + 1) > (void *)(long)skb->data_end)
		return -1;
	key = credit->key;
	flow = credited_flow(credit, &key);
	if (!flow || flow->epoch != credit->epoch)
		return 1;
	flow->packets[HD_ORIG] += credit->packets[HD_ORIG];
	flow->packets[HD_REPLY] += credit->packets[HD_REPLY];
	flow->bytes[HD_ORIG] += credit->bytes[HD_ORIG];
	flow->bytes[HD_REPLY] += credit->bytes[HD_REPLY];
	if (credit->flags & HD_CREDIT_SEEN)
		flow->last_seen = bpf_jiffies64();
	if (credit->flags & HD_CREDIT_BEGINS && key.key4.protocol == PROTO_TCP)
		flow->flags |= HD_FLOW_PICKUP;
	/* As pass() would have counted them. */
	packets = credit->packets[HD_ORIG] + credit->packets[HD_REPLY];
	bytes = credit->bytes[HD_ORIG] + credit->bytes[HD_REPLY];
	credit_counter(&rule_counters, flow->rule, packets, bytes);
	if (flow->second_rule)
		credit_counter(&rule_counters, flow->second_rule, packets, bytes);
	credit_counter(&totals, HD_EGRESS, packets, bytes);
	return 0;
}

/* As drop() would have counted them. */
SEC("tc")
int offload_deny(struct __sk_buff *skb)
{
	const struct hd_denied *denied = (void *)(long)skb->data;

	if ((void *)(denied + 1) > (void *)(long)skb->data_end)
		return -1;
	credit_counter(&drops, HD_DROP_INDEX(HD_R_POLICY_DENY, HD_EGRESS), denied->packets, denied->frames);
	credit_counter(&totals, HD_EGRESS, denied->packets, denied->bytes);
	if (denied->rule)
		credit_counter(&rule_counters, denied->rule, denied->packets, denied->bytes);
	return 0;
}

char _license[] SEC("license") = "Dual BSD/GPL";
