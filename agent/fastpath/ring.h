/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The four rings of an AF_XDP socket, as seen from user space: one writer and one reader each, the kernel at the other end, or whoever else has the
 * socket mapped. What the other end writes is read once and believed only as far as it cannot hurt: an index that is further away than the ring is
 * long makes the ring broken, and a broken ring is empty and full at once.
 *
 * The kernel's order (net/xdp/xsk_queue.h): entries are written before the producer index is stored with release, which the other end loads with
 * acquire; entries are read before the consumer index is stored with release, which the producer loads with acquire before it overwrites them.
 */
#ifndef HEDDLE_FASTPATH_RING_H
#define HEDDLE_FASTPATH_RING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <linux/if_xdp.h>

/* Of a descriptor's options: the packet goes on in the next one (Linux 6.6). */
#ifndef XDP_PKT_CONTD
#define XDP_PKT_CONTD (1 << 0)
#endif

struct xsk_ring {
	uint32_t *producer, *consumer, *flags; /* shared with the other end */
	void *entries;			       /* uint64_t of fill and completion, struct xdp_desc of rx and tx */
	uint32_t size, mask;		       /* entries; a power of two */
	uint32_t mine;			       /* our own index, as far as it was reserved or peeked */
	uint32_t theirs;		       /* the other end's, as it was last read */
	bool broken;
	void *map; /* NULL: not mapped */
	size_t map_length;
};

static inline bool ring_mapped(const struct xsk_ring *ring)
{
	return ring->map != NULL;
}

/* The other end sleeps until it is called: sendto() for tx, recvfrom() or poll() for fill. */
static inline bool ring_needs_wakeup(const struct xsk_ring *ring)
{
	return __atomic_load_n(ring->flags, __ATOMIC_RELAXED) & XDP_RING_NEED_WAKEUP;
}

static inline uint64_t *ring_address(const struct xsk_ring *ring, uint32_t index)
{
	return (uint64_t *)ring->entries + (index & ring->mask);
}

static inline struct xdp_desc *ring_descriptor(const struct xsk_ring *ring, uint32_t index)
{
	return (struct xdp_desc *)ring->entries + (index & ring->mask);
}

/* How many of `n` may be written, from *ret_index on; they are taken. Fewer when the ring has less room, 0 when it is full. */
static inline uint32_t ring_reserve(struct xsk_ring *ring, uint32_t n, uint32_t *ret_index)
{
	uint32_t room = ring->size - (ring->mine - ring->theirs);

	if (room < n) {
		ring->theirs = __atomic_load_n(ring->consumer, __ATOMIC_ACQUIRE);
		if (ring->mine - ring->theirs > ring->size || ring->broken) {
			ring->broken = true;
			ring->theirs = ring->mine - ring->size; /* full from now on */
			return 0;
		}
		room = ring->size - (ring->mine - ring->theirs);
		if (room < n)
			n = room;
	}
	*ret_index = ring->mine;
	ring->mine += n;
	return n;
}

/* Everything that was reserved is the other end's. */
static inline void ring_submit(struct xsk_ring *ring)
{
	__atomic_store_n(ring->producer, ring->mine, __ATOMIC_RELEASE);
}

/* How many of at most `n` may be read, from *ret_index on. */
static inline uint32_t ring_peek(struct xsk_ring *ring, uint32_t n, uint32_t *ret_index)
{
	uint32_t there = ring->theirs - ring->mine;

	if (there == 0) {
		ring->theirs = __atomic_load_n(ring->producer, __ATOMIC_ACQUIRE);
		there = ring->theirs - ring->mine;
		if (there > ring->size || ring->broken) {
			ring->broken = true;
			ring->theirs = ring->mine; /* empty from now on */
			return 0;
		}
	}
	*ret_index = ring->mine;
	if (there < n)
		n = there;
	ring->mine += n;
	return n;
}

/* Everything that was peeked may be overwritten. */
static inline void ring_release(struct xsk_ring *ring)
{
	__atomic_store_n(ring->consumer, ring->mine, __ATOMIC_RELEASE);
}

/* Gives back the last `n` that were peeked or reserved, before they were released or submitted. */
static inline void ring_cancel(struct xsk_ring *ring, uint32_t n)
{
	ring->mine -= n;
}

/* Entries between the ends as somebody sees them who is neither; a nonsensical distance is cut off. */
static inline uint32_t ring_pending(const struct xsk_ring *ring)
{
	uint32_t pending = __atomic_load_n(ring->producer, __ATOMIC_RELAXED) - __atomic_load_n(ring->consumer, __ATOMIC_RELAXED);

	return pending > ring->size ? ring->size : pending;
}

#endif
