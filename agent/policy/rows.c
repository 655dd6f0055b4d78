/* SPDX-License-Identifier: Apache-2.0 */
/* Rows: what each class means in each policy set; and the trees of the rules for any peer. */
#include <util/cleanup.h>
#include <util/hash.h>

#include <policy/internal.h>

/* --- lists of orders --- */

static int change_cmp(const void *a, const void *b)
{
	const struct change *x = a, *y = b;

	if (x->key != y->key)
		return x->key < y->key ? -1 : 1;
	return x->add - y->add; /* an order that goes and comes again stays */
}

static size_t selector_orders(const struct tables *t, uint32_t selector, const uint32_t **orders)
{
	const struct class *class = &t->classes.data[selector];

	if (class->flags & CLASS_BLOCK) {
		*orders = &t->blocks.data[class->rules + 2];
		return t->blocks.data[class->rules + 1];
	}
	*orders = &class->rules;
	return class->rules != NO_RULE;
}

static int store_orders(struct tables *t, uint32_t selector, const uint32_t *orders, size_t n)
{
	uint32_t block = 0;

	if (n > 1) {
		block = block_new(t, (uint32_t)n);
		if (!block)
			return -ENOMEM;
		memcpy(&t->blocks.data[block + 2], orders, n * sizeof(*orders));
	}
	struct class *class = &t->classes.data[selector];

	if (class->flags & CLASS_BLOCK)
		block_free(t, class->rules);
	class->flags &= (uint8_t)~CLASS_BLOCK;
	if (n > 1)
		class->flags |= CLASS_BLOCK;
	class->rules = n > 1 ? block : n ? orders[0] : NO_RULE;
	return 0;
}

/* Brings the lists of rules of the touched selectors up to date. */
int orders_update(struct round *round)
{
	struct change *changes = round->changes.data;
	size_t n = round->changes.n;
	_cleanup_(u32_vec_clear) u32_vec list = {0};
	bool sorted = true;
	int r = 0;

	for (size_t i = 1; i < n && sorted; i++)
		sorted = change_cmp(&changes[i - 1], &changes[i]) <= 0;
	if (!sorted)
		qsort(changes, n, sizeof(*changes), change_cmp);
	for (size_t i = 0, j; i < n && r == 0; i = j) {
		uint32_t selector = (uint32_t)(changes[i].key >> 32);
		const uint32_t *orders;
		size_t n_orders = selector_orders(round->t, selector, &orders), k = 0;

		list.n = 0;
		for (j = i; j < n && changes[j].key >> 32 == selector && r == 0; j++) {
			uint32_t order = (uint32_t)changes[j].key;

			while (k < n_orders && orders[k] < order && r == 0)
				r = VEC_PUSH(&list, orders[k++]);
			if (k < n_orders && orders[k] == order)
				k++;
			if (changes[j].add && r == 0)
				r = VEC_PUSH(&list, order);
		}
		while (k < n_orders && r == 0)
			r = VEC_PUSH(&list, orders[k++]);
		if (r == 0)
			r = store_orders(round->t, selector, list.data, list.n);
	}
	VEC_FREE(&round->changes);
	return r;
}

/* --- rows of a class --- */

typedef VEC(struct row) row_vec;

static void rows_clear(row_vec *rows)
{
	VEC_FREE(rows);
}
#define _cleanup_rows_ _cleanup_(rows_clear)

static size_t class_rows(const struct tables *t, uint32_t id, struct row *single, const struct row **rows)
{
	const struct class *class = &t->classes.data[id];

	if (class->flags & CLASS_ROWS) {
		*rows = (const struct row *)&t->blocks.data[class->tree + 2] + 1;
		return t->blocks.data[class->tree + 1] / 2 - 1;
	}
	*single = (struct row){.set = class->set, .tree = class->tree};
	*rows = single;
	return class->set != 0;
}

