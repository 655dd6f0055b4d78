/* SPDX-License-Identifier: Apache-2.0 */
/* An agent that is killed at any moment of a start or a change leaves a policy in force, and something the next one can take over. */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <sys/wait.h>

#include <cmocka.h>

#include <util/log.h>

#include "datapath_env.h"

static struct env *env;

static int setup(void **state)
{
	(void)state;
	unsetenv("HEDDLE_TC");
	return env_make_link(env);
}

static int teardown(void **state)
{
	struct datapath_config config = {.bpffs = env->bpffs};

	(void)state;
	unsetenv("HEDDLE_TC");
	return datapath_detach(&config);
}

/* Starts as an upgrade does, again and again, until it is killed. */
static void restless_agent(void)
{
	struct datapath_config config = {.bpffs = env->bpffs};
	struct datapath *dp;
	bool found;

	if (datapath_open(&config, &dp, &found) < 0)
		_exit(1);
	for (uint32_t generation = datapath_last_generation(dp);;)
		if (env_start(env, dp, ++generation, HD_DENY, XDP_MODE_AUTO) < 0)
			_exit(1);
}

static uint32_t check_what_is_left(uint32_t at_least)
{
	struct datapath_config config = {.bpffs = env->bpffs};
	const struct datapath_attachment *attachment;
	struct hd_counter counter;
	struct datapath *dp = NULL;
	uint32_t generation;
	bool found = false;

	assert_int_not_equal(env_ping(env), 0);
	assert_int_equal(datapath_open(&config, &dp, &found), 0);
	generation = datapath_last_generation(dp);
	assert_true(found && (int32_t)(generation - at_least) >= 0);
	assert_int_equal(env_start(env, dp, generation + 1, HD_DENY, XDP_MODE_AUTO), 0);
	assert_int_equal(datapath_attachments(dp, &attachment), 1);
	assert_int_not_equal(env_ping(env), 0);
	/* The rule has counted through all of it. */
	assert_int_equal(datapath_rule_counters(dp, FLAT_RULE, 1, &counter), 0);
	assert_true(counter.packets > 0);
	datapath_close(dp);
	return generation + 1;
}

static void kill_at_random(const char *tc)
{
	struct datapath_config config = {.bpffs = env->bpffs};
	struct datapath *dp;
	uint32_t generation = 1;
	unsigned rounds = getenv("HEDDLE_SLOW") ? 200 : 6;
	pid_t witness;
	bool found;
	int status;

	if (tc)
		setenv("HEDDLE_TC", tc, 1);
	assert_int_equal(datapath_open(&config, &dp, &found), 0);
	assert_int_equal(env_start(env, dp, 1, HD_DENY, XDP_MODE_AUTO), 0);
	datapath_close(dp);
	/* Pings all the time; a single answer would mean a moment without a policy. */
	witness = env_ping_on(env, "0.002");
	assert_true(witness > 0);
	for (unsigned round = 0; round < rounds; round++) {
		pid_t child = fork();

		if (child == 0)
			restless_agent();
		nanosleep(&(struct timespec){.tv_nsec = 20000000 + rand() % 400000000}, NULL);
		assert_int_equal(kill(child, SIGKILL), 0);
		assert_int_equal(waitpid(child, &status, 0), child);
		assert_true(WIFSIGNALED(status));
		generation = check_what_is_left(generation);
	}
	assert_int_equal(kill(witness, SIGINT), 0);
	assert_int_equal(waitpid(witness, &status, 0), witness);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 1);
}

static void test_killed(void **state)
{
	(void)state;
	kill_at_random(NULL);
}

static void test_killed_on_clsact(void **state)
{
	(void)state;
	kill_at_random("clsact");
}

static void test_killed_at_first_start(void **state)
{
	struct datapath_config config = {.bpffs = env->bpffs};
	struct datapath *dp;
	bool found;

	(void)state;
	for (unsigned round = 0; round < 4; round++) {
		pid_t child = fork();

		if (child == 0)
			restless_agent();
		nanosleep(&(struct timespec){.tv_nsec = 10000000 + round * 60000000}, NULL);
		kill(child, SIGKILL);
		waitpid(child, NULL, 0);
		assert_int_equal(datapath_open(&config, &dp, &found), 0);
		assert_int_equal(env_start(env, dp, datapath_last_generation(dp) + 1, HD_DENY, XDP_MODE_AUTO), 0);
		assert_int_not_equal(env_ping(env), 0);
		datapath_close(dp);
		assert_int_equal(datapath_detach(&config), 0);
		assert_int_equal(env_ping(env), 0);
		assert_int_equal(env_programs(env), 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_killed, setup, teardown),
		cmocka_unit_test_setup_teardown(test_killed_on_clsact, setup, teardown),
		cmocka_unit_test_setup_teardown(test_killed_at_first_start, setup, teardown),
	};
	const char *seed = getenv("SEED");
	int failed;

	log_set_level(getenv("HEDDLE_TEST_DEBUG") ? LOG_DEBUG : LOG_ERR);
	cmocka_set_test_filter(getenv("HEDDLE_TEST_FILTER"));
	srand(seed ? (unsigned)atoi(seed) : (unsigned)time(NULL));
	env = env_new();
	if (!env)
		return 0;
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	env_free(env);
	return failed;
}
