/* SPDX-License-Identifier: Apache-2.0 */
/* Rows of networks and ports in the kernel's maps: what a change writes, and what an attempt that was cut short leaves to the next. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <net/if.h>

#include <bpf/bpf.h>
#include <cmocka.h>

#include <datapath/internal.h>
#include <tests/unit/datapath_env.h>
#include <tests/unit/policy_env.h>
#include <util/addr.h>

#define HEAD "---\napiVersion: heddle.dev/v1alpha1\nkind: "
#define NETWORK(name, spec) HEAD "Network\nmetadata: {name: " name "}\nspec: {" spec "}\n"
#define PORT(name, spec) HEAD "Port\nmetadata: {name: " name "}\nspec: {" spec "}\n"
#define PORTS 6

static const struct host no_host;
static const struct hd_port_policy open_policy = {.generation = 1,
	.version = {1, 1},
	.root = {HD_LEAF(HD_RULE_DEFAULT_INGRESS, HD_ALLOW, 0), HD_LEAF(HD_RULE_DEFAULT_EGRESS, HD_ALLOW, 0)}};
static struct env *env;

struct world {
	struct datapath *dp;
	struct object_list list;
	struct networks *networks;
	struct topology *topology;
	struct topology_device devices[PORTS];
	char names[PORTS][IF_NAMESIZE];
};

static struct datapath *open_datapath(void)
{
	struct datapath_config config = {.bpffs = env->bpffs};
	struct datapath *dp = NULL;
	bool found;

	assert_int_equal(datapath_open(&config, &dp, &found), 0);
	return dp;
}

static void load(struct world *w, uint32_t generation)
{
	static struct flat_policy policy;

	flat_policy(&policy, generation, HD_ALLOW);
	policy.delta.n_uplinks = 0;
	assert_int_equal(datapath_load(w->dp, &env_sizes, &env_settings, 0), 0);
	assert_int_equal(datapath_write(w->dp, &policy.delta), 0);
	assert_int_equal(datapath_publish(w->dp, &policy.delta, NULL), 0);
}

static void set_up(struct world *w)
{
	memset(w, 0, sizeof(*w));
	w->dp = open_datapath();
	load(w, 1);
	assert_int_equal(networks_new(&w->networks), 0);
	for (unsigned i = 0; i < PORTS; i++) {
		snprintf(w->names[i], IF_NAMESIZE, "dpp%u", i);
		assert_int_equal(env_run("ip link add dpp%u type veth peer name dpq%u && ip link set dpp%u up", i, i, i), 0);
		w->devices[i] = (struct topology_device){.name = w->names[i],
			.ifindex = if_nametoindex(w->names[i]),
			.mtu = 1500,
			.up = true,
			.ethernet = true,
			.has_peer_mac = true,
			.peer_mac = {2, 0, 0, 0, 0, (uint8_t)(i + 1)}};
	}
}

static void tear_down(struct world *w)
{
	struct datapath_config config = {.bpffs = env->bpffs};

	datapath_close(w->dp);
	assert_int_equal(datapath_detach(&config), 0);
	for (unsigned i = 0; i < PORTS; i++)
		(void)env_run("ip link del dpp%u 2>/dev/null", i);
	topology_free(w->topology);
	networks_free(w->networks);
	object_list_clear(&w->list);
}

static void plan(struct world *w, const char *text)
{
	struct topology_input input = {
		.objects = &w->list, .host = &no_host, .networks = w->networks, .devices = w->devices, .n_devices = PORTS};
	struct diag diag = {0};

	topology_free(w->topology);
	w->topology = NULL;
	object_list_clear(&w->list);
	policy_documents(&w->list, text);
	assert_int_equal(networks_assign(w->networks, &w->list, &diag), 0);
	assert_int_equal(topology_build(&input, &w->topology, &diag), 0);
	networks_commit(w->networks);
}

static void install(struct world *w)
{
	struct hd_port_policy policies[PORTS];

	for (unsigned i = 0; i < PORTS; i++)
		policies[i] = open_policy;
	assert_int_equal(datapath_ports(w->dp, w->topology, policies), 0);
}

static void apply(struct world *w, const char *text)
{
	plan(w, text);
	assert_int_equal(datapath_remove(w->dp, w->topology), 0);
	install(w);
}

static int map_fd(struct world *w, unsigned map)
{
	return load_map(load_writable(w->dp), map);
}

/* 0: nobody. */
static uint32_t owner(struct world *w, const char *network, const char *address)
{
	struct hd_endpoint_key key = {.network = networks_index(w->networks, network)};
	struct hd_endpoint value;

	assert_int_equal(addr_parse(address, &key.addr), 0);
	return bpf_map_lookup_elem(map_fd(w, MAP_ENDPOINTS), &key, &value) == 0 ? value.ifindex : 0;
}

