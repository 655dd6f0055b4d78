/* SPDX-License-Identifier: Apache-2.0 */
/* The lowest layer: addresses, durations, files, memory. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include <util/addr.h>
#include <util/arena.h>
#include <util/buffer.h>
#include <util/cleanup.h>
#include <util/duration.h>
#include <util/file.h>
#include <util/hash.h>
#include <util/log.h>
#include <util/pci.h>
#include <util/port_name.h>

static void test_addresses(void **state)
{
	static const char *const good[] = {"0.0.0.0", "10.1.2.3", "255.255.255.255", "::", "::1", "2001:db8::1", "fe80::1:2:3:4"};
	static const char *const bad[] = {
		"", "10.1.2", "10.1.2.3.4", "010.1.2.3", "10.1.2.256", "::ffff:10.1.2.3", "1:2:3", "fe80::1%eth0", " ::1"};
	struct hd_addr addr;
	char text[ADDR_TEXT_MAX];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		assert_int_equal(addr_parse(good[i], &addr), 0);
		assert_string_equal(addr_format(&addr, text), good[i]);
		assert_int_equal(addr_is_ipv4(&addr), strchr(good[i], '.') != NULL);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(addr_parse(bad[i], &addr), -EINVAL);
}

static void test_cidrs(void **state)
{
	static const struct {
		const char *text;
		int r;
		unsigned length;
		const char *written;
	} cases[] = {
		{"0.0.0.0/0", 0, 96, "0.0.0.0/0"},
		{"10.0.0.0/8", 0, 104, "10.0.0.0/8"},
		{"10.1.2.3/32", 0, 128, "10.1.2.3/32"},
		{"::/0", 0, 0, "::/0"},
		{"fd00::/8", 0, 8, "fd00::/8"},
		{"2001:db8::/33", 0, 33, "2001:db8::/33"},
		{"::1/128", 0, 128, "::1/128"},
		{"10.1.2.3/8", ADDR_CIDR_HOST_BITS, 104, "10.0.0.0/8"},
		{"10.1.2.3/0", ADDR_CIDR_HOST_BITS, 96, "0.0.0.0/0"},
		{"2001:db8::1/33", ADDR_CIDR_HOST_BITS, 33, "2001:db8::/33"},
		{"10.0.0.0", ADDR_CIDR_LENGTH, 0, NULL},
		{"10.0.0.0/", ADDR_CIDR_LENGTH, 0, NULL},
		{"10.0.0.0/33", ADDR_CIDR_LENGTH, 0, NULL},
		{"10.0.0.0/08", ADDR_CIDR_LENGTH, 0, NULL},
		{"10.0.0.0/+8", ADDR_CIDR_LENGTH, 0, NULL},
		{"10.0.0.0/8 ", ADDR_CIDR_LENGTH, 0, NULL},
		{"10.0.0.0/8/8", ADDR_CIDR_LENGTH, 0, NULL},
		{"::/129", ADDR_CIDR_LENGTH, 0, NULL},
		{"::/4294967296", ADDR_CIDR_LENGTH, 0, NULL},
		{"/8", ADDR_CIDR_ADDRESS, 0, NULL},
		{"10.0.0/8", ADDR_CIDR_ADDRESS, 0, NULL},
		{"::ffff:10.0.0.0/104", ADDR_CIDR_ADDRESS, 0, NULL},
		{"1111111111111111111111111111111111111111111111111111111/8", ADDR_CIDR_ADDRESS, 0, NULL},
	};
	struct hd_addr addr;
	uint8_t length;
	char text[ADDR_TEXT_MAX];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_int_equal(addr_parse_cidr(cases[i].text, &addr, &length), cases[i].r);
		if (!cases[i].written)
			continue;
		assert_int_equal(length, cases[i].length);
		assert_string_equal(addr_format_cidr(&addr, length, text), cases[i].written);
	}
}

static bool covers(const char *outer, const char *inner)
{
	struct hd_addr a, b;
	uint8_t la, lb;

	assert_int_equal(addr_parse_cidr(outer, &a, &la), 0);
	assert_int_equal(addr_parse_cidr(inner, &b, &lb), 0);
	return addr_prefix_in_prefix(&b, lb, &a, la);
}

static void test_cover(void **state)
{
	(void)state;
	assert_true(covers("10.0.0.0/8", "10.1.0.0/16"));
	assert_true(covers("10.0.0.0/8", "10.0.0.0/8"));
	assert_false(covers("10.1.0.0/16", "10.0.0.0/8"));
	assert_false(covers("10.0.0.0/9", "10.128.0.0/9"));
	assert_true(covers("0.0.0.0/0", "192.0.2.1/32"));
	/* The families do not cover each other, also where the bits would. */
	assert_false(covers("::/0", "192.0.2.1/32"));
	assert_false(covers("::/0", "0.0.0.0/0"));
	assert_false(covers("0.0.0.0/0", "::/0"));
	assert_true(covers("::/0", "2001:db8::/32"));
	assert_true(covers("2001:db8::/33", "2001:db8:7fff::/48"));
	assert_false(covers("2001:db8::/33", "2001:db8:8000::/48"));
}

