/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How other hosts are reached: for each address the next hops of the kernel's route to it, and their MACs. The kernel keeps the neighbour entries
 * of next hops resolved by itself (NTF_EXT_MANAGED), also with the agent dead; ours carry protocol 104, as those in hostnet.h, but are never
 * permanent. Somebody else's permanent, learnt or managed entry is used as it is.
 *
 * Routes, rules, next hop objects, neighbours, links and addresses are followed. What a neighbour or a link does is told at once; after a change
 * of routes the kernel is asked again about the peers concerned, by underlay_look(), which the caller calls a moment later.
 */
#ifndef HEDDLE_NETDEV_UNDERLAY_H
#define HEDDLE_NETDEV_UNDERLAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <heddle/overlay.h>

struct underlay_peer {
	uint32_t index;
	struct hd_addr address;
};

enum underlay_reach {
	UNDERLAY_PENDING,     /* not asked yet */
	UNDERLAY_REACHABLE,   /* there are ways */
	UNDERLAY_RESOLVING,   /* the kernel asks for the MACs of the next hops */
	UNDERLAY_UNRESOLVED,  /* no next hop answers */
	UNDERLAY_DOWN,	      /* every link to it is down */
	UNDERLAY_NO_ROUTE,    /* or one that leads nowhere */
	UNDERLAY_UNSUPPORTED, /* by a device or a route that only the kernel can send over */
	UNDERLAY_REACH_COUNT,
};
extern const char *const underlay_reach_name[UNDERLAY_REACH_COUNT]; /* "no-route" */

struct underlay_state {
	enum underlay_reach reach;
	const char *reason; /* a constant; NULL: reachable, or pending */
	uint16_t mtu;	    /* of the ways and of the route; 0: not known */
	size_t n;
	struct hd_way way[HD_PEER_WAYS];
	struct hd_addr next_hop[HD_PEER_WAYS];
};

struct underlay;
/* Of every peer once, then on each change. state: valid for the call. */
typedef void (*underlay_event)(uint32_t peer, const struct underlay_state *state, void *userdata);

/* own: the tunnel's address, which rules and routes by source are asked with; of the family of the peers. port: host order. */
int underlay_open(const struct hd_addr *own, uint16_t port, underlay_event event, void *userdata, struct underlay **ret);
void underlay_close(struct underlay *underlay); /* neighbour entries stay */
/* The peers as they shall be; underlay_look() finds the ways of new ones. An index with another address is another peer. */
int underlay_set_peers(struct underlay *underlay, const struct underlay_peer *peers, size_t n);

int underlay_fd(const struct underlay *underlay); /* poll for input, then: */
int underlay_dispatch(struct underlay *underlay);
/* Microseconds from now in which underlay_look() shall be called; 0: nothing is to be looked at. */
uint64_t underlay_due_us(const struct underlay *underlay);
/* On an error all that was not done is still due. */
int underlay_look(struct underlay *underlay);

/* NULL: no such peer. Valid until the next call of another function here. */
const struct underlay_state *underlay_find(const struct underlay *underlay, uint32_t peer);

/* Removes all of our neighbour entries for next hops, without an open underlay. */
int underlay_clear(void);

#endif
