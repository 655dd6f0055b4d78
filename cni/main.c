/* SPDX-License-Identifier: Apache-2.0 */
/* heddle-cni: reads one request, does it, answers. An error is JSON on standard output; what people may want to know goes to standard error. */
#include <cni/cni.h>

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#define INPUT_MAX (32u << 20)

static const char *variable(const char *name)
{
	const char *value = getenv(name);

	return value && *value ? value : NULL;
}

static int read_input(struct buffer *text, struct failure *failure)
{
	for (;;) {
		char *room = buffer_reserve(text, 16384);
		ssize_t n = room ? read(STDIN_FILENO, room, 16384) : -1;

		if (!room)
			return fail_with(failure, FAILURE_IO, -ENOMEM, "standard input: out of memory");
		if (n == 0)
			return 0;
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return fail_with(failure, FAILURE_IO, -errno, "standard input: %s", strerror(errno));
		text->length += (size_t)n;
		if (text->length > INPUT_MAX)
			return fail_with(failure, FAILURE_IO, -EFBIG, "standard input: more than %u MiB", INPUT_MAX >> 20);
	}
}

static json_t *version_json(const struct config *config)
{
	json_t *supported = json_array();

	for (int i = 0; i < VERSION_COUNT; i++)
		json_array_append_new(supported, json_string(version_name((enum version)i)));
	return json_pack("{s:s, s:o}", "cniVersion", version_name(config->version), "supportedVersions", supported);
}

static int act(const struct config *config, json_t **answer, struct failure *failure)
{
	switch (config->verb) {
	case VERB_ADD:
		return verb_add(config, answer, failure);
	case VERB_DEL:
		return verb_del(config, failure);
	case VERB_CHECK:
		return verb_check(config, failure);
	case VERB_GC:
		return verb_gc(config, failure);
	case VERB_STATUS:
		return verb_status(config, failure);
	case VERB_VERSION:
		*answer = version_json(config);
		return 0;
	case VERB_COUNT:
		break;
	}
	return -EINVAL;
}

int main(int argc, char **argv)
{
	const struct environment env = {.command = variable("CNI_COMMAND"),
		.container = variable("CNI_CONTAINERID"),
		.netns = variable("CNI_NETNS"),
		.ifname = variable("CNI_IFNAME"),
		.args = variable("CNI_ARGS"),
		.path = variable("CNI_PATH"),
		.netns_override = variable("CNI_NETNS_OVERRIDE")};
	__attribute__((cleanup(failure_clear))) struct failure failure = {0};
	__attribute__((cleanup(config_clear))) struct config config = {.version = VERSION_NEWEST};
	_cleanup_buffer_ struct buffer input = {0};
	json_t *answer = NULL;
	int r = 0;

	if (argc > 1 && !strcmp(argv[1], "--version")) {
		puts("heddle-cni " HEDDLE_VERSION);
		return EXIT_SUCCESS;
	}
	(void)signal(SIGPIPE, SIG_IGN);
	if (!env.command)
		fprintf(stderr,
			"heddle-cni " HEDDLE_VERSION ", a CNI plugin (0.1.0 to 1.1.0): a runtime calls it, see heddle-cni(8)\n");
	else
		r = read_input(&input, &failure);
	if (r == 0)
		r = config_decode(&env, input.data ? input.data : "", input.length, &config, &failure);
	if (r == 0)
		r = act(&config, &answer, &failure);
	if (r < 0 && !failure.code)
		(void)fail_with(&failure, FAILURE_INTERNAL, r, "%s", strerror(-r));
	if (r < 0) {
		json_decref(answer);
		answer = failure_json(&failure, version_name(config.version));
		fprintf(stderr, "heddle-cni: %s\n", failure.message.data ? failure.message.data : "out of memory");
	}
	if (answer && json_dumpf(answer, stdout, JSON_COMPACT) < 0)
		r = -ENOMEM;
	if (answer)
		putchar('\n');
	json_decref(answer);
	if (fflush(stdout) != 0)
		r = -EIO;
	return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
