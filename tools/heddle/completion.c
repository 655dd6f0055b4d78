/* SPDX-License-Identifier: Apache-2.0 */
/* heddle completion: the scripts that make a shell complete verbs and options. tools/completion/ keeps what this prints. */
#include <ctype.h>
#include <string.h>

#include "heddle.h"

/* The column NAME of what `heddle get` prints. */
#define NAMES_OF_TABLE "awk 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == \"NAME\") n = i }\n\t\tNR > 1 { print $n }'"

static void bash_words(const struct cli_option *options)
{
	for (const struct cli_option *o = options; o && o->name; o++) {
		if (o->letter)
			printf(" -%c", o->letter);
		printf(" --%s", o->name);
	}
}

static void bash_argument(const char *complete)
{
	if (!complete)
		return;
	if (strcmp(complete, "@file") == 0)
		printf("\t\t_heddle_files \"$cur\"\n");
	else if (strcmp(complete, "@device") == 0)
		printf("\t\t_heddle_words \"$(ls /sys/class/net)\" \"$cur\"\n");
	else if (strcmp(complete, "@namespace") == 0)
		printf("\t\t_heddle_words \"default $(_heddle_names namespace)\" \"$cur\"\n");
	else
		printf("\t\t_heddle_words \"%s\" \"$cur\"\n", complete);
}

/* The patterns of `case "$verb $prev"` for the options that take a value. */
static void bash_options(const char *verb, const struct cli_option *options)
{
	for (const struct cli_option *o = options; o && o->name; o++) {
		if (!o->argument)
			continue;
		printf("\t");
		if (o->letter)
			printf("%s\" -%c\" | ", verb, o->letter);
		printf("%s\" --%s\")\n", verb, o->name);
		bash_argument(o->complete);
		printf("\t\treturn\n\t\t;;\n");
	}
}

static void print_bash(void)
{
	printf("# SPDX-License-Identifier: Apache-2.0\n# bash completion for heddle, printed by `heddle completion bash`\n\n"
	       "_heddle_words()\n{\n\tmapfile -t COMPREPLY < <(compgen -W \"$1\" -- \"$2\")\n}\n\n"
	       "_heddle_files()\n{\n\tcompopt -o filenames 2>/dev/null\n\tmapfile -t COMPREPLY < <(compgen -f -- \"$1\")\n}\n\n"
	       "_heddle_names()\n{\n\theddle get \"$@\" 2>/dev/null | " NAMES_OF_TABLE "\n}\n\n"
	       "_heddle()\n{\n\tlocal cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} verb=\"\" first=\"\" "
	       "namespace=default place=0 i\n\n"
	       "\tCOMPREPLY=()\n"
	       "\tfor ((i = 1; i < COMP_CWORD; i++)); do\n\t\tcase ${COMP_WORDS[i]} in\n\t\t-o | --output | --socket) ((i++)) "
	       ";;\n"
	       "\t\t-n | --namespace) namespace=${COMP_WORDS[++i]} ;;\n"
	       "\t\t-*) ;;\n\t\t*)\n\t\t\tif [[ -z $verb ]]; then\n\t\t\t\tverb=${COMP_WORDS[i]}\n\t\t\telse\n"
	       "\t\t\t\t[[ -n $first ]] || first=${COMP_WORDS[i]}\n\t\t\t\t((place++))\n\t\t\tfi\n\t\t\t;;\n\t\tesac\n\tdone\n"
	       "\tcase \"$verb $prev\" in\n");
	bash_options("*", global_options);
	for (const struct verb *const *v = verbs; *v; v++)
		bash_options((*v)->name, (*v)->options);
	printf("\tesac\n\tcase $verb in\n\t\"\")\n\t\t_heddle_words \"");
	for (const struct verb *const *v = verbs; *v; v++)
		printf("%s%s", v == verbs ? "" : " ", (*v)->name);
	bash_words(global_options);
	printf("\" \"$cur\"\n\t\t;;\n");
	for (const struct verb *const *v = verbs; *v; v++) {
		printf("\t%s)\n", (*v)->name);
		if ((*v)->arguments_max) {
			printf("\t\tif [[ $cur != -* && $place -eq 0 ]]; then\n\t\t\t_heddle_words \"%s\" "
			       "\"$cur\"\n\t\t\treturn\n\t\tfi\n",
				(*v)->complete);
			if ((*v)->arguments_max > 1)
				printf("\t\tif [[ $cur != -* && $place -eq 1 ]]; then\n"
				       "\t\t\t_heddle_words \"$(_heddle_names -n \"$namespace\" \"$first\")\" \"$cur\"\n"
				       "\t\t\treturn\n\t\tfi\n");
		}
		printf("\t\t_heddle_words \"");
		bash_words((*v)->options);
		bash_words(global_options);
		printf("\" \"$cur\"\n\t\t;;\n");
	}
	printf("\tesac\n}\ncomplete -F _heddle heddle\n");
}

