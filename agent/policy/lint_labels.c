/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Policies for ports, for lint: whom they select, and which selectors contain which. A selector contains another when each of its
 * requirements follows from one of the other's, whatever ports there are.
 */
#include <netinet/in.h>

#include <util/addr.h>
#include <util/hash.h>

#include <policy/lint_internal.h>

#define EVERYBODY 0u	       /* the number of no peers */
#define COMPARED_MOST 8000000u /* pairs of lists; beyond, each is compared with the earliest ones */
#define NO_KEY (LINT_KEY_LAST - 1)
#define PASSED_MOST 256u /* ranges that Pass rules have; beyond, all count as passed */
#define NAMES_MOST 1024u /* named ports told apart */

/* A list of peers, or a policy's subject, which is like one peer. */
struct who {
	const struct policy_peer *peers;
	size_t n;
	const char *own; /* the namespace that is meant where none is named; NULL: none */
	bool nobody;	 /* selects no port and no host there is, and no block */
};
struct who_list {
	VEC(struct who) all;
	struct lint_index index;
};

struct label_lint {
	struct lint *lint;
	struct who_list peers, subjects;
	VEC(struct policy_peer) subject_peers; /* one a policy, made once: subjects points into it */
	struct labels *labels;
	VEC(const struct identity *) residents; /* who there is, alike ones once */
	struct {
		const char *name;
		uint8_t protocol;
	} names[NAMES_MOST];
	uint32_t n_names;
	struct lint_piece passed[PASSED_MOST]; /* by Pass rules so far */
	uint32_t n_passed;
};

static void label_clear(struct label_lint *label)
{
	labels_free(label->labels);
	VEC_FREE(&label->peers.all);
	VEC_FREE(&label->subjects.all);
	lint_index_free(&label->peers.index);
	lint_index_free(&label->subjects.index);
	VEC_FREE(&label->subject_peers);
	VEC_FREE(&label->residents);
	free(label);
}

/* --- who there is --- */

static const struct object *find_namespace(const struct lint *lint, const char *name)
{
	for (size_t i = 0; i < lint->namespaces.n; i++)
		if (strcmp(lint->namespaces.data[i]->name, name) == 0)
			return lint->namespaces.data[i];
	return NULL;
}

/* Those that no selector can tell apart are one. */
static int add_resident(struct label_lint *label, const struct workload *workload, const struct object *namespace_)
{
	struct identity *identity = labels_identity(label->labels, workload, (struct object *)(uintptr_t)namespace_);

	if (!identity)
		return -ENOMEM;
	if (identity->used)
		return 0;
	identity->used = true;
	return VEC_PUSH(&label->residents, identity);
}

/* The ports here and those of peers. */
static int find_residents(struct label_lint *label)
{
	struct lint *lint = label->lint;
	const struct object *namespace_ = NULL;
	const char *last = NULL;
	int r = 0;

	for (size_t i = 0; i < lint->ports.n + lint->peers.n && r == 0; i++) {
		const struct object *object = i < lint->ports.n ? lint->ports.data[i] : lint->peers.data[i - lint->ports.n];
		size_t n = object->kind == OBJECT_PEER ? object->tunnel_peer.n_ports : 1;

		for (size_t j = 0; j < n && r == 0; j++) {
			struct workload workload = object->kind == OBJECT_PEER ? workload_of_peer(&object->tunnel_peer.ports[j])
									       : workload_of_port(object);

			/* Many are in the namespace of the one before. */
			if (!last || strcmp(last, workload.namespace_) != 0)
				namespace_ = find_namespace(lint, workload.namespace_);
			last = workload.namespace_;
			r = add_resident(label, &workload, namespace_);
		}
	}
	return r;
}

static bool selects(const struct policy_peer *peer, const char *own, const struct identity *resident)
{
	if (peer->kind != POLICY_PEER_PODS)
		return false;
	if (peer->namespaces.present ? !selector_matches(&peer->namespaces, resident->space, resident->n_space)
				     : !own || strcmp(own, resident->workload.namespace_) != 0)
		return false;
	return !peer->pods.present || selector_matches(&peer->pods, resident->workload.labels, resident->workload.n_labels);
}

