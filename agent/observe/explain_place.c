/* SPDX-License-Identifier: Apache-2.0 */
/* Where a packet is judged, and what its Ethernet header says there. */
#include <errno.h>
#include <string.h>

#include <ifaddrs.h>
#include <linux/if_ether.h>
#include <net/if_arp.h>
#include <netinet/in.h>

#include <heddle/network.h>
#include <observe/explain_internal.h>
#include <util/addr.h>

#define LO_IFINDEX 1

/* A peer on the link that exists nowhere: a locally administered address. */
static const uint8_t somebody[6] = {0x02, 0, 0, 0, 0, 1};
static const uint8_t gateway_mac[6] = HD_GATEWAY_MAC;

/* --- uplinks --- */

/* The interface that holds an address; "" none. */
static void holder(const struct hd_addr *addr, char name[IF_NAMESIZE])
{
	struct ifaddrs *list;

	name[0] = '\0';
	if (getifaddrs(&list))
		return;
	for (const struct ifaddrs *at = list; at && !name[0]; at = at->ifa_next) {
		struct hd_addr own;

		if (!at->ifa_addr)
			continue;
		if (at->ifa_addr->sa_family == AF_INET)
			own = addr_from_ipv4(((const struct sockaddr_in *)at->ifa_addr)->sin_addr.s_addr);
		else if (at->ifa_addr->sa_family == AF_INET6)
			memcpy(own.b, ((const struct sockaddr_in6 *)at->ifa_addr)->sin6_addr.s6_addr, 16);
		else
			continue;
		if (!memcmp(&own, addr, sizeof(own)))
			snprintf(name, IF_NAMESIZE, "%s", at->ifa_name);
	}
	freeifaddrs(list);
}

static const struct netdev *attached_uplink(const struct view *view, const char *name, const struct datapath_attachment **ret)
{
	const struct netdev *device = view_device_by_name(view, name);

	*ret = device ? view_attachment(view, device->ifindex) : NULL;
	return *ret && !(*ret)->port ? device : NULL;
}

static const struct netdev *first_attached(const struct view *view, const struct datapath_attachment **ret)
{
	for (size_t i = 0; view->host && i < view->host->n_uplinks; i++) {
		const struct netdev *device = attached_uplink(view, view->host->uplinks[i].device, ret);

		if (device)
			return device;
	}
	return NULL;
}

/* By its addresses: inbound to one of ours, else outbound from one; "" when none is. A frame that carries our MAC as its source is ours. */
static enum hd_direction infer_direction(
	const struct view *view, const struct packet_view *packet, const uint8_t *source_mac, char name[IF_NAMESIZE])
{
	for (size_t i = 0; source_mac && i < view->n_devices; i++) {
		const struct datapath_attachment *attachment = view_attachment(view, view->devices[i].ifindex);

		if (attachment && !attachment->port && !memcmp(view->devices[i].mac, source_mac, 6)) {
			memcpy(name, view->devices[i].name, IF_NAMESIZE);
			return HD_EGRESS;
		}
	}
	if (!packet->ip)
		return HD_INGRESS;
	holder(&packet->destination, name);
	if (name[0])
		return HD_INGRESS;
	holder(&packet->source, name);
	return name[0] ? HD_EGRESS : HD_INGRESS;
}

/* As asked for, else as its addresses say, else inbound at the first uplink. */
static int find_uplink(const struct view *view, const struct explain_request *request, const struct packet_view *packet,
	struct explain_place *ret, struct buffer *mistakes)
{
	const char *asked = request->egress[0] ? request->egress : request->uplink;
	char name[IF_NAMESIZE] = "";

