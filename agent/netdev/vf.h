/* SPDX-License-Identifier: Apache-2.0 */
/* What a NIC does for or with a VF, set through its PF (as `ip link set PF vf N` does), and what it was before. */
#ifndef HEDDLE_NETDEV_VF_H
#define HEDDLE_NETDEV_VF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Each is one thing that the kernel takes and a driver may refuse. */
enum vf_knob { VF_MAC, VF_VLAN, VF_RATE, VF_SPOOF_CHECK, VF_TRUST, VF_LINK_STATE, VF_KNOBS };
extern const char *const vf_knob_names[VF_KNOBS]; /* as in documents */

enum vf_link_state { VF_LINK_AUTO, VF_LINK_ENABLE, VF_LINK_DISABLE };
extern const char *const vf_link_state_names[]; /* ended by NULL */

struct vf_values {
	uint32_t has; /* bits of enum vf_knob */
	uint8_t mac[6];
	uint16_t vlan; /* 0: none */
	uint8_t qos;
	uint32_t min_rate, max_rate; /* Mbit/s; 0: none */
	bool spoof_check, trust;
	uint8_t link_state; /* enum vf_link_state */
};
bool vf_same(const struct vf_values *a, const struct vf_values *b, enum vf_knob knob);

struct vf_state {
	uint32_t index;
	struct vf_values values;
};

struct nlmsghdr;
/* An RTM_NEWLINK of `length` bytes: what it says of VFs, sorted by index. Pure. *ret is malloc()ed. */
int vf_parse(const struct nlmsghdr *message, size_t length, struct vf_state **ret, size_t *ret_n);

/* How it is read and set: the kernel, or a test's double. */
struct vf_backend {
	int (*read)(void *userdata, uint32_t pf_ifindex, struct vf_state **ret, size_t *ret_n);
	int (*set)(void *userdata, uint32_t pf_ifindex, uint32_t index, enum vf_knob knob, const struct vf_values *values);
	void *userdata;
};
extern const struct vf_backend vf_kernel;

/* What one VF shall be like. */
struct vf_wish {
	char pf[20]; /* PCI address of the PF, by which it is remembered */
	uint32_t pf_ifindex;
	uint32_t index;
	struct vf_values values;
	int refused[VF_KNOBS]; /* set by vf_sync(): a negative errno where the driver did not take it */
};

/*
 * These, and nothing of other VFs: what was set on others is put back, unless somebody else has changed it since. What it was is in a file of the
 * state directory, written ahead of the change; it means nothing after a reboot, which VFs do not outlive. find: ifindex of a PF by its address; 0:
 * it is not there. *ret_left: so much is still to be put back one day. What a driver refuses is no error.
 */
int vf_sync(const struct vf_backend *backend, const char *state_dir, const char *boot_id, struct vf_wish *wishes, size_t n,
	uint32_t (*find)(const char *pf, void *userdata), void *userdata, size_t *ret_left);

#endif
