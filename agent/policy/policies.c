/* SPDX-License-Identifier: Apache-2.0 */
/* Policies: what changed in each, the orders and the ids of its rules. */
#include <stdio.h>

#include <util/cleanup.h>
#include <util/hash.h>

#include <policy/internal.h>

/* --- comparing --- */

static bool text_equal(const char *a, const char *b)
{
	return a == b || (a && b && strcmp(a, b) == 0);
}

static bool ports_equal(const struct port_range *a, const struct port_range *b, uint32_t n)
{
	if (a == b)
		return true;
	for (uint32_t i = 0; i < n; i++)
		if (a[i].protocol != b[i].protocol || a[i].first != b[i].first || a[i].last != b[i].last)
			return false;
	return true;
}

static bool extra_equal(const struct rule_extra *a, const struct rule_extra *b)
{
	static const struct rule_extra none;

	a = a ? a : &none;
	b = b ? b : &none;
	if (a->n_icmp != b->n_icmp || a->n_source_ports != b->n_source_ports ||
		!ports_equal(a->source_ports, b->source_ports, a->n_source_ports))
		return false;
	return a->n_icmp == 0 || memcmp(a->icmp, b->icmp, a->n_icmp * sizeof(*a->icmp)) == 0; /* bytes only: no padding */
}
static_assert(sizeof(struct icmp_match) == 5, "compared as bytes");

static bool rule_equal(const struct rule *a, const struct rule *b)
{
	return a->verdict == b->verdict && a->log == b->log && a->n_ports == b->n_ports && text_equal(a->name, b->name) &&
	       ports_equal(a->ports, b->ports, a->n_ports) && extra_equal(a->extra, b->extra) &&
	       peers_equal(a->peers, a->n_peers, b->peers, b->n_peers);
}

int policy_cmp(const void *a, const void *b)
{
	return policy_compare(*(struct object *const *)a, *(struct object *const *)b);
}

/* --- rule ids --- */

static uint64_t ports_hash(uint64_t hash, const struct port_range *ports, uint32_t n)
{
	hash = hash_u64(hash, n);
	for (uint32_t i = 0; i < n; i++)
		hash = hash_u64(hash, (uint64_t)ports[i].protocol << 32 | (uint32_t)ports[i].first << 16 | ports[i].last);
	return hash;
}

/* hd_rule_info.key: it must come out the same in every version of the agent, since it stays in the pinned map. */
static uint64_t rule_key(uint64_t seed, const struct rule *rule, uint32_t index)
{
	uint64_t hash = hash_string(seed, rule->name);

	if (!rule->name) {
		hash = hash_u64(hash, (uint64_t)index << 16 | (uint64_t)rule->verdict << 8 | rule->log);
		hash = hash_u64(hash, peers_hash(rule->peers, rule->n_peers));
		hash = ports_hash(hash, rule->ports, rule->n_ports);
		if (rule->extra) {
			hash = ports_hash(hash, rule->extra->source_ports, rule->extra->n_source_ports);
			hash = hash_bytes(hash, rule->extra->icmp, rule->extra->n_icmp * sizeof(*rule->extra->icmp));
		}
	}
	return hash ? hash : 1;
}

struct keyed {
	uint64_t key;
	uint32_t id; /* 0: none yet */
};

static uint64_t workload_rule_key(uint64_t seed, const struct policy_rule *rule, uint32_t index)
{
	uint64_t hash = hash_string(seed, rule->name);

	if (!rule->name)
		hash = policy_rule_hash(hash_u64(hash, index), rule);
	return hash ? hash : 1;
}

/* The keys of a policy's rules of one direction. Rules of the same name are told apart by their sequence. */
static void rule_keys(const struct prepared *prepared, int direction, struct keyed *keys, uint32_t *table, uint32_t table_size)
{
	const struct object *object = prepared->object;
	const struct rule *rules = prepared->expanded ? NULL : object_rules(object, (enum hd_direction)direction);
	uint64_t seed = hash_u64(hash_string(hash_string(0, object->name), object->namespace_), (uint64_t)direction);

	/* Of a HostPolicy the key has no kind: it was the only one when this was laid down. */
	if (prepared->expanded)
		seed = hash_string(seed, object_kind_name(object->kind));
	memset(table, 0, table_size * sizeof(*table));
	for (uint32_t i = 0; i < prepared_listed(prepared, direction); i++) {
		uint64_t key =
			rules ? rule_key(seed, &rules[i], i) : workload_rule_key(seed, &object->workload.rules[direction][i], i);
		uint32_t slot;

		for (;;) {
			slot = (uint32_t)(key >> 32) & (table_size - 1);
			while (table[slot] && keys[table[slot] - 1].key != key)
				slot = (slot + 1) & (table_size - 1);
			if (!table[slot])
				break;
			key = hash_u64(key, 1) | 1;
		}
		keys[i] = (struct keyed){.key = key};
		table[slot] = i + 1;
	}
}

