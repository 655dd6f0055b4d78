/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Flows between a port and somebody who is on the wire, by the VLAN of the network, or behind a peer. What the programs ask of each of their packets and
 * a rule cannot is asked here: whose the other end's address and MAC are, where they were learnt, what fits.
 */
#include <string.h>
#include <arpa/inet.h>

#include <heddle/network.h>
#include <heddle/overlay.h>
#include <offload/plan_internal.h>

static const uint8_t gateway[6] = HD_GATEWAY_MAC;

/* The two ends, and what is found out about them on the way. */
struct outside {
	const struct datapath_flow *flow;
	const struct offload_world *world;
	struct offload_port port;
	enum hd_flow_side side; /* of the port */
	uint32_t device;	/* the other end, */
	struct hd_addr address; /* and its address */
	struct hd_network network;
	bool routed; /* by this host, as the port sends it; by the other one, as it comes */
	uint8_t port_mac[6];
	struct offload_rule *out, *in; /* as the port sees it */
};

static bool is_wire(const struct outside *o)
{
	return o->device == HD_DEVICE_WIRE;
}

/* Of the port alone: what comes from outside has been judged by its host, or by nobody. As between.h has it. */
static bool is_current(const struct outside *o)
{
	const struct hd_port *record = &o->port.record;
	const struct hd_port_policy *policy = &record->policy[hd_port_policy_at(record, o->port.generation)];
	const struct hd_flow *flow = &o->flow->flow;

	return flow->version == policy->version[o->side == HD_ORIG ? HD_EGRESS : HD_INGRESS] && !flow->second_version;
}

static enum offload_reason plan_port(const struct outside *o)
{
	const struct hd_port *port = &o->port.record;

	if (o->flow->flow.flags & HD_FLOW_TURNED)
		return OFFLOAD_HOST;
	if (o->flow->network != port->network)
		return OFFLOAD_BETWEEN;
	/* In a segment there is a tag more, on the wire or in the tunnel. */
	if (port->flags & (HD_PORT_TRUNK | HD_PORT_QINQ | HD_PORT_ACCESS) || port->vlan)
		return OFFLOAD_SEGMENT;
	if (port->flags & (HD_PORT_LIMIT_IN | HD_PORT_LIMIT_OUT))
		return OFFLOAD_RATE;
	return !is_current(o) || hd_moved_since(port->moved, o->flow->flow.last_seen) ? OFFLOAD_STALE : OFFLOAD_NONE;
}

/* A MAC that somebody can have. */
static bool is_station(const uint8_t mac[6])
{
	static const uint8_t none[6];

	return !(mac[0] & 1) && memcmp(mac, none, sizeof(none)) != 0 && memcmp(mac, gateway, sizeof(gateway)) != 0;
}

/* --- on the wire --- */

static enum offload_reason plan_wire(struct outside *o)
{
	const uint8_t *mac = o->flow->flow.peer_mac;
	const struct offload_world *world = o->world;
	uint16_t network = o->flow->network;
	struct hd_peer_prefix prefix;
	struct hd_endpoint endpoint;
	struct hd_fdb known;

	if (!o->network.vlan)
		return OFFLOAD_STALE;
	/* Where nothing is switched nothing goes out there. */
	if (!(o->port.record.flags & HD_PORT_L2) || !is_station(mac))
		return OFFLOAD_WIRE;
	if (world->endpoint(network, &o->address, &endpoint, world->userdata) ||
		world->owner(network, mac, &endpoint, world->userdata) ||
		(o->network.vni && world->prefix(network, &o->address, &prefix, world->userdata)))
		return OFFLOAD_STALE;
	if (!world->learnt(network, mac, &known, world->userdata) || known.peer || !known.ifindex)
		return OFFLOAD_WIRE;
	if (world->uplink(known.ifindex, world->userdata) != o->port.switch_id)
		return OFFLOAD_SWITCH;
	o->out->out = o->in->in = known.ifindex;
	o->out->outside = OFFLOAD_TAG;
	o->in->outside = OFFLOAD_UNTAG;
	o->out->vlan = o->in->vlan = o->network.vlan;
	return OFFLOAD_NONE;
}

/* --- behind a peer --- */

/* That the address is the peer's by a document. One that is made of a MAC is left to the programs. */
static enum offload_reason plan_owner(const struct outside *o, uint32_t peer, struct hd_peer_prefix *prefix)
{
	const struct offload_world *world = o->world;
	uint16_t network = o->flow->network;
	struct hd_endpoint endpoint;

	if (world->endpoint(network, &o->address, &endpoint, world->userdata)) {
		if (endpoint.flags & HD_ENDPOINT_NODE)
			return OFFLOAD_HOST;
		return endpoint.peer == peer ? OFFLOAD_NONE : OFFLOAD_STALE;
	}
	return world->prefix(network, &o->address, prefix, world->userdata) && prefix->peer == peer ? OFFLOAD_NONE
												    : OFFLOAD_STALE;
}

/* Of what is switched: the MAC is the peer's by a document, or learnt there. */
static enum offload_reason plan_behind(const struct outside *o, uint32_t peer, const struct hd_peer_prefix *prefix)
{
	const uint8_t *mac = o->flow->flow.peer_mac;
	const struct offload_world *world = o->world;
	uint16_t network = o->flow->network;
	struct hd_endpoint endpoint;
	struct hd_fdb known;

	if (!is_station(mac))
		return OFFLOAD_WIRE;
	if (world->owner(network, mac, &endpoint, world->userdata))
		return endpoint.peer == peer ? OFFLOAD_NONE : OFFLOAD_STALE;
	if (prefix->peer == peer && memcmp(prefix->mac, mac, sizeof(prefix->mac)) == 0)
		return OFFLOAD_NONE;
	return world->learnt(network, mac, &known, world->userdata) && known.peer == peer ? OFFLOAD_NONE : OFFLOAD_WIRE;
}

