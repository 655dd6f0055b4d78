/* SPDX-License-Identifier: Apache-2.0 */
/*
 * With a configuration that cannot be read and no last good state, the uplinks are still to be closed, and only a Host document
 * names them: this looks for one that decodes by itself among documents that do not.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include <controller_internal.h>
#include <util/file.h>

#define FILE_LIMIT (64u << 20)

static struct object *host_in_text(const char *file, const char *text, size_t length)
{
	struct object_list list = {0};
	struct diag diag = {0};
	struct object *host = NULL;

	if (decode_documents(file, text, length, &list, &diag) >= 0)
		host = (struct object *)policy_host(&list);
	if (host)
		object_ref(host);
	object_list_clear(&list);
	diag_clear(&diag);
	return host;
}

/* Document by document; lines that begin with `---` part them. */
static struct object *host_in_documents(const char *file, char *text, size_t length)
{
	char *end = text + length, *begin = text;

	while (begin < end) {
		char *next = begin;
		struct object *host;

		do {
			char *newline = memchr(next, '\n', end - next);

			next = newline ? newline + 1 : end;
		} while (next < end && strncmp(next, "---", 3));
		host = host_in_text(file, begin, next - begin);
		if (host)
			return host;
		begin = next;
	}
	return NULL;
}

static struct object *host_in_file(int directory, const char *path, const char *shown)
{
	_cleanup_free_ char *text = NULL;
	struct object *host;
	size_t length;

	if (file_read(directory, path, FILE_LIMIT, &text, &length, NULL) < 0)
		return NULL;
	host = host_in_text(shown, text, length);
	return host ? host : host_in_documents(shown, text, length);
}

static int is_document(const struct dirent *entry)
{
	const char *dot = strrchr(entry->d_name, '.');

	return entry->d_name[0] != '.' && dot && (!strcmp(dot, ".yaml") || !strcmp(dot, ".yml") || !strcmp(dot, ".json"));
}

static struct object *host_in_directory(const char *path)
{
	_cleanup_close_ int directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct object *host = NULL;
	struct dirent **entries;
	int n;

	if (directory < 0)
		return NULL;
	n = scandirat(directory, ".", &entries, is_document, alphasort);
	for (int i = 0; i < n; i++) {
		_cleanup_free_ char *shown = NULL;

		if (!host && asprintf(&shown, "%s/%s", path, entries[i]->d_name) > 0)
			host = host_in_file(directory, entries[i]->d_name, shown);
		free(entries[i]);
	}
	if (n >= 0)
		free(entries);
	return host;
}

struct object *rescue_host(const char *const *paths, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		struct object *host = host_in_directory(paths[i]);

		if (!host)
			host = host_in_file(AT_FDCWD, paths[i], paths[i]);
		if (host)
			return host;
	}
	return NULL;
}
