/* SPDX-License-Identifier: Apache-2.0 */
/* Documents to objects: what is read, and every mistake's words. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <netinet/in.h>

#include <cmocka.h>

#include "model_env.h"
#include <model/decode.h>
#include <util/addr.h>
#include <util/buffer.h>
#include <util/cleanup.h>

#define KINDS \
	"Host, Network, Port, Peer, Namespace, AddressGroup, HostPolicy, NetworkPolicy, AdminNetworkPolicy, " \
	"BaselineAdminNetworkPolicy, " \
	"ClusterNetworkPolicy or FastPath"
#define DOCUMENT(kind, spec) "apiVersion: heddle.dev/v1alpha1\nkind: " kind "\nmetadata: {name: x}\nspec:\n" spec
/* One ingress rule, on line 6. */
#define RULE(rule) DOCUMENT("HostPolicy", "  ingress:\n  - {action: allow, " rule "}\n")
#define HOST(spec) DOCUMENT("Host", "  " spec "\n")

static const char contract[] =
	"apiVersion: heddle.dev/v1alpha1\n"
	"kind: Host\n"
	"metadata: {name: node-a}\n"
	"spec:\n"
	"  uplinks: [{device: eth1, xdp: auto}, {device: eth2, xdp: 'off'}]            # comment\n"
	"  tunnel: {protocol: vxlan, address: 192.168.77.1, port: 4789}\n"
	"  failsafe: [{protocol: TCP, port: 22}]\n"
	"  forward: pass\n"
	"  timeouts: {tcpEstablished: 8h, tcpSyn: 60s, tcpFin: 10s, udp: 30s, udpStream: 180s, icmp: 10s, other: 60s}\n"
	"  pickupSeconds: 60\n"
	"---\n"
	"apiVersion: heddle.dev/v1alpha1\n"
	"kind: AddressGroup\n"
	"metadata: {name: admins}\n"
	"spec: {cidrs: [10.0.0.0/8, \"fd00::/8\"]}\n"
	"---\n"
	"apiVersion: heddle.dev/v1alpha1\n"
	"kind: HostPolicy\n"
	"metadata: {name: base}\n"
	"spec:\n"
	"  priority: 100\n"
	"  ingress:\n"
	"  - {name: ssh, action: allow, from: [{addressGroup: admins}], ports: [{protocol: TCP, port: 22}]}\n"
	"  - {name: web, action: allow, from: [{cidr: 0.0.0.0/0, except: [192.0.2.0/24]}], ports: [{protocol: TCP, port: "
	"8000, endPort: 8099}], log: true}\n"
	"  - {name: ping, action: allow, icmp: [{type: 8}]}\n"
	"  - {name: rest, action: reject}\n"
	"  egress: []\n"
	"  default: {ingress: deny, egress: allow}\n";

static void test_contract(void **state)
{
	_cleanup_object_list_ struct object_list list = model_decode(contract);
	char text[ADDR_TEXT_MAX];

	(void)state;
	assert_int_equal(list.n, 3);

	const struct object *object = list.items[0];
	assert_int_equal(object->kind, OBJECT_HOST);
	assert_string_equal(object->name, "node-a");
	assert_null(object->namespace_);
	assert_string_equal(object->file, "t.yaml");
	assert_int_equal(object->line, 1);
	assert_int_equal(object->host.n_uplinks, 2);
	assert_string_equal(object->host.uplinks[0].device, "eth1");
	assert_int_equal(object->host.uplinks[0].xdp, XDP_MODE_AUTO);
	assert_int_equal(object->host.uplinks[1].xdp, XDP_MODE_OFF);
	assert_true(object->host.has_tunnel);
	assert_false(object->host.tunnel_geneve);
	assert_string_equal(addr_format(&object->host.tunnel_address, text), "192.168.77.1");
	assert_int_equal(object->host.tunnel_port, 4789);
	assert_int_equal(object->host.n_failsafe, 1);
	assert_int_equal(object->host.failsafe[0].protocol, IPPROTO_TCP);
	assert_int_equal(object->host.failsafe[0].first, 22);
	assert_int_equal(object->host.failsafe[0].last, 22);
	assert_false(object->host.forward_judge);
	assert_int_equal(object->host.timeouts.tcp_established, 28800000);
	assert_int_equal(object->host.timeouts.udp_stream, 180000);
	assert_int_equal(object->host.pickup_seconds, 60);
	assert_int_equal(object->host.log_every, HOST_LOG_EVERY);
	assert_int_equal(object->host.event_rate, HOST_EVENT_RATE);

	object = list.items[1];
	assert_int_equal(object->kind, OBJECT_ADDRESS_GROUP);
	assert_int_equal(object->line, 12);
	assert_int_equal(object->group.n_cidrs, 2);
	assert_string_equal(addr_format_cidr(&object->group.cidrs[0].addr, object->group.cidrs[0].length, text), "10.0.0.0/8");
	assert_string_equal(addr_format_cidr(&object->group.cidrs[1].addr, object->group.cidrs[1].length, text), "fd00::/8");

	object = list.items[2];
	assert_int_equal(object->kind, OBJECT_HOST_POLICY);
	assert_int_equal(object->policy.priority, 100);
	assert_int_equal(object->policy.n_rules[HD_INGRESS], 4);
	assert_int_equal(object->policy.n_rules[HD_EGRESS], 0);
	assert_int_equal(object->policy.default_verdict[HD_INGRESS], HD_DENY);
	assert_int_equal(object->policy.default_verdict[HD_EGRESS], HD_ALLOW);
	const struct rule *rule = object->policy.rules[HD_INGRESS];
	assert_string_equal(rule[0].name, "ssh");
	assert_int_equal(rule[0].line, 23);
	assert_int_equal(rule[0].n_peers, 1);
	assert_string_equal(rule[0].peers[0].group, "admins");
	assert_int_equal(rule[0].n_ports, 1);
	assert_null(rule[0].extra);
	assert_int_equal(rule[1].n_peers, 1);
	assert_null(rule[1].peers[0].group);
	assert_int_equal(rule[1].peers[0].prefix.length, 96);
	assert_int_equal(rule[1].peers[0].n_except, 1);
	assert_int_equal(rule[1].peers[0].except[0].length, 120);
	assert_int_equal(rule[1].ports[0].first, 8000);
	assert_int_equal(rule[1].ports[0].last, 8099);
	assert_true(rule[1].log);
	assert_false(rule[0].log);
	assert_int_equal(rule[2].n_ports, 0);
	assert_int_equal(rule[2].extra->n_icmp, 1);
	assert_int_equal(rule[2].extra->icmp[0].protocol, IPPROTO_ICMP);
	assert_int_equal(rule[2].extra->icmp[0].type_first, 8);
	assert_int_equal(rule[2].extra->icmp[0].type_last, 8);
	assert_int_equal(rule[2].extra->icmp[0].code_first, 0);
	assert_int_equal(rule[2].extra->icmp[0].code_last, 255);
	assert_int_equal(rule[3].verdict, HD_REJECT);
	assert_int_equal(rule[3].n_peers, 0);
}

