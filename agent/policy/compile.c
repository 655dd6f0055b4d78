/* SPDX-License-Identifier: Apache-2.0 */
/* The round: from the input to a delta, and what becomes of it. */
#include <util/cleanup.h>

#include <policy/internal.h>

void u32_vec_clear(u32_vec *v)
{
	VEC_FREE(v);
}

int compiler_new(const struct compiler_limits *limits, uint32_t first_generation, struct compiler **ret)
{
	struct compiler *compiler = calloc(1, sizeof(*compiler));
	struct tables *t;

	if (!compiler)
		return -ENOMEM;
	if (labels_new(&compiler->labels) < 0) {
		free(compiler);
		return -ENOMEM;
	}
	t = &compiler->now;
	compiler->limits = *limits;
	compiler->next_generation = first_generation ? first_generation : 1;
	if (VEC_PUSH(&t->classes, (struct class){0}) < 0 || VEC_PUSH(&t->classes, (struct class){.flags = CLASS_SELECTOR}) < 0) {
		compiler_free(compiler);
		return -ENOMEM;
	}
	*ret = compiler;
	return 0;
}

/* --- input --- */

static int name_cmp(const void *a, const void *b)
{
	return strcmp((*(struct object *const *)a)->name, (*(struct object *const *)b)->name);
}

static int take_input(struct round *round)
{
	const struct object_list *objects = round->input->objects;

	if (round->input->lockdown || !objects)
		return 0;
	for (size_t i = 0; i < objects->n; i++) {
		struct object *object = objects->items[i];
		int r = 0;

		if (object->kind == OBJECT_HOST_POLICY || policy_for_ports(object))
			r = VEC_PUSH(&round->new_policies, object);
		else if (object->kind == OBJECT_NETWORK)
			r = VEC_PUSH(&round->new_networks, object);
		else if (object->kind == OBJECT_PORT)
			r = VEC_PUSH(&round->new_ports, object);
		else if (object->kind == OBJECT_PEER)
			r = VEC_PUSH(&round->new_peers, object);
		else if (object->kind == OBJECT_NAMESPACE)
			r = VEC_PUSH(&round->new_namespaces, object);
		else if (object->kind == OBJECT_ADDRESS_GROUP)
			r = VEC_PUSH(&round->new_groups, object);
		if (r == 0 && policy_is_host(object))
			r = VEC_PUSH(&round->new_hosts, object);
		if (r < 0)
			return r;
	}
	if (round->new_policies.n)
		qsort(round->new_policies.data, round->new_policies.n, sizeof(struct object *), policy_cmp);
	if (round->new_groups.n)
		qsort(round->new_groups.data, round->new_groups.n, sizeof(struct object *), name_cmp);
	return 0;
}

static bool group_equal(const struct object *a, const struct object *b)
{
	if (a == b)
		return true;
	if (a->group.n_cidrs != b->group.n_cidrs)
		return false;
	for (size_t i = 0; i < a->group.n_cidrs; i++)
		if (a->group.cidrs[i].length != b->group.cidrs[i].length ||
			memcmp(&a->group.cidrs[i].addr, &b->group.cidrs[i].addr, sizeof(struct hd_addr)) != 0)
			return false;
	return true;
}

/* Puts the new groups into the tables and lists the names of those that changed. */
static int groups_update(struct round *round)
{
	struct tables *t = round->t;
	const struct tables *old = &round->compiler->before;
	size_t n = round->new_groups.n;
	int r = VEC_RESERVE(&t->groups, n);

	for (size_t i = 0, j = 0; (i < n || j < old->groups.n) && r == 0;) {
		int c = i == n ? 1 : j == old->groups.n ? -1 : name_cmp(&round->new_groups.data[i], &old->groups.data[j]);
		struct object *changed = c > 0 ? old->groups.data[j] : round->new_groups.data[i];

		if (c != 0 || !group_equal(round->new_groups.data[i], old->groups.data[j]))
			r = VEC_PUSH(&round->changed_groups, changed);
		i += c <= 0;
		j += c >= 0;
	}
	if (r < 0)
		return r;
	for (size_t i = 0; i < n; i++)
		t->groups.data[i] = object_ref(round->new_groups.data[i]);
	t->groups.n = n;
	round->groups_referenced = true;
	return 0;
}

