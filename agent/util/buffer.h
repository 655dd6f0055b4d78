/* SPDX-License-Identifier: Apache-2.0 */
/* A growing text. An allocation that fails is remembered and shows at the end, so that writers need no check at each step. */
#ifndef HEDDLE_UTIL_BUFFER_H
#define HEDDLE_UTIL_BUFFER_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

struct buffer {
	char *data; /* NUL-terminated when not NULL; owned */
	size_t length, size;
	bool failed; /* no memory; nothing more is added */
};

void buffer_clear(struct buffer *buffer);
/* Room for `more` bytes at the end, to be written by the caller. NULL: no memory. */
char *buffer_reserve(struct buffer *buffer, size_t more);
void buffer_add(struct buffer *buffer, const void *data, size_t length);
void buffer_add_string(struct buffer *buffer, const char *text);
void buffer_add_char(struct buffer *buffer, char c);
void buffer_printf(struct buffer *buffer, const char *format, ...) __attribute__((format(printf, 2, 3)));
void buffer_vprintf(struct buffer *buffer, const char *format, va_list args) __attribute__((format(printf, 2, 0)));
#define _cleanup_buffer_ __attribute__((cleanup(buffer_clear)))

#endif
