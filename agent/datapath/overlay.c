/* SPDX-License-Identifier: Apache-2.0 */
/*
 * This end of the tunnel and the peers' records: arrays that packets read while they are written, so what leads to a record is written after it,
 * and goes before it. The ways to a peer are whoever's who follows the kernel's routes; a record begins with those that the load before had
 * for the same peer, so that a restart loses nothing.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include <datapath/internal.h>

#define STORE(to, value) __atomic_store_n(&(to), value, __ATOMIC_RELAXED)

/* --- the maps --- */

static size_t peers_size(const struct map *map)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);

	return (sizeof(struct hd_peer) * map->max_entries + page - 1) & ~(page - 1);
}

static int peers_map(const struct map *map, int protection, struct hd_peer **ret)
{
	void *base;

	if (map->fd < 0 || map->type != BPF_MAP_TYPE_ARRAY || map->value_size != sizeof(struct hd_peer))
		return -ENOENT;
	base = mmap(NULL, peers_size(map), protection, MAP_SHARED, map->fd, 0);
	if (base == MAP_FAILED)
		return -errno;
	*ret = base;
	return 0;
}

/* Without the flag, and so nobody's until overlay_add() finds that it is still the same peer. */
static void take_over(struct load *load, const struct load *old)
{
	const struct map *from = &old->maps[MAP_PEERS], *to = &load->maps[MAP_PEERS];
	uint32_t n = from->max_entries < to->max_entries ? from->max_entries : to->max_entries;
	struct hd_peer *peers = NULL;

	if (peers_map(from, PROT_READ, &peers) < 0 || !peers)
		return;
	for (uint32_t i = 1; i < n; i++) {
		if (!(peers[i].flags & HD_PEER_USED))
			continue;
		memcpy(&load->peers[i], &peers[i], sizeof(*peers));
		load->peers[i].flags = 0;
		load->peers[i].moved = 0;
	}
	munmap(peers, peers_size(from));
}

int overlay_map(struct load *load, const struct load *old)
{
	int r = peers_map(&load->maps[MAP_PEERS], PROT_READ | PROT_WRITE, &load->peers);
	void *page;

	if (r < 0)
		return r;
	page = mmap(NULL, (size_t)sysconf(_SC_PAGESIZE), PROT_READ | PROT_WRITE, MAP_SHARED, load->maps[MAP_TUNNEL].fd, 0);
	if (page == MAP_FAILED)
		return -errno;
	load->tunnel = page;
	if (old)
		take_over(load, old);
	return 0;
}

void overlay_unmap(struct load *load)
{
	if (load->peers)
		munmap(load->peers, peers_size(&load->maps[MAP_PEERS]));
	if (load->tunnel)
		munmap(load->tunnel, (size_t)sysconf(_SC_PAGESIZE));
}

/* --- peers --- */

static int compare_peers(const void *a, const void *b)
{
	const struct topology_peer *x = a, *y = b;

	return x->index < y->index ? -1 : x->index > y->index;
}

const struct topology_peer *overlay_find(const struct topology *t, uint32_t index)
{
	struct topology_peer key = {.index = index};

	return t->n_peers ? bsearch(&key, t->peers, t->n_peers, sizeof(key), compare_peers) : NULL;
}

static bool same_address(const struct hd_peer *record, const struct topology_peer *peer)
{
	return memcmp(&record->address, &peer->address, sizeof(peer->address)) == 0;
}

static bool same_name(const struct hd_peer *record, const struct topology_peer *peer)
{
	return memcmp(record->name, peer->name, sizeof(record->name)) == 0;
}

/* They stay with the name, as the index does. */
static void counters_clear(struct load *load, uint32_t peer)
{
	int cpus = libbpf_num_possible_cpus();
	_cleanup_free_ struct hd_peer_counters *zero = cpus > 0 ? calloc((size_t)cpus, sizeof(*zero)) : NULL;

	if (!zero || bpf_map_update_elem(load->maps[MAP_PEER_COUNTERS].fd, &peer, zero, BPF_ANY) < 0)
		log_debug("the counters of peer %u go on where another one's ended", peer);
}

static void forget(struct hd_peer *record)
{
	STORE(record->flags, 0);
	STORE(record->ways, 0);
	STORE(record->mtu, 0);
	STORE(record->path_mtu, 0);
	memset(record->name, 0, sizeof(record->name));
}

void overlay_add(struct load *load, const struct topology *t)
{
	for (size_t i = 0; i < t->n_peers; i++) {
		const struct topology_peer *peer = &t->peers[i];
		struct hd_peer *record = &load->peers[peer->index];

		if (peer->index >= load->maps[MAP_PEERS].max_entries || (record->flags & HD_PEER_USED && same_name(record, peer)))
			continue;
		if (!same_name(record, peer) || !same_address(record, peer)) {
			if (!same_name(record, peer))
				counters_clear(load, peer->index);
			forget(record);
			record->address = peer->address;
			memcpy(record->name, peer->name, sizeof(record->name));
		}
		__atomic_store_n(&record->flags, HD_PEER_USED, __ATOMIC_RELEASE);
	}
}

/*
 * Where there is the agent's device, packets go by that until somebody knows the ways to the new address: the old ones may lead to somebody else.
 * Of IPv4 one store changes it.
 */
static void move(struct hd_peer *record, const struct topology_peer *peer, bool slow)
{
	if (slow)
		__atomic_store_n(&record->ways, HD_PEER_WAYS_OF(HD_PEER_WAYS_SET(record->ways), 0), __ATOMIC_RELEASE);
	STORE(record->path_mtu, 0);
	for (unsigned i = 0; i < 4; i++)
		if (record->address.w[i] != peer->address.w[i])
			__atomic_store_n(&record->address.w[i], peer->address.w[i], __ATOMIC_RELEASE);
}

