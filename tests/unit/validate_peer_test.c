/* SPDX-License-Identifier: Apache-2.0 */
/* Peers that are only wrong beside a Host, Networks, Ports or other Peers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "model_env.h"
#include <model/decode.h>
#include <util/buffer.h>
#include <util/cleanup.h>

#define DOCUMENT(kind, name, spec) \
	"{apiVersion: heddle.dev/v1alpha1, kind: " kind ", metadata: {name: " name "}, spec: {" spec "}}\n---\n"
#define HOST DOCUMENT("Host", "h", "tunnel: {protocol: vxlan, address: 192.0.2.1}")
#define BLUE DOCUMENT("Network", "blue", "vni: 7, subnets: [10.77.0.0/24, 'fd77::/64'], gateway: [10.77.0.254]")
#define RED DOCUMENT("Network", "red", "vni: 8, subnets: [10.77.0.0/24]")
#define PORT(name, spec) DOCUMENT("Port", name, "network: blue, device: " name ", " spec)
#define PEER(name, address, spec) DOCUMENT("Peer", name, "address: '" address "', " spec)
#define B(spec) PEER("b", "192.0.2.2", spec)
#define C(spec) PEER("c", "192.0.2.3", spec)

static void test_good(void **state)
{
	static const char *const texts[] = {
		HOST BLUE RED PORT("web", "mac: 02:00:00:00:00:01, addresses: [10.77.0.1]")
			B("ports: [{name: db, network: blue, mac: 02:00:00:00:00:02, addresses: [10.77.0.2, 'fd77::2']}, "
			  "{name: web, namespace: shop, network: red, mac: 02:00:00:00:00:01, addresses: [10.77.0.1]}, "
			  "{name: bare, network: blue}]")
				C("ports: [{name: db, namespace: shop, network: blue, addresses: [10.77.0.3]}]"),
		/* Nested blocks; the same in two networks; the whole of a family; within a subnet and apart from all. */
		HOST BLUE RED B("prefixes: [{network: blue, cidr: 10.77.1.0/24}, {network: red, cidr: 10.77.1.0/24}, "
				"{network: blue, cidr: 0.0.0.0/0}, {network: blue, cidr: '::/0'}]")
			C("prefixes: [{network: blue, cidr: 10.77.1.0/25}, {network: blue, cidr: 10.77.0.128/25}]"),
		/* Without a Host nothing is said about the tunnel. */
		BLUE PEER("b", "fd00::2", "ports: [{name: db, network: blue}]"),
		DOCUMENT("Host", "h", "tunnel: {protocol: geneve, address: 'fd00::1'}") PEER("b", "fd00::2", ""),
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
		model_invalid(texts[i], NULL);
}