static struct hd_port record(struct world *w, unsigned device)
{
	struct hd_port port = {0};

	(void)port_read(load_writable(w->dp), w->devices[device].ifindex, &port);
	return port;
}

/* As packets walk it: the ports by their number of device, in a text. */
static const char *members(struct world *w, const char *network)
{
	static char text[PORTS * 2 + 1];
	uint16_t index = networks_index(w->networks, network);
	uint32_t n = load_writable(w->dp)->networks[index].members;

	assert_true(n <= PORTS);
	text[0] = '\0';
	for (uint32_t i = 0; i < n; i++) {
		struct hd_member_key key = {.network = index, .index = (uint16_t)i};
		struct hd_member member = {0};
		char name[IF_NAMESIZE];

		assert_int_equal(bpf_map_lookup_elem(map_fd(w, MAP_MEMBERS), &key, &member), 0);
		assert_non_null(if_indextoname(member.ifindex, name));
		strncat(text, name + 3, 1);
	}
	return text;
}

static unsigned count(struct world *w, unsigned map)
{
	uint8_t key[32], *at = NULL;
	unsigned n = 0;

	while (bpf_map_get_next_key(map_fd(w, map), at, key) == 0) {
		at = key;
		n++;
	}
	return n;
}

static unsigned attached(struct world *w)
{
	const struct datapath_attachment *list;
	size_t n = datapath_attachments(w->dp, &list);

	for (size_t i = 0; i < n; i++) {
		assert_true(list[i].port);
		assert_int_not_equal(list[i].program_id[HD_HOOK_TC_PORT_IN], 0);
		assert_int_not_equal(list[i].program_id[HD_HOOK_TC_PORT_OUT], 0);
	}
	return (unsigned)n;
}

#define BLUE NETWORK("blue", "subnets: [10.0.0.0/24], gateway: [10.0.0.254]")
#define P(n) PORT("p" #n, "device: dpp" #n ", network: blue, addresses: [10.0.0.1" #n "]")

