/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ports: their identities (those of peers: peers.c), and which of them share a pair of policy sets. Identities that the same policies select are found by splitting
 * them policy by policy, so no two lists are ever compared: that costs the number of selections, not of pairs of ports.
 */
#include <util/cleanup.h>
#include <util/hash.h>

#include <policy/internal.h>

/* --- ports and their identities --- */

static int object_cmp(const void *a, const void *b)
{
	return object_compare(*(struct object *const *)a, *(struct object *const *)b);
}

struct object *namespace_find(const struct round *round, const char *name)
{
	size_t low = 0, high = round->new_namespaces.n;

	while (low < high) {
		size_t middle = (low + high) / 2;
		int c = strcmp(name, round->new_namespaces.data[middle]->name);

		if (c == 0)
			return round->new_namespaces.data[middle];
		if (c < 0)
			high = middle;
		else
			low = middle + 1;
	}
	return NULL;
}

int endpoint_cmp(const void *a, const void *b)
{
	const struct endpoint *x = a, *y = b;

	if (x->network != y->network)
		return x->network < y->network ? -1 : 1;
	return memcmp(&x->addr, &y->addr, sizeof(x->addr));
}

/* Sorts, and leaves an address that several ports claim to the first of them. */
static void sort_endpoints(struct tables *t)
{
	size_t kept = 0;

	if (t->endpoints.n)
		qsort(t->endpoints.data, t->endpoints.n, sizeof(*t->endpoints.data), endpoint_cmp);
	for (size_t i = 0; i < t->endpoints.n; i++)
		if (i == 0 || endpoint_cmp(&t->endpoints.data[kept - 1], &t->endpoints.data[i]) != 0)
			t->endpoints.data[kept++] = t->endpoints.data[i];
	t->endpoints.n = kept;
}

/* Puts the ports of the input into the tables: who they are, and where. */
int ports_update(struct round *round)
{
	struct tables *t = round->t;
	size_t n = round->new_ports.n;
	int r = VEC_RESERVE(&t->ports, n);

	if (n)
		qsort(round->new_ports.data, n, sizeof(struct object *), object_cmp);
	if (round->new_namespaces.n)
		qsort(round->new_namespaces.data, round->new_namespaces.n, sizeof(struct object *), object_cmp);
	if (r < 0)
		return r;
	t->ports.n = t->endpoints.n = 0;
	round->ports_referenced = true;
	for (size_t i = 0; i < n; i++) {
		struct object *object = round->new_ports.data[i];
		struct object *namespace_ = namespace_find(round, object->namespace_);
		const struct workload workload = workload_of_port(object);
		struct identity *identity = labels_identity(round->compiler->labels, &workload, namespace_);
		int network = network_of(t, object->port.network);

		if (!identity)
			return -ENOMEM;
		identity->used = true;
		if (network < 0) {
			diag_add(round->diag, object->file, object->line, "spec.network", "want a Network, got %s",
				object->port.network);
			return -EINVAL;
		}
		t->ports.data[t->ports.n++] = (struct port_entry){.object = object_ref(object),
			.identity = identity,
			.network = (uint16_t)network,
			.pair = NO_PAIR,
			.pass = NO_PAIR};
		for (size_t j = 0; j < object->port.n_addresses; j++)
			if (VEC_PUSH(&t->endpoints, (struct endpoint){.network = (uint16_t)network,
							    .addr = object->port.addresses[j],
							    .identity = identity}) < 0)
				return -ENOMEM;
	}
	sort_endpoints(t);
	return 0;
}

/* --- what the policies for ports say --- */

/* What named ports and nodes stand for may have changed without the policy. */
static bool is_expanded(struct round *round, const struct prepared *old, struct policy_hosts *hosts)
{
	const struct expanded *expanded = old->expanded;

	return (!expanded->named || expanded->named_version == labels_named_version(round->compiler->labels)) &&
	       (!expanded->nodes || expanded->hosts_version == policy_hosts_version(hosts));
}

static int expand_all(struct round *round)
{
	struct policy_hosts hosts = {.items = round->new_hosts.data, .n = round->new_hosts.n};
	const struct tables *t = round->t;
	size_t n = round->new_policies.n, j = 0;
	int r = VEC_RESERVE(&round->expanded, n);

	for (size_t i = 0; i < n && r == 0; i++) {
		struct object *object = round->new_policies.data[i];
		struct expanded *expanded = NULL;
		int c = -1;

		while (j < t->policies.n && (c = policy_compare(t->policies.data[j]->object, object)) < 0)
			j++;
		if (policy_for_ports(object)) {
			const struct prepared *old = j < t->policies.n && c == 0 ? t->policies.data[j] : NULL;

			if (old && old->object == object && is_expanded(round, old, &hosts))
				expanded = expanded_ref(old->expanded);
			else
				r = expand_policy(round->compiler->labels, &hosts, object, &expanded);
		}
		if (r == 0)
			round->expanded.data[round->expanded.n++] = expanded;
	}
	return r;
}

