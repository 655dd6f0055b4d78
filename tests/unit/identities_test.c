/* SPDX-License-Identifier: Apache-2.0 */
/* The numbers of sets of labels, and the file that keeps them. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include <model/decode.h>
#include <policy/identities.h>
#include <source/remembered.h>
#include <tests/unit/source_env.h>
#include <util/buffer.h>
#include <util/cleanup.h>
#include <util/file.h>

struct world {
	struct identities *identities;
	struct object_list list;
	struct buffer text;
	struct diag diag;
};

static int set_up(void **state)
{
	struct world *w = calloc(1, sizeof(*w));

	assert_non_null(w);
	assert_int_equal(identities_new(&w->identities), 0);
	*state = w;
	return 0;
}

static int tear_down(void **state)
{
	struct world *w = *state;

	identities_free(w->identities);
	object_list_clear(&w->list);
	buffer_clear(&w->text);
	diag_clear(&w->diag);
	free(w);
	return 0;
}

static void begin(struct world *w)
{
	object_list_clear(&w->list);
	buffer_clear(&w->text);
}

/* name and labels, and what else is in the spec */
static void port(struct world *w, const char *name, const char *labels, const char *spec)
{
	buffer_printf(&w->text,
		"---\napiVersion: heddle.dev/v1alpha1\nkind: Port\nmetadata: {name: %s, labels: {%s}}\nspec: {device: %s, "
		"network: n%s}\n",
		name, labels, name, spec);
}

/* true: there is something new to remember */
static bool assign(struct world *w)
{
	assert_false(w->text.failed);
	object_list_clear(&w->list);
	if (w->text.length)
		assert_int_equal(decode_documents("test", w->text.data, w->text.length, &w->list, &w->diag), 0);
	object_list_sort(&w->list);
	assert_int_equal(identities_assign(w->identities, &w->list, &w->diag), 0);
	return identities_commit(w->identities);
}

static uint32_t number(const struct world *w, const char *name)
{
	const struct object *found = object_list_find(&w->list, OBJECT_PORT, "default", name);

	assert_non_null(found);
	return identities_number(w->identities, found);
}

static void test_sets_share(void **state)
{
	struct world *w = *state;

	port(w, "a", "app: x, tier: y", "");
	port(w, "b", "tier: y, app: x", "");
	port(w, "c", "app: x", "");
	port(w, "d", "app: x", ", ports: [{name: web, port: 80}]");
	assert_true(assign(w));
	assert_int_equal(number(w, "a"), 1);
	assert_int_equal(number(w, "b"), 1);
	assert_int_equal(number(w, "c"), 2);
	assert_int_equal(number(w, "d"), 3);
	assert_false(assign(w));
	/* the namespace's labels are part of it */
	buffer_add_string(&w->text, "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: default, labels: {env: prod}}\n");
	assert_true(assign(w));
	assert_int_equal(number(w, "a"), 4);
	assert_int_equal(number(w, "b"), 4);
}

static void test_freed_numbers_wait(void **state)
{
	struct world *w = *state;

	port(w, "a", "app: a", "");
	port(w, "b", "app: b", "");
	assign(w);
	begin(w);
	port(w, "b", "app: b", "");
	assert_false(assign(w));
	port(w, "c", "app: c", "");
	assign(w);
	assert_int_equal(number(w, "b"), 2);
	assert_int_equal(number(w, "c"), 3);
	/* the set comes back, by another port */
	port(w, "d", "app: a", "");
	assert_false(assign(w));
	assert_int_equal(number(w, "d"), 1);
}

static void test_abort(void **state)
{
	struct world *w = *state;
	struct object_list none = {0};

	port(w, "a", "app: a", "");
	assign(w);
	assert_int_equal(identities_assign(w->identities, &none, &w->diag), 0);
	assert_int_equal(number(w, "a"), 0);
	identities_abort(w->identities);
	assert_int_equal(number(w, "a"), 1);
}

