/* SPDX-License-Identifier: Apache-2.0 */
/* heddle rules: what each rule has decided so far. */
#include "heddle.h"
#include "list.h"
#include "output.h"

static int table_rule(json_t *rule, void *userdata)
{
	const json_t *index = json_object_get(rule, "index");
	struct table *table = userdata;
	char text[TEXT_MAX];

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
	return 0;
}

static int rules_run(struct cli *cli)
{
	static const char *const columns[] = {"POLICY", "DIRECTION", "INDEX", "RULE", "ACTION", "PACKETS", "BYTES", "WHERE"};
	static const struct list list = {.request.path = "/v1/rules",
		.columns = columns,
		.n_columns = 8,
		.right = 1 << 2 | 1 << 5 | 1 << 6,
		.row = table_rule};

	return list_run(cli, &list);
}

const struct verb verb_rules = {
	.name = "rules",
	.arguments = "",
	.summary = "packets and bytes that each rule has decided",
	.run = rules_run,
};
