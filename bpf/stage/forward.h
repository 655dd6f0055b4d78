/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Where a packet from a port or the wire goes: by MAC within its segment of an L2 network, by address where the gateway routes. Sets action, to,
 * routed, the networks at both ends and other_version, and returns 0 or the drop reason.
 */
#ifndef HEDDLE_STAGE_FORWARD_H
#define HEDDLE_STAGE_FORWARD_H

#include "endpoint.h"
#include "scratch.h"

static __always_inline const struct hd_port *forward_to(struct pkt *p, __u32 ifindex, __u32 network)
{
	const struct hd_port *port = port_find(ifindex);

	if (!port || port->network != network || !port_versions(port, p->generation, p->other_version))
		return NULL;
	p->to = ifindex;
	p->destination_network = network;
	p->action = HD_ACT_PORT;
	return port;
}

/*
 * The MAC was learnt behind an uplink: out there, unless it came in there, since what joins two uplinks is not us. What was learnt when the
 * network was on the wire says nothing any more when it is not.
 */
__noinline int forward_wire(struct pkt *p, __u32 ifindex)
{
	const struct hd_port *port = port_find(ifindex);

	if (!p || !port || !(port->flags & HD_PORT_UPLINK) || on_wire(p))
		return HD_R_NO_DESTINATION;
	if (!wire_vlan(p->destination_network))
		return 0;
	p->action = HD_ACT_WIRE;
	p->to = HD_DEVICE_WIRE;
	p->uplink = ifindex;
	p->other_version[0] = p->other_version[1] = 0;
	return 0;
}

/* Behind another host, which is sent what is in a network with a VNI. Never from one host to another: each sends by itself to whom it wants. */
__noinline int forward_peer(struct pkt *p, __u32 index, __u32 network)
{
	const struct hd_network *record = bpf_map_lookup_elem(&networks, &network);

	if (!p || p->peer || !record || !record->vni || !peer_find(index))
		return HD_R_NO_DESTINATION;
	p->action = HD_ACT_PEER;
	p->to = HD_DEVICE_PEER | index;
	p->destination_network = network;
	p->other_version[0] = p->other_version[1] = 0;
	return 0;
}

/* Within the segment, by MAC. *ret: the port, NULL: flood, the wire, or a peer. */
static __always_inline int forward_mac(
	struct pkt *p, const struct hd_control *c, const struct ethhdr *eth, const struct hd_port **ret)
{
	const __u8 *mac = eth->h_dest;
	const struct hd_endpoint *owner;
	struct hd_fdb_key key = {};
	const struct hd_fdb *known;
	const struct hd_port *port;
	__u32 ifindex = 0, peer = 0;
	int r;

	*ret = NULL;
	p->action = HD_ACT_FLOOD;
	if (mac_group(mac))
		return 0;
	if (mac_equal(mac, eth->h_source)) /* whoever sent it is where it came from */
		return HD_R_NO_DESTINATION;
	owner = endpoint_of_mac(mac, p->destination_network);
	p->learnt = !owner;
	if (owner) {
		ifindex = owner->ifindex;
		peer = owner->peer;
	} else {
		fdb_key(&key, p, mac);
		known = bpf_map_lookup_elem(&fdb, &key);
		if (!known || (__s32)(p->now - known->seen) > (__s32)fdb_ticks(c))
			return 0;
		ifindex = known->ifindex;
		peer = known->peer;
	}
	if (peer) {
		r = forward_peer(p, peer, p->destination_network);
		return r && p->learnt && !p->peer ? 0 : r; /* what is learnt of somebody who has gone says nothing */
	}
	/* Back where it came from: whoever is behind that port has it already. */
	if (!ifindex || (ifindex == p->ifindex && !p->peer))
		return HD_R_NO_DESTINATION;
	port = forward_to(p, ifindex, p->destination_network);
	if (!port)
		return owner ? HD_R_NO_DESTINATION : forward_wire(p, ifindex);
	if (!in_segment(port, p->segment))
		return HD_R_NO_DESTINATION;
	*ret = port;
	return 0;
}

