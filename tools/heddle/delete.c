/* SPDX-License-Identifier: Apache-2.0 */
/* heddle delete: removes an object that was applied; one that a file owns goes with its file. */
#include "client.h"
#include "heddle.h"
#include "output.h"

enum { OPT_NAMESPACE };
static const struct cli_option options[] = {
	[OPT_NAMESPACE] = {"namespace", 'n', "NAMESPACE", "@namespace",
		"where the object is, if its kind is in one (default: default)"},
	{NULL, 0, NULL, NULL, NULL},
};

static int delete_run(struct cli *cli)
{
	const char *namespace_ = cli->value[OPT_NAMESPACE];
	const char *name = cli->arguments[1];
	char path[CLIENT_PATH_MAX], part[CLIENT_PATH_MAX];
	json_auto_t *answer = NULL;
	int code;

	if (!*cli->arguments[0] || !*cli->arguments[1])
		return fail(CLI_USAGE, "delete needs a kind and a name");
	if (namespace_ && !*namespace_)
		return fail(CLI_USAGE, "-n needs a namespace that is not empty");
	if (client_split_name(&name, &namespace_, part))
		return CLI_USAGE;
	if (!client_object_path(path, cli->arguments[0], namespace_, name))
		return fail(CLI_REFUSED, "%s: no object has so long a name", name);
	code = client_call(cli->client, &(struct client_request){.method = "DELETE", .path = path}, &answer);
	if (code)
		return code;
	if (cli->output != OUTPUT_TABLE)
		return print_value(cli->output, answer);
	printf("%s/%s%s%s deleted\n", cli->arguments[0], namespace_ ?: "", namespace_ ? "/" : "", name);
	return CLI_DONE;
}

const struct verb verb_delete = {
	.name = "delete",
	.arguments = "KIND [NAMESPACE/]NAME",
	.arguments_min = 2,
	.arguments_max = 2,
	.complete = CLI_OBJECT_KINDS,
	.summary = "remove an applied object",
	.options = options,
	.run = delete_run,
};
