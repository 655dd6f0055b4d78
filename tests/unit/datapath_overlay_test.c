/* SPDX-License-Identifier: Apache-2.0 */
/* The overlay's tables in the kernel: rows, the ways to peers, and what a load takes over from the one before. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <bpf/bpf.h>
#include <cmocka.h>

#include <datapath/internal.h>
#include <tests/unit/datapath_env.h>
#include <tests/unit/policy_env.h>
#include <util/addr.h>
#include <util/clock.h>

#define DOC(kind, name, spec) \
	"---\napiVersion: heddle.dev/v1alpha1\nkind: " kind "\nmetadata: {name: " name "}\nspec: {" spec "}\n"
#define HOST(tunnel) DOC("Host", "here", "uplinks: [{device: " ENV_DEVICE "}]" tunnel)
#define TUNNEL HOST(", tunnel: {protocol: vxlan, address: 192.0.2.1}")
#define BLUE DOC("Network", "blue", "vni: 70, subnets: [10.77.0.0/16]")
#define RED DOC("Network", "red", "vni: 71, subnets: [10.78.0.0/16]")
#define PEER(name, spec) DOC("Peer", name, spec)
#define W(name, address) "{name: " name ", network: blue, addresses: [" address "]}"

static struct env *env;

struct world {
	struct datapath *dp;
	struct object_list list;
	struct networks *networks;
	struct topology *topology;
	uint32_t generation;
};

static void open_datapath(struct world *w)
{
	struct datapath_config config = {.bpffs = env->bpffs};
	bool found;

	assert_int_equal(datapath_open(&config, &w->dp, &found), 0);
}

static void load_sized(struct world *w, const struct datapath_sizes *sizes)
{
	static struct flat_policy policy;

	flat_policy(&policy, ++w->generation, HD_ALLOW);
	policy.delta.n_uplinks = 0;
	assert_int_equal(datapath_load(w->dp, sizes, &env_settings, 0), 0);
	assert_int_equal(datapath_write(w->dp, &policy.delta), 0);
	assert_int_equal(datapath_publish(w->dp, &policy.delta, NULL), 0);
}

static void load(struct world *w)
{
	load_sized(w, &env_sizes);
}

static void set_up(struct world *w)
{
	memset(w, 0, sizeof(*w));
	open_datapath(w);
	load(w);
	assert_int_equal(networks_new(&w->networks), 0);
}

static void tear_down(struct world *w)
{
	struct datapath_config config = {.bpffs = env->bpffs};

	datapath_close(w->dp);
	assert_int_equal(datapath_detach(&config), 0);
	topology_free(w->topology);
	networks_free(w->networks);
	object_list_clear(&w->list);
}

static void take(struct world *w)
{
	struct topology_input input = {.objects = &w->list, .host = policy_env_host(&w->list), .networks = w->networks};
	struct diag diag = {0};

	topology_free(w->topology);
	w->topology = NULL;
	assert_int_equal(networks_assign(w->networks, &w->list, &diag), 0);
	assert_int_equal(topology_build(&input, &w->topology, &diag), 0);
	networks_commit(w->networks);
}

static void plan(struct world *w, const char *text)
{
	object_list_clear(&w->list);
	policy_documents(&w->list, text);
	take(w);
}

static void apply(struct world *w, const char *text)
{
	plan(w, text);
	assert_int_equal(datapath_remove(w->dp, w->topology), 0);
	assert_int_equal(datapath_ports(w->dp, w->topology, NULL), 0);
}

static int map_fd(const struct world *w, unsigned map)
{
	return load_map(load_writable(w->dp), map);
}

static struct hd_addr addr(const char *text)
{
	struct hd_addr parsed;

	assert_int_equal(addr_parse(text, &parsed), 0);
	return parsed;
}

/* 0: nobody. */
static uint32_t owner(const struct world *w, const char *address)
{
	struct hd_endpoint_key key = {.network = 1, .addr = addr(address)};
	struct hd_endpoint value;

	return bpf_map_lookup_elem(map_fd(w, MAP_ENDPOINTS), &key, &value) == 0 ? value.peer : 0;
}

