/* SPDX-License-Identifier: Apache-2.0 */
/* Selectors and classes: found by content, so that equal ones are one. */
#include <util/hash.h>

#include <policy/internal.h>

uint64_t peers_hash(const struct peer *peers, uint32_t n)
{
	uint64_t hash = hash_u64(1, n);

	for (uint32_t i = 0; i < n; i++) {
		if (peers[i].group) {
			hash = hash_string(hash, peers[i].group);
			continue;
		}
		hash = hash_u64(hash, peers[i].prefix.addr.q[0]);
		hash = hash_u64(hash, peers[i].prefix.addr.q[1]);
		hash = hash_u64(hash, (uint64_t)peers[i].prefix.length << 32 | peers[i].n_except);
		for (uint32_t j = 0; j < peers[i].n_except; j++) {
			hash = hash_bytes(hash, &peers[i].except[j].addr, sizeof(struct hd_addr));
			hash = hash_u64(hash, peers[i].except[j].length);
		}
	}
	return hash;
}

static bool prefix_equal(const struct prefix *a, const struct prefix *b)
{
	return a->length == b->length && memcmp(&a->addr, &b->addr, sizeof(a->addr)) == 0;
}

bool peers_equal(const struct peer *a, uint32_t n_a, const struct peer *b, uint32_t n_b)
{
	if (n_a != n_b)
		return false;
	if (a == b)
		return true;
	for (uint32_t i = 0; i < n_a; i++) {
		if (!a[i].group != !b[i].group)
			return false;
		if (a[i].group) {
			if (strcmp(a[i].group, b[i].group) != 0)
				return false;
			continue;
		}
		if (!prefix_equal(&a[i].prefix, &b[i].prefix) || a[i].n_except != b[i].n_except)
			return false;
		for (uint32_t j = 0; j < a[i].n_except; j++)
			if (!prefix_equal(&a[i].except[j], &b[i].except[j]))
				return false;
	}
	return true;
}

/* --- the index --- */

static uint32_t chain_hash(uint32_t parent, uint32_t selector)
{
	return (uint32_t)hash_u64(2, (uint64_t)parent << 32 | selector);
}

static uint32_t class_hash(const struct class *class)
{
	return class->flags & CLASS_SELECTOR ? class->hash : chain_hash(class->parent, class->selector);
}

static void index_insert(struct tables *t, uint32_t id, uint32_t hash)
{
	uint32_t i = hash & (t->index_size - 1);

	while (t->index[i])
		i = (i + 1) & (t->index_size - 1);
	t->index[i] = id;
}

