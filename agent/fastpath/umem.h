/* SPDX-License-Identifier: Apache-2.0 */
/* The frames of AF_XDP sockets: one memfd, so that whoever gets its fd has the same pages as the kernel. */
#ifndef HEDDLE_FASTPATH_UMEM_H
#define HEDDLE_FASTPATH_UMEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Of a frame, a page at most; the kernel takes powers of two. */
#define UMEM_FRAME_LEAST 2048
#define UMEM_FRAME_MOST 4096
#define UMEM_FRAMES_MOST (1u << 20)

struct umem {
	int fd;
	void *area; /* NULL: not mapped here */
	size_t length;
	uint32_t frame_size, frames;
	bool huge; /* pages of 2 MiB */
};
#define UMEM_NONE ((struct umem){.fd = -1})

/*
 * Makes the memory, zeroed and mapped. node: the NUMA node it shall be of, -1: any. Its size is sealed: nobody can cut it off under another's
 * mapping. -EINVAL: frames or their size are none; -ENOMEM.
 */
int umem_create(uint32_t frame_size, uint32_t frames, int node, bool try_huge, struct umem *ret);
/*
 * Maps memory that somebody else made. The fd is taken on success. -EINVAL: it is not a memfd of at least this size, or its size is not sealed, so
 * that reading it could end in SIGBUS.
 */
int umem_attach(int fd, uint32_t frame_size, uint32_t frames, struct umem *ret);
void umem_unmap(struct umem *umem); /* the fd stays, and what the kernel pinned */
void umem_close(struct umem *umem); /* idempotent */

/* The whole of [address, address + length) is in one frame. */
static inline bool umem_holds(const struct umem *umem, uint64_t address, uint32_t length)
{
	uint64_t in_frame = address & (umem->frame_size - 1);

	return address / umem->frame_size < umem->frames && length <= umem->frame_size - in_frame;
}

static inline void *umem_data(const struct umem *umem, uint64_t address)
{
	return (char *)umem->area + address;
}

#endif
