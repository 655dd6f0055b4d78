/* SPDX-License-Identifier: Apache-2.0 */
#include <endian.h>
#include <stdarg.h>
#include <stdio.h>

#include <policy/topology_internal.h>
#include <util/addr.h>
#include <util/cleanup.h>
#include <util/hash.h>

static const uint8_t gateway_mac[6] = HD_GATEWAY_MAC;

struct hd_addr topology_link_local(const uint8_t mac[6])
{
	return (struct hd_addr){
		.b = {0xfe, 0x80, 0, 0, 0, 0, 0, 0, mac[0] ^ 2, mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5]}};
}

/* --- order --- */

/* Rows begin with their keys, which have no holes. */
int topology_compare_endpoints(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct hd_endpoint_key));
}

static int compare_vlans(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct hd_vlan_key));
}

static int compare_wires(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct hd_wire_key));
}

static int compare_routes(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct hd_route_key));
}

int topology_compare_members(const void *a, const void *b)
{
	const struct topology_member *x = a, *y = b;

	if (x->network != y->network)
		return x->network < y->network ? -1 : 1;
	return x->id < y->id ? -1 : x->id > y->id;
}

static int compare_ports(const void *a, const void *b)
{
	const struct topology_port *x = a, *y = b;

	return object_compare(x->object, y->object);
}

static int compare_host(const void *a, const void *b)
{
	return memcmp(a, b, offsetof(struct topology_host_address, mac));
}

static int compare_networks(const void *a, const void *b)
{
	const struct topology_network *x = a, *y = b;

	return (int)x->index - (int)y->index;
}

static int compare_homes(const void *a, const void *b)
{
	const struct home *x = a, *y = b;

	return (int)x->index - (int)y->index;
}

/* By source network, then wide prefixes ahead of the narrow ones in them. */
static int compare_drafts(const void *a, const void *b)
{
	const struct draft *x = a, *y = b;
	int r = (int)be16toh(x->route.key.network) - (int)be16toh(y->route.key.network);

	if (r == 0)
		r = memcmp(x->route.key.addr, y->route.key.addr, sizeof(x->route.key.addr));
	if (r == 0)
		r = x->route.key.length < y->route.key.length ? -1 : x->route.key.length > y->route.key.length;
	return r ? r : (int)x->route.value.network - (int)y->route.value.network;
}

/* --- networks --- */

struct home *topology_home(const struct building *b, const char *network)
{
	struct home wanted = {.index = networks_index(b->input->networks, network)};

	if (!wanted.index || !b->homes.n)
		return NULL;
	return bsearch(&wanted, b->homes.data, b->homes.n, sizeof(wanted), compare_homes);
}

static bool routes_to(const struct network *network, const char *name)
{
	for (size_t i = 0; i < network->n_routes_to; i++)
		if (strcmp(network->routes_to[i], name) == 0)
			return true;
	return false;
}

static int add_homes(struct building *b)
{
	for (size_t i = 0; i < b->input->objects->n; i++) {
		const struct object *object = b->input->objects->items[i];
		struct home home = {.object = object};

		if (object->kind != OBJECT_NETWORK)
			continue;
		home.index = networks_index(b->input->networks, object->name);
		home.host = routes_to(&object->network, NETWORK_HOST);
		if (VEC_PUSH(&b->homes, home) < 0)
			return -ENOMEM;
	}
	if (b->homes.n)
		qsort(b->homes.data, b->homes.n, sizeof(struct home), compare_homes);
	return 0;
}

static int add_network(struct building *b, const struct home *home)
{
	const struct network *network = &home->object->network;
	struct topology_network row = {.index = home->index,
		.record = {.vni = network->vni,
			.vlan = network->vlan,
			.mtu = (uint16_t)(network->mtu < 65535 ? network->mtu : 65535),
			.flags = HD_NETWORK_USED | (network->l3 ? HD_NETWORK_L3 : 0) |
				 (!network->l3 && network->learning ? HD_NETWORK_LEARNING : 0) |
				 (!network->l3 && network->peer_learning ? HD_NETWORK_PEER_LEARNING : 0) |
				 (home->host ? HD_NETWORK_HOST : 0),
			.members = home->members}};

	network_key(home->object->name, row.record.name);
	if (network->vlan &&
		VEC_PUSH(&b->wires, (struct topology_wire){.key.vlan = network->vlan, .value.network = home->index}) < 0)
		return -ENOMEM;
	return VEC_PUSH(&b->networks, row);
}

