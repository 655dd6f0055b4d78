/* SPDX-License-Identifier: Apache-2.0 */
#include <endian.h>
#include <stdio.h>

#include <heddle/overlay.h>
#include <policy/numbered.h>
#include <util/cleanup.h>

#define ZONE_FIRST HD_NETWORKS
#define ZONES (65536u - ZONE_FIRST)
#define PEERS_LEAST 1024 /* so many numbers of peers are handed out in turn */

struct zone {
	uint16_t a, b; /* a < b */
	uint16_t zone;
};

struct numbers {
	struct numbered_list networks, peers;
	VEC(struct zone) zones; /* by (a, b) */
	uint16_t last_zone;
};

struct networks {
	struct numbers now, next;
	bool open; /* next counts */
};

static void numbers_clear(struct numbers *numbers)
{
	numbered_clear(&numbers->networks);
	numbered_clear(&numbers->peers);
	VEC_FREE(&numbers->zones);
}

int networks_new(struct networks **ret)
{
	*ret = calloc(1, sizeof(**ret));
	return *ret ? 0 : -ENOMEM;
}

void networks_free(struct networks *networks)
{
	if (!networks)
		return;
	numbers_clear(&networks->now);
	numbers_clear(&networks->next);
	free(networks);
}

static const struct numbers *current(const struct networks *networks)
{
	return networks->open ? &networks->next : &networks->now;
}

/* --- zones --- */

