/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * AF_XDP sockets, and what goes to them. All outlive the agent: a socket lives as long as somebody holds it, and packets go on to it while no agent
 * runs. Asked only on devices whose record says so (HD_PORT_FAST).
 */
#ifndef HEDDLE_MAPS_STEER_H
#define HEDDLE_MAPS_STEER_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <heddle/policy.h>
#include <heddle/steer.h>

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, HD_FAST_PATHS *HD_FAST_QUEUES);
	__type(key, __u32); /* HD_FAST_SOCKET */
	__type(value, __u32);
} xsks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, HD_FAST_PATHS);
	__type(key, __u32); /* ifindex */
	__type(value, struct hd_fast_device);
} fast_devices SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, HD_FAST_MATCHES);
	__type(key, struct hd_match_key);
	__type(value, struct hd_match);
} fast_matches SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, HD_FAST_PATHS);
	__type(key, __u32); /* ifindex */
	__type(value, struct hd_fast_forward);
} fast_forwards SEC(".maps");

/* Those of them that take frames from XDP. By ifindex, and empty of a device that is gone: no other one can get what was for it. */
struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP_HASH);
	__uint(max_entries, HD_FAST_PATHS);
	__type(key, __u32); /* ifindex */
	__type(value, __u32);
} fast_exits SEC(".maps");

/* By index. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, HD_FAST_PATHS);
	__type(key, __u32);
	__type(value, struct hd_fast_room);
} fast_rooms SEC(".maps");

/* For the agent alone. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, HD_FAST_PATHS);
	__type(key, __u32);
	__type(value, struct hd_fast_name);
} fast_names SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, HD_FAST_PATHS *HD_FAST_TOTALS);
	__type(key, __u32); /* HD_FAST_COUNTER */
	__type(value, struct hd_counter);
} fast_counters SEC(".maps");

/* What XDP sent to a device itself, by the index of that device. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, HD_FAST_PATHS);
	__type(key, __u32);
	__type(value, struct hd_counter);
} fast_redirects SEC(".maps");

#endif
