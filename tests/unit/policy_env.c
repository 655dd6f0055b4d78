/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <netinet/in.h>

#include <cmocka.h>

#include <tests/unit/policy_env.h>
#include <util/addr.h>

/* --- documents --- */

void policy_documents(struct object_list *list, const char *text)
{
	struct diag diag = {0};
	int r = decode_documents("test.yaml", text, strlen(text), list, &diag);

	if (r < 0)
		fail_msg("%s\n%s", diag.text ? diag.text : strerror(-r), text);
	diag_clear(&diag);
}

const struct host *policy_env_host(const struct object_list *list)
{
	for (size_t i = 0; i < list->n; i++)
		if (list->items[i]->kind == OBJECT_HOST)
			return &list->items[i]->host;
	fail_msg("no Host");
	return NULL;
}

/* --- maps --- */

void policy_env_open(struct policy_env *env, const struct compiler_limits *limits, uint32_t first_generation)
{
	*env = (struct policy_env){.limits = *limits};
	assert_int_equal(compiler_new(limits, first_generation, &env->compiler), 0);
	assert_int_equal(networks_new(&env->numbers), 0);
	env->addr4_nodes = calloc(limits->addr4_nodes, sizeof(*env->addr4_nodes));
	env->addr4_tables = calloc(limits->addr4_tables + 1, sizeof(*env->addr4_tables));
	env->addr6_nodes = calloc(limits->addr6_nodes, sizeof(*env->addr6_nodes));
	env->classes = calloc(limits->classes, sizeof(*env->classes));
	env->rule_nodes = calloc(limits->rule_nodes, sizeof(*env->rule_nodes));
	env->rules = calloc(limits->rules, sizeof(*env->rules));
	assert_true(env->addr4_nodes && env->addr4_tables && env->addr6_nodes && env->classes && env->rule_nodes && env->rules);
}

static void free_uplinks(struct policy_env *env)
{
	for (size_t i = 0; i < env->n_uplinks; i++)
		free((char *)env->uplinks[i].device);
	free(env->uplinks);
	env->uplinks = NULL;
	env->n_uplinks = 0;
}

void policy_env_close(struct policy_env *env)
{
	compiler_free(env->compiler);
	networks_free(env->numbers);
	free(env->addr4_nodes);
	free(env->addr4_tables);
	free(env->addr6_nodes);
	free(env->classes);
	free(env->rule_nodes);
	free(env->rules);
	free_uplinks(env);
	free(env->ports);
	free(env->networks);
	diag_clear(&env->diag);
}

int policy_env_compile(struct policy_env *env, const struct object_list *list, bool lockdown)
{
	struct policy_input input = {
		.host = policy_env_host(list), .objects = list, .networks = env->numbers, .lockdown = lockdown};
	struct compiler_limits needed;
	int r;

	diag_clear(&env->diag);
	r = networks_assign(env->numbers, list, &env->diag);
	if (r < 0)
		return r;
	return compiler_compile(env->compiler, &input, &env->delta, &needed, &env->diag);
}

/* A record that is not there yet, or what is in its stead, has no policy. */
static struct policy_env_port *port_record(struct policy_env *env, const struct object *port, bool make)
{
	for (size_t i = 0; i < env->n_ports; i++)
		if (strcmp(env->ports[i].namespace_, port->namespace_) == 0 && strcmp(env->ports[i].name, port->name) == 0)
			return &env->ports[i];
	if (!make)
		return NULL;
	env->ports = realloc(env->ports, (env->n_ports + 1) * sizeof(*env->ports));
	assert_non_null(env->ports);
	memset(&env->ports[env->n_ports], 0, sizeof(*env->ports));
	snprintf(env->ports[env->n_ports].namespace_, 64, "%s", port->namespace_);
	snprintf(env->ports[env->n_ports].name, 64, "%s", port->name);
	return &env->ports[env->n_ports++];
}

static struct policy_env_network *network_record(struct policy_env *env, const char *name, bool make)
{
	for (size_t i = 0; i < env->n_networks; i++)
		if (strcmp(env->networks[i].name, name) == 0)
			return &env->networks[i];
	if (!make)
		return NULL;
	env->networks = realloc(env->networks, (env->n_networks + 1) * sizeof(*env->networks));
	assert_non_null(env->networks);
	memset(&env->networks[env->n_networks], 0, sizeof(*env->networks));
	snprintf(env->networks[env->n_networks].name, 64, "%s", name);
	return &env->networks[env->n_networks++];
}