static void test_ports(void **state)
{
	static const struct {
		const char *text;
		struct port_range range;
	} cases[] = {
		{"{}", {IPPROTO_TCP, true, 0, 65535}},
		{"{port: 1}", {IPPROTO_TCP, false, 1, 1}},
		{"{protocol: UDP, port: 53, endPort: 53}", {IPPROTO_UDP, false, 53, 53}},
		{"{protocol: SCTP, port: 1, endPort: 65535}", {IPPROTO_SCTP, false, 1, 65535}},
		{"{protocol: ICMP}", {IPPROTO_ICMP, true, 0, 65535}},
		{"{protocol: ICMPv6}", {IPPROTO_ICMPV6, true, 0, 65535}},
		{"{protocol: 47}", {IPPROTO_GRE, true, 0, 65535}},
		{"{protocol: 6, port: 80}", {IPPROTO_TCP, false, 80, 80}},
		{"{protocol: 0}", {0, true, 0, 65535}},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char text[300];

		snprintf(text, sizeof(text), RULE("ports: [%s]"), cases[i].text);
		_cleanup_object_list_ struct object_list list = model_decode(text);
		const struct port_range *range = list.items[0]->policy.rules[0][0].ports;
		assert_int_equal(range->protocol, cases[i].range.protocol);
		assert_int_equal(range->any_port, cases[i].range.any_port);
		assert_int_equal(range->first, cases[i].range.first);
		assert_int_equal(range->last, cases[i].range.last);
	}
}

static void test_defaults(void **state)
{
	_cleanup_object_list_ struct object_list list = model_decode(HOST("{}"));
	_cleanup_object_list_ struct object_list policy = model_decode(RULE("icmp: [{}, {family: IPv6, type: 0, code: 0}]"));
	const struct host *host = &list.items[0]->host;

	(void)state;
	assert_int_equal(host->n_uplinks, 0);
	assert_int_equal(host->n_failsafe, 0);
	assert_false(host->has_tunnel);
	assert_int_equal(host->timeouts.tcp_syn, 60000);
	assert_int_equal(host->timeouts.other, 60000);
	assert_int_equal(host->limit_flows, 0);

	const struct host_policy *spec = &policy.items[0]->policy;
	assert_int_equal(spec->priority, 1000);
	assert_int_equal(spec->default_verdict[HD_INGRESS], -1);
	assert_int_equal(spec->default_verdict[HD_EGRESS], -1);
	const struct icmp_match *icmp = spec->rules[0][0].extra->icmp;
	assert_int_equal(icmp[0].type_first, 0);
	assert_int_equal(icmp[0].type_last, 255);
	assert_int_equal(icmp[1].protocol, IPPROTO_ICMPV6);
	assert_int_equal(icmp[1].type_last, 0);
	assert_int_equal(icmp[1].code_last, 0);
}

static void test_source_ports(void **state)
{
	_cleanup_object_list_ struct object_list list = model_decode(RULE(
		"ports: [{protocol: UDP, port: 53}], sourcePorts: [{port: 1024, endPort: 65535}, {protocol: UDP, port: 53}]"));
	const struct rule_extra *extra = list.items[0]->policy.rules[0][0].extra;

	(void)state;
	assert_int_equal(extra->n_source_ports, 2);
	assert_int_equal(extra->source_ports[0].protocol, 0);
	assert_false(extra->source_ports[0].any_port);
	assert_int_equal(extra->source_ports[0].first, 1024);
	assert_int_equal(extra->source_ports[1].protocol, IPPROTO_UDP);
}

