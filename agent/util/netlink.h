/* SPDX-License-Identifier: Apache-2.0 */
/* One request over a netlink socket, and all that answers it; what the kernel tells without being asked (RFC 3549, libmnl). */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <linux/rtnetlink.h>

#include <libmnl/libmnl.h>

#include <util/cleanup.h>

/* A socket of its own for requests: NETLINK_ROUTE and so on; in the namespace of the thread. -errno. */
int netlink_open(int bus, struct mnl_socket **ret);
DEFINE_CLEANUP(struct mnl_socket *, mnl_socket_close);
#define _cleanup_netlink_ _cleanup_(mnl_socket_close_p)

#define NETLINK_REQUEST_SIZE 2048
#define NETLINK_REQUEST(name) _Alignas(struct nlmsghdr) char name[NETLINK_REQUEST_SIZE]

/* An empty one in the buffer, a NETLINK_REQUEST; NLM_F_REQUEST is added to the flags. */
struct nlmsghdr *netlink_request(char *buffer, uint16_t type, uint16_t flags);
/* The same about a device. */
struct nlmsghdr *netlink_link_request(char *buffer, uint16_t type, uint16_t flags, struct ifinfomsg **ret_info);

/*
 * Sends the request, which has NLM_F_ACK or NLM_F_DUMP, and has seen() look at each message up to the acknowledgement or the end of the dump; NULL: none
 * is of interest. Waits for as long as the kernel takes. -errno: the socket's, or what the kernel answered.
 */
int netlink_ask(struct mnl_socket *socket, struct nlmsghdr *request, mnl_cb_t seen, void *userdata);

/*
 * A socket that hears what is told to these groups (RTNLGRP_LINK and so on, not RTMGRP_LINK), with room for what hundreds of devices make that come at
 * once. -errno.
 */
int netlink_watch(int bus, const unsigned *groups, size_t n, struct mnl_socket **ret);
/*
 * Has seen() look at all that has come, and waits for nothing. -ENOBUFS: some of it is lost (more than there was room for, or seen() could not take it), and what
 * is known has to be asked for anew; -errno: the socket's.
 */
int netlink_read(struct mnl_socket *socket, mnl_cb_t seen, void *userdata);
