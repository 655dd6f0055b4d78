/* SPDX-License-Identifier: Apache-2.0 */
/* NetworkPolicy and the cluster-wide policies: what is read, and every mistake's words. Selectors. */
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
#include <util/buffer.h>
#include <util/cleanup.h>

#define NETPOL(spec) "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p}\nspec:\n" spec
/* One rule, on line 7. */
#define NETPOL_RULE(rule) NETPOL("  podSelector: {}\n  ingress:\n  - " rule "\n")
#define TIER(version, kind, name, spec) \
	"apiVersion: policy.networking.k8s.io/" version "\nkind: " kind "\nmetadata: {name: " name "}\nspec:\n" spec
#define ANP(spec) TIER("v1alpha1", "AdminNetworkPolicy", "p", spec)
#define BANP(spec) TIER("v1alpha1", "BaselineAdminNetworkPolicy", "default", spec)
#define CNP(spec) TIER("v1alpha2", "ClusterNetworkPolicy", "p", spec)
/* One rule, on line 8. */
#define ANP_RULES(direction, rule) ANP("  priority: 1\n  subject: {namespaces: {}}\n  " direction ":\n  - " rule "\n")
#define CNP_RULES(direction, rule) \
	CNP("  tier: Admin\n  priority: 1\n  subject: {namespaces: {}}\n  " direction ":\n  - " rule "\n")

/* --- selectors --- */

/* A selector that means matchLabels and expressions alike is one sorted list. */
static void test_selector(void **state)
{
	_cleanup_object_list_ struct object_list list =
		model_decode(NETPOL("  podSelector:\n    matchLabels: {tier: web, app: shop}\n"
				    "    matchExpressions:\n"
				    "    - {key: env, operator: NotIn, values: [test, dev, test]}\n"
				    "    - {key: app, operator: Exists}\n"
				    "    - {key: app, operator: In, values: [shop]}\n"));
	const struct selector *pods = &list.items[0]->workload.pods;

	(void)state;
	assert_true(pods->present);
	assert_int_equal(pods->n, 4);
	assert_string_equal(pods->items[0].key, "app");
	assert_int_equal(pods->items[0].operator, SELECTOR_IN);
	assert_string_equal(pods->items[0].values[0], "shop");
	assert_int_equal(pods->items[1].operator, SELECTOR_EXISTS);
	assert_string_equal(pods->items[2].key, "env");
	assert_int_equal(pods->items[2].n_values, 2);
	assert_string_equal(pods->items[2].values[0], "dev");
	assert_string_equal(pods->items[3].key, "tier");
}

static void test_selector_matches(void **state)
{
	static const struct label labels[] = {{"app", "web"}, {"empty", ""}, {"tier", "front"}};
	static const struct {
		const char *selector;
		bool matches;
	} cases[] = {
		{"{}", true},
		{"{matchLabels: {}, matchExpressions: []}", true},
		{"{matchLabels: {app: web}}", true},
		{"{matchLabels: {app: db}}", false},
		{"{matchLabels: {app: web, tier: front}}", true},
		{"{matchLabels: {app: web, tier: back}}", false},
		{"{matchLabels: {empty: ''}}", true},
		{"{matchLabels: {lost: ''}}", false},
		{"{matchExpressions: [{key: app, operator: In, values: [db, web]}]}", true},
		{"{matchExpressions: [{key: app, operator: In, values: [db]}]}", false},
		{"{matchExpressions: [{key: lost, operator: In, values: [db]}]}", false},
		{"{matchExpressions: [{key: app, operator: NotIn, values: [db]}]}", true},
		{"{matchExpressions: [{key: app, operator: NotIn, values: [db, web]}]}", false},
		{"{matchExpressions: [{key: lost, operator: NotIn, values: [db]}]}", true},
		{"{matchExpressions: [{key: app, operator: Exists}]}", true},
		{"{matchExpressions: [{key: zzz, operator: Exists}]}", false},
		{"{matchExpressions: [{key: aaa, operator: DoesNotExist}]}", true},
		{"{matchExpressions: [{key: empty, operator: DoesNotExist}]}", false},
		{"{matchLabels: {app: web}, matchExpressions: [{key: tier, operator: NotIn, values: [front]}]}", false},
		{"{matchLabels: {app: web}, matchExpressions: [{key: app, operator: In, values: [db]}]}", false},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char text[400];

		snprintf(text, sizeof(text), NETPOL("  podSelector: %s\n"), cases[i].selector);
		_cleanup_object_list_ struct object_list list = model_decode(text);
		if (selector_matches(&list.items[0]->workload.pods, labels, ARRAY_SIZE(labels)) != cases[i].matches)
			fail_msg("%s", cases[i].selector);
	}
	/* Nobody's labels. */
	_cleanup_object_list_ struct object_list list =
		model_decode(NETPOL("  podSelector: {matchExpressions: [{key: a, operator: NotIn, values: [b]}]}\n"));
	assert_true(selector_matches(&list.items[0]->workload.pods, NULL, 0));
}

/* --- NetworkPolicy --- */