/* Frames that are not judged by address: ARP, neighbour discovery, whatever is not IP. */
__noinline int forward_frame(HOOK_CTX *ctx, struct pkt *p)
{
	const struct hd_port *port;
	struct hd_control *c;
	struct ethhdr eth;
	__u32 zero = 0;

	c = bpf_map_lookup_elem(&control, &zero);
	if (!p || !c || hook_load(ctx, 0, &eth, sizeof(eth)))
		return HD_R_NO_DESTINATION;
	if (for_gateway(ctx, p, eth.h_dest)) {
		p->action = HD_ACT_NEXT;
		return p->port_flags & HD_PORT_HOST ? 0 : HD_R_NO_DESTINATION;
	}
	if (!(p->port_flags & HD_PORT_L2))
		return HD_R_NOT_ROUTED;
	return forward_mac(p, c, &eth, &port);
}

static __always_inline bool asks_echo(const struct pkt *p)
{
	if (p->fragment)
		return false;
	return p->family == 4 ? p->protocol == PROTO_ICMP && p->icmp_type == ICMP_ECHO_REQUEST
			      : p->protocol == PROTO_ICMPV6 && p->icmp_type == ICMPV6_ECHO_REQUEST;
}

/* By address. */
static __always_inline int forward_address(struct pkt *p)
{
	const struct hd_endpoint *endpoint;
	const struct hd_route *route = NULL;
	__u32 network = p->destination_network, peer;
	const struct hd_port *port;
	int r;

	p->action = HD_ACT_NEXT;
	p->routed = 1;
	if (address_group(p) || address_local(p))
		return HD_R_NOT_ROUTED;
	endpoint = endpoint_find(&p->destination, network);
	if (endpoint && endpoint->flags & HD_ENDPOINT_GATEWAY && asks_echo(p) && !from_outside(p)) {
		p->action = HD_ACT_ANSWER_ECHO;
		return 0;
	}
	/* The host itself: what answers it, and nothing else (judge_flow()). */
	if (endpoint && endpoint->flags & HD_ENDPOINT_TAKEN && p->peer && !p->segment) {
		p->replies = 1;
		return 0;
	}
	/* Where it goes is told by its flow. */
	if (endpoint && endpoint->flags & HD_ENDPOINT_NODE) {
		p->node = peer_of(p, &p->destination, network);
		endpoint = NULL;
	}
	if (!endpoint && !from_outside(p)) {
		route = address_link_local(&p->destination) ? NULL : route_find(network, &p->destination);
		if (route && route->network) {
			network = route->network;
			endpoint = endpoint_find(&p->destination, network);
			p->network = route->zone;
			p->replies = !!(route->flags & HD_ROUTE_REPLY);
		}
	}
	if (endpoint && endpoint->ifindex) {
		port = forward_to(p, endpoint->ifindex, network);
		/* A routed packet has no tag: it goes to where untagged frames belong. */
		if (!port || (port->flags & HD_PORT_TRUNK && !port->vlan))
			return HD_R_NO_DESTINATION;
		/* Its source has counted what came out of a tunnel. */
		return p->hop_limit > 1 || p->peer ? 0 : HD_R_TTL_EXCEEDED;
	}
	peer = p->node ? 0 : peer_of(p, &p->destination, network);
	if (peer) {
		r = forward_peer(p, peer, network);
		return r || p->hop_limit > 1 ? r : HD_R_TTL_EXCEEDED;
	}
	if (route && route->network)
		return HD_R_NO_DESTINATION;
	if (route)
		p->service = !!(route->flags & HD_ROUTE_SERVICE);
	if (route || (p->port_flags & HD_PORT_HOST && !address_link_local(&p->destination)))
		return 0;
	return HD_R_NO_DESTINATION;
}

/*
 * A frame says twice where it goes. Policy judges by the address, so who has the MAC must have the address too: else a port could reach
 * one that it may not by naming another. A port that learns may have anything behind it.
 */
