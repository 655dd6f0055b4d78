/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers of networks, and the rows that documents and devices come to. */
#include <endian.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <policy/topology.h>
#include <tests/unit/policy_env.h>
#include <util/addr.h>

#define DOC(kind, name, spec) \
	"---\napiVersion: heddle.dev/v1alpha1\nkind: " kind "\nmetadata: {name: " name "}\nspec: {" spec "}\n"
#define NETWORK(name, spec) DOC("Network", name, spec)
#define PORT(name, spec) DOC("Port", name, spec)

static const struct host no_host;

struct world {
	struct object_list list;
	struct networks *networks;
	struct topology *topology;
	struct topology_device devices[8];
	size_t n_devices;
	const struct host *document; /* NULL: one without uplinks */
	struct {
		const char *port, *device, *reason;
	} placed[4]; /* Ports by VF or PCI address */
	size_t n_placed;
	struct hd_addr host[4];
	size_t n_host;
	struct diag diag;
};

static struct hd_addr addr(const char *text)
{
	struct hd_addr parsed;

	assert_int_equal(addr_parse(text, &parsed), 0);
	return parsed;
}

static int set_up(void **state)
{
	struct world *w = calloc(1, sizeof(*w));

	assert_non_null(w);
	assert_int_equal(networks_new(&w->networks), 0);
	*state = w;
	return 0;
}

static int tear_down(void **state)
{
	struct world *w = *state;

	topology_free(w->topology);
	networks_free(w->networks);
	object_list_clear(&w->list);
	diag_clear(&w->diag);
	free(w);
	return 0;
}

/* A veth whose peer has the MAC 02:00:00:00:00:IFINDEX and is in another namespace. */
static struct topology_device *add_device(struct world *w, const char *name, uint32_t ifindex)
{
	struct topology_device *device = &w->devices[w->n_devices++];

	*device = (struct topology_device){.name = name,
		.ifindex = ifindex,
		.mtu = 1500,
		.up = true,
		.ethernet = true,
		.peer_elsewhere = true,
		.has_peer_mac = true,
		.peer_mac = {2, 0, 0, 0, 0, (uint8_t)ifindex}};
	return device;
}

static int try_build(struct world *w, const char *text)
{
	struct topology_input input = {.objects = &w->list,
		.host = w->document ? w->document : &no_host,
		.networks = w->networks,
		.devices = w->devices,
		.n_devices = w->n_devices,
		.host_addresses = w->host,
		.n_host_addresses = w->n_host};
	struct topology_place places[4];
	struct topology *topology = NULL;
	int r;

	object_list_clear(&w->list);
	diag_clear(&w->diag);
	policy_documents(&w->list, text);
	input.places = places;
	for (size_t i = 0; i < w->n_placed; i++)
		for (size_t j = 0; j < w->list.n; j++)
			if (strcmp(w->list.items[j]->name, w->placed[i].port) == 0)
				places[input.n_places++] = (struct topology_place){
					.port = w->list.items[j], .device = w->placed[i].device, .reason = w->placed[i].reason};
	topology_sort_places(places, input.n_places);
	r = networks_assign(w->networks, &w->list, &w->diag);
	if (r == 0)
		r = topology_build(&input, &topology, &w->diag);
	if (r != 0) {
		networks_abort(w->networks);
		return r;
	}
	if (!topology)
		abort();
	networks_commit(w->networks);
	topology_free(w->topology);
	w->topology = topology;
	return 0;
}

static void build(struct world *w, const char *text)
{
	int r = try_build(w, text);

	if (r < 0)
		fail_msg("%d: %s", r, w->diag.text ? w->diag.text : "");
}

static void refuse(struct world *w, const char *text, const char *because)
{
	assert_int_equal(try_build(w, text), -EINVAL);
	assert_non_null(w->diag.text);
	if (!strstr(w->diag.text, because))
		fail_msg("%s", w->diag.text);
}

