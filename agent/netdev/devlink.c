/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <linux/devlink.h>

#include <netdev/devlink.h>
#include <util/cleanup.h>
#include <util/genetlink.h>

DEFINE_CLEANUP(struct devlink *, devlink_close);

/* --- what is known --- */

static struct devlink_device *find_device(const struct devlink *devlink, const char *bus, const char *name)
{
	for (size_t i = 0; i < devlink->n_devices; i++)
		if (strcmp(devlink->devices[i].bus, bus) == 0 && strcmp(devlink->devices[i].name, name) == 0)
			return &devlink->devices[i];
	return NULL;
}

enum eswitch_mode devlink_eswitch(const struct devlink *devlink, const char *bus, const char *name)
{
	const struct devlink_device *device = devlink ? find_device(devlink, bus, name) : NULL;

	return device ? device->eswitch : ESWITCH_UNKNOWN;
}

static bool take_device(struct devlink *devlink, const struct devlink_device *device)
{
	struct devlink_device *known = find_device(devlink, device->bus, device->name), *grown;

	if (known) {
		/* A notification does not tell the mode. */
		if (device->eswitch == ESWITCH_UNKNOWN || device->eswitch == known->eswitch)
			return false;
		known->eswitch = device->eswitch;
		return true;
	}
	grown = reallocarray(devlink->devices, devlink->n_devices + 1, sizeof(*grown));
	if (!grown) {
		devlink->lost = true;
		return false;
	}
	devlink->devices = grown;
	devlink->devices[devlink->n_devices++] = *device;
	return true;
}

static struct devlink_port *find_port(const struct devlink *devlink, const struct devlink_port *port)
{
	for (size_t i = 0; i < devlink->n_ports; i++)
		if (devlink->ports[i].index == port->index && strcmp(devlink->ports[i].name, port->name) == 0 &&
			strcmp(devlink->ports[i].bus, port->bus) == 0)
			return &devlink->ports[i];
	return NULL;
}

static bool same_port(const struct devlink_port *a, const struct devlink_port *b)
{
	return a->flavour == b->flavour && a->external == b->external && a->ifindex == b->ifindex && a->pf == b->pf &&
	       a->number == b->number && memcmp(a->mac, b->mac, sizeof(a->mac)) == 0;
}

static bool take_port(struct devlink *devlink, const struct devlink_port *port)
{
	struct devlink_port *known = find_port(devlink, port), *grown;

	if (known) {
		if (same_port(known, port))
			return false;
		*known = *port;
		return true;
	}
	grown = reallocarray(devlink->ports, devlink->n_ports + 1, sizeof(*grown));
	if (!grown) {
		devlink->lost = true;
		return false;
	}
	devlink->ports = grown;
	devlink->ports[devlink->n_ports++] = *port;
	return true;
}

static bool forget_ports(struct devlink *devlink, const char *bus, const char *name)
{
	size_t kept = 0, n = devlink->n_ports;

	for (size_t i = 0; i < n; i++)
		if (strcmp(devlink->ports[i].bus, bus) != 0 || strcmp(devlink->ports[i].name, name) != 0)
			devlink->ports[kept++] = devlink->ports[i];
	devlink->n_ports = kept;
	return kept != n;
}

bool devlink_take(struct devlink *devlink, const struct nlmsghdr *message, size_t length)
{
	struct devlink_device device = {0}, *known_device;
	struct devlink_port port = {0}, *known;

	switch (devlink_parse(message, length, &device, &port)) {
	case DEVLINK_DEVICE:
		return take_device(devlink, &device);
	case DEVLINK_DEVICE_GONE:
		known_device = find_device(devlink, device.bus, device.name);
		if (known_device)
			*known_device = devlink->devices[--devlink->n_devices];
		return forget_ports(devlink, device.bus, device.name) || known_device;
	case DEVLINK_PORT:
		return take_port(devlink, &port);
	case DEVLINK_PORT_GONE:
		known = find_port(devlink, &port);
		if (known)
			*known = devlink->ports[--devlink->n_ports];
		return known != NULL;
	case DEVLINK_NOTHING:
		break;
	}
	return false;
}

/* --- asking --- */

static int on_answer(const struct nlmsghdr *message, void *userdata)
{
	(void)devlink_take(userdata, message, MNL_ALIGN(message->nlmsg_len));
	return MNL_CB_OK;
}

