/* SPDX-License-Identifier: Apache-2.0 */
/* What devices do with XDP (util/xdp_features.h), and when that changes. */
#ifndef HEDDLE_NETDEV_XDP_WATCH_H
#define HEDDLE_NETDEV_XDP_WATCH_H

#include <stdbool.h>
#include <stdint.h>

#include <util/xdp_features.h>

struct xdp_watch;

/* -ENOENT: this kernel does not tell. */
int xdp_watch_open(struct xdp_watch **ret);
void xdp_watch_close(struct xdp_watch *watch);	 /* NULL is fine */
int xdp_watch_fd(const struct xdp_watch *watch); /* readable when something changed */
/* Reads what changed. concerns() is asked about each device; true: some of them was meant, or may have been. */
typedef bool (*xdp_watch_cb)(uint32_t ifindex, void *userdata);
bool xdp_watch_dispatch(struct xdp_watch *watch, xdp_watch_cb concerns, void *userdata);
/* Of one device, as of now. -ENODEV: it is gone. */
int xdp_watch_ask(struct xdp_watch *watch, uint32_t ifindex, struct xdp_features *ret);

#endif
