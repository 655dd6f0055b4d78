/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random ports, peers, namespaces, networks and policies for ports, changed step by step: after each compilation the tables must say what the
 * documents say, whoever still reads the generation before must get the answers of that one until the round is settled, and a compiler
 * that starts with the same documents must come to the same answers.
 * HEDDLE_SEED=N repeats a run, HEDDLE_ROUNDS=N makes it longer.
 */
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
#include <tests/unit/random_env.h>
#include <util/addr.h>

/* --- documents --- */

#define NETWORKS 3
#define SPACES 3
#define PORTS 14
#define PEERS 3
#define POLICIES 5 /* of each kind */
#define KINDS 4
enum {
	SLOT_HOST = 0,
	SLOT_NETWORK = 1,
	SLOT_SPACE = SLOT_NETWORK + NETWORKS,
	SLOT_PORT = SLOT_SPACE + SPACES,
	SLOT_PEER = SLOT_PORT + PORTS,
	SLOT_POLICY = SLOT_PEER + PEERS,
	SLOTS = SLOT_POLICY + KINDS * POLICIES
};

static const char *const spaces[] = {"x", "y", "z"}, *const keys[] = {"app", "tier", "env"}, *const values[] = {"a", "b", "c"};
static const char *const protocols[] = {"TCP", "UDP", "SCTP"}, *const names[] = {"http", "dns", "sip"};

static void random_labels(struct text *text)
{
	add(text, "{");
	for (uint32_t i = 0, n = 0; i < 3; i++)
		if (chance(50))
			add(text, "%s%s: %s", n++ ? ", " : "", keys[i], values[below(3)]);
	add(text, "}");
}

static void random_selector(struct text *text, bool space)
{
	static const char *const operators[] = {"In", "NotIn", "Exists", "DoesNotExist"};

	if (chance(25)) {
		add(text, "{}");
		return;
	}
	if (space && chance(40)) {
		add(text, "{matchLabels: {kubernetes.io/metadata.name: %s}}", spaces[below(3)]);
		return;
	}
	if (chance(50)) {
		add(text, "{matchLabels: {%s: %s}}", keys[below(3)], values[below(3)]);
		return;
	}
	add(text, "{matchExpressions: [");
	for (uint32_t i = 0, n = 1 + below(2); i < n; i++) {
		uint32_t operator= below(4);

		add(text, "%s{key: %s, operator: %s", i ? ", " : "", keys[below(3)], operators[operator]);
		if (operator<2)
			add(text, ", values: [%s%s]", values[below(3)], chance(40) ? ", c" : "");
		add(text, "}");
	}
	add(text, "]}");
}

/* Addresses are few, so that ports take over each other's and networks have the same ones. */
static void random_address(struct text *text, bool ipv6)
{
	if (ipv6)
		add(text, "\"fd00::%u\"", 1 + below(20));
	else
		add(text, "10.0.%u.%u", below(2), 1 + below(10));
}

static void random_block(struct text *text)
{
	static const char *const blocks[] = {"10.0.0.0/24", "10.0.1.0/24", "10.0.0.0/16", "0.0.0.0/0", "10.0.0.4/30",
		"10.0.1.3/32", "::/0", "fd00::/64", "fd00::8/125", "fd00::5/128"};

	add(text, "\"%s\"", blocks[below(10)]);
}

static void random_ports(struct text *text, unsigned kind, bool may_name)
{
	uint32_t n = 1 + below(2);

	add(text, ", %s: [", kind == 3 ? "protocols" : "ports");
	for (uint32_t i = 0; i < n; i++) {
		uint32_t first = 80 + below(4), last = first + below(3);
		const char *protocol = protocols[below(3)];

		add(text, "%s", i ? ", " : "");
		if (kind == 0) {
			if (chance(40))
				add(text, "{port: %s, protocol: %s}", names[below(3)], protocol);
			else if (chance(20))
				add(text, "{protocol: %s}", protocol);
			else
				add(text, "{protocol: %s, port: %u, endPort: %u}", protocol, first, last);
		} else if (kind == 3) {
			if (may_name && chance(40))
				add(text, "{destinationNamedPort: %s}", names[below(3)]);
			else
				add(text, "{%s: {destinationPort: {range: {start: %u, end: %u}}}}",
					(const char *const[]){"tcp", "udp", "sctp"}[below(3)], first, last + 1);
		} else {
			if (may_name && chance(40))
				add(text, "{namedPort: %s}", names[below(3)]);
			else
				add(text, "{portNumber: {protocol: %s, port: %u}}", protocol, first);
		}
	}
	add(text, "]");
}

