/* SPDX-License-Identifier: Apache-2.0 */
#include <netdev/netns_id.h>

#include <errno.h>
#include <linux/net_namespace.h>
#include <linux/rtnetlink.h>

#include <libmnl/libmnl.h>

#include <util/netlink.h>

bool netns_id_parse(const struct nlmsghdr *message, int32_t *ret)
{
	const struct nlattr *attribute;
	bool found = false;

	if (mnl_nlmsg_get_payload_len(message) < sizeof(struct rtgenmsg))
		return false;
	mnl_attr_for_each(attribute, message, sizeof(struct rtgenmsg))
	{
		if (mnl_attr_get_type(attribute) != NETNSA_NSID || mnl_attr_validate(attribute, MNL_TYPE_U32) < 0)
			continue;
		*ret = (int32_t)mnl_attr_get_u32(attribute);
		found = true;
	}
	return found;
}

static int take_id(const struct nlmsghdr *message, void *userdata)
{
	if (message->nlmsg_type == RTM_NEWNSID)
		(void)netns_id_parse(message, userdata);
	return MNL_CB_OK;
}

static struct nlmsghdr *begin(char *buffer, uint16_t type)
{
	struct nlmsghdr *request = netlink_request(buffer, type, NLM_F_ACK);

	mnl_nlmsg_put_extra_header(request, sizeof(struct rtgenmsg));
	return request;
}

static int look(struct mnl_socket *socket, int netns, int32_t *ret)
{
	NETLINK_REQUEST(buffer);
	struct nlmsghdr *request = begin(buffer, RTM_GETNSID);

	*ret = NETNS_ID_NONE;
	mnl_attr_put_u32(request, NETNSA_FD, (uint32_t)netns);
	return netlink_ask(socket, request, take_id, ret);
}

int netns_id(struct mnl_socket *socket, int netns, int32_t *ret)
{
	NETLINK_REQUEST(buffer);
	struct nlmsghdr *request;
	int32_t id;
	int r = look(socket, netns, &id);

	if (r == 0 && id == NETNS_ID_NONE) {
		request = begin(buffer, RTM_NEWNSID);
		mnl_attr_put_u32(request, NETNSA_FD, (uint32_t)netns);
		mnl_attr_put_u32(request, NETNSA_NSID, (uint32_t)NETNS_ID_NONE); /* any that is free */
		r = netlink_ask(socket, request, NULL, NULL);
		/* Somebody else was faster. */
		if (r == 0 || r == -EEXIST)
			r = look(socket, netns, &id);
	}
	if (r == 0 && id < 0)
		r = -ENOENT;
	if (r == 0)
		*ret = id;
	return r;
}

int netns_id_is_used(struct mnl_socket *socket, int32_t id)
{
	NETLINK_REQUEST(buffer);
	struct nlmsghdr *request = begin(buffer, RTM_GETNSID);
	int r;

	mnl_attr_put_u32(request, NETNSA_NSID, (uint32_t)id);
	r = netlink_ask(socket, request, NULL, NULL);
	return r == -ENOENT ? 0 : r < 0 ? r : 1;
}
