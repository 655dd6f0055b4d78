/* SPDX-License-Identifier: Apache-2.0 */
/* Interfaces that come, change and go, in a namespace of the test's own. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <cmocka.h>

#include <netdev/hostnet.h>
#include <netdev/netdev.h>
#include <netdev/netns_id.h>
#include <util/addr.h>
#include <util/log.h>
#include <util/netlink.h>

struct seen {
	unsigned came, went, n;
	unsigned n_ended; /* namespaces */
	int32_t ended;	  /* the last one */
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

/* The watch hears of it. */
static void dispatch(struct netdev_watch *watch)
{
	struct pollfd poll_fd = {.fd = netdev_watch_fd(watch), .events = POLLIN};

	assert_int_equal(poll(&poll_fd, 1, 20000), 1);
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

static void on_ended(int32_t id, void *userdata)
{
	struct seen *seen = userdata;

	seen->n_ended++;
	seen->ended = id;
}

/* A process in a namespace of its own, which ends with it. */
static pid_t keep_namespace(int *ret_netns)
{
	int there[2];
	char path[64], byte;
	pid_t child;

	assert_int_equal(pipe(there), 0);
	child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		if (unshare(CLONE_NEWNET) < 0 || write(there[1], "x", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	close(there[1]);
	assert_int_equal(read(there[0], &byte, 1), 1);
	close(there[0]);
	snprintf(path, sizeof(path), "/proc/%d/ns/net", child);
	*ret_netns = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(*ret_netns >= 0);
	return child;
}

static void end_namespace(pid_t child)
{
	assert_int_equal(kill(child, SIGKILL), 0);
	assert_int_equal(waitpid(child, NULL, 0), child);
}

static void test_namespaces(void **state)
{
	struct seen *seen = calloc(1, sizeof(*seen));
	_cleanup_netlink_ struct mnl_socket *socket = NULL;
	struct netdev_watch *watch = NULL;
	int32_t id, again, other;
	pid_t children[2];
	int netns;

	(void)state;
	assert_int_equal(netlink_open(NETLINK_ROUTE, &socket), 0);
	assert_int_equal(netdev_watch_new(on_event, seen, &watch), 0);
	assert_int_equal(netdev_watch_namespaces(watch, on_ended), 0);
	children[0] = keep_namespace(&netns);
	assert_int_equal(netns_id(socket, netns, &id), 0);
	assert_int_equal(netns_id(socket, netns, &again), 0);
	assert_int_equal(id, again);
	close(netns);
	children[1] = keep_namespace(&netns);
	assert_int_equal(netns_id(socket, netns, &other), 0);
	assert_int_not_equal(id, other);
	close(netns);
	assert_int_equal(netns_id_is_used(socket, id), 1);
	assert_int_equal(netns_id_is_used(socket, 4711), 0);
	assert_int_equal(netdev_watch_dispatch(watch), 0);
	assert_int_equal(seen->n_ended, 0);
	end_namespace(children[0]);
	/* The kernel ends them behind everybody's back. */
	for (int i = 0; i < 200 && !seen->n_ended; i++) {
		struct pollfd poll_fd = {.fd = netdev_watch_fd(watch), .events = POLLIN};

		(void)poll(&poll_fd, 1, 100);
		assert_int_equal(netdev_watch_dispatch(watch), 0);
	}
	assert_int_equal(seen->n_ended, 1);
	assert_int_equal(seen->ended, id);
	assert_int_equal(netns_id_is_used(socket, id), 0);
	assert_int_equal(netns_id_is_used(socket, other), 1);
	/* Lost messages: any may have ended. */
	assert_int_equal(setsockopt(netdev_watch_fd(watch), SOL_SOCKET, SO_RCVBUF, &(int){2048}, sizeof(int)), 0);
	run("i=0; while [ $i -lt 40 ]; do echo link add ndtz$i type veth peer name ndtw$i; i=$((i+1)); done | ip -batch -");
	dispatch(watch);
	assert_int_equal(seen->ended, NETNS_ID_NONE);
	end_namespace(children[1]);
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

/* What a port needs to know of its device. */
static void test_peers(void **state)
{
	static const uint8_t mac[] = {2, 0, 0, 0, 0, 0x78};
	struct seen *seen = calloc(1, sizeof(*seen));
	struct netdev_watch *watch = NULL;
	const struct netdev *device;
	uint8_t found[6];

	(void)state;
	run("ip link add ndt0 type veth peer name ndt1 address 02:00:00:00:00:78; ip tuntap add ndt2 mode tap; ip link add ndtbr "
	    "type bridge; "
	    "ip link set ndt0 up; ip link set ndt1 up");
	assert_int_equal(netdev_watch_new(on_event, seen, &watch), 0);
	device = find(seen, "ndt0");
	assert_string_equal(device->kind, "veth");
	assert_int_equal(device->peer, find(seen, "ndt1")->ifindex);
	assert_false(device->peer_elsewhere);
	assert_int_equal(netdev_peer_mac(device, found), 0);
	assert_memory_equal(found, mac, 6);
	assert_string_equal(find(seen, "ndt2")->kind, "tun");
	assert_int_equal(netdev_peer_mac(find(seen, "ndt2"), found), -ENODEV);
	run("ip link set ndt0 master ndtbr");
	dispatch(watch);
	assert_int_equal(find(seen, "ndt0")->master, find(seen, "ndtbr")->ifindex);
	/* The other end moves away: what tells is that the link goes down. */
	run("ip link set ndt0 nomaster; ip netns add ndt-peer && ip link set ndt1 netns ndt-peer && ip -n ndt-peer link set ndt1 "
	    "up");
	for (unsigned i = 0; i < 20 && !find(seen, "ndt0")->peer_elsewhere; i++)
		dispatch(watch);
	device = find(seen, "ndt0");
	assert_true(device->peer_elsewhere);
	memset(found, 0, sizeof(found));
	assert_int_equal(netdev_peer_mac(device, found), 0);
	assert_memory_equal(found, mac, 6);
	run("ip link del ndt0; ip link del ndt2; ip link del ndtbr; ip netns del ndt-peer");
	netdev_watch_free(watch);
	free(seen);
}

static struct hostnet_entry entry(const char *address, const char *device, const char *source)
{
	struct hostnet_entry made = {.ifindex = if_nametoindex(device), .mac = {2, 0, 0, 0, 0, 1}, .has_source = source != NULL};

	assert_int_equal(addr_parse(address, &made.address), 0);
	if (source)
		assert_int_equal(addr_parse(source, &made.source), 0);
	return made;
}

static bool lists(const char *command, const char *text)
{
	char line[512];
	bool found = false;
	FILE *pipe = popen(command, "r");

	assert_non_null(pipe);
	while (fgets(line, sizeof(line), pipe))
		found |= strstr(line, text) != NULL;
	pclose(pipe);
	return found;
}

static void note_changes(unsigned changes, void *userdata)
{
	*(unsigned *)userdata |= changes;
}

static unsigned changes_of(struct hostnet *hostnet, unsigned *changes)
{
	struct pollfd poll_fd = {.fd = hostnet_fd(hostnet), .events = POLLIN};

	*changes = 0;
	if (poll(&poll_fd, 1, 1000) == 1)
		assert_int_equal(hostnet_dispatch(hostnet), 0);
	return *changes;
}

static void test_hostnet(void **state)
{
	struct hostnet_entry entries[4];
	struct hostnet *hostnet;
	struct hd_addr *addresses;
	unsigned changes = 0;
	size_t n;

	(void)state;
	run("ip link set lo up; ip link add ndt0 type veth peer name ndt1; ip link set ndt0 up; ip link set ndt1 up; "
	    "ip addr add 10.9.0.1/24 dev ndt0; ip addr add fd09::1/64 dev ndt0 nodad; ip route add 10.9.9.9 dev ndt0; "
	    "ip neigh add 10.9.0.77 lladdr 02:00:00:00:00:09 dev ndt0");
	assert_int_equal(hostnet_open(note_changes, &changes, &hostnet), 0);
	assert_int_equal(hostnet_addresses(hostnet, &addresses, &n), 0);
	assert_int_equal(n, 2);
	free(addresses);
	entries[0] = entry("fd09::2", "ndt0", "fd09::1");
	entries[1] = entry("10.9.0.2", "ndt0", "10.9.0.1");
	entries[2] = entry("10.9.0.3", "ndt0", NULL);
	assert_int_equal(hostnet_sync(hostnet, entries, 3), 0);
	assert_true(lists("ip route", "10.9.0.2 dev ndt0 proto 104 scope link src 10.9.0.1"));
	assert_true(lists("ip route", "10.9.0.3 dev ndt0 proto 104 scope link"));
	assert_true(lists("ip -6 route", "fd09::2 dev ndt0 proto 104 src fd09::1"));
	assert_true(lists("ip neigh", "10.9.0.2 dev ndt0 lladdr 02:00:00:00:00:01 PERMANENT"));
	(void)changes_of(hostnet, &changes);

	/* Somebody takes one away: it is told, and made good. */
	run("ip route del 10.9.0.2; ip neigh del 10.9.0.3 dev ndt0");
	assert_true(changes_of(hostnet, &changes) & HOSTNET_ENTRIES);
	assert_int_equal(hostnet_sync(hostnet, entries, 3), 0);
	assert_true(lists("ip route", "10.9.0.2 dev ndt0 proto 104"));
	assert_true(lists("ip neigh", "10.9.0.3 dev ndt0 lladdr"));

	/* Another device, another source, another MAC. */
	entries[0] = entry("fd09::2", "ndt1", NULL);
	entries[1] = entry("10.9.0.2", "ndt1", NULL);
	entries[2].mac[5] = 7;
	assert_int_equal(hostnet_sync(hostnet, entries, 3), 0);
	assert_true(lists("ip route", "10.9.0.2 dev ndt1 proto 104"));
	assert_false(lists("ip route", "10.9.0.2 dev ndt0 proto 104"));
	assert_true(lists("ip -6 route", "fd09::2 dev ndt1 proto 104"));
	assert_false(lists("ip -6 route", "fd09::2 dev ndt0 proto 104"));
	assert_true(lists("ip neigh", "10.9.0.3 dev ndt0 lladdr 02:00:00:00:00:07"));
	assert_false(lists("ip neigh", "10.9.0.2 dev ndt0"));

	/* A device that is down has no routes; that is no error. Somebody else's route is. */
	run("ip link set ndt1 down");
	assert_int_equal(hostnet_sync(hostnet, entries, 3), 0);
	entries[3] = entry("10.9.9.9", "ndt0", NULL);
	assert_int_equal(hostnet_sync(hostnet, entries, 4), -EEXIST);
	hostnet_close(hostnet);

	/* A later agent finds them, and nobody else's. */
	assert_int_equal(hostnet_clear(), 0);
	assert_false(lists("ip route", "proto 104"));
	assert_false(lists("ip -6 route", "proto 104"));
	assert_false(lists("ip neigh", "10.9.0.3"));
	assert_true(lists("ip neigh", "10.9.0.77"));
	assert_true(lists("ip route", "10.9.9.9"));
	run("ip link del ndt0");
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_watch), cmocka_unit_test(test_lost_messages),
		cmocka_unit_test(test_namespaces), cmocka_unit_test(test_peers), cmocka_unit_test(test_hostnet)};

	if (unshare(CLONE_NEWNET) < 0) {
		printf("# skipped: needs root: %s\n", strerror(errno));
		return 0;
	}
	log_set_level(LOG_ERR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
