/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Networks, and who is where in them: made what is wanted by a difference to what the maps hold, so that it does not matter how far an earlier
 * attempt came. Each row changes in one step. What a packet must not find any more goes in rows_remove(), before the policy that
 * goes with it is published; what is new comes in rows_write(), after that.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <bpf/bpf.h>

#include <datapath/internal.h>

#define ROW_BATCH 1024u
#define ROW_KEY_MAX 24 /* hd_route_key */

/* Wanted rows: key and value side by side, sorted by key. */
struct wanted {
	unsigned map;
	const char *what;
	const void *rows;
	size_t n, stride, value_offset;
	bool (*moved)(const void *have, const void *want); /* what the row says now must not be found meanwhile; NULL: never */
};

/* --- reading a map --- */

struct dump {
	uint8_t *rows; /* key, then value */
	size_t n, key_size, stride;
};

static void dump_free(struct dump *dump)
{
	free(dump->rows);
}
#define _cleanup_dump_ __attribute__((cleanup(dump_free)))

static int compare_keys(const void *a, const void *b, void *key_size)
{
	return memcmp(a, b, *(const size_t *)key_size);
}

static int dump_add(struct dump *dump, const uint8_t *keys, const uint8_t *values, size_t value_size, uint32_t n)
{
	uint8_t *grown;

	if (n == 0)
		return 0;
	grown = reallocarray(dump->rows, dump->n + n, dump->stride);
	if (!grown)
		return -ENOMEM;
	dump->rows = grown;
	for (uint32_t i = 0; i < n; i++) {
		uint8_t *row = dump->rows + dump->stride * dump->n++;

		memcpy(row, keys + dump->key_size * i, dump->key_size);
		memcpy(row + dump->key_size, values + value_size * i, value_size);
	}
	return 0;
}

/* Nobody but the agent writes these maps, so a walk sees each row once. */
static int dump_map(const struct map *map, struct dump *ret)
{
	_cleanup_free_ uint8_t *keys = malloc((size_t)ROW_BATCH * map->key_size);
	_cleanup_free_ uint8_t *values = malloc((size_t)ROW_BATCH * map->value_size);
	uint8_t cursor[ROW_KEY_MAX] = {0};
	bool first = true;
	int r = 0;

	*ret = (struct dump){.key_size = map->key_size, .stride = map->key_size + map->value_size};
	if (!keys || !values)
		return -ENOMEM;
	while (r == 0) {
		uint32_t count = ROW_BATCH;
		bool last;

		r = bpf_map_lookup_batch(map->fd, first ? NULL : cursor, cursor, keys, values, &count, NULL);
		last = r == -ENOENT;
		if (r < 0 && !last)
			break;
		r = dump_add(ret, keys, values, map->value_size, count);
		first = false;
		if (last)
			break;
	}
	if (r < 0) {
		free(ret->rows);
		ret->rows = NULL;
		return r;
	}
	if (ret->n)
		qsort_r(ret->rows, ret->n, ret->stride, compare_keys, &ret->key_size);
	return 0;
}

/* --- rows with keys of their own --- */

static bool endpoint_moved(const void *have, const void *want)
{
	const struct hd_endpoint *a = have, *b = want;

	return a->ifindex != b->ifindex || a->flags != b->flags;
}

static bool route_moved(const void *have, const void *want)
{
	return memcmp(have, want, sizeof(struct hd_route)) != 0;
}

static bool wire_moved(const void *have, const void *want)
{
	return memcmp(have, want, sizeof(struct hd_wire)) != 0;
}

static const uint32_t allowed = 1; /* the value of every row of port_vlans */

#define WANTED(index, name, field, row_type, moved_) \
	{ \
		.map = index, .what = name, .rows = t->field, .n = t->n_##field, .stride = sizeof(struct row_type), \
		.value_offset = offsetof(struct row_type, value), .moved = moved_ \
	}

/* In the order in which they are written; removed in the opposite one. */
#define WANTED_TABLES(t) \
	{ \
		{.map = MAP_PORT_VLANS, \
			.what = "VLANs of the ports", \
			.rows = (t)->vlans, \
			.n = (t)->n_vlans, \
			.stride = sizeof(struct hd_vlan_key)}, \
			WANTED(MAP_ROUTES, "routes between networks", routes, topology_route, route_moved), \
			WANTED(MAP_ENDPOINTS, "endpoints", endpoints, topology_endpoint, endpoint_moved), \
			WANTED(MAP_WIRE_VLANS, "networks of VLANs on the uplinks", wires, topology_wire, wire_moved), \
	}

static const void *wanted_key(const struct wanted *w, size_t i)
{
	return (const uint8_t *)w->rows + w->stride * i;
}

static const void *wanted_value(const struct wanted *w, size_t i)
{
	return w->value_offset ? (const uint8_t *)wanted_key(w, i) + w->value_offset : (const void *)&allowed;
}

