/* SPDX-License-Identifier: Apache-2.0 */
/* Ways to peers: from messages made here, and from the kernel of a namespace of the test's own whose neighbours live in another one. */
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <linux/nexthop.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <sys/socket.h>

#include <cmocka.h>
#include <libmnl/libmnl.h>

#include <netdev/underlay.h>
#include <netdev/underlay_parse.h>
#include <util/addr.h>
#include <util/clock.h>
#include <util/log.h>

/* --- messages --- */

static uint8_t room[4096];

static struct nlmsghdr *begin(uint16_t type, const void *header, size_t length)
{
	struct nlmsghdr *message;

	memset(room, 0, sizeof(room));
	message = mnl_nlmsg_put_header(room);
	message->nlmsg_type = type;
	memcpy(mnl_nlmsg_put_extra_header(message, length), header, length);
	return message;
}

static struct hd_addr addr(const char *text)
{
	struct hd_addr ret;

	assert_int_equal(addr_parse(text, &ret), 0);
	return ret;
}

static void put(struct nlmsghdr *message, uint16_t type, const char *text)
{
	struct hd_addr a = addr(text);
	bool ipv4 = addr_is_ipv4(&a);

	mnl_attr_put(message, type, ipv4 ? 4 : 16, ipv4 ? &a.b[12] : a.b);
}

static void assert_addr(const struct hd_addr *got, const char *wanted)
{
	char text[ADDR_TEXT_MAX];

	assert_string_equal(addr_format(got, text), wanted);
}

static void test_route(void **state)
{
	struct rtmsg header = {.rtm_family = AF_INET, .rtm_dst_len = 24, .rtm_type = RTN_UNICAST, .rtm_protocol = RTPROT_STATIC};
	struct nlmsghdr *message = begin(RTM_NEWROUTE, &header, sizeof(header));
	struct underlay_route route;
	struct nlattr *metrics;

	(void)state;
	put(message, RTA_DST, "10.1.2.0");
	put(message, RTA_GATEWAY, "10.0.0.1");
	mnl_attr_put_u32(message, RTA_OIF, 7);
	metrics = mnl_attr_nest_start(message, RTA_METRICS);
	mnl_attr_put_u32(message, RTAX_MTU, 1400);
	mnl_attr_nest_end(message, metrics);
	assert_true(underlay_parse_route(message, &route));
	assert_int_equal(route.type, RTN_UNICAST);
	assert_int_equal(route.mtu, 1400);
	assert_int_equal(route.length, 120);
	assert_addr(&route.destination, "10.1.2.0");
	assert_int_equal(route.n, 1);
	assert_int_equal(route.hop[0].ifindex, 7);
	assert_addr(&route.hop[0].gateway, "10.0.0.1");

	/* The default route has no RTA_DST, and this one nothing behind it. */
	header = (struct rtmsg){.rtm_family = AF_INET, .rtm_type = RTN_BLACKHOLE};
	assert_true(underlay_parse_route(begin(RTM_NEWROUTE, &header, sizeof(header)), &route));
	assert_int_equal(route.length, 96);
	assert_addr(&route.destination, "0.0.0.0");
	assert_int_equal(route.n, 0);

	/* A gateway of the other family, over a link that is down, to an object. */
	header = (struct rtmsg){.rtm_family = AF_INET, .rtm_dst_len = 32, .rtm_type = RTN_UNICAST, .rtm_flags = RTNH_F_LINKDOWN};
	message = begin(RTM_NEWROUTE, &header, sizeof(header));
	mnl_attr_put(message, RTA_VIA, 18, "\x0a\x00\xfe\x80\0\0\0\0\0\0\0\0\0\0\0\0\0\x09");
	mnl_attr_put_u32(message, RTA_OIF, 3);
	mnl_attr_put_u32(message, RTA_NH_ID, 44);
	mnl_attr_put_u16(message, RTA_ENCAP_TYPE, 1);
	assert_true(underlay_parse_route(message, &route));
	assert_true(route.hop[0].has_gateway && route.hop[0].dead && route.hop[0].encapsulates);
	assert_addr(&route.hop[0].gateway, "fe80::9");
	assert_int_equal(route.nexthop, 44);

	/* Not of IP, and cut off. */
	header.rtm_family = AF_BRIDGE;
	assert_false(underlay_parse_route(begin(RTM_NEWROUTE, &header, sizeof(header)), &route));
	header.rtm_family = AF_INET;
	message = begin(RTM_NEWROUTE, &header, sizeof(header));
	message->nlmsg_len -= 4;
	assert_false(underlay_parse_route(message, &route));
}

