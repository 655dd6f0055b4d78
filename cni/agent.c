/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HTTP over heddled's unix socket, with a deadline for each answer. A library for it would take longer to be loaded than all of an ADD takes:
 * what is needed is one kind of request and one kind of answer, with its length told.
 */
#include <cni/cni.h>

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>

#include <util/clock.h>

#define ANSWER_MAX (64u << 20)
#define HEAD_MAX 16384u
#define RETRY_MS 10
#define LEFT_NAME "left" /* beside the socket; heddled knows it too */
#define LEFT_SECONDS 60

struct agent {
	int fd;
};

/* --- connecting --- */

static int try_connect(int fd, const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	_cleanup_close_ int directory = -1;
	_cleanup_free_ char *copy = NULL;
	char *slash;

	if (strlen(path) < sizeof(address.sun_path)) {
		memcpy(address.sun_path, path, strlen(path) + 1);
	} else {
		/* longer than sun_path is: through its directory's descriptor */
		copy = strdup(path);
		slash = copy ? strrchr(copy, '/') : NULL;
		if (!slash)
			return -ENAMETOOLONG;
		*slash = '\0';
		directory = open(copy, O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (directory < 0)
			return -errno;
		if (snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/%s", directory, slash + 1) >=
			(int)sizeof(address.sun_path))
			return -ENAMETOOLONG;
	}
	return connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ? -errno : 0;
}

int agent_connect(const char *path, int timeout_ms, struct agent **ret)
{
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	uint64_t deadline = clock_ms() + (uint64_t)timeout_ms;
	struct agent *agent;
	int r;

	if (fd < 0)
		return -errno;
	/* EAGAIN: more wait to be accepted than the agent has room for */
	while ((r = try_connect(fd, path)) == -EAGAIN && clock_ms() < deadline)
		(void)poll(NULL, 0, RETRY_MS);
	if (r < 0)
		return r;
	agent = malloc(sizeof(*agent));
	if (!agent)
		return -ENOMEM;
	agent->fd = TAKE_FD(fd);
	*ret = agent;
	return 0;
}

bool agent_has_left(const char *path)
{
	const char *slash = strrchr(path, '/');
	char left[PATH_MAX];
	struct stat status;
	time_t now = time(NULL);

	if (!slash || (size_t)(slash - path) + sizeof("/" LEFT_NAME) > sizeof(left))
		return false;
	snprintf(left, sizeof(left), "%.*s/" LEFT_NAME, (int)(slash - path), path);
	return stat(left, &status) == 0 && status.st_mtime <= now && now - status.st_mtime < LEFT_SECONDS;
}

void agent_close(struct agent *agent)
{
	if (!agent)
		return;
	safe_close(agent->fd);
	free(agent);
}

/* --- asking --- */

static int wait_for(int fd, short events, uint64_t deadline)
{
	struct pollfd poll_fd = {.fd = fd, .events = events};
	uint64_t now = clock_ms();
	int r = now < deadline ? poll(&poll_fd, 1, (int)(deadline - now)) : 0;

	return r < 0 ? (errno == EINTR ? 0 : -errno) : r == 0 ? -ETIMEDOUT : 0;
}

static int send_all(int fd, const char *data, size_t length, uint64_t deadline)
{
	while (length) {
		ssize_t n = send(fd, data, length, MSG_NOSIGNAL);

		if (n > 0) {
			data += n;
			length -= (size_t)n;
			continue;
		}
		if (n < 0 && errno != EAGAIN && errno != EINTR)
			return -errno;
		int r = wait_for(fd, POLLOUT, deadline);
		if (r < 0)
			return r;
	}
	return 0;
}

/* Appends what is there. 0: the other side has closed. */
static int receive(int fd, struct buffer *into, uint64_t deadline)
{
	for (;;) {
		char *room = buffer_reserve(into, 4096);
		ssize_t n;
		int r;

		if (!room)
			return -ENOMEM;
		n = recv(fd, room, 4096, 0);
		if (n >= 0) {
			into->length += (size_t)n;
			return (int)n;
		}
		if (errno != EAGAIN && errno != EINTR)
			return -errno;
		r = wait_for(fd, POLLIN, deadline);
		if (r < 0)
			return r;
	}
}

/* Of a whole head: the status, and where the body ends; SIZE_MAX: with the connection. */
static int parse_head(const char *head, size_t length, unsigned *ret_status, size_t *ret_end)
{
	static const char name[] = "content-length:";
	unsigned status;

	*ret_end = SIZE_MAX;
	if (length < 12 || memcmp(head, "HTTP/1.", 7) != 0 || head[8] != ' ')
		return -EBADMSG;
	for (int i = 9; i < 12; i++)
		if (!isdigit((unsigned char)head[i]))
			return -EBADMSG;
	status = (unsigned)(head[9] - '0') * 100 + (unsigned)(head[10] - '0') * 10 + (unsigned)(head[11] - '0');
	for (const char *at = head; at < head + length;) {
		const char *end = memchr(at, '\n', (size_t)(head + length - at));

		if (!end)
			break;
		if ((size_t)(end - at) >= sizeof(name) && strncasecmp(at, name, sizeof(name) - 1) == 0) {
			unsigned long long body = strtoull(at + sizeof(name) - 1, NULL, 10);

			if (body > ANSWER_MAX)
				return -EFBIG;
			*ret_end = length + (size_t)body;
		}
		at = end + 1;
	}
	*ret_status = status;
	return 0;
}

static int read_answer(int fd, uint64_t deadline, unsigned *ret_status, json_t **ret)
{
	_cleanup_buffer_ struct buffer text = {0};
	size_t head = 0, end = SIZE_MAX;
	json_error_t error;
	int r;

	while (text.length < end) {
		r = receive(fd, &text, deadline);
		if (r < 0)
			return r;
		if (r == 0 && (!head || end != SIZE_MAX))
			return -ECONNRESET;
		if (r == 0)
			break;
		if (!head) {
			const char *blank = memmem(text.data, text.length, "\r\n\r\n", 4);

			if (!blank && text.length > HEAD_MAX)
				return -EBADMSG;
			if (!blank)
				continue;
			head = (size_t)(blank - text.data) + 4;
			r = parse_head(text.data, head, ret_status, &end);
			if (r < 0)
				return r;
		}
		if (text.length > ANSWER_MAX + HEAD_MAX)
			return -EFBIG;
	}
	if (end == SIZE_MAX)
		end = text.length;
	*ret = json_loadb(text.data + head, end - head, 0, &error);
	return *ret ? 0 : -EBADMSG;
}

int agent_ask(struct agent *agent, const char *path, const json_t *body, int timeout_ms, unsigned *ret_status, json_t **ret)
{
	uint64_t deadline = clock_ms() + (uint64_t)timeout_ms;
	_cleanup_free_ char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
	_cleanup_buffer_ struct buffer request = {0};
	int r;

	if (body && !text)
		return -ENOMEM;
	buffer_printf(&request, "%s %s HTTP/1.1\r\nHost: heddle\r\n", body ? "POST" : "GET", path);
	if (body)
		buffer_printf(&request, "Content-Type: application/json\r\nContent-Length: %zu\r\n", strlen(text));
	buffer_add_string(&request, "\r\n");
	if (body)
		buffer_add_string(&request, text);
	if (request.failed)
		return -ENOMEM;
	r = send_all(agent->fd, request.data, request.length, deadline);
	return r < 0 ? r : read_answer(agent->fd, deadline, ret_status, ret);
}

void agent_quote(struct buffer *to, const char *text)
{
	for (; *text; text++) {
		if (isalnum((unsigned char)*text) || strchr("-_.", *text))
			buffer_add_char(to, *text);
		else
			buffer_printf(to, "%%%02X", (unsigned char)*text);
	}
}

/* --- what an answer that is no success comes to --- */

int agent_failure(unsigned status, const json_t *answer, struct failure *failure)
{
	const char *message = json_string_value(json_object_get(answer, "error"));
	const json_t *lines = json_object_get(answer, "details"), *line;
	unsigned code = FAILURE_AGENT;
	size_t i;

	if (status >= 200 && status < 300)
		return 0;
	if (status == 400)
		code = FAILURE_CONFIG;
	else if (status == 503)
		code = FAILURE_AGAIN;
	json_array_foreach (lines, i, line)
		buffer_printf(&failure->details, "%s%s", i ? "\n" : "", json_string_value(line) ?: "");
	line = json_array_get(lines, 0);
	return fail_with(failure, code, -EREMOTEIO, "heddled: %s%s%s", message ? message : "no reason given", line ? ": " : "",
		line ? json_string_value(line) : "");
}