/* --- addresses --- */

/* A group of the selector changed: it is looked at, and the sets that have rules with it mean something else. */
static int touch_group_users(struct round *round)
{
	struct tables *t = round->t;

	if (round->changed_groups.n == 0)
		return 0;
	for (uint32_t id = 1; id < t->classes.n; id++) {
		const struct peer *peers;
		uint32_t n;
		bool uses = false;

		if (!(t->classes.data[id].flags & CLASS_GROUP) || t->classes.data[id].flags & CLASS_PORTS)
			continue;
		if (!(t->classes.data[id].flags & CLASS_BLOCK) && t->classes.data[id].rules == NO_RULE)
			continue; /* its last rule goes in this round: it is listed already, or waits to be collected */
		selector_peers(round, id, &peers, &n);
		for (uint32_t i = 0; i < n && !uses; i++)
			uses = peers[i].group && group_find(round->changed_groups.data, round->changed_groups.n, peers[i].group);
		if (!uses)
			continue;
		if (selector_touch(round, id, peers, n) < 0)
			return -ENOMEM;
		mark_meaning(round, id);
	}
	return 0;
}

static int addresses_update(struct round *round)
{
	struct tables *t = round->t;
	int r = touch_group_users(round);

	if (r == 0)
		r = label_selectors_update(round);
	for (size_t i = 0; i < t->networks.n && r == 0; i++) {
		struct network_entry *network = &t->networks.data[i];

		r = network_edges(round, network);
		for (int family = 0; family < 2 && r == 0; family++) {
			r = ranges_to_ops(round, family);
			if (r == 0)
				r = addr_tree_update(round, &network->root[family], family);
		}
		if (r == 0)
			r = addr_tables_update(round, network);
	}
	return r;
}

/* --- sizes --- */

static uint32_t headroom(uint32_t live, uint32_t least)
{
	uint64_t wanted = (uint64_t)live + live / 4 + 32;
	uint32_t size = least;

	while (size < wanted)
		size *= 2;
	return size;
}

static int check_sizes(struct round *round, struct compiler_limits *needed)
{
	const struct tables *t = round->t;
	const struct compiler_limits *limits = &round->compiler->limits;
	const struct {
		const char *what;
		uint64_t is, most;
	} checks[] = {
		{"IPv4 address nodes", t->addr_nodes[0].live, ADDR_NODES_MOST},
		{"IPv4 address tables", t->addr_tables.live, ADDR_TABLES_MOST},
		{"IPv6 address nodes", t->addr_nodes[1].live, ADDR_NODES_MOST},
		{"address classes", t->classes.n, CLASSES_MOST},
		{"rule nodes", t->rule_nodes.live, RULE_NODES_MOST},
		{"rules", t->rule_order.n, HD_LEAF_RULE_MASK},
	};

	for (size_t i = 0; i < ARRAY_N(checks); i++) {
		if (checks[i].is <= checks[i].most)
			continue;
		diag_add(round->diag, NULL, 0, NULL,
			"the policy needs too many %s: %lu at most; rules for wide address blocks across many narrow ones are "
			"the usual cause",
			checks[i].what, (unsigned long)checks[i].most);
		return -E2BIG;
	}
	if (t->addr_nodes[0].end <= limits->addr4_nodes && t->addr_nodes[1].end <= limits->addr6_nodes &&
		t->classes.n <= limits->classes && t->rule_nodes.end <= limits->rule_nodes && t->rule_order.n <= limits->rules &&
		t->addr_tables.end <= limits->addr4_tables &&
		(t->addr_tables.live == 0 || 2 * t->addr_tables.live < limits->addr4_tables))
		return 0;
	*needed = (struct compiler_limits){
		.addr4_nodes = headroom(t->addr_nodes[0].live + 1, 64),
		.addr6_nodes = headroom(t->addr_nodes[1].live + 1, 64),
		.classes = headroom((uint32_t)t->classes.n, 64),
		.rule_nodes = headroom(t->rule_nodes.live + 1, 64),
		.rules = headroom((uint32_t)(t->rule_order.n < HD_RULE_FIRST ? HD_RULE_FIRST : t->rule_order.n), 256),
		/* A change makes all of a tree's tables anew. */
		.addr4_tables = t->addr_tables.live ? headroom(2 * t->addr_tables.live + 1, 16) : 0,
	};
	return -ENOSPC;
}

