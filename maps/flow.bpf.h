/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Flow maps: they outlive the agent and every load of the programs. Three tables a family, one lookup each:
 *   flows4/6        proven TCP connections: the slot of each; a plain hash, nothing in it is ever displaced; aged by the timer
 *   flows4/6_other  proven flows of other protocols; LRU: they may displace each other, never TCP
 *   flows4/6_new    everything not proven yet; LRU: a flood displaces only what is unproven
 */
#ifndef HEDDLE_MAPS_FLOW_H
#define HEDDLE_MAPS_FLOW_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <heddle/flow.h>
#include <heddle/hot.h>

#define HD_FLOW_MAP(name, map_type, flags, entries, key_type, value_type) \
	struct { \
		__uint(type, map_type); \
		__uint(map_flags, flags); \
		__uint(max_entries, entries); \
		__type(key, key_type); \
		__type(value, value_type); \
	} name SEC(".maps")

HD_FLOW_MAP(flows4, BPF_MAP_TYPE_HASH, BPF_F_NO_PREALLOC, 131072, struct hd_flow_key4, __u32);
HD_FLOW_MAP(flows6, BPF_MAP_TYPE_HASH, BPF_F_NO_PREALLOC, 131072, struct hd_flow_key6, __u32);
HD_FLOW_MAP(flows4_other, BPF_MAP_TYPE_LRU_HASH, 0, 32768, struct hd_flow_key4, struct hd_flow);
HD_FLOW_MAP(flows6_other, BPF_MAP_TYPE_LRU_HASH, 0, 32768, struct hd_flow_key6, struct hd_flow);
HD_FLOW_MAP(flows4_new, BPF_MAP_TYPE_LRU_HASH, 0, 32768, struct hd_flow_key4, struct hd_flow);
HD_FLOW_MAP(flows6_new, BPF_MAP_TYPE_LRU_HASH, 0, 32768, struct hd_flow_key6, struct hd_flow);

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, HD_FLOW_HINTS);
	__type(key, __u32);   /* hash of a flow's key */
	__type(value, __u32); /* the slot it was last found in, or HD_FLOW_HINT_NEW; may be wrong */
} flow_hints SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE); /* begins on a page, so that a slot begins with a cache line */
	__uint(max_entries, 131072);	   /* as flows4; both families share the slots; entry 0 is never used */
	__type(key, __u32);
	__type(value, struct hd_flow_slot);
} flow_slots SEC(".maps");

/* Both begin on a page, so that an entry begins with a cache line. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, HD_HOT_ENTRIES);
	__type(key, __u32);
	__type(value, struct hd_hot4);
} flow_hot4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, HD_HOT_ENTRIES);
	__type(key, __u32);
	__type(value, struct hd_hot6);
} flow_hot6 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_STACK); /* filled with 1..n-1 by the agent when it creates it */
	__uint(max_entries, 131072);
	__type(value, __u32);
} flow_free SEC(".maps");

struct hd_flow_timer {
	struct bpf_timer timer;
	__u32 next_slot;
	__u32 armed;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct hd_flow_timer);
} flow_timer SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct hd_frag_key);
	__type(value, struct hd_frag);
} frags SEC(".maps");

#endif
