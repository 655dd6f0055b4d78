// SPDX-License-Identifier: Apache-2.0
/* Workloads, of Ports here and of Peers' ports elsewhere: in a network that there is, with a name and addresses that are theirs alone. */
#include <model/validate.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <model/kinds.h>
#include <util/addr.h>
#include <util/cleanup.h>

/* A Port, or one of a Peer's. */
struct workload {
	const struct object *object;
	const struct peer_port *remote; /* NULL: a Port */
	uint32_t index;			/* among the Peer's */
	const struct object *network;	/* NULL: there is no such */
};

struct own_addresses {
	const struct hd_addr *items;
	size_t n;
};

static struct own_addresses addresses_of(const struct workload *workload)
{
	const struct port *port = &workload->object->port;

	return workload->remote ? (struct own_addresses){workload->remote->addresses, workload->remote->n_addresses}
				: (struct own_addresses){port->addresses, port->n_addresses};
}

/* NULL: none is given. */
static const uint8_t *mac_of(const struct workload *workload)
{
	const struct port *port = &workload->object->port;

	if (workload->remote)
		return workload->remote->has_mac ? workload->remote->mac : NULL;
	return port->has_mac ? port->mac : NULL;
}

static const char *namespace_of(const struct workload *workload)
{
	return workload->remote ? workload->remote->namespace_ : workload->object->namespace_;
}

static const char *name_of(const struct workload *workload)
{
	return workload->remote ? workload->remote->name : workload->object->name;
}

static const char *network_of(const struct workload *workload)
{
	return workload->remote ? workload->remote->network : workload->object->port.network;
}

/* field: of the workload, as its document has it; may be NULL. */
static void complain(struct diag *diag, const struct workload *workload, const char *field, const char *wanted, const char *got)
{
	char path[128];

	if (!workload->remote)
		snprintf(path, sizeof(path), "%s%s", field ? "spec." : "", field ? field : "");
	else
		snprintf(path, sizeof(path), "spec.ports[%u]%s%s", workload->index, field ? "." : "", field ? field : "");
	validate_complain(
		diag, workload->object, workload->remote ? workload->remote->line : workload->object->line, path, wanted, got);
}

/* --- with its network --- */

static bool is_gateway(const struct network *network, const struct hd_addr *addr)
{
	for (size_t i = 0; i < network->n_gateways; i++)
		if (memcmp(&network->gateways[i], addr, sizeof(*addr)) == 0)
			return true;
	return false;
}

static void check_addresses(const struct workload *workload, struct diag *diag)
{
	const struct object *network = workload->network;
	const struct own_addresses own = addresses_of(workload);
	char field[64], wanted[400], text[ADDR_TEXT_MAX], block[ADDR_TEXT_MAX];

	for (size_t i = 0; i < own.n; i++) {
		const struct hd_addr *addr = &own.items[i];
		const struct prefix *subnet = document_subnet(network->network.subnets, network->network.n_subnets, addr);

		if (!subnet)
			snprintf(wanted, sizeof(wanted), "an address in a subnet of Network %s", network->name);
		else if (!document_address_of_host(addr, subnet))
			snprintf(wanted, sizeof(wanted), "an address that one host in %s can have",
				addr_format_cidr(&subnet->addr, subnet->length, block));
		else if (is_gateway(&network->network, addr))
			snprintf(wanted, sizeof(wanted), "another address than the gateway's of Network %s", network->name);
		else
			continue;
		snprintf(field, sizeof(field), "addresses[%zu]", i);
		complain(diag, workload, field, wanted, addr_format(addr, text));
	}
}

static void check_network(const struct workload *workload, struct diag *diag)
{
	char got[320];

	if (!workload->network) {
		snprintf(got, sizeof(got), "%s, which no document declares", network_of(workload));
		complain(diag, workload, "network", "the name of a Network", got);
		return;
	}
	if (workload->remote && !workload->network->network.vni) {
		snprintf(got, sizeof(got), "%s, which has none", network_of(workload));
		complain(diag, workload, "network", "a Network with a vni", got);
	}
	check_addresses(workload, diag);
}

/* --- with the others --- */

/* Something that one workload of a network has and no other may have. */
struct claim {
	const struct object *network;
	uint8_t bytes[16];
	uint32_t owner; /* index of the workload */
	uint32_t index; /* of the address */
};

static int compare_claims(const void *a, const void *b)
{
	const struct claim *x = a, *y = b;

	if (x->network != y->network)
		return (uintptr_t)x->network < (uintptr_t)y->network ? -1 : 1;
	return memcmp(x->bytes, y->bytes, sizeof(x->bytes));
}

static int compare_claims_and_owners(const void *a, const void *b)
{
	const struct claim *x = a, *y = b;
	int r = compare_claims(x, y);

	return r ? r : (x->owner > y->owner) - (x->owner < y->owner);
}

static void complain_taken(struct diag *diag, const struct workload *workload, const struct workload *first, const char *field,
	const char *wanted, const char *value)
{
	char title[OBJECT_TITLE_MAX], got[2 * OBJECT_TITLE_MAX];

	object_title(OBJECT_PORT, namespace_of(first), name_of(first), title);
	if (first->remote && first->object == workload->object)
		snprintf(got, sizeof(got), "%s, which spec.ports[%u] has", value, first->index);
	else if (first->remote)
		snprintf(got, sizeof(got), "%s, which %s of Peer %s has", value, title, first->object->name);
	else
		snprintf(got, sizeof(got), "%s, which %s has", value, title);
	complain(diag, workload, field, wanted, got);
}

