/* SPDX-License-Identifier: Apache-2.0 */
#include <ftw.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tree_env.h"
#include <util/file.h>

#include <cmocka.h>

void tree_make(char *root, size_t size)
{
	snprintf(root, size, "/tmp/heddle-tree-XXXXXX");
	assert_non_null(mkdtemp(root));
}

static int remove_one(const char *path, const struct stat *status, int type, struct FTW *where)
{
	(void)status;
	(void)type;
	(void)where;
	return remove(path);
}

void tree_remove(const char *root)
{
	nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* Where it is, in a folder that is there. */
static void locate(const char *root, const char *path, char full[PATH_MAX])
{
	char *slash;

	assert_true(snprintf(full, PATH_MAX, "%s/%s", root, path) < PATH_MAX);
	slash = strrchr(full, '/');
	*slash = '\0';
	assert_int_equal(file_make_directory(full, 0755), 0);
	*slash = '/';
}

void tree_put_bytes(const char *root, const char *path, const void *data, size_t length)
{
	char full[PATH_MAX];
	FILE *file;

	locate(root, path, full);
	file = fopen(full, "w");
	assert_non_null(file);
	assert_int_equal(fwrite(data, 1, length, file), length);
	fclose(file);
}

void tree_put(const char *root, const char *path, const char *text)
{
	tree_put_bytes(root, path, text, strlen(text));
}

void tree_link(const char *root, const char *path, const char *target)
{
	char full[PATH_MAX];

	locate(root, path, full);
	assert_int_equal(symlink(target, full), 0);
}
