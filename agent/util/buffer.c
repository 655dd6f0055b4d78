// SPDX-License-Identifier: Apache-2.0
#include <util/buffer.h>

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void buffer_clear(struct buffer *buffer)
{
	free(buffer->data);
	*buffer = (struct buffer){0};
}

char *buffer_reserve(struct buffer *buffer, size_t more)
{
	if (buffer->failed)
		return NULL;
	if (more >= SIZE_MAX / 4 - buffer->length) {
		buffer->failed = true;
		return NULL;
	}
	if (buffer->size - buffer->length <= more) {
		size_t size = buffer->size ? buffer->size * 2 : 128;
		while (size - buffer->length <= more)
			size *= 2;
		char *data = realloc(buffer->data, size);
		if (!data) {
			buffer->failed = true;
			return NULL;
		}
		buffer->data = data;
		buffer->size = size;
	}
	return buffer->data + buffer->length;
}

void buffer_add(struct buffer *buffer, const void *data, size_t length)
{
	char *at = buffer_reserve(buffer, length);

	if (!at)
		return;
	if (length)
		memcpy(at, data, length);
	at[length] = '\0';
	buffer->length += length;
}

void buffer_add_string(struct buffer *buffer, const char *text)
{
	buffer_add(buffer, text, strlen(text));
}

void buffer_add_char(struct buffer *buffer, char c)
{
	buffer_add(buffer, &c, 1);
}

void buffer_vprintf(struct buffer *buffer, const char *format, va_list args)
{
	va_list again;

	va_copy(again, args);
	int length = vsnprintf(NULL, 0, format, args);
	char *at = length < 0 ? NULL : buffer_reserve(buffer, (size_t)length);
	if (at) {
		vsnprintf(at, (size_t)length + 1, format, again);
		buffer->length += (size_t)length;
	}
	va_end(again);
}

void buffer_printf(struct buffer *buffer, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	buffer_vprintf(buffer, format, args);
	va_end(args);
}
