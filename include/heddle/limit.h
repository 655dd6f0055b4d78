/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* How much a port may send and be sent. */
#ifndef HEDDLE_LIMIT_H
#define HEDDLE_LIMIT_H

#include <heddle/types.h>

/*
 * Of one direction. What counts are bytes of L3, of each piece of a super-packet with headers of its own: so an MTU's worth of TCP brings 96.5% of
 * the rate to who uses it, and the wire carries 101%.
 */
struct hd_limit {
	__u32 rate;  /* kbit/s; 0: none */
	__u32 burst; /* microseconds that traffic may be ahead of the rate */
};
static_assert(sizeof(struct hd_limit) == 8, "hd_limit");

/*
 * By enum hd_direction. next: when the rate would have let through all that was, in ns of the monotonic clock. A packet moves it by its own time, from now on
 * where it has passed. One that finds it more than a burst ahead is dropped; one that does not may move it past that, however large it is.
 */
struct hd_limit_state {
	__u64 next[2];
	__u64 packets[2], bytes[2]; /* that were dropped */
	__u32 rate[2];		    /* that next was counted in */
};
static_assert(sizeof(struct hd_limit_state) == 56, "hd_limit_state");

#define HD_LIMITS_MAX 65536 /* ports with one */

#endif