static void test_metadata(void **state)
{
	_cleanup_object_list_ struct object_list list =
		model_decode("apiVersion: heddle.dev/v1alpha1\nkind: AddressGroup\nmetadata:\n  name: a.b-c\n"
			     "  labels: {z: last, app: \"1\", example.org/tier: web, empty: ''}\n"
			     "  annotations: {note: \"any text: at all, \\u00e9 \\u2028\"}\nspec: {cidrs: []}\n");
	const struct object *object = list.items[0];

	(void)state;
	assert_int_equal(object->n_labels, 4);
	assert_string_equal(object->labels[0].key, "app");
	assert_string_equal(object->labels[0].value, "1");
	assert_string_equal(object->labels[3].key, "z");
	assert_int_equal(object->n_annotations, 1);
	assert_string_equal(object->annotations[0].value, "any text: at all, \xc3\xa9 \xe2\x80\xa8");
	assert_int_equal(object->group.n_cidrs, 0);
}

/* Every form of mistake, with its line, its path, what was wanted and what was there. */
static void test_mistakes(void **state)
{
	static const struct {
		const char *text, *message;
	} cases[] = {
		/* documents */
		{"[]", "t.yaml:1: want a mapping with apiVersion, kind, metadata and spec, got an empty list"},
		{"hello", "t.yaml:1: want a mapping with apiVersion, kind, metadata and spec, got hello"},
		{"{}", "t.yaml:1: kind: want " KINDS ", got nothing"},
		{"a: b", "t.yaml:1: kind: want " KINDS ", got nothing"},
		{"\n\nkind: Networkpolicy\n", "t.yaml:3: kind: want " KINDS ", got Networkpolicy"},
		{"kind: [Host]\n", "t.yaml:1: kind: want " KINDS ", got a list"},
		{"kind: AddressGroup\nmetadata: {name: x}\nspec: {cidrs: []}\n",
			"t.yaml:1: apiVersion: want heddle.dev/v1alpha1, got nothing"},
		{"apiVersion: v1\nkind: AddressGroup\nmetadata: {name: x}\nspec: {cidrs: []}\n",
			"t.yaml:1: apiVersion: want heddle.dev/v1alpha1, got v1"},
		{"apiVersion: heddle.dev/v1alpha1\nkind: AddressGroup\n",
			"t.yaml:1: metadata: want a mapping with name, got nothing\n"
			"t.yaml:1: spec: want the spec of an AddressGroup, got nothing"},
		{DOCUMENT("AddressGroup", "  cidrs: []\nstatus: {}\n"),
			"t.yaml:6: status: want one of the fields apiVersion, kind, metadata or spec, got an unknown one"},
		{DOCUMENT("AddressGroup", "  cidrs: []\nspec: {cidrs: []}\n"),
			"t.yaml:6: spec: want each field once, got it again (first in line 4)"},
		{DOCUMENT("AddressGroup", "  cidrs: []\n? [a]\n: b\n"), "t.yaml:6: want the name of a field, got a list"},
		{DOCUMENT("AddressGroup", "  cidrs: []\n---\n") DOCUMENT("AddressGroup", "  cidrs: []\n"),
			"t.yaml:7: want each object once, got AddressGroup x again (first in line 1)"},
		/* metadata */
		{"apiVersion: heddle.dev/v1alpha1\nkind: AddressGroup\nmetadata: {name: Big}\nspec: {cidrs: []}\n",
			"t.yaml:3: metadata.name: want a name of at most 253 lower-case letters, digits, '-' and '.', got Big"},
		{"apiVersion: heddle.dev/v1alpha1\nkind: AddressGroup\nmetadata: {}\nspec: {cidrs: []}\n",
			"t.yaml:3: metadata.name: want a name of at most 253 lower-case letters, digits, '-' and '.', got "
			"nothing"},
		{"apiVersion: heddle.dev/v1alpha1\nkind: AddressGroup\nmetadata: {name: 12}\nspec: {cidrs: []}\n",
			"t.yaml:3: metadata.name: want text (in quotes, if this is meant), got 12"},
		{"apiVersion: heddle.dev/v1alpha1\nkind: AddressGroup\nmetadata: {name: x, namespace: default}\nspec: {cidrs: "
		 "[]}\n",
			"t.yaml:3: metadata.namespace: want no namespace: objects of this kind have none, got default"},
		{"apiVersion: heddle.dev/v1alpha1\nkind: AddressGroup\nmetadata: {name: x, labels: {a: 1}}\nspec: {cidrs: []}\n",
			"t.yaml:3: metadata.labels.a: want text (numbers and true or false in quotes), got 1"},
		{"apiVersion: heddle.dev/v1alpha1\nkind: AddressGroup\nmetadata: {name: x, labels: {-a: b}}\nspec: {cidrs: []}\n",
			"t.yaml:3: metadata.labels: want keys such as app or example.org/app, got -a"},
		{"apiVersion: heddle.dev/v1alpha1\nkind: AddressGroup\nmetadata: {name: x, labels: {a: b c}}\nspec: {cidrs: "
		 "[]}\n",
			"t.yaml:3: metadata.labels.a: want at most 63 letters, digits, '-', '_' and '.', a letter or digit at "
			"both ends, got "
			"b c"},
		{"apiVersion: heddle.dev/v1alpha1\nkind: AddressGroup\nmetadata: {name: x, labels: {a: b, a: c}}\nspec: {cidrs: "
		 "[]}\n",
			"t.yaml:3: metadata.labels.a: want each key once, got it again"},
		/* address groups */
		{DOCUMENT("AddressGroup", "  cidrs: 10.0.0.0/8\n"),
			"t.yaml:5: spec.cidrs: want a list of blocks, got 10.0.0.0/8"},
		{DOCUMENT("AddressGroup", "  cidrs:\n"), "t.yaml:5: spec.cidrs: want a list of blocks, got nothing"},
		{DOCUMENT("AddressGroup", "  {}\n"), "t.yaml:5: spec.cidrs: want a list of blocks, got nothing"},
		{DOCUMENT("AddressGroup", "  cidrs:\n  - 10.0.0.0/8\n  - 10.1.2.3/8\n  - nonsense\n  - 10.0.0.1\n  - {a: b}\n"),
			"t.yaml:7: spec.cidrs[1]: want 10.0.0.0/8, got 10.1.2.3/8\n"
			"t.yaml:8: spec.cidrs[2]: want a block such as 10.0.0.0/8 or fd00::/8, got nonsense\n"
			"t.yaml:9: spec.cidrs[3]: want an address and a length, such as 10.0.0.1/32, got 10.0.0.1\n"
			"t.yaml:10: spec.cidrs[4]: want a block such as 10.0.0.0/8 or fd00::/8, got a mapping"},
		/* rules */
		{DOCUMENT("HostPolicy", "  ingress:\n  - {name: a}\n"),
			"t.yaml:6: spec.ingress[0].action: want allow, deny or reject, got nothing"},
		{DOCUMENT("HostPolicy", "  ingress:\n  - {action: drop}\n"),
			"t.yaml:6: spec.ingress[0].action: want allow, deny or reject, got drop"},
		{DOCUMENT("HostPolicy", "  ingress:\n  - {action: ~}\n"),
			"t.yaml:6: spec.ingress[0].action: want allow, deny or reject, got nothing"},
		{DOCUMENT("HostPolicy", "  ingress: {}\n"), "t.yaml:5: spec.ingress: want a list of rules, got a mapping"},
		{DOCUMENT("HostPolicy", "  ingress: [5]\n"), "t.yaml:5: spec.ingress[0]: want a rule, got 5"},
		{RULE("to: [{cidr: 10.0.0.0/8}]"), "t.yaml:6: spec.ingress[0].to: want one of the fields name, action, from, "
						   "ports, sourcePorts, icmp or log, got an "
						   "unknown one"},
		{DOCUMENT("HostPolicy", "  egress:\n  - action: deny\n    from: [{cidr: 10.0.0.0/8}]\n"),
			"t.yaml:7: spec.egress[0].from: want one of the fields name, action, to, ports, sourcePorts, icmp or "
			"log, got an "
			"unknown one"},
		{RULE("from: []"), "t.yaml:6: spec.ingress[0].from: want at least one of peers, or no such field for any, got an "
				   "empty list"},
		{RULE("from: null"), "t.yaml:6: spec.ingress[0].from: want a list of peers, got nothing"},
		{RULE("ports: []"), "t.yaml:6: spec.ingress[0].ports: want at least one of ports, or no such field for any, got "
				    "an empty list"},
		{RULE("icmp: []"), "t.yaml:6: spec.ingress[0].icmp: want at least one of ICMP types, or no such field for any, "
				   "got an empty list"},
		{RULE("sourcePorts: []"), "t.yaml:6: spec.ingress[0].sourcePorts: want at least one of source ports, or no such "
					  "field for any, got an empty list"},
		{RULE("log: yes"), "t.yaml:6: spec.ingress[0].log: want true or false, got yes"},
		{RULE("log: \"true\""), "t.yaml:6: spec.ingress[0].log: want true or false, got \"true\""},
		{RULE("name: ''"),
			"t.yaml:6: spec.ingress[0].name: want a name of 1..100 bytes without control characters, got \"\""},
		{RULE("name: \"a\\tb\""),
			"t.yaml:6: spec.ingress[0].name: want a name of 1..100 bytes without control characters, got \"a?b\""},
		/* peers */
		{RULE("from: [{}]"), "t.yaml:6: spec.ingress[0].from[0]: want either cidr or addressGroup, got nothing"},
		{RULE("from: [{cidr: 10.0.0.0/8, addressGroup: a}]"),
			"t.yaml:6: spec.ingress[0].from[0]: want either cidr or addressGroup, got a mapping"},
		{RULE("from: [{addressGroup: A}]"),
			"t.yaml:6: spec.ingress[0].from[0].addressGroup: want the name of an AddressGroup, got A"},
		{RULE("from: [{addressGroup: a, except: [10.0.0.0/8]}]"),
			"t.yaml:6: spec.ingress[0].from[0].except: want except only beside cidr, got a list"},
		{RULE("from: [{cidr: 10.0.0.0/8, except: [11.0.0.0/8, 10.1.0.0/16, 0.0.0.0/0]}]"),
			"t.yaml:6: spec.ingress[0].from[0].except[0]: want a block within 10.0.0.0/8, got 11.0.0.0/8\n"
			"t.yaml:6: spec.ingress[0].from[0].except[2]: want a block within 10.0.0.0/8, got 0.0.0.0/0"},
		{RULE("from: [{cidr: \"::/0\", except: [10.0.0.0/8]}]"),
			"t.yaml:6: spec.ingress[0].from[0].except[0]: want a block within ::/0, got 10.0.0.0/8"},
		/* ports */
		{RULE("ports: [{protocol: TCP}, {port: 70000}]"),
			"t.yaml:6: spec.ingress[0].ports[1].port: want 1..65535, got 70000"},
		{RULE("ports: [{port: 0}]"), "t.yaml:6: spec.ingress[0].ports[0].port: want 1..65535, got 0"},
		{RULE("ports: [{port: -1}]"), "t.yaml:6: spec.ingress[0].ports[0].port: want 1..65535, got -1"},
		{RULE("ports: [{port: 080}]"), "t.yaml:6: spec.ingress[0].ports[0].port: want 1..65535, got 080"},
		{RULE("ports: [{port: 0x50}]"), "t.yaml:6: spec.ingress[0].ports[0].port: want 1..65535, got 0x50"},
		{RULE("ports: [{port: \"80\"}]"), "t.yaml:6: spec.ingress[0].ports[0].port: want 1..65535, got \"80\""},
		{RULE("ports: [{port: 80.0}]"), "t.yaml:6: spec.ingress[0].ports[0].port: want 1..65535, got 80.0"},
		{RULE("ports: [{port: 18446744073709551696}]"),
			"t.yaml:6: spec.ingress[0].ports[0].port: want 1..65535, got 18446744073709551696"},
		{RULE("ports: [{port: [80]}]"), "t.yaml:6: spec.ingress[0].ports[0].port: want 1..65535, got a list"},
		{RULE("ports: [{endPort: 80}]"), "t.yaml:6: spec.ingress[0].ports[0].port: want 1..65535, got nothing"},
		{DOCUMENT("HostPolicy",
			 "  ingress:\n  - action: allow\n    ports:\n    - protocol: TCP\n      port: 80\n      endPort: 79\n"),
			"t.yaml:10: spec.ingress[0].ports[0].endPort: want 80..65535, got 79"},
		{RULE("ports: [{protocol: tcp}]"), "t.yaml:6: spec.ingress[0].ports[0].protocol: want TCP, UDP, SCTP, ICMP, "
						   "ICMPv6, IGMP, GRE, ESP, AH or 0..255, got tcp"},
		{RULE("ports: [{protocol: 256}]"), "t.yaml:6: spec.ingress[0].ports[0].protocol: want TCP, UDP, SCTP, ICMP, "
						   "ICMPv6, IGMP, GRE, ESP, AH or 0..255, got 256"},
		{RULE("ports: [{protocol: ICMP, port: 8}]"),
			"t.yaml:6: spec.ingress[0].ports[0].port: want no port with a protocol that has none, got 8"},
		{RULE("ports: [80]"), "t.yaml:6: spec.ingress[0].ports[0]: want a mapping with protocol and port, got 80"},
		/* source ports */
		{RULE("sourcePorts: [{}]"), "t.yaml:6: spec.ingress[0].sourcePorts[0].port: want 1..65535, got nothing"},
		{RULE("sourcePorts: [{protocol: GRE}]"), "t.yaml:6: spec.ingress[0].sourcePorts[0].protocol: want TCP, UDP or "
							 "SCTP, which have source ports, got GRE"},
		{RULE("icmp: [{type: 8}], sourcePorts: [{port: 1}]"),
			"t.yaml:6: spec.ingress[0].sourcePorts: want no source ports beside icmp, got a list"},
		{RULE("ports: [{protocol: GRE}], sourcePorts: [{port: 1}]"),
			"t.yaml:6: spec.ingress[0].ports[0]: want TCP, UDP or SCTP beside sourcePorts, got a mapping"},
		{RULE("ports: [{protocol: UDP}, {protocol: TCP}], sourcePorts: [{protocol: UDP, port: 1}]"),
			"t.yaml:6: spec.ingress[0].sourcePorts: want source ports for TCP too, which ports names, got a list"},
		{RULE("ports: [{protocol: UDP}], sourcePorts: [{port: 1}, {protocol: TCP, port: 1}]"),
			"t.yaml:6: spec.ingress[0].sourcePorts[1]: want a protocol that ports names, got a mapping"},
		/* icmp */
		{RULE("icmp: [{type: 256}]"), "t.yaml:6: spec.ingress[0].icmp[0].type: want 0..255, got 256"},
		{RULE("icmp: [{code: 1}]"), "t.yaml:6: spec.ingress[0].icmp[0].type: want 0..255 beside code, got nothing"},
		{RULE("icmp: [{type: 1, family: ipv6}]"),
			"t.yaml:6: spec.ingress[0].icmp[0].family: want IPv4 or IPv6, got ipv6"},
		/* policies */
		{DOCUMENT("HostPolicy", "  priority: 1000001\n"), "t.yaml:5: spec.priority: want 0..1000000, got 1000001"},
		{DOCUMENT("HostPolicy", "  uplinks: []\n"),
			"t.yaml:5: spec.uplinks: want at least one of devices, or no such field for any, got an empty list"},
		{DOCUMENT("HostPolicy", "  uplinks: [eth0, eth1, eth0]\n"),
			"t.yaml:5: spec.uplinks[2]: want each device once, got eth0"},
		{DOCUMENT("HostPolicy", "  uplinks: [a/b]\n"),
			"t.yaml:5: spec.uplinks[0]: want the name of an interface, at most 15 bytes, got a/b"},
		{DOCUMENT("HostPolicy", "  default: {ingress: maybe}\n"),
			"t.yaml:5: spec.default.ingress: want allow, deny or reject, got maybe"},
		{DOCUMENT("HostPolicy", "  default: deny\n"),
			"t.yaml:5: spec.default: want a mapping with ingress and egress, got deny"},
		/* hosts */
		{HOST("uplinks: [{xdp: auto}]"),
			"t.yaml:5: spec.uplinks[0].device: want the name of an interface, at most 15 bytes, got nothing"},
		{HOST("uplinks: [{device: abcdefghijklmnop}]"), "t.yaml:5: spec.uplinks[0].device: want the name of an "
								"interface, at most 15 bytes, got abcdefghijklmnop"},
		{HOST("uplinks: [{device: eth0, xdp: fast}]"),
			"t.yaml:5: spec.uplinks[0].xdp: want auto, native, generic or off, got fast"},
		{HOST("uplinks: [{device: eth0}, {device: eth0}]"),
			"t.yaml:5: spec.uplinks[1].device: want each device once, got eth0"},
		{HOST("tunnel: {address: 10.0.0.1}"), "t.yaml:5: spec.tunnel.protocol: want vxlan or geneve, got nothing"},
		{HOST("tunnel: {protocol: vxlan, address: eth0}"),
			"t.yaml:5: spec.tunnel.address: want an IPv4 or IPv6 address, got eth0"},
		{HOST("tunnel: {protocol: vxlan, address: 224.0.0.1}"),
			"t.yaml:5: spec.tunnel.address: want a unicast address of this host, not of fe80::/10, got 224.0.0.1"},
		{HOST("addresses: [10.0.0.1, 'fe80::1']"),
			"t.yaml:5: spec.addresses[1]: want a unicast address of this host, not of fe80::/10, got \"fe80::1\""},
		{HOST("tunnel: {protocol: vxlan, address: 'fe80::1'}"),
			"t.yaml:5: spec.tunnel.address: want a unicast address of this host, not of fe80::/10, got \"fe80::1\""},
		{HOST("failsafe: [{protocol: TCP}]"), "t.yaml:5: spec.failsafe[0].port: want 1..65535, got nothing"},
		{HOST("offload: on"), "t.yaml:5: spec.offload: want off or auto, got on"},
		{HOST("forward: drop"), "t.yaml:5: spec.forward: want pass or judge, got drop"},
		{HOST("timeouts: {udp: 30}"),
			"t.yaml:5: spec.timeouts.udp: want a duration such as 90s or 1h30m, 100ms..30d, got 30"},
		{HOST("timeouts: {udp: 31d}"),
			"t.yaml:5: spec.timeouts.udp: want a duration such as 90s or 1h30m, 100ms..30d, got 31d"},
		{HOST("timeouts: {tcp: 30s}"),
			"t.yaml:5: spec.timeouts.tcp: want one of the fields tcpEstablished, tcpSyn, tcpFin, udp, "
			"udpStream, icmp or other, got an unknown one"},
		{HOST("pickupSeconds: 60s"), "t.yaml:5: spec.pickupSeconds: want 0..86400 seconds, got 60s"},
		{HOST("limits: {flows: 1}"), "t.yaml:5: spec.limits.flows: want 16..67108864, got 1"},
		{HOST("log: {every: 0}"), "t.yaml:5: spec.log.every: want 1..1000000, got 0"},
		/* the text itself */
		{"kind: *x\n", "t.yaml:1: want values written out (anchors and aliases are not read), got an alias"},
		{"a: &x 1\nkind: *x\n", "t.yaml:2: want values written out (anchors and aliases are not read), got an alias"},
		{"kind: !!str Host\n", "t.yaml:1: want values without a tag, got tag:yaml.org,2002:str"},
		{"kind: \"a\\0b\"\n", "t.yaml:1: want text, got text with a NUL character in it"},
		{"kind: [\n", "t.yaml:2: want YAML or JSON, got in column 1: did not find expected node content, while parsing a "
			      "flow node"},
		{"\tkind: Host\n", "t.yaml:1: want YAML or JSON, got in column 1: found character that cannot start any token, "
				   "while scanning for the next "
				   "token"},
		{"{\"kind\": \"Host\"",
			"t.yaml:2: want YAML or JSON, got in column 1: did not find expected ',' or '}', while parsing a flow "
			"mapping"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		model_refused(cases[i].text, cases[i].message);
}

static void test_all_mistakes(void **state)
{
	_cleanup_buffer_ struct buffer text = {0};
	_cleanup_diag_ struct diag diag = {0};
	struct object_list list = {0};

	(void)state;
	/* Of several documents, in their order; a good one between bad ones does not count. */
	model_refused("kind: A\n---\n" DOCUMENT("AddressGroup", "  cidrs: []\n") "---\nkind: B\n",
		"t.yaml:1: kind: want " KINDS ", got A\n"
		"t.yaml:9: kind: want " KINDS ", got B");
	/* Not without end. */
	buffer_add_string(&text, DOCUMENT("AddressGroup", "  cidrs:\n"));
	for (int i = 0; i < 200; i++)
		buffer_add_string(&text, "  - x\n");
	assert_int_equal(decode_documents("t.yaml", text.data, text.length, &list, &diag), -EINVAL);
	assert_int_equal(diag.errors, 200);
	assert_non_null(strstr(diag.text, "t.yaml:105: spec.cidrs[99]:"));
	assert_null(strstr(diag.text, "t.yaml:106:"));
	assert_non_null(strstr(diag.text, "\nfurther mistakes are not shown"));
}

static void test_without_file(void **state)
{
	_cleanup_diag_ struct diag diag = {0};
	struct object_list list = {0};

	(void)state;
	assert_int_equal(decode_documents(NULL, "kind: A", 7, &list, &diag), -EINVAL);
	assert_string_equal(diag.text, "line 1: kind: want " KINDS ", got A");
	static const char good[] = DOCUMENT("AddressGroup", "  cidrs: []\n");
	diag_clear(&diag);
	assert_int_equal(decode_documents(NULL, good, strlen(good), &list, &diag), 0);
	assert_null(list.items[0]->file);
	/* What was in the list stays there. */
	assert_int_equal(decode_documents(NULL, "kind: A", 7, &list, &diag), -EINVAL);
	assert_int_equal(list.n, 1);
	object_list_clear(&list);
}

static void test_lists_and_empty(void **state)
{
	struct object_list list = model_decode("");

	(void)state;
	assert_int_equal(list.n, 0);
	list = model_decode("# nothing\n---\n---\n# more\n...\n");
	assert_int_equal(list.n, 0);
	list = model_decode("apiVersion: v1\nkind: List\nmetadata: {resourceVersion: ''}\nitems:\n"
			    "- {apiVersion: heddle.dev/v1alpha1, kind: AddressGroup, metadata: {name: a}, spec: {cidrs: []}}\n"
			    "- {apiVersion: heddle.dev/v1alpha1, kind: AddressGroup, metadata: {name: b}, spec: {cidrs: []}}\n");
	assert_int_equal(list.n, 2);
	assert_int_equal(list.items[1]->line, 6);
	object_list_clear(&list);
	list = model_decode(
		"{\"items\":[{\"apiVersion\":\"heddle.dev/v1alpha1\",\"kind\":\"AddressGroup\",\"metadata\":{\"name\":\"a\"},"
		"\"spec\":{\"cidrs\":[]}}]}");
	assert_int_equal(list.n, 1);
	object_list_clear(&list);
	list = model_decode("kind: List\nitems: []\n");
	assert_int_equal(list.n, 0);
	model_refused("kind: List\nitems:\n- kind: List\n  items: []\n", "t.yaml:3: items[0].kind: want " KINDS ", got List");
	model_refused("kind: List\nitems:\n- kind: Pod\n- 7\n",
		"t.yaml:3: items[0].kind: want " KINDS ", got Pod\n"
		"t.yaml:4: items[1]: want a mapping with apiVersion, kind, metadata and spec, got 7");
	model_refused("kind: List\n", "t.yaml:1: items: want a list of objects, got nothing");
}

/* JSON, as other programs write it. */
static void test_json(void **state)
{
	struct object_list list = model_decode(
		"{\"kind\":\"AddressGroup\",\"spec\":{\"cidrs\":[\"10.0.0.0/8\"]},\n\t\"apiVersion\":\"heddle.dev\\/v1alpha1\","
		"\"metadata\":{\"name\":\"x\",\"annotations\":{\"smile\":\"\\ud83d\\ude00 \\\\ud83d\\\"\",\"raw\":\"\x7f"
		"\xe2\x80\xa8\xc2\x85\xef\xbb\xbf|\"}}}");
	const struct object *object = list.items[0];

	(void)state;
	assert_int_equal(object->n_annotations, 2);
	assert_string_equal(object->annotations[0].key, "raw");
	assert_string_equal(object->annotations[1].value, "\xf0\x9f\x98\x80 \\ud83d\"");
	assert_string_equal(object->annotations[0].value, "\x7f\xe2\x80\xa8\xc2\x85\xef\xbb\xbf|");
	object_list_clear(&list);
}

static void test_json_surrogates(void **state)
{
	struct object_list list = model_decode(
		"{\"apiVersion\":\"heddle.dev/v1alpha1\",\"kind\":\"AddressGroup\",\"spec\":{\"cidrs\":[]},"
		"\"metadata\":{\"name\":\"x\",\"annotations\":{\"a\":\"\\ud83d\\ude00\\uD83D\\uDE00\",\"b\":\"\\\\ud83d\"}}}");

	(void)state;
	assert_string_equal(list.items[0]->annotations[0].value, "\xf0\x9f\x98\x80\xf0\x9f\x98\x80");
	assert_string_equal(list.items[0]->annotations[1].value, "\\ud83d");
	object_list_clear(&list);
	/* Half of a pair is no character. */
	model_refused("{\"kind\":\"\\ud83d\"}",
		"t.yaml:1: want YAML or JSON, got in column 12: found invalid Unicode character escape "
		"code, while parsing a quoted scalar");
	/* In YAML that is not JSON the text stands for itself. */
	list = model_decode("apiVersion: heddle.dev/v1alpha1\nkind: AddressGroup\nspec: {cidrs: []}\n"
			    "metadata: {name: x, annotations: {a: '\\ud83d\\ude00'}}\n");
	assert_string_equal(list.items[0]->annotations[0].value, "\\ud83d\\ude00");
	object_list_clear(&list);
}

static void test_limits(void **state)
{
	_cleanup_buffer_ struct buffer text = {0};
	_cleanup_diag_ struct diag diag = {0};
	struct object_list list = {0};

	(void)state;
	for (int i = 0; i < 100000; i++)
		buffer_add_char(&text, '[');
	assert_int_equal(decode_documents("t.yaml", text.data, text.length, &list, &diag), -EINVAL);
	assert_string_equal(diag.text, "t.yaml:1: want at most 32 levels of lists and mappings, got more");
	/* Doubling aliases: the text is short, what it stands for is not. */
	buffer_clear(&text);
	diag_clear(&diag);
	buffer_add_string(&text, "a: &a [x, x]\n");
	for (int c = 'b'; c <= 'z'; c++)
		buffer_printf(&text, "%c: &%c [*%c, *%c]\n", c, c, c - 1, c - 1);
	assert_int_equal(decode_documents("t.yaml", text.data, text.length, &list, &diag), -EINVAL);
	assert_string_equal(diag.text, "t.yaml:2: want values written out (anchors and aliases are not read), got an alias");
	/* More values than any document has. */
	buffer_clear(&text);
	diag_clear(&diag);
	buffer_add_char(&text, '[');
	for (int i = 0; i < (8 << 20) + 1; i++)
		buffer_add(&text, "a,", 2);
	assert_int_equal(decode_documents("t.yaml", text.data, text.length, &list, &diag), -EINVAL);
	assert_string_equal(diag.text, "t.yaml:1: want at most 8388608 values in a document, got more");
	diag_clear(&diag);
	assert_int_equal(decode_documents("t.yaml", "", DECODE_BYTES_MAX + 1, &list, &diag), -EINVAL);
	assert_string_equal(diag.text, "t.yaml: want at most 268435456 bytes, got 268435457");
	/* Not UTF-8. */
	diag_clear(&diag);
	assert_int_equal(decode_documents("t.yaml", "kind: \xff\n", 8, &list, &diag), -EINVAL);
	assert_string_equal(
		diag.text, "t.yaml:1: want YAML or JSON in UTF-8, got byte 0xff at offset 6: invalid leading UTF-8 octet");
}

static void test_sharing(void **state)
{
	_cleanup_object_list_ struct object_list list = model_decode(DOCUMENT("HostPolicy",
		"  ingress:\n"
		"  - {action: allow, from: [{cidr: 10.0.0.0/8, except: [10.1.0.0/16]}], ports: [{port: 80}]}\n"
		"  - {action: deny, from: [{cidr: 10.0.0.0/8, except: [10.1.0.0/16]}], ports: [{port: 80}]}\n"
		"  - {action: deny, from: [{cidr: 10.0.0.0/8}], ports: [{port: 81}]}\n"));
	const struct rule *rules = list.items[0]->policy.rules[HD_INGRESS];

	(void)state;
	assert_ptr_equal(rules[0].peers, rules[1].peers);
	assert_ptr_equal(rules[0].ports, rules[1].ports);
	assert_ptr_not_equal(rules[0].peers, rules[2].peers);
	assert_ptr_not_equal(rules[0].ports, rules[2].ports);
	assert_int_equal(rules[2].peers->n_except, 0);
}

static void test_kinds(void **state)
{
	(void)state;
	assert_int_equal(object_kind_from_name("Host"), OBJECT_HOST);
	assert_int_equal(object_kind_from_name("hosts"), OBJECT_HOST);
	assert_int_equal(object_kind_from_name("hostpolicy"), OBJECT_HOST_POLICY);
	assert_int_equal(object_kind_from_name("HostPolicies"), OBJECT_HOST_POLICY);
	assert_int_equal(object_kind_from_name("addressgroups"), OBJECT_ADDRESS_GROUP);
	assert_int_equal(object_kind_from_name("hostpolicys"), OBJECT_HOST_POLICY);
	assert_int_equal(object_kind_from_name("pod"), -1);
	assert_int_equal(object_kind_from_name(""), -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_contract),
		cmocka_unit_test(test_ports),
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_source_ports),
		cmocka_unit_test(test_metadata),
		cmocka_unit_test(test_mistakes),
		cmocka_unit_test(test_all_mistakes),
		cmocka_unit_test(test_without_file),
		cmocka_unit_test(test_lists_and_empty),
		cmocka_unit_test(test_json),
		cmocka_unit_test(test_json_surrogates),
		cmocka_unit_test(test_limits),
		cmocka_unit_test(test_sharing),
		cmocka_unit_test(test_kinds),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
