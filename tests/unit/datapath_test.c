/* SPDX-License-Identifier: Apache-2.0 */
/* Attachment, adoption, the switch and detachment, on a veth pair with real packets. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include <util/log.h>

#include "datapath_env.h"

static struct env *env;
static struct datapath *current; /* of the running test: closed by its end, also when it fails */

static struct datapath *open_datapath(bool expect_found)
{
	struct datapath_config config = {.bpffs = env->bpffs};
	struct datapath *dp = NULL;
	bool found = !expect_found;

	assert_int_equal(datapath_open(&config, &dp, &found), 0);
	current = dp;
	assert_int_equal(found, expect_found);
	return dp;
}

static void close_datapath(struct datapath *dp)
{
	datapath_close(dp);
	current = NULL;
}

static void detach(void)
{
	struct datapath_config config = {.bpffs = env->bpffs};

	assert_int_equal(datapath_detach(&config), 0);
}

static int setup(void **state)
{
	(void)state;
	env_run("ip link del dpu9.5 2>/dev/null"); /* of a test that failed half way */
	unsetenv("HEDDLE_TC");
	return env_make_link(env);
}

static int teardown(void **state)
{
	struct datapath_config config = {.bpffs = env->bpffs};

	(void)state;
	unsetenv("HEDDLE_TC");
	datapath_close(current);
	current = NULL;
	return datapath_detach(&config);
}

static const struct datapath_attachment *only_attachment(struct datapath *dp)
{
	const struct datapath_attachment *attachment = NULL;

	assert_int_equal(datapath_attachments(dp, &attachment), 1);
	assert_string_equal(attachment->device, ENV_DEVICE);
	return attachment;
}

static void test_attach_and_detach(void **state)
{
	static const struct {
		enum xdp_mode want;
		const char *mode;
	} cases[] = {
		{XDP_MODE_AUTO, "native"}, {XDP_MODE_NATIVE, "native"}, {XDP_MODE_GENERIC, "generic"}, {XDP_MODE_OFF, "off"}};
	struct hd_counter drops[HD_REASON_COUNT][2];
	uint64_t proven, unproven;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct datapath *dp = open_datapath(false);

		assert_int_equal(env_start(env, dp, 1, HD_ALLOW, cases[i].want), 0);
		assert_string_equal(only_attachment(dp)->xdp_mode, cases[i].mode);
		assert_string_equal(only_attachment(dp)->tc_mode, env->tc);
		assert_int_equal(only_attachment(dp)->foreign_ahead, 0);
		assert_int_equal(env_ping(env), 0);
		/* Both hooks understood what they saw. */
		assert_int_equal(datapath_drops(dp, drops), 0);
		for (size_t reason = 0; reason < HD_REASON_COUNT; reason++)
			assert_int_equal(drops[reason][HD_INGRESS].packets + drops[reason][HD_EGRESS].packets, 0);
		assert_int_equal(datapath_flow_counts(dp, &proven, &unproven), 0);
		assert_int_equal(proven + unproven, 1);
		assert_int_equal(
			env_programs(env), (cases[i].want == XDP_MODE_OFF ? 0 : 1) + (strcmp(env->tc, "tcx") == 0 ? 2 : 0));
		close_datapath(dp);
		assert_int_equal(env_ping(env), 0);
		detach();
		assert_int_equal(env_programs(env), 0);
		assert_int_equal(env_ping(env), 0);
	}
	detach(); /* a second time finds nothing to do */
}

static void test_adopt(void **state)
{
	struct datapath *dp = open_datapath(false);
	const struct datapath_program *programs;
	struct hd_counter before, after;

	(void)state;
	assert_int_equal(env_start(env, dp, 7, HD_DENY, XDP_MODE_AUTO), 0);
	assert_int_not_equal(env_ping(env), 0);
	assert_int_equal(datapath_rule_counters(dp, FLAT_RULE, 1, &before), 0);
	assert_true(before.packets >= 1);
	close_datapath(dp);
	assert_int_not_equal(env_ping(env), 0); /* in force without an agent */

	dp = open_datapath(true);
	assert_int_equal(datapath_last_generation(dp), 7);
	/* What is in force shows before anything is loaded. */
	assert_string_equal(only_attachment(dp)->xdp_mode, "native");
	assert_string_equal(only_attachment(dp)->tc_mode, env->tc);
	assert_int_equal(datapath_programs(dp, &programs), HD_HOOK_TC_PORT_IN);
	for (unsigned hook = 0; hook < HD_HOOK_TC_PORT_IN; hook++) {
		assert_int_not_equal(programs[hook].id, 0);
		assert_int_equal(programs[hook].id, only_attachment(dp)->program_id[hook]);
	}
	assert_int_equal(env_start(env, dp, 8, HD_DENY, XDP_MODE_AUTO), 0);
	assert_int_equal(datapath_rule_counters(dp, FLAT_RULE, 1, &after), 0);
	assert_true(after.packets > before.packets);
	assert_int_not_equal(env_ping(env), 0);
	/* The same links: updated, not made anew. */
	assert_string_equal(only_attachment(dp)->xdp_mode, "native");
	assert_int_equal(env_start(env, dp, 9, HD_ALLOW, XDP_MODE_AUTO), 0);
	assert_int_equal(env_ping(env), 0);
	close_datapath(dp);
}

