/* SPDX-License-Identifier: Apache-2.0 */
/* Network, Port and Namespace: what is read, and every mistake's words. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <netinet/in.h>

#include <cmocka.h>

#include "model_env.h"
#include <model/decode.h>
#include <util/addr.h>
#include <util/cleanup.h>

#define NETWORK(spec) "apiVersion: heddle.dev/v1alpha1\nkind: Network\nmetadata: {name: blue}\nspec:\n" spec
#define PORT(spec) "apiVersion: heddle.dev/v1alpha1\nkind: Port\nmetadata: {name: web-1}\nspec:\n  network: blue\n" spec
#define NAMESPACE(metadata) "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop" metadata "}\n"

static void test_network(void **state)
{
	_cleanup_object_list_ struct object_list list =
		model_decode(NETWORK("  vni: 100\n  vlan: 10\n  mode: l3\n  subnets: [10.77.0.0/24, 'fd77::/64']\n"
				     "  gateway: [10.77.0.254, 'fd77::fe']\n  learning: false\n  routesTo: [red, host]\n  mtu: "
				     "1400\n"));
	const struct network *network = &list.items[0]->network;
	char text[ADDR_TEXT_MAX];

	(void)state;
	assert_int_equal(list.items[0]->kind, OBJECT_NETWORK);
	assert_null(list.items[0]->namespace_);
	assert_int_equal(network->vni, 100);
	assert_int_equal(network->vlan, 10);
	assert_true(network->l3);
	assert_false(network->learning);
	assert_int_equal(network->n_subnets, 2);
	assert_string_equal(addr_format_cidr(&network->subnets[1].addr, network->subnets[1].length, text), "fd77::/64");
	assert_int_equal(network->n_gateways, 2);
	assert_string_equal(addr_format(&network->gateways[0], text), "10.77.0.254");
	assert_int_equal(network->n_routes_to, 2);
	assert_string_equal(network->routes_to[1], NETWORK_HOST);
	assert_int_equal(network->mtu, 1400);

	_cleanup_object_list_ struct object_list bare = model_decode(NETWORK("  {}\n"));
	assert_false(bare.items[0]->network.l3);
	assert_true(bare.items[0]->network.learning);
	assert_int_equal(bare.items[0]->network.mtu, 0);
	assert_int_equal(bare.items[0]->network.n_subnets, 0);
}

static void test_port(void **state)
{
	_cleanup_object_list_ struct object_list list =
		model_decode(PORT("  device: veth-web\n  mac: 02:00:00:00:AB:01\n  addresses: [10.77.0.1, 'fd77::1']\n"
				  "  vlan: {mode: trunk, allowed: [20, 100-110, 10], native: 10}\n"
				  "  ports: [{name: http, port: 8080}, {name: dns, protocol: UDP, port: 53}]\n"));
	const struct port *port = &list.items[0]->port;
	static const uint8_t mac[] = {2, 0, 0, 0, 0xab, 1};

	(void)state;
	assert_int_equal(list.items[0]->kind, OBJECT_PORT);
	assert_string_equal(list.items[0]->namespace_, "default");
	assert_string_equal(port->device, "veth-web");
	assert_null(port->vf_pf);
	assert_null(port->pci);
	assert_string_equal(port->network, "blue");
	assert_true(port->has_mac);
	assert_memory_equal(port->mac, mac, 6);
	assert_int_equal(port->n_addresses, 2);
	assert_int_equal(port->vlan_mode, PORT_VLAN_TRUNK);
	assert_int_equal(port->vlan_native, 10);
	assert_int_equal(port->n_vlan_allowed, 3);
	assert_int_equal(port->vlan_allowed[0].first, 10); /* in order */
	assert_int_equal(port->vlan_allowed[0].last, 10);
	assert_int_equal(port->vlan_allowed[2].first, 100);
	assert_int_equal(port->vlan_allowed[2].last, 110);
	assert_int_equal(port->n_ports, 2);
	assert_string_equal(port->ports[0].name, "http");
	assert_int_equal(port->ports[0].protocol, IPPROTO_TCP);
	assert_int_equal(port->ports[0].port, 8080);
	assert_int_equal(port->ports[1].protocol, IPPROTO_UDP);
}

