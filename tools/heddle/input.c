/* SPDX-License-Identifier: Apache-2.0 */
/* What people type and what they hand in: numbers and files; and the messages that answer a mistake. */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <util/cleanup.h>

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
	_cleanup_close_ int opened = -1;
	_cleanup_free_ char *text = NULL;
	size_t length = 0, size = 0;
	int fd = STDIN_FILENO;

	if (strcmp(file, "-") != 0) {
		opened = open(file, O_RDONLY | O_CLOEXEC);
		fd = opened;
		if (fd < 0)
			return fail(CLI_REFUSED, "%s: %m", file);
	}
	for (;;) {
		ssize_t n;

		if (length == size) {
			char *larger = realloc(text, (size ? 2 * size : 65536) + 1);

			if (!larger)
				return fail(CLI_REFUSED, "out of memory");
			text = larger;
			size = size ? 2 * size : 65536;
		}
		n = read(fd, text + length, size - length);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return fail(CLI_REFUSED, "%s: %m", file);
		if (n == 0)
			break;
		length += (size_t)n;
		if (length > CLI_DOCUMENT_MAX)
			return fail(CLI_REFUSED, "%s: more than %u MiB of documents", file, CLI_DOCUMENT_MAX >> 20);
	}
	text[length] = '\0';
	*ret = TAKE_PTR(text);
	*ret_length = length;
	return 0;
}