/* Entry 0 says how far the numbers are used up. */
static int add_numbers(struct building *b)
{
	struct topology_network row = {.record = {.flags = HD_NETWORK_USED, .name = NETWORK_HOST}};

	networks_last(b->input->networks, &row.record);
	return VEC_PUSH(&b->networks, row);
}

/* --- who has which address --- */

static bool is_in(const struct hd_addr *addr, const struct hd_addr *list, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (memcmp(addr, &list[i], sizeof(*addr)) == 0)
			return true;
	return false;
}

static bool is_hosts(const struct building *b, const struct hd_addr *addr)
{
	const struct host *host = b->input->host;

	return is_in(addr, b->input->host_addresses, b->input->n_host_addresses) ||
	       (host->has_tunnel && memcmp(addr, &host->tunnel_address, sizeof(*addr)) == 0);
}

static int add_endpoint(struct building *b, uint16_t network, const struct hd_addr *addr, enum hd_endpoint_kind kind,
	uint32_t ifindex, const uint8_t mac[6], uint16_t flags)
{
	struct topology_endpoint row = {
		.key = {.addr = *addr, .network = network, .kind = kind}, .value = {.ifindex = ifindex, .flags = flags}};

	memcpy(row.value.mac, mac, sizeof(row.value.mac));
	return VEC_PUSH(&b->endpoints, row);
}

/*
 * The first and the last address of a subnet of IPv4, which no host sends from (RFC 1122 section 3.2.1.3), however wide the prefix of a peer is: where
 * nothing is switched they mean nobody. Point-to-point blocks have none (RFC 3021).
 */
static int add_nobodys(struct building *b, const struct home *home)
{
	static const uint8_t no_mac[6];
	const struct network *network = &home->object->network;
	int r = 0;

	for (size_t i = 0; network->l3 && network->vni && i < network->n_subnets && r == 0; i++) {
		const struct prefix *subnet = &network->subnets[i];
		struct hd_addr last = subnet->addr;

		if (!addr_is_ipv4(&subnet->addr) || subnet->length < 96 || subnet->length > 96 + 30)
			continue;
		last.w[3] |= htobe32(UINT32_MAX >> (subnet->length - 96));
		r = add_endpoint(b, home->index, &subnet->addr, HD_ENDPOINT_ADDRESS, 0, no_mac, HD_ENDPOINT_TAKEN);
		if (r == 0)
			r = add_endpoint(b, home->index, &last, HD_ENDPOINT_ADDRESS, 0, no_mac, HD_ENDPOINT_TAKEN);
	}
	return r;
}

/* What no port may claim in the network. */
static int add_reserved(struct building *b, const struct home *home)
{
	static const uint8_t no_mac[6];
	const struct network *network = &home->object->network;
	const struct host *host = b->input->host;
	int r = add_nobodys(b, home);

	for (size_t i = 0; i < network->n_gateways && r == 0; i++) {
		bool hosts = home->host && is_hosts(b, &network->gateways[i]);

		if (!is_in(&network->gateways[i], network->gateways, i))
			r = add_endpoint(b, home->index, &network->gateways[i], HD_ENDPOINT_ADDRESS, 0, gateway_mac,
				HD_ENDPOINT_GATEWAY | (hosts ? HD_ENDPOINT_TAKEN : 0));
	}
	if (!home->host)
		return r;
	for (size_t i = 0; i < b->input->n_host_addresses && r == 0; i++) {
		const struct hd_addr *addr = &b->input->host_addresses[i];

		if (!is_in(addr, network->gateways, network->n_gateways) && !is_in(addr, b->input->host_addresses, i))
			r = add_endpoint(b, home->index, addr, HD_ENDPOINT_ADDRESS, 0, no_mac, HD_ENDPOINT_TAKEN);
	}
	if (r == 0 && host->has_tunnel && !is_in(&host->tunnel_address, network->gateways, network->n_gateways) &&
		!is_in(&host->tunnel_address, b->input->host_addresses, b->input->n_host_addresses))
		r = add_endpoint(b, home->index, &host->tunnel_address, HD_ENDPOINT_ADDRESS, 0, no_mac, HD_ENDPOINT_TAKEN);
	return r;
}

/* --- ports --- */

