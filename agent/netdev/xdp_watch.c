/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>

#include <netdev/xdp_watch.h>
#include <util/genetlink.h>

struct xdp_watch {
	struct mnl_socket *requests, *changes;
	uint16_t family;
};
DEFINE_CLEANUP(struct xdp_watch *, xdp_watch_close);

void xdp_watch_close(struct xdp_watch *watch)
{
	if (!watch)
		return;
	mnl_socket_close_p(&watch->requests);
	mnl_socket_close_p(&watch->changes);
	free(watch);
}

int xdp_watch_open(struct xdp_watch **ret)
{
	_cleanup_(xdp_watch_close_p) struct xdp_watch *watch = calloc(1, sizeof(*watch));
	struct genetlink_family family;
	int r = watch ? genetlink_find(XDP_FEATURES_FAMILY, XDP_FEATURES_GROUP, &family) : -ENOMEM;

	if (r == 0)
		r = netlink_open(NETLINK_GENERIC, &watch->requests);
	if (r == 0)
		r = netlink_watch(NETLINK_GENERIC, &family.group, 1, &watch->changes);
	if (r < 0)
		return r;
	watch->family = family.number;
	*ret = TAKE_PTR(watch);
	return 0;
}

int xdp_watch_fd(const struct xdp_watch *watch)
{
	return mnl_socket_get_fd(watch->changes);
}

struct asking {
	xdp_watch_cb concerns;
	void *userdata;
	bool meant;
};

static int on_change(const struct nlmsghdr *message, void *userdata)
{
	struct asking *asking = userdata;
	struct xdp_features device;

	if (xdp_features_parse(message, MNL_ALIGN(message->nlmsg_len), &device))
		asking->meant |= asking->concerns(device.ifindex, asking->userdata);
	return MNL_CB_OK;
}

bool xdp_watch_dispatch(struct xdp_watch *watch, xdp_watch_cb concerns, void *userdata)
{
	struct asking asking = {.concerns = concerns, .userdata = userdata};

	/* some are lost: whose, nobody knows */
	return netlink_read(watch->changes, on_change, &asking) == -ENOBUFS || asking.meant;
}

int xdp_watch_ask(struct xdp_watch *watch, uint32_t ifindex, struct xdp_features *ret)
{
	return xdp_features_ask(watch->requests, watch->family, ifindex, ret);
}
