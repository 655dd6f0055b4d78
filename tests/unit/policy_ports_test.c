/* SPDX-License-Identifier: Apache-2.0 */
/* Policies for ports: who shares sets, what a change touches, names of rules, indexes of networks, versions. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <policy/internal.h>
#include <tests/unit/policy_env.h>
#include <util/addr.h>

static const struct compiler_limits limits = {1 << 13, 1 << 13, 1 << 13, 1 << 14, 1 << 12, 1 << 8};

struct fixture {
	struct policy_env env;
	struct object_list list;
	char text[1 << 20];
	size_t n;
};

__attribute__((format(printf, 2, 3))) static void add(struct fixture *f, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	f->n += (size_t)vsnprintf(f->text + f->n, sizeof(f->text) - f->n, format, arguments);
	va_end(arguments);
	assert_true(f->n < sizeof(f->text));
}

/* From here on the documents are told anew. */
static void begin(struct fixture *f)
{
	f->n = 0;
	add(f, "apiVersion: heddle.dev/v1alpha1\nkind: Host\nmetadata: {name: h}\nspec: {uplinks: [{device: eth0}]}\n");
}

static void network(struct fixture *f, const char *name)
{
	add(f, "---\napiVersion: heddle.dev/v1alpha1\nkind: Network\nmetadata: {name: %s}\nspec: {}\n", name);
}

static void port(struct fixture *f, const char *name, const char *in, const char *address, const char *labels)
{
	add(f,
		"---\napiVersion: heddle.dev/v1alpha1\nkind: Port\nmetadata: {name: %s, labels: {%s}}\n"
		"spec: {device: d%s, network: %s, addresses: [%s]}\n",
		name, labels, name, in, address);
}

/* metadata and spec of a NetworkPolicy in the namespace default */
static void policy(struct fixture *f, const char *name, const char *spec)
{
	add(f, "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: %s}\nspec: %s\n", name, spec);
}

/* What has been told, objects that are as they were being the same ones. Returns the list that it takes the place of. */
static struct object_list take(struct fixture *f)
{
	struct object_list next = {0}, merged = {0}, before = f->list;

	policy_documents(&next, f->text);
	for (size_t i = 0; i < next.n; i++) {
		struct object *object = next.items[i];

		for (size_t j = 0; j < before.n; j++)
			if (object_equal(before.items[j], object))
				object = before.items[j];
		assert_int_equal(object_list_add(&merged, object), 0);
	}
	object_list_clear(&next);
	f->list = merged;
	return before;
}

static void apply(struct fixture *f)
{
	struct object_list before = take(f);

	object_list_clear(&before);
	policy_env_apply(&f->env, &f->list);
}

/* What it would change is in f->env.delta; it comes into force with the next apply(). */
static void compile_next(struct fixture *f)
{
	struct object_list before = take(f);

	assert_int_equal(policy_env_compile(&f->env, &f->list, false), 0);
	object_list_clear(&before);
}

static size_t changed_ports(const struct fixture *f)
{
	size_t n = 0;

	for (size_t i = 0; i < f->env.delta->n_ports; i++)
		n += f->env.delta->ports[i].changed;
	return n;
}

static struct fixture *open_fixture(void)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	policy_env_open(&f->env, &limits, 1);
	begin(f);
	return f;
}

static void close_fixture(struct fixture *f)
{
	policy_env_close(&f->env);
	object_list_clear(&f->list);
	free(f);
}

static struct port_policy policy_of(const struct fixture *f, const char *name)
{
	struct port_policy ret;

	assert_int_equal(compiler_port(f->env.compiler, "default", name, &ret), 0);
	return ret;
}

/* TCP to a port from an address, as the documents and the tables agree on. */
static char reach(const struct fixture *f, const char *name, const char *address, uint16_t number)
{
	struct lookup_packet packet = {.ip = true, .kind = HD_L4_TCP, .number = number, .source_port = 40000};
	struct port_policy to = policy_of(f, name);
	struct lookup_result result;
	struct policy_answer answer;
	const char *differs;

	assert_int_equal(addr_parse(address, &packet.peer), 0);
	policy_env_port_lookup(&f->env, f->env.generation, to.port, HD_INGRESS, NULL, &packet, &result);
	answer = policy_judge_port(&f->list, to.port, HD_INGRESS, NULL, &packet);
	differs = policy_env_differs(&f->env, &answer, HD_INGRESS, &result);
	if (differs)
		fail_msg("%s from %s: %s", name, address, differs);
	return answer.verdict == HD_ALLOW ? '.' : 'X';
}