/* The slot that is in force in the generation, -1 for none; of roots and of policies. */
static int live_slot(uint32_t a, uint32_t b, uint32_t generation)
{
	const struct hd_port port = {.policy = {{.generation = a}, {.generation = b}}};

	return hd_port_policy_at(&port, generation);
}

static void write_ports(struct policy_env *env)
{
	for (size_t i = 0; i < env->delta->n_ports; i++) {
		const struct port_policy *from = &env->delta->ports[i];
		struct policy_env_port *to = port_record(env, from->port, true);
		int live = live_slot(to->policy[0].generation, to->policy[1].generation, env->generation);

		if (!from->changed) {
			/* what it is said to have is what it has */
			assert_true(live >= 0);
			assert_memory_equal(&to->policy[live], &from->policy, sizeof(from->policy));
			assert_int_equal(to->network, from->network);
			continue;
		}
		assert_int_equal(from->policy.generation, env->delta->generation);
		to->network = from->network;
		to->policy[live == 0] = from->policy;
	}
}

static void write_networks(struct policy_env *env)
{
	for (size_t i = 0; i < env->delta->n_networks; i++) {
		const struct network_roots *from = &env->delta->networks[i];
		struct policy_env_network *to = network_record(env, from->network->name, true);
		int live = live_slot(to->roots[0].generation, to->roots[1].generation, env->generation);

		assert_in_range(from->index, 1, HD_NETWORKS - 1);
		if (!from->changed) {
			assert_true(live >= 0);
			assert_memory_equal(&to->roots[live], &from->roots, sizeof(from->roots));
			assert_int_equal(to->index, from->index);
			continue;
		}
		assert_int_equal(from->roots.generation, env->delta->generation);
		to->index = from->index;
		to->roots[live == 0] = from->roots;
	}
}

/* Records of what is gone go once nobody reads them any more. */
static void drop_records(struct policy_env *env)
{
	size_t kept = 0;

	for (size_t i = 0; i < env->n_ports; i++) {
		bool there = false;

		for (size_t j = 0; j < env->delta->n_ports && !there; j++)
			there = strcmp(env->ports[i].namespace_, env->delta->ports[j].port->namespace_) == 0 &&
				strcmp(env->ports[i].name, env->delta->ports[j].port->name) == 0;
		if (there)
			env->ports[kept++] = env->ports[i];
	}
	env->n_ports = kept;
	kept = 0;
	for (size_t i = 0; i < env->n_networks; i++) {
		bool there = false;

		for (size_t j = 0; j < env->delta->n_networks && !there; j++)
			there = strcmp(env->networks[i].name, env->delta->networks[j].network->name) == 0;
		if (there)
			env->networks[kept++] = env->networks[i];
	}
	env->n_networks = kept;
}

void policy_env_write(struct policy_env *env)
{
	const struct policy_delta *delta = env->delta;

	for (size_t i = 0; i < delta->n_addr4_nodes; i++) {
		assert_in_range(delta->addr4_nodes[i].id, 1, env->limits.addr4_nodes - 1);
		env->addr4_nodes[delta->addr4_nodes[i].id] = delta->addr4_nodes[i].node;
	}
	for (size_t i = 0; i < delta->n_addr4_tables; i++) {
		assert_in_range(delta->addr4_tables[i].id, 1, env->limits.addr4_tables - 1);
		env->addr4_tables[delta->addr4_tables[i].id] = delta->addr4_tables[i].node;
	}
	for (size_t i = 0; i < delta->n_addr6_nodes; i++) {
		assert_in_range(delta->addr6_nodes[i].id, 1, env->limits.addr6_nodes - 1);
		env->addr6_nodes[delta->addr6_nodes[i].id] = delta->addr6_nodes[i].node;
	}
	for (size_t i = 0; i < delta->n_classes; i++) {
		struct hd_class *class;
		int now;

		assert_in_range(delta->classes[i].id, 1, env->limits.classes - 1);
		assert_int_equal(delta->classes[i].rules.generation, delta->generation);
		class = &env->classes[delta->classes[i].id];
		now = hd_class_rules_at(class, env->generation);
		class->rules[now < 0 ? 0 : !now] = delta->classes[i].rules;
	}
	for (size_t i = 0; i < delta->n_rule_nodes; i++) {
		assert_in_range(delta->rule_nodes[i].id, 1, env->limits.rule_nodes - 1);
		env->rule_nodes[delta->rule_nodes[i].id] = delta->rule_nodes[i].node;
	}
	write_ports(env);
	write_networks(env);
	for (size_t i = 0; i < delta->n_rules; i++) {
		assert_in_range(delta->rules[i].id, HD_RULE_FIRST, env->limits.rules - 1);
		env->rules[delta->rules[i].id] = delta->rules[i].info;
	}
}

