/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <linux/ethtool.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/sockios.h>
#include <sys/socket.h>

#include <libmnl/libmnl.h>

#include <util/ethtool.h>
#include <netdev/netdev.h>
#include <netdev/netns_id.h>
#include <util/cleanup.h>
#include <util/hash.h>
#include <util/log.h>
#include <util/netlink.h>
#include <util/sys_tree.h>

/* A message of one link with its statistics and its VFs can be long; the kernel never makes one longer than this. */
#define MESSAGE_SIZE 32768
/* Room for a burst of interfaces that come or go at once; what overflows is made good by a new dump. */

struct known {
	uint32_t ifindex;
	bool seen; /* in the dump that is running */
	char name[IF_NAMESIZE];
};

struct netdev_watch {
	struct mnl_socket *socket;
	netdev_event event;
	netdev_namespace_ended ended; /* NULL: nobody wants to know */
	void *userdata;
	struct known *known; /* so that after lost messages those that went can be told */
	size_t n_known;
	bool lost;
	bool dumping;
	int r;
	char buffer[MESSAGE_SIZE];
};

DEFINE_CLEANUP(struct netdev_watch *, netdev_watch_free);

/* --- one interface --- */

bool netdev_takes_tags(const struct netdev *device)
{
	struct ethtool_value flags = {.cmd = ETHTOOL_GFLAGS};

	return ethtool_run(device->name, &flags) == 0 && flags.data & ETH_FLAG_RXVLAN;
}

bool netdev_takes_service_tags(const struct netdev *device)
{
	struct ethtool_feature feature;

	return ethtool_feature_get(device->name, "rx-vlan-stag-hw-parse", &feature) == 0 && feature.active;
}

static void find_driver(struct netdev *device)
{
	struct ethtool_drvinfo info = {.cmd = ETHTOOL_GDRVINFO};

	if (ethtool_run(device->name, &info) == 0)
		snprintf(device->driver, sizeof(device->driver), "%.*s", (int)sizeof(info.driver) - 1, info.driver);
}

/* What the kernel would say if the tree in place of /sys were its own. */
static void find_parent(struct netdev *device)
{
	struct sys_tree_interface known;

	if (device->parent_name[0] || !sys_tree_interface(device->ifindex, &known))
		return;
	snprintf(device->parent_bus, sizeof(device->parent_bus), "pci");
	memcpy(device->parent_name, known.pci, sizeof(device->parent_name));
	memcpy(device->port_name, known.port_name, sizeof(device->port_name));
	device->switch_id = known.switch_id[0] ? hash_bytes(1, known.switch_id, strlen(known.switch_id)) : 0;
}

static void find_kind(const struct nlattr *info, struct netdev *device)
{
	const struct nlattr *attribute;

	mnl_attr_for_each_nested(attribute, info)
	{
		if (mnl_attr_get_type(attribute) == IFLA_INFO_KIND && mnl_attr_validate(attribute, MNL_TYPE_STRING) == 0)
			snprintf(device->kind, sizeof(device->kind), "%.*s", (int)mnl_attr_get_payload_len(attribute),
				mnl_attr_get_str(attribute));
	}
}

static void take_text(const struct nlattr *attribute, char *ret, size_t size)
{
	if (mnl_attr_validate(attribute, MNL_TYPE_NUL_STRING) == 0 && strlen(mnl_attr_get_str(attribute)) < size)
		snprintf(ret, size, "%s", mnl_attr_get_str(attribute));
}

