/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Gives a flow, or a rule that denies, what a NIC has counted of it. Run by the agent through BPF_PROG_TEST_RUN: from user space an entry of a hash could only be
 * written as a whole, over what packets of the same flow count in the meantime. To look it up from here also keeps it from being displaced.
 */
#include "stage/compat.h"
#include "stage/slot.h"

#include <heddle/offload.h>
#include <heddle/overlay.h>
#include <maps/flow.bpf.h>
#include <maps/network.bpf.h>
#include <maps/observe.bpf.h>
#include <maps/overlay.bpf.h>

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

/* As peer_passed() would have counted them, that peer being at the other end of what a port sends or gets. */
static __always_inline void credit_peer(__u32 device, __u32 direction, __u64 packets, __u64 bytes)
{
	struct hd_peer_counters *counters;
	__u32 index = device & ~HD_DEVICE_PEER;

	if (!(device & HD_DEVICE_PEER) || device == HD_DEVICE_WIRE)
		return;
	counters = bpf_map_lookup_elem(&peer_counters, &index);
	if (counters) {
		counters->passed[direction].packets += packets;
		counters->passed[direction].bytes += bytes;
	}
}

/* Who sends there by a NIC stays learnt, as by the frames that source_learn() sees; unless the MAC is somewhere else by now. */
static __always_inline void credit_learnt(const struct hd_flow *flow, const union hd_flow_key *key, __u32 device)
{
	struct hd_fdb_key station = {.network = key->key4.network};
	struct hd_fdb *known;

	__builtin_memcpy(station.mac, flow->peer_mac, sizeof(station.mac));
	known = bpf_map_lookup_elem(&fdb, &station);
	if (known && (device == HD_DEVICE_WIRE ? known->ifindex && !known->peer : known->peer == (device & ~HD_DEVICE_PEER)))
		known->seen = bpf_jiffies64();
}

/* What one side has sent. As pass() would have counted it: what a port sends leaves it, what others send comes to one. */
static __always_inline void credit_side(
	const struct hd_credit *credit, const struct hd_flow *flow, const union hd_flow_key *key, __u32 side)
{
	__u64 packets = credit->packets[side], bytes = credit->bytes[side];
	__u32 from = flow->device[side], to = flow->device[!side];

	if (!packets)
		return;
	if (from & HD_DEVICE_PEER && credit->flags & HD_CREDIT_SEEN)
		credit_learnt(flow, key, from);
	credit_counter(&totals, from & HD_DEVICE_PEER ? HD_INGRESS : HD_EGRESS, packets, bytes);
	credit_peer(from, HD_INGRESS, packets, bytes);
	credit_peer(to, HD_EGRESS, packets, bytes);
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
	packets = credit->packets[HD_ORIG] + credit->packets[HD_REPLY];
	bytes = credit->bytes[HD_ORIG] + credit->bytes[HD_REPLY];
	credit_counter(&rule_counters, flow->rule, packets, bytes);
	if (flow->second_rule)
		credit_counter(&rule_counters, flow->second_rule, packets, bytes);
	credit_side(credit, flow, &key, HD_ORIG);
	credit_side(credit, flow, &key, HD_REPLY);
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
