/* SPDX-License-Identifier: Apache-2.0 */
/* heddle delete: removes an object that was applied; one that a file owns goes with its file. */
#include "client.h"
#include "heddle.h"
#include "output.h"

static int delete_run(struct cli *cli)
{
	char path[CLIENT_PATH_MAX];
	json_auto_t *answer = NULL;
	int code;

	if (!*cli->arguments[0] || !*cli->arguments[1])
		return fail(CLI_USAGE, "delete needs a kind and a name");
	if (!client_object_path(path, cli->arguments[0], cli->arguments[1]))
		return fail(CLI_REFUSED, "%s: no object has so long a name", cli->arguments[1]);
	code = client_call(cli->client, &(struct client_request){.method = "DELETE", .path = path}, &answer);
	if (code)
		return code;
	if (cli->output != OUTPUT_TABLE)
		return print_value(cli->output, answer);
	printf("%s/%s deleted\n", cli->arguments[0], cli->arguments[1]);
	return CLI_DONE;
}

const struct verb verb_delete = {
	.name = "delete",
	.arguments = "KIND NAME",
	.arguments_min = 2,
	.arguments_max = 2,
	.complete = "host addressgroup hostpolicy",
	.summary = "remove an applied object",
	.run = delete_run,
};
