/* SPDX-License-Identifier: Apache-2.0 */
/* Policies for ports with workloads of Peers: who selects them, what a change of one touches, and a hundred thousand of them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <policy/internal.h>
#include <tests/unit/policy_env.h>
#include <util/addr.h>
#include <util/buffer.h>

#define HEAD "---\napiVersion: heddle.dev/v1alpha1\nkind: "
#define HOST HEAD "Host\nmetadata: {name: h}\nspec: {uplinks: [{device: eth0}]}\n"
#define NETWORK(name) HEAD "Network\nmetadata: {name: " name "}\nspec: {}\n"
#define BASE HOST NETWORK("blue") NETWORK("red")
#define PORT(name, in, address, labels) \
	HEAD "Port\nmetadata: {name: " name ", labels: {" labels "}}\nspec: {device: d" name ", network: " in \
	     ", addresses: [" address "], ports: [{name: http, port: 8080}]}\n"
#define PEER(name, spec) HEAD "Peer\nmetadata: {name: " name "}\nspec: {address: 192.0.2.2, " spec "}\n"
#define SPACE(name, labels) "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: " name ", labels: {" labels "}}\n"
#define NETPOL(name, spec) \
	"---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: " name "}\nspec: {" spec "}\n"
#define ADMIN(name, spec) \
	"---\napiVersion: policy.networking.k8s.io/v1alpha1\nkind: AdminNetworkPolicy\nmetadata: {name: " name "}\nspec: {" spec \
	"}\n"

struct fixture {
	struct policy_env env;
	struct object_list list;
	struct compiler_limits limits;
};

/* Objects that say the same stay the ones they are, as in the agent's store. */
static void decode(struct fixture *f, const char *text)
{
	struct object_list next = {0}, merged = {0};

	policy_documents(&next, text);
	for (size_t i = 0; i < next.n; i++) {
		struct object *object = next.items[i];
		struct object *old = object_list_find(&f->list, object->kind, object->namespace_, object->name);

		assert_int_equal(object_list_add(&merged, old && object_equal(old, object) ? old : object), 0);
	}
	object_list_sort(&merged);
	object_list_clear(&next);
	object_list_clear(&f->list);
	f->list = merged;
}

static void apply(struct fixture *f, const char *text)
{
	decode(f, text);
	policy_env_apply(&f->env, &f->list);
}

static struct fixture *open_fixture(void)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	f->limits = (struct compiler_limits){1 << 15, 1 << 10, 1 << 15, 1 << 16, 1 << 12, 1 << 6};
	policy_env_open(&f->env, &f->limits, 1);
	return f;
}

static void close_fixture(struct fixture *f)
{
	policy_env_close(&f->env);
	object_list_clear(&f->list);
	free(f);
}

/* TCP between a port and an address in a network (NULL: its own), as documents and tables agree on. */
static char ask(const struct fixture *f, const char *name, enum hd_direction direction, const char *network, const char *address,
	uint16_t number)
{
	struct lookup_packet packet = {.ip = true, .kind = HD_L4_TCP, .number = number, .source_port = 40000};
	struct lookup_result result;
	struct policy_answer answer;
	struct port_policy port;
	const char *differs;

	assert_int_equal(addr_parse(address, &packet.peer), 0);
	assert_int_equal(compiler_port(f->env.compiler, "default", name, &port), 0);
	policy_env_port_lookup(&f->env, f->env.generation, port.port, direction, network, &packet, &result);
	answer = policy_judge_port(&f->list, port.port, direction, network, &packet);
	differs = policy_env_differs(&f->env, &answer, direction, &result);
	if (differs)
		fail_msg("%s, %s: %s", name, address, differs);
	return answer.verdict == HD_ALLOW ? '.' : 'X';
}
#define FROM(f, name, address, number) ask(f, name, HD_INGRESS, NULL, address, number)
#define TO(f, name, network, address, number) ask(f, name, HD_EGRESS, network, address, number)

