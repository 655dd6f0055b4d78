/* SPDX-License-Identifier: Apache-2.0 */
/* Policies for ports: tiers, and what becomes of each rule. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <util/arena.h>
#include <util/cleanup.h>
#include <util/hash.h>

#include <policy/expand.h>

/* --- order --- */

enum policy_tier policy_tier(const struct object *policy)
{
	switch (policy->kind) {
	case OBJECT_HOST_POLICY:
		return TIER_HOST;
	case OBJECT_NETWORK_POLICY:
		return TIER_NETWORK;
	default:
		return policy->workload.baseline ? TIER_BASELINE : TIER_ADMIN;
	}
}

int policy_compare(const struct object *a, const struct object *b)
{
	enum policy_tier tier_a = policy_tier(a), tier_b = policy_tier(b);
	uint32_t priority_a = tier_a == TIER_HOST ? a->policy.priority : a->workload.priority;
	uint32_t priority_b = tier_b == TIER_HOST ? b->policy.priority : b->workload.priority;
	int c = (tier_a > tier_b) - (tier_a < tier_b);

	if (c == 0)
		c = (priority_a > priority_b) - (priority_a < priority_b);
	if (c == 0)
		c = strcmp(a->name, b->name);
	return c ? c : object_compare(a, b);
}

/* --- the hash of a rule --- */

static uint64_t selector_hash(uint64_t hash, const struct selector *selector)
{
	hash = hash_u64(hash, (uint64_t)selector->present << 32 | selector->n);
	for (size_t i = 0; i < selector->n; i++) {
		hash = hash_u64(hash_string(hash, selector->items[i].key), selector->items[i].operator);
		for (uint32_t j = 0; j < selector->items[i].n_values; j++)
			hash = hash_string(hash, selector->items[i].values[j]);
	}
	return hash;
}

static uint64_t prefixes_hash(uint64_t hash, const struct prefix *prefixes, size_t n)
{
	hash = hash_u64(hash, n);
	for (size_t i = 0; i < n; i++)
		hash = hash_u64(hash_bytes(hash, &prefixes[i].addr, sizeof(struct hd_addr)), prefixes[i].length);
	return hash;
}

uint64_t policy_rule_hash(uint64_t hash, const struct policy_rule *rule)
{
	hash = hash_u64(hash, (uint64_t)rule->action << 32 | rule->n_peers);
	for (size_t i = 0; i < rule->n_peers; i++) {
		const struct policy_peer *peer = &rule->peers[i];

		hash = selector_hash(hash_u64(hash, peer->kind), &peer->namespaces);
		hash = selector_hash(selector_hash(hash, &peer->pods), &peer->nodes);
		hash = prefixes_hash(prefixes_hash(hash, peer->blocks, peer->n_blocks), peer->except, peer->n_except);
	}
	hash = hash_u64(hash, rule->n_ports);
	for (size_t i = 0; i < rule->n_ports; i++) {
		const struct port_range *range = &rule->ports[i].range;

		hash = hash_string(hash, rule->ports[i].name);
		hash = hash_u64(hash, (uint64_t)range->protocol << 32 | (uint32_t)range->first << 16 | range->last);
	}
	return hash;
}

/* --- one rule --- */

struct expander {
	struct expanded *to;
	const struct policy_hosts *hosts;
	struct object *policy;
	enum hd_direction direction;
	uint32_t source;
	const struct policy_rule *rule;
	/* of the rules being made */
	const struct port_range *ports;
	uint32_t n_ports;
	const struct label_group *subjects;
	size_t capacity[HD_DIRECTIONS], groups_capacity;
};

static const struct policy_peer everyone = {.kind = POLICY_PEER_PODS, .namespaces = {.present = true}};

/* The group becomes the policy's, which lets go of it when it goes. */
static int keep_group(struct expander *e, struct label_group *group)
{
	struct expanded *to = e->to;

	if (!group)
		return -ENOMEM;
	if (to->n_groups == e->groups_capacity) {
		size_t capacity = e->groups_capacity ? e->groups_capacity * 2 : 4;
		struct label_group **groups = reallocarray(to->groups, capacity, sizeof(struct label_group *));

		if (!groups) {
			label_group_unref(to->labels, group);
			return -ENOMEM;
		}
		to->groups = groups;
		e->groups_capacity = capacity;
	}
	to->groups[to->n_groups++] = group;
	return 0;
}