/* On a socket of its own, so that no notification comes in between. devlink: what the answers are taken into. */
static int ask(struct nlmsghdr *request, struct devlink *devlink)
{
	_cleanup_netlink_ struct mnl_socket *socket = NULL;
	int r = netlink_open(NETLINK_GENERIC, &socket);

	return r < 0 ? r : netlink_ask(socket, request, devlink ? on_answer : NULL, devlink);
}

static void name_device(struct nlmsghdr *request, const char *bus, const char *name)
{
	mnl_attr_put_strz(request, DEVLINK_ATTR_BUS_NAME, bus);
	mnl_attr_put_strz(request, DEVLINK_ATTR_DEV_NAME, name);
}

static void ask_mode(struct devlink *devlink, const char *bus, const char *name)
{
	NETLINK_REQUEST(buffer);
	struct nlmsghdr *request = genetlink_request(buffer, devlink->family, DEVLINK_CMD_ESWITCH_GET, NLM_F_ACK);

	name_device(request, bus, name);
	/* A NIC without a switch says that it does not know of any. */
	(void)ask(request, devlink);
}

static int list_all(struct devlink *devlink)
{
	NETLINK_REQUEST(buffer);
	int r;

	devlink->n_devices = devlink->n_ports = 0;
	devlink->lost = false;
	r = ask(genetlink_request(buffer, devlink->family, DEVLINK_CMD_GET, NLM_F_DUMP), devlink);
	if (r == 0)
		r = ask(genetlink_request(buffer, devlink->family, DEVLINK_CMD_PORT_GET, NLM_F_DUMP), devlink);
	for (size_t i = 0; r == 0 && i < devlink->n_devices; i++)
		ask_mode(devlink, devlink->devices[i].bus, devlink->devices[i].name);
	/* Something changed while it was listed. */
	if (r == -EINTR)
		devlink->lost = true;
	return r == -EINTR ? 0 : r;
}

int devlink_open(struct devlink **ret)
{
	_cleanup_(devlink_close_p) struct devlink *devlink = NULL;
	struct genetlink_family family;
	int r = genetlink_find(DEVLINK_GENL_NAME, DEVLINK_GENL_MCGRP_CONFIG_NAME, &family);

	if (r < 0)
		return r;
	devlink = calloc(1, sizeof(*devlink));
	if (!devlink)
		return -ENOMEM;
	devlink->family = family.number;
	r = netlink_watch(NETLINK_GENERIC, &family.group, 1, &devlink->socket);
	if (r == 0)
		r = list_all(devlink);
	if (r < 0)
		return r;
	*ret = TAKE_PTR(devlink);
	return 0;
}

void devlink_close(struct devlink *devlink)
{
	if (!devlink)
		return;
	if (devlink->socket)
		mnl_socket_close(devlink->socket);
	free(devlink->devices);
	free(devlink->ports);
	free(devlink);
}

int devlink_fd(const struct devlink *devlink)
{
	return mnl_socket_get_fd(devlink->socket);
}

static int on_change(const struct nlmsghdr *message, void *userdata)
{
	struct devlink *devlink = userdata;

	devlink->changed |= devlink_take(devlink, message, MNL_ALIGN(message->nlmsg_len));
	return MNL_CB_OK;
}

int devlink_dispatch(struct devlink *devlink)
{
	int r;

	devlink->changed = false;
	r = netlink_read(devlink->socket, on_change, devlink);
	if (r < 0 && r != -ENOBUFS)
		return r;
	if (r == -ENOBUFS || devlink->lost) {
		r = list_all(devlink);
		return r < 0 ? r : 1;
	}
	if (devlink->changed)
		for (size_t i = 0; i < devlink->n_devices; i++)
			ask_mode(devlink, devlink->devices[i].bus, devlink->devices[i].name);
	return devlink->changed;
}

int devlink_set_eswitch(const char *bus, const char *name, enum eswitch_mode mode)
{
	NETLINK_REQUEST(buffer);
	struct genetlink_family family;
	struct nlmsghdr *request;
	int r = genetlink_find(DEVLINK_GENL_NAME, NULL, &family);

	if (r < 0)
		return r;
	request = genetlink_request(buffer, family.number, DEVLINK_CMD_ESWITCH_SET, NLM_F_ACK);
	name_device(request, bus, name);
	mnl_attr_put_u16(request, DEVLINK_ATTR_ESWITCH_MODE,
		mode == ESWITCH_SWITCHDEV ? DEVLINK_ESWITCH_MODE_SWITCHDEV : DEVLINK_ESWITCH_MODE_LEGACY);
	return ask(request, NULL);
}
