/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The way of tunnel packets that only the kernel's sockets can go: those for a peer whose next hop has no MAC yet, those that must be
 * fragmented, and those that arrive in fragments. A tap device takes whole outer packets from our programs, and a UDP socket sends what is in them: the
 * kernel resolves, queues and fragments. What the socket receives, put together, comes out of the device as if a wire had brought it.
 *
 * The device and the socket go with the process. The device has no addresses, and nothing but the tunnel is let in from it: see datapath_attach().
 */
#ifndef HEDDLE_NETDEV_TUNNEL_SLOW_H
#define HEDDLE_NETDEV_TUNNEL_SLOW_H

#include <stdbool.h>
#include <stdint.h>

#include <heddle/types.h>

#define TUNNEL_SLOW_DEVICE "heddle-tunnel"

struct tunnel_slow;

struct tunnel_slow_counts {
	uint64_t sent, received; /* packets */
	uint64_t send_failed;	 /* the kernel had no way, or no room */
	uint64_t ignored;	 /* control packets, and what is no packet of the tunnel */
};

/* port: host order. -EADDRINUSE: somebody else has the port; -EBUSY: somebody has a device of that name. */
int tunnel_slow_open(const struct hd_addr *address, uint16_t port, bool geneve, struct tunnel_slow **ret);
void tunnel_slow_close(struct tunnel_slow *slow);
uint32_t tunnel_slow_ifindex(const struct tunnel_slow *slow);
/* Of what it sends, as our programs do it. Off at first. */
int tunnel_slow_checksums(struct tunnel_slow *slow, bool on);
int tunnel_slow_device_fd(const struct tunnel_slow *slow); /* poll for input, then: */
int tunnel_slow_send(struct tunnel_slow *slow);		   /* a bounded number of them */
int tunnel_slow_socket_fd(const struct tunnel_slow *slow);
/* Our programs must be on the device: without them the host's stack would take the packets, and bring them here again. */
int tunnel_slow_receive(struct tunnel_slow *slow);
void tunnel_slow_counts(const struct tunnel_slow *slow, struct tunnel_slow_counts *ret);

bool tunnel_address_is_here(const struct hd_addr *address); /* some interface has it, and not tentatively */

/* Router solicitations and the like have no business on a device of the agent's. Where there is no IPv6 there is nothing to do. */
void tunnel_refuse_ipv6(const char *device);

#endif
