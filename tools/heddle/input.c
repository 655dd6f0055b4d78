/* SPDX-License-Identifier: Apache-2.0 */
/* What people type and what they hand in: numbers and files; and the messages that answer a mistake. */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "heddle.h"
#include "output.h"

int fail(int code, const char *format, ...)
{
	va_list arguments;
	char *text;
	int length;

	fflush(stdout); /* in order, when both go to one terminal */
	va_start(arguments, format);
	length = vasprintf(&text, format, arguments);
	va_end(arguments);
	if (length < 0)
		return code;
	fputs("heddle: ", stderr);
	print_text(stderr, text);
	fputc('\n', stderr);
	free(text);
	return code;
}

int parse_number(const char *text, long long min, long long max, long long *ret)
{
	long long value;
	char *end;

	/* strtoll takes leading blanks and signs, people who mistype should not get away with them */
	if (text[0] < '0' || text[0] > '9')
		return -EINVAL;
	errno = 0;
	value = strtoll(text, &end, 0);
	if (errno || *end || value < min || value > max)
		return -EINVAL;
	*ret = value;
	return 0;
}

int read_input(const char *file, char **ret, size_t *ret_length)
{
	bool standard_input = strcmp(file, "-") == 0;
	size_t length = 0, size = 65536;
	char *text = malloc(size + 1);
	int fd = standard_input ? STDIN_FILENO : open(file, O_RDONLY | O_CLOEXEC);
	int code = -1;

	if (fd < 0)
		code = fail(CLI_REFUSED, "%s: %m", file);
	if (!text && code < 0)
		code = fail(CLI_REFUSED, "out of memory");
	while (code < 0) {
		ssize_t n = read(fd, text + length, size - length);
		char *larger;

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			code = fail(CLI_REFUSED, "%s: %m", file);
			break;
		}
		if (n == 0)
			break;
		length += (size_t)n;
		if (length > CLI_DOCUMENT_MAX) {
			code = fail(CLI_REFUSED, "%s: more than %u MiB of documents", file, CLI_DOCUMENT_MAX >> 20);
			break;
		}
		if (length < size)
			continue;
		larger = realloc(text, size * 2 + 1);
		if (!larger) {
			code = fail(CLI_REFUSED, "out of memory");
			break;
		}
		text = larger;
		size *= 2;
	}
	if (!standard_input && fd >= 0)
		close(fd);
	if (code >= 0) {
		free(text);
		return code;
	}
	text[length] = 0;
	*ret = text;
	*ret_length = length;
	return 0;
}
