/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random documents, changed step by step: after each compilation the tables must say what the documents say, and whoever
 * still reads the generation before must get the answers of that one, until the round is settled.
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

#define GROUPS 4
#define POLICIES 6
#define SLOTS (1 + GROUPS + POLICIES)

static const char *const devices[] = {"eth0", "eth1", "eth2"};

/* A block out of few enough that they meet, nest and repeat. inside: a block that it shall lie in. */
static void random_prefix(struct prefix *ret, const struct prefix *inside)
{
	static const uint8_t lengths6[] = {0, 1, 16, 48, 60, 63, 64, 65, 66, 96, 120, 127, 128};
	static const uint8_t lengths4[] = {0, 1, 8, 14, 15, 16, 24, 29, 30, 31, 32};
	bool ipv4 = inside ? addr_is_ipv4(&inside->addr) && inside->length >= 96 : chance(50);
	struct hd_addr addr = {0};

	if (ipv4) {
		uint8_t bytes[4] = {
			10, (uint8_t)(chance(50) ? 0 : below(4)), (uint8_t)(chance(50) ? 0 : below(3)), (uint8_t)below(16)};

		if (chance(5))
			memset(bytes, 0xff, 4);
		if (chance(5))
			memset(bytes, 0, 4);
		addr.b[10] = addr.b[11] = 0xff;
		memcpy(&addr.b[12], bytes, 4);
		ret->length = (uint8_t)(96 + lengths4[below(sizeof(lengths4))]);
	} else {
		addr.b[0] = 0xfd;
		addr.b[7] = (uint8_t)below(4);
		addr.b[8] = chance(30) ? (uint8_t)(below(4) << 6) : 0;
		addr.b[15] = (uint8_t)below(8);
		if (chance(5))
			memset(addr.b, 0xff, 16);
		if (chance(20))
			memset(addr.b + 8, 0xff, 8);
		ret->length = lengths6[below(sizeof(lengths6))];
	}
	if (inside && ret->length < inside->length)
		ret->length = inside->length;
	for (unsigned bit = 0; bit < 128; bit++) {
		uint8_t mask = (uint8_t)(0x80 >> bit % 8);

		if (inside && bit < inside->length)
			addr.b[bit / 8] = (uint8_t)((addr.b[bit / 8] & ~mask) | (inside->addr.b[bit / 8] & mask));
		if (bit >= ret->length)
			addr.b[bit / 8] &= (uint8_t)~mask;
	}
	ret->addr = addr;
}

static const char *prefix_text(const struct prefix *prefix)
{
	static char text[ADDR_TEXT_MAX];

	return addr_format_cidr(&prefix->addr, prefix->length, text);
}

static void random_peers(struct text *text, const char *field)
{
	add(text, ", %s: [", field);
	for (uint32_t i = 0, n = 1 + below(chance(80) ? 2 : 4); i < n; i++) {
		struct prefix prefix, except;

		if (chance(25)) {
			add(text, "%s{addressGroup: g%u}", i ? ", " : "", below(GROUPS));
			continue;
		}
		random_prefix(&prefix, NULL);
		add(text, "%s{cidr: \"%s\"", i ? ", " : "", prefix_text(&prefix));
		if (chance(30)) {
			add(text, ", except: [");
			for (uint32_t j = 0, m = 1 + below(3); j < m; j++) {
				random_prefix(&except, &prefix);
				add(text, "%s\"%s\"", j ? ", " : "", prefix_text(&except));
			}
			add(text, "]");
		}
		add(text, "}");
	}
	add(text, "]");
}

static uint32_t random_port(void)
{
	static const uint16_t ports[] = {0, 1, 22, 67, 68, 80, 443, 546, 547, 8000, 8080, 65534, 65535};

	return ports[below(sizeof(ports) / sizeof(ports[0]))];
}

static void random_port_fields(struct text *text)
{
	uint32_t first = random_port(), last = random_port();

	/* 0 is no port that a document may name */
	if (first == 0)
		first = 1;
	if (last < first)
		last = first;
	if (chance(80)) {
		add(text, ", port: %u", first);
		if (chance(50))
			add(text, ", endPort: %u", last);
	}
}