/* True: it is made of ports. */
static bool random_peer(struct text *text, unsigned kind, int direction)
{
	if (kind == 0 && chance(25)) {
		static const char *const with[] = {"{ipBlock: {cidr: 10.0.0.0/16, except: [10.0.1.0/24, 10.0.0.2/31]}}",
			"{ipBlock: {cidr: \"fd00::/64\", except: [\"fd00::8/125\"]}}"};

		if (chance(40)) {
			add(text, "%s", with[below(2)]);
			return true;
		}
		add(text, "{ipBlock: {cidr: ");
		random_block(text);
		add(text, "}}");
		return true;
	}
	if (kind == 0) {
		bool space = chance(50);

		add(text, "{");
		if (space) {
			add(text, "namespaceSelector: ");
			random_selector(text, true);
		}
		if (!space || chance(50)) {
			add(text, "%spodSelector: ", space ? ", " : "");
			random_selector(text, false);
		}
		add(text, "}");
		return true;
	}
	if (direction == HD_EGRESS && chance(25)) {
		if (chance(20)) {
			add(text, "{nodes: ");
			random_selector(text, false);
			add(text, "}");
			return false;
		}
		add(text, "{networks: [");
		random_block(text);
		add(text, "]}");
		return false;
	}
	if (chance(40)) {
		add(text, "{namespaces: ");
		random_selector(text, true);
	} else {
		add(text, "{pods: {namespaceSelector: ");
		random_selector(text, true);
		add(text, ", podSelector: ");
		random_selector(text, false);
		add(text, "}");
	}
	add(text, "}");
	return true;
}

static void random_rules(struct text *text, unsigned kind, int direction)
{
	static const char *const actions[] = {"Allow", "Deny", "Pass"};
	uint32_t n = below(4);

	add(text, "  %s:%s\n", direction == HD_INGRESS ? "ingress" : "egress", n ? "" : " []");
	for (uint32_t i = 0; i < n; i++) {
		const char *action = actions[below(kind == 2 ? 2 : 3)];
		bool may_name = true;

		add(text, "  - {");
		if (kind) {
			add(text, "action: %s, ", kind == 3 && action == actions[0] ? "Accept" : action);
			if (chance(30))
				add(text, "name: r%u, ", i);
		}
		add(text, "%s: [", direction == HD_INGRESS ? "from" : "to");
		for (uint32_t j = 0, m = kind ? 1 + below(2) : below(3); j < m; j++) {
			add(text, "%s", j ? ", " : "");
			may_name = random_peer(text, kind, direction) && may_name;
		}
		add(text, "]");
		if (chance(50))
			random_ports(text, kind, may_name);
		add(text, "}\n");
	}
}

