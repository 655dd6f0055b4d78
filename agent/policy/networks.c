/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Networks, and what changes in their address trees. A tree holds the blocks of the policies for ports, and the addresses
 * of the network's ports, here and at peers, each with the label groups that cover its port.
 */
#include <util/addr.h>
#include <util/cleanup.h>

#include <policy/internal.h>

#define NO_CLASS (HD_TAG_LEAF | HD_CLASS_NONE)

/* --- the list --- */

static int name_cmp(const void *a, const void *b)
{
	return strcmp((*(struct object *const *)a)->name, (*(struct object *const *)b)->name);
}

static struct network_entry *network_find(const struct tables *t, const char *name)
{
	size_t low = 1, high = t->networks.n;

	while (low < high) {
		size_t middle = (low + high) / 2;
		int c = strcmp(name, t->networks.data[middle].object->name);

		if (c == 0)
			return &t->networks.data[middle];
		if (c < 0)
			high = middle;
		else
			low = middle + 1;
	}
	return NULL;
}

int network_of(const struct tables *t, const char *name)
{
	const struct network_entry *entry = name ? network_find(t, name) : NULL;

	return entry ? entry->index : -ENOENT;
}

static struct network_entry network_new(struct object *object)
{
	return (struct network_entry){
		.object = object ? object_ref(object) : NULL, .root = {NO_CLASS, NO_CLASS}, .changed = true};
}

/* Puts the networks of the input into the tables. The trees of those that went are retired. */
int networks_update(struct round *round)
{
	const struct tables *before = &round->compiler->before;
	struct tables *t = round->t;
	size_t n = round->new_networks.n;
	int r = VEC_RESERVE(&t->networks, n + 1);

	if (r < 0)
		return r;
	if (n)
		qsort(round->new_networks.data, n, sizeof(struct object *), name_cmp);
	if (t->networks.n == 0)
		t->networks.data[0] = network_new(NULL);
	t->networks.n = 1;
	t->networks.data[0].changed = false;
	round->networks_referenced = true;
	for (size_t i = 0, j = 1; i < n || j < before->networks.n;) {
		const struct network_entry *old = j < before->networks.n ? &before->networks.data[j] : NULL;
		int c = i == n ? 1 : !old ? -1 : strcmp(round->new_networks.data[i]->name, old->object->name);

		if (c > 0 && old) {
			for (int family = 0; family < 2; family++) {
				uint32_t root = old->root[family];

				addr_tree_drop(round, &root, family);
			}
		} else if (c <= 0) {
			struct network_entry *entry = &t->networks.data[t->networks.n++];

			*entry = network_new(round->new_networks.data[i]);
			if (c == 0 && old) {
				entry->index = old->index;
				memcpy(entry->root, old->root, sizeof(entry->root));
				entry->roots = old->roots;
				entry->judged = old->judged;
				entry->changed = false;
			} else {
				entry->index = networks_index(round->input->networks, round->new_networks.data[i]->name);
			}
		}
		i += c <= 0;
		j += c >= 0;
	}
	return 0;
}

/* --- label groups --- */

/* Every rule with the selector means something else: so do the sets that have one. */
void mark_meaning(struct round *round, uint32_t selector)
{
	const struct tables *t = round->t;
	const struct class *class = &t->classes.data[selector];
	bool block = class->flags & CLASS_BLOCK;
	size_t n = block ? t->blocks.data[class->rules + 1] : class->rules != NO_RULE;

	for (size_t i = 0; i < n; i++) {
		struct rule_place place;
		const uint16_t *pairs;
		uint32_t n_pairs;

		if (!rule_place_by_order(t, block ? t->blocks.data[class->rules + 2 + i] : class->rules, &place))
			continue;
		pairs = rule_pairs(&place, &n_pairs);
		for (uint32_t j = 0; j < n_pairs; j++)
			round->sets.data[SET_ID(pairs[j], place.direction)] |= SET_MEANING;
	}
}

