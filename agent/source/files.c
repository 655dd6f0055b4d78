// SPDX-License-Identifier: Apache-2.0
#include <source/files.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <source/files_internal.h>
#include <util/buffer.h>
#include <util/cleanup.h>
#include <util/clock.h>
#include <util/file.h>
#include <util/hash.h>
#include <util/log.h>

/* Two changes within one tick of the file system's clock leave the same times: what was read so soon after is read again. */
#define SETTLED_US 2000000

/* A file that is replaced again and again while we read cannot keep us for ever. */
#define READ_ATTEMPTS 3

static void entry_clear(struct file_entry *entry)
{
	free(entry->path);
	free(entry->text);
	object_list_clear(&entry->objects);
	*entry = (struct file_entry){0};
}

static void entries_clear(struct file_entries *entries)
{
	for (size_t i = 0; i < entries->n; i++)
		entry_clear(&entries->items[i]);
	free(entries->items);
	*entries = (struct file_entries){0};
}

int files_new(const char *const *paths, size_t n, struct files **ret)
{
	_cleanup_(files_free_p) struct files *files = calloc(1, sizeof(*files));

	if (!files)
		return -ENOMEM;
	files->paths = calloc(n ? n : 1, sizeof(*files->paths));
	if (!files->paths)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		bool again = false;

		for (size_t j = 0; j < files->n_paths; j++)
			again |= strcmp(files->paths[j], paths[i]) == 0;
		if (again)
			continue;
		files->paths[files->n_paths] = strdup(paths[i]);
		if (!files->paths[files->n_paths++])
			return -ENOMEM;
	}
	*ret = TAKE_PTR(files);
	return 0;
}

void files_free(struct files *files)
{
	if (!files)
		return;
	files_unwatch(files);
	entries_clear(&files->entries);
	for (size_t i = 0; i < files->n_paths; i++)
		free(files->paths[i]);
	free(files->paths);
	free(files);
}

bool files_is_document(const char *name)
{
	static const char *const endings[] = {".yaml", ".yml", ".json"};
	size_t n = strlen(name);

	if (name[0] == '.')
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(endings); i++) {
		size_t ending = strlen(endings[i]);

		if (n > ending && strcmp(name + n - ending, endings[i]) == 0)
			return true;
	}
	return false;
}

/* --- which files there are --- */

static int add_entry(struct file_entries *entries, const char *directory, const char *name)
{
	struct file_entry *items = realloc(entries->items, (entries->n + 1) * sizeof(*items));
	_cleanup_buffer_ struct buffer path = {0};

	if (!items)
		return -ENOMEM;
	entries->items = items;
	buffer_add_string(&path, directory);
	if (name) {
		if (!path.failed && path.data[path.length - 1] != '/')
			buffer_add_char(&path, '/');
		buffer_add_string(&path, name);
	}
	if (path.failed)
		return -ENOMEM;
	items[entries->n++] = (struct file_entry){.path = TAKE_PTR(path.data)};
	return 0;
}

static int document_filter(const struct dirent *entry)
{
	return files_is_document(entry->d_name);
}

static int compare_names(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name); /* not alphasort(): the order shall not depend on the locale */
}

static int scan_path(const char *path, struct file_entries *entries, struct diag *diag)
{
	struct dirent **names = NULL;
	struct stat status;
	int r = 0, n;

	if (stat(path, &status) < 0) {
		/* A directory may be missing. A document that was named may not: an editor may be replacing it just now. */
		const char *slash = strrchr(path, '/');

		if (errno == ENOENT && !files_is_document(slash ? slash + 1 : path))
			return 0;
		r = -errno;
		diag_add(diag, path, 0, NULL, "want a file or directory, got %s", strerror(-r));
		return r;
	}
	if (!S_ISDIR(status.st_mode))
		return add_entry(entries, path, NULL);
	n = scandir(path, &names, document_filter, compare_names);
	if (n < 0) {
		r = -errno;
		diag_add(diag, path, 0, NULL, "want a directory that can be read, got %s", strerror(-r));
		return r;
	}
	for (int i = 0; i < n; i++) {
		if (r == 0)
			r = add_entry(entries, path, names[i]->d_name);
		free(names[i]);
	}
	free(names);
	return r;
}

/* --- reading --- */

