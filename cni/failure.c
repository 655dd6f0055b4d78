/* SPDX-License-Identifier: Apache-2.0 */
#include <cni/cni.h>

#include <errno.h>
#include <stdarg.h>
#include <string.h>

void failure_clear(struct failure *failure)
{
	buffer_clear(&failure->message);
	buffer_clear(&failure->details);
	failure->code = 0;
}

int fail_with(struct failure *failure, unsigned code, int r, const char *format, ...)
{
	va_list args;

	if (r == 0)
		r = -EINVAL;
	if (failure->code)
		return r;
	failure->code = code;
	va_start(args, format);
	buffer_vprintf(&failure->message, format, args);
	va_end(args);
	return r;
}

/* Text of others may be anything; JSON is UTF-8. */
static json_t *as_text(const struct buffer *buffer)
{
	json_t *text;

	if (!buffer->data)
		return json_string("");
	text = json_stringn(buffer->data, buffer->length);
	if (text)
		return text;
	for (size_t i = 0; i < buffer->length; i++)
		if ((unsigned char)buffer->data[i] >= 0x80)
			buffer->data[i] = '?';
	return json_stringn(buffer->data, buffer->length);
}

json_t *failure_json(const struct failure *failure, const char *version)
{
	return json_pack("{s:s, s:i, s:o, s:o}", "cniVersion", version, "code", (int)failure->code, "msg",
		as_text(&failure->message), "details", as_text(&failure->details));
}