static bool selects_any(const struct who *who, const struct identity *resident)
{
	for (size_t i = 0; i < who->n; i++)
		if (selects(&who->peers[i], who->own, resident))
			return true;
	return false;
}

static bool is_nobody(const struct label_lint *label, const struct who *who)
{
	const struct policy_hosts hosts = {.items = label->lint->hosts.data, .n = label->lint->hosts.n};

	for (size_t i = 0; i < who->n; i++)
		if (who->peers[i].kind == POLICY_PEER_NETWORKS ||
			(who->peers[i].kind == POLICY_PEER_NODES && policy_hosts_addresses(&hosts, &who->peers[i], NULL)))
			return false;
	for (size_t i = 0; i < label->residents.n; i++)
		if (selects_any(who, label->residents.data[i]))
			return false;
	return who->n > 0;
}

/* --- what follows from what --- */

static bool has_value(const struct requirement *requirement, const char *value)
{
	for (uint32_t i = 0; i < requirement->n_values; i++)
		if (strcmp(requirement->values[i], value) == 0)
			return true;
	return false;
}

static bool has_values(const struct requirement *all, const struct requirement *some)
{
	for (uint32_t i = 0; i < some->n_values; i++)
		if (!has_value(all, some->values[i]))
			return false;
	return true;
}

static bool has_none_of(const struct requirement *a, const struct requirement *b)
{
	for (uint32_t i = 0; i < b->n_values; i++)
		if (has_value(a, b->values[i]))
			return false;
	return true;
}

/* Of one key. */
static bool follows(const struct requirement *from, const struct requirement *what)
{
	switch (what->operator) {
	case SELECTOR_IN:
		return from->operator== SELECTOR_IN && has_values(what, from);
	case SELECTOR_EXISTS:
		return from->operator== SELECTOR_IN || from->operator== SELECTOR_EXISTS;
	case SELECTOR_DOES_NOT_EXIST:
		return from->operator== SELECTOR_DOES_NOT_EXIST;
	case SELECTOR_NOT_IN:
		if (from->operator== SELECTOR_IN)
			return has_none_of(from, what);
		return from->operator== SELECTOR_DOES_NOT_EXIST ||(from->operator== SELECTOR_NOT_IN && has_values(from, what));
	}
	return false;
}

static bool selector_contains(const struct selector *outer, const struct selector *inner)
{
	for (size_t i = 0; i < outer->n; i++) {
		bool found = false;

		for (size_t j = 0; j < inner->n && !found; j++)
			found = strcmp(outer->items[i].key, inner->items[j].key) == 0 &&
				follows(&inner->items[j], &outer->items[i]);
		if (!found)
			return false;
	}
	return true;
}

/* The namespace alone, as a selector would say it. */
static struct selector name_selector(const char *const *name, struct requirement *requirement)
{
	*requirement = (struct requirement){
		.key = LABEL_NAMESPACE_NAME, .values = (const char **)(uintptr_t)name, .n_values = 1, .operator= SELECTOR_IN };
	return (struct selector){.items = requirement, .n = 1, .present = true};
}

static bool pods_contain(
	const struct policy_peer *outer, const char *outer_own, const struct policy_peer *inner, const char *inner_own)
{
	static const struct selector all = {.present = true};
	static const char *const no_name = "";
	struct requirement outer_name, inner_name;
	struct selector outer_space = outer->namespaces, inner_space = inner->namespaces;

	if (!outer_space.present)
		outer_space = name_selector(outer_own ? &outer_own : &no_name, &outer_name);
	if (!inner_space.present)
		inner_space = name_selector(inner_own ? &inner_own : &no_name, &inner_name);
	return selector_contains(&outer_space, &inner_space) &&
	       (!outer->pods.present || selector_contains(&outer->pods, inner->pods.present ? &inner->pods : &all));
}

