/* SPDX-License-Identifier: Apache-2.0 */
/* What lint finds, what it does not, and that its cost does not grow with the square of the rules. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include <policy/lint.h>
#include <tests/unit/policy_env.h>
#include <util/addr.h>
#include <util/buffer.h>

#define HEAD "---\napiVersion: heddle.dev/v1alpha1\nkind: "
#define HOST \
	HEAD "Host\nmetadata: {name: h}\nspec: {uplinks: [{device: eth0}, {device: eth1}], failsafe: [{protocol: TCP, port: " \
	     "22}]}\n"
#define POLICY(name) HEAD "HostPolicy\nmetadata: {name: " name "}\nspec:\n"
#define GROUP(name, cidrs) HEAD "AddressGroup\nmetadata: {name: " name "}\nspec: {cidrs: [" cidrs "]}\n"
#define NETPOL(name) "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: " name "}\nspec:\n"
#define ADMIN(name) \
	"---\napiVersion: policy.networking.k8s.io/v1alpha1\nkind: AdminNetworkPolicy\nmetadata: {name: " name "}\nspec:\n"
#define NETWORK HEAD "Network\nmetadata: {name: blue}\nspec: {}\n"
#define PORT(name, address) \
	HEAD "Port\nmetadata: {name: " name ", labels: {app: " name "}}\nspec: {device: d" name \
	     ", network: blue, addresses: [" address "], ports: [{name: http, protocol: TCP, port: 8080}]}\n"

/* "kind[!] policy direction index (cause policy index, ...): about=what", a line each; ! for warnings */
static int tell(const struct lint_finding *finding, void *userdata)
{
	static const char *const kinds[] = {
#define NAME(sym, name, text) name,
		LINT_KINDS(NAME)
#undef NAME
	};
	static const char *const directions[] = {"both", "ingress", "egress"};
	struct buffer *text = userdata;

	buffer_printf(text, "%s%s %s %s %lld", kinds[finding->kind], finding->warning ? "!" : "", finding->at.policy->name,
		directions[finding->at.direction + 1], (long long)finding->at.index);
	for (unsigned i = 0; i < finding->n_because; i++)
		buffer_printf(text, " <%s %lld>", finding->because[i].policy ? finding->because[i].policy->name : "builtin",
			(long long)finding->because[i].index);
	if (finding->more)
		buffer_printf(text, " +%u", finding->more);
	if (finding->about)
		buffer_printf(text, " %s=%s", finding->about, finding->what ? finding->what : "");
	buffer_add_char(text, '\n');
	assert_true(finding->message && strlen(finding->message) > 10);
	assert_null(strchr(finding->message, '\n'));
	return 0;
}

static void expect(const char *documents, const char *wanted)
{
	struct object_list list = {0};
	struct buffer text = {0};

	policy_documents(&list, documents);
	object_list_sort(&list);
	buffer_add_string(&text, "");
	assert_int_equal(lint_policies(&list, tell, &text), 0);
	assert_string_equal(text.data, wanted);
	buffer_clear(&text);
	object_list_clear(&list);
}

static void test_clean(void **state)
{
	(void)state;
	expect(HOST GROUP("admins", "10.0.0.0/8")
			POLICY("base") "  ingress:\n"
				       "  - {name: bad, action: deny, from: [{cidr: 192.0.2.0/24}]}\n"
				       "  - {name: ssh, action: allow, from: [{addressGroup: admins}], ports: [{protocol: TCP, "
				       "port: 2222}]}\n"
				       "  - {name: web, action: allow, ports: [{protocol: TCP, port: 80, endPort: 90}]}\n"
				       "  - {name: ping, action: allow, icmp: [{type: 8}, {type: 128, family: IPv6}]}\n"
				       "  default: {ingress: deny}\n",
		"");
	expect(HOST, "");
	expect("", "");
}

