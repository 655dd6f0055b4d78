/* SPDX-License-Identifier: Apache-2.0 */
/* Whole files, read with a limit and written so that a crash leaves the old or the new one. */
#ifndef HEDDLE_UTIL_FILE_H
#define HEDDLE_UTIL_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>
#include <sys/types.h>

/*
 * Reads all of a regular file; *ret_text is malloc()ed and has a NUL behind its end. ret_stat (may be NULL): as it was when
 * opened. -EFBIG over `limit` bytes; -EISDIR; -EINVAL for what is neither file nor directory (a FIFO would block for ever).
 */
int file_read(int dir_fd, const char *path, size_t limit, char **ret_text, size_t *ret_length, struct stat *ret_stat);

/* Writes under a temporary name in the same directory, syncs, renames over path and syncs the directory. path is replaced whole
 * or not at all. */
int file_write(int dir_fd, const char *path, const void *data, size_t length, mode_t mode);
/* What means nothing after the machine's next start: as a whole or not at all, but nobody waits for a disk. */
int file_write_fleeting(int dir_fd, const char *path, const void *data, size_t length, mode_t mode);

struct iovec;
int file_write_pieces(int dir_fd, const char *path, const struct iovec *pieces, size_t n, mode_t mode);

/* write(2) until all is written. */
int file_write_all(int fd, const void *data, size_t length);

/* mkdir -p, with this mode for those it makes. 0 when it is there. */
int file_make_directory(const char *path, mode_t mode);

/* Entries of a directory left from file_write() calls that a crash cut short: names that begin with this are nobody's. */
#define FILE_TEMPORARY_PREFIX ".heddle-tmp-"
void file_remove_temporaries(int dir_fd);

#endif