static void put_hop(struct nlmsghdr *message, uint32_t ifindex, uint8_t flags, const char *gateway)
{
	struct rtnexthop *hop = mnl_nlmsg_get_payload_tail(message);
	struct hd_addr a;

	message->nlmsg_len += sizeof(*hop);
	hop->rtnh_ifindex = (int)ifindex;
	hop->rtnh_flags = flags;
	if (gateway) {
		a = addr(gateway);
		mnl_attr_put(message, RTA_GATEWAY, 16, a.b);
	}
	hop->rtnh_len = (uint16_t)((char *)mnl_nlmsg_get_payload_tail(message) - (char *)hop);
}

static void test_multipath(void **state)
{
	struct rtmsg header = {.rtm_family = AF_INET6, .rtm_dst_len = 64, .rtm_type = RTN_UNICAST};
	struct nlmsghdr *message = begin(RTM_NEWROUTE, &header, sizeof(header));
	struct underlay_route route;
	struct nlattr *multipath;

	(void)state;
	put(message, RTA_DST, "fd00:1::");
	multipath = mnl_attr_nest_start(message, RTA_MULTIPATH);
	put_hop(message, 4, 0, "fe80::1");
	put_hop(message, 5, RTNH_F_DEAD, "fe80::2");
	put_hop(message, 6, 0, NULL);
	mnl_attr_nest_end(message, multipath);
	assert_true(underlay_parse_route(message, &route));
	assert_int_equal(route.n, 3);
	assert_addr(&route.hop[0].gateway, "fe80::1");
	assert_false(route.hop[0].dead);
	assert_int_equal(route.hop[1].ifindex, 5);
	assert_true(route.hop[1].dead);
	assert_false(route.hop[2].has_gateway);

	/* One that says it is longer than there is ends the list. */
	((struct rtnexthop *)((char *)mnl_attr_get_payload(multipath) + 28))->rtnh_len = 4000;
	assert_true(underlay_parse_route(message, &route));
	assert_int_equal(route.n, 1);
	/* More than anybody looks at. */
	message = begin(RTM_NEWROUTE, &header, sizeof(header));
	multipath = mnl_attr_nest_start(message, RTA_MULTIPATH);
	for (uint32_t i = 0; i < 40; i++)
		put_hop(message, i + 1, 0, NULL);
	mnl_attr_nest_end(message, multipath);
	assert_true(underlay_parse_route(message, &route));
	assert_int_equal(route.n, UNDERLAY_HOPS_MAX);
}

