/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <util/netlink.h>

#define ANSWER_SIZE 32768 /* the kernel makes no longer messages */
#define RECEIVE_BUFFER (4 << 20)

int netlink_open(int bus, struct mnl_socket **ret)
{
	struct mnl_socket *socket = mnl_socket_open2(bus, SOCK_CLOEXEC);
	int r = 0;

	if (!socket)
		return -errno;
	if (mnl_socket_bind(socket, 0, MNL_SOCKET_AUTOPID) < 0) {
		r = -errno;
		mnl_socket_close(socket);
		return r;
	}
	*ret = socket;
	return 0;
}

struct nlmsghdr *netlink_request(char *buffer, uint16_t type, uint16_t flags)
{
	struct nlmsghdr *request;

	memset(buffer, 0, NETLINK_REQUEST_SIZE);
	request = mnl_nlmsg_put_header(buffer);
	request->nlmsg_type = type;
	request->nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags);
	return request;
}

struct nlmsghdr *netlink_link_request(char *buffer, uint16_t type, uint16_t flags, struct ifinfomsg **ret_info)
{
	struct nlmsghdr *request = netlink_request(buffer, type, flags);

	*ret_info = mnl_nlmsg_put_extra_header(request, sizeof(**ret_info));
	return request;
}

int netlink_ask(struct mnl_socket *socket, struct nlmsghdr *request, mnl_cb_t seen, void *userdata)
{
	static uint32_t last; /* of all sockets and threads: what an earlier request left unread is not taken for this one's */
	_cleanup_free_ char *answer = malloc(ANSWER_SIZE);
	int r = MNL_CB_OK;

	if (!answer)
		return -ENOMEM;
	request->nlmsg_seq = __atomic_add_fetch(&last, 1, __ATOMIC_RELAXED);
	if (mnl_socket_sendto(socket, request, request->nlmsg_len) < 0)
		return -errno;
	while (r == MNL_CB_OK) {
		ssize_t length = mnl_socket_recvfrom(socket, answer, ANSWER_SIZE);

		if (length < 0)
			return -errno;
		r = mnl_cb_run(answer, (size_t)length, request->nlmsg_seq, mnl_socket_get_portid(socket), seen, userdata);
	}
	return r == MNL_CB_ERROR ? -errno : 0;
}

int netlink_watch(int bus, const unsigned *groups, size_t n, struct mnl_socket **ret)
{
	_cleanup_netlink_ struct mnl_socket *socket = NULL;
	int r = netlink_open(bus, &socket);

	if (r < 0)
		return r;
	(void)setsockopt(mnl_socket_get_fd(socket), SOL_SOCKET, SO_RCVBUFFORCE, &(int){RECEIVE_BUFFER}, sizeof(int));
	for (size_t i = 0; i < n; i++)
		if (mnl_socket_setsockopt(socket, NETLINK_ADD_MEMBERSHIP, (void *)&groups[i], sizeof(groups[i])) < 0)
			return -errno;
	*ret = TAKE_PTR(socket);
	return 0;
}

int netlink_read(struct mnl_socket *socket, mnl_cb_t seen, void *userdata)
{
	_Alignas(struct nlmsghdr) char buffer[ANSWER_SIZE];
	int r = 0;

	for (;;) {
		struct sockaddr_nl from = {0};
		socklen_t size = sizeof(from);
		ssize_t length = recvfrom(mnl_socket_get_fd(socket), buffer, sizeof(buffer), MSG_DONTWAIT | MSG_TRUNC,
			(struct sockaddr *)&from, &size);

		if (length < 0 ? errno == ENOBUFS : (size_t)length > sizeof(buffer))
			r = -ENOBUFS;
		else if (length < 0 && errno != EINTR)
			return errno == EAGAIN || errno == EWOULDBLOCK ? r : -errno;
		else if (length > 0 && from.nl_pid == 0 && mnl_cb_run(buffer, (size_t)length, 0, 0, seen, userdata) < 0)
			r = -ENOBUFS;
	}
}