static void test_peers(void **state)
{
	static const struct {
		const char *text, *message;
	} cases[] = {
		{DOCUMENT("Host", "h", "") B(""), "t.yaml:3: want a Host with spec.tunnel beside a Peer, got Host h without one"},
		{HOST PEER("b", "fd00::2", ""),
			"t.yaml:3: spec.address: want an IPv4 address, as the tunnel of Host h has, got fd00::2"},
		{DOCUMENT("Host", "h", "tunnel: {protocol: geneve, address: 'fd00::1'}") B(""),
			"t.yaml:3: spec.address: want an IPv6 address, as the tunnel of Host h has, got 192.0.2.2"},
		{HOST PEER("b", "192.0.2.1", ""),
			"t.yaml:3: spec.address: want another address than that of the tunnel of Host h, got 192.0.2.1"},
		{PEER("b", "192.0.2.9", "") PEER("a", "192.0.2.9", "") PEER("c", "192.0.2.8", ""),
			"t.yaml:1: spec.address: want an address that no other Peer has, got 192.0.2.9, which Peer a has"},
		{PEER("a", "192.0.2.9", "hostAddresses: [10.9.0.1, 192.0.2.8]")
				PEER("b", "192.0.2.8", "hostAddresses: [10.9.0.1]"),
			"t.yaml:3: spec.hostAddresses[0]: want an address that no other Peer has, got 10.9.0.1, which Peer a "
			"has\n"
			"t.yaml:3: spec.address: want an address that no other Peer has, got 192.0.2.8, which Peer a has"},
		{HOST B("hostAddresses: [192.0.2.1]"),
			"t.yaml:3: spec.hostAddresses[0]: want another address than that of the tunnel of Host h, got 192.0.2.1"},
		{HOST DOCUMENT("Network", "blue", "vni: 7, subnets: [10.9.0.0/24], routesTo: [host]")
				B("hostAddresses: [10.9.0.1], ports: [{name: a, network: blue, addresses: [10.9.0.1]}]"),
			"t.yaml:5: spec.ports[0].addresses[0]: want an address of no host, in a Network with routesTo: [host], "
			"got "
			"10.9.0.1, which the host of Peer b has"},
		{HOST B("prefixes: [{network: blue, cidr: 10.0.0.0/8}]"),
			"t.yaml:3: spec.prefixes[0].network: want the name of a Network, got blue, which no document declares"},
		{HOST DOCUMENT("Network", "blue", "") B("prefixes: [{network: blue, cidr: 10.0.0.0/8}]"),
			"t.yaml:5: spec.prefixes[0].network: want a Network with a vni, got blue, which has none"},
		{HOST BLUE B("prefixes: [{network: blue, cidr: 10.0.0.0/8}, {network: blue, cidr: 10.0.0.0/8}]"),
			"t.yaml:5: spec.prefixes[1].cidr: want a block that no other prefix of its network is, got 10.0.0.0/8, "
			"which spec.prefixes[0] has"},
		{HOST BLUE B("prefixes: [{network: blue, cidr: 10.1.0.0/16}]")
				C("prefixes: [{network: blue, cidr: 10.0.0.0/8}, {network: blue, cidr: 10.1.0.0/16}]"),
			"t.yaml:7: spec.prefixes[1].cidr: want a block that no other prefix of its network is, got 10.1.0.0/16, "
			"which Peer b has"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		model_invalid(cases[i].text, cases[i].message);
}

static void test_workloads(void **state)
{
	static const struct {
		const char *text, *message;
	} cases[] = {
		{B("ports: [{name: db, network: blue, addresses: [10.0.0.1]}]"),
			"t.yaml:1: spec.ports[0].network: want the name of a Network, got blue, which no document declares"},
		{DOCUMENT("Network", "blue", "vlan: 7, subnets: [10.77.0.0/24]") B("ports: [{name: db, network: blue}]"),
			"t.yaml:3: spec.ports[0].network: want a Network with a vni, got blue, which has none"},
		{BLUE B("ports: [{name: x, network: blue},\n\n{name: db, network: blue, addresses: [10.78.0.1, 10.77.0.254, "
			"10.77.0.0]}]"),
			"t.yaml:5: spec.ports[1].addresses[0]: want an address in a subnet of Network blue, got 10.78.0.1\n"
			"t.yaml:5: spec.ports[1].addresses[1]: want another address than the gateway's of Network blue, got "
			"10.77.0.254\n"
			"t.yaml:5: spec.ports[1].addresses[2]: want an address that one host in 10.77.0.0/24 can have, got "
			"10.77.0.0"},
		/* an address: in one Peer, of two, and here */
		{BLUE B("ports: [{name: x, network: blue, addresses: [10.77.0.1]}, "
			"{name: y, network: blue, addresses: [10.77.0.2, 10.77.0.1]}]"),
			"t.yaml:3: spec.ports[1].addresses[1]: want an address that no other Port of its network has, got "
			"10.77.0.1, which spec.ports[0] has"},
		{BLUE C("ports: [{name: x, network: blue, addresses: [10.77.0.1]}]")
				B("ports: [{name: y, network: blue, addresses: [10.77.0.1]}]"),
			"t.yaml:3: spec.ports[0].addresses[0]: want an address that no other Port of its network has, got "
			"10.77.0.1, which Port default/y of Peer b has"},
		{BLUE B("ports: [{name: x, network: blue, addresses: [10.77.0.1]}]") PORT("web", "addresses: [10.77.0.1]"),
			"t.yaml:3: spec.ports[0].addresses[0]: want an address that no other Port of its network has, got "
			"10.77.0.1, which Port default/web has"},
		/* a MAC */
		{BLUE B("ports: [{name: x, network: blue, mac: 02:00:00:00:00:01}, "
			"{name: y, network: blue, mac: 02:00:00:00:00:01}]"),
			"t.yaml:3: spec.ports[1].mac: want a MAC address that no other Port of its network has, got "
			"02:00:00:00:00:01, which spec.ports[0] has"},
		{BLUE B("ports: [{name: x, network: blue, mac: 02:00:00:00:00:01}]")
				C("ports: [{name: y, network: blue, mac: 02:00:00:00:00:01}]"),
			"t.yaml:5: spec.ports[0].mac: want a MAC address that no other Port of its network has, got "
			"02:00:00:00:00:01, which Port default/x of Peer b has"},
		{BLUE B("ports: [{name: x, network: blue, mac: 02:00:00:00:00:01}]") PORT("web", "mac: 02:00:00:00:00:01"),
			"t.yaml:3: spec.ports[0].mac: want a MAC address that no other Port of its network has, got "
			"02:00:00:00:00:01, which Port default/web has"},
		/* a name, in whatever network */
		{BLUE RED B("ports: [{name: x, network: blue}, {name: x, network: red}]"),
			"t.yaml:5: spec.ports[1].name: want a name that no other Port of its namespace has, got default/x, which "
			"spec.ports[0] has"},
		{BLUE B("ports: [{name: x, namespace: shop, network: blue}]")
				C("ports: [{name: x, namespace: shop, network: blue}]"),
			"t.yaml:5: spec.ports[0].name: want a name that no other Port of its namespace has, got shop/x, which "
			"Port shop/x of Peer b has"},
		{BLUE B("ports: [{name: web, network: blue}]") PORT("web", ""),
			"t.yaml:3: spec.ports[0].name: want a name that no other Port of its namespace has, got default/web, "
			"which Port default/web has"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		model_invalid(cases[i].text, cases[i].message);
}

static unsigned dice(unsigned *seed, unsigned n)
{
	*seed = *seed * 1103515245u + 12345u;
	return (*seed >> 16) % n;
}

/* Of one Peer, or a Port: few names, addresses and MACs, so that they are often the same. seed 0: none. */
static void random_workloads(struct buffer *text, unsigned seed, unsigned owner)
{
	unsigned n = seed ? dice(&seed, 4) : 0;

	if (owner == 0) {
		if (n)
			buffer_printf(text, PORT("w%u", "mac: '02:00:00:00:00:%02x', addresses: [10.77.0.%u]"), dice(&seed, 100),
				n, dice(&seed, 250), 1 + dice(&seed, 120));
		return;
	}
	buffer_printf(text,
		"{apiVersion: heddle.dev/v1alpha1, kind: Peer, metadata: {name: p%u}, spec: {address: 192.0.2.%u, ports: [",
		owner, 10 + owner);
	for (unsigned i = 0; i < n; i++)
		buffer_printf(text,
			"{name: w%u, namespace: n%u, network: %s, mac: '02:00:00:00:00:%02x', addresses: [10.77.0.%u, "
			"10.77.0.%u], "
			"labels: {app: a%u}}, ",
			dice(&seed, 100), dice(&seed, 2), dice(&seed, 3) ? "blue" : "red", dice(&seed, 250), 1 + dice(&seed, 120),
			121 + dice(&seed, 120), dice(&seed, 2));
	buffer_printf(text, "]}}\n---\n");
}

/* What has changed against a whole in order is judged as the whole is. */
static void test_changes(void **state)
{
	unsigned seed = 1, seeds[8] = {0}, good = 0, bad = 0;
	struct object_list valid = {0};

	(void)state;
	for (unsigned round = 0; round < 4000; round++) {
		_cleanup_diag_ struct diag whole = {0}, change = {0};
		_cleanup_buffer_ struct buffer text = {0};
		struct object_list all;
		unsigned owner = dice(&seed, 8), before = seeds[owner], with = dice(&seed, 50);
		int r;

		seeds[owner] = dice(&seed, 1000);
		buffer_printf(&text, HOST BLUE "%s", with ? RED : DOCUMENT("Network", "red", "vlan: 8, subnets: [10.77.0.0/26]"));
		for (unsigned i = 0; i < 8; i++)
			random_workloads(&text, seeds[i], i);
		all = model_decode(text.data);
		object_list_sort(&all);
		r = model_validate(&all, &whole);
		assert_int_equal(model_validate_change(&all, &valid, &change), r);
		assert_int_equal(change.errors, whole.errors);
		if (whole.text)
			assert_string_equal(change.text, whole.text);
		if (r < 0) {
			seeds[owner] = before;
			object_list_clear(&all);
			bad++;
			continue;
		}
		object_list_clear(&valid);
		valid = all;
		good++;
	}
	object_list_clear(&valid);
	assert_in_range(good, 400, 3600);
	assert_in_range(bad, 400, 3600);
}

/* 1,000 peers, 100,000 addresses and 10,000 prefixes, and all in one Peer: no longer than a look at each. */
static void test_many(void **state)
{
	static const char network[] = DOCUMENT("Network", "blue", "vni: 7, subnets: [10.0.0.0/8]");
	static const char workload[] =
		"{name: w%u, network: blue, mac: '02:00:00:%02x:%02x:%02x', addresses: [10.%u.%u.%u], labels: {app: a%u}}, ";

	(void)state;
	for (unsigned peers = 1; peers <= 1000; peers *= 1000) {
		_cleanup_buffer_ struct buffer text = {0};
		unsigned n = 0, each = 100000 / peers;

		buffer_printf(&text, "%s%s", HOST, network);
		for (unsigned i = 0; i < peers; i++) {
			buffer_printf(&text,
				"{apiVersion: heddle.dev/v1alpha1, kind: Peer, metadata: {name: p%u}, spec: {address: "
				"198.18.%u.%u, "
				"prefixes: [",
				i, i / 256, i % 256);
			for (unsigned j = 0; j < each / 10; j++)
				buffer_printf(&text, "{network: blue, cidr: 172.%u.%u.0/24}, ", (i * (each / 10) + j) / 256,
					(i * (each / 10) + j) % 256);
			buffer_add_string(&text, "], ports: [");
			for (unsigned j = 0; j < each; j++, n++)
				buffer_printf(&text, workload, n, n >> 16, n >> 8 & 255, n & 255, n / 62500, n / 250 % 250,
					n % 250 + 1, n % 100);
			buffer_add_string(&text, "]}}\n---\n");
		}
		model_invalid(text.data, NULL);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_good),
		cmocka_unit_test(test_peers),
		cmocka_unit_test(test_workloads),
		cmocka_unit_test(test_changes),
		cmocka_unit_test(test_many),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
