/* SPDX-License-Identifier: Apache-2.0 */
/* Hosts, which `nodes` peers select by their labels: those of Peers, and this one. */
#ifndef HEDDLE_POLICY_HOSTS_H
#define HEDDLE_POLICY_HOSTS_H

#include <model/object.h>

/* Host and Peer objects. */
struct policy_hosts {
	struct object *const *items;
	size_t n;
	uint64_t version; /* 0: not asked for yet */
};

static inline bool policy_is_host(const struct object *object)
{
	return object->kind == OBJECT_HOST || object->kind == OBJECT_PEER;
}

/* A hash of all that nodes peers can see of them; worked out once. */
uint64_t policy_hosts_version(struct policy_hosts *hosts);
/* How many addresses the hosts have that the peer selects; ret: room for these, or NULL. */
size_t policy_hosts_addresses(const struct policy_hosts *hosts, const struct policy_peer *peer, struct hd_addr *ret);

#endif
