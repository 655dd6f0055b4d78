/* SPDX-License-Identifier: Apache-2.0 */
/* heddle get: the objects in force, from files and applied alike; `get builtin` the rules that come before every policy. */
#include <string.h>
#include <strings.h>

#include "client.h"
#include "heddle.h"
#include "output.h"

static size_t rules_of(const json_t *spec, const char *direction)
{
	return json_array_size(json_object_get(spec, direction));
}

/* What is worth a column differs by kind. */
static void add_summary(struct table *table, const char *kind, const json_t *object)
{
	const json_t *spec = json_object_get(object, "spec"), *item;
	char text[TEXT_MAX] = "";
	size_t i;

	if (strcmp(kind, "HostPolicy") == 0) {
		const json_t *by_default = json_object_get(spec, "default");

		snprintf(text, sizeof(text), "priority %lld, %zu ingress, %zu egress", number_at(spec, "priority"),
			rules_of(spec, "ingress"), rules_of(spec, "egress"));
		if (json_object_size(by_default)) {
			size_t length = strlen(text);

			snprintf(text + length, sizeof(text) - length, ", default %s / %s", text_at(by_default, "ingress"),
				text_at(by_default, "egress"));
		}
	} else if (strcmp(kind, "AddressGroup") == 0) {
		snprintf(text, sizeof(text), "%zu blocks", json_array_size(json_object_get(spec, "cidrs")));
	} else if (strcmp(kind, "Host") == 0) {
		json_array_foreach (json_object_get(spec, "uplinks"), i, item) {
			size_t length = strlen(text);

			snprintf(text + length, sizeof(text) - length, "%s%s", i ? ", " : "uplinks ", text_at(item, "device"));
		}
	} else {
		snprintf(text, sizeof(text), "%s", string_at(object, "description") ?: "");
	}
	table_cell(table, "%s", text);
}

/* FILE:LINE, or "applied". */
static void add_origin(struct table *table, const json_t *origin)
{
	const char *file = string_at(origin, "file");

	if (file)
		table_cell(table, "%s:%lld", file, number_at(origin, "line"));
	else
		table_cell(table, "%s", origin ? "applied" : "built in");
}

/* origins: where each of the items comes from, in the same order; built-in rules have none. */
static void print_objects(const json_t *items, const json_t *origins, const char *kind)
{
	static const char *const columns[] = {"KIND", "NAME", "ORIGIN", "WHAT"};
	struct table *table = table_new(columns, 4);
	const json_t *object;
	size_t i;

	json_array_foreach (items, i, object) {
		const char *object_kind = string_at(object, "kind") ?: kind;

		table_cell(table, "%s", object_kind);
		table_cell(table, "%s", string_at(json_object_get(object, "metadata"), "name") ?: text_at(object, "name"));
		add_origin(table, json_array_get(origins, i));
		add_summary(table, object_kind, object);
	}
	table_print(table, stdout);
}

static int get_run(struct cli *cli)
{
	const char *kind = cli->arguments[0], *name = cli->n_arguments > 1 ? cli->arguments[1] : NULL;
	json_auto_t *answer = NULL;
	char path[CLIENT_PATH_MAX];
	int code;

	if (!*kind || (name && !*name))
		return fail(CLI_USAGE, "get needs a kind and, if any, a name that is not empty");
	if (!client_object_path(path, kind, name))
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
	.arguments = "KIND [NAME]",
	.arguments_min = 1,
	.arguments_max = 2,
	.complete = CLI_KINDS,
	.summary = "the objects in force: host, addressgroup, hostpolicy; builtin: the rules ahead of every policy",
	.run = get_run,
};
