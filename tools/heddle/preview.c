/* SPDX-License-Identifier: Apache-2.0 */
/* heddle preview: which live flows a policy would cut, before it is in force. */
#include <string.h>

#include <util/cleanup.h>

#include "client.h"
#include "heddle.h"
#include "list.h"
#include "output.h"

enum { OPT_FILE };
static const struct cli_option options[] = {
	[OPT_FILE] = {"filename", 'f', "FILE|-", "@file", "documents, YAML or JSON; - is standard input"},
	{NULL, 0, NULL, NULL, NULL},
};

static int table_change(json_t *flow, void *userdata)
{
	struct table *table = userdata;
	char text[TEXT_MAX];

	table_cell(table, "%s", text_at(flow, "now"));
	table_cell(table, "%s%s", text_at(flow, "then"), true_at(flow, "audit") ? " (audit)" : "");
	table_cell(table, "%s", text_at(flow, "protocol"));
	table_cell(table, "%s", behind_text(flow, "source", "sourcePort", "sourcePeer", text));
	table_cell(table, "%s", behind_text(flow, "destination", "destinationPort", "destinationPeer", text));
	table_cell(table, "%s", text_at(flow, "state"));
	table_cell(table, "%lld", number_at(flow, "packets"));
	table_cell(table, "%s", text_at(flow, "device"));
	table_cell(table, "%s", rule_text(json_object_get(flow, "rule"), text));
	table_cell(table, "%s", origin_text(json_object_get(flow, "rule"), text));
	return 0;
}

static int preview_run(struct cli *cli)
{
	static const char *const columns[] = {
		"NOW", "THEN", "PROTOCOL", "SOURCE", "DESTINATION", "STATE", "PACKETS", "DEVICE", "RULE", "WHERE"};
	struct list list = {
		.request = {.method = "POST", .path = "/v1/preview", .content_type = "application/yaml"},
		.columns = columns,
		.n_columns = 10,
		.right = 1 << 6,
		.row = table_change,
	};
	_cleanup_free_ char *text = NULL;
	int code;

	if (!cli->value[OPT_FILE])
		return fail(CLI_USAGE, "preview needs -f FILE (or -f - for standard input)");
	code = read_input(cli->value[OPT_FILE], &text, &list.request.length);
	if (code)
		return code;
	list.request.body = text;
	return list_run(cli, &list);
}

const struct verb verb_preview = {
	.name = "preview",
	.arguments = "",
	.summary = "which live flows apply would cut",
	.options = options,
	.run = preview_run,
};