static uint32_t table_size(uint32_t n)
{
	uint32_t size = 8;

	while (size < n * 2)
		size *= 2;
	return size;
}

static int adopted_cmp(const void *a, const void *b)
{
	const struct adopted *x = a, *y = b;

	if (x->key != y->key)
		return x->key < y->key ? -1 : 1;
	return x->id < y->id ? -1 : x->id > y->id;
}

static uint32_t adopt(struct compiler *compiler, uint64_t key)
{
	size_t low = 0, high = compiler->adopted.n;

	if (!compiler->adopted_sorted && high) {
		qsort(compiler->adopted.data, high, sizeof(*compiler->adopted.data), adopted_cmp);
		compiler->adopted_sorted = true;
	}
	while (low < high) {
		size_t middle = (low + high) / 2;

		if (compiler->adopted.data[middle].key < key)
			low = middle + 1;
		else
			high = middle;
	}
	for (; low < compiler->adopted.n && compiler->adopted.data[low].key == key; low++)
		if (!compiler->adopted.data[low].claimed) {
			compiler->adopted.data[low].claimed = true;
			return compiler->adopted.data[low].id;
		}
	return 0;
}

static void rule_info(const struct prepared *prepared, int direction, uint32_t index, uint64_t key, struct hd_rule_info *ret)
{
	const struct object *object = prepared->object;
	const char *name;

	*ret = (struct hd_rule_info){.key = key, .index = index, .direction = (uint8_t)direction};
	if (prepared->expanded) {
		const struct policy_rule *rule = &object->workload.rules[direction][index];

		ret->verdict = rule->action == POLICY_DENY ? HD_DENY : HD_ALLOW;
		name = rule->name;
	} else {
		const struct rule *rule = &object_rules(object, (enum hd_direction)direction)[index];

		ret->verdict = rule->verdict;
		ret->log = rule->log;
		name = rule->name;
	}
	snprintf(ret->policy, sizeof(ret->policy), "%s%s%s", object->namespace_ ? object->namespace_ : "",
		object->namespace_ ? "/" : "", object->name);
	if (name)
		strncpy(ret->name, name, sizeof(ret->name) - 1);
}

/* What rule_info() says of both is the same, but for the key. */
static bool same_info(const struct prepared *a, uint32_t i, const struct prepared *b, uint32_t j, int direction)
{
	if (i != j)
		return false;
	if (a->expanded)
		return a->object->workload.rules[direction][i].action == b->object->workload.rules[direction][j].action;
	const struct rule *before = &object_rules(a->object, (enum hd_direction)direction)[i];
	const struct rule *after = &object_rules(b->object, (enum hd_direction)direction)[j];

	return before->verdict == after->verdict && before->log == after->log;
}

/* Gives the rules of one direction their ids: those of the same rules before, of an earlier agent, or new ones. */
static int assign_ids(struct round *round, const struct prepared *old, struct prepared *new, int direction)
{
	uint32_t n_old = old ? prepared_listed(old, direction) : 0, n_new = new ? prepared_listed(new, direction) : 0,
		 size = table_size(n_old > n_new ? n_old : n_new);
	_cleanup_free_ struct keyed *old_keys = calloc(n_old + 1, sizeof(*old_keys));
	_cleanup_free_ struct keyed *new_keys = malloc((n_new + 1) * sizeof(*new_keys));
	_cleanup_free_ uint32_t *table = malloc(size * sizeof(*table));
	struct rule_write write;
	int r = 0;

	if (!old_keys || !new_keys || !table)
		return -ENOMEM;
	if (new)
		rule_keys(new, direction, new_keys, table, size);
	if (old)
		rule_keys(old, direction, old_keys, table, size); /* the table is now that of the old ones */
	for (uint32_t i = 0; i < n_new && r == 0; i++) {
		uint32_t slot = (uint32_t)(new_keys[i].key >> 32) & (size - 1), id = 0;
		bool reset = false, changed = true;

		while (old && table[slot] && old_keys[table[slot] - 1].key != new_keys[i].key)
			slot = (slot + 1) & (size - 1);
		if (old && table[slot]) {
			uint32_t j = table[slot] - 1;

			id = old->ids[direction][j];
			old_keys[j].id = id;
			changed = !same_info(old, j, new, i, direction);
		} else if (round->first && (id = adopt(round->compiler, new_keys[i].key))) {
			round->t->ids_live++;
		} else {
			id = rule_id_new(round->t, &reset);
			if (!id)
				return -ENOMEM;
			reset = reset || round->compiler->inherits;
		}
		new->ids[direction][i] = id;
		round->t->rule_order.data[id] = new->base[direction] + i;
		if (!changed)
			continue;
		write = (struct rule_write){.id = id, .reset = reset};
		rule_info(new, direction, i, new_keys[i].key, &write.info);
		r = VEC_PUSH(&round->rules, write);
	}
	for (uint32_t j = 0; j < n_old && r == 0; j++) {
		if (old_keys[j].id)
			continue;
		rule_id_retire(round->t, old->ids[direction][j]);
		r = VEC_PUSH(&round->rules, (struct rule_write){.id = old->ids[direction][j]});
	}
	return r;
}

