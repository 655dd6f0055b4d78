/* SPDX-License-Identifier: Apache-2.0 */
/* Devices, addresses and routes, by rtnetlink. A socket belongs to the namespace it was made in, so this process enters one only for that long. */
#include <cni/cni.h>

#include <errno.h>
#include <fcntl.h>
#include <net/if_arp.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <linux/if.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/nsfs.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>

#include <libmnl/libmnl.h>

#include <util/addr.h>
#include <util/clock.h>
#include <util/netlink.h>

struct links {
	struct mnl_socket *socket;
};

/* --- namespaces --- */

int netns_own(void)
{
	return open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
}

int netns_open(const char *path, int *ret)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

	if (fd < 0)
		return -errno;
	if (ioctl(fd, NS_GET_NSTYPE) != CLONE_NEWNET)
		return -EINVAL;
	*ret = TAKE_FD(fd);
	return 0;
}

bool netns_is_own(int netns)
{
	_cleanup_close_ int own = netns_own();
	struct stat a, b;

	return own >= 0 && fstat(own, &a) == 0 && fstat(netns, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

static int go_back(int own)
{
	/* what came next would be done to somebody else's namespace */
	if (setns(own, CLONE_NEWNET) < 0)
		abort();
	return 0;
}

int netns_allow_ipv6(int netns, const char *device)
{
	_cleanup_close_ int own = netns_own(), fd = -1;
	char path[64];
	int r = 0;

	if (own < 0 || setns(netns, CLONE_NEWNET) < 0)
		return -errno;
	snprintf(path, sizeof(path), "/proc/sys/net/ipv6/conf/%s/disable_ipv6", device);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	/* a kernel without IPv6 says so when the address is added */
	if (fd >= 0 && write(fd, "0", 1) < 0)
		r = -errno;
	go_back(own);
	return r;
}

/* --- sockets --- */

static int open_socket(struct links **ret)
{
	struct links *links = calloc(1, sizeof(*links));
	int r;

	if (!links)
		return -ENOMEM;
	r = netlink_open(NETLINK_ROUTE, &links->socket);
	if (r < 0) {
		links_close(links);
		return r;
	}
	(void)mnl_socket_setsockopt(links->socket, NETLINK_GET_STRICT_CHK, &(int){1}, sizeof(int));
	*ret = links;
	return 0;
}

struct mnl_socket *links_socket(struct links *links)
{
	return links->socket;
}

int links_open(struct links **ret)
{
	return open_socket(ret);
}

int links_open_in(int netns, struct links **ret)
{
	_cleanup_close_ int own = netns_own();
	int r;

	if (own < 0 || setns(netns, CLONE_NEWNET) < 0)
		return -errno;
	r = open_socket(ret);
	go_back(own);
	return r;
}

void links_close(struct links *links)
{
	if (!links)
		return;
	if (links->socket)
		mnl_socket_close(links->socket);
	free(links);
}

/* --- devices --- */

static void copy_text(const struct nlattr *attribute, char *ret, size_t size)
{
	if (mnl_attr_validate(attribute, MNL_TYPE_STRING) == 0)
		snprintf(ret, size, "%.*s", (int)mnl_attr_get_payload_len(attribute), mnl_attr_get_str(attribute));
}

static void take_kind(const struct nlattr *info, struct link *link)
{
	const struct nlattr *attribute;
	char kind[16] = "";

	mnl_attr_for_each_nested(attribute, info) if (mnl_attr_get_type(attribute) == IFLA_INFO_KIND)
		copy_text(attribute, kind, sizeof(kind));
	link->veth = strcmp(kind, "veth") == 0;
}

static void parse_link(const struct nlmsghdr *message, struct link *ret)
{
	const struct ifinfomsg *info = mnl_nlmsg_get_payload(message);
	const struct nlattr *attribute;
	const uint8_t *b;

	*ret = (struct link){.index = (uint32_t)info->ifi_index, .up = info->ifi_flags & IFF_UP};
	mnl_attr_for_each(attribute, message, sizeof(*info))
	{
		switch (mnl_attr_get_type(attribute)) {
		case IFLA_IFNAME:
			copy_text(attribute, ret->name, sizeof(ret->name));
			break;
		case IFLA_IFALIAS:
			copy_text(attribute, ret->alias, sizeof(ret->alias));
			break;
		case IFLA_OPERSTATE:
			if (mnl_attr_validate(attribute, MNL_TYPE_U8) == 0)
				ret->passes = mnl_attr_get_u8(attribute) == IF_OPER_UP;
			break;
		case IFLA_MTU:
			if (mnl_attr_validate(attribute, MNL_TYPE_U32) == 0)
				ret->mtu = mnl_attr_get_u32(attribute);
			break;
		case IFLA_ADDRESS:
			b = mnl_attr_get_payload(attribute);
			if (mnl_attr_get_payload_len(attribute) == 6)
				(void)mac_format(b, ret->mac);
			break;
		case IFLA_LINKINFO:
			take_kind(attribute, ret);
			break;
		default:
			break;
		}
	}
}

static int take_link(const struct nlmsghdr *message, void *userdata)
{
	if (message->nlmsg_type == RTM_NEWLINK)
		parse_link(message, userdata);
	return MNL_CB_OK;
}

int links_find(struct links *links, const char *name, struct link *ret)
{
	NETLINK_REQUEST(buffer);
	struct nlmsghdr *request = netlink_request(buffer, RTM_GETLINK, NLM_F_ACK);
	struct link link = {0};
	int r;

	mnl_nlmsg_put_extra_header(request, sizeof(struct ifinfomsg));
	mnl_attr_put_strz(request, IFLA_IFNAME, name);
	mnl_attr_put_u32(request, IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
	r = netlink_ask(links->socket, request, take_link, &link);
	if (r < 0)
		return r;
	if (!link.index)
		return -ENODEV;
	*ret = link;
	return 0;
}

struct each {
	link_seen seen;
	void *userdata;
	int r;
};

static int each_link(const struct nlmsghdr *message, void *userdata)
{
	struct each *each = userdata;
	struct link link;

	if (message->nlmsg_type != RTM_NEWLINK || each->r < 0)
		return MNL_CB_OK;
	parse_link(message, &link);
	each->r = each->seen(&link, each->userdata);
	return MNL_CB_OK;
}

int links_each(struct links *links, link_seen seen, void *userdata)
{
	NETLINK_REQUEST(buffer);
	struct nlmsghdr *request = netlink_request(buffer, RTM_GETLINK, NLM_F_DUMP);
	struct each each = {.seen = seen, .userdata = userdata};
	int r;

	mnl_nlmsg_put_extra_header(request, sizeof(struct ifinfomsg));
	mnl_attr_put_u32(request, IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
	r = netlink_ask(links->socket, request, each_link, &each);
	return r < 0 ? r : each.r;
}

static void put_mac(struct nlmsghdr *request, const char *text)
{
	uint8_t mac[6] = {0};

	(void)mac_parse(text, mac);
	mnl_attr_put(request, IFLA_ADDRESS, sizeof(mac), mac);
}

int links_make(struct links *links, const char *name, int peer_netns, const char *peer, const char *mac, uint32_t mtu)
{
	NETLINK_REQUEST(buffer);
	struct nlmsghdr *request = netlink_request(buffer, RTM_NEWLINK, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL);
	struct nlattr *info, *data, *other;

	mnl_nlmsg_put_extra_header(request, sizeof(struct ifinfomsg));
	mnl_attr_put_strz(request, IFLA_IFNAME, name);
	mnl_attr_put_u32(request, IFLA_MTU, mtu);
	info = mnl_attr_nest_start(request, IFLA_LINKINFO);
	mnl_attr_put_strz(request, IFLA_INFO_KIND, "veth");
	data = mnl_attr_nest_start(request, IFLA_INFO_DATA);
	other = mnl_attr_nest_start(request, VETH_INFO_PEER);
	mnl_nlmsg_put_extra_header(request, sizeof(struct ifinfomsg));
	mnl_attr_put_strz(request, IFLA_IFNAME, peer);
	mnl_attr_put_u32(request, IFLA_NET_NS_FD, (uint32_t)peer_netns);
	mnl_attr_put_u32(request, IFLA_MTU, mtu);
	put_mac(request, mac);
	mnl_attr_nest_end(request, other);
	mnl_attr_nest_end(request, data);
	mnl_attr_nest_end(request, info);
	return netlink_ask(links->socket, request, NULL, NULL);
}

int links_set_up(struct links *links, const char *name, const char *alias)
{
	NETLINK_REQUEST(buffer);
	struct nlmsghdr *request = netlink_request(buffer, RTM_NEWLINK, NLM_F_ACK);
	struct ifinfomsg *info = mnl_nlmsg_put_extra_header(request, sizeof(*info));

	info->ifi_flags = info->ifi_change = IFF_UP;
	mnl_attr_put_strz(request, IFLA_IFNAME, name);
	if (alias)
		mnl_attr_put_str(request, IFLA_IFALIAS, alias);
	return netlink_ask(links->socket, request, NULL, NULL);
}

int links_wait(struct links *links, const char *name, unsigned ms)
{
	uint64_t deadline = clock_ms() + ms;

	for (;;) {
		struct link link;
		int r = links_find(links, name, &link);

		if (r < 0 || link.passes)
			return r;
		if (clock_ms() >= deadline)
			return -ETIMEDOUT;
		usleep(500);
	}
}

int links_remove(struct links *links, uint32_t index)
{
	NETLINK_REQUEST(buffer);
	struct nlmsghdr *request = netlink_request(buffer, RTM_DELLINK, NLM_F_ACK);
	struct ifinfomsg *info = mnl_nlmsg_put_extra_header(request, sizeof(*info));

	info->ifi_index = (int)index;
	return netlink_ask(links->socket, request, NULL, NULL);
}

/* --- addresses and routes --- */

static void put_address(struct nlmsghdr *request, uint16_t type, const struct hd_addr *addr)
{
	if (addr_is_ipv4(addr))
		mnl_attr_put(request, type, 4, &addr->w[3]);
	else
		mnl_attr_put(request, type, 16, addr->b);
}

static uint8_t family_of(const struct hd_addr *addr)
{
	return addr_is_ipv4(addr) ? AF_INET : AF_INET6;
}

int links_add_address(struct links *links, uint32_t index, const struct address *address)
{
	NETLINK_REQUEST(buffer);
	struct nlmsghdr *request = netlink_request(buffer, RTM_NEWADDR, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL);
	struct ifaddrmsg *header = mnl_nlmsg_put_extra_header(request, sizeof(*header));

	header->ifa_family = family_of(&address->addr);
	header->ifa_prefixlen = address->length;
	header->ifa_index = index;
	/* it is known to be nobody else's, and the container shall not wait */
	header->ifa_flags = IFA_F_NODAD;
	put_address(request, IFA_LOCAL, &address->addr);
	put_address(request, IFA_ADDRESS, &address->addr);
	return netlink_ask(links->socket, request, NULL, NULL);
}

int links_add_route(struct links *links, uint32_t index, const struct route *route, bool on_link)
{
	NETLINK_REQUEST(buffer);
	struct nlmsghdr *request = netlink_request(buffer, RTM_NEWROUTE, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL);
	struct rtmsg *header = mnl_nlmsg_put_extra_header(request, sizeof(*header));
	int r;

	header->rtm_family = family_of(&route->to);
	header->rtm_dst_len = route->length;
	header->rtm_table = RT_TABLE_MAIN;
	header->rtm_protocol = RTPROT_BOOT;
	header->rtm_type = RTN_UNICAST;
	header->rtm_scope = route->has_gateway ? RT_SCOPE_UNIVERSE : RT_SCOPE_LINK;
	if (on_link)
		header->rtm_flags = RTNH_F_ONLINK;
	if (route->length)
		put_address(request, RTA_DST, &route->to);
	if (route->has_gateway)
		put_address(request, RTA_GATEWAY, &route->gateway);
	mnl_attr_put_u32(request, RTA_OIF, index);
	r = netlink_ask(links->socket, request, NULL, NULL);
	return r == -EEXIST ? 0 : r;
}

struct search {
	uint32_t index;
	const struct hd_addr *addr;
	const struct route *route;
	bool found;
};

static bool is_same(const struct nlattr *attribute, const struct hd_addr *addr)
{
	struct hd_addr other;
	__be32 ipv4;

	if (mnl_attr_get_payload_len(attribute) == 4) {
		memcpy(&ipv4, mnl_attr_get_payload(attribute), sizeof(ipv4));
		other = addr_from_ipv4(ipv4);
	} else if (mnl_attr_get_payload_len(attribute) == sizeof(other.b)) {
		memcpy(other.b, mnl_attr_get_payload(attribute), sizeof(other.b));
	} else {
		return false;
	}
	return memcmp(&other, addr, sizeof(other)) == 0;
}

static int match_address(const struct nlmsghdr *message, void *userdata)
{
	const struct ifaddrmsg *header = mnl_nlmsg_get_payload(message);
	const struct nlattr *attribute;
	struct search *search = userdata;

	if (message->nlmsg_type != RTM_NEWADDR || header->ifa_index != search->index)
		return MNL_CB_OK;
	mnl_attr_for_each(attribute, message,
		sizeof(*header)) if (mnl_attr_get_type(attribute) == (header->ifa_family == AF_INET ? IFA_LOCAL : IFA_ADDRESS))
		search->found |= is_same(attribute, search->addr);
	return MNL_CB_OK;
}

int links_has_address(struct links *links, uint32_t index, const struct hd_addr *addr)
{
	NETLINK_REQUEST(buffer);
	struct nlmsghdr *request = netlink_request(buffer, RTM_GETADDR, NLM_F_DUMP);
	struct ifaddrmsg *header = mnl_nlmsg_put_extra_header(request, sizeof(*header));
	struct search search = {.index = index, .addr = addr};
	int r;

	header->ifa_family = family_of(addr);
	header->ifa_index = index;
	r = netlink_ask(links->socket, request, match_address, &search);
	return r < 0 ? r : search.found;
}

static int match_route(const struct nlmsghdr *message, void *userdata)
{
	const struct rtmsg *header = mnl_nlmsg_get_payload(message);
	const struct nlattr *attribute;
	struct search *search = userdata;
	bool to = !search->route->length, through = false;

	if (message->nlmsg_type != RTM_NEWROUTE || header->rtm_dst_len != search->route->length ||
		header->rtm_type != RTN_UNICAST)
		return MNL_CB_OK;
	mnl_attr_for_each(attribute, message, sizeof(*header))
	{
		if (mnl_attr_get_type(attribute) == RTA_DST)
			to = is_same(attribute, &search->route->to);
		else if (mnl_attr_get_type(attribute) == RTA_OIF && mnl_attr_validate(attribute, MNL_TYPE_U32) == 0)
			through = mnl_attr_get_u32(attribute) == search->index;
	}
	search->found |= to && through;
	return MNL_CB_OK;
}

int links_has_route(struct links *links, uint32_t index, const struct route *route)
{
	NETLINK_REQUEST(buffer);
	struct nlmsghdr *request = netlink_request(buffer, RTM_GETROUTE, NLM_F_DUMP);
	struct rtmsg *header = mnl_nlmsg_put_extra_header(request, sizeof(*header));
	struct search search = {.index = index, .route = route};
	int r;

	header->rtm_family = family_of(&route->to);
	r = netlink_ask(links->socket, request, match_route, &search);
	return r < 0 ? r : search.found;
}
