/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <linux/devlink.h>
#include <linux/genetlink.h>
#include <sys/socket.h>

#include <libmnl/libmnl.h>

#include <netdev/devlink.h>
#include <util/cleanup.h>
#include <util/log.h>
#include <util/netlink.h>

#define MESSAGE_SIZE 32768
/* Room for what 256 VFs that come at once make. */
#define RECEIVE_BUFFER (1 << 20)

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

static struct nlmsghdr *begin(void *buffer, uint16_t family, uint8_t command, uint16_t flags)
{
	struct nlmsghdr *request = mnl_nlmsg_put_header(buffer);
	struct genlmsghdr *header;

	request->nlmsg_type = family;
	request->nlmsg_flags = NLM_F_REQUEST | flags;
	request->nlmsg_seq = 1;
	header = mnl_nlmsg_put_extra_header(request, sizeof(*header));
	header->cmd = command;
	header->version = DEVLINK_GENL_VERSION;
	return request;
}

struct answer {
	struct devlink *devlink; /* NULL: the family is asked for */
	uint16_t family;
	uint32_t group;
	bool found;
};

static int on_answer(const struct nlmsghdr *message, void *userdata)
{
	struct answer *answer = userdata;

	if (answer->devlink)
		(void)devlink_take(answer->devlink, message, message->nlmsg_len);
	else
		answer->found |= devlink_parse_family(message, message->nlmsg_len, &answer->family, &answer->group);
	return MNL_CB_OK;
}

/* On a socket of its own, so that no notification comes in between. */
static int ask(struct nlmsghdr *request, struct answer *answer)
{
	_Alignas(struct nlmsghdr) uint8_t buffer[MESSAGE_SIZE];
	_cleanup_netlink_ struct mnl_socket *socket = NULL;
	int r = netlink_open(NETLINK_GENERIC, &socket);

	if (r == 0)
		r = mnl_socket_sendto(socket, request, request->nlmsg_len) < 0 ? -errno : MNL_CB_OK;
	while (r == MNL_CB_OK) {
		ssize_t length = mnl_socket_recvfrom(socket, buffer, sizeof(buffer));

		r = length < 0 ? -errno : mnl_cb_run(buffer, (size_t)length, 1, mnl_socket_get_portid(socket), on_answer, answer);
		if (r == MNL_CB_ERROR && length >= 0)
			r = -errno;
		/* One question without a dump has one answer and no end. */
		if (r == MNL_CB_OK && !(request->nlmsg_flags & (NLM_F_DUMP | NLM_F_ACK)))
			break;
	}
	return r < 0 ? r : 0;
}

static int find_family(struct answer *ret)
{
	_Alignas(struct nlmsghdr) uint8_t buffer[256] = {0};
	struct nlmsghdr *request = begin(buffer, GENL_ID_CTRL, CTRL_CMD_GETFAMILY, 0);
	int r;

	*ret = (struct answer){0};
	mnl_attr_put_strz(request, CTRL_ATTR_FAMILY_NAME, DEVLINK_GENL_NAME);
	r = ask(request, ret);
	return r < 0 ? r : ret->found ? 0 : -ENOENT;
}

static void name_device(struct nlmsghdr *request, const char *bus, const char *name)
{
	mnl_attr_put_strz(request, DEVLINK_ATTR_BUS_NAME, bus);
	mnl_attr_put_strz(request, DEVLINK_ATTR_DEV_NAME, name);
}

static void ask_mode(struct devlink *devlink, const char *bus, const char *name)
{
	_Alignas(struct nlmsghdr) uint8_t buffer[256] = {0};
	struct nlmsghdr *request = begin(buffer, devlink->family, DEVLINK_CMD_ESWITCH_GET, 0);
	struct answer answer = {.devlink = devlink};

	name_device(request, bus, name);
	/* A NIC without a switch says that it does not know of any. */
	(void)ask(request, &answer);
}

static int list_all(struct devlink *devlink)
{
	_Alignas(struct nlmsghdr) uint8_t buffer[256];
	struct answer answer = {.devlink = devlink};
	int r;

	devlink->n_devices = devlink->n_ports = 0;
	devlink->lost = false;
	memset(buffer, 0, sizeof(buffer));
	r = ask(begin(buffer, devlink->family, DEVLINK_CMD_GET, NLM_F_DUMP), &answer);
	if (r == 0) {
		memset(buffer, 0, sizeof(buffer));
		r = ask(begin(buffer, devlink->family, DEVLINK_CMD_PORT_GET, NLM_F_DUMP), &answer);
	}
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
	struct answer answer;
	int r = find_family(&answer), fd = -1;

	if (r < 0)
		return r;
	devlink = calloc(1, sizeof(*devlink));
	if (!devlink)
		return -ENOMEM;
	devlink->family = answer.family;
	r = netlink_open(NETLINK_GENERIC, &devlink->socket);
	if (r < 0)
		return r;
	fd = mnl_socket_get_fd(devlink->socket);
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &(int){RECEIVE_BUFFER}, sizeof(int));
	if (setsockopt(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &answer.group, sizeof(answer.group)) < 0)
		return -errno;
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

int devlink_dispatch(struct devlink *devlink)
{
	_Alignas(struct nlmsghdr) uint8_t buffer[MESSAGE_SIZE];
	int fd = devlink_fd(devlink), r;
	bool changed = false;

	for (;;) {
		ssize_t length = recv(fd, buffer, sizeof(buffer), MSG_DONTWAIT);
		const struct nlmsghdr *message = (const void *)buffer;
		int left = (int)length;

		if (length < 0 && errno == ENOBUFS) {
			devlink->lost = true;
			continue;
		}
		if (length < 0 && errno == EINTR)
			continue;
		if (length < 0 && errno != EAGAIN)
			return -errno;
		if (length < 0)
			break;
		for (; mnl_nlmsg_ok(message, left); message = mnl_nlmsg_next(message, &left))
			changed |= devlink_take(devlink, message, (size_t)left);
	}
	if (devlink->lost) {
		r = list_all(devlink);
		return r < 0 ? r : 1;
	}
	if (changed)
		for (size_t i = 0; i < devlink->n_devices; i++)
			ask_mode(devlink, devlink->devices[i].bus, devlink->devices[i].name);
	return changed;
}

int devlink_set_eswitch(const char *bus, const char *name, enum eswitch_mode mode)
{
	_Alignas(struct nlmsghdr) uint8_t buffer[256] = {0};
	struct nlmsghdr *request;
	struct answer answer;
	int r = find_family(&answer);

	if (r < 0)
		return r;
	request = begin(buffer, answer.family, DEVLINK_CMD_ESWITCH_SET, NLM_F_ACK);
	name_device(request, bus, name);
	mnl_attr_put_u16(request, DEVLINK_ATTR_ESWITCH_MODE,
		mode == ESWITCH_SWITCHDEV ? DEVLINK_ESWITCH_MODE_SWITCHDEV : DEVLINK_ESWITCH_MODE_LEGACY);
	return ask(request, &answer);
}