static void test_durations(void **state)
{
	static const struct {
		const char *text;
		int r;
		uint64_t ms;
		const char *written;
	} cases[] = {
		{"8h", 0, 28800000, "8h"},
		{"60s", 0, 60000, "1m"},
		{"500ms", 0, 500, "500ms"},
		{"1h30m", 0, 5400000, "1h30m"},
		{"2d", 0, 172800000, "2d"},
		{"1d2h3m4s5ms", 0, 93784005, "1d2h3m4s5ms"},
		{"0s", 0, 0, "0s"},
		{"90s", 0, 90000, "1m30s"},
		{"9007199254740992ms", 0, 9007199254740992, "104249991d8h59m992ms"},
		{"9007199254740993ms", -ERANGE, 0, NULL},
		{"99999999999999999999999d", -ERANGE, 0, NULL},
		{"104249992d", -ERANGE, 0, NULL},
		{"60", -EINVAL, 0, NULL},
		{"", -EINVAL, 0, NULL},
		{"s", -EINVAL, 0, NULL},
		{"1x", -EINVAL, 0, NULL},
		{"1m1h", -EINVAL, 0, NULL},
		{"1s1s", -EINVAL, 0, NULL},
		{"-1s", -EINVAL, 0, NULL},
		{"1.5h", -EINVAL, 0, NULL},
		{" 1s", -EINVAL, 0, NULL},
		{"1s ", -EINVAL, 0, NULL},
		{"1S", -EINVAL, 0, NULL},
	};
	char text[DURATION_TEXT_MAX];
	uint64_t ms;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		ms = 0;
		assert_int_equal(duration_parse(cases[i].text, &ms), cases[i].r);
		assert_int_equal(ms, cases[i].ms);
		if (cases[i].written)
			assert_string_equal(duration_format(ms, text), cases[i].written);
	}
}

static void test_files(void **state)
{
	char directory[] = "/tmp/heddle-util-XXXXXX", path[64], deep[80];
	_cleanup_free_ char *text = NULL;
	size_t length;
	struct stat status;

	(void)state;
	assert_non_null(mkdtemp(directory));
	snprintf(path, sizeof(path), "%s/file", directory);
	assert_int_equal(file_read(AT_FDCWD, path, 100, &text, &length, NULL), -ENOENT);
	assert_int_equal(file_write(AT_FDCWD, path, "hello", 5, 0640), 0);
	assert_int_equal(file_read(AT_FDCWD, path, 5, &text, &length, &status), 0);
	assert_int_equal(length, 5);
	assert_string_equal(text, "hello");
	assert_int_equal(status.st_mode & 0777, 0640);
	assert_int_equal(file_write(AT_FDCWD, path, "", 0, 0640), 0);
	free(TAKE_PTR(text));
	assert_int_equal(file_read(AT_FDCWD, path, 5, &text, &length, NULL), 0);
	assert_int_equal(length, 0);
	assert_int_equal(file_write(AT_FDCWD, path, "hello!", 6, 0640), 0);
	free(TAKE_PTR(text));
	assert_int_equal(file_read(AT_FDCWD, path, 5, &text, &length, NULL), -EFBIG);
	assert_int_equal(file_read(AT_FDCWD, directory, 5, &text, &length, NULL), -EISDIR);
	assert_null(text);
	/* st_size is 0 there */
	assert_int_equal(file_read(AT_FDCWD, "/proc/self/status", 100000, &text, &length, NULL), 0);
	assert_true(length > 100);

	snprintf(deep, sizeof(deep), "%s/fifo", directory);
	assert_int_equal(mkfifo(deep, 0600), 0);
	free(TAKE_PTR(text));
	assert_int_equal(file_read(AT_FDCWD, deep, 5, &text, &length, NULL), -EINVAL); /* and does not wait for a writer */
	assert_int_equal(unlink(deep), 0);

	snprintf(deep, sizeof(deep), "%s/a/b/c", directory);
	assert_int_equal(file_make_directory(deep, 0700), 0);
	assert_int_equal(file_make_directory(deep, 0700), 0);
	assert_int_equal(stat(deep, &status), 0);
	assert_true(S_ISDIR(status.st_mode));
	snprintf(deep, sizeof(deep), "%s/file/x", directory);
	assert_int_equal(file_make_directory(deep, 0700), -ENOTDIR);

	/* A crash leaves temporaries, and a writer with the same process id goes around them. */
	_cleanup_close_ int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(fd >= 0);
	snprintf(deep, sizeof(deep), "%s/" FILE_TEMPORARY_PREFIX "1-1", directory);
	assert_int_equal(file_write(AT_FDCWD, deep, "x", 1, 0600), 0);
	file_remove_temporaries(fd);
	assert_int_equal(stat(deep, &status), -1);
	assert_int_equal(stat(path, &status), 0);

	snprintf(deep, sizeof(deep), "rm -rf %s", directory);
	assert_int_equal(system(deep), 0);
}

