/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What ports have used of their rates: it outlives the agent and every load of the programs. The rates are in the ports' records. */
#ifndef HEDDLE_MAPS_LIMIT_H
#define HEDDLE_MAPS_LIMIT_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <heddle/limit.h>

/* An entry is made by a port's first packet. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, HD_LIMITS_MAX);
	__type(key, __u32); /* ifindex */
	__type(value, struct hd_limit_state);
} port_limits SEC(".maps");

#endif
