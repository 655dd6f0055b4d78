/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packets of FastPaths that are in several frames: whether the kernel has sockets for them, what drivers do with them in zero-copy, and so how large an MTU
 * may be.
 */
#include <errno.h>
#include <net/ethernet.h>
#include <string.h>

#include <controller_internal.h>
#include <netdev/xdp_watch.h>

bool several_has(struct controller *c)
{
	int r;

	if (c->several_known)
		return c->several;
	r = xsk_takes_several();
	c->several = r == 0;
	/* else it is asked again */
	c->several_known = r == 0 || r == -EOPNOTSUPP;
	return c->several;
}

/* What the kernel says of a device now; false: nothing. */
static bool ask(struct controller *c, uint32_t ifindex, struct xdp_features *ret)
{
	struct xdp_watch *once = NULL;
	bool told;

	if (c->exits)
		return xdp_watch_ask(c->exits, ifindex, ret) == 0;
	if (xdp_watch_open(&once) < 0)
		return false;
	told = xdp_watch_ask(once, ifindex, ret) == 0;
	xdp_watch_close(once);
	return told;
}

void several_ask(struct controller *c, const struct netdev *device, struct several_device *ret)
{
	struct xdp_features xdp;

	*ret = (struct several_device){.zero_copy = true};
	if (!several_has(c) || !ask(c, device->ifindex, &xdp))
		return;
	ret->zero_copy = xdp.features & XDP_ZERO_COPY;
	ret->pieces = ret->zero_copy ? xdp.zero_copy_pieces : 0;
}

uint32_t several_mtu(bool several, uint32_t frame_size, uint32_t in_front)
{
	return xsk_packet_most(frame_size, several ? XSK_PIECES_MOST : 1, XSK_COPY) - ETH_HLEN - in_front;
}

const char *several_reason(struct controller *c, uint32_t mtu, uint32_t in_front)
{
	if (mtu <= several_mtu(several_has(c), UMEM_FRAME_MOST, in_front))
		return NULL;
	if (several_has(c))
		return "its MTU is more than 17 buffers of 4096 bytes hold (65266, of a port 65258)";
	return "its MTU is more than one buffer of 4096 bytes holds (3826, of a port 3818), and this kernel has no sockets for "
	       "packets in several (Linux 6.6)";
}

bool several_wanted(struct controller *c, const struct several_device *device, bool copies, uint32_t mtu, uint32_t frame_size)
{
	return several_has(c) && (copies || !device->zero_copy || mtu > several_mtu(false, frame_size, 0));
}

const char *several_why_not(struct controller *c)
{
	return several_has(c) ? "no MTU needs them, and zero-copy is better off without"
			      : "this kernel has no sockets for packets in several frames (Linux 6.6)";
}

const char *several_refuses(const struct several_device *device, uint32_t mtu, uint32_t frame_size)
{
	if (device->pieces > 1 && mtu + ETH_HLEN > xsk_packet_most(frame_size, device->pieces, XSK_ZERO_COPY))
		return "in zero-copy this driver takes packets in fewer frames than the MTU needs";
	return NULL;
}
