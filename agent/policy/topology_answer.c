/* SPDX-License-Identifier: Apache-2.0 */
/* What a gateway says about a packet that it cannot deliver: as whom, and how much would fit. */
#include <endian.h>
#include <string.h>

#include <policy/topology.h>
#include <util/addr.h>

static const uint8_t gateway_mac[6] = HD_GATEWAY_MAC;

static const struct topology_port *switched_port(const struct topology *topology, uint32_t ifindex)
{
	for (size_t i = 0; i < topology->n_ports; i++)
		if (ifindex && topology->ports[i].ifindex == ifindex)
			return &topology->ports[i];
	return NULL;
}

static const struct topology_port *port_of_address(const struct topology *topology, uint16_t network, const struct hd_addr *addr)
{
	for (size_t i = 0; i < topology->n_endpoints; i++) {
		const struct topology_endpoint *row = &topology->endpoints[i];

		if (row->key.network == network && row->key.kind == HD_ENDPOINT_ADDRESS &&
			memcmp(&row->key.addr, addr, sizeof(*addr)) == 0)
			return switched_port(topology, row->value.ifindex);
	}
	return NULL;
}

/* The port that a packet of the network goes to: nobody's two prefixes overlap but for nested ones of one network, so any that covers will do. */
static const struct topology_port *destination_port(const struct topology *topology, uint16_t network, const struct hd_addr *addr)
{
	const struct topology_port *port = port_of_address(topology, network, addr);

	for (size_t i = 0; i < topology->n_routes && !port; i++) {
		const struct topology_route *route = &topology->routes[i];
		struct hd_addr prefix;

		memcpy(prefix.b, route->key.addr, sizeof(prefix.b));
		if (be16toh(route->key.network) == network && route->value.network != network &&
			addr_in_prefix(addr, &prefix, (uint8_t)(route->key.length - 16)))
			port = port_of_address(topology, route->value.network, addr);
	}
	return port;
}

void topology_answer(
	const struct topology *topology, uint32_t ifindex, const struct hd_addr *destination, struct topology_answer *ret)
{
	const struct topology_port *from = topology ? switched_port(topology, ifindex) : NULL, *to;

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
		ret->has_source = true;
		ret->source = topology_link_local(gateway_mac);
	}
	to = destination_port(topology, from->record.network, destination);
	ret->mtu = to ? to->record.mtu : 0;
}
