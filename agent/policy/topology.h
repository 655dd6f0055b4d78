/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who is where: documents, and what is known of the devices, to the rows of the maps in heddle/network.h and heddle/overlay.h, the static part of the ports'
 * records, and the routes that the host's own stack needs. Pure. Policy is no part of it, nor are the roots in a network's record.
 *
 * A network's own subnets have rows in `routes` too, to itself: what nobody has there does not go to the host. So they have, from network 0, where it travels
 * and routes to the host: by them the host's stack sends to peers. Of networks that share a block the one with the lowest number has it there.
 */
#ifndef HEDDLE_POLICY_TOPOLOGY_H
#define HEDDLE_POLICY_TOPOLOGY_H

#include <net/if.h>

#include <heddle/network.h>
#include <heddle/overlay.h>
#include <heddle/port.h>
#include <model/decode.h>
#include <model/object.h>
#include <policy/numbers.h>

struct topology_device {
	const char *name;
	uint32_t ifindex;
	uint32_t mtu;
	bool up;
	bool ethernet;	     /* has an Ethernet header */
	bool enslaved;	     /* to a bridge, bond, VRF */
	bool peer_elsewhere; /* a veth whose peer is in another namespace */
	bool has_peer_mac;
	uint8_t peer_mac[6];
};

/* What a Port comes to that names a VF or a PCI address. */
struct topology_place {
	const struct object *port;
	const char *device; /* NULL: none yet, */
	const char *reason; /* for this reason */
};

struct topology_input {
	const struct object_list *objects; /* that model_validate() has nothing to say against */
	const struct host *host;	   /* never NULL */
	const struct networks *networks;   /* that has numbers for the objects */
	const struct topology_device *devices;
	size_t n_devices;
	const struct topology_place *places; /* of all such Ports, sorted by topology_sort_places(); none: all of them wait */
	size_t n_places;
	const struct hd_addr *host_addresses; /* the host's own */
	size_t n_host_addresses;
	bool no_services;	       /* nobody would stop what a Service leads to elsewhere than to a port */
	const struct topology *before; /* an earlier one: the rows of Peers that are the same are taken from it. NULL: none */
};

struct topology_port {
	struct object *object;	  /* a reference */
	uint32_t ifindex;	  /* 0: not switched */
	char *reason;		  /* why it waits; NULL: it is ready. With an ifindex: switched, but nothing gets through yet */
	struct hd_port record;	  /* but for its policy; valid with an ifindex */
	char device[IF_NAMESIZE]; /* as the kernel calls it; valid with an ifindex */
};

struct topology_network {
	uint16_t index;
	struct hd_network record; /* without roots */
};

struct topology_endpoint {
	struct hd_endpoint_key key;
	struct hd_endpoint value;
};

struct topology_member {
	uint32_t network;
	uint32_t id; /* of a port: ifindex; of a peer: index */
};

struct topology_route {
	struct hd_route_key key;
	struct hd_route value;
};

struct topology_wire {
	struct hd_wire_key key;
	struct hd_wire value;
};

struct topology_vni {
	struct hd_vni_key key;
	struct hd_vni value;
};

/* A record of `peers`, but for what its routes and neighbours make of it. */
struct topology_peer {
	uint32_t index, reserved;
	struct hd_addr address;
	char name[NETWORK_KEY_MAX];
};

struct topology_peer_address {
	struct hd_addr key;
	uint32_t value, reserved;
};

struct topology_peer_prefix {
	struct hd_route_key key;
	struct hd_peer_prefix value;
};

/* An address of a port in a network that routes to the host: the host's stack finds it behind the port's device. */
struct topology_host_address {
	struct hd_addr address;
	uint32_t ifindex;
	uint8_t mac[6];
	bool has_source;
	struct hd_addr source; /* the network's gateway, when the host has that address itself */
};

/* Everything but ports is sorted by its key, so that two can be compared in one walk. */
struct topology {
	struct topology_port *ports; /* one for each Port document, by namespace and name */
	struct topology_network *networks;
	struct topology_endpoint *endpoints;
	struct topology_member *members; /* those of network 0 are the uplinks, where a network has a VLAN on them */
	struct topology_route *routes;
	size_t n_stack; /* how many of these are the host's stack's: those of network 0 */
	struct hd_vlan_key *vlans;
	struct topology_wire *wires;
	struct topology_host_address *host;
	struct topology_vni *vnis;
	struct topology_peer *peers;  /* by index */
	struct object **peer_objects; /* the documents of those; references */
	bool incomplete;	      /* something of a Peer is left out, since it is here */
	struct topology_peer_address *peer_addresses;
	struct topology_peer_prefix *prefixes;
	struct topology_member *peer_members; /* of networks of kind l2 */
	struct hd_tunnel tunnel;	      /* protocol HD_TUNNEL_NONE: there is none, nor anything else of the overlay */
	size_t n_ports, n_networks, n_endpoints, n_members, n_routes, n_vlans, n_wires, n_host;
	size_t n_vnis, n_peers, n_peer_addresses, n_prefixes, n_peer_members;
};

/*
 * 0; -EINVAL with diag: documents that contradict each other; -ENOMEM. What depends on devices is no mistake of a document: such a port
 * waits, and says why.
 */
int topology_build(const struct topology_input *input, struct topology **ret, struct diag *diag);
void topology_free(struct topology *topology); /* NULL is fine */
void topology_sort_places(struct topology_place *places, size_t n);
/* By namespace and name; NULL: none. */
const struct topology_port *topology_find_port(const struct topology *topology, const struct object *port);
/* The same rows and records; reasons may differ. NULL is one without anything. */
bool topology_equal(const struct topology *a, const struct topology *b);

/* Who has an address in a network; NULL: nobody, or it is in a prefix. */
const struct hd_endpoint *topology_endpoint(const struct topology *topology, uint16_t network, const struct hd_addr *addr);
/* The same of a MAC. */
const struct hd_endpoint *topology_owner(const struct topology *topology, uint16_t network, const uint8_t mac[6]);
/* The narrowest prefix of a peer that covers it; NULL: none. An endpoint of the address counts before it. */
const struct hd_peer_prefix *topology_prefix(const struct topology *topology, uint16_t network, const struct hd_addr *addr);
/* Who has it behind a tunnel, by either; 0: nobody. */
uint32_t topology_peer_of(const struct topology *topology, uint16_t network, const struct hd_addr *addr);
/* The same, also in the networks that this one routes to: *ret_network is where. */
uint32_t topology_peer_towards(
	const struct topology *topology, uint16_t network, const struct hd_addr *addr, uint16_t *ret_network);
/* The network routes to another one that has the address in its subnets. */
bool topology_elsewhere(const struct topology *topology, uint16_t network, const struct hd_addr *addr);

/* What a router says of a packet from the port on ifindex. source: the gateway's, of the destination's family. */
struct topology_answer {
	bool has_source;
	bool link_local; /* the source is the one that every gateway has, since this one has no other */
	struct hd_addr source;
	uint16_t mtu;  /* of the port that has the destination; 0: none has */
	uint32_t peer; /* that has it; 0: none has */
};
void topology_answer(
	const struct topology *topology, uint32_t ifindex, const struct hd_addr *destination, struct topology_answer *ret);

/* The address that is made of a MAC (RFC 4291, appendix A). */
struct hd_addr topology_link_local(const uint8_t mac[6]);

#endif