static void test_selectors(void **unused)
{
	struct fixture *f = open_fixture();

	(void)unused;
	apply(f, BASE SPACE("shop", "team: a") PORT("web", "blue", "10.0.0.1", "app: web")
			 PEER("b", "ports: [{name: x, network: blue, addresses: [10.0.0.2, 'fd00::2'], labels: {app: x}}, "
				   "{name: y, network: blue, addresses: [10.0.0.3], labels: {app: y}}, "
				   "{name: x, namespace: shop, network: blue, addresses: [10.0.0.4], labels: {app: x}}, "
				   "{name: z, namespace: bare, network: blue, addresses: [10.0.0.5]}], "
				   "prefixes: [{network: blue, cidr: 10.0.9.0/24}]")
				 NETPOL("web", "podSelector: {matchLabels: {app: web}}, ingress: [\n"
					       "{ports: [{port: 80}], from: [{podSelector: {matchLabels: {app: x}}}]},\n"
					       "{ports: [{port: 81}], from: [{namespaceSelector: {matchLabels: {team: a}}}]},\n"
					       "{ports: [{port: 82}], from: [{namespaceSelector: {matchLabels: "
					       "{kubernetes.io/metadata.name: bare}}}]},\n"
					       "{ports: [{port: 83}], from: [{namespaceSelector: {}}]},\n"
					       "{ports: [{port: 84}], from: [{ipBlock: {cidr: 10.0.0.0/16}}]}]"));
	assert_int_equal(FROM(f, "web", "10.0.0.2", 80), '.');
	assert_int_equal(FROM(f, "web", "fd00::2", 80), '.');
	assert_int_equal(FROM(f, "web", "10.0.0.3", 80), 'X');
	assert_int_equal(FROM(f, "web", "10.0.0.4", 80), 'X'); /* another namespace */
	assert_int_equal(FROM(f, "web", "10.0.0.4", 81), '.');
	assert_int_equal(FROM(f, "web", "10.0.0.2", 81), 'X');
	assert_int_equal(FROM(f, "web", "10.0.0.5", 82), '.');
	assert_int_equal(FROM(f, "web", "10.0.0.4", 82), 'X');
	/* everybody, but not what has no labels */
	assert_int_equal(FROM(f, "web", "10.0.0.5", 83), '.');
	assert_int_equal(FROM(f, "web", "10.0.9.1", 83), 'X');
	assert_int_equal(FROM(f, "web", "10.0.9.1", 84), '.');
	assert_int_equal(FROM(f, "web", "10.0.0.3", 84), '.');
	/* the only one with a policy of its own is here */
	assert_int_equal(f->env.n_ports, 1);
	close_fixture(f);
}

static void test_tiers_and_names(void **unused)
{
	struct fixture *f = open_fixture();

	(void)unused;
	apply(f, BASE PORT("web", "blue", "10.0.0.1", "app: web") PEER("b",
			 "ports: [{name: db, network: red, addresses: [10.0.0.2], labels: {app: db}, ports: [{name: sql, port: "
			 "5432}]}, {name: other, network: red, addresses: [10.0.0.3], labels: {app: db}, ports: [{name: sql, "
			 "port: 5433}]}, {name: bad, network: red, addresses: [10.0.0.4], labels: {app: bad}}]")
			 ADMIN("a", "priority: 1, subject: {namespaces: {}}, egress: [{action: Deny, to: [{pods: "
				    "{namespaceSelector: {}, podSelector: {matchLabels: {app: bad}}}}]}], "
				    "ingress: [{action: Allow, from: [{pods: {namespaceSelector: {}, podSelector: {matchLabels: "
				    "{app: db}}}}], ports: [{namedPort: http}]}]")
				 NETPOL("n", "podSelector: {}, policyTypes: [Ingress, Egress], egress: [{ports: [{port: sql}]}, "
					     "{to: [{podSelector: {matchLabels: {app: bad}}}]}]"));
	/* a named port of the egress is that of the destination; red has no port here */
	assert_int_equal(TO(f, "web", "red", "10.0.0.2", 5432), '.');
	assert_int_equal(TO(f, "web", "red", "10.0.0.2", 5433), 'X');
	assert_int_equal(TO(f, "web", "red", "10.0.0.3", 5433), '.');
	assert_int_equal(TO(f, "web", "red", "10.0.0.4", 1), 'X'); /* the admin tier comes first */
	assert_int_equal(TO(f, "web", "blue", "10.0.0.2", 5432), 'X');
	/* that of the ingress the port's own */
	assert_int_equal(ask(f, "web", HD_INGRESS, "red", "10.0.0.2", 8080), '.');
	assert_int_equal(ask(f, "web", HD_INGRESS, "red", "10.0.0.2", 8081), 'X');
	assert_int_equal(ask(f, "web", HD_INGRESS, "red", "10.0.0.4", 8080), 'X');
	close_fixture(f);
}

