/* SPDX-License-Identifier: Apache-2.0 */
/* heddle rules: what each rule has decided so far. */
#include <stdlib.h>
#include <string.h>

#include "heddle.h"
#include "list.h"
#include "output.h"

static int table_rule(json_t *rule, void *userdata)
{
	const char *namespace_ = string_at(rule, "namespace");
	const json_t *index = json_object_get(rule, "index");
	struct table *table = userdata;
	char text[TEXT_MAX];

	table_cell(table, "%s%s%s", namespace_ ?: "", namespace_ ? "/" : "", text_at(rule, "policy"));
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

/* The agent tells them by their ids, in the order in which they came to be. A policy's stand together, and in the order in which they are judged. */
static int by_place(char *const *a, char *const *b)
{
	bool builtin = strcmp(a[0], "builtin") == 0, other = strcmp(b[0], "builtin") == 0;
	long x = strtol(a[2], NULL, 10), y = strtol(b[2], NULL, 10);
	int order = builtin != other ? other - builtin : strcmp(a[0], b[0]);

	if (order == 0 && !builtin)
		order = -strcmp(a[1], b[1]); /* ingress first */
	return order ? order : (x > y) - (x < y);
}

static int rules_run(struct cli *cli)
{
	static const char *const columns[] = {"POLICY", "DIRECTION", "INDEX", "RULE", "ACTION", "PACKETS", "BYTES", "WHERE"};
	static const struct list list = {.request.path = "/v1/rules",
		.columns = columns,
		.n_columns = 8,
		.right = 1 << 2 | 1 << 5 | 1 << 6,
		.row = table_rule,
		.order = by_place};

	return list_run(cli, &list);
}

const struct verb verb_rules = {
	.name = "rules",
	.arguments = "",
	.summary = "packets and bytes that each rule has decided",
	.run = rules_run,
};
