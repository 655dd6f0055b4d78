/* SPDX-License-Identifier: Apache-2.0 */
/* The file source: what is read, what is kept as the last good state, what is watched. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include <tests/unit/source_env.h>
#include <systemd/sd-event.h>
#include <util/cleanup.h>
#include <util/clock.h>
#include <util/file.h>

static void test_directory(void **state)
{
	_cleanup_(files_free_p) struct files *files = open_files("d");

	(void)state;
	assert_load(files, ""); /* missing */
	assert_int_equal(mkdir(at("d"), 0755), 0);
	assert_load(files, ""); /* empty */
	put_file("d/20.yaml", GROUP("c", "10.0.0.0/8"));
	put_file("d/10.json", "{\"items\":[]}");
	put_file("d/11.yml", GROUP("a", "") GROUP("b", ""));
	put_file("d/.hidden.yaml", "nonsense");
	put_file("d/11.yml~", "nonsense");
	put_file("d/README", "nonsense");
	assert_int_equal(mkdir(at("d/.git"), 0755), 0);
	assert_load(files, "a b c");
	assert_load(files, "a b c");
	assert_int_equal(unlink(at("d/11.yml")), 0);
	assert_load(files, "c");
}

static void test_paths(void **state)
{
	const char *paths[] = {at("one.yaml"), at("d"), at("one.yaml"), at("other.conf")};
	struct files *files;

	(void)state;
	put_file("one.yaml", GROUP("z", ""));
	put_file("other.conf", GROUP("m", "")); /* named, so it is read whatever its name */
	assert_int_equal(mkdir(at("d"), 0755), 0);
	put_file("d/x.yaml", GROUP("a", ""));
	assert_int_equal(files_new(paths, ARRAY_SIZE(paths), &files), 0);
	assert_load(files, "z a m");
	assert_int_equal(unlink(at("one.yaml")), 0);
	assert_load_fails(files, -ENOENT, "/one.yaml: want a file or directory, got No such file or directory");
	files_free(files);
}

static void test_bad_files(void **state)
{
	_cleanup_(files_free_p) struct files *files = open_files("d");
	_cleanup_diag_ struct diag diag = {0};
	struct object_list list = {0};
	char message[400];

	(void)state;
	assert_int_equal(mkdir(at("d"), 0755), 0);
	put_file("d/1.yaml", GROUP("a", "10.0.0.1/8"));
	put_file("d/2.yaml", GROUP("b", ""));
	put_file("d/3.yaml", "kind: X\n");
	snprintf(message, sizeof(message),
		"/d/1.yaml:1: spec.cidrs[0]: want 10.0.0.0/8, got 10.0.0.1/8\n"
		"%s/d/3.yaml:1: kind: want Host, Network, Port, Peer, Namespace, AddressGroup, HostPolicy, NetworkPolicy, "
		"AdminNetworkPolicy, "
		"BaselineAdminNetworkPolicy, ClusterNetworkPolicy or FastPath, got X",
		source_root());
	assert_load_fails(files, -EINVAL, message);
	put_file("d/1.yaml", GROUP("a", "10.0.0.0/8"));
	assert_int_equal(unlink(at("d/3.yaml")), 0);
	assert_load(files, "a b");
	assert_int_equal(symlink("nowhere", at("d/4.yaml")), 0);
	assert_load_fails(files, -ENOENT, "/d/4.yaml: want a file that can be read, got No such file or directory");
	assert_int_equal(unlink(at("d/4.yaml")), 0);
	assert_int_equal(mkdir(at("d/5.yaml"), 0755), 0);
	assert_load_fails(files, -EISDIR, "/d/5.yaml: want a file that can be read, got Is a directory");
	assert_int_equal(rmdir(at("d/5.yaml")), 0);
	assert_int_equal(mkfifo(at("d/6.yaml"), 0600), 0);
	assert_int_equal(files_load(files, &list, &diag), -EINVAL);
	assert_int_equal(unlink(at("d/6.yaml")), 0);
	assert_load(files, "a b");
}

