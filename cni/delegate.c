/* SPDX-License-Identifier: Apache-2.0 */
/* An IPAM plugin of somebody else's: found in CNI_PATH, run with our environment and standard input, as the protocol has it. */
#include <cni/cni.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <util/clock.h>

#define DELEGATE_MS 60000
#define DELEGATE_OUTPUT_MAX (4u << 20)

static char *find_plugin(const char *path, const char *type)
{
	_cleanup_free_ char *copy = strdup(path);
	char *rest = copy;

	for (char *directory; copy && (directory = strsep(&rest, ":"));) {
		_cleanup_free_ char *file = NULL;
		struct stat st;

		if (!*directory)
			continue;
		if (asprintf(&file, "%s/%s", directory, type) < 0) {
			file = NULL;
			return NULL;
		}
		if (stat(file, &st) == 0 && S_ISREG(st.st_mode) && access(file, X_OK) == 0)
			return TAKE_PTR(file);
	}
	return NULL;
}

struct child {
	pid_t pid;
	int in, out;
};

static int start_plugin(const char *file, const char *command, struct child *ret)
{
	int in[2] = {-1, -1}, out[2] = {-1, -1};
	pid_t pid = -1;
	int r = 0;

	if (pipe2(in, O_CLOEXEC) < 0 || pipe2(out, O_CLOEXEC) < 0)
		r = -errno;
	if (r == 0)
		pid = fork();
	if (pid == 0) {
		char *argv[] = {(char *)file, NULL};

		if (dup2(in[0], STDIN_FILENO) < 0 || dup2(out[1], STDOUT_FILENO) < 0 || setenv("CNI_COMMAND", command, 1) < 0)
			_exit(127);
		execv(file, argv);
		_exit(127);
	}
	if (r == 0 && pid < 0)
		r = -errno;
	safe_close(in[0]);
	safe_close(out[1]);
	if (r < 0) {
		safe_close(in[1]);
		safe_close(out[0]);
		return r;
	}
	(void)fcntl(in[1], F_SETFL, O_NONBLOCK);
	*ret = (struct child){.pid = pid, .in = in[1], .out = out[0]};
	return 0;
}

static void write_some(struct child *child, const char *input, size_t length, size_t *at)
{
	ssize_t n = write(child->in, input + *at, length - *at);

	if (n > 0)
		*at += (size_t)n;
	/* one that does not read it has its reasons */
	if (*at == length || (n < 0 && errno != EAGAIN && errno != EINTR))
		child->in = safe_close(child->in);
}

/* Writes and reads at once: neither side may wait for the other. */
static int talk(struct child *child, const char *input, size_t length, struct buffer *output)
{
	uint64_t deadline = clock_ms() + DELEGATE_MS;
	size_t at = 0;

	for (;;) {
		struct pollfd fds[] = {{.fd = child->out, .events = POLLIN}, {.fd = child->in, .events = POLLOUT}};
		uint64_t now = clock_ms();
		int r = now < deadline ? poll(fds, ARRAY_SIZE(fds), (int)(deadline - now)) : 0;

		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0)
			return r < 0 ? -errno : -ETIMEDOUT;
		if (fds[1].revents)
			write_some(child, input, length, &at);
		if (fds[0].revents) {
			char *room = buffer_reserve(output, 4096);
			ssize_t n = room ? read(child->out, room, 4096) : -1;

			if (!room || (n < 0 && errno != EINTR))
				return room ? -errno : -ENOMEM;
			if (n == 0)
				return 0;
			output->length += n > 0 ? (size_t)n : 0;
			if (output->length > DELEGATE_OUTPUT_MAX)
				return -EFBIG;
		}
	}
}

static int end_plugin(struct child *child, bool killed)
{
	int status = 0;

	child->in = safe_close(child->in);
	child->out = safe_close(child->out);
	if (killed)
		(void)kill(child->pid, SIGKILL);
	while (waitpid(child->pid, &status, 0) < 0 && errno == EINTR)
		;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

/* Its code and its words are passed on. */
static int told_failure(const struct config *config, const json_t *answer, int status, struct failure *failure)
{
	const char *message = json_string_value(any_case(answer, "msg")),
		   *details = json_string_value(any_case(answer, "details"));
	json_int_t code = json_integer_value(any_case(answer, "code"));

	if (details && !failure->code)
		buffer_add_string(&failure->details, details);
	if (!message)
		return fail_with(failure, FAILURE_INTERNAL, -EREMOTEIO, "the IPAM plugin %s ended with %d and said nothing",
			config->ipam, status);
	return fail_with(failure, code > 0 && code <= 0xffff ? (unsigned)code : FAILURE_INTERNAL, -EREMOTEIO, "%s: %s",
		config->ipam, message);
}

int delegate_run(const struct config *config, const char *command, json_t **ret, struct failure *failure)
{
	_cleanup_free_ char *file = find_plugin(config->env.path, config->ipam), *input = json_dumps(config->root, JSON_COMPACT);
	_cleanup_buffer_ struct buffer output = {0};
	json_t *answer = NULL;
	struct child child;
	json_error_t error;
	int r, status;

	if (!file || !input)
		return fail_with(
			failure, FAILURE_CONFIG, -ENOENT, "ipam.type: want a plugin that is in CNI_PATH, got %s", config->ipam);
	r = start_plugin(file, command, &child);
	if (r < 0)
		return fail_with(failure, FAILURE_INTERNAL, r, "cannot run %s: %s", file, strerror(-r));
	r = talk(&child, input, strlen(input), &output);
	status = end_plugin(&child, r < 0);
	if (r < 0)
		return fail_with(failure, FAILURE_AGAIN, r, "the IPAM plugin %s: %s", config->ipam, strerror(-r));
	if (output.length)
		answer = json_loadb(output.data, output.length, 0, &error);
	if (status != 0) {
		r = told_failure(config, answer, status, failure);
	} else if (ret) {
		*ret = answer;
		return answer ? 0
			      : fail_with(failure, FAILURE_DECODE, -EBADMSG, "the IPAM plugin %s did not answer in JSON",
					config->ipam);
	}
	json_decref(answer);
	return r;
}