void policy_env_publish(struct policy_env *env)
{
	const struct policy_delta *delta = env->delta;

	networks_commit(env->numbers);
	free_uplinks(env);
	env->uplinks = calloc(delta->n_uplinks + 1, sizeof(*env->uplinks));
	assert_non_null(env->uplinks);
	for (size_t i = 0; i < delta->n_uplinks; i++) {
		env->uplinks[i] = delta->uplinks[i];
		env->uplinks[i].device = strdup(delta->uplinks[i].device);
		assert_int_equal(delta->uplinks[i].policy.generation, delta->generation);
	}
	env->n_uplinks = delta->n_uplinks;
	assert_int_equal(delta->roots.generation, delta->generation);
	assert_true(env->generation == 0 || (env->generation & 1) != (delta->generation & 1));
	env->roots[delta->generation & 1] = delta->roots;
	env->generation = delta->generation;
	compiler_commit(env->compiler);
}

void policy_env_settle(struct policy_env *env)
{
	drop_records(env);
	compiler_settle(env->compiler);
	env->delta = NULL;
}

void policy_env_apply(struct policy_env *env, const struct object_list *list)
{
	int r = policy_env_compile(env, list, false);

	if (r < 0)
		fail_msg("compile: %s %s", strerror(-r), env->diag.text ? env->diag.text : "");
	policy_env_write(env);
	policy_env_publish(env);
	policy_env_settle(env);
}

const struct hd_port_policy *policy_env_port(const struct policy_env *env, const char *device)
{
	for (size_t i = 0; i < env->n_uplinks; i++)
		if (strcmp(env->uplinks[i].device, device) == 0)
			return &env->uplinks[i].policy;
	return NULL;
}

static struct lookup_tables tables_of(const struct policy_env *env)
{
	return (struct lookup_tables){
		.addr4_nodes = env->addr4_nodes,
		.addr4_tables = env->addr4_tables,
		.addr6_nodes = env->addr6_nodes,
		.classes = env->classes,
		.rule_nodes = env->rule_nodes,
		.n_addr4_nodes = env->limits.addr4_nodes,
		.n_addr4_tables = env->limits.addr4_tables,
		.n_addr6_nodes = env->limits.addr6_nodes,
		.n_classes = env->limits.classes,
		.n_rule_nodes = env->limits.rule_nodes,
	};
}

void policy_env_lookup(const struct policy_env *env, uint32_t generation, const struct hd_port_policy *policy,
	enum hd_direction direction, const struct lookup_packet *packet, struct lookup_result *ret)
{
	struct lookup_tables tables = tables_of(env);

	assert_int_equal(env->roots[generation & 1].generation, generation);
	assert_int_equal(lookup_packet(&tables, generation, &env->roots[generation & 1], policy, direction, packet, ret), 0);
}

void policy_env_port_lookup(const struct policy_env *env, uint32_t generation, const struct object *port,
	enum hd_direction direction, const char *network, const struct lookup_packet *packet, struct lookup_result *ret)
{
	struct policy_env *mutable = (struct policy_env *)(uintptr_t)env;
	const struct policy_env_port *record = port_record(mutable, port, false);
	const struct policy_env_network *in = network_record(mutable, network ? network : port->port.network, false);
	struct lookup_tables tables = tables_of(env);
	int slot, roots;

	assert_true(record && in);
	slot = live_slot(record->policy[0].generation, record->policy[1].generation, generation);
	roots = live_slot(in->roots[0].generation, in->roots[1].generation, generation);
	assert_true(slot >= 0 && roots >= 0);
	assert_int_equal(lookup_packet(&tables, generation, &in->roots[roots], &record->policy[slot], direction, packet, ret), 0);
}

/* --- the judge --- */

bool policy_judge_in_prefix(const struct hd_addr *addr, const struct prefix *prefix)
{
	static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};

	/* The families do not cover each other, whatever the numbers say. */
	if ((memcmp(addr->b, mapped, 12) == 0) != (prefix->length >= 96 && memcmp(prefix->addr.b, mapped, 12) == 0))
		return false;
	for (unsigned bit = 0; bit < prefix->length; bit++)
		if ((addr->b[bit / 8] ^ prefix->addr.b[bit / 8]) >> (7 - bit % 8) & 1)
			return false;
	return true;
}

static bool in_group(const struct object_list *list, const char *name, const struct hd_addr *addr)
{
	for (size_t i = 0; i < list->n; i++) {
		const struct object *object = list->items[i];

		if (object->kind != OBJECT_ADDRESS_GROUP || strcmp(object->name, name) != 0)
			continue;
		for (size_t j = 0; j < object->group.n_cidrs; j++)
			if (policy_judge_in_prefix(addr, &object->group.cidrs[j]))
				return true;
	}
	return false;
}