static void test_other_messages(void **state)
{
	struct nhmsg nexthop_header = {.nh_family = AF_INET};
	struct ndmsg ndmsg = {.ndm_family = AF_INET, .ndm_ifindex = 9, .ndm_state = NUD_REACHABLE, .ndm_flags = NTF_EXT_LEARNED};
	struct ifinfomsg link_header = {.ifi_index = 9, .ifi_type = ARPHRD_ETHER, .ifi_flags = IFF_UP | 1 << 16};
	struct nexthop_grp group[2] = {{.id = 3}, {.id = 4}};
	struct underlay_neighbour neighbour;
	struct underlay_nexthop nexthop;
	struct underlay_link link;
	struct nlmsghdr *message = begin(RTM_NEWNEXTHOP, &nexthop_header, sizeof(nexthop_header));

	(void)state;
	mnl_attr_put(message, NHA_GROUP, sizeof(group), group);
	assert_true(underlay_parse_nexthop(message, &nexthop));
	assert_int_equal(nexthop.n, 2);
	assert_int_equal(nexthop.id[1], 4);
	message = begin(RTM_NEWNEXTHOP, &nexthop_header, sizeof(nexthop_header));
	mnl_attr_put_u32(message, NHA_OIF, 8);
	put(message, NHA_GATEWAY, "10.0.0.1");
	assert_true(underlay_parse_nexthop(message, &nexthop));
	assert_int_equal(nexthop.hop.ifindex, 8);
	assert_addr(&nexthop.hop.gateway, "10.0.0.1");
	assert_int_equal(nexthop.n, 0);

	message = begin(RTM_NEWNEIGH, &ndmsg, sizeof(ndmsg));
	put(message, NDA_DST, "10.0.0.1");
	mnl_attr_put(message, NDA_LLADDR, 6, "\2\0\0\0\0\1");
	mnl_attr_put_u8(message, NDA_PROTOCOL, 104);
	mnl_attr_put_u32(message, NDA_FLAGS_EXT, NTF_EXT_MANAGED);
	assert_true(underlay_parse_neighbour(message, &neighbour));
	assert_int_equal(neighbour.protocol, 104);
	assert_int_equal(neighbour.flags_ext, NTF_EXT_MANAGED);
	assert_true(neighbour.has_mac && neighbour.mac[5] == 1);
	/* A proxy entry, a MAC of another length, no address. */
	((struct ndmsg *)mnl_nlmsg_get_payload(message))->ndm_flags = NTF_PROXY;
	assert_false(underlay_parse_neighbour(message, &neighbour));
	message = begin(RTM_NEWNEIGH, &ndmsg, sizeof(ndmsg));
	mnl_attr_put(message, NDA_LLADDR, 4, "\2\0\0\0");
	assert_false(underlay_parse_neighbour(message, &neighbour));
	put(message, NDA_DST, "10.0.0.1");
	assert_true(underlay_parse_neighbour(message, &neighbour));
	assert_false(neighbour.has_mac);

	message = begin(RTM_NEWLINK, &link_header, sizeof(link_header));
	mnl_attr_put_u32(message, IFLA_MTU, 9000);
	mnl_attr_put(message, IFLA_ADDRESS, 6, "\2\0\0\0\0\2");
	assert_true(underlay_parse_link(message, &link));
	assert_true(link.up && link.mtu == 9000 && link.mac[5] == 2 && link.type == ARPHRD_ETHER);
	link_header.ifi_flags = IFF_UP; /* no carrier */
	assert_true(underlay_parse_link(begin(RTM_NEWLINK, &link_header, sizeof(link_header)), &link));
	assert_false(link.up);
	link_header.ifi_family = AF_BRIDGE;
	assert_false(underlay_parse_link(begin(RTM_NEWLINK, &link_header, sizeof(link_header)), &link));
}

/* --- the kernel --- */

#define PEERS_MAX 2000

struct told {
	unsigned n; /* calls */
	struct underlay_state last[PEERS_MAX];
};

static void on_peer(uint32_t peer, const struct underlay_state *state, void *userdata)
{
	struct told *told = userdata;

	assert_true(peer < PEERS_MAX);
	told->n++;
	told->last[peer] = *state;
}

static void run(const char *command)
{
	if (system(command) != 0)
		fail_msg("%s", command);
}

static bool lists(const char *command, const char *text)
{
	char line[512];
	FILE *pipe = popen(command, "r");
	bool found = false;

	assert_non_null(pipe);
	while (fgets(line, sizeof(line), pipe))
		found |= strstr(line, text) != NULL;
	pclose(pipe);
	return found;
}

/* As the event loop would. */
static void turn(struct underlay *u, int patience_ms)
{
	struct pollfd poll_fd = {.fd = underlay_fd(u), .events = POLLIN};
	uint64_t due = underlay_due_us(u);
	int wait = due && (int)(due / 1000) + 1 < patience_ms ? (int)(due / 1000) + 1 : patience_ms;

	if (poll(&poll_fd, 1, wait) == 1)
		assert_int_equal(underlay_dispatch(u), 0);
	if (underlay_due_us(u) == 1)
		assert_int_equal(underlay_look(u), 0);
}

static void settle(struct underlay *u)
{
	uint64_t until = clock_ms() + 300;

	while (clock_ms() < until)
		turn(u, 20);
}

static bool comes_to(struct underlay *u, const struct told *told, uint32_t peer, enum underlay_reach reach, size_t n)
{
	uint64_t until = clock_ms() + 30000; /* of a carrier the kernel may tell late */

	while (clock_ms() < until) {
		if (told->last[peer].reach == reach && told->last[peer].n == n)
			return true;
		turn(u, 50);
	}
	printf("# %s, %zu ways\n", underlay_reach_name[told->last[peer].reach], told->last[peer].n);
	return false;
}

/* Two links to a namespace in which the neighbours live. */
static void set_up(void)
{
	run("ip link set lo up && ip netns add hdu$PPID && for i in 0 1; do ip link add hdu$i address 02:00:00:00:00:1$i type "
	    "veth "
	    "peer name p$i netns hdu$PPID && ip link set hdu$i up && ip addr add 10.7.$i.1/24 dev hdu$i && "
	    "ip addr add fd07:$i::1/64 dev hdu$i nodad && ip -n hdu$PPID link set p$i address 02:00:00:00:00:2$i up && "
	    "ip -n hdu$PPID addr add 10.7.$i.2/16 dev p$i && ip -n hdu$PPID addr add fd07:$i::2/64 dev p$i nodad; done");
}