	ret->direction = request->egress[0] ? HD_EGRESS : HD_INGRESS;
	if (asked[0]) {
		ret->device = attached_uplink(view, asked, &ret->attachment);
		if (!ret->device) {
			buffer_printf(mistakes, "%s: want a guarded uplink, got \"%s\"\n",
				request->egress[0] ? "egress" : "uplink", asked);
			return -ENODEV;
		}
		if (request->egress[0] && request->uplink[0]) {
			const struct netdev *from = view_device_by_name(view, request->uplink);

			if (!from) {
				buffer_printf(mistakes, "uplink: want a device, got \"%s\"\n", request->uplink);
				return -ENODEV;
			}
			ret->from = from->ifindex;
		}
	} else {
		ret->direction = infer_direction(view, packet, request->described ? NULL : request->frame + 6, name);
		if (name[0])
			ret->device = attached_uplink(view, name, &ret->attachment);
		if (!ret->device)
			ret->device = first_attached(view, &ret->attachment);
		if (!ret->device) {
			buffer_add_string(mistakes, "uplink: want a guarded uplink, there is none\n");
			return -ENODEV;
		}
	}
	if (ret->direction == HD_EGRESS)
		ret->hook = HD_HOOK_TC_UPLINK_OUT;
	else if (ret->attachment->xdp_mode && strcmp(ret->attachment->xdp_mode, "off"))
		ret->hook = HD_HOOK_XDP_UPLINK;
	else
		ret->hook = HD_HOOK_TC_UPLINK_IN;
	return 0;
}

/* --- ports --- */

bool explain_has_address(const struct topology_port *port, const struct hd_addr *address)
{
	const struct port *document = &port->object->port;

	for (size_t i = 0; i < document->n_addresses; i++)
		if (!memcmp(&document->addresses[i], address, sizeof(*address)))
			return true;
	return false;
}

static bool has_mac(const struct topology_port *port, const uint8_t *mac)
{
	return port->ifindex && !memcmp(port->record.mac, mac, 6);
}

/* Those that the address (or, of a captured frame, the source MAC) belongs to, in the network if one is named: how many. */
static size_t count_ports(const struct view *view, const char *network, const struct hd_addr *address, const uint8_t *mac,
	const struct topology_port **ret)
{
	size_t n = 0;

	for (size_t i = 0; view->topology && i < view->topology->n_ports; i++) {
		const struct topology_port *port = &view->topology->ports[i];

		if (network[0] && strcmp(network, port->object->port.network))
			continue;
		if (mac ? !has_mac(port, mac) : !explain_has_address(port, address))
			continue;
		*ret = port;
		n++;
	}
	return n;
}

static bool network_exists(const struct view *view, const char *name)
{
	return object_list_find(view->objects, OBJECT_NETWORK, NULL, name);
}

static int at_port(const struct view *view, const struct topology_port *port, enum hd_hook hook, const struct packet_view *packet,
	struct explain_place *ret, struct buffer *mistakes)
{
	const struct topology_port *to = NULL;
	char name[IF_NAMESIZE];
	uint16_t network;

	ret->port = port;
	ret->device = port->ifindex ? view_device(view, port->ifindex) : NULL;
	ret->attachment = ret->device ? view_attachment(view, port->ifindex) : NULL;
	if (!ret->attachment) {
		buffer_printf(mistakes, "port: want one that is switched, got %s/%s: %s\n", port->object->namespace_,
			port->object->name, port->reason ? port->reason : "its programs are not attached");
		return -ENODEV;
	}
	ret->hook = hook;
	ret->direction = hook == HD_HOOK_TC_PORT_IN ? HD_EGRESS : HD_INGRESS;
	if (hook == HD_HOOK_TC_PORT_IN) {
		/* in its own network, else in the only one that has the destination */
		if (count_ports(view, port->object->port.network, &packet->destination, NULL, &to) == 1 ||
			count_ports(view, "", &packet->destination, NULL, &to) == 1)
			ret->to = to->ifindex;
		else if (packet->ip && !explain_is_node(view, port->record.network, &packet->destination))
			ret->to_peer =
				topology_peer_towards(view->topology, port->record.network, &packet->destination, &network);
		return 0;
	}
	/* What is not the host's own came in somewhere. */
	holder(&packet->source, name);
	if (!name[0]) {
		const struct datapath_attachment *attachment;
		const struct netdev *uplink = first_attached(view, &attachment);

		ret->from = uplink ? uplink->ifindex : LO_IFINDEX;
	}
	return 0;
}

