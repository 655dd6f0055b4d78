/* SPDX-License-Identifier: Apache-2.0 */
/* Peer, and what Host and Network say of the overlay: what is read, and every mistake's words. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <netinet/in.h>

#include <cmocka.h>

#include "model_env.h"
#include <util/addr.h>
#include <util/cleanup.h>

#define PEER(spec) "apiVersion: heddle.dev/v1alpha1\nkind: Peer\nmetadata: {name: node-b}\nspec:\n  address: 192.0.2.2\n" spec
#define PORT(spec) PEER("  ports:\n  - {name: db-1, network: blue" spec "}\n")
#define PREFIX(spec) PEER("  prefixes:\n  - {network: blue, cidr: 10.77.1.0/24" spec "}\n")
#define HOST(tunnel) \
	"apiVersion: heddle.dev/v1alpha1\nkind: Host\nmetadata: {name: node-a}\nspec:\n" \
	"  tunnel: {protocol: vxlan, address: 192.0.2.1" tunnel "}\n"
#define NETWORK(spec) "apiVersion: heddle.dev/v1alpha1\nkind: Network\nmetadata: {name: blue}\nspec: {" spec "}\n"

static void test_peer(void **state)
{
	_cleanup_object_list_ struct object_list list = model_decode(
		PEER("  ports:\n"
		     "  - {name: db-1, namespace: shop, network: blue, mac: 02:00:00:00:00:AB, addresses: [10.77.0.2, "
		     "'fd77::2'],\n"
		     "     labels: {tier: back, app: db}, ports: [{name: sql, port: 5432}]}\n"
		     "  - {name: db-2, network: red}\n"
		     "  prefixes:\n"
		     "  - {network: blue, cidr: 10.77.1.0/24}\n"
		     "  - {network: red, cidr: '::/0', mac: 02:00:00:00:00:01}\n"));
	const struct tunnel_peer *peer = &list.items[0]->tunnel_peer;
	static const uint8_t mac[] = {2, 0, 0, 0, 0, 0xab}, router[] = {2, 0, 0, 0, 0, 1};
	char text[ADDR_TEXT_MAX];

	(void)state;
	assert_int_equal(list.items[0]->kind, OBJECT_PEER);
	assert_null(list.items[0]->namespace_);
	assert_string_equal(addr_format(&peer->address, text), "192.0.2.2");
	assert_int_equal(peer->n_ports, 2);
	assert_string_equal(peer->ports[0].name, "db-1");
	assert_string_equal(peer->ports[0].namespace_, "shop");
	assert_string_equal(peer->ports[0].network, "blue");
	assert_true(peer->ports[0].has_mac);
	assert_memory_equal(peer->ports[0].mac, mac, 6);
	assert_int_equal(peer->ports[0].n_addresses, 2);
	assert_int_equal(peer->ports[0].n_labels, 2);
	assert_string_equal(peer->ports[0].labels[0].key, "app"); /* in order */
	assert_int_equal(peer->ports[0].n_ports, 1);
	assert_int_equal(peer->ports[0].ports[0].port, 5432);
	assert_int_equal(peer->ports[0].ports[0].protocol, IPPROTO_TCP);
	assert_int_equal(peer->ports[0].line, 7);
	assert_string_equal(peer->ports[1].namespace_, "default");
	assert_false(peer->ports[1].has_mac);
	assert_int_equal(peer->ports[1].n_addresses, 0);
	assert_int_equal(peer->n_prefixes, 2);
	assert_string_equal(addr_format_cidr(&peer->prefixes[0].cidr.addr, peer->prefixes[0].cidr.length, text), "10.77.1.0/24");
	assert_false(peer->prefixes[0].has_mac);
	assert_string_equal(peer->prefixes[1].network, "red");
	assert_int_equal(peer->prefixes[1].cidr.length, 0);
	assert_true(peer->prefixes[1].has_mac);
	assert_memory_equal(peer->prefixes[1].mac, router, 6);
	assert_int_equal(peer->prefixes[1].line, 12);
}

static void test_names(void **state)
{
	(void)state;
	assert_int_equal(object_kind_from_name("peer"), OBJECT_PEER);
	assert_int_equal(object_kind_from_name("Peers"), OBJECT_PEER);
	assert_string_equal(object_kind_version(OBJECT_PEER), "heddle.dev/v1alpha1");
}