/* What a NIC drops is counted beside what programs have counted. */
static void test_denied_elsewhere(void **state)
{
	struct datapath *dp = open_datapath(false);
	struct hd_counter before, after, drops[2][HD_REASON_COUNT][2], totals[2][HD_TOTAL_COUNT];

	(void)state;
	assert_int_equal(datapath_credit_deny(dp, FLAT_RULE, 1, 60, 74), -ENOTCONN);
	assert_int_equal(env_start(env, dp, 1, HD_DENY, XDP_MODE_AUTO), 0);
	assert_int_not_equal(env_ping(env), 0);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(datapath_drops(dp, drops[i]), 0);
		assert_int_equal(datapath_totals(dp, totals[i]), 0);
		assert_int_equal(datapath_rule_counters(dp, FLAT_RULE, 1, i ? &after : &before), 0);
		if (!i)
			assert_int_equal(datapath_credit_deny(dp, FLAT_RULE, 1000000, 60000000, 74000000), 0);
	}
	/* The device may say something of its own meanwhile. */
#define MORE(now, then, p, b) \
	do { \
		assert_in_range((now).packets - (then).packets, (p), (p) + 100); \
		assert_in_range((now).bytes - (then).bytes, (b), (b) + 10000); \
	} while (0)
	MORE(after, before, 1000000, 60000000);
	MORE(drops[1][HD_R_POLICY_DENY][HD_EGRESS], drops[0][HD_R_POLICY_DENY][HD_EGRESS], 1000000, 74000000);
	MORE(totals[1][HD_EGRESS], totals[0][HD_EGRESS], 1000000, 60000000);
	close_datapath(dp);
	detach();
}

static void test_only_one_agent(void **state)
{
	struct datapath_config config = {.bpffs = env->bpffs};
	struct datapath *dp = open_datapath(false), *second = NULL;
	bool found;

	(void)state;
	assert_int_equal(datapath_open(&config, &second, &found), -EBUSY);
	assert_null(second);
	close_datapath(dp);
}

static void test_publish(void **state)
{
	struct datapath *dp = open_datapath(false);
	struct flat_policy policy;

	(void)state;
	assert_int_equal(env_start(env, dp, 1, HD_ALLOW, XDP_MODE_AUTO), 0);
	for (uint32_t generation = 2; generation < 8; generation++) {
		enum hd_verdict verdict = generation & 1 ? HD_ALLOW : HD_DENY;

		flat_policy(&policy, generation, verdict);
		assert_int_equal(datapath_write(dp, &policy.delta), 0);
		assert_int_equal(datapath_publish(dp, &policy.delta, NULL), 0);
		assert_int_equal(env_ping(env) == 0, verdict == HD_ALLOW);
		assert_int_equal(datapath_settle(dp), 0);
	}
	/* The roots of the live generation are never overwritten. */
	flat_policy(&policy, 9, HD_ALLOW);
	assert_int_equal(datapath_publish(dp, &policy.delta, NULL), -EINVAL);
	close_datapath(dp);
}