static void random_policy(struct text *text, unsigned slot)
{
	static const char *const kinds[] = {
		"NetworkPolicy", "AdminNetworkPolicy", "BaselineAdminNetworkPolicy", "ClusterNetworkPolicy"};
	static const char *const versions[] = {"networking.k8s.io/v1", "policy.networking.k8s.io/v1alpha1",
		"policy.networking.k8s.io/v1alpha1", "policy.networking.k8s.io/v1alpha2"};
	static const char *const types[] = {
		"", "  policyTypes: [Ingress]\n", "  policyTypes: [Egress]\n", "  policyTypes: [Ingress, Egress]\n"};
	unsigned kind = slot / POLICIES, index = slot % POLICIES;

	add(text, "apiVersion: %s\nkind: %s\nmetadata: {name: %s%u", versions[kind], kinds[kind], kind == 2 ? "default" : "p",
		index);
	if (kind == 2)
		text->n--; /* there is one, by this name */
	if (kind == 0)
		add(text, ", namespace: %s", spaces[index % SPACES]);
	add(text, "%s}\nspec:\n", chance(20) ? ", annotations: {heddle.dev/audit: \"true\"}" : "");
	if (kind == 0) {
		add(text, "  podSelector: ");
		random_selector(text, false);
		add(text, "\n%s", types[below(4)]);
	} else {
		add(text, "  subject: {");
		if (chance(50)) {
			add(text, "namespaces: ");
			random_selector(text, true);
		} else {
			add(text, "pods: {namespaceSelector: ");
			random_selector(text, true);
			add(text, ", podSelector: ");
			random_selector(text, false);
			add(text, "}");
		}
		add(text, "}\n");
	}
	if (kind == 1 || kind == 3)
		add(text, "  priority: %u\n", below(4));
	if (kind == 3)
		add(text, "  tier: %s\n", chance(50) ? "Admin" : "Baseline");
	random_rules(text, kind, HD_INGRESS);
	random_rules(text, kind, HD_EGRESS);
}

static void random_named_ports(struct text *text)
{
	for (uint32_t i = 0, n = 0; i < 3; i++)
		if (chance(40))
			add(text, "%s{name: %s, protocol: %s, port: %u}", n++ ? ", " : "", names[i], protocols[below(3)],
				80 + below(3));
}

static void random_port_document(struct text *text, unsigned index)
{
	add(text, "apiVersion: heddle.dev/v1alpha1\nkind: Port\nmetadata: {name: p%u, namespace: %s, labels: ", index,
		spaces[index % SPACES]);
	random_labels(text);
	add(text, "}\nspec:\n  device: d%u\n  network: n%u\n  addresses: [", index, below(NETWORKS));
	random_address(text, false);
	if (chance(60)) {
		add(text, ", ");
		random_address(text, true);
	}
	add(text, "]\n  ports: [");
	random_named_ports(text);
	add(text, "]\n");
}

static void random_peer_document(struct text *text, unsigned index)
{
	add(text, "apiVersion: heddle.dev/v1alpha1\nkind: Peer\nmetadata: {name: h%u, labels: ", index);
	random_labels(text);
	add(text, "}\nspec:\n  address: 192.0.2.%u\n%s  ports:%s\n", index + 2,
		chance(40) ? "  hostAddresses: [198.51.100.1, \"fd01::1\"]\n" : "", chance(10) ? " []" : "");
	for (uint32_t i = 0, n = text->at[text->n - 2] == ']' ? 0 : 1 + below(5); i < n; i++) {
		add(text, "  - {name: r%u, namespace: %s, network: n%u, labels: ", i, spaces[below(SPACES)], below(NETWORKS));
		random_labels(text);
		add(text, ", addresses: [");
		if (chance(85))
			random_address(text, chance(40));
		add(text, "], ports: [");
		random_named_ports(text);
		add(text, "]}\n");
	}
	if (chance(50))
		add(text, "  prefixes: [{network: n%u, cidr: 10.0.0.0/24}]\n", below(NETWORKS));
}

/* NULL: nothing belongs there. */
static struct object *random_object(unsigned slot)
{
	static struct text text;
	struct object_list list = {0};
	struct object *object;

	/* There is one BaselineAdminNetworkPolicy. */
	if (slot > SLOT_POLICY + 2 * POLICIES && slot < SLOT_POLICY + 3 * POLICIES)
		return NULL;
	text.n = 0;
	if (slot == SLOT_HOST) {
		add(&text,
			"apiVersion: heddle.dev/v1alpha1\nkind: Host\nmetadata: {name: h}\nspec:\n  uplinks: [{device: eth0}]\n");
	} else if (slot < SLOT_SPACE) {
		add(&text, "apiVersion: heddle.dev/v1alpha1\nkind: Network\nmetadata: {name: n%u}\nspec: {}\n",
			slot - SLOT_NETWORK);
	} else if (slot < SLOT_PORT) {
		add(&text, "apiVersion: v1\nkind: Namespace\nmetadata: {name: %s, labels: ", spaces[slot - SLOT_SPACE]);
		random_labels(&text);
		add(&text, "}\n");
	} else if (slot < SLOT_PEER) {
		random_port_document(&text, slot - SLOT_PORT);
	} else if (slot < SLOT_POLICY) {
		random_peer_document(&text, slot - SLOT_PEER);
	} else {
		random_policy(&text, slot - SLOT_POLICY);
	}
	policy_documents(&list, text.at);
	object = object_ref(list.items[0]);
	object_list_clear(&list);
	return object;
}