static void test_shadowed(void **state)
{
	(void)state;
	/* by peers, by ports, by both; the same verdict and another */
	expect(HOST POLICY(
		       "a") "  ingress:\n"
			    "  - {action: allow, from: [{cidr: 10.0.0.0/8}], ports: [{protocol: TCP, port: 80, endPort: 90}]}\n"
			    "  - {action: deny, from: [{cidr: 10.1.0.0/16}], ports: [{protocol: TCP, port: 85}]}\n"
			    "  - {action: allow, from: [{cidr: 10.2.0.0/16}, {cidr: 10.3.0.0/16}], ports: [{protocol: TCP, port: "
			    "80}]}\n"
			    "  - {action: deny, from: [{cidr: 10.1.0.0/16}], ports: [{protocol: UDP, port: 85}]}\n"
			    "  - {action: deny, from: [{cidr: 10.1.0.0/16}], ports: [{protocol: TCP, port: 85, endPort: 91}]}\n"
			    "  - {action: deny, from: [{cidr: 10.1.0.0/16}, {cidr: 11.0.0.0/16}], ports: [{protocol: TCP, port: "
			    "85}]}\n",
		"wider! a ingress 0 <a 1> <a 2>\nshadowed! a ingress 1 <a 0>\nshadowed a ingress 2 <a 0>\n");
	/* a later policy; equal rules are not wider */
	expect(HOST POLICY("a") "  priority: 1\n  ingress: [{action: deny, ports: [{protocol: TCP, port: 80}]}]\n" POLICY(
		       "b") "  ingress: [{action: deny, ports: [{protocol: TCP, port: 80}]}, {action: allow, from: [{cidr: "
			    "\"2001:db8::/32\"}], ports: [{protocol: TCP, port: 80}]}]\n",
		"shadowed b ingress 0 <a 0>\nshadowed! b ingress 1 <a 0>\n");
	/* by several earlier ones, range by range */
	expect(HOST POLICY("a") "  ingress:\n"
				"  - {action: deny, ports: [{protocol: TCP, port: 80}]}\n"
				"  - {action: deny, ports: [{protocol: UDP, port: 53}]}\n"
				"  - {action: deny, from: [{cidr: 10.0.0.0/8}], ports: [{protocol: TCP, port: 80}, {protocol: "
				"UDP, port: 53}]}\n",
		"shadowed a ingress 2 <a 0> <a 1>\n");
	/* failsafe ports are never cut */
	expect(HOST POLICY("a") "  ingress: [{action: deny, ports: [{protocol: TCP, port: 22}]}]\n"
				"  egress: [{action: deny, ports: [{protocol: TCP, port: 22}]}]\n",
		"shadowed! a ingress 0 <builtin 0>\n");
	/* all of IPv4 and all of IPv6 is everybody, but for frames that are not IP */
	expect(HOST POLICY("a") "  egress:\n"
				"  - {action: deny, to: [{cidr: 0.0.0.0/0}, {cidr: \"::/0\"}]}\n"
				"  - {action: deny, ports: [{protocol: TCP, port: 80}]}\n"
				"  - {action: deny}\n",
		"shadowed a egress 1 <a 0>\n");
}

static void test_exceptions_groups_sources(void **state)
{
	(void)state;
	expect(HOST GROUP("g", "10.0.0.0/9, 10.128.0.0/9")
			POLICY("a") "  ingress:\n"
				    "  - {action: deny, from: [{cidr: 10.0.0.0/8, except: [10.5.0.0/16]}], ports: [{protocol: "
				    "TCP, port: 1}]}\n"
				    "  - {action: deny, from: [{cidr: 10.5.0.0/24}], ports: [{protocol: TCP, port: 1}]}\n"
				    "  - {action: deny, from: [{cidr: 10.6.0.0/24}], ports: [{protocol: TCP, port: 1}]}\n"
				    /* two blocks side by side are one */
				    "  - {action: deny, from: [{addressGroup: g}], ports: [{protocol: TCP, port: 2}]}\n"
				    "  - {action: deny, from: [{cidr: 10.0.0.0/8}], ports: [{protocol: TCP, port: 2}]}\n"
				    /* source ports: none, or the very same */
				    "  - {action: deny, ports: [{protocol: TCP, port: 3}], sourcePorts: [{port: 1000}]}\n"
				    "  - {action: deny, ports: [{protocol: TCP, port: 3}], sourcePorts: [{port: 1001}]}\n"
				    "  - {action: deny, from: [{cidr: 10.0.0.0/8}], ports: [{protocol: TCP, port: 3}], "
				    "sourcePorts: [{port: 1000}]}\n"
				    "  - {action: deny, ports: [{protocol: TCP, port: 3}]}\n"
				    "  - {action: deny, ports: [{protocol: TCP, port: 3}], sourcePorts: [{port: 7}]}\n",
		"shadowed a ingress 2 <a 0>\nshadowed a ingress 4 <a 3>\nshadowed a ingress 7 <a 5>\nshadowed a ingress 9 <a "
		"8>\n");
}

