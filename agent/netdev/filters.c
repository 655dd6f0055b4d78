/* SPDX-License-Identifier: Apache-2.0 */
/* Classifiers and clsact qdiscs that went (RTNLGRP_TC). */
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>

#include <libmnl/libmnl.h>

#include <netdev/filters.h>

#define RECEIVE_BUFFER (1 << 20)

struct filter_watch {
	struct mnl_socket *socket;
	filter_event event;
	void *userdata;
	_Alignas(struct nlmsghdr) char buffer[32768];
};

int filter_watch_new(filter_event event, void *userdata, struct filter_watch **ret)
{
	struct filter_watch *watch = calloc(1, sizeof(*watch));
	int r = 0;

	if (!watch)
		return -ENOMEM;
	watch->event = event;
	watch->userdata = userdata;
	watch->socket = mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (!watch->socket || mnl_socket_bind(watch->socket, RTMGRP_TC, MNL_SOCKET_AUTOPID) < 0)
		r = -errno;
	if (r < 0) {
		filter_watch_free(watch);
		return r;
	}
	(void)setsockopt(mnl_socket_get_fd(watch->socket), SOL_SOCKET, SO_RCVBUFFORCE, &(int){RECEIVE_BUFFER}, sizeof(int));
	*ret = watch;
	return 0;
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
	for (;;) {
		ssize_t length = mnl_socket_recvfrom(watch->socket, watch->buffer, sizeof(watch->buffer));

		if (length < 0 && errno == EINTR)
			continue;
		if (length < 0 && errno == ENOBUFS) {
			watch->event(0, watch->userdata);
			continue;
		}
		if (length < 0)
			return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : -errno;
		(void)mnl_cb_run(watch->buffer, (size_t)length, 0, 0, on_message, watch);
	}
}
