/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Networks, and who is where in them: made what is wanted by a difference to what the maps hold, so that it does not matter how far an earlier
 * attempt came. Each row changes in one step. What a packet must not find any more goes in rows_remove(), before the policy that
 * goes with it is published; what is new comes in rows_write(), after that.
 */
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <bpf/bpf.h>

#include <datapath/internal.h>

#define ROW_BATCH 1024u
#define ROW_KEY_MAX 24	/* hd_route_key */
#define SAME_STRIDE 64u /* rows that are compared at once: most have not changed */

/* Wanted rows: key and value side by side, sorted by key. */
struct wanted {
	unsigned map;
	const char *what;
	const void *rows;
	size_t n, stride, value_offset;
	bool (*moved)(const void *have, const void *want); /* what the row says now must not be found meanwhile; NULL: never */
};

/* --- what a map holds --- */

static int compare_keys(const void *a, const void *b, void *key_size)
{
	return memcmp(a, b, *(const size_t *)key_size);
}

static int known_add(struct table_rows *known, const struct wanted *w, const struct map *map, const uint8_t *keys,
	const uint8_t *values, uint32_t n)
{
	uint8_t *grown;

	if (n == 0)
		return 0;
	grown = reallocarray(known->rows, known->n + n, w->stride);
	if (!grown)
		return -ENOMEM;
	known->rows = grown;
	for (uint32_t i = 0; i < n; i++) {
		uint8_t *row = known->rows + w->stride * known->n++;

		memset(row, 0, w->stride);
		memcpy(row, keys + (size_t)map->key_size * i, map->key_size);
		if (w->value_offset)
			memcpy(row + w->value_offset, values + (size_t)map->value_size * i, map->value_size);
	}
	return 0;
}

/* Nobody but the agent writes these maps, so a walk sees each row once. */
static int dump_map(const struct map *map, const struct wanted *w, struct table_rows *ret)
{
	_cleanup_free_ uint8_t *keys = malloc((size_t)ROW_BATCH * map->key_size);
	_cleanup_free_ uint8_t *values = malloc((size_t)ROW_BATCH * map->value_size);
	uint8_t cursor[ROW_KEY_MAX] = {0};
	struct table_rows known = {0};
	size_t key_size = map->key_size;
	bool first = true;
	int r = 0;

	if (!keys || !values)
		return -ENOMEM;
	while (r == 0) {
		uint32_t count = ROW_BATCH;
		bool last;

		r = bpf_map_lookup_batch(map->fd, first ? NULL : cursor, cursor, keys, values, &count, NULL);
		last = r == -ENOENT;
		if (r < 0 && !last)
			break;
		r = known_add(&known, w, map, keys, values, count);
		first = false;
		if (last)
			break;
	}
	if (r < 0) {
		free(known.rows);
		return r;
	}
	if (known.n)
		qsort_r(known.rows, known.n, w->stride, compare_keys, &key_size);
	free(ret->rows);
	*ret = known;
	return 0;
}

static int table_known(struct load *load, const struct wanted *w, struct table_rows *known)
{
	return known->unknown ? dump_map(&load->maps[w->map], w, known) : 0;
}

void rows_free(struct load *load)
{
	for (unsigned i = 0; i < TABLES; i++)
		free(load->tables[i].rows);
}

/* --- writing many at once --- */

struct batch {
	const struct map *map;
	bool removes;
	uint8_t *keys, *values;
	uint32_t n;
};

static void batch_free(struct batch *batch)
{
	free(batch->keys);
	free(batch->values);
}
#define _cleanup_batch_ __attribute__((cleanup(batch_free)))

static int batch_remove(struct batch *batch)
{
	/* One that is not there any more is no mistake, but ends a call. */
	for (uint32_t done = 0; done < batch->n;) {
		uint32_t count = batch->n - done;
		int r = bpf_map_delete_batch(batch->map->fd, batch->keys + (size_t)batch->map->key_size * done, &count, NULL);

		if (r < 0 && r != -ENOENT)
			return r;
		done += count + (r < 0);
	}
	return 0;
}

static int batch_flush(struct batch *batch)
{
	uint32_t n = batch->n;
	int r = 0;

	if (batch->removes)
		r = batch_remove(batch);
	else if (n == 1)
		r = bpf_map_update_elem(batch->map->fd, batch->keys, batch->values, BPF_ANY) < 0 ? -errno : 0;
	else if (n)
		r = bpf_map_update_batch(batch->map->fd, batch->keys, batch->values, &n, NULL);
	batch->n = 0;
	return r == -E2BIG ? -ENOSPC : r;
}

