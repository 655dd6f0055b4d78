// SPDX-License-Identifier: Apache-2.0
/*
 * The last good state of the file source, STATE_DIR/files.last-good: the texts themselves, so that messages and explain name
 * the lines of the files as ever. A head of one line a file, an empty line, the texts one behind the other:
 *
 *   heddle-files 1\n
 *   HASH LENGTH PATH\n
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include <source/files_internal.h>
#include <util/buffer.h>
#include <util/cleanup.h>
#include <util/file.h>
#include <util/hash.h>
#include <util/log.h>

#define STATE_NAME "files.last-good"
#define STATE_MAGIC "heddle-files 1\n"

struct piece {
	const char *path;
	size_t path_length;
	uint64_t hash;
	const char *text;
	size_t length;
};

struct last_good {
	char *map;
	size_t size, head_length;
	struct piece *pieces;
	size_t n;
};

static void last_good_clear(struct last_good *last)
{
	if (last->map)
		munmap(last->map, last->size);
	free(last->pieces);
	*last = (struct last_good){0};
}
#define _cleanup_last_good_ __attribute__((cleanup(last_good_clear)))

/* One line of the head; what follows it. NULL: damaged. */
static const char *parse_line(const char *at, const char *end, struct piece *ret)
{
	const char *newline = memchr(at, '\n', (size_t)(end - at));
	char numbers[64];
	int scanned = 0;
	size_t n;

	if (!newline)
		return NULL;
	n = (size_t)(newline - at) < sizeof(numbers) - 1 ? (size_t)(newline - at) : sizeof(numbers) - 1;
	memcpy(numbers, at, n);
	numbers[n] = '\0';
	if (sscanf(numbers, "%16" SCNx64 " %20zu %n", &ret->hash, &ret->length, &scanned) != 2 || at + scanned >= newline)
		return NULL;
	ret->path = at + scanned;
	ret->path_length = (size_t)(newline - ret->path);
	return newline + 1;
}

static int parse(struct last_good *last)
{
	const char *at = last->map, *end = last->map + last->size;

	if (last->size < strlen(STATE_MAGIC) || memcmp(at, STATE_MAGIC, strlen(STATE_MAGIC)) != 0)
		return -EINVAL;
	for (at += strlen(STATE_MAGIC); at < end && *at != '\n';) {
		struct piece *pieces = realloc(last->pieces, (last->n + 1) * sizeof(*pieces));

		if (!pieces)
			return -ENOMEM;
		last->pieces = pieces;
		at = parse_line(at, end, &pieces[last->n]);
		if (!at)
			return -EINVAL;
		last->n++;
	}
	if (at >= end)
		return -EINVAL;
	at++;
	last->head_length = (size_t)(at - last->map);
	for (size_t i = 0; i < last->n; i++) {
		struct piece *piece = &last->pieces[i];

		if (piece->length > (size_t)(end - at))
			return -EINVAL;
		piece->text = at;
		at += piece->length;
	}
	return at == end ? 0 : -EINVAL;
}

static int open_last_good(int dir_fd, struct last_good *ret)
{
	_cleanup_close_ int fd = -1;
	struct last_good last = {0};
	struct stat status;
	int r;

	fd = openat(dir_fd, STATE_NAME, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &status) < 0)
		return -errno;
	if (status.st_size <= 0)
		return -EINVAL;
	last.size = (size_t)status.st_size;
	last.map = mmap(NULL, last.size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (last.map == MAP_FAILED)
		return -errno;
	r = parse(&last);
	if (r < 0) {
		last_good_clear(&last);
		return r;
	}
	*ret = last;
	return 0;
}

/* --- saving --- */

static const char *find_text(const struct file_entry *entry, const struct last_good *last)
{
	if (entry->text)
		return entry->text;
	/* Not read again since it was saved. */
	for (size_t i = 0; i < last->n; i++)
		if (last->pieces[i].hash == entry->hash && last->pieces[i].length == entry->length)
			return last->pieces[i].text;
	return NULL;
}

