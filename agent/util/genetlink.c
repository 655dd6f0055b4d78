/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include <util/genetlink.h>

#define VERSION 1 /* of all families that are asked here */

const struct genlmsghdr *genetlink_head(const struct nlmsghdr *message, size_t length)
{
	/* libmnl takes the length for a signed one, and looks for attributes up to the aligned end. */
	if (length > INT32_MAX || !mnl_nlmsg_ok(message, (int)length) || message->nlmsg_len > length ||
		MNL_ALIGN(message->nlmsg_len) > length || message->nlmsg_type < NLMSG_MIN_TYPE ||
		mnl_nlmsg_get_payload_len(message) < sizeof(struct genlmsghdr))
		return NULL;
	return mnl_nlmsg_get_payload(message);
}

static void take_groups(const struct nlattr *groups, const char *wanted, uint32_t *ret)
{
	const struct nlattr *group, *attribute;

	if (mnl_attr_validate(groups, MNL_TYPE_NESTED) < 0)
		return;
	mnl_attr_for_each_nested(group, groups)
	{
		const char *name = NULL;
		uint32_t number = 0;

		if (mnl_attr_validate(group, MNL_TYPE_NESTED) < 0)
			continue;
		mnl_attr_for_each_nested(attribute, group)
		{
			if (mnl_attr_get_type(attribute) == CTRL_ATTR_MCAST_GRP_ID &&
				mnl_attr_validate(attribute, MNL_TYPE_U32) == 0)
				number = mnl_attr_get_u32(attribute);
			else if (mnl_attr_get_type(attribute) == CTRL_ATTR_MCAST_GRP_NAME &&
				 mnl_attr_validate(attribute, MNL_TYPE_NUL_STRING) == 0)
				name = mnl_attr_get_str(attribute);
		}
		if (name && strcmp(name, wanted) == 0)
			*ret = number;
	}
}

bool genetlink_parse_family(const struct nlmsghdr *message, size_t length, const char *group, struct genetlink_family *ret)
{
	struct genetlink_family family = {0};
	const struct nlattr *attribute;

	if (!genetlink_head(message, length) || message->nlmsg_type != GENL_ID_CTRL)
		return false;
	mnl_attr_for_each(attribute, message, sizeof(struct genlmsghdr))
	{
		if (mnl_attr_get_type(attribute) == CTRL_ATTR_FAMILY_ID && mnl_attr_validate(attribute, MNL_TYPE_U16) == 0)
			family.number = mnl_attr_get_u16(attribute);
		else if (mnl_attr_get_type(attribute) == CTRL_ATTR_MCAST_GROUPS && group)
			take_groups(attribute, group, &family.group);
	}
	if (!family.number)
		return false;
	*ret = family;
	return true;
}

struct nlmsghdr *genetlink_request(char *buffer, uint16_t family, uint8_t command, uint16_t flags)
{
	struct nlmsghdr *request = netlink_request(buffer, family, flags);
	struct genlmsghdr *head = mnl_nlmsg_put_extra_header(request, sizeof(*head));

	head->cmd = command;
	head->version = VERSION;
	return request;
}

struct search {
	const char *group;
	struct genetlink_family found;
};

static int take_family(const struct nlmsghdr *message, void *userdata)
{
	struct search *search = userdata;

	(void)genetlink_parse_family(message, MNL_ALIGN(message->nlmsg_len), search->group, &search->found);
	return MNL_CB_OK;
}

int genetlink_find(const char *name, const char *group, struct genetlink_family *ret)
{
	_cleanup_netlink_ struct mnl_socket *socket = NULL;
	NETLINK_REQUEST(buffer);
	struct nlmsghdr *request = genetlink_request(buffer, GENL_ID_CTRL, CTRL_CMD_GETFAMILY, NLM_F_ACK);
	struct search search = {.group = group};
	int r = netlink_open(NETLINK_GENERIC, &socket);

	if (r < 0)
		return r;
	mnl_attr_put_strz(request, CTRL_ATTR_FAMILY_NAME, name);
	r = netlink_ask(socket, request, take_family, &search);
	if (r < 0)
		return r;
	if (!search.found.number || (group && !search.found.group))
		return -ENOENT;
	*ret = search.found;
	return 0;
}
