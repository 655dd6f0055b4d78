/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Who has an address, a MAC or a VLAN: lookups, and nothing decided. */
#ifndef HEDDLE_STAGE_ENDPOINT_H
#define HEDDLE_STAGE_ENDPOINT_H

#include "mac.h"
#include "packet.h"
#include "peer.h"
#include "port.h"

#include <maps/network.bpf.h>

/* --- MACs --- */

/* The frame is for the gateway: by its MAC, or by that of the port's device on the host's side. Out of a tunnel, the latter was the outer one. */
static __always_inline bool for_gateway(HOOK_CTX *ctx, const struct pkt *p, const void *destination)
{
	return (ctx->pkt_type == FRAME_FOR_HOST && !p->peer) || mac_gateway(destination);
}

/* --- addresses --- */

static __always_inline bool address_none(const struct hd_addr *a)
{
	return !a->q[0] && (!a->q[1] || (a->w[2] == bpf_htonl(0xffff) && !a->w[3]));
}

static __always_inline bool address_link_local(const struct hd_addr *a)
{
	return (a->w[0] & bpf_htonl(0xffc00000)) == bpf_htonl(0xfe800000);
}

/* fe80::/64 and the interface identifier that this MAC gives (RFC 4291 appendix A). */
static __always_inline bool address_of_mac(const struct hd_addr *a, const __u8 *mac)
{
	return a->w[0] == bpf_htonl(0xfe800000) && !a->w[1] && a->b[8] == (mac[0] ^ 2) && a->b[9] == mac[1] &&
	       a->b[10] == mac[2] && a->b[11] == 0xff && a->b[12] == 0xfe && a->b[13] == mac[3] && a->b[14] == mac[4] &&
	       a->b[15] == mac[5];
}

/* Multicast, limited broadcast, reserved. */
static __always_inline bool address_group(const struct pkt *p)
{
	return p->family == 4 ? bpf_ntohl(p->destination.w[3]) >= 0xe0000000 : p->destination.b[0] == 0xff;
}

/* No router takes them. */
static __always_inline bool address_local(const struct pkt *p)
{
	__u32 first;

	if (p->family == 4) {
		first = bpf_ntohl(p->destination.w[3]) >> 24;
		return !first || first == 127;
	}
	return !p->destination.q[0] && p->destination.q[1] <= bpf_cpu_to_be64(1) && !p->destination.w[2];
}

static __always_inline struct hd_endpoint *endpoint_find(const struct hd_addr *address, __u32 network)
{
	struct hd_endpoint_key key = {.addr = *address, .network = network, .kind = HD_ENDPOINT_ADDRESS};

	return bpf_map_lookup_elem(&endpoints, &key);
}

static __always_inline struct hd_endpoint *endpoint_of_mac(const void *mac, __u32 network)
{
	struct hd_endpoint_key key = {.network = network, .kind = HD_ENDPOINT_MAC};

	mac_copy(key.addr.b, mac);
	return bpf_map_lookup_elem(&endpoints, &key);
}

/* The packet came in by an uplink, with the network's tag. */
static __always_inline bool on_wire(const struct pkt *p)
{
	return p->port_flags & HD_PORT_UPLINK;
}

/* From no port: nobody here asks whether it may be sent, and no gateway is there for it. */
static __always_inline bool from_outside(const struct pkt *p)
{
	return on_wire(p) || p->peer;
}

/* The network's tag on the uplinks; 0: it is not there. */
static __always_inline __u32 wire_vlan(__u32 network)
{
	const struct hd_network *record = bpf_map_lookup_elem(&networks, &network);

	return record ? record->vlan : 0;
}

/* The link-local address of a port's MAC, or of the gateway's: theirs, though no document says so. */
static __always_inline bool link_local_given(const struct hd_addr *address, __u32 network)
{
	__u16 mac[3];
	__u8 *b = (__u8 *)mac;

	b[0] = address->b[8] ^ 2;
	b[1] = address->b[9];
	b[2] = address->b[10];
	b[3] = address->b[13];
	b[4] = address->b[14];
	b[5] = address->b[15];
	return address_of_mac(address, b) && (mac_gateway(mac) || endpoint_of_mac(mac, network));
}

static __always_inline const struct hd_route *route_find(__u32 network, const struct hd_addr *address)
{
	struct hd_route_key key = {.length = 8 * (sizeof(key.network) + sizeof(key.addr)), .network = bpf_htons(network)};

	__builtin_memcpy(key.addr, address, sizeof(key.addr));
	return bpf_map_lookup_elem(&routes, &key);
}

