/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers of peers, and the rows that Peer documents come to. */
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
#include <util/clock.h>

#define DOC(kind, name, spec) \
	"---\napiVersion: heddle.dev/v1alpha1\nkind: " kind "\nmetadata: {name: " name "}\nspec: {" spec "}\n"
#define NETWORK(name, spec) DOC("Network", name, spec)
#define PORT(name, spec) DOC("Port", name, spec)
#define PEER(name, spec) DOC("Peer", name, spec)
#define HOST(tunnel) DOC("Host", "here", "uplinks: [{device: eth0}]" tunnel)
#define TUNNEL HOST(", tunnel: {protocol: vxlan, address: 192.0.2.1}")
#define BLUE NETWORK("blue", "vni: 70, subnets: [10.77.0.0/16], gateway: [10.77.0.254]")
#define FAR NETWORK("far", "vni: 71, mode: l3, subnets: [10.78.0.0/16]")

struct world {
	struct object_list list;
	struct networks *networks;
	struct topology *topology, *before;
	struct topology_device device;
	struct hd_addr host;
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
	w->device = (struct topology_device){.name = "veth-a",
		.ifindex = 7,
		.mtu = 1500,
		.up = true,
		.ethernet = true,
		.has_peer_mac = true,
		.peer_mac = {2, 0, 0, 0, 0, 7}};
	*state = w;
	return 0;
}

static int tear_down(void **state)
{
	struct world *w = *state;

	topology_free(w->topology);
	topology_free(w->before);
	networks_free(w->networks);
	object_list_clear(&w->list);
	diag_clear(&w->diag);
	free(w);
	return 0;
}

static void take(struct world *w)
{
	struct topology_input input = {.objects = &w->list,
		.host = policy_env_host(&w->list),
		.networks = w->networks,
		.devices = &w->device,
		.n_devices = 1,
		.host_addresses = &w->host,
		.n_host_addresses = w->n_host};
	struct topology *afresh = NULL;

	topology_free(w->before);
	w->before = w->topology;
	w->topology = NULL;
	assert_int_equal(networks_assign(w->networks, &w->list, &w->diag), 0);
	assert_int_equal(topology_build(&input, &afresh, &w->diag), 0);
	/* What is taken from the one before makes no difference. */
	input.before = w->before;
	assert_int_equal(topology_build(&input, &w->topology, &w->diag), 0);
	assert_true(topology_equal(afresh, w->topology));
	topology_free(afresh);
	networks_commit(w->networks);
}

static void build(struct world *w, const char *text)
{
	object_list_clear(&w->list);
	policy_documents(&w->list, text);
	take(w);
}

static const struct hd_endpoint *endpoint(
	const struct world *w, const char *network, enum hd_endpoint_kind kind, struct hd_addr key)
{
	for (size_t i = 0; i < w->topology->n_endpoints; i++) {
		const struct topology_endpoint *row = &w->topology->endpoints[i];

		if (row->key.kind == kind && row->key.network == networks_index(w->networks, network) &&
			memcmp(&row->key.addr, &key, sizeof(key)) == 0)
			return &row->value;
	}
	return NULL;
}

static const struct hd_endpoint *by_address(const struct world *w, const char *network, const char *address)
{
	return endpoint(w, network, HD_ENDPOINT_ADDRESS, addr(address));
}

static const struct hd_endpoint *by_mac(const struct world *w, const char *network, uint8_t last)
{
	return endpoint(w, network, HD_ENDPOINT_MAC, (struct hd_addr){.b = {2, 0, 0, 0, 1, last}});
}

/* --- numbers --- */

#define P(name, n) PEER(name, "address: 192.0.2." #n)

static void test_numbers_stay(void **state)
{
	struct world *w = *state;
	struct hd_network last = {0};

	build(w, TUNNEL P("b", 12) P("a", 11));
	assert_int_equal(networks_peer(w->networks, "b"), 1);
	assert_int_equal(networks_peer(w->networks, "a"), 2);
	assert_string_equal(networks_peer_name(w->networks, 2), "a");
	assert_null(networks_peer_name(w->networks, 0));
	assert_null(networks_peer_name(w->networks, 3));
	/* A number that came free comes back late; a change of the document is none of the name. */
	build(w, TUNNEL P("a", 13));
	assert_int_equal(networks_peer(w->networks, "a"), 2);
	assert_int_equal(networks_peer(w->networks, "b"), 0);
	build(w, TUNNEL P("a", 13) P("b", 12));
	assert_int_equal(networks_peer(w->networks, "b"), 3);
	networks_last(w->networks, &last);
	assert_int_equal(last.last_peer, 3);
	assert_int_equal(w->topology->networks[0].record.last_peer, 3);
}