static void random_rule(struct text *text, int direction, uint32_t index)
{
	static const char *const actions[] = {"allow", "deny", "reject"};
	static const char *const protocols[] = {"TCP", "UDP", "SCTP"};
	bool sources = chance(15);

	add(text, "  - {action: %s", actions[below(3)]);
	if (chance(50))
		add(text, ", name: r%u", chance(95) ? index : below(4));
	if (chance(20))
		add(text, ", log: true");
	if (chance(75))
		random_peers(text, direction == HD_INGRESS ? "from" : "to");
	if (chance(75)) {
		add(text, ", ports: [");
		for (uint32_t i = 0, n = 1 + below(3); i < n; i++) {
			if (!sources && chance(15)) {
				add(text, "%s{protocol: %u}", i ? ", " : "", chance(50) ? 47 : chance(50) ? 1 : 58);
				continue;
			}
			add(text, "%s{protocol: %s", i ? ", " : "", protocols[below(3)]);
			random_port_fields(text);
			add(text, "}");
		}
		add(text, "]");
	}
	if (sources) {
		add(text, ", sourcePorts: [");
		for (uint32_t i = 0, n = 1 + below(3); i < n; i++) {
			uint32_t port = random_port();

			add(text, "%s{port: %u", i ? ", " : "", port ? port : 1);
			if (chance(50))
				add(text, ", endPort: 65535");
			add(text, "}");
		}
		add(text, "]");
	} else if (chance(20)) {
		add(text, ", icmp: [{type: %u%s, family: %s}]", (uint32_t[]){0, 8, 128, 134, 255}[below(5)],
			chance(50) ? ", code: 3" : "", chance(50) ? "IPv4" : "IPv6");
	}
	add(text, "}\n");
}

static void random_document(struct text *text, unsigned slot)
{
	static const char *const verdicts[] = {"allow", "deny", "reject"};

	text->n = 0;
	if (slot == 0) {
		add(text, "apiVersion: heddle.dev/v1alpha1\nkind: Host\nmetadata: {name: h}\nspec:\n  uplinks: [");
		for (uint32_t i = 0, n = 0; i < 3; i++)
			if (chance(70) || (i == 2 && n == 0))
				add(text, "%s{device: %s}", n++ ? ", " : "", devices[i]);
		add(text, "]\n  failsafe: [%s%s]\n", chance(50) ? "{protocol: TCP, port: 22}" : "{protocol: UDP, port: 68}",
			chance(30) ? ", {protocol: TCP, port: 8000, endPort: 8080}" : "");
		return;
	}
	if (slot <= GROUPS) {
		add(text, "apiVersion: heddle.dev/v1alpha1\nkind: AddressGroup\nmetadata: {name: g%u}\nspec:\n  cidrs:\n",
			slot - 1);
		for (uint32_t i = 0, n = 1 + below(chance(90) ? 4 : 60); i < n; i++) {
			struct prefix prefix;

			random_prefix(&prefix, NULL);
			add(text, "  - \"%s\"\n", prefix_text(&prefix));
		}
		return;
	}
	add(text, "apiVersion: heddle.dev/v1alpha1\nkind: HostPolicy\nmetadata: {name: p%u}\nspec:\n  priority: %u\n",
		slot - 1 - GROUPS, below(3));
	if (chance(15))
		add(text, "  audit: true\n");
	if (chance(30))
		add(text, "  uplinks: [%s%s]\n", devices[below(2)], chance(30) ? ", eth2" : "");
	if (chance(40))
		add(text, "  default: {ingress: %s}\n", verdicts[below(3)]);
	else if (chance(40))
		add(text, "  default: {egress: %s, ingress: %s}\n", verdicts[below(3)], verdicts[below(3)]);
	for (int direction = 0; direction < HD_DIRECTIONS; direction++) {
		uint32_t n = chance(20) ? 0 : chance(90) ? below(6) : below(30);

		if (n)
			add(text, "  %s:\n", direction == HD_INGRESS ? "ingress" : "egress");
		for (uint32_t i = 0; i < n; i++)
			random_rule(text, direction, i);
	}
}

