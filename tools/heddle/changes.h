/* SPDX-License-Identifier: Apache-2.0 */
/* What differs between two versions of an object, field by field. */
#ifndef HEDDLE_CLI_CHANGES_H
#define HEDDLE_CLI_CHANGES_H

#include <jansson.h>
#include <stdio.h>

/*
 * Prints a line a difference, each begun with `indent`:
 *   + PATH: VALUE          only in after
 *   - PATH: VALUE          only in before
 *   ~ PATH: OLD -> NEW     both
 * Members of a list are paired by their "name" where all have one, else by content, then by place, so that one rule
 * put in front does not make all others look changed. Returns the number of lines.
 */
size_t changes_print(FILE *file, const char *indent, const json_t *before, const json_t *after);

#endif
