/* SPDX-License-Identifier: Apache-2.0 */
/* heddle get: the objects in force, from files and applied alike; `get builtin` the rules that come before every policy. */
#include <stdarg.h>
#include <string.h>
#include <strings.h>

#include "client.h"
#include "heddle.h"
#include "output.h"

static size_t rules_of(const json_t *spec, const char *direction)
{
	return json_array_size(json_object_get(spec, direction));
}

/* Adds words to a summary, which is cut where it is full. */
static void __attribute__((format(printf, 2, 3))) say(char text[TEXT_MAX], const char *format, ...)
{
	size_t length = strlen(text);
	va_list args;

	if (length) {
		snprintf(text + length, TEXT_MAX - length, ", ");
		length = strlen(text);
	}
	va_start(args, format);
	vsnprintf(text + length, TEXT_MAX - length, format, args);
	va_end(args);
}

static void say_number(char text[TEXT_MAX], const json_t *spec, const char *key)
{
	if (json_object_get(spec, key))
		say(text, "%s %lld", key, number_at(spec, key));
}

static void say_list(char text[TEXT_MAX], const json_t *list)
{
	const json_t *item;
	size_t i;

	json_array_foreach (list, i, item)
		say(text, "%s", json_string_value(item) ?: "?");
}

static void say_policy(char text[TEXT_MAX], const json_t *spec)
{
	const json_t *by_default = json_object_get(spec, "default");

	if (string_at(spec, "tier"))
		say(text, "%s", text_at(spec, "tier"));
	say_number(text, spec, "priority");
	say_list(text, json_object_get(spec, "policyTypes"));
	say(text, "%zu ingress", rules_of(spec, "ingress"));
	say(text, "%zu egress", rules_of(spec, "egress"));
	if (json_object_size(by_default))
		say(text, "default %s / %s", text_at(by_default, "ingress"), text_at(by_default, "egress"));
	if (json_is_true(json_object_get(spec, "audit")))
		say(text, "audit");
}

static void say_port(char text[TEXT_MAX], const json_t *spec)
{
	const json_t *vf = json_object_get(spec, "vf");

	if (string_at(vf, "pf"))
		say(text, "vf %lld of %s", number_at(vf, "index"), text_at(vf, "pf"));
	else
		say(text, "%s", string_at(spec, "device") ?: text_at(spec, "pci"));
	say(text, "network %s", text_at(spec, "network"));
	say_list(text, json_object_get(spec, "addresses"));
}

static void say_peer(char text[TEXT_MAX], const json_t *spec)
{
	say(text, "%s", text_at(spec, "address"));
	say(text, "%zu ports", json_array_size(json_object_get(spec, "ports")));
	say(text, "%zu prefixes", json_array_size(json_object_get(spec, "prefixes")));
}

static void say_network(char text[TEXT_MAX], const json_t *spec)
{
	say_number(text, spec, "vni");
	say_number(text, spec, "vlan");
	say(text, "%s", text_at(spec, "mode"));
	say_list(text, json_object_get(spec, "subnets"));
}

static void say_labels(char text[TEXT_MAX], const json_t *labels)
{
	const json_t *value;
	const char *key;

	json_object_foreach ((json_t *)labels, key, value)
		if (strcmp(key, "kubernetes.io/metadata.name") != 0)
			say(text, "%s=%s", key, json_string_value(value) ?: "?");
}

/* What is worth a column differs by kind. */
static void add_summary(struct table *table, const char *kind, const json_t *object)
{
	const json_t *spec = json_object_get(object, "spec"), *item;
	size_t length = strlen(kind), i;
	char text[TEXT_MAX] = "";

	if (length > 6 && strcmp(kind + length - 6, "Policy") == 0) {
		say_policy(text, spec);
	} else if (strcmp(kind, "AddressGroup") == 0) {
		say(text, "%zu blocks", json_array_size(json_object_get(spec, "cidrs")));
	} else if (strcmp(kind, "Host") == 0) {
		json_array_foreach (json_object_get(spec, "uplinks"), i, item)
			say(text, "%s%s", i ? "" : "uplinks ", text_at(item, "device"));
	} else if (strcmp(kind, "Network") == 0) {
		say_network(text, spec);
	} else if (strcmp(kind, "Port") == 0) {
		say_port(text, spec);
	} else if (strcmp(kind, "Peer") == 0) {
		say_peer(text, spec);
	} else if (strcmp(kind, "FastPath") == 0) {
		const char *uplink = string_at(spec, "uplink");
		const json_t *devices = json_object_get(spec, "devices");

		json_array_foreach (devices, i, item)
			say(text, "%s%s", i ? ", " : "between ", json_string_value(item));
		if (!devices)
			say(text, "%s %s%s%s", uplink ? "uplink" : "port", uplink ? "" : text_at(spec, "namespace"),
				uplink ? "" : "/", uplink ? uplink : text_at(spec, "port"));
	} else if (strcmp(kind, "Namespace") == 0) {
		say_labels(text, json_object_get(json_object_get(object, "metadata"), "labels"));
	} else {
		say(text, "%s", string_at(object, "description") ?: "");
	}
	table_cell(table, "%s", text);
}

