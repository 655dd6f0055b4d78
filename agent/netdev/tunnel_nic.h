/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel's tunnel device by which NICs are told of tunnels: rules of flower say "into the tunnel" as a redirect to it, and "out of the tunnel" by being
 * on it. No packet goes through it. It is never up, so it has no socket, and the tunnel's port stays with whoever has it: our own socket, mostly.
 */
#ifndef HEDDLE_NETDEV_TUNNEL_NIC_H
#define HEDDLE_NETDEV_TUNNEL_NIC_H

#include <stdbool.h>
#include <stdint.h>

#define TUNNEL_NIC_DEVICE "heddle-offload"

struct tunnel_nic {
	bool geneve; /* else VXLAN */
	uint16_t port;
	bool up; /* for tests, in which the kernel plays the NIC */
};

/* Makes it, in place of one of an earlier agent. -EBUSY: somebody else has a device of that name; -EOPNOTSUPP: the kernel has none of that kind. */
int tunnel_nic_open(const struct tunnel_nic *nic, uint32_t *ret_ifindex);
/* Removes the device if there is one of ours, whoever made it. */
int tunnel_nic_remove(void);
bool tunnel_nic_is_there(uint32_t ifindex);

#endif
