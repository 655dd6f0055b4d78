/* SPDX-License-Identifier: Apache-2.0 */
/* Neighbours that packets go to past the kernel's stack: it does not see that they are in use, and would never ask again whether they are there. */
#ifndef HEDDLE_NETDEV_NEIGHBOURS_H
#define HEDDLE_NETDEV_NEIGHBOURS_H

#include <stddef.h>
#include <stdint.h>

/* Has the kernel look after those on these devices that it last heard of some time ago, as if it had sent them something. */
int neighbours_use(const uint32_t *ifindexes, size_t n);

#endif