static int find_named_port(const struct view *view, const struct explain_request *request, const struct packet_view *packet,
	struct explain_place *ret, struct buffer *mistakes)
{
	const char *namespace_ = request->namespace_[0] ? request->namespace_ : OBJECT_NAMESPACE_DEFAULT;
	const struct object *object = object_list_find(view->objects, OBJECT_PORT, namespace_, request->port);
	const struct topology_port *port = object && view->topology ? topology_find_port(view->topology, object) : NULL;

	if (!port) {
		buffer_printf(
			mistakes, "port: want a Port, got \"%s/%s\", which no document declares\n", namespace_, request->port);
		return -ENODEV;
	}
	if (request->network[0] && strcmp(request->network, port->object->port.network)) {
		buffer_printf(mistakes, "network: want the network of the port, %s, got \"%s\"\n", port->object->port.network,
			request->network);
		return -ENODEV;
	}
	return at_port(view, port, HD_HOOK_TC_PORT_IN, packet, ret, mistakes);
}

/* The uplink by which packets of the peer are likely to come. */
static int at_peer(const struct view *view, const struct explain_request *request, const struct explain_sender *sender,
	struct explain_place *ret, struct buffer *mistakes)
{
	const struct underlay_state *state = view->underlay ? underlay_find(view->underlay, sender->peer) : NULL;
	const struct netdev *way = state && state->n ? view_device(view, state->way[0].ifindex) : NULL;

	if (request->uplink[0]) {
		ret->device = attached_uplink(view, request->uplink, &ret->attachment);
	} else {
		ret->device = way ? attached_uplink(view, way->name, &ret->attachment) : NULL;
		if (!ret->device)
			ret->device = first_attached(view, &ret->attachment);
	}
	if (!ret->device) {
		buffer_printf(mistakes, "uplink: want a guarded uplink, got \"%s\"\n", request->uplink);
		return -ENODEV;
	}
	ret->hook = HD_HOOK_TC_TUNNEL_IN;
	ret->direction = HD_INGRESS;
	ret->peer = sender->peer;
	ret->network = sender->network;
	ret->to = sender->to;
	return 0;
}

/* The network that the host's stack takes the address to be in, by its routes to workloads behind peers; 0: none. */
static uint16_t stack_network(const struct view *view, const struct hd_addr *address)
{
	const struct topology *topology = view->topology;
	uint16_t network = 0;

	/* sorted by their lengths: the last one is the longest */
	for (size_t i = 0; topology && view->stack && i < topology->n_routes; i++) {
		const struct topology_route *route = &topology->routes[i];
		struct hd_addr block;

		memcpy(block.b, route->key.addr, sizeof(block.b));
		if (!route->key.network && addr_in_prefix(address, &block, (uint8_t)(route->key.length - 16)))
			network = route->value.network;
	}
	return network;
}

/* What the host's stack sends to a workload behind a peer. */
static int at_stack(const struct view *view, uint16_t network, const struct packet_view *packet, struct explain_place *ret,
	struct buffer *mistakes)
{
	ret->device = view_device_by_name(view, TUNNEL_STACK_DEVICE);
	ret->attachment = ret->device ? view_attachment(view, ret->device->ifindex) : NULL;
	if (!ret->attachment) {
		buffer_printf(mistakes, "to: want an address that the host reaches, and %s is not there\n", TUNNEL_STACK_DEVICE);
		return -ENODEV;
	}
	ret->hook = HD_HOOK_TC_HOST_OUT;
	ret->direction = HD_EGRESS;
	ret->network = network;
	ret->to_peer = topology_peer_of(view->topology, network, &packet->destination);
	return 0;
}

