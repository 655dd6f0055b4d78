/* SPDX-License-Identifier: Apache-2.0 */
/* Flows that NICs forward to the wire and to peers: what their plans ask, and the kernel's tunnel device by which NICs are told of tunnels. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <arpa/inet.h>

#include <controller_offload.h>
#include <util/port_name.h>

/* --- what the plan asks --- */

static bool world_network(uint16_t network, struct hd_network *ret, void *userdata)
{
	const struct controller *c = userdata;

	for (size_t i = 0; i < c->topology->n_networks; i++)
		if (c->topology->networks[i].index == network) {
			*ret = c->topology->networks[i].record;
			return true;
		}
	return false;
}

static bool take_endpoint(const struct hd_endpoint *endpoint, struct hd_endpoint *ret)
{
	if (endpoint)
		*ret = *endpoint;
	return endpoint != NULL;
}

static bool world_endpoint(uint16_t network, const struct hd_addr *address, struct hd_endpoint *ret, void *userdata)
{
	const struct controller *c = userdata;

	return take_endpoint(topology_endpoint(c->topology, network, address), ret);
}

static bool world_owner(uint16_t network, const uint8_t mac[6], struct hd_endpoint *ret, void *userdata)
{
	const struct controller *c = userdata;

	return take_endpoint(topology_owner(c->topology, network, mac), ret);
}

static bool world_prefix(uint16_t network, const struct hd_addr *address, struct hd_peer_prefix *ret, void *userdata)
{
	const struct controller *c = userdata;
	const struct hd_peer_prefix *prefix = topology_prefix(c->topology, network, address);

	if (prefix)
		*ret = *prefix;
	return prefix != NULL;
}

static bool world_learnt(uint16_t network, const uint8_t mac[6], struct hd_fdb *ret, void *userdata)
{
	struct controller *c = userdata;

	return datapath_learnt(c->datapath, network, mac, ret) == 0;
}

/* A NIC is a switch, and its uplink the port of it that has a name of its own: p0. A bond or a VLAN device is none. */
static uint64_t world_uplink(uint32_t ifindex, void *userdata)
{
	struct controller *c = userdata;
	const struct netdev *device = view_device(&c->view, ifindex);
	struct hd_port record;
	uint32_t generation;

	if (!device || datapath_record(c->datapath, ifindex, &record, &generation) < 0 || !(record.flags & HD_PORT_UPLINK))
		return 0;
	if (offload_mode().software)
		return offload_switch(device);
	return port_name_parse(device->port_name).flavour == PORT_UPLINK ? device->switch_id : 0;
}

static bool world_peer(uint32_t index, struct hd_peer *ret, uint32_t *room, void *userdata)
{
	struct controller *c = userdata;

	if (datapath_peer(c->datapath, index, ret) < 0)
		return false;
	*room = datapath_peer_mtu(c->datapath, index);
	return true;
}

void offload_outside_world(struct offload_world *world)
{
	world->network = world_network;
	world->endpoint = world_endpoint;
	world->owner = world_owner;
	world->prefix = world_prefix;
	world->learnt = world_learnt;
	world->uplink = world_uplink;
	world->peer = world_peer;
}

/* --- the tunnel device --- */

static const char *why_no_device(int r)
{
	if (r == -EBUSY)
		return "somebody else has a device of the name " TUNNEL_NIC_DEVICE;
	if (r == -EOPNOTSUPP)
		return "the kernel has no device of the tunnel's kind";
	return "the device " TUNNEL_NIC_DEVICE " cannot be made";
}

/* In a test there are packets in it: beside our own socket it then needs another port, which rules do not tell. */
static struct tunnel_nic wanted(const struct hd_tunnel *tunnel)
{
	bool software = offload_mode().software;

	return (struct tunnel_nic){.geneve = tunnel->protocol == HD_TUNNEL_GENEVE,
		.port = (uint16_t)(ntohs(tunnel->port) + software),
		.up = software};
}

static void open_device(struct controller *c, const struct tunnel_nic *nic)
{
	bool first = !c->view.offload_tunnel_reason;
	int r = tunnel_nic_open(nic, &c->offload_tunnel);

	c->view.offload_tunnel_reason = r < 0 ? why_no_device(r) : NULL;
	c->offload_tunnel_for = *nic;
	if (r < 0) {
		c->offload_tunnel = 0;
		if (first)
			log_warn(r, "flows to peers stay in software: %s", c->view.offload_tunnel_reason);
	}
}

void offload_outside_follow(struct controller *c, struct offload_world *world)
{
	const struct hd_tunnel *tunnel = &c->topology->tunnel;
	const struct tunnel_nic nic = wanted(tunnel);

	world->tunnel = *tunnel;
	if (tunnel->protocol == HD_TUNNEL_NONE || tunnel->flags & HD_TUNNEL_CHECKSUM) {
		offload_outside_end(c);
	} else if (!c->offload_tunnel || c->offload_tunnel_for.geneve != nic.geneve || c->offload_tunnel_for.port != nic.port ||
		   !tunnel_nic_is_there(c->offload_tunnel)) {
		if (c->offload_tunnel)
			offload_gone(c, c->offload_tunnel);
		open_device(c, &nic);
	}
	world->tunnel_device = c->offload_tunnel;
}

void offload_outside_end(struct controller *c)
{
	int r;

	c->view.offload_tunnel_reason = NULL;
	if (!c->offload_tunnel)
		return;
	offload_gone(c, c->offload_tunnel);
	c->offload_tunnel = 0;
	r = tunnel_nic_remove();
	if (r < 0)
		log_err(r, "cannot remove %s", TUNNEL_NIC_DEVICE);
}
