/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Room for what does not fit on the 512 bytes of stack that a program and all it calls share. Each program runs to its end before
 * another one of ours begins on the same CPU, so one of each is enough; what a use leaves there means nothing to the next. (A flood runs
 * tc_port_out within tc_port_in: that one sees our mark and touches nothing.)
 */
#ifndef HEDDLE_STAGE_SCRATCH_H
#define HEDDLE_STAGE_SCRATCH_H

#include "packet.h"

#define HEAD_ROOM 192

struct hd_scratch {
#ifdef HOOK_PORTS
	struct pkt port; /* what goes over a port: more is called there than the stack has room for beside it */
#endif
	struct hd_flow flow;	      /* a new entry */
	union hd_flow_key key;	      /* of the packet's flow */
	struct pkt packet;	      /* the one an ICMP error quotes, or the packet as a flow's home would see it */
	union hd_flow_key packet_key; /* of that one */
#ifdef HOOK_PORTS
	__u8 answer[6]; /* the MAC that a resolution is answered with */
	__u16 tags;	/* that an encapsulated frame has */
	struct {
		__be16 protocol, tci;
	} tag[2];     /* the outer one first */
	__u32 spread; /* hash of the encapsulated flow */
	__u8 tos;     /* DSCP and ECN of its packet */
	__u8 reserved[3];
	__u8 head[HEAD_ROOM]; /* the headers around a frame: see encap.h */
#endif
};

/* Two sizes, two maps. */
#ifdef HOOK_PORTS
#define scratch port_scratch
#endif

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct hd_scratch);
} scratch SEC(".maps");

static __always_inline struct hd_scratch *scratch_room(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&scratch, &zero);
}

#endif
