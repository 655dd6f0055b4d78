/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>

#include <libmnl/libmnl.h>

#include <netdev/neighbours.h>
#include <util/netlink.h>

#define ROUND_MOST 1024 /* neighbours at once: the next time has the others */

struct stale {
	const uint32_t *ifindexes;
	size_t n_ifindexes;
	struct {
		uint32_t ifindex;
		uint8_t family, length;
		uint8_t address[16];
	} found[ROUND_MOST];
	size_t n;
};

static int on_attribute(const struct nlattr *attribute, void *userdata)
{
	if (mnl_attr_get_type(attribute) == NDA_DST)
		*(const struct nlattr **)userdata = attribute;
	return MNL_CB_OK;
}

static int on_neighbour(const struct nlmsghdr *message, void *userdata)
{
	const struct ndmsg *head = mnl_nlmsg_get_payload(message);
	const struct nlattr *address = NULL;
	struct stale *stale = userdata;
	bool ours = false;

	if (message->nlmsg_type != RTM_NEWNEIGH || mnl_nlmsg_get_payload_len(message) < sizeof(*head) ||
		!(head->ndm_state & NUD_STALE) || stale->n == ROUND_MOST)
		return MNL_CB_OK;
	for (size_t i = 0; i < stale->n_ifindexes && !ours; i++)
		ours = stale->ifindexes[i] == (uint32_t)head->ndm_ifindex;
	if (!ours || mnl_attr_parse(message, sizeof(*head), on_attribute, &address) < 0 || !address ||
		mnl_attr_get_payload_len(address) > sizeof(stale->found[0].address))
		return MNL_CB_OK;
	stale->found[stale->n].ifindex = (uint32_t)head->ndm_ifindex;
	stale->found[stale->n].family = head->ndm_family;
	stale->found[stale->n].length = (uint8_t)mnl_attr_get_payload_len(address);
	memcpy(stale->found[stale->n++].address, mnl_attr_get_payload(address), mnl_attr_get_payload_len(address));
	return MNL_CB_OK;
}

static int list(struct mnl_socket *socket, struct stale *stale)
{
	NETLINK_REQUEST(buffer);
	struct nlmsghdr *request = netlink_request(buffer, RTM_GETNEIGH, NLM_F_DUMP);
	struct ndmsg *head = mnl_nlmsg_put_extra_header(request, sizeof(*head));

	head->ndm_family = AF_UNSPEC;
	return netlink_ask(socket, request, on_neighbour, stale);
}

static int use(struct mnl_socket *socket, const struct stale *stale, size_t i)
{
	char room[256] = {0};
	struct nlmsghdr *request = mnl_nlmsg_put_header(room);
	struct ndmsg *head;

	request->nlmsg_type = RTM_NEWNEIGH;
	request->nlmsg_flags = NLM_F_REQUEST; /* one that is gone meanwhile is not made again */
	head = mnl_nlmsg_put_extra_header(request, sizeof(*head));
	head->ndm_family = stale->found[i].family;
	head->ndm_ifindex = (int)stale->found[i].ifindex;
	head->ndm_flags = NTF_USE;
	mnl_attr_put(request, NDA_DST, stale->found[i].length, stale->found[i].address);
	return mnl_socket_sendto(socket, request, request->nlmsg_len) < 0 ? -errno : 0;
}

int neighbours_use(const uint32_t *ifindexes, size_t n)
{
	struct stale stale = {.ifindexes = ifindexes, .n_ifindexes = n};
	_cleanup_netlink_ struct mnl_socket *socket = NULL;
	int r = netlink_open(NETLINK_ROUTE, &socket);

	if (r == 0)
		r = list(socket, &stale);
	for (size_t i = 0; i < stale.n && r == 0; i++)
		r = use(socket, &stale, i);
	return r;
}
