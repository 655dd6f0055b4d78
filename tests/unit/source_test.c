/* SPDX-License-Identifier: Apache-2.0 */
/* Where objects come from: files, what was applied, and both as one. */
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
#include <systemd/sd-event.h>
#include <unistd.h>

#include <cmocka.h>

#include <source/applied.h>
#include <source/files.h>
#include <source/store.h>
#include <util/buffer.h>
#include <util/cleanup.h>
#include <util/clock.h>
#include <util/file.h>
#include <util/log.h>

/* --- a folder for each test --- */

static char root[64];

static const char *at(const char *name)
{
	static char paths[8][256];
	static unsigned turn;
	char *path = paths[turn++ % 8];

	snprintf(path, sizeof(paths[0]), "%s/%s", root, name);
	return path;
}

static int set_up(void **state)
{
	(void)state;
	snprintf(root, sizeof(root), "/tmp/heddle-source-XXXXXX");
	log_set_level(LOG_ERR);
	return mkdtemp(root) ? 0 : -1;
}

static int tear_down(void **state)
{
	char command[100];

	(void)state;
	snprintf(command, sizeof(command), "rm -rf %s", root);
	return system(command);
}

static void put_file(const char *name, const char *text)
{
	assert_int_equal(file_write(AT_FDCWD, at(name), text, strlen(text), 0644), 0);
}

static void append_file(const char *name, const char *text)
{
	_cleanup_close_ int fd = open(at(name), O_WRONLY | O_APPEND | O_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(file_write_all(fd, text, strlen(text)), 0);
}

#define GROUP(name, cidrs) \
	"{apiVersion: heddle.dev/v1alpha1, kind: AddressGroup, metadata: {name: " name "}, spec: {cidrs: [" cidrs "]}}\n---\n"
#define POLICY(name, group) \
	"{apiVersion: heddle.dev/v1alpha1, kind: HostPolicy, metadata: {name: " name \
	"}, spec: {ingress: [{action: allow, from: [{addressGroup: " group "}]}]}}\n---\n"

static struct object_list decode(const char *file, const char *text)
{
	_cleanup_diag_ struct diag diag = {0};
	struct object_list list = {0};

	if (decode_documents(file, text, strlen(text), &list, &diag) < 0)
		fail_msg("refused: %s", diag.text);
	return list;
}

static struct object *decode_one(const char *text)
{
	struct object_list list = decode(NULL, text);
	struct object *object;

	assert_int_equal(list.n, 1);
	object = object_ref(list.items[0]);
	object_list_clear(&list);
	return object;
}

/* "kind name, kind name": what is in a list. */
static void assert_objects(const struct object_list *list, const char *names)
{
	_cleanup_buffer_ struct buffer text = {0};

	buffer_add_string(&text, "");
	for (size_t i = 0; i < list->n; i++)
		buffer_printf(&text, "%s%s", i ? " " : "", list->items[i]->name);
	assert_string_equal(text.data, names);
}

/* --- files --- */

static struct files *open_files(const char *name)
{
	struct files *files;
	const char *paths[] = {at(name)};

	assert_int_equal(files_new(paths, 1, &files), 0);
	return files;
}

static void assert_load(struct files *files, const char *names)
{
	_cleanup_object_list_ struct object_list list = {0};
	_cleanup_diag_ struct diag diag = {0};

	if (files_load(files, &list, &diag) < 0)
		fail_msg("refused: %s", diag.text);
	assert_objects(&list, names);
}

static void assert_load_fails(struct files *files, int error, const char *message)
{
	_cleanup_object_list_ struct object_list list = {0};
	_cleanup_diag_ struct diag diag = {0};

	assert_int_equal(files_load(files, &list, &diag), error);
	assert_int_equal(list.n, 0);
	/* The folder's name differs from run to run. */
	const char *text = diag.text;
	assert_non_null(text);
	assert_int_equal(strncmp(text, root, strlen(root)), 0);
	assert_string_equal(text + strlen(root), message);
}

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
		"%s/d/3.yaml:1: kind: want Host, AddressGroup or HostPolicy, got X",
		root);
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
	assert_int_equal(files_save(files, at("state")), 0);
	put_file("d/2.yaml", GROUP("a", ""));
	assert_load(files, "a a"); /* decodes, but the store refuses it */
	files_discard(files);
	assert_int_equal(files_save(files, at("state")), 0);
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