static void test_namespace(void **state)
{
	/* As `kubectl get -o yaml` prints one. */
	_cleanup_object_list_ struct object_list list =
		model_decode(NAMESPACE(", labels: {team: a, a: b}, creationTimestamp: null, uid: x, resourceVersion: '1', "
				       "managedFields: [{}]") "spec: {finalizers: [kubernetes]}\nstatus: {phase: Active}\n");
	const struct object *object = list.items[0];

	(void)state;
	assert_int_equal(object->kind, OBJECT_NAMESPACE);
	assert_int_equal(object->n_labels, 3);
	assert_string_equal(object->labels[0].key, "a");
	assert_string_equal(object->labels[1].key, "kubernetes.io/metadata.name");
	assert_string_equal(object->labels[1].value, "shop");
	assert_string_equal(object->labels[2].key, "team");
	/* It may be written too; without spec and labels it is there all the same. */
	_cleanup_object_list_ struct object_list written =
		model_decode(NAMESPACE(", labels: {kubernetes.io/metadata.name: shop}"));
	_cleanup_object_list_ struct object_list bare = model_decode(NAMESPACE(""));
	assert_int_equal(bare.items[0]->n_labels, 1);
	assert_true(object_equal(written.items[0], bare.items[0]));
}

static void test_round_trip(void **state)
{
	static const char *const texts[] = {
		NETWORK("  vni: 100\n  vlan: 10\n  mode: l3\n  subnets: [10.77.0.0/24, 'fd77::/64']\n"
			"  gateway: [10.77.0.254, 'fd77::fe']\n  learning: false\n  routesTo: [red, host]\n  mtu: 1400\n"),
		NETWORK("  {}\n"),
		PORT("  device: veth-web\n  mac: 02:00:00:00:AB:01\n  addresses: [10.77.0.1, 'fd77::1']\n"
		     "  vlan: {mode: trunk, allowed: [20, 100-110, 10], native: 10}\n"
		     "  ports: [{name: http, port: 8080}, {name: dns, protocol: UDP, port: 53}]\n"),
		PORT("  vf: {pf: eth1, index: 0}\n  vlan: {mode: access, id: 7}\n"),
		PORT("  vf: {pf: eth1, index: 0, mac: 02:00:00:00:00:03, vlan: 10, qos: 2, minRate: 1, maxRate: 500, spoofCheck: "
		     "false, trust: true,"
		     " linkState: enable}\n"),
		PORT("  vf: {pf: eth1, index: 0, vlan: 0}\n"),
		PORT("  pci: 0000:01:1f.7\n  vlan: {mode: trunk, allowed: [4094]}\n"),
		PORT("  pci: 0000:01:1f.7\n  vf: {vlan: 7, spoofCheck: true}\n"),
		PORT("  device: a\n  bandwidth: {ingress: {rate: 1.5G, burst: 4Mi}, egress: {rate: 2000}}\n"),
		PORT("  device: a\n  bandwidth: {egress: {rate: 4T, burst: 1}}\n"),
		PORT("  device: a\n  bandwidth: {}\n"),
		NAMESPACE(", labels: {team: a}, annotations: {x: y}"),
	};

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		model_round_trip(texts[i]);
}

static void test_bandwidth(void **state)
{
	static const struct {
		const char *text;
		uint64_t rate;
	} rates[] = {
		{"1000", 1000},
		{"'10M'", 10000000},
		{"1.5G", 1500000000},
		{"0.5M", 500000},
		{"1Mi", 1048000}, /* whole kbit/s */
		{"4T", UINT64_C(4000000000000)},
		{"1Gi", 1073741000},
		{"12.345678M", 12345000},
	};
	static const char *const refused[] = {"5T", "0.9k", "1.0001", "-1", "1e6", "010M", "''", ".5M", "1.M", "1 M", "1MB",
		"[1]", "99999999999999999999", "1000000000000000T", "true"};
	char text[256], message[256];

	(void)state;
	for (size_t i = 0; i < sizeof(rates) / sizeof(rates[0]); i++) {
		snprintf(text, sizeof(text), PORT("  device: a\n  bandwidth: {egress: {rate: %s, burst: 512Ki}}\n"),
			rates[i].text);
		_cleanup_object_list_ struct object_list list = model_decode(text);
		const struct port *port = &list.items[0]->port;

		assert_int_equal(port->limit[HD_EGRESS].rate, rates[i].rate);
		assert_int_equal(port->limit[HD_EGRESS].burst, 524288);
		assert_int_equal(port->limit[HD_INGRESS].rate, 0);
	}
	for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
		_cleanup_object_list_ struct object_list list = {0};
		_cleanup_diag_ struct diag diag = {0};

		snprintf(text, sizeof(text), PORT("  device: a\n  bandwidth: {egress: {rate: %s}}\n"), refused[i]);
		snprintf(message, sizeof(message), "spec.bandwidth.egress.rate: want bits a second from 1k to 4T");
		assert_int_equal(decode_documents("t.yaml", text, strlen(text), &list, &diag), -EINVAL);
		assert_non_null(strstr(diag.text, message));
	}
}