/* Lists the selectors that are label groups, those that had rules before and those that have some now; where both is so, last. */
int label_selectors_update(struct round *round)
{
	const struct tables *t = round->t;

	for (uint32_t id = SELECTOR_ANY + 1; id < t->classes.n; id++) {
		const struct class *class = &t->classes.data[id];
		struct label_selector selector = {.selector = id};
		uint32_t listed = round->touch.data[id] & TOUCH_INDEX, n;
		const struct peer *peers;

		if (!(class->flags & CLASS_SELECTOR) || !(class->flags & CLASS_PORTS) || !(class->flags & CLASS_GROUP))
			continue;
		selector.is = class->flags & CLASS_BLOCK || class->rules != NO_RULE;
		selector.was = listed ? round->touched.data[listed - 1].was : selector.is;
		if (!selector.was && !selector.is)
			continue;
		selector_peers(round, id, &peers, &n);
		selector.group = label_group_find(round->compiler->labels, peers[0].group);
		if (!selector.group)
			return -EINVAL; /* cannot be: the rule that names it holds it */
		if (VEC_PUSH(&round->label_selectors, selector) < 0)
			return -ENOMEM;
		if (selector.was == selector.is)
			continue;
		round->label_selectors.data[round->label_selectors.n - 1] =
			round->label_selectors.data[round->n_changed_selectors];
		round->label_selectors.data[round->n_changed_selectors++] = selector;
	}
	return 0;
}

/* The selectors that cover an identity, looked for once: many addresses have the same one. NULL: no memory. */
static const struct identity_cover *cover_of(struct round *round, const struct identity *identity)
{
	uint32_t n = labels_identities(round->compiler->labels);
	struct identity_cover *cover;

	if (round->covers.n < n) {
		if (VEC_RESERVE(&round->covers, n) < 0)
			return NULL;
		memset(round->covers.data + round->covers.n, 0, (n - round->covers.n) * sizeof(*cover));
		round->covers.n = n;
	}
	cover = &round->covers.data[identity->number];
	if (cover->known)
		return cover;
	cover->first = (uint32_t)round->covering.n;
	for (uint32_t i = 0; i < round->label_selectors.n; i++)
		if (label_group_covers(round->label_selectors.data[i].group, identity) && VEC_PUSH(&round->covering, i) < 0)
			return NULL;
	cover->n = (uint32_t)round->covering.n - cover->first;
	cover->known = true;
	return cover;
}

static int selector_change(struct round *round, const struct hd_addr *addr, struct label_selector *selector,
	const struct identity *old, const struct identity *new)
{
	bool had = old && selector->was && label_group_has(selector->group, old, addr);
	bool has = new && selector->is &&label_group_has(selector->group, new, addr);

	if (had == has)
		return 0;
	if (endpoint_edges(round, addr, selector->selector, has) < 0)
		return -ENOMEM;
	if (!selector->marked && selector->is)
		mark_meaning(round, selector->selector);
	selector->marked = true;
	return 0;
}

/* An address whose workload was `old` and is `new`; NULL: nobody had it, or has it. */
static int endpoint_change(
	struct round *round, const struct hd_addr *addr, const struct identity *old, const struct identity *new)
{
	const struct identity *const both[] = {old, new};
	struct label_selector *selectors = round->label_selectors.data;
	int r = 0;

	for (size_t i = 0; old == new &&i < round->n_changed_selectors &&r == 0; i++)
		r = selector_change(round, addr, &selectors[i], old, new);
	for (size_t which = 0; old != new &&which < ARRAY_N(both) && r == 0; which++) {
		const struct identity_cover *cover =
			both[which] ? cover_of(round, both[which]) : &(const struct identity_cover){0};

		if (!cover)
			return -ENOMEM;
		for (uint32_t i = 0; i < cover->n && r == 0; i++) {
			struct label_selector *selector = &selectors[round->covering.data[cover->first + i]];

			/* Those that cover both have had their turn. */
			if (!which || !old || !label_group_covers(selector->group, old))
				r = selector_change(round, addr, selector, old, new);
		}
	}
	return r;
}

/* The addresses of a network in order, each once: a port's here, or else that of the first peer by name. */
struct walk {
	const struct endpoint *local, *local_end, *remote, *remote_end;
};

/* The first of the network, or of those behind it. */
static const struct endpoint *first_endpoint(const struct endpoint *endpoints, size_t n, uint32_t network)
{
	size_t low = 0, high = n;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (endpoints[middle].network < network)
			low = middle + 1;
		else
			high = middle;
	}
	return n ? endpoints + low : NULL;
}

static struct walk walk_begin(const struct tables *t, uint16_t network)
{
	return (struct walk){
		.local = first_endpoint(t->endpoints.data, t->endpoints.n, network),
		.local_end = first_endpoint(t->endpoints.data, t->endpoints.n, network + 1u),
		.remote = first_endpoint(t->remote.data, t->remote.n, network),
		.remote_end = first_endpoint(t->remote.data, t->remote.n, network + 1u),
	};
}

