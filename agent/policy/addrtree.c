/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The address trees: operations applied to a range of intervals, copying the nodes on the way (a published node never changes).
 * All leaves of a tree are at the same depth.
 */
#include <util/cleanup.h>

#include <policy/internal.h>

/* Nodes are filled so far when there is a choice: what is inserted later then splits fewer of them. */
#define ADDR_FILL 14
/* Neighbours that hold no more than this together become one. */
#define ADDR_JOIN 10
#ifndef ADDR_DEPTH_MOST
#define ADDR_DEPTH_MOST HD_ADDR_DEPTH /* less in a test, to get there sooner */
#endif

struct interval {
	uint64_t key;
	uint32_t value;
};
typedef VEC(struct interval) interval_vec;

static void intervals_clear(interval_vec *v)
{
	VEC_FREE(v);
}
#define _cleanup_intervals_ _cleanup_(intervals_clear)

static bool is_leaf(uint32_t value)
{
	return (value & HD_TAG_MASK) == HD_TAG_LEAF;
}

static bool is_node(uint32_t value)
{
	return (value & HD_TAG_MASK) == HD_TAG_NODE;
}

/* --- nodes --- */

static void count_class(struct round *round, uint32_t value, int by)
{
	if (is_leaf(value) && (value & HD_VALUE_MASK) != HD_CLASS_NONE)
		round->t->classes.data[value & HD_VALUE_MASK].refs += (uint32_t)by;
}

static int pool_grow(uint32_t **array, size_t nodes)
{
	uint32_t *grown = reallocarray(*array, nodes, HD_ADDR_FANOUT * sizeof(**array));

	if (!grown)
		return -ENOMEM;
	*array = grown;
	return 0;
}

static int pool_cover(struct addr_pool *pool, uint32_t id, bool wide)
{
	size_t capacity = id < pool->capacity ? pool->capacity : pool->capacity + pool->capacity / 4 + 16;
	uint8_t *count;

	if ((wide || pool->low) && pool->low_capacity < capacity) {
		if (pool_grow(&pool->low, capacity) < 0)
			return -ENOMEM;
		pool->low_capacity = capacity;
	}
	if (capacity == pool->capacity)
		return 0;
	if (pool_grow(&pool->high, capacity) < 0 || pool_grow(&pool->value, capacity) < 0)
		return -ENOMEM;
	count = realloc(pool->count, capacity);
	if (!count)
		return -ENOMEM;
	memset(count + pool->capacity, 0, capacity - pool->capacity);
	pool->count = count;
	pool->capacity = capacity;
	return 0;
}

static struct addr_pool *pool_of(const struct round *round)
{
	return &round->compiler->addr[round->family];
}

static unsigned node_count(const struct round *round, uint32_t id)
{
	return pool_of(round)->count[id] & ADDR_COUNT;
}

static uint32_t node_value(const struct round *round, uint32_t id, unsigned i)
{
	return pool_of(round)->value[id * HD_ADDR_FANOUT + i];
}

/* The entries of a node, as many as it has. */
static unsigned node_read(const struct round *round, uint32_t id, struct interval entries[HD_ADDR_FANOUT])
{
	const struct addr_pool *pool = pool_of(round);
	size_t at = (size_t)id * HD_ADDR_FANOUT;
	unsigned n = node_count(round, id);
	bool wide = pool->count[id] & ADDR_WIDE;

	for (unsigned i = 0; i < n; i++)
		entries[i] = (struct interval){
			.key = (uint64_t)pool->high[at + i] << 32 | (wide ? pool->low[at + i] : 0), .value = pool->value[at + i]};
	return n;
}

/* n: 1..HD_ADDR_FANOUT. 0: no memory. */
static uint32_t node_new(struct round *round, const struct interval *entries, size_t n)
{
	struct addr_pool *pool = pool_of(round);
	uint32_t id = node_id_new(&round->t->addr_nodes[round->family]);
	size_t at = (size_t)id * HD_ADDR_FANOUT;
	bool wide = false;

	for (size_t i = 0; i < n; i++)
		wide = wide || (uint32_t)entries[i].key != 0;
	if (pool_cover(pool, id, wide) < 0 || VEC_PUSH(&round->fresh[round->family], id) < 0)
		return 0;
	for (size_t i = 0; i < n; i++) {
		pool->high[at + i] = (uint32_t)(entries[i].key >> 32);
		if (wide)
			pool->low[at + i] = (uint32_t)entries[i].key;
		pool->value[at + i] = entries[i].value;
		count_class(round, entries[i].value, 1);
	}
	pool->count[id] = (uint8_t)n | ADDR_FRESH | (wide ? ADDR_WIDE : 0);
	return id;
}