static int add_rule(struct expander *e, const struct peer *peers, uint32_t n_peers)
{
	static const uint8_t verdicts[] = {[POLICY_ALLOW] = HD_ALLOW, [POLICY_DENY] = HD_DENY, [POLICY_PASS] = RULE_PASS};
	struct expanded *to = e->to;
	enum hd_direction d = e->direction;
	struct rule rule = {
		.name = e->rule->name,
		.peers = peers,
		.n_peers = n_peers,
		.ports = e->ports,
		.n_ports = e->n_ports & RULE_PORTS_MAX,
		.line = e->rule->line & RULE_LINE_MAX,
		.verdict = verdicts[e->rule->action],
	};

	if (rule.verdict == RULE_PASS && to->tier == TIER_BASELINE)
		rule.verdict = HD_ALLOW; /* nothing comes after it */
	if (to->n_rules[d] == e->capacity[d]) {
		size_t capacity = e->capacity[d] ? e->capacity[d] * 2 : e->policy->workload.n_rules[d];
		struct expanded_rule *rules = reallocarray(to->rules[d], capacity, sizeof(*rules));

		if (!rules)
			return -ENOMEM;
		to->rules[d] = rules;
		e->capacity[d] = capacity;
	}
	to->passes[d] = to->passes[d] || rule.verdict == RULE_PASS;
	to->rules[d][to->n_rules[d]++] = (struct expanded_rule){.rule = rule, .source = e->source, .subjects = e->subjects};
	return 0;
}

static int add_group_rule(struct expander *e, const struct policy_peer *peers, size_t n, const struct named_match *named)
{
	struct label_group *group = label_group_get(e->to->labels, e->policy, peers, n, named);
	struct peer peer = {0}, *copy;
	int r = keep_group(e, group);

	if (r < 0)
		return r;
	peer.group = group->text;
	copy = arena_copy(e->to->arena, &peer, sizeof(peer), _Alignof(struct peer));
	return copy ? add_rule(e, copy, 1) : -ENOMEM;
}

static int add_nodes(struct expander *e, const struct policy_peer *peer, struct peer *peers, uint32_t *n)
{
	size_t n_addresses = policy_hosts_addresses(e->hosts, peer, NULL);
	_cleanup_free_ struct hd_addr *addresses = calloc(n_addresses + 1, sizeof(*addresses));

	if (!addresses)
		return -ENOMEM;
	(void)policy_hosts_addresses(e->hosts, peer, addresses);
	for (size_t i = 0; i < n_addresses; i++)
		peers[(*n)++] = (struct peer){.prefix = {.addr = addresses[i], .length = 128}};
	return 0;
}

static int add_block_rule(struct expander *e, size_t n_blocks)
{
	struct peer *peers = n_blocks <= RULE_PEERS_MAX ? arena_array(e->to->arena, struct peer, n_blocks) : NULL;
	uint32_t n = 0;
	int r = 0;

	if (!peers)
		return n_blocks <= RULE_PEERS_MAX ? -ENOMEM : -E2BIG;
	for (size_t i = 0; i < e->rule->n_peers; i++) {
		const struct policy_peer *peer = &e->rule->peers[i];

		for (size_t j = 0; peer->kind == POLICY_PEER_NETWORKS && j < peer->n_blocks; j++) {
			peers[n].prefix = peer->blocks[j];
			peers[n].n_except = (uint32_t)peer->n_except;
			peers[n++].except = peer->except;
		}
		if (peer->kind == POLICY_PEER_NODES && r == 0)
			r = add_nodes(e, peer, peers, &n);
	}
	return r < 0 ? r : add_rule(e, peers, n);
}

/* The rule's peers, with the ports and subjects that e has. */
static int add_peers(struct expander *e)
{
	size_t n_pods = 0, n_blocks = 0;
	int r = 0;

	if (e->rule->n_peers == 0)
		return add_rule(e, NULL, 0);
	for (size_t i = 0; i < e->rule->n_peers; i++) {
		const struct policy_peer *peer = &e->rule->peers[i];

		n_pods += peer->kind == POLICY_PEER_PODS;
		n_blocks += peer->kind == POLICY_PEER_NETWORKS ? peer->n_blocks : 0;
		if (peer->kind != POLICY_PEER_NODES)
			continue;
		e->to->nodes = true;
		n_blocks += policy_hosts_addresses(e->hosts, peer, NULL);
	}
	if (n_pods)
		r = add_group_rule(e, e->rule->peers, e->rule->n_peers, NULL);
	if (n_blocks && r == 0)
		r = add_block_rule(e, n_blocks);
	return r;
}