static const struct hd_endpoint *endpoint(const struct world *w, const char *network, const char *address)
{
	struct hd_addr wanted = addr(address);

	for (size_t i = 0; i < w->topology->n_endpoints; i++) {
		const struct topology_endpoint *row = &w->topology->endpoints[i];

		if (row->key.kind == HD_ENDPOINT_ADDRESS && row->key.network == networks_index(w->networks, network) &&
			memcmp(&row->key.addr, &wanted, sizeof(wanted)) == 0)
			return &row->value;
	}
	return NULL;
}

/* The one row of exactly this prefix. */
static const struct hd_route *route(const struct world *w, const char *network, const char *cidr)
{
	struct hd_addr wanted;
	uint8_t length;

	assert_int_equal(addr_parse_cidr(cidr, &wanted, &length), 0);
	for (size_t i = 0; i < w->topology->n_routes; i++) {
		const struct topology_route *row = &w->topology->routes[i];

		if (be16toh(row->key.network) == networks_index(w->networks, network) && row->key.length == 16u + length &&
			memcmp(row->key.addr, &wanted, sizeof(wanted)) == 0)
			return &row->value;
	}
	return NULL;
}

/* --- numbers --- */

static void test_numbers_stay(void **state)
{
	struct world *w = *state;
	struct hd_network last;
	uint16_t a, b, zone;

	build(w, NETWORK("a", "routesTo: [b]") NETWORK("b", "") NETWORK("c", "routesTo: [a]"));
	a = networks_index(w->networks, "a");
	b = networks_index(w->networks, "b");
	zone = networks_zone(w->networks, a, b);
	assert_int_equal(a, 1);
	assert_int_equal(b, 2);
	assert_true(zone >= HD_NETWORKS);
	assert_int_equal(networks_zone(w->networks, b, a), zone);
	assert_int_equal(networks_zone(w->networks, b, networks_index(w->networks, "c")), 0);
	assert_string_equal(networks_name(w->networks, 2), "b");
	assert_string_equal(networks_name(w->networks, 0), "host");
	assert_null(networks_name(w->networks, 9));
	assert_int_equal(networks_index(w->networks, "host"), 0);

	/* b goes and comes back: it is another one, and so is the zone */
	build(w, NETWORK("a", "") NETWORK("c", "routesTo: [a]"));
	assert_int_equal(networks_index(w->networks, "b"), 0);
	assert_int_equal(networks_index(w->networks, "a"), a);
	build(w, NETWORK("a", "routesTo: [b]") NETWORK("b", "") NETWORK("c", "routesTo: [a]"));
	assert_int_equal(networks_index(w->networks, "a"), a);
	assert_int_equal(networks_index(w->networks, "b"), 4);
	assert_true(networks_zone(w->networks, a, 4) > zone);
	networks_last(w->networks, &last);
	assert_int_equal(last.last_index, 4);
	assert_int_equal(last.last_zone, networks_zone(w->networks, a, 4));
}

static void test_abort_takes_numbers_back(void **state)
{
	struct world *w = *state;

	build(w, NETWORK("a", ""));
	refuse(w, NETWORK("b", "subnets: [10.0.0.0/8], routesTo: [c]") NETWORK("c", "subnets: [10.1.0.0/16]"),
		"both have addresses");
	assert_int_equal(networks_index(w->networks, "b"), 0);
	assert_int_equal(networks_index(w->networks, "a"), 1);
	build(w, NETWORK("a", "") NETWORK("b", ""));
	assert_int_equal(networks_index(w->networks, "b"), 2);
}