static uint32_t sender(const struct world *w, const char *address)
{
	struct hd_addr key = addr(address);
	uint32_t peer;

	return bpf_map_lookup_elem(map_fd(w, MAP_PEER_ADDRESSES), &key, &peer) == 0 ? peer : 0;
}

static const struct hd_peer *record(const struct world *w, uint32_t peer)
{
	return &load_writable(w->dp)->peers[peer];
}

static unsigned count(const struct world *w, unsigned map)
{
	uint8_t key[32], *at = NULL;
	unsigned n = 0;

	while (bpf_map_get_next_key(map_fd(w, map), at, key) == 0) {
		at = key;
		n++;
	}
	return n;
}

static const char *members(const struct world *w)
{
	static char text[64];
	uint32_t n = load_writable(w->dp)->networks[1].peers;

	text[0] = '\0';
	for (uint32_t i = 0; i < n; i++) {
		struct hd_member_key key = {.network = 1, .index = (uint16_t)i};
		uint32_t peer = 0;

		assert_int_equal(bpf_map_lookup_elem(map_fd(w, MAP_PEER_MEMBERS), &key, &peer), 0);
		snprintf(text + strlen(text), sizeof(text) - strlen(text), "%u ", peer);
	}
	assert_int_equal(count(w, MAP_PEER_MEMBERS), n);
	return text;
}

#define A(address, ports) PEER("a", "address: " address ", ports: [" ports "]")
#define B(address, ports) PEER("b", "address: " address ", ports: [" ports "]")

static void test_rows(void **state)
{
	struct hd_vni_key vni = {.vni = 70};
	struct hd_vni network = {0};
	struct world w;

	(void)state;
	set_up(&w);
	apply(&w, TUNNEL BLUE A("192.0.2.11", W("w1", "10.77.1.1")) B("192.0.2.12", W("w2", "10.77.1.2"))
			  PEER("c", "address: 192.0.2.13, prefixes: [{network: blue, cidr: 10.77.128.0/17}]"));
	assert_int_equal(load_writable(w.dp)->tunnel->protocol, HD_TUNNEL_VXLAN);
	assert_int_equal(load_writable(w.dp)->tunnel->overhead, 50);
	assert_int_equal(bpf_map_lookup_elem(map_fd(&w, MAP_VNIS), &vni, &network), 0);
	assert_int_equal(network.network, 1);
	assert_int_equal(record(&w, 1)->flags, HD_PEER_USED);
	assert_string_equal(record(&w, 1)->name, "a");
	assert_int_equal(sender(&w, "192.0.2.12"), 2);
	assert_int_equal(owner(&w, "10.77.1.1"), 1);
	assert_int_equal(count(&w, MAP_PEER_PREFIXES), 1);
	assert_string_equal(members(&w), "1 2 3 ");

	apply(&w, TUNNEL BLUE B("192.0.2.12", W("w1", "10.77.1.1")));
	assert_int_equal(record(&w, 1)->flags, 0);
	assert_int_equal(record(&w, 1)->name[0], 0);
	assert_int_equal(sender(&w, "192.0.2.11"), 0);
	assert_int_equal(owner(&w, "10.77.1.1"), 2);
	assert_int_equal(owner(&w, "10.77.1.2"), 0);
	assert_int_equal(count(&w, MAP_PEER_PREFIXES), 0);
	assert_string_equal(members(&w), "2 ");

	apply(&w, HOST("") BLUE);
	assert_int_equal(load_writable(w.dp)->tunnel->protocol, HD_TUNNEL_NONE);
	assert_int_equal(count(&w, MAP_PEER_ADDRESSES) + count(&w, MAP_VNIS) + count(&w, MAP_ENDPOINTS), 0);
	assert_int_equal(record(&w, 2)->flags, 0);
	tear_down(&w);
}