static void test_a_difference(void **state)
{
	struct world w;
	uint32_t moved;

	(void)state;
	set_up(&w);
	apply(&w, BLUE P(0) P(1) P(2) P(3));
	assert_int_equal(datapath_go_live(w.dp), 0);
	assert_int_equal(attached(&w), 4);
	assert_string_equal(members(&w, "blue"), "0123");
	assert_int_equal(owner(&w, "blue", "10.0.0.12"), w.devices[2].ifindex);
	assert_int_equal(record(&w, 2).network, 1);
	assert_int_equal(hd_port_policy_at(&(struct hd_port){.policy = {record(&w, 2).policy[0]}}, 1), 0);
	/* four addresses, four MACs, a gateway */
	assert_int_equal(count(&w, MAP_ENDPOINTS), 9);

	/* Two go: the last one takes the first hole, and nobody else moves. */
	moved = record(&w, 2).moved;
	apply(&w, BLUE P(2) P(3));
	assert_string_equal(members(&w, "blue"), "32");
	assert_int_equal(count(&w, MAP_MEMBERS), 2);
	assert_int_equal(count(&w, MAP_ENDPOINTS), 5);
	assert_int_equal(attached(&w), 2);
	assert_int_equal(record(&w, 0).ifindex, 0);
	assert_int_equal(owner(&w, "blue", "10.0.0.10"), 0);
	assert_int_equal(record(&w, 2).moved, moved); /* nothing of it changed */

	/* An address goes over to another port: both are told to look again, in a tick of its own. */
	nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
	apply(&w, BLUE P(2) PORT("p3", "device: dpp3, network: blue")
			  PORT("p4", "device: dpp4, network: blue, addresses: [10.0.0.13]"));
	assert_int_equal(owner(&w, "blue", "10.0.0.13"), w.devices[4].ifindex);
	assert_string_equal(members(&w, "blue"), "324");
	assert_int_not_equal(record(&w, 3).moved, moved);
	assert_int_not_equal(record(&w, 4).moved, 0);

	/* The network and all in it go. */
	apply(&w, NETWORK("red", ""));
	assert_int_equal(count(&w, MAP_ENDPOINTS), 0);
	assert_int_equal(count(&w, MAP_MEMBERS), 0);
	assert_int_equal(count(&w, MAP_ROUTES), 0);
	assert_int_equal(attached(&w), 0);
	assert_int_equal(load_writable(w.dp)->networks[1].flags, 0);
	assert_string_equal(load_writable(w.dp)->networks[2].name, "red");
	tear_down(&w);
}

/* Between datapath_remove() and datapath_ports() an agent may die, or fail. */
static void test_half_way(void **state)
{
	struct world w;

	(void)state;
	set_up(&w);
	apply(&w, BLUE P(0) P(1) P(2));
	assert_int_equal(datapath_go_live(w.dp), 0);
	plan(&w, BLUE P(1) PORT("p5", "device: dpp5, network: blue, addresses: [10.0.0.10]"));
	assert_int_equal(datapath_remove(w.dp, w.topology), 0);
	/* What goes or gets another owner is nobody's, and its port is still closed by its programs. */
	assert_int_equal(owner(&w, "blue", "10.0.0.10"), 0);
	assert_int_equal(owner(&w, "blue", "10.0.0.12"), 0);
	assert_int_equal(owner(&w, "blue", "10.0.0.11"), w.devices[1].ifindex);
	assert_string_equal(members(&w, "blue"), "1");
	assert_int_equal(attached(&w), 3);
	/* Back to what was. */
	apply(&w, BLUE P(0) P(1) P(2));
	assert_int_equal(owner(&w, "blue", "10.0.0.10"), w.devices[0].ifindex);
	assert_string_equal(members(&w, "blue"), "102");
	tear_down(&w);
}

static void test_a_port_without_policy_is_closed(void **state)
{
	struct hd_port_policy policies[PORTS] = {0};
	struct hd_port port;
	struct world w;

	(void)state;
	set_up(&w);
	plan(&w, BLUE P(0));
	assert_int_equal(datapath_ports(w.dp, w.topology, policies), 0);
	assert_int_equal(attached(&w), 1);
	port = record(&w, 0);
	assert_int_equal(port.ifindex, w.devices[0].ifindex);
	assert_int_equal(hd_port_policy_at(&port, 1), -1);
	install(&w);
	port = record(&w, 0);
	assert_int_not_equal(hd_port_policy_at(&port, 1), -1);
	tear_down(&w);
}