/* The rows of one agent, given to the next. */
static void test_numbers_are_adopted(void **state)
{
	struct world *w = *state;
	static const char two[] =
		NETWORK("zebra", "subnets: [10.1.0.0/16], routesTo: [ant]") NETWORK("ant", "subnets: [10.2.0.0/16]");
	struct networks *next;
	uint16_t zebra, ant, zone;

	build(w, NETWORK("gone", ""));
	build(w, two);
	zebra = networks_index(w->networks, "zebra");
	ant = networks_index(w->networks, "ant");
	zone = networks_zone(w->networks, zebra, ant);
	assert_int_equal(networks_new(&next), 0);
	for (size_t i = 0; i < w->topology->n_networks; i++)
		assert_int_equal(networks_adopt(next, w->topology->networks[i].index, &w->topology->networks[i].record), 0);
	for (size_t i = 0; i < w->topology->n_routes; i++)
		assert_int_equal(networks_adopt_route(next, &w->topology->routes[i].key, &w->topology->routes[i].value), 0);
	networks_free(w->networks);
	w->networks = next;
	build(w, two);
	assert_int_equal(networks_index(next, "zebra"), zebra);
	assert_int_equal(networks_index(next, "ant"), ant);
	assert_int_equal(networks_zone(next, ant, zebra), zone);
	build(w, NETWORK("new", ""));
	assert_int_equal(networks_index(next, "new"), 4);
}

static void test_long_names_stay_apart(void **state)
{
	struct world *w = *state;
	char one[NETWORK_KEY_MAX], other[NETWORK_KEY_MAX];

	(void)w;
	network_key("a-name-that-is-longer-than-what-the-map-holds-1", one);
	network_key("a-name-that-is-longer-than-what-the-map-holds-2", other);
	assert_string_not_equal(one, other);
	assert_int_equal(strlen(one), NETWORK_KEY_MAX - 1);
	network_key("thirty-nine-characters-are-just-enough1", one);
	assert_string_equal(one, "thirty-nine-characters-are-just-enough1");
}

static void test_all_numbers_taken(void **state)
{
	struct world *w = *state;
	char name[32];

	for (unsigned i = 1; i < HD_NETWORKS; i++) {
		struct hd_network record = {.flags = HD_NETWORK_USED};

		snprintf(name, sizeof(name), "n%u", i);
		network_key(name, record.name);
		assert_int_equal(networks_adopt(w->networks, (uint16_t)i, &record), 0);
	}
	policy_documents(&w->list, NETWORK("one-more", ""));
	assert_int_equal(networks_assign(w->networks, &w->list, &w->diag), -E2BIG);
	assert_int_equal(networks_index(w->networks, "n4095"), 4095);
}

/* --- rows --- */

#define BLUE \
	NETWORK("blue", "mode: l2, subnets: [10.77.0.0/24, 'fd77::/64'], gateway: [10.77.0.254, 'fd77::fe'], routesTo: [host]")
#define WEB PORT("web", "device: veth-web, network: blue, addresses: [10.77.0.1, 'fd77::1']")

static void test_a_port(void **state)
{
	struct world *w = *state;
	const struct topology_port *port;
	const struct hd_endpoint *row;

	add_device(w, "veth-web", 7);
	w->host[w->n_host++] = addr("192.0.2.1");
	build(w, BLUE WEB);
	port = &w->topology->ports[0];
	assert_null(port->reason);
	assert_int_equal(port->ifindex, 7);
	assert_int_equal(port->record.network, 1);
	assert_int_equal(port->record.flags, HD_PORT_L2 | HD_PORT_LEARNING | HD_PORT_HOST | HD_PORT_PEER);
	assert_int_equal(port->record.mtu, 1500);
	assert_int_equal(port->record.mac[5], 7);
	row = endpoint(w, "blue", "fd77::1");
	assert_non_null(row);
	assert_int_equal(row->ifindex, 7);
	assert_int_equal(row->flags, 0);
	assert_int_equal(endpoint(w, "blue", "10.77.0.254")->flags, HD_ENDPOINT_GATEWAY);
	assert_int_equal(endpoint(w, "blue", "192.0.2.1")->flags, HD_ENDPOINT_TAKEN);
	/* two addresses, its MAC, two gateways, the host */
	assert_int_equal(w->topology->n_endpoints, 6);
	assert_int_equal(w->topology->n_members, 1);
	assert_int_equal(w->topology->networks[1].record.members, 1);
	/* own subnets */
	assert_int_equal(route(w, "blue", "10.77.0.0/24")->network, 1);
	/* the host's stack finds both */
	assert_int_equal(w->topology->n_host, 2);
	assert_false(w->topology->host[0].has_source);

	/* With the gateway's address the host sends from there. */
	w->host[w->n_host++] = addr("10.77.0.254");
	build(w, BLUE WEB);
	assert_int_equal(endpoint(w, "blue", "10.77.0.254")->flags, HD_ENDPOINT_GATEWAY | HD_ENDPOINT_TAKEN);
	for (size_t i = 0; i < w->topology->n_host; i++)
		assert_int_equal(w->topology->host[i].has_source, addr_is_ipv4(&w->topology->host[i].address));
}

