/* SPDX-License-Identifier: Apache-2.0 */
/* What is known of one NIC, and who knows it: files, or the kernel of this machine. */
#ifndef HEDDLE_DOCTOR_NIC_H
#define HEDDLE_DOCTOR_NIC_H

#include <tools/doctor/doctor.h>

enum nic_kind { NIC_PHYSICAL, NIC_PARAVIRTUAL, NIC_TAP, NIC_SIMULATED };

/* What upstream drivers do, for kernels (before 6.3) and trees in which the device itself does not say. */
struct nic_driver {
	const char *name;
	enum nic_kind kind;
	bool native, zero_copy, switchdev;
	const char *remark;
};
const struct nic_driver *nic_driver(const char *name); /* NULL: not known */

/* As netlink's netdev family has them. */
enum {
	XDP_BASIC = 1 << 0,
	XDP_REDIRECT = 1 << 1,
	XDP_NDO_XMIT = 1 << 2,
	XDP_ZERO_COPY = 1 << 3,
	XDP_OFFLOAD = 1 << 4,
	XDP_FRAGS = 1 << 5
};

/* What XDP of the device can tell of a packet, by functions of the kernel (6.8). */
enum { METADATA_TIMESTAMP = 1 << 0, METADATA_HASH = 1 << 1, METADATA_VLAN = 1 << 2 };

struct nic_xdp {
	bool told, metadata_told;
	uint32_t ifindex;
	uint64_t features, metadata;
};

struct nic_facts {
	char *features;				 /* as ethtool -k prints them; NULL: not told */
	int combined, combined_max, indirection; /* -1: not told */
	struct nic_xdp xdp;			 /* what the device says */
	int eswitch;				 /* -1: not told */
};
enum { ESWITCH_LEGACY, ESWITCH_SWITCHDEV };

/* pci: NULL where it is none, or has no VFs to give. */
void nic_ask(struct doctor *doctor, const char *name, const char *pci, struct nic_facts *ret);
void nic_facts_clear(struct nic_facts *facts);

/* What the kernel answers, one message: pure. -1, false: nothing of the kind. */
int nic_parse_eswitch(const void *message, size_t length);
bool nic_parse_xdp(const void *message, size_t length, struct nic_xdp *ret);
int nic_parse_family(const void *message, size_t length);

#endif
