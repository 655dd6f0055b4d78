/* SPDX-License-Identifier: Apache-2.0 */
/* heddle diff: what apply would change, without doing it. */
#include <string.h>

#include <util/cleanup.h>

#include "changes.h"
#include "client.h"
#include "heddle.h"
#include "output.h"

enum { OPT_FILE };
static const struct cli_option options[] = {
	[OPT_FILE] = {"filename", 'f', "FILE|-", "@file", "documents, YAML or JSON; - is standard input"},
	{NULL, 0, NULL, NULL, NULL},
};

static void print_diff(const json_t *answer)
{
	size_t i, n_changed = 0, n_items = json_array_size(json_object_get(answer, "items"));
	const json_t *item;
	char title[TITLE_MAX];

	json_array_foreach (json_object_get(answer, "items"), i, item) {
		const char *change = text_at(item, "change");
		const json_t *before = json_object_get(item, "before"), *after = json_object_get(item, "after");

		if (strcmp(change, "none") == 0)
			continue;
		n_changed++;
		printf("%c %s\n",
			strcmp(change, "create") == 0	? '+'
			: strcmp(change, "delete") == 0 ? '-'
							: '~',
			title_text(item, title));
		/* all of a new object is new: its spec is what a reader wants */
		if (json_is_object(before))
			changes_print(stdout, "    ", before, after);
		else
			changes_print(stdout, "    ", NULL, json_object_get(after, "spec"));
	}
	if (!n_changed)
		printf("nothing would change (%zu object%s)\n", n_items, n_items == 1 ? "" : "s");
}

static int diff_run(struct cli *cli)
{
	_cleanup_free_ char *text = NULL;
	json_auto_t *answer = NULL;
	size_t length;
	int code;

	if (!cli->value[OPT_FILE])
		return fail(CLI_USAGE, "diff needs -f FILE (or -f - for standard input)");
	code = read_input(cli->value[OPT_FILE], &text, &length);
	if (code)
		return code;
	code = client_call(cli->client,
		&(struct client_request){
			.method = "POST", .path = "/v1/diff", .content_type = "application/yaml", .body = text, .length = length},
		&answer);
	if (code)
		return code;
	if (cli->output != OUTPUT_TABLE)
		return print_value(cli->output, answer);
	print_diff(answer);
	return CLI_DONE;
}

const struct verb verb_diff = {
	.name = "diff",
	.arguments = "",
	.summary = "what apply would change",
	.options = options,
	.run = diff_run,
};