static bool same_file(const struct stat *a, const struct stat *b)
{
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size &&
	       a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec &&
	       a->st_ctim.tv_sec == b->st_ctim.tv_sec && a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

/* Most often the files are the same as last time, and so is the index. */
static struct file_entry *find_entry(const struct file_entries *entries, const char *path, size_t index)
{
	if (index < entries->n && strcmp(entries->items[index].path, path) == 0)
		return &entries->items[index];
	for (size_t i = 0; i < entries->n; i++)
		if (strcmp(entries->items[i].path, path) == 0)
			return &entries->items[i];
	return NULL;
}

static int copy_objects(struct object_list *to, const struct object_list *from)
{
	int r = 0;

	for (size_t i = 0; i < from->n && r == 0; i++)
		r = object_list_add(to, from->items[i]);
	return r;
}

/* The text of the entry, unless old is the same file and long unchanged; then its objects are taken over. */
static int read_entry(struct file_entry *entry, const struct file_entry *old, struct diag *diag)
{
	uint64_t now = clock_wall_us();
	struct stat status;
	int r;

	if (old && old->decoded && old->settled && stat(entry->path, &status) == 0 && same_file(&status, &old->status)) {
		entry->status = status;
		entry->hash = old->hash;
		entry->length = old->length;
		entry->settled = entry->decoded = true;
		return copy_objects(&entry->objects, &old->objects);
	}
	r = file_read(AT_FDCWD, entry->path, DECODE_BYTES_OUTSIDE, &entry->text, &entry->length, &entry->status);
	if (r == -ENOENT && lstat(entry->path, &status) < 0) {
		entry->gone = true; /* since the directory was read */
		return 0;
	}
	if (r == -EFBIG)
		diag_add(diag, entry->path, 0, NULL, "want at most %zu MiB, got more", DECODE_BYTES_OUTSIDE >> 20);
	else if (r == -EINVAL)
		diag_add(diag, entry->path, 0, NULL, "want a regular file, got a pipe, a socket or a device");
	else if (r < 0)
		diag_add(diag, entry->path, 0, NULL, "want a file that can be read, got %s", strerror(-r));
	if (r < 0)
		return r;
	entry->hash = hash_bytes(1, entry->text, entry->length);
	uint64_t changed = (uint64_t)entry->status.st_ctim.tv_sec * 1000000 + (uint64_t)entry->status.st_ctim.tv_nsec / 1000;
	entry->settled = changed + SETTLED_US < now;
	return 0;
}

static int decode_entry(struct file_entry *entry, const struct file_entry *old, struct diag *diag)
{
	int r;

	if (entry->decoded || entry->gone)
		return 0;
	/* Rewritten with the same content: the objects may be the same pointers, which spares the compiler the comparison. */
	if (old && old->decoded && old->hash == entry->hash && old->length == entry->length) {
		r = copy_objects(&entry->objects, &old->objects);
		entry->decoded = r == 0;
		return r;
	}
	r = decode_documents(entry->path, entry->text, entry->length, &entry->objects, diag);
	entry->decoded = r == 0;
	return r;
}

/* True: what was read is what is there, all of it at one time. */
static bool still_the_same(const struct files *files, const struct file_entries *entries)
{
	_cleanup_diag_ struct diag ignored = {0};
	struct file_entries again = {0};
	bool same = true;

	for (size_t i = 0; i < files->n_paths && same; i++)
		same = scan_path(files->paths[i], &again, &ignored) == 0;
	same = same && again.n == entries->n;
	for (size_t i = 0; i < entries->n && same; i++) {
		struct stat status;

		same = strcmp(again.items[i].path, entries->items[i].path) == 0 && stat(entries->items[i].path, &status) == 0 &&
		       same_file(&status, &entries->items[i].status);
	}
	entries_clear(&again);
	return same;
}

/* All files at one time, as far as that can be: a ConfigMap is swapped whole, and half of each shall not be mixed. */
static int read_all(struct files *files, struct file_entries *ret, struct diag *diag)
{
	for (int attempt = 1;; attempt++) {
		_cleanup_diag_ struct diag mistakes = {0};
		struct file_entries entries = {0};
		int r = 0;

		for (size_t i = 0; i < files->n_paths; i++) {
			int r2 = scan_path(files->paths[i], &entries, &mistakes);
			r = r < 0 ? r : r2;
		}
		for (size_t i = 0; i < entries.n; i++) {
			int r2 = read_entry(&entries.items[i], find_entry(&files->entries, entries.items[i].path, i), &mistakes);
			r = r < 0 ? r : r2;
		}
		if (attempt < READ_ATTEMPTS && r != -ENOMEM && (r < 0 || !still_the_same(files, &entries))) {
			entries_clear(&entries);
			continue;
		}
		if (mistakes.text) {
			diag_add(diag, NULL, 0, NULL, "%s", mistakes.text);
			diag->errors += mistakes.errors - 1;
		}
		*ret = entries;
		return r;
	}
}

int files_load(struct files *files, struct object_list *list, struct diag *diag)
{
	struct file_entries entries = {0};
	size_t before = list->n;
	int r, r2;

	/* First the watches: a change while we read is then seen. */
	files_update_watches(files);
	r = read_all(files, &entries, diag);
	for (size_t i = 0; i < entries.n && r != -ENOMEM; i++) {
		struct file_entry *entry = &entries.items[i];

		if (!entry->text && !entry->decoded)
			continue; /* not read: said already */
		r2 = decode_entry(entry, find_entry(&files->entries, entry->path, i), diag);
		r = r < 0 ? r : r2;
	}
	for (size_t i = 0; i < entries.n && r == 0; i++)
		r = copy_objects(list, &entries.items[i].objects);
	while (r < 0 && list->n > before)
		object_unref(list->items[--list->n]);

	/* Also after a mistake: what could be decoded need not be again. */
	entries_clear(&files->entries);
	files->entries = entries;
	files->good = r == 0;
	if (r < 0)
		files_discard(files);
	return r;
}

void files_discard(struct files *files)
{
	files->good = false;
	files_drop_texts(files);
}

void files_drop_texts(struct files *files)
{
	for (size_t i = 0; i < files->entries.n; i++) {
		free(files->entries.items[i].text);
		files->entries.items[i].text = NULL;
	}
}