/* --- the delta --- */

static int finish(struct round *round)
{
	const struct network_entry *own = &round->t->networks.data[0];
	struct policy_delta *delta = &round->delta;
	int r = uplinks_finish(round);

	if (r == 0)
		r = ports_finish(round);
	if (r == 0)
		r = networks_finish(round);
	if (r < 0)
		return r;
	*delta = (struct policy_delta){
		.generation = round->generation,
		.roots = {.generation = round->generation, .addr4 = own->top, .addr6 = own->root[1], .base4 = own->base},
		.addr4_nodes = round->addr4_writes.data,
		.addr4_tables = round->table_writes.data,
		.addr6_nodes = round->addr6_writes.data,
		.classes = round->class_writes.data,
		.rule_nodes = round->rule_writes.data,
		.rules = round->rules.data,
		.uplinks = round->uplinks.data,
		.ports = round->ports.data,
		.networks = round->networks.data,
		.n_addr4_nodes = round->addr4_writes.n,
		.n_addr4_tables = round->table_writes.n,
		.n_addr6_nodes = round->addr6_writes.n,
		.n_classes = round->class_writes.n,
		.n_rule_nodes = round->rule_writes.n,
		.n_rules = round->rules.n,
		.n_uplinks = round->uplinks.n,
		.n_ports = round->ports.n,
		.n_networks = round->networks.n,
	};
	return 0;
}

static int run(struct round *round, struct compiler_limits *needed)
{
	struct tables *t = round->t;
	int r;

	if (VEC_RESERVE(&round->touch, t->classes.n) < 0 || !round->touch.data)
		return -ENOMEM;
	memset(round->touch.data, 0, t->classes.n * sizeof(*round->touch.data));
	round->touch.n = t->classes.n;
	r = take_input(round);
	if (r == 0)
		r = networks_update(round);
	if (r == 0)
		r = ports_update(round);
	if (r == 0)
		r = peers_update(round);
	if (r == 0)
		r = labels_named_update(round->compiler->labels);
	if (r == 0)
		r = sets_update(round);
	if (r == 0)
		r = port_sets_update(round);
	if (r == 0)
		r = policies_update(round);
	if (r == 0)
		r = orders_update(round);
	if (r == 0)
		r = groups_update(round);
	if (r == 0)
		r = addresses_update(round);
	if (r == 0) {
		defaults_update(round);
		r = failsafe_update(round);
	}
	if (r == 0)
		r = rows_update(round);
	if (r == 0)
		r = tainted_rules_update(round);
	if (r == 0)
		r = any_trees_update(round);
	if (r == 0)
		r = addr_writes(round);
	if (r == 0)
		r = classes_collect(t);
	if (r == 0 || r == -EFBIG)
		r = check_sizes(round, needed);
	return r < 0 ? r : finish(round);
}

