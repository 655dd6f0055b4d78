/* SPDX-License-Identifier: Apache-2.0 */
/* The log of applied objects, through crashes, damage and a full disk. */
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
#include <source/applied.h>
#include <util/buffer.h>
#include <util/cleanup.h>
#include <util/clock.h>
#include <util/file.h>

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

/* Two logs in one directory know nothing of each other. */
static void test_cni_log(void **state)
{
	struct applied *applied = open_applied(), *cni = NULL;
	_cleanup_diag_ struct diag diag = {0};

	(void)state;
	assert_int_equal(applied_open_cni(at("state"), &cni, &diag), 0);
	put(applied, GROUP("a", ""), 0, 0);
	put(cni, GROUP("c", "10.0.0.0/8"), 0, 0);
	put(cni, GROUP("d", ""), 0, 0);
	assert_int_equal(applied_remove(cni, OBJECT_ADDRESS_GROUP, NULL, "d"), 0);
	assert_int_equal(applied_undo(cni), 0);
	assert_int_equal(applied_compact(cni), 0);
	applied_close(cni);
	applied = reopen(applied);
	assert_int_equal(applied_open_cni(at("state"), &cni, &diag), 0);
	assert_objects(applied_objects(applied), "a");
	assert_objects(applied_objects(cni), "c d");
	applied_close(cni);
	applied_close(applied);
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

/* Not what a crash leaves: the records behind it were acknowledged, and are not thrown away. */
static void test_applied_damaged_within(void **state)
{
	struct applied *applied = open_applied();
	_cleanup_free_ char *log = NULL, *now = NULL;
	size_t length, first, still;
	struct stat status;

	(void)state;
	assert_int_equal(stat(at("state/applied.log"), &status), 0);
	first = (size_t)status.st_size;
	put(applied, GROUP("a", ""), 0, 0);
	assert_int_equal(stat(at("state/applied.log"), &status), 0);
	put(applied, GROUP("b", ""), 0, 0);
	applied_close(applied);
	assert_int_equal(file_read(AT_FDCWD, at("state/applied.log"), 100000, &log, &length, NULL), 0);
	for (size_t flip = first; flip < (size_t)status.st_size - 1; flip++) {
		_cleanup_diag_ struct diag diag = {0};

		log[flip] ^= 4;
		assert_int_equal(file_write(AT_FDCWD, at("state/applied.log"), log, length, 0600), 0);
		applied = NULL;
		assert_int_equal(applied_open(at("state"), &applied, &diag), -EINVAL);
		assert_non_null(strstr(diag.text, "applied.log: want whole records, got a damaged one at byte "));
		assert_null(applied);
		free(now);
		now = NULL;
		assert_int_equal(file_read(AT_FDCWD, at("state/applied.log"), 100000, &now, &still, NULL), 0);
		assert_int_equal(still, length);
		assert_memory_equal(now, log, length);
		log[flip] ^= 4;
	}
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
	assert_non_null(
		strstr(diag.text, "applied.log:1: want \"heddle-applied 1\", got another file, or what a crash left of it"));
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_applied),
		TEST(test_cni_log),
		TEST(test_applied_undo),
		TEST(test_applied_confirm),
		TEST(test_applied_deadline),
		TEST(test_applied_torn),
		TEST(test_applied_damaged_within),
		TEST(test_applied_other_version),
		TEST(test_applied_compaction),
		TEST(test_applied_disk_full),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