/* --- probes --- */

#define PROBES 150

struct probe {
	struct object *port; /* a reference */
	const char *network; /* of the peer; NULL: the port's own */
	struct lookup_packet packet;
	enum hd_direction direction;
	struct lookup_result result;
};

/* Somebody is in it, here or at a Peer. */
static bool is_populated(const struct object_list *list, const char *network)
{
	for (size_t i = 0; i < list->n; i++) {
		const struct object *object = list->items[i];

		if (object->kind == OBJECT_PORT && strcmp(object->port.network, network) == 0)
			return true;
		for (size_t j = 0; object->kind == OBJECT_PEER && j < object->tunnel_peer.n_ports; j++)
			if (strcmp(object->tunnel_peer.ports[j].network, network) == 0)
				return true;
		for (size_t j = 0; object->kind == OBJECT_PEER && j < object->tunnel_peer.n_prefixes; j++)
			if (strcmp(object->tunnel_peer.prefixes[j].network, network) == 0)
				return true;
	}
	return false;
}

static const char *random_network(const struct object_list *list)
{
	static const char *const networks[NETWORKS] = {"n0", "n1", "n2"};
	const char *network = networks[below(NETWORKS)];

	return chance(60) || !is_populated(list, network) ? NULL : network;
}

static struct lookup_packet random_packet(const struct object_list *list)
{
	struct lookup_packet packet = {.ip = !chance(3), .source_port = (uint16_t)(40000 + below(10))};
	const struct object *other = list->items[below((uint32_t)list->n)];

	packet.kind = packet.ip ? (uint8_t)(chance(80) ? HD_L4_TCP + below(3) : HD_L4_ICMP) : HD_L4_ETHERTYPE;
	packet.number = (uint16_t)(packet.kind == HD_L4_ICMP ? 0x0800 : 79 + below(7));
	if (other->kind == OBJECT_PORT && other->port.n_addresses) {
		packet.peer = other->port.addresses[below((uint32_t)other->port.n_addresses)];
	} else if (other->kind == OBJECT_PEER && other->tunnel_peer.n_ports && other->tunnel_peer.ports[0].n_addresses &&
		   chance(70)) {
		packet.peer = other->tunnel_peer.ports[0].addresses[0];
	} else if (other->kind == OBJECT_PEER && chance(50)) {
		const struct tunnel_peer *peer = &other->tunnel_peer;

		packet.peer =
			peer->n_host_addresses ? peer->host_addresses[below((uint32_t)peer->n_host_addresses)] : peer->address;
	} else {
		struct text text = {.n = 0};
		char *end;

		random_address(&text, chance(40));
		end = strrchr(text.at, '"');
		if (end)
			*end = '\0';
		assert_int_equal(addr_parse(text.at + (text.at[0] == '"'), &packet.peer), 0);
	}
	return packet;
}

static void clear_probes(struct probe *probes)
{
	for (size_t i = 0; i < PROBES; i++) {
		object_unref(probes[i].port);
		probes[i].port = NULL;
	}
}

