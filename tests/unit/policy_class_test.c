/* SPDX-License-Identifier: Apache-2.0 */
/* The shapes of a class's record, and that whoever reads the generation before gets its answers while one becomes another. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include <tests/unit/policy_env.h>
#include <util/addr.h>

#define ADDRESS "10.1.2.3"

static struct lookup_packet packet(uint16_t port)
{
	struct lookup_packet ret = {.ip = true, .kind = HD_L4_TCP, .number = port, .source_port = 40000};

	assert_int_equal(addr_parse(ADDRESS, &ret.peer), 0);
	return ret;
}

/* What the record of the address's class says in the live generation. */
static const char *shape(const struct policy_env *env)
{
	struct lookup_packet p = packet(80);
	const struct hd_class_rules *rules;
	const struct hd_class *class;
	struct lookup_result result;

	policy_env_lookup(env, env->generation, policy_env_port(env, "eth0"), HD_INGRESS, &p, &result);
	if (result.class_id == HD_CLASS_NONE)
		return "no class";
	class = &env->classes[result.class_id];
	rules = &class->rules[hd_class_rules_at(class, env->generation)];
	if (rules->set == HD_SET_SEVERAL)
		return "several";
	return rules->set == 0 ? "none" : (rules->value & HD_TAG_MASK) == HD_TAG_LEAF ? "range" : "tree";
}

/* Policies that name one block: in ingress, in egress, and for eth1 alone in ingress; each with these ports besides 80 to 90, or not there. */
static void documents(struct object_list *list, const char *const more_ports[3], const char *elsewhere)
{
	static const char *const spec[] = {
		"  ingress:\n  - {from: ", "  egress:\n  - {to: ", "  uplinks: [eth1]\n  ingress:\n  - {from: "};
	char text[2048];
	size_t n = (size_t)snprintf(text, sizeof(text),
		"apiVersion: heddle.dev/v1alpha1\nkind: Host\nmetadata: {name: h}\nspec: {uplinks: [{device: eth0}, {device: "
		"eth1}]}\n");

	for (unsigned i = 0; i < 3; i++)
		if (more_ports[i])
			n += (size_t)snprintf(text + n, sizeof(text) - n,
				"---\napiVersion: heddle.dev/v1alpha1\nkind: HostPolicy\nmetadata: {name: p%u}\nspec:\n%s[{cidr: "
				"10.0.0.0/8}], action: reject, ports: [{port: 80, endPort: 90}%s]}\n",
				i, spec[i], more_ports[i]);
	if (elsewhere)
		snprintf(text + n, sizeof(text) - n,
			"---\napiVersion: heddle.dev/v1alpha1\nkind: HostPolicy\nmetadata: {name: q}\nspec:\n  uplinks: [%s]\n"
			"  ingress:\n  - {from: [{cidr: 10.0.0.0/8}], action: deny}\n",
			elsewhere);
	policy_documents(list, text);
}

struct probe {
	struct lookup_packet packet;
	struct hd_port_policy policy;
	enum hd_direction direction;
	uint32_t leaf;
};
#define PROBES 28

/* The live generation's answers, against the documents. */
static void ask(const struct policy_env *env, const struct object_list *list, struct probe probes[PROBES])
{
	static const uint16_t ports[] = {7, 79, 80, 85, 90, 91, 100};

	for (unsigned i = 0; i < PROBES; i++) {
		const char *device = i & 1 ? "eth1" : "eth0", *differs;
		struct probe *probe = &probes[i];
		struct lookup_result result;
		struct policy_answer said;

		*probe = (struct probe){.packet = packet(ports[i / 4]),
			.policy = *policy_env_port(env, device),
			.direction = i & 2 ? HD_EGRESS : HD_INGRESS};
		policy_env_lookup(env, env->generation, &probe->policy, probe->direction, &probe->packet, &result);
		probe->leaf = result.leaf;
		said = policy_judge(list, false, device, probe->direction, &probe->packet);
		differs = policy_env_differs(env, &said, probe->direction, &result);
		if (differs)
			fail_msg("%s port %u: %s", device, probe->packet.number, differs);
	}
}

static void ask_again(const struct policy_env *env, uint32_t generation, const struct probe probes[PROBES])
{
	for (unsigned i = 0; generation && i < PROBES; i++) {
		struct lookup_result result;

		policy_env_lookup(env, generation, &probes[i].policy, probes[i].direction, &probes[i].packet, &result);
		assert_int_equal(result.leaf, probes[i].leaf);
	}
}

static void test_shapes(void **unused)
{
	static const struct compiler_limits limits = {256, 256, 256, 1024, 256, 1 << 8};
	static const struct {
		const char *more_ports[3], *elsewhere, *shape;
	} steps[] = {
		{{"", NULL, NULL}, NULL, "range"},
		{{"", "", NULL}, NULL, "several"},
		{{"", NULL, NULL}, NULL, "range"},
		{{", {port: 85}, {port: 100}", NULL, NULL}, NULL, "tree"},
		{{"", "", ", {port: 7}"}, NULL, "several"},
		{{NULL, "", NULL}, NULL, "range"},
		{{NULL, NULL, ""}, NULL, "range"},
		{{NULL, NULL, NULL}, "eth9", "none"},
		{{NULL, NULL, ""}, "eth9", "range"},
		{{"", "", ""}, "eth0", "several"},
		{{"", NULL, NULL}, NULL, "range"},
		{{", {port: 100}", NULL, NULL}, NULL, "tree"},
		{{NULL, NULL, NULL}, NULL, "no class"},
		{{"", "", ""}, NULL, "several"},
		{{NULL, NULL, NULL}, NULL, "no class"},
		{{", {port: 79}", NULL, NULL}, NULL, "range"},
	};
	enum { STEPS = sizeof(steps) / sizeof(steps[0]) };
	struct probe probes[PROBES] = {0};
	struct policy_env env;

	(void)unused;
	policy_env_open(&env, &limits, 1);
	/* Every step after every other one. */
	for (size_t i = 0; i < STEPS * STEPS; i++) {
		size_t step = i / STEPS, other = i % STEPS;

		for (size_t turn = 0; turn < 2; turn++) {
			size_t at = turn ? other : step;
			uint32_t generation = env.generation;
			struct object_list list = {0};

			documents(&list, steps[at].more_ports, steps[at].elsewhere);
			assert_int_equal(policy_env_compile(&env, &list, false), 0);
			policy_env_write(&env);
			ask_again(&env, generation, probes);
			if (i % 3 == 0) { /* what an aborted round wrote, the next one overwrites */
				compiler_abort(env.compiler);
				ask_again(&env, generation, probes);
				object_list_clear(&list);
				continue;
			}
			policy_env_publish(&env);
			ask_again(&env, generation, probes);
			policy_env_settle(&env);
			assert_string_equal(shape(&env), steps[at].shape);
			ask(&env, &list, probes);
			object_list_clear(&list);
		}
	}
	policy_env_close(&env);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_shapes),
	};

	return cmocka_run_group_tests_name("policy: records of classes", tests, NULL, NULL);
}