static void test_sharing(void **unused)
{
	struct fixture *f = open_fixture();

	(void)unused;
	network(f, "n");
	port(f, "a", "n", "10.0.0.1", "app: web");
	port(f, "b", "n", "10.0.0.2", "app: web, zone: other");
	port(f, "c", "n", "10.0.0.3", "app: db");
	policy(f, "web", "{podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: 80}]}]}");
	apply(f);
	assert_int_equal(policy_of(f, "a").policy.set[0], policy_of(f, "b").policy.set[0]);
	assert_int_not_equal(policy_of(f, "a").policy.set[0], policy_of(f, "c").policy.set[0]);
	assert_int_equal(policy_of(f, "a").policy.pass_set[0], 0);
	assert_int_equal(reach(f, "a", "10.0.0.3", 80), '.');
	assert_int_equal(reach(f, "b", "10.0.0.3", 81), 'X');
	assert_int_equal(reach(f, "c", "10.0.0.1", 81), '.');
	close_fixture(f);
}

/* A port that comes to another set, of the same age as its own, has a new version: its flows must be judged again. */
static void test_a_port_that_moves_has_a_new_version(void **unused)
{
	struct fixture *f = open_fixture();
	struct hd_port_policy before, other;

	(void)unused;
	for (unsigned round = 0; round < 2; round++) {
		begin(f);
		network(f, "n");
		port(f, "a", "n", "10.0.0.1", round ? "app: db" : "app: web");
		port(f, "b", "n", "10.0.0.2", "app: web");
		port(f, "c", "n", "10.0.0.3", "app: db");
		policy(f, "web", "{podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: 80}]}]}");
		policy(f, "db", "{podSelector: {matchLabels: {app: db}}, ingress: [{ports: [{port: 5432}]}]}");
		if (round) {
			before = policy_of(f, "a").policy;
			other = policy_of(f, "c").policy;
			assert_int_equal(before.version[0], other.version[0]);
		}
		apply(f);
	}
	assert_int_equal(policy_of(f, "a").policy.set[0], policy_of(f, "c").policy.set[0]);
	assert_int_not_equal(policy_of(f, "a").policy.version[0], before.version[0]);
	/* nothing changed for the others */
	assert_false(policy_of(f, "b").changed);
	assert_false(policy_of(f, "c").changed);
	assert_int_equal(policy_of(f, "c").policy.version[0], other.version[0]);
	close_fixture(f);
}

/* An address that another port takes over at once has that port's rights, not those of the one before. */
static void test_an_address_is_taken_over(void **unused)
{
	struct fixture *f = open_fixture();
	uint32_t version = 0;

	(void)unused;
	for (unsigned round = 0; round < 2; round++) {
		begin(f);
		network(f, "n");
		port(f, "db", "n", "10.0.0.1", "app: db");
		port(f, round ? "other" : "web", "n", "10.0.0.2", round ? "app: other" : "app: web");
		policy(f, "db",
			"{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]}");
		apply(f);
		assert_int_equal(reach(f, "db", "10.0.0.2", 80), round ? 'X' : '.');
		if (round)
			assert_int_not_equal(policy_of(f, "db").policy.version[0], version);
		version = policy_of(f, "db").policy.version[0];
	}
	close_fixture(f);
}

/* A port that is only renamed keeps what it may and the set it has. */
static void test_a_port_is_renamed(void **unused)
{
	struct fixture *f = open_fixture();
	uint32_t set = 0;

	(void)unused;
	for (unsigned round = 0; round < 2; round++) {
		begin(f);
		network(f, "n");
		port(f, round ? "renamed" : "a", "n", "10.0.0.1", "app: web");
		port(f, "b", "n", "10.0.0.2", "app: db");
		policy(f, "web", "{podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {}}]}]}");
		apply(f);
		assert_int_equal(reach(f, round ? "renamed" : "a", "10.0.0.2", 80), '.');
		if (round)
			assert_int_equal(policy_of(f, "renamed").policy.set[0], set);
		set = policy_of(f, round ? "renamed" : "a").policy.set[0];
	}
	close_fixture(f);
}

