/* SPDX-License-Identifier: Apache-2.0 */
/* heddle rules: what each rule has decided so far. */
#include "client.h"
#include "heddle.h"
#include "output.h"

static void print_rules(const json_t *items)
{
	static const char *const columns[] = {"POLICY", "DIRECTION", "INDEX", "RULE", "ACTION", "PACKETS", "BYTES", "WHERE"};
	struct table *table = table_new(columns, 8);
	char text[TEXT_MAX];
	const json_t *rule;
	size_t i;

	table_right(table, 2);
	table_right(table, 5);
	table_right(table, 6);
	json_array_foreach (items, i, rule) {
		const json_t *index = json_object_get(rule, "index");

		table_cell(table, "%s", text_at(rule, "policy"));
		table_cell(table, "%s", text_at(rule, "direction"));
		if (json_is_integer(index))
			table_cell(table, "%" JSON_INTEGER_FORMAT, json_integer_value(index));
		else
			table_cell(table, "-");
		table_cell(table, "%s", text_at(rule, "name"));
		table_cell(table, "%s", text_at(rule, "action"));
		table_cell(table, "%lld", number_at(rule, "packets"));
		table_cell(table, "%lld", number_at(rule, "bytes"));
		table_cell(table, "%s", origin_text(rule, text));
	}
	table_print(table, stdout);
}

static int rules_run(struct cli *cli)
{
	json_auto_t *answer = NULL;
	int code = client_call(cli->client, &(struct client_request){.path = "/v1/rules"}, &answer);

	if (code)
		return code;
	if (cli->output != OUTPUT_TABLE)
		return print_value(cli->output, answer);
	print_rules(json_object_get(answer, "items"));
	return CLI_DONE;
}

const struct verb verb_rules = {
	.name = "rules",
	.arguments = "",
	.summary = "packets and bytes that each rule has decided",
	.run = rules_run,
};