static bool blocks_contain(const struct policy_peer *outer, const struct policy_peer *inner)
{
	/* exceptions: none, or the same */
	if (outer->n_except && (outer->n_except != inner->n_except || outer->n_blocks != 1 || inner->n_blocks != 1))
		return false;
	for (size_t i = 0; i < outer->n_except; i++)
		if (outer->except[i].length != inner->except[i].length ||
			memcmp(&outer->except[i].addr, &inner->except[i].addr, sizeof(struct hd_addr)) != 0)
			return false;
	for (size_t i = 0; i < inner->n_blocks; i++) {
		bool found = false;

		for (size_t j = 0; j < outer->n_blocks && !found; j++)
			found = addr_prefix_in_prefix(
				&inner->blocks[i].addr, inner->blocks[i].length, &outer->blocks[j].addr, outer->blocks[j].length);
		if (!found)
			return false;
	}
	return true;
}

static bool who_contains(const struct who *outer, const struct who *inner)
{
	if (outer->n == 0 || inner->n == 0)
		return outer->n == 0;
	for (size_t i = 0; i < inner->n; i++) {
		const struct policy_peer *b = &inner->peers[i];
		bool found = false;

		for (size_t j = 0; j < outer->n && !found; j++) {
			const struct policy_peer *a = &outer->peers[j];

			if (a->kind != b->kind || a->kind == POLICY_PEER_NODES)
				continue;
			found = a->kind == POLICY_PEER_PODS ? pods_contain(a, outer->own, b, inner->own) : blocks_contain(a, b);
		}
		if (!found)
			return false;
	}
	return true;
}

static bool group_contradicts(const struct requirement *items, size_t n)
{
	const struct requirement *in = NULL;
	bool exists = false, absent = false;

	for (size_t i = 0; i < n; i++) {
		if (items[i].operator== SELECTOR_IN && !in)
			in = &items[i];
		exists = exists || items[i].operator== SELECTOR_EXISTS;
		absent = absent || items[i].operator== SELECTOR_DOES_NOT_EXIST;
	}
	if (absent)
		return exists || in;
	for (uint32_t v = 0; in && v < in->n_values; v++) {
		bool good = true;

		for (size_t i = 0; i < n && good; i++)
			if (items[i].operator== SELECTOR_IN || items[i].operator== SELECTOR_NOT_IN)
				good = has_value(&items[i], in->values[v]) == (items[i].operator== SELECTOR_IN);
		if (good)
			return false;
	}
	return in;
}

/* No labels meet it. */
static bool contradicts(const struct selector *selector)
{
	for (size_t i = 0, end; i < selector->n; i = end) {
		for (end = i; end < selector->n && strcmp(selector->items[end].key, selector->items[i].key) == 0;)
			end++;
		if (group_contradicts(&selector->items[i], end - i))
			return true;
	}
	return false;
}

/* The name of the selector that does; NULL: none. */
static const char *peer_contradicts(const struct policy_peer *peer)
{
	if (contradicts(&peer->namespaces))
		return "namespaceSelector";
	if (contradicts(&peer->nodes))
		return "nodes";
	return contradicts(&peer->pods) ? "podSelector" : NULL;
}

/* --- numbers --- */

static uint64_t selector_hash(uint64_t hash, const struct selector *selector)
{
	hash = hash_u64(hash, selector->n);
	for (size_t i = 0; i < selector->n; i++) {
		hash = hash_u64(hash_string(hash, selector->items[i].key), selector->items[i].operator);
		for (uint32_t j = 0; j < selector->items[i].n_values; j++)
			hash = hash_string(hash, selector->items[i].values[j]);
	}
	return hash;
}

static uint64_t who_hash(const struct who *who)
{
	uint64_t hash = hash_u64(0, who->n);

	for (size_t i = 0; i < who->n; i++) {
		const struct policy_peer *peer = &who->peers[i];

		hash = hash_u64(hash, peer->kind);
		if (peer->kind == POLICY_PEER_PODS)
			hash = peer->namespaces.present ? selector_hash(hash, &peer->namespaces) : hash_string(hash, who->own);
		hash = selector_hash(selector_hash(hash, &peer->pods), &peer->nodes);
		for (size_t j = 0; j < peer->n_blocks; j++)
			hash = hash_u64(hash_bytes(hash, &peer->blocks[j].addr, sizeof(struct hd_addr)), peer->blocks[j].length);
		for (size_t j = 0; j < peer->n_except; j++)
			hash = hash_u64(hash_bytes(hash, &peer->except[j].addr, sizeof(struct hd_addr)), peer->except[j].length);
	}
	return hash;
}

