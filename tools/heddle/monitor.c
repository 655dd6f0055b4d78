/* SPDX-License-Identifier: Apache-2.0 */
/* heddle monitor: verdicts and drops as they happen. */
#include <string.h>

#include "client.h"
#include "heddle.h"
#include "output.h"

enum { OPT_DROPS };
static const struct cli_option options[] = {
	[OPT_DROPS] = {"drops", 0, NULL, NULL, "only what was not let through"},
	{NULL, 0, NULL, NULL, NULL},
};

static int event_line(json_t *event, void *userdata)
{
	const struct cli *cli = userdata;
	char packet[TEXT_MAX], rule[TEXT_MAX], origin[TEXT_MAX];
	const char *reason = string_at(event, "reason");

	if (cli->output != OUTPUT_TABLE)
		return print_line(cli->output, event);
	if (string_at(event, "table")) {
		printf("%s  full    the table %s took no entry\n", text_at(event, "time"), text_at(event, "table"));
	} else if (!print_lost(event)) {
		printf("%s  %-6s  %s %s %s  %s", text_at(event, "time"),
			true_at(event, "audit") ? "audit" : text_at(event, "verdict"), text_at(event, "hook"),
			text_at(event, "device"), text_at(event, "direction"), packet_text(event, packet));
		if (reason && strcmp(reason, "none") != 0)
			printf("  %s", reason);
		if (json_is_object(json_object_get(event, "rule")))
			printf("  %s (%s)", rule_text(json_object_get(event, "rule"), rule),
				origin_text(json_object_get(event, "rule"), origin));
		printf("\n");
	}
	return fflush(stdout) ? fail(CLI_REFUSED, "cannot write the output: %m") : 0;
}

static int monitor_run(struct cli *cli)
{
	return client_stream(cli->client, cli->value[OPT_DROPS] ? "/v1/monitor?drops=1" : "/v1/monitor", event_line, cli);
}

const struct verb verb_monitor = {
	.name = "monitor",
	.arguments = "",
	.summary = "verdicts and drops as they happen; -o json: one object a line",
	.options = options,
	.run = monitor_run,
};