__attribute__((format(printf, 2, 3))) static int wait_because(struct topology_port *port, const char *format, ...)
{
	va_list args;
	int n;

	va_start(args, format);
	n = vasprintf(&port->reason, format, args);
	va_end(args);
	if (n < 0)
		port->reason = NULL;
	return n < 0 ? -ENOMEM : 0;
}

/* Where the port with this MAC in this network stands in the hash table, or belongs. */
static size_t mac_place(const struct building *b, uint16_t network, const uint8_t mac[6])
{
	size_t place = (size_t)hash_u64(hash_bytes(1, mac, 6), network);

	for (;; place++) {
		const struct topology_port *port;

		place &= b->macs_size - 1;
		if (!b->macs[place])
			return place;
		port = &b->ports.data[b->macs[place] - 1];
		if (port->record.network == network && memcmp(port->record.mac, mac, 6) == 0)
			return place;
	}
}

static const struct topology_port *port_of_mac(const struct building *b, uint16_t network, const uint8_t mac[6])
{
	size_t place = mac_place(b, network, mac);

	return b->macs[place] ? &b->ports.data[b->macs[place] - 1] : NULL;
}

static uint16_t port_mtu(const struct topology_device *device, const struct network *network)
{
	uint32_t mtu = network->mtu && network->mtu < device->mtu ? network->mtu : device->mtu;

	return (uint16_t)(mtu < 65535 ? mtu : 65535);
}

static struct hd_limit port_limit(const struct port_limit *limit)
{
	uint64_t kbit = limit->rate / 1000, burst = limit->burst ? limit->burst : limit->rate * PORT_BURST_MS / 1000, us;

	if (!kbit)
		return (struct hd_limit){0};
	us = burst / kbit * 1000 + burst % kbit * 1000 / kbit;
	return (struct hd_limit){.rate = (uint32_t)kbit, .burst = us < UINT32_MAX ? (uint32_t)us : UINT32_MAX};
}

static uint16_t port_flags(const struct home *home, const struct port *port, const struct topology_device *device)
{
	const struct network *network = &home->object->network;
	unsigned flags = 0;

	if (!network->l3)
		flags |= HD_PORT_L2;
	if (!network->l3 && network->learning)
		flags |= HD_PORT_LEARNING;
	if (home->host)
		flags |= HD_PORT_HOST;
	if (device->peer_elsewhere)
		flags |= HD_PORT_PEER;
	if (port->vlan_mode == PORT_VLAN_ACCESS || port->vlan_mode == PORT_VLAN_QINQ)
		flags |= HD_PORT_ACCESS;
	if (port->vlan_mode == PORT_VLAN_QINQ)
		flags |= HD_PORT_QINQ;
	if (port->vlan_mode == PORT_VLAN_TRUNK)
		flags |= HD_PORT_TRUNK;
	if (port->limit[HD_INGRESS].rate)
		flags |= HD_PORT_LIMIT_IN;
	if (port->limit[HD_EGRESS].rate)
		flags |= HD_PORT_LIMIT_OUT;
	return (uint16_t)flags;
}

static const char *title(const struct topology_port *port, char text[OBJECT_TITLE_MAX])
{
	return object_title(OBJECT_PORT, port->object->namespace_, port->object->name, text);
}

