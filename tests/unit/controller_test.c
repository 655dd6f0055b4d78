/* SPDX-License-Identifier: Apache-2.0 */
/* The parts of the controller that need no kernel: rescue of a Host, sizing, --check. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <fcntl.h>
#include <unistd.h>

#include <cmocka.h>

#include <controller_internal.h>
#include <util/file.h>

#define HOST "apiVersion: heddle.dev/v1alpha1\nkind: Host\nmetadata: {name: node-a}\nspec: {uplinks: [{device: eth1}]}\n"
#define POLICY(rules) \
	"apiVersion: heddle.dev/v1alpha1\nkind: HostPolicy\nmetadata: {name: base}\nspec:\n  priority: 1\n  ingress:\n" rules
#define RULE "  - {action: allow, ports: [{protocol: TCP, port: 22}]}\n"

static char directory[64];

static void put(const char *name, const char *text)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", directory, name);
	assert_int_equal(file_write(AT_FDCWD, path, text, strlen(text), 0600), 0);
}

static void take(const char *name)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", directory, name);
	(void)unlink(path);
}

static int setup(void **state)
{
	(void)state;
	snprintf(directory, sizeof(directory), "/tmp/heddle-controller-XXXXXX");
	return mkdtemp(directory) ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	take("a.yaml");
	take("b.yaml");
	take("c.txt");
	return rmdir(directory);
}

static const char *rescued(void)
{
	const char *paths[] = {directory};
	struct object *host = rescue_host(paths, 1);
	const char *name = host ? "found" : NULL;

	if (host) {
		assert_int_equal(host->kind, OBJECT_HOST);
		assert_string_equal(host->name, "node-a");
	}
	object_unref(host);
	return name;
}

static void test_rescue(void **state)
{
	(void)state;
	assert_null(rescued());
	put("c.txt", HOST);
	assert_null(rescued());
	put("a.yaml", "kind: [");
	assert_null(rescued());
	put("b.yaml", HOST);
	assert_non_null(rescued());
	/* among documents that do not decode, before and behind */
	put("b.yaml", POLICY("  - {action: maybe}\n") "---\n" HOST);
	assert_non_null(rescued());
	put("b.yaml", "---\n" HOST "---\n" POLICY("  - {action: maybe}\n"));
	assert_non_null(rescued());
	put("b.yaml", HOST "---\nkind: [\n---\nkind: Nothing\n");
	assert_non_null(rescued());
	put("b.yaml", "kind: Host\nspec: {}\n");
	assert_null(rescued());
	put("b.yaml", "");
	assert_null(rescued());
}

static int check(void)
{
	const char *paths[] = {directory};

	return controller_check(&(struct controller_options){.config = paths, .n_config = 1});
}

static void test_check(void **state)
{
	(void)state;
	take("a.yaml");
	take("b.yaml");
	assert_int_equal(check(), 0);
	put("a.yaml", HOST);
	put("b.yaml", POLICY(RULE));
	assert_int_equal(check(), 0);
	put("b.yaml", POLICY("  - {action: allow, from: [{addressGroup: nobody}]}\n"));
	assert_int_equal(check(), -EINVAL);
	put("b.yaml", POLICY("  - {action: allow, from: []}\n"));
	assert_int_equal(check(), -EINVAL);
	take("a.yaml");
	put("b.yaml", POLICY(RULE));
	assert_int_equal(check(), 0);
}

/* However the first guess falls short, the tables come out large enough. */
static void test_sizing(void **state)
{
	struct object_list list = {0};
	struct diag diag = {0};
	_cleanup_buffer_ struct buffer text = {0};
	struct compiler_limits limits;
	struct policy_delta *delta;
	struct compiler *compiler;
	const struct object *host;

	(void)state;
	buffer_add_string(&text, HOST "---\n" POLICY(""));
	for (unsigned i = 0; i < 6000; i++)
		buffer_printf(&text, "  - {action: allow, from: [{cidr: 10.%u.%u.0/24}], ports: [{protocol: TCP, port: %u}]}\n",
			i / 256, i % 256, i + 1);
	assert_int_equal(decode_documents("a.yaml", text.data, text.length, &list, &diag), 0);
	host = policy_host(&list);
	assert_non_null(host);
	assert_int_equal(
		policy_compile_fresh(5, NULL, &(struct compiler_limits){0},
			&(struct policy_input){.host = &host->host, .objects = &list}, &compiler, &limits, &delta, &diag),
		0);
	assert_int_equal(delta->generation, 5);
	assert_true(limits.rules >= 6000 + HD_RULE_FIRST);
	assert_true(delta->n_rules >= 6000);
	assert_int_equal(delta->n_uplinks, 1);
	compiler_abort(compiler);
	compiler_free(compiler);
	object_list_clear(&list);
	diag_clear(&diag);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rescue), cmocka_unit_test(test_check), cmocka_unit_test(test_sizing)};

	return cmocka_run_group_tests_name("controller", tests, setup, teardown);
}
