/* SPDX-License-Identifier: Apache-2.0 */
/* Interfaces as the kernel reports them (rtnetlink over libmnl): lookup by name, and a watch for those that come, go or are renamed. */
#ifndef HEDDLE_NETDEV_NETDEV_H
#define HEDDLE_NETDEV_NETDEV_H

#include <stdbool.h>
#include <stdint.h>
#include <net/if.h>

struct netdev {
	uint32_t ifindex;
	char name[IF_NAMESIZE];
	char driver[32]; /* "" unknown */
	uint32_t mtu;
	uint16_t type; /* ARPHRD_* */
	bool up;
	uint8_t mac[6];
};

struct netdev_watch;
/* Called once for every interface at the start, then on each change; gone: it was removed (only ifindex and name are valid). */
typedef void (*netdev_event)(const struct netdev *device, bool gone, void *userdata);
int netdev_watch_new(netdev_event event, void *userdata, struct netdev_watch **ret);
void netdev_watch_free(struct netdev_watch *watch);
int netdev_watch_fd(const struct netdev_watch *watch);	  /* poll for input, then: */
int netdev_watch_dispatch(struct netdev_watch *watch);	  /* resynchronises by itself after ENOBUFS */
int netdev_by_name(const char *name, struct netdev *ret); /* -ENODEV */
int netdev_list(netdev_event event, void *userdata);

#endif