/* Each says something of its own. */
static void test_fields_count(void **state)
{
	static const char *const texts[] = {
		NETWORK("  {}\n"),
		NETWORK("  vni: 1\n"),
		NETWORK("  vlan: 1\n"),
		NETWORK("  mode: l3\n"),
		NETWORK("  subnets: [10.0.0.0/8]\n"),
		NETWORK("  subnets: [10.0.0.0/8]\n  gateway: [10.0.0.1]\n"),
		NETWORK("  learning: false\n"),
		NETWORK("  routesTo: [a]\n"),
		NETWORK("  mtu: 1500\n"),
		PORT("  device: a\n"),
		PORT("  vf: {pf: a, index: 0}\n"),
		PORT("  vf: {pf: a, index: 1}\n"),
		PORT("  pci: 0000:00:00.0\n"),
		PORT("  device: a\n  mac: 02:00:00:00:00:01\n"),
		PORT("  device: a\n  addresses: [10.0.0.1]\n"),
		PORT("  device: a\n  vlan: {mode: access, id: 1}\n"),
		PORT("  device: a\n  vlan: {mode: qinq, id: 1}\n"),
		PORT("  device: a\n  vlan: {mode: trunk, allowed: [1]}\n"),
		PORT("  device: a\n  vlan: {mode: trunk, allowed: [1], native: 1}\n"),
		PORT("  device: a\n  vlan: {mode: trunk, allowed: [1-2]}\n"),
		PORT("  device: a\n  bandwidth: {ingress: {rate: 1M}}\n"),
		PORT("  device: a\n  bandwidth: {egress: {rate: 1M}}\n"),
		PORT("  device: a\n  bandwidth: {egress: {rate: 2M}}\n"),
		PORT("  device: a\n  bandwidth: {egress: {rate: 1M, burst: 1M}}\n"),
		PORT("  device: a\n  ports: [{name: a, port: 1}]\n"),
		PORT("  device: a\n  ports: [{name: b, port: 1}]\n"),
		PORT("  device: a\n  ports: [{name: a, port: 2}]\n"),
		PORT("  device: a\n  ports: [{name: a, protocol: SCTP, port: 1}]\n"),
		NETWORK("  routesTo: [host]\n"),
		NETWORK("  routesTo: [host]\n  masquerade: {}\n"),
		NETWORK("  masquerade: {enabled: false}\n"),
		NETWORK("  routesTo: [host]\n  services: []\n"),
		NETWORK("  routesTo: [host]\n  services: [10.96.0.0/12]\n"),
		NETWORK("  routesTo: [host]\n  services: [10.96.0.0/12, 'fd96::/108']\n"),
		NETWORK("  routesTo: [host]\n  masquerade: {exclude: [10.0.0.0/8, 'fd00::/8']}\n"),
		PORT("  device: a\n  addresses: [10.0.0.1, 'fd00::1']\n  hostPorts: [{hostPort: 1, port: 2}]\n"),
		PORT("  device: a\n  addresses: [10.0.0.1, 'fd00::1']\n  hostPorts: [{hostPort: 2, port: 1}]\n"),
		PORT("  device: a\n  addresses: [10.0.0.1, 'fd00::1']\n  hostPorts: [{hostPort: 1, port: 2, protocol: SCTP}]\n"),
		PORT("  device: a\n  addresses: [10.0.0.1, 'fd00::1']\n  hostPorts: [{hostPort: 1, port: 2, hostAddress: "
		     "192.0.2.1}, "
		     "{hostPort: 1, port: 2, hostAddress: '::'}]\n"),
		NAMESPACE(""),
		NAMESPACE(", labels: {a: b}"),
	};
	uint64_t hashes[sizeof(texts) / sizeof(texts[0])];

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		_cleanup_object_list_ struct object_list list = model_decode(texts[i]);

		hashes[i] = list.items[0]->hash;
		for (size_t j = 0; j < i; j++)
			assert_true(hashes[i] != hashes[j]);
		model_round_trip(texts[i]);
	}
}

