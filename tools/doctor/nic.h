/* SPDX-License-Identifier: Apache-2.0 */
/* What is known of one NIC, and who knows it: files, or the kernel of this machine. */
#ifndef HEDDLE_DOCTOR_NIC_H
#define HEDDLE_DOCTOR_NIC_H

#include <tools/doctor/doctor.h>
#include <util/xdp_features.h>

enum nic_kind { NIC_PHYSICAL, NIC_PARAVIRTUAL, NIC_TAP, NIC_SIMULATED };

/* What upstream drivers do, for kernels (before 6.3) and trees in which the device itself does not say. */
struct nic_driver {
	const char *name;
	enum nic_kind kind;
	bool native, zero_copy, switchdev;
	const char *remark;
};
const struct nic_driver *nic_driver(const char *name); /* NULL: not known */

struct nic_facts {
	char *features;				 /* as ethtool -k prints them; NULL: not told */
	int combined, combined_max, indirection; /* -1: not told */
	struct xdp_features xdp;		 /* what the device says */
	int eswitch;				 /* -1: not told */
};
enum { ESWITCH_LEGACY, ESWITCH_SWITCHDEV };

/* pci: NULL where it is none, or has no VFs to give. */
void nic_ask(struct doctor *doctor, const char *name, const char *pci, struct nic_facts *ret);
void nic_facts_clear(struct nic_facts *facts);

/* What the kernel answers, one message: pure. -1: nothing of the kind. */
int nic_parse_eswitch(const void *message, size_t length);

#endif
