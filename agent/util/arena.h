/* SPDX-License-Identifier: Apache-2.0 */
/* Memory that goes all at once; little of it is unused. */
#ifndef HEDDLE_UTIL_ARENA_H
#define HEDDLE_UTIL_ARENA_H

#include <stddef.h>

#include <util/cleanup.h>

struct arena;

struct arena *arena_new(void);	      /* NULL: no memory */
void arena_free(struct arena *arena); /* NULL is fine */
DEFINE_CLEANUP(struct arena *, arena_free);
#define _cleanup_arena_ _cleanup_(arena_free_p)

/* Zeroed; align: a power of two, 16 at most. NULL: no memory. A size of 0 gives a valid pointer to nothing. */
void *arena_alloc(struct arena *arena, size_t size, size_t align);
void *arena_copy(struct arena *arena, const void *data, size_t size, size_t align);
char *arena_string(struct arena *arena, const char *text, size_t length); /* adds the NUL */
size_t arena_size(const struct arena *arena);				  /* bytes it holds, overhead included */

#define arena_array(arena, type, n) ((type *)arena_alloc((arena), sizeof(type) * (n), _Alignof(type)))

#endif