/* A rule cannot ask for the size of a packet. What is too big for the tunnel is answered whether or not it is routed. */
static bool fits(const struct outside *o, uint32_t room)
{
	uint32_t mtu = o->port.record.mtu;

	if (!mtu || !room || mtu > room)
		return false;
	return o->port.record.flags & HD_PORT_L2 || room <= mtu;
}

static void put_tunnel(struct outside *o, const struct hd_peer *peer, uint32_t uplink)
{
	const struct hd_tunnel *own = &o->world->tunnel;
	const struct offload_tunnel tunnel = {.local = own->address,
		.remote = peer->address,
		.vni = o->network.vni,
		.uplink = uplink,
		.port = own->port,
		.ttl = own->ttl};

	o->out->tunnel = o->in->tunnel = tunnel;
	o->out->out = o->in->in = o->world->tunnel_device;
	o->out->outside = OFFLOAD_ENCAP;
	o->in->outside = OFFLOAD_DECAP;
}

static enum offload_reason plan_peer(struct outside *o)
{
	const struct offload_world *world = o->world;
	uint32_t index = o->device & ~HD_DEVICE_PEER, room;
	struct hd_peer_prefix prefix = {0};
	const struct hd_way *way;
	enum offload_reason reason;
	struct hd_peer peer;

	if (!index)
		return OFFLOAD_WIRE; /* nobody has answered by a tunnel or the wire */
	if (world->tunnel.flags & HD_TUNNEL_CHECKSUM)
		return OFFLOAD_CHECKSUM;
	if (!world->tunnel_device)
		return OFFLOAD_TUNNEL;
	if (!o->network.vni || !world->peer(index, &peer, &room, world->userdata) ||
		hd_moved_since(peer.moved, o->flow->flow.last_seen))
		return OFFLOAD_STALE;
	reason = plan_owner(o, index, &prefix);
	if (reason == OFFLOAD_NONE && !o->routed)
		reason = plan_behind(o, index, &prefix);
	if (reason != OFFLOAD_NONE)
		return reason;
	if (HD_PEER_WAYS_COUNT(peer.ways) != 1)
		return OFFLOAD_WAYS;
	way = peer.way[HD_PEER_WAYS_SET(peer.ways)];
	if (world->uplink(way->ifindex, world->userdata) != o->port.switch_id)
		return OFFLOAD_SWITCH;
	if (!fits(o, room))
		return OFFLOAD_MTU;
	put_tunnel(o, &peer, way->ifindex);
	return OFFLOAD_NONE;
}

/* --- both --- */

/*
 * Switched: as they are. Routed by this host: away, from the gateway to the MAC that the flow knows. What comes was routed by its own host, and has lost
 * of its TTL there; where nothing is switched its MACs mean nothing, and become those that the workload knows.
 */
static void put_macs(const struct outside *o)
{
	bool l3 = !(o->port.record.flags & HD_PORT_L2);
	const uint8_t *mac = o->flow->flow.peer_mac;
	struct offload_rule *out = o->out, *in = o->in;

	memcpy(out->source_mac, o->port_mac, sizeof(out->source_mac));
	memcpy(out->destination_mac, o->routed ? gateway : mac, sizeof(out->destination_mac));
	out->routed = o->routed;
	if (o->routed) {
		memcpy(out->new_source_mac, gateway, sizeof(out->new_source_mac));
		memcpy(out->new_destination_mac, mac, sizeof(out->new_destination_mac));
	}
	if (l3) {
		in->readdressed = true;
		memcpy(in->new_source_mac, gateway, sizeof(in->new_source_mac));
		memcpy(in->new_destination_mac, o->port_mac, sizeof(in->new_destination_mac));
		return;
	}
	memcpy(in->source_mac, o->routed ? gateway : mac, sizeof(in->source_mac));
	memcpy(in->destination_mac, o->port_mac, sizeof(in->destination_mac));
}

enum offload_reason plan_outside(
	const struct datapath_flow *flow, const struct offload_world *world, struct offload_rule rules[2])
{
	struct outside o = {.flow = flow, .world = world};
	enum offload_reason reason;

	o.side = flow->flow.device[HD_ORIG] & HD_DEVICE_PEER ? HD_REPLY : HD_ORIG;
	o.device = flow->flow.device[!o.side];
	reason = plan_end(flow->flow.device[o.side], world, &o.port);
	if (reason == OFFLOAD_NONE)
		reason = plan_state(flow, world);
	if (reason == OFFLOAD_NONE)
		reason = plan_port(&o);
	if (reason != OFFLOAD_NONE)
		return reason;
	if (!world->network(flow->network, &o.network, world->userdata))
		return OFFLOAD_STALE;
	plan_addresses(flow, HD_ORIG, &rules[HD_ORIG]);
	plan_addresses(flow, HD_REPLY, &rules[HD_REPLY]);
	o.out = &rules[o.side];
	o.in = &rules[!o.side];
	o.out->in = o.in->out = o.port.record.ifindex;
	o.address = o.out->destination;
	o.routed = !is_wire(&o) && (!(o.port.record.flags & HD_PORT_L2) ||
					   !world->neighbours(flow->network, &flow->source, &flow->destination, world->userdata));
	offload_mac(&o.port.record, &o.out->source, world, o.port_mac);
	reason = is_wire(&o) ? plan_wire(&o) : plan_peer(&o);
	if (reason == OFFLOAD_NONE)
		put_macs(&o);
	return reason;
}