static size_t zone_place(const struct numbers *numbers, uint16_t a, uint16_t b)
{
	size_t low = 0, high = numbers->zones.n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		const struct zone *zone = &numbers->zones.data[middle];

		if (zone->a < a || (zone->a == a && zone->b < b))
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static const struct zone *zone_find(const struct numbers *numbers, uint16_t a, uint16_t b)
{
	size_t at = zone_place(numbers, a, b);
	const struct zone *zone = at < numbers->zones.n ? &numbers->zones.data[at] : NULL;

	return zone && zone->a == a && zone->b == b ? zone : NULL;
}

static uint16_t zone_of(const struct numbers *numbers, uint16_t a, uint16_t b)
{
	const struct zone *zone = zone_find(numbers, a < b ? a : b, a < b ? b : a);

	return zone ? zone->zone : 0;
}

static int zone_add(struct numbers *numbers, uint16_t a, uint16_t b, uint16_t number)
{
	size_t at = zone_place(numbers, a, b);

	if (VEC_PUSH(&numbers->zones, (struct zone){0}) < 0)
		return -ENOMEM;
	memmove(&numbers->zones.data[at + 1], &numbers->zones.data[at], (numbers->zones.n - 1 - at) * sizeof(struct zone));
	numbers->zones.data[at] = (struct zone){.a = a, .b = b, .zone = number};
	return 0;
}

/* --- adoption --- */

int networks_adopt(struct networks *networks, uint16_t index, const struct hd_network *record)
{
	struct numbers *now = &networks->now;

	if (index == 0) {
		now->networks.last = record->last_index % HD_NETWORKS;
		now->peers.last = record->last_peer % HD_PEERS_MAX;
		now->last_zone = record->last_zone;
		return 0;
	}
	return record->flags & HD_NETWORK_USED ? numbered_adopt(&now->networks, index, record->name, HD_NETWORKS) : 0;
}

int networks_adopt_peer(struct networks *networks, uint32_t index, const struct hd_peer *record)
{
	static_assert(sizeof(record->name) == NETWORK_KEY_MAX, "hd_peer.name");

	return record->flags & HD_PEER_USED ? numbered_adopt(&networks->now.peers, index, record->name, HD_PEERS_MAX) : 0;
}

int networks_adopt_route(struct networks *networks, const struct hd_route_key *key, const struct hd_route *route)
{
	uint16_t from = be16toh(key->network), to = route->network;
	uint16_t a = from < to ? from : to, b = from < to ? to : from;

	if (a == 0 || a == b || b >= HD_NETWORKS || route->zone < ZONE_FIRST || zone_find(&networks->now, a, b))
		return 0;
	for (size_t i = 0; i < networks->now.zones.n; i++)
		if (networks->now.zones.data[i].zone == route->zone)
			return 0;
	return zone_add(&networks->now, a, b, route->zone);
}

/* --- assignment --- */

static size_t count(const struct object_list *all, enum object_kind kind)
{
	size_t n = 0;

	for (size_t i = 0; i < all->n; i++)
		n += all->items[i]->kind == kind;
	return n;
}

static int assign_names(struct networks *networks, const struct object_list *all, struct diag *diag)
{
	const struct numbers *now = &networks->now;
	struct numbered_kind networks_kind = {.kind = OBJECT_NETWORK, .what = "network", .end = HD_NETWORKS};
	struct numbered_kind peers_kind = {.kind = OBJECT_PEER, .what = "peer", .end = PEERS_LEAST};
	size_t peers = now->peers.names.n + count(all, OBJECT_PEER);
	int r = numbered_assign(&now->networks, &networks->next.networks, all, &networks_kind, diag);

	/* The map of peers is as large as their highest number: they go round in a part of all, of which a quarter at most is taken. */
	while (peers_kind.end < 4 * peers && peers_kind.end < HD_PEERS_MAX)
		peers_kind.end *= 2;
	return r < 0 ? r : numbered_assign(&now->peers, &networks->next.peers, all, &peers_kind, diag);
}

static int assign_zone(struct networks *networks, uint16_t x, uint16_t y, uint8_t *taken, struct diag *diag)
{
	uint16_t a = x < y ? x : y, b = x < y ? y : x, zone;
	struct numbers *next = &networks->next;

	if (a == 0 || a == b || zone_find(next, a, b))
		return 0;
	zone = zone_of(&networks->now, a, b);
	if (!zone) {
		zone = number_next(taken, next->last_zone, ZONE_FIRST, ZONES);
		if (!zone) {
			diag_add(diag, NULL, 0, NULL, "more than %u pairs of networks route to each other", ZONES);
			return -E2BIG;
		}
		number_take(taken, zone);
		next->last_zone = zone;
	}
	return zone_add(next, a, b, zone);
}

static int assign_zones(struct networks *networks, const struct object_list *all, uint8_t *taken, struct diag *diag)
{
	int r = 0;

	for (size_t i = 0; i < networks->now.zones.n; i++)
		number_take(taken, networks->now.zones.data[i].zone);
	for (size_t i = 0; i < all->n && r == 0; i++) {
		const struct network *network = &all->items[i]->network;
		uint16_t index;

		if (all->items[i]->kind != OBJECT_NETWORK)
			continue;
		index = networks_index(networks, all->items[i]->name);
		for (size_t j = 0; j < network->n_routes_to && r == 0; j++)
			r = assign_zone(networks, index, networks_index(networks, network->routes_to[j]), taken, diag);
	}
	return r;
}

int networks_assign(struct networks *networks, const struct object_list *all, struct diag *diag)
{
	_cleanup_free_ uint8_t *taken = calloc(1, 65536 / 8);
	int r;

	networks_abort(networks);
	if (!taken)
		return -ENOMEM;
	networks->next.last_zone = networks->now.last_zone;
	networks->open = true;
	r = assign_names(networks, all, diag);
	if (r == 0)
		r = assign_zones(networks, all, taken, diag);
	if (r < 0)
		networks_abort(networks);
	return r;
}

void networks_commit(struct networks *networks)
{
	if (!networks->open)
		return;
	numbers_clear(&networks->now);
	networks->now = networks->next;
	memset(&networks->next, 0, sizeof(networks->next));
	networks->open = false;
}

void networks_abort(struct networks *networks)
{
	numbers_clear(&networks->next);
	memset(&networks->next, 0, sizeof(networks->next));
	networks->open = false;
}

/* --- questions --- */

static uint16_t number_of(const struct numbered_list *list, const char *name)
{
	const struct numbered *found;
	char key[NETWORK_KEY_MAX];

	network_key(name, key);
	found = numbered_find(list, key);
	return found ? found->index : 0;
}

uint16_t networks_index(const struct networks *networks, const char *name)
{
	return number_of(&current(networks)->networks, name);
}

const char *networks_name(const struct networks *networks, uint16_t index)
{
	return index == 0 ? NETWORK_HOST : numbered_name(&current(networks)->networks, index);
}

uint32_t networks_peer(const struct networks *networks, const char *name)
{
	return number_of(&current(networks)->peers, name);
}

const char *networks_peer_name(const struct networks *networks, uint32_t index)
{
	return index && index < HD_PEERS_MAX ? numbered_name(&current(networks)->peers, (uint16_t)index) : NULL;
}

uint16_t networks_zone(const struct networks *networks, uint16_t a, uint16_t b)
{
	return zone_of(current(networks), a, b);
}

int networks_of_zone(const struct networks *networks, uint16_t zone, uint16_t *ret_a, uint16_t *ret_b)
{
	const struct numbers *numbers = current(networks);

	for (size_t i = 0; i < numbers->zones.n; i++)
		if (numbers->zones.data[i].zone == zone) {
			*ret_a = numbers->zones.data[i].a;
			*ret_b = numbers->zones.data[i].b;
			return 0;
		}
	return -ENOENT;
}

void networks_last(const struct networks *networks, struct hd_network *ret)
{
	const struct numbers *numbers = current(networks);

	ret->last_index = numbers->networks.last;
	ret->last_zone = numbers->last_zone;
	ret->last_peer = numbers->peers.last;
}