static void node_retire(struct round *round, uint32_t id)
{
	for (unsigned i = 0; i < node_count(round, id); i++)
		count_class(round, node_value(round, id, i), -1);
	/* Of a node made in this round nothing is left; the delta leaves it out. */
	pool_of(round)->count[id] &= (uint8_t)~ADDR_FRESH;
	node_id_retire(&round->t->addr_nodes[round->family], id);
}

/* The number in after < x <= upto with most zeros at its end. */
static uint64_t roundest(uint64_t after, uint64_t upto)
{
	unsigned zeros = 63u - (unsigned)__builtin_clzll(after ^ upto);

	return upto >> zeros << zeros;
}

/*
 * Where a node may end and the next one begin: before entry *at, give or take one, but not after `most`. What is left of the entry before it then
 * is the next node's first one. Of IPv4 it is the roundest address, which borders of slots of tables are as well (addrtable.c).
 */
static uint64_t pack_border(const struct interval *entries, size_t *at, size_t most)
{
	size_t middle = *at;
	uint64_t best = entries[middle].key;

	for (size_t i = middle - 1; i <= middle + 1 && i <= most; i++) {
		uint64_t border = roundest(entries[i - 1].key, entries[i].key);

		if (__builtin_ctzll(border) <= __builtin_ctzll(best))
			continue;
		best = border;
		*at = i;
	}
	return best;
}

/* Makes nodes of the entries and appends them, as entries of the level above. */
static int pack(struct round *round, const struct interval *entries, size_t n, interval_vec *ret)
{
	size_t nodes = n <= HD_ADDR_FANOUT ? 1 : (n + ADDR_FILL - 1) / ADDR_FILL, from = 0;
	struct interval node[HD_ADDR_FANOUT + 1];
	bool free = round->family == 0 && n && is_leaf(entries[0].value);
	uint64_t begin;

	if (!entries)
		return -EINVAL; /* cannot be: a tree covers every address */
	begin = entries[0].key;
	for (size_t i = 0; i < nodes; i++) {
		size_t to = (i + 1) * n / nodes, size = 0;
		uint64_t end = i + 1 < nodes ? entries[to].key : 0;
		uint32_t id;

		if (entries[from].key != begin)
			node[size++] = (struct interval){begin, entries[from - 1].value};
		if (free && i + 1 < nodes)
			end = pack_border(entries, &to, from + HD_ADDR_FANOUT - size);
		memcpy(&node[size], &entries[from], (to - from) * sizeof(*node));
		size += to - from;
		id = node_new(round, node, size);
		if (!id || VEC_PUSH(ret, (struct interval){begin, HD_TAG_NODE | id}) < 0)
			return -ENOMEM;
		begin = end;
		from = to;
	}
	return 0;
}

/* --- joining neighbours that have become small --- */

static int join_small(struct round *round, interval_vec *children)
{
	const uint8_t *count = pool_of(round)->count;
	size_t kept = 0;

	for (size_t i = 1; i < children->n; i++) {
		struct interval merged[HD_ADDR_FANOUT * 2];
		uint32_t a = children->data[kept].value & HD_VALUE_MASK, b = children->data[i].value & HD_VALUE_MASK, id;
		unsigned n_a = node_count(round, a), n_b = node_count(round, b), skip;

		if (!((count[a] | count[b]) & ADDR_FRESH) || n_a + n_b > ADDR_JOIN) {
			children->data[++kept] = children->data[i];
			continue;
		}
		node_read(round, a, merged);
		node_read(round, b, merged + n_a);
		skip = merged[n_a].value == merged[n_a - 1].value;
		if (skip)
			memmove(merged + n_a, merged + n_a + 1, (n_b - 1) * sizeof(*merged));
		id = node_new(round, merged, n_a + n_b - skip);
		count = pool_of(round)->count;
		if (!id)
			return -ENOMEM;
		node_retire(round, a);
		node_retire(round, b);
		children->data[kept].value = HD_TAG_NODE | id;
	}
	if (children->n)
		children->n = kept + 1;
	return 0;
}

/* --- applying --- */

static int apply_tree(struct round *round, uint32_t root, const struct addr_op *ops, size_t n_ops, uint32_t *ret);
static int apply_lower(struct round *round, uint32_t root, const struct addr_op *ops, size_t n_ops, uint32_t *ret);

static int emit(interval_vec *out, uint64_t key, uint32_t value)
{
	if (out->n && out->data[out->n - 1].value == value)
		return 0;
	return VEC_PUSH(out, (struct interval){key, value});
}