/* --- applied --- */

static struct applied *open_applied(void)
{
	_cleanup_diag_ struct diag diag = {0};
	struct applied *applied = NULL;
	int r = applied_open(at("state"), &applied, &diag);

	if (r < 0)
		fail_msg("%s: %s", strerror(-r), diag.text ? diag.text : "");
	return applied;
}

static void put(struct applied *applied, const char *text, uint64_t deadline, int expected)
{
	_cleanup_object_list_ struct object_list list = decode(NULL, text);

	assert_int_equal(applied_put(applied, list.items, list.n, deadline), expected);
}

static struct applied *reopen(struct applied *applied)
{
	applied_close(applied);
	return open_applied();
}

static void test_applied(void **state)
{
	struct applied *applied = open_applied();

	(void)state;
	assert_objects(applied_objects(applied), "");
	assert_null(applied_before(applied));
	assert_int_equal(applied_deadline(applied), 0);
	put(applied, GROUP("b", "10.0.0.0/8") GROUP("a", ""), 0, 0);
	put(applied, POLICY("p", "a"), 0, 0);
	assert_objects(applied_objects(applied), "a b p");
	applied = reopen(applied);
	assert_objects(applied_objects(applied), "a b p");
	assert_null(applied_objects(applied)->items[0]->file);

	put(applied, GROUP("b", "11.0.0.0/8"), 0, 0);
	assert_int_equal(applied_remove(applied, OBJECT_ADDRESS_GROUP, NULL, "a"), 0);
	assert_int_equal(applied_remove(applied, OBJECT_ADDRESS_GROUP, NULL, "a"), -ENOENT);
	applied = reopen(applied);
	assert_objects(applied_objects(applied), "b p");
	struct object *expected = decode_one(GROUP("b", "11.0.0.0/8"));
	assert_true(object_equal(applied_objects(applied)->items[0], expected));
	object_unref(expected);

	/* One agent a state directory. */
	struct applied *second = NULL;
	_cleanup_diag_ struct diag diag = {0};
	assert_int_equal(applied_open(at("state"), &second, &diag), -EBUSY);
	applied_close(applied);
}

static void test_applied_undo(void **state)
{
	struct applied *applied = open_applied();

	(void)state;
	put(applied, GROUP("a", ""), 0, 0);
	put(applied, GROUP("b", ""), 0, 0);
	assert_int_equal(applied_undo(applied), 0);
	assert_int_equal(applied_undo(applied), -ENOENT);
	assert_objects(applied_objects(applied), "a");
	put(applied, GROUP("a", ""), 0, 0); /* nothing new: no record, but something to take back all the same */
	assert_int_equal(applied_undo(applied), 0);
	assert_objects(applied_objects(applied), "a");
	assert_int_equal(applied_remove(applied, OBJECT_ADDRESS_GROUP, NULL, "a"), 0);
	assert_int_equal(applied_undo(applied), 0);
	put(applied, GROUP("c", ""), UINT64_MAX, 0);
	assert_int_equal(applied_undo(applied), 0);
	assert_null(applied_before(applied));
	put(applied, GROUP("d", ""), 0, 0);
	applied = reopen(applied);
	assert_objects(applied_objects(applied), "a d");
	applied_close(applied);
}

