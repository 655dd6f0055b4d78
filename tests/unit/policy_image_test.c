/* SPDX-License-Identifier: Apache-2.0 */
/* What another policy makes of flows: over uplinks, forwarded, between ports. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <netinet/in.h>

#include <cmocka.h>

#include <policy/image.h>
#include <tests/unit/policy_env.h>
#include <util/addr.h>

#define HEAD "---\napiVersion: heddle.dev/v1alpha1\nkind: "
#define HOST(spec) HEAD "Host\nmetadata: {name: h}\nspec: {uplinks: [{device: eth0}, {device: eth1}], " spec "}\n"
#define PASS HOST("forward: pass")
#define JUDGE HOST("forward: judge")
#define POLICY(name) HEAD "HostPolicy\nmetadata: {name: " name "}\nspec:\n"

static struct policy_image *image_of(const char *text, struct object_list *list)
{
	static const struct compiler_limits limits = {1 << 10, 1 << 10, 1 << 10, 1 << 12, 1 << 10};
	struct policy_image *image;
	struct compiler_limits needed;
	struct policy_delta *delta;
	struct compiler *compiler;
	struct networks *networks;
	struct diag diag = {0};

	policy_documents(list, text);
	assert_int_equal(networks_new(&networks), 0);
	assert_int_equal(networks_assign(networks, list, &diag), 0);
	const struct policy_input input = {.host = policy_env_host(list), .objects = list, .networks = networks};

	assert_int_equal(compiler_new(&limits, 1, &compiler), 0);
	assert_int_equal(compiler_compile(compiler, &input, &delta, &needed, &diag), 0);
	assert_int_equal(policy_image_new(compiler, delta, input.host, &image), 0);
	networks_free(networks);
	return image;
}

static struct image_flow flow_of(const char *source, const char *destination, uint8_t protocol, uint16_t port)
{
	struct image_flow flow = {.protocol = protocol, .source_port = 40000, .destination_port = port};

	assert_int_equal(addr_parse(source, &flow.source), 0);
	assert_int_equal(addr_parse(destination, &flow.destination), 0);
	flow.family = addr_is_ipv4(&flow.source) ? 4 : 6;
	return flow;
}

/* "allow web", "deny" (by the default), "allow (audit) web", "drop". */
static void expect(const struct policy_image *image, const struct image_flow *flow, const char *wanted)
{
	static const char *const verdicts[] = {
		[HD_ALLOW] = "allow", [HD_DENY] = "deny", [HD_REJECT] = "reject", [HD_DROP] = "drop"};
	struct image_verdict verdict;
	struct rule_reference rule = {0};
	char text[200];

	assert_int_equal(policy_image_judge(image, flow, &verdict), 0);
	if (verdict.rule != HD_RULE_NONE)
		assert_int_equal(compiler_rule(policy_image_compiler(image), verdict.rule, &rule), 0);
	snprintf(text, sizeof(text), "%s%s%s%s", verdicts[verdict.verdict], verdict.audit ? " (audit)" : "", rule.name ? " " : "",
		rule.name ? rule.name : "");
	assert_string_equal(text, wanted);
}

static void test_uplinks(void **state)
{
	struct object_list list = {0};
	struct policy_image *image = image_of(
		PASS POLICY("a") "  ingress:\n"
				 "  - {name: web, action: allow, from: [{cidr: 192.0.2.0/24}, {cidr: \"2001:db8::/32\"}], ports: "
				 "[{protocol: TCP, port: 80}]}\n"
				 "  - {name: ping, action: reject, icmp: [{type: 8}, {type: 128, family: IPv6}]}\n"
				 "  - {name: source, action: allow, ports: [{protocol: UDP}], sourcePorts: [{port: 40000}]}\n"
				 "  - {name: gre, action: allow, ports: [{protocol: GRE}]}\n"
				 "  egress: [{name: smtp, action: deny, to: [{cidr: 198.51.100.0/24}], ports: [{protocol: TCP, "
				 "port: 25}]}]\n"
				 "  default: {ingress: deny}\n" POLICY(
					 "b") "  uplinks: [eth1]\n  priority: 1\n  ingress: [{name: second, action: allow}]\n",
		&list);
	const struct image_device *eth0 = policy_image_uplink(image, "eth0"), *eth1 = policy_image_uplink(image, "eth1");
	struct image_flow flow = flow_of("192.0.2.9", "10.0.0.1", IPPROTO_TCP, 80);

	(void)state;
	assert_true(eth0 && eth1 && !policy_image_uplink(image, "eth2") && !policy_image_port(image, "eth0"));
	expect(image, &flow, "allow"); /* nobody judges there */
	flow.uplink = eth0;
	expect(image, &flow, "allow web");
	flow.destination_port = 81;
	expect(image, &flow, "deny default-ingress");
	flow.uplink = eth1;
	expect(image, &flow, "allow second");
	flow = flow_of("2001:db8::1", "2001:db8:1::1", IPPROTO_TCP, 80);
	flow.uplink = eth0;
	expect(image, &flow, "allow web");
	flow.protocol = IPPROTO_ICMPV6;
	expect(image, &flow, "reject ping");
	flow = flow_of("203.0.113.1", "10.0.0.1", IPPROTO_ICMP, 77);
	flow.uplink = eth0;
	expect(image, &flow, "reject ping");
	flow.protocol = IPPROTO_UDP;
	expect(image, &flow, "allow source");
	flow.source_port = 1;
	expect(image, &flow, "deny default-ingress");
	flow.protocol = IPPROTO_GRE;
	expect(image, &flow, "allow gre");
	flow = flow_of("10.0.0.1", "198.51.100.1", IPPROTO_TCP, 25);
	flow.uplink = eth0;
	flow.direction = HD_EGRESS;
	expect(image, &flow, "deny smtp");
	flow.destination_port = 26;
	expect(image, &flow, "allow default-egress");
	policy_image_free(image);
	object_list_clear(&list);
}