/* over_sets: the tree that leads to several rows. */
static int store_rows(struct tables *t, uint32_t id, const struct row *rows, size_t n, uint32_t over_sets)
{
	const struct row head = {.tree = over_sets};
	uint32_t block = 0;

	if (n > 1) {
		block = block_new(t, (uint32_t)(n + 1) * 2);
		if (!block)
			return -ENOMEM;
		memcpy(&t->blocks.data[block + 2], &head, sizeof(head));
		memcpy(&t->blocks.data[block + 4], rows, n * sizeof(*rows));
	}
	struct class *class = &t->classes.data[id];

	if (class->flags & CLASS_ROWS) {
		tree_release(t, t->blocks.data[class->tree + 3]);
		block_free(t, class->tree);
	}
	class->flags &= (uint8_t)~CLASS_ROWS;
	if (n > 1)
		class->flags |= CLASS_ROWS;
	class->set = n == 1 ? (uint16_t)rows[0].set : 0;
	class->tree = n > 1 ? block : n ? rows[0].tree : 0;
	return 0;
}

/* --- trees that several rows of this round share --- */

static uint32_t share_find(struct round *round, const uint64_t *keys, size_t n, uint64_t hash)
{
	struct sharing *s = &round->sharing;

	for (uint32_t i = (uint32_t)hash & (s->size - 1); s->size && s->slot[i]; i = (i + 1) & (s->size - 1)) {
		const struct shared *shared = &s->trees.data[s->slot[i] - 1];
		bool equal = shared->n == n && shared->hash == hash;

		for (size_t j = 0; j < n && equal; j++)
			equal = s->orders.data[shared->orders + j] == (uint32_t)keys[j];
		if (equal)
			return shared->tree;
	}
	return 0;
}

static int share_add(struct round *round, const uint64_t *keys, size_t n, uint64_t hash, uint32_t tree)
{
	struct sharing *s = &round->sharing;
	struct shared shared = {.hash = hash, .orders = s->orders.n, .n = (uint32_t)n, .tree = tree};
	uint32_t i;

	if (s->trees.n >= s->size / 2) {
		uint32_t size = s->size ? s->size * 2 : 64, *slot = calloc(size, sizeof(*slot));

		if (!slot)
			return -ENOMEM;
		free(s->slot);
		s->slot = slot;
		s->size = size;
		for (uint32_t j = 0; j < s->trees.n; j++) {
			for (i = (uint32_t)s->trees.data[j].hash & (size - 1); slot[i]; i = (i + 1) & (size - 1))
				;
			slot[i] = j + 1;
		}
	}
	for (size_t j = 0; j < n; j++)
		if (VEC_PUSH(&s->orders, (uint32_t)keys[j]) < 0)
			return -ENOMEM;
	if (VEC_PUSH(&s->trees, shared) < 0)
		return -ENOMEM;
	for (i = (uint32_t)hash & (s->size - 1); s->slot[i]; i = (i + 1) & (s->size - 1))
		;
	s->slot[i] = (uint32_t)s->trees.n;
	return 0;
}

/* --- building --- */

static int push_rule(struct round *round, uint32_t order)
{
	struct rule_place place;
	const struct rule *rule = rule_by_order(round->t, order, &place);

	uint32_t id = place.prepared->ids[place.direction][prepared_source(&place)];
	bool pass = place.prepared->expanded && rule->verdict == RULE_PASS;
	bool audit = !pass && prepared_audit(place.prepared) && rule->verdict != HD_ALLOW;

	return VEC_PUSH(&round->matches, (struct rule_match){.order = order,
						 .value = HD_LEAF(id, pass ? HD_ALLOW : rule->verdict, rule->log) |
							  (pass ? HD_LEAF_PASS : 0) | (audit ? HD_LEAF_AUDIT : 0),
						 .rule = rule});
}

/*
 * The tree of the rules keys[0..n), of one set. whole: the class has no other rules, so no other class is likely to have the same.
 * alone: as for tree_build().
 */
