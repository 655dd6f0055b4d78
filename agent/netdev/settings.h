/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is set on a port's device, or an uplink, so that its packets can be handled, and put back when it is none any more. What it was before is in a file of the run
 * directory, written ahead of the change: a later agent, or --detach, finds it there. Devices and that directory go with a reboot alike.
 *
 *   tx-sctp-segmentation  off: an SCTP packet of several segments cannot be encapsulated
 *   promiscuous           1, on an uplink by which networks with a VLAN are on the wire: frames for their workloads' MACs are not the NIC's own
 *   disable_ipv6          0, where the network routes to the host and has IPv6: else the host's stack drops what comes from there
 */
#ifndef HEDDLE_NETDEV_SETTINGS_H
#define HEDDLE_NETDEV_SETTINGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct settings_device {
	uint32_t ifindex;
	bool ipv6;    /* the host's stack shall take IPv6 from it */
	bool uplink;  /* no port: one by which networks are on the wire */
	bool is_done; /* by an earlier call, and nothing else is wanted now: not looked at again */
};

/* By ifindex, as both others want them. */
void settings_sort(struct settings_device *devices, size_t n);
struct settings_device *settings_find(struct settings_device *devices, size_t n, uint32_t ifindex); /* NULL: none */
/*
 * Of these devices, and of no others: what was set on others is put back. What a device does not have is not an error.
 * Nothing is read or written where run_dir has no such file and no device is given.
 */
int settings_sync(const char *run_dir, struct settings_device *devices, size_t n);

/* The file that says whether a device is without IPv6, below HEDDLE_PROC_SYS where that is set: a container's own /proc/sys is read-only. */
int settings_open_ipv6(const char *device, int flags);

#endif
