/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames on their way from one worker to another: a ring for each ordered pair, one writer and one reader, of Concurrency Kit. There is room for all
 * the frames that there are, and each is in one place at a time, so it is never full.
 */
#ifndef HEDDLE_FASTPATH_HANDOFF_H
#define HEDDLE_FASTPATH_HANDOFF_H

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

#include <ck_ring.h>

#define HANDOFF_HOME UINT32_MAX /* for no lane: the frame is its owner's again */
#define HANDOFF_MORE (1u << 31)

struct handoff_item {
	uint64_t address;
	uint32_t length; /* bytes; HANDOFF_MORE: the packet goes on in the next item */
	uint32_t lane;	 /* that shall send it, or HANDOFF_HOME */
};

CK_RING_PROTOTYPE(handoff, handoff_item)

struct handoff {
	ck_ring_t ring;
	struct handoff_item *items;
};

/* For `most` items. -ENOMEM. */
static inline int handoff_init(struct handoff *handoff, uint32_t most)
{
	uint32_t size = 4;

	while (size <= most)
		size *= 2;
	handoff->items = calloc(size, sizeof(*handoff->items));
	if (!handoff->items)
		return -ENOMEM;
	ck_ring_init(&handoff->ring, size);
	return 0;
}

static inline void handoff_destroy(struct handoff *handoff)
{
	free(handoff->items);
	handoff->items = NULL;
}

/* false: full. */
static inline bool handoff_put(struct handoff *handoff, const struct handoff_item *item)
{
	return ck_ring_enqueue_spsc_handoff(&handoff->ring, handoff->items, (struct handoff_item *)item);
}

/* How many of at most `n` were there. */
static inline uint32_t handoff_get(struct handoff *handoff, struct handoff_item *items, uint32_t n)
{
	uint32_t got = 0;

	while (got < n && ck_ring_dequeue_spsc_handoff(&handoff->ring, handoff->items, &items[got]))
		got++;
	return got;
}

static inline uint32_t handoff_count(const struct handoff *handoff)
{
	return ck_ring_size(&handoff->ring);
}

static inline bool handoff_empty(const struct handoff *handoff)
{
	return handoff_count(handoff) == 0;
}

#endif
