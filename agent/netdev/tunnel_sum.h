/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pair of devices by which tunnel packets get a UDP checksum, where the Host wants one. Neither has offloads: what our programs send into
 * TUNNEL_SUM_DEVICE the kernel cuts to size and fills in, and it comes out of TUNNEL_SUM_FAR as it will be on the wire, where another program sums
 * it up and sends it on. The pair stays when the agent ends, as its programs do; what names it ours is its alias.
 */
#ifndef HEDDLE_NETDEV_TUNNEL_SUM_H
#define HEDDLE_NETDEV_TUNNEL_SUM_H

#include <stdbool.h>
#include <stdint.h>

#define TUNNEL_SUM_DEVICE "heddle-sum"
#define TUNNEL_SUM_FAR "heddle-summed"

struct tunnel_sum {
	uint32_t near, far; /* ifindexes */
	bool was_there;	    /* of an earlier agent */
};

/* Makes the pair, or takes over that of an earlier agent. -EBUSY: somebody else has a device of one of the names. */
int tunnel_sum_open(struct tunnel_sum *ret);
/* Removes the pair if there is one of ours, whoever made it. */
int tunnel_sum_remove(void);

#endif
