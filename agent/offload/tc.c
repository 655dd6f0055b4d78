/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <linux/rtnetlink.h>

#include <libmnl/libmnl.h>

#include <offload/tc.h>
#include <util/netlink.h>

#define ANSWER_SIZE 65536 /* a filter with its counters is less than 1 KiB, the kernel fills what it is given */

struct tc {
	struct mnl_socket *socket;
	struct flower_mode mode;
	uint32_t sequence;
	_Alignas(8) char request[FLOWER_MESSAGE_MAX], answer[ANSWER_SIZE];
};

DEFINE_CLEANUP(struct tc *, tc_close);

int tc_open(const struct flower_mode *mode, struct tc **ret)
{
	_cleanup_(tc_close_p) struct tc *tc = calloc(1, sizeof(*tc));
	int yes = 1, r;

	if (!tc)
		return -ENOMEM;
	tc->mode = *mode;
	r = netlink_open(NETLINK_ROUTE, &tc->socket);
	if (r < 0)
		return r;
	/* Without them a refusal is told by its number alone. */
	(void)mnl_socket_setsockopt(tc->socket, NETLINK_EXT_ACK, &yes, sizeof(yes));
	(void)mnl_socket_setsockopt(tc->socket, NETLINK_CAP_ACK, &yes, sizeof(yes));
	*ret = TAKE_PTR(tc);
	return 0;
}

void tc_close(struct tc *tc)
{
	if (!tc)
		return;
	if (tc->socket)
		mnl_socket_close(tc->socket);
	free(tc);
}

/* Each message of the answer; non-zero ends it. */
typedef int (*answer_cb)(const struct nlmsghdr *message, size_t length, void *userdata);

static int ask(struct tc *tc, struct nlmsghdr *request, answer_cb cb, void *userdata)
{
	int r = 0;

	request->nlmsg_seq = ++tc->sequence;
	if (mnl_socket_sendto(tc->socket, request, request->nlmsg_len) < 0)
		return -errno;
	while (r == 0) {
		ssize_t got = mnl_socket_recvfrom(tc->socket, tc->answer, sizeof(tc->answer));
		const struct nlmsghdr *message = (const void *)tc->answer;
		int length = (int)got;

		if (got < 0)
			return -errno;
		for (; r == 0 && flower_whole(message, length); message = mnl_nlmsg_next(message, &length))
			/* Of a request that was given up on before. */
			if (message->nlmsg_seq == request->nlmsg_seq)
				r = cb(message, (size_t)length, userdata);
	}
	return r < 0 ? r : 0;
}

static int on_done(const struct nlmsghdr *message, size_t length, void *userdata)
{
	int r = flower_answer(message, length, userdata);

	return r == 0 ? 1 : r == 1 ? 0 : r;
}

int tc_add(struct tc *tc, const struct flower_filter *filter, char reason[FLOWER_REASON_MAX])
{
	return ask(tc, flower_add(tc->request, filter, &tc->mode), on_done, reason);
}

struct reading {
	struct flower_seen *seen; /* the only one that is asked for */
	tc_filter_cb cb;	  /* or each of ours */
	void *userdata;
};

static int on_filter(const struct nlmsghdr *message, size_t length, void *userdata)
{
	char reason[FLOWER_REASON_MAX];
	struct reading *reading = userdata;
	struct flower_seen seen;
	int r;

	if (flower_parse(message, length, &seen)) {
		if (reading->seen)
			*reading->seen = seen;
		else if (seen.ours)
			reading->cb(&seen, reading->userdata);
		return reading->seen != NULL;
	}
	if (message->nlmsg_type == NLMSG_DONE)
		return 1;
	r = flower_answer(message, length, reason);
	return r == 0 ? 1 : r == 1 ? 0 : r;
}

int tc_each(struct tc *tc, uint32_t ifindex, tc_filter_cb cb, void *userdata)
{
	struct reading reading = {.cb = cb, .userdata = userdata};
	int r = 0;

	for (uint8_t family = 4; family <= FLOWER_TAGGED && r == 0; family += 2)
		r = ask(tc, flower_name(tc->request, RTM_GETTFILTER, ifindex, 0, family, &tc->mode), on_filter, &reading);
	return r;
}

static int delete (struct tc *tc, uint32_t ifindex, uint32_t handle, uint8_t family)
{
	char reason[FLOWER_REASON_MAX];

	return ask(tc, flower_name(tc->request, RTM_DELTFILTER, ifindex, handle, family, &tc->mode), on_done, reason);
}

int tc_remove(struct tc *tc, const struct flower_filter *filter, struct flower_seen *seen)
{
	const struct offload_rule *rule = &filter->rule;
	struct reading reading = {.seen = seen};

	if (seen && ask(tc, flower_name(tc->request, RTM_GETTFILTER, rule->in, filter->handle, flower_family(rule), &tc->mode),
			    on_filter, &reading) < 0)
		*seen = (struct flower_seen){0};
	return delete (tc, rule->in, filter->handle, flower_family(rule));
}

struct found {
	struct flower_seen *filters;
	size_t n;
	bool failed;
};

static void collect(const struct flower_seen *seen, void *userdata)
{
	struct found *found = userdata;
	struct flower_seen *grown = reallocarray(found->filters, found->n + 1, sizeof(*grown));

	if (!grown) {
		found->failed = true;
		return;
	}
	found->filters = grown;
	found->filters[found->n++] = *seen;
}

int tc_clear(struct tc *tc, uint32_t ifindex, unsigned *ret_n)
{
	struct found found = {0};
	int r = tc_each(tc, ifindex, collect, &found), first_error = r;

	for (size_t i = 0; i < found.n; i++) {
		r = delete (tc, ifindex, found.filters[i].handle, found.filters[i].family);
		if (r < 0 && r != -ENOENT && first_error == 0)
			first_error = r;
	}
	*ret_n = (unsigned)found.n;
	free(found.filters);
	if (first_error == 0 && found.failed)
		first_error = -ENOMEM;
	return first_error;
}
