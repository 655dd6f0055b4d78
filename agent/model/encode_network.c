// SPDX-License-Identifier: Apache-2.0
/* spec of Network, Port and Peer. */
#include <inttypes.h>
#include <stdio.h>

#include <model/kinds.h>
#include <model/write.h>
#include <util/addr.h>

static void addresses(struct buffer *out, const char *name, const struct hd_addr *list, size_t n)
{
	char text[ADDR_TEXT_MAX];

	write_open(out, name, '[');
	for (size_t i = 0; i < n; i++) {
		write_comma(out);
		write_string(out, addr_format(&list[i], text));
	}
	buffer_add_char(out, ']');
}

static void masquerade(struct buffer *out, const struct masquerade *masquerade)
{
	write_open(out, "masquerade", '{');
	write_bool(out, "enabled", masquerade->mode == MASQUERADE_ON);
	write_open(out, "exclude", '[');
	for (size_t i = 0; i < masquerade->n_exclude; i++)
		write_prefix(out, &masquerade->exclude[i]);
	buffer_add_string(out, "]}");
}

void write_network(struct buffer *out, const struct network *network)
{
	if (network->vni)
		write_number(out, "vni", network->vni);
	if (network->vlan)
		write_number(out, "vlan", network->vlan);
	write_text(out, "mode", network->l3 ? "l3" : "l2");
	write_open(out, "subnets", '[');
	for (size_t i = 0; i < network->n_subnets; i++)
		write_prefix(out, &network->subnets[i]);
	buffer_add_char(out, ']');
	addresses(out, "gateway", network->gateways, network->n_gateways);
	write_bool(out, "learning", network->learning);
	write_bool(out, "peerLearning", network->peer_learning);
	write_open(out, "routesTo", '[');
	for (size_t i = 0; i < network->n_routes_to; i++) {
		write_comma(out);
		write_string(out, network->routes_to[i]);
	}
	buffer_add_char(out, ']');
	if (network->mtu)
		write_number(out, "mtu", network->mtu);
	else
		write_text(out, "mtu", "auto");
	if (network->masquerade.mode != MASQUERADE_DEFAULT)
		masquerade(out, &network->masquerade);
	if (!network->services_said)
		return;
	write_open(out, "services", '[');
	for (size_t i = 0; i < network->n_services; i++)
		write_prefix(out, &network->services[i]);
	buffer_add_char(out, ']');
}

static void vlan(struct buffer *out, const struct port *port)
{
	write_open(out, "vlan", '{');
	if (port->vlan_mode != PORT_VLAN_TRUNK) {
		write_text(out, "mode", port->vlan_mode == PORT_VLAN_QINQ ? "qinq" : "access");
		write_number(out, "id", port->vlan_id);
	} else {
		write_text(out, "mode", "trunk");
		write_open(out, "allowed", '[');
		for (size_t i = 0; i < port->n_vlan_allowed; i++) {
			const struct vlan_range *range = &port->vlan_allowed[i];

			write_comma(out);
			if (range->first == range->last)
				buffer_printf(out, "%u", range->first);
			else
				buffer_printf(out, "\"%u-%u\"", range->first, range->last);
		}
		buffer_add_char(out, ']');
		if (port->vlan_native)
			write_number(out, "native", port->vlan_native);
	}
	buffer_add_char(out, '}');
}

static void mac_address(struct buffer *out, const uint8_t mac[6])
{
	char text[MAC_TEXT_MAX];

	write_text(out, "mac", mac_format(mac, text));
}

static void named_ports(struct buffer *out, const struct named_port *list, size_t n)
{
	write_open(out, "ports", '[');
	for (size_t i = 0; i < n; i++) {
		write_item(out, '{');
		write_text(out, "name", list[i].name);
		write_text(out, "protocol", document_protocol_name(list[i].protocol));
		write_number(out, "port", list[i].port);
		buffer_add_char(out, '}');
	}
	buffer_add_char(out, ']');
}

static void vf_values(struct buffer *out, const struct port_vf *vf)
{
	if (vf->has & 1u << PORT_VF_MAC)
		mac_address(out, vf->mac);
	if (vf->has & 1u << PORT_VF_VLAN)
		write_number(out, "vlan", vf->vlan);
	if (vf->has & 1u << PORT_VF_VLAN && vf->qos)
		write_number(out, "qos", vf->qos);
	if (vf->has & 1u << PORT_VF_RATE) {
		write_number(out, "minRate", vf->min_rate);
		write_number(out, "maxRate", vf->max_rate);
	}
	if (vf->has & 1u << PORT_VF_SPOOF_CHECK)
		write_bool(out, "spoofCheck", vf->spoof_check);
	if (vf->has & 1u << PORT_VF_TRUST)
		write_bool(out, "trust", vf->trust);
	if (vf->has & 1u << PORT_VF_LINK_STATE)
		write_text(out, "linkState", port_vf_link_states.names[vf->link_state]);
}

