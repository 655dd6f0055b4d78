/* SPDX-License-Identifier: Apache-2.0 */
/* Classifiers and clsact qdiscs that went (RTNLGRP_TC). */
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>

#include <netdev/filters.h>
#include <util/netlink.h>

struct filter_watch {
	struct mnl_socket *socket;
	filter_event event;
	void *userdata;
};

int filter_watch_new(filter_event event, void *userdata, struct filter_watch **ret)
{
	struct filter_watch *watch = calloc(1, sizeof(*watch));
	int r;

	if (!watch)
		return -ENOMEM;
	watch->event = event;
	watch->userdata = userdata;
	r = netlink_watch(NETLINK_ROUTE, &(unsigned){RTNLGRP_TC}, 1, &watch->socket);
	if (r < 0)
		filter_watch_free(watch);
	else
		*ret = watch;
	return r;
}

void filter_watch_free(struct filter_watch *watch)
{
	if (!watch)
		return;
	if (watch->socket)
		mnl_socket_close(watch->socket);
	free(watch);
}

int filter_watch_fd(const struct filter_watch *watch)
{
	return mnl_socket_get_fd(watch->socket);
}

/* Rules of flower, which an agent with offload removes by the thousand, are not asked about. */
static bool is_bpf(const struct nlmsghdr *message)
{
	const struct nlattr *attribute;

	mnl_attr_for_each(
		attribute, message, sizeof(struct tcmsg)) if (mnl_attr_get_type(attribute) == TCA_KIND &&
							      mnl_attr_validate(attribute, MNL_TYPE_NUL_STRING) ==
								      0) return strcmp(mnl_attr_get_str(attribute), "bpf") == 0;
	return false;
}

static int on_message(const struct nlmsghdr *message, void *userdata)
{
	const struct tcmsg *tc = mnl_nlmsg_get_payload(message);
	struct filter_watch *watch = userdata;

	if (mnl_nlmsg_get_payload_len(message) < sizeof(*tc))
		return MNL_CB_OK;
	if (message->nlmsg_type == RTM_DELCHAIN || (message->nlmsg_type == RTM_DELQDISC && tc->tcm_parent == TC_H_CLSACT) ||
		(message->nlmsg_type == RTM_DELTFILTER && is_bpf(message)))
		watch->event((uint32_t)tc->tcm_ifindex, watch->userdata);
	return MNL_CB_OK;
}

int filter_watch_dispatch(struct filter_watch *watch)
{
	int r = netlink_read(watch->socket, on_message, watch);

	if (r == -ENOBUFS)
		watch->event(0, watch->userdata);
	return r == -ENOBUFS ? 0 : r;
}