/* --- splitting --- */

/* Identities that are alike in everything so far are in one block. */
struct blocks {
	uint32_t *of; /* by identity number */
	uint32_t *size, *stamp, *fresh;
	u32_vec empty, touched;
	uint32_t n, step;
};

/* What has one pair: a block under all its policies, or under those after the admin tier. */
struct entity {
	uint64_t key;
	uint32_t pair, stamp, limit_stamp;
	uint8_t isolation[HD_DIRECTIONS];
};

struct port_sets {
	uint32_t n_identities;
	uint64_t *live;
	struct blocks blocks;
	uint32_t *tail, *full; /* by identity: blocks */
	uint32_t *main, *pass; /* by identity: entities; NO_PAIR: none */
	VEC(struct entity) entities;
	u32_vec members, offsets; /* by index in new_policies: its entities */
};

void port_sets_free(struct port_sets *sets)
{
	if (!sets)
		return;
	free(sets->live);
	free(sets->blocks.of);
	free(sets->blocks.size);
	free(sets->blocks.stamp);
	free(sets->blocks.fresh);
	VEC_FREE(&sets->blocks.empty);
	VEC_FREE(&sets->blocks.touched);
	free(sets->tail);
	free(sets->full);
	free(sets->main);
	free(sets->pass);
	VEC_FREE(&sets->entities);
	VEC_FREE(&sets->members);
	VEC_FREE(&sets->offsets);
	free(sets);
}

static struct port_sets *port_sets_new(uint32_t n)
{
	struct port_sets *sets = calloc(1, sizeof(*sets));
	size_t room = (size_t)n * 2 + 2; /* of a split there is at most one new block for each old one */

	if (!sets)
		return NULL;
	sets->n_identities = n;
	sets->live = calloc(n / 64 + 1, sizeof(*sets->live));
	sets->blocks.of = calloc(n + 1, sizeof(uint32_t));
	sets->blocks.size = calloc(room, sizeof(uint32_t));
	sets->blocks.stamp = calloc(room, sizeof(uint32_t));
	sets->blocks.fresh = calloc(room, sizeof(uint32_t));
	sets->tail = calloc(n + 1, sizeof(uint32_t));
	sets->full = calloc(n + 1, sizeof(uint32_t));
	sets->main = calloc(n + 1, sizeof(uint32_t));
	sets->pass = calloc(n + 1, sizeof(uint32_t));
	if (!sets->live || !sets->blocks.of || !sets->blocks.size || !sets->blocks.stamp || !sets->blocks.fresh || !sets->tail ||
		!sets->full || !sets->main || !sets->pass) {
		port_sets_free(sets);
		return NULL;
	}
	return sets;
}

static uint32_t next_live(const struct port_sets *sets, const uint64_t *bits, uint32_t from)
{
	for (uint32_t word = from / 64; word * 64 < sets->n_identities; word++) {
		uint64_t found = (bits ? bits[word] : ~0ull) & sets->live[word];

		if (word == from / 64)
			found &= ~0ull << from % 64;
		if (found)
			return word * 64 + (uint32_t)__builtin_ctzll(found);
	}
	return NO_PAIR;
}
/* Identities in use that the bits have; bits NULL: all. */
#define FOR_EACH_LIVE(i, sets, bits) for (uint32_t i = next_live(sets, bits, 0); i != NO_PAIR; i = next_live(sets, bits, i + 1))

/* Takes the identities that the group covers out of their blocks, into blocks of their own. */
static int split(struct port_sets *sets, const struct label_group *group)
{
	struct blocks *b = &sets->blocks;

	b->step++;
	b->touched.n = 0;
	FOR_EACH_LIVE(i, sets, group->bits)
	{
		uint32_t from = b->of[i];

		if (b->stamp[from] != b->step) {
			b->stamp[from] = b->step;
			b->fresh[from] = b->empty.n ? b->empty.data[--b->empty.n] : b->n++;
			b->size[b->fresh[from]] = 0;
			if (VEC_PUSH(&b->touched, from) < 0)
				return -ENOMEM;
		}
		b->size[from]--;
		b->of[i] = b->fresh[from];
		b->size[b->of[i]]++;
	}
	for (size_t i = 0; i < b->touched.n; i++)
		if (b->size[b->touched.data[i]] == 0 && VEC_PUSH(&b->empty, b->touched.data[i]) < 0)
			return -ENOMEM;
	return 0;
}