/* Frees everything of the round; the policies and groups that the tables hold are not its own. */
static void round_free(struct compiler *compiler)
{
	struct round *round = compiler->round;

	if (!round)
		return;
	addr_round_end(round);
	VEC_FREE(&round->new_policies);
	VEC_FREE(&round->new_groups);
	VEC_FREE(&round->changed_groups);
	VEC_FREE(&round->new_ports);
	VEC_FREE(&round->new_peers);
	VEC_FREE(&round->new_namespaces);
	VEC_FREE(&round->new_networks);
	VEC_FREE(&round->new_hosts);
	for (size_t i = 0; i < round->expanded.n; i++)
		expanded_unref(round->expanded.data[i]);
	VEC_FREE(&round->expanded);
	VEC_FREE(&round->member_limited);
	port_sets_free(round->port_sets);
	VEC_FREE(&round->label_selectors);
	VEC_FREE(&round->covers);
	VEC_FREE(&round->covering);
	VEC_FREE(&round->limited);
	VEC_FREE(&round->member);
	VEC_FREE(&round->made);
	VEC_FREE(&round->changes);
	VEC_FREE(&round->touched);
	VEC_FREE(&round->touch);
	VEC_FREE(&round->sets);
	VEC_FREE(&round->edges[0]);
	VEC_FREE(&round->edges[1]);
	VEC_FREE(&round->ops);
	VEC_FREE(&round->sub_ops);
	VEC_FREE(&round->taken);
	VEC_FREE(&round->fresh[0]);
	VEC_FREE(&round->fresh[1]);
	VEC_FREE(&round->keys);
	VEC_FREE(&round->matches);
	VEC_FREE(&round->tree);
	VEC_FREE(&round->sharing.trees);
	VEC_FREE(&round->sharing.orders);
	free(round->sharing.slot);
	VEC_FREE(&round->addr4_writes);
	VEC_FREE(&round->table_writes);
	VEC_FREE(&round->addr6_writes);
	VEC_FREE(&round->class_writes);
	VEC_FREE(&round->rule_writes);
	VEC_FREE(&round->rules);
	VEC_FREE(&round->uplinks);
	VEC_FREE(&round->ports);
	VEC_FREE(&round->networks);
	tree_builder_free(round->builder);
	free(round);
	compiler->round = NULL;
}

static void groups_unref(struct tables *t)
{
	for (size_t i = 0; i < t->groups.n; i++)
		object_unref(t->groups.data[i]);
}

static void ports_unref(struct tables *t)
{
	for (size_t i = 0; i < t->ports.n; i++)
		object_unref(t->ports.data[i].object);
}

static void networks_unref(struct tables *t)
{
	for (size_t i = 0; i < t->networks.n; i++)
		object_unref(t->networks.data[i].object);
}

/* Identities that nobody has any more go; their numbers are given again. */
static void identities_collect(struct compiler *compiler)
{
	for (uint32_t i = 0; i < labels_identities(compiler->labels); i++) {
		struct identity *identity = labels_by_number(compiler->labels, i);

		if (identity)
			identity->used = false;
	}
	for (size_t i = 0; i < compiler->now.ports.n; i++)
		compiler->now.ports.data[i].identity->used = true;
	for (size_t i = 0; i < compiler->now.remote.n; i++)
		compiler->now.remote.data[i].identity->used = true;
	labels_sweep(compiler->labels);
}

/* Back to the tables before the round. */
static void restore(struct compiler *compiler)
{
	struct round *round = compiler->round;

	if (round->groups_referenced)
		groups_unref(&compiler->now);
	if (round->ports_referenced)
		ports_unref(&compiler->now);
	if (round->networks_referenced)
		networks_unref(&compiler->now);
	if (round->peers_referenced)
		peers_unref(&compiler->now);
	for (size_t i = 0; i < round->made.n; i++)
		prepared_free(round->made.data[i]);
	for (size_t i = 0; i < compiler->adopted.n; i++)
		compiler->adopted.data[i].claimed = false;
	tables_free(&compiler->now);
	compiler->now = compiler->before;
	memset(&compiler->before, 0, sizeof(compiler->before));
	round_free(compiler);
	identities_collect(compiler);
	compiler->state = ROUND_NONE;
}

