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

static int pool_cover(struct addr_pool *pool, uint32_t id)
{
	size_t capacity = pool->capacity, counts = pool->capacity;

	if (id < pool->capacity)
		return 0;
	if (vec_reserve(&pool->node, &capacity, id + 1, sizeof(*pool->node)) < 0)
		return -ENOMEM;
	if (vec_reserve(&pool->count, &counts, capacity, sizeof(*pool->count)) < 0)
		return -ENOMEM;
	memset(pool->count + pool->capacity, 0, capacity - pool->capacity);
	pool->capacity = capacity;
	return 0;
}

/* n: 1..HD_ADDR_FANOUT. 0: no memory. */
static uint32_t node_new(struct round *round, const struct interval *entries, size_t n)
{
	struct tables *t = round->t;
	uint32_t id = t->addr_free;
	struct hd_addr_node *node;

	if (id) {
		t->addr_free = t->addr_next.data[id];
	} else {
		if (t->addr_next.n == 0 && VEC_PUSH(&t->addr_next, 0) < 0)
			return 0;
		id = (uint32_t)t->addr_next.n;
		if (VEC_PUSH(&t->addr_next, 0) < 0)
			return 0;
	}
	if (pool_cover(&round->compiler->addr, id) < 0 || VEC_PUSH(&round->fresh, id) < 0)
		return 0;
	t->addr_next.data[id] = 0;
	t->addr_live++;
	node = &round->compiler->addr.node[id];
	round->compiler->addr.count[id] = (uint8_t)n | ADDR_FRESH;
	for (size_t i = 0; i < HD_ADDR_FANOUT; i++) {
		node->key[i] = i < n ? entries[i].key : UINT64_MAX;
		node->value[i] = entries[i < n ? i : n - 1].value;
		if (i < n)
			count_class(round, node->value[i], 1);
	}
	return id;
}

static void node_retire(struct round *round, uint32_t id)
{
	struct tables *t = round->t;
	struct addr_pool *pool = &round->compiler->addr;

	for (unsigned i = 0; i < (pool->count[id] & ~ADDR_FRESH); i++)
		count_class(round, pool->node[id].value[i], -1);
	/* Of a node made in this round nothing is left; the delta leaves it out. */
	pool->count[id] &= (uint8_t)~ADDR_FRESH;
	t->addr_next.data[id] = t->addr_retired;
	t->addr_retired = id;
	t->addr_live--;
}

/* Makes nodes of the entries and appends them, as entries of the level above. */
static int pack(struct round *round, const struct interval *entries, size_t n, interval_vec *ret)
{
	size_t nodes = n <= HD_ADDR_FANOUT ? 1 : (n + ADDR_FILL - 1) / ADDR_FILL;

	for (size_t i = 0; i < nodes; i++) {
		size_t from = i * n / nodes, to = (i + 1) * n / nodes;
		uint32_t id = node_new(round, entries + from, to - from);

		if (!id || VEC_PUSH(ret, (struct interval){entries[from].key, HD_TAG_NODE | id}) < 0)
			return -ENOMEM;
	}
	return 0;
}

/* --- joining neighbours that have become small --- */

static unsigned node_count(const struct round *round, uint32_t id, bool *fresh)
{
	uint8_t count = round->compiler->addr.count[id];

	*fresh = count & ADDR_FRESH;
	return count & ~ADDR_FRESH;
}