static __always_inline bool forward_agrees(struct pkt *p, const struct hd_port *port, const __u8 *mac)
{
	const struct hd_endpoint *endpoint = endpoint_find(&p->destination, p->destination_network);
	__u32 owner;

	if (p->action == HD_ACT_PEER) {
		owner = endpoint ? endpoint->peer : peer_of(p, &p->destination, p->destination_network);
		mac_copy(p->peer_mac, mac);
		if (owner)
			return (HD_DEVICE_PEER | owner) == p->to;
		return !endpoint && (p->learnt || address_of_mac(&p->destination, mac));
	}
	if (!port) { /* the wire, or a flood: to a group, or to somebody nobody knows */
		if (p->action == HD_ACT_WIRE && !p->peer)
			mac_copy(p->peer_mac, mac);
		return !endpoint;
	}
	if (endpoint)
		return endpoint->ifindex == p->to;
	return port->flags & HD_PORT_LEARNING || address_of_mac(&p->destination, port->mac);
}

__noinline int forward_packet(HOOK_CTX *ctx, struct pkt *p)
{
	const struct hd_port *port;
	struct hd_control *c;
	struct ethhdr eth;
	__u32 zero = 0;
	int r;

	c = bpf_map_lookup_elem(&control, &zero);
	if (!p || !c || hook_load(ctx, 0, &eth, sizeof(eth)))
		return HD_R_NO_DESTINATION;
	/* The gateway is there for ports; only where nothing is switched it is whom the wire can name. */
	if (on_wire(p) && for_gateway(ctx, p, eth.h_dest) == !!(p->port_flags & HD_PORT_L2))
		return HD_R_NO_DESTINATION;
	if (p->port_flags & HD_PORT_L2 && !for_gateway(ctx, p, eth.h_dest)) {
		r = forward_mac(p, c, &eth, &port);
		if (r)
			return r;
		return forward_agrees(p, port, eth.h_dest) ? 0 : HD_R_NO_DESTINATION;
	}
	return mac_group(eth.h_dest) ? HD_R_NOT_ROUTED : forward_address(p);
}

/*
 * A resolution of p->destination. Answered (action, room->answer) with the MAC of whoever has the address, or the gateway's where the gateway is the
 * way to it; not answered (action HD_ACT_NEXT) where the owner shall speak for itself, as to all who ask on the wire.
 */
__noinline int forward_resolution(struct pkt *p, __u32 action)
{
	static const __u8 gateway[6] = HD_GATEWAY_MAC;
	struct hd_scratch *room = scratch_room();
	const struct hd_endpoint *endpoint;
	const struct hd_port *port = NULL;
	bool l2, own, host;

	if (!p || !room)
		return HD_R_NO_DESTINATION;
	p->action = HD_ACT_NEXT;
	if (from_outside(p))
		return 0;
	endpoint = endpoint_find(&p->destination, p->source_network);
	l2 = p->port_flags & HD_PORT_L2;
	own = endpoint && endpoint->ifindex == p->ifindex;
	host = p->port_flags & HD_PORT_HOST && !address_link_local(&p->destination);
	p->action = action;
	mac_copy(room->answer, gateway);
	if (endpoint && endpoint->flags & HD_ENDPOINT_GATEWAY)
		return 0;
	if (l2) {
		if (endpoint && endpoint->flags & (HD_ENDPOINT_TAKEN | HD_ENDPOINT_NODE) && host)
			return 0;
		if (endpoint && endpoint->peer && mac_given(endpoint->mac)) {
			mac_copy(room->answer, endpoint->mac);
			return 0;
		}
		if (endpoint && endpoint->ifindex && !own)
			port = port_find(endpoint->ifindex);
		if (port && in_segment(port, p->segment) && mac_given(endpoint->mac)) {
			mac_copy(room->answer, endpoint->mac);
			return 0;
		}
		p->action = HD_ACT_NEXT;
		return 0;
	}
	if (!own && ((endpoint && endpoint->ifindex) || host || peer_of(p, &p->destination, p->source_network) ||
			    (!address_link_local(&p->destination) && route_find(p->source_network, &p->destination))))
		return 0;
	return HD_R_NO_DESTINATION;
}

#endif
