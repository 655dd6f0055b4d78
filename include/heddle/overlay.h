/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The overlay: who the other hosts are, what they own, and how their tunnel endpoints are reached. Networks travel between hosts as VXLAN
 * (RFC 7348) or Geneve (RFC 8926) by their VNI.
 *
 * A peer is an index of the array `peers`, which stays with its name over restarts: flows and learnt MACs remember it. What a peer owns are rows
 * of `endpoints` (addresses and MACs, ifindex 0 and hd_endpoint.peer) and of `peer_prefixes`.
 */
#ifndef HEDDLE_OVERLAY_H
#define HEDDLE_OVERLAY_H

#include <heddle/network.h>
#include <heddle/types.h>

#define HD_PEERS_MAX 16384 /* indexes 1..; 0 is nobody */
#define HD_PEER_WAYS 4	   /* next hops of one peer, among which flows are spread */

/* In hd_flow.device[]: somebody behind a peer. HD_DEVICE_WIRE is none of these. */
#define HD_DEVICE_PEER 0x80000000u
/* The same before anybody has answered: a peer or the wire, whoever the network floods to. Whose the answer is takes its place. */
#define HD_DEVICE_OUTSIDE HD_DEVICE_PEER

enum hd_tunnel_protocol { HD_TUNNEL_NONE = 0, HD_TUNNEL_VXLAN = 1, HD_TUNNEL_GENEVE = 2 };

enum hd_tunnel_flags {
	HD_TUNNEL_CHECKSUM = 1 << 0, /* UDP checksums are sent; else they are 0 */
};

/* This host's end: the only entry of the map `tunnel`. */
struct hd_tunnel {
	struct hd_addr address; /* outer source, and the only outer destination that is taken; its family is that of all peers */
	__be16 port;		/* UDP, of both ends */
	__u8 protocol;		/* enum hd_tunnel_protocol */
	__u8 ttl;		/* outer TTL or hop limit */
	__u16 overhead;		/* bytes from the outer L3 header to the inner one: 50 over IPv4, 70 over IPv6 */
	__u16 flags;		/* enum hd_tunnel_flags */
	__u32 slow;		/* ifindex of the agent's device that takes what only the kernel's sockets can send, 0: none */
	__u32 sum;   /* of the device by which packets get their checksum, with HD_TUNNEL_CHECKSUM; 0: none, by `slow` they do */
	__u32 stack; /* of the device by which the host's stack sends to who is behind peers, and gets the answers; 0: none */
	__u32 reserved;
};
static_assert(sizeof(struct hd_tunnel) == 40, "hd_tunnel");

/* What a frame for hd_tunnel.slow has where its MACs would be. */
struct hd_slow {
	__u8 reserved[10]; /* 0 */
	__be16 cut;	   /* the inner packet, a fragment, goes in pieces of no more than so many bytes; 0: it goes as it is */
};
static_assert(sizeof(struct hd_slow) == 12, "hd_slow");

/* One next hop. */
struct hd_way {
	__u32 ifindex;	     /* of the uplink */
	__u8 destination[6]; /* MAC of the next hop */
	__u8 source[6];	     /* MAC of the uplink */
};
static_assert(sizeof(struct hd_way) == 16, "hd_way");

enum hd_peer_flags {
	HD_PEER_USED = 1 << 0,
};

/*
 * way[] holds two sets; the agent fills the one that is not in use and then stores `ways`, so that a packet sees one of them whole. A packet takes
 * way[set][hash % n].
 */
struct hd_peer {
	struct hd_addr address; /* outer destination, and the outer source that it sends from */
	__u32 ways;		/* HD_PEER_WAYS_OF(set, n); n 0: no next hop is known, the packet goes to hd_tunnel.slow */
	__u16 flags;		/* enum hd_peer_flags */
	__u16 mtu;		/* bytes of outer L3 that the uplink and its route take; 0: no limit known */
	/* Told by a router on the way (RFC 1191, RFC 8201); holds for HD_PATH_MTU_SECONDS. */
	__u32 path_mtu_seen; /* tick */
	__u16 path_mtu;	     /* 0: none */
	__u16 reserved;
	__u32 moved; /* as hd_port.moved */
	__u32 reserved2;
	struct hd_way way[2][HD_PEER_WAYS];
	char name
		[40]; /* of the Peer document; a long one cut, with a hash; an agent that starts finds the index of a peer by it */
	__u32 reserved3[6];
};
static_assert(sizeof(struct hd_peer) == 232, "hd_peer");

