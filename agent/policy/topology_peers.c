/* SPDX-License-Identifier: Apache-2.0 */
/* The other hosts: this end of the tunnel, which networks travel in it, and what is behind whom. */
#include <endian.h>

#include <policy/topology_internal.h>
#include <util/addr.h>

/* RFC 7348 and RFC 8926 without options: inner Ethernet, tunnel header, UDP, and the outer header of each family. */
#define OVERHEAD_IPV4 50
#define OVERHEAD_IPV6 70

static int compare_vnis(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct hd_vni_key));
}

static int compare_addresses(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct hd_addr));
}

static int compare_prefixes(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct hd_route_key));
}

static int compare_peers(const void *a, const void *b)
{
	const struct topology_peer *x = a, *y = b;

	return x->index < y->index ? -1 : x->index > y->index;
}

static void add_tunnel(struct building *b)
{
	const struct host *host = b->input->host;

	b->tunnel = (struct hd_tunnel){.address = host->tunnel_address,
		.port = htobe16(host->tunnel_port),
		.protocol = host->tunnel_geneve ? HD_TUNNEL_GENEVE : HD_TUNNEL_VXLAN,
		.ttl = host->tunnel_ttl,
		.overhead = addr_is_ipv4(&host->tunnel_address) ? OVERHEAD_IPV4 : OVERHEAD_IPV6};
}

static int add_vnis(struct building *b)
{
	for (size_t i = 0; i < b->homes.n; i++) {
		const struct home *home = &b->homes.data[i];

		if (home->object->network.vni && VEC_PUSH(&b->vnis, (struct topology_vni){.key.vni = home->object->network.vni,
									    .value.network = home->index}) < 0)
			return -ENOMEM;
	}
	return 0;
}

/* Frames for everybody in a network go to the peers that own something in it. */
static int add_member(struct building *b, struct home *home, uint32_t peer)
{
	if (home->object->network.l3 || home->peer == peer)
		return 0;
	home->peer = peer;
	return VEC_PUSH(&b->peer_members, (struct topology_member){.network = home->index, .id = peer});
}

static int add_endpoint(struct building *b, const struct home *home, const struct hd_addr *addr, enum hd_endpoint_kind kind,
	const struct peer_port *port, uint32_t peer)
{
	struct topology_endpoint row = {.key = {.addr = *addr, .network = home->index, .kind = kind}, .value = {.peer = peer}};

	if (port->has_mac)
		memcpy(row.value.mac, port->mac, sizeof(row.value.mac));
	return VEC_PUSH(&b->remote, row);
}

static int add_port(struct building *b, struct home *home, const struct peer_port *port, uint32_t peer)
{
	struct hd_addr by_mac = {0};
	int r = add_member(b, home, peer);

	for (size_t i = 0; i < port->n_addresses && r == 0; i++)
		r = add_endpoint(b, home, &port->addresses[i], HD_ENDPOINT_ADDRESS, port, peer);
	if (r < 0 || home->object->network.l3 || !port->has_mac)
		return r;
	memcpy(by_mac.b, port->mac, sizeof(port->mac));
	return add_endpoint(b, home, &by_mac, HD_ENDPOINT_MAC, port, peer);
}

static int add_prefix(struct building *b, struct home *home, const struct peer_prefix *prefix, uint32_t peer)
{
	struct topology_peer_prefix row = {
		.key = {.length = 16u + prefix->cidr.length, .network = htobe16(home->index)}, .value = {.peer = peer}};
	int r = add_member(b, home, peer);

	if (r < 0)
		return r;
	memcpy(row.key.addr, prefix->cidr.addr.b, sizeof(row.key.addr));
	if (prefix->has_mac)
		memcpy(row.value.mac, prefix->mac, sizeof(row.value.mac));
	return VEC_PUSH(&b->prefixes, row);
}

/* Most of what a peer has is in the network that the one before is in. */
static struct home *next_home(const struct building *b, struct home *last, const char *network)
{
	return last && strcmp(last->object->name, network) == 0 ? last : topology_home(b, network);
}

