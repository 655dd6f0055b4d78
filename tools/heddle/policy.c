/* SPDX-License-Identifier: Apache-2.0 */
/* heddle policy lint: rules that decide nothing, or more than they seem to. */
#include <string.h>

#include <util/cleanup.h>

#include "client.h"
#include "heddle.h"
#include "output.h"

enum { OPT_FILE, OPT_STRICT };
static const struct cli_option options[] = {
	[OPT_FILE] = {"filename", 'f', "FILE|-", "@file", "what is in force with these documents in it; - is standard input"},
	[OPT_STRICT] = {"strict", 0, NULL, NULL, "exit status 1 when anything is found"},
	{NULL, 0, NULL, NULL, NULL},
};

/* HostPolicy/base ingress[3] ssh, NetworkPolicy/shop/web. */
static const char *place_text(const json_t *rule, char out[TEXT_MAX])
{
	const char *namespace_ = string_at(rule, "namespace");
	int n = snprintf(out, TEXT_MAX, "%s/%s%s%s", text_at(rule, "kind"), namespace_ ? namespace_ : "", namespace_ ? "/" : "",
		text_at(rule, "policy"));

	if (n > 0 && n < TEXT_MAX && json_is_integer(json_object_get(rule, "index")))
		snprintf(out + n, TEXT_MAX - (size_t)n, " %s[%lld]%s%s", text_at(rule, "direction"), number_at(rule, "index"),
			string_at(rule, "name") ? " " : "", string_at(rule, "name") ? string_at(rule, "name") : "");
	return out;
}

static void print_findings(const json_t *items)
{
	static const char *const columns[] = {"SEVERITY", "KIND", "RULE", "WHERE", "WHY"};
	struct table *table;
	const json_t *item;
	char text[TEXT_MAX];
	size_t i;

	if (!json_array_size(items)) {
		printf("nothing found\n");
		return;
	}
	table = table_new(columns, 5);
	json_array_foreach (items, i, item) {
		const json_t *rule = json_object_get(item, "rule");

		table_cell(table, "%s", text_at(item, "severity"));
		table_cell(table, "%s", text_at(item, "kind"));
		table_cell(table, "%s", place_text(rule, text));
		table_cell(table, "%s", origin_text(rule, text));
		table_cell(table, "%s", text_at(item, "message"));
	}
	table_print(table, stdout);
}

static int policy_run(struct cli *cli)
{
	struct client_request request = {.path = "/v1/lint"};
	_cleanup_free_ char *text = NULL;
	json_auto_t *answer = NULL;
	const json_t *items;
	int code;

	if (strcmp(cli->arguments[0], "lint") != 0)
		return fail(CLI_USAGE, "policy %s: want lint", cli->arguments[0]);
	if (cli->value[OPT_FILE]) {
		code = read_input(cli->value[OPT_FILE], &text, &request.length);
		if (code)
			return code;
		request.method = "POST";
		request.content_type = "application/yaml";
		request.body = text;
	}
	code = client_call(cli->client, &request, &answer);
	if (code)
		return code;
	items = json_object_get(answer, "items");
	if (cli->output != OUTPUT_TABLE)
		code = print_value(cli->output, answer);
	else
		print_findings(items);
	if (number_at(answer, "omitted") && cli->output == OUTPUT_TABLE)
		printf("and %lld more\n", number_at(answer, "omitted"));
	if (!code && cli->value[OPT_STRICT] && json_array_size(items))
		return fail(CLI_REFUSED, "policy lint: %zu found", json_array_size(items) + (size_t)number_at(answer, "omitted"));
	return code;
}

const struct verb verb_policy = {
	.name = "policy",
	.arguments = "lint",
	.arguments_min = 1,
	.arguments_max = 1,
	.complete = "lint",
	.summary = "rules that decide nothing, or more than they seem to",
	.options = options,
	.run = policy_run,
};
