// SPDX-License-Identifier: Apache-2.0
/* Peers: reached from a tunnel that there is, each at an address of its own, with prefixes that no other has. (Their ports: validate_workload.c.) */
#include <model/validate.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <heddle/overlay.h>
#include <util/addr.h>
#include <util/cleanup.h>

#define PEERS_MOST (HD_PEERS_MAX - 1) /* index 0 is nobody's */

/* --- where they are --- */

static void check_host(const struct object *host, const struct object *peer, struct diag *diag)
{
	const struct hd_addr *own = &host->host.tunnel_address, *other = &peer->tunnel_peer.address;
	char wanted[320], got[320], text[ADDR_TEXT_MAX];

	if (!host->host.has_tunnel) {
		snprintf(got, sizeof(got), "Host %s without one", host->name);
		validate_complain(diag, peer, peer->line, NULL, "a Host with spec.tunnel beside a Peer", got);
	} else if (addr_is_ipv4(own) != addr_is_ipv4(other)) {
		snprintf(wanted, sizeof(wanted), "an %s address, as the tunnel of Host %s has",
			addr_is_ipv4(own) ? "IPv4" : "IPv6", host->name);
		validate_complain(diag, peer, peer->line, "spec.address", wanted, addr_format(other, text));
	} else if (memcmp(own, other, sizeof(*own)) == 0) {
		snprintf(wanted, sizeof(wanted), "another address than that of the tunnel of Host %s", host->name);
		validate_complain(diag, peer, peer->line, "spec.address", wanted, addr_format(other, text));
	}
}

/* An address of the host that a peer is. */
struct residence {
	struct hd_addr address;
	const struct object *peer;
	int index; /* in spec.hostAddresses; -1: spec.address */
};

static int compare_residences(const void *a, const void *b)
{
	const struct residence *x = a, *y = b;
	int r = memcmp(&x->address, &y->address, sizeof(struct hd_addr));

	if (r == 0)
		r = object_compare(x->peer, y->peer);
	return r ? r : (x->index > y->index) - (x->index < y->index);
}

static int find_residence(const void *key, const void *item)
{
	return memcmp(key, &((const struct residence *)item)->address, sizeof(struct hd_addr));
}

static void complain_of(const struct residence *residence, const char *wanted, const char *got, struct diag *diag)
{
	char path[64] = "spec.address";

	if (residence->index >= 0)
		snprintf(path, sizeof(path), "spec.hostAddresses[%d]", residence->index);
	validate_complain(diag, residence->peer, residence->peer->line, path, wanted, got);
}

/* Where a network routes to hosts, their addresses are theirs: no workload behind a peer has one. */
static void check_ports(
	const struct object_list *sorted, const struct object *peer, const struct residence *all, size_t n, struct diag *diag)
{
	const struct object *network = NULL;
	char path[96], got[400], text[ADDR_TEXT_MAX];

	for (size_t i = 0; i < peer->tunnel_peer.n_ports; i++) {
		const struct peer_port *port = &peer->tunnel_peer.ports[i];

		if (!network || strcmp(network->name, port->network) != 0)
			network = object_list_find(sorted, OBJECT_NETWORK, NULL, port->network);
		if (!network || !network_routes_to_host(&network->network))
			continue;
		for (size_t j = 0; j < port->n_addresses; j++) {
			const struct residence *found = bsearch(&port->addresses[j], all, n, sizeof(*all), find_residence);

			if (!found)
				continue;
			snprintf(path, sizeof(path), "spec.ports[%zu].addresses[%zu]", i, j);
			snprintf(got, sizeof(got), "%s, which the host of Peer %s has", addr_format(&port->addresses[j], text),
				found->peer->name);
			validate_complain(
				diag, peer, port->line, path, "an address of no host, in a Network with routesTo: [host]", got);
		}
	}
}

static int check_addresses(
	const struct object_list *sorted, const struct object *host, struct object **peers, size_t n, struct diag *diag)
{
	_cleanup_free_ struct residence *all = NULL;
	char wanted[320], got[400], text[ADDR_TEXT_MAX];
	size_t n_all = 0;

	for (size_t i = 0; i < n; i++)
		n_all += 1 + peers[i]->tunnel_peer.n_host_addresses;
	all = malloc(n_all * sizeof(*all));
	if (!all)
		return -ENOMEM;
	n_all = 0;
	for (size_t i = 0; i < n; i++) {
		const struct tunnel_peer *peer = &peers[i]->tunnel_peer;

		all[n_all++] = (struct residence){.address = peer->address, .peer = peers[i], .index = -1};
		for (size_t j = 0; j < peer->n_host_addresses; j++)
			all[n_all++] = (struct residence){.address = peer->host_addresses[j], .peer = peers[i], .index = (int)j};
	}
	qsort(all, n_all, sizeof(*all), compare_residences);
	for (size_t i = 0; i < n_all; i++) {
		addr_format(&all[i].address, text);
		if (host && host->host.has_tunnel && all[i].index >= 0 &&
			memcmp(&all[i].address, &host->host.tunnel_address, sizeof(struct hd_addr)) == 0) {
			snprintf(wanted, sizeof(wanted), "another address than that of the tunnel of Host %s", host->name);
			complain_of(&all[i], wanted, text, diag);
		}
		if (i == 0 || memcmp(&all[i - 1].address, &all[i].address, sizeof(struct hd_addr)) != 0)
			continue;
		snprintf(got, sizeof(got), "%s, which Peer %s has", text, all[i - 1].peer->name);
		complain_of(&all[i], "an address that no other Peer has", got, diag);
	}
	for (size_t i = 0; i < n; i++)
		check_ports(sorted, peers[i], all, n_all, diag);
	return 0;
}

