/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host's own stack, as far as ports need it: its addresses, and the routes and neighbour entries by which it finds the ports of networks that
 * route to the host. Ours carry protocol 104 (0x68), in routes and in neighbour entries, so that they are found again by a later agent and
 * nobody else's are touched.
 */
#ifndef HEDDLE_NETDEV_HOSTNET_H
#define HEDDLE_NETDEV_HOSTNET_H

#include <stdbool.h>
#include <stddef.h>

#include <heddle/types.h>

#define HOSTNET_PROTOCOL 0x68

/*
 * One address behind a device: a host route in the main table, and a permanent neighbour entry. Or a block of addresses behind a device that resolves
 * nobody: a route alone, which gives way to one of the same block that somebody else has made.
 */
struct hostnet_entry {
	struct hd_addr address;
	uint32_t ifindex;
	uint8_t length; /* of a block, IPv4 mapped */
	bool is_block;
	uint8_t mac[6];
	bool has_source;
	struct hd_addr source; /* what the host itself sends from; of the same family */
};

struct hostnet;
enum hostnet_change { HOSTNET_ADDRESSES = 1 << 0, HOSTNET_ENTRIES = 1 << 1 };
/* changes: bits of enum hostnet_change. ENTRIES: somebody removed or changed one of ours. */
typedef void (*hostnet_event)(unsigned changes, void *userdata);

int hostnet_open(hostnet_event event, void *userdata, struct hostnet **ret);
void hostnet_close(struct hostnet *hostnet);   /* routes and entries stay */
int hostnet_fd(const struct hostnet *hostnet); /* poll for input, then: */
int hostnet_dispatch(struct hostnet *hostnet);

/* Those of any interface but link-local and loopback ones. *ret is the caller's. */
int hostnet_addresses(struct hostnet *hostnet, struct hd_addr **ret, size_t *ret_n);
/*
 * Makes ours what is wanted, by a difference to what the kernel has. Entries of devices that are gone or down are passed over: the kernel has no
 * routes there. A route of somebody else for the same address stays, and ours is not made: the first such error is returned, after
 * all others are done.
 */
int hostnet_sync(struct hostnet *hostnet, const struct hostnet_entry *wanted, size_t n);
/* Removes all of ours, without an open hostnet. */
int hostnet_clear(void);

#endif