static void test_audit(void **state)
{
	struct object_list list = {0};
	struct policy_image *image =
		image_of(PASS POLICY("a") "  audit: true\n  ingress: [{name: no, action: reject, ports: [{protocol: TCP, port: "
					  "80}]}]\n  default: {ingress: deny}\n",
			&list);
	struct image_flow flow = flow_of("192.0.2.9", "10.0.0.1", IPPROTO_TCP, 80);

	(void)state;
	flow.uplink = policy_image_uplink(image, "eth0");
	expect(image, &flow, "allow (audit) no");
	flow.destination_port = 81;
	expect(image, &flow, "allow (audit) default-ingress");
	policy_image_free(image);
	object_list_clear(&list);
}

static void test_forwarded(void **state)
{
	static const char rules[] =
		POLICY("a") "  ingress: [{name: in, action: allow, ports: [{protocol: TCP, port: 80}]}]\n"
			    "  default: {ingress: deny}\n" POLICY(
				    "out") "  uplinks: [eth1]\n  egress: [{name: out, action: deny, to: [{cidr: "
					   "10.0.0.0/8}]}]\n";
	char text[2048];

	(void)state;
	for (int judge = 0; judge < 2; judge++) {
		struct object_list list = {0};
		struct policy_image *image;
		struct image_flow flow = flow_of("192.0.2.9", "10.0.0.1", IPPROTO_TCP, 443);

		snprintf(text, sizeof(text), "%s%s", judge ? JUDGE : PASS, rules);
		image = image_of(text, &list);
		flow.uplink = policy_image_uplink(image, "eth0");
		flow.forwarded = true;
		expect(image, &flow, judge ? "deny default-ingress" : "allow forward");
		/* the host's own is judged either way */
		flow.forwarded = false;
		expect(image, &flow, "deny default-ingress");
		flow.destination_port = 80;
		expect(image, &flow, "allow in");
		/* where it leaves is asked too, if it is a judged one */
		flow.left_elsewhere = true;
		expect(image, &flow, judge ? "deny out" : "allow in");
		flow.uplink = policy_image_uplink(image, "eth1");
		expect(image, &flow, "allow in"); /* eth0 has nothing against it */
		policy_image_free(image);
		object_list_clear(&list);
	}
}

