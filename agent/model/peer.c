// SPDX-License-Identifier: Apache-2.0
/* Peer: another host's end of the tunnel, and what is behind it. */
#include <model/kinds.h>

#include <string.h>

/* --- its workloads --- */

struct workload_draft {
	const char *name, *namespace_, *network;
	struct mac mac;
	struct list addresses, labels, ports;
};

static bool finish_workload(struct decoder *d, const struct path *path, node_id node, const void *draft, void *out)
{
	const struct workload_draft *from = draft;
	struct peer_port *port = out;

	(void)path;
	*port = (struct peer_port){
		.name = from->name,
		.namespace_ = from->namespace_,
		.network = from->network,
		.has_mac = from->mac.given,
		.addresses = from->addresses.items,
		.labels = from->labels.items,
		.ports = from->ports.items,
		.n_addresses = from->addresses.n,
		.n_labels = from->labels.n,
		.n_ports = from->ports.n,
		.line = tree_node(d->tree, node)->line,
	};
	memcpy(port->mac, from->mac.octets, sizeof(port->mac));
	return true;
}

static const struct field workload_fields[] = {
	{"name", value_text, &subdomain_text, offsetof(struct workload_draft, name), true},
	{"namespace", value_text, &namespace_text, offsetof(struct workload_draft, namespace_), false},
	{"network", value_text, &subdomain_text, offsetof(struct workload_draft, network), true},
	{"mac", value_station_mac, NULL, offsetof(struct workload_draft, mac), false},
	{"addresses", value_workload_addresses, NULL, offsetof(struct workload_draft, addresses), false},
	{"labels", value_labels, NULL, offsetof(struct workload_draft, labels), false},
	{"ports", value_named_ports, NULL, offsetof(struct workload_draft, ports), false},
};
static const struct workload_draft workload_defaults = {.namespace_ = OBJECT_NAMESPACE_DEFAULT};
static const struct schema workload_schema = {
	.what = "a mapping with name and network",
	SCHEMA_FIELDS(workload_fields),
	.draft_size = sizeof(struct workload_draft),
	.defaults = &workload_defaults,
	.finish = finish_workload,
};
static const struct list_type workload_list = {
	.what = "ports",
	.item = value_mapping,
	.item_type = &workload_schema,
	.item_size = sizeof(struct peer_port),
	.may_be_empty = true,
	.most = 1 << 20,
};

/* --- its prefixes --- */

struct prefix_draft {
	const char *network;
	struct prefix cidr;
	struct mac mac;
};

static bool finish_prefix(struct decoder *d, const struct path *path, node_id node, const void *draft, void *out)
{
	const struct prefix_draft *from = draft;
	struct path cidr = {.up = path, .key = "cidr"};
	struct peer_prefix *prefix = out;

	if (!document_prefix_of_hosts(&from->cidr))
		return want(d, &cidr, node_field(d, node, "cidr"),
			"a block of addresses that hosts send from, not of a group's, loopback or link-local ones");
	*prefix = (struct peer_prefix){
		.network = from->network,
		.cidr = from->cidr,
		.has_mac = from->mac.given,
		.line = tree_node(d->tree, node)->line,
	};
	memcpy(prefix->mac, from->mac.octets, sizeof(prefix->mac));
	return true;
}

static const struct field prefix_fields[] = {
	{"network", value_text, &subdomain_text, offsetof(struct prefix_draft, network), true},
	{"cidr", value_cidr, NULL, offsetof(struct prefix_draft, cidr), true},
	{"mac", value_mac, NULL, offsetof(struct prefix_draft, mac), false},
};
static const struct schema prefix_schema = {
	.what = "a mapping with network and cidr",
	SCHEMA_FIELDS(prefix_fields),
	.draft_size = sizeof(struct prefix_draft),
	.finish = finish_prefix,
};
static const struct list_type prefix_list = {
	.what = "prefixes",
	.item = value_mapping,
	.item_type = &prefix_schema,
	.item_size = sizeof(struct peer_prefix),
	.may_be_empty = true,
	.most = 1 << 20,
};

/* --- the peer --- */

const struct list_type host_address_list = {
	.what = "addresses",
	.item = value_address,
	.item_size = sizeof(struct hd_addr),
	.may_be_empty = true,
	.most = HOST_ADDRESSES_MOST,
};

static bool check_host_addresses(
	struct decoder *d, const struct path *path, node_id node, const struct hd_addr *address, const struct list *others)
{
	struct path list = {.up = path, .key = "hostAddresses"}, item = {.up = &list};
	node_id child = others->n ? tree_first(d->tree, node_field(d, node, "hostAddresses")) : 0;
	const struct hd_addr *addresses = others->items;

	for (size_t i = 0; i < others->n; i++, child = tree_next(d->tree, child)) {
		bool again = memcmp(&addresses[i], address, sizeof(*address)) == 0;

		item.index = (uint32_t)i;
		if (!document_address_of_tunnel(&addresses[i]))
			return want(d, &item, child, "a unicast address of that host, not of fe80::/10");
		for (size_t j = 0; j < i; j++)
			again |= memcmp(&addresses[i], &addresses[j], sizeof(*addresses)) == 0;
		if (again)
			return want(d, &item, child, "each address once, and not spec.address");
	}
	return true;
}

struct peer_draft {
	struct hd_addr address;
	struct list host_addresses, ports, prefixes;
};

static bool finish_peer(struct decoder *d, const struct path *path, node_id node, const void *draft, void *out)
{
	const struct peer_draft *from = draft;
	struct path address = {.up = path, .key = "address"};

	if (!document_address_of_tunnel(&from->address))
		return want(d, &address, node_field(d, node, "address"), "a unicast address of that host, not of fe80::/10");
	if (!check_host_addresses(d, path, node, &from->address, &from->host_addresses))
		return false;
	*(struct tunnel_peer *)out = (struct tunnel_peer){
		.address = from->address,
		.host_addresses = from->host_addresses.items,
		.n_host_addresses = from->host_addresses.n,
		.ports = from->ports.items,
		.prefixes = from->prefixes.items,
		.n_ports = from->ports.n,
		.n_prefixes = from->prefixes.n,
	};
	return true;
}

static const struct field peer_fields[] = {
	{"address", value_address, NULL, offsetof(struct peer_draft, address), true},
	{"hostAddresses", value_list, &host_address_list, offsetof(struct peer_draft, host_addresses), false},
	{"ports", value_list, &workload_list, offsetof(struct peer_draft, ports), false},
	{"prefixes", value_list, &prefix_list, offsetof(struct peer_draft, prefixes), false},
};
const struct schema peer_spec_schema = {
	.what = "the spec of a Peer",
	SCHEMA_FIELDS(peer_fields),
	.draft_size = sizeof(struct peer_draft),
	.finish = finish_peer,
};