static void test_tunnel(void **state)
{
	static const struct {
		const char *text;
		uint16_t port;
		uint8_t ttl;
		enum tunnel_decapsulation decapsulate;
		enum tunnel_checksum checksum;
	} cases[] = {
		{HOST(""), 4789, 64, TUNNEL_DECAPSULATE_AUTO, TUNNEL_CHECKSUM_ZERO},
		{HOST(", port: 8472, ttl: 255, decapsulate: xdp"), 8472, 255, TUNNEL_DECAPSULATE_XDP, TUNNEL_CHECKSUM_ZERO},
		{HOST(", ttl: 1, decapsulate: tc"), 4789, 1, TUNNEL_DECAPSULATE_TC, TUNNEL_CHECKSUM_ZERO},
		{HOST(", checksum: full"), 4789, 64, TUNNEL_DECAPSULATE_AUTO, TUNNEL_CHECKSUM_FULL},
		{HOST(", checksum: zero"), 4789, 64, TUNNEL_DECAPSULATE_AUTO, TUNNEL_CHECKSUM_ZERO},
		{"apiVersion: heddle.dev/v1alpha1\nkind: Host\nmetadata: {name: node-a}\n"
		 "spec: {tunnel: {protocol: geneve, address: 'fd00::1', decapsulate: auto}}\n",
			6081, 64, TUNNEL_DECAPSULATE_AUTO, TUNNEL_CHECKSUM_ZERO},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_object_list_ struct object_list list = model_decode(cases[i].text);
		const struct host *host = &list.items[0]->host;

		assert_int_equal(host->tunnel_port, cases[i].port);
		assert_int_equal(host->tunnel_ttl, cases[i].ttl);
		assert_int_equal(host->tunnel_decapsulate, cases[i].decapsulate);
		assert_int_equal(host->tunnel_checksum, cases[i].checksum);
		model_round_trip(cases[i].text);
	}
}

static void test_learning(void **state)
{
	static const struct {
		const char *text;
		bool learning, peers;
	} cases[] = {
		{NETWORK(""), true, true},
		{NETWORK("learning: false"), false, false},
		{NETWORK("learning: false, peerLearning: true"), false, true},
		{NETWORK("peerLearning: false"), true, false},
	};
	uint64_t hashes[ARRAY_SIZE(cases)];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		_cleanup_object_list_ struct object_list list = model_decode(cases[i].text);

		assert_int_equal(list.items[0]->network.learning, cases[i].learning);
		assert_int_equal(list.items[0]->network.peer_learning, cases[i].peers);
		hashes[i] = list.items[0]->hash;
		for (size_t j = 0; j < i; j++)
			assert_true(hashes[i] != hashes[j]);
		model_round_trip(cases[i].text);
	}
}

/* Each says something of its own, and comes back from its JSON. */
static void test_fields_count(void **state)
{
	static const char *const texts[] = {
		PEER(""),
		"apiVersion: heddle.dev/v1alpha1\nkind: Peer\nmetadata: {name: node-b}\nspec: {address: 'fd00::2'}\n",
		PORT(""),
		PORT(", namespace: shop"),
		PORT(", mac: 02:00:00:00:00:01"),
		PORT(", mac: 02:00:00:00:00:02"),
		PORT(", addresses: [10.0.0.1]"),
		PORT(", addresses: [10.0.0.1, 10.0.0.2]"),
		PORT(", addresses: [10.0.0.2, 10.0.0.1]"),
		PORT(", labels: {a: b}"),
		PORT(", labels: {a: c}"),
		PORT(", ports: [{name: a, port: 1}]"),
		PORT(", ports: [{name: a, port: 1, protocol: UDP}]"),
		PEER("  ports: [{name: db-1, network: red}]\n"),
		PEER("  ports: [{name: db-2, network: blue}]\n"),
		PREFIX(""),
		PREFIX(", mac: 02:00:00:00:00:01"),
		PEER("  prefixes: [{network: red, cidr: 10.77.1.0/24}]\n"),
		PEER("  prefixes: [{network: blue, cidr: 10.77.1.0/25}]\n"),
		PEER("  prefixes: [{network: blue, cidr: 10.77.1.0/24}, {network: blue, cidr: 10.77.2.0/24}]\n"),
	};
	uint64_t hashes[ARRAY_SIZE(texts)];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		_cleanup_object_list_ struct object_list list = model_decode(texts[i]);

		hashes[i] = list.items[0]->hash;
		for (size_t j = 0; j < i; j++)
			assert_true(hashes[i] != hashes[j]);
		model_round_trip(texts[i]);
	}
	/* What is left out, written. */
	_cleanup_object_list_ struct object_list bare = model_decode(PORT(""));
	_cleanup_object_list_ struct object_list full =
		model_decode(PORT(", namespace: default, addresses: [], labels: {}, ports: []"));
	assert_true(object_equal(bare.items[0], full.items[0]));
}

