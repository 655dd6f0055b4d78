/* SPDX-License-Identifier: Apache-2.0 */
/* What the ethtool ioctls tell of a device, and set. Devices are given by what they are called now. */
#ifndef HEDDLE_NETDEV_ETHTOOL_H
#define HEDDLE_NETDEV_ETHTOOL_H

#include <stdbool.h>
#include <stdint.h>

/* command: a struct of linux/ethtool.h. 0 or -errno. */
int ethtool_run(const char *device, void *command);

/* A feature, by the name that `ethtool -k` has for it. */
struct ethtool_feature {
	bool available; /* the device has it, and it may be changed */
	bool requested; /* what somebody asked for */
	bool active;
};
/* -EOPNOTSUPP: the kernel has none of that name; -errno. */
int ethtool_feature_get(const char *device, const char *name, struct ethtool_feature *ret);
/* Receive queues in use (ethtool -l). -EOPNOTSUPP: the driver does not say. */
int ethtool_rx_queues(const char *device, uint32_t *ret);
int ethtool_feature_set(const char *device, const char *name, bool on);
int ethtool_features_off(const char *device); /* all that may be changed */

#endif