/* Whether the device can be this port's; sets the reason where not. */
static int check_device(struct building *b, struct topology_port *to, const struct home *home, const struct topology_device **ret)
{
	const struct port *port = &to->object->port;
	const struct topology_place *place = port->device ? NULL : topology_find_place(b, to->object);
	const char *name = place ? place->device : port->device;
	const struct topology_device *device;
	const struct topology_port *other;
	char text[OBJECT_TITLE_MAX], address[ADDR_TEXT_MAX];
	const uint8_t *mac;

	*ret = NULL;
	if (!home)
		return wait_because(to, "there is no network %s", port->network);
	if (!name)
		return wait_because(to, "%s", place && place->reason ? place->reason : "its device is not looked for here");
	device = topology_device(b, name);
	if (!device)
		return wait_because(to, "there is no device %s", name);
	other = topology_port_of_device(b, device->ifindex);
	if (other)
		return wait_because(to, "its device %s is that of %s", name, title(other, text));
	if (place && host_has_uplink(b->input->host, name))
		return wait_because(to, "its device %s is an uplink of the Host", name);
	if (!device->ethernet)
		return wait_because(to, "the device has no Ethernet header");
	if (device->enslaved)
		return wait_because(to, "the device belongs to a bridge, bond or VRF: take it out of there first");
	if (!port->has_mac && !device->has_peer_mac)
		return wait_because(to, "the device has no peer whose MAC could be taken: spec.mac is needed");
	mac = port->has_mac ? port->mac : device->peer_mac;
	if (memcmp(mac, gateway_mac, sizeof(gateway_mac)) == 0)
		return wait_because(to, "its MAC is the gateway's");
	if (!home->object->network.l3 && topology_is_remote_mac(b, home->index, mac))
		return wait_because(to, "its MAC is that of a port behind a Peer");
	other = home->object->network.l3 ? NULL : port_of_mac(b, home->index, mac);
	if (other)
		return wait_because(to, "its MAC is that of %s", title(other, text));
	for (size_t i = 0; home->host && i < port->n_addresses; i++)
		if (is_hosts(b, &port->addresses[i]))
			return wait_because(to, "%s is an address of the host itself", addr_format(&port->addresses[i], address));
	/* The host's stack would be led to the port with what is for the other host. */
	for (size_t i = 0; home->host && i < port->n_addresses; i++)
		if (topology_is_peer(b, &port->addresses[i]))
			return wait_because(to, "%s is the address of a Peer", addr_format(&port->addresses[i], address));
	*ret = device;
	return 0;
}

static int add_vlans(struct building *b, const struct port *port, uint32_t ifindex)
{
	for (size_t i = 0; i < port->n_vlan_allowed; i++)
		for (uint32_t id = port->vlan_allowed[i].first; id <= port->vlan_allowed[i].last; id++)
			if (VEC_PUSH(&b->vlans, (struct hd_vlan_key){.ifindex = ifindex, .vlan = (uint16_t)id}) < 0)
				return -ENOMEM;
	return 0;
}

/* The network's gateway of the address's family, when it is the host's as well. */
static void choose_source(const struct building *b, const struct network *network, struct topology_host_address *row)
{
	for (size_t i = 0; i < network->n_gateways && !row->has_source; i++)
		if (addr_is_ipv4(&network->gateways[i]) == addr_is_ipv4(&row->address) &&
			is_in(&network->gateways[i], b->input->host_addresses, b->input->n_host_addresses)) {
			row->has_source = true;
			row->source = network->gateways[i];
		}
}

static bool is_link_local(const struct hd_addr *addr)
{
	return addr->b[0] == 0xfe && (addr->b[1] & 0xc0) == 0x80;
}

static int add_addresses(struct building *b, const struct topology_port *port, const struct home *home)
{
	const struct port *document = &port->object->port;
	const uint8_t *mac = port->record.mac;
	struct hd_addr by_mac = {0};
	int r = 0;

	for (size_t i = 0; i < document->n_addresses && r == 0; i++) {
		struct topology_host_address row = {.address = document->addresses[i], .ifindex = port->ifindex};

		if (is_in(&row.address, document->addresses, i))
			continue;
		r = add_endpoint(b, home->index, &row.address, HD_ENDPOINT_ADDRESS, port->ifindex, mac, 0);
		if (r < 0 || !home->host || is_link_local(&row.address))
			continue;
		memcpy(row.mac, mac, sizeof(row.mac));
		choose_source(b, &home->object->network, &row);
		r = VEC_PUSH(&b->host, row);
	}
	if (r < 0 || home->object->network.l3)
		return r;
	memcpy(by_mac.b, mac, 6);
	r = add_endpoint(b, home->index, &by_mac, HD_ENDPOINT_MAC, port->ifindex, mac, 0);
	return r < 0 ? r : VEC_PUSH(&b->members, (struct topology_member){.network = home->index, .id = port->ifindex});
}