#define WEB PORT("web", "blue", "10.0.0.1", "app: web")
#define RULES \
	NETPOL("web", "podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {matchLabels: {app: x}}}]}, " \
		      "{from: [{namespaceSelector: {matchLabels: {team: a}}}]}]")
#define AT(name, address, labels) PEER(name, "ports: [{name: x, network: blue, addresses: [" address "], labels: {" labels "}}]")

static void test_changes(void **unused)
{
	struct fixture *f = open_fixture();
	struct port_policy before, after;

	(void)unused;
	apply(f, BASE WEB RULES AT("b", "10.0.0.2", "app: x") AT("c", "10.0.0.3", "app: y"));
	assert_int_equal(FROM(f, "web", "10.0.0.2", 80), '.');
	assert_int_equal(FROM(f, "web", "10.0.0.3", 80), 'X');
	/* a label; flows are judged again */
	assert_int_equal(compiler_port(f->env.compiler, "default", "web", &before), 0);
	apply(f, BASE WEB RULES AT("b", "10.0.0.2", "app: x") AT("c", "10.0.0.3", "app: x"));
	assert_int_equal(FROM(f, "web", "10.0.0.3", 80), '.');
	assert_int_equal(compiler_port(f->env.compiler, "default", "web", &after), 0);
	assert_int_not_equal(after.policy.version[HD_INGRESS], before.policy.version[HD_INGRESS]);
	/* the workload moves to the other peer, and then here */
	apply(f, BASE WEB RULES AT("b", "10.0.0.9", "app: y") AT("c", "10.0.0.2", "app: x"));
	assert_int_equal(FROM(f, "web", "10.0.0.2", 80), '.');
	assert_int_equal(FROM(f, "web", "10.0.0.3", 80), 'X');
	apply(f, BASE WEB RULES PORT("x", "blue", "10.0.0.2", "app: x") AT("b", "10.0.0.9", "app: y"));
	assert_int_equal(FROM(f, "web", "10.0.0.2", 80), '.');
	assert_int_equal(f->env.n_ports, 2);
	/* while both claim it, it is the port's here; of two peers, the first one's by name */
	apply(f, BASE WEB RULES PORT("x", "blue", "10.0.0.2", "app: y") AT("b", "10.0.0.2", "app: x")
			 AT("c", "10.0.0.2", "app: x"));
	assert_int_equal(FROM(f, "web", "10.0.0.2", 80), 'X');
	apply(f, BASE WEB RULES AT("b", "10.0.0.2", "app: y") AT("c", "10.0.0.2", "app: x"));
	assert_int_equal(FROM(f, "web", "10.0.0.2", 80), 'X');
	apply(f, BASE WEB RULES AT("c", "10.0.0.2", "app: x"));
	assert_int_equal(FROM(f, "web", "10.0.0.2", 80), '.');
	/* the labels of its namespace, with the Peer as it was */
	apply(f, BASE WEB RULES AT("c", "10.0.0.2", "app: y"));
	assert_int_equal(FROM(f, "web", "10.0.0.2", 80), 'X');
	apply(f, BASE WEB RULES SPACE("default", "team: a") AT("c", "10.0.0.2", "app: y"));
	assert_int_equal(FROM(f, "web", "10.0.0.2", 80), '.');
	/* nobody here, nobody there, and back */
	apply(f, BASE RULES AT("c", "10.0.0.2", "app: x"));
	assert_int_equal(f->env.compiler->now.addr_nodes[0].live, 0);
	apply(f, BASE WEB RULES AT("c", "10.0.0.2", "app: x"));
	assert_int_equal(FROM(f, "web", "10.0.0.2", 80), '.');
	apply(f, BASE WEB RULES);
	assert_int_equal(FROM(f, "web", "10.0.0.2", 80), 'X');
	apply(f, HOST);
	assert_int_equal(f->env.compiler->now.remote.n, 0);
	for (uint32_t i = 0; i < labels_identities(f->env.compiler->labels); i++)
		assert_null(labels_by_number(f->env.compiler->labels, i));
	close_fixture(f);
}