static int add_peer(struct building *b, const struct object *object)
{
	const struct tunnel_peer *peer = &object->tunnel_peer;
	struct topology_peer row = {.index = networks_peer(b->input->networks, object->name), .address = peer->address};
	struct topology_peer_address address = {.key = peer->address, .value = row.index};
	struct home *home = NULL;
	int r = row.index ? 0 : -ENOENT;

	network_key(object->name, row.name);
	if (r == 0)
		r = VEC_PUSH(&b->peers, row);
	if (r == 0)
		r = VEC_PUSH(&b->peer_addresses, address);
	for (size_t i = 0; i < peer->n_ports && r == 0; i++) {
		home = next_home(b, home, peer->ports[i].network);
		r = home ? add_port(b, home, &peer->ports[i], row.index) : 0;
	}
	for (size_t i = 0; i < peer->n_prefixes && r == 0; i++) {
		home = next_home(b, home, peer->prefixes[i].network);
		r = home ? add_prefix(b, home, &peer->prefixes[i], row.index) : 0;
	}
	return r;
}

/* Validation leaves no two of a key; if there were, the maps would never have what is wanted. */
static void unique_remote(struct building *b)
{
	size_t n = 0;

	TOPOLOGY_SORT(&b->remote, topology_compare_endpoints);
	for (size_t i = 0; i < b->remote.n; i++)
		if (n == 0 || topology_compare_endpoints(&b->remote.data[n - 1], &b->remote.data[i]) != 0)
			b->remote.data[n++] = b->remote.data[i];
	b->remote.n = n;
}

int topology_add_overlay(struct building *b)
{
	const struct object_list *all = b->input->objects;
	int r = 0;

	if (!b->input->host->has_tunnel)
		return 0;
	add_tunnel(b);
	r = add_vnis(b);
	for (size_t i = 0; i < all->n && r == 0; i++)
		if (all->items[i]->kind == OBJECT_PEER)
			r = add_peer(b, all->items[i]);
	if (r < 0)
		return r;
	TOPOLOGY_SORT(&b->vnis, compare_vnis);
	TOPOLOGY_SORT(&b->peers, compare_peers);
	TOPOLOGY_SORT(&b->peer_addresses, compare_addresses);
	TOPOLOGY_SORT(&b->prefixes, compare_prefixes);
	TOPOLOGY_SORT(&b->peer_members, topology_compare_members);
	unique_remote(b);
	return 0;
}

bool topology_is_remote_mac(const struct building *b, uint16_t network, const uint8_t mac[6])
{
	struct topology_endpoint key = {.key = {.network = network, .kind = HD_ENDPOINT_MAC}};

	memcpy(key.key.addr.b, mac, 6);
	return b->remote.n && bsearch(&key, b->remote.data, b->remote.n, sizeof(key), topology_compare_endpoints);
}

int topology_join_endpoints(struct building *b)
{
	size_t n_local = b->endpoints.n, n_remote = b->remote.n, n = 0;
	struct topology_endpoint *joined;

	TOPOLOGY_SORT(&b->endpoints, topology_compare_endpoints);
	if (!n_remote)
		return 0;
	joined = calloc(n_local + n_remote, sizeof(*joined));
	if (!joined)
		return -ENOMEM;
	for (size_t i = 0, j = 0; i < n_local || j < n_remote;) {
		const struct topology_endpoint *local = i < n_local ? &b->endpoints.data[i] : NULL;
		const struct topology_endpoint *remote = j < n_remote ? &b->remote.data[j] : NULL;
		int c = !local ? 1 : !remote ? -1 : topology_compare_endpoints(local, remote);

		joined[n++] = c <= 0 ? *local : *remote;
		i += c <= 0;
		j += c >= 0;
	}
	VEC_FREE(&b->endpoints);
	b->endpoints.data = joined;
	b->endpoints.n = n;
	return 0;
}
