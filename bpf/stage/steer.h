/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Packets that policy let in and an AF_XDP socket shall have. For XDP alone; its cost is that of the devices that have a fast path. */
#ifndef HEDDLE_STAGE_STEER_H
#define HEDDLE_STAGE_STEER_H

#include "compat.h"

#include <maps/steer.bpf.h>

#define STEER_TAKEN -1	 /* the socket has it: XDP_REDIRECT */
#define STEER_FORWARD -2 /* worker.h says whether one has */
#define STEER_PORT -3	 /* a worker has it, for a port */

static __always_inline void steer_count(__u32 index, __u32 what, __u32 bytes)
{
	__u32 key = HD_FAST_COUNTER(index, what);
	struct hd_counter *counter = bpf_map_lookup_elem(&fast_counters, &key);

	if (counter) {
		counter->packets++;
		counter->bytes += bytes;
	}
}

/*
 * Bytes in the first buffer. Read here and now: what the compiler reads ahead it keeps as 32 bits over calls, and the verifier takes a pointer to a packet for
 * nothing of that size.
 */
static __always_inline __u32 steer_linear(struct xdp_md *ctx)
{
	return (__u32)((long)READ_ONCE(ctx->data_end) - (long)READ_ONCE(ctx->data));
}

/* Whether the sockets of the index take a packet that is not of the most ordinary kind. */
__noinline int steer_room(struct xdp_md *ctx, __u32 index)
{
	const struct hd_fast_room *room = bpf_map_lookup_elem(&fast_rooms, &index);
	__u32 length = bpf_xdp_get_buff_len(ctx);

	if (!room)
		return 0;
	if (length != steer_linear(ctx))
		return length <= room->several;
	return !room->one || length <= room->one;
}

/* One of them would have it whole. */
static __always_inline bool steer_fits(struct xdp_md *ctx, __u32 index)
{
	__u32 length = bpf_xdp_get_buff_len(ctx);

	return likely(length == steer_linear(ctx) && length <= HD_FAST_SURE) || steer_room(ctx, index);
}

/*
 * STEER_TAKEN; 0: it goes on to the kernel; HD_R_FAST_PATH: it does not. The lookup tells whether there is a socket; whether that has room, the
 * kernel finds out behind us, and counts it (XDP_STATISTICS).
 */
static __always_inline int steer_to(struct xdp_md *ctx, __u32 index, __u32 flags)
{
	__u32 length = bpf_xdp_get_buff_len(ctx), queue = ctx->rx_queue_index;
	bool fits = steer_fits(ctx, index);

	if (fits && queue < HD_FAST_QUEUES && index < HD_FAST_PATHS &&
		bpf_redirect_map(&xsks, HD_FAST_SOCKET(index, queue), 0) == XDP_REDIRECT) {
		steer_count(index, HD_FAST_TAKEN, length);
		return STEER_TAKEN;
	}
	if (!fits)
		steer_count(index, HD_FAST_TOO_BIG, length);
	steer_count(index, flags & HD_FAST_DROP ? HD_FAST_DROPPED : HD_FAST_PASSED, length);
	return flags & HD_FAST_DROP ? HD_R_FAST_PATH : 0;
}

#endif
