/* SPDX-License-Identifier: Apache-2.0 */
/* The table of nftables, in a namespace of the test's own: what the kernel takes of it, and who is heard to have touched it. */
#include <errno.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <netinet/in.h>

#include <cmocka.h>

#include <netdev/nat.h>
#include <netdev/nftables.h>
#include <util/addr.h>
#include <util/cleanup.h>
#include <util/log.h>

#define TABLE "heddle-test"

static struct nat_block block(const char *text)
{
	struct nat_block block;

	assert_int_equal(addr_parse_cidr(text, &block.addr, &block.length), 0);
	return block;
}

static struct hd_addr addr(const char *text)
{
	struct hd_addr ret;

	assert_int_equal(addr_parse(text, &ret), 0);
	return ret;
}

static void test_name(void **state)
{
	char a[NAT_TABLE_MAX], b[NAT_TABLE_MAX];

	(void)state;
	nat_table("/run/heddle", a);
	assert_string_equal(a, "heddle");
	nat_table("/run/not-there", a);
	nat_table("/run/not-there-either", b);
	assert_int_equal(strncmp(a, "heddle-", 7), 0);
	assert_string_not_equal(a, b);
	nat_table("/run/not-there", b);
	assert_string_equal(a, b);
}

static void test_content(void **state)
{
	/* blocks of every length that there is something special about */
	struct nat_block from[] = {block("10.77.0.0/17"), block("fd77::/49")};
	struct nat_block kept[] = {
		block("0.0.0.0/0"), block("10.0.0.1/32"), block("::/0"), block("fd77::1/128"), block("128.0.0.0/1")};
	struct nat_port ports[] = {
		{.to = addr("10.77.0.1"), .protocol = IPPROTO_TCP, .host_port = 80, .to_port = 8080, .any = true},
		{.to = addr("10.77.0.1"), .protocol = IPPROTO_SCTP, .host_port = 80, .to_port = 8080, .any = true},
		{.to = addr("fd77::1"), .protocol = IPPROTO_UDP, .host_port = 80, .to_port = 8080, .any = true},
		{.host = addr("fd66::1"), .to = addr("fd77::1"), .protocol = IPPROTO_UDP, .host_port = 80, .to_port = 8080},
		{.host = addr("192.0.2.1"), .to = addr("10.77.0.2"), .protocol = IPPROTO_TCP, .host_port = 80, .to_port = 81},
	};
	struct nat_content content = {.from = from,
		.kept = kept,
		.inside = from,
		.ports = ports,
		.n_from = ARRAY_SIZE(from),
		.n_kept = ARRAY_SIZE(kept),
		.n_inside = ARRAY_SIZE(from),
		.n_ports = ARRAY_SIZE(ports),
		.unjudged = 0x10000000};
	char *why = NULL;

	(void)state;
	assert_int_equal(nft_has_table(TABLE), 0);
	assert_int_equal(nat_clear(TABLE), 0);
	assert_int_equal(nat_set(TABLE, &content, &why), 0);
	assert_int_equal(nft_has_table(TABLE), 1);
	/* each part alone, and none */
	content.n_from = 0;
	assert_int_equal(nat_set(TABLE, &content, &why), 0);
	content.n_ports = 0;
	assert_int_equal(nat_set(TABLE, &content, &why), 0);
	content.unjudged = 0;
	assert_int_equal(nat_set(TABLE, &content, &why), 0);
	/* what the kernel refuses leaves what was there */
	content.n_ports = 2;
	ports[1] = ports[0];
	ports[1].to_port = 1;
	assert_int_equal(nat_set(TABLE, &content, &why), -EEXIST);
	assert_non_null(strstr(why, "a set"));
	free(why);
	assert_int_equal(nft_has_table(TABLE), 1);
	assert_int_equal(nat_clear(TABLE), 0);
	assert_int_equal(nft_has_table(TABLE), 0);
}

static void test_watch(void **state)
{
	const struct nat_content nothing = {0};
	struct nft_watch *watch;

	(void)state;
	assert_int_equal(nft_watch_open(TABLE, &watch), 0);
	assert_int_equal(nft_watch_read(watch), 0);
	assert_int_equal(nat_set("heddle-other", &nothing, NULL), 0);
	assert_int_equal(nft_watch_read(watch), 0);
	assert_int_equal(nat_set(TABLE, &nothing, NULL), 0);
	assert_int_equal(nft_watch_read(watch), 1);
	assert_int_equal(nat_set(TABLE, &nothing, NULL), 0);
	assert_int_equal(nat_clear(TABLE), 0);
	assert_int_equal(nft_watch_read(watch), 2);
	assert_int_equal(nft_watch_read(watch), 0);
	nft_watch_close(watch);
	nft_watch_close(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_name), cmocka_unit_test(test_content), cmocka_unit_test(test_watch)};

	if (unshare(CLONE_NEWNET) < 0) {
		printf("# skipped: needs root: %s\n", strerror(errno));
		return 0;
	}
	if (nft_has_table(TABLE) < 0) {
		printf("# skipped: cannot ask nf_tables\n");
		return 0;
	}
	log_set_level(LOG_ERR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