static int note_moved(const struct wanted *w, const void *value, struct moved *moved)
{
	const struct hd_endpoint *endpoint = value;
	uint32_t *grown;

	if (w->map != MAP_ENDPOINTS || !endpoint || !endpoint->ifindex ||
		(moved->n && moved->ifindex[moved->n - 1] == endpoint->ifindex))
		return 0;
	grown = reallocarray(moved->ifindex, moved->n + 1, sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	moved->ifindex = grown;
	moved->ifindex[moved->n++] = endpoint->ifindex;
	return 0;
}

static int table_remove(const struct load *load, const struct wanted *w, struct moved *moved)
{
	const struct map *map = &load->maps[w->map];
	struct dump have _cleanup_dump_ = {0};
	int r = dump_map(map, &have);

	for (size_t i = 0, j = 0; i < have.n && r == 0; i++) {
		const uint8_t *row = have.rows + have.stride * i;
		int c = 1;

		while (j < w->n && (c = memcmp(wanted_key(w, j), row, map->key_size)) < 0)
			j++;
		if (j < w->n && c == 0 && !(w->moved && w->moved(row + map->key_size, wanted_value(w, j))))
			continue;
		r = note_moved(w, row + map->key_size, moved);
		if (r == 0 && bpf_map_delete_elem(map->fd, row) < 0 && errno != ENOENT)
			r = -errno;
	}
	return r < 0 ? log_err(r, "cannot remove %s", w->what) : 0;
}

static int table_write(const struct load *load, const struct wanted *w, struct moved *moved)
{
	const struct map *map = &load->maps[w->map];
	struct dump have _cleanup_dump_ = {0};
	int r = dump_map(map, &have);

	for (size_t i = 0, j = 0; j < w->n && r == 0; j++) {
		const uint8_t *row = NULL;
		int c = 1;

		while (i < have.n && (c = memcmp(have.rows + have.stride * i, wanted_key(w, j), map->key_size)) < 0)
			i++;
		if (i < have.n && c == 0)
			row = have.rows + have.stride * i;
		if (row && memcmp(row + map->key_size, wanted_value(w, j), map->value_size) == 0)
			continue;
		r = note_moved(w, row ? row + map->key_size : NULL, moved);
		if (r == 0)
			r = note_moved(w, wanted_value(w, j), moved);
		if (r == 0 && bpf_map_update_elem(map->fd, wanted_key(w, j), wanted_value(w, j), BPF_ANY) < 0)
			r = errno == E2BIG ? -ENOSPC : -errno;
	}
	return r < 0 ? log_err(r, "cannot write the %s", w->what) : 0;
}

/* --- networks --- */

int networks_map(int fd, struct hd_network **ret)
{
	void *base = mmap(NULL, sizeof(struct hd_network) * HD_NETWORKS, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (base == MAP_FAILED)
		return -errno;
	*ret = base;
	return 0;
}

void networks_unmap(struct hd_network *networks)
{
	if (networks)
		munmap(networks, sizeof(struct hd_network) * HD_NETWORKS);
}

#define STORE(to, value) __atomic_store_n(&(to), value, __ATOMIC_RELAXED)

/* Field by field: packets are reading the others, and the roots and the number of members are not this function's. */
static void write_network(struct hd_network *to, const struct hd_network *from)
{
	STORE(to->vni, from->vni);
	STORE(to->vlan, from->vlan);
	STORE(to->mtu, from->mtu);
	STORE(to->last_index, from->last_index);
	STORE(to->last_zone, from->last_zone);
	if (memcmp(to->name, from->name, sizeof(to->name)) != 0)
		memcpy(to->name, from->name, sizeof(to->name));
	__atomic_store_n(&to->flags, from->flags, __ATOMIC_RELEASE);
}

void rows_networks(struct load *load, const struct topology *t)
{
	size_t j = 0;

	if (t->n_networks && load->networks_end <= t->networks[t->n_networks - 1].index)
		load->networks_end = t->networks[t->n_networks - 1].index + 1u;
	for (uint32_t index = 0; index < load->networks_end; index++) {
		struct hd_network *to = &load->networks[index];

		if (j < t->n_networks && t->networks[j].index == index) {
			write_network(to, &t->networks[j++].record);
		} else if (to->flags) {
			STORE(to->flags, 0);
			memset(to->name, 0, sizeof(to->name));
		}
	}
}

/* --- members --- */

static int compare_members(const void *a, const void *b)
{
	const struct topology_member *x = a, *y = b;

	if (x->network != y->network)
		return x->network < y->network ? -1 : 1;
	return x->id < y->id ? -1 : x->id > y->id;
}

static bool is_wanted(const struct topology *t, uint16_t network, uint32_t ifindex)
{
	struct topology_member key = {.network = network, .id = ifindex};

	return t->n_members && bsearch(&key, t->members, t->n_members, sizeof(key), compare_members);
}

static bool is_listed(const uint32_t *list, size_t n, uint32_t ifindex)
{
	for (size_t i = 0; i < n; i++)
		if (list[i] == ifindex)
			return true;
	return false;
}

/*
 * The list of one network, as packets walk it: what stays keeps its place where it can, so that little is written. Rows first, then their
 * number, then rows beyond it go: a frame that is being flooded meanwhile may reach a port twice, or miss the one that just moves.
 */
static int write_members(struct load *load, const struct topology *t, uint16_t network, bool add)
{
	const struct map *map = &load->maps[MAP_MEMBERS];
	uint32_t *count = &load->networks[network].members, old = *count, n = 0;
	uint32_t before[HD_MEMBERS_MAX], list[HD_MEMBERS_MAX];
	struct hd_member member;
	int r = 0;

	if (old > HD_MEMBERS_MAX)
		old = HD_MEMBERS_MAX;
	for (uint32_t i = 0; i < old; i++) {
		struct hd_member_key key = {.network = network, .index = (uint16_t)i};

		before[i] = list[i] = bpf_map_lookup_elem(map->fd, &key, &member) == 0 ? member.ifindex : 0;
	}
	for (n = old; n > 0 && !is_wanted(t, network, list[n - 1]);)
		n--;
	for (uint32_t i = 0; i < n; i++) {
		if (is_wanted(t, network, list[i]))
			continue;
		list[i] = list[n - 1];
		do
			n--;
		while (n > i && !is_wanted(t, network, list[n - 1]));
	}
	for (size_t i = 0; add && i < t->n_members; i++)
		if (t->members[i].network == network && n < HD_MEMBERS_MAX && !is_listed(list, n, t->members[i].id))
			list[n++] = t->members[i].id;
	for (uint32_t i = 0; i < n && r == 0; i++) {
		struct hd_member_key key = {.network = network, .index = (uint16_t)i};

		member.ifindex = list[i];
		if ((i >= old || before[i] != list[i]) && bpf_map_update_elem(map->fd, &key, &member, BPF_ANY) < 0)
			r = errno == E2BIG ? -ENOSPC : -errno;
	}
	if (r < 0)
		return log_err(r, "cannot write the list of ports that a network floods to");
	__atomic_store_n(count, n, __ATOMIC_RELEASE);
	for (uint32_t i = n; i < old; i++) {
		struct hd_member_key key = {.network = network, .index = (uint16_t)i};

		(void)bpf_map_delete_elem(map->fd, &key);
	}
	return 0;
}

static int all_members(struct load *load, const struct topology *t, bool add)
{
	size_t j = 0;
	int r = 0;

	for (uint32_t network = 0; network < load->networks_end && r == 0; network++) {
		bool some = load->networks[network].members > 0;

		while (j < t->n_members && t->members[j].network < network)
			j++;
		if (some || (add && j < t->n_members && t->members[j].network == network))
			r = write_members(load, t, (uint16_t)network, add);
	}
	return r;
}

/* --- an earlier agent's --- */

int datapath_networks(struct datapath *dp, datapath_network_cb network, datapath_route_cb route, void *userdata)
{
	const struct load *load = load_readable(dp);
	struct dump routes _cleanup_dump_ = {0};
	struct hd_network *networks = NULL;
	int r = 0;

	if (load_map(load, MAP_NETWORKS) < 0 || load->maps[MAP_NETWORKS].value_size != sizeof(struct hd_network) ||
		load_map(load, MAP_ROUTES) < 0 || load->maps[MAP_ROUTES].key_size != sizeof(struct hd_route_key) ||
		load->maps[MAP_ROUTES].value_size != sizeof(struct hd_route))
		return 0;
	r = networks_map(load_map(load, MAP_NETWORKS), &networks);
	if (r < 0 || !networks)
		return log_err(r, "cannot read the networks of the earlier agent");
	for (uint32_t i = 0; i < HD_NETWORKS && r == 0; i++)
		if (i == 0 || networks[i].flags & HD_NETWORK_USED)
			r = network((uint16_t)i, &networks[i], userdata);
	networks_unmap(networks);
	if (r == 0)
		r = dump_map(&load->maps[MAP_ROUTES], &routes);
	for (size_t i = 0; i < routes.n && r == 0; i++) {
		struct topology_route row;

		memcpy(&row, routes.rows + routes.stride * i, sizeof(row));
		r = route(&row.key, &row.value, userdata);
	}
	return r;
}

/* --- all of it --- */

int rows_remove(struct load *load, const struct topology *t, struct moved *moved)
{
	const struct wanted tables[] = WANTED_TABLES(t);
	int r = all_members(load, t, false);

	for (size_t i = ARRAY_SIZE(tables); i-- > 0 && r == 0;)
		r = table_remove(load, &tables[i], moved);
	return r;
}

int rows_write(struct load *load, const struct topology *t, struct moved *moved)
{
	const struct wanted tables[] = WANTED_TABLES(t);
	int r = 0;

	for (size_t i = 0; i < ARRAY_SIZE(tables) && r == 0; i++)
		r = table_write(load, &tables[i], moved);
	return r < 0 ? r : all_members(load, t, true);
}