static int row_tree(struct round *round, const uint64_t *keys, size_t n, bool whole, struct hd_class_rules *alone, uint32_t *ret)
{
	uint64_t hash = 0;
	int r = 0;

	if (!whole) {
		for (size_t i = 0; i < n; i++)
			hash = hash_u64(hash, (uint32_t)keys[i]);
		*ret = share_find(round, keys, n, hash);
		if (*ret) {
			tree_share(round->t, *ret);
			return 0;
		}
	}
	round->matches.n = 0;
	for (size_t i = 0; i < n && r == 0; i++)
		r = push_rule(round, (uint32_t)keys[i]);
	if (r == 0)
		r = tree_build(round, round->matches.data, round->matches.n, !whole, alone, ret);
	if (r == 0 && !whole && *ret && *ret != TREE_RANGE)
		r = share_add(round, keys, n, hash, *ret);
	return r;
}

static int key_cmp(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

/* (set, order) of every rule that covers the class, of the sets whose rows are to be made. */
static int gather(struct round *round, uint32_t id, bool all)
{
	const struct tables *t = round->t;
	bool sorted = true;

	round->keys.n = 0;
	round->n_orders = 0;
	for (uint32_t at = id; at; at = CLASS_PARENT(t, at)) {
		const uint32_t *orders;
		size_t n = selector_orders(t, CLASS_LAST(t, at), &orders);

		round->n_orders += n;
		for (size_t i = 0; i < n; i++) {
			struct rule_place place;
			const uint16_t *pairs;
			uint32_t n_pairs;

			if (!rule_place_by_order(t, orders[i], &place))
				continue;
			pairs = rule_pairs(&place, &n_pairs);
			for (uint32_t j = 0; j < n_pairs; j++) {
				uint32_t set = SET_ID(pairs[j], place.direction);
				uint64_t key = (uint64_t)set << 32 | orders[i];

				if (!all && !(round->sets.data[set] & SET_TOUCHED))
					continue;
				sorted = sorted && (round->keys.n == 0 || round->keys.data[round->keys.n - 1] <= key);
				if (VEC_PUSH(&round->keys, key) < 0)
					return -ENOMEM;
			}
		}
	}
	if (!sorted)
		qsort(round->keys.data, round->keys.n, sizeof(*round->keys.data), key_cmp);
	return 0;
}

static int row_cmp(const void *a, const void *b)
{
	const struct row *x = a, *y = b;

	return x->set < y->set ? -1 : x->set > y->set;
}

/* The class's record, its rows being these. rules: what a single range says, if it is one. */
static int write_class(struct round *round, uint32_t id, const struct row *rows, size_t n, struct hd_class_rules *rules)
{
	uint32_t over_sets = 0;
	int r = 0;

	rules->generation = round->generation;
	if (n > 1) {
		r = tree_over_sets(round, rows, n, &over_sets);
		if (r < 0)
			return r;
		rules->set = HD_SET_SEVERAL;
		rules->value = HD_TAG_NODE | tree_root(round->t, over_sets);
	} else if (n == 1) {
		rules->set = SET_NUMBER(rows[0].set);
		if (rows[0].tree != TREE_RANGE)
			rules->value = HD_TAG_NODE | tree_root(round->t, rows[0].tree);
	}
	r = store_rows(round->t, id, rows, n, over_sets);
	return r < 0 ? r : VEC_PUSH(&round->class_writes, (struct class_write){.id = id, .rules = *rules});
}

static int build_rows(struct round *round, uint32_t id)
{
	struct tables *t = round->t;
	bool built = t->classes.data[id].flags & CLASS_BUILT, all, alone;
	struct hd_class_rules rules = {0};
	_cleanup_rows_ row_vec after = {0};
	const struct row *before;
	struct row single;
	size_t n_before = built ? class_rows(t, id, &single, &before) : 0, n_kept = 0;
	int r;

	/* A row that is alone may be a range, one of several has a tree: the only one that could stay is made anew with the others. */
	for (size_t i = 0; i < n_before; i++)
		n_kept += !(round->sets.data[before[i].set] & SET_TOUCHED);
	all = n_kept <= 1;
	r = gather(round, id, all);
	if (r < 0)
		return r;
	alone = all && round->keys.n && round->keys.data[0] >> 32 == round->keys.data[round->keys.n - 1] >> 32;
	for (size_t i = 0, j; i < round->keys.n && r == 0; i = j) {
		uint32_t set = (uint32_t)(round->keys.data[i] >> 32), tree = 0;

		for (j = i; j < round->keys.n && round->keys.data[j] >> 32 == set; j++)
			;
		r = row_tree(round, &round->keys.data[i], j - i, i == 0 && j == round->keys.n && j == round->n_orders,
			alone ? &rules : NULL, &tree);
		if (r == 0 && tree)
			r = VEC_PUSH(&after, (struct row){.set = set, .tree = tree});
	}
	if (r < 0)
		return r;
	/* Blocks may have moved. */
	n_before = built ? class_rows(t, id, &single, &before) : 0;
	for (size_t i = 0; i < n_before; i++) {
		if (all || round->sets.data[before[i].set] & SET_TOUCHED)
			tree_release(t, before[i].tree);
		else if (VEC_PUSH(&after, before[i]) < 0)
			return -ENOMEM;
	}
	if (!all && after.n)
		qsort(after.data, after.n, sizeof(*after.data), row_cmp);
	r = write_class(round, id, after.data, after.n, &rules);
	if (r < 0)
		return r;
	t->classes.data[id].flags |= CLASS_BUILT;
	return 0;
}

/* No address leads there any more, so the record stays as it is. */
static void drop_rows(struct tables *t, uint32_t id)
{
	const struct row *rows;
	struct row single;
	size_t n = class_rows(t, id, &single, &rows);

	for (size_t i = 0; i < n; i++)
		tree_release(t, rows[i].tree);
	(void)store_rows(t, id, NULL, 0, 0);
	t->classes.data[id].flags &= (uint8_t)~CLASS_BUILT;
}

/* What an aborted delta may have written of a class would come into force with this one: it is written anew. */
static void touch_tainted(struct round *round)
{
	const u32_vec *tainted = &round->compiler->tainted;

	for (size_t i = 0; i < tainted->n; i++)
		if (tainted->data[i] < round->touch.n)
			round->touch.data[tainted->data[i]] |= TOUCH_DIRTY;
}

/* The rows of every class that is new, gone, or whose rules changed. */
int rows_update(struct round *round)
{
	struct tables *t = round->t;
	int r = 0;

	if (t->classes.n > CLASSES_MOST)
		return -EFBIG; /* there is no point in going on: check_sizes() says it */
	touch_tainted(round);
	for (uint32_t id = SELECTOR_ANY + 1; id < t->classes.n && r == 0; id++) {
		const struct class *class = &t->classes.data[id];

		if (!class->flags)
			continue;
		if (class->refs && (!(class->flags & CLASS_BUILT) || class_dirty(round, id)))
			r = build_rows(round, id);
		else if (!class->refs && class->flags & CLASS_BUILT)
			drop_rows(t, id);
	}
	return r;
}

/* --- the rules for any peer --- */

/* The policies of each set whose tree is made anew: lists in `policies`, the first one of set s at starts[s]. */
struct set_policies {
	uint32_t *starts, *policies;
};

static void set_policies_clear(struct set_policies *list)
{
	free(list->starts);
	free(list->policies);
}

static int list_set_policies(const struct round *round, struct set_policies *ret)
{
	const struct tables *t = round->t;
	size_t n_sets = round->sets.n, total = 0;

	ret->starts = calloc(n_sets + 2, sizeof(*ret->starts));
	if (!ret->starts)
		return -ENOMEM;
	/* Counts, then places: starts[s + 1] moves from where s begins to where it ends. */
	for (int pass = 0; pass < 2; pass++) {
		for (uint32_t i = 0; i < t->policies.n; i++)
			for (int d = 0; d < HD_DIRECTIONS; d++) {
				const struct membership *member = &t->policies.data[i]->member;

				for (uint32_t j = 0; j < member->n_pairs[d]; j++) {
					uint32_t set = SET_ID(member->pairs[d][j], d);

					if (!(round->sets.data[set] & SET_ANY))
						continue;
					if (pass)
						ret->policies[ret->starts[set + 1]++] = i;
					else
						ret->starts[set + 1]++;
				}
			}
		if (pass)
			break;
		for (size_t s = 0; s <= n_sets; s++) {
			uint32_t n = ret->starts[s + 1];

			ret->starts[s + 1] = (uint32_t)total;
			total += n;
		}
		ret->policies = malloc((total + 1) * sizeof(*ret->policies));
		if (!ret->policies)
			return -ENOMEM;
	}
	return 0;
}

static bool has_pair(const struct rule_place *place, uint32_t pair)
{
	const uint16_t *pairs;
	uint32_t n;

	pairs = rule_pairs(place, &n);
	for (uint32_t i = 0; i < n; i++)
		if (pairs[i] == pair)
			return true;
	return false;
}

/* The rules for any peer that the policy has in the direction. */
static int push_any_rules(struct round *round, const struct prepared *prepared, uint32_t p, int direction)
{
	const struct tables *t = round->t;
	uint32_t first = prepared->base[direction], end = first + prepared_rules(prepared, direction);
	const uint32_t *orders;
	size_t n = selector_orders(t, SELECTOR_ANY, &orders), low = 0, high = n;
	int r = 0;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (orders[middle] < first)
			low = middle + 1;
		else
			high = middle;
	}
	for (; low < n && orders[low] < end && r == 0; low++) {
		struct rule_place place = {.prepared = prepared, .direction = (uint8_t)direction, .index = orders[low] - first};

		if (prepared->member.n_limited == 0 || has_pair(&place, p))
			r = push_rule(round, orders[low]);
	}
	return r;
}

