/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Addresses for the CNI plugin's ports. Which ones are taken is told by the caller, who looks at ports: there is no second list that could
 * disagree. What is kept here, in `STATE_DIR/ipam`, is where the search goes on, so that an address that came free is the last to be given again.
 */
#ifndef HEDDLE_SOURCE_IPAM_H
#define HEDDLE_SOURCE_IPAM_H

#include <jansson.h>

#include <model/decode.h>
#include <model/object.h>

/* Both ends count; of one family. */
struct ipam_range {
	struct hd_addr first, last;
};

/*
 * The ranges of a network: its subnets, or, where `wanted` is an array that is not empty, what that says: "10.77.0.0/25",
 * "10.77.0.10-10.77.0.99", {"subnet", "rangeStart", "rangeEnd"}, or an array of these. *ret is the caller's. -EINVAL with diag.
 */
int ipam_ranges(const struct object *network, const json_t *wanted, struct ipam_range **ret, size_t *ret_n, struct diag *diag);

/* One host of the network may have it: in a subnet, no network or broadcast address, not the gateway's. */
bool ipam_is_usable(const struct object *network, const struct hd_addr *addr);

/* By bytes, as ipam_pick() wants them. */
void ipam_sort(struct hd_addr *addresses, size_t n);
/*
 * The first address behind `after` (NULL: from the beginning) in the ranges of the family, all of them once around, that is usable and not
 * in `taken`. -ENOSPC: none; -ENOENT: there is no range of the family.
 */
int ipam_pick(const struct object *network, const struct ipam_range *ranges, size_t n, bool ipv4, const struct hd_addr *after,
	const struct hd_addr *taken, size_t n_taken, struct hd_addr *ret);

/* --- where the search goes on --- */

struct ipam;
int ipam_new(struct ipam **ret);
void ipam_free(struct ipam *ipam);							  /* NULL is fine */
const struct hd_addr *ipam_last(const struct ipam *ipam, const char *network, bool ipv4); /* NULL: none was given */
int ipam_set_last(struct ipam *ipam, const char *network, const struct hd_addr *addr);
/* 0 also where there is no file. -EINVAL: it is damaged, and nothing of it was taken. */
int ipam_load(const char *state_dir, struct ipam *ipam);
int ipam_save(const char *state_dir, const struct ipam *ipam);

#endif
