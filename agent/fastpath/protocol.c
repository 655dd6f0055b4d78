/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include <fastpath/protocol.h>

union control {
	struct cmsghdr header;
	char space[CMSG_SPACE(sizeof(int) * FASTPATH_FDS)];
};

int fastpath_send(int fd, struct fastpath_message *message, const int *fds, size_t n)
{
	struct iovec piece = {.iov_base = message, .iov_len = sizeof(*message)};
	union control control = {0};
	struct msghdr head = {.msg_iov = &piece, .msg_iovlen = 1};

	if (n > FASTPATH_FDS)
		return -E2BIG;
	message->magic = FASTPATH_MAGIC;
	message->version = FASTPATH_PROTOCOL;
	if (n) {
		struct cmsghdr *rights;

		head.msg_control = &control;
		head.msg_controllen = CMSG_SPACE(sizeof(int) * n);
		rights = CMSG_FIRSTHDR(&head);
		rights->cmsg_level = SOL_SOCKET;
		rights->cmsg_type = SCM_RIGHTS;
		rights->cmsg_len = CMSG_LEN(sizeof(int) * n);
		memcpy(CMSG_DATA(rights), fds, sizeof(int) * n);
	}
	return sendmsg(fd, &head, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

/* As many as there is room for: the kernel gives no others. */
static size_t take_fds(struct msghdr *head, int *fds, size_t room)
{
	size_t n = 0;

	for (struct cmsghdr *rights = CMSG_FIRSTHDR(head); rights; rights = CMSG_NXTHDR(head, rights)) {
		size_t came = (rights->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (rights->cmsg_level != SOL_SOCKET || rights->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < came && n < room; i++)
			memcpy(&fds[n++], CMSG_DATA(rights) + i * sizeof(int), sizeof(*fds));
	}
	return n;
}

int fastpath_recv(int fd, struct fastpath_message *message, int *fds, size_t *n)
{
	struct iovec piece = {.iov_base = message, .iov_len = sizeof(*message)};
	union control control = {0};
	struct msghdr head = {.msg_iov = &piece, .msg_iovlen = 1};
	size_t room = *n < FASTPATH_FDS ? *n : FASTPATH_FDS;
	ssize_t length;

	if (room) {
		head.msg_control = &control;
		head.msg_controllen = CMSG_LEN(sizeof(int) * room);
	}
	*n = 0;
	length = recvmsg(fd, &head, MSG_CMSG_CLOEXEC);
	if (length < 0)
		return -errno;
	*n = take_fds(&head, fds, room);
	if (length == 0)
		return -ECONNRESET;
	if (head.msg_flags & (MSG_TRUNC | MSG_CTRUNC) || length != sizeof(*message) || message->magic != FASTPATH_MAGIC ||
		message->version != FASTPATH_PROTOCOL || message->n_queues > FASTPATH_QUEUES)
		return -EPROTO;
	message->text[sizeof(message->text) - 1] = '\0';
	return 0;
}