/* By its addresses. 1: it has nothing to do with ports or peers. */
static int find_port(const struct view *view, const struct explain_request *request, const struct packet_view *packet,
	struct explain_place *ret, struct buffer *mistakes)
{
	const struct topology_port *from = NULL, *to = NULL;
	struct explain_sender sender = {0};
	size_t n_from, n_to, n_peers;
	char own[IF_NAMESIZE] = "", host[IF_NAMESIZE] = "";

	if (request->network[0] && !network_exists(view, request->network)) {
		buffer_printf(mistakes, "network: want a Network, got \"%s\", which no document declares\n", request->network);
		return -ENODEV;
	}
	n_from = count_ports(view, request->network, &packet->source, request->described ? NULL : request->frame + 6, &from);
	n_to = count_ports(view, request->network, &packet->destination, NULL, &to);
	if (packet->ip && !request->network[0])
		holder(&packet->source, own);
	if (packet->ip && !request->network[0])
		holder(&packet->destination, host);
	n_peers = explain_find_senders(view, request->network, packet, host[0] != '\0', &sender);
	if (n_from + n_peers + (own[0] != '\0') > 1 || (!n_from && !n_peers && n_to > 1)) {
		buffer_printf(mistakes, "network: want the name of one (or \"host\"): %s is an address in several\n",
			n_from || n_peers ? "from" : "to");
		return -ENODEV;
	}
	if (n_from)
		return at_port(view, from, HD_HOOK_TC_PORT_IN, packet, ret, mistakes);
	if (n_peers)
		return at_peer(view, request, &sender, ret, mistakes);
	/* The host's stack finds the ports of networks that route to it. */
	if (n_to && (request->network[0] || to->record.flags & HD_PORT_HOST))
		return at_port(view, to, HD_HOOK_TC_PORT_OUT, packet, ret, mistakes);
	if (own[0] && !n_to && !host[0] && stack_network(view, &packet->destination))
		return at_stack(view, stack_network(view, &packet->destination), packet, ret, mistakes);
	if (!request->network[0])
		return 1;
	buffer_printf(
		mistakes, "from: want the address of a port, or of one behind a peer, in the network %s\n", request->network);
	return -ENODEV;
}

/* The network that the frame is in by its outer tag, when it comes in by an uplink; 0: the host's. */
static uint32_t wire_network(const struct view *view, const struct explain_place *place, const struct explain_request *request)
{
	const uint8_t *tag = request->frame + 2 * ETH_ALEN;
	const struct topology *topology = view->topology;

	if (place->direction != HD_INGRESS || !topology || request->length < ETH_HLEN + 4 || tag[0] != 0x81 || tag[1] != 0x00)
		return 0;
	for (size_t i = 0; i < topology->n_wires; i++)
		if (topology->wires[i].key.vlan == (uint32_t)((tag[2] & 0xf) << 8 | tag[3]))
			return topology->wires[i].value.network;
	return 0;
}

int explain_find_place(const struct view *view, const struct explain_request *request, const struct packet_view *packet,
	struct explain_place *ret, struct buffer *mistakes)
{
	int r = 1;

	*ret = (struct explain_place){0};
	if (request->port[0])
		return find_named_port(view, request, packet, ret, mistakes);
	if (request->peer[0]) {
		struct explain_sender sender;

		r = explain_find_named_peer(view, request, packet, &sender, mistakes);
		return r < 0 ? r : at_peer(view, request, &sender, ret, mistakes);
	}
	if (!request->uplink[0] && !request->egress[0] && strcmp(request->network, NETWORK_HOST))
		r = find_port(view, request, packet, ret, mistakes);
	if (r == 1)
		r = find_uplink(view, request, packet, ret, mistakes);
	if (r < 0 || ret->port || ret->peer || ret->hook == HD_HOOK_TC_HOST_OUT)
		return r;
	ret->network = wire_network(view, ret, request);
	if (ret->network)
		ret->hook = HD_HOOK_TC_WIRE_IN;
	return r;
}

