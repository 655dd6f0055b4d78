/* SPDX-License-Identifier: Apache-2.0 */
/* What the ethtool ioctls tell of a device, and set. Devices are given by what they are called now. */
#ifndef HEDDLE_UTIL_ETHTOOL_H
#define HEDDLE_UTIL_ETHTOOL_H

#include <stdbool.h>
#include <stddef.h>
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
/* Calls with the name (`length` bytes at most, not terminated) and state of each. 0 or -errno. */
typedef void (*ethtool_feature_cb)(const char *name, size_t length, bool active, void *userdata);
int ethtool_features_each(const char *device, ethtool_feature_cb feature, void *userdata);
/* Receive queues in use (ethtool -l). -EOPNOTSUPP: the driver does not say. */
int ethtool_rx_queues(const char *device, uint32_t *ret);
int ethtool_feature_set(const char *device, const char *name, bool on);
int ethtool_features_off(const char *device); /* all that may be changed */

#endif
