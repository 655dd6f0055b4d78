// SPDX-License-Identifier: Apache-2.0
#include <model/write.h>

#include <inttypes.h>
#include <string.h>

#include <util/addr.h>

/*
 * `{` and `[` are followed by no comma, everything else is: the writer looks at what stands there last. That needs no state,
 * and strings cannot confuse it, since they end with a quote.
 */
void write_comma(struct buffer *out)
{
	if (out->length && !strchr("{[:\n", out->data[out->length - 1]))
		buffer_add_char(out, ',');
}

void write_string(struct buffer *out, const char *text)
{
	const unsigned char *at = (const unsigned char *)text, *from = at;

	buffer_add_char(out, '"');
	for (; *at; at++) {
		/* C1 controls, U+2028 and the like are valid in JSON as they are, but not in YAML: the decoder sees to that. */
		if (*at >= 0x20 && *at != '"' && *at != '\\' && *at != 0x7f)
			continue;
		buffer_add(out, from, (size_t)(at - from));
		if (*at == '"' || *at == '\\')
			buffer_printf(out, "\\%c", *at);
		else
			buffer_printf(out, "\\u%04x", *at);
		from = at + 1;
	}
	buffer_add(out, from, (size_t)(at - from));
	buffer_add_char(out, '"');
}

void write_key(struct buffer *out, const char *name)
{
	write_comma(out);
	write_string(out, name);
	buffer_add_char(out, ':');
}

void write_text(struct buffer *out, const char *name, const char *text)
{
	write_key(out, name);
	write_string(out, text);
}

void write_number(struct buffer *out, const char *name, uint64_t number)
{
	write_key(out, name);
	buffer_printf(out, "%" PRIu64, number);
}

void write_open(struct buffer *out, const char *name, char bracket)
{
	write_key(out, name);
	buffer_add_char(out, bracket);
}

void write_item(struct buffer *out, char bracket)
{
	write_comma(out);
	buffer_add_char(out, bracket);
}

void write_prefix(struct buffer *out, const struct prefix *prefix)
{
	char text[ADDR_TEXT_MAX];

	write_comma(out);
	write_string(out, addr_format_cidr(&prefix->addr, prefix->length, text));
}

void write_bool(struct buffer *out, const char *name, bool value)
{
	write_key(out, name);
	buffer_add_string(out, value ? "true" : "false");
}

void write_labels(struct buffer *out, const char *name, const struct label *list, size_t n)
{
	if (!n)
		return;
	write_open(out, name, '{');
	for (size_t i = 0; i < n; i++)
		write_text(out, list[i].key, list[i].value);
	buffer_add_char(out, '}');
}