static void test_network_policy(void **state)
{
	_cleanup_object_list_ struct object_list list = model_decode(
		"apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: p\n  namespace: shop\nspec:\n"
		"  podSelector: {matchLabels: {app: web}}\n"
		"  ingress:\n"
		"  - from:\n"
		"    - podSelector: {matchLabels: {app: lb}}\n"
		"    - namespaceSelector: {matchLabels: {team: a}}\n"
		"      podSelector: {}\n"
		"    - namespaceSelector: {}\n"
		"    - ipBlock: {cidr: 10.1.2.3/8, except: [10.1.0.0/16, 10.2.255.255/16]}\n"
		"    ports: [{}, {port: 80}, {protocol: UDP, port: 1, endPort: 9}, {port: http}, {protocol: SCTP}]\n"
		"  - {from: [], ports: []}\n"
		"  - {}\n");
	const struct workload_policy *policy = &list.items[0]->workload;
	const struct policy_rule *rules = policy->rules[HD_INGRESS];
	const struct policy_port *ports = rules[0].ports;
	const struct policy_peer *peers = rules[0].peers;
	char text[ADDR_TEXT_MAX];

	(void)state;
	assert_string_equal(list.items[0]->namespace_, "shop");
	assert_false(policy->namespaces.present);
	assert_int_equal(policy->pods.n, 1);
	assert_false(policy->baseline);
	assert_false(policy->audit);
	assert_int_equal(policy->priority, 0);
	assert_int_equal(policy->n_rules[HD_INGRESS], 3);
	assert_int_equal(policy->n_rules[HD_EGRESS], 0);

	assert_int_equal(rules[0].line, 9);
	assert_int_equal(rules[0].action, POLICY_ALLOW);
	assert_int_equal(rules[0].n_peers, 4);
	assert_int_equal(peers[0].kind, POLICY_PEER_PODS);
	assert_false(peers[0].namespaces.present);
	assert_int_equal(peers[0].pods.n, 1);
	assert_true(peers[1].namespaces.present);
	assert_int_equal(peers[1].namespaces.n, 1);
	assert_true(peers[1].pods.present);
	assert_int_equal(peers[1].pods.n, 0);
	assert_true(peers[2].namespaces.present);
	assert_false(peers[2].pods.present);
	assert_int_equal(peers[3].kind, POLICY_PEER_NETWORKS);
	assert_int_equal(peers[3].n_blocks, 1);
	assert_string_equal(addr_format_cidr(&peers[3].blocks->addr, peers[3].blocks->length, text), "10.0.0.0/8");
	assert_int_equal(peers[3].n_except, 2);
	assert_string_equal(addr_format_cidr(&peers[3].except[1].addr, peers[3].except[1].length, text), "10.2.0.0/16");

	assert_int_equal(rules[0].n_ports, 5);
	assert_int_equal(ports[0].range.protocol, IPPROTO_TCP);
	assert_true(ports[0].range.any_port);
	assert_int_equal(ports[0].range.last, 65535);
	assert_int_equal(ports[1].range.first, 80);
	assert_int_equal(ports[1].range.last, 80);
	assert_false(ports[1].range.any_port);
	assert_int_equal(ports[2].range.protocol, IPPROTO_UDP);
	assert_int_equal(ports[2].range.last, 9);
	assert_string_equal(ports[3].name, "http");
	assert_int_equal(ports[3].range.protocol, IPPROTO_TCP);
	assert_true(ports[4].range.any_port);
	for (int i = 1; i < 3; i++) {
		assert_int_equal(rules[i].n_peers, 0);
		assert_int_equal(rules[i].n_ports, 0);
	}
}

/* Which directions a policy isolates. */
static void test_policy_types(void **state)
{
	static const struct {
		const char *spec;
		bool ingress, egress;
	} cases[] = {
		{"  podSelector: {}\n", true, false},
		{"  {}\n", true, false},
		{"  podSelector:\n  ingress:\n  egress: null\n", true, false},
		{"  ingress: []\n", true, false},
		{"  ingress: [{}]\n", true, false},
		{"  egress: []\n", true, false},
		{"  egress: [{}]\n", true, true},
		{"  policyTypes: []\n  egress: [{}]\n", true, true},
		{"  policyTypes: [Ingress]\n  egress: [{}]\n", true, false},
		{"  policyTypes: [Egress]\n  ingress: [{}]\n", false, true},
		{"  policyTypes: [Egress, Ingress]\n", true, true},
		{"  policyTypes: [Egress, Egress]\n", false, true},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char text[400];

		snprintf(text, sizeof(text), NETPOL("%s"), cases[i].spec);
		_cleanup_object_list_ struct object_list list = model_decode(text);
		const struct workload_policy *policy = &list.items[0]->workload;
		if (policy->applies[HD_INGRESS] != cases[i].ingress || policy->applies[HD_EGRESS] != cases[i].egress)
			fail_msg("%s", cases[i].spec);
		assert_true(policy->pods.present);
		assert_string_equal(list.items[0]->namespace_, "default");
		model_round_trip(text);
	}
}

/* What a cluster and kubectl write into its documents is read over. */
static void test_from_a_cluster(void **state)
{
	static const char written[] =
		"apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: p\n  namespace: default\n"
		"  annotations: {note: 'any'}\n"
		"  creationTimestamp: '2026-01-01T00:00:00Z'\n  generation: 2\n  resourceVersion: '77'\n  uid: 0-1\n"
		"  generateName: x-\n  selfLink: /a\n  finalizers: [a]\n  deletionTimestamp: null\n"
		"  ownerReferences: [{kind: X}]\n  managedFields:\n  - {fieldsV1: {'f:spec': {}}}\n"
		"spec: {podSelector: {}, policyTypes: [Ingress]}\nstatus: {}\n";
	static const char plain[] =
		"apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, annotations: {note: any}}\n"
		"spec: {}\n";
	_cleanup_object_list_ struct object_list a = model_decode(written), b = model_decode(plain);

	(void)state;
	assert_true(object_equal(a.items[0], b.items[0]));
	assert_int_equal(a.items[0]->n_labels, 0);
}