static int who_get(struct label_lint *label, struct who_list *list, struct who who, uint32_t *ret)
{
	uint64_t hash = who_hash(&who);
	struct lint_slot *slot;

	if (lint_index_room(&list->index) < 0)
		return -ENOMEM;
	for (slot = lint_index_at(&list->index, hash); slot->used; slot = lint_index_next(&list->index, slot)) {
		const struct who *known = &list->all.data[slot->number];

		if (slot->hash == hash && who_contains(known, &who) && who_contains(&who, known)) {
			*ret = slot->number;
			return 0;
		}
	}
	who.nobody = is_nobody(label, &who);
	*ret = (uint32_t)list->all.n;
	if (VEC_PUSH(&list->all, who) < 0)
		return -ENOMEM;
	lint_index_put(&list->index, slot, hash, *ret);
	return 0;
}

static int who_relate(const struct who_list *list, bool has_everybody, struct lint_relation *relation)
{
	const struct who *all = list->all.data;
	size_t compared = list->all.n;
	int r = 0;

	if ((uint64_t)compared * list->all.n > COMPARED_MOST)
		compared = COMPARED_MOST / list->all.n + LINT_CONTAINERS;
	for (size_t i = 0; i < list->all.n && r == 0; i++) {
		uint32_t found = 0;

		r = VEC_PUSH(&relation->start, (uint32_t)relation->item.n);
		if (r == 0)
			r = VEC_PUSH(&relation->item, (uint32_t)i);
		if (r == 0 && has_everybody && i != EVERYBODY)
			r = VEC_PUSH(&relation->item, EVERYBODY);
		for (size_t j = has_everybody; j < compared && j < list->all.n && found < LINT_CONTAINERS && r == 0; j++) {
			if (j == i || !who_contains(&all[j], &all[i]))
				continue;
			r = VEC_PUSH(&relation->item, (uint32_t)j);
			found++;
		}
	}
	return r < 0 ? r : VEC_PUSH(&relation->start, (uint32_t)relation->item.n);
}

/* --- ports --- */

static uint32_t name_key(struct label_lint *label, const struct policy_port *port)
{
	uint32_t i = 0;

	while (i < label->n_names &&
		(strcmp(label->names[i].name, port->name) != 0 || label->names[i].protocol != port->range.protocol))
		i++;
	if (i == NAMES_MOST)
		return NO_KEY;
	if (i == label->n_names) {
		label->names[i].name = port->name;
		label->names[i].protocol = port->range.protocol;
		label->n_names++;
	}
	return LINT_KEY_NAMED + i;
}

static int add_ports(struct label_lint *label, struct lint_rule *to, const struct policy_rule *rule)
{
	struct lint *lint = label->lint;
	bool known = true;
	int r = 0;

	to->piece = lint->pieces.n;
	if (rule->n_ports == 0) {
		to->n_pieces = 1;
		return VEC_PUSH(&lint->pieces, (struct lint_piece){0, LINT_KEY_LAST});
	}
	for (size_t i = 0; i < rule->n_ports && r == 0; i++) {
		const struct port_range *range = &rule->ports[i].range;
		struct lint_piece piece;

		if (rule->ports[i].name) {
			piece.first = piece.last = name_key(label, &rule->ports[i]);
			to->dead = to->dead ||
				   piece.first == LINT_KEY_LAST - 1; /* is neither covered by nor covers what it might not */
		} else {
			uint32_t kind = range->protocol == IPPROTO_TCP	 ? HD_L4_TCP
					: range->protocol == IPPROTO_UDP ? HD_L4_UDP
									 : HD_L4_SCTP;

			piece = (struct lint_piece){HD_L4_KEY(kind, range->first), HD_L4_KEY(kind, range->last)};
		}
		r = VEC_PUSH(&lint->pieces, piece);
		to->n_pieces++;
	}
	/* more names than are told apart: it is not compared */
	if (!known)
		to->n_pieces = 0;
	return r;
}