/* --- MACs --- */

static void group_mac(const struct hd_addr *address, uint8_t mac[6])
{
	if (addr_is_ipv4(address)) {
		/* RFC 1112, section 6.4 */
		memcpy(mac, (const uint8_t[]){0x01, 0x00, 0x5e, address->b[13] & 0x7f, address->b[14], address->b[15]}, 6);
	} else {
		/* RFC 2464, section 7 */
		memcpy(mac, (const uint8_t[]){0x33, 0x33, address->b[12], address->b[13], address->b[14], address->b[15]}, 6);
	}
}

static bool is_group(const struct hd_addr *address)
{
	return addr_is_ipv4(address) ? (address->b[12] & 0xf0) == 0xe0 : address->b[0] == 0xff;
}

/* Whom the workload would send it to: a neighbour in its subnet, or the gateway. */
static void next_hop(const struct view *view, const struct topology_port *port, const struct hd_addr *address, uint8_t mac[6])
{
	const struct object *network = object_list_find(view->objects, OBJECT_NETWORK, NULL, port->object->port.network);
	bool near = false;

	memcpy(mac, gateway_mac, 6);
	if (is_group(address)) {
		group_mac(address, mac);
		return;
	}
	for (size_t i = 0; network && !network->network.l3 && i < network->network.n_subnets; i++) {
		const struct prefix *subnet = &network->network.subnets[i];

		near = near || addr_in_prefix(address, &subnet->addr, subnet->length);
	}
	for (size_t i = 0; network && i < network->network.n_gateways; i++)
		near = near && memcmp(&network->network.gateways[i], address, sizeof(*address)) != 0;
	if (!near && !(network && !network->network.l3 && network->network.n_subnets == 0))
		return;
	memcpy(mac, somebody, 6);
	(void)explain_endpoint_mac(view, port->record.network, address, mac);
}

/* As the sender's host puts it in the tunnel: routed there, unless it is from the network that it is in. */
static void tunnel_macs(const struct view *view, const struct explain_place *place, const struct packet_view *packet,
	uint8_t *destination, uint8_t *source)
{
	uint16_t network = (uint16_t)place->network, origin;
	uint32_t owner = topology_peer_towards(view->topology, network, &packet->source, &origin);

	memcpy(destination, gateway_mac, 6);
	if (is_group(&packet->destination))
		group_mac(&packet->destination, destination);
	else
		(void)explain_endpoint_mac(view, network, &packet->destination, destination);
	memcpy(source, somebody, 6);
	if (owner && origin != network)
		memcpy(source, gateway_mac, 6);
	else
		(void)explain_endpoint_mac(view, network, &packet->source, source);
}

void explain_set_macs(
	const struct view *view, const struct explain_place *place, const struct packet_view *packet, uint8_t *frame)
{
	uint8_t *destination = frame, *source = frame + 6;

	if (place->hook == HD_HOOK_TC_PORT_IN) {
		next_hop(view, place->port, &packet->destination, destination);
		memcpy(source, place->port->record.mac, 6);
	} else if (place->port) {
		memcpy(destination, place->port->record.mac, 6);
		memcpy(source, place->device->mac, 6);
	} else if (place->hook == HD_HOOK_TC_TUNNEL_IN) {
		tunnel_macs(view, place, packet, destination, source);
	} else {
		bool in = place->direction == HD_INGRESS;

		memcpy(destination, in ? place->device->mac : somebody, 6);
		memcpy(source, in ? somebody : place->device->mac, 6);
		/* a described packet of a network is for whoever has its address there */
		if (place->network)
			(void)explain_endpoint_mac(view, (uint16_t)place->network, &packet->destination, destination);
	}
}