static void check_macs(const struct workload *workloads, size_t n, struct claim *claims, struct diag *diag)
{
	size_t kept = 0;
	char value[18];

	for (size_t i = 0; i < n; i++) {
		const uint8_t *mac = mac_of(&workloads[i]);

		if (!mac || !workloads[i].network)
			continue;
		claims[kept] = (struct claim){.network = workloads[i].network, .owner = (uint32_t)i};
		memcpy(claims[kept++].bytes, mac, 6);
	}
	if (kept)
		qsort(claims, kept, sizeof(*claims), compare_claims_and_owners);
	for (size_t i = 1; i < kept; i++) {
		const uint8_t *mac = claims[i].bytes;

		if (compare_claims(&claims[i - 1], &claims[i]) != 0)
			continue;
		snprintf(value, sizeof(value), "%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3], mac[4], mac[5]);
		complain_taken(diag, &workloads[claims[i].owner], &workloads[claims[i - 1].owner], "mac",
			"a MAC address that no other Port of its network has", value);
	}
}

static void check_unique_addresses(const struct workload *workloads, size_t n, struct claim *claims, struct diag *diag)
{
	char field[64], text[ADDR_TEXT_MAX];
	size_t kept = 0;

	for (size_t i = 0; i < n; i++) {
		const struct own_addresses own = addresses_of(&workloads[i]);

		for (size_t j = 0; workloads[i].network && j < own.n; j++) {
			claims[kept] =
				(struct claim){.network = workloads[i].network, .owner = (uint32_t)i, .index = (uint32_t)j};
			memcpy(claims[kept++].bytes, &own.items[j], sizeof(struct hd_addr));
		}
	}
	if (kept)
		qsort(claims, kept, sizeof(*claims), compare_claims_and_owners);
	for (size_t i = 1; i < kept; i++) {
		const struct workload *workload = &workloads[claims[i].owner];

		if (compare_claims(&claims[i - 1], &claims[i]) != 0)
			continue;
		snprintf(field, sizeof(field), "addresses[%u]", claims[i].index);
		addr_format(&addresses_of(workload).items[claims[i].index], text);
		complain_taken(diag, workload, &workloads[claims[i - 1].owner], field,
			"an address that no other Port of its network has", text);
	}
}

static int compare_names(const void *a, const void *b)
{
	const struct workload *x = *(const struct workload *const *)a, *y = *(const struct workload *const *)b;
	int r = strcmp(namespace_of(x), namespace_of(y));

	if (r == 0)
		r = strcmp(name_of(x), name_of(y));
	return r ? r : (x > y) - (x < y);
}

/* Ports among themselves are objects of one name, of which others have complained. */
static int check_names(const struct workload *workloads, size_t n, struct diag *diag)
{
	_cleanup_free_ const struct workload **by_name = malloc(n * sizeof(struct workload *));
	char title[OBJECT_TITLE_MAX];

	if (!by_name)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++)
		by_name[i] = &workloads[i];
	qsort(by_name, n, sizeof(struct workload *), compare_names);
	for (size_t i = 1; i < n; i++) {
		const struct workload *a = by_name[i - 1], *b = by_name[i];

		if (!b->remote || strcmp(name_of(a), name_of(b)) != 0 || strcmp(namespace_of(a), namespace_of(b)) != 0)
			continue;
		snprintf(title, sizeof(title), "%.63s/%.253s", namespace_of(b), name_of(b));
		complain_taken(diag, b, a, "name", "a name that no other Port of its namespace has", title);
	}
	return 0;
}

/* How many there are. */
static size_t list_workloads(const struct object_list *sorted, struct workload *out)
{
	size_t n_ports, n_peers, n = 0;
	struct object **ports = validate_kind(sorted, OBJECT_PORT, &n_ports);
	struct object **peers = validate_kind(sorted, OBJECT_PEER, &n_peers);
	const struct object *network = NULL;

	for (size_t i = 0; i < n_ports; i++)
		out[n++] = (struct workload){.object = ports[i]};
	for (size_t i = 0; i < n_peers; i++)
		for (size_t j = 0; j < peers[i]->tunnel_peer.n_ports; j++)
			out[n++] = (struct workload){
				.object = peers[i], .remote = &peers[i]->tunnel_peer.ports[j], .index = (uint32_t)j};
	for (size_t i = 0; i < n; i++) {
		/* Many are in the network of the one before. */
		if (!network || strcmp(network->name, network_of(&out[i])) != 0)
			network = object_list_find(sorted, OBJECT_NETWORK, NULL, network_of(&out[i]));
		out[i].network = network;
	}
	return n;
}

int validate_workloads(const struct object_list *sorted, struct diag *diag)
{
	_cleanup_free_ struct workload *workloads = NULL;
	_cleanup_free_ struct claim *claims = NULL;
	size_t n = 0, n_claims;

	for (size_t i = 0; i < sorted->n; i++)
		n += sorted->items[i]->kind == OBJECT_PORT   ? 1
		     : sorted->items[i]->kind == OBJECT_PEER ? sorted->items[i]->tunnel_peer.n_ports
							     : 0;
	workloads = malloc((n + 1) * sizeof(*workloads));
	if (!workloads)
		return -ENOMEM;
	n = n_claims = list_workloads(sorted, workloads);
	if (n == 0)
		return 0;
	for (size_t i = 0; i < n; i++)
		n_claims += addresses_of(&workloads[i]).n;
	claims = malloc(n_claims * sizeof(*claims));
	if (!claims)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++)
		check_network(&workloads[i], diag);
	check_macs(workloads, n, claims, diag);
	check_unique_addresses(workloads, n, claims, diag);
	return check_names(workloads, n, diag);
}
