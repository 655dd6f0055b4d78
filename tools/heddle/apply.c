/* SPDX-License-Identifier: Apache-2.0 */
/* heddle apply: documents into force, all of them or none. */
#include <util/cleanup.h>
#include <util/duration.h>

#include "client.h"
#include "heddle.h"
#include "output.h"

enum { OPT_FILE, OPT_CONFIRM };
static const struct cli_option options[] = {
	[OPT_FILE] = {"filename", 'f', "FILE|-", "@file", "documents, YAML or JSON; - is standard input"},
	[OPT_CONFIRM] = {"confirm", 0, "TIME", "30s 60s 5m", "undo everything after TIME unless heddle confirm comes first"},
	{NULL, 0, NULL, NULL, NULL},
};

static void print_applied(const json_t *answer)
{
	const char *confirm_before = string_at(answer, "confirmBefore");
	const json_t *item;
	char title[TITLE_MAX];
	size_t i;

	if (!json_array_size(json_object_get(answer, "items")))
		printf("there is no document in it\n");
	json_array_foreach (json_object_get(answer, "items"), i, item)
		printf("%s %s\n", title_text(item, title), text_at(item, "result"));
	if (json_is_integer(json_object_get(answer, "generation")))
		printf("generation %lld\n", number_at(answer, "generation"));
	if (confirm_before)
		printf("rolls back at %s unless confirmed (heddle confirm)\n", confirm_before);
}

static int apply_run(struct cli *cli)
{
	const char *file = cli->value[OPT_FILE], *confirm = cli->value[OPT_CONFIRM];
	json_auto_t *answer = NULL;
	char path[256] = "/v1/apply";
	uint64_t ms;
	_cleanup_free_ char *text = NULL;
	size_t length;
	int code;

	if (!file)
		return fail(CLI_USAGE, "apply needs -f FILE (or -f - for standard input)");
	if (confirm && (duration_parse(confirm, &ms) || !ms))
		return fail(CLI_USAGE, "--confirm %s: want a duration such as 60s", confirm);
	if (confirm)
		snprintf(path, sizeof(path), "/v1/apply?confirm=%s", confirm);
	code = read_input(file, &text, &length);
	if (code)
		return code;
	code = client_call(cli->client,
		&(struct client_request){
			.method = "POST", .path = path, .content_type = "application/yaml", .body = text, .length = length},
		&answer);
	if (code)
		return code;
	if (cli->output != OUTPUT_TABLE)
		return print_value(cli->output, answer);
	print_applied(answer);
	return CLI_DONE;
}

const struct verb verb_apply = {
	.name = "apply",
	.arguments = "",
	.summary = "create or change objects, all of them or none",
	.options = options,
	.run = apply_run,
};
