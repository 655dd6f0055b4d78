/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a device does with XDP, as it says itself: generic netlink's family `netdev` (Linux 6.3, Documentation/netlink/specs/netdev.yaml of the kernel), of
 * which not every header package has the numbers.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define XDP_FEATURES_FAMILY "netdev"
#define XDP_FEATURES_GROUP "mgmt" /* hears of changes */

enum {
	XDP_BASIC = 1 << 0,
	XDP_REDIRECT = 1 << 1,
	XDP_NDO_XMIT =
		1
		<< 2, /* takes frames that a program redirects to it. Of a veth only while its other end has GRO on, or a program of its own */
	XDP_ZERO_COPY = 1 << 3,
	XDP_OFFLOAD = 1 << 4,
	XDP_FRAGS = 1 << 5,
	XDP_NDO_XMIT_SEVERAL = 1 << 6, /* beside NDO_XMIT: frames in several buffers, too */
};
/* What XDP of the device can tell of a packet, by functions of the kernel (6.8). */
enum { METADATA_TIMESTAMP = 1 << 0, METADATA_HASH = 1 << 1, METADATA_VLAN = 1 << 2 };

struct xdp_features {
	uint32_t ifindex; /* 0: nothing is told */
	bool metadata_told;
	uint64_t features, metadata;
	uint32_t zero_copy_pieces; /* buffers that a packet can have in zero-copy (6.6); 0: not told */
};

struct mnl_socket;
struct nlmsghdr;
/* Of one device, as of now; family: the number of XDP_FEATURES_FAMILY. -ENODEV: it is gone. */
int xdp_features_ask(struct mnl_socket *socket, uint16_t family, uint32_t ifindex, struct xdp_features *ret);
/* A message about a device, as it came: pure. False: it is none, or says nothing of them. */
bool xdp_features_parse(const struct nlmsghdr *message, size_t length, struct xdp_features *ret);