/* One label of one of many ports: a handful of nodes, however many ports there are. */
static void test_a_label_change_is_small(void **unused)
{
	struct fixture *f = open_fixture();

	(void)unused;
	for (unsigned round = 0; round < 2; round++) {
		begin(f);
		network(f, "n");
		for (unsigned i = 0; i < 100; i++) {
			char name[16], address[32], labels[32];

			snprintf(name, sizeof(name), "p%u", i);
			snprintf(address, sizeof(address), "10.0.0.%u", i + 1);
			snprintf(labels, sizeof(labels), "app: a%u", round && i == 42 ? 7 : i % 20);
			port(f, name, "n", address, labels);
		}
		for (unsigned i = 0; i < 20; i++) {
			char name[16], spec[256];

			snprintf(name, sizeof(name), "n%u", i);
			snprintf(spec, sizeof(spec),
				"{podSelector: {matchLabels: {app: a%u}}, ingress: [{from: [{podSelector: {matchLabels: {app: "
				"a%u}}}]}]}",
				i, (i + 1) % 20);
			policy(f, name, spec);
		}
		if (round == 0)
			apply(f);
	}
	compile_next(f);
	assert_in_range(f->env.delta->n_addr4_nodes, 1, 3);
	assert_int_equal(f->env.delta->n_rule_nodes, 0);
	assert_int_equal(f->env.delta->n_rules, 0);
	/* itself, and those whose rules name its old or its new label: five each */
	assert_int_equal(changed_ports(f), 11);
	close_fixture(f);
}

/* A thousand ports under a thousand policies, each about one of them, and one port more. */
static void test_one_port_more_is_small(void **unused)
{
	struct fixture *f = open_fixture();

	(void)unused;
	for (unsigned round = 0; round < 2; round++) {
		begin(f);
		network(f, "n");
		for (unsigned i = 0; i < 1000 + round; i++) {
			char name[16], address[32], labels[48];

			snprintf(name, sizeof(name), "p%u", i);
			snprintf(address, sizeof(address), "10.0.%u.%u", i >> 8, i & 255);
			snprintf(labels, sizeof(labels), "app: a%u, group: g%u", i, i % 100);
			port(f, name, "n", address, labels);
		}
		for (unsigned i = 0; i < 1000; i++) {
			char name[16], spec[256];

			snprintf(name, sizeof(name), "n%u", i);
			snprintf(spec, sizeof(spec),
				"{podSelector: {matchLabels: {app: a%u}}, ingress: [{from: [{podSelector: {matchLabels: {group: "
				"g%u}}}], ports: [{port: %u}]}]}",
				i, (i + 1) % 100, 1000 + i);
			policy(f, name, spec);
		}
		if (round == 0)
			apply(f);
	}
	compile_next(f);
	assert_in_range(f->env.delta->n_addr4_nodes, 1, 4);
	assert_in_range(f->env.delta->n_rule_nodes, 0, 10);
	assert_int_equal(f->env.delta->n_classes, 0);
	assert_int_equal(f->env.delta->n_rules, 0);
	/* itself, and the ten whose rules name its group */
	assert_int_equal(changed_ports(f), 11);
	close_fixture(f);
}

/* Selectors that all cover everybody are one long chain that all share, not one for each port, and leave nothing behind. */
static void test_wide_selectors_do_not_multiply(void **unused)
{
	struct fixture *f = open_fixture();

	(void)unused;
	network(f, "n");
	for (unsigned i = 0; i < 60; i++) {
		char name[16], address[32], labels[32], spec[256];

		snprintf(name, sizeof(name), "p%u", i);
		snprintf(address, sizeof(address), "10.0.0.%u", i + 1);
		snprintf(labels, sizeof(labels), "app: a%u", i);
		port(f, name, "n", address, labels);
		snprintf(spec, sizeof(spec),
			"{podSelector: {matchLabels: {app: a%u}}, ingress: [{from: [{podSelector: {matchExpressions: [{key: app, "
			"operator: NotIn, values: [x%u]}]}}]}, {from: [{podSelector: {matchLabels: {app: a%u}}}], ports: [{port: "
			"80}]}]}",
			i, i, (i + 1) % 60);
		policy(f, name, spec);
	}
	apply(f);
	assert_int_equal(reach(f, "p7", "10.0.0.1", 443), '.');
	/* 60 wide ones, their chain, 60 narrow ones, and the chain with each of these */
	assert_in_range(f->env.compiler->now.classes.n, 180, 260);
	close_fixture(f);
}