static void test_applied_confirm(void **state)
{
	struct applied *applied = open_applied();
	uint64_t later = clock_wall_us() + 3600000000;

	(void)state;
	put(applied, GROUP("a", "") GROUP("b", ""), 0, 0);
	assert_int_equal(applied_confirm(applied), -ENOENT);
	assert_int_equal(applied_rollback(applied), -ENOENT);
	put(applied, GROUP("b", "10.0.0.0/8") GROUP("c", ""), later, 0);
	assert_objects(applied_objects(applied), "a b c");
	assert_objects(applied_before(applied), "a b");
	assert_int_equal(applied_deadline(applied), later);
	put(applied, GROUP("d", ""), 0, -EBUSY);
	assert_int_equal(applied_remove(applied, OBJECT_ADDRESS_GROUP, NULL, "a"), -EBUSY);

	/* It still waits after a crash, and after the log was rewritten. */
	applied = reopen(applied);
	assert_objects(applied_objects(applied), "a b c");
	assert_objects(applied_before(applied), "a b");
	assert_int_equal(applied_deadline(applied), later);
	assert_int_equal(applied_compact(applied), 0);
	applied = reopen(applied);
	assert_objects(applied_objects(applied), "a b c");
	assert_objects(applied_before(applied), "a b");
	assert_int_equal(applied_deadline(applied), later);

	assert_int_equal(applied_rollback(applied), 0);
	assert_objects(applied_objects(applied), "a b");
	assert_int_equal(applied_objects(applied)->items[1]->group.n_cidrs, 0);
	assert_int_equal(applied_deadline(applied), 0);
	applied = reopen(applied);
	assert_objects(applied_objects(applied), "a b");

	put(applied, GROUP("c", ""), later, 0);
	assert_int_equal(applied_confirm(applied), 0);
	assert_null(applied_before(applied));
	applied = reopen(applied);
	assert_objects(applied_objects(applied), "a b c");
	applied_close(applied);
}

/* The agent was killed, and started again after the deadline. */
static void test_applied_deadline(void **state)
{
	struct applied *applied = open_applied();

	(void)state;
	put(applied, GROUP("a", ""), 0, 0);
	put(applied, GROUP("b", ""), clock_wall_us() + 20000, 0);
	usleep(30000);
	applied = reopen(applied);
	assert_objects(applied_objects(applied), "a");
	assert_null(applied_before(applied));
	applied = reopen(applied);
	assert_objects(applied_objects(applied), "a");
	applied_close(applied);
}

/* Cut off at every byte: what is whole counts, what is not is gone, and new records can follow. */
static void test_applied_torn(void **state)
{
	struct applied *applied = open_applied();
	_cleanup_free_ char *log = NULL;
	size_t length, first;
	struct stat status;

	(void)state;
	put(applied, GROUP("a", ""), 0, 0);
	assert_int_equal(stat(at("state/applied.log"), &status), 0);
	first = (size_t)status.st_size;
	put(applied, GROUP("b", ""), 0, 0);
	applied_close(applied);
	assert_int_equal(file_read(AT_FDCWD, at("state/applied.log"), 100000, &log, &length, NULL), 0);
	for (size_t cut = first; cut < length; cut++) {
		assert_int_equal(file_write(AT_FDCWD, at("state/applied.log"), log, cut, 0600), 0);
		applied = open_applied();
		assert_objects(applied_objects(applied), "a");
		put(applied, GROUP("c", ""), 0, 0);
		applied = reopen(applied);
		assert_objects(applied_objects(applied), "a c");
		applied_close(applied);
	}
	/* A flipped byte, anywhere in the last record, is found as well. */
	for (size_t flip = first; flip < length; flip++) {
		log[flip] ^= 4;
		assert_int_equal(file_write(AT_FDCWD, at("state/applied.log"), log, length, 0600), 0);
		log[flip] ^= 4;
		applied = open_applied();
		assert_objects(applied_objects(applied), "a");
		applied_close(applied);
	}
	assert_int_equal(stat(at("state/applied.log.damaged"), &status), 0);
}

static void test_applied_other_version(void **state)
{
	_cleanup_diag_ struct diag diag = {0};
	struct applied *applied = NULL;
	struct stat before, after;

	(void)state;
	assert_int_equal(mkdir(at("state"), 0700), 0);
	put_file("state/applied.log", "heddle-applied 2\nwhatever\n");
	assert_int_equal(stat(at("state/applied.log"), &before), 0);
	assert_int_equal(applied_open(at("state"), &applied, &diag), -EINVAL);
	assert_non_null(strstr(diag.text, "applied.log:1: want \"heddle-applied 1\", got the log of another version"));
	assert_int_equal(stat(at("state/applied.log"), &after), 0);
	assert_int_equal(before.st_size, after.st_size);
}