/* Who has an address is nobody in between; where a peer is, is known all the time. */
static void test_half_way(void **state)
{
	static const char now[] = TUNNEL BLUE A("192.0.2.11", W("w1", "10.77.1.1")) B("192.0.2.12", W("w2", "10.77.1.2"));
	struct world w;

	(void)state;
	set_up(&w);
	apply(&w, now);
	plan(&w, TUNNEL BLUE A("192.0.2.21", W("w2", "10.77.1.2")) B("192.0.2.12", W("w1", "10.77.1.1")));
	assert_int_equal(datapath_remove(w.dp, w.topology), 0);
	assert_int_equal(owner(&w, "10.77.1.1"), 0);
	assert_int_equal(owner(&w, "10.77.1.2"), 0);
	assert_int_equal(sender(&w, "192.0.2.11"), 1);
	assert_int_equal(datapath_ports(w.dp, w.topology, NULL), 0);
	assert_int_equal(sender(&w, "192.0.2.11"), 0);
	assert_int_equal(sender(&w, "192.0.2.21"), 1);
	assert_int_equal(owner(&w, "10.77.1.1"), 2);
	/* An address that goes over to another peer is that one's only then; and back, from half-way. */
	plan(&w, TUNNEL BLUE A("192.0.2.12", "") B("192.0.2.21", ""));
	assert_int_equal(datapath_remove(w.dp, w.topology), 0);
	assert_int_equal(sender(&w, "192.0.2.12"), 0);
	apply(&w, now);
	assert_int_equal(sender(&w, "192.0.2.11"), 1);
	assert_int_equal(sender(&w, "192.0.2.12"), 2);
	assert_int_equal(sender(&w, "192.0.2.21"), 0);
	assert_int_equal(count(&w, MAP_PEER_ADDRESSES), 2);
	tear_down(&w);
}

/* hd_peer.moved, since the last look. */
static bool moved(struct world *w, uint32_t peer)
{
	struct hd_peer *at = &load_writable(w->dp)->peers[peer];
	bool is = at->moved != 0;

	at->moved = 0;
	return is;
}

static void test_moved(void **state)
{
	struct world w;

	(void)state;
	set_up(&w);
	apply(&w, TUNNEL BLUE A("192.0.2.11", W("w1", "10.77.1.1")) B("192.0.2.12", "") PEER("c", "address: 192.0.2.13"));
	assert_true(moved(&w, 1));
	assert_false(moved(&w, 2));
	/* goes over: both */
	apply(&w, TUNNEL BLUE A("192.0.2.11", "") B("192.0.2.12", W("w1", "10.77.1.1")) PEER("c", "address: 192.0.2.13"));
	assert_true(moved(&w, 1));
	assert_true(moved(&w, 2));
	assert_false(moved(&w, 3));
	/* a prefix, and then what is in it: the one that had the wider one is told */
	apply(&w, TUNNEL BLUE A("192.0.2.11", "") B("192.0.2.12", W("w1", "10.77.1.1"))
			  PEER("c", "address: 192.0.2.13, prefixes: [{network: blue, cidr: 10.77.64.0/18}]"));
	assert_true(moved(&w, 3));
	assert_false(moved(&w, 2));
	apply(&w, TUNNEL BLUE A("192.0.2.11", "") B("192.0.2.12", W("w1", "10.77.1.1") ", " W("w2", "10.77.65.1"))
			  PEER("c", "address: 192.0.2.13, prefixes: [{network: blue, cidr: 10.77.64.0/18}]"));
	assert_true(moved(&w, 2));
	assert_true(moved(&w, 3));
	assert_false(moved(&w, 1));
	apply(&w, TUNNEL BLUE PEER("a", "address: 192.0.2.11, prefixes: [{network: blue, cidr: 10.77.66.0/24}]")
			  B("192.0.2.12", W("w1", "10.77.1.1") ", " W("w2", "10.77.65.1"))
				  PEER("c", "address: 192.0.2.13, prefixes: [{network: blue, cidr: 10.77.64.0/18}]"));
	assert_true(moved(&w, 1));
	assert_true(moved(&w, 3));
	assert_false(moved(&w, 2));
	tear_down(&w);
}

/* --- ways --- */

static const struct hd_way east = {.ifindex = 3, .destination = {2, 0, 0, 0, 3, 1}, .source = {2, 0, 0, 0, 3, 2}};
static const struct hd_way west = {.ifindex = 4, .destination = {2, 0, 0, 0, 4, 1}, .source = {2, 0, 0, 0, 4, 2}};