static int transform(struct round *round, uint32_t value, const struct addr_op *op, uint32_t *ret)
{
	struct addr_op all = {.first = 0, .last = UINT64_MAX, .plus = op->plus, .minus = op->minus};
	uint32_t class;
	int r;

	if (op->n_sub)
		return apply_lower(round, value, &round->sub_ops.data[op->sub], op->n_sub, ret);
	if (!is_leaf(value))
		return apply_lower(round, value, &all, 1, ret);
	r = class_transform(round, value & HD_VALUE_MASK, op->plus, op->minus, &class);
	*ret = HD_TAG_LEAF | class;
	return r;
}

/* One interval, [first, last], cut where operations begin and end. *ops moves past those that end in it. */
static int apply_interval(struct round *round, uint64_t first, uint64_t last, uint32_t value, const struct addr_op **ops,
	const struct addr_op *end, interval_vec *out)
{
	for (;;) {
		uint64_t stop;
		uint32_t changed;
		int r;

		while (*ops < end && (*ops)->last < first)
			(*ops)++;
		if (*ops == end || (*ops)->first > last)
			return emit(out, first, value);
		if ((*ops)->first > first) {
			r = emit(out, first, value);
			if (r < 0)
				return r;
			first = (*ops)->first;
		}
		stop = (*ops)->last < last ? (*ops)->last : last;
		r = transform(round, value, *ops, &changed);
		if (r == 0)
			r = emit(out, first, changed);
		if (r < 0 || stop == last)
			return r;
		first = stop + 1;
	}
}

/* The node that covers [first, last]: appends what takes its place. */
static int apply_node(struct round *round, uint32_t id, uint64_t first, uint64_t last, const struct addr_op *ops, size_t n_ops,
	interval_vec *ret)
{
	const struct addr_op *end = ops + n_ops;
	_cleanup_intervals_ interval_vec entries = {0};
	struct interval node[HD_ADDR_FANOUT]; /* a copy: the pool may move */
	unsigned n;
	int r = 0;

	while (ops < end && ops->last < first)
		ops++;
	if (ops == end || ops->first > last)
		return VEC_PUSH(ret, (struct interval){first, HD_TAG_NODE | id});
	n = node_read(round, id, node);
	for (unsigned i = 0; i < n && r == 0; i++) {
		uint64_t from = node[i].key, to = i + 1 < n ? node[i + 1].key - 1 : last;

		if (is_node(node[i].value)) {
			while (ops < end && ops->last < from)
				ops++;
			r = apply_node(round, node[i].value & HD_VALUE_MASK, from, to, ops, (size_t)(end - ops), &entries);
		} else {
			r = apply_interval(round, from, to, node[i].value, &ops, end, &entries);
		}
	}
	if (r == 0 && is_node(node[0].value))
		r = join_small(round, &entries);
	if (r < 0)
		return r;
	r = pack(round, entries.data, entries.n, ret);
	node_retire(round, id);
	return r;
}

/* --- whole trees --- */

/* Levels of nodes until a single one is left, which *ret names. Uses both lists up. */
static int pack_levels(struct round *round, interval_vec *level, interval_vec *above)
{
	int r = 0;

	while (r == 0 && above->n > 1) {
		interval_vec swap = *level;

		*level = *above;
		*above = swap;
		above->n = 0;
		r = pack(round, level->data, level->n, above);
	}
	return r;
}

static unsigned depth(const struct round *round, uint32_t root)
{
	unsigned levels = 0;

	for (; is_node(root); levels++)
		root = node_value(round, root, 0);
	return levels;
}

/* All entries of the leaves; the nodes go. */
static int flatten(struct round *round, uint32_t id, interval_vec *out)
{
	struct interval node[HD_ADDR_FANOUT];
	unsigned n = node_read(round, id, node);
	int r = 0;

	for (unsigned i = 0; i < n && r == 0; i++)
		r = is_node(node[i].value) ? flatten(round, node[i].value, out) : emit(out, node[i].key, node[i].value);
	node_retire(round, id);
	return r;
}

/* Packs a tree anew that insertions and removals have made deeper than a packet may walk. */
static int repack(struct round *round, uint32_t *root)
{
	_cleanup_intervals_ interval_vec level = {0}, above = {0};
	int r = flatten(round, *root & HD_VALUE_MASK, &level);

	if (r == 0)
		r = pack(round, level.data, level.n, &above);
	if (r == 0)
		r = pack_levels(round, &level, &above);
	if (r == 0 && !above.data)
		r = -EINVAL; /* cannot be, as in pack() */
	if (r == 0)
		*root = above.data[0].value;
	return r;
}

