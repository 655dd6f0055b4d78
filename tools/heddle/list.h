/* SPDX-License-Identifier: Apache-2.0 */
/* Lists that may be long: taken member by member, into a table or a machine's format. */
#ifndef HEDDLE_CLI_LIST_H
#define HEDDLE_CLI_LIST_H

#include "client.h"
#include "heddle.h"
#include "output.h"

struct list {
	struct client_request request;
	const char *const *columns;
	size_t n_columns;
	unsigned long right; /* a bit a column of numbers */
	client_item row;     /* its userdata is a struct table: adds one cell a column */
	table_order order;   /* of the table's rows; NULL: as they come */
};

/* Returns an exit status. */
int list_run(struct cli *cli, const struct list *list);

#endif
