/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Ports: tc_port_in sees what the workload sends, tc_port_out what the host's stack sends to it. Not done yet: everything passes. */
#include "stage/compat.h"

#include <heddle/port.h>
#include <maps/flow.bpf.h>
#include <maps/network.bpf.h>
#include <maps/observe.bpf.h>
#include <maps/policy.bpf.h>

/* TC_ACT_UNSPEC for clsact, TCX_NEXT for tcx: whoever comes behind us still runs. */
#define NEXT (-1)

/* Set in .rodata before a twin is loaded. */
volatile const bool dry_run = false;

SEC("tc")
int tc_port_in(struct __sk_buff *skb)
{
	return dry_run ? TC_ACT_SHOT : NEXT;
}

SEC("tc")
int tc_port_out(struct __sk_buff *skb)
{
	return dry_run ? TC_ACT_SHOT : NEXT;
}

char _license[] SEC("license") = "Dual BSD/GPL";
