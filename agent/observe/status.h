/* SPDX-License-Identifier: Apache-2.0 */
/* GET /v1/status: what is in force, where, and what is not as wished. */
#ifndef HEDDLE_OBSERVE_STATUS_H
#define HEDDLE_OBSERVE_STATUS_H

#include <jansson.h>

#include <observe/view.h>

json_t *status_json(const struct view *view);

struct status_memory {
	uint64_t rss; /* bytes, resident */
};
void status_memory(struct status_memory *ret);
enum underlay_reach status_peer_reach(const struct view *view, uint32_t peer); /* pending without an underlay */
size_t status_count_objects(const struct view *view, enum object_kind kind);

/* Why a port is not ready; NULL: it is. */
const char *status_port_reason(const struct view *view, const struct topology_port *port);

/*
 * Whether an ADD to the network (NULL: to any) could be done now: 0, -ENOENT: there is no such Network, or -EAGAIN, both with why. given: its
 * address comes from elsewhere than from this node's podCIDRs.
 */
/* It is a VF that its NIC switches by itself: that it waits for a representor says no more than that. */
bool status_port_legacy(const struct view *view, const struct object *port);
int status_cni(const struct view *view, const char *network, bool given, const char **ret_reason);

struct hd_peer_counters *status_peer_counters(const struct view *view); /* by index; the caller's; NULL: no memory */

#endif
