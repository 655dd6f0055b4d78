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

struct row {
	uint32_t set, tree;
};

static size_t class_rows(const struct tables *t, uint32_t id, struct row *single, const struct row **rows)
{
	const struct class *class = &t->classes.data[id];

	if (class->flags & CLASS_ROWS) {
		*rows = (const struct row *)&t->blocks.data[class->tree + 2];
		return t->blocks.data[class->tree + 1] / 2;
	}
	*single = (struct row){.set = class->set, .tree = class->tree};
	*rows = single;
	return class->set != 0;
}

static uint32_t row_root(const struct tables *t, uint32_t id, uint32_t set)
{
	const struct row *rows;
	struct row single;
	size_t n;

	if (id >= t->classes.n || !t->classes.data[id].flags || !(t->classes.data[id].flags & CLASS_BUILT))
		return 0;
	n = class_rows(t, id, &single, &rows);
	for (size_t i = 0; i < n; i++)
		if (rows[i].set == set)
			return tree_root(t, rows[i].tree);
	return 0;
}

static int store_rows(struct tables *t, uint32_t id, const struct row *rows, size_t n)
{
	uint32_t block = 0;

	if (n > 1) {
		block = block_new(t, (uint32_t)n * 2);
		if (!block)
			return -ENOMEM;
		memcpy(&t->blocks.data[block + 2], rows, n * sizeof(*rows));
	}
	struct class *class = &t->classes.data[id];

	if (class->flags & CLASS_ROWS)
		block_free(t, class->tree);
	class->flags &= (uint8_t)~CLASS_ROWS;
	if (n > 1)
		class->flags |= CLASS_ROWS;
	class->set = n == 1 ? (uint16_t)rows[0].set : 0;
	class->tree = n > 1 ? block : n ? rows[0].tree : 0;
	return 0;
}

static int write_row(struct round *round, uint32_t id, uint32_t set, uint32_t root, uint32_t previous)
{
	return VEC_PUSH(
		&round->row_writes, (struct class_row_write){.key = {.set = set, .class_id = id},
					    .value = {.generation = round->generation, .root = root, .previous = previous}});
}

static int delete_row(struct round *round, uint32_t id, uint32_t set)
{
	return VEC_PUSH(&round->row_deletes, (struct hd_class_key){.set = set, .class_id = id});
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

/* The tree of the rules keys[0..n), of one set. whole: the class has no other rules, so no other class is likely to have the same. */
static int row_tree(struct round *round, const uint64_t *keys, size_t n, bool whole, uint32_t *ret)
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
		r = tree_build(round, round->matches.data, round->matches.n, !whole, ret);
	if (r == 0 && !whole && *ret)
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

static int build_rows(struct round *round, uint32_t id)
{
	struct tables *t = round->t;
	bool built = t->classes.data[id].flags & CLASS_BUILT;
	_cleanup_(u32_vec_clear) u32_vec after = {0}; /* pairs of words: struct row */
	const struct row *before;
	struct row single;
	size_t n_before;
	int r = gather(round, id, !built);

	for (size_t i = 0, j; i < round->keys.n && r == 0; i = j) {
		uint32_t set = (uint32_t)(round->keys.data[i] >> 32), tree;

		for (j = i; j < round->keys.n && round->keys.data[j] >> 32 == set; j++)
			;
		r = row_tree(round, &round->keys.data[i], j - i, i == 0 && j == round->keys.n && j == round->n_orders, &tree);
		if (r < 0 || !tree)
			continue;
		r = VEC_PUSH(&after, set);
		if (r == 0)
			r = VEC_PUSH(&after, tree);
		if (r == 0)
			r = write_row(round, id, set, tree_root(t, tree), built ? row_root(t, id, set) : 0);
	}
	if (r < 0)
		return r;
	n_before = built ? class_rows(t, id, &single, &before) : 0;
	for (size_t i = 0; i < n_before && r == 0; i++) {
		uint32_t set = before[i].set, tree = before[i].tree;
		bool again = false;

		if (!(round->sets.data[set] & SET_TOUCHED)) {
			r = VEC_PUSH(&after, set);
			if (r == 0)
				r = VEC_PUSH(&after, tree);
			continue;
		}
		for (size_t j = 0; j < after.n && !again; j += 2)
			again = after.data[j] == set;
		if (!again) {
			r = write_row(round, id, set, 0, tree_root(t, tree));
			if (r == 0)
				r = delete_row(round, id, set);
		}
		tree_release(t, tree);
	}
	if (r == 0)
		r = store_rows(t, id, (const struct row *)after.data, after.n / 2);
	if (r < 0)
		return r;
	t->rows_live += (uint32_t)(after.n / 2 - n_before);
	t->classes.data[id].flags |= CLASS_BUILT;
	if (t->rows_live > ROWS_MOST)
		return -EFBIG; /* there is no point in going on: check_sizes() says it */
	return 0;
}

static int drop_rows(struct round *round, uint32_t id)
{
	struct tables *t = round->t;
	const struct row *rows;
	struct row single;
	size_t n = class_rows(t, id, &single, &rows);

	for (size_t i = 0; i < n; i++) {
		if (delete_row(round, id, rows[i].set) < 0)
			return -ENOMEM;
		tree_release(t, rows[i].tree);
	}
	t->rows_live -= (uint32_t)n;
	store_rows(t, id, NULL, 0);
	t->classes.data[id].flags &= (uint8_t)~CLASS_BUILT;
	return 0;
}

/* The rows of every class that is new, gone, or whose rules changed. */
int rows_update(struct round *round)
{
	struct tables *t = round->t;

	for (uint32_t id = SELECTOR_ANY + 1; id < t->classes.n; id++) {
		const struct class *class = &t->classes.data[id];
		int r = 0;

		if (!class->flags)
			continue;
		if (class->refs && (!(class->flags & CLASS_BUILT) || class_dirty(round, id)))
			r = build_rows(round, id);
		else if (!class->refs && class->flags & CLASS_BUILT)
			r = drop_rows(round, id);
		if (r < 0)
			return r;
	}
	return 0;
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
		r = tree_build(round, round->matches.data, round->matches.n, false, &tree);
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

/* --- what earlier rounds left --- */

/* Rows that an aborted delta may have written say again what is right now, and what was right before. */
int tainted_rows_update(struct round *round)
{
	const struct compiler *compiler = round->compiler;
	int r = 0;

	for (size_t i = 0; i < compiler->tainted.n && r == 0; i++) {
		struct hd_class_key key = compiler->tainted.data[i];
		uint32_t root = row_root(round->t, key.class_id, key.set);

		r = write_row(round, key.class_id, key.set, root, row_root(&compiler->before, key.class_id, key.set));
		if (r == 0 && !root)
			r = delete_row(round, key.class_id, key.set);
	}
	/* Rows that were to be deleted when a round was settled that never was. */
	for (size_t i = 0; i < compiler->undeleted.n && r == 0; i++) {
		struct hd_class_key key = compiler->undeleted.data[i];

		if (!row_root(round->t, key.class_id, key.set))
			r = delete_row(round, key.class_id, key.set);
	}
	return r;
}