/* Peers that come and go do not make the map as large as it can be. */
static void test_numbers_go_round(void **state)
{
	struct world *w = *state;
	char text[512];
	uint32_t highest = 0, round = 0;

	for (unsigned i = 0; i < 1100; i++) {
		uint32_t index;

		snprintf(text, sizeof(text),
			TUNNEL P("stays", 9) "---\napiVersion: heddle.dev/v1alpha1\nkind: Peer\n"
					     "metadata: {name: p%u}\nspec: {address: 192.0.2.8}\n",
			i);
		build(w, text);
		index = w->topology->peers[w->topology->n_peers - 1].index;
		highest = index > highest ? index : highest;
		round += index == 2;
		assert_int_equal(networks_peer(w->networks, "stays"), 1);
	}
	assert_int_equal(highest, 1023);
	assert_int_equal(round, 2);
}

static void test_numbers_are_adopted(void **state)
{
	static const char text[] = TUNNEL P("zebra", 11) P("a-name-that-is-longer-than-what-the-map-holds", 12);
	struct world *w = *state;
	struct networks *next;

	build(w, TUNNEL P("gone", 10));
	build(w, text);
	assert_int_equal(networks_new(&next), 0);
	assert_int_equal(networks_adopt(next, 0, &w->topology->networks[0].record), 0);
	for (size_t i = 0; i < w->topology->n_peers; i++) {
		struct hd_peer record = {.flags = HD_PEER_USED};

		memcpy(record.name, w->topology->peers[i].name, sizeof(record.name));
		assert_int_equal(networks_adopt_peer(next, w->topology->peers[i].index, &record), 0);
		/* nonsense */
		assert_int_equal(networks_adopt_peer(next, w->topology->peers[i].index + 8, &record), 0);
		assert_int_equal(networks_adopt_peer(next, HD_PEERS_MAX, &record), 0);
		record.flags = 0;
		assert_int_equal(networks_adopt_peer(next, 77, &record), 0);
	}
	networks_free(w->networks);
	w->networks = next;
	build(w, text);
	assert_int_equal(networks_peer(next, "zebra"), 2);
	assert_int_equal(networks_peer(next, "a-name-that-is-longer-than-what-the-map-holds"), 3);
	build(w, TUNNEL P("new", 10));
	assert_int_equal(networks_peer(next, "new"), 4);
}

static void test_all_numbers_taken(void **state)
{
	struct world *w = *state;
	char name[32];

	for (unsigned i = 1; i < HD_PEERS_MAX; i++) {
		struct hd_peer record = {.flags = HD_PEER_USED};

		snprintf(name, sizeof(name), "p%u", i);
		network_key(name, record.name);
		assert_int_equal(networks_adopt_peer(w->networks, i, &record), 0);
	}
	policy_documents(&w->list, P("one-more", 1));
	assert_int_equal(networks_assign(w->networks, &w->list, &w->diag), -E2BIG);
	assert_non_null(strstr(w->diag.text, "more than 16383 peers"));
}

/* --- rows --- */

#define TWO_PEERS \
	PEER("a", "address: 192.0.2.11, ports: [" \
		  "{name: w1, network: blue, addresses: [10.77.1.1, 'fd77::1'], mac: '02:00:00:00:01:01'}," \
		  "{name: w2, network: blue, addresses: [10.77.1.2]}," \
		  "{name: w3, network: far, addresses: [10.78.1.3], mac: '02:00:00:00:01:03'}]") \
	PEER("b", "address: 192.0.2.12, ports: [{name: x1, network: far, addresses: [10.78.2.1]}]," \
		  "prefixes: [{network: blue, cidr: 10.77.128.0/17, mac: '02:00:00:00:01:09'}, {network: far, cidr: " \
		  "'fd78::/64'}]")