static void test_numbers_begin_again(void **state)
{
	struct world *w = *state;
	struct identity_key key = {{1, 2}};

	assert_int_equal(identities_adopt(w->identities, &key, 0), -EINVAL);
	assert_int_equal(identities_adopt(w->identities, &key, IDENTITY_MAX + 1), -EINVAL);
	assert_int_equal(identities_adopt(w->identities, &key, 1), 0);
	assert_int_equal(identities_adopt(w->identities, &key, 5), -EINVAL);
	key.hash[0] = 7;
	assert_int_equal(identities_adopt(w->identities, &key, 1), -EINVAL);
	assert_int_equal(identities_adopt_last(w->identities, IDENTITY_MAX - 1), 0);
	for (char name[] = "a"; name[0] < 'e'; name[0]++) {
		char labels[] = "app: ?";

		labels[5] = name[0];
		port(w, name, labels, "");
	}
	assign(w);
	assert_int_equal(number(w, "a"), IDENTITY_MAX);
	assert_int_equal(number(w, "b"), 2); /* 1 is somebody's */
	assert_int_equal(number(w, "c"), 3);
	assert_int_equal(number(w, "d"), 4);
}

static int count(const struct identity_key *key, uint32_t number, void *userdata)
{
	(void)key;
	(void)number;
	++*(unsigned *)userdata;
	return 0;
}

static void test_old_ones_are_forgotten(void **state)
{
	struct world *w = *state;
	unsigned n = 0;

	for (uint32_t i = 0; i < IDENTITIES_RELEASED + 10; i++) {
		struct identity_key key = {{i, 0}};

		assert_int_equal(identities_adopt(w->identities, &key, i + 1), 0);
	}
	assert_int_equal(identities_adopt_last(w->identities, IDENTITIES_RELEASED + 10), 0);
	port(w, "a", "app: a", "");
	assert_true(assign(w));
	assert_int_equal(number(w, "a"), IDENTITIES_RELEASED + 11);
	assert_int_equal(identities_each(w->identities, count, &n), 0);
	assert_int_equal(n, IDENTITIES_RELEASED + 1);
}

static void again(struct world *w)
{
	identities_free(w->identities);
	assert_int_equal(identities_new(&w->identities), 0);
}

static void test_file(void **state)
{
	struct world *w = *state;
	char directory[] = "/tmp/heddle-identities-XXXXXX", path[64];
	_cleanup_free_ char *text = NULL;
	size_t length;

	assert_non_null(mkdtemp(directory));
	snprintf(path, sizeof(path), "%s/identities", directory);
	assert_int_equal(remembered_load(directory, &w->identities), 0); /* there is none */
	port(w, "a", "app: a", "");
	port(w, "b", "app: b", "");
	assign(w);
	begin(w);
	port(w, "b", "app: b", "");
	port(w, "c", "app: c", "");
	assign(w);
	assert_int_equal(remembered_save(directory, w->identities), 0);

	again(w);
	assert_int_equal(remembered_load(directory, &w->identities), 0);
	port(w, "n", "app: new", "");
	port(w, "a", "app: a", "");
	assert_true(assign(w));
	assert_int_equal(number(w, "a"), 1);
	assert_int_equal(number(w, "b"), 2);
	assert_int_equal(number(w, "c"), 3);
	assert_int_equal(number(w, "n"), 4);

	/* wherever it is cut off, or a bit is another one, nothing of it counts */
	assert_int_equal(file_read(AT_FDCWD, path, 1 << 20, &text, &length, NULL), 0);
	for (size_t i = 0; i < length; i++) {
		again(w);
		assert_int_equal(file_write(AT_FDCWD, path, text, i, 0600), 0);
		assert_int_equal(remembered_load(directory, &w->identities), -EINVAL);
		text[i] ^= 1;
		assert_int_equal(file_write(AT_FDCWD, path, text, length, 0600), 0);
		assert_int_equal(remembered_load(directory, &w->identities), -EINVAL);
		text[i] ^= 1;
		assert_int_equal(identities_last(w->identities), 0);
	}
	unlink(path);
	rmdir(directory);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_sets_share, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_freed_numbers_wait, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_abort, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_numbers_begin_again, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_old_ones_are_forgotten, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_file, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
