/* SPDX-License-Identifier: Apache-2.0 */
/* Storage: growing arrays, blocks of words, free lists, and the copy that an abort goes back to. */
#include <util/cleanup.h>

#include <policy/internal.h>

int vec_reserve(void *data, size_t *capacity, size_t wanted, size_t size)
{
	size_t grown = *capacity + *capacity / 2;
	void *old, *moved;

	if (grown < wanted)
		grown = wanted;
	if (grown < 16)
		grown = 16;
	memcpy(&old, data, sizeof(old));
	moved = reallocarray(old, grown, size);
	if (!moved)
		return -ENOMEM;
	memcpy(data, &moved, sizeof(moved));
	*capacity = grown;
	return 0;
}

/* --- blocks --- */

/* Words a block of this capacity class holds besides its head. */
static uint32_t block_room(uint32_t class)
{
	return (4u << class) - 2;
}

uint32_t block_new(struct tables *t, uint32_t n)
{
	uint32_t class = 0, block;

	while (block_room(class) < n)
		class ++;
	block = t->block_free[class];
	if (block) {
		t->block_free[class] = t->blocks.data[block + 1];
	} else {
		size_t start = t->blocks.n ? t->blocks.n : 2; /* 0 is no block */

		if (VEC_RESERVE(&t->blocks, start + block_room(class) + 2) < 0)
			return 0;
		block = (uint32_t)start;
		t->blocks.n = start + block_room(class) + 2;
		/* The copy for an abort takes all words, also those not written yet. */
		memset(&t->blocks.data[start == 2 ? 0 : start], 0, (t->blocks.n - (start == 2 ? 0 : start)) * sizeof(uint32_t));
	}
	t->blocks.data[block] = class;
	t->blocks.data[block + 1] = n;
	return block;
}

void block_free(struct tables *t, uint32_t block)
{
	uint32_t class = t->blocks.data[block];

	t->blocks.data[block + 1] = t->block_free[class];
	t->block_free[class] = block;
}

/* --- nodes --- */

uint32_t node_id_new(struct node_ids *ids)
{
	if (ids->end == 0)
		ids->end = 1;
	ids->live++;
	return ids->free.n ? ids->free.data[--ids->free.n] : ids->end++;
}

/* Without memory to note it the id is lost, which does no harm but to the room in the map. */
void node_id_retire(struct node_ids *ids, uint32_t id)
{
	(void)VEC_PUSH(&ids->retired, id);
	ids->live--;
}

static void node_ids_settle(struct node_ids *ids)
{
	for (size_t i = 0; i < ids->retired.n; i++)
		(void)VEC_PUSH(&ids->free, ids->retired.data[i]);
	VEC_FREE(&ids->retired);
}

/* --- rule trees --- */

/* nodes: the root last. shared: others may come to own it too. */
int tree_new(struct tables *t, const u32_vec *nodes, bool shared, uint32_t *ret)
{
	uint32_t block;

	if (nodes->n == 1 && !shared) {
		*ret = nodes->data[0];
		return 0;
	}
	block = block_new(t, (uint32_t)nodes->n + 1);
	if (!block)
		return -ENOMEM;
	t->blocks.data[block + 2] = 1;
	memcpy(&t->blocks.data[block + 3], nodes->data, nodes->n * sizeof(*nodes->data));
	*ret = block | TREE_BLOCK;
	return 0;
}

void tree_share(struct tables *t, uint32_t tree)
{
	t->blocks.data[(tree & ~TREE_BLOCK) + 2]++;
}

void tree_release(struct tables *t, uint32_t tree)
{
	uint32_t block = tree & ~TREE_BLOCK, *words;

	if (!tree || tree == TREE_RANGE)
		return;
	if (!(tree & TREE_BLOCK)) {
		node_id_retire(&t->rule_nodes, tree);
		return;
	}
	words = &t->blocks.data[block];
	if (--words[2])
		return;
	for (uint32_t i = 1; i < words[1]; i++)
		node_id_retire(&t->rule_nodes, words[2 + i]);
	block_free(t, block);
}

uint32_t tree_root(const struct tables *t, uint32_t tree)
{
	const uint32_t *words;

	if (!(tree & TREE_BLOCK))
		return tree;
	words = &t->blocks.data[tree & ~TREE_BLOCK];
	return words[1 + words[1]];
}

/* --- free lists --- */

