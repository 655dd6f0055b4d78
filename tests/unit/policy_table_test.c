/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tables over IPv4 trees: groups of addresses of many shapes and sizes, each address looked up as a packet would, against a plain list. While
 * a change is written, whoever reads the generation before still gets its answers.
 */
#include <errno.h>
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

#define HEAD "apiVersion: heddle.dev/v1alpha1\nkind: "
#define BLOCKS_MOST 24000u
#define TABLE_WORTH 9 /* as in addrtable.c */

struct block {
	uint32_t first;
	uint8_t length;
};

struct shape {
	const char *name;
	struct block (*block)(unsigned i); /* the i-th one */
	unsigned sizes[12];
	unsigned tables; /* how many follow each other at most, with the biggest size */
};

/* --- shapes --- */

static uint32_t mix(uint32_t x)
{
	x = (x ^ x >> 16) * 0x85ebca6bu;
	x = (x ^ x >> 13) * 0xc2b2ae35u;
	return x ^ x >> 16;
}

static struct block spread(unsigned i)
{
	return (struct block){mix(i) & 0xffffff00u, 24};
}

/* Neighbours, of which every other one is in the group. */
static struct block dense(unsigned i)
{
	return (struct block){0x0a000000u + 2 * i, 32};
}

/* The same far away from each other, one at each end of the address space. */
static struct block clusters(unsigned i)
{
	static const uint32_t begin[] = {0, 0x0a000000u, 0x0a0a0000u, 0xc0a80001u, 0xffffff00u};

	return (struct block){i % 5 == 4 ? 0xffffffffu - i / 5 * 2 : begin[i % 5] + i / 5 * 2, 32};
}

/* Twice as far each time, from a few places. */
static struct block doubling(unsigned i)
{
	return (struct block){(i / 31 * 0x9e3779b9u) + (1u << i % 31), 32};
}

/* Of all sizes, within each other. */
static struct block nested(unsigned i)
{
	uint8_t length = (uint8_t)(8 + mix(i) % 25);

	return (struct block){mix(i * 7 + 1) & (uint32_t)(~0ull << (32 - length)), length};
}

static const struct shape shapes[] = {
	{"spread", spread, {1, 7, 8, 55, 56, 57, 63, 64, 65, 1000, 3000, BLOCKS_MOST}, 2},
	{"dense", dense, {1, 8, 55, 56, 57, 63, 64, 65, 70, 500, 2000, BLOCKS_MOST}, 2},
	{"clusters", clusters, {1, 5, 56, 57, 58, 64, 65, 70, 100, 500, 2000, 5000}, 4},
	{"doubling", doubling, {31, 56, 57, 62, 93, 124, 155, 186, 310, 620, 930, 1550}, 0},
	{"nested", nested, {10, 50, 100, 150, 200, 300, 400, 500, 600, 800, 1000, 4000}, 0},
};

/* --- the list --- */

struct range {
	uint32_t first, last;
};

static struct range ranges[BLOCKS_MOST];
static size_t n_ranges;

static int range_cmp(const void *a, const void *b)
{
	uint32_t x = ((const struct range *)a)->first, y = ((const struct range *)b)->first;

	return x < y ? -1 : x > y;
}

/* Blocks from..from+n-1 as ranges that neither meet nor overlap, and as documents. */
static void make(struct object_list *list, const struct shape *shape, unsigned from, unsigned n)
{
	static char text[BLOCKS_MOST * 26 + 1000];
	size_t length = (size_t)snprintf(text, sizeof(text),
		HEAD "Host\nmetadata: {name: h}\nspec: {uplinks: [{device: eth0}]}\n---\n" HEAD
		     "HostPolicy\nmetadata: {name: p}\nspec: {ingress: [{action: deny, from: [{addressGroup: g}]}]}\n---\n" HEAD
		     "AddressGroup\nmetadata: {name: g}\nspec:\n  cidrs:\n");
	size_t kept = 0;

	for (unsigned i = 0; i < n; i++) {
		struct block block = shape->block(from + i);
		uint32_t a = block.first;

		ranges[i] = (struct range){a, a | (uint32_t)(0xffffffffull >> block.length)};
		length += (size_t)snprintf(text + length, sizeof(text) - length, "  - %u.%u.%u.%u/%u\n", a >> 24, a >> 16 & 255,
			a >> 8 & 255, a & 255, block.length);
	}
	qsort(ranges, n, sizeof(ranges[0]), range_cmp);
	for (unsigned i = 1; i < n; i++) {
		if (ranges[i].first > ranges[kept].last)
			ranges[++kept] = ranges[i];
		else if (ranges[i].last > ranges[kept].last)
			ranges[kept].last = ranges[i].last;
	}
	n_ranges = kept + 1;
	object_list_clear(list);
	policy_documents(list, text);
}