static void test_applied_compaction(void **state)
{
	struct applied *applied = open_applied();
	_cleanup_buffer_ struct buffer text = {0};
	struct stat before, after;

	(void)state;
	for (int i = 0; i < 3000; i++)
		buffer_printf(&text, "%s10.%d.%d.0/24", i ? "," : "", i / 256, i % 256);
	put(applied, GROUP("other", ""), 0, 0);
	for (int i = 0; i < 30; i++) {
		_cleanup_buffer_ struct buffer document = {0};

		assert_true(i > 10 || !applied_wants_compaction(applied));
		buffer_printf(&document, GROUP("a", "%s, 11.%d.0.0/16"), text.data, i);
		put(applied, document.data, 0, 0);
	}
	assert_int_equal(stat(at("state/applied.log"), &before), 0);
	applied = reopen(applied);
	assert_true(applied_wants_compaction(applied));
	assert_int_equal(applied_compact(applied), 0);
	assert_false(applied_wants_compaction(applied));
	assert_int_equal(stat(at("state/applied.log"), &after), 0);
	assert_true(after.st_size < before.st_size / 20);
	put(applied, GROUP("more", ""), 0, 0);
	applied = reopen(applied);
	assert_objects(applied_objects(applied), "a more other");
	assert_int_equal(applied_objects(applied)->items[0]->group.n_cidrs, 3001);
	assert_false(applied_wants_compaction(applied));
	applied_close(applied);
}

static void test_applied_disk_full(void **state)
{
	struct applied *applied = open_applied();
	_cleanup_object_list_ struct object_list list = decode(NULL, GROUP("b", ""));

	(void)state;
	put(applied, GROUP("a", ""), 0, 0);
	/* Every write fails from here on, as on a full disk. */
	int fds[1024], n = 0;
	_cleanup_close_ int full = open("/dev/full", O_WRONLY | O_CLOEXEC);
	assert_true(full >= 0);
	for (int fd = 3; fd < 64; fd++) {
		char link[64], target[256];
		ssize_t length;

		snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
		length = readlink(link, target, sizeof(target) - 1);
		if (length > 0 && (target[length] = '\0', strstr(target, "/state/applied.log")))
			fds[n++] = fd;
	}
	assert_int_equal(n, 1);
	_cleanup_close_ int kept = dup(fds[0]);
	assert_int_equal(dup2(full, fds[0]), fds[0]);
	assert_int_equal(applied_put(applied, list.items, list.n, 0), -ENOSPC);
	assert_objects(applied_objects(applied), "a");
	assert_int_equal(dup2(kept, fds[0]), fds[0]);
	assert_int_equal(applied_put(applied, list.items, list.n, 0), 0);
	applied = reopen(applied);
	assert_objects(applied_objects(applied), "a b");
	applied_close(applied);
}

/* --- the store --- */

static void commit_files(struct store *store, const char *text, const char *names)
{
	_cleanup_object_list_ struct object_list list = decode("f.yaml", text);
	struct store_proposal proposal = {0};
	_cleanup_diag_ struct diag diag = {0};

	if (store_propose_files(store, &list, &proposal, &diag) < 0)
		fail_msg("refused: %s", diag.text);
	store_commit(store, &proposal);
	assert_objects(&store->all, names);
}

static void assert_changes(const struct store_proposal *proposal, const char *expected)
{
	_cleanup_buffer_ struct buffer text = {0};

	buffer_add_string(&text, "");
	for (size_t i = 0; i < proposal->n_changes; i++) {
		const struct store_change *change = &proposal->changes[i];

		buffer_printf(&text, "%s%s %s", i ? ", " : "", (change->after ? change->after : change->before)->name,
			store_change_name(change->kind));
	}
	assert_string_equal(text.data, expected);
}

static int propose_apply(const struct store *store, const char *text, bool pending, struct store_proposal *ret, struct diag *diag)
{
	_cleanup_object_list_ struct object_list list = decode(NULL, text);

	return store_propose_apply(store, &list, pending, ret, diag);
}

static void commit_apply(struct store *store, const char *text, bool pending, const char *changes, const char *names)
{
	struct store_proposal proposal = {0};
	_cleanup_diag_ struct diag diag = {0};

	if (propose_apply(store, text, pending, &proposal, &diag) < 0)
		fail_msg("refused: %s", diag.text);
	assert_changes(&proposal, changes);
	store_commit(store, &proposal);
	assert_objects(&store->all, names);
}

