/* SPDX-License-Identifier: Apache-2.0 */
/* What the verbs of the CLI share: options, exit status, messages. A verb is one file and one entry in verbs[] (main.c). */
#ifndef HEDDLE_CLI_HEDDLE_H
#define HEDDLE_CLI_HEDDLE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/* Scripts rely on these. */
enum cli_exit { CLI_DONE = 0, CLI_REFUSED = 1, CLI_USAGE = 2, CLI_NO_DAEMON = 3 };

enum output { OUTPUT_TABLE, OUTPUT_JSON, OUTPUT_YAML };

/* An option of a verb. --help, the parser and the completion scripts all come from these tables. */
struct cli_option {
	const char *name;     /* NULL ends the table */
	char letter;	      /* 0: none */
	const char *argument; /* what it takes, as shown in --help; NULL: a flag */
	const char *complete; /* words to complete the argument with; "@file", "@device", "@namespace"; NULL: nothing */
	const char *help;
};

#define CLI_OPTIONS_MAX 24

struct client;
struct verb;

struct cli {
	const struct verb *verb;
	struct client *client;
	enum output output;
	const char *value[CLI_OPTIONS_MAX]; /* by place in verb->options; a flag's is ""; NULL: not given */
	char **arguments;
	int n_arguments;
};

struct verb {
	const char *name;
	const char *arguments; /* as shown in --help; "" none */
	int arguments_min, arguments_max;
	const char *complete;		  /* of the first argument, as cli_option.complete */
	const char *summary;		  /* one line */
	const struct cli_option *options; /* NULL: none */
	bool local;			  /* answers without the daemon */
	int (*run)(struct cli *cli);	  /* returns enum cli_exit */
};

extern const struct verb verb_wait, verb_status, verb_apply, verb_get, verb_delete, verb_confirm, verb_diff, verb_preview,
	verb_policy, verb_flows, verb_monitor, verb_explain, verb_rules, verb_counters, verb_vf, verb_doctor, verb_completion;
extern const struct verb *const verbs[]; /* NULL ends it */
extern const struct cli_option global_options[];

/* The kinds of objects, for completion and messages. */
#define CLI_OBJECT_KINDS \
	"host network port peer namespace addressgroup hostpolicy networkpolicy adminnetworkpolicy baselineadminnetworkpolicy " \
	"clusternetworkpolicy fastpath"
#define CLI_KINDS CLI_OBJECT_KINDS " builtin"

/* Prints "heddle: MESSAGE" to stderr and returns code. Control characters in what others wrote are made visible. */
int fail(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* How much a document file, or what comes on stdin, may hold: what the daemon takes. */
#define CLI_DOCUMENT_MAX (64u << 20)
/* Reads FILE, or stdin for "-". 0 and a NUL-terminated text to free, or an exit status, the message printed. */
int read_input(const char *file, char **ret, size_t *ret_length);

/* A whole number from min to max, nothing after it. 0 or -EINVAL. */
int parse_number(const char *text, long long min, long long max, long long *ret);

#endif