static bool peer_matches(const struct object_list *list, const struct peer *peer, const struct hd_addr *addr)
{
	if (peer->group)
		return in_group(list, peer->group, addr);
	if (!policy_judge_in_prefix(addr, &peer->prefix))
		return false;
	for (uint32_t i = 0; i < peer->n_except; i++)
		if (policy_judge_in_prefix(addr, &peer->except[i]))
			return false;
	return true;
}

static int ip_protocol(const struct lookup_packet *packet)
{
	switch (packet->kind) {
	case HD_L4_TCP:
		return IPPROTO_TCP;
	case HD_L4_UDP:
		return IPPROTO_UDP;
	case HD_L4_SCTP:
		return IPPROTO_SCTP;
	case HD_L4_ICMP:
		return IPPROTO_ICMP;
	case HD_L4_ICMPV6:
		return IPPROTO_ICMPV6;
	case HD_L4_PROTOCOL:
		return packet->number;
	default:
		return -1;
	}
}

static bool with_ports(const struct lookup_packet *packet)
{
	return packet->kind == HD_L4_TCP || packet->kind == HD_L4_UDP || packet->kind == HD_L4_SCTP;
}

static bool source_port_matches(const struct rule *rule, const struct lookup_packet *packet)
{
	if (!rule->extra || rule->extra->n_source_ports == 0)
		return true;
	if (!with_ports(packet))
		return false;
	for (uint32_t i = 0; i < rule->extra->n_source_ports; i++) {
		const struct port_range *source = &rule->extra->source_ports[i];

		if ((source->protocol == 0 || source->protocol == ip_protocol(packet)) && packet->source_port >= source->first &&
			packet->source_port <= source->last)
			return true;
	}
	return false;
}

bool policy_judge_in_range(const struct port_range *range, const struct lookup_packet *packet)
{
	if (ip_protocol(packet) != range->protocol)
		return false;
	return !with_ports(packet) || (packet->number >= range->first && packet->number <= range->last);
}

static bool icmp_matches(const struct icmp_match *icmp, const struct lookup_packet *packet)
{
	uint8_t type = (uint8_t)(packet->number >> 8), code = (uint8_t)packet->number;

	if (packet->kind != (icmp->protocol == IPPROTO_ICMP ? HD_L4_ICMP : HD_L4_ICMPV6))
		return false;
	return type >= icmp->type_first && type <= icmp->type_last && code >= icmp->code_first && code <= icmp->code_last;
}

static bool rule_matches(const struct object_list *list, const struct rule *rule, const struct lookup_packet *packet)
{
	uint32_t n_icmp = rule->extra ? rule->extra->n_icmp : 0;
	bool match = rule->n_peers == 0;

	for (uint32_t i = 0; packet->ip && i < rule->n_peers && !match; i++)
		match = peer_matches(list, &rule->peers[i], &packet->peer);
	if (!match || !source_port_matches(rule, packet))
		return false;
	match = rule->n_ports == 0 && n_icmp == 0;
	for (uint32_t i = 0; i < rule->n_ports && !match; i++)
		match = policy_judge_in_range(&rule->ports[i], packet);
	for (uint32_t i = 0; i < n_icmp && !match; i++)
		match = icmp_matches(&rule->extra->icmp[i], packet);
	return match;
}

static bool applies(const struct host_policy *policy, const char *device)
{
	for (size_t i = 0; i < policy->n_uplinks; i++)
		if (strcmp(policy->uplinks[i], device) == 0)
			return true;
	return policy->n_uplinks == 0;
}

static int before(const struct object *a, const struct object *b)
{
	if (a->policy.priority != b->policy.priority)
		return a->policy.priority < b->policy.priority;
	return strcmp(a->name, b->name) < 0;
}

uint32_t policy_judge_builtin(const struct host *host, enum hd_direction direction, const struct lookup_packet *packet)
{
	uint8_t type = (uint8_t)(packet->number >> 8);

	for (size_t i = 0; direction == HD_INGRESS && packet->ip && i < host->n_failsafe; i++)
		if (policy_judge_in_range(&host->failsafe[i], packet))
			return HD_RULE_FAILSAFE;
	if (packet->kind == HD_L4_ETHERTYPE && packet->number == 0x0806)
		return HD_RULE_ARP;
	if (packet->kind == HD_L4_ETHERTYPE && (packet->number == 0x88cc || packet->number == 0x8809 || packet->number == 0x888e))
		return HD_RULE_LINK_CONTROL;
	if (packet->kind == HD_L4_ICMPV6 && type >= 133 && type <= 137)
		return HD_RULE_ND;
	if (packet->kind == HD_L4_ICMPV6 && ((type >= 130 && type <= 132) || type == 143))
		return HD_RULE_MLD;
	if (packet->kind == HD_L4_UDP) {
		uint16_t client = direction == HD_EGRESS ? packet->source_port : packet->number;
		uint16_t server = direction == HD_EGRESS ? packet->number : packet->source_port;

		if ((client == 68 && server == 67) || (client == 546 && server == 547))
			return HD_RULE_DHCP_CLIENT;
	}
	return HD_RULE_NONE;
}