static void test_rules_have_names(void **unused)
{
	struct fixture *f = open_fixture();
	struct rule_reference rule = {0};
	uint32_t id = 0;

	(void)unused;
	network(f, "n");
	port(f, "a", "n", "10.0.0.1", "app: web");
	policy(f, "web", "\n  podSelector: {}\n  ingress:\n  - {ports: [{port: http}]}\n  - {ports: [{port: 443}]}");
	apply(f);
	for (uint32_t i = HD_RULE_FIRST; i < compiler_rule_limit(f->env.compiler); i++)
		if (compiler_rule(f->env.compiler, i, &rule) == 0 && rule.index == 1)
			id = i;
	assert_int_not_equal(id, 0);
	assert_int_equal(compiler_rule(f->env.compiler, id, &rule), 0);
	assert_int_equal(rule.kind, OBJECT_NETWORK_POLICY);
	assert_string_equal(rule.namespace_, "default");
	assert_string_equal(rule.policy, "web");
	assert_string_equal(rule.file, "test.yaml");
	assert_int_equal(rule.direction, HD_INGRESS);
	assert_int_equal(rule.line, 23);
	assert_string_equal(f->env.rules[id].policy, "default/web");
	/* a rule that nothing can match as things are has an id, too: its counters wait for it */
	assert_int_equal(compiler_rule(f->env.compiler, id - 1, &rule), 0);
	assert_int_equal(rule.index, 0);
	close_fixture(f);
}

static uint16_t index_of(const struct fixture *f, const char *name)
{
	for (size_t i = 0; i < f->env.n_networks; i++)
		if (strcmp(f->env.networks[i].name, name) == 0)
			return f->env.networks[i].index;
	return 0;
}

static void test_network_indexes(void **unused)
{
	struct fixture *f = open_fixture();
	uint16_t red;

	(void)unused;
	network(f, "blue");
	network(f, "red");
	apply(f);
	assert_int_equal(index_of(f, "blue"), 1);
	red = index_of(f, "red");
	assert_int_equal(red, 2);
	/* one that went and another that came do not share an index */
	begin(f);
	network(f, "blue");
	network(f, "green");
	apply(f);
	assert_int_equal(index_of(f, "blue"), 1);
	assert_int_equal(index_of(f, "red"), 0);
	assert_int_not_equal(index_of(f, "green"), red);
	close_fixture(f);
}

static void test_networks_are_apart(void **unused)
{
	struct fixture *f = open_fixture();

	(void)unused;
	network(f, "red");
	network(f, "blue");
	port(f, "a", "red", "10.0.0.1", "app: web");
	port(f, "b", "red", "10.0.0.2", "app: good");
	port(f, "c", "blue", "10.0.0.1", "app: web");
	port(f, "d", "blue", "10.0.0.2", "app: bad");
	policy(f, "web",
		"{podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {matchLabels: {app: good}}}]}]}");
	apply(f);
	assert_int_equal(policy_of(f, "a").policy.set[0], policy_of(f, "c").policy.set[0]);
	assert_int_equal(reach(f, "a", "10.0.0.2", 80), '.');
	assert_int_equal(reach(f, "c", "10.0.0.2", 80), 'X');
	close_fixture(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sharing),
		cmocka_unit_test(test_a_port_that_moves_has_a_new_version),
		cmocka_unit_test(test_an_address_is_taken_over),
		cmocka_unit_test(test_a_port_is_renamed),
		cmocka_unit_test(test_a_label_change_is_small),
		cmocka_unit_test(test_one_port_more_is_small),
		cmocka_unit_test(test_wide_selectors_do_not_multiply),
		cmocka_unit_test(test_rules_have_names),
		cmocka_unit_test(test_network_indexes),
		cmocka_unit_test(test_networks_are_apart),
	};

	return cmocka_run_group_tests_name("policy: ports", tests, NULL, NULL);
}