/* --- the difference of two versions --- */

static int note(struct round *round, const struct prepared *prepared, int direction, uint32_t index, bool add)
{
	const struct rule *rule = prepared_rule(prepared, direction, index);
	uint32_t selector = selector_get(round, prepared->expanded, rule->peers, rule->n_peers);

	if (!selector)
		return -ENOMEM;
	round->touch.data[selector] |= TOUCH_DIRTY;
	return VEC_PUSH(&round->changes,
		(struct change){.key = (uint64_t)selector << 32 | (prepared->base[direction] + index), .add = add});
}

static void mark_sets(struct round *round, const struct prepared *prepared, int direction, uint8_t flags)
{
	for (uint32_t i = 0; i < prepared->member.n_pairs[direction]; i++)
		round->sets.data[SET_ID(prepared->member.pairs[direction][i], direction)] |= flags;
}

static bool same_pairs(const uint16_t *a, uint32_t n_a, const uint16_t *b, uint32_t n_b)
{
	return n_a == n_b && (n_a == 0 || memcmp(a, b, n_a * sizeof(*a)) == 0);
}

static bool same_members(const struct membership *a, const struct membership *b)
{
	for (int d = 0; d < HD_DIRECTIONS; d++)
		if (!same_pairs(a->pairs[d], a->n_pairs[d], b->pairs[d], b->n_pairs[d]))
			return false;
	if (a->n_limited != b->n_limited)
		return false;
	for (uint32_t i = 0; i < a->n_limited; i++)
		if (a->limited[i].rule != b->limited[i].rule ||
			!same_pairs(a->limited[i].pairs, a->limited[i].n, b->limited[i].pairs, b->limited[i].n))
			return false;
	return true;
}

/* The rule says the same, to the same of the policy's sets. */
static bool same_rule(const struct prepared *old, const struct prepared *new, int direction, uint32_t index)
{
	const struct limited *a = rule_limited(old, direction, index), *b = rule_limited(new, direction, index);

	if (!a != !b || (a && !same_pairs(a->pairs, a->n, b->pairs, b->n)))
		return false;
	if (prepared_audit(old) != prepared_audit(new) ||
		(old->expanded && old->expanded->rules[direction][index].source != new->expanded->rules[direction][index].source))
		return false;
	return rule_equal(prepared_rule(old, direction, index), prepared_rule(new, direction, index));
}

/* The policy came to some sets and went from others: to these it means something else, to the rest it does not. */
static void mark_comers(struct round *round, const struct prepared *old, const struct prepared *new, int direction, uint8_t flags)
{
	const struct membership *x = &old->member, *y = &new->member;

	for (uint32_t i = 0, j = 0; i < x->n_pairs[direction] || j < y->n_pairs[direction];) {
		uint32_t a = i < x->n_pairs[direction] ? x->pairs[direction][i] : UINT32_MAX;
		uint32_t b = j < y->n_pairs[direction] ? y->pairs[direction][j] : UINT32_MAX;

		if (a != b)
			round->sets.data[SET_ID(a < b ? a : b, direction)] |= flags;
		i += a <= b;
		j += b <= a;
	}
}

/* Notes what becomes of each rule of one direction. old or new may be NULL. moved: judged before or after other policies now.
 * *ret_same: the document's rules are the same ones, whatever their orders. */
