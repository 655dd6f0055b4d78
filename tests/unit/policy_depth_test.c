/* SPDX-License-Identifier: Apache-2.0 */
/* A tree that grew too deep is packed anew: with a lower limit than a packet's, to get there with few intervals. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <tests/unit/policy_env.h>
#include <util/addr.h>

/* Taken instead of the library's: two levels of at least 14 hold 196 intervals. */
#define ADDR_DEPTH_MOST 2
#include "agent/policy/addrtree.c" // NOLINT(bugprone-suspicious-include): for the limit above

#define MEMBERS 96

static unsigned levels(const struct policy_env *env, uint32_t value)
{
	unsigned deepest = 0;

	for (unsigned i = 0; i < HD_TABLE_SLOTS && (value & HD_TAG_MASK) == HD_TAG_TABLE; i++) {
		unsigned below = levels(env, env->addr4_tables[value & HD_TABLE_ID_MASK].value[i]);

		deepest = below > deepest ? below : deepest;
	}
	if ((value & HD_TAG_MASK) != HD_TAG_NODE)
		return deepest;
	for (unsigned i = 0; i < HD_ADDR_FANOUT; i++) {
		unsigned below = levels(env, env->addr4_nodes[value].value[i]);

		deepest = below > deepest ? below : deepest;
	}
	return deepest + 1;
}

/* Members come one by one in ascending order, which leaves half-empty nodes behind, then go the same way. */
static bool member(unsigned round, unsigned i)
{
	return round <= MEMBERS ? i < round : i >= round - MEMBERS;
}

static void test_depth(void **unused)
{
	static const struct compiler_limits limits = {1 << 14, 1 << 10, 1 << 10, 1 << 10, 1 << 10, 1 << 8};
	static char text[MEMBERS * 32 + 1000];
	struct policy_env env;
	struct object_list list = {0};

	(void)unused;
	policy_env_open(&env, &limits, 1);
	for (unsigned round = 1; round < 2 * MEMBERS; round++) {
		size_t n = (size_t)snprintf(text, sizeof(text),
			"apiVersion: heddle.dev/v1alpha1\nkind: Host\nmetadata: {name: h}\nspec: {uplinks: [{device: "
			"eth0}]}\n---\n"
			"apiVersion: heddle.dev/v1alpha1\nkind: HostPolicy\nmetadata: {name: p}\nspec: {ingress: [{action: deny, "
			"from: [{addressGroup: g}]}]}\n---\n"
			"apiVersion: heddle.dev/v1alpha1\nkind: AddressGroup\nmetadata: {name: g}\nspec:\n  cidrs:\n");

		for (unsigned i = 0; i < MEMBERS; i++)
			if (member(round, i))
				n += (size_t)snprintf(text + n, sizeof(text) - n, "  - 10.0.%u.%u/32\n", i >> 7, i * 2 & 255);
		object_list_clear(&list);
		policy_documents(&list, text);
		policy_env_apply(&env, &list);
		assert_in_range(levels(&env, env.roots[env.generation & 1].addr4), 1, ADDR_DEPTH_MOST);
		for (unsigned i = 0; i < MEMBERS; i++)
			for (unsigned odd = 0; odd < 2; odd++) {
				struct lookup_packet packet = {.ip = true, .kind = HD_L4_TCP, .number = 80};
				struct lookup_result result;

				packet.peer = addr_from_ipv4(htobe32(0x0a000000u | i >> 7 << 8 | (i * 2 & 255) | odd));
				policy_env_lookup(
					&env, env.generation, policy_env_port(&env, "eth0"), HD_INGRESS, &packet, &result);
				assert_int_equal(
					result.leaf >> HD_LEAF_VERDICT_SHIFT & 3, !odd && member(round, i) ? HD_DENY : HD_ALLOW);
			}
	}
	object_list_clear(&list);
	policy_env_close(&env);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_depth),
	};

	return cmocka_run_group_tests_name("policy: depth of address trees", tests, NULL, NULL);
}