static void test_store(void **state)
{
	_cleanup_store_ struct store store = {0};
	struct store_proposal proposal = {0};
	_cleanup_diag_ struct diag diag = {0};

	(void)state;
	commit_files(&store, POLICY("p", "f") GROUP("f", "") GROUP("e", ""), "e f p");
	commit_apply(&store, GROUP("x", "") POLICY("y", "f"), false, "x created, y created", "e f x p y");
	commit_apply(&store, GROUP("x", "10.0.0.0/8") POLICY("y", "f"), false, "x configured, y unchanged", "e f x p y");
	commit_apply(&store, GROUP("x", "10.0.0.0/8"), false, "x unchanged", "e f x p y");

	/* What a file owns is not the API's. */
	assert_int_equal(propose_apply(&store, GROUP("new", "") GROUP("e", ""), false, &proposal, &diag), -EPERM);
	assert_string_equal(
		diag.text, "line 3: want an object that no file owns, got AddressGroup e of f.yaml:5: change it there");
	assert_null(proposal.changes);
	diag_clear(&diag);
	assert_int_equal(store_propose_delete(&store, OBJECT_ADDRESS_GROUP, NULL, "e", &proposal, &diag), -EPERM);
	diag_clear(&diag);
	assert_int_equal(store_propose_delete(&store, OBJECT_ADDRESS_GROUP, NULL, "nobody", &proposal, &diag), -ENOENT);
	assert_string_equal(diag.text, "there is no AddressGroup nobody");
	diag_clear(&diag);

	/* The whole is checked: a group in use cannot go, from either side. */
	assert_int_equal(propose_apply(&store, POLICY("z", "lost"), false, &proposal, &diag), -EINVAL);
	assert_string_equal(diag.text, "applied HostPolicy z: spec.ingress[0].from[0].addressGroup: want the name of an "
				       "AddressGroup, got lost, which no document "
				       "declares");
	diag_clear(&diag);
	commit_apply(&store, POLICY("z", "x"), false, "z created", "e f x p y z");
	assert_int_equal(store_propose_delete(&store, OBJECT_ADDRESS_GROUP, NULL, "x", &proposal, &diag), -EINVAL);
	diag_clear(&diag);
	_cleanup_object_list_ struct object_list files = decode("f.yaml", GROUP("e", ""));
	assert_int_equal(store_propose_files(&store, &files, &proposal, &diag), -EINVAL);
	assert_string_equal(diag.text, "applied HostPolicy y: spec.ingress[0].from[0].addressGroup: want the name of an "
				       "AddressGroup, got f, which no document "
				       "declares");
	assert_objects(&store.all, "e f x p y z");

	assert_int_equal(store_propose_delete(&store, OBJECT_HOST_POLICY, NULL, "z", &proposal, &diag), 0);
	assert_changes(&proposal, "z deleted");
	assert_true(proposal.different);
	store_commit(&store, &proposal);
	assert_objects(&store.all, "e f x p y");
	assert_null(proposal.changes);
}

static void test_store_files(void **state)
{
	_cleanup_store_ struct store store = {0};
	struct store_proposal proposal = {0};
	_cleanup_diag_ struct diag diag = {0};
	_cleanup_object_list_ struct object_list first = decode("f.yaml", GROUP("a", "") GROUP("b", "") GROUP("c", ""));
	_cleanup_object_list_ struct object_list second =
		decode("f.yaml", GROUP("b", "") GROUP("c", "10.0.0.0/8") GROUP("d", ""));

	(void)state;
	assert_int_equal(store_propose_files(&store, &first, &proposal, &diag), 0);
	assert_changes(&proposal, "a created, b created, c created");
	store_commit(&store, &proposal);
	assert_int_equal(store_propose_files(&store, &first, &proposal, &diag), 0);
	assert_changes(&proposal, "");
	assert_false(proposal.different);
	store_proposal_clear(&proposal);
	assert_int_equal(store_propose_files(&store, &second, &proposal, &diag), 0);
	assert_changes(&proposal, "a deleted, c configured, d created");
	assert_true(proposal.different);
	store_commit(&store, &proposal);
	/* Only moved: nothing changes, but lines do. */
	_cleanup_object_list_ struct object_list moved =
		decode("f.yaml", "\n\n" GROUP("b", "") GROUP("c", "10.0.0.0/8") GROUP("d", ""));
	assert_int_equal(store_propose_files(&store, &moved, &proposal, &diag), 0);
	assert_changes(&proposal, "");
	assert_true(proposal.different);
	store_proposal_clear(&proposal);
	/* What was applied stands in a file's way, and is named. */
	commit_apply(&store, GROUP("z", ""), false, "z created", "b c d z");
	_cleanup_object_list_ struct object_list taken = decode("f.yaml", GROUP("z", ""));
	assert_int_equal(store_propose_files(&store, &taken, &proposal, &diag), -EINVAL);
	assert_string_equal(diag.text, "f.yaml:1: want each object once, got AddressGroup z again (also applied through the API: "
				       "delete it there first)");
}

