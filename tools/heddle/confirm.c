/* SPDX-License-Identifier: Apache-2.0 */
/* heddle confirm: keeps what apply --confirm put in force. */
#include "client.h"
#include "heddle.h"
#include "output.h"

static int confirm_run(struct cli *cli)
{
	json_auto_t *answer = NULL;
	int code = client_call(cli->client,
		&(struct client_request){.method = "POST", .path = "/v1/confirm", .body = "", .content_type = "application/json"},
		&answer);

	if (code)
		return code;
	if (cli->output != OUTPUT_TABLE)
		return print_value(cli->output, answer);
	printf("confirmed\n");
	return CLI_DONE;
}

const struct verb verb_confirm = {
	.name = "confirm",
	.arguments = "",
	.summary = "keep what apply --confirm put in force",
	.run = confirm_run,
};