static const struct endpoint *walk_next(struct walk *walk)
{
	const struct endpoint *found;

	if (walk->local == walk->local_end && walk->remote == walk->remote_end)
		return NULL;
	if (walk->local == walk->local_end || (walk->remote != walk->remote_end && endpoint_cmp(walk->remote, walk->local) < 0))
		found = walk->remote++;
	else
		found = walk->local++;
	while (walk->remote != walk->remote_end && endpoint_cmp(walk->remote, found) == 0)
		walk->remote++;
	return found;
}

static int endpoints_edges(struct round *round, uint16_t network, bool fresh)
{
	struct walk old = walk_begin(&round->compiler->before, network), new = walk_begin(round->t, network);
	const struct endpoint *a = fresh ? NULL : walk_next(&old), *b = walk_next(&new);
	int r = 0;

	while ((a || b) && r == 0) {
		int c = !a ? 1 : !b ? -1 : endpoint_cmp(a, b);

		r = endpoint_change(round, c < 0 ? &a->addr : &b->addr, c <= 0 ? a->identity : NULL, c >= 0 ? b->identity : NULL);
		if (c <= 0)
			a = walk_next(&old);
		if (c >= 0)
			b = walk_next(&new);
	}
	return r;
}

/* --- trees --- */

/* A tree that begins now has all blocks of all selectors. */
static int all_blocks(struct round *round)
{
	const struct tables *t = round->t;
	int r = 0;

	for (uint32_t id = SELECTOR_ANY + 1; id < t->classes.n && r == 0; id++) {
		const struct class *class = &t->classes.data[id];
		struct touched touched = {.selector = id};

		if (!(class->flags & CLASS_SELECTOR) || !(class->flags & CLASS_PORTS) || class->flags & CLASS_GROUP)
			continue;
		if (!(class->flags & CLASS_BLOCK) && class->rules == NO_RULE)
			continue;
		selector_peers(round, id, &touched.peers, &touched.n_peers);
		r = selector_edges(round, &touched, true);
	}
	return r;
}

static int touched_blocks(struct round *round, bool ports)
{
	int r = 0;

	for (size_t i = 0; i < round->touched.n && r == 0; i++) {
		const struct touched *touched = &round->touched.data[i];
		const struct class *class = &round->t->classes.data[touched->selector];
		bool is = class->flags & CLASS_BLOCK || class->rules != NO_RULE;

		if (!(class->flags & CLASS_PORTS) == ports || (ports && class->flags & CLASS_GROUP))
			continue;
		if (touched->was != is || (is && class->flags & CLASS_GROUP && round->changed_groups.n))
			r = selector_edges(round, touched, is);
	}
	return r;
}

/* The edges of all that changes in the network's trees; it begins with empty ones, or they go. */
int network_edges(struct round *round, struct network_entry *network)
{
	bool had = network->judged, fresh;
	int r;

	if (!network->object)
		return touched_blocks(round, false);
	network->judged = network->peers && round->t->ports.n;
	for (size_t i = 0; i < round->t->ports.n && !network->judged; i++)
		network->judged = round->t->ports.data[i].network == network->index;
	fresh = network->judged && !had;
	if (!network->judged) {
		for (int family = 0; family < 2 && had; family++)
			addr_tree_drop(round, &network->root[family], family);
		return 0;
	}
	r = fresh ? all_blocks(round) : touched_blocks(round, true);
	return r < 0 ? r : endpoints_edges(round, network->index, fresh);
}

int networks_finish(struct round *round)
{
	struct tables *t = round->t;

	for (size_t i = 1; i < t->networks.n; i++) {
		struct network_entry *entry = &t->networks.data[i];

		if (entry->changed || round->compiler->tainted_ports || entry->roots.addr4 != entry->root[0] ||
			entry->roots.addr6 != entry->root[1]) {
			entry->roots = (struct hd_roots){
				.generation = round->generation, .addr4 = entry->root[0], .addr6 = entry->root[1]};
			entry->changed = true;
		}
		if (VEC_PUSH(&round->networks, (struct network_roots){.network = entry->object,
						       .index = entry->index,
						       .changed = entry->changed,
						       .roots = entry->roots}) < 0)
			return -ENOMEM;
	}
	return 0;
}