static struct object *random_object(unsigned slot)
{
	static struct text text;
	struct object_list list = {0};
	struct object *object;

	random_document(&text, slot);
	policy_documents(&list, text.at);
	object = object_ref(list.items[0]);
	object_list_clear(&list);
	return object;
}

/* --- packets --- */

struct addresses {
	struct hd_addr at[16384];
	size_t n;
};

static void add_addresses(struct addresses *addresses, const struct prefix *prefix)
{
	struct hd_addr first = prefix->addr, last = first;

	if (addresses->n + 4 > sizeof(addresses->at) / sizeof(addresses->at[0]))
		return;
	for (unsigned bit = prefix->length; bit < 128; bit++)
		last.b[bit / 8] |= (uint8_t)(0x80 >> bit % 8);
	addresses->at[addresses->n++] = first;
	addresses->at[addresses->n++] = last;
	for (int i = 15; i >= 0 && first.b[i]-- == 0; i--)
		;
	for (int i = 15; i >= 0 && ++last.b[i] == 0; i--)
		;
	addresses->at[addresses->n++] = first;
	addresses->at[addresses->n++] = last;
}

static void collect_addresses(struct addresses *addresses, const struct object_list *list)
{
	for (size_t i = 0; i < list->n; i++) {
		const struct object *object = list->items[i];

		for (size_t j = 0; object->kind == OBJECT_ADDRESS_GROUP && j < object->group.n_cidrs; j++)
			add_addresses(addresses, &object->group.cidrs[j]);
		for (int d = 0; object->kind == OBJECT_HOST_POLICY && d < HD_DIRECTIONS; d++)
			for (size_t j = 0; j < object->policy.n_rules[d]; j++) {
				const struct rule *rule = &object_rules(object, (enum hd_direction)d)[j];

				for (uint32_t k = 0; k < rule->n_peers; k++) {
					if (!rule->peers[k].group)
						add_addresses(addresses, &rule->peers[k].prefix);
					for (uint32_t m = 0; m < rule->peers[k].n_except; m++)
						add_addresses(addresses, &rule->peers[k].except[m]);
				}
			}
	}
}

static uint32_t near_port(void)
{
	return (random_port() + below(3) + 65535) & 0xffff;
}

static struct lookup_packet random_packet(const struct addresses *addresses)
{
	static const uint8_t types[] = {0, 3, 8, 128, 129, 130, 133, 134, 137, 138, 143, 255};
	static const uint16_t ethertypes[] = {0x0806, 0x88cc, 0x8809, 0x888e, 0x9000, 0, 0xffff};
	static const uint8_t protocols[] = {0, 1, 47, 50, 58, 255};
	struct lookup_packet packet = {.ip = true, .source_port = (uint16_t)near_port()};
	struct prefix prefix;

	random_prefix(&prefix, NULL);
	packet.peer = addresses->n && chance(80) ? addresses->at[below((uint32_t)addresses->n)] : prefix.addr;
	packet.kind = (uint8_t)(chance(60) ? HD_L4_TCP : below(HD_L4_KINDS));
	packet.number = (uint16_t)near_port();
	switch (packet.kind) {
	case HD_L4_PROTOCOL:
		packet.number = protocols[below(sizeof(protocols))];
		break;
	case HD_L4_ICMP:
	case HD_L4_ICMPV6:
		packet.number = (uint16_t)(types[below(sizeof(types))] << 8 | below(5));
		break;
	case HD_L4_ETHERTYPE:
		packet.number = ethertypes[below(7)];
		packet.ip = false;
		break;
	default:
		break;
	}
	return packet;
}

/* --- the test --- */

#define PROBES 120

struct probe {
	struct lookup_packet packet;
	const char *device;
	enum hd_direction direction;
	struct hd_port_policy policy;
	struct lookup_result result;
};

static const char *random_device(const struct object_list *list)
{
	const struct host *host = policy_env_host(list);

	return host->uplinks[below((uint32_t)host->n_uplinks)].device;
}