static void test_ways(void **state)
{
	const struct hd_way both[] = {east, west}, many[HD_PEER_WAYS + 1] = {{0}};
	struct world w;
	uint32_t ways;

	(void)state;
	set_up(&w);
	apply(&w, TUNNEL BLUE A("192.0.2.11", ""));
	assert_int_equal(record(&w, 1)->ways, 0);
	assert_int_equal(datapath_peer_ways(w.dp, 1, &east, 1, 1500), 0);
	ways = record(&w, 1)->ways;
	assert_int_equal(HD_PEER_WAYS_COUNT(ways), 1);
	assert_memory_equal(&record(&w, 1)->way[HD_PEER_WAYS_SET(ways)][0], &east, sizeof(east));
	assert_int_equal(record(&w, 1)->mtu, 1500);
	/* The same again touches nothing; other ones go to the other set. */
	assert_int_equal(datapath_peer_ways(w.dp, 1, &east, 1, 1400), 0);
	assert_int_equal(record(&w, 1)->ways, ways);
	assert_int_equal(record(&w, 1)->mtu, 1400);
	assert_int_equal(datapath_peer_mtu(w.dp, 1), 1350);
	assert_int_equal(datapath_peer_ways(w.dp, 1, both, 2, 1400), 0);
	assert_int_equal(HD_PEER_WAYS_SET(record(&w, 1)->ways), !HD_PEER_WAYS_SET(ways));
	assert_memory_equal(&record(&w, 1)->way[HD_PEER_WAYS_SET(ways)][0], &east, sizeof(east));
	assert_int_equal(datapath_peer_ways(w.dp, 1, NULL, 0, 0), 0);
	assert_int_equal(HD_PEER_WAYS_COUNT(record(&w, 1)->ways), 0);
	assert_int_equal(datapath_peer_mtu(w.dp, 1), 0);

	assert_int_equal(datapath_peer_ways(w.dp, 1, many, HD_PEER_WAYS + 1, 0), -EINVAL);
	assert_int_equal(datapath_peer_ways(w.dp, 0, &east, 1, 0), -ENOENT);
	assert_int_equal(datapath_peer_ways(w.dp, 2, &east, 1, 0), -ENOENT);
	assert_int_equal(datapath_peer_ways(w.dp, HD_PEERS_MAX, &east, 1, 0), -ENOENT);

	/* What a router told counts while it is fresh. */
	assert_int_equal(datapath_peer_ways(w.dp, 1, &east, 1, 1500), 0);
	load_writable(w.dp)->peers[1].path_mtu = 1300;
	load_writable(w.dp)->peers[1].path_mtu_seen = tick_now(load_writable(w.dp));
	assert_int_equal(datapath_peer_mtu(w.dp, 1), 1250);
	load_writable(w.dp)->peers[1].path_mtu_seen -= (uint32_t)ticks_of_ms(HD_PATH_MTU_SECONDS * 1000) + 1;
	assert_int_equal(datapath_peer_mtu(w.dp, 1), 1450);

	/* A new address: the ways to the old one are not taken where the agent can send. */
	apply(&w, TUNNEL BLUE A("192.0.2.21", ""));
	assert_int_equal(HD_PEER_WAYS_COUNT(record(&w, 1)->ways), 1);
	assert_int_equal(record(&w, 1)->path_mtu, 0);
	assert_int_equal(datapath_tunnel_device(w.dp, TUNNEL_SLOW, 99), 0);
	assert_int_equal(load_writable(w.dp)->tunnel->slow, 99);
	apply(&w, TUNNEL BLUE A("192.0.2.22", ""));
	assert_int_equal(HD_PEER_WAYS_COUNT(record(&w, 1)->ways), 0);
	assert_int_equal(load_writable(w.dp)->tunnel->slow, 99);
	tear_down(&w);
}

static bool has_way(const struct world *w, uint32_t peer, const struct hd_way *way)
{
	const struct hd_peer *at = record(w, peer);

	return HD_PEER_WAYS_COUNT(at->ways) == 1 && memcmp(&at->way[HD_PEER_WAYS_SET(at->ways)][0], way, sizeof(*way)) == 0;
}

static int adopt_peer(uint32_t index, const struct hd_peer *peer, void *userdata)
{
	return networks_adopt_peer(userdata, index, peer);
}

static int adopt_network(uint16_t index, const struct hd_network *network, void *userdata)
{
	return networks_adopt(userdata, index, network);
}

