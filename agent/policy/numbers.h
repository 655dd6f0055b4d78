/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which number a network or a peer has, and which one (its zone) the flows between two networks have. The maps and every flow are keyed by these,
 * so a network or peer keeps its number as long as its document is there, over restarts too; a number that comes free is handed out again only
 * after all others, when the flows that had it are long gone. Pure: who adopts reads the maps.
 */
#ifndef HEDDLE_POLICY_NUMBERS_H
#define HEDDLE_POLICY_NUMBERS_H

#include <heddle/network.h>
#include <heddle/overlay.h>
#include <model/decode.h>
#include <model/object.h>

#define NETWORK_KEY_MAX 40 /* of hd_network.name and hd_peer.name, with its NUL */

struct networks;

int networks_new(struct networks **ret); /* -ENOMEM */
void networks_free(struct networks *networks);

/* Before the first assignment: what an earlier agent handed out, from its maps. Entry 0 too. Other rows of nonsense are ignored. -ENOMEM. */
int networks_adopt(struct networks *networks, uint16_t index, const struct hd_network *record);
int networks_adopt_route(struct networks *networks, const struct hd_route_key *key, const struct hd_route *route);
int networks_adopt_peer(struct networks *networks, uint32_t index, const struct hd_peer *record);

/*
 * Numbers for every network and peer of the list, and zones for every two that one of them routes to. Until commit or abort all questions below
 * are answered for this list; then for it, or for the one before. -ENOMEM; -E2BIG with diag.
 */
int networks_assign(struct networks *networks, const struct object_list *all, struct diag *diag);
void networks_commit(struct networks *networks);
void networks_abort(struct networks *networks);

uint16_t networks_index(const struct networks *networks, const char *name);	 /* 0: none, or the host's own */
const char *networks_name(const struct networks *networks, uint16_t index);	 /* NULL: none; 0: NETWORK_HOST */
uint16_t networks_zone(const struct networks *networks, uint16_t a, uint16_t b); /* 0: none */
/* The two networks of a zone, the lower number first. -ENOENT. */
int networks_of_zone(const struct networks *networks, uint16_t zone, uint16_t *ret_a, uint16_t *ret_b);
uint32_t networks_peer(const struct networks *networks, const char *name);	 /* 0: none */
const char *networks_peer_name(const struct networks *networks, uint32_t index); /* NULL: none */
void networks_last(const struct networks *networks, struct hd_network *ret);	 /* last_*, for entry 0 */

/* What hd_network.name and hd_peer.name hold. */
void network_key(const char *name, char ret[NETWORK_KEY_MAX]);

#endif
