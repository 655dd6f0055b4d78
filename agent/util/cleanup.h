/* SPDX-License-Identifier: Apache-2.0 */
/* Cleanup attributes: what a scope owns goes with it, on every way out. */
#ifndef HEDDLE_UTIL_CLEANUP_H
#define HEDDLE_UTIL_CLEANUP_H

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define _cleanup_(f) __attribute__((cleanup(f)))

/* NAME##_p: a cleanup function for variables of this pointer type. The destructor must accept NULL. */
#define DEFINE_CLEANUP(type, destructor) \
	static inline void destructor##_p(type *pointer) \
	{ \
		if (*pointer) \
			destructor(*pointer); \
	} \
	struct cleanup_takes_a_semicolon

static inline void free_p(void *pointer)
{
	free(*(void **)pointer);
}

/* Closes what is open and returns -1, for `fd = safe_close(fd)`. Keeps errno, so that an error on the way out survives. */
int safe_close(int fd);

static inline void close_p(int *fd)
{
	safe_close(*fd);
}

static inline void fclose_p(FILE **file)
{
	if (*file)
		fclose(*file);
}

static inline void closedir_p(DIR **dir)
{
	if (*dir)
		closedir(*dir);
}

#define _cleanup_free_ _cleanup_(free_p)
#define _cleanup_close_ _cleanup_(close_p)
#define _cleanup_fclose_ _cleanup_(fclose_p)
#define _cleanup_closedir_ _cleanup_(closedir_p)

/* The value leaves the scope: the variable no longer owns it. */
#define TAKE_PTR(pointer) \
	({ \
		__typeof__(pointer) *taken_ = &(pointer); \
		__typeof__(pointer) value_ = *taken_; \
		*taken_ = NULL; \
		value_; \
	})
#define TAKE_FD(fd) \
	({ \
		int *taken_ = &(fd); \
		int value_ = *taken_; \
		*taken_ = -1; \
		value_; \
	})

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))
#define CONTAINER_OF(pointer, type, member) ((type *)((char *)(pointer)-offsetof(type, member)))

#endif