static int add_port(struct building *b, struct object *object)
{
	struct topology_port to = {.object = object};
	const struct port *port = &object->port;
	struct home *home = topology_home(b, port->network);
	const struct topology_device *device = NULL;
	int r = check_device(b, &to, home, &device);

	if (r == 0 && device) {
		to.ifindex = device->ifindex;
		snprintf(to.device, sizeof(to.device), "%s", device->name);
		to.record = (struct hd_port){.ifindex = device->ifindex,
			.network = home->index,
			.flags = port_flags(home, port, device),
			.vlan = port->vlan_mode == PORT_VLAN_TRUNK ? port->vlan_native : port->vlan_id,
			.mtu = port_mtu(device, &home->object->network),
			.limit = {[HD_INGRESS] = port_limit(&port->limit[HD_INGRESS]),
				[HD_EGRESS] = port_limit(&port->limit[HD_EGRESS])}};
		memcpy(to.record.mac, port->has_mac ? port->mac : device->peer_mac, sizeof(to.record.mac));
		r = add_addresses(b, &to, home);
		if (r == 0 && port->vlan_mode == PORT_VLAN_TRUNK)
			r = add_vlans(b, port, device->ifindex);
		if (r == 0 && !device->up)
			r = wait_because(&to, "the device is down");
		if (r == 0 && !home->object->network.l3 && ++home->members > HD_MEMBERS_MAX) {
			diag_add(b->diag, object->file, object->line, "spec.network",
				"more than %d ports of an l2 network on one host", HD_MEMBERS_MAX);
			r = -EINVAL;
		}
	}
	if (r == 0)
		r = VEC_PUSH(&b->ports, to);
	if (r < 0) {
		free(to.reason);
		return r;
	}
	if (to.ifindex) {
		size_t place = mac_place(b, to.record.network, to.record.mac);

		if (!b->macs[place])
			b->macs[place] = (uint32_t)b->ports.n;
	}
	(void)object_ref(object);
	return 0;
}

/* What makes looking a device or a MAC up cheap. */
static int add_indexes(struct building *b)
{
	size_t n_ports = 0;

	for (size_t i = 0; i < b->input->objects->n; i++)
		n_ports += b->input->objects->items[i]->kind == OBJECT_PORT;
	for (b->macs_size = 2; b->macs_size <= 2 * n_ports;)
		b->macs_size *= 2;
	b->macs = calloc(b->macs_size, sizeof(*b->macs));
	b->devices = calloc(b->input->n_devices + 1, sizeof(struct topology_device *));
	if (!b->macs || !b->devices)
		return -ENOMEM;
	topology_index_devices(b);
	return 0;
}

/* --- routes --- */

static int add_draft(struct building *b, const struct home *from, const struct home *to, const struct prefix *prefix,
	uint16_t zone, uint32_t flags)
{
	struct draft draft = {.from = from->object,
		.to = to->object,
		.route = {.key = {.length = 16u + prefix->length, .network = htobe16(from->index)},
			.value = {.network = to->index, .zone = zone, .flags = flags}}};

	memcpy(draft.route.key.addr, prefix->addr.b, sizeof(draft.route.key.addr));
	return VEC_PUSH(&b->drafts, draft);
}

static int add_subnets(struct building *b, const struct home *from, const struct home *to, uint32_t flags)
{
	uint16_t zone = from == to ? from->index : networks_zone(b->input->networks, from->index, to->index);
	const struct network *network = &to->object->network;
	int r = 0;

	for (size_t i = 0; i < network->n_subnets && r == 0; i++)
		r = add_draft(b, from, to, &network->subnets[i], zone, flags);
	return r;
}

static int add_drafts(struct building *b)
{
	int r = 0;

	for (size_t i = 0; i < b->homes.n && r == 0; i++) {
		const struct home *home = &b->homes.data[i];
		const struct network *network = &home->object->network;

		r = add_subnets(b, home, home, 0);
		for (size_t j = 0; j < network->n_routes_to && r == 0; j++) {
			const struct home *to = topology_home(b, network->routes_to[j]);

			if (!to || to == home)
				continue; /* the host, or nothing */
			r = add_subnets(b, home, to, 0);
			if (r == 0 && !routes_to(&to->object->network, home->object->name))
				r = add_subnets(b, to, home, HD_ROUTE_REPLY);
		}
	}
	return r;
}

static bool covers(const struct hd_route_key *wide, const struct hd_route_key *narrow)
{
	struct hd_addr a, b;

	memcpy(a.b, wide->addr, sizeof(a.b));
	memcpy(b.b, narrow->addr, sizeof(b.b));
	return wide->network == narrow->network &&
	       addr_prefix_in_prefix(&b, (uint8_t)(narrow->length - 16), &a, (uint8_t)(wide->length - 16));
}

