/* SPDX-License-Identifier: Apache-2.0 */
/* The heddle CLI: a client of heddled's API. Here: options, help, and which verb runs. */
#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include <util/duration.h>

#include "client.h"
#include "heddle.h"

#define SOCKET_DEFAULT "/run/heddle/heddled.sock"

enum { GLOBAL_SOCKET, GLOBAL_OUTPUT, GLOBAL_HELP, GLOBAL_VERSION };
const struct cli_option global_options[] = {
	[GLOBAL_SOCKET] = {"socket", 0, "PATH", "@file", "the daemon's socket (HEDDLE_SOCKET; default " SOCKET_DEFAULT ")"},
	[GLOBAL_OUTPUT] = {"output", 'o', "FORMAT", "table json yaml", "table (default), json or yaml"},
	[GLOBAL_HELP] = {"help", 'h', NULL, NULL, "this help; after a verb: the verb's"},
	[GLOBAL_VERSION] = {"version", 'V', NULL, NULL, "the version of this program"},
	{NULL, 0, NULL, NULL, NULL},
};
#define GLOBALS 4

const struct verb *const verbs[] = {
	&verb_status,
	&verb_wait,
	&verb_apply,
	&verb_diff,
	&verb_preview,
	&verb_policy,
	&verb_confirm,
	&verb_get,
	&verb_delete,
	&verb_flows,
	&verb_monitor,
	&verb_explain,
	&verb_rules,
	&verb_counters,
	&verb_vf,
	&verb_doctor,
	&verb_completion,
	NULL,
};

struct globals {
	const char *socket;
	enum output output;
};

static void print_options(const struct cli_option *options)
{
	for (const struct cli_option *o = options; o && o->name; o++) {
		char left[64];

		snprintf(left, sizeof(left), "%s%c%s--%s%s%s", o->letter ? "-" : " ", o->letter ? o->letter : ' ',
			o->letter ? ", " : "  ", o->name, o->argument ? " " : "", o->argument ? o->argument : "");
		printf("  %-26s %s\n", left, o->help);
	}
}

static void print_help(const struct verb *verb)
{
	if (verb) {
		printf("usage: heddle [OPTIONS] %s%s%s%s\n\n%s\n", verb->name, verb->options ? " [OPTIONS]" : "",
			verb->arguments[0] ? " " : "", verb->arguments, verb->summary);
		if (verb->options) {
			printf("\n");
			print_options(verb->options);
		}
		printf("\nOptions of every verb:\n");
	} else {
		printf("usage: heddle [OPTIONS] VERB [ARGUMENTS]\n\nVerbs:\n");
		for (const struct verb *const *v = verbs; *v; v++)
			printf("  %-26s %s\n", (*v)->name, (*v)->summary);
		printf("\nOptions:\n");
	}
	print_options(global_options);
	printf("\nExit status: 0 done, 1 refused or failed, 2 usage, 3 no daemon. See heddle(1).\n");
}

/* getopt's tables: the verb's options first, the global ones behind them; val is the place in that order plus VALUE_BASE. */
#define VALUE_BASE 256
struct parser {
	struct option options[CLI_OPTIONS_MAX + GLOBALS + 1];
	char letters[3 * (CLI_OPTIONS_MAX + GLOBALS) + 3];
	int by_letter[128];
	int n;
};

static void parser_add(struct parser *parser, const struct cli_option *options, int base)
{
	for (int i = 0; options && options[i].name; i++) {
		const struct cli_option *o = &options[i];

		parser->options[parser->n++] =
			(struct option){o->name, o->argument ? required_argument : no_argument, NULL, VALUE_BASE + base + i};
		if (o->letter) {
			size_t length = strlen(parser->letters);

			snprintf(parser->letters + length, sizeof(parser->letters) - length, "%c%s", o->letter,
				o->argument ? ":" : "");
			parser->by_letter[(unsigned char)o->letter] = base + i;
		}
	}
}

static int set_output(struct globals *globals, const char *name)
{
	static const char *const names[] = {[OUTPUT_TABLE] = "table", [OUTPUT_JSON] = "json", [OUTPUT_YAML] = "yaml"};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (strcmp(names[i], name) == 0) {
			globals->output = (enum output)i;
			return 0;
		}
	return fail(CLI_USAGE, "-o %s: want table, json or yaml", name);
}