static int split_by_policy(struct port_sets *sets, const struct expanded *expanded)
{
	int r = split(sets, expanded->subject);

	for (uint32_t i = 0; i < expanded->n_rules[HD_INGRESS] && r == 0; i++)
		if (expanded->rules[HD_INGRESS][i].subjects)
			r = split(sets, expanded->rules[HD_INGRESS][i].subjects);
	return r;
}

static int split_all(struct round *round, struct port_sets *sets)
{
	const struct tables *t = round->t;
	int r = 0;

	for (size_t i = 0; i < t->ports.n; i++) {
		uint32_t number = t->ports.data[i].identity->number;
		uint64_t bit = 1ull << number % 64;

		sets->blocks.size[0] += !(sets->live[number / 64] & bit);
		sets->live[number / 64] |= bit;
	}
	sets->blocks.n = 1;
	for (size_t i = 0; i < round->expanded.n && r == 0; i++)
		if (round->expanded.data[i] && round->expanded.data[i]->tier != TIER_ADMIN)
			r = split_by_policy(sets, round->expanded.data[i]);
	memcpy(sets->tail, sets->blocks.of, sets->n_identities * sizeof(uint32_t));
	for (size_t i = 0; i < round->expanded.n && r == 0; i++)
		if (round->expanded.data[i] && round->expanded.data[i]->tier == TIER_ADMIN)
			r = split_by_policy(sets, round->expanded.data[i]);
	memcpy(sets->full, sets->blocks.of, sets->n_identities * sizeof(uint32_t));
	return r;
}

/* --- entities --- */

static int entity_get(struct port_sets *sets, uint32_t *of_block, uint32_t *ret)
{
	if (*of_block == NO_PAIR) {
		*of_block = (uint32_t)sets->entities.n;
		if (VEC_PUSH(&sets->entities, (struct entity){.key = 1, .pair = NO_PAIR}) < 0)
			return -ENOMEM;
	}
	*ret = *of_block;
	return 0;
}

enum { BLOCK_ADMIN = 1, BLOCK_PASS = 2 };

static int make_entities(struct round *round, struct port_sets *sets)
{
	size_t room = (size_t)sets->n_identities * 2 + 2;
	_cleanup_free_ uint8_t *flags = calloc(room, sizeof(*flags));
	_cleanup_free_ uint32_t *of_tail = malloc(room * sizeof(*of_tail)), *of_full = malloc(room * sizeof(*of_full));
	int r = 0;

	if (!flags || !of_tail || !of_full)
		return -ENOMEM;
	memset(of_tail, 0xff, room * sizeof(*of_tail));
	memset(of_full, 0xff, room * sizeof(*of_full));
	for (size_t p = 0; p < round->expanded.n; p++) {
		const struct expanded *expanded = round->expanded.data[p];

		if (!expanded || expanded->tier != TIER_ADMIN)
			continue;
		FOR_EACH_LIVE(i, sets, expanded->subject->bits)
		flags[sets->full[i]] |=
			(uint8_t)(BLOCK_ADMIN | (expanded->passes[HD_INGRESS] || expanded->passes[HD_EGRESS] ? BLOCK_PASS : 0));
	}
	FOR_EACH_LIVE(i, sets, NULL)
	{
		uint8_t is = flags[sets->full[i]];

		sets->pass[i] = NO_PAIR;
		if (is & BLOCK_ADMIN)
			r = entity_get(sets, &of_full[sets->full[i]], &sets->main[i]);
		else
			r = entity_get(sets, &of_tail[sets->tail[i]], &sets->main[i]);
		if (r == 0 && is & BLOCK_PASS)
			r = entity_get(sets, &of_tail[sets->tail[i]], &sets->pass[i]);
		if (r < 0)
			return r;
	}
	return 0;
}

