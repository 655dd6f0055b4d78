/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <linux/genetlink.h>

#include <libmnl/libmnl.h>

#include <netdev/xdp_features.h>
#include <util/cleanup.h>
#include <util/netlink.h>

/* linux/netdev.h, which the headers of older kernels do not have. */
#define FAMILY "netdev"
#define FAMILY_GROUP "mgmt"
#define FAMILY_VERSION 1
enum { COMMAND_GET = 1 };
enum { ATTRIBUTE_IFINDEX = 1, ATTRIBUTE_XDP_FEATURES = 3 };

struct xdp_features {
	struct mnl_socket *asks, *watch;
	uint16_t family;
};

/* --- messages --- */

static struct nlmsghdr *request_of(char *buffer, uint16_t family, uint8_t command, uint8_t version)
{
	struct nlmsghdr *request = netlink_request(buffer, family, NLM_F_ACK);
	struct genlmsghdr *head = mnl_nlmsg_put_extra_header(request, sizeof(*head));

	head->cmd = command;
	head->version = version;
	return request;
}

bool xdp_features_parse(const struct nlmsghdr *message, uint32_t *ret_ifindex, uint64_t *ret_features)
{
	const struct nlattr *attribute;
	bool named = false, told = false;

	if (mnl_nlmsg_get_payload_len(message) < sizeof(struct genlmsghdr))
		return false;
	mnl_attr_for_each(attribute, message, sizeof(struct genlmsghdr))
	{
		if (mnl_attr_get_type(attribute) == ATTRIBUTE_IFINDEX && mnl_attr_validate(attribute, MNL_TYPE_U32) == 0) {
			*ret_ifindex = mnl_attr_get_u32(attribute);
			named = true;
		} else if (mnl_attr_get_type(attribute) == ATTRIBUTE_XDP_FEATURES &&
			   mnl_attr_validate(attribute, MNL_TYPE_U64) == 0) {
			*ret_features = mnl_attr_get_u64(attribute);
			told = true;
		}
	}
	return named && told;
}

struct family {
	uint16_t number;
	uint32_t group;
};

static void take_group(const struct nlattr *group, struct family *family)
{
	const struct nlattr *attribute;
	const char *name = "";
	uint32_t number = 0;

	mnl_attr_for_each_nested(attribute, group)
	{
		if (mnl_attr_get_type(attribute) == CTRL_ATTR_MCAST_GRP_ID && mnl_attr_validate(attribute, MNL_TYPE_U32) == 0)
			number = mnl_attr_get_u32(attribute);
		else if (mnl_attr_get_type(attribute) == CTRL_ATTR_MCAST_GRP_NAME &&
			 mnl_attr_validate(attribute, MNL_TYPE_NUL_STRING) == 0)
			name = mnl_attr_get_str(attribute);
	}
	if (strcmp(name, FAMILY_GROUP) == 0)
		family->group = number;
}

static int on_family(const struct nlmsghdr *message, void *userdata)
{
	const struct nlattr *attribute, *group;
	struct family *family = userdata;

	if (mnl_nlmsg_get_payload_len(message) < sizeof(struct genlmsghdr))
		return MNL_CB_OK;
	mnl_attr_for_each(attribute, message, sizeof(struct genlmsghdr))
	{
		if (mnl_attr_get_type(attribute) == CTRL_ATTR_FAMILY_ID && mnl_attr_validate(attribute, MNL_TYPE_U16) == 0)
			family->number = mnl_attr_get_u16(attribute);
		else if (mnl_attr_get_type(attribute) == CTRL_ATTR_MCAST_GROUPS)
			mnl_attr_for_each_nested(group, attribute) take_group(group, family);
	}
	return MNL_CB_OK;
}

/* --- how it is followed --- */

static struct mnl_socket *open_socket(void)
{
	struct mnl_socket *socket = mnl_socket_open2(NETLINK_GENERIC, SOCK_CLOEXEC);

	if (socket && mnl_socket_bind(socket, 0, MNL_SOCKET_AUTOPID) == 0)
		return socket;
	if (socket)
		mnl_socket_close(socket);
	return NULL;
}

void xdp_features_close(struct xdp_features *features)
{
	if (!features)
		return;
	if (features->asks)
		mnl_socket_close(features->asks);
	if (features->watch)
		mnl_socket_close(features->watch);
	free(features);
}

int xdp_features_open(struct xdp_features **ret)
{
	struct xdp_features *features = calloc(1, sizeof(*features));
	struct family family = {0};
	NETLINK_REQUEST(buffer);
	struct nlmsghdr *request = request_of(buffer, GENL_ID_CTRL, CTRL_CMD_GETFAMILY, 1);
	int r;

	if (!features)
		return -ENOMEM;
	mnl_attr_put_strz(request, CTRL_ATTR_FAMILY_NAME, FAMILY);
	features->asks = open_socket();
	features->watch = features->asks ? open_socket() : NULL;
	r = features->watch ? netlink_ask(features->asks, request, on_family, &family) : -errno;
	if (r == 0 && (!family.number || !family.group))
		r = -ENOENT;
	if (r == 0 && mnl_socket_setsockopt(features->watch, NETLINK_ADD_MEMBERSHIP, &family.group, sizeof(family.group)) < 0)
		r = -errno;
	if (r < 0) {
		xdp_features_close(features);
		return r;
	}
	features->family = family.number;
	*ret = features;
	return 0;
}

int xdp_features_fd(const struct xdp_features *features)
{
	return mnl_socket_get_fd(features->watch);
}

bool xdp_features_dispatch(struct xdp_features *features, xdp_features_cb concerns, void *userdata)
{
	_Alignas(struct nlmsghdr) char buffer[8192];
	bool meant = false;

	for (;;) {
		ssize_t length = recv(mnl_socket_get_fd(features->watch), buffer, sizeof(buffer), MSG_DONTWAIT);
		const struct nlmsghdr *message = (const struct nlmsghdr *)buffer;
		int left = (int)length;

		if (length < 0 && errno == ENOBUFS) { /* some are lost: whose, nobody knows */
			meant = true;
			continue;
		}
		if (length <= 0)
			return meant;
		for (; mnl_nlmsg_ok(message, left); message = mnl_nlmsg_next(message, &left)) {
			uint32_t ifindex = 0;
			uint64_t ignored;

			if (xdp_features_parse(message, &ifindex, &ignored))
				meant |= concerns(ifindex, userdata);
		}
	}
}

struct answer {
	uint32_t ifindex;
	uint64_t features;
	bool found;
};

static int on_device(const struct nlmsghdr *message, void *userdata)
{
	struct answer *answer = userdata;
	uint64_t features = 0;
	uint32_t ifindex = 0;

	if (xdp_features_parse(message, &ifindex, &features) && ifindex == answer->ifindex) {
		answer->features = features;
		answer->found = true;
	}
	return MNL_CB_OK;
}

int xdp_features_of(struct xdp_features *features, uint32_t ifindex, uint64_t *ret)
{
	struct answer answer = {.ifindex = ifindex};
	NETLINK_REQUEST(buffer);
	struct nlmsghdr *request = request_of(buffer, features->family, COMMAND_GET, FAMILY_VERSION);
	int r;

	mnl_attr_put_u32(request, ATTRIBUTE_IFINDEX, ifindex);
	r = netlink_ask(features->asks, request, on_device, &answer);
	if (r < 0)
		return r;
	if (!answer.found)
		return -ENODEV;
	*ret = answer.features;
	return 0;
}
