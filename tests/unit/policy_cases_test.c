/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cases of policies for ports: each a cluster state, policies and the full matrix of who reaches whom. Every cell is asked of the
 * documents' judge and of the compiled tables: the source's egress set and the destination's ingress set must both let it through.
 * Ours are in tests/policy-cases (its README says the format); those of HEDDLE_NETPOL_CASES, ../shared/netpol-cases by default, are
 * skipped where they are not there. HEDDLE_CASE=NAME runs one.
 */
#include <dirent.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include <tests/unit/policy_env.h>
#include <util/addr.h>
#include <util/buffer.h>
#include <util/cleanup.h>

static const struct compiler_limits limits = {1 << 14, 1 << 14, 1 << 15, 1 << 16, 1 << 12, 1 << 8};

static const char *text_of(const json_t *object, const char *key)
{
	return json_string_value(json_object_get(object, key));
}

/* --- documents --- */

static json_t *document(const char *version, const char *kind, const char *namespace_, const char *name, json_t *labels)
{
	json_t *metadata = json_pack("{ss}", "name", name);

	assert_non_null(metadata);
	if (namespace_)
		json_object_set_new(metadata, "namespace", json_string(namespace_));
	if (labels)
		json_object_set(metadata, "labels", labels);
	return json_pack("{sssssoso}", "apiVersion", version, "kind", kind, "metadata", metadata, "spec", json_object());
}

/* One document. Equal ones stay the objects they are, as the agent's store keeps them. */
static void add_document(struct object_list *list, const struct object_list *before, json_t *json)
{
	struct object_list one = {0};
	struct object *object;
	char *text = json_dumps(json, 0);

	assert_non_null(text);
	policy_documents(&one, text);
	free(text);
	json_decref(json);
	assert_int_equal(one.n, 1);
	object = one.items[0];
	for (size_t i = 0; i < before->n; i++)
		if (object_equal(before->items[i], object))
			object = before->items[i];
	assert_int_equal(object_list_add(list, object), 0);
	object_list_clear(&one);
}

static void split_name(const char *text, char namespace_[64], char name[64])
{
	assert_int_equal(sscanf(text, "%63[^/]/%63s", namespace_, name), 2);
}

static void add_port(struct object_list *list, const struct object_list *before, const json_t *pod)
{
	const char *network = text_of(pod, "network"), *ip = text_of(pod, "ip");
	json_t *json = document(
		"heddle.dev/v1alpha1", "Port", text_of(pod, "namespace"), text_of(pod, "name"), json_object_get(pod, "labels"));
	json_t *spec = json_object_get(json, "spec"), *ports = json_array(), *port;
	char device[16];
	size_t i;

	snprintf(device, sizeof(device), "p%zu", list->n);
	json_object_set_new(spec, "device", json_string(device));
	json_object_set_new(spec, "network", json_string(network ? network : "pods"));
	json_object_set(spec, "addresses", json_object_get(pod, "ips"));
	if (ip)
		json_object_set_new(spec, "addresses", json_pack("[s]", ip));
	json_array_foreach (json_object_get(pod, "ports"), i, port)
		json_array_append_new(
			ports, json_pack("{sssssI}", "name", text_of(port, "name"), "protocol", text_of(port, "protocol"), "port",
				       json_integer_value(json_object_get(port, "port"))));
	json_object_set_new(spec, "ports", ports);
	add_document(list, before, json);
}

static void add_state(struct object_list *list, const struct object_list *before, const json_t *step, const json_t *policies)
{
	const char *name;
	json_t *item;
	size_t i;

	add_document(list, before,
		json_pack("{sss{ss}sss{s[{ss}]}}", "apiVersion", "heddle.dev/v1alpha1", "metadata", "name", "h", "kind", "Host",
			"spec", "uplinks", "device", "eth0"));
	add_document(list, before, document("heddle.dev/v1alpha1", "Network", NULL, "pods", NULL));
	add_document(list, before, document("heddle.dev/v1alpha1", "Network", NULL, "other", NULL));
	json_object_foreach ((json_t *)(uintptr_t)json_object_get(step, "namespaces"), name, item) {
		/* null: one without a document */
		if (!json_is_null(item)) {
			json_t *json = document("v1", "Namespace", NULL, name, item);

			json_object_del(json, "spec");
			add_document(list, before, json);
		}
	}
	json_array_foreach (json_object_get(step, "pods"), i, item)
		add_port(list, before, item);
	json_array_foreach (policies, i, item)
		add_document(list, before, json_incref(item));
}