/* A file that stays as it was is not decoded again, nor is one with the same content. */
static void test_reuse(void **state)
{
	_cleanup_(files_free_p) struct files *files = open_files("d");
	_cleanup_object_list_ struct object_list first = {0}, second = {0};
	_cleanup_diag_ struct diag diag = {0};

	(void)state;
	assert_int_equal(mkdir(at("d"), 0755), 0);
	put_file("d/1.yaml", GROUP("a", ""));
	put_file("d/2.yaml", GROUP("b", ""));
	assert_int_equal(files_load(files, &first, &diag), 0);
	put_file("d/1.yaml", GROUP("a", ""));
	put_file("d/2.yaml", GROUP("b", "10.0.0.0/8"));
	assert_int_equal(files_load(files, &second, &diag), 0);
	assert_ptr_equal(first.items[0], second.items[0]);
	assert_ptr_not_equal(first.items[1], second.items[1]);
	object_list_clear(&second);
	/* Nor does a mistake in one make the others be decoded again. */
	put_file("d/2.yaml", "kind: X");
	assert_int_equal(files_load(files, &second, &diag), -EINVAL);
	put_file("d/2.yaml", GROUP("b", ""));
	assert_int_equal(files_load(files, &second, &diag), 0);
	assert_ptr_equal(first.items[0], second.items[0]);
}

static void test_last_good(void **state)
{
	_cleanup_(files_free_p) struct files *files = open_files("d");
	_cleanup_object_list_ struct object_list list = {0};
	_cleanup_diag_ struct diag diag = {0};
	struct stat before, after;

	(void)state;
	assert_int_equal(files_load_last_good(at("state"), &list, &diag), -ENOENT);
	assert_int_equal(mkdir(at("d"), 0755), 0);
	put_file("d/1.yaml", "\n\n" GROUP("a", "10.0.0.0/8"));
	put_file("d/2.yaml", GROUP("b", ""));
	assert_load(files, "a b");
	assert_int_equal(files_save(files, at("state")), 0);
	assert_int_equal(stat(at("state/files.last-good"), &before), 0);
	assert_int_equal(before.st_mode & 0777, 0600);
	assert_int_equal(files_load_last_good(at("state"), &list, &diag), 0);
	assert_objects(&list, "a b");
	assert_string_equal(list.items[0]->file, at("d/1.yaml"));
	assert_int_equal(list.items[0]->line, 3);
	object_list_clear(&list);

	/* Nothing changed: nothing is written. */
	assert_load(files, "a b");
	assert_int_equal(files_save(files, at("state")), 0);
	assert_int_equal(stat(at("state/files.last-good"), &after), 0);
	assert_int_equal(before.st_ino, after.st_ino);

	/* One changed; the other's text is not read again, but taken from the old state. */
	put_file("d/2.yaml", GROUP("c", ""));
	assert_load(files, "a c");
	assert_int_equal(files_save(files, at("state")), 0);
	assert_int_equal(files_load_last_good(at("state"), &list, &diag), 0);
	assert_objects(&list, "a c");
	object_list_clear(&list);

	/* The state is lost: the unchanged files are read again. */
	assert_int_equal(unlink(at("state/files.last-good")), 0);
	assert_load(files, "a c");
	assert_int_equal(files_save(files, at("state")), 0);
	assert_int_equal(files_load_last_good(at("state"), &list, &diag), 0);
	assert_objects(&list, "a c");
	object_list_clear(&list);

	/* What was refused is never kept. */
	put_file("d/2.yaml", "kind: X");
	assert_int_equal(files_load(files, &list, &diag), -EINVAL);
	diag_clear(&diag);
	assert_int_equal(files_save(files, at("state")), -ESTALE);
	put_file("d/2.yaml", GROUP("a", ""));
	assert_load(files, "a a"); /* decodes, but the store refuses it */
	files_discard(files);
	assert_int_equal(files_save(files, at("state")), -ESTALE);
	assert_int_equal(files_load_last_good(at("state"), &list, &diag), 0);
	assert_objects(&list, "a c");
	object_list_clear(&list);

	/* Damage is found. */
	append_file("state/files.last-good", "x");
	assert_int_equal(files_load_last_good(at("state"), &list, &diag), -EINVAL);
	assert_non_null(strstr(diag.text, "got a damaged one"));
	assert_int_equal(list.n, 0);
	put_file("state/files.last-good", "heddle-files 1\n0123456789abcdef 3 /x.yaml\n\nabc");
	diag_clear(&diag);
	assert_int_equal(files_load_last_good(at("state"), &list, &diag), -EINVAL);
	assert_non_null(strstr(diag.text, "want the last good /x.yaml"));
	/* And replaced at the next good load. */
	put_file("d/2.yaml", GROUP("c", ""));
	assert_load(files, "a c");
	assert_int_equal(files_save(files, at("state")), 0);
	assert_int_equal(files_load_last_good(at("state"), &list, &diag), 0);
	assert_objects(&list, "a c");
}

