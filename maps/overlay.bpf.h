/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The overlay: peers, and what leads to them. Made afresh with each load and written by the agent; but programs note path MTUs in `peers`, and write `tunnel_hints`.
 * max_entries are the least ones; the agent sets the real ones before it creates the maps.
 */
#ifndef HEDDLE_MAPS_OVERLAY_H
#define HEDDLE_MAPS_OVERLAY_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <heddle/overlay.h>

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct hd_tunnel);
} tunnel SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 16);
	__type(key, __u32);
	__type(value, struct hd_peer);
} peers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 16); /* as peers: contents are copied */
	__type(key, __u32);
	__type(value, struct hd_peer_counters);
} peer_counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16);
	__type(key, struct hd_addr);
	__type(value, __u32);
} peer_addresses SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16);
	__type(key, struct hd_vni_key);
	__type(value, struct hd_vni);
} vnis SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, HD_TUNNEL_HINTS);
	__type(key, __u32); /* hash of outer source and VNI */
	__type(value, struct hd_tunnel_hint);
} tunnel_hints SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC); /* tries take no other */
	__uint(max_entries, 16);
	__type(key, struct hd_route_key);
	__type(value, struct hd_peer_prefix);
} peer_prefixes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16);
	__type(key, struct hd_member_key);
	__type(value, __u32);
} peer_members SEC(".maps");

#endif
