/* SPDX-License-Identifier: Apache-2.0 */
/* What a gateway says about a packet that it cannot deliver: as whom, and how much would fit. */
#include <endian.h>
#include <string.h>

#include <policy/topology_internal.h>
#include <util/addr.h>

static const uint8_t gateway_mac[6] = HD_GATEWAY_MAC;

static const struct topology_port *switched_port(const struct topology *topology, uint32_t ifindex)
{
	for (size_t i = 0; i < topology->n_ports; i++)
		if (ifindex && topology->ports[i].ifindex == ifindex)
			return &topology->ports[i];
	return NULL;
}

static const struct hd_endpoint *find_endpoint(const struct topology *topology, const struct topology_endpoint *key)
{
	const struct topology_endpoint *found = NULL;

	if (topology->n_endpoints)
		found = bsearch(key, topology->endpoints, topology->n_endpoints, sizeof(*key), topology_compare_endpoints);
	return found ? &found->value : NULL;
}

const struct hd_endpoint *topology_endpoint(const struct topology *topology, uint16_t network, const struct hd_addr *addr)
{
	const struct topology_endpoint key = {.key = {.addr = *addr, .network = network, .kind = HD_ENDPOINT_ADDRESS}};

	return find_endpoint(topology, &key);
}

const struct hd_endpoint *topology_owner(const struct topology *topology, uint16_t network, const uint8_t mac[6])
{
	struct topology_endpoint key = {.key = {.network = network, .kind = HD_ENDPOINT_MAC}};

	memcpy(key.key.addr.b, mac, 6);
	return find_endpoint(topology, &key);
}

/* Prefixes are sorted by their lengths. */
const struct hd_peer_prefix *topology_prefix(const struct topology *topology, uint16_t network, const struct hd_addr *addr)
{
	for (size_t i = topology->n_prefixes; i-- > 0;) {
		const struct topology_peer_prefix *row = &topology->prefixes[i];
		struct hd_addr prefix;

		memcpy(prefix.b, row->key.addr, sizeof(prefix.b));
		if (be16toh(row->key.network) == network && addr_in_prefix(addr, &prefix, (uint8_t)(row->key.length - 16)))
			return &row->value;
	}
	return NULL;
}

/* The route leads from the network to another one that has the address in its subnets. */
static bool leads_elsewhere(const struct topology_route *route, uint16_t network, const struct hd_addr *addr)
{
	struct hd_addr prefix;

	memcpy(prefix.b, route->key.addr, sizeof(prefix.b));
	return be16toh(route->key.network) == network && route->value.network && route->value.network != network &&
	       addr_in_prefix(addr, &prefix, (uint8_t)(route->key.length - 16));
}

uint32_t topology_peer_of(const struct topology *topology, uint16_t network, const struct hd_addr *addr)
{
	const struct hd_endpoint *endpoint = topology_endpoint(topology, network, addr);
	const struct hd_peer_prefix *prefix = endpoint ? NULL : topology_prefix(topology, network, addr);

	return endpoint ? endpoint->peer : prefix ? prefix->peer : 0;
}

uint32_t topology_peer_towards(
	const struct topology *topology, uint16_t network, const struct hd_addr *addr, uint16_t *ret_network)
{
	uint32_t peer = topology_peer_of(topology, network, addr);

	*ret_network = network;
	for (size_t i = 0; i < topology->n_routes && !peer; i++) {
		const struct topology_route *route = &topology->routes[i];

		if (!leads_elsewhere(route, network, addr))
			continue;
		*ret_network = (uint16_t)route->value.network;
		peer = topology_peer_of(topology, *ret_network, addr);
	}
	return peer;
}

bool topology_elsewhere(const struct topology *topology, uint16_t network, const struct hd_addr *addr)
{
	for (size_t i = 0; i < topology->n_routes; i++)
		if (leads_elsewhere(&topology->routes[i], network, addr))
			return true;
	return false;
}

/* False: nobody has it in this network. */
static bool find_owner(const struct topology *topology, uint16_t network, const struct hd_addr *addr, struct topology_answer *ret)
{
	const struct hd_endpoint *endpoint = topology_endpoint(topology, network, addr);
	const struct topology_port *port = endpoint ? switched_port(topology, endpoint->ifindex) : NULL;

	ret->mtu = port ? port->record.mtu : 0;
	ret->peer = topology_peer_of(topology, network, addr);
	return port || ret->peer;
}

/* Who a packet of the network goes to: nobody's two prefixes overlap but for nested ones of one network, so any that covers will do. */
static void find_destination(
	const struct topology *topology, uint16_t network, const struct hd_addr *addr, struct topology_answer *ret)
{
	bool found = find_owner(topology, network, addr, ret);

	for (size_t i = 0; i < topology->n_routes && !found; i++)
		if (leads_elsewhere(&topology->routes[i], network, addr))
			found = find_owner(topology, topology->routes[i].value.network, addr, ret);
}

void topology_answer(
	const struct topology *topology, uint32_t ifindex, const struct hd_addr *destination, struct topology_answer *ret)
{
	const struct topology_port *from = topology ? switched_port(topology, ifindex) : NULL;

	*ret = (struct topology_answer){0};
	if (!from)
		return;
	for (size_t i = 0; i < topology->n_endpoints && !ret->has_source; i++) {
		const struct topology_endpoint *row = &topology->endpoints[i];

		if (row->key.network != from->record.network || !(row->value.flags & HD_ENDPOINT_GATEWAY) ||
			addr_is_ipv4(&row->key.addr) != addr_is_ipv4(destination))
			continue;
		ret->has_source = true;
		ret->source = row->key.addr;
	}
	/* Every gateway has this one. */
	if (!ret->has_source && !addr_is_ipv4(destination)) {
		ret->has_source = ret->link_local = true;
		ret->source = topology_link_local(gateway_mac);
	}
	find_destination(topology, from->record.network, destination, ret);
}
