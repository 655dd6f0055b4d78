// SPDX-License-Identifier: Apache-2.0
/* Addresses that the host changes: Network.spec.masquerade and Port.spec.hostPorts. */
#include <model/kinds.h>

#include <netinet/in.h>
#include <string.h>

#include <util/addr.h>

/* --- masquerade --- */

struct masquerade_draft {
	bool enabled;
	struct list exclude;
};

static bool finish_masquerade(struct decoder *d, const struct path *path, node_id node, const void *draft, void *out)
{
	const struct masquerade_draft *from = draft;

	(void)d, (void)path, (void)node;
	*(struct masquerade *)out = (struct masquerade){
		.mode = from->enabled ? MASQUERADE_ON : MASQUERADE_OFF,
		.exclude = from->exclude.items,
		.n_exclude = from->exclude.n,
	};
	return true;
}

static const struct list_type exclude_list = {
	.what = "blocks",
	.item = value_cidr,
	.item_size = sizeof(struct prefix),
	.may_be_empty = true,
	.most = 1024,
};
static const struct field masquerade_fields[] = {
	{"enabled", value_bool, NULL, offsetof(struct masquerade_draft, enabled), false},
	{"exclude", value_list, &exclude_list, offsetof(struct masquerade_draft, exclude), false},
};
static const struct masquerade_draft masquerade_defaults = {.enabled = true};
const struct schema masquerade_schema = {
	.what = "a mapping with enabled and exclude",
	SCHEMA_FIELDS(masquerade_fields),
	.draft_size = sizeof(struct masquerade_draft),
	.defaults = &masquerade_defaults,
	.finish = finish_masquerade,
};

bool network_routes_to_host(const struct network *network)
{
	for (size_t i = 0; i < network->n_routes_to; i++)
		if (strcmp(network->routes_to[i], NETWORK_HOST) == 0)
			return true;
	return false;
}

/* --- ports of the host --- */

struct host_address {
	struct hd_addr addr;
	bool given;
};

struct host_port_draft {
	uint8_t protocol;
	uint16_t host_port, port;
	struct host_address address;
};

static bool is_loopback(const struct hd_addr *addr)
{
	static const uint8_t loopback[16] = {[15] = 1};

	return addr_is_ipv4(addr) ? addr->b[12] == 127 : memcmp(addr->b, loopback, 16) == 0;
}

static bool is_any(const struct hd_addr *addr)
{
	return addr_is_ipv4(addr) ? !addr->w[3] : !addr->q[0] && !addr->q[1];
}

/* One of the host's, or 0.0.0.0 or :: for all of that family. */
static bool value_host_address(struct decoder *d, const struct path *path, node_id node, const void *type, void *out)
{
	struct host_address *address = out;

	if (!value_address(d, path, node, type, &address->addr))
		return false;
	/* What comes from there would have to leave with that source, which no packet on a wire has. */
	if (is_loopback(&address->addr))
		return want(d, path, node, "an address of the host other than that of its loopback");
	if (!is_any(&address->addr) && !document_address_is_unicast(&address->addr))
		return want(d, path, node, "an address of the host, 0.0.0.0 or \"::\"");
	address->given = true;
	return true;
}

static bool finish_host_port(struct decoder *d, const struct path *path, node_id node, const void *draft, void *out)
{
	const struct host_port_draft *from = draft;
	struct host_port *port = out;

	(void)d, (void)path, (void)node;
	*port = (struct host_port){.protocol = from->protocol, .host_port = from->host_port, .port = from->port};
	port->has_address = from->address.given;
	port->address = from->address.addr;
	port->ipv4 = !port->has_address || addr_is_ipv4(&port->address);
	port->ipv6 = !port->has_address || !port->ipv4;
	port->any = !port->has_address || is_any(&port->address);
	return true;
}

bool host_ports_overlap(const struct host_port *a, const struct host_port *b)
{
	if (a->protocol != b->protocol || a->host_port != b->host_port)
		return false;
	if (!(a->ipv4 && b->ipv4) && !(a->ipv6 && b->ipv6))
		return false;
	return a->any || b->any || memcmp(&a->address, &b->address, sizeof(a->address)) == 0;
}

static const struct range port_number = {.min = 1, .max = 65535, .size = 2, .unit = ""};
static const struct field host_port_fields[] = {
	{"protocol", value_transport, NULL, offsetof(struct host_port_draft, protocol), false},
	{"hostPort", value_uint, &port_number, offsetof(struct host_port_draft, host_port), true},
	{"port", value_uint, &port_number, offsetof(struct host_port_draft, port), true},
	{"hostAddress", value_host_address, NULL, offsetof(struct host_port_draft, address), false},
};
static const struct host_port_draft host_port_defaults = {.protocol = IPPROTO_TCP};
static const struct schema host_port_schema = {
	.what = "a mapping with hostPort and port",
	SCHEMA_FIELDS(host_port_fields),
	.draft_size = sizeof(struct host_port_draft),
	.defaults = &host_port_defaults,
	.finish = finish_host_port,
};
static const struct list_type host_port_list = {
	.what = "ports of the host",
	.item = value_mapping,
	.item_type = &host_port_schema,
	.item_size = sizeof(struct host_port),
	.may_be_empty = true,
	.most = 256,
};

bool value_host_ports(struct decoder *d, const struct path *path, node_id node, const void *type, void *out)
{
	struct list *list = out;
	struct path item = {.up = path};
	node_id child = tree_first(d->tree, node);

	(void)type;
	if (!value_list(d, path, node, &host_port_list, list))
		return false;
	const struct host_port *ports = list->items;
	for (size_t i = 0; i < list->n; i++, child = tree_next(d->tree, child)) {
		item.index = (uint32_t)i;
		for (size_t j = 0; j < i; j++)
			if (host_ports_overlap(&ports[i], &ports[j]))
				return want(d, &item, child, "each port of an address of the host once");
	}
	return true;
}

const struct hd_addr *host_port_target(const struct port *port, bool ipv4)
{
	for (size_t i = 0; i < port->n_addresses; i++)
		if (addr_is_ipv4(&port->addresses[i]) == ipv4)
			return &port->addresses[i];
	return NULL;
}

bool check_host_ports(struct decoder *d, const struct path *path, node_id node, const struct port *port)
{
	struct path list = {.up = path, .key = "hostPorts"}, item = {.up = &list};
	node_id child = tree_first(d->tree, node_field(d, node, "hostPorts"));

	for (size_t i = 0; i < port->n_host_ports; i++, child = tree_next(d->tree, child)) {
		const struct host_port *from = &port->host_ports[i];

		item.index = (uint32_t)i;
		if (!(from->ipv4 && host_port_target(port, true)) && !(from->ipv6 && host_port_target(port, false)))
			return want(d, &item, child, "a port with an%s address of its own to lead to",
				!from->has_address ? ""
				: from->ipv4	   ? " IPv4"
						   : " IPv6");
	}
	return true;
}
