/* SPDX-License-Identifier: Apache-2.0 */
/* How a device queues what it sends. */
#ifndef HEDDLE_NETDEV_QUEUE_H
#define HEDDLE_NETDEV_QUEUE_H

#include <stdint.h>

/*
 * The kind of its root queue, as `tc` calls it; of one that only spreads over the device's own queues (mq), that of those, where all are of one kind.
 * "": not told. 0 or a negative errno.
 */
#define QUEUE_KIND_MAX 16
int queue_kind(uint32_t ifindex, char ret[QUEUE_KIND_MAX]);

#endif