/* The longest prefix that a peer has, around the address. */
static __always_inline const struct hd_peer_prefix *peer_prefix_find(__u32 network, const struct hd_addr *address)
{
	struct hd_route_key key = {.length = 8 * (sizeof(key.network) + sizeof(key.addr)), .network = bpf_htons(network)};

	__builtin_memcpy(key.addr, address, sizeof(key.addr));
	return bpf_map_lookup_elem(&peer_prefixes, &key);
}

static __always_inline bool network_travels(__u32 network)
{
	const struct hd_network *record = bpf_map_lookup_elem(&networks, &network);

	return record && record->vni;
}

/* A host can have it, and send from it: not unspecified, loopback, of a group or reserved (RFC 1122 section 3.2.1.3, RFC 4291 section 2.5). */
static __always_inline bool address_of_host(const struct hd_addr *address)
{
	__u32 first;

	if (address_is4(address)) {
		first = bpf_ntohl(address->w[3]) >> 24;
		return first && first != 127 && first < 224;
	}
	return address->b[0] != 0xff && (address->q[0] || address->q[1] > bpf_cpu_to_be64(1) || address->w[2]);
}

/* What somebody behind an uplink may have: any address that a host can have, unless it is given to somebody here or to a peer. */
__noinline int address_foreign(struct pkt *p, struct hd_addr *address)
{
	if (!p || !address || endpoint_find(address, p->source_network))
		return 0;
	if (network_travels(p->source_network) && peer_prefix_find(p->source_network, address))
		return 0;
	if (!address_of_host(address))
		return 0;
	return address_is4(address) || !link_local_given(address, p->source_network);
}

/*
 * The peer that a document gives the address in the network to, as an endpoint or in a prefix; 0: none. Where there is one, p->peer_mac is where frames
 * for it go.
 */
__noinline int peer_of(struct pkt *p, struct hd_addr *address, __u32 network)
{
	static const __u8 gateway[6] = HD_GATEWAY_MAC;
	const struct hd_peer_prefix *prefix;
	const struct hd_endpoint *endpoint;
	const __u8 *mac;
	__u32 index;

	if (!p || !address)
		return 0;
	endpoint = endpoint_find(address, network);
	if (endpoint) {
		index = endpoint->peer;
		mac = endpoint->mac;
	} else {
		prefix = address_link_local(address) ? NULL : peer_prefix_find(network, address);
		if (!prefix)
			return 0;
		index = prefix->peer;
		mac = prefix->mac;
	}
	if (!index)
		return 0;
	if (mac_given(mac))
		mac_copy(p->peer_mac, mac);
	else
		mac_copy(p->peer_mac, gateway);
	return index;
}

/* What the peer that the frame came from has, be its prefix ever so wide; as for ports, a link-local address belongs to its MAC. */
static __always_inline bool address_of_peer(struct pkt *p, struct hd_addr *address, const __u8 *mac)
{
	__u32 owner = peer_of(p, address, p->source_network);

	if (owner || !address_of_mac(address, mac))
		return owner == p->peer && address_of_host(address);
	return !endpoint_find(address, p->source_network);
}

/*
 * The address is the sender's own. A link-local one that nobody was given belongs to whom it names: it is made of the MAC. Any other would
 * be a claim of who comes first.
 */
static __always_inline bool address_owned(struct pkt *p, struct hd_addr *address, const __u8 *mac)
{
	const struct hd_endpoint *endpoint;

	if (on_wire(p))
		return address_foreign(p, address);
	if (p->peer)
		return address_of_peer(p, address, mac);
	endpoint = endpoint_find(address, p->source_network);
	return endpoint ? endpoint->ifindex == p->ifindex : address_of_mac(address, mac);
}

/* --- VLANs within a network --- */

static __always_inline bool trunk_has(__u32 ifindex, __u32 vlan)
{
	struct hd_vlan_key key = {.ifindex = ifindex, .vlan = vlan};

	return bpf_map_lookup_elem(&port_vlans, &key);
}

static __always_inline bool in_segment(const struct hd_port *port, __u32 segment)
{
	if (port->flags & HD_PORT_TRUNK)
		return segment && (port->vlan == segment || trunk_has(port->ifindex, segment));
	return segment == (port->flags & HD_PORT_ACCESS ? port->vlan : 0);
}

/* --- what was learnt --- */

/* hd_control has 30 s in ticks; nothing here knows how long a tick is. */
static __always_inline __u32 fdb_ticks(const struct hd_control *c)
{
	static_assert(HD_FDB_SECONDS % HD_FRAGMENT_SECONDS == 0, "written so");
	return c->fragment_timeout * (HD_FDB_SECONDS / HD_FRAGMENT_SECONDS);
}

static __always_inline void fdb_key(struct hd_fdb_key *key, const struct pkt *p, const void *mac)
{
	mac_copy(key->mac, mac);
	key->network = p->destination_network;
	key->vlan = p->segment;
}

#endif
