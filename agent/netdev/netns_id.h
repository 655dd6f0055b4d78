/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Numbers that the kernel has for other network namespaces, in this one (`ip netns list-id`). One has its number until it ends, whatever paths lead to
 * it and whoever can see them; then the kernel says so (netdev_watch_namespaces()), and the number may become another's.
 */
#ifndef HEDDLE_NETDEV_NETNS_ID_H
#define HEDDLE_NETDEV_NETNS_ID_H

#include <stdbool.h>
#include <stdint.h>

#define NETNS_ID_NONE (-1)

struct mnl_socket;
struct nlmsghdr;
/* The number of the namespace behind the fd, which is given one where it has none. The socket: NETLINK_ROUTE. */
int netns_id(struct mnl_socket *socket, int netns, int32_t *ret);
/* 1: some namespace has it; 0: none, so whose it was has ended; or a negative errno. */
int netns_id_is_used(struct mnl_socket *socket, int32_t id);
/* The number in an RTM_NEWNSID or RTM_DELNSID: pure. */
bool netns_id_parse(const struct nlmsghdr *message, int32_t *ret);

#endif
