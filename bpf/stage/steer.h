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
 * STEER_TAKEN; 0: it goes on to the kernel; HD_R_FAST_PATH: it does not. The lookup tells whether there is a socket; whether that has room, the
 * kernel finds out behind us, and counts it (XDP_STATISTICS).
 */
static __always_inline int steer_to(struct xdp_md *ctx, __u32 index, __u32 flags)
{
	__u32 linear = ctx->data_end - ctx->data, length = bpf_xdp_get_buff_len(ctx), queue = ctx->rx_queue_index;

	/* our sockets take no packet in more than one buffer */
	if (length == linear && queue < HD_FAST_QUEUES && index < HD_FAST_PATHS &&
		bpf_redirect_map(&xsks, HD_FAST_SOCKET(index, queue), 0) == XDP_REDIRECT) {
		steer_count(index, HD_FAST_TAKEN, length);
		return STEER_TAKEN;
	}
	if (length != linear)
		steer_count(index, HD_FAST_TOO_BIG, length);
	steer_count(index, flags & HD_FAST_DROP ? HD_FAST_DROPPED : HD_FAST_PASSED, length);
	return flags & HD_FAST_DROP ? HD_R_FAST_PATH : 0;
}

#endif