/* Live answers against the documents, and against a compiler that knows nothing else; keeps them. */
static void check(
	const struct policy_env *env, const struct policy_env *fresh, const struct object_list *list, struct probe *probes)
{
	clear_probes(probes);
	for (size_t i = 0; i < PROBES; i++) {
		struct probe *probe = &probes[i];
		struct lookup_result other;
		struct policy_answer answer;
		const char *differs;
		char text[ADDR_TEXT_MAX];

		for (unsigned tries = 0; tries < 100 && !probe->port; tries++) {
			struct object *object = list->items[below((uint32_t)list->n)];

			if (object->kind == OBJECT_PORT)
				probe->port = object_ref(object);
		}
		if (!probe->port)
			return;
		probe->packet = random_packet(list);
		probe->direction = (enum hd_direction)below(HD_DIRECTIONS);
		probe->network = random_network(list);
		policy_env_port_lookup(
			env, env->generation, probe->port, probe->direction, probe->network, &probe->packet, &probe->result);
		answer = policy_judge_port(list, probe->port, probe->direction, probe->network, &probe->packet);
		differs = policy_env_differs(env, &answer, probe->direction, &probe->result);
		if (!differs && fresh) {
			policy_env_port_lookup(
				fresh, fresh->generation, probe->port, probe->direction, probe->network, &probe->packet, &other);
			differs = policy_env_differs(fresh, &answer, probe->direction, &other);
		}
		if (differs)
			fail_msg("generation %u, %s/%s %s, peer %s, kind %u number %u: %s", env->generation,
				probe->port->namespace_, probe->port->name, probe->direction == HD_INGRESS ? "ingress" : "egress",
				addr_format(&probe->packet.peer, text), probe->packet.kind, probe->packet.number, differs);
	}
}

static void check_before(const struct policy_env *env, uint32_t generation, const struct probe *probes, const char *when)
{
	for (size_t i = 0; i < PROBES && probes[i].port; i++) {
		struct lookup_result result;

		policy_env_port_lookup(
			env, generation, probes[i].port, probes[i].direction, probes[i].network, &probes[i].packet, &result);
		if (result.leaf != probes[i].result.leaf || result.order != probes[i].result.order)
			fail_msg("generation %u changed under its readers %s: leaf %08x, was %08x", generation, when, result.leaf,
				probes[i].result.leaf);
	}
}

/*
 * A flow that was judged in the generation before and is not judged again keeps its verdict: where the answer is another one, the
 * version must be another too.
 */
static void check_versions(const struct policy_env *env, const struct object_list *list, const struct probe *probes,
	const struct hd_port_policy *old, const uint16_t *networks)
{
	for (size_t i = 0; i < PROBES && probes[i].port; i++) {
		struct port_policy now;
		struct lookup_result result;

		if (compiler_port(env->compiler, probes[i].port->namespace_, probes[i].port->name, &now) < 0 ||
			now.network != networks[i])
			continue;
		/* Nobody is there any more. */
		if (probes[i].network && !is_populated(list, probes[i].network))
			continue;
		policy_env_port_lookup(
			env, env->generation, now.port, probes[i].direction, probes[i].network, &probes[i].packet, &result);
		if ((result.leaf ^ probes[i].result.leaf) & (3u << HD_LEAF_VERDICT_SHIFT | HD_LEAF_AUDIT))
			assert_int_not_equal(now.policy.version[probes[i].direction], old[i].version[probes[i].direction]);
	}
}

/* --- the test --- */

static const struct compiler_limits limits = {1 << 13, 1 << 13, 1 << 14, 1 << 15, 1 << 12, 1 << 8};

static void list_slots(struct object_list *list, struct object *const *slots)
{
	object_list_clear(list);
	/* Not sorted on purpose: the order of documents means nothing. */
	for (unsigned i = 0, first = below(SLOTS); i < SLOTS; i++)
		if (slots[(first + i) % SLOTS])
			assert_int_equal(object_list_add(list, slots[(first + i) % SLOTS]), 0);
}

static void check_empty(struct policy_env *env, struct object_list *list, struct object *host)
{
	const struct tables *t = &env->compiler->now;

	object_list_clear(list);
	assert_int_equal(object_list_add(list, host), 0);
	policy_env_apply(env, list);
	policy_env_apply(env, list);
	assert_int_equal(t->addr_nodes[0].live + t->addr_nodes[1].live, 0);
	assert_int_equal(t->ids_live, 0);
	assert_int_equal(t->index_used, 0);
	assert_int_equal(t->rule_nodes.live + t->rule_nodes.free.n + 1, t->rule_nodes.end);
	for (size_t i = 2; i < t->classes.n; i++)
		assert_int_equal(t->classes.data[i].flags, 0);
	for (uint32_t i = 0; i < labels_identities(env->compiler->labels); i++)
		assert_null(labels_by_number(env->compiler->labels, i));
	for (uint32_t id = HD_RULE_FIRST; id < env->limits.rules; id++)
		assert_int_equal(env->rules[id].key, 0);
}