static void test_uplinks(void **state)
{
	(void)state;
	expect(HOST POLICY("a") "  priority: 1\n  uplinks: [eth0]\n  ingress: [{action: deny, ports: [{protocol: TCP, port: "
				"80}]}]\n" POLICY("b") "  priority: 2\n  ingress: [{action: deny, ports: [{protocol: TCP, port: "
						       "80}]}]\n" POLICY("c") "  priority: 3\n  uplinks: [eth1]\n  ingress: "
									      "[{action: deny, ports: [{protocol: TCP, port: "
									      "80}]}]\n" POLICY("d") "  priority: 4\n  uplinks: "
												     "[eth7]\n  ingress: "
												     "[{action: allow}]\n" POLICY(
													     "e") "  priority: "
														  "5\n  uplinks: "
														  "[eth7, eth1, "
														  "eth0]\n  "
														  "ingress: "
														  "[{action: "
														  "deny, ports: "
														  "[{protocol: "
														  "TCP, port: "
														  "80}]}]\n",
		"shadowed c ingress 0 <b 0>\nunreachable! d both -1 uplink=eth7\nunreachable e both -1 uplink=eth7\nshadowed e "
		"ingress 0 <b 0>\n");
}

static void test_dead(void **state)
{
	(void)state;
	expect(HOST POLICY("a") "  ingress:\n"
				"  - {action: deny, from: [{cidr: 10.0.0.0/8, except: [10.0.0.0/9, 10.128.0.0/9]}]}\n"
				"  - {action: deny, from: [{cidr: 10.0.0.0/8}], icmp: [{type: 128, family: IPv6}]}\n",
		"unreachable! a ingress 0 peers=\nnever-matching! a ingress 1\n");
}

static void test_broad(void **state)
{
	(void)state;
	expect(HOST POLICY("a") "  ingress:\n"
				"  - {action: allow, from: [{cidr: \"::/0\"}]}\n"
				"  - {action: allow, ports: [{protocol: TCP}]}\n"
				"  - {action: allow}\n"
				"  - {action: deny}\n"
				"  egress: [{action: allow}]\n",
		"over-broad! a ingress 0\nover-broad! a ingress 2\nshadowed! a ingress 3 <a "
		"2>\nover-broad a egress 0\n");
}

static void test_defaults(void **state)
{
	(void)state;
	expect(HOST POLICY("a") "  priority: 1\n  default: {ingress: deny, egress: allow}\n" POLICY(
		       "b") "  priority: 2\n  default: {ingress: allow}\n",
		"shadowed! a ingress -1 <b -1>\n");
}