/* Whoever cannot be known to the programs gets none; the others do. */
static void test_a_port_without_room_stops_nobody(void **state)
{
	struct hd_port_policy policies[PORTS];
	struct hd_port taken = {0};
	struct world w;
	uint32_t slot;
	int ports, hash;

	(void)state;
	set_up(&w);
	for (unsigned i = 0; i < PORTS; i++)
		policies[i] = open_policy;
	ports = map_fd(&w, MAP_PORTS);
	hash = map_fd(&w, MAP_PORTS_HASH);
	slot = w.devices[1].ifindex & (HD_PORT_SLOTS - 1);
	taken.ifindex = slot + 100 * HD_PORT_SLOTS;
	assert_int_equal(bpf_map_update_elem(ports, &slot, &taken, BPF_ANY), 0);
	for (uint32_t i = 1000000; bpf_map_update_elem(hash, &i, &taken, BPF_NOEXIST) == 0; i++)
		;
	plan(&w, BLUE P(0) P(1) P(2));
	assert_int_equal(datapath_remove(w.dp, w.topology), 0);
	assert_int_equal(datapath_ports(w.dp, w.topology, policies), -E2BIG);
	assert_int_equal(attached(&w), 2);
	assert_int_equal(port_read(load_writable(w.dp), w.devices[1].ifindex, &taken), -ENOENT);
	assert_int_equal(record(&w, 2).ifindex, w.devices[2].ifindex);
	assert_int_equal(owner(&w, "blue", "10.0.0.12"), w.devices[2].ifindex);
	assert_int_equal(env_count("tc filter show dev dpp1 ingress | grep -c heddle || true"), 0);
	assert_null(datapath_port_refused(w.dp, w.devices[0].ifindex));
	assert_string_equal(datapath_port_refused(w.dp, w.devices[1].ifindex),
		"there is no room for its record: the table ports_hash is full");
	/* Once there is room, it is a port like the others. */
	assert_int_equal(bpf_map_delete_elem(hash, &(uint32_t){1000000}), 0);
	install(&w);
	assert_int_equal(attached(&w), 3);
	assert_int_equal(record(&w, 1).ifindex, w.devices[1].ifindex);
	assert_null(datapath_port_refused(w.dp, w.devices[1].ifindex));
	tear_down(&w);
}

struct adopted {
	unsigned networks, routes;
	struct networks *into;
};

static int adopt_network(uint16_t index, const struct hd_network *network, void *userdata)
{
	struct adopted *adopted = userdata;

	adopted->networks++;
	return networks_adopt(adopted->into, index, network);
}

static int adopt_route(const struct hd_route_key *key, const struct hd_route *route, void *userdata)
{
	struct adopted *adopted = userdata;

	adopted->routes++;
	return networks_adopt_route(adopted->into, key, route);
}

static void test_the_next_agent(void **state)
{
	static const char text[] = NETWORK("a", "subnets: [10.1.0.0/24], routesTo: [b]") NETWORK("b", "subnets: [10.2.0.0/24]")
		PORT("p0", "device: dpp0, network: b");
	struct adopted adopted = {0};
	uint16_t zone;
	struct world w;

	(void)state;
	set_up(&w);
	apply(&w, NETWORK("gone", ""));
	apply(&w, text);
	assert_int_equal(datapath_go_live(w.dp), 0);
	zone = networks_zone(w.networks, 2, 3);
	datapath_close(w.dp);
	w.dp = open_datapath();
	assert_int_equal(attached(&w), 1); /* and known for a port */
	assert_int_equal(networks_new(&adopted.into), 0);
	assert_int_equal(datapath_networks(w.dp, adopt_network, adopt_route, &adopted), 0);
	assert_int_equal(adopted.networks, 3); /* with entry 0 */
	assert_int_equal(adopted.routes, 4);
	networks_free(w.networks);
	w.networks = adopted.into;
	load(&w, 2);
	plan(&w, text);
	assert_int_equal(networks_index(w.networks, "b"), 3);
	assert_int_equal(networks_zone(w.networks, 2, 3), zone);
	install(&w);
	assert_int_equal(datapath_go_live(w.dp), 0);
	assert_int_equal(attached(&w), 1);
	/* One without its port. */
	apply(&w, NETWORK("b", ""));
	assert_int_equal(attached(&w), 0);
	tear_down(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_difference),
		cmocka_unit_test(test_half_way),
		cmocka_unit_test(test_a_port_without_policy_is_closed),
		cmocka_unit_test(test_a_port_without_room_stops_nobody),
		cmocka_unit_test(test_the_next_agent),
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