/* --- named ports --- */

static int add_named(struct expander *e, const struct named_match *named)
{
	struct port_range range = {.protocol = named->protocol, .first = named->port, .last = named->port};
	int r = 0;

	e->ports = arena_copy(e->to->arena, &range, sizeof(range), _Alignof(struct port_range));
	e->n_ports = 1;
	if (!e->ports)
		return -ENOMEM;
	if (e->direction == HD_EGRESS)
		return add_group_rule(
			e, e->rule->n_peers ? e->rule->peers : &everyone, e->rule->n_peers ? e->rule->n_peers : 1, named);
	r = keep_group(e, label_group_get(e->to->labels, e->policy, NULL, 0, named));
	if (r < 0)
		return r;
	e->subjects = e->to->groups[e->to->n_groups - 1];
	r = add_peers(e);
	e->subjects = NULL;
	return r;
}

/* A rule for each protocol and number that the name stands for among all ports. */
static int add_name(struct expander *e, const struct policy_port *port)
{
	size_t n;
	const struct named_match *named = labels_named(e->to->labels, port->name, &n);
	int r = 0;

	for (size_t i = 0; i < n && r == 0; i++)
		if (!port->range.protocol || port->range.protocol == named[i].protocol)
			/* The group keeps the name: it must be the policy's. */
			r = add_named(e,
				&(struct named_match){.name = port->name, .port = named[i].port, .protocol = named[i].protocol});
	return r;
}

static int expand_rule(struct expander *e)
{
	const struct policy_rule *rule = e->rule;
	struct port_range *ports = NULL;
	uint32_t n = 0;
	int r = 0;

	for (size_t i = 0; i < rule->n_ports; i++)
		n += !rule->ports[i].name;
	if (n) {
		ports = arena_array(e->to->arena, struct port_range, n);
		if (!ports)
			return -ENOMEM;
		n = 0;
		for (size_t i = 0; i < rule->n_ports; i++)
			if (!rule->ports[i].name)
				ports[n++] = rule->ports[i].range;
	}
	e->ports = ports;
	e->n_ports = n;
	if (n || rule->n_ports == 0)
		r = add_peers(e);
	for (size_t i = 0; i < rule->n_ports && r == 0; i++)
		if (rule->ports[i].name) {
			e->to->named = true;
			r = add_name(e, &rule->ports[i]);
		}
	return r;
}

int expand_policy(struct labels *labels, struct policy_hosts *hosts, struct object *policy, struct expanded **ret)
{
	const struct workload_policy *workload = &policy->workload;
	struct expanded *to = calloc(1, sizeof(*to));
	struct expander e = {.to = to, .hosts = hosts, .policy = policy};
	int r = 0;

	if (!to)
		return -ENOMEM;
	to->refs = 1;
	to->labels = labels;
	to->named_version = labels_named_version(labels);
	to->audit = workload->audit;
	to->tier = policy_tier(policy);
	to->arena = arena_new();
	to->subject = label_group_get(labels, policy, NULL, 0, NULL);
	if (!to->arena || !to->subject)
		r = -ENOMEM;
	for (int d = 0; d < HD_DIRECTIONS; d++) {
		to->applies[d] = to->tier != TIER_NETWORK || workload->applies[d];
		e.direction = (enum hd_direction)d;
		/* What policyTypes leaves out is as if it were not there. */
		for (size_t i = 0; to->applies[d] && i < workload->n_rules[d] && r == 0; i++) {
			e.source = (uint32_t)i;
			e.rule = &workload->rules[d][i];
			r = expand_rule(&e);
		}
	}
	if (r < 0) {
		expanded_unref(to);
		return r;
	}
	if (to->nodes)
		to->hosts_version = policy_hosts_version(hosts);
	*ret = to;
	return 0;
}

struct expanded *expanded_ref(struct expanded *expanded)
{
	expanded->refs++;
	return expanded;
}

void expanded_unref(struct expanded *expanded)
{
	if (!expanded || --expanded->refs)
		return;
	label_group_unref(expanded->labels, expanded->subject);
	for (size_t i = 0; i < expanded->n_groups; i++)
		label_group_unref(expanded->labels, expanded->groups[i]);
	free(expanded->groups);
	for (int d = 0; d < HD_DIRECTIONS; d++)
		free(expanded->rules[d]);
	arena_free(expanded->arena);
	free(expanded);
}
