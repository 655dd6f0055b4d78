/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * A port sends only as itself: VLAN, MAC, addresses; the wire as nobody whom a document gives a place here. Whom ARP and neighbour discovery
 * speak for is checked in arp.h and nd.h.
 */
#ifndef HEDDLE_STAGE_SOURCE_H
#define HEDDLE_STAGE_SOURCE_H

#include "endpoint.h"

#define DHCP_SERVER 67
#define DHCP_CLIENT 68

/* The segment of the network that the frame is in. A tag with id 0 says only a priority (IEEE 802.1Q): the frame counts as untagged. */
static __always_inline int source_segment(struct pkt *p)
{
	__u32 tag = p->vlan[0] & 0xfff;

	if (p->port_flags & HD_PORT_TRUNK) {
		if (tag && !trunk_has(p->ifindex, tag))
			return HD_R_SOURCE_VLAN;
		p->segment = tag ? tag : p->vlan_of_port;
		return p->segment ? 0 : HD_R_SOURCE_VLAN;
	}
	p->segment = p->port_flags & HD_PORT_ACCESS ? p->vlan_of_port : 0;
	if (p->port_flags & HD_PORT_QINQ)
		return 0;
	return tag || p->vlan[1] ? HD_R_SOURCE_VLAN : 0;
}

/* Tags that are the sender's own affair mean nothing to the gateway, and nothing beyond the segment. */
static __always_inline int source_tunnel(const struct pkt *p)
{
	if (likely(!(p->port_flags & HD_PORT_QINQ)) || !(p->vlan[0] & 0xfff || p->vlan[1]))
		return 0;
	return p->routed || p->action == HD_ACT_NEXT ? HD_R_SOURCE_VLAN : 0;
}

/*
 * A MAC other than the port's own, behind a port that learns or an uplink. It may move from port to port, but never is one that a document gave to
 * somebody, or the gateway's.
 */
__noinline int source_learn(HOOK_CTX *ctx, struct pkt *p)
{
	const struct hd_endpoint *owner;
	struct hd_fdb_key key = {};
	struct hd_fdb value = {};
	struct hd_peer *before;
	struct hd_fdb *known;
	struct ethhdr eth;

	if (!p || hook_load(ctx, 0, &eth, sizeof(eth)))
		return HD_R_SOURCE_MAC;
	if (mac_group(eth.h_source) || mac_gateway(eth.h_source))
		return HD_R_SOURCE_MAC;
	value.ifindex = p->peer ? 0 : p->ifindex;
	value.peer = p->peer;
	value.seen = p->now;
	owner = endpoint_of_mac(eth.h_source, p->destination_network);
	if (owner)
		return owner->ifindex == value.ifindex && owner->peer == value.peer ? 0 : HD_R_SOURCE_MAC;
	if (dry_run || !(p->port_flags & HD_PORT_L2))
		return 0;
	fdb_key(&key, p, eth.h_source);
	known = bpf_map_lookup_elem(&fdb, &key);
	if (known && known->ifindex == value.ifindex && known->peer == value.peer) {
		known->seen = p->now;
		return 0;
	}
	/* Flows to where it was go by what they know of it: they look again. */
	before = known && known->peer ? peer_find(known->peer) : NULL;
	if (before)
		before->moved = p->now ? p->now : 1;
	bpf_map_update_elem(&fdb, &key, &value, BPF_ANY);
	return 0;
}

/*
 * The MAC of a frame that came out of a tunnel. The gateway's is on what was routed at its source; where nothing is switched MACs mean nothing. Without
 * learning it has to be by a document the peer's, as that of an endpoint or as where a prefix is reached.
 */
__noinline int source_behind(HOOK_CTX *ctx, struct pkt *p)
{
	const struct hd_peer_prefix *prefix;
	const struct hd_endpoint *owner;
	struct ethhdr eth;

	if (!p || hook_load(ctx, 0, &eth, sizeof(eth)))
		return HD_R_SOURCE_MAC;
	if (!(p->port_flags & HD_PORT_L2) || (mac_gateway(eth.h_source) && p->family))
		return 0;
	if (p->port_flags & HD_PORT_LEARNING)
		return source_learn(ctx, p);
	owner = endpoint_of_mac(eth.h_source, p->destination_network);
	if (owner)
		return owner->peer == p->peer ? 0 : HD_R_SOURCE_MAC;
	prefix = p->family ? peer_prefix_find(p->destination_network, &p->source) : NULL;
	return prefix && prefix->peer == p->peer && mac_equal(prefix->mac, eth.h_source) ? 0 : HD_R_SOURCE_MAC;
}

static __always_inline int source_mac(HOOK_CTX *ctx, struct pkt *p, const struct ethhdr *eth)
{
	if (likely(mac_equal(eth->h_source, p->mac)))
		return 0;
	if ((p->port_flags & (HD_PORT_L2 | HD_PORT_LEARNING)) != (HD_PORT_L2 | HD_PORT_LEARNING))
		return HD_R_SOURCE_MAC;
	return source_learn(ctx, p);
}

/* Who asks for an address has none yet (RFC 2131 section 4.1). */
static __always_inline bool source_dhcp(const struct pkt *p)
{
	return p->family == 4 && p->protocol == PROTO_UDP && p->fragment != FRAGMENT_LATER && !p->source.w[3] &&
	       p->destination.w[3] == 0xffffffff && p->sport == bpf_htons(DHCP_CLIENT) && p->dport == bpf_htons(DHCP_SERVER);
}

/*
 * A packet that was routed at its source, out of another network in which the peer has that address. It is judged as one that goes from there to
 * here, and has to be in the network that the way leads to.
 */
__noinline int source_routed(struct pkt *p)
{
	const struct hd_route *route;
	__u32 network;

	if (!p)
		return 0;
	route = route_find(p->destination_network, &p->source);
	network = route ? route->network : 0;
	if (!network || peer_of(p, &p->source, network) != p->peer || !address_of_host(&p->source))
		return 0;
	route = route_find(network, &p->destination);
	if (!route || route->network != p->destination_network)
		return 0;
	p->source_network = network;
	p->network = route->zone;
	p->replies = !!(route->flags & HD_ROUTE_REPLY);
	return 1;
}

static __always_inline bool source_of_peer(struct pkt *p, const __u8 *mac)
{
	bool routed = !(p->port_flags & HD_PORT_L2) || mac_gateway(mac);

	if (!address_owned(p, &p->source, mac))
		return (routed && source_routed(p)) || source_dhcp(p);
	if (!routed)
		mac_copy(p->peer_mac, mac);
	return true;
}

/* mac: the frame's source, checked already. */
static __always_inline int source_address(struct pkt *p, const __u8 *mac)
{
	if (p->peer ? source_of_peer(p, mac) : address_owned(p, &p->source, mac) || source_dhcp(p))
		return 0;
	return p->family == 4 ? HD_R_SOURCE_IP4 : HD_R_SOURCE_IP6;
}

#endif
