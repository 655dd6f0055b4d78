/* SPDX-License-Identifier: Apache-2.0 */
/* A folder of a test's own that looks like some machine's /sys or /proc. */
#ifndef HEDDLE_TESTS_UNIT_TREE_ENV_H
#define HEDDLE_TESTS_UNIT_TREE_ENV_H

#include <stddef.h>

void tree_make(char *root, size_t size); /* writes its path */
void tree_remove(const char *root);	 /* with all that is in it; links are not followed */
/* Folders on the way are made. */
void tree_put(const char *root, const char *path, const char *text);
void tree_put_bytes(const char *root, const char *path, const void *data, size_t length);
void tree_link(const char *root, const char *path, const char *target);

#endif
