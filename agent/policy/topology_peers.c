/* SPDX-License-Identifier: Apache-2.0 */
/* The other hosts: this end of the tunnel, which networks travel in it, and what is behind whom. */
#include <endian.h>

#include <policy/topology_internal.h>
#include <util/addr.h>
#include <util/cleanup.h>

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

static void add_tunnel(struct building *b)
{
	const struct host *host = b->input->host;

	b->tunnel = (struct hd_tunnel){.address = host->tunnel_address,
		.port = htobe16(host->tunnel_port),
		.protocol = host->tunnel_geneve ? HD_TUNNEL_GENEVE : HD_TUNNEL_VXLAN,
		.ttl = host->tunnel_ttl,
		.flags = host->tunnel_checksum == TUNNEL_CHECKSUM_FULL ? HD_TUNNEL_CHECKSUM : 0,
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

/* The stacks of hosts send into it through the tunnel. */
static bool has_nodes(const struct home *home)
{
	return home->host && home->object->network.vni;
}

/* Who is there behind peers, for the host's stack: what two networks have it takes to be in the first one. */
int topology_add_stack(struct building *b)
{
	size_t n = 0;

	for (size_t i = 0; i < b->homes.n && b->input->host->has_tunnel; i++) {
		const struct home *home = &b->homes.data[i];
		const struct network *network = &home->object->network;

		for (size_t j = 0; has_nodes(home) && j < network->n_subnets; j++) {
			struct topology_route route = {.key.length = 16u + network->subnets[j].length,
				.value = {.network = home->index, .zone = home->index}};
			bool there = false;

			memcpy(route.key.addr, network->subnets[j].addr.b, sizeof(route.key.addr));
			for (size_t k = 0; k < n && !there; k++)
				there = compare_prefixes(&route, &b->routes.data[b->routes.n - 1 - k]) == 0;
			if (!there && VEC_PUSH(&b->routes, route) < 0)
				return -ENOMEM;
			n += !there;
		}
	}
	b->n_stack = n;
	return 0;
}

static int add_node(struct building *b, const struct home *home, const struct hd_addr *address, uint32_t peer)
{
	struct topology_endpoint row = {.key = {.addr = *address, .network = home->index, .kind = HD_ENDPOINT_ADDRESS},
		.value = {.flags = HD_ENDPOINT_NODE, .peer = peer}};

	return VEC_PUSH(&b->remote, row);
}

/* The host itself, where networks route to hosts. */
static int add_nodes(struct building *b, const struct tunnel_peer *peer, uint32_t index)
{
	int r = 0;

	for (size_t i = 0; i < b->homes.n && r == 0; i++) {
		if (!has_nodes(&b->homes.data[i]))
			continue;
		r = add_node(b, &b->homes.data[i], &peer->address, index);
		for (size_t j = 0; j < peer->n_host_addresses && r == 0; j++)
			r = add_node(b, &b->homes.data[i], &peer->host_addresses[j], index);
	}
	return r;
}

/* Most of what a peer has is in the network that the one before is in. */
static struct home *next_home(const struct building *b, struct home *last, const char *network)
{
	return last && strcmp(last->object->name, network) == 0 ? last : topology_home(b, network);
}

/* --- what has not changed --- */

static bool is_kept(const struct building *b, uint32_t peer)
{
	return peer < HD_PEERS_MAX && b->kept[peer / 64] & UINT64_C(1) << peer % 64;
}

/* Rows say numbers of networks, and which there are depends on the kind of a network. */
static bool same_networks(const struct building *b, const struct topology *before)
{
	char key[NETWORK_KEY_MAX];

	if (before->n_networks != b->homes.n + 1)
		return false;
	for (size_t i = 0; i < b->homes.n; i++) {
		const struct topology_network *row = &before->networks[i + 1];
		const struct home *home = &b->homes.data[i];

		network_key(home->object->name, key);
		if (row->index != home->index || memcmp(row->record.name, key, sizeof(key)) != 0 ||
			!(row->record.flags & HD_NETWORK_L3) != !home->object->network.l3 ||
			(row->record.flags & HD_NETWORK_HOST && row->record.vni) != has_nodes(home))
			return false;
	}
	return true;
}

static void find_kept(struct building *b)
{
	const struct topology *before = b->input->before;

	if (!before || before->incomplete || !same_networks(b, before))
		return;
	for (size_t i = 0, j = 0; i < b->peers.n; i++) {
		uint32_t index = b->peers.data[i].index;

		while (j < before->n_peers && before->peers[j].index < index)
			j++;
		if (j < before->n_peers && before->peers[j].index == index &&
			object_equal(before->peer_objects[j], b->peer_objects.data[i]))
			b->kept[index / 64] |= UINT64_C(1) << index % 64;
	}
}

/* But for the endpoints, of which there are the most: topology_join_endpoints(). */
static int take_kept(struct building *b)
{
	const struct topology *before = b->input->before;
	int r = 0;

	for (size_t i = 0; before && i < before->n_prefixes && r == 0; i++)
		if (is_kept(b, before->prefixes[i].value.peer))
			r = VEC_PUSH(&b->prefixes, before->prefixes[i]);
	for (size_t i = 0; before && i < before->n_peer_members && r == 0; i++)
		if (is_kept(b, before->peer_members[i].id))
			r = VEC_PUSH(&b->peer_members, before->peer_members[i]);
	return r;
}

/* --- all of them --- */

static int add_peer(struct building *b, struct object *object, uint32_t index)
{
	struct topology_peer row = {.index = index, .address = object->tunnel_peer.address};

	if (!row.index)
		return -ENOENT;
	network_key(object->name, row.name);
	if (VEC_PUSH(&b->peers, row) < 0 || VEC_PUSH(&b->peer_objects, object) < 0)
		return -ENOMEM;
	(void)object_ref(object);
	return VEC_PUSH(&b->peer_addresses, (struct topology_peer_address){.key = row.address, .value = row.index});
}

static int add_owned(struct building *b, const struct tunnel_peer *peer, uint32_t index)
{
	struct home *home = NULL;
	int r = add_nodes(b, peer, index);

	for (size_t i = 0; i < peer->n_ports && r == 0; i++) {
		home = next_home(b, home, peer->ports[i].network);
		r = home ? add_port(b, home, &peer->ports[i], index) : 0;
	}
	for (size_t i = 0; i < peer->n_prefixes && r == 0; i++) {
		home = next_home(b, home, peer->prefixes[i].network);
		r = home ? add_prefix(b, home, &peer->prefixes[i], index) : 0;
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

struct by_index {
	uint32_t index;
	struct object *object;
};

static int compare_by_index(const void *a, const void *b)
{
	const struct by_index *x = a, *y = b;

	return x->index < y->index ? -1 : x->index > y->index;
}

static int add_peers(struct building *b)
{
	const struct object_list *all = b->input->objects;
	VEC(struct by_index) sorted = {0};
	int r = 0;

	for (size_t i = 0; i < all->n && r == 0; i++)
		if (all->items[i]->kind == OBJECT_PEER)
			r = VEC_PUSH(&sorted, (struct by_index){.index = networks_peer(b->input->networks, all->items[i]->name),
						      .object = all->items[i]});
	TOPOLOGY_SORT(&sorted, compare_by_index);
	for (size_t i = 0; i < sorted.n && r == 0; i++)
		r = add_peer(b, sorted.data[i].object, sorted.data[i].index);
	VEC_FREE(&sorted);
	return r;
}

int topology_add_overlay(struct building *b)
{
	int r = 0;

	if (!b->input->host->has_tunnel)
		return 0;
	add_tunnel(b);
	r = add_vnis(b);
	if (r == 0)
		r = add_peers(b);
	if (r == 0)
		find_kept(b);
	for (size_t i = 0; i < b->peers.n && r == 0; i++)
		if (!is_kept(b, b->peers.data[i].index))
			r = add_owned(b, &b->peer_objects.data[i]->tunnel_peer, b->peers.data[i].index);
	if (r == 0)
		r = take_kept(b);
	if (r < 0)
		return r;
	TOPOLOGY_SORT(&b->vnis, compare_vnis);
	TOPOLOGY_SORT(&b->peer_addresses, compare_addresses);
	TOPOLOGY_SORT(&b->prefixes, compare_prefixes);
	TOPOLOGY_SORT(&b->peer_members, topology_compare_members);
	unique_remote(b);
	return 0;
}

bool topology_is_peer(const struct building *b, const struct hd_addr *addr)
{
	if (b->peer_addresses.n && bsearch(addr, b->peer_addresses.data, b->peer_addresses.n,
					   sizeof(struct topology_peer_address), compare_addresses))
		return true;
	for (size_t i = 0; i < b->peer_objects.n; i++) {
		const struct tunnel_peer *peer = &b->peer_objects.data[i]->tunnel_peer;

		for (size_t j = 0; j < peer->n_host_addresses; j++)
			if (memcmp(&peer->host_addresses[j], addr, sizeof(*addr)) == 0)
				return true;
	}
	return false;
}

bool topology_is_remote_mac(const struct building *b, uint16_t network, const uint8_t mac[6])
{
	struct topology_endpoint key = {.key = {.network = network, .kind = HD_ENDPOINT_MAC}}, *found = NULL;
	const struct topology *before = b->input->before;

	memcpy(key.key.addr.b, mac, 6);
	if (b->remote.n && bsearch(&key, b->remote.data, b->remote.n, sizeof(key), topology_compare_endpoints))
		return true;
	if (before && before->n_endpoints)
		found = bsearch(&key, before->endpoints, before->n_endpoints, sizeof(key), topology_compare_endpoints);
	return found && is_kept(b, found->value.peer);
}

/* Two sorted lists as one. Of the second one only what is kept, or all. */
static size_t join(struct building *b, const struct topology_endpoint *first, size_t n_first,
	const struct topology_endpoint *second, size_t n_second, bool all, struct topology_endpoint *to)
{
	size_t n = 0, i = 0;

	for (size_t j = 0; j < n_second; j++) {
		if (!all && !is_kept(b, second[j].value.peer))
			continue;
		while (i < n_first && topology_compare_endpoints(&first[i], &second[j]) < 0)
			to[n++] = first[i++];
		if (i < n_first && topology_compare_endpoints(&first[i], &second[j]) == 0)
			b->incomplete = true;
		else
			to[n++] = second[j];
	}
	while (i < n_first)
		to[n++] = first[i++];
	return n;
}

int topology_join_endpoints(struct building *b)
{
	const struct topology *before = b->input->before;
	size_t n_before = before && b->peers.n ? before->n_endpoints : 0, n = b->endpoints.n + b->remote.n;
	_cleanup_free_ struct topology_endpoint *fresh = calloc(n + 1, sizeof(*fresh));
	struct topology_endpoint *joined = calloc(n + n_before + 1, sizeof(*joined));

	if (!fresh || !joined) {
		free(joined);
		return -ENOMEM;
	}
	TOPOLOGY_SORT(&b->endpoints, topology_compare_endpoints);
	n = join(b, b->endpoints.data, b->endpoints.n, b->remote.data, b->remote.n, true, fresh);
	n = join(b, fresh, n, n_before ? before->endpoints : NULL, n_before, false, joined);
	VEC_FREE(&b->endpoints);
	b->endpoints.data = joined;
	b->endpoints.n = n;
	return 0;
}
