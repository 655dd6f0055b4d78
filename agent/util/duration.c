// SPDX-License-Identifier: Apache-2.0
#include <util/duration.h>

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <util/cleanup.h>

#define DURATION_MAX ((uint64_t)1 << 53)

static const struct {
	char name[3];
	uint64_t ms;
} units[] = {{"d", 86400000}, {"h", 3600000}, {"m", 60000}, {"s", 1000}, {"ms", 1}};

int duration_parse(const char *text, uint64_t *ret_ms)
{
	uint64_t sum = 0;
	size_t next = 0;

	if (!*text)
		return -EINVAL;
	while (*text) {
		uint64_t number = 0;
		size_t digits = strspn(text, "0123456789"), letters, unit;

		if (digits == 0)
			return -EINVAL;
		for (size_t i = 0; i < digits; i++) {
			number = number * 10 + (uint64_t)(text[i] - '0');
			if (number > DURATION_MAX)
				return -ERANGE;
		}
		text += digits;
		letters = strspn(text, "abcdefghijklmnopqrstuvwxyz");
		for (unit = next; unit < ARRAY_SIZE(units); unit++)
			if (strlen(units[unit].name) == letters && memcmp(text, units[unit].name, letters) == 0)
				break;
		if (unit == ARRAY_SIZE(units))
			return -EINVAL;
		if (number > DURATION_MAX / units[unit].ms || sum + number * units[unit].ms > DURATION_MAX)
			return -ERANGE;
		sum += number * units[unit].ms;
		text += letters;
		next = unit + 1;
	}
	*ret_ms = sum;
	return 0;
}

char *duration_format(uint64_t ms, char text[DURATION_TEXT_MAX])
{
	size_t at = 0;

	if (ms == 0)
		snprintf(text, DURATION_TEXT_MAX, "0s");
	for (size_t unit = 0; unit < ARRAY_SIZE(units); unit++) {
		uint64_t number = ms / units[unit].ms;

		if (number == 0)
			continue;
		at += (size_t)snprintf(text + at, DURATION_TEXT_MAX - at, "%" PRIu64 "%s", number, units[unit].name);
		ms %= units[unit].ms;
	}
	return text;
}
