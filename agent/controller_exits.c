/* SPDX-License-Identifier: Apache-2.0 */
/*
 * FastPaths whose frames XDP moves itself: which devices take them. A device that does not would lose every frame without a word, so nothing is taken for
 * granted: the kernel is asked, and says when that changes.
 */
#include <errno.h>
#include <string.h>

#include <controller_internal.h>
#include <netdev/xdp_watch.h>

static bool concerns(uint32_t ifindex, void *userdata)
{
	const struct controller *c = userdata;

	for (size_t i = 0; i < c->n_fast_paths; i++)
		for (size_t j = 0; c->fast_paths[i].workers.devices && j < c->fast_paths[i].object->fast_path.n_devices; j++)
			if (c->fast_paths[i].workers.devices[j].ifindex == ifindex)
				return true;
	return false;
}

static int on_features(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	struct controller *c = userdata;

	(void)source;
	(void)fd;
	(void)events;
	if (xdp_watch_dispatch(c->exits, concerns, c))
		fastpaths_follow(c);
	return 0;
}

void exits_watch(struct controller *c, bool wanted)
{
	int r;

	if (!wanted) {
		exits_free(c);
		return;
	}
	if (c->exits)
		return;
	r = xdp_watch_open(&c->exits);
	if (r == 0)
		r = sd_event_add_io(c->event, &c->exits_io, xdp_watch_fd(c->exits), EPOLLIN, on_features, c);
	if (r < 0) {
		exits_free(c);
		if (r != -ENOENT)
			log_warn(r, "cannot learn which devices take frames from XDP");
	}
}

const char *exits_reason(struct controller *c, const struct netdev *device)
{
	struct xdp_features xdp;

	if (!c->exits)
		return "the kernel does not tell whether the device takes frames from XDP (Linux 6.3 does)";
	if (xdp_watch_ask(c->exits, device->ifindex, &xdp) < 0)
		return "the kernel does not tell whether the device takes frames from XDP";
	if (xdp.features & XDP_NDO_XMIT)
		return NULL;
	return strcmp(device->kind, "veth") == 0
		       ? "the other end of the veth takes no frames from XDP: it has neither GRO on nor an XDP program"
		       : "the device's driver takes no frames from XDP (no ndo_xdp_xmit as it is set up)";
}

bool exits_take_several(struct controller *c, const struct netdev *device)
{
	struct xdp_features xdp;

	return c->exits && xdp_watch_ask(c->exits, device->ifindex, &xdp) == 0 && xdp.features & XDP_NDO_XMIT_SEVERAL;
}

void exits_free(struct controller *c)
{
	c->exits_io = sd_event_source_disable_unref(c->exits_io);
	xdp_watch_close(c->exits);
	c->exits = NULL;
}