static int contradiction(struct building *b, const struct draft *x, const struct draft *y)
{
	char text[ADDR_TEXT_MAX];
	struct hd_addr addr;

	memcpy(addr.b, y->route.key.addr, sizeof(addr.b));
	addr_format_cidr(&addr, (uint8_t)(y->route.key.length - 16), text);
	if (x->to == x->from || y->to == y->from) {
		const struct draft *other = x->to == x->from ? y : x;

		diag_add(b->diag, other->from->file, other->from->line, "spec.routesTo",
			"networks %s and %s cannot be routed between: both have addresses of %s", other->from->name,
			other->to->name, text);
	} else {
		diag_add(b->diag, x->from->file, x->from->line, "spec.routesTo",
			"network %s would not know whether %s is in %s or in %s: both have it, and routes lead to and from both",
			x->from->name, text, x->to->name, y->to->name);
	}
	return -EINVAL;
}

/* Apart from all subnets, model_validate() has seen to that. */
static int add_services(struct building *b, const struct home *home)
{
	const struct network *network = &home->object->network;
	int r = 0;

	for (size_t i = 0; i < network->n_services && r == 0; i++) {
		const struct prefix *prefix = &network->services[i];
		struct topology_route route = {.key = {.length = 16u + prefix->length, .network = htobe16(home->index)},
			.value = {.flags = HD_ROUTE_SERVICE}};

		memcpy(route.key.addr, prefix->addr.b, sizeof(route.key.addr));
		r = VEC_PUSH(&b->routes, route);
	}
	return r;
}

/* An address must mean one thing in each network. Prefixes nest or are apart: a stack of those that are open finds every overlap. */
static int check_drafts(struct building *b)
{
	const struct draft *open[130];
	size_t depth = 0;
	int r = 0;

	if (b->drafts.n)
		qsort(b->drafts.data, b->drafts.n, sizeof(struct draft), compare_drafts);
	for (size_t i = 0; i < b->drafts.n && r == 0; i++) {
		const struct draft *draft = &b->drafts.data[i];
		bool again = false;

		while (depth && !covers(&open[depth - 1]->route.key, &draft->route.key))
			depth--;
		if (depth && open[depth - 1]->to != draft->to)
			return contradiction(b, open[depth - 1], draft);
		again = depth && compare_routes(&open[depth - 1]->route, &draft->route) == 0;
		if (again) /* a network may list a subnet twice */
			continue;
		open[depth++] = draft;
		r = VEC_PUSH(&b->routes, draft->route);
	}
	for (size_t i = 0; i < b->homes.n && r == 0 && !b->input->no_services; i++)
		r = add_services(b, &b->homes.data[i]);
	if (r == 0)
		r = topology_add_stack(b);
	if (b->routes.n)
		qsort(b->routes.data, b->routes.n, sizeof(struct topology_route), compare_routes);
	return r;
}

/* --- all of it --- */

static void building_free(struct building *b)
{
	for (size_t i = 0; i < b->ports.n; i++) {
		free(b->ports.data[i].reason);
		object_unref(b->ports.data[i].object);
	}
	free(b->devices);
	free(b->macs);
	VEC_FREE(&b->homes);
	VEC_FREE(&b->drafts);
	VEC_FREE(&b->ports);
	VEC_FREE(&b->networks);
	VEC_FREE(&b->endpoints);
	VEC_FREE(&b->remote);
	VEC_FREE(&b->members);
	VEC_FREE(&b->peer_members);
	VEC_FREE(&b->routes);
	VEC_FREE(&b->vlans);
	VEC_FREE(&b->wires);
	VEC_FREE(&b->host);
	VEC_FREE(&b->vnis);
	for (size_t i = 0; i < b->peer_objects.n; i++)
		object_unref(b->peer_objects.data[i]);
	VEC_FREE(&b->peer_objects);
	VEC_FREE(&b->peers);
	VEC_FREE(&b->peer_addresses);
	VEC_FREE(&b->prefixes);
}

/* Those that are there. */
static int add_uplinks(struct building *b)
{
	const struct host *host = b->input->host;

	for (size_t i = 0; i < host->n_uplinks; i++) {
		const struct topology_device *device = topology_device(b, host->uplinks[i].device);

		if (device && device->ethernet &&
			VEC_PUSH(&b->members, (struct topology_member){.network = 0, .id = device->ifindex}) < 0)
			return -ENOMEM;
	}
	return 0;
}