#define LABELLED(name, labels, number, spec) \
	HEAD "Peer\nmetadata: {name: " name ", labels: {" labels "}}\nspec: {address: 192.0.2." number ", " spec "}\n"
#define OWN(labels, spec) HEAD "Host\nmetadata: {name: h, labels: {" labels "}}\nspec: {uplinks: [{device: eth0}], " spec "}\n"
#define NODES \
	PORT("web", "blue", "10.0.0.1", "app: web") \
	NETWORK("blue") \
	ADMIN("to", \
		"priority: 1, subject: {namespaces: {}}, egress: [\n" \
		"{action: Deny, to: [{nodes: {matchLabels: {role: db}}}], ports: [{portNumber: {protocol: TCP, port: 80}}]},\n" \
		"{action: Deny, to: [{nodes: {matchExpressions: [{key: zone, operator: Exists}]}}, {networks: " \
		"[203.0.113.0/24]}, " \
		"{namespaces: {matchLabels: {kubernetes.io/metadata.name: none}}}], ports: [{portNumber: {protocol: TCP, port: " \
		"81}}]}]")

/* By the labels of their hosts, this one's too, and all addresses of these; what a workload there does is no matter. */
static void test_nodes(void **unused)
{
	struct fixture *f = open_fixture();

	(void)unused;
	apply(f, NODES OWN("role: db", "tunnel: {protocol: vxlan, address: 192.0.2.1}, addresses: [198.51.100.1, 'fd01::1']")
			 LABELLED("a", "role: db, zone: x", "2", "hostAddresses: ['fd01::2']")
				 LABELLED("b", "role: web", "3", "ports: []"));
	for (unsigned i = 0; i < 5; i++) {
		static const char *const db[] = {"192.0.2.1", "198.51.100.1", "fd01::1", "192.0.2.2", "fd01::2"};

		assert_int_equal(TO(f, "web", NULL, db[i], 80), 'X');
		assert_int_equal(TO(f, "web", NULL, db[i], 82), '.');
	}
	assert_int_equal(TO(f, "web", NULL, "192.0.2.3", 80), '.');
	assert_int_equal(TO(f, "web", NULL, "192.0.2.2", 81), 'X');
	assert_int_equal(TO(f, "web", NULL, "fd01::2", 81), 'X');
	assert_int_equal(TO(f, "web", NULL, "192.0.2.1", 81), '.');
	assert_int_equal(TO(f, "web", NULL, "203.0.113.9", 81), 'X');
	/* labels, addresses and hosts that change; the policy is the same object */
	apply(f, NODES OWN("zone: y", "tunnel: {protocol: vxlan, address: 192.0.2.1}")
			 LABELLED("a", "zone: x", "2", "hostAddresses: ['fd01::9']") LABELLED("b", "role: db", "3", "ports: []"));
	assert_int_equal(TO(f, "web", NULL, "192.0.2.1", 80), '.');
	assert_int_equal(TO(f, "web", NULL, "192.0.2.1", 81), 'X');
	assert_int_equal(TO(f, "web", NULL, "198.51.100.1", 80), '.');
	assert_int_equal(TO(f, "web", NULL, "192.0.2.2", 80), '.');
	assert_int_equal(TO(f, "web", NULL, "192.0.2.3", 80), 'X');
	assert_int_equal(TO(f, "web", NULL, "fd01::2", 81), '.');
	assert_int_equal(TO(f, "web", NULL, "fd01::9", 81), 'X');
	/* what is not seen of a host changes nothing: nothing is written for the rules */
	decode(f, NODES OWN("zone: y", "tunnel: {protocol: vxlan, address: 192.0.2.1}") LABELLED("a", "zone: x", "2",
			  "hostAddresses: ['fd01::9'], ports: [{name: x, network: blue, addresses: [10.0.0.2]}]")
			  LABELLED("b", "role: db", "3", "ports: []"));
	assert_int_equal(policy_env_compile(&f->env, &f->list, false), 0);
	assert_int_equal(f->env.delta->n_rules + f->env.delta->n_rule_nodes, 0);
	policy_env_write(&f->env);
	policy_env_publish(&f->env);
	policy_env_settle(&f->env);
	/* none that is selected is left: the rest of the rule stays */
	apply(f, NODES OWN("role: web", "tunnel: {protocol: vxlan, address: 192.0.2.1}"));
	assert_int_equal(TO(f, "web", NULL, "192.0.2.3", 80), '.');
	assert_int_equal(TO(f, "web", NULL, "192.0.2.2", 81), '.');
	assert_int_equal(TO(f, "web", NULL, "203.0.113.9", 81), 'X');
	close_fixture(f);
}

