/* SPDX-License-Identifier: Apache-2.0 */
/* heddle wait: until the data plane is in force. */
#include <time.h>

#include <util/duration.h>

#include "client.h"
#include "heddle.h"
#include "output.h"

enum { OPT_TIMEOUT };
static const struct cli_option options[] = {
	[OPT_TIMEOUT] = {"timeout", 0, "TIME", NULL, "give up after this long (default 10s)"},
	{NULL, 0, NULL, NULL, NULL},
};

/* The daemon does not call back, and a start takes a fraction of a second: asking this often costs nothing. */
#define POLL_MS 20

static uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static int wait_run(struct cli *cli)
{
	uint64_t timeout_ms = 10000, end, left;

	if (cli->value[OPT_TIMEOUT] && duration_parse(cli->value[OPT_TIMEOUT], &timeout_ms))
		return fail(CLI_USAGE, "--timeout %s: want a duration such as 10s", cli->value[OPT_TIMEOUT]);
	end = now_ms() + timeout_ms;
	for (;;) {
		json_auto_t *status = NULL;
		uint64_t now = now_ms();
		int code;

		left = end > now ? end - now : 0;
		code = client_call_quietly(
			cli->client, &(struct client_request){.path = "/v1/status", .timeout_ms = left ?: 1000}, &status);
		if (code == 0 && true_at(status, "ready"))
			return cli->output == OUTPUT_TABLE ? CLI_DONE : print_value(cli->output, status);
		if (now_ms() >= end && code)
			return fail(code, "%s", client_error(cli->client));
		if (now_ms() >= end) {
			code = fail(CLI_REFUSED, "the data plane is not in force");
			print_details(stderr, json_object_get(status, "lastError"));
			return code;
		}
		nanosleep(&(struct timespec){.tv_nsec = POLL_MS * 1000000L}, NULL);
	}
}

const struct verb verb_wait = {
	.name = "wait",
	.arguments = "",
	.summary = "wait until the data plane is in force",
	.options = options,
	.run = wait_run,
};