static void test_store_confirm(void **state)
{
	_cleanup_store_ struct store store = {0};
	struct store_proposal proposal = {0};
	_cleanup_diag_ struct diag diag = {0};

	(void)state;
	commit_files(&store, GROUP("f", ""), "f");
	commit_apply(&store, GROUP("a", ""), false, "a created", "a f");
	assert_int_equal(store_propose_confirm(&store, &proposal, &diag), -ENOENT);
	assert_int_equal(store_propose_rollback(&store, &proposal, &diag), -ENOENT);
	commit_apply(&store, GROUP("a", "10.0.0.0/8") GROUP("b", ""), true, "a configured, b created", "a b f");
	assert_true(store.pending);

	diag_clear(&diag);
	assert_int_equal(propose_apply(&store, GROUP("c", ""), false, &proposal, &diag), -EBUSY);
	assert_string_equal(diag.text, "an apply waits for its confirmation: confirm it, or wait until it is rolled back");
	diag_clear(&diag);
	assert_int_equal(store_propose_delete(&store, OBJECT_ADDRESS_GROUP, NULL, "a", &proposal, &diag), -EBUSY);
	diag_clear(&diag);

	/* Files go on changing, but may not lean on what may be rolled back. */
	commit_files(&store, GROUP("f", "") POLICY("p", "a"), "a b f p");
	_cleanup_object_list_ struct object_list leaning = decode("f.yaml", POLICY("p", "b"));
	assert_int_equal(store_propose_files(&store, &leaning, &proposal, &diag), -EINVAL);
	assert_string_equal(diag.text, "f.yaml:1: spec.ingress[0].from[0].addressGroup: want the name of an AddressGroup, got b, "
				       "which no document declares\n"
				       "this would hold once the unconfirmed apply is rolled back: confirm it first");
	diag_clear(&diag);

	assert_int_equal(store_propose_rollback(&store, &proposal, &diag), 0);
	assert_changes(&proposal, "a configured, b deleted");
	assert_false(proposal.next.pending);
	store_commit(&store, &proposal);
	assert_objects(&store.all, "a f p");

	commit_apply(&store, GROUP("b", ""), true, "b created", "a b f p");
	assert_int_equal(store_propose_confirm(&store, &proposal, &diag), 0);
	assert_changes(&proposal, "");
	assert_false(proposal.different);
	store_commit(&store, &proposal);
	assert_false(store.pending);
	assert_objects(&store.all, "a b f p");
}

static void test_store_start(void **state)
{
	_cleanup_store_ struct store store = {0};
	struct store_proposal proposal = {0};
	_cleanup_diag_ struct diag diag = {0};
	_cleanup_object_list_ struct object_list applied = decode(NULL, GROUP("b", "") GROUP("a", ""));
	_cleanup_object_list_ struct object_list before = decode(NULL, GROUP("a", ""));

	(void)state;
	assert_int_equal(store_propose_applied(&store, &applied, &before, &proposal, &diag), 0);
	store_commit(&store, &proposal);
	assert_objects(&store.all, "a b");
	assert_true(store.pending);
	assert_int_equal(store_propose_rollback(&store, &proposal, &diag), 0);
	store_commit(&store, &proposal);
	assert_objects(&store.all, "a");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)
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
		TEST(test_applied),
		TEST(test_applied_undo),
		TEST(test_applied_confirm),
		TEST(test_applied_deadline),
		TEST(test_applied_torn),
		TEST(test_applied_other_version),
		TEST(test_applied_compaction),
		TEST(test_applied_disk_full),
		TEST(test_store),
		TEST(test_store_files),
		TEST(test_store_confirm),
		TEST(test_store_start),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