static int compare_rules(
	struct round *round, const struct prepared *old, const struct prepared *new, int direction, bool moved, bool *ret_same)
{
	uint32_t n_old = old ? prepared_rules(old, direction) : 0, n_new = new ? prepared_rules(new, direction) : 0;
	bool meaning = moved || !old || !new || n_old != n_new, any = false, changed = false, different = false, sets;
	int r = 0;

	sets = old && new &&
	       !same_pairs(old->member.pairs[direction], old->member.n_pairs[direction], new->member.pairs[direction],
		       new->member.n_pairs[direction]);
	for (uint32_t i = 0; i < (n_old > n_new ? n_old : n_new) && r == 0; i++) {
		bool before = i < n_old, after = i < n_new, equal = before && after && same_rule(old, new, direction, i);

		if (!equal)
			meaning = different = true;
		if (equal && old->base[direction] == new->base[direction] && !sets)
			continue;
		changed = true;
		if ((before && prepared_rule(old, direction, i)->n_peers == 0) ||
			(after && prepared_rule(new, direction, i)->n_peers == 0))
			any = true;
		if (before)
			r = note(round, old, direction, i, false);
		if (after && r == 0)
			r = note(round, new, direction, i, true);
	}
	*ret_same = old && new && (new->expanded ? old->object == new->object : n_old == n_new && !different);
	if (n_old + n_new == 0)
		return r;
	if (meaning || changed) {
		uint8_t flags = (uint8_t)(SET_TOUCHED | (any ? SET_ANY : 0) | (meaning ? SET_MEANING : 0));

		if (sets)
			mark_comers(round, old, new, direction, flags | SET_MEANING);
		if (sets && !meaning && old->base[direction] == new->base[direction])
			return r;
		if (old)
			mark_sets(round, old, direction, flags);
		if (new)
			mark_sets(round, new, direction, flags);
	}
	return r;
}

/* --- orders --- */

static uint32_t span_for(size_t n)
{
	uint32_t span = 16;

	/* Room to grow by half. */
	while (span < n + n / 2)
		span *= 2;
	return span;
}

static uint64_t span_both(const struct prepared *prepared)
{
	return (uint64_t)prepared->span[HD_INGRESS] + prepared->span[HD_EGRESS];
}

static void place(struct prepared *prepared, uint64_t base)
{
	prepared->base[HD_INGRESS] = (uint32_t)base;
	prepared->base[HD_EGRESS] = (uint32_t)base + prepared->span[HD_INGRESS];
}

#define ORDER_GAP (1u << 20) /* left at the open ends, where policies are likely to be added */

/* Gives the policies [from, to) orders between those of their neighbours. False: there is no room. */
static bool place_run(struct prepared **policies, size_t n, size_t from, size_t to)
{
	uint64_t low = from ? policies[from - 1]->base[HD_INGRESS] + span_both(policies[from - 1]) : ORDER_FIRST;
	uint64_t high = to < n ? policies[to]->base[HD_INGRESS] : ORDER_END, total = 0, gap;

	for (size_t i = from; i < to; i++)
		total += span_both(policies[i]);
	if (high < low || high - low < total)
		return false;
	gap = (high - low - total) / (to - from + 1);
	if (gap > ORDER_GAP && (from == 0) != (to == n)) {
		gap = ORDER_GAP;
		if (from == 0)
			low = high - total - gap * (to + 1);
	}
	low += gap;
	for (size_t i = from; i < to; i++) {
		place(policies[i], low);
		low += span_both(policies[i]) + gap;
	}
	return true;
}

/* --- matching the policies with those before --- */

struct match {
	struct prepared *old; /* NULL: none */
	struct prepared *new; /* == old: nothing changed */
	bool moved;	      /* it is judged at another place than before */
};

static int by_name_cmp(const void *a, const void *b)
{
	return object_compare((*(struct prepared *const *)a)->object, (*(struct prepared *const *)b)->object);
}

