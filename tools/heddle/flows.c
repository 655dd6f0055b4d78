/* SPDX-License-Identifier: Apache-2.0 */
/* heddle flows: the connections in the kernel's tables, once or as they come and go. */
#include <string.h>

#include "client.h"
#include "heddle.h"
#include "list.h"
#include "output.h"

enum { OPT_WATCH };
static const struct cli_option options[] = {
	[OPT_WATCH] = {"watch", 'w', NULL, NULL, "go on: a line for each flow that comes, changes or ends"},
	{NULL, 0, NULL, NULL, NULL},
};

/* "-": the host's own. */
static const char *network_text(const json_t *flow)
{
	const char *name = text_at(flow, "network");

	return strcmp(name, "host") == 0 ? "-" : name;
}

static int table_flow(json_t *flow, void *userdata)
{
	const json_t *proven = json_object_get(flow, "proven"), *idle = json_object_get(flow, "idleMs");
	struct table *table = userdata;
	char text[TEXT_MAX];

	table_cell(table, "%s", text_at(flow, "protocol"));
	table_cell(table, "%s", behind_text(flow, "source", "sourcePort", "sourcePeer", text));
	table_cell(table, "%s", behind_text(flow, "destination", "destinationPort", "destinationPeer", text));
	table_cell(table, "%s", text_at(flow, "state"));
	table_cell(table, "%s%s",
		!proven		       ? "-"
		: json_is_true(proven) ? "yes"
				       : "no",
		true_at(flow, "offloaded") ? ", offloaded" : "");
	table_cell(table, "%lld", number_at(flow, "packets"));
	table_cell(table, "%lld", number_at(flow, "bytes"));
	table_cell(table, "%s", json_is_number(idle) ? duration_text(json_number_value(idle) / 1000, text) : "-");
	table_cell(table, "%s", network_text(flow));
	table_cell(table, "%s", text_at(flow, "device"));
	table_cell(table, "%s", rule_text(json_object_get(flow, "rule"), text));
	return 0;
}

static int watch_line(json_t *flow, void *userdata)
{
	const struct cli *cli = userdata;
	const char *network = network_text(flow);
	bool host = strcmp(network, "-") == 0;
	char packet[TEXT_MAX], rule[TEXT_MAX];

	if (cli->output != OUTPUT_TABLE)
		return print_line(cli->output, flow);
	if (!print_lost(flow))
		printf("%-6s  %s  %s  %lld packets %lld bytes  %s%s%s\n", text_at(flow, "type"), packet_text(flow, packet),
			text_at(flow, "state"), number_at(flow, "packets"), number_at(flow, "bytes"), host ? "" : network,
			host ? "" : "  ", rule_text(json_object_get(flow, "rule"), rule));
	return fflush(stdout) ? fail(CLI_REFUSED, "cannot write the output: %m") : 0;
}

static int flows_run(struct cli *cli)
{
	static const char *const columns[] = {
		"PROTOCOL", "SOURCE", "DESTINATION", "STATE", "PROVEN", "PACKETS", "BYTES", "IDLE", "NETWORK", "DEVICE", "RULE"};
	static const struct list list = {.request.path = "/v1/flows",
		.columns = columns,
		.n_columns = 11,
		.right = 1 << 5 | 1 << 6 | 1 << 7,
		.row = table_flow};

	if (cli->value[OPT_WATCH])
		return client_stream(cli->client, "/v1/flows?watch=1", watch_line, cli);
	return list_run(cli, &list);
}

const struct verb verb_flows = {
	.name = "flows",
	.arguments = "",
	.summary = "the connections that are being tracked",
	.options = options,
	.run = flows_run,
};
