/* SPDX-License-Identifier: Apache-2.0 */
/*
 * VFs that containers have: what their interfaces were like, so that they are given back as they were. One record a VF in the state directory, on
 * disk before anything is changed: whoever has the record has the VF, and nobody puts back what is not in it. heddle-cni lends and takes back;
 * heddled finishes what came back by itself, since the kernel returns the interfaces of a namespace that ends. Both may do it at any time: every step
 * can be repeated. VFs are known by PCI address, in whatever namespace and by whatever name.
 */
#ifndef HEDDLE_NETDEV_VF_LOAN_H
#define HEDDLE_NETDEV_VF_LOAN_H

#include <limits.h>
#include <net/if.h>
#include <stdbool.h>
#include <stdint.h>

#define VF_LOAN_TEXT_MAX 256
#define VF_LOAN_FLAGS (IFF_UP | IFF_PROMISC | IFF_ALLMULTI) /* that are put back */

struct vf_link {
	uint32_t ifindex; /* 0: none */
	char name[IF_NAMESIZE];
	uint8_t mac[6];
	uint32_t mtu, flags; /* of VF_LOAN_FLAGS */
};

struct vf_loan {
	char pci[20];
	char boot[64]; /* of the machine: VFs do not outlive it */
	/* who has it */
	char name[VF_LOAN_TEXT_MAX], container[VF_LOAN_TEXT_MAX], interface[IF_NAMESIZE];
	char netns[PATH_MAX]; /* where it was, and what was there: a path may be another container's by now */
	uint64_t netns_device, netns_inode;
	int32_t netns_id; /* netns_id.h: where the host is, as long as that namespace lives; NETNS_ID_NONE: not known */
	bool ended;	  /* the container is gone: only putting back is left */
	/* as they were */
	struct vf_link vf;	    /* none: a driver of user space has it */
	struct vf_link representor; /* none: legacy mode */
};

void vf_loan_boot(char ret[64]);

/* --- records --- */

/* The directory of them, below the state directory; make: where it is missing. An fd, or a negative errno. */
int vf_loans_open(const char *state_dir, bool make);
/* Of all of them, until the fd is closed. wait false: -EAGAIN. */
int vf_loans_lock(int loans, bool wait);
int vf_loan_read(int loans, const char *pci, struct vf_loan *ret); /* -ENOENT; -EBADMSG: it is damaged */
int vf_loan_write(int loans, const struct vf_loan *loan);
int vf_loan_remove(int loans, const char *pci);
/* seen may remove the one that it sees. Ends at its first negative answer. */
int vf_loans_each(int loans, int (*seen)(const struct vf_loan *loan, void *userdata), void *userdata);
/* As a record has it on disk: pure, but for memory. */
int vf_loan_decode(const char *text, size_t length, struct vf_loan *ret);
bool vf_loan_is(const struct vf_loan *loan, const char *name, const char *container, const char *interface);
/* The same container has the same VF, in the same namespace. */
bool vf_loan_same(const struct vf_loan *a, const struct vf_loan *b);
/* The recorded path leads to the recorded namespace, which is therefore there. false says nothing: not everybody sees the path. */
bool vf_loan_netns_is_there(const struct vf_loan *loan);

/* --- interfaces; the socket (NETLINK_ROUTE) says in which namespace --- */

struct mnl_socket;
int vf_link_find(struct mnl_socket *socket, const char *pci, struct vf_link *ret); /* -ENODEV */
int vf_link_get(struct mnl_socket *socket, uint32_t ifindex, struct vf_link *ret); /* -ENODEV */
int vf_link_set_flags(struct mnl_socket *socket, uint32_t ifindex, uint32_t flags);
int vf_link_set_mtu(struct mnl_socket *socket, uint32_t ifindex, uint32_t mtu);
/*
 * Down before and after. Drivers take a MAC that the PF gave them when they start anew only, and refuse to be told any: then it is started once.
 * -EADDRNOTAVAIL: it has another all the same.
 */
int vf_link_set_mac(struct mnl_socket *socket, uint32_t ifindex, const uint8_t mac[6]);

/* Into another namespace, down, under that name. The record is written. */
int vf_loan_lend(struct mnl_socket *host, const struct vf_loan *loan, int netns, const char *interface);
/*
 * Puts back what is there to be put back, and forgets the record when all is as it was. inside: a socket in the container's namespace; NULL: that is
 * gone, or out of reach. 0; 1: the interface has not come back yet, or has not taken its MAC: the record says that it ended. reason (may be NULL): what is
 * not as it was.
 */
int vf_loan_end(int loans, struct mnl_socket *host, int host_netns, struct mnl_socket *inside, const struct vf_loan *loan,
	char reason[VF_LOAN_TEXT_MAX]);

#endif
