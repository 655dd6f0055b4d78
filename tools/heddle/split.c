/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "split.h"

static int keep(struct splitter *s, const char *text, size_t length)
{
	size_t size = s->size ? s->size : 4096;
	char *larger;

	if (s->length + length > SPLIT_MEMBER_MAX)
		return -E2BIG;
	while (size < s->length + length)
		size *= 2;
	if (size != s->size) {
		larger = realloc(s->data, size);
		if (!larger)
			return -ENOMEM;
		s->data = larger;
		s->size = size;
	}
	memcpy(s->data + s->length, text, length);
	s->length += length;
	return 0;
}

static int give(struct splitter *s, split_member member, void *userdata)
{
	json_auto_t *value = json_loadb(s->data, s->length, 0, NULL);

	s->length = 0;
	s->collecting = false;
	return value ? member(value, userdata) : -EINVAL;
}

static void in_string(struct splitter *s, char c)
{
	if (s->escaped)
		s->escaped = false;
	else if (c == '\\')
		s->escaped = true;
	else if (c == '"')
		s->in_string = false;
	else if (s->depth == 1 && s->key_length < sizeof(s->key))
		s->key[s->key_length++] = c;
}

static bool is_items(const struct splitter *s)
{
	return s->key_length == 5 && memcmp(s->key, "items", 5) == 0;
}

int splitter_feed(struct splitter *s, const char *text, size_t length, split_member member, void *userdata)
{
	size_t start = 0; /* of what is to be kept of this piece */
	int r;

	for (size_t i = 0; i < length; i++) {
		char c = text[i];

		if (s->in_string) {
			in_string(s, c);
			continue;
		}
		if (s->whole && !strchr(" \t\r\n", c))
			return -EINVAL;
		if (c == '"') {
			s->in_string = true;
			s->key_length = s->depth == 1 ? 0 : s->key_length;
		} else if (c == '{' || c == '[') {
			s->depth++;
			if (s->depth == 2)
				s->in_items = c == '[' && is_items(s);
			if (s->in_items && s->depth == 3) {
				s->collecting = true;
				start = i;
			}
		} else if (c == '}' || c == ']') {
			if (s->depth == 0)
				return -EINVAL;
			s->depth--;
			s->whole = s->depth == 0;
			if (!s->collecting || s->depth != 2)
				continue;
			r = keep(s, text + start, i + 1 - start);
			r = r ? r : give(s, member, userdata);
			if (r)
				return r;
		} else if (s->depth == 0 && !strchr(" \t\r\n", c)) {
			return -EINVAL;
		}
	}
	return s->collecting ? keep(s, text + start, length - start) : 0;
}

bool splitter_whole(const struct splitter *s)
{
	return s->whole;
}

void splitter_clear(struct splitter *s)
{
	free(s->data);
	*s = (struct splitter){0};
}
