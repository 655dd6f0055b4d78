/* SPDX-License-Identifier: Apache-2.0 */
/* heddle flows: the connections in the kernel's tables, once or as they come and go. */
#include "client.h"
#include "heddle.h"
#include "output.h"

enum { OPT_WATCH };
static const struct cli_option options[] = {
	[OPT_WATCH] = {"watch", 'w', NULL, NULL, "go on: a line for each flow that comes, changes or ends"},
	{NULL, 0, NULL, NULL, NULL},
};

static void print_flows(const json_t *items)
{
	static const char *const columns[] = {
		"PROTOCOL", "SOURCE", "DESTINATION", "STATE", "PROVEN", "PACKETS", "BYTES", "IDLE", "DEVICE", "RULE"};
	struct table *table = table_new(columns, 10);
	char text[TEXT_MAX];
	const json_t *flow;
	size_t i;

	table_right(table, 5);
	table_right(table, 6);
	table_right(table, 7);
	json_array_foreach (items, i, flow) {
		const json_t *proven = json_object_get(flow, "proven"), *idle = json_object_get(flow, "idleMs");

		table_cell(table, "%s", text_at(flow, "protocol"));
		table_cell(table, "%s", endpoint_text(flow, "source", "sourcePort", text));
		table_cell(table, "%s", endpoint_text(flow, "destination", "destinationPort", text));
		table_cell(table, "%s", text_at(flow, "state"));
		table_cell(table, "%s", !proven ? "-" : json_is_true(proven) ? "yes" : "no");
		table_cell(table, "%lld", number_at(flow, "packets"));
		table_cell(table, "%lld", number_at(flow, "bytes"));
		table_cell(table, "%s", json_is_number(idle) ? duration_text(json_number_value(idle) / 1000, text) : "-");
		table_cell(table, "%s", text_at(flow, "device"));
		table_cell(table, "%s", rule_text(json_object_get(flow, "rule"), text));
	}
	table_print(table, stdout);
}

static int watch_line(json_t *flow, void *userdata)
{
	const struct cli *cli = userdata;
	char packet[TEXT_MAX], rule[TEXT_MAX];

	if (cli->output != OUTPUT_TABLE)
		return print_line(cli->output, flow);
	if (!print_lost(flow))
		printf("%-6s  %s  %s  %lld packets %lld bytes  %s\n", text_at(flow, "type"), packet_text(flow, packet),
			text_at(flow, "state"), number_at(flow, "packets"), number_at(flow, "bytes"),
			rule_text(json_object_get(flow, "rule"), rule));
	return fflush(stdout) ? fail(CLI_REFUSED, "cannot write the output: %m") : 0;
}

static int flows_run(struct cli *cli)
{
	json_auto_t *answer = NULL;
	int code;

	if (cli->value[OPT_WATCH])
		return client_stream(cli->client, "/v1/flows?watch=1", watch_line, cli);
	code = client_call(cli->client, &(struct client_request){.path = "/v1/flows"}, &answer);
	if (code)
		return code;
	if (cli->output != OUTPUT_TABLE)
		return print_value(cli->output, answer);
	print_flows(json_object_get(answer, "items"));
	return CLI_DONE;
}

const struct verb verb_flows = {
	.name = "flows",
	.arguments = "",
	.summary = "the connections that are being tracked",
	.options = options,
	.run = flows_run,
};
