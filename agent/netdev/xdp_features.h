/* SPDX-License-Identifier: Apache-2.0 */
/* What devices do with XDP, as the kernel tells by generic netlink's family `netdev` (Linux 6.3), and when that changes. */
#ifndef HEDDLE_NETDEV_XDP_FEATURES_H
#define HEDDLE_NETDEV_XDP_FEATURES_H

#include <stdbool.h>
#include <stdint.h>

/* Frames that an XDP program redirects to it (ndo_xdp_xmit). Of a veth only while its other end takes them: with GRO on, or a program of its own. */
#define XDP_FEATURE_TAKES (1ull << 2)

struct xdp_features;

/* -ENOENT: this kernel does not tell. */
int xdp_features_open(struct xdp_features **ret);
void xdp_features_close(struct xdp_features *features);	  /* NULL is fine */
int xdp_features_fd(const struct xdp_features *features); /* readable when something changed */
/* Reads what changed. concerns() is asked about each device; true: some of them was meant, or may have been. */
typedef bool (*xdp_features_cb)(uint32_t ifindex, void *userdata);
bool xdp_features_dispatch(struct xdp_features *features, xdp_features_cb concerns, void *userdata);
/* Of one device, as of now. -ENODEV: it is gone. */
int xdp_features_of(struct xdp_features *features, uint32_t ifindex, uint64_t *ret);

/* A message of the family about a device: pure. False: it is none, or says nothing of them. */
struct nlmsghdr;
bool xdp_features_parse(const struct nlmsghdr *message, uint32_t *ret_ifindex, uint64_t *ret_features);

#endif