static int index_grow(struct tables *t)
{
	uint32_t size = t->index_size ? t->index_size * 2 : 64, old_size = t->index_size, *old = t->index;
	uint32_t *grown;

	if (t->index_used < t->index_size / 8 * 7)
		return 0;
	grown = calloc(size, sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	t->index = grown;
	t->index_size = size;
	for (uint32_t i = 0; i < old_size; i++)
		if (old[i])
			index_insert(t, old[i], class_hash(&t->classes.data[old[i]]));
	free(old);
	return 0;
}

/* Closes the gap behind it, so that no search ends too early (Knuth, TAOCP volume 3, section 6.4, algorithm R). */
static void index_remove(struct tables *t, uint32_t id)
{
	uint32_t mask = t->index_size - 1, i = class_hash(&t->classes.data[id]) & mask;

	while (t->index[i] != id)
		i = (i + 1) & mask;
	for (uint32_t j = (i + 1) & mask; t->index[j]; j = (j + 1) & mask) {
		uint32_t home = class_hash(&t->classes.data[t->index[j]]) & mask;

		if (((j - home) & mask) < ((j - i) & mask))
			continue;
		t->index[i] = t->index[j];
		i = j;
	}
	t->index[i] = 0;
	t->index_used--;
}

/* A class that is in the index but for its content, which the caller fills in before anything else. 0: no memory. */
static uint32_t class_new(struct round *round, uint32_t hash)
{
	struct tables *t = round->t;
	uint32_t id = t->class_free;

	if (index_grow(t) < 0)
		return 0;
	if (id) {
		t->class_free = t->classes.data[id].refs;
	} else {
		while (t->classes.n <= SELECTOR_ANY)
			if (VEC_PUSH(&t->classes, (struct class){0}) < 0)
				return 0;
		id = (uint32_t)t->classes.n;
		if (VEC_PUSH(&t->classes, (struct class){0}) < 0)
			return 0;
	}
	if (VEC_RESERVE(&round->touch, t->classes.n) < 0)
		return 0;
	while (round->touch.n < t->classes.n)
		round->touch.data[round->touch.n++] = 0;
	round->touch.data[id] = 0;
	t->classes.data[id] = (struct class){0};
	index_insert(t, id, hash);
	t->index_used++;
	return id;
}

/* Nothing refers to it: no address, no chain, and to a selector no rule. */
static bool class_unused(const struct tables *t, uint32_t id, const uint32_t *uses)
{
	const struct class *class = &t->classes.data[id];

	if (id == SELECTOR_ANY || class->flags == 0 || class->refs || uses[id] || class->flags & CLASS_BUILT)
		return false;
	return class->flags & CLASS_CHAIN || (!(class->flags & CLASS_BLOCK) && class->rules == NO_RULE);
}

static void class_drop(struct tables *t, uint32_t id)
{
	index_remove(t, id);
	t->classes.data[id].flags = 0;
	t->classes.data[id].refs = t->class_retired;
	t->class_retired = id;
}

/* Takes out what nothing refers to any more. A chain that goes may take its parent and its selector with it. */
int classes_collect(struct tables *t)
{
	uint32_t *uses = calloc(t->classes.n, sizeof(*uses));

	if (!uses)
		return -ENOMEM;
	for (uint32_t id = 1; id < t->classes.n; id++)
		if (t->classes.data[id].flags & CLASS_CHAIN) {
			uses[t->classes.data[id].parent]++;
			uses[t->classes.data[id].selector]++;
		}
	for (uint32_t first = 1; first < t->classes.n; first++)
		for (uint32_t id = first; id && class_unused(t, id, uses);) {
			const struct class *class = &t->classes.data[id];
			uint32_t parent = class->flags & CLASS_CHAIN ? class->parent : 0, selector = parent ? class->selector : 0;

			class_drop(t, id);
			uses[parent]--;
			uses[selector]--;
			if (selector && class_unused(t, selector, uses))
				class_drop(t, selector);
			id = parent;
		}
	free(uses);
	return 0;
}

/* --- selectors --- */

/* The peers of a selector: as this round found them, else those of its first rule. */
void selector_peers(const struct round *round, uint32_t id, const struct peer **peers, uint32_t *n)
{
	const struct tables *t = round->t;
	const struct class *class = &t->classes.data[id];
	uint32_t listed = round->touch.data[id] & TOUCH_INDEX;
	const struct rule *rule;

	if (listed) {
		*peers = round->touched.data[listed - 1].peers;
		*n = round->touched.data[listed - 1].n_peers;
		return;
	}
	rule = rule_by_order(t, class->flags & CLASS_BLOCK ? t->blocks.data[class->rules + 2] : class->rules, NULL);
	*peers = rule->peers;
	*n = rule->n_peers;
}

/*
 * What is to come first in chains has the smaller width: that of the widest block, and of a label group one that falls with the number of
 * identities it covers. It is never changed, so it may be out of date, which costs no more than longer chains.
 */
static uint8_t selector_width(const struct round *round, bool ports, const struct peer *peers, uint32_t n)
{
	uint8_t width = 128;

	for (uint32_t i = 0; i < n; i++) {
		const struct label_group *group;

		if (peers[i].group && !ports)
			return 0;
		group = peers[i].group ? label_group_find(round->compiler->labels, peers[i].group) : NULL;
		if (group)
			return (uint8_t)(120 - 4 * (31 - __builtin_clz(label_group_size(round->compiler->labels, group) + 1)));
		if (peers[i].prefix.length < width)
			width = peers[i].prefix.length;
	}
	return width;
}

static bool names_group(const struct peer *peers, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		if (peers[i].group)
			return true;
	return false;
}

/* The selector of these peers, which this round now looks at; made when there is none. 0: no memory. */
uint32_t selector_get(struct round *round, bool ports, const struct peer *peers, uint32_t n)
{
	struct tables *t = round->t;
	uint32_t hash = (uint32_t)hash_u64(peers_hash(peers, n), ports);
	struct class *class;
	uint32_t id = n ? 0 : SELECTOR_ANY;

	if (n && t->index_size)
		for (uint32_t i = hash & (t->index_size - 1); t->index[i]; i = (i + 1) & (t->index_size - 1)) {
			const struct peer *others;
			uint32_t n_others;

			class = &t->classes.data[t->index[i]];
			if (!(class->flags & CLASS_SELECTOR) || class_hash(class) != hash ||
				!(class->flags & CLASS_PORTS) == ports)
				continue;
			selector_peers(round, t->index[i], &others, &n_others);
			if (peers_equal(peers, n, others, n_others)) {
				id = t->index[i];
				break;
			}
		}
	if (!id) {
		id = class_new(round, hash);
		if (!id)
			return 0;
		class = &t->classes.data[id];
		class->hash = hash;
		class->flags = (uint8_t)(CLASS_SELECTOR | (names_group(peers, n) ? CLASS_GROUP : 0) | (ports ? CLASS_PORTS : 0));
		class->width = selector_width(round, ports, peers, n);
	}
	return selector_touch(round, id, peers, n) < 0 ? 0 : id;
}

int selector_touch(struct round *round, uint32_t id, const struct peer *peers, uint32_t n)
{
	const struct class *class = &round->t->classes.data[id];

	if (round->touch.data[id] & TOUCH_INDEX)
		return 0;
	if (VEC_PUSH(&round->touched, (struct touched){.selector = id,
					      .was = class->flags & CLASS_BLOCK || class->rules != NO_RULE,
					      .peers = peers,
					      .n_peers = n}) < 0)
		return -ENOMEM;
	round->touch.data[id] |= (uint32_t)round->touched.n;
	return 0;
}

/* --- class algebra --- */

/* The place of a selector in chains. A number of its own for each. */
uint64_t class_rank(const struct tables *t, uint32_t selector)
{
	return (uint64_t)t->classes.data[selector].width << 32 | selector;
}

static uint32_t chain_get(struct round *round, uint32_t parent, uint32_t selector)
{
	struct tables *t = round->t;
	uint32_t hash = chain_hash(parent, selector);
	struct class *class;
	uint32_t id;

	if (!parent)
		return selector;
	for (uint32_t i = hash & (t->index_size - 1); t->index[i]; i = (i + 1) & (t->index_size - 1)) {
		class = &t->classes.data[t->index[i]];
		if (class->flags & CLASS_CHAIN && class->parent == parent && class->selector == selector)
			return t->index[i];
	}
	id = class_new(round, hash);
	if (!id)
		return 0;
	class = &t->classes.data[id];
	class->parent = parent;
	class->selector = selector;
	class->flags = CLASS_CHAIN;
	return id;
}

/* Puts the selectors that were taken off the end back on. */
static int chain_append(struct round *round, uint32_t class, const uint32_t *selectors, size_t n, uint32_t *ret)
{
	while (n-- > 0) {
		class = chain_get(round, class, selectors[n]);
		if (!class)
			return -ENOMEM;
	}
	*ret = class;
	return 0;
}

/* The class with the selector (add) or without it. */
int class_change(struct round *round, uint32_t class, uint32_t selector, bool add, uint32_t *ret)
{
	struct tables *t = round->t;
	uint64_t wanted = class_rank(t, selector);
	uint32_t at = class;

	round->taken.n = 0;
	while (at && class_rank(t, CLASS_LAST(t, at)) > wanted) {
		if (VEC_PUSH(&round->taken, CLASS_LAST(t, at)) < 0)
			return -ENOMEM;
		at = CLASS_PARENT(t, at);
	}
	if (at && CLASS_LAST(t, at) == selector) {
		if (add) {
			*ret = class;
			return 0;
		}
		return chain_append(round, CLASS_PARENT(t, at), round->taken.data, round->taken.n, ret);
	}
	if (!add) {
		*ret = class;
		return 0;
	}
	at = chain_get(round, at, selector);
	return at ? chain_append(round, at, round->taken.data, round->taken.n, ret) : -ENOMEM;
}

/* (class without the selectors of minus) and those of plus, last one first. */
static int merge_chains(struct round *round, uint32_t class, uint32_t plus, uint32_t minus)
{
	const struct tables *t = round->t;

	round->taken.n = 0;
	while (class || plus) {
		uint64_t at = class ? class_rank(t, CLASS_LAST(t, class)) : 0,
			 add = plus ? class_rank(t, CLASS_LAST(t, plus)) : 0;
		uint32_t last = at > add ? CLASS_LAST(t, class) : CLASS_LAST(t, plus);
		bool gone = false;

		while (minus && class_rank(t, CLASS_LAST(t, minus)) > class_rank(t, last))
			minus = CLASS_PARENT(t, minus);
		if (at > add)
			gone = minus && CLASS_LAST(t, minus) == last;
		if (!gone && VEC_PUSH(&round->taken, last) < 0)
			return -ENOMEM;
		if (at >= add)
			class = CLASS_PARENT(t, class);
		if (add >= at)
			plus = CLASS_PARENT(t, plus);
	}
	return 0;
}

int class_transform(struct round *round, uint32_t class, uint32_t plus, uint32_t minus, uint32_t *ret)
{
	uint32_t slot = (class * 31 + plus * 7 + minus) % ARRAY_N(round->memo), to = plus;
	int r = 0;

	if (round->memo[slot].from == class && round->memo[slot].plus == plus && round->memo[slot].minus == minus &&
		(plus | minus)) {
		*ret = round->memo[slot].to;
		return 0;
	}
	/* The chain is made at once: made selector by selector it would leave a trail of others. */
	if (class) {
		r = merge_chains(round, class, plus, minus);
		if (r == 0)
			r = chain_append(round, 0, round->taken.data, round->taken.n, &to);
	}
	if (r < 0)
		return r;
	round->memo[slot].from = class;
	round->memo[slot].plus = plus;
	round->memo[slot].minus = minus;
	round->memo[slot].to = *ret = to;
	return 0;
}

/* One of its selectors has other rules than before, or belongs to other sets. */
bool class_dirty(struct round *round, uint32_t id)
{
	struct tables *t = round->t;
	bool dirty = false;

	/* What was found out stays noted along the chain, so all of them together cost their number, not their length. */
	round->taken.n = 0;
	for (uint32_t at = id; at; at = CLASS_PARENT(t, at)) {
		if (round->touch.data[at] & TOUCH_CLEAN)
			break;
		if (round->touch.data[at] & TOUCH_DIRTY || round->touch.data[CLASS_LAST(t, at)] & TOUCH_DIRTY) {
			dirty = true;
			break;
		}
	}
	for (uint32_t at = id; at; at = CLASS_PARENT(t, at)) {
		if (round->touch.data[at] & (TOUCH_CLEAN | TOUCH_DIRTY) || round->touch.data[CLASS_LAST(t, at)] & TOUCH_DIRTY)
			break;
		round->touch.data[at] |= dirty ? TOUCH_DIRTY : TOUCH_CLEAN;
	}
	return dirty;
}
