/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

#include <tests/unit/random_env.h>

static uint64_t state;

unsigned random_setting(const char *name, unsigned otherwise)
{
	const char *text = getenv(name);

	return text ? (unsigned)strtoul(text, NULL, 0) : otherwise;
}

void random_begin(const char *what)
{
	uint64_t seed = random_setting("HEDDLE_SEED", (unsigned)time(NULL));

	print_message("%s: HEDDLE_SEED=%llu\n", what, (unsigned long long)seed);
	state = seed * 0x9e3779b97f4a7c15ull + 1;
}

uint32_t below(uint32_t n)
{
	/* xorshift64* (Vigna 2016) */
	state ^= state >> 12;
	state ^= state << 25;
	state ^= state >> 27;
	return (uint32_t)((state * 0x2545f4914f6cdd1dull) >> 32) % n;
}

bool chance(uint32_t percent)
{
	return below(100) < percent;
}

void add(struct text *text, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	text->n += (size_t)vsnprintf(text->at + text->n, sizeof(text->at) - text->n, format, arguments);
	va_end(arguments);
	assert_true(text->n < sizeof(text->at));
}
