/* SPDX-License-Identifier: Apache-2.0 */
#include <endian.h>
#include <inttypes.h>
#include <stdio.h>

#include <policy/internal.h>
#include <policy/numbers.h>
#include <util/cleanup.h>
#include <util/hash.h>

#define ZONE_FIRST HD_NETWORKS
#define ZONES (65536u - ZONE_FIRST)

struct numbered {
	char key[NETWORK_KEY_MAX];
	char *name; /* whole; owned */
	uint16_t index;
};

struct zone {
	uint16_t a, b; /* a < b */
	uint16_t zone;
};

struct numbers {
	VEC(struct numbered) networks; /* by key */
	VEC(struct zone) zones;	       /* by (a, b) */
	uint16_t last_index, last_zone;
};

struct networks {
	struct numbers now, next;
	bool open; /* next counts */
};

void network_key(const char *name, char ret[NETWORK_KEY_MAX])
{
	memset(ret, 0, NETWORK_KEY_MAX);
	if (strlen(name) < NETWORK_KEY_MAX)
		memcpy(ret, name, strlen(name));
	else /* names of objects have no '~' */
		snprintf(ret, NETWORK_KEY_MAX, "%.*s~%08" PRIx32, NETWORK_KEY_MAX - 10, name, (uint32_t)hash_string(0, name));
}

static void numbers_clear(struct numbers *numbers)
{
	for (size_t i = 0; i < numbers->networks.n; i++)
		free(numbers->networks.data[i].name);
	VEC_FREE(&numbers->networks);
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

/* --- lookup --- */

/* Where the key is, or belongs. */
static size_t network_place(const struct numbers *numbers, const char *key)
{
	size_t low = 0, high = numbers->networks.n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (strcmp(numbers->networks.data[middle].key, key) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static const struct numbered *network_find(const struct numbers *numbers, const char *key)
{
	size_t at = network_place(numbers, key);

	return at < numbers->networks.n && strcmp(numbers->networks.data[at].key, key) == 0 ? &numbers->networks.data[at] : NULL;
}

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

/* --- adding --- */

static int network_add(struct numbers *numbers, const char *name, const char *key, uint16_t index)
{
	size_t at = network_place(numbers, key);
	struct numbered added = {.name = strdup(name), .index = index};

	if (!added.name || VEC_PUSH(&numbers->networks, added) < 0) {
		free(added.name);
		return -ENOMEM;
	}
	memcpy(added.key, key, sizeof(added.key));
	memmove(&numbers->networks.data[at + 1], &numbers->networks.data[at],
		(numbers->networks.n - 1 - at) * sizeof(struct numbered));
	numbers->networks.data[at] = added;
	return 0;
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

static bool index_taken(const struct numbers *numbers, uint16_t index)
{
	for (size_t i = 0; i < numbers->networks.n; i++)
		if (numbers->networks.data[i].index == index)
			return true;
	return false;
}

int networks_adopt(struct networks *networks, uint16_t index, const struct hd_network *record)
{
	struct numbers *now = &networks->now;
	char key[NETWORK_KEY_MAX];

	if (index == 0) {
		now->last_index = record->last_index % HD_NETWORKS;
		now->last_zone = record->last_zone;
		return 0;
	}
	memcpy(key, record->name, sizeof(key));
	key[sizeof(key) - 1] = '\0';
	if (!(record->flags & HD_NETWORK_USED) || !key[0] || index >= HD_NETWORKS || index_taken(now, index) ||
		network_find(now, key))
		return 0;
	return network_add(now, key, key, index);
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

/* The next number of first..first+n-1 after `last` that is not taken; 0: all are. */
static uint16_t next_free(const uint8_t *taken, uint16_t last, uint32_t first, uint32_t n)
{
	uint32_t start = last >= first ? last - first + 1 : 0;

	for (uint32_t i = 0; i < n; i++) {
		uint32_t number = first + (start + i) % n;

		if (!(taken[number / 8] & 1 << number % 8))
			return (uint16_t)number;
	}
	return 0;
}

static void take(uint8_t *taken, uint16_t number)
{
	taken[number / 8] |= (uint8_t)(1 << number % 8);
}

/* Those that have a number keep it; so nobody takes it from them, they come first. */
static int assign_indexes(struct networks *networks, const struct object_list *all, uint8_t *taken, struct diag *diag)
{
	const struct numbers *now = &networks->now;
	struct numbers *next = &networks->next;
	char key[NETWORK_KEY_MAX];
	int r = 0;

	for (size_t i = 0; i < now->networks.n; i++)
		take(taken, now->networks.data[i].index);
	for (size_t i = 0; i < all->n && r == 0; i++) {
		const struct object *object = all->items[i];
		const struct numbered *old;
		uint16_t index;

		if (object->kind != OBJECT_NETWORK)
			continue;
		network_key(object->name, key);
		if (network_find(next, key)) {
			diag_add(diag, object->file, object->line, "metadata.name",
				"the name cannot be told from another network's");
			return -E2BIG;
		}
		old = network_find(now, key);
		index = old ? old->index : next_free(taken, next->last_index, 1, HD_NETWORKS - 1);
		if (!index) {
			diag_add(diag, object->file, object->line, NULL, "more than %d networks on one host", HD_NETWORKS - 1);
			return -E2BIG;
		}
		take(taken, index);
		if (!old)
			next->last_index = index;
		r = network_add(next, object->name, key, index);
	}
	return r;
}

static int assign_zone(struct networks *networks, uint16_t x, uint16_t y, uint8_t *taken, struct diag *diag)
{
	uint16_t a = x < y ? x : y, b = x < y ? y : x, zone;
	struct numbers *next = &networks->next;

	if (a == 0 || a == b || zone_find(next, a, b))
		return 0;
	zone = zone_of(&networks->now, a, b);
	if (!zone) {
		zone = next_free(taken, next->last_zone, ZONE_FIRST, ZONES);
		if (!zone) {
			diag_add(diag, NULL, 0, NULL, "more than %u pairs of networks route to each other", ZONES);
			return -E2BIG;
		}
		take(taken, zone);
		next->last_zone = zone;
	}
	return zone_add(next, a, b, zone);
}

static int assign_zones(struct networks *networks, const struct object_list *all, uint8_t *taken, struct diag *diag)
{
	int r = 0;

	for (size_t i = 0; i < networks->now.zones.n; i++)
		take(taken, networks->now.zones.data[i].zone);
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
	networks->next.last_index = networks->now.last_index;
	networks->next.last_zone = networks->now.last_zone;
	networks->open = true;
	r = assign_indexes(networks, all, taken, diag);
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

uint16_t networks_index(const struct networks *networks, const char *name)
{
	const struct numbered *network;
	char key[NETWORK_KEY_MAX];

	network_key(name, key);
	network = network_find(current(networks), key);
	return network ? network->index : 0;
}

const char *networks_name(const struct networks *networks, uint16_t index)
{
	const struct numbers *numbers = current(networks);

	if (index == 0)
		return NETWORK_HOST;
	for (size_t i = 0; i < numbers->networks.n; i++)
		if (numbers->networks.data[i].index == index)
			return numbers->networks.data[i].name;
	return NULL;
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

void networks_last(const struct networks *networks, uint16_t *ret_index, uint16_t *ret_zone)
{
	*ret_index = current(networks)->last_index;
	*ret_zone = current(networks)->last_zone;
}