static void test_rows(void **state)
{
	struct world *w = *state;
	const struct hd_endpoint *row;
	struct hd_addr first = addr("192.0.2.11"), here = addr("192.0.2.1");

	build(w,
		TUNNEL BLUE FAR NETWORK("home", "") TWO_PEERS PORT("p", "device: veth-a, network: blue, addresses: [10.77.0.1]"));
	assert_memory_equal(&w->topology->tunnel.address, &here, sizeof(here));
	assert_int_equal(be16toh(w->topology->tunnel.port), 4789);
	assert_int_equal(w->topology->tunnel.protocol, HD_TUNNEL_VXLAN);
	assert_int_equal(w->topology->tunnel.ttl, 64);
	assert_int_equal(w->topology->tunnel.overhead, 50);
	assert_int_equal(w->topology->n_vnis, 2);
	assert_int_equal(w->topology->vnis[0].key.vni, 70);
	assert_int_equal(w->topology->vnis[1].value.network, networks_index(w->networks, "far"));

	assert_int_equal(w->topology->n_peers, 2);
	assert_int_equal(w->topology->peers[0].index, 1);
	assert_string_equal(w->topology->peers[0].name, "a");
	assert_memory_equal(&w->topology->peers[0].address, &first, sizeof(first));
	assert_int_equal(w->topology->n_peer_addresses, 2);
	assert_memory_equal(&w->topology->peer_addresses[0].key, &first, sizeof(first));
	assert_int_equal(w->topology->peer_addresses[1].value, 2);

	row = by_address(w, "blue", "fd77::1");
	assert_int_equal(row->peer, 1);
	assert_int_equal(row->ifindex, 0);
	assert_int_equal(row->mac[5], 1);
	assert_int_equal(by_address(w, "blue", "10.77.1.2")->mac[0], 0);
	assert_int_equal(by_mac(w, "blue", 1)->peer, 1);
	assert_int_equal(by_mac(w, "blue", 1)->mac[5], 1);
	assert_int_equal(by_address(w, "far", "10.78.1.3")->mac[5], 3);
	assert_null(by_mac(w, "far", 3)); /* nobody looks there */
	assert_int_equal(by_address(w, "blue", "10.77.0.1")->peer, 0);
	/* five addresses and one MAC of peers, the port's two, the gateway, and the two that no host sends from where nothing is switched */
	assert_int_equal(w->topology->n_endpoints, 11);
	assert_int_equal(by_address(w, "far", "10.78.0.0")->flags, HD_ENDPOINT_TAKEN);
	assert_int_equal(by_address(w, "far", "10.78.255.255")->flags, HD_ENDPOINT_TAKEN);
	for (size_t i = 1; i < w->topology->n_endpoints; i++)
		assert_true(memcmp(&w->topology->endpoints[i - 1].key, &w->topology->endpoints[i].key,
				    sizeof(struct hd_endpoint_key)) < 0);

	assert_int_equal(w->topology->n_prefixes, 2);
	for (size_t i = 0; i < 2; i++) {
		const struct topology_peer_prefix *prefix = &w->topology->prefixes[i];
		bool blue = be16toh(prefix->key.network) == networks_index(w->networks, "blue");

		assert_int_equal(prefix->key.length, blue ? 16 + 96 + 17 : 16 + 64);
		assert_int_equal(prefix->value.mac[5], blue ? 9 : 0);
		assert_int_equal(prefix->value.peer, 2);
	}
	/* Only blue floods; each peer once. */
	assert_int_equal(w->topology->n_peer_members, 2);
	assert_int_equal(w->topology->peer_members[0].network, networks_index(w->networks, "blue"));
	assert_int_equal(w->topology->peer_members[0].id, 1);
	assert_int_equal(w->topology->peer_members[1].id, 2);
}

static void test_this_end(void **state)
{
	struct world *w = *state;

	build(w, HOST(", tunnel: {protocol: geneve, address: 'fd00::1', port: 6000, ttl: 9}") BLUE);
	assert_int_equal(w->topology->tunnel.protocol, HD_TUNNEL_GENEVE);
	assert_int_equal(w->topology->tunnel.overhead, 70);
	assert_int_equal(w->topology->tunnel.ttl, 9);
	assert_int_equal(be16toh(w->topology->tunnel.port), 6000);
	build(w, HOST("") BLUE TWO_PEERS);
	assert_int_equal(w->topology->tunnel.protocol, HD_TUNNEL_NONE);
	assert_int_equal(w->topology->n_vnis, 0);
	assert_int_equal(w->topology->n_peers, 0);
	assert_int_equal(w->topology->n_endpoints, 1);
	assert_int_equal(w->topology->n_prefixes + w->topology->n_peer_members + w->topology->n_peer_addresses, 0);
	assert_false(topology_equal(w->before, w->topology));
}

