/* SPDX-License-Identifier: Apache-2.0 */
/* Messages of rtnetlink about routes, next hops, neighbours and links, as far as underlay.c needs them. Pure. Nothing outside this folder includes it. */
#ifndef HEDDLE_NETDEV_UNDERLAY_PARSE_H
#define HEDDLE_NETDEV_UNDERLAY_PARSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <linux/netlink.h>

#include <heddle/types.h>

#define UNDERLAY_HOPS_MAX 32 /* of one route; those behind are not looked at */

struct underlay_hop {
	uint32_t ifindex; /* 0: none told */
	bool has_gateway; /* else the destination is on the link */
	struct hd_addr gateway;
	bool dead;	   /* the kernel does not use it now */
	bool encapsulates; /* MPLS, SRv6 and the like */
};

struct underlay_route {
	uint8_t family, type, protocol; /* AF_*, RTN_*, RTPROT_* */
	bool cloned;
	struct hd_addr destination;
	uint8_t length;	  /* of the prefix, in the mapped form */
	uint32_t mtu;	  /* 0: none told */
	uint32_t nexthop; /* id of a next hop object; 0: none */
	size_t n;
	struct underlay_hop hop[UNDERLAY_HOPS_MAX];
};

struct underlay_nexthop {
	bool blackhole;
	size_t n; /* ids of a group; 0: hop is the one */
	uint32_t id[UNDERLAY_HOPS_MAX];
	struct underlay_hop hop;
};

struct underlay_neighbour {
	uint32_t ifindex;
	struct hd_addr address;
	uint16_t state; /* NUD_* */
	uint8_t flags;	/* NTF_* */
	uint32_t flags_ext;
	uint8_t protocol;
	bool has_mac;
	uint8_t mac[6];
};

struct underlay_link {
	uint32_t ifindex;
	uint16_t type; /* ARPHRD_* */
	bool up;       /* and has a carrier */
	uint32_t mtu;
	uint8_t mac[6];
};

/* false: nothing that could be used. */
bool underlay_parse_route(const struct nlmsghdr *message, struct underlay_route *ret);
bool underlay_parse_nexthop(const struct nlmsghdr *message, struct underlay_nexthop *ret);
bool underlay_parse_neighbour(const struct nlmsghdr *message, struct underlay_neighbour *ret);
bool underlay_parse_link(const struct nlmsghdr *message, struct underlay_link *ret);
/* Of RTM_NEWADDR and RTM_DELADDR. */
bool underlay_parse_address(const struct nlmsghdr *message, struct hd_addr *ret);

#endif
