// SPDX-License-Identifier: Apache-2.0
#include <util/arena.h>

#include <stdint.h>
#include <string.h>

/*
 * A block is a sixteenth of what is there already, so that the unused end is never more than that part of the whole. Blocks
 * stay below malloc's mmap threshold: a mapping of its own for each would cost a page of slack and two system calls.
 */
#define BLOCK_FIRST 512
#define BLOCK_MOST ((size_t)64 << 10)

struct block {
	struct block *previous;
	size_t size, used; /* of data */
	_Alignas(16) unsigned char data[];
};

struct arena {
	struct block *block;
	size_t total;
};

struct arena *arena_new(void)
{
	return calloc(1, sizeof(struct arena));
}

void arena_free(struct arena *arena)
{
	if (!arena)
		return;
	for (struct block *block = arena->block, *previous; block; block = previous) {
		previous = block->previous;
		free(block);
	}
	free(arena);
}

static struct block *add_block(struct arena *arena, size_t least)
{
	size_t size = arena->total / 16;

	if (size < BLOCK_FIRST)
		size = BLOCK_FIRST;
	if (size > BLOCK_MOST)
		size = BLOCK_MOST;
	if (size < least)
		size = least;
	if (size > SIZE_MAX / 2)
		return NULL;

	struct block *block = malloc(sizeof(*block) + size);
	if (!block)
		return NULL;
	block->size = size;
	block->used = 0;
	block->previous = arena->block;
	arena->block = block;
	arena->total += sizeof(*block) + size;
	return block;
}

static void *reserve(struct arena *arena, size_t size, size_t align)
{
	struct block *block = arena->block;
	size_t at = block ? (block->used + align - 1) & ~(align - 1) : 0;

	if (!block || at > block->size || block->size - at < size) {
		block = add_block(arena, size);
		if (!block)
			return NULL;
		at = 0;
	}
	block->used = at + size;
	return block->data + at;
}

void *arena_alloc(struct arena *arena, size_t size, size_t align)
{
	void *data = reserve(arena, size, align);

	return data ? memset(data, 0, size) : NULL;
}

void *arena_copy(struct arena *arena, const void *data, size_t size, size_t align)
{
	void *copy = reserve(arena, size, align);

	return copy && size ? memcpy(copy, data, size) : copy;
}

char *arena_string(struct arena *arena, const char *text, size_t length)
{
	char *copy = reserve(arena, length + 1, 1);

	if (!copy)
		return NULL;
	memcpy(copy, text, length);
	copy[length] = '\0';
	return copy;
}

size_t arena_size(const struct arena *arena)
{
	return sizeof(*arena) + arena->total;
}
