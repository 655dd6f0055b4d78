/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shared by the underlay*.c files only. Peers lead to hops, hops to neighbours, neighbours to devices. A message about one of the latter marks the
 * peers that use it, and what they come to is worked out once all messages that were there are read.
 */
#ifndef HEDDLE_NETDEV_UNDERLAY_INTERNAL_H
#define HEDDLE_NETDEV_UNDERLAY_INTERNAL_H

#define uthash_nonfatal_oom(element) ((element)->lost = true)
#include <uthash.h>

#include <libmnl/libmnl.h>

#include <netdev/underlay.h>
#include <netdev/underlay_parse.h>

#define MESSAGE_SIZE 32768
#define REQUEST_SIZE 128
/* A list that changed while it was read is read again. */
#define DUMP_ATTEMPTS 5

/* Every interface of the machine: routes may lead to any. */
struct device {
	uint32_t ifindex;
	uint16_t type;
	bool up, seen, touched;
	bool lost; /* set by uthash when it found no memory */
	uint32_t mtu;
	uint8_t mac[6];
	UT_hash_handle hh;
};

struct neighbour_key {
	struct hd_addr address;
	uint32_t ifindex;
};

struct neighbour {
	struct neighbour_key key;
	unsigned users;
	bool there, ours, wanted; /* wanted: to be made */
	bool has_mac, touched, lost;
	int refused; /* errno of the last attempt to make it; told once */
	uint16_t state;
	uint8_t mac[6];
	UT_hash_handle hh;
};

struct hop {
	uint32_t ifindex;
	bool dead, encapsulates;
	struct neighbour *neighbour; /* NULL: none on such a device */
};

struct peer {
	struct underlay_peer as;
	bool due;     /* its route is to be asked for */
	bool touched; /* what it comes to is to be worked out */
	bool told;
	uint8_t type;	  /* RTN_* */
	int error;	  /* no route: what the kernel said */
	uint32_t mtu;	  /* of the route */
	uint32_t nexthop; /* id of the object that the route's next hops are in, and that is still to be asked for; 0: none */
	struct hop *hops;
	size_t n_hops;
	struct underlay_state state;
};

struct underlay {
	struct mnl_socket *watch, *requests;
	struct hd_addr own;
	uint16_t port;
	underlay_event event;
	void *userdata;
	struct peer *peers; /* by index */
	size_t n_peers;
	struct device *devices;
	struct neighbour *neighbours;
	bool lost;	     /* messages: nothing that is known can be trusted */
	bool listed;	     /* the neighbours were listed, and leftovers removed */
	bool unlisted;	     /* some neighbour is new */
	bool unmade;	     /* some neighbour is to be made */
	bool touched;	     /* some device, neighbour or peer is */
	uint64_t look_at_us; /* 0: nothing is due */
	uint64_t look_took_us;
	uint32_t sequence;
	char buffer[MESSAGE_SIZE];
};

/* --- underlay.c --- */

struct device *device_find(struct underlay *u, uint32_t ifindex);

/* --- underlay_request.c: asking the kernel --- */

uint8_t request_family(const struct hd_addr *addr);
void request_put_address(struct nlmsghdr *message, uint16_t type, const struct hd_addr *addr);
/* In zeroed room of REQUEST_SIZE. */
struct nlmsghdr *request_put(void *room, uint16_t type, uint16_t flags, size_t header, void *ret_header);
/* One of many requests with one answer each. answer: message, or NULL with the error (0: an acknowledgement). */
struct exchange {
	struct nlmsghdr *(*request)(struct underlay *u, void *item, void *room);
	void (*answer)(struct underlay *u, void *item, const struct nlmsghdr *message, int error);
};
int exchange_run(struct underlay *u, const struct exchange *exchange, void **items, size_t n);
int dump_run(struct underlay *u, struct nlmsghdr *request, mnl_cb_t cb); /* cb gets u. -EINTR: the list changed meanwhile */

/* --- underlay_neighbour.c: entries that the kernel keeps for us, and those of others --- */

struct neighbour *neighbour_find(struct underlay *u, const struct hd_addr *address, uint32_t ifindex);
struct neighbour *neighbour_use(struct underlay *u, const struct hd_addr *address, uint32_t ifindex); /* one user more */
bool neighbour_is_usable(const struct neighbour *neighbour);
bool neighbour_has_failed(const struct neighbour *neighbour);
void neighbour_note(struct underlay *u, struct neighbour *neighbour, const struct underlay_neighbour *entry);
void neighbour_gone(struct underlay *u, struct neighbour *neighbour);
int neighbours_list(struct underlay *u);
int neighbours_sync(struct underlay *u); /* what is used and not there is made; what is not used goes */

/* --- underlay_route.c: the routes to peers, of those that are due --- */

void hops_clear(struct peer *peer);
int routes_ask(struct underlay *u);
int nexthops_ask(struct underlay *u); /* after it: next hop objects that routes named without telling them */

/* --- underlay_state.c --- */

void peer_work_out(struct underlay *u, const struct peer *peer, struct underlay_state *ret);

#endif
