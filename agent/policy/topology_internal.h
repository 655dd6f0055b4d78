/* SPDX-License-Identifier: Apache-2.0 */
/* A topology while it is made. Private to the topology*.c files. */
#ifndef HEDDLE_POLICY_TOPOLOGY_INTERNAL_H
#define HEDDLE_POLICY_TOPOLOGY_INTERNAL_H

#include <policy/internal.h>
#include <policy/topology.h>

/* One network while its rows are made. */
struct home {
	const struct object *object;
	uint16_t index;
	bool host; /* routes to the host */
	uint32_t members;
	uint32_t peer; /* the last one that was listed as a member */
};

/* Of a route, while it is not yet sure that nobody contradicts it. */
struct draft {
	struct topology_route route;
	const struct object *from, *to; /* networks */
};

struct building {
	const struct topology_input *input;
	struct diag *diag;
	const struct topology_device **devices; /* of the input, by name */
	uint32_t *macs;				/* hash table: positions in ports, and 1; 0: empty */
	size_t macs_size;			/* a power of two, more than twice the ports */
	VEC(struct home) homes;			/* by index */
	VEC(struct draft) drafts;
	VEC(struct topology_port) ports;
	VEC(struct topology_network) networks;
	VEC(struct topology_endpoint) endpoints;
	VEC(struct topology_endpoint) remote; /* those of peers; sorted before there are others */
	VEC(struct topology_member) members, peer_members;
	VEC(struct topology_route) routes;
	size_t n_stack;
	VEC(struct hd_vlan_key) vlans;
	VEC(struct topology_wire) wires;
	VEC(struct topology_host_address) host;
	VEC(struct topology_vni) vnis;
	VEC(struct topology_peer) peers;
	VEC(struct object *) peer_objects; /* references; in the order of peers */
	uint64_t kept[HD_PEERS_MAX / 64];  /* a bit for each index: its rows are those of input->before */
	bool incomplete;
	VEC(struct topology_peer_address) peer_addresses;
	VEC(struct topology_peer_prefix) prefixes;
	struct hd_tunnel tunnel;
};

struct home *topology_home(const struct building *b, const char *network); /* NULL: no such network */

#define TOPOLOGY_SORT(v, compare) \
	do { \
		if ((v)->n) \
			qsort((v)->data, (v)->n, sizeof(*(v)->data), compare); \
	} while (0)
/* For rows that begin with their keys, which have no holes. */
int topology_compare_endpoints(const void *a, const void *b);
int topology_compare_members(const void *a, const void *b);

/* topology_device.c; NULL: none */
void topology_index_devices(struct building *b);
const struct topology_device *topology_device(const struct building *b, const char *name);
const struct topology_place *topology_find_place(const struct building *b, const struct object *port);
/* Documents call devices by several names: that two mean the same shows here only. */
const struct topology_port *topology_port_of_device(const struct building *b, uint32_t ifindex);

/* topology_peers.c */
int topology_add_stack(struct building *b);   /* the routes of the host's stack */
int topology_add_overlay(struct building *b); /* once there are homes */
/* The address is where a peer is. */
bool topology_is_peer(const struct building *b, const struct hd_addr *addr);
/* The MAC is a peer's by its document. */
bool topology_is_remote_mac(const struct building *b, uint16_t network, const uint8_t mac[6]);
/* Of one key, what is here counts: an address that the host came to have is not to be found behind a peer. */
int topology_join_endpoints(struct building *b);

#endif