/* Finds the old version of each policy. *ret_gone: the old ones that have no new version. */
static int match_policies(struct round *round, struct match *matches, struct prepared ***ret_gone, size_t *ret_n_gone)
{
	struct tables *t = round->t;
	size_t n = round->new_policies.n, n_gone = 0, n_left = 0, i = 0, j = 0;
	struct prepared **gone = malloc((t->policies.n + 1) * sizeof(struct prepared *));

	if (!gone)
		return -ENOMEM;
	while (i < n || j < t->policies.n) {
		int c = i == n		     ? 1
			: j == t->policies.n ? -1
					     : policy_cmp(&round->new_policies.data[i], &t->policies.data[j]->object);

		if (c == 0)
			matches[i].old = t->policies.data[j];
		if (c > 0)
			gone[n_gone++] = t->policies.data[j];
		i += c <= 0;
		j += c >= 0;
	}
	if (n_gone)
		qsort(gone, n_gone, sizeof(struct prepared *), by_name_cmp);
	for (i = 0; i < n && n_gone; i++) {
		struct prepared like = {.object = round->new_policies.data[i]}, *key = &like, **found;

		if (matches[i].old)
			continue;
		found = bsearch(&key, gone, n_gone, sizeof(struct prepared *), by_name_cmp);
		if (!found || (*found)->matched)
			continue;
		matches[i].old = *found;
		matches[i].moved = true;
		(*found)->matched = true;
	}
	for (i = 0; i < n_gone; i++) {
		if (!gone[i]->matched)
			gone[n_left++] = gone[i];
		gone[i]->matched = false;
	}
	*ret_gone = gone;
	*ret_n_gone = n_left;
	return 0;
}

static int prepare(struct round *round, struct object *object, struct expanded *expanded, const struct prepared *like,
	const struct membership *member, struct prepared **ret)
{
	struct prepared *prepared = prepared_new(object, expanded, member);

	if (!prepared || VEC_PUSH(&round->made, prepared) < 0) {
		if (prepared)
			prepared_free(prepared);
		return -ENOMEM;
	}
	for (int d = 0; d < HD_DIRECTIONS; d++) {
		uint32_t n = prepared_rules(prepared, d), listed = prepared_listed(prepared, d);

		prepared->span[d] = span_for(n > listed ? n : listed);
		if (like && prepared->span[d] < like->span[d])
			prepared->span[d] = like->span[d];
	}
	*ret = prepared;
	return 0;
}

/* New versions of the policies that changed, with their orders. */
static int prepare_policies(struct round *round, struct match *matches, struct prepared **policies)
{
	size_t n = round->new_policies.n;
	bool renumber = false;
	int r;

	for (size_t i = 0; i < n; i++) {
		struct object *object = round->new_policies.data[i];
		struct expanded *expanded = round->expanded.data[i];
		struct prepared *old = matches[i].old;
		struct membership member;

		r = policy_members(round, i, &member);
		if (r < 0)
			return r;
		if (old && !matches[i].moved && old->object == object && old->expanded == expanded &&
			same_members(&old->member, &member)) {
			policies[i] = matches[i].new = old;
			continue;
		}
		r = prepare(round, object, expanded, matches[i].moved ? NULL : old, &member, &matches[i].new);
		if (r < 0)
			return r;
		policies[i] = matches[i].new;
		if (old && !matches[i].moved && old->span[HD_INGRESS] == policies[i]->span[HD_INGRESS] &&
			old->span[HD_EGRESS] == policies[i]->span[HD_EGRESS])
			place(policies[i], old->base[HD_INGRESS]);
	}
	for (size_t i = 0, j; i < n && !renumber; i = j) {
		for (j = i; j < n && policies[j]->base[HD_INGRESS] == 0; j++)
			;
		if (j > i)
			renumber = !place_run(policies, n, i, j);
		else
			j++;
	}
	if (!renumber)
		return 0;
	/* The gap here is used up: all policies get new orders, evenly spread, and every tree is written again. No version changes. */
	for (size_t i = 0; i < n; i++) {
		if (matches[i].new == matches[i].old) {
			r = prepare(round, matches[i].old->object, matches[i].old->expanded, NULL, &matches[i].old->member,
				&matches[i].new);
			if (r < 0)
				return r;
		}
		policies[i] = matches[i].new;
	}
	if (place_run(policies, n, 0, n))
		return 0;
	diag_add(round->diag, NULL, 0, NULL,
		"more rules than there are orders for (4 thousand million, with room for each policy to grow)");
	return -E2BIG;
}

static void copy_ids(struct round *round, const struct match *match, int direction)
{
	struct prepared *new = match->new;

	for (uint32_t i = 0; i < prepared_listed(new, direction); i++) {
		new->ids[direction][i] = match->old->ids[direction][i];
		round->t->rule_order.data[new->ids[direction][i]] = new->base[direction] + i;
	}
}

