// SPDX-License-Identifier: Apache-2.0
#include <util/file.h>

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include <util/cleanup.h>

int file_read(int dir_fd, const char *path, size_t limit, char **ret_text, size_t *ret_length, struct stat *ret_stat)
{
	struct stat status;
	_cleanup_close_ int fd = -1;
	_cleanup_free_ char *text = NULL;
	size_t size, length = 0;

	fd = openat(dir_fd, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0)
		return -errno;
	if (fstat(fd, &status) < 0)
		return -errno;
	if (!S_ISREG(status.st_mode))
		return S_ISDIR(status.st_mode) ? -EISDIR : -EINVAL;

	/* Files of /proc and /sys say 0, and any file may grow meanwhile: st_size is a guess, the end is where read() says so. */
	size = status.st_size > 0 && (uintmax_t)status.st_size < limit ? (size_t)status.st_size + 1 : 4096;
	for (;;) {
		char *grown = realloc(text, size + 1);
		if (!grown)
			return -ENOMEM;
		text = grown;
		ssize_t n = read(fd, text + length, size - length);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		length += (size_t)n;
		if (length > limit)
			return -EFBIG;
		if (length == size)
			size *= 2;
	}
	text[length] = '\0';
	*ret_text = TAKE_PTR(text);
	*ret_length = length;
	if (ret_stat)
		*ret_stat = status;
	return 0;
}

int file_write_all(int fd, const void *data, size_t length)
{
	const char *at = data;

	while (length) {
		ssize_t n = write(fd, at, length);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		at += n;
		length -= (size_t)n;
	}
	return 0;
}

static int write_pieces(int dir_fd, const char *path, const struct iovec *pieces, size_t n, mode_t mode, bool sync)
{
	_cleanup_close_ int parent = -1, fd = -1;
	_cleanup_free_ char *directory = NULL;
	const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
	char temporary[sizeof(FILE_TEMPORARY_PREFIX) + 32];
	static unsigned count;
	int r = 0;

	directory = slash ? strndup(path, slash == path ? 1 : (size_t)(slash - path)) : strdup(".");
	if (!directory)
		return -ENOMEM;
	parent = openat(dir_fd, directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (parent < 0)
		return -errno;
	do {
		snprintf(temporary, sizeof(temporary), FILE_TEMPORARY_PREFIX "%d-%u", (int)getpid(), count++);
		fd = openat(parent, temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
	} while (fd < 0 && errno == EEXIST); /* left by a crash of an earlier process with this number */
	if (fd < 0)
		return -errno;
	for (size_t i = 0; i < n && r == 0; i++)
		r = file_write_all(fd, pieces[i].iov_base, pieces[i].iov_len);
	if (r == 0 && sync && fsync(fd) < 0)
		r = -errno;
	if (r == 0 && renameat(parent, temporary, parent, name) < 0)
		r = -errno;
	if (r < 0)
		unlinkat(parent, temporary, 0);
	else if (sync && fsync(parent) < 0)
		r = -errno;
	return r;
}

int file_write_pieces(int dir_fd, const char *path, const struct iovec *pieces, size_t n, mode_t mode)
{
	return write_pieces(dir_fd, path, pieces, n, mode, true);
}

int file_write(int dir_fd, const char *path, const void *data, size_t length, mode_t mode)
{
	struct iovec piece = {.iov_base = (void *)(uintptr_t)data, .iov_len = length};

	return file_write_pieces(dir_fd, path, &piece, 1, mode);
}

int file_write_fleeting(int dir_fd, const char *path, const void *data, size_t length, mode_t mode)
{
	struct iovec piece = {.iov_base = (void *)(uintptr_t)data, .iov_len = length};

	return write_pieces(dir_fd, path, &piece, 1, mode, false);
}

int file_make_directory(const char *path, mode_t mode)
{
	_cleanup_free_ char *copy = strdup(path);
	struct stat status;

	if (!copy)
		return -ENOMEM;
	for (char *at = copy; at;) {
		at = strchr(at + 1, '/');
		if (at)
			*at = '\0';
		if (mkdir(copy, mode) < 0 && errno != EEXIST)
			return -errno;
		if (at)
			*at = '/';
	}
	if (stat(path, &status) < 0)
		return -errno;
	return S_ISDIR(status.st_mode) ? 0 : -ENOTDIR;
}

void file_remove_temporaries(int dir_fd)
{
	_cleanup_closedir_ DIR *directory = NULL;
	int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return;
	directory = fdopendir(fd);
	if (!directory) {
		safe_close(fd);
		return;
	}
	for (struct dirent *entry; (entry = readdir(directory));)
		if (strncmp(entry->d_name, FILE_TEMPORARY_PREFIX, sizeof(FILE_TEMPORARY_PREFIX) - 1) == 0)
			unlinkat(dir_fd, entry->d_name, 0);
}