static void test_ports(void **state)
{
#define PORT(name, address) \
	HEAD "Port\nmetadata: {name: " name ", labels: {app: " name "}}\nspec: {device: d" name \
	     ", network: blue, addresses: [" address "]}\n"
#define NETPOL(name) "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: " name "}\nspec:\n"
	struct object_list list = {0};
	struct policy_image *image = image_of(PASS HEAD
		"Network\nmetadata: {name: blue}\nspec: {}\n" PORT("web", "10.1.0.1") PORT("db", "10.1.0.2")
			PORT("etc", "10.1.0.3")
				NETPOL("db") "  podSelector: {matchLabels: {app: db}}\n"
					     "  ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: "
					     "5432}]}]\n" NETPOL(
						     "etc") "  podSelector: {matchLabels: {app: etc}}\n  policyTypes: [Egress]\n",
		&list);
	const struct image_device *web = policy_image_port(image, "dweb"), *db = policy_image_port(image, "ddb"),
				  *etc = policy_image_port(image, "detc");
	struct image_flow flow = flow_of("10.1.0.1", "10.1.0.2", IPPROTO_TCP, 5432);
	struct image_verdict verdict;
	struct rule_reference rule;

	(void)state;
	assert_true(web && db && etc && !policy_image_uplink(image, "dweb"));
	flow.between_ports = flow.has_opener = flow.has_target = true;
	flow.opener = web;
	flow.target = db;
	assert_int_equal(policy_image_judge(image, &flow, &verdict), 0);
	assert_int_equal(verdict.verdict, HD_ALLOW);
	assert_int_equal(verdict.rule, HD_RULE_DEFAULT_EGRESS);
	assert_int_equal(compiler_rule(policy_image_compiler(image), verdict.second_rule, &rule), 0);
	assert_string_equal(rule.policy, "db");
	flow.destination_port = 80;
	expect(image, &flow, "deny isolated");
	/* from one that is not selected, and from one that may not send */
	flow = flow_of("10.1.0.3", "10.1.0.1", IPPROTO_TCP, 80);
	flow.between_ports = flow.has_opener = flow.has_target = true;
	flow.opener = etc;
	flow.target = web;
	expect(image, &flow, "deny isolated");
	/* the host's own traffic to its ports passes; what it forwards is judged */
	flow = flow_of("192.0.2.1", "10.1.0.2", IPPROTO_TCP, 80);
	flow.between_ports = flow.has_target = flow.from_node = true;
	flow.target = db;
	expect(image, &flow, "allow node");
	flow.from_node = false;
	expect(image, &flow, "deny isolated");
	/* to the host */
	flow = flow_of("10.1.0.1", "192.0.2.1", IPPROTO_TCP, 80);
	flow.between_ports = flow.has_opener = true;
	flow.opener = web;
	expect(image, &flow, "allow default-egress");
	/* a port that is not there */
	flow.opener = policy_image_port(image, "dgone");
	expect(image, &flow, "drop");
	policy_image_free(image);
	object_list_clear(&list);
}

/* From and to workloads of a Peer, in the port's own network and routed. */
static void test_peers(void **state)
{
	struct object_list list = {0};
	struct policy_image *image = image_of(PASS HEAD "Network\nmetadata: {name: blue}\nspec: {vni: 1, routesTo: [red]}\n" HEAD
							"Network\nmetadata: {name: red}\nspec: {vni: 2}\n" HEAD
							"Network\nmetadata: {name: void}\nspec: {}\n" PORT("web", "10.1.0.1") HEAD
		"Peer\nmetadata: {name: b}\nspec:\n  address: 192.0.2.2\n  ports:\n"
		"  - {name: db, network: red, addresses: [10.2.0.1], labels: {app: db}, ports: [{name: sql, port: 5432}]}\n"
		"  - {name: etc, network: blue, addresses: [10.1.0.9], labels: {app: etc}}\n"
		"  prefixes: [{network: red, cidr: 10.3.0.0/24}]\n" NETPOL(
			"web") "  podSelector: {matchLabels: {app: web}}\n  policyTypes: [Ingress, Egress]\n"
			       "  ingress: [{from: [{podSelector: {matchLabels: {app: etc}}}], ports: [{port: 80}]}]\n"
			       "  egress: [{to: [{podSelector: {matchLabels: {app: db}}}], ports: [{port: sql}]},\n"
			       "    {to: [{ipBlock: {cidr: 10.3.0.0/24}}]}]\n",
		&list);
	struct image_flow flow = flow_of("10.1.0.9", "10.1.0.1", IPPROTO_TCP, 80);

	(void)state;
	/* in one network */
	flow.between_ports = flow.has_target = true;
	flow.target = policy_image_port(image, "dweb");
	flow.network[0] = flow.network[1] = 1;
	expect(image, &flow, "allow");
	flow.destination_port = 81;
	expect(image, &flow, "deny isolated");
	assert_int_equal(addr_parse("10.1.0.8", &flow.source), 0);
	flow.destination_port = 80;
	expect(image, &flow, "deny isolated");
	/* routed: blue and red, in either order */
	for (unsigned i = 0; i < 2; i++) {
		flow = flow_of("10.1.0.1", "10.2.0.1", IPPROTO_TCP, 5432);
		flow.between_ports = flow.has_opener = true;
		flow.opener = policy_image_port(image, "dweb");
		flow.network[i] = 1;
		flow.network[!i] = 2;
		expect(image, &flow, "allow");
		flow.destination_port = 80;
		expect(image, &flow, "deny isolated");
		/* what is in a prefix has no labels, but an address */
		assert_int_equal(addr_parse("10.3.0.7", &flow.destination), 0);
		expect(image, &flow, "allow");
		assert_int_equal(addr_parse("10.4.0.7", &flow.destination), 0);
		expect(image, &flow, "deny isolated");
	}
	policy_image_free(image);
	object_list_clear(&list);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_uplinks),
		cmocka_unit_test(test_audit),
		cmocka_unit_test(test_forwarded),
		cmocka_unit_test(test_ports),
		cmocka_unit_test(test_peers),
	};

	return cmocka_run_group_tests_name("policy image", tests, NULL, NULL);
}
