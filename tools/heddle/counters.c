/* SPDX-License-Identifier: Apache-2.0 */
/* heddle counters: drops by reason, totals, and tables that were full. */
#include "client.h"
#include "heddle.h"
#include "output.h"

static void print_drops(const json_t *drops)
{
	static const char *const columns[] = {"REASON", "DIRECTION", "PACKETS", "BYTES", "MEANING"};
	struct table *table;
	const json_t *drop;
	size_t i;

	if (!json_array_size(drops)) {
		printf("nothing was dropped\n");
		return;
	}
	table = table_new(columns, 5);
	table_right(table, 2);
	table_right(table, 3);
	json_array_foreach (drops, i, drop) {
		table_cell(table, "%s", text_at(drop, "reason"));
		table_cell(table, "%s", text_at(drop, "direction"));
		table_cell(table, "%lld", number_at(drop, "packets"));
		table_cell(table, "%lld", number_at(drop, "bytes"));
		table_cell(table, "%s", string_at(drop, "description") ?: "");
	}
	table_print(table, stdout);
}

/* An object of numbers, or of {packets, bytes}. */
static void print_numbers(const char *heading, const json_t *numbers)
{
	const char *const columns[] = {heading, "COUNT", "BYTES"};
	struct table *table;
	const json_t *value;
	const char *key;

	if (!json_object_size(numbers))
		return;
	table = table_new(columns, 3);
	table_right(table, 1);
	table_right(table, 2);
	json_object_foreach ((json_t *)numbers, key, value) {
		table_cell(table, "%s", key);
		if (json_is_object(value)) {
			table_cell(table, "%lld", number_at(value, "packets"));
			table_cell(table, json_object_get(value, "bytes") ? "%lld" : "", number_at(value, "bytes"));
		} else {
			table_cell(table, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
			table_cell(table, "%s", "");
		}
	}
	printf("\n");
	table_print(table, stdout);
}

static int counters_run(struct cli *cli)
{
	json_auto_t *answer = NULL;
	int code = client_call(cli->client, &(struct client_request){.path = "/v1/counters"}, &answer);

	if (code)
		return code;
	if (cli->output != OUTPUT_TABLE)
		return print_value(cli->output, answer);
	print_drops(json_object_get(answer, "drops"));
	print_numbers("TOTAL", json_object_get(answer, "totals"));
	print_numbers("TABLE FULL", json_object_get(answer, "tableFull"));
	return CLI_DONE;
}

const struct verb verb_counters = {
	.name = "counters",
	.arguments = "",
	.summary = "what was dropped and why, totals, and tables that were full",
	.run = counters_run,
};