/* Live answers against the documents; keeps them. */
static void check(const struct policy_env *env, const struct object_list *list, bool lockdown, struct probe *probes)
{
	static struct addresses addresses;

	addresses.n = 0;
	collect_addresses(&addresses, list);
	for (size_t i = 0; i < PROBES; i++) {
		struct probe *probe = &probes[i];
		struct policy_answer answer;
		const char *differs;
		char text[ADDR_TEXT_MAX];

		probe->packet = random_packet(&addresses);
		probe->device = random_device(list);
		probe->direction = (enum hd_direction)below(HD_DIRECTIONS);
		probe->policy = *policy_env_port(env, probe->device);
		policy_env_lookup(env, env->generation, &probe->policy, probe->direction, &probe->packet, &probe->result);
		answer = policy_judge(list, lockdown, probe->device, probe->direction, &probe->packet);
		differs = policy_env_differs(env, &answer, probe->direction, &probe->result);
		if (differs)
			fail_msg("generation %u, %s %s, peer %s, kind %u number %u source port %u: %s", env->generation,
				probe->device, probe->direction == HD_INGRESS ? "ingress" : "egress",
				addr_format(&probe->packet.peer, text), probe->packet.kind, probe->packet.number,
				probe->packet.source_port, differs);
	}
}

static void check_before(const struct policy_env *env, uint32_t generation, const struct probe *probes, const char *when)
{
	for (size_t i = 0; i < PROBES; i++) {
		struct lookup_result result;

		policy_env_lookup(env, generation, &probes[i].policy, probes[i].direction, &probes[i].packet, &result);
		if (result.leaf != probes[i].result.leaf || result.order != probes[i].result.order)
			fail_msg("generation %u changed under its readers %s: leaf %08x, was %08x", generation, when, result.leaf,
				probes[i].result.leaf);
	}
}

/* The rules map names every rule of the documents once, and nothing else. */
static void check_rules(const struct policy_env *env, const struct object_list *list, bool lockdown)
{
	size_t named = 0, there = 0;

	for (size_t i = 0; i < list->n && !lockdown; i++)
		if (list->items[i]->kind == OBJECT_HOST_POLICY)
			there += list->items[i]->policy.n_rules[HD_INGRESS] + list->items[i]->policy.n_rules[HD_EGRESS];
	for (uint32_t id = HD_RULE_FIRST; id < env->limits.rules; id++) {
		const struct hd_rule_info *info = &env->rules[id];
		struct rule_reference rule;

		if (info->key == 0) {
			assert_int_equal(compiler_rule(env->compiler, id, &rule), -ENOENT);
			continue;
		}
		named++;
		assert_int_equal(compiler_rule(env->compiler, id, &rule), 0);
		assert_true(id < compiler_rule_limit(env->compiler));
		assert_string_equal(info->policy, rule.policy);
		assert_string_equal(info->name, rule.name ? rule.name : "");
		assert_int_equal(info->index, rule.index);
		assert_int_equal(info->direction, rule.direction);
		assert_int_equal(info->verdict, rule.verdict);
	}
	assert_int_equal(named, there);
}

/* Without documents all that was handed out comes back. */
static void check_empty(struct policy_env *env, struct object_list *list, struct object *host)
{
	const struct tables *t = &env->compiler->now;
	size_t classes = 0;

	object_list_clear(list);
	assert_int_equal(object_list_add(list, host), 0);
	policy_env_apply(env, list);
	for (int family = 0; family < 2; family++) {
		assert_int_equal(t->addr_nodes[family].live, 0);
		assert_int_equal(t->addr_nodes[family].free.n + 1, t->addr_nodes[family].end ? t->addr_nodes[family].end : 1);
	}
	assert_int_equal(t->ids_live, 0);
	assert_int_equal(t->index_used, 0);
	assert_int_equal(t->rule_nodes.live + t->rule_nodes.free.n + 1, t->rule_nodes.end);
	for (size_t i = 2; i < t->classes.n; i++)
		classes += t->classes.data[i].flags != 0;
	assert_int_equal(classes, 0);
	check_rules(env, list, false);
}