/* No configuration at all is a good state too. */
static void test_last_good_empty(void **state)
{
	_cleanup_(files_free_p) struct files *files = open_files("d");
	_cleanup_object_list_ struct object_list list = {0};
	_cleanup_diag_ struct diag diag = {0};

	(void)state;
	assert_load(files, "");
	assert_int_equal(files_save(files, at("state")), 0);
	assert_int_equal(files_load_last_good(at("state"), &list, &diag), 0);
	assert_int_equal(list.n, 0);
}

/* --- watching --- */

static unsigned told;

static void on_changed(void *userdata)
{
	(void)userdata;
	told++;
}

static unsigned told_within(sd_event *event, uint64_t most_us)
{
	uint64_t end = clock_us() + most_us;

	told = 0;
	while (!told && clock_us() < end)
		assert_true(sd_event_run(event, end > clock_us() ? end - clock_us() : 0) >= 0);
	return told;
}

#define assert_told(event) assert_int_equal(told_within(event, 3000000), 1)
#define assert_quiet(event) assert_int_equal(told_within(event, 150000), 0)

static void test_watch(void **state)
{
	_cleanup_(files_free_p) struct files *files = open_files("a/b/d");
	_cleanup_(sd_event_unrefp) sd_event *event = NULL;

	(void)state;
	assert_true(sd_event_new(&event) >= 0);
	assert_int_equal(files_watch(files, event, on_changed, NULL), 0);
	assert_load(files, "");
	assert_quiet(event);

	/* The directory comes, level by level. */
	assert_int_equal(mkdir(at("a"), 0755), 0);
	assert_told(event);
	assert_load(files, "");
	assert_int_equal(file_make_directory(at("a/b/d"), 0755), 0);
	assert_told(event);
	assert_load(files, "");

	/* Files: written, renamed over, removed; what is none of ours is not told. */
	put_file("a/b/d/1.yaml", GROUP("a", ""));
	assert_told(event);
	assert_load(files, "a");
	append_file("a/b/d/1.yaml", GROUP("b", ""));
	assert_told(event);
	assert_load(files, "a b");
	put_file("a/b/d/.1.yaml.swp", "x");
	put_file("a/b/d/1.yaml~", "x");
	put_file("a/b/d/notes", "x");
	put_file("a/other.yaml", "x");
	put_file("other", "x");
	assert_quiet(event);
	assert_int_equal(unlink(at("a/b/d/1.yaml")), 0);
	assert_told(event);
	assert_load(files, "");

	/* Many at once are told once. */
	for (int i = 0; i < 50; i++) {
		char name[32];

		snprintf(name, sizeof(name), "a/b/d/%d.yaml", i);
		put_file(name, "");
	}
	assert_told(event);
	assert_quiet(event);
	assert_load(files, "");

	/* The directory is replaced, then a parent of it. */
	assert_int_equal(file_make_directory(at("a/b/new"), 0755), 0);
	put_file("a/b/new/1.yaml", GROUP("n", ""));
	assert_quiet(event);
	assert_int_equal(rename(at("a/b/d"), at("a/b/old")), 0);
	assert_int_equal(rename(at("a/b/new"), at("a/b/d")), 0);
	assert_told(event);
	assert_load(files, "n");
	put_file("a/b/old/1.yaml", "nonsense");
	assert_quiet(event);
	assert_int_equal(rename(at("a"), at("z")), 0);
	assert_told(event);
	assert_load(files, "");
	put_file("z/b/d/1.yaml", GROUP("m", ""));
	assert_quiet(event);
	assert_int_equal(rename(at("z"), at("a")), 0);
	assert_told(event);
	assert_load(files, "m");
	put_file("a/b/d/1.yaml", GROUP("k", ""));
	assert_told(event);
	assert_load(files, "k");
}

