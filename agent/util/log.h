/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages for the administrator, on stderr. Where stderr is not a terminal each line begins with `<N>`, the syslog level,
 * which the journal takes off and keeps (sd-daemon(3)).
 *
 * An error is reported once, by the layer that knows the names: `return log_err(r, "cannot attach %s to %s", prog, dev)`.
 */
#ifndef HEDDLE_UTIL_LOG_H
#define HEDDLE_UTIL_LOG_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <syslog.h>

void log_set_level(int level); /* LOG_ERR .. LOG_DEBUG; LOG_INFO at first */
int log_level(void);
int log_level_from_name(const char *name); /* error, warning, notice, info, debug or 3..7; -EINVAL */

/* r: 0, or a negative errno whose text is appended. Returns r. Newlines in the message make several lines, each with its prefix.
 */
int log_message(int level, int r, const char *format, ...) __attribute__((format(printf, 3, 4)));
int log_messagev(int level, int r, const char *format, va_list args) __attribute__((format(printf, 3, 0)));

/* The level is checked first, so that arguments of a debug message cost nothing when it is off. */
#define log_at(level, r, ...) \
	({ \
		int log_r_ = (r); \
		log_level() >= (level) ? log_message((level), log_r_, __VA_ARGS__) : log_r_; \
	})
#define log_err(r, ...) log_at(LOG_ERR, r, __VA_ARGS__)
#define log_warn(r, ...) log_at(LOG_WARNING, r, __VA_ARGS__)
#define log_notice(...) ((void)log_at(LOG_NOTICE, 0, __VA_ARGS__))
#define log_info(...) ((void)log_at(LOG_INFO, 0, __VA_ARGS__))
#define log_debug(...) ((void)log_at(LOG_DEBUG, 0, __VA_ARGS__))

/* At most `burst` in `interval_ms`: static struct log_limit limit = {.burst = 10, .interval_ms = 1000}; */
struct log_limit {
	unsigned burst;
	uint32_t interval_ms;
	uint64_t begin_ms;
	unsigned passed;
	uint64_t held_back; /* since the last one that passed; *suppressed gets it */
};
/* True: say it. suppressed (may be NULL): how many were not said since. */
bool log_limit_pass(struct log_limit *limit, uint64_t *suppressed);

#endif