static int add_member(struct port_sets *sets, uint32_t number, size_t policy, uint64_t hash, const struct expanded *expanded)
{
	struct entity *entity = &sets->entities.data[number];

	if (entity->stamp == policy + 1)
		return 0;
	entity->stamp = (uint32_t)policy + 1;
	entity->key = hash_u64(entity->key, hash);
	for (int d = 0; expanded->tier == TIER_NETWORK && d < HD_DIRECTIONS; d++)
		if (expanded->applies[d] && entity->isolation[d] != ISOLATION_DENY)
			entity->isolation[d] = expanded->audit ? ISOLATION_AUDIT : ISOLATION_DENY;
	return VEC_PUSH(&sets->members, number);
}

/* Rules that only some of the subjects have tell apart what has the same policies. */
static void add_limit(struct port_sets *sets, uint32_t number, uint32_t stamp, uint64_t hash)
{
	struct entity *entity = &sets->entities.data[number];

	if (entity->limit_stamp != stamp)
		entity->key = hash_u64(entity->key, hash);
	entity->limit_stamp = stamp;
}

static void add_limits(struct port_sets *sets, const struct expanded *expanded, uint32_t *stamp)
{
	for (uint32_t rule = 0; rule < expanded->n_rules[HD_INGRESS]; rule++) {
		const struct label_group *subjects = expanded->rules[HD_INGRESS][rule].subjects;

		if (!subjects)
			continue;
		++*stamp;
		FOR_EACH_LIVE(i, sets, subjects->bits)
		{
			add_limit(sets, sets->main[i], *stamp, hash_string(0, subjects->text));
			if (expanded->tier != TIER_ADMIN && sets->pass[i] != NO_PAIR)
				add_limit(sets, sets->pass[i], *stamp, hash_string(0, subjects->text));
		}
	}
}

/* Which entities each policy belongs to, and what that makes of them. */
static int join(struct round *round, struct port_sets *sets)
{
	uint32_t stamp = 0;
	int r = 0;

	for (size_t p = 0; p < round->expanded.n && r == 0; p++) {
		const struct expanded *expanded = round->expanded.data[p];
		const struct object *object = round->new_policies.data[p];
		uint64_t hash = hash_string(hash_string(hash_u64(0, object->kind), object->namespace_), object->name);

		r = VEC_PUSH(&sets->offsets, (uint32_t)sets->members.n);
		if (!expanded || r < 0)
			continue;
		FOR_EACH_LIVE(i, sets, expanded->subject->bits)
		{
			r = add_member(sets, sets->main[i], p, hash, expanded);
			if (r == 0 && expanded->tier != TIER_ADMIN && sets->pass[i] != NO_PAIR)
				r = add_member(sets, sets->pass[i], p, hash, expanded);
			if (r < 0)
				return r;
		}
		add_limits(sets, expanded, &stamp);
	}
	return r < 0 ? r : VEC_PUSH(&sets->offsets, (uint32_t)sets->members.n);
}

/* --- pairs --- */

struct known_pair {
	uint64_t key;
	uint32_t pair;
};

static int known_cmp(const void *a, const void *b)
{
	const struct known_pair *x = a, *y = b;

	if (x->key != y->key)
		return x->key < y->key ? -1 : 1;
	return x->pair < y->pair ? -1 : x->pair > y->pair;
}

static void take_known(struct port_sets *sets, const struct known_pair *known, size_t n, bool *taken)
{
	for (size_t i = 0; i < sets->entities.n; i++) {
		struct entity *entity = &sets->entities.data[i];
		size_t low = 0, high = n;

		while (low < high) {
			size_t middle = (low + high) / 2;

			if (known[middle].key < entity->key)
				low = middle + 1;
			else
				high = middle;
		}
		while (low < n && known[low].key == entity->key && taken[known[low].pair])
			low++;
		if (low < n && known[low].key == entity->key) {
			entity->pair = known[low].pair;
			taken[entity->pair] = true;
		}
	}
}

static void take_old(struct entity *entity, uint32_t pair, bool *taken)
{
	if (entity->pair != NO_PAIR || pair == NO_PAIR || taken[pair])
		return;
	entity->pair = pair;
	taken[pair] = true;
}

