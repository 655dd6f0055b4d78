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
	char kind[16];	      /* as `ip link` calls it: "veth", "tun"; "" for a NIC */
	uint32_t master;      /* ifindex of the bridge, bond or VRF it belongs to; 0: none */
	uint32_t peer;	      /* of a veth: ifindex of the other end; 0: none, or not told */
	bool peer_elsewhere;  /* the other end is in another namespace, */
	int32_t peer_netnsid; /* which has this number here */
	bool peer_asked;      /* for whoever calls netdev_peer_mac() to note the answer */
	bool has_peer_mac;
	uint8_t peer_mac[6];
	/* Of an embedded switch, and of the bus; "" and 0: not told. What does not fit is none that is looked for. */
	char port_name[16];   /* phys_port_name: util/port_name.h */
	uint64_t switch_id;   /* a hash of phys_switch_id */
	char parent_bus[12];  /* "pci", "netdevsim" */
	char parent_name[20]; /* the device on that bus: a PCI address */
};

struct nlmsghdr;
/* An RTM_NEWLINK, long enough for its header, to what it says: pure, so the driver is not told. false: it is not whole. */
bool netdev_parse(const struct nlmsghdr *message, struct netdev *ret);

struct netdev_watch;
/* Called once for every interface at the start, then on each change; gone: it was removed (only ifindex and name are valid). */
typedef void (*netdev_event)(const struct netdev *device, bool gone, void *userdata);
int netdev_watch_new(netdev_event event, void *userdata, struct netdev_watch **ret);
void netdev_watch_free(struct netdev_watch *watch);
/*
 * Called for each other namespace that ends and had a number here (netns_id.h), from now on; NETNS_ID_NONE: some may have ended unheard. What is said of
 * interfaces and of these is in the order in which it happened.
 */
typedef void (*netdev_namespace_ended)(int32_t id, void *userdata);
int netdev_watch_namespaces(struct netdev_watch *watch, netdev_namespace_ended ended);
int netdev_watch_fd(const struct netdev_watch *watch);	  /* poll for input, then: */
int netdev_watch_dispatch(struct netdev_watch *watch);	  /* resynchronises by itself after ENOBUFS */
int netdev_by_name(const char *name, struct netdev *ret); /* -ENODEV */
int netdev_list(netdev_event event, void *userdata);
/* The MAC of a veth's other end, wherever that is. -ENODEV: there is none. */
int netdev_peer_mac(const struct netdev *device, uint8_t ret[6]);
/* What somebody wrote on it (`ip link set DEV alias TEXT`); "": nothing. -ENODEV: there is no such device. */
#define NETDEV_ALIAS_MAX 256
int netdev_alias(uint32_t ifindex, char ret[NETDEV_ALIAS_MAX]);
/* The device takes VLAN tags out of the frames that it receives (ethtool: rx-vlan-offload), and XDP does not see them. */
bool netdev_takes_tags(const struct netdev *device);
bool netdev_takes_service_tags(const struct netdev *device); /* those of 802.1ad: rx-vlan-stag-hw-parse */

#endif