/* The round before could not be settled. What it retired stays retired until a later round is. */
static void leave_unsettled(struct compiler *compiler)
{
	round_free(compiler);
	compiler->state = ROUND_NONE;
}

int compiler_compile(struct compiler *compiler, const struct policy_input *input, struct policy_delta **delta,
	struct compiler_limits *needed, struct diag *diag)
{
	struct round *round;
	int r;

	if (compiler->state == ROUND_COMPILED)
		compiler_abort(compiler);
	if (compiler->state == ROUND_COMMITTED)
		leave_unsettled(compiler);
	round = calloc(1, sizeof(*round));
	if (!round)
		return -ENOMEM;
	r = tables_copy(&compiler->before, &compiler->now);
	if (r < 0) {
		free(round);
		return r;
	}
	compiler->round = round;
	round->compiler = compiler;
	round->t = &compiler->now;
	round->input = input;
	round->diag = diag;
	round->generation = compiler->next_generation;
	round->first = !compiler->now.started;
	round->t->started = true;
	r = run(round, needed);
	round->t->lockdown = input->lockdown;
	round->input = NULL;
	round->diag = NULL;
	if (r < 0) {
		restore(compiler);
		return r;
	}
	compiler->state = ROUND_COMPILED;
	*delta = &round->delta;
	return 0;
}

/* Frees the prepared policies that are in neither of the tables any more. */
static void drop_policies(struct compiler *compiler)
{
	struct tables *now = &compiler->now, *before = &compiler->before;

	for (size_t i = 0; i < now->policies.n; i++)
		now->policies.data[i]->matched = true;
	for (size_t i = 0; i < before->policies.n; i++)
		if (!before->policies.data[i]->matched)
			prepared_free(before->policies.data[i]);
	for (size_t i = 0; i < compiler->round->made.n; i++)
		if (!compiler->round->made.data[i]->matched)
			prepared_free(compiler->round->made.data[i]);
	for (size_t i = 0; i < now->policies.n; i++)
		now->policies.data[i]->matched = false;
}

void compiler_commit(struct compiler *compiler)
{
	if (compiler->state != ROUND_COMPILED)
		return;
	drop_policies(compiler);
	groups_unref(&compiler->before);
	ports_unref(&compiler->before);
	networks_unref(&compiler->before);
	peers_unref(&compiler->before);
	tables_free(&compiler->before);
	identities_collect(compiler);
	compiler->tainted_ports = false;
	VEC_FREE(&compiler->adopted);
	VEC_FREE(&compiler->tainted);
	VEC_FREE(&compiler->tainted_rules);
	compiler->next_generation = compiler->round->generation + 1;
	/* 0 means none, and the roots' slot goes by the last bit: it must alternate. */
	if (compiler->next_generation == 0)
		compiler->next_generation = 2;
	compiler->state = ROUND_COMMITTED;
}

void compiler_abort(struct compiler *compiler)
{
	struct round *round = compiler->round;

	if (compiler->state != ROUND_COMPILED)
		return;
	for (size_t i = 0; i < round->class_writes.n; i++)
		(void)VEC_PUSH(&compiler->tainted, round->class_writes.data[i].id);
	for (size_t i = 0; i < round->rules.n; i++)
		(void)VEC_PUSH(&compiler->tainted_rules, round->rules.data[i].id);
	compiler->tainted_ports = true;
	restore(compiler);
}

void compiler_settle(struct compiler *compiler)
{
	if (compiler->state != ROUND_COMMITTED)
		return;
	tables_settle(&compiler->now);
	round_free(compiler);
	compiler->state = ROUND_NONE;
}

