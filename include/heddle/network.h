/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Networks, and who is where in them. A network is an isolated domain: addresses and MACs mean something in one network only, so every
 * key has the network's index in it. Index 0 is the host's own network; the agent gives the others theirs and keeps them over restarts.
 */
#ifndef HEDDLE_NETWORK_H
#define HEDDLE_NETWORK_H

#include <heddle/policy.h>
#include <heddle/types.h>

#define HD_NETWORKS 4096 /* entries of the array `networks`; a power of two */

/* The MAC of every network's gateway, the same on every host (anycast). */
#define HD_GATEWAY_MAC \
	{ \
		0x02, 0x68, 0x65, 0x64, 0x64, 0x6c \
	}

/*
 * skb->mark of packets that our own programs redirected: they pass tc_port_out unjudged, and tc_uplink_out with the tag of a network, which clear
 * it. Cleared on all that comes from a port.
 */
#define HD_MARK 0x20000000u
/*
 * On what a port sends to a Service though its egress policy does not let it send to that address: what counts is where the host's stack turns it. At
 * another port that policy is asked again; anywhere else (an uplink, the host itself) the packet is dropped.
 */
#define HD_MARK_UNJUDGED 0x10000000u

enum hd_network_flags {
	HD_NETWORK_USED = 1 << 0,
	HD_NETWORK_L3 = 1 << 1, /* routed by address only: no flooding, ARP and ND answered by the gateway for everyone */
	HD_NETWORK_LEARNING = 1 << 2,
	HD_NETWORK_HOST = 1 << 3,	   /* routesTo: [host] */
	HD_NETWORK_PEER_LEARNING = 1 << 4, /* MACs behind peers are learnt */
};

struct hd_network {
	__u32 vni;   /* 0: none */
	__u16 vlan;  /* on the uplinks; 0: none */
	__u16 mtu;   /* bytes of L3; 0: no limit of its own */
	__u16 flags; /* enum hd_network_flags */
	__u16 last_index,
		last_zone, /* of entry 0: the last ones handed out. They are handed out in turn, so that none comes back soon */
		last_peer;
	__u32 members; /* (network, 0..members-1) are in the map `members` */
	__u32 peers;   /* (network, 0..peers-1) are in the map `peer_members` */
	struct hd_roots roots
		[2]; /* address trees; the newer one whose generation is not past the live one counts. Not of network 0: hd_control.roots */
	char name[40]; /* a long one cut, with a hash; an agent that starts finds the index of a network by it */
};
static_assert(sizeof(struct hd_network) == 96, "hd_network");

/* Index of the roots that hold in generation g; -1: none. */
static inline int hd_network_roots_at(const struct hd_network *network, __u32 g)
{
	return hd_entry_at(network->roots[0].generation, network->roots[1].generation, g);
}

/* --- endpoints: who owns an address or a MAC --- */

enum hd_endpoint_kind {
	HD_ENDPOINT_ADDRESS = 0,
	HD_ENDPOINT_MAC = 1, /* the MAC in addr.b[0..5], the rest 0 */
};

struct hd_endpoint_key {
	struct hd_addr addr; /* IPv4 mapped */
	__u16 network;
	__u8 kind; /* enum hd_endpoint_kind */
	__u8 reserved[5];
};
static_assert(sizeof(struct hd_endpoint_key) == 24, "hd_endpoint_key");

enum hd_endpoint_flags {
	HD_ENDPOINT_GATEWAY = 1 << 0, /* the network's gateway: no port's; ARP, ND and echo requests are answered here */
	HD_ENDPOINT_TAKEN = 1 << 1,   /* the host's or a VTEP's: no port may claim it, nothing is delivered to it here */
	/*
	 * An address of the host that `peer` is, where the network routes to the host. What that host's own stack opens comes by the tunnel, and what
	 * answers it goes back there; everything else for the address goes to our host's stack, as without the row.
	 */
	HD_ENDPOINT_NODE = 1 << 2,
};

struct hd_endpoint {
	__u32 ifindex; /* of the port; 0: see flags */
	__u8 mac[6];
	__u16 flags; /* enum hd_endpoint_flags */
	__u32 peer;  /* index of the peer that has it; 0: none, see ifindex */
};
static_assert(sizeof(struct hd_endpoint) == 16, "hd_endpoint");

/* --- learnt MACs --- */

struct hd_fdb_key {
	__u8 mac[6];
	__u16 network;
	__u16 vlan; /* within the network: access and trunk ports; 0: none */
	__u16 reserved;
};
static_assert(sizeof(struct hd_fdb_key) == 12, "hd_fdb_key");

struct hd_fdb {
	__u32 ifindex;
	__u32 seen; /* tick; older than HD_FDB_SECONDS: not there */
	__u32 peer; /* learnt from this peer, ifindex then being 0; 0: from ifindex */
};
static_assert(sizeof(struct hd_fdb) == 12, "hd_fdb");
#define HD_FDB_SECONDS 300 /* as IEEE 802.1Q's default ageing time */

/* --- whom a network floods to --- */

struct hd_member_key {
	__u16 network;
	__u16 index;
};
struct hd_member {
	__u32 ifindex;
};
#define HD_MEMBERS_MAX 1024 /* of one network on one host */

/* --- networks on the wire: VLANs of the uplinks, which are the members of network 0 --- */

struct hd_wire_key {
	__u32 vlan; /* id of the outer tag: 802.1Q, or 802.1ad around the 802.1Q tag of a segment */
};
struct hd_wire {
	__u32 network;
};

/* Indexes of the map `wire_programs`. */
enum hd_wire_program { HD_WIRE_VLAN = 0 /* tc_wire_in */, HD_WIRE_TUNNEL = 1 /* tc_tunnel_in */, HD_WIRE_PROGRAMS = 2 };

/* --- where a network routes to --- */

/* Longest prefix of (network the packet is in, destination). Network 0: from the host's stack, to a network that it reaches behind peers. */
struct hd_route_key {
	__u32 length;	/* bits: 16 of the network and those of the prefix */
	__be16 network; /* big endian: the trie compares bytes */
	__u8 addr[16];	/* IPv4 mapped */
	__u16 reserved;
};
static_assert(sizeof(struct hd_route_key) == 24, "hd_route_key");

/*
 * routesTo works one way: where A routes to B, A has rows for B's subnets without the flag, and B has rows for A's with it (unless B routes to A
 * as well). A packet whose longest prefix has HD_ROUTE_REPLY rides on a flow of the zone that the other network opened, or is an ICMP error
 * about one; with neither it is dropped like one without a row: no-destination.
 */
enum hd_route_flags {
	HD_ROUTE_REPLY = 1 << 0,
	HD_ROUTE_SERVICE = 1 << 1, /* to the host, which turns it elsewhere: judged there, see HD_MARK_UNJUDGED */
};

struct hd_route {
	__u16 network; /* the destination's; 0: the host */
	__u16 zone;    /* key.network of flows between the two, the same in both directions; HD_NETWORKS and above */
	__u32 flags;   /* enum hd_route_flags */
};
static_assert(sizeof(struct hd_route) == 8, "hd_route");

/* --- VLAN ids a trunk port may use --- */

struct hd_vlan_key {
	__u32 ifindex;
	__u16 vlan;
	__u16 reserved;
};
static_assert(sizeof(struct hd_vlan_key) == 8, "hd_vlan_key");

#endif