static int any_tree(struct round *round, const struct set_policies *list, uint32_t p, int direction)
{
	struct tables *t = round->t;
	uint32_t set = SET_ID(p, direction), tree = 0;
	int r;

	round->matches.n = 0;
	r = push_builtins(round, &t->pairs.data[p], direction);
	for (uint32_t i = list->starts[set]; i < list->starts[set + 1] && r == 0; i++)
		r = push_any_rules(round, t->policies.data[list->policies[i]], p, direction);
	if (r == 0)
		r = push_default(round, &t->pairs.data[p], direction);
	if (r == 0)
		r = tree_build(round, round->matches.data, round->matches.n, false, NULL, &tree);
	if (r < 0)
		return r;
	tree_release(t, t->pairs.data[p].tree[direction]);
	t->pairs.data[p].tree[direction] = tree;
	return 0;
}

int any_trees_update(struct round *round)
{
	_cleanup_(set_policies_clear) struct set_policies list = {0};
	struct tables *t = round->t;
	int r = list_set_policies(round, &list);

	for (uint32_t p = 0; p < t->pairs.n; p++)
		for (int d = 0; d < HD_DIRECTIONS && r == 0; d++) {
			struct pair *pair = &t->pairs.data[p];

			if (pair->state == PAIR_RETIRED && pair->tree[d]) {
				tree_release(t, pair->tree[d]);
				pair->tree[d] = 0;
			}
			if (pair->state == PAIR_LIVE && round->sets.data[SET_ID(p, d)] & SET_ANY)
				r = any_tree(round, &list, p, d);
		}
	return r;
}