static void test_clsact(void **state)
{
	struct datapath *dp;

	(void)state;
	setenv("HEDDLE_TC", "clsact", 1);
	dp = open_datapath(false);
	assert_int_equal(env_start(env, dp, 1, HD_DENY, XDP_MODE_OFF), 0);
	assert_string_equal(only_attachment(dp)->tc_mode, "clsact");
	assert_int_not_equal(env_ping(env), 0);
	close_datapath(dp);
	assert_int_not_equal(env_ping(env), 0);
	dp = open_datapath(true);
	assert_int_equal(env_start(env, dp, 2, HD_ALLOW, XDP_MODE_OFF), 0);
	assert_int_equal(env_ping(env), 0);
	assert_int_equal(env_count("tc filter show dev " ENV_DEVICE " ingress | grep -c 'handle 0x68646c01'"), 1);
	close_datapath(dp);
	if (strcmp(env->tc, "tcx") != 0)
		return;
	/* A start on TCX takes over from clsact and leaves nothing of it. */
	unsetenv("HEDDLE_TC");
	dp = open_datapath(true);
	assert_int_equal(env_start(env, dp, 3, HD_DENY, XDP_MODE_OFF), 0);
	assert_string_equal(only_attachment(dp)->tc_mode, env->tc);
	assert_int_equal(env_count("tc qdisc show dev " ENV_DEVICE " | grep -c clsact"), 0);
	assert_int_not_equal(env_ping(env), 0);
	close_datapath(dp);
	setenv("HEDDLE_TC", "clsact", 1);
	dp = open_datapath(true);
	assert_int_equal(env_start(env, dp, 4, HD_DENY, XDP_MODE_OFF), 0);
	assert_string_equal(only_attachment(dp)->tc_mode, "clsact");
	close_datapath(dp);
	detach();
	assert_int_equal(env_count("tc qdisc show dev " ENV_DEVICE " | grep -c clsact"), 0);
	assert_int_equal(env_ping(env), 0);
}

static void test_clsact_of_others(void **state)
{
	struct datapath *dp;

	(void)state;
	/* A qdisc that was there stays, and so does a filter that came later, at a priority that another kind of classifier holds. */
	assert_int_equal(env_run("tc qdisc add dev " ENV_DEVICE " clsact && tc filter add dev " ENV_DEVICE
				 " ingress prio 1 protocol ip u32 match u32 1 0xffffffff classid 1:1"),
		0);
	setenv("HEDDLE_TC", "clsact", 1);
	dp = open_datapath(false);
	assert_int_equal(env_start(env, dp, 1, HD_ALLOW, XDP_MODE_OFF), 0);
	assert_int_equal(only_attachment(dp)->foreign_ahead, 1);
	assert_int_equal(env_ping(env), 0);
	close_datapath(dp);
	detach();
	assert_int_equal(env_count("tc filter show dev " ENV_DEVICE " ingress | grep -c 'u32.*flowid'"), 1);
	assert_int_equal(env_count("tc filter show dev " ENV_DEVICE " ingress | grep -c bpf"), 0);
	assert_int_equal(env_count("tc qdisc show dev " ENV_DEVICE " | grep -c clsact"), 1);
	assert_int_equal(env_run("tc qdisc del dev " ENV_DEVICE " clsact"), 0);
}

static void test_rename_and_vanish(void **state)
{
	struct datapath *dp = open_datapath(false);
	struct datapath_uplink uplink = {.device = "dpu9.5", .xdp = XDP_MODE_AUTO, .driver = "", .ethernet = true};
	struct uplink_policy named;
	struct flat_policy policy;
	const struct datapath_attachment *attachment;

	(void)state;
	assert_int_equal(env_start(env, dp, 1, HD_DENY, XDP_MODE_AUTO), 0);
	assert_int_equal(env_run("ip link set " ENV_DEVICE " down && ip link set " ENV_DEVICE
				 " name dpu9.5 && ip link set dpu9.5 up && ip neigh replace " ENV_PEER_ADDRESS
				 " lladdr 02:00:00:00:99:02 nud permanent dev dpu9.5"),
		0);
	flat_policy(&policy, 1, HD_DENY);
	named = policy.uplink[0];
	named.device = "dpu9.5";
	uplink.ifindex = env->ifindex;
	assert_int_equal(datapath_attach(dp, &uplink, 1, &named, 1), 0);
	assert_int_equal(datapath_attachments(dp, &attachment), 1);
	assert_string_equal(attachment->device, "dpu9.5");
	assert_int_equal(env_count("ls %s/heddle/links | grep -c dpu9:5", env->bpffs), strcmp(env->tc, "tcx") == 0 ? 3 : 1);
	assert_int_equal(env_count("ls %s/heddle/links | grep -c " ENV_DEVICE, env->bpffs), 0);
	assert_int_not_equal(env_ping(env), 0);
	/* Gone: forgotten, pins too. */
	assert_int_equal(env_run("ip link del dpu9.5"), 0);
	assert_int_equal(datapath_attach(dp, NULL, 0, NULL, 0), 0);
	assert_int_equal(env_count("ls %s/heddle/links | wc -l", env->bpffs), 0);
	/* And back, as another interface. */
	assert_int_equal(env_make_link(env), 0);
	assert_int_equal(env_attach(env, dp, &policy, XDP_MODE_AUTO), 0);
	assert_string_equal(only_attachment(dp)->xdp_mode, "native");
	assert_int_not_equal(env_ping(env), 0);
	close_datapath(dp);
}