static bool may_be_missing(unsigned slot)
{
	return slot >= SLOT_SPACE;
}

static void run_sequence(unsigned rounds)
{
	struct object *slots[SLOTS] = {0}, *kept[SLOTS];
	struct object_list list = {0};
	struct probe probes[PROBES] = {0};
	struct policy_env env;

	policy_env_open(&env, &limits, below(2) ? 1 : UINT32_MAX - below(5));
	for (unsigned i = 0; i < SLOTS; i++)
		slots[i] = !may_be_missing(i) || chance(60) ? random_object(i) : NULL;
	for (unsigned round = 0; round < rounds; round++) {
		uint32_t generation = env.generation;
		struct hd_port_policy old[PROBES] = {0};
		uint16_t networks[PROBES] = {0};
		struct policy_env fresh;
		bool abort, again = chance(15);

		memcpy(kept, slots, sizeof(kept));
		for (unsigned i = 0; i < SLOTS; i++)
			if (kept[i])
				object_ref(kept[i]);
		for (uint32_t i = 0, n = round ? below(4) : 0; i < n; i++) {
			unsigned slot = below(SLOTS);

			object_unref(slots[slot]);
			slots[slot] = may_be_missing(slot) && chance(25) ? NULL : random_object(slot);
		}
		for (size_t i = 0; i < PROBES && probes[i].port; i++) {
			struct port_policy port;

			assert_int_equal(compiler_port(env.compiler, probes[i].port->namespace_, probes[i].port->name, &port), 0);
			old[i] = port.policy;
			networks[i] = port.network;
		}
		list_slots(&list, slots);
		abort = round && chance(15);
		if (policy_env_compile(&env, &list, false) < 0)
			fail_msg("compile: %s", env.diag.text);
		policy_env_write(&env);
		check_before(&env, generation, probes, "before the switch");
		if (abort) {
			compiler_abort(env.compiler);
			check_before(&env, generation, probes, "after an abort");
			for (unsigned i = 0; i < SLOTS; i++) {
				object_unref(slots[i]);
				slots[i] = kept[i];
			}
			continue;
		}
		policy_env_publish(&env);
		check_before(&env, generation, probes, "after the switch");
		check_versions(&env, &list, probes, old, networks);
		policy_env_open(&fresh, &limits, 1);
		if (again)
			policy_env_apply(&fresh, &list);
		check(&env, again ? &fresh : NULL, &list, probes);
		policy_env_close(&fresh);
		if (chance(90)) {
			policy_env_settle(&env);
			check(&env, NULL, &list, probes);
		}
		for (unsigned i = 0; i < SLOTS; i++)
			object_unref(kept[i]);
		if (chance(20) && env.delta == NULL) {
			assert_int_equal(policy_env_compile(&env, &list, false), 0);
			assert_int_equal(env.delta->n_addr4_nodes + env.delta->n_addr6_nodes + env.delta->n_rule_nodes +
						 env.delta->n_classes + env.delta->n_rules,
				0);
			policy_env_publish(&env);
			policy_env_settle(&env);
			check(&env, NULL, &list, probes);
		}
	}
	clear_probes(probes);
	check_empty(&env, &list, slots[SLOT_HOST]);
	object_list_clear(&list);
	for (unsigned i = 0; i < SLOTS; i++)
		object_unref(slots[i]);
	policy_env_close(&env);
}

static void test_sequences(void **unused)
{
	(void)unused;
	random_begin("sequences");
	for (unsigned i = 0, n = random_setting("HEDDLE_ROUNDS", 300) / 15 + 1; i < n; i++)
		run_sequence(60);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sequences),
	};

	return cmocka_run_group_tests_name("policy: random ports", tests, NULL, NULL);
}
