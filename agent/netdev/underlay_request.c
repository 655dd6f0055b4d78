/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <netdev/underlay_internal.h>
#include <util/addr.h>
#include <util/cleanup.h>

/* Requests under way at once. The kernel takes some KiB of the receive buffer for each answer. */
#define BATCH 64

uint8_t request_family(const struct hd_addr *addr)
{
	return addr_is_ipv4(addr) ? AF_INET : AF_INET6;
}

void request_put_address(struct nlmsghdr *message, uint16_t type, const struct hd_addr *addr)
{
	bool ipv4 = addr_is_ipv4(addr);

	mnl_attr_put(message, type, ipv4 ? 4 : 16, ipv4 ? &addr->b[12] : addr->b);
}

struct nlmsghdr *request_put(void *room, uint16_t type, uint16_t flags, size_t header, void *ret_header)
{
	struct nlmsghdr *request = mnl_nlmsg_put_header(room);

	request->nlmsg_type = type;
	request->nlmsg_flags = NLM_F_REQUEST | flags;
	*(void **)ret_header = mnl_nlmsg_put_extra_header(request, header);
	return request;
}

static int take_answers(struct underlay *u, const struct exchange *exchange, void **items, size_t n, uint32_t first)
{
	size_t open = n;

	while (open) {
		ssize_t length = mnl_socket_recvfrom(u->requests, u->buffer, sizeof(u->buffer));
		const struct nlmsghdr *message = (const void *)u->buffer;
		int left = (int)length;

		if (length < 0 && errno == EINTR)
			continue;
		if (length < 0)
			return -errno;
		for (; mnl_nlmsg_ok(message, left); message = mnl_nlmsg_next(message, &left)) {
			const struct nlmsgerr *error = mnl_nlmsg_get_payload(message);
			uint32_t i = message->nlmsg_seq - first;

			if (i >= n)
				continue; /* of an exchange that was given up */
			if (message->nlmsg_type != NLMSG_ERROR)
				exchange->answer(u, items[i], message, 0);
			else if (mnl_nlmsg_get_payload_len(message) >= sizeof(error->error))
				exchange->answer(u, items[i], NULL, error->error);
			open--;
		}
	}
	return 0;
}

int exchange_run(struct underlay *u, const struct exchange *exchange, void **items, size_t n)
{
	_cleanup_free_ uint8_t *room = n ? calloc(n < BATCH ? n : BATCH, REQUEST_SIZE) : NULL;
	int r = 0;

	if (n && !room)
		return -ENOMEM;
	for (size_t done = 0, now; done < n && r == 0; done += now) {
		uint32_t first = u->sequence + 1;
		size_t length = 0;

		now = n - done < BATCH ? n - done : BATCH;
		memset(room, 0, now * REQUEST_SIZE);
		for (size_t i = 0; i < now; i++) {
			struct nlmsghdr *request = exchange->request(u, items[done + i], room + length);

			request->nlmsg_seq = ++u->sequence;
			length += MNL_ALIGN(request->nlmsg_len);
		}
		r = mnl_socket_sendto(u->requests, room, length) < 0 ? -errno : 0;
		if (r == 0)
			r = take_answers(u, exchange, items + done, now, first);
	}
	return r;
}

int dump_run(struct underlay *u, struct nlmsghdr *request, mnl_cb_t cb)
{
	unsigned port = mnl_socket_get_portid(u->requests);

	request->nlmsg_seq = ++u->sequence;
	if (mnl_socket_sendto(u->requests, request, request->nlmsg_len) < 0)
		return -errno;
	for (;;) {
		ssize_t length = mnl_socket_recvfrom(u->requests, u->buffer, sizeof(u->buffer));
		int r;

		if (length < 0)
			return -errno;
		r = mnl_cb_run(u->buffer, (size_t)length, u->sequence, port, cb, u);
		if (r == MNL_CB_STOP)
			return 0;
		if (r == MNL_CB_ERROR)
			return -errno;
	}
}
