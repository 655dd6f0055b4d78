// SPDX-License-Identifier: Apache-2.0
#include <model/decode.h>

#include <stdarg.h>
#include <stdlib.h>

#include <util/buffer.h>

#define ERRORS_SHOWN 100

void diag_clear(struct diag *diag)
{
	free(diag->text);
	*diag = (struct diag){0};
}

void diag_add(struct diag *diag, const char *file, uint32_t line, const char *path, const char *format, ...)
{
	struct buffer text = {.data = diag->text, .length = diag->length, .size = diag->length ? diag->length + 1 : 0};
	va_list args;

	diag->errors++;
	if (diag->errors > ERRORS_SHOWN + 1)
		return;
	if (text.length)
		buffer_add_char(&text, '\n');
	if (diag->errors > ERRORS_SHOWN) {
		buffer_add_string(&text, "further mistakes are not shown");
	} else {
		/* What came through the API has no file; the line still tells where. */
		if (file && line)
			buffer_printf(&text, "%s:%u: ", file, line);
		else if (file)
			buffer_printf(&text, "%s: ", file);
		else if (line)
			buffer_printf(&text, "line %u: ", line);
		if (path && *path)
			buffer_printf(&text, "%s: ", path);
		va_start(args, format);
		buffer_vprintf(&text, format, args);
		va_end(args);
	}
	diag->text = text.data;
	diag->length = text.length;
}