static void test_learning(void **state)
{
	struct world *w = *state;

	build(w, TUNNEL NETWORK("a", "vni: 1, peerLearning: true") NETWORK("b", "vni: 2, peerLearning: false"));
	assert_int_equal(w->topology->networks[1].record.flags & HD_NETWORK_PEER_LEARNING, HD_NETWORK_PEER_LEARNING);
	assert_int_equal(w->topology->networks[2].record.flags & HD_NETWORK_PEER_LEARNING, 0);
	assert_int_equal(w->topology->networks[1].record.vni, 1);
}

static void test_nobody_is_the_gateway(void **state)
{
	static const uint8_t gateway[] = HD_GATEWAY_MAC;
	struct world *w = *state;

	memcpy(w->device.peer_mac, gateway, sizeof(gateway));
	build(w, TUNNEL BLUE PORT("p", "device: veth-a, network: blue"));
	assert_int_equal(w->topology->ports[0].ifindex, 0);
	assert_string_equal(w->topology->ports[0].reason, "its MAC is the gateway's");
}

/* What depends on devices and on the host's addresses no document could say. */
static void test_who_is_here_counts(void **state)
{
	struct world *w = *state;

	w->device.peer_mac[4] = 1;
	w->device.peer_mac[5] = 1;
	build(w, TUNNEL BLUE FAR TWO_PEERS PORT("p", "device: veth-a, network: blue"));
	assert_int_equal(w->topology->ports[0].ifindex, 0);
	assert_string_equal(w->topology->ports[0].reason, "its MAC is that of a port behind a Peer");
	assert_int_equal(by_mac(w, "blue", 1)->peer, 1);

	w->host = addr("10.77.1.2");
	w->n_host = 1;
	build(w, TUNNEL NETWORK("blue", "vni: 70, subnets: [10.77.0.0/16], routesTo: [host]") FAR TWO_PEERS);
	assert_int_equal(by_address(w, "blue", "10.77.1.2")->peer, 0);
	assert_int_equal(by_address(w, "blue", "10.77.1.2")->flags, HD_ENDPOINT_TAKEN);
	assert_int_equal(by_address(w, "blue", "10.77.1.1")->peer, 1);
	build(w, TUNNEL NETWORK("home", "routesTo: [host]") P("a", 11)
			 PORT("p", "device: veth-a, network: home, addresses: [192.0.2.11]"));
	assert_string_equal(w->topology->ports[0].reason, "192.0.2.11 is the address of a Peer");
	assert_int_equal(w->topology->n_host, 0);
	/* And back. */
	w->n_host = 0;
	build(w, TUNNEL NETWORK("blue", "vni: 70, subnets: [10.77.0.0/16], routesTo: [host]") FAR TWO_PEERS);
	assert_int_equal(by_address(w, "blue", "10.77.1.2")->peer, 1);
	w->n_host = 1;
	build(w, TUNNEL NETWORK("blue", "vni: 70, subnets: [10.77.0.0/16], routesTo: [host]") FAR TWO_PEERS);
	assert_int_equal(by_address(w, "blue", "10.77.1.2")->peer, 0);
}

/* Each step is compared with what comes of the same documents without one before: take(). */
static void test_what_has_not_changed(void **state)
{
	static const char *const steps[] = {
		TUNNEL BLUE FAR TWO_PEERS,
		TUNNEL BLUE FAR TWO_PEERS PORT("p", "device: veth-a, network: blue, addresses: [10.77.0.1]"),
		/* one of two, in rows that stand between the other's */
		TUNNEL BLUE FAR PEER("a", "address: 192.0.2.11, ports: [{name: w1, network: blue, addresses: [10.77.1.1]},"
					  "{name: w9, network: far, addresses: [10.78.9.9]}],"
					  "prefixes: [{network: blue, cidr: 10.77.64.0/20}]")
			PEER("b", "address: 192.0.2.12, ports: [{name: x1, network: far, addresses: [10.78.2.1]}]"),
		TUNNEL BLUE FAR TWO_PEERS,
		/* the same documents, whose network is another one, or of another kind */
		TUNNEL NETWORK("blue", "vni: 70, mode: l3, subnets: [10.77.0.0/16], gateway: [10.77.0.254]") FAR TWO_PEERS,
		TUNNEL BLUE FAR TWO_PEERS,
		TUNNEL FAR,
		TUNNEL BLUE FAR TWO_PEERS,
		HOST("") BLUE FAR,
		TUNNEL BLUE FAR TWO_PEERS,
		TUNNEL BLUE FAR P("c", 13) TWO_PEERS,
		TUNNEL BLUE FAR PEER("b", "address: 192.0.2.12, ports: [{name: x1, network: far, addresses: [10.78.2.1]}]"),
	};
	struct world *w = *state;

	for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++)
		build(w, steps[i]);
}