static int adopt_route(const struct hd_route_key *key, const struct hd_route *route, void *userdata)
{
	return networks_adopt_route(userdata, key, route);
}

static void test_a_load_takes_ways_over(void **state)
{
	static const char text[] =
		TUNNEL BLUE A("192.0.2.11", W("w1", "10.77.1.1")) B("192.0.2.12", "") PEER("c", "address: 192.0.2.13");
	struct datapath_sizes larger = env_sizes;
	struct world w;

	(void)state;
	set_up(&w);
	apply(&w, TUNNEL BLUE PEER("gone", "address: 192.0.2.9"));
	apply(&w, text);
	assert_int_equal(datapath_tunnel_device(w.dp, TUNNEL_SLOW, 99), 0);
	assert_int_equal(datapath_go_live(w.dp), 0);
	for (uint32_t peer = 2; peer <= 4; peer++)
		assert_int_equal(datapath_peer_ways(w.dp, peer, &east, 1, 1500), 0);
	load_writable(w.dp)->peers[2].path_mtu = 1300;

	/* A table grows. Meanwhile one peer goes elsewhere, and one is gone. */
	larger.peers = 64;
	load_sized(&w, &larger);
	apply(&w, TUNNEL BLUE A("192.0.2.11", W("w1", "10.77.1.1")) B("192.0.2.22", ""));
	assert_true(has_way(&w, 2, &east));
	assert_int_equal(record(&w, 2)->mtu, 1500);
	assert_int_equal(record(&w, 2)->path_mtu, 1300);
	assert_true(moved(&w, 2));
	assert_int_equal(HD_PEER_WAYS_COUNT(record(&w, 3)->ways), 0);
	assert_int_equal(record(&w, 4)->flags, 0);
	assert_int_equal(load_writable(w.dp)->tunnel->slow, 99);
	assert_int_equal(datapath_go_live(w.dp), 0);
	assert_int_equal(datapath_peer_ways(w.dp, 2, &west, 1, 1500), 0);
	assert_true(has_way(&w, 2, &west));

	/* The next agent. */
	datapath_close(w.dp);
	networks_free(w.networks);
	open_datapath(&w);
	assert_int_equal(networks_new(&w.networks), 0);
	assert_int_equal(datapath_networks(w.dp, adopt_network, adopt_route, w.networks), 0);
	assert_int_equal(datapath_peers(w.dp, adopt_peer, w.networks), 0);
	load_sized(&w, &larger);
	plan(&w, text);
	assert_int_equal(networks_peer(w.networks, "a"), 2);
	assert_int_equal(networks_peer(w.networks, "b"), 3);
	assert_int_equal(networks_peer(w.networks, "c"), 5);
	/* Ahead of the uplinks, so that they find it all when they switch over. */
	assert_int_equal(datapath_prepare(w.dp, w.topology, NULL), 0);
	assert_true(has_way(&w, 2, &west));
	assert_int_equal(owner(&w, "10.77.1.1"), 2);
	assert_int_equal(datapath_ports(w.dp, w.topology, NULL), 0);
	assert_true(has_way(&w, 2, &west));
	assert_int_equal(datapath_go_live(w.dp), 0);
	tear_down(&w);
}

/* --- programs --- */

static bool pinned(const char *name)
{
	return env_run("test -e %s/heddle/progs/%s", env->bpffs, name) == 0;
}

static uint32_t called(const struct world *w, uint32_t entry)
{
	uint32_t id = 0;

	return bpf_map_lookup_elem(map_fd(w, MAP_WIRE_PROGRAMS), &entry, &id) == 0 ? id : 0;
}

