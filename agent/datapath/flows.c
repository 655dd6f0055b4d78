/* SPDX-License-Identifier: Apache-2.0 */
/* The flow tables, read straight from the kernel: the hashes in batches, the slots of proven TCP through a mapping that is dropped again. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <arpa/inet.h>

#include <bpf/bpf.h>

#include <datapath/internal.h>
#include <heddle/hot.h>
#include <util/addr.h>

#define FLOW_BATCH 1024u

static const struct {
	unsigned map;
	uint8_t family;
	bool proven;
} tables[] = {
	{MAP_FLOWS4_OTHER, 4, true},
	{MAP_FLOWS6_OTHER, 6, true},
	{MAP_FLOWS4_NEW, 4, false},
	{MAP_FLOWS6_NEW, 6, false},
};

static void decode(const void *key, uint8_t family, bool proven, const struct hd_flow *value, struct datapath_flow *ret)
{
	struct hd_addr lo, hi;
	__be16 lo_port, hi_port;
	bool swap = value->flags & HD_FLOW_ORIG_IS_HI;

	if (family == 4) {
		struct hd_flow_key4 key4;

		memcpy(&key4, key, sizeof(key4));
		lo = addr_from_ipv4(key4.lo);
		hi = addr_from_ipv4(key4.hi);
		lo_port = key4.lo_port;
		hi_port = key4.hi_port;
		ret->network = key4.network;
		ret->kind = key4.kind;
		ret->protocol = key4.protocol;
	} else {
		struct hd_flow_key6 key6;

		memcpy(&key6, key, sizeof(key6));
		lo = key6.lo;
		hi = key6.hi;
		lo_port = key6.lo_port;
		hi_port = key6.hi_port;
		ret->network = key6.network;
		ret->kind = key6.kind;
		ret->protocol = key6.protocol;
	}
	ret->family = family;
	ret->proven = proven;
	ret->source = swap ? hi : lo;
	ret->destination = swap ? lo : hi;
	ret->source_port = ntohs(swap ? hi_port : lo_port);
	ret->destination_port = ntohs(swap ? lo_port : hi_port);
	ret->flow = *value;
}

/* False when it has timed out: the data plane takes it as absent too, though the timer or a new flow has not removed it yet. */
static bool alive(const struct hd_control *control, const struct hd_flow *flow, uint32_t now, struct datapath_flow *ret)
{
	int32_t idle = (int32_t)(now - flow->last_seen), age = (int32_t)(now - flow->created);

	ret->idle_ms = ms_of_ticks(idle > 0 ? (uint32_t)idle : 0);
	ret->age_ms = ms_of_ticks(age > 0 ? (uint32_t)age : 0);
	return flow->state < HD_FLOW_STATE_COUNT && (idle <= 0 || (uint32_t)idle <= control->timeout[flow->state]);
}

struct walk {
	const struct hd_control *control;
	datapath_flow_cb cb;
	void *userdata;
	uint32_t now;
};

static int walk_table(const struct map *map, uint8_t family, bool proven, const struct walk *walk)
{
	size_t key_size = map->key_size;
	_cleanup_free_ uint8_t *keys = NULL;
	_cleanup_free_ struct hd_flow *values = NULL;
	uint32_t batch = FLOW_BATCH, cursor = 0, count;
	bool first = true;

	if (map->fd < 0 || map->value_size != sizeof(struct hd_flow))
		return 0;
	for (;;) {
		int r;

		if (!keys) {
			keys = malloc(key_size * batch);
			values = malloc(sizeof(*values) * batch);
			if (!keys || !values)
				return -ENOMEM;
		}
		count = batch;
		r = bpf_map_lookup_batch(map->fd, first ? NULL : &cursor, &cursor, keys, values, &count, NULL) < 0 ? -errno : 0;
		/* One bucket holds more than fits: it is read as a whole or not at all. */
		if (r == -ENOSPC && batch < 1u << 20) {
			batch *= 4;
			free(TAKE_PTR(keys));
			free(TAKE_PTR(values));
			continue;
		}
		if (r < 0 && r != -ENOENT)
			return r;
		for (uint32_t i = 0; i < count; i++) {
			struct datapath_flow flow = {0};
			int stop;

			if (!alive(walk->control, &values[i], walk->now, &flow))
				continue;
			decode(keys + key_size * i, family, proven, &values[i], &flow);
			stop = walk->cb(&flow, walk->userdata);
			if (stop)
				return stop;
		}
		if (r == -ENOENT)
			return 0;
		first = false;
	}
}

