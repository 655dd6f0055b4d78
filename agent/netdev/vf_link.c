/* SPDX-License-Identifier: Apache-2.0 */
/* The interfaces of VFs that containers get, and get back to where they were, by rtnetlink. */
#include <netdev/vf_loan.h>

#include <errno.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include <libmnl/libmnl.h>

#include <util/netlink.h>
#include <util/sys_tree.h>

#define TRANSIT "hdvf%d" /* on its way: nobody's name here or there */

/* --- looking --- */

struct search {
	const char *pci; /* NULL: any */
	struct vf_link found;
};

static bool is_at(const char *pci, const char *bus, const char *parent, uint32_t ifindex)
{
	struct sys_tree_interface known;

	if (parent[0])
		return strcmp(bus, "pci") == 0 && strcmp(parent, pci) == 0;
	return sys_tree_interface(ifindex, &known) && strcmp(known.pci, pci) == 0;
}

static void take_text(const struct nlattr *attribute, char *ret, size_t size)
{
	if (mnl_attr_validate(attribute, MNL_TYPE_NUL_STRING) == 0 && strlen(mnl_attr_get_str(attribute)) < size)
		snprintf(ret, size, "%s", mnl_attr_get_str(attribute));
}

static int take_link(const struct nlmsghdr *message, void *userdata)
{
	const struct ifinfomsg *info = mnl_nlmsg_get_payload(message);
	struct search *search = userdata;
	char bus[12] = "", parent[20] = "";
	const struct nlattr *attribute;
	struct vf_link link;

	if (message->nlmsg_type != RTM_NEWLINK || mnl_nlmsg_get_payload_len(message) < sizeof(*info))
		return MNL_CB_OK;
	link = (struct vf_link){.ifindex = (uint32_t)info->ifi_index, .flags = info->ifi_flags & VF_LOAN_FLAGS};
	mnl_attr_for_each(attribute, message, sizeof(*info))
	{
		switch (mnl_attr_get_type(attribute)) {
		case IFLA_IFNAME:
			take_text(attribute, link.name, sizeof(link.name));
			break;
		case IFLA_MTU:
			if (mnl_attr_validate(attribute, MNL_TYPE_U32) == 0)
				link.mtu = mnl_attr_get_u32(attribute);
			break;
		case IFLA_ADDRESS:
			if (mnl_attr_get_payload_len(attribute) == sizeof(link.mac))
				memcpy(link.mac, mnl_attr_get_payload(attribute), sizeof(link.mac));
			break;
		case IFLA_PARENT_DEV_BUS_NAME:
			take_text(attribute, bus, sizeof(bus));
			break;
		case IFLA_PARENT_DEV_NAME:
			take_text(attribute, parent, sizeof(parent));
			break;
		default:
			break;
		}
	}
	if (!search->found.ifindex && (!search->pci || is_at(search->pci, bus, parent, link.ifindex)))
		search->found = link;
	return MNL_CB_OK;
}