static void test_the_program_of_the_tunnel(void **state)
{
	const struct datapath_program *programs;
	struct world w;
	uint32_t id;

	(void)state;
	set_up(&w);
	apply(&w, HOST("") BLUE);
	assert_int_equal(datapath_go_live(w.dp), 0);
	assert_false(pinned("tc_tunnel_in"));
	assert_int_equal(called(&w, 1), 0);
	/* A tunnel comes: no new load is needed. */
	apply(&w, TUNNEL BLUE);
	assert_int_not_equal(called(&w, 1), 0);
	assert_int_equal(called(&w, 0), 0);
	assert_int_equal(datapath_programs(w.dp, &programs), HD_HOOKS);
	assert_int_equal(programs[HD_HOOK_TC_TUNNEL_IN].id, called(&w, 1));
	load(&w);
	plan(&w, TUNNEL BLUE);
	assert_int_equal(datapath_prepare(w.dp, w.topology, NULL), 0);
	assert_int_not_equal(called(&w, 1), 0);
	assert_int_equal(datapath_ports(w.dp, w.topology, NULL), 0);
	assert_int_equal(datapath_go_live(w.dp), 0);
	assert_true(pinned("tc_tunnel_in"));
	id = called(&w, 1);
	datapath_close(w.dp);
	open_datapath(&w);
	assert_int_equal(datapath_programs(w.dp, &programs), HD_HOOK_TC_TUNNEL_IN + 1); /* the one behind it is nowhere */
	assert_int_equal(programs[HD_HOOK_TC_TUNNEL_IN].id, id);
	/* Without one, the pin would keep its maps. */
	load(&w);
	apply(&w, HOST("") BLUE);
	assert_int_equal(datapath_go_live(w.dp), 0);
	assert_false(pinned("tc_tunnel_in"));
	assert_true(pinned("tc_uplink_in"));
	tear_down(&w);
	assert_false(pinned("tc_uplink_in"));
}

static const struct datapath_attachment *attach_as(struct world *w, const struct flat_policy *policy, bool tunnel,
	enum tunnel_decapsulation decapsulate, enum xdp_mode xdp, const char *driver)
{
	struct datapath_uplink uplink = {.device = ENV_DEVICE,
		.ifindex = env->ifindex,
		.xdp = xdp,
		.driver = driver,
		.ethernet = true,
		.tunnel = tunnel,
		.decapsulate = decapsulate};
	const struct datapath_attachment *list;

	assert_int_equal(datapath_attach(w->dp, &uplink, 1, policy->uplink, 2), 0);
	assert_int_equal(datapath_attachments(w->dp, &list), 1);
	return list;
}

static const struct datapath_attachment *attach(
	struct world *w, const struct flat_policy *policy, bool tunnel, bool in_xdp, enum xdp_mode xdp)
{
	return attach_as(w, policy, tunnel, in_xdp ? TUNNEL_DECAPSULATE_XDP : TUNNEL_DECAPSULATE_AUTO, xdp, "veth");
}

static void test_xdp_on_a_veth(void **state)
{
	static struct flat_policy policy;
	const struct datapath_attachment *at;
	struct hd_port port;
	struct world w;

	(void)state;
	assert_int_equal(env_make_link(env), 0);
	set_up(&w);
	flat_policy(&policy, w.generation, HD_ALLOW);
	at = attach(&w, &policy, false, false, XDP_MODE_AUTO);
	assert_string_equal(at->xdp_mode, "native");
	apply(&w, TUNNEL BLUE);
	at = attach(&w, &policy, true, false, XDP_MODE_AUTO);
	assert_string_equal(at->xdp_mode, "off");
	assert_non_null(strstr(at->xdp_reason, "the tunnel is decapsulated in TC"));
	assert_int_not_equal(at->program_id[HD_HOOK_TC_TUNNEL_IN], 0);
	assert_int_equal(port_read(load_writable(w.dp), env->ifindex, &port), 0);
	assert_int_equal(port.flags, HD_PORT_UPLINK | HD_PORT_TUNNEL);
	/* What the document asks for, it gets. */
	assert_string_equal(attach(&w, &policy, true, false, XDP_MODE_NATIVE)->xdp_mode, "native");
	assert_string_equal(attach(&w, &policy, true, false, XDP_MODE_OFF)->xdp_mode, "off");
	assert_string_equal(attach(&w, &policy, true, true, XDP_MODE_AUTO)->xdp_mode, "native");
	tear_down(&w);
}

static uint16_t flags_of(struct world *w)
{
	struct hd_port port;

	assert_int_equal(port_read(load_writable(w->dp), env->ifindex, &port), 0);
	return port.flags;
}