/* A network that goes and comes back may have another number: what Peers have in it follows. */
static void test_networks(void **unused)
{
	struct fixture *f = open_fixture();

	(void)unused;
	apply(f, HOST NETWORK("blue") NETWORK("a") WEB RULES AT("b", "10.0.0.2", "app: x"));
	apply(f, HOST NETWORK("a"));
	apply(f, HOST NETWORK("a") NETWORK("c") NETWORK("blue") WEB RULES AT("b", "10.0.0.2", "app: x"));
	assert_int_equal(FROM(f, "web", "10.0.0.2", 80), '.');
	assert_int_equal(FROM(f, "web", "10.0.0.3", 80), 'X');
	/* one that is not there */
	decode(f, HOST NETWORK("blue") WEB HEAD "Peer\nmetadata: {name: b}\nspec:\n  address: 192.0.2.2\n  prefixes:\n"
						"  - {network: lost, cidr: 10.0.0.0/8}\n");
	assert_true(policy_env_compile(&f->env, &f->list, false) < 0);
	assert_non_null(strstr(f->env.diag.text, "spec.prefixes[0].network: want a Network, got lost"));
	close_fixture(f);
}

/* --- many --- */

#define PEERS 1000u
#define EACH 100u

static void many(struct buffer *text, unsigned peers, unsigned changed)
{
	buffer_add_string(text, BASE WEB RULES);
	for (unsigned i = 0; i < peers; i++) {
		buffer_printf(text, HEAD "Peer\nmetadata: {name: p%u}\nspec:\n  address: 192.0.2.2\n  ports:\n", i);
		for (unsigned j = 0; j < EACH; j++)
			buffer_printf(text,
				"  - {name: w%u-%u, network: blue, addresses: [10.%u.%u.%u], labels: {app: %s, n: n%u}}\n", i, j,
				1 + i / 250, i % 250, j + 1, j == 7 || (j == 9 && i == changed) ? "x" : "y", j);
	}
}

static void test_many(void **unused)
{
	struct fixture *f = open_fixture();
	struct buffer text = {0}, other = {0};

	(void)unused;
	many(&text, PEERS, PEERS);
	apply(f, text.data);
	assert_int_equal(f->env.compiler->now.remote.n, PEERS * EACH);
	assert_int_equal(FROM(f, "web", "10.4.249.8", 80), '.');
	assert_int_equal(FROM(f, "web", "10.4.249.10", 80), 'X');
	/* nothing changed: nothing is written */
	assert_int_equal(policy_env_compile(&f->env, &f->list, false), 0);
	assert_int_equal(f->env.delta->n_addr4_nodes + f->env.delta->n_classes + f->env.delta->n_rule_nodes, 0);
	policy_env_publish(&f->env);
	policy_env_settle(&f->env);
	/* the labels of one: its way in the tree */
	many(&other, PEERS, PEERS - 1);
	decode(f, other.data);
	assert_int_equal(policy_env_compile(&f->env, &f->list, false), 0);
	assert_in_range(f->env.delta->n_addr4_nodes, 1, 8);
	assert_int_equal(f->env.delta->n_classes + f->env.delta->n_rule_nodes, 0);
	policy_env_write(&f->env);
	policy_env_publish(&f->env);
	policy_env_settle(&f->env);
	assert_int_equal(FROM(f, "web", "10.4.249.10", 80), '.');
	buffer_clear(&text);
	buffer_clear(&other);
	close_fixture(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_selectors),
		cmocka_unit_test(test_tiers_and_names),
		cmocka_unit_test(test_changes),
		cmocka_unit_test(test_nodes),
		cmocka_unit_test(test_networks),
		cmocka_unit_test(test_many),
	};

	return cmocka_run_group_tests_name("policy: peers", tests, NULL, NULL);
}