static bool listed(uint32_t address)
{
	size_t low = 0, high = n_ranges;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (ranges[middle].last < address)
			low = middle + 1;
		else
			high = middle;
	}
	return low < n_ranges && ranges[low].first <= address;
}

/* --- looking --- */

static bool denied(const struct policy_env *env, uint32_t generation, const struct hd_port_policy *policy, uint32_t address)
{
	struct lookup_packet packet = {.ip = true, .kind = HD_L4_TCP, .number = 80};
	struct lookup_result result;

	packet.peer = addr_from_ipv4(htobe32(address));
	policy_env_lookup(env, generation, policy, HD_INGRESS, &packet, &result);
	return (result.leaf >> HD_LEAF_VERDICT_SHIFT & 3) == HD_DENY;
}

static void look(const struct policy_env *env, uint32_t generation, const struct hd_port_policy *policy, uint32_t address)
{
	if (denied(env, generation, policy, address) != listed(address))
		fail_msg("%08x is%s in the group", address, listed(address) ? "" : " not");
}

static void look_all_over(const struct policy_env *env, uint32_t generation, const struct hd_port_policy *policy)
{
	const struct hd_roots *roots = &env->roots[generation & 1];

	for (size_t i = 0; i < n_ranges; i++) {
		look(env, generation, policy, ranges[i].first);
		look(env, generation, policy, ranges[i].first - 1);
		look(env, generation, policy, ranges[i].last);
		look(env, generation, policy, ranges[i].last + 1);
	}
	for (uint32_t i = 0; i < 1000; i++)
		look(env, generation, policy, mix(i + generation * 1000));
	for (uint64_t i = 0; i <= HD_TABLE_SLOTS && (roots->addr4 & HD_TAG_MASK) == HD_TAG_TABLE; i++) {
		look(env, generation, policy, roots->base4 + (uint32_t)(i << hd_table_shift(roots->addr4)));
		look(env, generation, policy, roots->base4 + (uint32_t)(i << hd_table_shift(roots->addr4)) - 1);
	}
}

/* How many tables follow each other at most. */
static unsigned tables_deep(const struct policy_env *env, uint32_t value)
{
	unsigned deepest = 0;

	if ((value & HD_TAG_MASK) != HD_TAG_TABLE)
		return 0;
	for (unsigned i = 0; i < HD_TABLE_SLOTS; i++) {
		unsigned below = tables_deep(env, env->addr4_tables[value & HD_TABLE_ID_MASK].value[i]);

		deepest = below > deepest ? below : deepest;
	}
	return deepest + 1;
}

/* Nodes of the lowest level below a value. */
static unsigned lowest(const struct policy_env *env, uint32_t value)
{
	const struct hd_addr4_node *node;
	unsigned n = 0;

	if ((value & HD_TAG_MASK) != HD_TAG_NODE)
		return 0;
	node = &env->addr4_nodes[value];
	if ((node->value[0] & HD_TAG_MASK) != HD_TAG_NODE)
		return 1;
	for (unsigned i = 0; i < HD_ADDR_FANOUT; i++)
		if (i == 0 || node->value[i] != node->value[i - 1])
			n += lowest(env, node->value[i]);
	return n;
}

static void check_form(const struct policy_env *env)
{
	uint32_t root = env->roots[env->generation & 1].addr4;

	assert_in_range(tables_deep(env, root), 0, HD_TABLE_DEPTH);
	if ((root & HD_TAG_MASK) == HD_TAG_NODE)
		assert_in_range(lowest(env, root), 1, TABLE_WORTH - 1);
}

static const struct compiler_limits limits = {1 << 14, 1 << 6, 1 << 8, 1 << 8, 1 << 10, 1 << 10};

static void test_shapes(void **unused)
{
	(void)unused;
	for (size_t s = 0; s < sizeof(shapes) / sizeof(shapes[0]); s++) {
		const struct shape *shape = &shapes[s];
		struct object_list list = {0}, next = {0};
		struct policy_env env;
		uint32_t root = 0;

		policy_env_open(&env, &limits, 1);
		for (unsigned i = 0; i < 12; i++) {
			unsigned n = shape->sizes[i];

			/* From the size before, then some blocks go at one end and come at the other. */
			for (unsigned turn = 0; turn < 3; turn++) {
				make(&list, shape, turn * (n / 50 + 1), n);
				policy_env_apply(&env, &list);
				root = env.roots[env.generation & 1].addr4;
				look_all_over(&env, env.generation, policy_env_port(&env, "eth0"));
				check_form(&env);
			}
		}
		assert_int_equal(root & HD_TAG_MASK, HD_TAG_TABLE);
		if (shape->tables)
			assert_int_equal(tables_deep(&env, root), shape->tables);
		/* And down again, to nothing. */
		for (unsigned i = 12; i--;) {
			make(&list, shape, 0, shape->sizes[i]);
			policy_env_apply(&env, &list);
			look_all_over(&env, env.generation, policy_env_port(&env, "eth0"));
			check_form(&env);
		}
		policy_documents(&next, HEAD "Host\nmetadata: {name: h}\nspec: {uplinks: [{device: eth0}]}\n");
		policy_env_apply(&env, &next);
		n_ranges = 0;
		look_all_over(&env, env.generation, policy_env_port(&env, "eth0"));
		check_form(&env);
		object_list_clear(&list);
		object_list_clear(&next);
		policy_env_close(&env);
	}
}

