/* SPDX-License-Identifier: Apache-2.0 */
/* Records of VFs that containers have: written, found again, and not believed where they are damaged. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include <netdev/netns_id.h>
#include <netdev/vf_loan.h>
#include <util/cleanup.h>
#include <util/file.h>

#include "tree_env.h"

static const struct vf_loan whole = {.pci = "0000:01:10.0",
	.boot = "b",
	.name = "pods",
	.container = "c1",
	.interface = "eth0",
	.netns = "/run/netns/x",
	.netns_device = 4,
	.netns_inode = UINT64_MAX,
	.netns_id = 7,
	.vf = {.ifindex = 7, .name = "ens1f0v0", .mac = {2, 0, 0, 0, 0, 1}, .mtu = 1400, .flags = IFF_UP},
	.representor = {.ifindex = 8, .name = "eth5", .mac = {2, 0, 0, 0, 0, 2}, .mtu = 9000}};

static int count(const struct vf_loan *loan, void *userdata)
{
	assert_string_equal(loan->pci, whole.pci);
	return ++*(int *)userdata < 3 ? 0 : -E2BIG;
}

static void test_records(void **state)
{
	_cleanup_close_ int loans = -1, lock = -1;
	struct vf_loan loan;
	char root[64];
	int n = 0;

	(void)state;
	tree_make(root, sizeof(root));
	assert_int_equal(vf_loans_open(root, false), -ENOENT);
	loans = vf_loans_open(root, true);
	assert_true(loans >= 0);
	assert_int_equal(vf_loan_read(loans, whole.pci, &loan), -ENOENT);
	assert_int_equal(vf_loan_write(loans, &whole), 0);
	assert_int_equal(vf_loan_read(loans, whole.pci, &loan), 0);
	assert_memory_equal(&loan, &whole, sizeof(loan));
	assert_true(vf_loan_is(&loan, "pods", "c1", "eth0"));
	assert_false(vf_loan_is(&loan, "pods", "c1", "eth1"));
	assert_false(vf_loan_is(&loan, "pods", "c2", "eth0"));
	assert_false(vf_loan_is(&loan, "others", "c1", "eth0"));

	/* Two do not change them at once. */
	lock = vf_loans_lock(loans, true);
	assert_true(lock >= 0);
	assert_int_equal(vf_loans_lock(loans, false), -EAGAIN);

	/* Under another's name it is nobody's. */
	assert_int_equal(file_write(loans, "0000:01:10.1", "{}", 2, 0600), 0);
	assert_int_equal(vf_loan_read(loans, "0000:01:10.1", &loan), -EBADMSG);
	assert_int_equal(renameat(loans, whole.pci, loans, "0000:01:10.2"), 0);
	assert_int_equal(vf_loan_read(loans, "0000:01:10.2", &loan), -EBADMSG);
	assert_int_equal(vf_loan_write(loans, &whole), 0);
	assert_int_equal(vf_loans_each(loans, count, &n), 0);
	assert_int_equal(n, 1);

	assert_int_equal(vf_loan_remove(loans, whole.pci), 0);
	assert_int_equal(vf_loan_remove(loans, whole.pci), 0);
	assert_int_equal(vf_loan_read(loans, whole.pci, &loan), -ENOENT);
	tree_remove(root);
}

#define HEAD "{\"pci\":\"0000:01:10.0\",\"boot\":\"b\",\"name\":\"n\",\"containerID\":\"c\",\"ifname\":\"eth0\",\"ended\":true,"
#define NETNS "\"netns\":{\"path\":\"/x\",\"device\":\"4\",\"inode\":\"5\"},"
#define LINK(name, mac, mtu) "{\"ifindex\":3,\"name\":\"" name "\",\"mac\":\"" mac "\",\"mtu\":" mtu ",\"flags\":4294}"

static int decode(const char *text)
{
	struct vf_loan loan;

	return vf_loan_decode(text, strlen(text), &loan);
}

/* Of whom nothing is known when its namespace ends: records of earlier versions, and what is no number. */
static void test_netns_id(void **state)
{
	static const char *const ids[] = {"", ",\"id\":null", ",\"id\":-3", ",\"id\":\"7\"", ",\"id\":4294967295"};
	struct vf_loan loan, other;
	char text[512];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(ids); i++) {
		snprintf(text, sizeof(text),
			HEAD "\"netns\":{\"path\":\"/x\",\"device\":\"4\",\"inode\":\"5\"%s},\"vf\":null,\"representor\":null}",
			ids[i]);
		assert_int_equal(vf_loan_decode(text, strlen(text), &loan), 0);
		assert_int_equal(loan.netns_id, NETNS_ID_NONE);
	}
	other = loan;
	assert_true(vf_loan_same(&loan, &other));
	other.netns_inode++;
	assert_false(vf_loan_same(&loan, &other));
	other = loan;
	other.netns_id = 5;
	assert_false(vf_loan_same(&loan, &other));
	other = loan;
	other.container[0]++;
	assert_false(vf_loan_same(&loan, &other));
}

static void test_netns_is_there(void **state)
{
	struct vf_loan loan = whole;
	struct stat status;

	(void)state;
	assert_false(vf_loan_netns_is_there(&loan));
	snprintf(loan.netns, sizeof(loan.netns), "/proc/self/ns/net");
	assert_int_equal(stat(loan.netns, &status), 0);
	loan.netns_device = status.st_dev;
	loan.netns_inode = status.st_ino;
	assert_true(vf_loan_netns_is_there(&loan));
	loan.netns_inode++;
	assert_false(vf_loan_netns_is_there(&loan));
}

static void test_damaged(void **state)
{
	(void)state;
	assert_int_equal(decode(HEAD NETNS "\"vf\":null,\"representor\":null}"), 0);
	assert_int_equal(decode(HEAD NETNS "\"vf\":" LINK("a", "02:00:00:00:00:01", "1500") ",\"representor\":null}"), 0);
	assert_int_equal(decode(""), -EBADMSG);
	assert_int_equal(decode("[]"), -EBADMSG);
	assert_int_equal(decode(HEAD "\"vf\":null,\"representor\":null}"), -EBADMSG);
	assert_int_equal(decode(HEAD NETNS "\"vf\":{},\"representor\":null}"), -EBADMSG);
	assert_int_equal(decode(HEAD NETNS "\"vf\":" LINK("%d", "02:00:00:00:00:01", "1500") ",\"representor\":null}"), -EBADMSG);
	assert_int_equal(decode(HEAD NETNS "\"vf\":" LINK("", "02:00:00:00:00:01", "1500") ",\"representor\":null}"), -EBADMSG);
	assert_int_equal(decode(HEAD NETNS "\"vf\":" LINK("a", "02:00:00:00:00", "1500") ",\"representor\":null}"), -EBADMSG);
	assert_int_equal(decode(HEAD NETNS "\"vf\":" LINK("a", "02:00:00:00:00:01", "-1") ",\"representor\":null}"), -EBADMSG);
	assert_int_equal(
		decode(HEAD NETNS "\"vf\":" LINK("a-name-that-is-too-long", "02:00:00:00:00:01", "1") ",\"representor\":null}"),
		-EBADMSG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_records), cmocka_unit_test(test_damaged),
		cmocka_unit_test(test_netns_id), cmocka_unit_test(test_netns_is_there)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
