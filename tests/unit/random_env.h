/* SPDX-License-Identifier: Apache-2.0 */
/* For random tests: numbers that HEDDLE_SEED repeats, and documents written piece by piece. */
#ifndef HEDDLE_TESTS_RANDOM_ENV_H
#define HEDDLE_TESTS_RANDOM_ENV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Begins the numbers anew, with HEDDLE_SEED or the time, and says with which. */
void random_begin(const char *what);
/* A number of the environment. */
unsigned random_setting(const char *name, unsigned otherwise);
uint32_t below(uint32_t n);
bool chance(uint32_t percent);

struct text {
	char at[65536];
	size_t n;
};
/* printf behind what is there. */
__attribute__((format(printf, 2, 3))) void add(struct text *text, const char *format, ...);

#endif