static bool resident_has(const struct identity *resident, const struct policy_port *wanted)
{
	const struct workload *workload = &resident->workload;

	for (size_t i = 0; i < workload->n_ports; i++)
		if (strcmp(workload->ports[i].name, wanted->name) == 0 &&
			(!wanted->range.protocol || wanted->range.protocol == workload->ports[i].protocol))
			return true;
	return false;
}

/* Somebody that the rule sends to has a port of that name. */
static bool name_is_known(const struct label_lint *label, const struct who *who, const struct policy_port *port)
{
	bool anybody = who->n == 0;

	for (size_t i = 0; i < who->n; i++)
		anybody = anybody || who->peers[i].kind == POLICY_PEER_NETWORKS;
	for (size_t i = 0; i < label->residents.n; i++)
		if (resident_has(label->residents.data[i], port) && (anybody || selects_any(who, label->residents.data[i])))
			return true;
	return false;
}

static int check_names(struct label_lint *label, struct lint_rule *to, const struct policy_rule *rule, const struct who *who)
{
	size_t unknown = 0;
	int r = 0;

	for (size_t i = 0; i < rule->n_ports; i++)
		unknown += rule->ports[i].name && !name_is_known(label, who, &rule->ports[i]);
	for (size_t i = 0; i < rule->n_ports && unknown && r == 0; i++)
		if (rule->ports[i].name && !name_is_known(label, who, &rule->ports[i]))
			r = lint_note_rule(label->lint, to, LINT_NEVER,
				unknown == rule->n_ports ? LINT_NAMED_NOBODY : LINT_NAMED_SOME, true, "port",
				rule->ports[i].name);
	return r;
}

/* --- tiers --- */

/*
 * What NetworkPolicies allow says nothing about the baseline, and Pass nothing about later tiers. Nor does a rule of the admin tier where an
 * earlier one may have passed the packet on before it came to it.
 */
static bool is_own_tier(struct label_lint *label, const struct lint_rule *rule)
{
	const struct lint_piece *pieces = &label->lint->pieces.data[rule->piece];
	bool own = rule->tier != TIER_ADMIN || rule->pass || label->n_passed == PASSED_MOST;

	for (uint32_t i = 0; i < rule->n_pieces && !own; i++)
		for (uint32_t j = 0; j < label->n_passed && !own; j++)
			own = label->passed[j].first <= pieces[i].last && pieces[i].first <= label->passed[j].last;
	for (uint32_t i = 0; i < rule->n_pieces && rule->pass && label->n_passed < PASSED_MOST; i++)
		label->passed[label->n_passed++] = pieces[i];
	return own;
}

/* --- rules --- */

static bool is_everything(const struct policy_peer *peer)
{
	for (size_t i = 0; peer->kind == POLICY_PEER_NETWORKS && peer->n_except == 0 && i < peer->n_blocks; i++)
		if (peer->blocks[i].length == 0 || (peer->blocks[i].length == 96 && addr_is_ipv4(&peer->blocks[i].addr)))
			return true;
	return false;
}

/* subject: of the policy; peers: of the rule. */
static int check_rule(struct label_lint *label, struct lint_rule *to, const struct policy_rule *rule, const struct who *subject,
	const struct who *peers)
{
	struct lint *lint = label->lint;
	bool everything = rule->n_peers == 0;
	int r = 0;

	for (size_t i = 0; i < rule->n_peers && r == 0; i++) {
		const char *selector = peer_contradicts(&rule->peers[i]);

		everything = everything || is_everything(&rule->peers[i]);
		if (selector)
			r = lint_note_rule(lint, to, LINT_NEVER, LINT_SELECTOR_CONTRADICTS, true, "selector", selector);
		to->dead = to->dead || (selector && rule->n_peers == 1);
	}
	if (to->dead || r < 0)
		return r;
	if (peers->nobody)
		return lint_note_rule(lint, to, LINT_UNREACHABLE, LINT_PEERS_NOBODY, false, NULL, NULL);
	if (!subject->nobody)
		r = check_names(label, to, rule, lint->direction == HD_INGRESS ? subject : peers);
	if (r == 0 && everything && rule->n_ports == 0 && rule->action == POLICY_ALLOW)
		r = lint_note_rule(lint, to, LINT_BROAD, LINT_ANY_TO_ANY, to->tier == TIER_ADMIN, NULL, NULL);
	return r;
}