static int look(struct mnl_socket *socket, uint32_t ifindex, const char *pci, struct vf_link *ret)
{
	NETLINK_REQUEST(buffer);
	struct ifinfomsg *info;
	struct nlmsghdr *request = netlink_link_request(buffer, RTM_GETLINK, ifindex ? NLM_F_ACK : NLM_F_DUMP, &info);
	struct search search = {.pci = pci};
	int r;

	info->ifi_index = (int)ifindex;
	mnl_attr_put_u32(request, IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
	r = netlink_ask(socket, request, take_link, &search);
	if (r < 0)
		return r;
	if (!search.found.ifindex)
		return -ENODEV;
	*ret = search.found;
	return 0;
}

int vf_link_find(struct mnl_socket *socket, const char *pci, struct vf_link *ret)
{
	return look(socket, 0, pci, ret);
}

int vf_link_get(struct mnl_socket *socket, uint32_t ifindex, struct vf_link *ret)
{
	return look(socket, ifindex, NULL, ret);
}

/* --- setting --- */

int vf_link_set_flags(struct mnl_socket *socket, uint32_t ifindex, uint32_t flags)
{
	NETLINK_REQUEST(buffer);
	struct ifinfomsg *info;
	struct nlmsghdr *request = netlink_link_request(buffer, RTM_NEWLINK, NLM_F_ACK, &info);

	info->ifi_index = (int)ifindex;
	info->ifi_flags = flags & VF_LOAN_FLAGS;
	info->ifi_change = VF_LOAN_FLAGS;
	return netlink_ask(socket, request, NULL, NULL);
}

int vf_link_set_mtu(struct mnl_socket *socket, uint32_t ifindex, uint32_t mtu)
{
	NETLINK_REQUEST(buffer);
	struct ifinfomsg *info;
	struct nlmsghdr *request = netlink_link_request(buffer, RTM_NEWLINK, NLM_F_ACK, &info);

	info->ifi_index = (int)ifindex;
	mnl_attr_put_u32(request, IFLA_MTU, mtu);
	return netlink_ask(socket, request, NULL, NULL);
}

static int set_name(struct mnl_socket *socket, uint32_t ifindex, const char *name)
{
	NETLINK_REQUEST(buffer);
	struct ifinfomsg *info;
	struct nlmsghdr *request = netlink_link_request(buffer, RTM_NEWLINK, NLM_F_ACK, &info);

	info->ifi_index = (int)ifindex;
	mnl_attr_put_strz(request, IFLA_IFNAME, name);
	return netlink_ask(socket, request, NULL, NULL);
}

static int try_mac(struct mnl_socket *socket, uint32_t ifindex, const uint8_t mac[6])
{
	NETLINK_REQUEST(buffer);
	struct ifinfomsg *info;
	struct nlmsghdr *request = netlink_link_request(buffer, RTM_NEWLINK, NLM_F_ACK, &info);

	info->ifi_index = (int)ifindex;
	mnl_attr_put(request, IFLA_ADDRESS, 6, mac);
	return netlink_ask(socket, request, NULL, NULL);
}

static bool has_mac(struct mnl_socket *socket, uint32_t ifindex, const uint8_t mac[6])
{
	struct vf_link link;

	return vf_link_get(socket, ifindex, &link) == 0 && memcmp(link.mac, mac, 6) == 0;
}

int vf_link_set_mac(struct mnl_socket *socket, uint32_t ifindex, const uint8_t mac[6])
{
	for (int turn = 0; turn < 2; turn++) {
		if (!has_mac(socket, ifindex, mac))
			(void)try_mac(socket, ifindex, mac);
		if (has_mac(socket, ifindex, mac))
			return 0;
		if (turn == 0 && vf_link_set_flags(socket, ifindex, IFF_UP) == 0)
			(void)vf_link_set_flags(socket, ifindex, 0);
	}
	return -EADDRNOTAVAIL;
}

/* The kernel takes the name only where the present one is in use over there; so it is named again behind the move, in the same request. */
static int move(struct mnl_socket *socket, uint32_t ifindex, int netns, const char *name)
{
	NETLINK_REQUEST(buffer);
	struct ifinfomsg *info;
	struct nlmsghdr *request = netlink_link_request(buffer, RTM_NEWLINK, NLM_F_ACK, &info);

	info->ifi_index = (int)ifindex;
	mnl_attr_put_u32(request, IFLA_NET_NS_FD, (uint32_t)netns);
	mnl_attr_put_strz(request, IFLA_IFNAME, name);
	return netlink_ask(socket, request, NULL, NULL);
}

/* --- lending --- */

int vf_loan_lend(struct mnl_socket *host, const struct vf_loan *loan, int netns, const char *interface)
{
	int r = vf_link_set_flags(host, loan->vf.ifindex, 0);

	return r < 0 ? r : move(host, loan->vf.ifindex, netns, interface);
}

static void bring_back(struct mnl_socket *inside, int host_netns, const struct vf_loan *loan)
{
	struct vf_link link;

	if (vf_link_find(inside, loan->pci, &link) < 0)
		return;
	/* Whether it worked is seen from the host. By a name of its own: the host may have an eth0, and wait for one. */
	(void)vf_link_set_flags(inside, link.ifindex, 0);
	(void)set_name(inside, link.ifindex, TRANSIT);
	(void)move(inside, link.ifindex, host_netns, TRANSIT);
}

static void say(char reason[VF_LOAN_TEXT_MAX], const char *what, int r)
{
	if (reason && !reason[0])
		snprintf(reason, VF_LOAN_TEXT_MAX, "%s: %s", what, strerror(-r));
}

/* All that can be; false: its MAC is not as it was. */
static bool restore(
	struct mnl_socket *host, const struct vf_link *now, const struct vf_link *before, char reason[VF_LOAN_TEXT_MAX])
{
	bool good = true;
	int r;

	/* As it is already, it is not set down: that would be noticed. */
	if (strcmp(now->name, before->name) == 0 && now->mtu == before->mtu && now->flags == before->flags &&
		memcmp(now->mac, before->mac, sizeof(now->mac)) == 0)
		return true;
	(void)vf_link_set_flags(host, now->ifindex, 0);
	if (strcmp(now->name, before->name) != 0) {
		r = set_name(host, now->ifindex, before->name);
		if (r < 0)
			say(reason, "its name cannot be had", r);
	}
	r = now->mtu == before->mtu ? 0 : vf_link_set_mtu(host, now->ifindex, before->mtu);
	if (r < 0)
		say(reason, "its MTU cannot be set", r);
	r = vf_link_set_mac(host, now->ifindex, before->mac);
	if (r < 0) {
		say(reason, "its MAC cannot be set", r);
		good = false;
	}
	r = vf_link_set_flags(host, now->ifindex, before->flags);
	if (r < 0)
		say(reason, "it cannot be set up", r);
	return good;
}

/* It is the host's all the time, and known by its number: one that came in its place has another. */
static void restore_representor(struct mnl_socket *host, const struct vf_link *before)
{
	struct vf_link now;

	if (!before->ifindex || vf_link_get(host, before->ifindex, &now) < 0)
		return;
	if (now.mtu != before->mtu)
		(void)vf_link_set_mtu(host, now.ifindex, before->mtu);
	if (now.flags & IFF_UP && !(before->flags & IFF_UP))
		(void)vf_link_set_flags(host, now.ifindex, now.flags & ~(uint32_t)IFF_UP);
}

static int leave(int loans, const struct vf_loan *loan)
{
	struct vf_loan ended = *loan;
	int r;

	ended.ended = true;
	r = loan->ended ? 0 : vf_loan_write(loans, &ended);
	return r < 0 ? r : 1;
}

int vf_loan_end(int loans, struct mnl_socket *host, int host_netns, struct mnl_socket *inside, const struct vf_loan *loan,
	char reason[VF_LOAN_TEXT_MAX])
{
	struct vf_link link;
	int r;

	if (reason)
		reason[0] = '\0';
	restore_representor(host, &loan->representor);
	if (!loan->vf.ifindex)
		return vf_loan_remove(loans, loan->pci);
	if (inside)
		bring_back(inside, host_netns, loan);
	r = vf_link_find(host, loan->pci, &link);
	if (r < 0) {
		say(reason, "its interface is not here", r);
		return r == -ENODEV ? leave(loans, loan) : r;
	}
	return restore(host, &link, &loan->vf, reason) ? vf_loan_remove(loans, loan->pci) : leave(loans, loan);
}