struct policy_answer policy_judge(const struct object_list *list, bool lockdown, const char *device, enum hd_direction direction,
	const struct lookup_packet *packet)
{
	struct policy_answer answer = {
		.rule = policy_judge_builtin(policy_env_host(list), direction, packet), .verdict = HD_ALLOW};
	const struct object *last = NULL;

	if (answer.rule != HD_RULE_NONE)
		return answer;
	answer.rule = direction == HD_INGRESS ? HD_RULE_DEFAULT_INGRESS : HD_RULE_DEFAULT_EGRESS;
	if (lockdown && direction == HD_INGRESS)
		return (struct policy_answer){.rule = HD_RULE_LOCKDOWN, .verdict = HD_DENY};
	if (lockdown)
		return answer;
	/* Policy by policy, each time the next after the last one in (priority, name). */
	for (;;) {
		const struct object *next = NULL;

		for (size_t i = 0; i < list->n; i++) {
			const struct object *object = list->items[i];

			if (object->kind == OBJECT_HOST_POLICY && applies(&object->policy, device) &&
				(!last || before(last, object)) && (!next || before(object, next)))
				next = object;
		}
		if (!next)
			return answer;
		for (size_t i = 0; i < next->policy.n_rules[direction]; i++) {
			const struct rule *rule = &object_rules(next, direction)[i];

			if (rule_matches(list, rule, packet))
				return (struct policy_answer){.policy = next,
					.rule = (uint32_t)i,
					.verdict = rule->verdict,
					.log = rule->log,
					.audit = next->policy.audit && rule->verdict != HD_ALLOW};
		}
		if (next->policy.default_verdict[direction] >= 0) {
			answer.verdict = (uint8_t)next->policy.default_verdict[direction];
			answer.audit = next->policy.audit && answer.verdict != HD_ALLOW;
		}
		last = next;
	}
}

static bool refers_to(const struct rule_reference *rule, const struct object *policy, uint32_t index)
{
	return !rule->builtin && rule->kind == policy->kind && strcmp(rule->policy, policy->name) == 0 &&
	       strcmp(rule->namespace_ ? rule->namespace_ : "", policy->namespace_ ? policy->namespace_ : "") == 0 &&
	       rule->index == index;
}

const char *policy_env_differs(const struct policy_env *env, const struct policy_answer *answer, enum hd_direction direction,
	const struct lookup_result *result)
{
	static char text[400];
	uint32_t id = result->leaf & HD_LEAF_RULE_MASK;
	uint8_t verdict = result->leaf >> HD_LEAF_VERDICT_SHIFT & 3;
	struct rule_reference rule = {0};
	int r = compiler_rule(env->compiler, id, &rule);
	bool equal = r == 0 && verdict == answer->verdict && !(result->leaf & HD_LEAF_LOG) == !answer->log &&
		     !(result->leaf & HD_LEAF_AUDIT) == !answer->audit && !result->pass_leaf == !answer->pass;

	if (equal && answer->policy)
		equal = refers_to(&rule, answer->policy, answer->rule) && rule.direction == direction && rule.verdict == verdict;
	else if (equal)
		equal = rule.builtin && id == answer->rule;
	if (equal && answer->pass) {
		struct rule_reference pass;

		equal = compiler_rule(env->compiler, result->pass_leaf & HD_LEAF_RULE_MASK, &pass) == 0 && pass.pass &&
			refers_to(&pass, answer->pass, answer->pass_rule) && pass.direction == direction;
	}
	if (equal)
		return NULL;
	snprintf(text, sizeof(text),
		"documents: %s %u verdict %u log %d; tables: rule %u (%s %u, %d) verdict %u log %d; class %u root %u",
		answer->policy ? answer->policy->name : "builtin", answer->rule, answer->verdict, answer->log, id,
		rule.policy ? rule.policy : "?", rule.index, r, verdict, !!(result->leaf & HD_LEAF_LOG), result->class_id,
		result->class_root);
	return text;
}