static void test_audit(void **state)
{
#define AUDITED(version, kind, name, value, spec) \
	"apiVersion: " version "\nkind: " kind "\nmetadata: {name: " name ", annotations: {heddle.dev/audit: " value \
	"}}\nspec: " spec "\n"
	static const char *const audited[] = {
		AUDITED("networking.k8s.io/v1", "NetworkPolicy", "p", "'true'", "{}"),
		AUDITED("policy.networking.k8s.io/v1alpha1", "AdminNetworkPolicy", "p", "'true'",
			"{priority: 1, subject: {namespaces: {}}}"),
		AUDITED("policy.networking.k8s.io/v1alpha1", "BaselineAdminNetworkPolicy", "default", "'true'",
			"{subject: {namespaces: {}}}"),
		AUDITED("policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy", "p", "'true'",
			"{tier: Admin, priority: 1, subject: {namespaces: {}}}"),
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(audited); i++) {
		_cleanup_object_list_ struct object_list list = model_decode(audited[i]);

		assert_true(list.items[0]->workload.audit);
		model_round_trip(audited[i]);
	}
	_cleanup_object_list_ struct object_list no =
		model_decode(AUDITED("networking.k8s.io/v1", "NetworkPolicy", "p", "'false'", "{}"));
	assert_false(no.items[0]->workload.audit);
	model_refused(AUDITED("networking.k8s.io/v1", "NetworkPolicy", "p", "'yes'", "{}"),
		"t.yaml:3: metadata.annotations.heddle.dev/audit: want \"true\" or \"false\", got \"yes\"");

	_cleanup_object_list_ struct object_list host =
		model_decode("apiVersion: heddle.dev/v1alpha1\nkind: HostPolicy\nmetadata: {name: p}\nspec: {audit: true}\n---\n"
			     "apiVersion: heddle.dev/v1alpha1\nkind: HostPolicy\nmetadata: {name: q}\nspec: {audit: false}\n");
	assert_true(host.items[0]->policy.audit);
	assert_false(host.items[1]->policy.audit);
	model_round_trip("apiVersion: heddle.dev/v1alpha1\nkind: HostPolicy\nmetadata: {name: p}\nspec: {audit: true}\n");
}

/* --- the cluster-wide kinds --- */

static void test_admin_policy(void **state)
{
	_cleanup_object_list_ struct object_list list =
		model_decode(ANP("  priority: 1000\n"
				 "  subject: {pods: {namespaceSelector: {matchLabels: {a: b}}, podSelector: {}}}\n"
				 "  ingress:\n"
				 "  - name: first\n    action: Pass\n    from: [{namespaces: {}}, {pods: {namespaceSelector: {}, "
				 "podSelector: "
				 "{matchLabels: {c: d}}}}]\n"
				 "    ports:\n    - portNumber: {port: 80}\n    - portRange: {protocol: UDP, start: 5, end: 9}\n"
				 "    - namedPort: http\n"
				 "  - {name: '', action: Deny, from: [{namespaces: {}}]}\n"
				 "  egress:\n"
				 "  - {action: Allow, to: [{networks: [10.0.0.1/8, 'fd00::/8']}, {nodes: {}}, {namespaces: "
				 "{}}]}\n") "---\n" BANP("  subject: {namespaces: {matchLabels: {x: y}}}\n"
							 "  egress: [{action: Deny, to: [{namespaces: {}}]}]\n"));
	const struct workload_policy *admin = &list.items[0]->workload, *baseline = &list.items[1]->workload;
	const struct policy_rule *rules = admin->rules[HD_INGRESS], *egress = admin->rules[HD_EGRESS];

	(void)state;
	assert_null(list.items[0]->namespace_);
	assert_int_equal(admin->priority, 1000);
	assert_false(admin->baseline);
	assert_true(admin->applies[HD_INGRESS] && admin->applies[HD_EGRESS]);
	assert_int_equal(admin->namespaces.n, 1);
	assert_true(admin->pods.present);
	assert_int_equal(admin->pods.n, 0);
	assert_string_equal(rules[0].name, "first");
	assert_int_equal(rules[0].action, POLICY_PASS);
	assert_int_equal(rules[0].n_peers, 2);
	assert_true(rules[0].peers[0].namespaces.present);
	assert_false(rules[0].peers[0].pods.present);
	assert_true(rules[0].peers[1].namespaces.present);
	assert_int_equal(rules[0].peers[1].pods.n, 1);
	assert_int_equal(rules[0].n_ports, 3);
	assert_int_equal(rules[0].ports[0].range.protocol, IPPROTO_TCP);
	assert_int_equal(rules[0].ports[0].range.last, 80);
	assert_int_equal(rules[0].ports[1].range.protocol, IPPROTO_UDP);
	assert_int_equal(rules[0].ports[1].range.first, 5);
	assert_int_equal(rules[0].ports[1].range.last, 9);
	assert_string_equal(rules[0].ports[2].name, "http");
	assert_int_equal(rules[0].ports[2].range.protocol, 0);
	assert_null(rules[1].name);
	assert_int_equal(rules[1].action, POLICY_DENY);
	assert_int_equal(egress[0].action, POLICY_ALLOW);
	assert_int_equal(egress[0].peers[0].kind, POLICY_PEER_NETWORKS);
	assert_int_equal(egress[0].peers[0].n_blocks, 2);
	assert_int_equal(egress[0].peers[1].kind, POLICY_PEER_NODES);
	assert_true(egress[0].peers[1].nodes.present);
	assert_int_equal(egress[0].n_ports, 0);

	assert_true(baseline->baseline);
	assert_int_equal(baseline->priority, 0);
	assert_int_equal(baseline->namespaces.n, 1);
	assert_false(baseline->pods.present);
}

