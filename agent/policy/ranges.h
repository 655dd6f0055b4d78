/* SPDX-License-Identifier: Apache-2.0 */
/* Inside policy/ only: addresses as ranges of numbers. */
#ifndef HEDDLE_POLICY_RANGES_H
#define HEDDLE_POLICY_RANGES_H

#include <util/cleanup.h>

#include <policy/internal.h>

typedef unsigned __int128 u128;

struct range {
	u128 first, last; /* IPv4: 32 bits */
};

struct ranges {
	VEC(struct range) family[2]; /* IPv4, IPv6 */
};
void ranges_clear(struct ranges *ranges);
#define _cleanup_ranges_ _cleanup_(ranges_clear)

/* Adds all that a list of peers covers; ret is sorted and without overlap then. A group that is not there covers nothing. -ENOMEM. */
int ranges_of_peers(const struct peer *peers, uint32_t n, struct object *const *groups, size_t n_groups, struct ranges *ret);

#endif