static void host_ports(struct buffer *out, const struct port *port)
{
	char text[ADDR_TEXT_MAX];

	write_open(out, "hostPorts", '[');
	for (size_t i = 0; i < port->n_host_ports; i++) {
		const struct host_port *from = &port->host_ports[i];

		write_item(out, '{');
		write_text(out, "protocol", document_protocol_name(from->protocol));
		write_number(out, "hostPort", from->host_port);
		write_number(out, "port", from->port);
		if (from->has_address)
			write_text(out, "hostAddress", addr_format(&from->address, text));
		buffer_add_char(out, '}');
	}
	buffer_add_char(out, ']');
}

/* In the largest unit that it is a whole number of. */
static void quantity(struct buffer *out, const char *name, uint64_t number)
{
	static const char units[] = {'k', 'M', 'G', 'T'};
	char text[32], unit[2] = "";

	for (size_t i = 0; i < sizeof(units) && number && number % 1000 == 0; i++, number /= 1000)
		unit[0] = units[i];
	snprintf(text, sizeof(text), "%" PRIu64 "%s", number, unit);
	write_text(out, name, text);
}

static void bandwidth(struct buffer *out, const struct port_limit *limit)
{
	static const char *const names[HD_DIRECTIONS] = {[HD_INGRESS] = "ingress", [HD_EGRESS] = "egress"};

	write_open(out, "bandwidth", '{');
	for (int direction = 0; direction < HD_DIRECTIONS; direction++) {
		if (!limit[direction].rate)
			continue;
		write_open(out, names[direction], '{');
		quantity(out, "rate", limit[direction].rate);
		if (limit[direction].burst)
			quantity(out, "burst", limit[direction].burst);
		buffer_add_char(out, '}');
	}
	buffer_add_char(out, '}');
}

void write_port(struct buffer *out, const struct port *port)
{
	if (port->device) {
		write_text(out, "device", port->device);
	} else if (port->pci) {
		write_text(out, "pci", port->pci);
		if (port->vf) {
			write_open(out, "vf", '{');
			vf_values(out, port->vf);
			buffer_add_char(out, '}');
		}
	} else {
		write_open(out, "vf", '{');
		write_text(out, "pf", port->vf_pf);
		write_number(out, "index", port->vf_index);
		if (port->vf)
			vf_values(out, port->vf);
		buffer_add_char(out, '}');
	}
	write_text(out, "network", port->network);
	if (port->has_mac)
		mac_address(out, port->mac);
	addresses(out, "addresses", port->addresses, port->n_addresses);
	if (port->vlan_mode != PORT_VLAN_NONE)
		vlan(out, port);
	if (port->n_ports)
		named_ports(out, port->ports, port->n_ports);
	if (port->n_host_ports)
		host_ports(out, port);
	if (port->limit[HD_INGRESS].rate || port->limit[HD_EGRESS].rate)
		bandwidth(out, port->limit);
}

static void peer_ports(struct buffer *out, const struct tunnel_peer *peer)
{
	write_open(out, "ports", '[');
	for (size_t i = 0; i < peer->n_ports; i++) {
		const struct peer_port *port = &peer->ports[i];

		write_item(out, '{');
		write_text(out, "name", port->name);
		write_text(out, "namespace", port->namespace_);
		write_text(out, "network", port->network);
		if (port->has_mac)
			mac_address(out, port->mac);
		addresses(out, "addresses", port->addresses, port->n_addresses);
		write_labels(out, "labels", port->labels, port->n_labels);
		if (port->n_ports)
			named_ports(out, port->ports, port->n_ports);
		buffer_add_char(out, '}');
	}
	buffer_add_char(out, ']');
}

void write_peer(struct buffer *out, const struct tunnel_peer *peer)
{
	char text[ADDR_TEXT_MAX];

	write_text(out, "address", addr_format(&peer->address, text));
	if (peer->n_host_addresses)
		addresses(out, "hostAddresses", peer->host_addresses, peer->n_host_addresses);
	peer_ports(out, peer);
	write_open(out, "prefixes", '[');
	for (size_t i = 0; i < peer->n_prefixes; i++) {
		const struct peer_prefix *prefix = &peer->prefixes[i];

		write_item(out, '{');
		write_text(out, "network", prefix->network);
		write_text(out, "cidr", addr_format_cidr(&prefix->cidr.addr, prefix->cidr.length, text));
		if (prefix->has_mac)
			mac_address(out, prefix->mac);
		buffer_add_char(out, '}');
	}
	buffer_add_char(out, ']');
}
