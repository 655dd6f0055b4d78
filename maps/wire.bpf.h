/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Which tags on an uplink are networks', and who takes their frames. Made afresh with each load and written by the agent. */
#ifndef HEDDLE_MAPS_WIRE_H
#define HEDDLE_MAPS_WIRE_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <heddle/network.h>

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 4096);
	__type(key, struct hd_wire_key);
	__type(value, struct hd_wire);
} wire_vlans SEC(".maps");

/* Who takes packets over from tc_uplink_in, by enum hd_wire_program. Entries are empty until a network has a VLAN, a host a tunnel. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, HD_WIRE_PROGRAMS);
	__type(key, __u32);
	__type(value, __u32);
} wire_programs SEC(".maps");

#endif