static void test_selectors(void **state)
{
	(void)state;
	expect(HOST NETWORK PORT("web", "10.0.0.1") PORT("db", "10.0.0.2")
			NETPOL("a") "  podSelector: {matchLabels: {app: web}}\n"
				    "  ingress:\n"
				    "  - {from: [{podSelector: {matchExpressions: [{key: app, operator: Exists}]}}], "
				    "ports: [{port: 80}, {port: http}]}\n"
				    "  - {from: [{podSelector: {matchLabels: {app: db}}}], ports: [{port: 80}]}\n"
				    "  - {from: [{podSelector: {matchLabels: {app: cache}}}], ports: [{port: 81}]}\n"
				    "  - {from: [{podSelector: {matchExpressions: [{key: app, operator: In, values: "
				    "[a]}, {key: app, operator: NotIn, values: [a]}]}}]}\n"
				    "  - {ports: [{port: grpc}]}\n"
				    "  - {ports: [{port: grpc}, {port: 90}]}\n"
				    "  - {}\n"
				    "  egress: [{to: [{podSelector: {matchLabels: {app: db}}}], ports: [{port: "
				    "http}]}]\n" NETPOL("b") "  podSelector: {matchLabels: {app: nobody}}\n" NETPOL(
					    "c") "  podSelector: {matchLabels: {app: web, tier: x}}\n"
						 "  ingress: [{from: [{namespaceSelector: {}}], ports: [{port: 7}]}]\n",
		"wider a ingress 0 <a 1>\n"
		"shadowed a ingress 1 <a 0>\n"
		"unreachable a ingress 2\n"
		"never-matching! a ingress 3 selector=podSelector\n"
		"never-matching! a ingress 4 port=grpc\n"
		"never-matching! a ingress 5 port=grpc\n"
		"wider a ingress 6 <c 0>\n"
		"over-broad a ingress 6\n"
		"unreachable b both -1\n"
		"unreachable c both -1\n"
		"shadowed c ingress 0 <a 6>\n");
}

/* Workloads of Peers are somebody, as subjects too: the same documents are on their hosts. */
static void test_peers(void **state)
{
#define PEERS_RULES \
	NETPOL("a") \
	"  podSelector: {matchLabels: {app: web}}\n  policyTypes: [Ingress, Egress]\n" \
	"  ingress: [{from: [{podSelector: {matchLabels: {app: far}}}], ports: [{port: http}]}]\n" \
	"  egress: [{to: [{podSelector: {matchLabels: {app: far}}}], ports: [{port: sql}]}]\n" NETPOL( \
		"b") "  podSelector: {matchLabels: {app: far}}\n  ingress: [{from: [{podSelector: {}}], ports: [{port: " \
		     "sql}]}]\n"
	(void)state;
	expect(HOST NETWORK PORT("web", "10.0.0.1") PEERS_RULES,
		"unreachable a ingress 0\nunreachable a egress 0\nunreachable b both -1\n");
	expect(HOST NETWORK PORT("web", "10.0.0.1") HEAD "Peer\nmetadata: {name: b}\nspec: {address: 192.0.2.2, ports: [{name: "
							 "x, network: blue, addresses: [10.0.0.2], labels: "
							 "{app: far}, ports: [{name: sql, port: 5432}]}]}\n" PEERS_RULES,
		"");
}

static void test_tiers(void **state)
{
#define SUBJECT "  subject: {namespaces: {}}\n"
	(void)state;
	expect(HOST NETWORK PORT("web", "10.0.0.1")
			ADMIN("a") "  priority: 1\n" SUBJECT "  ingress:\n"
				   "  - {name: in, action: Pass, from: [{namespaces: {}}], ports: [{portNumber: {protocol: TCP, "
				   "port: 80}}]}\n"
				   "  - {name: same, action: Deny, from: [{namespaces: {}}], ports: [{portNumber: {protocol: "
				   "TCP, port: 80}}]}\n"
				   "  - {name: no, action: Deny, from: [{namespaces: {}}], ports: [{portNumber: {protocol: TCP, "
				   "port: 81}}]}\n"
				   "  egress: [{name: n, action: Deny, to: [{nodes: {}}]}]\n" NETPOL(
					   "b") "  podSelector: {}\n"
						"  ingress:\n"
						"  - {from: [{podSelector: {}}], ports: [{port: 80}]}\n"
						"  - {from: [{podSelector: {}}], ports: [{port: 81}]}\n",
		"shadowed! a ingress 1 <a 0>\nunreachable a egress 0\nshadowed! b ingress 1 <a 2>\n");
}

/* --- whatever is said to decide nothing does not --- */