static void tear_down(void)
{
	run("ip link del hdu0; ip link del hdu1; ip netns del hdu$PPID; ip rule del pref 77 2>/dev/null; ip nexthop flush; true");
}

static void test_ways(void **state)
{
	struct told *told = calloc(1, sizeof(*told));
	const struct hd_addr own = addr("10.7.0.1");
	const struct underlay_peer peers[] = {{1, addr("10.7.0.2")}, {2, addr("10.50.0.1")}, {3, addr("10.60.0.1")},
		{4, addr("10.7.0.99")}, {5, addr("10.7.0.1")}, {6, addr("10.61.0.1")}, {7, addr("10.62.0.1")}};
	struct underlay *u;

	(void)state;
	set_up();
	run("ip route add 10.50.0.0/16 nexthop via 10.7.0.2 nexthop via 10.7.1.2; ip route add blackhole 10.61.0.0/16; "
	    "ip route add 10.62.0.0/16 via inet6 fd07:1::2 mtu 1300; "
	    "ip neigh add 10.7.0.99 lladdr 02:00:00:00:00:99 dev hdu0");
	assert_int_equal(underlay_open(&own, 4789, on_peer, told, &u), 0);
	assert_int_equal(underlay_set_peers(u, peers, 7), 0);
	assert_true(comes_to(u, told, 1, UNDERLAY_REACHABLE, 1));
	assert_true(comes_to(u, told, 2, UNDERLAY_REACHABLE, 2));
	assert_memory_equal(told->last[1].way[0].destination, "\2\0\0\0\0\x20", 6);
	assert_memory_equal(told->last[1].way[0].source, "\2\0\0\0\0\x10", 6);
	assert_int_equal(told->last[1].way[0].ifindex, if_nametoindex("hdu0"));
	assert_int_equal(told->last[1].mtu, 1500);
	assert_memory_equal(told->last[2].way[1].destination, "\2\0\0\0\0\x21", 6);
	assert_addr(&told->last[2].next_hop[1], "10.7.1.2");
	/* no route, somebody else's permanent entry, the host itself, nothing */
	assert_true(comes_to(u, told, 3, UNDERLAY_NO_ROUTE, 0));
	assert_true(comes_to(u, told, 4, UNDERLAY_REACHABLE, 1));
	assert_memory_equal(told->last[4].way[0].destination, "\2\0\0\0\0\x99", 6);
	assert_true(comes_to(u, told, 5, UNDERLAY_NO_ROUTE, 0));
	assert_string_equal(told->last[5].reason, "the address is this host's own");
	assert_true(comes_to(u, told, 6, UNDERLAY_NO_ROUTE, 0));
	assert_string_equal(told->last[6].reason, "the route is a blackhole");
	/* a gateway of IPv6, an MTU of the route */
	assert_true(comes_to(u, told, 7, UNDERLAY_REACHABLE, 1));
	assert_addr(&told->last[7].next_hop[0], "fd07:1::2");
	assert_int_equal(told->last[7].mtu, 1300);
	assert_true(lists("ip neigh show nud all", "10.7.0.2 dev hdu0 lladdr 02:00:00:00:00:20 managed extern_learn"));
	assert_true(lists("ip neigh show nud permanent", "10.7.0.99 dev hdu0 lladdr 02:00:00:00:00:99"));
	settle(u);
	assert_int_equal(underlay_due_us(u), 0); /* nothing changes, nobody looks */
	assert_int_equal(underlay_find(u, 2)->n, 2);
	assert_null(underlay_find(u, 8));

	/* Its link goes: the other way is left. It comes back. */
	run("ip link set hdu1 down");
	assert_true(comes_to(u, told, 2, UNDERLAY_REACHABLE, 1));
	assert_int_equal(told->last[2].way[0].ifindex, if_nametoindex("hdu0"));
	run("ip link set hdu1 up; ip route replace 10.50.0.0/16 nexthop via 10.7.0.2 nexthop via 10.7.1.2");
	assert_true(comes_to(u, told, 2, UNDERLAY_REACHABLE, 2));
	/* The carrier alone. */
	run("ip -n hdu$PPID link set p0 down");
	assert_true(comes_to(u, told, 2, UNDERLAY_REACHABLE, 1));
	assert_true(comes_to(u, told, 1, UNDERLAY_DOWN, 0));
	run("ip -n hdu$PPID link set p0 up");
	assert_true(comes_to(u, told, 2, UNDERLAY_REACHABLE, 2));
	assert_true(comes_to(u, told, 1, UNDERLAY_REACHABLE, 1));

	/* Somebody takes our entry away, and a next hop has another MAC. */
	run("ip neigh del 10.7.0.2 dev hdu0");
	settle(u);
	assert_true(lists("ip neigh show nud all", "10.7.0.2 dev hdu0 lladdr 02:00:00:00:00:20 managed extern_learn"));
	run("ip -n hdu$PPID link set p0 address 02:00:00:00:00:2f && "
	    "ip netns exec hdu$PPID ping -qc1 -W1 -I p0 10.7.0.1 >/dev/null; ip neigh flush dev hdu0 nud stale; true");
	for (unsigned i = 0; i < 100 && told->last[1].way[0].destination[5] != 0x2f; i++)
		turn(u, 50);
	assert_memory_equal(told->last[1].way[0].destination, "\2\0\0\0\0\x2f", 6);

	/* A route that comes, an MTU, a rule that leads elsewhere. */
	run("ip route add 10.60.0.0/16 via 10.7.1.2");
	assert_true(comes_to(u, told, 3, UNDERLAY_REACHABLE, 1));
	run("ip link set hdu1 mtu 1450");
	settle(u);
	assert_int_equal(told->last[3].mtu, 1450);
	run("ip route add blackhole 10.60.0.0/16 table 77; ip rule add pref 77 ipproto udp dport 4789 table 77");
	assert_true(comes_to(u, told, 3, UNDERLAY_NO_ROUTE, 0));
	run("ip rule del pref 77");
	assert_true(comes_to(u, told, 3, UNDERLAY_REACHABLE, 1));

	/* Next hop objects, also where their routes do not tell what they are. */
	run("ip nexthop add id 1 via 10.7.0.2 dev hdu0 && ip nexthop add id 2 via 10.7.1.2 dev hdu1 && ip nexthop add id 3 group "
	    "1/2 && "
	    "ip route replace 10.60.0.0/16 nhid 3");
	assert_true(comes_to(u, told, 3, UNDERLAY_REACHABLE, 2));
	run("ip nexthop replace id 3 group 1");
	assert_true(comes_to(u, told, 3, UNDERLAY_REACHABLE, 1));
	run("sysctl -qw net.ipv4.nexthop_compat_mode=0; ip nexthop replace id 3 group 1/2");
	assert_true(comes_to(u, told, 3, UNDERLAY_REACHABLE, 2));
	run("sysctl -qw net.ipv4.nexthop_compat_mode=1");

	/* Nobody answers. */
	run("ip route replace 10.60.0.0/16 via 10.7.1.200");
	assert_true(comes_to(u, told, 3, UNDERLAY_RESOLVING, 0));
	assert_int_equal(told->last[3].mtu, 1450);
	assert_true(comes_to(u, told, 3, UNDERLAY_UNRESOLVED, 0));

	/* What is not needed any more goes, and nobody else's. */
	assert_int_equal(underlay_set_peers(u, peers, 2), 0);
	settle(u);
	assert_false(lists("ip neigh show nud all", "10.7.1.200"));
	assert_true(lists("ip neigh show nud permanent", "10.7.0.99"));
	assert_true(lists("ip neigh show nud all", "managed"));
	/* An agent's end leaves them; the next one takes them over. */
	underlay_close(u);
	assert_true(lists("ip neigh show nud all", "managed"));
	assert_int_equal(underlay_open(&own, 4789, on_peer, told, &u), 0);
	assert_int_equal(underlay_set_peers(u, peers, 1), 0);
	memset(told, 0, sizeof(*told));
	assert_true(comes_to(u, told, 1, UNDERLAY_REACHABLE, 1));
	settle(u);
	assert_true(lists("ip neigh show nud all", "10.7.0.2 dev hdu0 lladdr 02:00:00:00:00:2f managed"));
	assert_false(lists("ip neigh show nud all", "10.7.1.2 dev hdu1 lladdr 02:00:00:00:00:21 managed"));
	underlay_close(u);
	assert_int_equal(underlay_clear(), 0);
	assert_false(lists("ip neigh show nud all", "managed"));
	assert_true(lists("ip neigh show nud permanent", "10.7.0.99"));
	tear_down();
	free(told);
}