/* What a VF or a PCI address comes to is told from outside; it waits, and is a port once it comes to a device, whatever that is called then. */
static void test_places(void **state)
{
	static const char text[] = NETWORK("blue", "vlan: 10") PORT("a", "vf: {pf: eth1, index: 0}, network: blue") PORT(
		"b", "pci: '0000:01:10.0', network: blue") PORT("c", "device: rep1, network: blue, mac: '02:00:00:00:00:77'");
	struct world *w = *state;

	add_device(w, "rep0", 7)->peer_elsewhere = false;
	add_device(w, "rep1", 8);
	w->placed[0].port = "a";
	w->placed[0].reason = "eth1 has no VFs yet";
	w->n_placed = 1;
	build(w, text);
	assert_int_equal(w->topology->ports[0].ifindex, 0);
	assert_string_equal(w->topology->ports[0].reason, "eth1 has no VFs yet");

	w->placed[0].device = "rep0";
	w->placed[1].port = "b";
	w->placed[1].device = "rep0";
	w->n_placed = 2;
	build(w, text);
	assert_int_equal(w->topology->ports[0].ifindex, 7);
	assert_string_equal(w->topology->ports[0].device, "rep0");
	assert_int_equal(w->topology->ports[0].record.flags & HD_PORT_PEER, 0);
	assert_string_equal(w->topology->ports[1].reason, "its device rep0 is that of Port default/a");
	assert_null(w->topology->ports[2].reason);

	/* The same device by another name is the same port. */
	w->devices[0].name = w->placed[0].device = "renamed";
	w->placed[1].device = "rep1";
	build(w, text);
	assert_string_equal(w->topology->ports[0].device, "renamed");
	assert_int_equal(w->topology->ports[1].ifindex, 8);
	assert_string_equal(w->topology->ports[2].reason, "its device rep1 is that of Port default/b");

	/* What the Host says is an uplink. */
	struct uplink uplink = {.device = "rep1"};
	const struct host host = {.uplinks = &uplink, .n_uplinks = 1};

	w->document = &host;
	build(w, text);
	assert_string_equal(w->topology->ports[1].reason, "its device rep1 is an uplink of the Host");
}

static void test_why_ports_wait(void **state)
{
	static const struct {
		const char *port, *reason;
	} cases[] = {
		{"device: nowhere, network: blue", "there is no device nowhere"},
		{"vf: {pf: eth1, index: 3}, network: blue", "its device is not looked for here"},
		{"pci: '0000:01:10.0', network: blue", "its device is not looked for here"},
		{"device: tun0, network: blue", "the device has no Ethernet header"},
		{"device: tap0, network: blue", "the device has no peer whose MAC could be taken: spec.mac is needed"},
		{"device: slave, network: blue", "the device belongs to a bridge, bond or VRF: take it out of there first"},
		{"device: down, network: blue", "the device is down"},
		{"device: veth-b, network: blue, mac: '02:00:00:00:00:07'", "its MAC is that of Port default/web"},
		{"device: veth-b, network: blue, addresses: [192.0.2.1]", "192.0.2.1 is an address of the host itself"},
	};
	struct world *w = *state;
	char text[2048];

	add_device(w, "veth-web", 7);
	add_device(w, "veth-b", 13);
	add_device(w, "tun0", 8)->ethernet = false;
	add_device(w, "tap0", 9)->has_peer_mac = false;
	add_device(w, "slave", 10)->enslaved = true;
	add_device(w, "down", 11)->up = false;
	w->host[w->n_host++] = addr("192.0.2.1");
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const struct topology_port *port;
		bool down = strstr(cases[i].port, "down") != NULL;

		snprintf(text, sizeof(text),
			"%s%s---\napiVersion: heddle.dev/v1alpha1\nkind: Port\nmetadata: {name: zz}\nspec: {%s}\n", BLUE, WEB,
			cases[i].port);
		build(w, text);
		port = &w->topology->ports[1];
		assert_non_null(port->reason);
		assert_string_equal(port->reason, cases[i].reason);
		assert_int_equal(port->ifindex, down ? 11 : 0);
		assert_null(w->topology->ports[0].reason);
		assert_int_equal(w->topology->n_members, down ? 2 : 1);
	}
}

