/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The clsact qdisc, where the kernel has no TCX. Our two filters have a fixed handle and the first priority that is free for
 * classifiers of kind bpf; they are recognised by handle and name, and replaced in place (cls_bpf swaps the program
 * under RCU), so there is never a packet without one. Filters need no pin: the qdisc holds them.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <linux/pkt_cls.h>
#include <linux/rtnetlink.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <libmnl/libmnl.h>

#include <datapath/internal.h>
#include <util/netlink.h>

#define CLSACT_HANDLE 0x68646c01u /* "hdl", 1: docs/debugging.md shows it */
#define CLSACT_PRIORITIES 8	  /* tried in turn where other kinds of classifiers hold the first ones */

static const struct {
	enum bpf_tc_attach_point point;
	uint32_t parent;
} sides[HD_DIRECTIONS] = {
	[HD_INGRESS] = {BPF_TC_INGRESS, TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS)},
	[HD_EGRESS] = {BPF_TC_EGRESS, TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_EGRESS)},
};

/* --- reading --- */

static int dump(struct nlmsghdr *request, mnl_cb_t cb, void *userdata)
{
	_cleanup_netlink_ struct mnl_socket *socket = NULL;
	int r = netlink_open(NETLINK_ROUTE, &socket);

	request->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
	return r < 0 ? r : netlink_ask(socket, request, cb, userdata);
}

struct device_list {
	uint32_t *ifindex;
	size_t n;
};

static int on_qdisc(const struct nlmsghdr *message, void *userdata)
{
	const struct tcmsg *tc = mnl_nlmsg_get_payload(message);
	struct device_list *list = userdata;
	const struct nlattr *attribute;
	uint32_t *grown;

	mnl_attr_for_each(attribute, message, sizeof(*tc))
	{
		if (mnl_attr_get_type(attribute) != TCA_KIND || mnl_attr_validate(attribute, MNL_TYPE_NUL_STRING) < 0 ||
			strcmp(mnl_attr_get_str(attribute), "clsact") != 0)
			continue;
		grown = reallocarray(list->ifindex, list->n + 1, sizeof(*grown));
		if (!grown)
			return MNL_CB_ERROR;
		list->ifindex = grown;
		list->ifindex[list->n++] = (uint32_t)tc->tcm_ifindex;
	}
	return MNL_CB_OK;
}

int clsact_devices(uint32_t **ret, size_t *ret_n)
{
	uint8_t buffer[128] = {0};
	struct nlmsghdr *request = mnl_nlmsg_put_header(buffer);
	struct device_list list = {0};
	int r;

	request->nlmsg_type = RTM_GETQDISC;
	mnl_nlmsg_put_extra_header(request, sizeof(struct tcmsg));
	r = dump(request, on_qdisc, &list);
	if (r < 0) {
		free(list.ifindex);
		return r;
	}
	*ret = list.ifindex;
	*ret_n = list.n;
	return 0;
}

/* The ingress qdisc has the same place and handle, and takes filters for egress as ones for ingress. */
static int check_clsact(const char *bpffs, uint32_t ifindex)
{
	_cleanup_free_ uint32_t *devices = NULL;
	size_t n = 0;
	int r;

	if (clsact_marked(bpffs, ifindex))
		return 0;
	r = clsact_devices(&devices, &n);
	for (size_t i = 0; i < n && r == 0; i++)
		if (devices[i] == ifindex)
			return 0;
	return r < 0 ? r : -EEXIST;
}

struct filter_walk {
	struct clsact_filter filter;
	clsact_filter_cb cb;
	void *userdata;
	int r;
};

/* libbpf names a filter PROGRAM:[ID]. */
static bool named_after(const char *filter, enum hd_hook hook)
{
	size_t length = strlen(hook_program_name[hook]);

	return strncmp(filter, hook_program_name[hook], length) == 0 && strncmp(filter + length, ":[", 2) == 0;
}

static void read_bpf_options(const struct nlattr *options, struct clsact_filter *filter)
{
	struct attached uplink = {.role = ROLE_UPLINK}, port = {.role = ROLE_PORT}, stack = {.role = ROLE_STACK};
	const struct nlattr *attribute;

	mnl_attr_for_each_nested(attribute, options)
	{
		if (mnl_attr_get_type(attribute) == TCA_BPF_ID && mnl_attr_validate(attribute, MNL_TYPE_U32) == 0)
			filter->program_id = mnl_attr_get_u32(attribute);
		if (mnl_attr_get_type(attribute) == TCA_BPF_NAME && mnl_attr_validate(attribute, MNL_TYPE_NUL_STRING) == 0) {
			const char *name = mnl_attr_get_str(attribute);

			filter->ours = filter->handle == CLSACT_HANDLE &&
				       (named_after(name, attached_hook(&uplink, filter->direction)) ||
					       named_after(name, attached_hook(&port, filter->direction)) ||
					       named_after(name, attached_hook(&stack, filter->direction)));
		}
	}
}

static int on_filter(const struct nlmsghdr *message, void *userdata)
{
	const struct tcmsg *tc = mnl_nlmsg_get_payload(message);
	struct filter_walk *walk = userdata;
	const struct nlattr *attribute, *options = NULL;
	const char *kind = "";

	if (walk->r || tc->tcm_handle == 0)
		return MNL_CB_OK; /* a chain or classifier as such, not a filter */
	walk->filter.handle = tc->tcm_handle;
	walk->filter.priority = TC_H_MAJ(tc->tcm_info) >> 16;
	walk->filter.program_id = 0;
	walk->filter.ours = false;
	mnl_attr_for_each(attribute, message, sizeof(*tc))
	{
		if (mnl_attr_get_type(attribute) == TCA_KIND && mnl_attr_validate(attribute, MNL_TYPE_NUL_STRING) == 0)
			kind = mnl_attr_get_str(attribute);
		if (mnl_attr_get_type(attribute) == TCA_OPTIONS)
			options = attribute;
	}
	if (strcmp(kind, "bpf") == 0 && options)
		read_bpf_options(options, &walk->filter);
	walk->r = walk->cb(&walk->filter, walk->userdata);
	return MNL_CB_OK;
}

