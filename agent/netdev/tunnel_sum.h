/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pair of devices by which tunnel packets get a UDP checksum, where the Host wants one. Neither has offloads: what our programs send into
 * TUNNEL_SUM_DEVICE the kernel cuts to size and fills in, and it comes out of TUNNEL_SUM_FAR as it will be on the wire, where another program sums
 * it up and sends it on.
 */
#ifndef HEDDLE_NETDEV_TUNNEL_SUM_H
#define HEDDLE_NETDEV_TUNNEL_SUM_H

#include <netdev/pair.h>

#define TUNNEL_SUM_DEVICE "heddle-sum"
#define TUNNEL_SUM_FAR "heddle-summed"

static const struct pair tunnel_sum_pair = {.near = TUNNEL_SUM_DEVICE,
	.far = TUNNEL_SUM_FAR,
	.alias = "heddle: UDP checksums of tunnel packets",
	.mtu = 65535,
	.plain = true};

#endif