void compiler_free(struct compiler *compiler)
{
	if (!compiler)
		return;
	if (compiler->state == ROUND_COMPILED)
		restore(compiler);
	round_free(compiler);
	groups_unref(&compiler->now);
	ports_unref(&compiler->now);
	networks_unref(&compiler->now);
	peers_unref(&compiler->now);
	for (size_t i = 0; i < compiler->now.policies.n; i++)
		prepared_free(compiler->now.policies.data[i]);
	tables_free(&compiler->now);
	for (int family = 0; family < 2; family++) {
		free(compiler->addr[family].high);
		free(compiler->addr[family].low);
		free(compiler->addr[family].value);
		free(compiler->addr[family].count);
	}
	VEC_FREE(&compiler->adopted);
	VEC_FREE(&compiler->tainted);
	VEC_FREE(&compiler->tainted_rules);
	labels_free(compiler->labels);
	free(compiler);
}

/* --- rule ids --- */

int compiler_adopt_rule(struct compiler *compiler, uint32_t id, uint64_t key)
{
	struct tables *t = &compiler->now;

	if (id < HD_RULE_FIRST || id > HD_LEAF_RULE_MASK || key == 0 || t->started)
		return -EINVAL;
	compiler->inherits = true;
	while (t->rule_order.n <= id)
		if (VEC_PUSH(&t->rule_order, 0) < 0)
			return -ENOMEM;
	return VEC_PUSH(&compiler->adopted, (struct adopted){.key = key, .id = id});
}

int compiler_rule(const struct compiler *compiler, uint32_t id, struct rule_reference *ret)
{
	static const char *const names[] = {
#define NAME(sym, name, text) [HD_RULE_##sym] = name,
		HD_BUILTIN_RULES(NAME)
#undef NAME
	};
	struct rule_place place;
	struct rule_head rule = {0};
	const struct object *object;
	bool pass = false;

	if (id < HD_RULE_BUILTIN_COUNT) {
		*ret = (struct rule_reference){.kind = OBJECT_KIND_COUNT,
			.policy = "builtin",
			.name = names[id],
			.builtin = true,
			.direction = id == HD_RULE_DEFAULT_EGRESS ? HD_EGRESS : HD_INGRESS,
			.verdict = id == HD_RULE_LOCKDOWN || id == HD_RULE_ISOLATED ? HD_DENY : HD_ALLOW};
		return 0;
	}
	if (!rule_place_by_id(&compiler->now, id, &place))
		return -ENOENT;
	object = place.prepared->object;
	if (place.prepared->expanded) {
		const struct policy_rule *from = &object->workload.rules[place.direction][place.index];

		pass = from->action == POLICY_PASS && place.prepared->expanded->tier == TIER_ADMIN;
		rule = (struct rule_head){
			.name = from->name, .line = from->line, .verdict = from->action == POLICY_DENY ? HD_DENY : HD_ALLOW};
	} else if (object_rule_head(object, place.direction, place.index, &rule) < 0) {
		return -ENOENT;
	}
	*ret = (struct rule_reference){.kind = object->kind,
		.namespace_ = object->namespace_,
		.policy = object->name,
		.name = rule.name,
		.file = object->file,
		.line = rule.line,
		.index = place.index,
		.direction = place.direction,
		.verdict = rule.verdict,
		.pass = pass,
		.audit = prepared_audit(place.prepared)};
	return 0;
}

int compiler_port(const struct compiler *compiler, const char *namespace_, const char *name, struct port_policy *ret)
{
	const struct tables *t = &compiler->now;
	size_t low = 0, high = t->ports.n;

	while (low < high) {
		size_t middle = (low + high) / 2;
		const struct port_entry *port = &t->ports.data[middle];
		int c = strcmp(namespace_, port->object->namespace_);

		if (c == 0)
			c = strcmp(name, port->object->name);
		if (c == 0) {
			*ret = (struct port_policy){
				.port = port->object, .network = port->network, .changed = port->changed, .policy = port->policy};
			return 0;
		}
		if (c < 0)
			high = middle;
		else
			low = middle + 1;
	}
	return -ENOENT;
}

uint32_t compiler_rule_limit(const struct compiler *compiler)
{
	return compiler->now.rule_order.n > HD_RULE_FIRST ? (uint32_t)compiler->now.rule_order.n : HD_RULE_FIRST;
}
