// SPDX-License-Identifier: Apache-2.0
#include <util/log.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include <util/clock.h>
#include <util/cleanup.h>

static int level_now = LOG_INFO;

void log_set_level(int level)
{
	level_now = level;
}

int log_level(void)
{
	return level_now;
}

int log_level_from_name(const char *name)
{
	static const struct {
		const char *name;
		int level;
	} levels[] = {
		{"error", LOG_ERR},
		{"err", LOG_ERR},
		{"3", LOG_ERR},
		{"warning", LOG_WARNING},
		{"warn", LOG_WARNING},
		{"4", LOG_WARNING},
		{"notice", LOG_NOTICE},
		{"5", LOG_NOTICE},
		{"info", LOG_INFO},
		{"6", LOG_INFO},
		{"debug", LOG_DEBUG},
		{"7", LOG_DEBUG},
	};

	for (size_t i = 0; i < ARRAY_SIZE(levels); i++)
		if (strcasecmp(name, levels[i].name) == 0)
			return levels[i].level;
	return -EINVAL;
}

static void write_lines(int level, char *text)
{
	bool terminal = isatty(STDERR_FILENO);

	for (char *line = text, *end; line; line = end) {
		end = strchr(line, '\n');
		if (end)
			*end++ = '\0';
		if (!*line)
			continue;
		/* One write a line: lines of several processes on one stderr do not mix. */
		if (terminal)
			dprintf(STDERR_FILENO, "%s\n", line);
		else
			dprintf(STDERR_FILENO, "<%d>%s\n", level, line);
	}
}

int log_messagev(int level, int r, const char *format, va_list args)
{
	int saved = errno;
	_cleanup_free_ char *message = NULL, *full = NULL;

	if (vasprintf(&message, format, args) < 0)
		message = NULL;
	else if (r < 0 && asprintf(&full, "%s: %s", message, strerror(-r)) < 0)
		full = NULL;
	if (full || message)
		write_lines(level, full ? full : message);
	errno = saved;
	return r;
}

int log_message(int level, int r, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	log_messagev(level, r, format, args);
	va_end(args);
	return r;
}

bool log_limit_pass(struct log_limit *limit, uint64_t *suppressed)
{
	uint64_t now = clock_ms();

	if (now - limit->begin_ms >= limit->interval_ms || limit->begin_ms == 0) {
		limit->begin_ms = now ? now : 1;
		limit->passed = 0;
	}
	if (limit->passed >= limit->burst) {
		limit->held_back++;
		return false;
	}
	limit->passed++;
	if (suppressed)
		*suppressed = limit->held_back;
	limit->held_back = 0;
	return true;
}