static void test_ways6(void **state)
{
	struct told *told = calloc(1, sizeof(*told));
	const struct hd_addr own = addr("fd07::1");
	const struct underlay_peer peers[] = {
		{1, addr("fd07::2")}, {2, addr("fd50::1")}, {3, addr("fd61::1")}, {4, addr("fd62::1")}};
	struct underlay *u;

	(void)state;
	set_up();
	run("ip route add fd50::/64 nexthop via fd07::2 dev hdu0 nexthop via fd07:1::2 dev hdu1; ip route add blackhole "
	    "fd61::/64");
	assert_int_equal(underlay_open(&own, 6081, on_peer, told, &u), 0);
	assert_int_equal(underlay_set_peers(u, peers, 4), 0);
	assert_true(comes_to(u, told, 1, UNDERLAY_REACHABLE, 1));
	assert_true(comes_to(u, told, 2, UNDERLAY_REACHABLE, 2));
	assert_memory_equal(told->last[2].way[0].destination, "\2\0\0\0\0\x20", 6);
	assert_true(comes_to(u, told, 3, UNDERLAY_NO_ROUTE, 0));
	assert_string_equal(told->last[3].reason, "the route is a blackhole");
	assert_true(comes_to(u, told, 4, UNDERLAY_NO_ROUTE, 0));
	run("ip link set hdu0 down");
	assert_true(comes_to(u, told, 2, UNDERLAY_REACHABLE, 1));
	underlay_close(u);
	assert_int_equal(underlay_clear(), 0);
	tear_down();
	free(told);
}

