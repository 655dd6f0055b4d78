/* SPDX-License-Identifier: Apache-2.0 */
#include "list.h"
#include "output.h"

static int add_item(json_t *member, void *userdata)
{
	return items_add(userdata, member);
}

int list_run(struct cli *cli, const struct list *list)
{
	struct table *table;
	struct items *items;
	int code;

	if (cli->output != OUTPUT_TABLE) {
		items = items_begin(cli->output);
		if (!items)
			return fail(CLI_REFUSED, "out of memory");
		return items_end(items, client_items(cli->client, &list->request, add_item, items));
	}
	table = table_new(list->columns, list->n_columns);
	for (size_t i = 0; i < list->n_columns; i++)
		if (list->right & 1UL << i)
			table_right(table, i);
	code = client_items(cli->client, &list->request, list->row, table);
	if (list->order)
		table_sort(table, list->order);
	/* what came is printed even when more was to come */
	if (code == CLI_DONE || table_rows(table))
		table_print(table, stdout);
	else
		table_free(table);
	return code;
}