/* One by one, over the size at which there is a table, and back. */
static void test_border(void **unused)
{
	struct object_list list = {0};
	struct policy_env env;
	bool seen[2] = {false, false};

	(void)unused;
	policy_env_open(&env, &limits, 1);
	for (unsigned i = 1; i < 240; i++) {
		bool table;

		make(&list, &shapes[i % 2], 0, i < 120 ? i : 240 - i);
		policy_env_apply(&env, &list);
		table = (env.roots[env.generation & 1].addr4 & HD_TAG_MASK) == HD_TAG_TABLE;
		seen[table] = true;
		look_all_over(&env, env.generation, policy_env_port(&env, "eth0"));
		check_form(&env);
	}
	assert_true(seen[0] && seen[1]);
	object_list_clear(&list);
	policy_env_close(&env);
}

/* What is written before the switch, or for a round that is aborted, is in nobody's way. */
static void test_generations(void **unused)
{
	struct object_list before = {0}, after = {0};
	struct policy_env env;

	(void)unused;
	policy_env_open(&env, &limits, 1);
	make(&before, &shapes[0], 0, 2000);
	policy_env_apply(&env, &before);
	for (unsigned i = 1; i < 30; i++) {
		struct hd_port_policy policy = *policy_env_port(&env, "eth0");
		uint32_t generation = env.generation;

		make(&after, &shapes[i % 3], i * 100, i % 4 ? 2000 : 40);
		assert_int_equal(policy_env_compile(&env, &after, false), 0);
		policy_env_write(&env);
		make(&before, &shapes[(i - 1) % 3], i == 1 ? 0 : (i - 1) * 100, i == 1 || (i - 1) % 4 ? 2000 : 40);
		look_all_over(&env, generation, &policy);
		if (i % 3 == 0) {
			compiler_abort(env.compiler);
			assert_int_equal(policy_env_compile(&env, &after, false), 0);
			policy_env_write(&env);
			look_all_over(&env, generation, &policy);
		}
		policy_env_publish(&env);
		look_all_over(&env, generation, &policy);
		policy_env_settle(&env);
		make(&after, &shapes[i % 3], i * 100, i % 4 ? 2000 : 40);
		look_all_over(&env, env.generation, policy_env_port(&env, "eth0"));
	}
	object_list_clear(&before);
	object_list_clear(&after);
	policy_env_close(&env);
}

/* The room that is asked for has place for a change as well: it makes all tables anew. */
static void test_room(void **unused)
{
	struct compiler_limits small = limits, needed = {0};
	struct object_list list = {0};
	struct policy_input input = {0};
	struct policy_delta *delta;
	struct compiler *compiler;
	struct diag diag = {0};

	(void)unused;
	make(&list, &shapes[0], 0, 20000);
	input = (struct policy_input){.host = policy_env_host(&list), .objects = &list};
	small.addr4_tables = 16;
	assert_int_equal(compiler_new(&small, 1, &compiler), 0);
	assert_int_equal(compiler_compile(compiler, &input, &delta, &needed, &diag), -ENOSPC);
	compiler_free(compiler);
	assert_in_range(needed.addr4_tables, 100, 1024);
	small.addr4_tables = needed.addr4_tables;
	assert_int_equal(compiler_new(&small, 1, &compiler), 0);
	for (unsigned round = 0; round < 4; round++) {
		make(&list, &shapes[0], round, 20000);
		input = (struct policy_input){.host = policy_env_host(&list), .objects = &list};
		assert_int_equal(compiler_compile(compiler, &input, &delta, &needed, &diag), 0);
		assert_in_range(2 * delta->n_addr4_tables, 2, small.addr4_tables - 1);
		compiler_commit(compiler);
		compiler_settle(compiler);
	}
	compiler_free(compiler);
	object_list_clear(&list);
	diag_clear(&diag);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_shapes),
		cmocka_unit_test(test_border),
		cmocka_unit_test(test_generations),
		cmocka_unit_test(test_room),
	};

	return cmocka_run_group_tests_name("policy: tables over address trees", tests, NULL, NULL);
}
