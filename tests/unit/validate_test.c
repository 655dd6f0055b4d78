/* SPDX-License-Identifier: Apache-2.0 */
/* Networks and ports that are only wrong beside others. (Groups, uplinks and names: encode_test.) */
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
#define NETWORK(name, spec) DOCUMENT("Network", name, spec)
#define PORT(name, spec) DOCUMENT("Port", name, "network: blue, " spec)
#define BLUE NETWORK("blue", "subnets: [10.77.0.0/24, 'fd77::/64'], gateway: [10.77.0.254, 'fd77::fe']")
#define ROUTED NETWORK("blue", "subnets: [10.77.0.0/24], routesTo: [host]")

static void test_good(void **state)
{
	static const char *const texts[] = {
		BLUE PORT("a", "device: a, mac: 02:00:00:00:00:01, addresses: [10.77.0.1, 'fd77::1']")
			PORT("b", "device: b, mac: 02:00:00:00:00:02, addresses: [10.77.0.2, 'fd77::2']"),
		/* Networks that do not see each other may have the same of everything. */
		BLUE NETWORK("red", "subnets: [10.77.0.0/24]")
			PORT("a", "device: a, mac: 02:00:00:00:00:01, addresses: [10.77.0.1]")
				DOCUMENT("Port", "b", "network: red, device: b, mac: 02:00:00:00:00:01, addresses: [10.77.0.1]"),
		NETWORK("a", "subnets: [10.0.0.0/24], routesTo: [b, host]")
			NETWORK("b", "subnets: [10.0.1.0/24], routesTo: [a, host]") NETWORK("c", "subnets: [10.0.0.0/8]"),
		/* ::/0 holds no IPv4 address, and 0.0.0.0/0 no other. */
		NETWORK("a", "subnets: ['::/0'], routesTo: [b]") NETWORK("b", "subnets: [0.0.0.0/0]"),
		BLUE PORT("a", "vf: {pf: eth0, index: 0}") PORT("b", "vf: {pf: eth0, index: 1}")
			PORT("c", "vf: {pf: eth1, index: 0}") PORT("d", "device: eth0") PORT("e", "pci: 0000:00:00.0")
				PORT("f", "pci: 0000:00:00.1"),
		/* A subnet of two addresses, or of one, has none to spare. */
		ROUTED PORT("a",
			"device: a, addresses: [10.77.0.1], hostPorts: [{hostPort: 80, port: 80, hostAddress: 192.0.2.1}, "
			"{hostPort: 81, port: 80}]") PORT("b",
			"device: b, addresses: [10.77.0.2], hostPorts: [{hostPort: 80, port: 80, hostAddress: 192.0.2.2}, "
			"{hostPort: 81, port: 80, protocol: UDP}]"),
		NETWORK("blue", "subnets: [10.0.0.0/31, 10.0.1.1/32]") PORT("a", "device: a, addresses: [10.0.0.0, 10.0.1.1]")
			PORT("b", "device: b, addresses: [10.0.0.1]"),
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
		model_invalid(texts[i], NULL);
}

static void test_networks(void **state)
{
	static const struct {
		const char *text, *message;
	} cases[] = {
		{NETWORK("b", "vni: 7, vlan: 5") NETWORK("a", "vni: 7, vlan: 6") NETWORK("c", "vlan: 5") NETWORK("d", ""),
			"t.yaml:1: spec.vni: want a number that no other Network has, got 7, which Network a has\n"
			"t.yaml:5: spec.vlan: want a number that no other Network has, got 5, which Network b has"},
		{NETWORK("a", "routesTo: [host, lost, a]"),
			"t.yaml:1: spec.routesTo[1]: want the name of another Network, or host, got lost, which no document "
			"declares\n"
			"t.yaml:1: spec.routesTo[2]: want the name of another Network, or host, got a, which it is itself"},
		{NETWORK("a", "subnets: [10.0.0.0/8], routesTo: [b]") NETWORK("b", "subnets: [192.0.2.0/24, 10.1.0.0/16]"),
			"t.yaml:1: spec.routesTo: want networks whose subnets are apart from one another, got 10.0.0.0/8 of a "
			"and "
			"10.1.0.0/16 of b"},
		{NETWORK("a", "routesTo: [b, c]") NETWORK("b", "subnets: ['fd00::/64']") NETWORK("c", "subnets: ['fd00::/64']"),
			"t.yaml:1: spec.routesTo: want networks whose subnets are apart from one another, got fd00::/64 of b and "
			"fd00::/64 of c"},
		{NETWORK("a", "routesTo: [host], services: [192.0.2.0/24, 10.1.0.0/16]") NETWORK("b", "subnets: [10.0.0.0/8]"),
			"t.yaml:1: spec.services[1]: want a block apart from all subnets, got 10.1.0.0/16, which overlaps "
			"Network b"},
		{NETWORK("a", "subnets: [10.0.0.0/24], routesTo: [host]")
				NETWORK("b", "subnets: [10.0.0.0/16], routesTo: [host]"),
			"t.yaml:1: spec.routesTo: want networks whose subnets are apart from one another, got 10.0.0.0/16 of b "
			"and "
			"10.0.0.0/24 of a"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		model_invalid(cases[i].text, cases[i].message);
}

static void test_ports(void **state)
{
	static const struct {
		const char *text, *message;
	} cases[] = {
		{PORT("a", "device: a, addresses: [10.0.0.1]"),
			"t.yaml:1: spec.network: want the name of a Network, got blue, which no document declares"},
		{DOCUMENT("Port", "a", "network: host, device: a"),
			"t.yaml:1: spec.network: want the name of a Network, got host, which no document declares"},
		{BLUE PORT("a", "device: a, addresses: [10.78.0.1, 10.77.0.254, 10.77.0.0, 10.77.0.255, 'fd77::fe', 'fd78::']"),
			"t.yaml:3: spec.addresses[0]: want an address in a subnet of Network blue, got 10.78.0.1\n"
			"t.yaml:3: spec.addresses[1]: want another address than the gateway's of Network blue, got 10.77.0.254\n"
			"t.yaml:3: spec.addresses[2]: want an address that one host in 10.77.0.0/24 can have, got 10.77.0.0\n"
			"t.yaml:3: spec.addresses[3]: want an address that one host in 10.77.0.0/24 can have, got 10.77.0.255\n"
			"t.yaml:3: spec.addresses[4]: want another address than the gateway's of Network blue, got fd77::fe\n"
			"t.yaml:3: spec.addresses[5]: want an address in a subnet of Network blue, got fd78::"},
		{BLUE PORT("a", "device: a, addresses: [10.77.0.1], hostPorts: [{hostPort: 80, port: 80}]"),
			"t.yaml:3: spec.hostPorts: want them only in a network with host among its routesTo, got Network blue, "
			"which does not route there"},
		{ROUTED PORT(
			 "a", "device: a, addresses: [10.77.0.1], hostPorts: [{hostPort: 80, port: 1, hostAddress: 192.0.2.1}]")
				PORT("b", "device: b, addresses: [10.77.0.2], hostPorts: [{hostPort: 79, port: 1}, "
					  "{hostPort: 80, port: 80}]"),
			"t.yaml:5: spec.hostPorts[1]: want a port of the host that no other Port has, got TCP 80, which Port "
			"default/a has"},
		{BLUE PORT("b", "device: x") PORT("a", "device: x"),
			"t.yaml:3: spec.device: want a device that no other Port has, got x, which Port default/a has"},
		{BLUE PORT("a", "vf: {pf: eth1, index: 3}") PORT("b", "vf: {pf: eth1, index: 3}"),
			"t.yaml:5: spec.vf: want a device that no other Port has, got VF 3 of eth1, which Port default/a has"},
		{BLUE PORT("a", "pci: 0000:01:00.0") PORT("b", "pci: 0000:01:00.0"),
			"t.yaml:5: spec.pci: want a device that no other Port has, got 0000:01:00.0, which Port default/a has"},
		{BLUE PORT("a", "device: a, addresses: [10.77.0.1]") PORT("b", "device: b, addresses: [10.77.0.2, 10.77.0.1]"),
			"t.yaml:5: spec.addresses[1]: want an address that no other Port of its network has, got 10.77.0.1, "
			"which Port "
			"default/a has"},
		{BLUE PORT("a", "device: a, mac: 02:00:00:00:00:0a") PORT("b", "device: b, mac: 02:00:00:00:00:0A"),
			"t.yaml:5: spec.mac: want a MAC address that no other Port of its network has, got 02:00:00:00:00:0a, "
			"which Port "
			"default/a has"},
		{DOCUMENT("Host", "h", "uplinks: [{device: eth0}]") BLUE PORT("a", "device: eth0"),
			"t.yaml:5: spec.device: want a device that is no uplink of the Host, got eth0"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		model_invalid(cases[i].text, cases[i].message);
}

/* Names are of a namespace; a cluster-wide kind's are of all. */
static void test_names(void **state)
{
#define NETPOL(namespace_) \
	"{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p, namespace: " namespace_ "}, spec: " \
	"{}}\n---\n"
	(void)state;
	model_invalid(NETPOL("a") NETPOL("b"), NULL);
	model_refused(NETPOL("a") NETPOL("a"), "t.yaml:3: want each object once, got NetworkPolicy a/p again (first in line 1)");
	/* left out, it is default */
	model_refused(
		NETPOL("default") "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p}, spec: {}}\n",
		"t.yaml:3: want each object once, got NetworkPolicy default/p again (first in line 1)");
}

/* Many of them take no longer than a look at each. */
static void test_many(void **state)
{
	_cleanup_buffer_ struct buffer text = {0};

	(void)state;
	buffer_add_string(&text, NETWORK("blue", "subnets: [10.0.0.0/8]"));
	for (unsigned i = 0; i < 300; i++) {
		buffer_printf(&text, NETWORK("n%u", "vni: %u, subnets: [172.%u.%u.0/24], routesTo: [host"), i, i + 1,
			16 + i / 256, i % 256);
		text.length -= strlen("}}\n---\n");
		for (unsigned j = 0; j < 300; j++)
			if (i != j)
				buffer_printf(&text, ", n%u", j);
		buffer_add_string(&text, "]}}\n---\n");
	}
	for (unsigned i = 0; i < 20000; i++)
		buffer_printf(&text, PORT("p%u", "device: v%u, addresses: [10.1.%u.%u], mac: '02:00:00:00:%02x:%02x'"), i, i,
			i / 250, i % 250 + 1, i / 256, i % 256);
	model_invalid(text.data, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_good),
		cmocka_unit_test(test_networks),
		cmocka_unit_test(test_ports),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_many),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
