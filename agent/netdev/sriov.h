/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who is whose in SR-IOV: a VF of a PF, its PCI address, its own interface, and its representor in a NIC whose switch is in switchdev mode. Put
 * together from three that each know a part: /sys (PCI), devlink (ports of switches), rtnetlink (interfaces). Interfaces are known by ifindex.
 */
#ifndef HEDDLE_NETDEV_SRIOV_H
#define HEDDLE_NETDEV_SRIOV_H

#include <netdev/devlink.h>
#include <netdev/netdev.h>

struct sriov_pf {
	char bus[12], address[20], driver[32];
	uint32_t total, vfs; /* it can have, it has */
	enum eswitch_mode eswitch;
	uint32_t ifindex; /* 0: it has none here */
	char name[IF_NAMESIZE];
	uint64_t switch_id;
};

struct sriov_vf {
	size_t pf; /* in the table */
	uint32_t index;
	char address[20], driver[32]; /* "": none */
	uint32_t ifindex;	      /* its own interface; 0: it has none, or not in this namespace */
	char name[IF_NAMESIZE];
	uint32_t representor; /* 0: none */
	char representor_name[IF_NAMESIZE];
	uint8_t mac[6]; /* all 0: not told */
};

struct sriov {
	struct sriov_pf *pfs;
	struct sriov_vf *vfs; /* by PF and index */
	size_t n_pfs, n_vfs;
};

/* Below sys_fd, an open /sys: the part that it knows. */
int sriov_scan(int sys_fd, struct sriov *ret);
/* And the others': pure. devlink may be NULL. */
void sriov_join(struct sriov *table, const struct netdev *devices, size_t n_devices, const struct devlink *devlink);
void sriov_clear(struct sriov *table);

const struct sriov_vf *sriov_find(
	const struct sriov *table, const struct netdev *devices, size_t n_devices, const char *pf, uint32_t index);
const struct sriov_vf *sriov_find_address(const struct sriov *table, const char *address);

/* What a Port names: the VF `index` of `pf`, or what is at a PCI address. */
struct sriov_name {
	const char *pf;
	uint32_t index;
	const char *pci; /* pf NULL */
};
#define SRIOV_REASON_MAX 224
/* The interface that is switched in its place; 0, and why there is none (yet). mac: of who is at the other end, all 0: not told. */
uint32_t sriov_resolve(const struct sriov *table, const struct netdev *devices, size_t n_devices, const struct sriov_name *name,
	uint8_t ret_mac[6], char reason[SRIOV_REASON_MAX]);

/* Tells of PCI devices that come and go, and of PFs whose number of VFs changed (uevents). */
int sriov_events_open(void);	    /* an fd to poll for input */
bool sriov_events_dispatch(int fd); /* something of the kind happened */
/* One event, as the kernel sends it: pure. */
bool sriov_event_counts(const char *event, size_t length);

#endif