static void test_vlans(void **state)
{
	struct world *w = *state;

	add_device(w, "veth-a", 7);
	add_device(w, "veth-b", 8);
	build(w, NETWORK("blue", "mtu: 1400") PORT("a", "device: veth-a, network: blue, vlan: {mode: access, id: 10}")
			 PORT("b", "device: veth-b, network: blue, vlan: {mode: trunk, allowed: [5, 10, 20-22], native: 5}"));
	assert_int_equal(w->topology->ports[0].record.flags & (HD_PORT_ACCESS | HD_PORT_TRUNK), HD_PORT_ACCESS);
	assert_int_equal(w->topology->ports[0].record.vlan, 10);
	assert_int_equal(w->topology->ports[0].record.mtu, 1400);
	assert_int_equal(w->topology->ports[1].record.flags & (HD_PORT_ACCESS | HD_PORT_TRUNK), HD_PORT_TRUNK);
	assert_int_equal(w->topology->ports[1].record.vlan, 5);
	assert_int_equal(w->topology->n_vlans, 5);
	assert_int_equal(w->topology->vlans[0].ifindex, 8);
	assert_int_equal(w->topology->vlans[4].vlan, 22);
	build(w, NETWORK("blue", "") PORT("a", "device: veth-a, network: blue, vlan: {mode: qinq, id: 30}"));
	assert_int_equal(w->topology->ports[0].record.flags & (HD_PORT_ACCESS | HD_PORT_TRUNK | HD_PORT_QINQ),
		HD_PORT_ACCESS | HD_PORT_QINQ);
	assert_int_equal(w->topology->ports[0].record.vlan, 30);
	assert_int_equal(w->topology->n_vlans, 0);
}

/* A network that is a VLAN on the uplinks, which then are the members of network 0. */
static void test_wires(void **state)
{
	static struct uplink uplinks[] = {{.device = "va"}, {.device = "gone"}, {.device = "vb"}};
	static const struct host host = {.uplinks = uplinks, .n_uplinks = 3};
	struct world *w = *state;

	add_device(w, "va", 5);
	add_device(w, "vb", 6);
	w->document = &host;
	build(w, NETWORK("red", "subnets: [10.1.0.0/24], vlan: 200") NETWORK("blue", "subnets: [10.1.0.0/24], vlan: 100")
			 NETWORK("green", "subnets: [10.1.0.0/24]"));
	assert_int_equal(w->topology->n_wires, 2);
	assert_int_equal(w->topology->wires[0].key.vlan, 100);
	assert_int_equal(w->topology->wires[0].value.network, networks_index(w->networks, "blue"));
	assert_int_equal(w->topology->wires[1].value.network, networks_index(w->networks, "red"));
	assert_int_equal(w->topology->n_members, 2);
	assert_int_equal(w->topology->members[0].network, 0);
	assert_int_equal(w->topology->members[0].id, 5);
	assert_int_equal(w->topology->members[1].id, 6);
	build(w, NETWORK("green", "subnets: [10.1.0.0/24]"));
	assert_int_equal(w->topology->n_wires, 0);
	assert_int_equal(w->topology->n_members, 0);
}