/* What a busy flow has lent to flow_hot4 or flow_hot6 and not got back yet. */
static void add_lent(const struct load *load, const struct hd_flow_slot *slot, struct hd_flow *flow)
{
	const struct map *map = &load->maps[slot->used == 4 ? MAP_FLOW_HOT4 : MAP_FLOW_HOT6];
	uint32_t index = hd_flow_hash(slot->used, &slot->key) & (HD_HOT_ENTRIES - 1);
	union {
		struct hd_hot4 v4;
		struct hd_hot6 v6;
	} entry;

	if (map->fd < 0 || map->value_size > sizeof(entry))
		return;
	for (unsigned way = 0; way < 2; way++) {
		uint32_t at = index ^ way;
		const struct hd_hot *hot = slot->used == 4 ? &entry.v4.hot : &entry.v6.hot;
		size_t key_size = slot->used == 4 ? sizeof(entry.v4.key) : sizeof(entry.v6.key);

		if (bpf_map_lookup_elem(map->fd, &at, &entry) < 0 || !(HD_HOT_FLAGS(hot) & HD_HOT_USED) ||
			memcmp(&entry, &slot->key, key_size) != 0)
			continue;
		for (unsigned side = 0; side < 2; side++) {
			flow->packets[side] += hot->packets[side];
			flow->bytes[side] += hot->bytes[side];
			flow->seq_end[side] = hot->seq_end[side];
			flow->ack[side] = hot->ack[side];
		}
		if (hot->all_packets)
			flow->last_seen = hot->lent;
		return;
	}
}

/* Those from `first` to before `end`, as far as there are some. */
static int walk_slots(const struct load *load, const struct walk *walk, uint32_t first, uint32_t end)
{
	const struct map *map = &load->maps[MAP_FLOW_SLOTS];
	size_t length = (size_t)map->max_entries * sizeof(struct hd_flow_slot);
	const struct hd_flow_slot *slots;
	int stop = 0;

	if (map->fd < 0)
		return 0;
	if (end > map->max_entries)
		end = map->max_entries;
	slots = mmap(NULL, length, PROT_READ, MAP_SHARED, map->fd, 0);
	if (slots == MAP_FAILED)
		return -errno;
	for (uint32_t i = first; i < end && stop == 0; i++) {
		struct datapath_flow flow = {0};
		struct hd_flow_slot slot;

		if (!slots[i].used)
			continue;
		slot = slots[i];
		if (slot.flow.flags & HD_FLOW_HOT)
			add_lent(load, &slot, &slot.flow);
		if (!slot.used || !alive(walk->control, &slot.flow, walk->now, &flow))
			continue;
		decode(&slot.key, (uint8_t)slot.used, true, &slot.flow, &flow);
		stop = walk->cb(&flow, walk->userdata);
	}
	munmap((void *)slots, length);
	return stop;
}

static int read_control(const struct load *load, struct hd_control *ret)
{
	uint32_t zero = 0;

	if (load_map(load, MAP_CONTROL) < 0)
		return -ENOTCONN;
	return bpf_map_lookup_elem(load_map(load, MAP_CONTROL), &zero, ret) < 0 ? -errno : 0;
}

int datapath_flows(struct datapath *dp, datapath_flow_cb cb, void *userdata)
{
	const struct load *load = load_readable(dp);
	struct hd_control control;
	struct walk walk = {.control = &control, .cb = cb, .userdata = userdata, .now = tick_now(load)};
	int r = read_control(load, &control);

	if (r < 0)
		return r;
	r = walk_slots(load, &walk, 0, UINT32_MAX);
	for (size_t i = 0; i < ARRAY_SIZE(tables) && r == 0; i++)
		r = walk_table(&load->maps[tables[i].map], tables[i].family, tables[i].proven, &walk);
	return r < 0 ? log_err(r, "cannot read the flow tables") : 0;
}

