/* SPDX-License-Identifier: Apache-2.0 */
/* Durations as people write them: 8h, 60s, 500ms, 1h30m, 2d. */
#ifndef HEDDLE_UTIL_DURATION_H
#define HEDDLE_UTIL_DURATION_H

#include <stddef.h>
#include <stdint.h>

/* Units d, h, m, s, ms, each once at most and from large to small; a number without a unit is refused. -EINVAL; -ERANGE over 2^53
 * ms. */
int duration_parse(const char *text, uint64_t *ret_ms);

#define DURATION_TEXT_MAX 40
/* The shortest way to write it that duration_parse() reads back: "1h30m", "0s". Returns text. */
char *duration_format(uint64_t ms, char text[DURATION_TEXT_MAX]);

#endif