bool netdev_parse(const struct nlmsghdr *message, struct netdev *ret)
{
	const struct ifinfomsg *link = mnl_nlmsg_get_payload(message);
	const struct nlattr *attribute;

	*ret = (struct netdev){.ifindex = (uint32_t)link->ifi_index, .type = link->ifi_type, .up = link->ifi_flags & IFF_UP};
	mnl_attr_for_each(attribute, message, sizeof(*link))
	{
		switch (mnl_attr_get_type(attribute)) {
		case IFLA_IFNAME:
			if (mnl_attr_validate(attribute, MNL_TYPE_NUL_STRING) < 0)
				return false;
			snprintf(ret->name, sizeof(ret->name), "%s", mnl_attr_get_str(attribute));
			break;
		case IFLA_MTU:
			if (mnl_attr_validate(attribute, MNL_TYPE_U32) < 0)
				return false;
			ret->mtu = mnl_attr_get_u32(attribute);
			break;
		case IFLA_ADDRESS:
			if (mnl_attr_get_payload_len(attribute) == sizeof(ret->mac))
				memcpy(ret->mac, mnl_attr_get_payload(attribute), sizeof(ret->mac));
			break;
		case IFLA_MASTER:
			if (mnl_attr_validate(attribute, MNL_TYPE_U32) == 0)
				ret->master = mnl_attr_get_u32(attribute);
			break;
		case IFLA_LINK:
			if (mnl_attr_validate(attribute, MNL_TYPE_U32) == 0)
				ret->peer = mnl_attr_get_u32(attribute);
			break;
		case IFLA_LINK_NETNSID:
			ret->peer_elsewhere = true;
			if (mnl_attr_validate(attribute, MNL_TYPE_U32) == 0)
				ret->peer_netnsid = (int32_t)mnl_attr_get_u32(attribute);
			break;
		case IFLA_LINKINFO:
			find_kind(attribute, ret);
			break;
		case IFLA_PHYS_PORT_NAME:
			take_text(attribute, ret->port_name, sizeof(ret->port_name));
			break;
		case IFLA_PHYS_SWITCH_ID:
			ret->switch_id = hash_bytes(1, mnl_attr_get_payload(attribute), mnl_attr_get_payload_len(attribute));
			break;
		case IFLA_PARENT_DEV_BUS_NAME:
			take_text(attribute, ret->parent_bus, sizeof(ret->parent_bus));
			break;
		case IFLA_PARENT_DEV_NAME:
			take_text(attribute, ret->parent_name, sizeof(ret->parent_name));
			break;
		default:
			break;
		}
	}
	/* Other kinds have a link too: the device that a VLAN or a tunnel is on. */
	if (strcmp(ret->kind, "veth") != 0) {
		ret->peer = 0;
		ret->peer_elsewhere = false;
	}
	return ret->ifindex != 0 && ret->name[0];
}

/* --- the watch --- */

static struct known *find_known(struct netdev_watch *watch, uint32_t ifindex)
{
	for (size_t i = 0; i < watch->n_known; i++)
		if (watch->known[i].ifindex == ifindex)
			return &watch->known[i];
	return NULL;
}

static int remember(struct netdev_watch *watch, const struct netdev *device)
{
	struct known *known = find_known(watch, device->ifindex), *grown;

	if (!known) {
		grown = reallocarray(watch->known, watch->n_known + 1, sizeof(*grown));
		if (!grown)
			return -ENOMEM;
		watch->known = grown;
		known = &watch->known[watch->n_known++];
		known->ifindex = device->ifindex;
	}
	known->seen = true;
	memcpy(known->name, device->name, sizeof(known->name));
	return 0;
}

static void forget(struct netdev_watch *watch, struct known *known)
{
	struct netdev gone = {.ifindex = known->ifindex};

	memcpy(gone.name, known->name, sizeof(gone.name));
	*known = watch->known[--watch->n_known];
	watch->event(&gone, true, watch->userdata);
}

static int on_message(const struct nlmsghdr *message, void *userdata)
{
	struct netdev_watch *watch = userdata;
	const struct ifinfomsg *link = mnl_nlmsg_get_payload(message);
	struct known *known;
	struct netdev device;
	int32_t id;

	if (message->nlmsg_type == RTM_DELNSID && watch->ended && netns_id_parse(message, &id))
		watch->ended(id, watch->userdata);
	if (mnl_nlmsg_get_payload_len(message) < sizeof(*link))
		return MNL_CB_OK;
	/* A bridge tells of its ports in its own family too: their coming and going there is not the device's. */
	if (link->ifi_family != AF_UNSPEC)
		return MNL_CB_OK;
	switch (message->nlmsg_type) {
	case RTM_NEWLINK:
		if (!netdev_parse(message, &device))
			break;
		watch->r = remember(watch, &device);
		if (watch->r < 0)
			return MNL_CB_ERROR;
		find_driver(&device);
		find_parent(&device);
		watch->event(&device, false, watch->userdata);
		break;
	case RTM_DELLINK:
		known = find_known(watch, (uint32_t)link->ifi_index);
		if (known)
			forget(watch, known);
		break;
	default:
		break;
	}
	return MNL_CB_OK;
}