static int build(struct building *b)
{
	int r = add_indexes(b);

	if (r == 0)
		r = add_homes(b);
	if (r == 0)
		r = add_numbers(b);
	if (r == 0)
		r = add_drafts(b);
	if (r == 0)
		r = check_drafts(b);
	if (r == 0)
		r = topology_add_overlay(b);
	for (size_t i = 0; i < b->input->objects->n && r == 0; i++)
		if (b->input->objects->items[i]->kind == OBJECT_PORT)
			r = add_port(b, b->input->objects->items[i]);
	for (size_t i = 0; i < b->homes.n && r == 0; i++) {
		r = add_reserved(b, &b->homes.data[i]);
		if (r == 0)
			r = add_network(b, &b->homes.data[i]);
	}
	if (r == 0 && b->wires.n)
		r = add_uplinks(b);
	return r < 0 ? r : topology_join_endpoints(b);
}

/* Ranges of a trunk may overlap. */
static void unique_vlans(struct building *b)
{
	size_t n = 0;

	TOPOLOGY_SORT(&b->vlans, compare_vlans);
	for (size_t i = 0; i < b->vlans.n; i++)
		if (n == 0 || compare_vlans(&b->vlans.data[n - 1], &b->vlans.data[i]))
			b->vlans.data[n++] = b->vlans.data[i];
	b->vlans.n = n;
}

int topology_build(const struct topology_input *input, struct topology **ret, struct diag *diag)
{
	struct building b = {.input = input, .diag = diag};
	struct topology *topology = calloc(1, sizeof(*topology));
	int r = topology ? build(&b) : -ENOMEM;

	if (r < 0) {
		building_free(&b);
		free(topology);
		return r;
	}
	TOPOLOGY_SORT(&b.ports, compare_ports);
	TOPOLOGY_SORT(&b.networks, compare_networks);
	TOPOLOGY_SORT(&b.members, topology_compare_members);
	TOPOLOGY_SORT(&b.wires, compare_wires);
	TOPOLOGY_SORT(&b.host, compare_host);
	unique_vlans(&b);
	free(b.devices);
	free(b.macs);
	VEC_FREE(&b.homes);
	VEC_FREE(&b.drafts);
	VEC_FREE(&b.remote);
	*topology = (struct topology){
		.ports = b.ports.data,
		.networks = b.networks.data,
		.endpoints = b.endpoints.data,
		.members = b.members.data,
		.routes = b.routes.data,
		.n_stack = b.n_stack,
		.vlans = b.vlans.data,
		.wires = b.wires.data,
		.host = b.host.data,
		.vnis = b.vnis.data,
		.peers = b.peers.data,
		.peer_objects = b.peer_objects.data,
		.incomplete = b.incomplete,
		.peer_addresses = b.peer_addresses.data,
		.prefixes = b.prefixes.data,
		.peer_members = b.peer_members.data,
		.tunnel = b.tunnel,
		.n_ports = b.ports.n,
		.n_networks = b.networks.n,
		.n_endpoints = b.endpoints.n,
		.n_members = b.members.n,
		.n_routes = b.routes.n,
		.n_vlans = b.vlans.n,
		.n_wires = b.wires.n,
		.n_host = b.host.n,
		.n_vnis = b.vnis.n,
		.n_peers = b.peers.n,
		.n_peer_addresses = b.peer_addresses.n,
		.n_prefixes = b.prefixes.n,
		.n_peer_members = b.peer_members.n,
	};
	*ret = topology;
	return 0;
}

void topology_free(struct topology *topology)
{
	if (!topology)
		return;
	for (size_t i = 0; i < topology->n_ports; i++) {
		free(topology->ports[i].reason);
		object_unref(topology->ports[i].object);
	}
	free(topology->ports);
	free(topology->networks);
	free(topology->endpoints);
	free(topology->members);
	free(topology->routes);
	free(topology->vlans);
	free(topology->wires);
	free(topology->host);
	free(topology->vnis);
	for (size_t i = 0; i < topology->n_peers; i++)
		object_unref(topology->peer_objects[i]);
	free(topology->peer_objects);
	free(topology->peers);
	free(topology->peer_addresses);
	free(topology->prefixes);
	free(topology->peer_members);
	free(topology);
}

const struct topology_port *topology_find_port(const struct topology *topology, const struct object *port)
{
	struct topology_port key = {.object = (struct object *)port};

	if (!topology->n_ports)
		return NULL;
	return bsearch(&key, topology->ports, topology->n_ports, sizeof(key), compare_ports);
}
