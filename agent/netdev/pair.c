/* SPDX-License-Identifier: Apache-2.0 */
/* Pairs of devices of the agent's own: made, taken over from an earlier agent, and removed. */
#include <errno.h>
#include <string.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>
#include <sys/socket.h>

#include <libmnl/libmnl.h>

#include <util/ethtool.h>
#include <netdev/pair.h>
#include <netdev/tunnel_slow.h>
#include <util/netlink.h>

struct look {
	const char *alias;
	bool ours;
};

static int take_ours(const struct nlmsghdr *message, void *userdata)
{
	struct look *look = userdata;
	const struct nlattr *attribute;

	if (message->nlmsg_type != RTM_NEWLINK)
		return MNL_CB_OK;
	mnl_attr_for_each(attribute, message, sizeof(struct ifinfomsg))
	{
		if (mnl_attr_get_type(attribute) == IFLA_IFALIAS && mnl_attr_validate(attribute, MNL_TYPE_STRING) == 0)
			look->ours = strcmp(mnl_attr_get_str(attribute), look->alias) == 0;
	}
	return MNL_CB_OK;
}

/* 0: there is no device of that name; 1: it is ours; -EBUSY: it is somebody else's. */
static int look(struct mnl_socket *socket, const char *device, const char *alias)
{
	NETLINK_REQUEST(buffer);
	struct ifinfomsg *info;
	struct nlmsghdr *request = netlink_link_request(buffer, RTM_GETLINK, NLM_F_ACK, &info);
	struct look look = {.alias = alias};
	int r;

	mnl_attr_put_strz(request, IFLA_IFNAME, device);
	r = netlink_ask(socket, request, take_ours, &look);
	if (r == -ENODEV)
		return 0;
	return r < 0 ? r : look.ours ? 1 : -EBUSY;
}

static int make(struct mnl_socket *socket, const struct pair *pair)
{
	NETLINK_REQUEST(buffer);
	struct ifinfomsg *info;
	struct nlmsghdr *request = netlink_link_request(buffer, RTM_NEWLINK, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, &info);
	struct nlattr *link, *data, *peer;

	mnl_attr_put_strz(request, IFLA_IFNAME, pair->near);
	link = mnl_attr_nest_start(request, IFLA_LINKINFO);
	mnl_attr_put_strz(request, IFLA_INFO_KIND, "veth");
	data = mnl_attr_nest_start(request, IFLA_INFO_DATA);
	peer = mnl_attr_nest_start(request, VETH_INFO_PEER);
	mnl_nlmsg_put_extra_header(request, sizeof(struct ifinfomsg));
	mnl_attr_put_strz(request, IFLA_IFNAME, pair->far);
	mnl_attr_nest_end(request, peer);
	mnl_attr_nest_end(request, data);
	mnl_attr_nest_end(request, link);
	return netlink_ask(socket, request, NULL, NULL);
}

/* Before it is up: its MAC, and that the stack makes itself no address of that, which all hosts have. */
static int set_up_stack(struct mnl_socket *socket, const struct pair *pair)
{
	NETLINK_REQUEST(buffer);
	struct ifinfomsg *info;
	struct nlmsghdr *request = netlink_link_request(buffer, RTM_NEWLINK, NLM_F_ACK, &info);
	struct nlattr *families, *ipv6;
	int r;

	mnl_attr_put_strz(request, IFLA_IFNAME, pair->near);
	mnl_attr_put(request, IFLA_ADDRESS, sizeof(pair->mac), pair->mac);
	r = netlink_ask(socket, request, NULL, NULL);
	if (r < 0)
		return r;
	request = netlink_link_request(buffer, RTM_NEWLINK, NLM_F_ACK, &info);
	mnl_attr_put_strz(request, IFLA_IFNAME, pair->near);
	families = mnl_attr_nest_start(request, IFLA_AF_SPEC);
	ipv6 = mnl_attr_nest_start(request, AF_INET6);
	mnl_attr_put_u8(request, IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE);
	mnl_attr_nest_end(request, ipv6);
	mnl_attr_nest_end(request, families);
	r = netlink_ask(socket, request, NULL, NULL);
	return r == -EAFNOSUPPORT ? 0 : r; /* a kernel without IPv6 */
}

