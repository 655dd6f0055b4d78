/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What the stages know of one packet, and what a hook must give them.
 *
 * A shell (xdp_uplink.bpf.c, tc_uplink.bpf.c) defines, before it includes any stage:
 *   HOOK_CTX                         struct xdp_md or struct __sk_buff
 *   hook_data, hook_data_end(ctx)    the directly readable part of the frame
 *   hook_length(ctx)                 bytes of the whole frame
 *   hook_load(ctx, at, to, n)        copies out of the whole frame; 0 or negative
 * so that no stage asks which hook it runs on. Who has a say about a packet is told by uplink.h or between.h, whose functions of the same
 * names (see track.h) the stages of flows call. HOOK_PORTS is defined where packets are between ports: what only they need is not in the others'
 * struct pkt, whose place on the stack is dear.
 */
#ifndef HEDDLE_STAGE_PACKET_H
#define HEDDLE_STAGE_PACKET_H

#include "compat.h"

#include <heddle/explain.h>
#include <heddle/flow.h>
#include <heddle/port.h>
#include <heddle/reasons.h>
#include <heddle/types.h>

/* Set in .rodata before a twin is loaded. The verifier then removes every write, and in the live programs every use of `explain`. */
volatile const bool dry_run = false;

enum { FRAGMENT_NONE = 0, FRAGMENT_FIRST = 1, FRAGMENT_LATER = 2 };

struct pkt {
	__u32 now; /* tick */
	__u32 ifindex;
	__u32 arrived_on; /* egress: the device a forwarded packet came in on, 0: sent by the host */
	__u32 length;	  /* of the frame, as far as the hook knows without asking */
	__u32 l3_length;  /* of the IP packet, padding excluded; of the frame behind its tags when it is not IP */
	__u32 l4_length;  /* from the L4 header to the end of the packet */
	__u32 segments;	  /* a GSO packet counts as many */
	__u32 generation;
	__u32 rule;
	__u32 version[2]; /* these three from the port's record: hd_port_policy */
	__u32 set[2];
	__u32 root[2];
	__u16 l3, l4;	 /* offsets in the frame */
	__u16 ethertype; /* host byte order; 0: an 802.3 length */
	__u16 network;
	__be16 sport, dport;
	__u16 vlan[2]; /* as in hd_event */
	__u8 family;   /* 4, 6; 0: not IP */
	__u8 protocol;
	__u8 fragment;
	__u8 direction;	  /* enum hd_direction */
	__u8 hook;	  /* enum hd_hook */
	__u16 port_flags; /* enum hd_port_flags */
	__u8 from_hi;	  /* the source is the hi end of the flow key; set with the key */
	__u8 found;	  /* enum hd_flow_found */
	/* TCP */
	__u32 seq, ack;
	__u32 payload;
	__u16 window;
	__u8 tcp_flags;
	__u8 tcp_offset; /* bytes */
	__u8 wscale;	 /* of a SYN; 0xff: not offered */
	/* ICMP */
	__u8 icmp_type, icmp_code;
	__u8 hop_limit;
	__u8 verdict;	   /* enum hd_verdict of the rule that decided */
	__u16 frag_offset; /* bytes */
	__u8 frag_more;
	__u8 log;  /* the rule that decided logs */
	__u8 pass; /* that rule leaves it to the next set of rules, where there is one; of ports only */
	__u8 zero; /* always 0, which the verifier does not know: a loop over options that starts here is checked once, not for each offset */
	__be32 frag_id;
	struct hd_addr source, destination;
#ifdef HOOK_PORTS
	__u32 from,
		to;   /* the ports (ifindex) at its ends; 0: the host, or whatever is behind it; HD_DEVICE_WIRE, HD_DEVICE_PEER */
	__u32 peer;   /* index of the one that it came from; 0: not out of a tunnel */
	__u32 uplink; /* by which `to` is reached, where that is the wire */
	__u32 turned; /* the port that opened it by way of the host's stack, see HD_FLOW_TURNED; 0: none */
	__u32 node;   /* index of the peer whose host the destination is, see HD_ENDPOINT_NODE; 0: none */
	__u32 other_version[2]; /* of the port that it goes to: as version */
	__u32 second_rule;	/* of a second policy that had a say */
	__u32 moved;		/* these three from the port's record */
	__u8 mac[6];
	__u16 vlan_of_port;
	__u16 source_network,
		destination_network; /* a frame is in the latter: they differ where it is routed, here or at its source */
	__u16 segment;		     /* VLAN id within its network */
	__u16 mtu;		     /* that it is too big for */
	__u8 routed;		     /* by the gateway: TTL and MACs change */
	__u8 action;		     /* enum hd_action */
	__u8 judged;		     /* a policy was asked: flood() asks those of the members */
	__u8 replies;		     /* the route takes replies only: HD_ROUTE_REPLY */
	__u8 service;		     /* the route is to one: HD_ROUTE_SERVICE */
	__u8 peer_mac[6];	     /* where frames for the end behind a peer, or on the wire, go */
	__u8 learnt;		     /* that peer is known from frames, not by a document */
	__u8 slow;		     /* too large for the way, or behind a fragment that was: goes by the agent's socket */
	__u8 mistaken;		     /* skb->protocol is not what the frame is, once out of its tunnel */
	__u8 direct;		     /* no worker has it: XDP sends it to its device itself */
#endif
};

/* array[direction], without the arithmetic on a stack pointer that the verifier refuses. */
static __always_inline __u32 by_direction(const __u32 array[2], __u32 direction)
{
	__u32 in = array[0], out = array[1];

	asm volatile("" : "+r"(in), "+r"(out));
	return direction == HD_EGRESS ? out : in;
}

#endif
