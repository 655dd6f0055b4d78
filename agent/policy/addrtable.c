/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tables over IPv4 trees: which node a search begins at, by the address itself. A tree of few nodes has none. They are derived
 * from the tree, and made anew whenever its root is another one; the tree knows nothing of them.
 */
#include <util/cleanup.h>

#include <policy/internal.h>

/* Fewer nodes than this are searched as fast as a table is read. Less in a test, to get there sooner. */
#ifndef TABLE_WORTH
#define TABLE_WORTH 9
#endif

/* A node of the lowest level. */
struct lowest {
	uint32_t first; /* the first address that it covers */
	uint32_t id;
};

struct maker {
	struct round *round;
	const struct addr_pool *pool;
	VEC(struct lowest) nodes; /* all of the tree */
	u32_vec tables;
	uint32_t base; /* of the first table */
};

static void maker_clear(struct maker *maker)
{
	VEC_FREE(&maker->nodes);
	VEC_FREE(&maker->tables);
}

static bool is_node(uint32_t value)
{
	return (value & HD_TAG_MASK) == HD_TAG_NODE;
}

/* The nodes below one whose children are `levels` above the lowest ones. */
static int list_lowest(struct maker *maker, uint32_t id, unsigned levels)
{
	unsigned n = maker->pool->count[id] & ADDR_COUNT;
	size_t at = (size_t)id * HD_ADDR_FANOUT;
	int r = 0;

	for (unsigned i = 0; i < n && r == 0; i++) {
		uint32_t child = maker->pool->value[at + i];

		r = levels ? list_lowest(maker, child, levels - 1)
			   : VEC_PUSH(&maker->nodes, (struct lowest){maker->pool->high[at + i], child});
	}
	return r;
}

/* The entry of a node that covers an address. */
static uint32_t child_at(const struct maker *maker, uint32_t id, uint32_t address)
{
	size_t at = (size_t)id * HD_ADDR_FANOUT;
	unsigned i = (maker->pool->count[id] & ADDR_COUNT) - 1u;

	while (i && maker->pool->high[at + i] > address)
		i--;
	return maker->pool->value[at + i];
}

/* The deepest node below `id` that covers both of two different nodes of the lowest level. */
static uint32_t common_node(const struct maker *maker, uint32_t id, size_t a, size_t b)
{
	for (;;) {
		uint32_t child = child_at(maker, id, maker->nodes.data[a].first);

		if (child != child_at(maker, id, maker->nodes.data[b].first))
			return id;
		id = child;
	}
}

/*
 * The value for the 2^bits addresses from `start` on, an offset, which belong to the lowest nodes from..to; `id` covers all of them. A table has a
 * slot for each address, or 2^8 for so many times as many.
 */
static int make_value(struct maker *maker, uint32_t id, size_t from, size_t to, uint64_t start, unsigned bits, uint32_t *ret)
{
	unsigned shift = bits > HD_TABLE_BITS ? bits - HD_TABLE_BITS : 0;
	struct round *round = maker->round;
	uint32_t table;
	size_t write;

	if (to - from + 1 < TABLE_WORTH) {
		*ret = HD_TAG_NODE | (from == to ? maker->nodes.data[from].id : common_node(maker, id, from, to));
		return 0;
	}
	id = common_node(maker, id, from, to);
	table = node_id_new(&round->t->addr_tables);
	write = round->table_writes.n;
	if (VEC_PUSH(&maker->tables, table) < 0 || VEC_RESERVE(&round->table_writes, write + 1) < 0)
		return -ENOMEM;
	round->table_writes.n++;
	memset(&round->table_writes.data[write], 0, sizeof(round->table_writes.data[write]));
	round->table_writes.data[write].id = table;
	for (uint64_t at = start; at < start + (1ull << bits); at += 1ull << shift) {
		uint64_t next = maker->base + at + (1ull << shift);
		size_t end = from;
		uint32_t value;
		int r;

		while (end < to && maker->nodes.data[end + 1].first < next)
			end++;
		r = make_value(maker, id, from, end, at, shift, &value);
		if (r < 0)
			return r;
		round->table_writes.data[write].node.value[at >> shift & (HD_TABLE_SLOTS - 1)] = value; /* they may have moved */
		from = end + (end < to && maker->nodes.data[end + 1].first == next);
	}
	*ret = HD_TABLE(table, shift);
	return 0;
}

/* The first table begins and ends with the first and the last border between nodes. */
static int make_tables(struct maker *maker, uint32_t root, uint32_t *ret)
{
	uint32_t first = maker->nodes.data[1].first, last = maker->nodes.data[maker->nodes.n - 1].first;
	unsigned shift = 0;

	/* A border between two slots wherever one can be: a block begins at a multiple of its size. */
	for (maker->base = first - 1; (last - maker->base) >> shift >= HD_TABLE_SLOTS;
		maker->base = (first - 1) >> shift << shift)
		shift++;
	return make_value(maker, root, 0, maker->nodes.n - 1, 0, shift + HD_TABLE_BITS, ret);
}

static int keep_ids(struct tables *t, const u32_vec *ids, uint32_t *ret)
{
	uint32_t block = ids->n ? block_new(t, (uint32_t)ids->n) : 0;

	if (ids->n && !block)
		return -ENOMEM;
	if (block)
		memcpy(&t->blocks.data[block + 2], ids->data, ids->n * sizeof(*ids->data));
	*ret = block;
	return 0;
}

void addr_tables_drop(struct round *round, struct network_entry *network)
{
	struct tables *t = round->t;
	uint32_t block = network->tables;

	for (uint32_t i = 0; block && i < t->blocks.data[block + 1]; i++)
		node_id_retire(&t->addr_tables, t->blocks.data[block + 2 + i]);
	if (block)
		block_free(t, block);
	network->tables = 0;
	network->top = network->top_root = network->root[0];
	network->base = 0;
}

/* After the network's tree was changed, or not. */
int addr_tables_update(struct round *round, struct network_entry *network)
{
	_cleanup_(maker_clear) struct maker maker = {.round = round, .pool = &round->compiler->addr[0]};
	uint32_t root = network->root[0];
	unsigned levels = 0;
	int r;

	if (network->top_root == root)
		return 0;
	addr_tables_drop(round, network);
	for (uint32_t at = root; is_node(at); levels++)
		at = maker.pool->value[(size_t)at * HD_ADDR_FANOUT];
	if (levels < 2)
		return 0;
	r = list_lowest(&maker, root, levels - 2);
	if (r < 0 || maker.nodes.n < TABLE_WORTH)
		return r;
	r = make_tables(&maker, root, &network->top);
	network->base = maker.base;
	return r < 0 ? r : keep_ids(round->t, &maker.tables, &network->tables);
}
