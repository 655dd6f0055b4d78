/* SPDX-License-Identifier: Apache-2.0 */
/* What a driver makes of AF_XDP's zero-copy that nobody is told when a socket is bound. */
#ifndef HEDDLE_NETDEV_ZERO_COPY_H
#define HEDDLE_NETDEV_ZERO_COPY_H

#include <netdev/netdev.h>

/*
 * Why a socket shall not be bound to this queue of the device in zero-copy, with frames of this size: static, and for people. NULL: nothing is known
 * against it, which does not say that the driver has it.
 */
const char *zero_copy_unfit(const struct netdev *device, uint32_t queue, uint32_t frame_size);

#endif