static uint32_t seed;
static unsigned dice(unsigned n)
{
	seed = seed * 1664525u + 1013904223u;
	return (seed >> 8) % n;
}

static const char *const blocks[] = {"0.0.0.0/0", "::/0", "10.0.0.0/8", "10.0.0.0/9", "10.128.0.0/9", "10.1.0.0/16",
	"10.1.1.1/32", "192.0.2.0/24", "2001:db8::/32", "2001:db8::1/128", "11.0.0.0/8", "10.0.0.0/7"};
static const char *const addresses[] = {"10.1.1.1", "10.1.1.2", "10.2.0.1", "10.200.0.1", "11.0.0.1", "192.0.2.1", "203.0.113.1",
	"2001:db8::1", "2001:db8::2", "2001:db9::1"};

static void random_rule(struct buffer *text)
{
	static const char *const actions[] = {"allow", "deny", "reject"};

	buffer_printf(text, "  - {action: %s", actions[dice(3)]);
	if (dice(4)) {
		buffer_add_string(text, ", from: [");
		for (unsigned i = 0, n = 1 + dice(3); i < n; i++) {
			if (dice(6) == 0)
				buffer_printf(text, "%s{addressGroup: g%u}", i ? ", " : "", dice(2));
			else if (dice(6) == 0)
				buffer_printf(text, "%s{cidr: 10.0.0.0/8, except: [%s]}", i ? ", " : "", blocks[3 + dice(4)]);
			else
				buffer_printf(text, "%s{cidr: \"%s\"}", i ? ", " : "", blocks[dice(12)]);
		}
		buffer_add_char(text, ']');
	}
	switch (dice(6)) {
	case 0:
		break;
	case 1:
		buffer_printf(text, ", icmp: [{type: %u%s}]", 8 + dice(2) * 120, dice(2) ? ", family: IPv6" : "");
		break;
	case 2:
		buffer_printf(text, ", ports: [{protocol: %s}]", dice(2) ? "TCP" : "ICMP");
		break;
	default:
		buffer_add_string(text, ", ports: [");
		for (unsigned i = 0, n = 1 + dice(2); i < n; i++) {
			unsigned first = 1 + dice(5);

			buffer_printf(text, "%s{protocol: %s, port: %u, endPort: %u}", i ? ", " : "", dice(3) ? "TCP" : "UDP",
				first, first + dice(3));
		}
		buffer_add_char(text, ']');
		if (dice(5) == 0)
			buffer_printf(text, ", sourcePorts: [{port: %u}]", 1 + dice(2));
	}
	buffer_add_string(text, "}\n");
}

struct checking {
	const struct object_list *list;
	unsigned found;
};

static void never_decides(
	const struct object_list *list, const struct object *policy, uint32_t rule, const struct lookup_packet *packet)
{
	static const char *const devices[] = {"eth0", "eth1"};

	for (size_t i = 0; i < 2; i++) {
		struct policy_answer answer = policy_judge(list, false, devices[i], HD_INGRESS, packet);

		if (answer.policy == policy && answer.rule == rule)
			fail_msg("%s %u decides kind %u number %u from %u", policy->name, rule, packet->kind, packet->number,
				packet->source_port);
	}
}

static int check_finding(const struct lint_finding *finding, void *userdata)
{
	static const uint8_t kinds_of[] = {HD_L4_TCP, HD_L4_UDP, HD_L4_SCTP};
	struct checking *checking = userdata;
	uint32_t rule = (uint32_t)finding->at.index;

	if (finding->at.index < 0 || finding->kind == LINT_WIDER || finding->kind == LINT_BROAD)
		return 0;
	checking->found++;
	for (size_t a = 0; a < sizeof(addresses) / sizeof(addresses[0]); a++) {
		struct lookup_packet packet = {.ip = true};

		assert_int_equal(addr_parse(addresses[a], &packet.peer), 0);
		for (size_t k = 0; k < sizeof(kinds_of); k++)
			for (packet.number = 0; packet.number < 10; packet.number++)
				for (packet.source_port = 0; packet.source_port < 4; packet.source_port++) {
					packet.kind = kinds_of[k];
					never_decides(checking->list, finding->at.policy, rule, &packet);
				}
		packet.source_port = 0;
		for (unsigned type = 0; type < 256; type += 8) {
			packet.kind = addr_is_ipv4(&packet.peer) ? HD_L4_ICMP : HD_L4_ICMPV6;
			packet.number = (uint16_t)(type << 8);
			never_decides(checking->list, finding->at.policy, rule, &packet);
		}
		packet.kind = HD_L4_PROTOCOL;
		for (packet.number = 0; packet.number < 60; packet.number++)
			never_decides(checking->list, finding->at.policy, rule, &packet);
	}
	never_decides(
		checking->list, finding->at.policy, rule, &(struct lookup_packet){.kind = HD_L4_ETHERTYPE, .number = 0x88b5});
	return 0;
}

