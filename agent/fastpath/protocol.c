/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <fastpath/protocol.h>
#include <util/cleanup.h>

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

/* Every fd that came is ours from now on, wanted or not. */
static size_t take_fds(struct msghdr *head, int *fds, size_t room)
{
	size_t n = 0;

	for (struct cmsghdr *rights = CMSG_FIRSTHDR(head); rights; rights = CMSG_NXTHDR(head, rights)) {
		size_t came = (rights->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (rights->cmsg_level != SOL_SOCKET || rights->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < came; i++) {
			int one = -1;

			memcpy(&one, CMSG_DATA(rights) + i * sizeof(int), sizeof(one));
			if (n < room)
				fds[n++] = one;
			else
				safe_close(one);
		}
	}
	return n;
}

int fastpath_recv(int fd, struct fastpath_message *message, int *fds, size_t *n)
{
	struct iovec piece = {.iov_base = message, .iov_len = sizeof(*message)};
	union control control = {0};
	struct msghdr head = {
		.msg_iov = &piece, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control.space)};
	ssize_t length = recvmsg(fd, &head, MSG_CMSG_CLOEXEC);
	size_t came;

	if (length < 0)
		return -errno;
	if (length == 0)
		return -ECONNRESET;
	came = take_fds(&head, fds, *n);
	if (head.msg_flags & (MSG_TRUNC | MSG_CTRUNC) || length != sizeof(*message) || message->magic != FASTPATH_MAGIC ||
		message->version != FASTPATH_PROTOCOL || message->n_queues > FASTPATH_QUEUES) {
		while (came)
			safe_close(fds[--came]);
		return -EPROTO;
	}
	message->text[sizeof(message->text) - 1] = '\0';
	*n = came;
	return 0;
}