/* --- policies that come and go over the steps --- */

static bool is_policy(const json_t *policy, const char *namespace_, const char *name)
{
	const json_t *metadata = json_object_get(policy, "metadata");

	return strcmp(text_of(metadata, "namespace"), namespace_) == 0 && (!name || strcmp(text_of(metadata, "name"), name) == 0);
}

static void remove_policies(json_t *policies, const char *namespace_, const char *name)
{
	for (size_t i = json_array_size(policies); i-- > 0;)
		if (is_policy(json_array_get(policies, i), namespace_, name))
			json_array_remove(policies, i);
}

static void act(json_t *policies, const json_t *action)
{
	const json_t *put = json_object_get(action, "CreatePolicy"), *gone;

	if (!put)
		put = json_object_get(action, "UpdatePolicy");
	if (put) {
		json_t *policy = json_deep_copy(json_object_get(put, "Policy"));
		const json_t *metadata = json_object_get(policy, "metadata");

		json_object_set_new(policy, "apiVersion", json_string("networking.k8s.io/v1"));
		json_object_set_new(policy, "kind", json_string("NetworkPolicy"));
		remove_policies(policies, text_of(metadata, "namespace"), text_of(metadata, "name"));
		json_array_append_new(policies, policy);
	}
	gone = json_object_get(action, "DeletePolicy");
	if (gone)
		remove_policies(policies, text_of(gone, "Namespace"), text_of(gone, "Name"));
	gone = json_object_get(action, "DeleteNamespace");
	if (gone)
		remove_policies(policies, text_of(gone, "Namespace"), NULL);
}

/* --- cells --- */

static const struct object *port_named(const struct object_list *list, const char *text)
{
	char namespace_[64], name[64];

	split_name(text, namespace_, name);
	for (size_t i = 0; i < list->n; i++)
		if (list->items[i]->kind == OBJECT_PORT && strcmp(list->items[i]->namespace_, namespace_) == 0 &&
			strcmp(list->items[i]->name, name) == 0)
			return list->items[i];
	fail_msg("no port %s", text);
	return NULL;
}

/* PROTOCOL/PORT; PROTOCOL6/PORT between the IPv6 addresses. */
static struct lookup_packet column_packet(const char *column, bool *ret_ipv6)
{
	static const char *const names[] = {[HD_L4_TCP] = "TCP", [HD_L4_UDP] = "UDP", [HD_L4_SCTP] = "SCTP"};
	struct lookup_packet packet = {.ip = true, .source_port = 40000};
	const char *slash = strchr(column, '/');

	assert_non_null(slash);
	*ret_ipv6 = slash[-1] == '6';
	for (int kind = HD_L4_TCP; kind <= HD_L4_SCTP; kind++)
		if (strncmp(column, names[kind], strlen(names[kind])) == 0)
			packet.kind = (uint8_t)kind;
	assert_int_not_equal(packet.kind, 0);
	packet.number = (uint16_t)strtoul(slash + 1, NULL, 10);
	return packet;
}

static struct hd_addr address_of(const struct object *port, bool ipv6)
{
	for (size_t i = 0; i < port->port.n_addresses; i++)
		if (addr_is_ipv4(&port->port.addresses[i]) != ipv6)
			return port->port.addresses[i];
	fail_msg("%s/%s has no such address", port->namespace_, port->name);
	return (struct hd_addr){0};
}

struct place {
	const char *file, *from, *to, *column;
	size_t step;
};

/* '.' lets through, 'a' lets through what would be dropped without audit mode, 'X' drops. */
static char half(const struct policy_env *env, const struct object_list *list, const struct object *port,
	const struct object *peer, enum hd_direction direction, struct lookup_packet packet, bool ipv6, const struct place *place)
{
	struct lookup_result result;
	struct policy_answer answer;
	const char *differs;

	packet.peer = address_of(peer, ipv6);
	policy_env_port_lookup(env, env->generation, port, direction, peer->port.network, &packet, &result);
	answer = policy_judge_port(list, port, direction, peer->port.network, &packet);
	differs = policy_env_differs(env, &answer, direction, &result);
	if (differs)
		fail_msg("%s step %zu, %s to %s %s, %s: %s", place->file, place->step + 1, place->from, place->to, place->column,
			direction == HD_INGRESS ? "ingress" : "egress", differs);
	return answer.verdict == HD_ALLOW ? '.' : answer.audit ? 'a' : 'X';
}