/* Text inside a zsh _arguments specification, single-quoted: brackets and colons have a meaning there. */
static void zsh_text(const char *text)
{
	for (; *text; text++) {
		if (*text == '\'') {
			printf("'\\''");
			continue;
		}
		if (strchr("[]:\\", *text))
			putchar('\\');
		putchar(*text);
	}
}

static void zsh_action(const char *complete)
{
	if (!complete)
		printf(" ");
	else if (strcmp(complete, "@file") == 0)
		printf("_files");
	else if (strcmp(complete, "@device") == 0)
		printf("_net_interfaces");
	else if (strcmp(complete, "@namespace") == 0)
		printf("_heddle_namespaces");
	else
		printf("(%s)", complete);
}

static void zsh_options(const struct cli_option *options)
{
	for (const struct cli_option *o = options; o && o->name; o++) {
		if (o->letter)
			printf("\t\t\t'(-%c --%s)'{-%c,--%s}'[", o->letter, o->name, o->letter, o->name);
		else
			printf("\t\t\t'--%s[", o->name);
		zsh_text(o->help);
		printf("]");
		if (o->argument) {
			printf(":");
			for (const char *c = o->argument; *c; c++)
				zsh_text((char[]){(char)tolower((unsigned char)*c), 0});
			printf(":");
			zsh_action(o->complete);
		}
		printf("' \\\n");
	}
}

static void print_zsh(void)
{
	printf("#compdef heddle\n# SPDX-License-Identifier: Apache-2.0\n# zsh completion for heddle, printed by `heddle "
	       "completion zsh`\n\n"
	       "_heddle_get()\n{\n\theddle get \"$@\" 2>/dev/null | " NAMES_OF_TABLE "\n}\n\n"
	       "_heddle_namespaces()\n{\n\tlocal -a names\n\tnames=(default ${(f)\"$(_heddle_get namespace)\"})\n"
	       "\tcompadd -a names\n}\n\n"
	       "_heddle_names()\n{\n\tlocal -a names\n"
	       "\tnames=(${(f)\"$(_heddle_get -n \"${opt_args[-n]:-${opt_args[--namespace]:-default}}\" \"$line[1]\")\"})\n"
	       "\tcompadd -a names\n}\n\n"
	       "_heddle()\n{\n\tlocal context curcontext=$curcontext state line\n\ttypeset -A opt_args\n\tlocal -a "
	       "verbs\n\tverbs=(\n");
	for (const struct verb *const *v = verbs; *v; v++) {
		printf("\t\t'%s:", (*v)->name);
		for (const char *c = (*v)->summary; *c; c++)
			printf(*c == '\'' ? "'\\''" : *c == ':' ? "\\:" : "%c", *c);
		printf("'\n");
	}
	printf("\t)\n\t_arguments -C \\\n");
	zsh_options(global_options);
	printf("\t\t\t'1: :->verb' \\\n\t\t\t'*:: :->rest'\n\tcase $state in\n\tverb)\n\t\t_describe verb verbs\n\t\t;;\n"
	       "\trest)\n\t\tcase $words[1] in\n");
	for (const struct verb *const *v = verbs; *v; v++) {
		printf("\t\t%s)\n\t\t\t_arguments \\\n", (*v)->name);
		zsh_options((*v)->options);
		zsh_options(global_options);
		if ((*v)->arguments_max)
			printf("\t\t\t'1: :(%s)' \\\n", (*v)->complete);
		if ((*v)->arguments_max > 1)
			printf("\t\t\t'2: :_heddle_names' \\\n");
		printf("\t\t\t&& return\n\t\t\t;;\n");
	}
	printf("\t\tesac\n\t\t;;\n\tesac\n}\n\n_heddle \"$@\"\n");
}

static int completion_run(struct cli *cli)
{
	if (strcmp(cli->arguments[0], "bash") == 0)
		print_bash();
	else if (strcmp(cli->arguments[0], "zsh") == 0)
		print_zsh();
	else
		return fail(CLI_USAGE, "completion for %s: want bash or zsh", cli->arguments[0]);
	return CLI_DONE;
}

const struct verb verb_completion = {
	.name = "completion",
	.arguments = "SHELL",
	.arguments_min = 1,
	.arguments_max = 1,
	.complete = "bash zsh",
	.summary = "the completion script for bash or zsh",
	.local = true,
	.run = completion_run,
};