static void test_cluster_policy(void **state)
{
	_cleanup_object_list_ struct object_list list = model_decode(CNP(
		"  tier: Baseline\n  priority: 0\n  subject: {pods: {podSelector: {matchLabels: {a: b}}}}\n"
		"  ingress:\n"
		"  - action: Accept\n    from: [{namespaces: {}}]\n    protocols:\n    - tcp: {destinationPort: {number: 80}}\n"
		"    - udp: {destinationPort: {range: {start: 1, end: 2}}}\n    - sctp: {destinationPort: {number: 9}}\n"
		"    - destinationNamedPort: http\n"));
	const struct workload_policy *policy = &list.items[0]->workload;
	const struct policy_rule *rule = policy->rules[HD_INGRESS];

	(void)state;
	assert_true(policy->baseline);
	assert_true(policy->namespaces.present);
	assert_int_equal(policy->namespaces.n, 0);
	assert_int_equal(policy->pods.n, 1);
	assert_int_equal(rule->action, POLICY_ALLOW);
	assert_int_equal(rule->n_ports, 4);
	assert_int_equal(rule->ports[0].range.protocol, IPPROTO_TCP);
	assert_int_equal(rule->ports[0].range.first, 80);
	assert_int_equal(rule->ports[1].range.protocol, IPPROTO_UDP);
	assert_int_equal(rule->ports[1].range.last, 2);
	assert_int_equal(rule->ports[2].range.protocol, IPPROTO_SCTP);
	assert_string_equal(rule->ports[3].name, "http");
	assert_int_equal(rule->ports[3].range.protocol, 0);
}

/* --- all of them --- */

/* Each says something of its own, and comes back from its JSON as it was. */
static void test_fields_count(void **state)
{
	static const char *const texts[] = {
		NETPOL("  {}\n"),
		NETPOL("  policyTypes: [Egress]\n"),
		NETPOL("  policyTypes: [Ingress, Egress]\n"),
		NETPOL("  podSelector: {matchLabels: {a: b}}\n"),
		NETPOL("  podSelector: {matchLabels: {a: c}}\n"),
		NETPOL("  podSelector: {matchExpressions: [{key: a, operator: In, values: [b, c]}]}\n"),
		NETPOL("  podSelector: {matchExpressions: [{key: a, operator: NotIn, values: [b]}]}\n"),
		NETPOL("  podSelector: {matchExpressions: [{key: a, operator: Exists}]}\n"),
		NETPOL("  podSelector: {matchExpressions: [{key: a, operator: DoesNotExist}]}\n"),
		NETPOL("  podSelector: {matchLabels: {a: b}, matchExpressions: [{key: a, operator: In, values: [b, c]}, {key: a, "
		       "operator: In, values: [c]}]}\n"),
		NETPOL_RULE("{}"),
		NETPOL_RULE("{}\n  - {}"),
		NETPOL_RULE("from: [{podSelector: {}}]"),
		NETPOL_RULE("from: [{namespaceSelector: {}}]"),
		NETPOL_RULE("from: [{podSelector: {}, namespaceSelector: {}}]"),
		NETPOL_RULE("from: [{podSelector: {}}, {namespaceSelector: {}}]"),
		NETPOL_RULE("from: [{ipBlock: {cidr: 10.0.0.0/8}}]"),
		NETPOL_RULE("from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/9]}}]"),
		NETPOL_RULE("ports: [{}]"),
		NETPOL_RULE("ports: [{protocol: UDP}]"),
		NETPOL_RULE("ports: [{port: 80}]"),
		NETPOL_RULE("ports: [{port: 80, endPort: 81}]"),
		NETPOL_RULE("ports: [{port: http}]"),
		NETPOL_RULE("ports: [{protocol: UDP, port: http}]"),
		NETPOL("  policyTypes: [Ingress]\n  egress: [{}]\n"),
		NETPOL("  egress: [{}]\n"),
		ANP("  priority: 1\n  subject: {namespaces: {}}\n"),
		ANP("  priority: 2\n  subject: {namespaces: {}}\n"),
		ANP("  priority: 1\n  subject: {pods: {namespaceSelector: {}, podSelector: {}}}\n"),
		ANP_RULES("ingress", "{action: Allow, from: [{namespaces: {}}]}"),
		ANP_RULES("ingress", "{action: Deny, from: [{namespaces: {}}]}"),
		ANP_RULES("ingress", "{action: Pass, from: [{namespaces: {}}]}"),
		ANP_RULES("ingress", "{name: a, action: Pass, from: [{namespaces: {}}]}"),
		ANP_RULES("egress", "{action: Pass, to: [{namespaces: {}}]}"),
		ANP_RULES("egress", "{action: Pass, to: [{nodes: {}}]}"),
		ANP_RULES("egress", "{action: Pass, to: [{networks: [10.0.0.0/8]}]}"),
		ANP_RULES("egress", "{action: Pass, to: [{namespaces: {}}], ports: [{portNumber: {port: 1}}]}"),
		ANP_RULES("egress", "{action: Pass, to: [{namespaces: {}}], ports: [{portRange: {start: 1, end: 2}}]}"),
		ANP_RULES("egress", "{action: Pass, to: [{namespaces: {}}], ports: [{namedPort: a}]}"),
		BANP("  subject: {namespaces: {}}\n"),
		BANP("  subject: {namespaces: {}}\n  ingress: [{action: Allow, from: [{namespaces: {}}]}]\n"),
		CNP("  tier: Admin\n  priority: 1\n  subject: {namespaces: {}}\n"),
		CNP("  tier: Baseline\n  priority: 1\n  subject: {namespaces: {}}\n"),
		CNP_RULES("ingress", "{action: Accept, from: [{namespaces: {}}]}"),
		CNP_RULES(
			"egress", "{action: Accept, to: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {number: 1}}}]}"),
		CNP_RULES(
			"egress", "{action: Accept, to: [{namespaces: {}}], protocols: [{udp: {destinationPort: {number: 1}}}]}"),
		CNP_RULES("egress",
			"{action: Accept, to: [{namespaces: {}}], protocols: [{sctp: {destinationPort: {range: {start: "
			"1, end: 2}}}}]}"),
		CNP_RULES("egress", "{action: Accept, to: [{namespaces: {}}], protocols: [{destinationNamedPort: a}]}"),
	};
	uint64_t hashes[ARRAY_SIZE(texts)];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		_cleanup_object_list_ struct object_list list = model_decode(texts[i]);

		hashes[i] = list.items[0]->hash;
		for (size_t j = 0; j < i; j++)
			if (hashes[i] == hashes[j])
				fail_msg("%s\nis the same as\n%s", texts[i], texts[j]);
		model_round_trip(texts[i]);
	}
}