static void test_equal(void **state)
{
	static const char *const others[] = {
		TUNNEL BLUE PEER("a", "address: 192.0.2.12, ports: [{name: w, network: blue, addresses: [10.77.1.1]}]"),
		TUNNEL BLUE PEER("a", "address: 192.0.2.11, ports: [{name: w, network: blue, addresses: [10.77.1.2]}]"),
		TUNNEL BLUE PEER("b", "address: 192.0.2.11, ports: [{name: w, network: blue, addresses: [10.77.1.1]}]"),
		TUNNEL BLUE PEER("a", "address: 192.0.2.11, ports: [{name: w, network: blue, addresses: [10.77.1.1]}],"
				      "prefixes: [{network: blue, cidr: 10.77.9.0/24}]"),
		HOST(", tunnel: {protocol: vxlan, address: 192.0.2.2}")
			BLUE PEER("a", "address: 192.0.2.11, ports: [{name: w, network: blue, addresses: [10.77.1.1]}]"),
	};
	static const char one[] =
		TUNNEL BLUE PEER("a", "address: 192.0.2.11, ports: [{name: w, network: blue, addresses: [10.77.1.1]}]");
	struct world *w = *state;

	build(w, one);
	build(w, one);
	assert_true(topology_equal(w->before, w->topology));
	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
		build(w, others[i]);
		assert_false(topology_equal(w->before, w->topology));
		build(w, one);
	}
}

/* What a gateway says of a packet for somebody behind a peer. */
static void test_answer(void **state)
{
	struct world *w = *state;
	struct topology_answer answer;
	struct hd_addr to;

	build(w, TUNNEL BLUE FAR TWO_PEERS PORT("p", "device: veth-a, network: blue, addresses: [10.77.0.1]"));
	to = addr("10.77.1.2");
	topology_answer(w->topology, 7, &to, &answer);
	assert_int_equal(answer.peer, 1);
	assert_int_equal(answer.mtu, 0);
	to = addr("10.77.200.1");
	topology_answer(w->topology, 7, &to, &answer);
	assert_int_equal(answer.peer, 2);
	to = addr("10.77.0.1");
	topology_answer(w->topology, 7, &to, &answer);
	assert_int_equal(answer.peer, 0);
	assert_int_equal(answer.mtu, 1500);
	to = addr("10.78.1.3"); /* no route leads there */
	topology_answer(w->topology, 7, &to, &answer);
	assert_int_equal(answer.peer, 0);
	assert_false(topology_elsewhere(w->topology, networks_index(w->networks, "blue"), &to));
	build(w, TUNNEL NETWORK("blue", "subnets: [10.77.0.0/16], routesTo: [far]") NETWORK("far", "subnets: [10.78.0.0/16]"));
	assert_true(topology_elsewhere(w->topology, networks_index(w->networks, "blue"), &to));
	to = addr("10.77.1.2");
	assert_false(topology_elsewhere(w->topology, networks_index(w->networks, "blue"), &to));
}

/* --- size --- */

#define MANY_PEERS 1000
#define MANY_PORTS 100 /* of each */

static void make_many(struct object_list *list)
{
	char *text = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&text, &size);

	assert_non_null(out);
	fputs(TUNNEL NETWORK("blue", "vni: 70, subnets: [10.0.0.0/8]"), out);
	for (unsigned i = 0; i < MANY_PEERS; i++) {
		fprintf(out,
			"---\napiVersion: heddle.dev/v1alpha1\nkind: Peer\nmetadata: {name: p%u}\nspec:\n  address: 192.%u.%u.1\n"
			"  ports:\n",
			i, i / 250, i % 250 + 1);
		for (unsigned j = 0; j < MANY_PORTS; j++)
			fprintf(out,
				"  - {name: w-%u-%u, network: blue, addresses: [10.%u.%u.%u], mac: '02:00:00:%02x:%02x:%02x'}\n",
				i, j, j, i / 250, i % 250 + 1, j, i / 256, i % 256);
	}
	fclose(out);
	policy_documents(list, text);
	free(text);
}