static void test_routes_are_one_way(void **state)
{
	struct world *w = *state;
	const struct hd_route *there, *back;

	build(w, NETWORK("a", "mode: l3, subnets: [10.1.0.0/16], routesTo: [b, host]") NETWORK("b", "subnets: [10.2.0.0/16]"));
	there = route(w, "a", "10.2.0.0/16");
	back = route(w, "b", "10.1.0.0/16");
	assert_int_equal(there->network, networks_index(w->networks, "b"));
	assert_int_equal(there->flags, 0);
	assert_int_equal(back->network, networks_index(w->networks, "a"));
	assert_int_equal(back->flags, HD_ROUTE_REPLY);
	assert_int_equal(there->zone, back->zone);
	assert_true(there->zone >= HD_NETWORKS);

	build(w, NETWORK("a", "subnets: [10.1.0.0/16], routesTo: [b]") NETWORK("b", "subnets: [10.2.0.0/16], routesTo: [a]"));
	assert_int_equal(route(w, "b", "10.1.0.0/16")->flags, 0);
	assert_int_equal(route(w, "a", "10.2.0.0/16")->flags, 0);
	assert_int_equal(w->topology->n_routes, 4);

	/* None, none: nothing leaks. */
	build(w, NETWORK("a", "subnets: [10.1.0.0/16]") NETWORK("b", "subnets: [10.1.0.0/16]"));
	assert_int_equal(w->topology->n_routes, 2);
}

static void test_contradictions(void **state)
{
	struct world *w = *state;

	add_device(w, "veth-a", 7);
	add_device(w, "veth-b", 8);
	refuse(w, NETWORK("a", "subnets: [10.0.0.0/8], routesTo: [b]") NETWORK("b", "subnets: [10.1.0.0/16]"),
		"networks a and b cannot be routed between: both have addresses of 10.1.0.0/16");
	/* a and b may be alike as long as nobody has to tell them apart; c would have to, for its replies */
	refuse(w,
		NETWORK("a", "subnets: [10.0.0.0/8], routesTo: [c]") NETWORK("b", "subnets: [10.0.0.0/8], routesTo: [c]")
			NETWORK("c", "subnets: [192.0.2.0/24]"),
		"network c would not know whether 10.0.0.0/8 is in a or in b");
	build(w, NETWORK("a", "routesTo: [host]") NETWORK("b", "") PORT("a", "device: veth-a, network: a, addresses: [10.0.0.1]")
			 PORT("b", "device: veth-b, network: b, addresses: [10.0.0.1]"));
	assert_int_equal(endpoint(w, "a", "10.0.0.1")->ifindex, 7);
	assert_int_equal(endpoint(w, "b", "10.0.0.1")->ifindex, 8);
	assert_int_equal(w->topology->n_host, 1);
}

static void test_equal(void **state)
{
	struct world *w = *state;
	struct topology *before;

	add_device(w, "veth-web", 7);
	build(w, BLUE WEB);
	before = w->topology;
	w->topology = NULL;
	build(w, BLUE WEB);
	assert_true(topology_equal(before, w->topology));
	w->devices[0].peer_elsewhere = false; /* only a flag of the record */
	build(w, BLUE WEB);
	assert_false(topology_equal(before, w->topology));
	assert_false(topology_equal(before, NULL));
	assert_true(topology_equal(NULL, NULL));
	topology_free(before);
}

static void test_link_local(void **state)
{
	static const uint8_t mac[6] = {0x02, 0x00, 0x5e, 0x10, 0x00, 0x01};
	struct hd_addr made = topology_link_local(mac), wanted = addr("fe80::5eff:fe10:1");

	(void)state;
	assert_memory_equal(&made, &wanted, sizeof(made));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_numbers_stay, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_abort_takes_numbers_back, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_numbers_are_adopted, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_long_names_stay_apart, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_all_numbers_taken, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_a_port, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_places, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_why_ports_wait, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_vlans, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_wires, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_routes_are_one_way, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_contradictions, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_equal, set_up, tear_down),
		cmocka_unit_test(test_link_local),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