#define PORT_NAME "a name of at most 15 lower-case letters, digits and '-', one letter at least"

static void test_mistakes(void **state)
{
	static const struct {
		const char *text, *message;
	} cases[] = {
		/* documents */
		{"apiVersion: v1\nkind: NetworkPolicy\nmetadata: {name: x}\nspec: {}\n",
			"t.yaml:1: apiVersion: want networking.k8s.io/v1, got v1"},
		{"apiVersion: policy.networking.k8s.io/v1alpha1\nkind: ClusterNetworkPolicy\nmetadata: {name: x}\n"
		 "spec: {tier: Admin, priority: 1, subject: {namespaces: {}}}\n",
			"t.yaml:1: apiVersion: want policy.networking.k8s.io/v1alpha2, got policy.networking.k8s.io/v1alpha1"},
		{"apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: x, colour: red}\nspec: {}\n",
			"t.yaml:3: metadata.colour: want one of the fields name, namespace, labels or annotations, got an "
			"unknown one"},
		{"apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: x}\n",
			"t.yaml:1: spec: want the spec of a NetworkPolicy, got nothing"},
		{ANP("  priority: 1\n  subject: {namespaces: {}}\n---\n") TIER(
			 "v1alpha1", "AdminNetworkPolicy", "p, namespace: x", "  priority: 1\n  subject: {namespaces: {}}\n"),
			"t.yaml:10: metadata.namespace: want no namespace: objects of this kind have none, got x"},
		{TIER("v1alpha1", "BaselineAdminNetworkPolicy", "mine", "  subject: {namespaces: {}}\n"),
			"t.yaml:3: metadata.name: want default, the only name a BaselineAdminNetworkPolicy may have, got mine"},
		/* selectors */
		{NETPOL("  podSelector: {app: web}\n"), "t.yaml:5: spec.podSelector.app: want one of the fields matchLabels or "
							"matchExpressions, got an unknown one"},
		{NETPOL("  podSelector: []\n"), "t.yaml:5: spec.podSelector: want a label selector, got an empty list"},
		{NETPOL("  podSelector: {matchLabels: {a: 1}}\n"),
			"t.yaml:5: spec.podSelector.matchLabels.a: want text (numbers and true or false in quotes), got 1"},
		{NETPOL("  podSelector:\n    matchExpressions:\n    - {key: a, operator: In}\n    - {key: a, operator: Exists, "
			"values: "
			"[b]}\n    - {key: a, operator: Is}\n    - {operator: Exists}\n    - {key: '/', operator: Exists}\n    - "
			"{key: a, "
			"operator: NotIn, values: ['a b', 1]}\n    - {key: a, operator: NotIn, values: []}\n"),
			"t.yaml:7: spec.podSelector.matchExpressions[0].values: want values for In and NotIn, got nothing\n"
			"t.yaml:8: spec.podSelector.matchExpressions[1].values: want no values for Exists and DoesNotExist, got "
			"a list\n"
			"t.yaml:9: spec.podSelector.matchExpressions[2].operator: want In, NotIn, Exists or DoesNotExist, got "
			"Is\n"
			"t.yaml:10: spec.podSelector.matchExpressions[3].key: want a key such as app or example.org/app, got "
			"nothing\n"
			"t.yaml:11: spec.podSelector.matchExpressions[4].key: want a key such as app or example.org/app, got "
			"\"/\"\n"
			"t.yaml:12: spec.podSelector.matchExpressions[5].values[0]: want at most 63 letters, digits, '-', '_' "
			"and '.', "
			"a letter or digit at both ends, got \"a b\"\n"
			"t.yaml:12: spec.podSelector.matchExpressions[5].values[1]: want text (in quotes, if this is meant), got "
			"1\n"
			"t.yaml:13: spec.podSelector.matchExpressions[6].values: want values for In and NotIn, got an empty "
			"list"},
		/* NetworkPolicy */
		{NETPOL("  policyTypes: [ingress]\n"), "t.yaml:5: spec.policyTypes[0]: want Ingress or Egress, got ingress"},
		{NETPOL("  policyTypes: [Ingress, Egress, Egress]\n"),
			"t.yaml:5: spec.policyTypes: want at most 2 policy types, got 3"},
		{NETPOL("  ingress: {}\n"), "t.yaml:5: spec.ingress: want a list of rules, got a mapping"},
		{NETPOL("  ingress: [null]\n"), "t.yaml:5: spec.ingress[0]: want a rule, got nothing"},
		{NETPOL("  priority: 5\n"),
			"t.yaml:5: spec.priority: want one of the fields podSelector, policyTypes, ingress or "
			"egress, got an unknown one"},
		{NETPOL_RULE("to: [{podSelector: {}}]"),
			"t.yaml:7: spec.ingress[0].to: want one of the fields from or ports, got an unknown one"},
		{NETPOL("  egress:\n  - from: []\n"),
			"t.yaml:6: spec.egress[0].from: want one of the fields to or ports, got an unknown one"},
		{NETPOL_RULE("action: Allow"),
			"t.yaml:7: spec.ingress[0].action: want one of the fields from or ports, got an unknown one"},
		{NETPOL_RULE("from: [{}, {podSelector: null}, {podSelector: {}, ipBlock: {cidr: 10.0.0.0/8}}]"),
			"t.yaml:7: spec.ingress[0].from[0]: want podSelector, namespaceSelector or ipBlock, got none of them\n"
			"t.yaml:7: spec.ingress[0].from[1]: want podSelector, namespaceSelector or ipBlock, got none of them\n"
			"t.yaml:7: spec.ingress[0].from[2].ipBlock: want no ipBlock beside podSelector or namespaceSelector, got "
			"a "
			"mapping"},
		{NETPOL_RULE("from: [{ipBlock: {}}, {ipBlock: {cidr: 10.0.0.0}}]"),
			"t.yaml:7: spec.ingress[0].from[0].ipBlock.cidr: want a block such as 10.0.0.0/8 or fd00::/8, got "
			"nothing\n"
			"t.yaml:7: spec.ingress[0].from[1].ipBlock.cidr: want an address and a length, such as 10.0.0.0/32, got "
			"10.0.0.0"},
		{NETPOL_RULE("from: [{ipBlock: {cidr: 10.0.0.0/8, except: [11.0.0.0/16, 10.0.0.0/8, 'fd00::/64', 0.0.0.0/0]}}]"),
			"t.yaml:7: spec.ingress[0].from[0].ipBlock.except[0]: want a block within 10.0.0.0/8 and smaller, got "
			"11.0.0.0/16\n"
			"t.yaml:7: spec.ingress[0].from[0].ipBlock.except[1]: want a block within 10.0.0.0/8 and smaller, got "
			"10.0.0.0/8\n"
			"t.yaml:7: spec.ingress[0].from[0].ipBlock.except[2]: want a block within 10.0.0.0/8 and smaller, got "
			"\"fd00::/64\"\n"
			"t.yaml:7: spec.ingress[0].from[0].ipBlock.except[3]: want a block within 10.0.0.0/8 and smaller, got "
			"0.0.0.0/0"},
		{NETPOL_RULE(
			 "ports: [{port: '80'}, {port: 0}, {port: 65536}, {port: Http}, {port: sixteen-letters-}, {port: true}]"),
			"t.yaml:7: spec.ingress[0].ports[0].port: want 1..65535 or a port name, got \"80\"\n"
			"t.yaml:7: spec.ingress[0].ports[1].port: want 1..65535 or a port name, got 0\n"
			"t.yaml:7: spec.ingress[0].ports[2].port: want 1..65535 or a port name, got 65536\n"
			"t.yaml:7: spec.ingress[0].ports[3].port: want 1..65535 or a port name, got Http\n"
			"t.yaml:7: spec.ingress[0].ports[4].port: want 1..65535 or a port name, got sixteen-letters-\n"
			"t.yaml:7: spec.ingress[0].ports[5].port: want 1..65535 or a port name, got true"},
		{NETPOL_RULE("ports: [{endPort: 5}, {port: http, endPort: 5}, {port: 6, endPort: 5}, {port: 6, endPort: 0}]"),
			"t.yaml:7: spec.ingress[0].ports[0].endPort: want no endPort without a number as port, got 5\n"
			"t.yaml:7: spec.ingress[0].ports[1].endPort: want no endPort without a number as port, got 5\n"
			"t.yaml:7: spec.ingress[0].ports[2].endPort: want 6..65535, got 5\n"
			"t.yaml:7: spec.ingress[0].ports[3].endPort: want 1..65535, got 0"},
		{NETPOL_RULE("ports: [{protocol: ICMP}, {protocol: tcp}, {protocol: 6}]"),
			"t.yaml:7: spec.ingress[0].ports[0].protocol: want TCP, UDP or SCTP, got ICMP\n"
			"t.yaml:7: spec.ingress[0].ports[1].protocol: want TCP, UDP or SCTP, got tcp\n"
			"t.yaml:7: spec.ingress[0].ports[2].protocol: want TCP, UDP or SCTP, got 6"},
		/* AdminNetworkPolicy */
		{ANP("  {}\n"), "t.yaml:5: spec.priority: want 0..1000, got nothing\n"
				"t.yaml:5: spec.subject: want a mapping with namespaces or pods, got nothing"},
		{ANP("  priority: 1001\n  subject: {namespaces: {}}\n"), "t.yaml:5: spec.priority: want 0..1000, got 1001"},
		{ANP("  priority: -1\n  subject: {namespaces: {}}\n"), "t.yaml:5: spec.priority: want 0..1000, got -1"},
		{ANP("  priority: 1\n  subject: {}\n"), "t.yaml:6: spec.subject: want either namespaces or pods, got neither"},
		{ANP("  priority: 1\n  subject: {namespaces: {}, pods: {namespaceSelector: {}, podSelector: {}}}\n"),
			"t.yaml:6: spec.subject: want either namespaces or pods, got both"},
		{ANP("  priority: 1\n  subject: {pods: {podSelector: {}}}\n"),
			"t.yaml:6: spec.subject.pods.namespaceSelector: want a label selector, got nothing"},
		{ANP("  priority: 1\n  subject: {nodes: {}}\n"),
			"t.yaml:6: spec.subject.nodes: want one of the fields namespaces or pods, got an unknown one"},
		{ANP("  priority: 1\n  subject: {namespaces: {}}\n  tier: Admin\n"),
			"t.yaml:7: spec.tier: want one of the fields priority, subject, ingress or egress, got an unknown one"},
		{ANP_RULES("ingress", "{from: [{namespaces: {}}]}"),
			"t.yaml:8: spec.ingress[0].action: want Allow, Deny or Pass, got nothing"},
		{ANP_RULES("ingress", "{action: Accept, from: [{namespaces: {}}]}"),
			"t.yaml:8: spec.ingress[0].action: want Allow, Deny or Pass, got Accept"},
		{ANP_RULES("ingress", "{action: Deny}"), "t.yaml:8: spec.ingress[0].from: want a list of peers, got nothing"},
		{ANP_RULES("ingress", "{action: Deny, from: []}"),
			"t.yaml:8: spec.ingress[0].from: want at least one of peers, got an empty list"},
		{ANP_RULES("ingress",
			 "{action: Deny, from: [{}, {namespaces: {}, pods: {namespaceSelector: {}, podSelector: {}}}]}"),
			"t.yaml:8: spec.ingress[0].from[0]: want one kind of peer, got none of them\n"
			"t.yaml:8: spec.ingress[0].from[1]: want one kind of peer, got several of them"},
		{ANP_RULES("ingress", "{action: Deny, from: [{networks: [10.0.0.0/8]}]}"),
			"t.yaml:8: spec.ingress[0].from[0].networks: want one of the fields namespaces or pods, got an unknown "
			"one"},
		{ANP_RULES("egress", "{action: Deny, to: [{domainNames: ['*.example.org']}]}"),
			"t.yaml:8: spec.egress[0].to[0].domainNames: want namespaces, pods, nodes or networks (peers by domain "
			"name are "
			"not supported), got a list"},
		{ANP_RULES("egress", "{action: Deny, to: [{networks: []}]}"),
			"t.yaml:8: spec.egress[0].to[0].networks: want at least one of blocks, got an empty list"},
		{ANP_RULES("ingress", "{action: Deny, from: [{namespaces: {}}], ports: []}"),
			"t.yaml:8: spec.ingress[0].ports: want at least one of ports, or no such field for any, got an empty "
			"list"},
		{ANP_RULES("ingress", "{action: Deny, from: [{namespaces: {}}], ports: [{}, {port: 80}, {portNumber: {port: 80}, "
				      "namedPort: a}, {portNumber: {}}, {portRange: {start: 2, end: 1}}, {namedPort: '80'}]}"),
			"t.yaml:8: spec.ingress[0].ports[0]: want one of portNumber, portRange or namedPort, got none of them\n"
			"t.yaml:8: spec.ingress[0].ports[1].port: want one of the fields portNumber, portRange or namedPort, got "
			"an "
			"unknown one\n"
			"t.yaml:8: spec.ingress[0].ports[2]: want one of portNumber, portRange or namedPort, got several of "
			"them\n"
			"t.yaml:8: spec.ingress[0].ports[3].portNumber.port: want 1..65535, got nothing\n"
			"t.yaml:8: spec.ingress[0].ports[4].portRange.end: want a port from 2 up, got 1\n"
			"t.yaml:8: spec.ingress[0].ports[5].namedPort: want " PORT_NAME ", got \"80\""},
		{ANP_RULES("egress", "{action: Deny, to: [{namespaces: {}}, {nodes: {}}], ports: [{namedPort: a}]}"),
			"t.yaml:8: spec.egress[0].ports[0]: want a number beside nodes and networks, which name no ports, got a"},
		{ANP_RULES("ingress",
			 "{name: 'a\\b', action: Deny, from: [{namespaces: {}}]}\n  - {name: \"a\\nb\", action: Deny, "
			 "from: [{namespaces: {}}]}"),
			"t.yaml:9: spec.ingress[1].name: want a name of at most 100 characters without control characters, got "
			"\"a?b\""},
		/* BaselineAdminNetworkPolicy */
		{BANP("  subject: {namespaces: {}}\n  priority: 1\n"),
			"t.yaml:6: spec.priority: want one of the fields subject, ingress or egress, got an unknown one"},
		{BANP("  subject: {namespaces: {}}\n  ingress: [{action: Pass, from: [{namespaces: {}}]}]\n"),
			"t.yaml:6: spec.ingress[0].action: want Allow or Deny, got Pass"},
		/* ClusterNetworkPolicy */
		{CNP("  priority: 1\n  subject: {namespaces: {}}\n"), "t.yaml:5: spec.tier: want Admin or Baseline, got nothing"},
		{CNP_RULES("ingress", "{action: Allow, from: [{namespaces: {}}]}"),
			"t.yaml:9: spec.ingress[0].action: want Accept, Deny or Pass, got Allow"},
		{CNP_RULES("ingress", "{action: Deny, from: [{namespaces: {}}], ports: []}"),
			"t.yaml:9: spec.ingress[0].ports: want one of the fields name, action, from or protocols, got an unknown "
			"one"},
		{CNP_RULES("ingress",
			 "{action: Deny, from: [{namespaces: {}}], protocols: [{}, {tcp: {}}, {tcp: {destinationPort: {}}}, "
			 "{udp: {destinationPort: {number: 1, range: {start: 1, end: 2}}}}, {tcp: {destinationPort: "
			 "{number: 1}}, destinationNamedPort: a}, {tcp: {destinationPort: {range: {start: 5, end: 5}}}}]}"),
			"t.yaml:9: spec.ingress[0].protocols[0]: want one of tcp, udp, sctp or destinationNamedPort, got none of "
			"them\n"
			"t.yaml:9: spec.ingress[0].protocols[1].tcp.destinationPort: want a mapping with number or range, got "
			"nothing\n"
			"t.yaml:9: spec.ingress[0].protocols[2].tcp.destinationPort: want either number or range, got neither\n"
			"t.yaml:9: spec.ingress[0].protocols[3].udp.destinationPort: want either number or range, got both\n"
			"t.yaml:9: spec.ingress[0].protocols[4]: want one of tcp, udp, sctp or destinationNamedPort, got several "
			"of "
			"them\n"
			"t.yaml:9: spec.ingress[0].protocols[5].tcp.destinationPort.range.end: want a port from 6 up, got 5"},
		{CNP_RULES("egress", "{action: Accept, to: [{networks: [10.0.0.0/8]}], protocols: [{destinationNamedPort: a}]}"),
			"t.yaml:9: spec.egress[0].protocols[0]: want a number beside nodes and networks, which name no ports, "
			"got a"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		model_refused(cases[i].text, cases[i].message);
}

/* The limits of the CRDs. */
static void test_list_lengths(void **state)
{
	static const struct {
		const char *head, *item;
		unsigned most;
		const char *message;
	} cases[] = {
		{ANP("  priority: 1\n  subject: {namespaces: {}}\n  ingress:\n"),
			"  - {action: Deny, from: [{namespaces: {}}]}\n", 100,
			"t.yaml:8: spec.ingress: want at most 100 rules, got 101"},
		{ANP("  priority: 1\n  subject: {namespaces: {}}\n  ingress:\n  - action: Deny\n    from:\n"),
			"    - {namespaces: {}}\n", 100, "t.yaml:10: spec.ingress[0].from: want at most 100 peers, got 101"},
		{ANP_RULES("ingress", "action: Deny\n    from: [{namespaces: {}}]\n    ports:"), "    - {namedPort: a}\n", 100,
			"t.yaml:11: spec.ingress[0].ports: want at most 100 ports, got 101"},
		{ANP_RULES("egress", "action: Deny\n    to:\n    - networks:"), "      - 10.0.0.0/8\n", 25,
			"t.yaml:11: spec.egress[0].to[0].networks: want at most 25 blocks, got 26"},
		{CNP("  tier: Admin\n  priority: 1\n  subject: {namespaces: {}}\n  egress:\n"),
			"  - {action: Deny, to: [{namespaces: {}}]}\n", 25,
			"t.yaml:9: spec.egress: want at most 25 rules, got 26"},
		{CNP_RULES("egress", "action: Deny\n    to:"), "    - {namespaces: {}}\n", 25,
			"t.yaml:11: spec.egress[0].to: want at most 25 peers, got 26"},
		{CNP_RULES("egress", "action: Deny\n    to: [{namespaces: {}}]\n    protocols:"),
			"    - {destinationNamedPort: a}\n", 25,
			"t.yaml:12: spec.egress[0].protocols: want at most 25 protocols, got 26"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		for (unsigned more = 0; more < 2; more++) {
			_cleanup_buffer_ struct buffer text = {0};

			buffer_add_string(&text, cases[i].head);
			for (unsigned n = 0; n < cases[i].most + more; n++)
				buffer_add_string(&text, cases[i].item);
			if (more) {
				model_refused(text.data, cases[i].message);
			} else {
				_cleanup_object_list_ struct object_list list = model_decode(text.data);
				assert_int_equal(list.n, 1);
			}
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_selector),
		cmocka_unit_test(test_selector_matches),
		cmocka_unit_test(test_network_policy),
		cmocka_unit_test(test_policy_types),
		cmocka_unit_test(test_from_a_cluster),
		cmocka_unit_test(test_audit),
		cmocka_unit_test(test_admin_policy),
		cmocka_unit_test(test_cluster_policy),
		cmocka_unit_test(test_fields_count),
		cmocka_unit_test(test_mistakes),
		cmocka_unit_test(test_list_lengths),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
