/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tells when BPF classifiers, or a clsact qdisc with all that it held, were taken off a device: unlike a link, they are anybody's to remove
 * who may configure devices, and nothing else says so.
 */
#ifndef HEDDLE_NETDEV_FILTERS_H
#define HEDDLE_NETDEV_FILTERS_H

#include <stdint.h>

struct filter_watch;
/* ifindex 0: of any device, when the kernel told more than was read. Changes of one's own are told as well. */
typedef void (*filter_event)(uint32_t ifindex, void *userdata);

int filter_watch_new(filter_event event, void *userdata, struct filter_watch **ret);
void filter_watch_free(struct filter_watch *watch);
int filter_watch_fd(const struct filter_watch *watch); /* poll for input, then: */
int filter_watch_dispatch(struct filter_watch *watch);

#endif