static int batch_add(struct batch *batch, const void *key, const void *value)
{
	size_t key_size = batch->map->key_size, value_size = batch->map->value_size;

	if (!batch->keys) {
		batch->keys = malloc(ROW_BATCH * key_size);
		batch->values = malloc(ROW_BATCH * value_size);
		if (!batch->keys || !batch->values)
			return -ENOMEM;
	}
	memcpy(batch->keys + key_size * batch->n, key, key_size);
	if (value)
		memcpy(batch->values + value_size * batch->n, value, value_size);
	return ++batch->n == ROW_BATCH ? batch_flush(batch) : 0;
}

/* --- rows with keys of their own --- */

static bool endpoint_moved(const void *have, const void *want)
{
	const struct hd_endpoint *a = have, *b = want;

	return a->ifindex != b->ifindex || a->flags != b->flags || a->peer != b->peer;
}

static bool route_moved(const void *have, const void *want)
{
	return memcmp(have, want, sizeof(struct hd_route)) != 0;
}

static bool wire_moved(const void *have, const void *want)
{
	return memcmp(have, want, sizeof(struct hd_wire)) != 0;
}

static bool vni_moved(const void *have, const void *want)
{
	return memcmp(have, want, sizeof(struct hd_vni)) != 0;
}

static bool prefix_moved(const void *have, const void *want)
{
	return ((const struct hd_peer_prefix *)have)->peer != ((const struct hd_peer_prefix *)want)->peer;
}

static bool address_moved(const void *have, const void *want)
{
	return memcmp(have, want, sizeof(uint32_t)) != 0;
}

static const uint32_t allowed = 1; /* the value of every row of port_vlans */

#define WANTED(index, name, field, row_type, moved_) \
	{ \
		.map = index, .what = name, .rows = (t)->field, .n = (t)->n_##field, .stride = sizeof(struct row_type), \
		.value_offset = offsetof(struct row_type, value), .moved = moved_ \
	}

#define WANTED_TABLES(t) \
	{ \
		[TABLE_PORT_VLANS] = {.map = MAP_PORT_VLANS, \
			.what = "VLANs of the ports", \
			.rows = (t)->vlans, \
			.n = (t)->n_vlans, \
			.stride = sizeof(struct hd_vlan_key)}, \
		[TABLE_ROUTES] = WANTED(MAP_ROUTES, "routes between networks", routes, topology_route, route_moved), \
		[TABLE_ENDPOINTS] = WANTED(MAP_ENDPOINTS, "endpoints", endpoints, topology_endpoint, endpoint_moved), \
		[TABLE_PEER_PREFIXES] = \
			WANTED(MAP_PEER_PREFIXES, "prefixes of peers", prefixes, topology_peer_prefix, prefix_moved), \
		[TABLE_PEER_ADDRESSES] = \
			WANTED(MAP_PEER_ADDRESSES, "addresses of peers", peer_addresses, topology_peer_address, address_moved), \
		[TABLE_VNIS] = WANTED(MAP_VNIS, "networks of VNIs", vnis, topology_vni, vni_moved), \
		[TABLE_WIRES] = WANTED(MAP_WIRE_VLANS, "networks of VLANs on the uplinks", wires, topology_wire, wire_moved), \
	}

static const uint8_t *wanted_row(const struct wanted *w, size_t i)
{
	return (const uint8_t *)w->rows + w->stride * i;
}

static const void *row_value(const struct wanted *w, const uint8_t *row)
{
	return w->value_offset ? row + w->value_offset : (const void *)&allowed;
}

/* --- who must look again --- */