/* FILE:LINE, "applied", or who else made it: cni, kubernetes. */
static void add_origin(struct table *table, const json_t *origin)
{
	const char *file = string_at(origin, "file"), *source = string_at(origin, "source") ?: "applied";

	if (file)
		table_cell(table, "%s:%lld", file, number_at(origin, "line"));
	else
		table_cell(table, "%s", !origin ? "built in" : strcmp(source, "api") ? source : "applied");
}

/* origins: where each of the items comes from, in the same order; built-in rules have none. */
static void print_objects(const json_t *items, const json_t *origins, const char *kind)
{
	static const char *const columns[] = {"KIND", "NAMESPACE", "NAME", "ORIGIN", "WHAT"};
	static const char *const columns_of_host[] = {"KIND", "NAME", "ORIGIN", "WHAT"};
	bool namespaced = string_at(json_object_get(json_array_get(items, 0), "metadata"), "namespace") != NULL;
	struct table *table = namespaced ? table_new(columns, 5) : table_new(columns_of_host, 4);
	const json_t *object;
	size_t i;

	json_array_foreach (items, i, object) {
		const json_t *metadata = json_object_get(object, "metadata");
		const char *object_kind = string_at(object, "kind") ?: kind;

		table_cell(table, "%s", object_kind);
		if (namespaced)
			table_cell(table, "%s", text_at(metadata, "namespace"));
		table_cell(table, "%s", string_at(metadata, "name") ?: text_at(object, "name"));
		add_origin(table, json_array_get(origins, i));
		add_summary(table, object_kind, object);
	}
	table_print(table, stdout);
}

enum { OPT_NAMESPACE };
static const struct cli_option options[] = {
	[OPT_NAMESPACE] = {"namespace", 'n', "NAMESPACE", "@namespace",
		"of kinds that are in one (a list: default all; one: default)"},
	{NULL, 0, NULL, NULL, NULL},
};

static int get_run(struct cli *cli)
{
	const char *namespace_ = cli->value[OPT_NAMESPACE];
	const char *kind = cli->arguments[0], *name = cli->n_arguments > 1 ? cli->arguments[1] : NULL;
	json_auto_t *answer = NULL;
	char path[CLIENT_PATH_MAX], part[CLIENT_PATH_MAX];
	int code;

	if (!*kind || (name && !*name))
		return fail(CLI_USAGE, "get needs a kind and, if any, a name that is not empty");
	if (namespace_ && !*namespace_)
		return fail(CLI_USAGE, "-n needs a namespace that is not empty");
	if (name && client_split_name(&name, &namespace_, part))
		return CLI_USAGE;
	if (!client_object_path(path, kind, namespace_, name))
		return fail(CLI_REFUSED, "%s: no object has so long a name", name ?: kind);
	code = client_call(cli->client, &(struct client_request){.path = path}, &answer);
	if (code)
		return code;
	if (cli->output != OUTPUT_TABLE)
		return print_value(cli->output, answer);
	/* One object has no table that would do it justice: it is shown as it would be written. */
	if (name)
		return print_value(OUTPUT_YAML, answer);
	print_objects(json_object_get(answer, "items"), json_object_get(answer, "origins"), kind);
	return CLI_DONE;
}

const struct verb verb_get = {
	.name = "get",
	.arguments = "KIND [[NAMESPACE/]NAME]",
	.arguments_min = 1,
	.arguments_max = 2,
	.complete = CLI_KINDS,
	.summary = "the objects in force, of files and applied alike; builtin: the rules ahead of every policy",
	.options = options,
	.run = get_run,
};
