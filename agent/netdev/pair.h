/* SPDX-License-Identifier: Apache-2.0 */
/* A veth pair of the agent's own. It stays when the agent ends, as its programs do; what names it ours is its alias. */
#ifndef HEDDLE_NETDEV_PAIR_H
#define HEDDLE_NETDEV_PAIR_H

#include <stdbool.h>
#include <stdint.h>

struct pair {
	const char *near, *far, *alias;
	uint32_t mtu;
	bool plain; /* without offloads */
	bool stack; /* the host's stack uses the near end, which has this MAC */
	uint8_t mac[6];
};

struct pair_devices {
	uint32_t near, far; /* ifindexes; 0: not there */
	bool was_there;	    /* of an earlier agent */
};

/* Makes the pair, or takes over that of an earlier agent. -EBUSY: somebody else has a device of one of the names. */
int pair_open(const struct pair *pair, struct pair_devices *ret);
/* Removes the pair if there is one of ours, whoever made it. */
int pair_remove(const struct pair *pair);
int pair_set_mtu(const struct pair *pair, struct pair_devices *devices); /* of the near end */

#endif