static int note_port(struct moved *moved, uint32_t ifindex)
{
	if (!ifindex || (moved->n && moved->ifindex[moved->n - 1] == ifindex))
		return 0;
	if (moved->n == moved->capacity) {
		size_t capacity = moved->capacity ? moved->capacity * 2 : 64;
		uint32_t *grown = reallocarray(moved->ifindex, capacity, sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		moved->ifindex = grown;
		moved->capacity = capacity;
	}
	moved->ifindex[moved->n++] = ifindex;
	return 0;
}

static void note_peer(struct moved *moved, uint32_t peer)
{
	if (peer && peer < HD_PEERS_MAX)
		moved->peer[peer / 64] |= UINT64_C(1) << peer % 64;
}

static bool bits_agree(const uint8_t *a, const uint8_t *b, uint32_t bits)
{
	uint32_t bytes = bits / 8, rest = bits % 8;

	return memcmp(a, b, bytes) == 0 && (!rest || ((a[bytes] ^ b[bytes]) & 0xff00 >> rest & 0xff) == 0);
}

/* The first prefix from begin on of another length. */
static size_t prefixes_end(const struct topology *t, size_t begin)
{
	size_t low = begin, high = t->n_prefixes;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (t->prefixes[middle].key.length == t->prefixes[begin].key.length)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

#define KEY_BEHIND_LENGTH offsetof(struct hd_route_key, network)
#define KEY_NETWORK_AND_ADDRESS (offsetof(struct hd_route_key, reserved) - KEY_BEHIND_LENGTH)

/* Flows that found their end by a wider prefix may have to go elsewhere now, or may find it there again: whoever has that one is told. */
static void note_covering(const struct topology *t, const struct hd_route_key *of, struct moved *moved)
{
	const uint8_t *wanted = (const uint8_t *)of + KEY_BEHIND_LENGTH;

	for (size_t begin = 0, end; begin < t->n_prefixes; begin = end) {
		uint32_t bits = t->prefixes[begin].key.length;
		size_t low = begin, high;

		end = high = prefixes_end(t, begin);
		while (bits < of->length && low < high) {
			size_t middle = low + (high - low) / 2;
			const uint8_t *key = (const uint8_t *)&t->prefixes[middle].key + KEY_BEHIND_LENGTH;

			if (bits_agree(key, wanted, bits)) {
				note_peer(moved, t->prefixes[middle].value.peer);
				break;
			}
			if (memcmp(key, wanted, KEY_NETWORK_AND_ADDRESS) < 0)
				low = middle + 1;
			else
				high = middle;
		}
	}
}

static int note_moved(
	const struct load *load, const struct topology *t, const struct wanted *w, const uint8_t *row, struct moved *moved)
{
	/* Without prefixes so far, all of them come, and are told by themselves. */
	bool covered = t->n_prefixes && load->tables[TABLE_PEER_PREFIXES].n;
	const struct topology_peer_prefix *prefix = (const void *)row;
	const struct topology_endpoint *endpoint = (const void *)row;
	struct hd_route_key key = {.length = UINT32_MAX};

	if (w->map == MAP_PEER_PREFIXES) {
		note_peer(moved, prefix->value.peer);
		if (covered)
			note_covering(t, &prefix->key, moved);
	}
	if (w->map != MAP_ENDPOINTS)
		return 0;
	note_peer(moved, endpoint->value.peer);
	if (covered && endpoint->key.kind == HD_ENDPOINT_ADDRESS) {
		key.network = htobe16(endpoint->key.network);
		memcpy(key.addr, endpoint->key.addr.b, sizeof(key.addr));
		note_covering(t, &key, moved);
	}
	return note_port(moved, endpoint->value.ifindex);
}

/* --- a table --- */

/* How many rows from these places on are certainly the same on both sides. */
static size_t same_ahead(const struct wanted *w, const struct table_rows *known, size_t i, size_t j)
{
	size_t begin = i;

	while (known->n - i >= SAME_STRIDE && w->n - j >= SAME_STRIDE &&
		memcmp(known->rows + w->stride * i, wanted_row(w, j), w->stride * SAME_STRIDE) == 0) {
		i += SAME_STRIDE;
		j += SAME_STRIDE;
	}
	return i - begin;
}

/* What is known of the table and what is wanted, side by side. */
struct walk {
	size_t i, j;	     /* the next ones */
	const uint8_t *have; /* a row that is there; with want: of the same key. NULL: none */
	const uint8_t *want;
};

static bool walk_next(struct walk *walk, const struct wanted *w, const struct table_rows *known, size_t key_size)
{
	int c;

	if (walk->j % SAME_STRIDE == 0) {
		size_t same = same_ahead(w, known, walk->i, walk->j);

		walk->i += same;
		walk->j += same;
	}
	if (walk->i == known->n && walk->j == w->n)
		return false;
	walk->have = walk->i < known->n ? known->rows + w->stride * walk->i : NULL;
	walk->want = walk->j < w->n ? wanted_row(w, walk->j) : NULL;
	c = !walk->have ? 1 : !walk->want ? -1 : memcmp(walk->have, walk->want, key_size);
	if (c < 0)
		walk->want = NULL;
	else if (c > 0)
		walk->have = NULL;
	walk->i += c <= 0;
	walk->j += c >= 0;
	return true;
}

/* A peer's address that it no longer has stays until the new one is there. */
static bool may_wait(const struct topology *t, const struct wanted *w, const struct walk *walk)
{
	return w->map == MAP_PEER_ADDRESSES && !walk->want &&
	       overlay_find(t, ((const struct topology_peer_address *)(const void *)walk->have)->value);
}

static int table_remove(
	struct load *load, const struct topology *t, const struct wanted *w, struct table_rows *known, struct moved *moved)
{
	const struct map *map = &load->maps[w->map];
	struct batch gone _cleanup_batch_ = {.map = map, .removes = true};
	struct walk walk = {0};
	size_t kept = 0, done = 0; /* of what is known: rows that stay, and rows that were looked at */
	int r = table_known(load, w, known);

	while (r == 0 && walk_next(&walk, w, known, map->key_size)) {
		size_t at;

		if (!walk.have)
			continue;
		if (walk.want && !(w->moved && w->moved(row_value(w, walk.have), row_value(w, walk.want))))
			continue;
		if (may_wait(t, w, &walk))
			continue;
		r = note_moved(load, t, w, walk.have, moved);
		if (r == 0)
			r = batch_add(&gone, walk.have, NULL);
		/* The rows between stay. They move behind the walk only. */
		at = walk.i - 1;
		memmove(known->rows + w->stride * kept, known->rows + w->stride * done, w->stride * (at - done));
		kept += at - done;
		done = at + 1;
	}
	if (r == 0)
		r = batch_flush(&gone);
	if (done) {
		memmove(known->rows + w->stride * kept, known->rows + w->stride * done, w->stride * (known->n - done));
		known->n -= done - kept;
	}
	known->unknown = known->unknown || r < 0;
	return r < 0 ? log_err(r, "cannot remove %s", w->what) : 0;
}

static int table_write(
	struct load *load, const struct topology *t, const struct wanted *w, struct table_rows *known, struct moved *moved)
{
	const struct map *map = &load->maps[w->map];
	struct batch come _cleanup_batch_ = {.map = map};
	struct walk walk = {0};
	int r = table_known(load, w, known);

	while (r == 0 && walk_next(&walk, w, known, map->key_size)) {
		if (!walk.want || (walk.have && memcmp(walk.have, walk.want, w->stride) == 0))
			continue;
		if (walk.have)
			r = note_moved(load, t, w, walk.have, moved);
		if (r == 0)
			r = note_moved(load, t, w, walk.want, moved);
		if (r == 0)
			r = batch_add(&come, walk.want, row_value(w, walk.want));
	}
	if (r == 0)
		r = batch_flush(&come);
	known->unknown = known->unknown || r < 0;
	return r < 0 ? log_err(r, "cannot write the %s", w->what) : 0;
}

/* After table_write(): what is not wanted goes, and what is wanted is what the map holds. */
static int table_trim(
	struct load *load, const struct topology *t, const struct wanted *w, struct table_rows *known, struct moved *moved)
{
	const struct map *map = &load->maps[w->map];
	struct batch gone _cleanup_batch_ = {.map = map, .removes = true};
	struct walk walk = {0};
	uint8_t *copy;
	int r = 0;

	if (known->n == w->n && (w->n == 0 || memcmp(known->rows, w->rows, w->stride * w->n) == 0))
		return 0;
	while (r == 0 && walk_next(&walk, w, known, map->key_size)) {
		if (walk.want)
			continue;
		r = note_moved(load, t, w, walk.have, moved);
		if (r == 0)
			r = batch_add(&gone, walk.have, NULL);
	}
	if (r == 0)
		r = batch_flush(&gone);
	copy = r == 0 && w->n ? reallocarray(known->rows, w->n, w->stride) : NULL;
	if (r == 0 && w->n && !copy)
		r = -ENOMEM;
	if (copy) {
		memcpy(copy, w->rows, w->stride * w->n);
		known->rows = copy;
	}
	if (r == 0)
		known->n = w->n;
	known->unknown = known->unknown || r < 0;
	return r < 0 ? log_err(r, "cannot remove %s", w->what) : 0;
}

/* --- networks --- */

static int networks_map(int fd, uint32_t n, struct hd_network **ret)
{
	void *base = mmap(NULL, sizeof(struct hd_network) * n, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (base == MAP_FAILED)
		return -errno;
	*ret = base;
	return 0;
}

static void networks_unmap(struct hd_network *networks, uint32_t n)
{
	if (networks)
		munmap(networks, sizeof(struct hd_network) * n);
}

/* All pages of such a mapping count as used from the start: the agent of a host without networks does with one. */
int networks_reach(struct load *load, uint32_t end)
{
	uint32_t page = (uint32_t)sysconf(_SC_PAGESIZE) / sizeof(struct hd_network), n = (end / page + 1) * page;
	struct hd_network *more = NULL;
	int r;

	if (n > HD_NETWORKS)
		n = HD_NETWORKS;
	if (load->networks && end <= load->networks_mapped)
		return 0;
	r = networks_map(load->maps[MAP_NETWORKS].fd, n, &more);
	if (!more)
		return log_err(r, "cannot map the networks");
	networks_leave(load);
	load->networks = more;
	load->networks_mapped = n;
	return 0;
}

void networks_leave(struct load *load)
{
	networks_unmap(load->networks, load->networks_mapped);
	load->networks = NULL;
	load->networks_mapped = 0;
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
	STORE(to->last_peer, from->last_peer);
	if (memcmp(to->name, from->name, sizeof(to->name)) != 0)
		memcpy(to->name, from->name, sizeof(to->name));
	__atomic_store_n(&to->flags, from->flags, __ATOMIC_RELEASE);
}

int rows_networks(struct load *load, const struct topology *t)
{
	uint32_t end = t->n_networks ? t->networks[t->n_networks - 1].index + 1u : 0;
	size_t j = 0;
	int r = networks_reach(load, end);

	if (r < 0 || !load->networks)
		return r;
	if (load->networks_end < end)
		load->networks_end = end;
	for (uint32_t index = 0; index < load->networks_end; index++) {
		struct hd_network *to = &load->networks[index];

		if (j < t->n_networks && t->networks[j].index == index) {
			write_network(to, &t->networks[j++].record);
		} else if (to->flags) {
			STORE(to->flags, 0);
			memset(to->name, 0, sizeof(to->name));
		}
	}
	return 0;
}

/* --- an earlier agent's --- */

int datapath_networks(struct datapath *dp, datapath_network_cb network, datapath_route_cb route, void *userdata)
{
	static const struct topology none;
	const struct topology *t = &none;
	const struct wanted tables[] = WANTED_TABLES(t);
	const struct load *load = load_readable(dp);
	struct table_rows routes = {0};
	struct hd_network *networks = NULL;
	int r = 0;

	if (load_map(load, MAP_NETWORKS) < 0 || load->maps[MAP_NETWORKS].value_size != sizeof(struct hd_network) ||
		load_map(load, MAP_ROUTES) < 0 || load->maps[MAP_ROUTES].key_size != sizeof(struct hd_route_key) ||
		load->maps[MAP_ROUTES].value_size != sizeof(struct hd_route))
		return 0;
	r = networks_map(load_map(load, MAP_NETWORKS), HD_NETWORKS, &networks);
	if (r < 0 || !networks)
		return log_err(r, "cannot read the networks of the earlier agent");
	for (uint32_t i = 0; i < HD_NETWORKS && r == 0; i++)
		if (i == 0 || networks[i].flags & HD_NETWORK_USED)
			r = network((uint16_t)i, &networks[i], userdata);
	networks_unmap(networks, HD_NETWORKS);
	if (r == 0)
		r = dump_map(&load->maps[MAP_ROUTES], &tables[TABLE_ROUTES], &routes);
	for (size_t i = 0; i < routes.n && r == 0; i++) {
		const struct topology_route *row = (const struct topology_route *)(const void *)routes.rows + i;

		r = route(&row->key, &row->value, userdata);
	}
	free(routes.rows);
	return r;
}

/* --- all of it --- */

int rows_remove(struct load *load, const struct topology *t, struct moved *moved)
{
	const struct wanted tables[TABLES] = WANTED_TABLES(t);
	int r = flood_write(load, t, false);

	for (size_t i = TABLES; i-- > 0 && r == 0;)
		r = table_remove(load, t, &tables[i], &load->tables[i], moved);
	if (r == 0)
		overlay_remove(load, t);
	return r;
}

int rows_write(struct load *load, const struct topology *t, const struct tunnel_devices *devices, struct moved *moved)
{
	const struct wanted tables[TABLES] = WANTED_TABLES(t);
	int r = 0;

	overlay_add(load, t);
	for (size_t i = 0; i < TABLES && r == 0; i++)
		r = table_write(load, t, &tables[i], &load->tables[i], moved);
	if (r == 0)
		r = flood_write(load, t, true);
	if (r < 0)
		return r;
	overlay_change(load, t, devices);
	for (size_t i = TABLES; i-- > 0 && r == 0;)
		r = table_trim(load, t, &tables[i], &load->tables[i], moved);
	return r;
}