/* As kubelet mounts a ConfigMap: the directory's files are links through ..data, which is swapped. */
static void test_watch_config_map(void **state)
{
	_cleanup_(files_free_p) struct files *files = open_files("d");
	_cleanup_(sd_event_unrefp) sd_event *event = NULL;

	(void)state;
	assert_int_equal(file_make_directory(at("d/..2024_1"), 0755), 0);
	put_file("d/..2024_1/1.yaml", GROUP("a", ""));
	assert_int_equal(symlink("..2024_1", at("d/..data")), 0);
	assert_int_equal(symlink("..data/1.yaml", at("d/1.yaml")), 0);
	assert_true(sd_event_new(&event) >= 0);
	assert_int_equal(files_watch(files, event, on_changed, NULL), 0);
	assert_load(files, "a");
	assert_quiet(event);

	assert_int_equal(file_make_directory(at("d/..2024_2"), 0755), 0);
	put_file("d/..2024_2/1.yaml", GROUP("b", ""));
	assert_int_equal(symlink("..2024_2", at("d/..data_tmp")), 0);
	assert_quiet(event);
	assert_int_equal(rename(at("d/..data_tmp"), at("d/..data")), 0);
	assert_told(event);
	assert_load(files, "b");
	put_file("d/..2024_1/1.yaml", "nonsense"); /* nobody's any more */
	assert_quiet(event);
}

static void test_watch_links(void **state)
{
	_cleanup_(files_free_p) struct files *files = open_files("link");
	_cleanup_(sd_event_unrefp) sd_event *event = NULL;

	(void)state;
	assert_int_equal(file_make_directory(at("real"), 0755), 0);
	assert_int_equal(file_make_directory(at("elsewhere"), 0755), 0);
	put_file("elsewhere/x", GROUP("a", ""));
	assert_int_equal(symlink(at("elsewhere/x"), at("real/1.yaml")), 0);
	assert_int_equal(symlink("real/../real", at("link")), 0);
	assert_true(sd_event_new(&event) >= 0);
	assert_int_equal(files_watch(files, event, on_changed, NULL), 0);
	assert_load(files, "a");
	put_file("elsewhere/x", GROUP("b", ""));
	assert_told(event);
	assert_load(files, "b");
	put_file("real/2.yaml", GROUP("c", ""));
	assert_told(event);
	assert_load(files, "b c");
	/* The link itself leads somewhere else. */
	assert_int_equal(symlink("elsewhere", at("link.new")), 0);
	assert_int_equal(rename(at("link.new"), at("link")), 0);
	assert_told(event);
	assert_load(files, "");
	put_file("elsewhere/y.yaml", GROUP("y", ""));
	assert_told(event);
	assert_load(files, "y");
	/* Links in a circle are no reason to hang. */
	assert_int_equal(symlink("circle", at("circle.new")), 0);
	assert_int_equal(rename(at("circle.new"), at("circle")), 0);
	_cleanup_(files_free_p) struct files *circle = open_files("circle");
	assert_load_fails(circle, -ELOOP, "/circle: want a file or directory, got Too many levels of symbolic links");
}

static void test_watch_one_file(void **state)
{
	_cleanup_(files_free_p) struct files *files = open_files("one.yaml");
	_cleanup_(sd_event_unrefp) sd_event *event = NULL;

	(void)state;
	put_file("one.yaml", GROUP("a", ""));
	assert_true(sd_event_new(&event) >= 0);
	assert_int_equal(files_watch(files, event, on_changed, NULL), 0);
	assert_load(files, "a");
	put_file("two.yaml", GROUP("a", ""));
	assert_quiet(event);
	put_file("one.yaml", GROUP("b", "")); /* renamed over */
	assert_told(event);
	assert_load(files, "b");
	append_file("one.yaml", GROUP("c", "")); /* in place */
	assert_told(event);
	assert_load(files, "b c");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_directory),
		TEST(test_paths),
		TEST(test_bad_files),
		TEST(test_reuse),
		TEST(test_last_good),
		TEST(test_last_good_empty),
		TEST(test_watch),
		TEST(test_watch_config_map),
		TEST(test_watch_links),
		TEST(test_watch_one_file),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