static int request_dump(struct netdev_watch *watch)
{
	uint8_t buffer[128] = {0};
	struct nlmsghdr *request = mnl_nlmsg_put_header(buffer);

	request->nlmsg_type = RTM_GETLINK;
	request->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
	request->nlmsg_seq = 1;
	mnl_nlmsg_put_extra_header(request, sizeof(struct ifinfomsg));
	/* Without it every interface brings its VFs' statistics along. */
	mnl_attr_put_u32(request, IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
	for (size_t i = 0; i < watch->n_known; i++)
		watch->known[i].seen = false;
	watch->lost = false;
	watch->dumping = true;
	return mnl_socket_sendto(watch->socket, request, request->nlmsg_len) < 0 ? -errno : 0;
}

static void end_dump(struct netdev_watch *watch)
{
	watch->dumping = false;
	for (size_t i = watch->n_known; i-- > 0;)
		if (!watch->known[i].seen)
			forget(watch, &watch->known[i]);
}

/* Reads what is there; flags 0 waits for it. -EAGAIN: nothing. */
static int receive(struct netdev_watch *watch, int flags)
{
	struct iovec vector = {.iov_base = watch->buffer, .iov_len = sizeof(watch->buffer)};
	struct sockaddr_nl from = {0};
	struct msghdr header = {.msg_name = &from, .msg_namelen = sizeof(from), .msg_iov = &vector, .msg_iovlen = 1};
	ssize_t length = recvmsg(mnl_socket_get_fd(watch->socket), &header, flags);

	if (length < 0) {
		if (errno == ENOBUFS) {
			watch->lost = true;
			return 0;
		}
		return errno == EINTR ? 0 : -errno;
	}
	if (from.nl_pid != 0)
		return 0; /* not from the kernel */
	watch->r = 0;
	/* Notifications have sequence number 0, a dump's answers that of the request: neither is checked here. */
	switch (mnl_cb_run(watch->buffer, (size_t)length, 0, 0, on_message, watch)) {
	case MNL_CB_ERROR:
		if (watch->r < 0)
			return watch->r;
		/* The interfaces changed while the kernel listed them (NLM_F_DUMP_INTR). */
		watch->lost = true;
		watch->dumping = false;
		return errno == EINTR ? 0 : -errno;
	case MNL_CB_STOP:
		if (watch->dumping)
			end_dump(watch);
		break;
	}
	return 0;
}

static int finish_dump(struct netdev_watch *watch)
{
	int r = 0;

	while (r == 0 && (watch->dumping || watch->lost)) {
		if (watch->lost)
			r = request_dump(watch);
		while (r == 0 && watch->dumping && !watch->lost)
			r = receive(watch, 0);
	}
	return r;
}

int netdev_watch_new(netdev_event event, void *userdata, struct netdev_watch **ret)
{
	_cleanup_(netdev_watch_free_p) struct netdev_watch *watch = calloc(1, sizeof(*watch));
	int r;

	if (!watch)
		return -ENOMEM;
	watch->event = event;
	watch->userdata = userdata;
	r = netlink_watch(NETLINK_ROUTE, &(unsigned){RTNLGRP_LINK}, 1, &watch->socket);
	if (r < 0)
		return log_err(r, "cannot watch the interfaces");
	watch->lost = true; /* nothing is known yet */
	r = finish_dump(watch);
	if (r < 0)
		return log_err(r, "cannot list the interfaces");
	*ret = TAKE_PTR(watch);
	return 0;
}

void netdev_watch_free(struct netdev_watch *watch)
{
	if (!watch)
		return;
	if (watch->socket)
		mnl_socket_close(watch->socket);
	free(watch->known);
	free(watch);
}

int netdev_watch_namespaces(struct netdev_watch *watch, netdev_namespace_ended ended)
{
	if (mnl_socket_setsockopt(watch->socket, NETLINK_ADD_MEMBERSHIP, &(int){RTNLGRP_NSID}, sizeof(int)) < 0)
		return -errno;
	watch->ended = ended;
	return 0;
}

int netdev_watch_fd(const struct netdev_watch *watch)
{
	return mnl_socket_get_fd(watch->socket);
}

int netdev_watch_dispatch(struct netdev_watch *watch)
{
	int r;

	do
		r = receive(watch, MSG_DONTWAIT);
	while (r == 0 && !watch->lost);
	if (watch->lost) {
		log_info("interface changes came faster than they were read: listing all anew");
		r = finish_dump(watch);
		if (watch->ended)
			watch->ended(NETNS_ID_NONE, watch->userdata);
	}
	return r == -EAGAIN ? 0 : r < 0 ? log_err(r, "cannot read the changes of interfaces") : 0;
}

/* --- once --- */

int netdev_list(netdev_event event, void *userdata)
{
	struct netdev_watch *watch = NULL;
	int r = netdev_watch_new(event, userdata, &watch);

	netdev_watch_free(watch);
	return r;
}

struct search {
	const char *name;
	struct netdev *found;
	bool done;
};

static void match_name(const struct netdev *device, bool gone, void *userdata)
{
	struct search *search = userdata;

	if (gone || strcmp(device->name, search->name) != 0)
		return;
	*search->found = *device;
	search->done = true;
}

int netdev_by_name(const char *name, struct netdev *ret)
{
	struct netdev found;
	struct search search = {.name = name, .found = &found};
	int r = netdev_list(match_name, &search);

	if (r < 0)
		return r;
	if (!search.done)
		return -ENODEV;
	*ret = found;
	return 0;
}

static int take_mac(const struct nlmsghdr *message, void *userdata)
{
	struct netdev *found = userdata;

	(void)netdev_parse(message, found);
	return MNL_CB_OK;
}

/* One device, by its number; in another namespace when netnsid is not NULL. */
static int ask(uint32_t ifindex, const int32_t *netnsid, mnl_cb_t answered, void *userdata)
{
	_cleanup_netlink_ struct mnl_socket *socket = NULL;
	NETLINK_REQUEST(buffer);
	struct ifinfomsg *link;
	struct nlmsghdr *request = netlink_link_request(buffer, RTM_GETLINK, NLM_F_ACK, &link);
	int r = netlink_open(NETLINK_ROUTE, &socket);

	if (r < 0)
		return r;
	link->ifi_index = (int)ifindex;
	mnl_attr_put_u32(request, IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
	if (netnsid)
		mnl_attr_put_u32(request, IFLA_TARGET_NETNSID, (uint32_t)*netnsid);
	return netlink_ask(socket, request, answered, userdata);
}

int netdev_peer_mac(const struct netdev *device, uint8_t ret[6])
{
	struct netdev found = {0};
	int r;

	if (!device->peer)
		return -ENODEV;
	r = ask(device->peer, device->peer_elsewhere ? &device->peer_netnsid : NULL, take_mac, &found);
	if (r < 0)
		return r;
	if (found.ifindex != device->peer)
		return -ENODEV;
	memcpy(ret, found.mac, sizeof(found.mac));
	return 0;
}

static int take_alias(const struct nlmsghdr *message, void *userdata)
{
	const struct nlattr *attribute;

	mnl_attr_for_each(attribute, message, sizeof(struct ifinfomsg)) if (mnl_attr_get_type(attribute) == IFLA_IFALIAS &&
									    mnl_attr_validate(attribute, MNL_TYPE_STRING) == 0)
		snprintf(userdata, NETDEV_ALIAS_MAX, "%.*s", (int)mnl_attr_get_payload_len(attribute),
			mnl_attr_get_str(attribute));
	return MNL_CB_OK;
}

int netdev_alias(uint32_t ifindex, char ret[NETDEV_ALIAS_MAX])
{
	ret[0] = '\0';
	return ask(ifindex, NULL, take_alias, ret);
}
