/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The scratch map of `heddle explain`: what BPF_PROG_TEST_RUN cannot pass, and what the dry-run twin found. Only twins,
 * loaded with dry_run = true in .rodata, read or write it; in the live programs the verifier has pruned every access.
 */
#ifndef HEDDLE_EXPLAIN_H
#define HEDDLE_EXPLAIN_H

#include <heddle/types.h>

enum hd_flow_found { HD_FOUND_NONE = 0, HD_FOUND_PROVEN = 1, HD_FOUND_NEW = 2 };

/* What becomes of a packet that may pass. */
enum hd_action {
	HD_ACT_NEXT = 0,       /* to whoever comes behind us; of a port: the host's stack */
	HD_ACT_PORT = 1,       /* to another port */
	HD_ACT_FLOOD = 2,      /* to the members of its network */
	HD_ACT_ANSWER_ARP = 3, /* these are answered from here */
	HD_ACT_ANSWER_ND = 4,
	HD_ACT_ANSWER_ECHO = 5,
	HD_ACT_WIRE = 6, /* out of an uplink, with the tag of its network */
	HD_ACT_PEER = 7, /* to another host, in a tunnel */
};

struct hd_explain {
	/* in */
	__u32 ifindex;	       /* the device the packet is said to be on */
	__u32 ingress_ifindex; /* tc_uplink_out: where a forwarded packet came from; 0: sent by the host */
	__u32 vlan_present;    /* TC: a tag in skb metadata, vlan_tci and vlan_proto as in __sk_buff */
	__u32 vlan_tci;
	__u32 vlan_proto;
	__u32 gso_segs;		       /* TC: 0 or 1: not GSO */
	__u32 from_network, from_peer; /* tc_tunnel_in: what the tunnel header would have said */
	/* out */
	__u32 done;    /* 1: the twin reached a verdict */
	__u32 verdict; /* enum hd_verdict */
	__u32 reason;  /* enum hd_reason */
	__u32 rule;    /* rule id */
	__u32 generation;
	__u32 found;	  /* enum hd_flow_found */
	__u32 flow_state; /* enum hd_flow_state, when found */
	__u32 flow_reply; /* 1: the packet goes in the flow's reply direction */
	__u32 judged;	  /* 1: the policy tables were looked up: set, class_id, roots and leaves below are valid */
	__u32 rejudged;	  /* 1: the flow's version was stale */
	__u32 set;
	__u32 class_id;
	__u32 class_root; /* 0: no rule names the class */
	__u32 class_leaf; /* value in the class's rule tree */
	__u32 any_leaf;	  /* value in the set's own rule tree */
	__u32 fragment;	  /* 1 first, 2 later */
	__u32 related;	  /* 1: an ICMP error, judged by its embedded packet */
	__u32 forwarded;  /* 1: forward: pass let it by */
	__u32 picked_up;
	__u32 meta_written; /* XDP: it would be handed to TC as judged */
	__u32 action;	    /* enum hd_action */
	__u32 to;	    /* ifindex of the port that it is for; 0: none; HD_DEVICE_PEER and the index of a peer */
	__u32 network;	    /* key.network of its flow */
	__u32 second_rule;  /* the destination port's ingress rule, rule then being that of the source's egress */
	__u32 first_rule; /* the source's egress rule, where the destination's ingress was asked next: set, class and leaves are the latter's */
	__u32 routed;	 /* 1: by the gateway: TTL and MACs change */
	__u32 vni;	 /* that it leaves with; 0: it does not */
	__u32 fast_path; /* of an uplink: index of the FastPath that gets it, plus 1; 0: none */
};
static_assert(sizeof(struct hd_explain) == 144, "hd_explain");

#endif
