/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Counters, rules and events: they outlive the agent and every load of the programs, so counters survive updates. */
#ifndef HEDDLE_MAPS_OBSERVE_H
#define HEDDLE_MAPS_OBSERVE_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <heddle/event.h>
#include <heddle/explain.h>
#include <heddle/policy.h>
#include <heddle/reasons.h>

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1024); /* grown with the rules: contents are copied */
	__type(key, __u32);	   /* rule id */
	__type(value, struct hd_rule_info);
} rules SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1024); /* as rules */
	__type(key, __u32);	   /* rule id */
	__type(value, struct hd_counter);
} rule_counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, HD_REASON_COUNT * 2);
	__type(key, __u32); /* HD_DROP_INDEX */
	__type(value, struct hd_counter);
} drops SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, HD_TOTAL_COUNT);
	__type(key, __u32); /* enum hd_total */
	__type(value, struct hd_counter);
} totals SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, HD_TABLE_COUNT);
	__type(key, __u32);   /* enum hd_full */
	__type(value, __u64); /* times an entry did not fit */
} full SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 262144); /* bytes */
} events SEC(".maps");

/* Token buckets, one a CPU and purpose. */
enum hd_rate { HD_RATE_EVENT = 0, HD_RATE_REJECT = 1, HD_RATE_FULL = 2, HD_RATE_COUNT };
struct hd_bucket {
	__u64 refilled; /* ns, coarse */
	__u32 tokens;
	__u32 log_count; /* for log_every */
};
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, HD_RATE_COUNT);
	__type(key, __u32);
	__type(value, struct hd_bucket);
} rates SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct hd_explain);
} explain SEC(".maps");

#endif
