/* SPDX-License-Identifier: Apache-2.0 */
/* What is known against zero-copy on a device: by its driver, its MTU and, in a tree in place of /sys, its interrupts. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <netdev/zero_copy.h>

#include "tree_env.h"

static char tree[PATH_MAX];

static void interrupt(unsigned number, const char *name)
{
	char path[100];

	snprintf(path, sizeof(path), "class/net/nic0/device/msi_irqs/%u", number);
	tree_put(tree, path, "msix\n");
	snprintf(path, sizeof(path), "kernel/irq/%u/actions", number);
	tree_put(tree, path, name);
}

static void expect(const char *driver, uint32_t mtu, uint32_t frame_size, const char *why)
{
	struct netdev device = {.name = "nic0", .mtu = mtu};
	const char *said;

	snprintf(device.driver, sizeof(device.driver), "%s", driver);
	said = zero_copy_unfit(&device, 1, frame_size);
	if (why)
		assert_true(said && strstr(said, why));
	else
		assert_null(said);
}

static void test_frames(void **state)
{
	(void)state;
	/* without interrupts, as of a device that is down */
	expect("igb", 1500, 4096, NULL);
	expect("igb", 1500, 2048, "frameSize 4096");
	expect("igc", 1500, 2048, "frameSize 4096");
	expect("igb", 986, 2048, NULL);
	expect("igb", 987, 2048, "frameSize 4096");
	expect("igb", 3034, 4096, NULL);
	expect("igb", 3035, 4096, "more than 3034");
	expect("ice", 3500, 2048, NULL);
	expect("", 1500, 2048, NULL);
}

static void test_interrupts(void **state)
{
	(void)state;
	interrupt(40, "nic0\n");
	interrupt(41, "nic0-TxRx-0\n");
	interrupt(42, "nic0-TxRx-1\n");
	expect("igb", 1500, 4096, NULL);
	interrupt(43, "nic0-rx-2\n"); /* another queue's */
	interrupt(44, "nic0-rx-11\n");
	expect("igb", 1500, 4096, NULL);
	interrupt(42, "old-name-rx-1\n");
	expect("igb", 1500, 4096, "interrupt of its own");
	expect("igb", 1500, 2048, "interrupt of its own"); /* before what the document could change */
	expect("ixgbe", 1500, 4096, NULL);
	interrupt(42, "nic0-tx-1\n");
	expect("igb", 1500, 4096, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_frames), cmocka_unit_test(test_interrupts)};
	int failed;

	tree_make(tree, sizeof(tree));
	setenv("HEDDLE_SYS", tree, 1);
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	tree_remove(tree);
	return failed;
}