static int add_rule(struct label_lint *label, const struct object *policy, uint32_t scope, uint32_t index)
{
	struct lint *lint = label->lint;
	const struct policy_rule *rule = &policy->workload.rules[lint->direction][index];
	enum policy_tier tier = policy_tier(policy);
	struct lint_rule to = {.policy = policy,
		.policy_order = (uint32_t)lint->policy_order,
		.name = rule->name,
		.index = index,
		.line = rule->line,
		.scope = scope,
		.verdict = rule->action == POLICY_DENY ? HD_DENY : HD_ALLOW,
		.tier = (uint8_t)tier,
		.pass = rule->action == POLICY_PASS && tier == TIER_ADMIN};
	struct who who = {.peers = rule->peers, .n = rule->n_peers, .own = policy->namespace_};
	int r = who_get(label, &label->peers, who, &to.selector);

	if (r == 0)
		r = add_ports(label, &to, rule);
	if (r == 0)
		to.own_tier = is_own_tier(label, &to);
	if (r == 0)
		r = check_rule(label, &to, rule, &label->subjects.all.data[scope], &label->peers.all.data[to.selector]);
	return r < 0 ? r : VEC_PUSH(&lint->rules, to);
}

static int add_policy(struct label_lint *label, const struct object *policy)
{
	const struct workload_policy *workload = &policy->workload;
	struct lint *lint = label->lint;
	const char *selector;
	struct who subject = {.n = 1, .own = policy->namespace_};
	uint32_t scope;
	int r;

	/* there is room for all of them: they stay where they are */
	label->subject_peers.data[label->subject_peers.n] =
		(struct policy_peer){.kind = POLICY_PEER_PODS, .namespaces = workload->namespaces, .pods = workload->pods};
	subject.peers = &label->subject_peers.data[label->subject_peers.n++];
	r = who_get(label, &label->subjects, subject, &scope);
	/* said once, not for each direction */
	selector = peer_contradicts(subject.peers);
	if (r == 0 && lint->direction == HD_INGRESS && selector)
		r = lint_note_policy(lint, policy, -1, LINT_NEVER, LINT_SELECTOR_CONTRADICTS, true, "selector", selector);
	else if (r == 0 && lint->direction == HD_INGRESS && label->subjects.all.data[scope].nobody)
		r = lint_note_policy(lint, policy, -1, LINT_UNREACHABLE, LINT_SUBJECT_NOBODY, false, NULL, NULL);
	if (selector || !workload->applies[lint->direction])
		return r;
	for (uint32_t i = 0; i < workload->n_rules[lint->direction] && r == 0; i++)
		r = add_rule(label, policy, scope, i);
	return r;
}

int lint_workloads(struct lint *lint)
{
	struct label_lint *label = calloc(1, sizeof(*label));
	uint32_t everybody;
	int r;

	if (!label)
		return -ENOMEM;
	label->lint = lint;
	r = labels_new(&label->labels);
	if (r == 0)
		r = find_residents(label);
	if (r == 0)
		r = VEC_RESERVE(&label->subject_peers, lint->policies.n + 1);
	if (r == 0)
		r = who_get(label, &label->peers, (struct who){0}, &everybody);
	for (size_t i = 0; i < lint->policies.n && r == 0; i++) {
		lint->policy_order = i;
		r = add_policy(label, lint->policies.data[i]);
	}
	if (r == 0)
		r = who_relate(&label->peers, true, &lint->selectors);
	if (r == 0)
		r = who_relate(&label->subjects, false, &lint->scopes);
	label_clear(label);
	return r;
}