static void test_random(void **state)
{
	unsigned found = 0;

	(void)state;
	for (unsigned round = 0; round < 300; round++) {
		struct object_list list = {0};
		struct buffer text = {0};
		struct checking checking = {.list = &list};

		seed = round;
		buffer_add_string(
			&text, HOST GROUP("g0", "10.0.0.0/8, 11.0.0.0/8") GROUP("g1", "10.1.1.0/24, \"2001:db8::/48\""));
		for (unsigned policy = 0; policy < 3; policy++) {
			buffer_printf(&text, POLICY("p%u") "  priority: %u\n", policy, dice(3));
			if (dice(3) == 0)
				buffer_printf(&text, "  uplinks: [eth%u]\n", dice(2));
			buffer_add_string(&text, "  ingress:\n");
			for (unsigned i = 0, n = 1 + dice(6); i < n; i++)
				random_rule(&text);
		}
		policy_documents(&list, text.data);
		object_list_sort(&list);
		assert_int_equal(lint_policies(&list, check_finding, &checking), 0);
		found += checking.found;
		buffer_clear(&text);
		object_list_clear(&list);
	}
	assert_true(found > 300);
}

/* 30,000 rules, each covered by an earlier one or not: in a time that a square would not allow. */
static void test_many(void **state)
{
	struct buffer text = {0};
	struct object_list list = {0};
	struct timespec before, after;
	struct buffer found = {0};
	size_t lines = 0;

	(void)state;
	buffer_add_string(&text, HOST POLICY("a") "  ingress:\n  - {action: deny, from: [{cidr: 20.0.0.0/9}], ports: [{protocol: "
						  "TCP, port: 1, endPort: 999}]}\n");
	for (unsigned i = 0; i < 30000; i++)
		buffer_printf(&text, "  - {action: allow, from: [{cidr: %u.%u.%u.0/24}], ports: [{protocol: TCP, port: %u}]}\n",
			20 + i / 20000, i / 256 % 256, i % 256, 900 + i % 200);
	policy_documents(&list, text.data);
	clock_gettime(CLOCK_MONOTONIC, &before);
	assert_int_equal(lint_policies(&list, tell, &found), 0);
	clock_gettime(CLOCK_MONOTONIC, &after);
	for (const char *at = found.data; (at = strchr(at, '\n')); at++)
		lines++;
	/* those of 20.0.0.0/9, which are the first 20,000, with ports up to 999; the sanitizers cost ten times the time */
	assert_int_equal(lines, 10000);
	assert_true(after.tv_sec - before.tv_sec < 20);
	buffer_clear(&text);
	buffer_clear(&found);
	object_list_clear(&list);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_clean),
		cmocka_unit_test(test_shadowed),
		cmocka_unit_test(test_exceptions_groups_sources),
		cmocka_unit_test(test_uplinks),
		cmocka_unit_test(test_dead),
		cmocka_unit_test(test_broad),
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_selectors),
		cmocka_unit_test(test_peers),
		cmocka_unit_test(test_tiers),
		cmocka_unit_test(test_random),
		cmocka_unit_test(test_many),
	};

	return cmocka_run_group_tests_name("policy lint", tests, NULL, NULL);
}
