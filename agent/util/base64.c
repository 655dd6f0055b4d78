// SPDX-License-Identifier: Apache-2.0
#include <util/base64.h>

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <util/cleanup.h>

static int value_of(char c)
{
	static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const char *at = c ? strchr(alphabet, c) : NULL;

	return at ? (int)(at - alphabet) : -1;
}

int base64_decode(const char *text, char **ret, size_t *ret_length)
{
	_cleanup_free_ char *out = malloc(strlen(text) / 4 * 3 + 4);
	size_t digits = 0, padding = 0, n = 0;
	uint32_t bits = 0;

	if (!out)
		return -ENOMEM;
	for (; *text; text++) {
		int value = value_of(*text);

		if (strchr(" \t\r\n", *text))
			continue;
		if (*text == '=') {
			padding++;
			continue;
		}
		if (value < 0 || padding)
			return -EINVAL;
		bits = bits << 6 | (uint32_t)value;
		if (digits++ % 4)
			out[n++] = (char)(bits >> (6 - 2 * ((digits - 1) % 4)));
	}
	if (digits % 4 == 1 || (digits + padding) % 4 || padding > 2)
		return -EINVAL;
	out[n] = '\0';
	*ret = TAKE_PTR(out);
	*ret_length = n;
	return 0;
}
