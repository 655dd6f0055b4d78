/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>
#include <arpa/inet.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>

#include <libmnl/libmnl.h>

#include <netdev/netdev.h>
#include <netdev/tunnel_nic.h>
#include <netdev/tunnel_slow.h>
#include <util/netlink.h>

#define ALIAS "heddle: tunnels of flows that NICs forward"

/* 0: there is no device of that name; 1: it is ours; -EBUSY: it is somebody else's. */
static int look(uint32_t *ret_ifindex)
{
	char alias[NETDEV_ALIAS_MAX];
	struct netdev device;
	int r = netdev_by_name(TUNNEL_NIC_DEVICE, &device);

	if (r == 0)
		r = netdev_alias(device.ifindex, alias);
	if (r < 0)
		return r == -ENODEV ? 0 : r;
	*ret_ifindex = device.ifindex;
	return strcmp(alias, ALIAS) == 0 ? 1 : -EBUSY;
}

static int drop(struct mnl_socket *socket, uint32_t ifindex)
{
	NETLINK_REQUEST(buffer);
	struct ifinfomsg *info;
	struct nlmsghdr *request = netlink_link_request(buffer, RTM_DELLINK, NLM_F_ACK, &info);
	int r;

	info->ifi_index = (int)ifindex;
	r = netlink_ask(socket, request, NULL, NULL);
	return r == -ENODEV ? 0 : r;
}

/* Of all tunnels at once: which one, rules say. */
static void put_data(struct nlmsghdr *request, const struct tunnel_nic *nic)
{
	if (nic->geneve) {
		mnl_attr_put(request, IFLA_GENEVE_COLLECT_METADATA, 0, NULL);
		mnl_attr_put_u16(request, IFLA_GENEVE_PORT, htons(nic->port));
		mnl_attr_put_u8(request, IFLA_GENEVE_UDP_ZERO_CSUM6_TX, 1);
		mnl_attr_put_u8(request, IFLA_GENEVE_UDP_ZERO_CSUM6_RX, 1);
	} else {
		mnl_attr_put_u8(request, IFLA_VXLAN_COLLECT_METADATA, 1);
		mnl_attr_put_u8(request, IFLA_VXLAN_LEARNING, 0);
		mnl_attr_put_u16(request, IFLA_VXLAN_PORT, htons(nic->port));
		mnl_attr_put_u8(request, IFLA_VXLAN_UDP_ZERO_CSUM6_TX, 1);
		mnl_attr_put_u8(request, IFLA_VXLAN_UDP_ZERO_CSUM6_RX, 1);
	}
}

static int make(struct mnl_socket *socket, const struct tunnel_nic *nic)
{
	NETLINK_REQUEST(buffer);
	struct ifinfomsg *info;
	struct nlmsghdr *request = netlink_link_request(buffer, RTM_NEWLINK, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, &info);
	struct nlattr *link, *data;

	mnl_attr_put_strz(request, IFLA_IFNAME, TUNNEL_NIC_DEVICE);
	link = mnl_attr_nest_start(request, IFLA_LINKINFO);
	mnl_attr_put_strz(request, IFLA_INFO_KIND, nic->geneve ? "geneve" : "vxlan");
	data = mnl_attr_nest_start(request, IFLA_INFO_DATA);
	put_data(request, nic);
	mnl_attr_nest_end(request, data);
	mnl_attr_nest_end(request, link);
	return netlink_ask(socket, request, NULL, NULL);
}

/* The alias comes first: what cannot be finished is known for ours. */
static int finish(struct mnl_socket *socket, const struct tunnel_nic *nic, uint32_t ifindex)
{
	NETLINK_REQUEST(buffer);
	struct ifinfomsg *info;
	struct nlmsghdr *request = netlink_link_request(buffer, RTM_NEWLINK, NLM_F_ACK, &info);
	int r;

	info->ifi_index = (int)ifindex;
	mnl_attr_put_str(request, IFLA_IFALIAS, ALIAS);
	r = netlink_ask(socket, request, NULL, NULL);
	if (r < 0 || !nic->up)
		return r;
	tunnel_refuse_ipv6(TUNNEL_NIC_DEVICE);
	request = netlink_link_request(buffer, RTM_NEWLINK, NLM_F_ACK, &info);
	info->ifi_index = (int)ifindex;
	info->ifi_flags = IFF_UP | IFF_NOARP;
	info->ifi_change = IFF_UP | IFF_NOARP | IFF_MULTICAST;
	return netlink_ask(socket, request, NULL, NULL);
}

int tunnel_nic_open(const struct tunnel_nic *nic, uint32_t *ret_ifindex)
{
	_cleanup_netlink_ struct mnl_socket *socket = NULL;
	uint32_t ifindex = 0;
	struct netdev device = {0};
	int r = netlink_open(NETLINK_ROUTE, &socket);

	if (r < 0)
		return r;
	r = look(&ifindex);
	if (r > 0)
		r = drop(socket, ifindex);
	if (r == 0)
		r = make(socket, nic);
	if (r == 0)
		r = netdev_by_name(TUNNEL_NIC_DEVICE, &device);
	if (r < 0)
		return r == -EEXIST ? -EBUSY : r;
	r = finish(socket, nic, device.ifindex);
	if (r < 0) {
		(void)drop(socket, device.ifindex);
		return r;
	}
	*ret_ifindex = device.ifindex;
	return 0;
}

int tunnel_nic_remove(void)
{
	_cleanup_netlink_ struct mnl_socket *socket = NULL;
	uint32_t ifindex = 0;
	int r = look(&ifindex);

	if (r <= 0)
		return r == -EBUSY ? 0 : r;
	r = netlink_open(NETLINK_ROUTE, &socket);
	return r < 0 ? r : drop(socket, ifindex);
}

bool tunnel_nic_is_there(uint32_t ifindex)
{
	struct netdev device;

	return netdev_by_name(TUNNEL_NIC_DEVICE, &device) == 0 && device.ifindex == ifindex;
}