static void test_modes_change_in_place(void **state)
{
	static const struct {
		enum xdp_mode want;
		const char *mode;
	} steps[] = {{XDP_MODE_OFF, "off"}, {XDP_MODE_GENERIC, "generic"}, {XDP_MODE_NATIVE, "native"}, {XDP_MODE_AUTO, "native"},
		{XDP_MODE_GENERIC, "generic"}, {XDP_MODE_AUTO, "generic"}, {XDP_MODE_OFF, "off"}};
	struct datapath *dp = open_datapath(false);
	struct flat_policy policy;

	(void)state;
	assert_int_equal(env_start(env, dp, 1, HD_DENY, XDP_MODE_OFF), 0);
	flat_policy(&policy, 1, HD_DENY);
	for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		assert_int_equal(env_attach(env, dp, &policy, steps[i].want), 0);
		assert_string_equal(only_attachment(dp)->xdp_mode, steps[i].mode);
		assert_int_not_equal(env_ping(env), 0);
	}
	close_datapath(dp);
}

static void test_growth(void **state)
{
	struct datapath_sizes sizes = env_sizes, have;
	struct datapath *dp = open_datapath(false);
	struct hd_counter before, after;
	struct flat_policy policy;

	(void)state;
	assert_int_equal(env_start(env, dp, 1, HD_DENY, XDP_MODE_AUTO), 0);
	assert_int_not_equal(env_ping(env), 0);
	assert_int_equal(datapath_rule_counters(dp, FLAT_RULE, 1, &before), 0);
	sizes.policy = (struct compiler_limits){.addr4_nodes = 5000, .classes = 100000, .rule_nodes = 70000, .rules = 100000};
	assert_int_equal(datapath_load(dp, &sizes, &env_settings, 60), 0);
	datapath_sizes(dp, &have);
	assert_int_equal(have.policy.rules, 100000);
	assert_int_equal(have.policy.rule_nodes, 70000);
	assert_int_equal(have.flows, env_sizes.flows);
	flat_policy(&policy, 2, HD_DENY);
	policy.node.id = 69999;
	policy.uplink[0].policy.root[HD_INGRESS] = HD_TAG_NODE | 69999;
	assert_int_equal(datapath_write(dp, &policy.delta), 0);
	assert_int_equal(datapath_publish(dp, &policy.delta, NULL), 0);
	assert_int_equal(env_attach(env, dp, &policy, XDP_MODE_AUTO), 0);
	assert_int_equal(datapath_go_live(dp), 0);
	assert_int_equal(datapath_rule_counters(dp, FLAT_RULE, 1, &after), 0);
	assert_true(after.packets >= before.packets && before.packets > 0);
	assert_int_not_equal(env_ping(env), 0);
	assert_int_equal(datapath_rule_counters(dp, FLAT_RULE, 1, &before), 0);
	assert_true(before.packets > after.packets);
	/* What does not fit is refused, and nothing of it stays. */
	policy.node.id = 70000;
	assert_int_equal(datapath_write(dp, &policy.delta), -ENOSPC);
	close_datapath(dp);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_attach_and_detach, setup, teardown),
		cmocka_unit_test_setup_teardown(test_adopt, setup, teardown),
		cmocka_unit_test_setup_teardown(test_denied_elsewhere, setup, teardown),
		cmocka_unit_test_setup_teardown(test_only_one_agent, setup, teardown),
		cmocka_unit_test_setup_teardown(test_publish, setup, teardown),
		cmocka_unit_test_setup_teardown(test_clsact, setup, teardown),
		cmocka_unit_test_setup_teardown(test_clsact_of_others, setup, teardown),
		cmocka_unit_test_setup_teardown(test_rename_and_vanish, setup, teardown),
		cmocka_unit_test_setup_teardown(test_modes_change_in_place, setup, teardown),
		cmocka_unit_test_setup_teardown(test_growth, setup, teardown),
	};
	int failed;

	if (getenv("HEDDLE_TEST_DEBUG"))
		log_set_level(LOG_DEBUG);
	cmocka_set_test_filter(getenv("HEDDLE_TEST_FILTER"));
	env = env_new();
	if (!env)
		return 0;
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	env_free(env);
	return failed;
}