/* The same policies: the same pair as before. Else the pair that one of the ports had, so that little changes. Else a new one. */
static int assign_pairs(struct round *round, struct port_sets *sets)
{
	const struct tables *before = &round->compiler->before;
	struct tables *t = round->t;
	size_t n_old = t->pairs.n, n_known = 0;
	_cleanup_free_ struct known_pair *known = malloc((n_old + 1) * sizeof(*known));
	_cleanup_free_ bool *taken = calloc(n_old + 1, sizeof(*taken));
	int r = 0;

	if (!known || !taken)
		return -ENOMEM;
	for (size_t i = 0; i < n_old; i++)
		if (t->pairs.data[i].state == PAIR_LIVE && t->pairs.data[i].ports)
			known[n_known++] = (struct known_pair){.key = t->pairs.data[i].key, .pair = (uint32_t)i};
	qsort(known, n_known, sizeof(*known), known_cmp);
	take_known(sets, known, n_known, taken);
	for (size_t i = 0, j = 0; i < t->ports.n && j < before->ports.n;) {
		const struct port_entry *old = &before->ports.data[j], *new = &t->ports.data[i];
		int c = object_compare(new->object, old->object);

		if (c == 0) {
			uint32_t number = new->identity->number;

			take_old(&sets->entities.data[sets->main[number]], old->pair, taken);
			if (sets->pass[number] != NO_PAIR)
				take_old(&sets->entities.data[sets->pass[number]], old->pass, taken);
		}
		i += c <= 0;
		j += c >= 0;
	}
	for (size_t i = 0; i < n_old; i++)
		if (t->pairs.data[i].state == PAIR_LIVE && t->pairs.data[i].ports && !taken[i])
			t->pairs.data[i].state = PAIR_RETIRED;
	for (size_t i = 0; i < sets->entities.n && r == 0; i++) {
		struct entity *entity = &sets->entities.data[i];
		bool new = entity->pair == NO_PAIR;
		struct pair *pair;

		if (new)
			r = pair_new(round, true, &entity->pair);
		if (r == 0)
			r = sets_cover(round);
		if (r < 0)
			return r;
		pair = &t->pairs.data[entity->pair];
		pair->key = entity->key;
		if (new)
			set_is_new(round, entity->pair);
		for (int d = 0; d < HD_DIRECTIONS; d++) {
			if (pair->isolation[d] == entity->isolation[d])
				continue;
			pair->isolation[d] = entity->isolation[d];
			round->sets.data[SET_ID(entity->pair, d)] |= SET_ANY | SET_MEANING;
		}
	}
	return sets_cover(round);
}

/* Which ports share a pair now. */
int port_sets_update(struct round *round)
{
	struct tables *t = round->t;
	struct port_sets *sets = round->port_sets = port_sets_new(labels_identities(round->compiler->labels));
	int r = sets ? expand_all(round) : -ENOMEM;

	if (r == 0)
		r = split_all(round, sets);
	if (r == 0)
		r = make_entities(round, sets);
	if (r == 0)
		r = join(round, sets);
	if (r == 0)
		r = assign_pairs(round, sets);
	for (size_t i = 0; i < t->ports.n && r == 0; i++) {
		uint32_t number = t->ports.data[i].identity->number, pass = sets->pass[number];

		t->ports.data[i].pair = sets->entities.data[sets->main[number]].pair;
		t->ports.data[i].pass = pass == NO_PAIR ? NO_PAIR : sets->entities.data[pass].pair;
	}
	return r;
}

static int pair_cmp(const void *a, const void *b)
{
	return *(const uint16_t *)a - *(const uint16_t *)b;
}

/* Sorts what was added to round->member from `from` on, each once. */
static uint32_t sort_members(struct round *round, size_t from)
{
	uint16_t *pairs = round->member.data + from;
	size_t n = round->member.n - from, kept = 0;

	if (n)
		qsort(pairs, n, sizeof(*pairs), pair_cmp);
	for (size_t i = 0; i < n; i++)
		if (i == 0 || pairs[i] != pairs[kept - 1])
			pairs[kept++] = pairs[i];
	round->member.n = from + kept;
	return (uint32_t)kept;
}