static void test_arena(void **state)
{
	_cleanup_arena_ struct arena *arena = arena_new();
	char *strings[1000];

	(void)state;
	assert_non_null(arena);
	for (size_t i = 0; i < ARRAY_SIZE(strings); i++) {
		char text[16];
		int n = snprintf(text, sizeof(text), "%zu", i * 7919);

		strings[i] = arena_string(arena, text, (size_t)n);
		uint64_t *aligned = arena_array(arena, uint64_t, i % 5);
		assert_non_null(aligned);
		assert_int_equal((uintptr_t)aligned % _Alignof(uint64_t), 0);
		for (size_t j = 0; j < i % 5; j++)
			assert_int_equal(aligned[j], 0);
	}
	for (size_t i = 0; i < ARRAY_SIZE(strings); i++)
		assert_int_equal(strtoul(strings[i], NULL, 10), i * 7919);
	/* Larger than any block. */
	char *large = arena_alloc(arena, 1 << 20, 1);
	assert_non_null(large);
	memset(large, 1, 1 << 20);
	assert_null(arena_alloc(arena, SIZE_MAX - 100, 1));
	assert_true(arena_size(arena) > 1 << 20);
	assert_true(arena_size(arena) < (1 << 20) + 100000);
}

static void test_buffer(void **state)
{
	_cleanup_buffer_ struct buffer buffer = {0};

	(void)state;
	for (int i = 0; i < 100; i++)
		buffer_printf(&buffer, "%d,", i);
	buffer_add_string(&buffer, "end");
	buffer_add_char(&buffer, '.');
	assert_false(buffer.failed);
	assert_int_equal(buffer.length, strlen(buffer.data));
	assert_string_equal(buffer.data + buffer.length - 7, "99,end.");
	assert_null(buffer_reserve(&buffer, SIZE_MAX / 2));
	assert_true(buffer.failed);
	buffer_add_string(&buffer, "more");
	assert_string_equal(buffer.data + buffer.length - 4, "end.");
}

static void test_hash(void **state)
{
	(void)state;
	/* Kept on disk: these numbers may never change. */
	assert_int_equal(hash_bytes(1, "heddle", 6), hash_bytes(1, "heddle", 6));
	assert_true(hash_bytes(1, "heddle", 6) != hash_bytes(2, "heddle", 6));
	assert_true(hash_bytes(hash_bytes(1, "ab", 2), "c", 1) != hash_bytes(hash_bytes(1, "a", 1), "bc", 2));
	assert_true(hash_bytes(1, "\0", 1) != hash_bytes(1, "", 0));
	assert_true(hash_string(1, NULL) != hash_string(1, ""));
	assert_int_equal(hash_bytes(1, "heddle", 6), 0x615d8df9e562d4b);
	assert_int_equal(hash_bytes(7, "0123456789abcdef", 16), 0xc636d7d933ae7da4);
}