/* Which program takes frames out, and what is said of it. */
static void test_decapsulation(void **state)
{
	static const struct {
		enum tunnel_decapsulation decapsulate;
		enum xdp_mode xdp;
		const char *driver, *expected, *reason;
	} cases[] = {
		{TUNNEL_DECAPSULATE_AUTO, XDP_MODE_AUTO, "veth", "tc", "XDP is off"},
		{TUNNEL_DECAPSULATE_AUTO, XDP_MODE_NATIVE, "veth", "tc", "on a veth"},
		{TUNNEL_DECAPSULATE_AUTO, XDP_MODE_AUTO, "other", "xdp", "XDP is native"},
		{TUNNEL_DECAPSULATE_TC, XDP_MODE_AUTO, "other", "tc", "the Host document"},
		{TUNNEL_DECAPSULATE_XDP, XDP_MODE_AUTO, "veth", "xdp", "the Host document"},
		{TUNNEL_DECAPSULATE_XDP, XDP_MODE_GENERIC, "other", "tc", "takes native XDP: it is generic"},
		{TUNNEL_DECAPSULATE_AUTO, XDP_MODE_GENERIC, "other", "tc", "XDP is generic"},
		{TUNNEL_DECAPSULATE_XDP, XDP_MODE_NATIVE, "veth", "xdp", "the Host document"},
		{TUNNEL_DECAPSULATE_XDP, XDP_MODE_OFF, "other", "tc", "it is off, off by the Host document"},
	};
	static struct flat_policy policy;
	const struct datapath_attachment *at;
	struct world w;
	uint16_t flags;

	(void)state;
	assert_int_equal(env_make_link(env), 0);
	set_up(&w);
	flat_policy(&policy, w.generation, HD_ALLOW);
	/* Before the tunnel's program is there nobody goes on with what XDP would take out. */
	at = attach_as(&w, &policy, true, TUNNEL_DECAPSULATE_XDP, XDP_MODE_NATIVE, "veth");
	assert_string_equal(at->decapsulation, "tc");
	assert_non_null(strstr(at->decap_reason, "not loaded"));
	plan(&w, TUNNEL BLUE);
	assert_int_equal(datapath_prepare(w.dp, w.topology, NULL), 0);
	at = attach_as(&w, &policy, true, TUNNEL_DECAPSULATE_XDP, XDP_MODE_NATIVE, "veth");
	assert_string_equal(at->decapsulation, "xdp");
	assert_int_equal(flags_of(&w), HD_PORT_UPLINK | HD_PORT_TUNNEL | HD_PORT_XDP | HD_PORT_DECAP);
	apply(&w, TUNNEL BLUE);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		bool in_xdp = strcmp(cases[i].expected, "xdp") == 0;

		at = attach_as(&w, &policy, true, cases[i].decapsulate, cases[i].xdp, cases[i].driver);
		assert_string_equal(at->decapsulation, cases[i].expected);
		if (!strstr(at->decap_reason, cases[i].reason))
			fail_msg("case %zu: %s", i, at->decap_reason);
		flags = flags_of(&w);
		assert_int_equal(flags & HD_PORT_DECAP, in_xdp ? HD_PORT_DECAP : 0);
		assert_true(!in_xdp || flags & HD_PORT_XDP);
	}
	/* Over other tables, under the same programs' eyes; then away with the tunnel. */
	(void)attach_as(&w, &policy, true, TUNNEL_DECAPSULATE_XDP, XDP_MODE_NATIVE, "veth");
	assert_int_equal(datapath_go_live(w.dp), 0);
	load(&w);
	flat_policy(&policy, w.generation, HD_ALLOW);
	assert_int_equal(datapath_prepare(w.dp, w.topology, NULL), 0);
	at = attach_as(&w, &policy, true, TUNNEL_DECAPSULATE_XDP, XDP_MODE_NATIVE, "veth");
	assert_string_equal(at->decapsulation, "xdp");
	assert_int_equal(flags_of(&w) & HD_PORT_DECAP, HD_PORT_DECAP);
	assert_int_equal(datapath_go_live(w.dp), 0);
	at = attach_as(&w, &policy, false, TUNNEL_DECAPSULATE_AUTO, XDP_MODE_AUTO, "veth");
	assert_null(at->decapsulation);
	assert_string_equal(at->decap_reason, "");
	assert_int_equal(flags_of(&w), HD_PORT_UPLINK | HD_PORT_XDP);
	tear_down(&w);
}

