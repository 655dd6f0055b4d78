/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include <tests/unit/source_env.h>
#include <util/buffer.h>
#include <util/cleanup.h>
#include <util/file.h>
#include <util/log.h>

static char root[64];

const char *source_root(void)
{
	return root;
}

const char *at(const char *name)
{
	static char paths[8][256];
	static unsigned turn;
	char *path = paths[turn++ % 8];

	snprintf(path, sizeof(paths[0]), "%s/%s", root, name);
	return path;
}

int source_set_up(void **state)
{
	(void)state;
	snprintf(root, sizeof(root), "/tmp/heddle-source-XXXXXX");
	log_set_level(LOG_ERR);
	return mkdtemp(root) ? 0 : -1;
}

int source_tear_down(void **state)
{
	char command[100];

	(void)state;
	snprintf(command, sizeof(command), "rm -rf %s", root);
	return system(command);
}

void put_file(const char *name, const char *text)
{
	assert_int_equal(file_write(AT_FDCWD, at(name), text, strlen(text), 0644), 0);
}

void append_file(const char *name, const char *text)
{
	_cleanup_close_ int fd = open(at(name), O_WRONLY | O_APPEND | O_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(file_write_all(fd, text, strlen(text)), 0);
}

struct object_list decode(const char *file, const char *text)
{
	_cleanup_diag_ struct diag diag = {0};
	struct object_list list = {0};

	if (decode_documents(file, text, strlen(text), &list, &diag) < 0)
		fail_msg("refused: %s", diag.text);
	return list;
}

struct object *decode_one(const char *text)
{
	struct object_list list = decode(NULL, text);
	struct object *object;

	assert_int_equal(list.n, 1);
	object = object_ref(list.items[0]);
	object_list_clear(&list);
	return object;
}

void assert_objects(const struct object_list *list, const char *names)
{
	_cleanup_buffer_ struct buffer text = {0};

	buffer_add_string(&text, "");
	for (size_t i = 0; i < list->n; i++)
		buffer_printf(&text, "%s%s", i ? " " : "", list->items[i]->name);
	assert_string_equal(text.data, names);
}

struct files *open_files(const char *name)
{
	struct files *files;
	const char *paths[] = {at(name)};

	assert_int_equal(files_new(paths, 1, &files), 0);
	return files;
}

void assert_load(struct files *files, const char *names)
{
	_cleanup_object_list_ struct object_list list = {0};
	_cleanup_diag_ struct diag diag = {0};

	if (files_load(files, &list, &diag) < 0)
		fail_msg("refused: %s", diag.text);
	assert_objects(&list, names);
}

void assert_load_fails(struct files *files, int error, const char *message)
{
	_cleanup_object_list_ struct object_list list = {0};
	_cleanup_diag_ struct diag diag = {0};

	assert_int_equal(files_load(files, &list, &diag), error);
	assert_int_equal(list.n, 0);
	/* The folder's name differs from run to run. */
	const char *text = diag.text;
	assert_non_null(text);
	assert_int_equal(strncmp(text, root, strlen(root)), 0);
	assert_string_equal(text + strlen(root), message);
}