int datapath_proven(struct datapath *dp, uint32_t *cursor, uint32_t budget, datapath_flow_cb cb, void *userdata)
{
	const struct load *load = load_readable(dp);
	struct hd_control control;
	struct walk walk = {.control = &control, .cb = cb, .userdata = userdata, .now = tick_now(load)};
	uint32_t first = *cursor, end = first + budget;
	int r = read_control(load, &control);

	if (r < 0)
		return r;
	r = walk_slots(load, &walk, first, end);
	if (r == 0 && end < load->maps[MAP_FLOW_SLOTS].max_entries) {
		*cursor = end;
		return 1;
	}
	for (size_t i = 0; i < ARRAY_SIZE(tables) && r == 0; i++)
		if (tables[i].proven)
			r = walk_table(&load->maps[tables[i].map], tables[i].family, true, &walk);
	*cursor = 0;
	return r < 0 ? log_err(r, "cannot read the flow tables") : 0;
}

void flow_key_of(const struct datapath_flow *flow, union hd_flow_key *ret)
{
	bool swap = flow->flow.flags & HD_FLOW_ORIG_IS_HI;
	const struct hd_addr *lo = swap ? &flow->destination : &flow->source, *hi = swap ? &flow->source : &flow->destination;
	__be16 source_port = htons(flow->source_port), destination_port = htons(flow->destination_port);

	memset(ret, 0, sizeof(*ret));
	if (flow->family == 4)
		ret->key4 = (struct hd_flow_key4){.network = flow->network,
			.kind = flow->kind,
			.protocol = flow->protocol,
			.lo = lo->w[3],
			.hi = hi->w[3],
			.lo_port = swap ? destination_port : source_port,
			.hi_port = swap ? source_port : destination_port};
	else
		ret->key6 = (struct hd_flow_key6){.network = flow->network,
			.kind = flow->kind,
			.protocol = flow->protocol,
			.lo = *lo,
			.hi = *hi,
			.lo_port = swap ? destination_port : source_port,
			.hi_port = swap ? source_port : destination_port};
}

static int find_slot(const struct load *load, uint8_t family, const union hd_flow_key *key, struct hd_flow *ret)
{
	struct hd_flow_slot slot;
	uint32_t index;

	if (bpf_map_lookup_elem(load_map(load, family == 4 ? MAP_FLOWS4 : MAP_FLOWS6), key, &index) < 0 ||
		bpf_map_lookup_elem(load_map(load, MAP_FLOW_SLOTS), &index, &slot) < 0)
		return -errno;
	if (slot.used != family || memcmp(slot.key.q, key->q, sizeof(key->q)) != 0)
		return -ENOENT;
	*ret = slot.flow;
	return 0;
}

int datapath_flow_again(struct datapath *dp, struct datapath_flow *flow)
{
	const struct load *load = load_readable(dp);
	uint32_t epoch = flow->flow.epoch;
	struct hd_control control;
	union hd_flow_key key;
	struct hd_flow now = {0};
	int r = read_control(load, &control);

	if (r < 0)
		return r;
	flow_key_of(flow, &key);
	if (flow->protocol == IPPROTO_TCP)
		r = find_slot(load, flow->family, &key, &now);
	else if (bpf_map_lookup_elem(load_map(load, flow->family == 4 ? MAP_FLOWS4_OTHER : MAP_FLOWS6_OTHER), &key, &now) < 0)
		r = -errno;
	if (r < 0)
		return r;
	if (now.epoch != epoch || !alive(&control, &now, tick_now(load), flow))
		return -ENOENT;
	flow->flow = now;
	return 0;
}

struct flow_counts {
	uint64_t n[2];
};

static int count_flow(const struct datapath_flow *flow, void *userdata)
{
	struct flow_counts *counts = userdata;

	counts->n[flow->proven]++;
	return 0;
}

int datapath_flow_counts(struct datapath *dp, uint64_t *proven, uint64_t *unproven)
{
	struct flow_counts counts = {0};
	int r = datapath_flows(dp, count_flow, &counts);

	if (r < 0)
		return r;
	*proven = counts.n[true];
	*unproven = counts.n[false];
	return 0;
}
