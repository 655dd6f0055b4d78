/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Networks and who is where in them. All but fdb are made afresh with each load and written by the agent; fdb outlives it.
 * max_entries are the least ones; the agent sets the real ones before it creates the maps. Preallocated: a hash that is not, once it is let go,
 * has a worker of the kernel wait for a barrier of its own, and an agent that starts lets all of these go.
 */
#ifndef HEDDLE_MAPS_NETWORK_H
#define HEDDLE_MAPS_NETWORK_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <heddle/network.h>

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, HD_NETWORKS);
	__type(key, __u32);
	__type(value, struct hd_network);
} networks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 256);
	__type(key, struct hd_endpoint_key);
	__type(value, struct hd_endpoint);
} endpoints SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct hd_fdb_key);
	__type(value, struct hd_fdb);
} fdb SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 256);
	__type(key, struct hd_member_key);
	__type(value, struct hd_member);
} members SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC); /* tries take no other */
	__uint(max_entries, 256);
	__type(key, struct hd_route_key);
	__type(value, struct hd_route);
} routes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 256);
	__type(key, struct hd_vlan_key);
	__type(value, __u32);
} port_vlans SEC(".maps");

#endif