static void list_slots(struct object_list *list, struct object *const *slots)
{
	object_list_clear(list);
	/* Not sorted on purpose: the order of documents means nothing. */
	for (unsigned i = 0, first = below(SLOTS); i < SLOTS; i++)
		if (slots[(first + i) % SLOTS])
			assert_int_equal(object_list_add(list, slots[(first + i) % SLOTS]), 0);
}

/* How often a class went from one set (or none) to several, and so on: [several before][several after]. */
static unsigned turns[2][2];

static void count_turns(const struct policy_env *env)
{
	for (size_t i = 0; i < env->delta->n_classes; i++) {
		const struct class_write *write = &env->delta->classes[i];
		int now = hd_class_rules_at(&env->classes[write->id], env->generation);

		if (now >= 0)
			turns[env->classes[write->id].rules[now].set == HD_SET_SEVERAL][write->rules.set == HD_SET_SEVERAL]++;
	}
}

static void run_sequence(unsigned rounds, bool lockdowns)
{
	static const struct compiler_limits limits = {1 << 14, 1 << 14, 1 << 14, 1 << 14, 1 << 12, 1 << 8};
	struct object *slots[SLOTS] = {0}, *kept[SLOTS];
	struct object_list list = {0};
	struct probe probes[PROBES];
	struct policy_env env;
	bool lockdown;

	policy_env_open(&env, &limits, below(2) ? 1 : UINT32_MAX - below(5));
	for (unsigned i = 0; i < SLOTS; i++)
		slots[i] = i <= GROUPS || chance(60) ? random_object(i) : NULL;
	for (unsigned round = 0; round < rounds; round++) {
		uint32_t generation = env.generation;
		bool abort;

		memcpy(kept, slots, sizeof(kept));
		for (unsigned i = 0; i < SLOTS; i++)
			if (kept[i])
				object_ref(kept[i]);
		for (uint32_t i = 0, n = round ? below(4) : 0; i < n; i++) {
			unsigned slot = below(SLOTS);

			object_unref(slots[slot]);
			slots[slot] = slot > GROUPS && chance(25) ? NULL : random_object(slot);
		}
		list_slots(&list, slots);
		if (chance(50))
			object_list_pack(&list);
		lockdown = lockdowns && chance(10);
		abort = round && chance(15);
		if (policy_env_compile(&env, &list, lockdown) < 0)
			fail_msg("compile: %s", env.diag.text);
		count_turns(&env);
		policy_env_write(&env);
		if (round)
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
		if (round)
			check_before(&env, generation, probes, "after the switch");
		check(&env, &list, lockdown, probes);
		if (chance(90)) {
			policy_env_settle(&env);
			check(&env, &list, lockdown, probes);
			check_rules(&env, &list, lockdown);
		}
		for (unsigned i = 0; i < SLOTS; i++)
			object_unref(kept[i]);
		if (chance(20) && env.delta == NULL) {
			assert_int_equal(policy_env_compile(&env, &list, lockdown), 0);
			assert_int_equal(env.delta->n_addr4_nodes + env.delta->n_addr6_nodes + env.delta->n_classes +
						 env.delta->n_rule_nodes + env.delta->n_rules,
				0);
			policy_env_publish(&env);
			policy_env_settle(&env);
			check(&env, &list, lockdown, probes);
		}
	}
	check_empty(&env, &list, slots[0]);
	object_list_clear(&list);
	for (unsigned i = 0; i < SLOTS; i++)
		object_unref(slots[i]);
	policy_env_close(&env);
}

static void test_single(void **unused)
{
	(void)unused;
	random_begin("single compilations");
	for (unsigned i = 0, n = random_setting("HEDDLE_ROUNDS", 300); i < n; i++)
		run_sequence(1, false);
}

static void test_sequences(void **unused)
{
	(void)unused;
	random_begin("sequences");
	for (unsigned i = 0, n = random_setting("HEDDLE_ROUNDS", 300) / 15 + 1; i < n; i++)
		run_sequence(60, i % 4 == 0);
	print_message("classes from one set to several %u times, back %u\n", turns[0][1], turns[1][0]);
	assert_true(turns[0][1] && turns[1][0]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_single),
		cmocka_unit_test(test_sequences),
	};

	return cmocka_run_group_tests_name("policy: random documents", tests, NULL, NULL);
}
