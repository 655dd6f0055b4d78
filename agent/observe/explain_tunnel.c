/* SPDX-License-Identifier: Apache-2.0 */
/* Packets that come from a peer: whose they are when only their addresses are known, and what is in a tunnel packet of a capture. */
#include <errno.h>
#include <string.h>

#include <arpa/inet.h>
#include <netinet/in.h>

#include <observe/explain_internal.h>
#include <util/addr.h>

static uint16_t network_number(const struct view *view, const char *name)
{
	return view->networks && name[0] ? networks_index(view->networks, name) : 0;
}

static bool has_vni(const struct view *view, uint16_t network)
{
	for (size_t i = 0; network && i < view->topology->n_vnis; i++)
		if (view->topology->vnis[i].value.network == network)
			return true;
	return false;
}

/* --- by addresses --- */

bool explain_is_node(const struct view *view, uint16_t network, const struct hd_addr *address)
{
	const struct hd_endpoint *endpoint = topology_endpoint(view->topology, network, address);

	return endpoint && endpoint->flags & HD_ENDPOINT_NODE;
}

size_t explain_find_senders(
	const struct view *view, const char *named, const struct packet_view *packet, bool to_host, struct explain_sender *ret)
{
	const struct topology *topology = view->topology;
	uint16_t wanted = network_number(view, named), origin;
	size_t n = 0;

	if (!packet->ip || !topology || !topology->n_peers || (named[0] && !wanted))
		return 0;
	for (size_t i = 0; i < topology->n_ports; i++) {
		const struct topology_port *port = &topology->ports[i];
		uint16_t network = network_number(view, port->object->port.network);
		uint32_t peer = explain_has_address(port, &packet->destination) && has_vni(view, network)
					? topology_peer_towards(topology, network, &packet->source, &origin)
					: 0;

		if (!peer || (wanted && wanted != network && wanted != origin))
			continue;
		*ret = (struct explain_sender){.peer = peer, .network = network, .to = port->ifindex};
		n++;
	}
	/* To nobody here: a document has to say that just this address is a peer's, or the network has to be named. */
	for (size_t i = 0; i < topology->n_vnis && !n && !to_host; i++) {
		uint16_t network = (uint16_t)topology->vnis[i].value.network;
		const struct hd_endpoint *endpoint = topology_endpoint(topology, network, &packet->source);
		uint32_t peer = wanted ? topology_peer_of(topology, network, &packet->source)
				: endpoint && !explain_is_node(view, network, &packet->source) ? endpoint->peer
											       : 0;

		if (!peer || (wanted && wanted != network))
			continue;
		*ret = (struct explain_sender){.peer = peer, .network = network};
		n++;
	}
	return n;
}

/* --- by name --- */

/* Of the ports that have the destination, if they are all in one; 0: in none, or in several. */
static uint16_t network_of(const struct view *view, const struct hd_addr *destination)
{
	uint16_t found = 0;

	for (size_t i = 0; i < view->topology->n_ports; i++) {
		uint16_t network = network_number(view, view->topology->ports[i].object->port.network);

		if (!explain_has_address(&view->topology->ports[i], destination) || !has_vni(view, network))
			continue;
		if (found && found != network)
			return 0;
		found = network;
	}
	return found;
}

static uint32_t port_with(const struct view *view, uint16_t network, const struct hd_addr *destination)
{
	const struct hd_endpoint *endpoint = topology_endpoint(view->topology, network, destination);

	return endpoint ? endpoint->ifindex : 0;
}

int explain_find_named_peer(const struct view *view, const struct explain_request *request, const struct packet_view *packet,
	struct explain_sender *ret, struct buffer *mistakes)
{
	uint32_t peer = view->networks ? networks_peer(view->networks, request->peer) : 0;

	if (!peer || !view_peer(view, peer)) {
		buffer_printf(mistakes, "peer: want a Peer, got \"%s\", which no document declares\n", request->peer);
		return -ENODEV;
	}
	*ret = (struct explain_sender){.peer = peer,
		.network = request->network[0] ? network_number(view, request->network) : network_of(view, &packet->destination)};
	if (!has_vni(view, ret->network)) {
		if (request->network[0])
			buffer_printf(mistakes, "network: want one that has a VNI, got \"%s\"\n", request->network);
		else
			buffer_add_string(mistakes, "network: want the name of the one that the peer sends it in\n");
		return -ENODEV;
	}
	ret->to = port_with(view, ret->network, &packet->destination);
	return 0;
}

/* --- MACs --- */

bool explain_endpoint_mac(const struct view *view, uint16_t network, const struct hd_addr *address, uint8_t mac[6])
{
	static const uint8_t gateway[6] = HD_GATEWAY_MAC, none[6];
	const struct hd_endpoint *endpoint = view->topology ? topology_endpoint(view->topology, network, address) : NULL;
	const struct hd_peer_prefix *prefix =
		view->topology && !endpoint ? topology_prefix(view->topology, network, address) : NULL;
	const uint8_t *found = endpoint ? endpoint->mac : prefix ? prefix->mac : NULL;

	if (!found || (endpoint && !memcmp(found, none, sizeof(none))))
		return false;
	memcpy(mac, memcmp(found, none, sizeof(none)) ? found : gateway, sizeof(none));
	return true;
}

/* --- tunnel packets of a capture --- */

bool explain_is_tunnel(const struct view *view, const struct explain_place *place, const struct packet_view *packet,
	const struct hd_explain *found)
{
	const struct hd_tunnel *tunnel = view->topology ? &view->topology->tunnel : NULL;

	return tunnel && tunnel->protocol != HD_TUNNEL_NONE && place->direction == HD_INGRESS && !place->port &&
	       found->verdict == HD_ALLOW && found->rule == HD_RULE_TUNNEL && !found->fragment && packet->ports &&
	       packet->protocol == IPPROTO_UDP && packet->destination_port == ntohs(tunnel->port);
}

enum hd_reason explain_unwrap(
	const struct view *view, struct explain_place *place, const uint8_t *frame, size_t length, struct packet_tunnel *ret)
{
	enum hd_reason reason = packet_unwrap(frame, length, view->topology->tunnel.protocol, ret);
	const struct topology_peer *peer = view_peer_at(view, &ret->source);

	place->hook = HD_HOOK_TC_TUNNEL_IN;
	place->peer = peer ? peer->index : 0;
	if (!peer)
		return HD_R_TUNNEL_PEER;
	if (!ret->header || ret->control)
		return reason;
	for (size_t i = 0; i < view->topology->n_vnis; i++)
		if (view->topology->vnis[i].key.vni == ret->vni)
			place->network = view->topology->vnis[i].value.network;
	return place->network ? reason : HD_R_TUNNEL_VNI;
}

void explain_find_receiver(const struct view *view, struct explain_place *place, const struct packet_view *inner)
{
	if (inner->ip)
		place->to = port_with(view, (uint16_t)place->network, &inner->destination);
}