/* Unchanged and thus not read, but not in the last good state either: that one was lost or damaged. */
static int read_again(struct file_entry *entry)
{
	size_t length;
	int r = file_read(AT_FDCWD, entry->path, DECODE_BYTES_OUTSIDE, &entry->text, &length, NULL);

	if (r == -ENOENT)
		return -ESTALE;
	if (r < 0)
		return r;
	if (length == entry->length && hash_bytes(1, entry->text, length) == entry->hash)
		return 0;
	free(TAKE_PTR(entry->text));
	return -ESTALE; /* changed just now: the next load brings us here again */
}

static int save(struct files *files, int dir_fd)
{
	_cleanup_last_good_ struct last_good last = {0};
	_cleanup_free_ struct iovec *pieces = NULL;
	_cleanup_buffer_ struct buffer head = {0};
	size_t n = 1;

	pieces = calloc(files->entries.n + 1, sizeof(*pieces));
	if (!pieces)
		return -ENOMEM;
	buffer_add_string(&head, STATE_MAGIC);
	for (size_t i = 0; i < files->entries.n; i++) {
		const struct file_entry *entry = &files->entries.items[i];

		if (entry->gone || strchr(entry->path, '\n'))
			continue;
		buffer_printf(&head, "%016" PRIx64 " %zu %s\n", entry->hash, entry->length, entry->path);
	}
	buffer_add_char(&head, '\n');
	if (head.failed)
		return -ENOMEM;
	int r = open_last_good(dir_fd, &last);
	if (r < 0 && r != -ENOENT && r != -EINVAL)
		return r;
	if (last.map && last.head_length == head.length && memcmp(last.map, head.data, head.length) == 0)
		return 0;

	pieces[0] = (struct iovec){.iov_base = head.data, .iov_len = head.length};
	for (size_t i = 0; i < files->entries.n; i++) {
		struct file_entry *entry = &files->entries.items[i];
		const char *text;

		if (entry->gone || strchr(entry->path, '\n'))
			continue;
		text = find_text(entry, &last);
		if (!text) {
			r = read_again(entry);
			if (r < 0)
				return r;
			text = entry->text;
		}
		pieces[n++] = (struct iovec){.iov_base = (void *)(uintptr_t)text, .iov_len = entry->length};
	}
	return file_write_pieces(dir_fd, STATE_NAME, pieces, n, 0600);
}

int files_save(struct files *files, const char *state_dir)
{
	_cleanup_close_ int dir_fd = -1;
	int r;

	if (!files->good)
		return -ESTALE; /* refused meanwhile: what was in force before is not here any more */
	r = file_make_directory(state_dir, 0700);
	if (r < 0)
		return r;
	dir_fd = open(state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir_fd < 0)
		return -errno;
	r = save(files, dir_fd);
	files_drop_texts(files);
	return r;
}

int files_load_last_good(const char *state_dir, struct object_list *list, struct diag *diag)
{
	_cleanup_last_good_ struct last_good last = {0};
	_cleanup_object_list_ struct object_list objects = {0};
	_cleanup_close_ int dir_fd = -1;
	size_t before = list->n;
	int r;

	dir_fd = open(state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir_fd < 0)
		return -errno;
	r = open_last_good(dir_fd, &last);
	if (r == -EINVAL)
		diag_add(diag, state_dir, 0, NULL, "want the last good files in " STATE_NAME ", got a damaged one");
	for (size_t i = 0; i < last.n && r == 0; i++) {
		const struct piece *piece = &last.pieces[i];
		_cleanup_free_ char *path = strndup(piece->path, piece->path_length);

		if (!path)
			return -ENOMEM;
		if (hash_bytes(1, piece->text, piece->length) != piece->hash) {
			diag_add(diag, state_dir, 0, NULL, "want the last good %s in " STATE_NAME ", got a damaged one", path);
			r = -EINVAL;
		} else {
			r = decode_documents(path, piece->text, piece->length, &objects, diag);
		}
	}
	for (size_t i = 0; i < objects.n && r == 0; i++)
		r = object_list_add(list, objects.items[i]);
	while (r < 0 && list->n > before)
		object_unref(list->items[--list->n]);
	return r;
}