/* What was retired may be used again: nobody reads it any more. */
void tables_settle(struct tables *t)
{
	node_ids_settle(&t->rule_nodes);
	node_ids_settle(&t->addr_nodes[0]);
	node_ids_settle(&t->addr_nodes[1]);
	while (t->class_retired) {
		uint32_t id = t->class_retired;

		t->class_retired = t->classes.data[id].refs;
		t->classes.data[id].refs = t->class_free;
		t->class_free = id;
	}
	/* Rule ids: oldest first, so that a late event or flow names the right rule as long as possible. */
	if (t->id_retired) {
		if (t->id_free)
			t->rule_order.data[t->id_free_last] = t->id_retired;
		else
			t->id_free = t->id_retired;
		t->id_free_last = t->id_retired_last;
		t->id_retired = t->id_retired_last = 0;
	}
	for (size_t i = 0; i < t->pairs.n; i++)
		if (t->pairs.data[i].state == PAIR_RETIRED)
			t->pairs.data[i].state = PAIR_FREE;
}

uint32_t rule_id_new(struct tables *t, bool *used)
{
	uint32_t id = t->id_free;

	*used = id != 0;
	if (id) {
		t->id_free = t->rule_order.data[id];
	} else {
		while (t->rule_order.n < HD_RULE_FIRST)
			if (VEC_PUSH(&t->rule_order, 0) < 0)
				return 0;
		id = (uint32_t)t->rule_order.n;
		if (VEC_PUSH(&t->rule_order, 0) < 0)
			return 0;
	}
	t->rule_order.data[id] = 0;
	t->ids_live++;
	return id;
}

void rule_id_retire(struct tables *t, uint32_t id)
{
	t->rule_order.data[id] = 0;
	if (t->id_retired)
		t->rule_order.data[t->id_retired_last] = id;
	else
		t->id_retired = id;
	t->id_retired_last = id;
	t->ids_live--;
}

/* --- the copy --- */

#define COPY(field) \
	do { \
		(to)->field.data = NULL; \
		(to)->field.n = (to)->field.capacity = 0; \
		if (r == 0) \
			r = VEC_RESERVE(&(to)->field, (from)->field.n); \
		if (r == 0 && (from)->field.n) { \
			memcpy((to)->field.data, (from)->field.data, (from)->field.n * sizeof(__typeof__(*(from)->field.data))); \
			(to)->field.n = (from)->field.n; \
		} \
	} while (0)

int tables_copy(struct tables *to, const struct tables *from)
{
	int r = 0;

	*to = *from;
	COPY(classes);
	COPY(blocks);
	COPY(rule_nodes.free);
	COPY(rule_nodes.retired);
	COPY(addr_nodes[0].free);
	COPY(addr_nodes[0].retired);
	COPY(addr_nodes[1].free);
	COPY(addr_nodes[1].retired);
	COPY(rule_order);
	COPY(pairs);
	COPY(uplinks);
	COPY(ports);
	COPY(networks);
	COPY(endpoints);
	COPY(peers);
	COPY(remote);
	COPY(policies);
	COPY(groups);
	COPY(failsafe);
	to->index = NULL;
	if (r == 0 && from->index) {
		to->index = malloc(from->index_size * sizeof(*from->index));
		if (to->index)
			memcpy(to->index, from->index, from->index_size * sizeof(*from->index));
		else
			r = -ENOMEM;
	}
	if (r < 0)
		tables_free(to);
	return r;
}

void tables_free(struct tables *t)
{
	VEC_FREE(&t->classes);
	VEC_FREE(&t->blocks);
	VEC_FREE(&t->rule_nodes.free);
	VEC_FREE(&t->rule_nodes.retired);
	VEC_FREE(&t->addr_nodes[0].free);
	VEC_FREE(&t->addr_nodes[0].retired);
	VEC_FREE(&t->addr_nodes[1].free);
	VEC_FREE(&t->addr_nodes[1].retired);
	VEC_FREE(&t->rule_order);
	VEC_FREE(&t->pairs);
	VEC_FREE(&t->uplinks);
	VEC_FREE(&t->ports);
	VEC_FREE(&t->networks);
	VEC_FREE(&t->endpoints);
	VEC_FREE(&t->peers);
	VEC_FREE(&t->remote);
	VEC_FREE(&t->policies);
	VEC_FREE(&t->groups);
	VEC_FREE(&t->failsafe);
	free(t->index);
	memset(t, 0, sizeof(*t));
}