static void test_mistakes(void **state)
{
	static const struct {
		const char *text, *message;
	} cases[] = {
		/* networks */
		{"apiVersion: v1\nkind: Network\nmetadata: {name: x}\nspec: {}\n",
			"t.yaml:1: apiVersion: want heddle.dev/v1alpha1, got v1"},
		{"apiVersion: heddle.dev/v1alpha1\nkind: Network\nmetadata: {name: host}\nspec: {}\n",
			"t.yaml:3: metadata.name: want a name of at most 253 lower-case letters, digits, '-' and '.', other than "
			"host, the host's own network, got host"},
		{"apiVersion: heddle.dev/v1alpha1\nkind: Network\nmetadata: {name: x, namespace: a}\nspec: {}\n",
			"t.yaml:3: metadata.namespace: want no namespace: objects of this kind have none, got a"},
		{"apiVersion: heddle.dev/v1alpha1\nkind: Network\nmetadata: {name: x, uid: a}\nspec: {}\n",
			"t.yaml:3: metadata.uid: want one of the fields name, namespace, labels or annotations, got an unknown "
			"one"},
		{NETWORK("  vni: 0\n"), "t.yaml:5: spec.vni: want 1..16777215, got 0"},
		{NETWORK("  vni: 16777216\n"), "t.yaml:5: spec.vni: want 1..16777215, got 16777216"},
		{NETWORK("  vlan: 4095\n"), "t.yaml:5: spec.vlan: want 1..4094, got 4095"},
		{NETWORK("  mode: l4\n"), "t.yaml:5: spec.mode: want l2 or l3, got l4"},
		{NETWORK("  mtu: 67\n"), "t.yaml:5: spec.mtu: want auto or 68..65535, got 67"},
		{NETWORK("  mtu: 1279\n  subnets: ['fd00::/64']\n"),
			"t.yaml:5: spec.mtu: want 1280..65535 with an IPv6 subnet, got 1279"},
		{NETWORK("  subnets: [10.0.0.1/8]\n"), "t.yaml:5: spec.subnets[0]: want 10.0.0.0/8, got 10.0.0.1/8"},
		{NETWORK("  subnets: [10.0.0.0/8, 10.1.0.0/16]\n"),
			"t.yaml:5: spec.subnets[1]: want a block apart from 10.0.0.0/8, got 10.1.0.0/16"},
		{NETWORK("  subnets: [10.0.0.0/8]\n  gateway:\n  - 11.0.0.1\n"),
			"t.yaml:7: spec.gateway[0]: want an address in one of the network's subnets, got 11.0.0.1"},
		{NETWORK("  subnets: [10.0.0.0/8]\n  gateway: [10.255.255.255]\n"),
			"t.yaml:6: spec.gateway[0]: want an address that one host in 10.0.0.0/8 can have, got 10.255.255.255"},
		{NETWORK("  subnets: [10.0.0.0/8]\n  gateway: [10.0.0.1, 10.0.0.2]\n"),
			"t.yaml:6: spec.gateway[1]: want one gateway for 10.0.0.0/8, got 10.0.0.2"},
		{NETWORK("  gateway: 10.0.0.1\n"), "t.yaml:5: spec.gateway: want a list of addresses, got 10.0.0.1"},
		{NETWORK("  routesTo: [a, b, a]\n"), "t.yaml:5: spec.routesTo[2]: want each network once, got a"},
		{NETWORK("  colour: blue\n"),
			"t.yaml:5: spec.colour: want one of the fields vni, vlan, mode, subnets, gateway, "
			"learning, peerLearning, routesTo, mtu, masquerade or services, got an unknown one"},
		{NETWORK("  masquerade: {}\n"),
			"t.yaml:5: spec.masquerade: want it only with host among routesTo, got a mapping"},
		{NETWORK("  services: [10.0.0.0/8]\n"),
			"t.yaml:5: spec.services: want it only with host among routesTo, got a list"},
		{NETWORK("  routesTo: [host]\n  masquerade: {exclude: [10.0.0.1/8]}\n"),
			"t.yaml:6: spec.masquerade.exclude[0]: want 10.0.0.0/8, got 10.0.0.1/8"},
		/* ports */
		{PORT("  device: a\n  addresses: [10.0.0.1]\n  hostPorts: [{port: 1}]\n"),
			"t.yaml:8: spec.hostPorts[0].hostPort: want 1..65535, got nothing"},
		{PORT("  device: a\n  addresses: [10.0.0.1]\n  hostPorts: [{hostPort: 1, port: 1, hostAddress: 127.0.0.1}]\n"),
			"t.yaml:8: spec.hostPorts[0].hostAddress: want an address of the host other than that of its loopback, "
			"got 127.0.0.1"},
		{PORT("  device: a\n  addresses: [10.0.0.1]\n  hostPorts: [{hostPort: 1, port: 1, hostAddress: 224.0.0.1}]\n"),
			"t.yaml:8: spec.hostPorts[0].hostAddress: want an address of the host, 0.0.0.0 or \"::\", got 224.0.0.1"},
		{PORT("  device: a\n  addresses: [10.0.0.1]\n"
		      "  hostPorts: [{hostPort: 1, port: 1}, {hostPort: 1, port: 2, hostAddress: 192.0.2.1}]\n"),
			"t.yaml:8: spec.hostPorts[1]: want each port of an address of the host once, got a mapping"},
		{PORT("  device: a\n  addresses: [10.0.0.1]\n  hostPorts: [{hostPort: 1, port: 1, hostAddress: '::'}]\n"),
			"t.yaml:8: spec.hostPorts[0]: want a port with an IPv6 address of its own to lead to, got a mapping"},
		{PORT("  device: a\n  hostPorts: [{hostPort: 1, port: 1}]\n"),
			"t.yaml:7: spec.hostPorts[0]: want a port with an address of its own to lead to, got a mapping"},
		{PORT(""), "t.yaml:5: spec: want one of device, vf or pci, got none of them"},
		{PORT("  device: a\n  pci: 0000:01:00.0\n"),
			"t.yaml:5: spec: want one of device, vf or pci, got several of them"},
		{"apiVersion: heddle.dev/v1alpha1\nkind: Port\nmetadata: {name: x}\nspec: {device: a}\n",
			"t.yaml:4: spec.network: want a name of at most 253 lower-case letters, digits, '-' and '.', got "
			"nothing"},
		{"apiVersion: heddle.dev/v1alpha1\nkind: Port\nmetadata: {name: x, namespace: a.b}\nspec: {device: a, network: "
		 "b}\n",
			"t.yaml:3: metadata.namespace: want a name of at most 63 lower-case letters, digits and '-', got a.b"},
		{PORT("  device: much-too-long-a-name\n"),
			"t.yaml:6: spec.device: want the name of an interface, at most 15 bytes, got much-too-long-a-name"},
		{PORT("  vf: {pf: eth0}\n"), "t.yaml:6: spec.vf.index: want both of pf and index, got nothing"},
		{PORT("  vf: {index: 1}\n"), "t.yaml:6: spec.vf.pf: want both of pf and index, got nothing"},
		{PORT("  vf: {vlan: 1}\n"), "t.yaml:5: spec.vf: want pf and index, or pci beside it, got neither"},
		{PORT("  device: a\n  vf: {vlan: 1}\n"), "t.yaml:5: spec.vf: want pf and index, or pci beside it, got neither"},
		{PORT("  pci: 0000:01:10.0\n  vf: {pf: eth0, index: 0}\n"),
			"t.yaml:5: spec: want one of device, vf or pci, got several of them"},
		{PORT("  pci: 01:00.0\n"),
			"t.yaml:6: spec.pci: want a PCI address such as 0000:01:10.0, lower case, got 01:00.0"},
		{PORT("  pci: 0000:01:20.0\n"),
			"t.yaml:6: spec.pci: want a PCI address such as 0000:01:10.0, lower case, got 0000:01:20.0"},
		{PORT("  device: a\n  mac: 02-00-00-00-00-01\n"),
			"t.yaml:7: spec.mac: want a MAC address such as 02:00:00:00:00:01, got 02-00-00-00-00-01"},
		{PORT("  device: a\n  mac: 02:00:00:00:00:01:02\n"),
			"t.yaml:7: spec.mac: want a MAC address such as 02:00:00:00:00:01, got 02:00:00:00:00:01:02"},
		{PORT("  device: a\n  mac: 01:00:00:00:00:01\n"),
			"t.yaml:7: spec.mac: want the MAC address of one station, not of a group or of nobody, got "
			"01:00:00:00:00:01"},
		{PORT("  device: a\n  mac: 00:00:00:00:00:00\n"),
			"t.yaml:7: spec.mac: want the MAC address of one station, not of a group or of nobody, got "
			"00:00:00:00:00:00"},
		{PORT("  device: a\n  mac: 02:68:65:64:64:6C\n"),
			"t.yaml:7: spec.mac: want another MAC address than the gateway's, got 02:68:65:64:64:6C"},
		{PORT("  device: a\n  addresses: [224.0.0.1]\n"),
			"t.yaml:7: spec.addresses[0]: want a unicast address, got 224.0.0.1"},
		{PORT("  device: a\n  addresses: ['::1']\n"), "t.yaml:7: spec.addresses[0]: want a unicast address, got \"::1\""},
		{PORT("  device: a\n  addresses: [10.0.0.1, 10.0.0.1]\n"),
			"t.yaml:7: spec.addresses[1]: want each address once, got 10.0.0.1"},
		{PORT("  device: a\n  vlan: {id: 1}\n"), "t.yaml:7: spec.vlan.mode: want access, trunk or qinq, got nothing"},
		{PORT("  device: a\n  vlan: {mode: qinq}\n"), "t.yaml:7: spec.vlan.id: want 1..4094, got nothing"},
		{PORT("  device: a\n  vlan: {mode: qinq, id: 1, allowed: [2]}\n"),
			"t.yaml:7: spec.vlan.allowed: want allowed only with mode: trunk, got a list"},
		{PORT("  device: a\n  vlan: {mode: access}\n"), "t.yaml:7: spec.vlan.id: want 1..4094, got nothing"},
		{PORT("  device: a\n  vlan: {mode: access, id: 1, native: 1}\n"),
			"t.yaml:7: spec.vlan.native: want native only with mode: trunk, got 1"},
		{PORT("  device: a\n  vlan: {mode: trunk, id: 1}\n"),
			"t.yaml:7: spec.vlan.id: want id only with mode: access or qinq, got 1"},
		{PORT("  device: a\n  vlan: {mode: trunk}\n"), "t.yaml:7: spec.vlan.allowed: want a list of VLANs, got nothing"},
		{PORT("  device: a\n  vlan: {mode: trunk, allowed: []}\n"),
			"t.yaml:7: spec.vlan.allowed: want at least one of VLANs, got an empty list"},
		{PORT("  device: a\n  vlan: {mode: trunk, allowed: [1-, 2-1, 0, 5000, '1-2-3', 01]}\n"),
			"t.yaml:7: spec.vlan.allowed[0]: want 1..4094 or a range of them such as 100-110, got 1-\n"
			"t.yaml:7: spec.vlan.allowed[1]: want 1..4094 or a range of them such as 100-110, got 2-1\n"
			"t.yaml:7: spec.vlan.allowed[2]: want 1..4094 or a range of them such as 100-110, got 0\n"
			"t.yaml:7: spec.vlan.allowed[3]: want 1..4094 or a range of them such as 100-110, got 5000\n"
			"t.yaml:7: spec.vlan.allowed[4]: want 1..4094 or a range of them such as 100-110, got \"1-2-3\"\n"
			"t.yaml:7: spec.vlan.allowed[5]: want 1..4094 or a range of them such as 100-110, got 01"},
		{PORT("  device: a\n  vlan: {mode: trunk, allowed: [10-20, 15]}\n"),
			"t.yaml:7: spec.vlan.allowed: want each VLAN once, got 15 again"},
		{PORT("  device: a\n  vlan: {mode: trunk, allowed: [10-20], native: 21}\n"),
			"t.yaml:7: spec.vlan.native: want one of the allowed VLANs, got 21"},
		{PORT("  device: a\n  ports: [{name: h--p, port: 1}, {name: '80', port: 80}, {name: a}, {name: b, protocol: "
		      "ICMP, port: 1}]\n"),
			"t.yaml:7: spec.ports[0].name: want a name of at most 15 lower-case letters, digits and '-', one letter "
			"at "
			"least, got h--p\n"
			"t.yaml:7: spec.ports[1].name: want a name of at most 15 lower-case letters, digits and '-', one letter "
			"at "
			"least, got \"80\"\n"
			"t.yaml:7: spec.ports[2].port: want 1..65535, got nothing\n"
			"t.yaml:7: spec.ports[3].protocol: want TCP, UDP or SCTP, got ICMP"},
		{PORT("  device: a\n  ports: [{name: a, port: 1}, {name: a, protocol: UDP, port: 1}, {name: a, port: 2}]\n"),
			"t.yaml:7: spec.ports[2].name: want each name of one protocol once, got a"},
		{PORT("  device: a\n  bandwidth: {ingress: {burst: 1M}, egress: {rate: 999}}\n"),
			"t.yaml:7: spec.bandwidth.ingress.rate: want bits a second from 1k to 4T, such as 10M, got nothing\n"
			"t.yaml:7: spec.bandwidth.egress.rate: want bits a second from 1k to 4T, such as 10M, got 999"},
		{PORT("  device: a\n  bandwidth: {ingress: {rate: 10m}, egress: {rate: 10Mbit, burst: 0}, both: {rate: 1M}}\n"),
			"t.yaml:7: spec.bandwidth.ingress.rate: want bits a second from 1k to 4T, such as 10M, got 10m\n"
			"t.yaml:7: spec.bandwidth.egress.rate: want bits a second from 1k to 4T, such as 10M, got 10Mbit\n"
			"t.yaml:7: spec.bandwidth.egress.burst: want bits from 1 to 1000T, such as 4M, got 0\n"
			"t.yaml:7: spec.bandwidth.both: want one of the fields ingress or egress, got an unknown one"},
		/* namespaces */
		{NAMESPACE(", labels: {kubernetes.io/metadata.name: other}"),
			"t.yaml:3: metadata.labels.kubernetes.io/metadata.name: want shop, as the Namespace is named, got other"},
		{NAMESPACE("") "spec: {colour: x}\n",
			"t.yaml:4: spec.colour: want one of the fields finalizers, got an unknown one"},
		{"apiVersion: v1\nkind: Namespace\nmetadata: {name: a.b}\n",
			"t.yaml:3: metadata.name: want a name of at most 63 lower-case letters, digits and '-', got a.b"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		model_refused(cases[i].text, cases[i].message);
}

static void test_vf(void **state)
{
	_cleanup_object_list_ struct object_list
		list = model_decode(PORT("  vf: {pf: eth1, index: 3, mac: 02:00:00:00:00:03, vlan: 10, qos: 2, maxRate: 500,"
					 " spoofCheck: false, linkState: disable}\n")),
		bare = model_decode(PORT("  vf: {pf: eth1, index: 3}\n"));
	const struct port *port = &list.items[0]->port;

	(void)state;
	assert_string_equal(port->vf_pf, "eth1");
	assert_int_equal(port->vf_index, 3);
	assert_int_equal(port->vf->has, 1u << PORT_VF_MAC | 1u << PORT_VF_VLAN | 1u << PORT_VF_RATE | 1u << PORT_VF_SPOOF_CHECK |
						1u << PORT_VF_LINK_STATE);
	assert_int_equal(port->vf->mac[5], 3);
	assert_int_equal(port->vf->vlan, 10);
	assert_int_equal(port->vf->qos, 2);
	assert_int_equal(port->vf->min_rate, 0);
	assert_int_equal(port->vf->max_rate, 500);
	assert_int_equal(port->vf->link_state, 2);
	assert_null(bare.items[0]->port.vf);
	object_list_clear(&bare);
	bare = model_decode(PORT("  pci: 0000:01:10.0\n  vf: {vlan: 7}\n"));
	assert_string_equal(bare.items[0]->port.pci, "0000:01:10.0");
	assert_null(bare.items[0]->port.vf_pf);
	assert_int_equal(bare.items[0]->port.vf->vlan, 7);
	model_refused(PORT("  vf: {pf: eth1, index: 3, qos: 2}\n"), "t.yaml:6: spec.vf.qos: want qos only with a vlan, got 2");
	model_refused(PORT("  vf: {pf: eth1, index: 3, minRate: 2, maxRate: 1}\n"),
		"t.yaml:6: spec.vf.minRate: want no more than maxRate, got 2");
	model_refused(PORT("  vf: {pf: eth1, index: 3, vlan: 4095}\n"), "t.yaml:6: spec.vf.vlan: want 0..4094, got 4095");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_network),
		cmocka_unit_test(test_port),
		cmocka_unit_test(test_vf),
		cmocka_unit_test(test_namespace),
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_bandwidth),
		cmocka_unit_test(test_fields_count),
		cmocka_unit_test(test_mistakes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
