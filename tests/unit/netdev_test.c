/* SPDX-License-Identifier: Apache-2.0 */
/* Interfaces that come, change and go, in a namespace of the test's own. */
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/socket.h>

#include <cmocka.h>

#include <netdev/netdev.h>
#include <util/log.h>

struct seen {
	unsigned came, went, n;
	struct netdev device[2048];
};

static void on_event(const struct netdev *device, bool gone, void *userdata)
{
	struct seen *seen = userdata;
	size_t i;

	for (i = 0; i < seen->n && seen->device[i].ifindex != device->ifindex; i++)
		;
	if (gone) {
		seen->went++;
		assert_true(i < seen->n); /* known, and told once */
		seen->device[i] = seen->device[--seen->n];
		return;
	}
	seen->came++;
	if (i == seen->n)
		seen->n++;
	seen->device[i] = *device;
}

static const struct netdev *find(const struct seen *seen, const char *name)
{
	for (size_t i = 0; i < seen->n; i++)
		if (strcmp(seen->device[i].name, name) == 0)
			return &seen->device[i];
	return NULL;
}

static void run(const char *command)
{
	assert_int_equal(system(command), 0);
}

/* The watch hears of it within a second. */
static void dispatch(struct netdev_watch *watch)
{
	struct pollfd poll_fd = {.fd = netdev_watch_fd(watch), .events = POLLIN};

	assert_int_equal(poll(&poll_fd, 1, 1000), 1);
	assert_int_equal(netdev_watch_dispatch(watch), 0);
}

static void test_watch(void **state)
{
	struct seen *seen = calloc(1, sizeof(*seen));
	struct netdev_watch *watch = NULL;
	const struct netdev *device;
	struct netdev found;

	(void)state;
	assert_int_equal(netdev_watch_new(on_event, seen, &watch), 0);
	assert_non_null(find(seen, "lo"));
	run("ip link add ndt0 address 02:00:00:00:00:77 mtu 1400 type veth peer name ndt1 && ip link set ndt0 up");
	dispatch(watch);
	device = find(seen, "ndt0");
	assert_non_null(device);
	assert_non_null(find(seen, "ndt1"));
	assert_string_equal(device->driver, "veth");
	assert_int_equal(device->mtu, 1400);
	assert_int_equal(device->type, 1); /* ARPHRD_ETHER */
	assert_memory_equal(device->mac, "\x02\x00\x00\x00\x00\x77", 6);
	assert_true(device->up);
	assert_int_equal(netdev_by_name("ndt0", &found), 0);
	assert_int_equal(found.ifindex, device->ifindex);
	assert_int_equal(netdev_by_name("ndt9", &found), -ENODEV);
	run("ip link set ndt0 down && ip link set ndt0 name ndt5");
	dispatch(watch);
	assert_null(find(seen, "ndt0"));
	assert_non_null(find(seen, "ndt5"));
	assert_false(find(seen, "ndt5")->up);
	/* A port that leaves its bridge is not gone. */
	run("ip link add ndtbr type bridge && ip link set ndt5 master ndtbr && ip link set ndt5 nomaster && ip link del ndtbr");
	dispatch(watch);
	assert_non_null(find(seen, "ndt5"));
	assert_null(find(seen, "ndtbr"));
	run("ip link del ndt5");
	dispatch(watch);
	assert_null(find(seen, "ndt5"));
	assert_null(find(seen, "ndt1"));
	assert_int_equal(netdev_watch_dispatch(watch), 0); /* nothing there: nothing happens */
	netdev_watch_free(watch);
	free(seen);
}

static void test_lost_messages(void **state)
{
	struct seen *seen = calloc(1, sizeof(*seen));
	struct netdev_watch *watch = NULL;

	(void)state;
	run("ip link add ndtold type veth peer name ndtoldp");
	assert_int_equal(netdev_watch_new(on_event, seen, &watch), 0);
	assert_non_null(find(seen, "ndtold"));
	assert_int_equal(setsockopt(netdev_watch_fd(watch), SOL_SOCKET, SO_RCVBUF, &(int){2048}, sizeof(int)), 0);
	run("ip link del ndtold; i=0; while [ $i -lt 40 ]; do echo link add ndtx$i type veth peer name ndty$i; i=$((i+1)); done "
	    "| ip -batch -");
	run("ip link del ndtx7");
	dispatch(watch);
	assert_null(find(seen, "ndtold"));
	assert_null(find(seen, "ndtx7"));
	assert_non_null(find(seen, "ndtx39"));
	assert_int_equal(seen->n, 1 + 2 * 39);
	netdev_watch_free(watch);
	free(seen);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_watch), cmocka_unit_test(test_lost_messages)};

	if (unshare(CLONE_NEWNET) < 0) {
		printf("# skipped: needs root: %s\n", strerror(errno));
		return 0;
	}
	log_set_level(LOG_ERR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