/* root: a node or a leaf. */
static int apply_tree(struct round *round, uint32_t root, const struct addr_op *ops, size_t n_ops, uint32_t *ret)
{
	const struct addr_op *at = ops;
	_cleanup_intervals_ interval_vec level = {0}, above = {0};
	const interval_vec *top;
	int r;

	if (is_leaf(root)) {
		r = apply_interval(round, 0, UINT64_MAX, root, &at, ops + n_ops, &level);
		if (r == 0 && level.n > 1)
			r = pack(round, level.data, level.n, &above);
	} else {
		r = apply_node(round, root & HD_VALUE_MASK, 0, UINT64_MAX, ops, n_ops, &above);
	}
	if (r == 0)
		r = pack_levels(round, &level, &above);
	top = above.n ? &above : &level;
	if (r >= 0 && !top->data)
		r = -EINVAL; /* cannot be, as in pack() */
	if (r < 0)
		return r;
	*ret = top->data[0].value;
	/* Levels of one entry are not needed. The class of a root that is a leaf is counted by whoever keeps the root. */
	while (is_node(*ret) && node_count(round, *ret) == 1) {
		uint32_t id = *ret;

		*ret = node_value(round, id, 0);
		node_retire(round, id);
	}
	return depth(round, *ret) > ADDR_DEPTH_MOST ? repack(round, ret) : 0;
}

/* root: a leaf, or a node behind HD_TAG_NEXT. */
static int apply_lower(struct round *round, uint32_t root, const struct addr_op *ops, size_t n_ops, uint32_t *ret)
{
	uint32_t value = is_leaf(root) ? root : root & HD_VALUE_MASK;
	int r = apply_tree(round, value, ops, n_ops, &value);

	if (r == 0)
		*ret = is_node(value) ? value | HD_TAG_NEXT : value;
	return r;
}

/* Applies the round's operations to a tree. */
int addr_tree_update(struct round *round, uint32_t *root, int family)
{
	uint32_t after;
	int r;

	if (round->ops.n == 0)
		return 0;
	round->family = family;
	r = apply_tree(round, *root, round->ops.data, round->ops.n, &after);
	if (r < 0)
		return r;
	count_class(round, after, 1);
	count_class(round, *root, -1);
	*root = after;
	return 0;
}

static void drop_nodes(struct round *round, uint32_t value)
{
	uint32_t id = value & HD_VALUE_MASK;

	if (is_leaf(value))
		return;
	for (unsigned i = 0; i < node_count(round, id); i++)
		drop_nodes(round, node_value(round, id, i));
	node_retire(round, id);
}

/* All of a tree goes: the root is then that of an empty one. */
void addr_tree_drop(struct round *round, uint32_t *root, int family)
{
	round->family = family;
	drop_nodes(round, *root);
	count_class(round, *root, -1);
	*root = HD_TAG_LEAF | HD_CLASS_NONE;
}

/* --- what the round leaves --- */

static int push_write4(struct round *round, uint32_t id, const struct interval *entries, unsigned n)
{
	struct addr4_node_write write = {.id = id};

	for (unsigned i = 0; i < HD_ADDR_FANOUT; i++) {
		write.node.key[i] = i < n ? (uint32_t)(entries[i].key >> 32) : UINT32_MAX;
		write.node.value[i] = entries[i < n ? i : n - 1].value;
	}
	return VEC_PUSH(&round->addr4_writes, write);
}

static int push_write6(struct round *round, uint32_t id, const struct interval *entries, unsigned n)
{
	struct addr6_node_write write = {.id = id};

	for (unsigned i = 0; i < HD_ADDR_FANOUT; i++) {
		write.node.key[i] = i < n ? entries[i].key : UINT64_MAX;
		write.node.value[i] = entries[i < n ? i : n - 1].value;
	}
	return VEC_PUSH(&round->addr6_writes, write);
}

int addr_writes(struct round *round)
{
	for (int family = 0; family < 2; family++) {
		round->family = family;
		for (size_t i = 0; i < round->fresh[family].n; i++) {
			uint32_t id = round->fresh[family].data[i];
			struct interval entries[HD_ADDR_FANOUT] = {0};
			unsigned n;

			if (!(pool_of(round)->count[id] & ADDR_FRESH))
				continue;
			n = node_read(round, id, entries);
			if ((family ? push_write6 : push_write4)(round, id, entries, n) < 0)
				return -ENOMEM;
		}
	}
	return 0;
}

void addr_round_end(struct round *round)
{
	for (int family = 0; family < 2; family++)
		for (size_t i = 0; i < round->fresh[family].n; i++)
			round->compiler->addr[family].count[round->fresh[family].data[i]] &= (uint8_t)~ADDR_FRESH;
}
