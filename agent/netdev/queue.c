/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>

#include <libmnl/libmnl.h>

#include <netdev/queue.h>
#include <util/netlink.h>

struct looking {
	uint32_t ifindex, root; /* handle of the root queue */
	char kind[QUEUE_KIND_MAX], leaf[QUEUE_KIND_MAX];
	bool differ;
};

/* The root of a device comes before what is below it. */
static int on_queue(const struct nlmsghdr *message, void *userdata)
{
	const struct tcmsg *tc = mnl_nlmsg_get_payload(message);
	struct looking *looking = userdata;
	const struct nlattr *attribute;
	const char *kind = NULL;

	if (message->nlmsg_type != RTM_NEWQDISC || (uint32_t)tc->tcm_ifindex != looking->ifindex)
		return MNL_CB_OK;
	mnl_attr_for_each(attribute, message, sizeof(*tc)) if (mnl_attr_get_type(attribute) == TCA_KIND &&
							       mnl_attr_validate(attribute, MNL_TYPE_NUL_STRING) == 0) kind =
		mnl_attr_get_str(attribute);
	if (!kind)
		return MNL_CB_OK;
	if (tc->tcm_parent == TC_H_ROOT) {
		snprintf(looking->kind, sizeof(looking->kind), "%s", kind);
		looking->root = tc->tcm_handle;
	} else if (looking->kind[0] && TC_H_MAJ(tc->tcm_parent) == TC_H_MAJ(looking->root)) {
		looking->differ |= looking->leaf[0] && strncmp(looking->leaf, kind, sizeof(looking->leaf) - 1) != 0;
		snprintf(looking->leaf, sizeof(looking->leaf), "%s", kind);
	}
	return MNL_CB_OK;
}

int queue_kind(uint32_t ifindex, char ret[QUEUE_KIND_MAX])
{
	_cleanup_netlink_ struct mnl_socket *socket = NULL;
	NETLINK_REQUEST(buffer);
	struct looking looking = {.ifindex = ifindex};
	struct nlmsghdr *request = netlink_request(buffer, RTM_GETQDISC, NLM_F_DUMP);
	struct tcmsg *tc = mnl_nlmsg_put_extra_header(request, sizeof(*tc));
	int r = netlink_open(NETLINK_ROUTE, &socket);

	if (r < 0)
		return r;
	tc->tcm_ifindex = (int)ifindex;
	r = netlink_ask(socket, request, on_queue, &looking);
	if (r < 0)
		return r;
	snprintf(ret, QUEUE_KIND_MAX, "%s",
		strcmp(looking.kind, "mq") == 0 && looking.leaf[0] && !looking.differ ? looking.leaf : looking.kind);
	return 0;
}
