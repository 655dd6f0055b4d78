/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The switches in NICs, as devlink tells of them: which there are, in which mode, which of their ports is whose end. Kept up to date by its
 * notifications; a mode has none, but ports come and go with it, so it is asked for again then.
 */
#ifndef HEDDLE_NETDEV_DEVLINK_H
#define HEDDLE_NETDEV_DEVLINK_H

#include <netdev/devlink_parse.h>

struct devlink {
	struct devlink_device *devices;
	size_t n_devices;
	struct devlink_port *ports;
	size_t n_ports;
	/* how it is followed */
	struct mnl_socket *socket;
	uint16_t family;
	bool changed, lost; /* since it was dispatched; and all is to be asked for anew */
};

/* -ENOENT: this kernel has no devlink. */
int devlink_open(struct devlink **ret);
void devlink_close(struct devlink *devlink); /* NULL is fine */
int devlink_fd(const struct devlink *devlink);
/* Reads what is there. > 0: something changed. */
int devlink_dispatch(struct devlink *devlink);

/* Takes one message in: pure. true: something is other than before. */
bool devlink_take(struct devlink *devlink, const struct nlmsghdr *message, size_t length);
enum eswitch_mode devlink_eswitch(const struct devlink *devlink, const char *bus, const char *name);

/* 0, or what the kernel or the driver refused it with. Waits for the driver: seconds. */
int devlink_set_eswitch(const char *bus, const char *name, enum eswitch_mode mode);

#endif