/* What the packets read together is not there while it changes. */
static void write_tunnel(struct hd_tunnel *to, const struct hd_tunnel *from, const struct tunnel_devices *devices)
{
	STORE(to->slow, devices->slow);
	STORE(to->sum, devices->sum);
	STORE(to->stack, devices->stack);
	STORE(to->flags, from->flags);
	STORE(to->ttl, from->ttl);
	if (memcmp(&to->address, &from->address, sizeof(to->address)) != 0 || to->port != from->port) {
		__atomic_store_n(&to->protocol, HD_TUNNEL_NONE, __ATOMIC_SEQ_CST);
		to->address = from->address;
		STORE(to->port, from->port);
	}
	STORE(to->overhead, from->overhead);
	__atomic_store_n(&to->protocol, from->protocol, __ATOMIC_RELEASE);
}

void overlay_change(struct load *load, const struct topology *t, const struct tunnel_devices *devices)
{
	for (size_t i = 0; i < t->n_peers; i++) {
		struct hd_peer *record = &load->peers[t->peers[i].index];

		if (t->peers[i].index < load->maps[MAP_PEERS].max_entries && !same_address(record, &t->peers[i]))
			move(record, &t->peers[i], devices->slow != 0);
	}
	if (t->tunnel.protocol != HD_TUNNEL_NONE)
		write_tunnel(load->tunnel, &t->tunnel, devices);
}

void overlay_remove(struct load *load, const struct topology *t)
{
	if (t->tunnel.protocol == HD_TUNNEL_NONE)
		__atomic_store_n(&load->tunnel->protocol, HD_TUNNEL_NONE, __ATOMIC_RELEASE);
	for (uint32_t i = 1, j = 0; i < load->maps[MAP_PEERS].max_entries; i++) {
		bool wanted;

		while (j < t->n_peers && t->peers[j].index < i)
			j++;
		wanted = j < t->n_peers && t->peers[j].index == i;
		if (load->peers[i].flags & HD_PEER_USED && !(wanted && same_name(&load->peers[i], &t->peers[j])))
			forget(&load->peers[i]);
	}
}

int datapath_peers(struct datapath *dp, datapath_peer_cb cb, void *userdata)
{
	const struct load *load = load_readable(dp);
	struct hd_peer *peers = NULL;
	int r = load ? peers_map(&load->maps[MAP_PEERS], PROT_READ, &peers) : -ENOENT;

	if (r < 0 || !peers)
		return r == -ENOENT ? 0 : log_err(r, "cannot read the peers of the earlier agent");
	for (uint32_t i = 1; i < load->maps[MAP_PEERS].max_entries && r == 0; i++)
		if (peers[i].flags & HD_PEER_USED)
			r = cb(i, &peers[i], userdata);
	munmap(peers, peers_size(&load->maps[MAP_PEERS]));
	return r;
}

/* --- ways --- */

static struct hd_peer *used_peer(const struct load *load, uint32_t peer)
{
	if (!load || !load->peers || peer == 0 || peer >= load->maps[MAP_PEERS].max_entries)
		return NULL;
	return load->peers[peer].flags & HD_PEER_USED ? &load->peers[peer] : NULL;
}

int datapath_peer_ways(struct datapath *dp, uint32_t peer, const struct hd_way *ways, size_t n, uint16_t mtu)
{
	struct hd_peer *record = used_peer(load_writable(dp), peer);
	uint32_t now, set;

	if (n > HD_PEER_WAYS)
		return -EINVAL;
	if (!record)
		return -ENOENT;
	now = record->ways;
	set = HD_PEER_WAYS_SET(now);
	if (record->mtu != mtu)
		STORE(record->mtu, mtu);
	if (HD_PEER_WAYS_COUNT(now) == n && (n == 0 || memcmp(record->way[set], ways, n * sizeof(*ways)) == 0))
		return 0;
	set = !set;
	if (n)
		memcpy(record->way[set], ways, n * sizeof(*ways));
	__atomic_store_n(&record->ways, HD_PEER_WAYS_OF(set, n), __ATOMIC_RELEASE);
	return 0;
}

uint16_t datapath_peer_mtu(struct datapath *dp, uint32_t peer)
{
	const struct load *load = load_writable(dp);
	const struct hd_peer *record = used_peer(load, peer);
	uint16_t mtu = record ? record->mtu : 0, overhead = record ? load->tunnel->overhead : 0;

	if (record && record->path_mtu && (!mtu || record->path_mtu < mtu) &&
		tick_now(load) - record->path_mtu_seen < ticks_of_ms(HD_PATH_MTU_SECONDS * 1000))
		mtu = record->path_mtu;
	return mtu > overhead ? mtu - overhead : 0;
}

int datapath_tunnel_device(struct datapath *dp, enum tunnel_device which, uint32_t ifindex)
{
	struct load *load = load_writable(dp);
	struct tunnel_devices *own = &dp->tunnel_devices;
	uint32_t *known[] = {[TUNNEL_SLOW] = &own->slow, [TUNNEL_SUM] = &own->sum, [TUNNEL_STACK] = &own->stack};

	*known[which] = ifindex;
	if (load) {
		uint32_t *record[] = {[TUNNEL_SLOW] = &load->tunnel->slow,
			[TUNNEL_SUM] = &load->tunnel->sum,
			[TUNNEL_STACK] = &load->tunnel->stack};

		STORE(*record[which], ifindex);
	}
	return 0;
}