/*
 * What travelled: the map `peer_counters`, by the index of the peer. By direction, HD_INGRESS being from the peer; bytes are those of the inner IP packets (of
 * frames without one, behind their tags). dropped: once it was known whom it is from or for.
 */
struct hd_peer_counters {
	struct hd_counter passed[HD_DIRECTIONS], dropped[HD_DIRECTIONS];
};
static_assert(sizeof(struct hd_peer_counters) == 64, "hd_peer_counters");

#define HD_PEER_WAYS_OF(set, n) ((__u32)(n) << 1 | (set))
#define HD_PEER_WAYS_SET(ways) ((ways)&1)
#define HD_PEER_WAYS_COUNT(ways) ((ways) >> 1)
#define HD_PATH_MTU_SECONDS 600 /* as Linux keeps one */
/*
 * The least that a router is believed: an error that says less, down to the 576 or 68 bytes that IPv4 allows a link, counts as one that says this. Anybody
 * who can quote a tunnel packet could have everything cut to pieces else, and IPv6 inside needs as much by itself. A way over IPv4 that really takes
 * less loses what is larger.
 */
#define HD_PATH_MTU_MIN 1280

/* Underlay address → index: the map `peer_addresses`. Key: struct hd_addr, IPv4 mapped; value: __u32. */

/* VNI → network: the map `vnis`. */
struct hd_vni_key {
	__u32 vni; /* 1..2^24-1 */
};
struct hd_vni {
	__u32 network;
};

/*
 * The map `tunnel_hints`: whom outer address and VNI of a frame led to the last time, in the place that a hash of the two gives. May be wrong: the
 * records of the peer and of the network say whether it is theirs. A hash lookup is a call with calls in it, and this is in place of two.
 */
struct hd_tunnel_hint {
	__u32 peer;
	__u32 network;
};
static_assert(sizeof(struct hd_tunnel_hint) == 8, "hd_tunnel_hint");
#define HD_TUNNEL_HINTS 8192 /* a power of two */

/* Longest prefix of (network, address) → who has it: the map `peer_prefixes`. Key: struct hd_route_key. */
struct hd_peer_prefix {
	__u32 peer;
	__u8 mac[6]; /* where frames for it go; all 0: the gateway's MAC, which every host answers to */
	__u16 reserved;
};
static_assert(sizeof(struct hd_peer_prefix) == 12, "hd_peer_prefix");

/*
 * Peers that a network floods to: (network, 0..hd_network.peers-1) in the map `peer_members`. Key: struct hd_member_key; value: __u32,
 * the peer. Those that own something in the network.
 */

/* What xdp_uplink writes in front of a frame that it has taken out of its tunnel, in place of struct hd_meta. */
#define HD_META_TUNNEL 0x68656476u
struct hd_meta_tunnel {
	__u32 magic; /* HD_META_TUNNEL */
	__u32 generation;
	__u32 network;
	__u32 peer;
};
static_assert(sizeof(struct hd_meta_tunnel) == 16, "hd_meta_tunnel");

/* --- on the wire --- */

/* RFC 7348, section 5. */
struct hd_vxlan {
	__u8 flags; /* HD_VXLAN_VNI must be set, the others are ignored */
	__u8 reserved[3];
	__be32 vni; /* upper 24 bits */
};
#define HD_VXLAN_VNI 0x08

/* RFC 8926, section 3.4. Options follow. */
struct hd_geneve {
	__u8 length; /* version (2 bits, 0), then length of the options in words of 4 bytes */
	__u8 flags;
	__be16 protocol; /* HD_GENEVE_ETHERNET */
	__be32 vni;	 /* upper 24 bits */
};
#define HD_GENEVE_CONTROL 0x80	/* O: not for a workload */
#define HD_GENEVE_CRITICAL 0x40 /* C: some option is critical */
#define HD_GENEVE_ETHERNET 0x6558

/* Section 3.5. */
struct hd_geneve_option {
	__be16 class;
	__u8 type;   /* HD_GENEVE_OPTION_CRITICAL, and a number */
	__u8 length; /* lower 5 bits: words of 4 bytes behind this header */
};
#define HD_GENEVE_OPTION_CRITICAL 0x80

/* Source ports of tunnel packets, by the inner flow (RFC 7348, section 5; RFC 6335). */
#define HD_TUNNEL_SOURCE_PORTS 49152 /* and up */

#endif