static void test_log(void **state)
{
	struct log_limit limit = {.burst = 2, .interval_ms = 3600000};
	uint64_t suppressed;

	(void)state;
	assert_int_equal(log_level_from_name("debug"), LOG_DEBUG);
	assert_int_equal(log_level_from_name("4"), LOG_WARNING);
	assert_int_equal(log_level_from_name("loud"), -EINVAL);
	log_set_level(LOG_ERR);
	assert_int_equal(log_warn(-EPERM, "not shown"), -EPERM);
	log_set_level(LOG_INFO);
	assert_true(log_limit_pass(&limit, &suppressed));
	assert_true(log_limit_pass(&limit, &suppressed));
	assert_false(log_limit_pass(&limit, &suppressed));
	assert_false(log_limit_pass(&limit, &suppressed));
	limit.begin_ms = 0; /* the next interval */
	assert_true(log_limit_pass(&limit, &suppressed));
	assert_int_equal(suppressed, 2);
}

static void test_port_names(void **state)
{
	static const struct {
		const char *text;
		struct port_name name;
	} cases[] = {
		{"p0", {.flavour = PORT_UPLINK}},
		{"p1s2", {.flavour = PORT_UPLINK}},
		{"pf1", {.flavour = PORT_PF, .pf = 1}},
		{"pf0vf3", {.flavour = PORT_VF, .pf = 0, .number = 3}},
		{"pf1vfr12", {.flavour = PORT_VF, .pf = 1, .number = 12}},
		{"p0pf1vf2", {.flavour = PORT_VF, .pf = 1, .number = 2}},
		{"c1pf0vf127", {.flavour = PORT_VF, .external = true, .number = 127}},
		{"pf0sf88", {.flavour = PORT_SF, .number = 88}},
		{"c2pf1sf4294967295", {.flavour = PORT_SF, .external = true, .pf = 1, .number = UINT32_MAX}},
		{"c1pf0", {.flavour = PORT_PF, .external = true}},
		{"pf1s3", {.flavour = PORT_PF, .pf = 1}},
		{"l2p5", {.flavour = PORT_UPLINK}},
		{"l2p5s1", {.flavour = PORT_UPLINK}},
		{"l2", {0}},
		{"lp0", {0}},
		{"l1pf0vf0", {0}},
		{"l1c1pf0", {0}},
		{"n0", {0}}, /* nfp: a PF's own interface */
		{"pf0s", {0}},
		{"pf0s1vf2", {0}},
		{"pf0sf", {0}},
		{"c1p0pf0vf0x", {0}},
		{"pf0vf", {0}},
		{"pf0vf3x", {0}},
		{"pf0xf3", {0}},
		{"pf4294967296vf1", {0}},
		{"eth0", {0}},
		{"pfvf0", {0}},
		{"p", {0}},
		{"c", {0}},
		{"", {0}},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct port_name name = port_name_parse(cases[i].text);

		assert_int_equal(name.flavour, cases[i].name.flavour);
		assert_int_equal(name.external, cases[i].name.external);
		assert_int_equal(name.pf, cases[i].name.pf);
		assert_int_equal(name.number, cases[i].name.number);
	}
}

static void test_pci_addresses(void **state)
{
	static const char *const good[] = {"0000:01:10.0", "0000:ff:1f.7", "10000:01:00.0", "ffffffff:00:00.0"};
	static const char *const bad[] = {"", "01:10.0", "000:01:10.0", "123456789:01:10.0", "0000:1:10.0", "0000:001:10.0",
		"0000:01:20.0", "0000:01:1.0", "0000:01:10.8", "0000:01:10.", "0000:01:10.00", "0000:01:10.0 ", "0000:01:10:0",
		"0000-01:10.0", "0000:0A:10.0", "0000:01:1g.0", "mlx5_core.sf.4"};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(good); i++)
		assert_true(pci_address_valid(good[i], strlen(good[i])));
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		if (pci_address_valid(bad[i], strlen(bad[i])))
			fail_msg("%s passes", bad[i]);
	/* What is behind a NUL is not overlooked. */
	assert_false(pci_address_valid("0000:01:10.0\0x", 14));
	assert_false(pci_address_valid("0000:01:10\0.0", 12));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_port_names),
		cmocka_unit_test(test_pci_addresses),
		cmocka_unit_test(test_addresses),
		cmocka_unit_test(test_cidrs),
		cmocka_unit_test(test_cover),
		cmocka_unit_test(test_durations),
		cmocka_unit_test(test_files),
		cmocka_unit_test(test_arena),
		cmocka_unit_test(test_buffer),
		cmocka_unit_test(test_hash),
		cmocka_unit_test(test_log),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