/* A thousand peers behind one gateway, and a thousand on the link. */
static void test_many(void **state)
{
	struct told *told = calloc(1, sizeof(*told));
	struct underlay_peer *peers = calloc(1000, sizeof(*peers));
	const struct hd_addr own = addr("10.7.0.1");
	struct underlay *u;
	uint64_t began, first, again, neighbour;
	char text[32];

	(void)state;
	set_up();
	run("ip route add 10.50.0.0/16 nexthop via 10.7.0.2 nexthop via 10.7.1.2");
	for (uint32_t i = 0; i < 1000; i++) {
		snprintf(text, sizeof(text), "10.50.%u.%u", i >> 8, i & 0xff);
		peers[i] = (struct underlay_peer){i + 1, addr(text)};
	}
	assert_int_equal(underlay_open(&own, 4789, on_peer, told, &u), 0);
	assert_int_equal(underlay_set_peers(u, peers, 1000), 0);
	began = clock_us();
	assert_int_equal(underlay_look(u), 0);
	first = clock_us() - began;
	assert_true(comes_to(u, told, 1000, UNDERLAY_REACHABLE, 2));
	settle(u);
	told->n = 0;
	run("ip route change 10.50.0.0/16 via 10.7.1.2");
	while (underlay_due_us(u) == 0)
		turn(u, 50);
	began = clock_us();
	assert_int_equal(underlay_look(u), 0);
	again = clock_us() - began;
	assert_int_equal(told->n, 1000);
	settle(u);
	run("ip -n hdu$PPID link set p1 address 02:00:00:00:00:77");
	run("ip neigh replace 10.7.1.2 dev hdu1 lladdr 02:00:00:00:00:77 nud permanent");
	told->n = 0;
	began = clock_us();
	assert_int_equal(underlay_dispatch(u), 0);
	neighbour = clock_us() - began;
	assert_int_equal(told->n, 1000);
	printf("# 1000 peers: first look %llu us, after a change of routes %llu us, after a change of a neighbour %llu us\n",
		(unsigned long long)first, (unsigned long long)again, (unsigned long long)neighbour);
	/* This is a shared machine; it is a few ms. */
	assert_true(first < 100000 && again < 100000 && neighbour < 50000);
	underlay_close(u);
	assert_int_equal(underlay_clear(), 0);
	tear_down();
	free(peers);
	free(told);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_route), cmocka_unit_test(test_multipath),
		cmocka_unit_test(test_other_messages), cmocka_unit_test(test_ways), cmocka_unit_test(test_ways6),
		cmocka_unit_test(test_many)};

	if (unshare(CLONE_NEWNET) < 0) {
		printf("# skipped: needs root: %s\n", strerror(errno));
		return 0;
	}
	log_set_level(LOG_ERR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
