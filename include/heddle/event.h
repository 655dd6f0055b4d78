/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Events from the data plane to the agent (ring buffer `events`), and the counters of drops. */
#ifndef HEDDLE_EVENT_H
#define HEDDLE_EVENT_H

#include <heddle/types.h>

enum hd_event_type {
	HD_EVENT_DROP = 1, /* denied or dropped */
	HD_EVENT_FLOW = 2, /* a new flow was allowed (only while somebody monitors) */
	HD_EVENT_LOG =
		3, /* a rule with log: true decided on a new flow, or on a packet it denies: then in place of HD_EVENT_DROP;
		    or a rule in audit would have denied it: reason says so, verdict that it went on */
	/*
	 * In place of HD_EVENT_DROP, where the agent is asked to answer: rejected, or nobody has the destination, the TTL ran out, too big.
	 * packet[] holds the start of the frame.
	 */
	HD_EVENT_REJECT = 4,
	HD_EVENT_FULL = 5, /* a table took no entry: reason names it, see enum hd_full */
};

/* Which table was full (hd_event.reason of HD_EVENT_FULL, and the index of the map `full`). */
#define HD_TABLES(X) X(FLOWS, "flows") X(FLOWS_NEW, "flows_new") X(FLOWS_OTHER, "flows_other") X(FRAGMENTS, "fragments")
#define HD_TABLE_ENUM(sym, name) HD_TABLE_##sym,
enum hd_full { HD_TABLES(HD_TABLE_ENUM) HD_TABLE_COUNT };
#undef HD_TABLE_ENUM

#define HD_EVENT_PACKET \
	192 /* enough to quote 2 tags, IPv6, and the 8 bytes RFC 792 asks for, and more (RFC 4443: as much as fits) */

struct hd_event {
	__u64 time;	     /* ns, CLOCK_MONOTONIC coarse */
	__u8 type;	     /* enum hd_event_type */
	__u8 hook;	     /* enum hd_hook */
	__u8 direction;	     /* enum hd_direction */
	__u8 verdict;	     /* enum hd_verdict */
	__u16 reason;	     /* enum hd_reason */
	__u16 packet_length; /* bytes in packet[] */
	__u32 rule;	     /* rule id */
	__u32 ifindex;
	__u32 length; /* bytes of the frame */
	__u32 generation;
	/* as far as the parser came; all zero before that */
	struct hd_addr source, destination;
	__be16 source_port, destination_port; /* ICMP: type << 8 | code in destination_port, identifier in source_port */
	__be16 ethertype;
	__u8 protocol;
	__u8 tcp_flags;
	__u16 vlan[2];	/* outer and inner VLAN id | 0x1000 when present; host byte order */
	__u8 l3_offset; /* of the IP header in packet[] */
	__u8 reserved;
	__u16 network; /* of the device */
	__u16 mtu;     /* too-big: what would fit, bytes of L3 */
	__u16 peer;    /* from or to which it travels; 0: none */
	__u16 reserved2[2];
	__u8 packet[HD_EVENT_PACKET]; /* HD_EVENT_REJECT only; others are submitted without it (see HD_EVENT_SHORT) */
};
#define HD_EVENT_SHORT offsetof(struct hd_event, packet)
static_assert(HD_EVENT_SHORT == 88, "hd_event");

/* Index into the per-CPU array `drops`: reason * 2 + direction. */
#define HD_DROP_INDEX(reason, direction) ((reason)*2 + (direction))

/* Index into the per-CPU array `totals`. */
enum hd_total {
	HD_TOTAL_INGRESS = 0, /* packets and bytes judged */
	HD_TOTAL_EGRESS = 1,
	HD_TOTAL_FLOWS_CREATED = 2, /* packets: number of flows */
	HD_TOTAL_FLOWS_PROVEN = 3,
	HD_TOTAL_FLOWS_AGED = 4,
	HD_TOTAL_EVENTS_LOST = 5,    /* the ring buffer was full */
	HD_TOTAL_EVENTS_LIMITED = 6, /* held back by the rate limit */
	HD_TOTAL_REJECTS_LIMITED = 7,
	HD_TOTAL_REJUDGED = 8, /* flows judged again after a policy change */
	HD_TOTAL_CUT = 9,      /* of those, ended */
	HD_TOTAL_PICKED_UP = 10,
	HD_TOTAL_COUNT = 16,
};

#endif