static int set_up(struct mnl_socket *socket, const struct pair *pair, const char *device)
{
	bool stack = pair->stack && device == pair->near;
	NETLINK_REQUEST(buffer);
	struct ifinfomsg *info;
	struct nlmsghdr *request;
	int r = 0;

	if (!stack)
		tunnel_refuse_ipv6(device);
	if (pair->plain)
		r = ethtool_features_off(device);
	if (r < 0)
		return r;
	if (stack)
		r = set_up_stack(socket, pair);
	if (r < 0)
		return r;
	request = netlink_link_request(buffer, RTM_NEWLINK, NLM_F_ACK, &info);
	info->ifi_flags = IFF_UP | IFF_NOARP;
	info->ifi_change = IFF_UP | IFF_NOARP | IFF_MULTICAST;
	mnl_attr_put_strz(request, IFLA_IFNAME, device);
	mnl_attr_put_u32(request, IFLA_MTU, pair->mtu);
	mnl_attr_put_str(request, IFLA_IFALIAS, pair->alias);
	return netlink_ask(socket, request, NULL, NULL);
}

static int drop(struct mnl_socket *socket, const char *device)
{
	NETLINK_REQUEST(buffer);
	struct ifinfomsg *info;
	struct nlmsghdr *request = netlink_link_request(buffer, RTM_DELLINK, NLM_F_ACK, &info);

	mnl_attr_put_strz(request, IFLA_IFNAME, device);
	return netlink_ask(socket, request, NULL, NULL);
}

/* --- the pair --- */

/* The alias is the last thing that a device gets: of a pair that was never finished neither end has it, and nobody knows whose it is. */
static int open_pair(struct mnl_socket *socket, const struct pair *pair, struct pair_devices *ret)
{
	int near = look(socket, pair->near, pair->alias), far = look(socket, pair->far, pair->alias), r;

	if (near < 0 || far < 0)
		return near < 0 ? near : far;
	if (near && !far) { /* renamed, or taken to another namespace */
		r = drop(socket, pair->near);
		if (r < 0)
			return r;
		near = 0;
	}
	r = near ? 0 : make(socket, pair);
	if (r == 0)
		r = set_up(socket, pair, pair->far);
	if (r == 0)
		r = set_up(socket, pair, pair->near);
	if (r < 0) {
		if (!near)
			(void)drop(socket, pair->near);
		return r == -EEXIST ? -EBUSY : r;
	}
	*ret = (struct pair_devices){.near = if_nametoindex(pair->near), .far = if_nametoindex(pair->far), .was_there = near};
	return ret->near && ret->far ? 0 : -ENODEV;
}

static int remove_pair(struct mnl_socket *socket, const struct pair *pair, struct pair_devices *ret)
{
	int r = look(socket, pair->near, pair->alias);

	(void)ret;
	r = r > 0 ? drop(socket, pair->near) : r;
	return r == -EBUSY || r == -ENODEV ? 0 : r;
}

static int set_near_mtu(struct mnl_socket *socket, const struct pair *pair, struct pair_devices *ret)
{
	NETLINK_REQUEST(buffer);
	struct ifinfomsg *info;
	struct nlmsghdr *request = netlink_link_request(buffer, RTM_NEWLINK, NLM_F_ACK, &info);

	info->ifi_index = (int)ret->near;
	mnl_attr_put_u32(request, IFLA_MTU, pair->mtu);
	return netlink_ask(socket, request, NULL, NULL);
}

static int with_socket(int (*what)(struct mnl_socket *socket, const struct pair *pair, struct pair_devices *ret),
	const struct pair *pair, struct pair_devices *ret)
{
	_cleanup_netlink_ struct mnl_socket *socket = NULL;
	int r = netlink_open(NETLINK_ROUTE, &socket);

	return r < 0 ? r : what(socket, pair, ret);
}

int pair_open(const struct pair *pair, struct pair_devices *ret)
{
	return with_socket(open_pair, pair, ret);
}

int pair_remove(const struct pair *pair)
{
	return with_socket(remove_pair, pair, NULL);
}

int pair_set_mtu(const struct pair *pair, struct pair_devices *devices)
{
	return with_socket(set_near_mtu, pair, devices);
}