/* first_only: stop at the first word that is not an option: the verb. -1: go on; else the exit status. */
static int parse(int argc, char **argv, const struct verb *verb, struct globals *globals, const char **values, bool first_only)
{
	struct parser parser = {.n = 0};
	int c;

	/* "+": stop at the verb. ":": a missing argument is told apart; the messages are ours. */
	snprintf(parser.letters, sizeof(parser.letters), "%s", first_only ? "+:" : ":");
	parser_add(&parser, verb ? verb->options : NULL, 0);
	parser_add(&parser, global_options, CLI_OPTIONS_MAX);
	opterr = 0;
	optind = first_only ? 1 : 0; /* 0: glibc starts afresh */
	while ((c = getopt_long(argc, argv, parser.letters, parser.options, NULL)) != -1) {
		int place = c >= VALUE_BASE ? c - VALUE_BASE : c != ':' && c != '?' ? parser.by_letter[c & 127] : -1;

		if (c == ':')
			return fail(CLI_USAGE, "option %s needs a value", argv[optind - 1]);
		if (c == '?') {
			if (optopt >= VALUE_BASE)
				return fail(CLI_USAGE, "option %s takes no value", argv[optind - 1]);
			if (optopt)
				return fail(CLI_USAGE, "unknown option -%c", optopt);
			return fail(CLI_USAGE, "unknown option %s", argv[optind - 1]);
		}
		if (place < CLI_OPTIONS_MAX) {
			values[place] = optarg ? optarg : "";
			continue;
		}
		switch (place - CLI_OPTIONS_MAX) {
		case GLOBAL_SOCKET:
			globals->socket = optarg;
			break;
		case GLOBAL_OUTPUT:
			if (set_output(globals, optarg ?: ""))
				return CLI_USAGE;
			break;
		case GLOBAL_VERSION:
			printf("heddle %s\n", HEDDLE_VERSION);
			return CLI_DONE;
		default:
			print_help(verb);
			return CLI_DONE;
		}
	}
	return -1;
}

static int connect_client(struct cli *cli, const struct globals *globals)
{
	uint64_t timeout_ms = CLIENT_TIMEOUT_MS;
	const char *text = getenv("HEDDLE_TIMEOUT");

	if (text && (duration_parse(text, &timeout_ms) || !timeout_ms))
		return fail(CLI_USAGE, "HEDDLE_TIMEOUT=%s: want a duration such as 30s", text);
	if (strlen(globals->socket) >= sizeof(((struct sockaddr_un *)NULL)->sun_path))
		return fail(CLI_USAGE, "%s: too long for the path of a unix socket", globals->socket);
	cli->client = client_new(globals->socket, timeout_ms);
	return cli->client ? 0 : fail(CLI_REFUSED, "out of memory");
}

static int run(struct cli *cli, const struct globals *globals)
{
	int r = cli->verb->local ? 0 : connect_client(cli, globals);

	r = r ?: cli->verb->run(cli);
	client_free(cli->client);
	return r;
}

/* What was printed counts only when it arrived: a full disk must not look like success. */
static int finish(int r)
{
	if (r == CLI_DONE && (fflush(stdout) || ferror(stdout)))
		return fail(CLI_REFUSED, "cannot write the output: %m");
	return r;
}

int main(int argc, char **argv)
{
	const char *socket = getenv("HEDDLE_SOCKET");
	struct globals globals = {.socket = socket && *socket ? socket : SOCKET_DEFAULT, .output = OUTPUT_TABLE};
	struct cli cli = {.verb = NULL};
	int r;

	r = parse(argc, argv, NULL, &globals, cli.value, true);
	if (r >= 0)
		return finish(r);
	if (optind >= argc)
		return fail(CLI_USAGE, "which verb? heddle --help lists them");
	for (const struct verb *const *v = verbs; *v && !cli.verb; v++)
		if (strcmp((*v)->name, argv[optind]) == 0)
			cli.verb = *v;
	if (!cli.verb)
		return fail(CLI_USAGE, "unknown verb %s; heddle --help lists them", argv[optind]);
	argc -= optind;
	argv += optind;
	r = parse(argc, argv, cli.verb, &globals, cli.value, false);
	if (r >= 0)
		return finish(r);
	cli.output = globals.output;
	cli.arguments = argv + optind;
	cli.n_arguments = argc - optind;
	if (cli.n_arguments < cli.verb->arguments_min || cli.n_arguments > cli.verb->arguments_max)
		return fail(CLI_USAGE, "usage: heddle %s%s%s%s", cli.verb->name, cli.verb->options ? " [OPTIONS]" : "",
			cli.verb->arguments[0] ? " " : "", cli.verb->arguments);
	return finish(run(&cli, &globals));
}
