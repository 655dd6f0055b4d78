/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which flows a NIC can forward just as our programs would, and by which rules: pure. A rule takes packets of one direction of one flow out of a
 * representor and puts them into another one; whatever is not an ordinary packet of that flow does not match it, and comes to the programs.
 */
#ifndef HEDDLE_OFFLOAD_PLAN_H
#define HEDDLE_OFFLOAD_PLAN_H

#include <stdbool.h>
#include <stdint.h>

#include <datapath/datapath.h>

/* Why a flow is where it is. X(SYMBOL, "name", "what it says"). */
#define OFFLOAD_REASONS(X) \
	X(NONE, "offloaded", "the NIC forwards it") \
	X(PROTOCOL, "protocol", "neither TCP nor UDP nor SCTP") \
	X(STATE, "state", "not established, or about to end") \
	X(TIMEOUT, "timeout", "its timeout is shorter than what is needed to see that it is idle") \
	X(HOST, "host", "goes to the host's stack or comes from there") \
	X(TUNNEL, "tunnel", "goes to a peer, and there is no tunnel device by which a NIC could be told so") \
	X(CHECKSUM, "checksum", "goes to a peer with a UDP checksum, which NICs do not put there") \
	X(WAYS, "ways", "goes to a peer that no next hop is known of, or more than one") \
	X(WIRE, "wire", "the MAC of its end on the wire, or behind a peer, is not learnt, or not any more") \
	X(SWITCH, "switch", "its ends are not behind representors and the uplink of one NIC") \
	X(SEGMENT, "segment", "an end is a trunk, carries tags of its own, or is in a segment beyond the NIC") \
	X(BETWEEN, "between-networks", "routed between networks") \
	X(RATE, "rate", "an end has a rate, which is counted in software") \
	X(MTU, "mtu", "goes where the MTU is smaller, by a router or a tunnel: what is too big has to be answered") \
	X(STALE, "stale", "its policy or one of its ends has changed: the next packet says where it goes") \
	X(REFUSED, "refused", "the NIC does not take it") \
	X(FULL, "full", "as many flows are offloaded as may be") \
	X(WAITING, "waiting", "its turn has not come yet")
#define OFFLOAD_REASON_ENUM(sym, name, text) OFFLOAD_##sym,
enum offload_reason { OFFLOAD_REASONS(OFFLOAD_REASON_ENUM) OFFLOAD_REASON_COUNT };
#undef OFFLOAD_REASON_ENUM
extern const char *const offload_reason_name[OFFLOAD_REASON_COUNT];
extern const char *const offload_reason_text[OFFLOAD_REASON_COUNT];

/* A port that packets can go to and come from. */
struct offload_port {
	struct hd_port record;
	uint32_t generation; /* that counts in it */
	uint64_t switch_id;  /* of the NIC whose representor it is; 0: it is none */
};

/* What the plan is made for. */
struct offload_world {
	/* False: no port of ours. */
	bool (*port)(uint32_t ifindex, struct offload_port *ret, void *userdata);
	/* Both are in one subnet of the network: what one of them sends to the other is switched, else its gateway routes it. */
	bool (*neighbours)(uint16_t network, const struct hd_addr *a, const struct hd_addr *b, void *userdata);
	/* The MAC that the address has by a document, where a port has several. False: the port's own. */
	bool (*mac)(uint16_t network, const struct hd_addr *address, uint8_t ret[6], void *userdata);
	/* --- of ends that are no ports --- */
	bool (*network)(uint16_t network, struct hd_network *ret, void *userdata);
	/* Whose a document says the address, or the MAC, is; false: nobody's. And the peer that has the prefix around an address; false: none. */
	bool (*endpoint)(uint16_t network, const struct hd_addr *address, struct hd_endpoint *ret, void *userdata);
	bool (*owner)(uint16_t network, const uint8_t mac[6], struct hd_endpoint *ret, void *userdata);
	bool (*prefix)(uint16_t network, const struct hd_addr *address, struct hd_peer_prefix *ret, void *userdata);
	/* Where the MAC was learnt; false: nowhere, or it is forgotten. */
	bool (*learnt)(uint16_t network, const uint8_t mac[6], struct hd_fdb *ret, void *userdata);
	uint64_t (*uplink)(uint32_t ifindex, void *userdata); /* of which NIC it is the uplink; 0: of none */
	/* The record of a peer, and how many bytes of inner L3 go to it now; 0: not known. */
	bool (*peer)(uint32_t index, struct hd_peer *ret, uint32_t *room, void *userdata);
	struct hd_tunnel tunnel; /* our end */
	uint32_t tunnel_device;	 /* of the kernel, by which NICs are told of it; 0: there is none */
	void *userdata;
	uint32_t timeout_ms[HD_FLOW_STATE_COUNT];
	uint32_t least_timeout_ms; /* a shorter one cannot be kept */
};

/* How a packet comes, or leaves, beside its port. */
enum offload_outside {
	OFFLOAD_INSIDE = 0,
	OFFLOAD_TAG,   /* leaves with the network's tag, by the uplink `out` */
	OFFLOAD_UNTAG, /* comes with it, by the uplink `in` */
	OFFLOAD_ENCAP, /* leaves in a tunnel packet. `out` is the tunnel device */
	OFFLOAD_DECAP, /* comes in one. `in` is the tunnel device */
};

/* Of the tunnel packet. */
struct offload_tunnel {
	struct hd_addr local, remote;
	uint32_t vni;
	uint32_t uplink; /* that it goes by: another one, another rule */
	__be16 port;	 /* destination */
	uint8_t ttl;
	uint8_t reserved[5];
};
static_assert(sizeof(struct offload_tunnel) == 48, "no holes");

/* One direction. Compared as memory: without holes, everything that does not count is 0. */
struct offload_rule {
	uint32_t in, out; /* ifindexes; out 0: what matches is dropped, see drops.h */
	struct hd_addr source, destination;
	__be16 source_port, destination_port;
	uint8_t family, protocol;
	bool routed; /* TTL or hop limit less by one, and the MACs below */
	uint8_t reserved;
	uint8_t source_mac[6], destination_mac[6];	   /* as they come */
	uint8_t new_source_mac[6], new_destination_mac[6]; /* as they leave */
	uint8_t outside;				   /* enum offload_outside */
	bool readdressed; /* comes with any MACs but a group's, and leaves with those above; its TTL stays */
	uint16_t vlan;	  /* TAG, UNTAG */
	uint32_t reserved2;
	struct offload_tunnel tunnel;
};
static_assert(sizeof(struct offload_rule) == 128, "no holes");

/* OFFLOAD_NONE: rules[] are those of the flow's two directions, by enum hd_flow_side. Else why it stays in software. */
enum offload_reason offload_plan(
	const struct datapath_flow *flow, const struct offload_world *world, struct offload_rule rules[2]);

/* The MAC of who has the address behind the port. */
void offload_mac(const struct hd_port *port, const struct hd_addr *address, const struct offload_world *world, uint8_t ret[6]);

#endif