int clsact_each(uint32_t ifindex, clsact_filter_cb cb, void *userdata)
{
	int r = 0;

	for (unsigned direction = 0; direction < HD_DIRECTIONS && r == 0; direction++) {
		struct filter_walk walk = {
			.filter = {.ifindex = ifindex, .direction = direction}, .cb = cb, .userdata = userdata};
		uint8_t buffer[128] = {0};
		struct nlmsghdr *request = mnl_nlmsg_put_header(buffer);
		struct tcmsg *tc;

		request->nlmsg_type = RTM_GETTFILTER;
		tc = mnl_nlmsg_put_extra_header(request, sizeof(*tc));
		tc->tcm_ifindex = (int)ifindex;
		tc->tcm_parent = sides[direction].parent;
		r = dump(request, on_filter, &walk);
		if (r == 0)
			r = walk.r;
	}
	return r;
}

/* --- changing --- */

struct own_filters {
	uint32_t priority[HD_DIRECTIONS]; /* 0: none */
	unsigned foreign;
};

static int find_own(const struct clsact_filter *filter, void *userdata)
{
	struct own_filters *own = userdata;

	if (filter->ours)
		own->priority[filter->direction] = filter->priority;
	else
		own->foreign++;
	return 0;
}

static int attach_side(const struct load *load, const struct attached *at, enum hd_direction direction, uint32_t priority)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = (int)at->ifindex, .attach_point = sides[direction].point);
	int r = -EINVAL;

	for (uint32_t p = priority ? priority : 1; p <= (priority ? priority : CLSACT_PRIORITIES); p++) {
		LIBBPF_OPTS(bpf_tc_opts, opts, .prog_fd = load->program[attached_hook(at, direction)], .handle = CLSACT_HANDLE,
			.priority = p, .flags = BPF_TC_F_REPLACE);

		r = bpf_tc_attach(&hook, &opts);
		/* -EINVAL: the priority belongs to another kind of classifier, or to one for another protocol. */
		if (r != -EINVAL)
			break;
	}
	return r;
}

int clsact_make(const char *bpffs, uint32_t ifindex)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = (int)ifindex, .attach_point = BPF_TC_INGRESS | BPF_TC_EGRESS);
	int r = bpf_tc_hook_create(&hook);

	if (r == 0) {
		r = clsact_mark(bpffs, ifindex);
		return r < 0 ? r : 1;
	}
	return r == -EEXIST ? check_clsact(bpffs, ifindex) : r;
}

int clsact_attach(struct datapath *dp, struct load *load, struct attached *at)
{
	struct own_filters own = {0};
	int r = clsact_make(dp->bpffs, at->ifindex);

	if (r > 0)
		r = 0;
	else if (r == 0)
		r = clsact_each(at->ifindex, find_own, &own);
	for (unsigned direction = 0; direction < HD_DIRECTIONS && r == 0; direction++)
		r = attach_side(load, at, direction, own.priority[direction]);
	return r;
}

bool clsact_whole(uint32_t ifindex)
{
	struct own_filters own = {0};

	return clsact_each(ifindex, find_own, &own) < 0 || (own.priority[HD_INGRESS] && own.priority[HD_EGRESS]);
}

struct ahead {
	bool passed[HD_DIRECTIONS];
	uint32_t priority[HD_DIRECTIONS]; /* of the classifier counted last: each one lists its tables and entries too */
	unsigned n;
};

static int count_ahead(const struct clsact_filter *filter, void *userdata)
{
	struct ahead *ahead = userdata;

	if (filter->ours)
		ahead->passed[filter->direction] = true;
	else if (!ahead->passed[filter->direction] &&
		 (filter->program_id || filter->priority != ahead->priority[filter->direction]))
		ahead->n++;
	ahead->priority[filter->direction] = filter->priority;
	return 0;
}

unsigned clsact_foreign_ahead(uint32_t ifindex)
{
	struct ahead ahead = {0};

	/* The kernel lists them in the order in which packets meet them. */
	return clsact_each(ifindex, count_ahead, &ahead) < 0 ? 0 : ahead.n;
}

int clsact_detach(const char *bpffs, uint32_t ifindex)
{
	struct own_filters own = {0};
	int r = clsact_each(ifindex, find_own, &own), first_error = 0;

	if (r < 0)
		return r;
	for (unsigned direction = 0; direction < HD_DIRECTIONS; direction++) {
		LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = (int)ifindex, .attach_point = sides[direction].point);
		LIBBPF_OPTS(bpf_tc_opts, opts, .handle = CLSACT_HANDLE, .priority = own.priority[direction]);

		if (!own.priority[direction])
			continue;
		r = bpf_tc_detach(&hook, &opts);
		if (r < 0 && r != -ENOENT && first_error == 0)
			first_error = r;
	}
	if (clsact_unmark(bpffs, ifindex) && own.foreign == 0 && first_error == 0) {
		LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = (int)ifindex, .attach_point = BPF_TC_INGRESS | BPF_TC_EGRESS);

		r = bpf_tc_hook_destroy(&hook);
		if (r < 0 && r != -ENOENT && r != -EINVAL)
			first_error = r;
	}
	return first_error;
}