static int join_small(struct round *round, interval_vec *children)
{
	struct interval merged[HD_ADDR_FANOUT * 2];
	size_t kept = 0;

	for (size_t i = 1; i < children->n; i++) {
		uint32_t a = children->data[kept].value & HD_VALUE_MASK, b = children->data[i].value & HD_VALUE_MASK;
		bool a_fresh, b_fresh;
		unsigned n_a = node_count(round, a, &a_fresh), n_b = node_count(round, b, &b_fresh), n = 0;
		const struct hd_addr_node *node = round->compiler->addr.node;
		uint32_t id;

		if ((!a_fresh && !b_fresh) || n_a + n_b > ADDR_JOIN) {
			children->data[++kept] = children->data[i];
			continue;
		}
		for (unsigned j = 0; j < n_a; j++)
			merged[n++] = (struct interval){node[a].key[j], node[a].value[j]};
		for (unsigned j = 0; j < n_b; j++)
			if (node[b].value[j] != merged[n - 1].value)
				merged[n++] = (struct interval){node[b].key[j], node[b].value[j]};
		id = node_new(round, merged, n);
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
	struct hd_addr_node node;
	unsigned n;
	bool fresh;
	int r = 0;

	while (ops < end && ops->last < first)
		ops++;
	if (ops == end || ops->first > last)
		return VEC_PUSH(ret, (struct interval){first, HD_TAG_NODE | id});
	node = round->compiler->addr.node[id]; /* a copy: the pool may move */
	n = node_count(round, id, &fresh);
	for (unsigned i = 0; i < n && r == 0; i++) {
		uint64_t from = node.key[i], to = i + 1 < n ? node.key[i + 1] - 1 : last;

		if (is_node(node.value[i])) {
			while (ops < end && ops->last < from)
				ops++;
			r = apply_node(round, node.value[i] & HD_VALUE_MASK, from, to, ops, (size_t)(end - ops), &entries);
		} else {
			r = apply_interval(round, from, to, node.value[i], &ops, end, &entries);
		}
	}
	if (r == 0 && is_node(node.value[0]))
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
		root = round->compiler->addr.node[root & HD_VALUE_MASK].value[0];
	return levels;
}

/* All entries of the leaves; the nodes go. */
static int flatten(struct round *round, uint32_t id, interval_vec *out)
{
	struct hd_addr_node node = round->compiler->addr.node[id];
	bool fresh;
	unsigned n = node_count(round, id, &fresh);
	int r = 0;

	for (unsigned i = 0; i < n && r == 0; i++)
		r = is_node(node.value[i]) ? flatten(round, node.value[i] & HD_VALUE_MASK, out) :
						   emit(out, node.key[i], node.value[i]);
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
	if (r == 0)
		*root = above.data[0].value;
	return r;
}

/* root: a node or a leaf. */
static int apply_tree(struct round *round, uint32_t root, const struct addr_op *ops, size_t n_ops, uint32_t *ret)
{
	const struct addr_op *at = ops;
	_cleanup_intervals_ interval_vec level = {0}, above = {0};
	const struct addr_pool *pool = &round->compiler->addr;
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
	if (r < 0)
		return r;
	*ret = above.n ? above.data[0].value : level.data[0].value;
	/* Levels of one entry are not needed. The class of a root that is a leaf is counted by whoever keeps the root. */
	while (is_node(*ret) && (pool->count[*ret] & ~ADDR_FRESH) == 1) {
		uint32_t id = *ret;

		*ret = pool->node[id].value[0];
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

/* Applies the round's operations to the tree of a family. */
int addr_tree_update(struct round *round, int family)
{
	uint32_t *root = &round->t->root[family], after;
	int r;

	if (round->ops.n == 0)
		return 0;
	r = apply_tree(round, *root, round->ops.data, round->ops.n, &after);
	if (r < 0)
		return r;
	count_class(round, after, 1);
	count_class(round, *root, -1);
	*root = after;
	return 0;
}

/* --- what the round leaves --- */

int addr_writes(struct round *round)
{
	const struct addr_pool *pool = &round->compiler->addr;

	for (size_t i = 0; i < round->fresh.n; i++) {
		uint32_t id = round->fresh.data[i];

		if (!(pool->count[id] & ADDR_FRESH))
			continue;
		if (VEC_PUSH(&round->addr_writes, (struct addr_node_write){.id = id, .node = pool->node[id]}) < 0)
			return -ENOMEM;
	}
	return 0;
}

void addr_round_end(struct round *round)
{
	for (size_t i = 0; i < round->fresh.n; i++)
		round->compiler->addr.count[round->fresh.data[i]] &= (uint8_t)~ADDR_FRESH;
}