/* --- size --- */

static char *many(unsigned peers, unsigned ports)
{
	char *text = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&text, &size);

	assert_non_null(out);
	fputs(TUNNEL BLUE, out);
	for (unsigned i = 0; i < peers; i++) {
		fprintf(out,
			"---\napiVersion: heddle.dev/v1alpha1\nkind: Peer\nmetadata: {name: p%u}\nspec:\n  address: "
			"192.0.%u.%u\n  ports:\n",
			i, 10 + i / 250, i % 250 + 1);
		for (unsigned j = 0; j < ports; j++)
			fprintf(out, "  - {name: w-%u-%u, network: blue, addresses: [10.%u.%u.%u]}\n", i, j, j, i / 250,
				i % 250 + 1);
	}
	fclose(out);
	return text;
}

/* A table without room is an error, and what it holds is found out by the next attempt. */
static void test_no_room(void **state)
{
	struct datapath_sizes sizes = env_sizes;
	char *text = many(4, 100);
	struct world w;

	(void)state;
	set_up(&w);
	sizes.endpoints = 256;
	load_sized(&w, &sizes);
	plan(&w, text);
	assert_int_equal(datapath_remove(w.dp, w.topology), 0);
	assert_int_equal(datapath_ports(w.dp, w.topology, NULL), -ENOSPC);
	assert_int_equal(datapath_ports(w.dp, w.topology, NULL), -ENOSPC);
	apply(&w, TUNNEL BLUE A("192.0.2.11", W("w1", "10.77.1.1")));
	assert_int_equal(count(&w, MAP_ENDPOINTS), 1);
	assert_int_equal(owner(&w, "10.77.1.1"), networks_peer(w.networks, "a"));
	assert_string_equal(members(&w), "5 ");
	free(text);
	tear_down(&w);
}

static void test_many(void **state)
{
	struct datapath_sizes sizes = env_sizes;
	uint64_t begin, whole, one;
	struct object_list more = {0};
	char *text = many(1000, 100);
	struct world w;

	(void)state;
	set_up(&w);
	sizes.endpoints = 150000;
	sizes.peers = sizes.peer_members = 2048;
	sizes.peer_addresses = 4096;
	load_sized(&w, &sizes);
	plan(&w, text);
	begin = clock_ms();
	assert_int_equal(datapath_remove(w.dp, w.topology), 0);
	assert_int_equal(datapath_ports(w.dp, w.topology, NULL), 0);
	whole = clock_ms() - begin;
	assert_int_equal(count(&w, MAP_ENDPOINTS), 100000);
	assert_int_equal(load_writable(w.dp)->networks[1].peers, 1000);
	policy_documents(&more, A("192.0.2.11", W("w1", "10.200.1.1")));
	assert_int_equal(object_list_add(&w.list, more.items[0]), 0);
	object_list_clear(&more);
	take(&w);
	begin = clock_ms();
	assert_int_equal(datapath_remove(w.dp, w.topology), 0);
	assert_int_equal(datapath_ports(w.dp, w.topology, NULL), 0);
	one = clock_ms() - begin;
	printf("# 1000 peers with 100,000 endpoints: %llu ms to write all, %llu ms for one more\n", (unsigned long long)whole,
		(unsigned long long)one);
	assert_int_equal(owner(&w, "10.200.1.1"), networks_peer(w.networks, "a"));
	assert_int_equal(count(&w, MAP_ENDPOINTS), 100001);
	/* With sanitizers, on a machine that does something else as well. */
	assert_true(whole < 3000);
	assert_true(one < 300);
	free(text);
	tear_down(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rows),
		cmocka_unit_test(test_half_way),
		cmocka_unit_test(test_moved),
		cmocka_unit_test(test_ways),
		cmocka_unit_test(test_a_load_takes_ways_over),
		cmocka_unit_test(test_the_program_of_the_tunnel),
		cmocka_unit_test(test_xdp_on_a_veth),
		cmocka_unit_test(test_decapsulation),
		cmocka_unit_test(test_no_room),
		cmocka_unit_test(test_many),
	};
	int failed;

	log_set_level(LOG_ERR);
	env = env_new();
	if (!env)
		return 0;
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	env_free(env);
	return failed;
}