/* The pairs of new_policies[index]. */
int port_policy_members(struct round *round, size_t index, struct membership *ret)
{
	const struct port_sets *sets = round->port_sets;
	const struct expanded *expanded = round->expanded.data[index];
	size_t starts[HD_DIRECTIONS], at;

	*ret = (struct membership){0};
	/* Some memory, so that there is something to count from. */
	if (VEC_RESERVE(&round->member, 1) < 0)
		return -ENOMEM;
	round->member.n = round->member_limited.n = 0;
	for (int d = 0; d < HD_DIRECTIONS; d++) {
		starts[d] = round->member.n;
		for (uint32_t i = sets->offsets.data[index]; i < sets->offsets.data[index + 1]; i++) {
			const struct entity *entity = &sets->entities.data[sets->members.data[i]];

			/* The baseline is for those whom no NetworkPolicy isolates. */
			if (expanded->tier == TIER_BASELINE && entity->isolation[d])
				continue;
			if (VEC_PUSH(&round->member, (uint16_t)entity->pair) < 0)
				return -ENOMEM;
		}
		ret->n_pairs[d] = sort_members(round, starts[d]);
	}
	for (uint32_t i = 0; i < expanded->n_rules[HD_INGRESS]; i++) {
		const struct label_group *subjects = expanded->rules[HD_INGRESS][i].subjects;
		struct limited limited = {.rule = i};
		size_t from = round->member.n;

		if (!subjects)
			continue;
		FOR_EACH_LIVE(j, sets, subjects->bits)
		{
			const uint32_t entities[] = {sets->main[j], expanded->tier == TIER_ADMIN ? NO_PAIR : sets->pass[j]};

			for (size_t k = 0; k < ARRAY_N(entities); k++) {
				if (entities[k] == NO_PAIR || (expanded->tier == TIER_BASELINE &&
								      sets->entities.data[entities[k]].isolation[HD_INGRESS]))
					continue;
				if (VEC_PUSH(&round->member, (uint16_t)sets->entities.data[entities[k]].pair) < 0)
					return -ENOMEM;
			}
		}
		limited.n = sort_members(round, from);
		if (VEC_PUSH(&round->member_limited, limited) < 0)
			return -ENOMEM;
	}
	/* The array does not move any more. */
	for (int d = 0; d < HD_DIRECTIONS; d++)
		ret->pairs[d] = round->member.data + starts[d];
	at = starts[HD_EGRESS] + ret->n_pairs[HD_EGRESS];
	for (size_t i = 0; i < round->member_limited.n; i++) {
		round->member_limited.data[i].pairs = round->member.data + at;
		at += round->member_limited.data[i].n;
	}
	ret->limited = round->member_limited.data;
	ret->n_limited = (uint32_t)round->member_limited.n;
	return 0;
}

/* --- the policies of ports --- */

static bool set_means_else(const struct round *round, uint32_t pair, int direction)
{
	return round->sets.data[SET_ID(pair, direction)] & SET_MEANING;
}

static bool same_policy(const struct hd_port_policy *a, const struct hd_port_policy *b)
{
	struct hd_port_policy x = *a, y = *b;

	x.generation = y.generation = 0;
	return memcmp(&x, &y, sizeof(x)) == 0;
}
static_assert(sizeof(struct hd_port_policy) == 11 * sizeof(uint32_t), "no padding to compare");

static void port_finish(const struct round *round, struct port_entry *port, const struct port_entry *old)
{
	const struct tables *t = round->t;

	port->policy = (struct hd_port_policy){.generation = round->generation};
	for (int d = 0; d < HD_DIRECTIONS; d++) {
		/* The root's rules may pass in one direction only; that the other has somewhere to go does no harm. */
		bool pass = port->pass != NO_PAIR;
		bool other = !old || old->pair != port->pair || old->pass != port->pass || old->network != port->network ||
			     set_means_else(round, port->pair, d) || (pass && set_means_else(round, port->pass, d));

		port->policy.version[d] = other ? round->generation : old->policy.version[d];
		port->policy.set[d] = SET_NUMBER(SET_ID(port->pair, d));
		port->policy.root[d] = HD_TAG_NODE | tree_root(t, t->pairs.data[port->pair].tree[d]);
		port->policy.pass_set[d] = pass ? SET_NUMBER(SET_ID(port->pass, d)) : 0;
		port->policy.pass_root[d] = pass ? HD_TAG_NODE | tree_root(t, t->pairs.data[port->pass].tree[d]) : 0;
	}
	port->changed = !old || old->network != port->network || round->compiler->tainted_ports ||
			!same_policy(&old->policy, &port->policy);
	if (!port->changed)
		port->policy.generation = old->policy.generation;
}

int ports_finish(struct round *round)
{
	const struct tables *before = &round->compiler->before;
	struct tables *t = round->t;
	size_t j = 0;

	for (size_t i = 0; i < t->ports.n; i++) {
		struct port_entry *port = &t->ports.data[i];
		int c = 1;

		while (j < before->ports.n && (c = object_compare(before->ports.data[j].object, port->object)) < 0)
			j++;
		port_finish(round, port, j < before->ports.n && c == 0 ? &before->ports.data[j] : NULL);
		if (VEC_PUSH(&round->ports, (struct port_policy){.port = port->object,
						    .network = port->network,
						    .changed = port->changed,
						    .policy = port->policy}) < 0)
			return -ENOMEM;
	}
	return 0;
}