static void test_mistakes(void **state)
{
	static const struct {
		const char *text, *message;
	} cases[] = {
		{"apiVersion: v1\nkind: Peer\nmetadata: {name: x}\nspec: {address: 10.0.0.1}\n",
			"t.yaml:1: apiVersion: want heddle.dev/v1alpha1, got v1"},
		{"apiVersion: heddle.dev/v1alpha1\nkind: Peer\nmetadata: {name: x, namespace: a}\nspec: {address: 10.0.0.1}\n",
			"t.yaml:3: metadata.namespace: want no namespace: objects of this kind have none, got a"},
		{"apiVersion: heddle.dev/v1alpha1\nkind: Peer\nmetadata: {name: x}\nspec: {}\n",
			"t.yaml:4: spec.address: want an IPv4 or IPv6 address, got nothing"},
		{"apiVersion: heddle.dev/v1alpha1\nkind: Peer\nmetadata: {name: x}\nspec: {address: 224.0.0.1}\n",
			"t.yaml:4: spec.address: want a unicast address of that host, not of fe80::/10, got 224.0.0.1"},
		{"apiVersion: heddle.dev/v1alpha1\nkind: Peer\nmetadata: {name: x}\nspec: {address: 'fe80::1'}\n",
			"t.yaml:4: spec.address: want a unicast address of that host, not of fe80::/10, got \"fe80::1\""},
		{PEER("  hostAddresses: [10.0.0.2, 'fe80::1']\n"), "t.yaml:6: spec.hostAddresses[1]: want a unicast address of "
								   "that host, not of fe80::/10, got \"fe80::1\""},
		{PEER("  hostAddresses: ['2001:db8::1', 10.0.0.3, '2001:db8::1']\n"),
			"t.yaml:6: spec.hostAddresses[2]: want each address once, and not spec.address, got \"2001:db8::1\""},
		{PORT(", mac: 02:68:65:64:64:6c"),
			"t.yaml:7: spec.ports[0].mac: want another MAC address than the gateway's, got 02:68:65:64:64:6c"},
		{PEER("  colour: blue\n"), "t.yaml:6: spec.colour: want one of the fields address, hostAddresses, ports or "
					   "prefixes, got an unknown one"},
		{PEER("  ports: [{network: blue}, {name: a}]\n"),
			"t.yaml:6: spec.ports[0].name: want a name of at most 253 lower-case letters, digits, '-' and '.', got "
			"nothing\n"
			"t.yaml:6: spec.ports[1].network: want a name of at most 253 lower-case letters, digits, '-' and '.', "
			"got "
			"nothing"},
		{PORT(", namespace: a.b"), "t.yaml:7: spec.ports[0].namespace: want a name of at most 63 lower-case letters, "
					   "digits and '-', got a.b"},
		{PORT(", mac: 01:00:00:00:00:01"), "t.yaml:7: spec.ports[0].mac: want the MAC address of one station, not of a "
						   "group or of nobody, got 01:00:00:00:00:01"},
		{PORT(", addresses: [127.0.0.1]"), "t.yaml:7: spec.ports[0].addresses[0]: want a unicast address, got 127.0.0.1"},
		{PORT(", addresses: [10.0.0.1, 10.0.0.1]"),
			"t.yaml:7: spec.ports[0].addresses[1]: want each address once, got 10.0.0.1"},
		{PORT(", labels: {a: 1}"), "t.yaml:7: spec.ports[0].labels.a: want text (numbers and true or false in quotes), "
					   "got 1"},
		{PORT(", ports: [{name: a, port: 1}, {name: a, port: 2}]"),
			"t.yaml:7: spec.ports[0].ports[1].name: want each name of one protocol once, got a"},
		{PORT(", device: a"), "t.yaml:7: spec.ports[0].device: want one of the fields name, namespace, network, mac, "
				      "addresses, labels or ports, got an unknown one"},
		{PEER("  prefixes: [{network: blue, cidr: 10.0.0.1/8}, {network: blue}]\n"),
			"t.yaml:6: spec.prefixes[0].cidr: want 10.0.0.0/8, got 10.0.0.1/8\n"
			"t.yaml:6: spec.prefixes[1].cidr: want a block such as 10.0.0.0/8 or fd00::/8, got nothing"},
		{PREFIX(", mac: ff:ff:ff:ff:ff:ff"),
			"t.yaml:7: spec.prefixes[0].mac: want the MAC address of one station, not of "
			"a group or of nobody, got ff:ff:ff:ff:ff:ff"},
		{PEER("  prefixes: [{network: blue, cidr: '224.0.0.0/4'}]\n"),
			"t.yaml:6: spec.prefixes[0].cidr: want a block of addresses that hosts send from, not of a group's, "
			"loopback or link-local ones, got \"224.0.0.0/4\""},
		{PEER("  prefixes: [{network: blue, cidr: '239.1.0.0/16'}]\n"),
			"t.yaml:6: spec.prefixes[0].cidr: want a block of addresses that hosts send from, not of a group's, "
			"loopback or link-local ones, got \"239.1.0.0/16\""},
		{PEER("  prefixes: [{network: blue, cidr: '127.0.0.0/8'}]\n"),
			"t.yaml:6: spec.prefixes[0].cidr: want a block of addresses that hosts send from, not of a group's, "
			"loopback or link-local ones, got \"127.0.0.0/8\""},
		{PEER("  prefixes: [{network: blue, cidr: '169.254.1.0/24'}]\n"),
			"t.yaml:6: spec.prefixes[0].cidr: want a block of addresses that hosts send from, not of a group's, "
			"loopback or link-local ones, got \"169.254.1.0/24\""},
		{PEER("  prefixes: [{network: blue, cidr: '0.0.0.0/8'}]\n"),
			"t.yaml:6: spec.prefixes[0].cidr: want a block of addresses that hosts send from, not of a group's, "
			"loopback or link-local ones, got \"0.0.0.0/8\""},
		{PEER("  prefixes: [{network: blue, cidr: 'ff00::/8'}]\n"),
			"t.yaml:6: spec.prefixes[0].cidr: want a block of addresses that hosts send from, not of a group's, "
			"loopback or link-local ones, got \"ff00::/8\""},
		{PEER("  prefixes: [{network: blue, cidr: 'fe80::/64'}]\n"),
			"t.yaml:6: spec.prefixes[0].cidr: want a block of addresses that hosts send from, not of a group's, "
			"loopback or link-local ones, got \"fe80::/64\""},
		{PEER("  prefixes: [{network: blue, cidr: '::1/128'}]\n"),
			"t.yaml:6: spec.prefixes[0].cidr: want a block of addresses that hosts send from, not of a group's, "
			"loopback or link-local ones, got \"::1/128\""},
		{"apiVersion: heddle.dev/v1alpha1\nkind: Host\nmetadata: {name: a}\nspec:\n  uplinks: [{device: "
		 "heddle-tunnel}]\n",
			"t.yaml:5: spec.uplinks[0].device: want a device that is not the agent's own, got heddle-tunnel"},
		{"apiVersion: heddle.dev/v1alpha1\nkind: Port\nmetadata: {name: a}\nspec:\n  {device: heddle-summed, network: "
		 "blue}\n",
			"t.yaml:5: spec.device: want a device that is not the agent's own, got heddle-summed"},
		{HOST(", ttl: 0"), "t.yaml:5: spec.tunnel.ttl: want 1..255, got 0"},
		{HOST(", ttl: 256"), "t.yaml:5: spec.tunnel.ttl: want 1..255, got 256"},
		{HOST(", decapsulate: native"), "t.yaml:5: spec.tunnel.decapsulate: want auto, xdp or tc, got native"},
		{HOST(", checksum: true"), "t.yaml:5: spec.tunnel.checksum: want zero or full, got true"},
		{NETWORK("peerLearning: 1"), "t.yaml:4: spec.peerLearning: want true or false, got 1"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		model_refused(cases[i].text, cases[i].message);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_peer),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_tunnel),
		cmocka_unit_test(test_learning),
		cmocka_unit_test(test_fields_count),
		cmocka_unit_test(test_mistakes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