/* --- their prefixes --- */

struct claim {
	const struct object *peer;
	const struct peer_prefix *prefix;
	const struct object *network;
	uint32_t index;
};

static void check_network(const struct claim *claim, struct diag *diag)
{
	char path[64], got[320];

	if (claim->network && claim->network->network.vni)
		return;
	snprintf(path, sizeof(path), "spec.prefixes[%u].network", claim->index);
	snprintf(got, sizeof(got), "%s, which %s", claim->prefix->network, claim->network ? "has none" : "no document declares");
	validate_complain(diag, claim->peer, claim->prefix->line, path,
		claim->network ? "a Network with a vni" : "the name of a Network", got);
}

static int compare_blocks(const struct claim *a, const struct claim *b)
{
	const struct prefix *x = &a->prefix->cidr, *y = &b->prefix->cidr;

	if (a->network != b->network)
		return (uintptr_t)a->network < (uintptr_t)b->network ? -1 : 1;
	return x->length != y->length ? (x->length > y->length) - (x->length < y->length)
				      : memcmp(&x->addr, &y->addr, sizeof(x->addr));
}

static int compare_claims(const void *a, const void *b)
{
	const struct claim *x = a, *y = b;
	int r = compare_blocks(x, y);

	if (r == 0)
		r = object_compare(x->peer, y->peer);
	return r ? r : (x->index > y->index) - (x->index < y->index);
}

/* Nested ones are fine: the longest counts. */
static void check_unique(struct claim *claims, size_t n, struct diag *diag)
{
	char path[64], got[400], text[ADDR_TEXT_MAX];

	qsort(claims, n, sizeof(*claims), compare_claims);
	for (size_t i = 1; i < n; i++) {
		const struct claim *a = &claims[i - 1], *b = &claims[i];

		if (!b->network || compare_blocks(a, b) != 0)
			continue;
		addr_format_cidr(&b->prefix->cidr.addr, b->prefix->cidr.length, text);
		if (a->peer == b->peer)
			snprintf(got, sizeof(got), "%s, which spec.prefixes[%u] has", text, a->index);
		else
			snprintf(got, sizeof(got), "%s, which Peer %s has", text, a->peer->name);
		snprintf(path, sizeof(path), "spec.prefixes[%u].cidr", b->index);
		validate_complain(diag, b->peer, b->prefix->line, path, "a block that no other prefix of its network is", got);
	}
}

static int check_prefixes(const struct object_list *sorted, struct object **peers, size_t n, struct diag *diag)
{
	_cleanup_free_ struct claim *claims = NULL;
	const struct object *network = NULL;
	size_t n_claims = 0;

	for (size_t i = 0; i < n; i++)
		n_claims += peers[i]->tunnel_peer.n_prefixes;
	if (n_claims == 0)
		return 0;
	claims = malloc(n_claims * sizeof(*claims));
	if (!claims)
		return -ENOMEM;
	n_claims = 0;
	for (size_t i = 0; i < n; i++) {
		for (size_t j = 0; j < peers[i]->tunnel_peer.n_prefixes; j++) {
			const struct peer_prefix *prefix = &peers[i]->tunnel_peer.prefixes[j];
			struct claim *claim = &claims[n_claims++];

			if (!network || strcmp(network->name, prefix->network) != 0)
				network = object_list_find(sorted, OBJECT_NETWORK, NULL, prefix->network);
			*claim = (struct claim){.peer = peers[i], .prefix = prefix, .network = network, .index = (uint32_t)j};
			check_network(claim, diag);
		}
	}
	check_unique(claims, n_claims, diag);
	return 0;
}

int validate_peers(const struct object_list *sorted, const struct object *host, struct diag *diag)
{
	size_t n;
	struct object **peers = validate_kind(sorted, OBJECT_PEER, &n);
	char wanted[64], got[64];

	if (n == 0)
		return 0;
	if (n > PEERS_MOST) {
		snprintf(wanted, sizeof(wanted), "at most %d Peers", PEERS_MOST);
		snprintf(got, sizeof(got), "%zu", n);
		validate_complain(diag, peers[n - 1], peers[n - 1]->line, NULL, wanted, got);
	}
	for (size_t i = 0; i < n && host; i++)
		check_host(host, peers[i], diag);
	if (check_addresses(sorted, host, peers, n, diag) < 0)
		return -ENOMEM;
	return check_prefixes(sorted, peers, n, diag);
}
