/* SPDX-License-Identifier: Apache-2.0 */
/* What devlink says of a switch in a NIC, one message: pure, whatever bytes come in. */
#ifndef HEDDLE_NETDEV_DEVLINK_PARSE_H
#define HEDDLE_NETDEV_DEVLINK_PARSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum eswitch_mode { ESWITCH_UNKNOWN, ESWITCH_LEGACY, ESWITCH_SWITCHDEV };

struct devlink_device {
	char bus[12], name[20]; /* "pci", "0000:01:00.0" */
	enum eswitch_mode eswitch;
};

enum devlink_flavour { DEVLINK_OTHER, DEVLINK_PHYSICAL, DEVLINK_PCI_PF, DEVLINK_PCI_VF, DEVLINK_PCI_SF };
struct devlink_port {
	char bus[12], name[20]; /* of its device */
	uint32_t index;
	enum devlink_flavour flavour;
	bool external;	     /* of another host, on a DPU */
	uint32_t ifindex;    /* of its interface, in whichever namespace; 0: none yet */
	uint32_t pf, number; /* of VFs and SFs */
	uint8_t mac[6];	     /* that the function at the other end has; all 0: not told */
};

enum devlink_what { DEVLINK_NOTHING, DEVLINK_DEVICE, DEVLINK_DEVICE_GONE, DEVLINK_PORT, DEVLINK_PORT_GONE };
struct nlmsghdr;
/* A message as it came, of `length` bytes. A device's mode is told by answers to ESWITCH_GET alone. */
enum devlink_what devlink_parse(
	const struct nlmsghdr *message, size_t length, struct devlink_device *ret_device, struct devlink_port *ret_port);

#endif