static int compare_policy(struct round *round, const struct match *match)
{
	for (int d = 0; d < HD_DIRECTIONS; d++) {
		bool same;
		int r = compare_rules(round, match->old, match->new, d, match->moved, &same);

		if (r < 0)
			return r;
		if (same)
			copy_ids(round, match, d);
		else
			r = assign_ids(round, match->old, match->new, d);
		if (r < 0)
			return r;
	}
	return 0;
}

/* Rules of an earlier agent that nobody has any more. */
static int drop_unclaimed(struct round *round)
{
	struct compiler *compiler = round->compiler;

	for (size_t i = 0; i < compiler->adopted.n; i++) {
		if (compiler->adopted.data[i].claimed)
			continue;
		round->t->ids_live++; /* retiring takes it back */
		rule_id_retire(round->t, compiler->adopted.data[i].id);
		if (VEC_PUSH(&round->rules, (struct rule_write){.id = compiler->adopted.data[i].id}) < 0)
			return -ENOMEM;
	}
	return 0;
}

/* Says what the ids of one direction mean, those that are marked. */
static int retell(struct round *round, const struct prepared *prepared, int direction, bool *marked)
{
	uint32_t n = prepared_listed(prepared, direction), size = table_size(n);
	_cleanup_free_ struct keyed *keys = NULL;
	_cleanup_free_ uint32_t *table = NULL;
	struct rule_write write = {0};

	for (uint32_t i = 0; i < n; i++) {
		write.id = prepared->ids[direction][i];
		if (!marked[write.id])
			continue;
		if (!keys) {
			keys = malloc(n * sizeof(*keys));
			table = malloc(size * sizeof(*table));
			if (!keys || !table)
				return -ENOMEM;
			rule_keys(prepared, direction, keys, table, size);
		}
		marked[write.id] = false;
		rule_info(prepared, direction, i, keys[i].key, &write.info);
		if (VEC_PUSH(&round->rules, write) < 0)
			return -ENOMEM;
	}
	return 0;
}

/* What an aborted delta may have said of rule ids is said again as it is now. */
int tainted_rules_update(struct round *round)
{
	const struct tables *t = round->t;
	const u32_vec *tainted = &round->compiler->tainted_rules;
	_cleanup_free_ bool *marked = NULL;
	uint32_t end = (uint32_t)t->rule_order.n;
	int r = 0;

	if (tainted->n == 0)
		return 0;
	for (size_t i = 0; i < tainted->n; i++)
		if (tainted->data[i] >= end)
			end = tainted->data[i] + 1;
	marked = calloc(end, sizeof(*marked));
	if (!marked)
		return -ENOMEM;
	for (size_t i = 0; i < tainted->n; i++)
		marked[tainted->data[i]] = true;
	for (size_t i = 0; i < round->rules.n; i++)
		marked[round->rules.data[i].id] = false;
	for (size_t i = 0; i < t->policies.n && r == 0; i++)
		for (int d = 0; d < HD_DIRECTIONS && r == 0; d++)
			r = retell(round, t->policies.data[i], d, marked);
	for (uint32_t id = HD_RULE_FIRST; id < end && r == 0; id++)
		if (marked[id])
			r = VEC_PUSH(&round->rules, (struct rule_write){.id = id});
	return r;
}

/* From the policies before to those of the input: prepared policies, rule ids, and what changes for which selector. */
int policies_update(struct round *round)
{
	struct tables *t = round->t;
	size_t n = round->new_policies.n, n_gone = 0;
	_cleanup_free_ struct match *matches = calloc(n + 1, sizeof(*matches));
	_cleanup_free_ struct prepared **policies = calloc(n + 1, sizeof(struct prepared *));
	_cleanup_free_ struct prepared **gone = NULL;
	int r;

	if (!matches || !policies)
		return -ENOMEM;
	r = match_policies(round, matches, &gone, &n_gone);
	if (r == 0)
		r = prepare_policies(round, matches, policies);
	for (size_t i = 0; i < n && r == 0; i++)
		if (matches[i].new != matches[i].old)
			r = compare_policy(round, &matches[i]);
	for (size_t i = 0; i < n_gone && r == 0; i++)
		r = compare_policy(round, &(struct match){.old = gone[i]});
	if (r == 0 && round->first)
		r = drop_unclaimed(round);
	if (r == 0)
		r = VEC_RESERVE(&t->policies, n);
	if (r < 0)
		return r;
	if (n)
		memcpy(t->policies.data, policies, n * sizeof(struct prepared *));
	t->policies.n = n;
	return 0;
}