static size_t check_step(const struct policy_env *env, const struct object_list *list, const json_t *state, struct place *place)
{
	const json_t *columns = json_object_get(state, "columns");
	json_t *row, *cells;
	size_t n = 0;

	json_object_foreach ((json_t *)(uintptr_t)json_object_get(state, "expected"), place->from, row) {
		const struct object *from = port_named(list, place->from);

		json_object_foreach (row, place->to, cells) {
			const struct object *to = port_named(list, place->to);
			const char *expected = json_string_value(cells);

			assert_int_equal(strlen(expected), json_array_size(columns));
			for (size_t i = 0; expected[i]; i++) {
				struct lookup_packet packet;
				char out, in, got;
				bool ipv6;

				place->column = json_string_value(json_array_get(columns, i));
				packet = column_packet(place->column, &ipv6);
				if (expected[i] == '-')
					continue;
				out = half(env, list, from, to, HD_EGRESS, packet, ipv6, place);
				in = half(env, list, to, from, HD_INGRESS, packet, ipv6, place);
				got = out == 'X' || in == 'X' ? 'X' : out == 'a' || in == 'a' ? 'a' : '.';
				if (got != expected[i])
					fail_msg("%s step %zu, %s to %s %s: want %c, got %c (egress %c, ingress %c)", place->file,
						place->step + 1, place->from, place->to, place->column, expected[i], got, out,
						in);
				n++;
			}
		}
	}
	return n;
}

static size_t run_case(const char *folder, const char *file)
{
	char path[4096];
	json_error_t error;
	json_t *json, *steps, *state, *action, *policies = json_array();
	struct place place = {.file = file};
	struct object_list list = {0};
	struct policy_env env;
	size_t cells = 0, i;

	snprintf(path, sizeof(path), "%s/%s", folder, file);
	json = json_load_file(path, 0, &error);
	if (!json)
		fail_msg("%s:%d: %s", path, error.line, error.text);
	steps = json_object_get(json, "steps");
	if (!steps)
		steps = json_object_get(json, "expected") ? json_pack("[O]", json) : NULL;
	else
		json_incref(steps);
	assert_true(json_array_size(steps) > 0);
	policy_env_open(&env, &limits, 1);
	json_array_foreach (steps, place.step, state) {
		struct object_list next = {0};

		json_array_foreach (json_object_get(state, "actions"), i, action)
			act(policies, action);
		if (json_object_get(state, "policies")) {
			json_array_clear(policies);
			json_array_extend(policies, json_object_get(state, "policies"));
		}
		add_state(&next, &list, state, policies);
		policy_env_apply(&env, &next);
		object_list_clear(&list);
		list = next;
		cells += check_step(&env, &list, state, &place);
	}
	policy_env_close(&env);
	object_list_clear(&list);
	json_decref(steps);
	json_decref(json);
	json_decref(policies);
	return cells;
}

static int is_case(const struct dirent *entry)
{
	const char *dot = strrchr(entry->d_name, '.'), *only = getenv("HEDDLE_CASE");

	return dot && strcmp(dot, ".json") == 0 && (!only || strncmp(entry->d_name, only, strlen(only)) == 0);
}

static void run_folder(const char *folder, size_t least)
{
	struct dirent **entries;
	size_t cells = 0;
	int n = scandir(folder, &entries, is_case, alphasort);

	if (n < 0)
		fail_msg("%s: %s", folder, strerror(errno));
	for (int i = 0; i < n; i++) {
		cells += run_case(folder, entries[i]->d_name);
		free(entries[i]);
	}
	free(entries);
	print_message("%s: %d cases, %zu cells\n", folder, n, cells);
	assert_true(getenv("HEDDLE_CASE") || (n > 0 && (size_t)n >= least));
}

static void test_netpol_cases(void **unused)
{
	const char *folder = getenv("HEDDLE_NETPOL_CASES");
	DIR *there;

	(void)unused;
	if (!folder)
		folder = "../shared/netpol-cases";
	there = opendir(folder);
	if (!there) {
		print_message("# SKIP no cases in %s\n", folder);
		skip();
	}
	if (there)
		closedir(there);
	run_folder(folder, 1);
}

static void test_own_cases(void **unused)
{
	(void)unused;
	run_folder("tests/policy-cases", 60);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_netpol_cases),
		cmocka_unit_test(test_own_cases),
	};

	return cmocka_run_group_tests_name("policy: cases", tests, NULL, NULL);
}