static void test_many(void **state)
{
	struct world *w = *state;
	uint64_t begin;

	make_many(&w->list);
	begin = clock_ms();
	take(w);
	printf("# %d peers with %d addresses and MACs: %llu ms to rows", MANY_PEERS, MANY_PEERS * MANY_PORTS,
		(unsigned long long)(clock_ms() - begin));
	begin = clock_ms();
	take(w);
	assert_true(topology_equal(w->before, w->topology));
	printf(", %llu ms once more, and compared\n", (unsigned long long)(clock_ms() - begin));
	assert_int_equal(w->topology->n_endpoints, 2 * MANY_PEERS * MANY_PORTS);
	assert_int_equal(w->topology->n_peer_members, MANY_PEERS);
	/* With sanitizers, on a machine that does something else as well: only what is quadratic is as slow as this. */
	assert_true(clock_ms() - begin < 5000);
}

/* Peers' own hosts, and the host's stack, where a network both travels and routes to the host. */
static void test_hosts(void **state)
{
	static const char *const to_host = "vni: 70, subnets: [10.77.0.0/16, 'fd77::/48'], routesTo: [host]";
	struct world *w = *state;
	char text[1024];

	snprintf(text, sizeof(text),
		TUNNEL "%s" FAR PEER("b", "address: 192.0.2.2, hostAddresses: ['2001:db8::2'], ports: [{name: p, network: blue, "
					  "addresses: [10.77.0.2]}]"),
		"---\napiVersion: heddle.dev/v1alpha1\nkind: Network\nmetadata: {name: blue}\nspec: {vni: 70}\n");
	build(w, text);
	assert_null(by_address(w, "blue", "192.0.2.2"));
	assert_int_equal(w->topology->n_stack, 0);
	snprintf(text, sizeof(text),
		TUNNEL "---\napiVersion: heddle.dev/v1alpha1\nkind: Network\nmetadata: {name: blue}\nspec: {%s}\n" FAR PEER("b",
			"address: 192.0.2.2, hostAddresses: ['2001:db8::2'], ports: [{name: p, network: blue, addresses: "
			"[10.77.0.2]}]"),
		to_host);
	build(w, text);
	for (unsigned i = 0; i < 2; i++) {
		const struct hd_endpoint *node = by_address(w, "blue", i ? "2001:db8::2" : "192.0.2.2");

		assert_non_null(node);
		assert_int_equal(node->flags, HD_ENDPOINT_NODE);
		assert_int_equal(node->peer, networks_peer(w->networks, "b"));
		assert_int_equal(node->ifindex, 0);
		assert_null(by_address(w, "far", i ? "2001:db8::2" : "192.0.2.2"));
	}
	assert_int_equal(by_address(w, "blue", "10.77.0.2")->flags, 0);
	assert_int_equal(w->topology->n_stack, 2);
	for (size_t i = 0; i < w->topology->n_routes; i++)
		if (!w->topology->routes[i].key.network)
			assert_int_equal(w->topology->routes[i].value.network, networks_index(w->networks, "blue"));
	/* What the host comes to have is its own. */
	w->host = addr("2001:db8::2");
	w->n_host = 1;
	take(w);
	assert_int_equal(by_address(w, "blue", "2001:db8::2")->flags, HD_ENDPOINT_TAKEN);
	/* Of two networks with one block the host's stack knows the first one. */
	w->n_host = 0;
	build(w, TUNNEL NETWORK("blue", "vni: 70, subnets: [10.77.0.0/16], routesTo: [host]")
			 NETWORK("red", "vni: 72, subnets: [10.77.0.0/16], routesTo: [host]"));
	assert_int_equal(w->topology->n_stack, 1);
	for (size_t i = 0; i < w->topology->n_routes; i++)
		if (!w->topology->routes[i].key.network)
			assert_int_equal(w->topology->routes[i].value.network, networks_index(w->networks, "blue"));
	/* A workload here that has the address of such a host waits. */
	build(w, TUNNEL NETWORK("blue", "vni: 70, subnets: [10.77.0.0/16], routesTo: [host]")
			 PORT("a", "device: veth-a, network: blue, addresses: ['2001:db8::2']")
				 PEER("b", "address: 192.0.2.2, hostAddresses: ['2001:db8::2']"));
	assert_string_equal(w->topology->ports[0].reason, "2001:db8::2 is the address of a Peer");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_numbers_stay, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_hosts, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_numbers_go_round, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_numbers_are_adopted, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_all_numbers_taken, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_rows, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_this_end, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_learning, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_nobody_is_the_gateway, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_who_is_here_counts, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_what_has_not_changed, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_equal, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_answer, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_many, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
