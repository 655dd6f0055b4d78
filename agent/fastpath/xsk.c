/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <linux/if_xdp.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <fastpath/xsk.h>
#include <util/cleanup.h>

#ifndef SO_PREFER_BUSY_POLL
#define SO_PREFER_BUSY_POLL 69
#endif
#ifndef SO_BUSY_POLL_BUDGET
#define SO_BUSY_POLL_BUDGET 70
#endif
#ifndef XDP_MAX_TX_SKB_BUDGET
#define XDP_MAX_TX_SKB_BUDGET 9 /* since 6.17 */
#endif
#define TX_SKB_BUDGET 32 /* what it is otherwise, and the least that the kernel takes */
#ifndef XDP_USE_SG
#define XDP_USE_SG (1 << 4)
#endif
#define ZERO_COPY_TAIL \
	384 /* what newer kernels keep behind each piece of a packet in zero-copy: a struct skb_shared_info, rounded up */

const char *xsk_mode_name(enum xsk_mode mode)
{
	switch (mode) {
	case XSK_UNBOUND:
		return "unbound";
	case XSK_ZERO_COPY:
		return "zero-copy";
	case XSK_COPY:
		return "copy";
	case XSK_GENERIC:
		return "generic";
	}
	return "?";
}

static bool ring_size_ok(uint32_t size)
{
	return size > 0 && size <= XSK_RING_MOST && (size & (size - 1)) == 0;
}

static bool sizes_ok(const struct xsk_sizes *sizes)
{
	return ring_size_ok(sizes->rx) && ring_size_ok(sizes->fill) && ring_size_ok(sizes->completion) &&
	       (sizes->tx == 0 || ring_size_ok(sizes->tx));
}

static int set(int fd, int option, const void *value, socklen_t length)
{
	return setsockopt(fd, SOL_XDP, option, value, length) < 0 ? -errno : 0;
}

int xsk_create(const struct umem *umem, const struct xsk_sizes *sizes, struct xsk *ret)
{
	struct xsk xsk = {.fd = -1, .sizes = *sizes, .pieces = 1};
	struct xdp_umem_reg reg = {
		.addr = (uintptr_t)umem->area, .len = (uint64_t)umem->frame_size * umem->frames, .chunk_size = umem->frame_size};
	_cleanup_close_ int fd = -1;
	int r;

	if (!sizes_ok(sizes) || !umem->area)
		return -EINVAL;
	fd = socket(AF_XDP, SOCK_RAW | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	r = set(fd, XDP_UMEM_REG, &reg, sizeof(reg));
	if (r >= 0)
		r = set(fd, XDP_UMEM_FILL_RING, &sizes->fill, sizeof(sizes->fill));
	if (r >= 0)
		r = set(fd, XDP_UMEM_COMPLETION_RING, &sizes->completion, sizeof(sizes->completion));
	if (r >= 0)
		r = set(fd, XDP_RX_RING, &sizes->rx, sizeof(sizes->rx));
	if (r >= 0 && sizes->tx)
		r = set(fd, XDP_TX_RING, &sizes->tx, sizeof(sizes->tx));
	if (r < 0)
		return r;
	xsk.fd = TAKE_FD(fd);
	*ret = xsk;
	return 0;
}

int xsk_fix_device(struct xsk *xsk, const char *device)
{
	return setsockopt(xsk->fd, SOL_SOCKET, SO_BINDTODEVICE, device, (socklen_t)strlen(device) + 1) < 0 ? -errno : 0;
}

static int bind_as(const struct xsk *xsk, const struct xsk_binding *binding, uint16_t flags)
{
	struct sockaddr_xdp address = {
		.sxdp_family = AF_XDP, .sxdp_flags = flags, .sxdp_ifindex = binding->ifindex, .sxdp_queue_id = binding->queue};

	return bind(xsk->fd, (struct sockaddr *)&address, sizeof(address)) < 0 ? -errno : 0;
}

int xsk_takes_several(void)
{
	struct sockaddr_xdp nowhere = {.sxdp_family = AF_XDP, .sxdp_flags = XDP_USE_SG | XDP_COPY};
	_cleanup_close_ int fd = socket(AF_XDP, SOCK_RAW | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	/* flags are looked at first; then there is no such device */
	if (bind(fd, (struct sockaddr *)&nowhere, sizeof(nowhere)) == 0 || errno == ENODEV)
		return 0;
	return errno == EINVAL ? -EOPNOTSUPP : -errno;
}

uint32_t xsk_packet_most(uint32_t frame_size, uint32_t pieces, enum xsk_mode mode)
{
	return pieces * (XSK_FRAME_MOST(frame_size) - (pieces > 1 && mode == XSK_ZERO_COPY ? ZERO_COPY_TAIL : 0));
}

static uint32_t pieces_of(const struct xsk_binding *binding, bool zero_copy)
{
	uint32_t most = zero_copy ? binding->zero_copy_pieces : XSK_PIECES_MOST;

	if (!binding->several)
		return 1;
	/* it would not have been bound with one */
	return most < 2 ? 2 : most < XSK_PIECES_MOST ? most : XSK_PIECES_MOST;
}

int xsk_bind(struct xsk *xsk, const struct xsk_binding *binding)
{
	uint16_t flags = XDP_USE_NEED_WAKEUP | (binding->several ? XDP_USE_SG : 0);
	bool one_only = binding->several && binding->zero_copy_pieces == 1;
	struct xdp_options options = {0};
	socklen_t length = sizeof(options);
	int refused = 0, r = -EOPNOTSUPP;

	if (!binding->copy_only && !binding->generic && !one_only) {
		r = bind_as(xsk, binding, XDP_ZEROCOPY | flags);
		refused = r;
	}
	/* what is taken or is not there is no question of the mode */
	if (r < 0 && r != -EBUSY && r != -ENODEV)
		r = bind_as(xsk, binding, XDP_COPY | flags);
	if (r < 0)
		return r;
	xsk->ifindex = binding->ifindex;
	xsk->queue = binding->queue;
	if (getsockopt(xsk->fd, SOL_XDP, XDP_OPTIONS, &options, &length) == 0 && options.flags & XDP_OPTIONS_ZEROCOPY) {
		xsk->mode = XSK_ZERO_COPY;
		xsk->pieces = pieces_of(binding, true);
		xsk->reason[0] = '\0';
		return 0;
	}
	xsk->pieces = pieces_of(binding, false);
	xsk->mode = binding->generic ? XSK_GENERIC : XSK_COPY;
	if (binding->generic)
		snprintf(xsk->reason, sizeof(xsk->reason), "the XDP program of the device runs in generic mode");
	else if (binding->copy_only)
		snprintf(xsk->reason, sizeof(xsk->reason), "%s", binding->copy_only);
	else if (one_only)
		snprintf(xsk->reason, sizeof(xsk->reason),
			"zero-copy of the driver has no packets in several frames, which the MTU takes");
	else if (refused == -EOPNOTSUPP)
		snprintf(xsk->reason, sizeof(xsk->reason), "the driver has no zero-copy on queue %u", binding->queue);
	else
		snprintf(xsk->reason, sizeof(xsk->reason), "zero-copy was refused on queue %u: %s", binding->queue,
			strerror(-refused));
	return 0;
}

/* --- rings --- */

static int map_ring(
	struct xsk *xsk, struct xsk_ring *ring, uint32_t size, size_t entry, const struct xdp_ring_offset *offset, off_t at)
{
	size_t length = offset->desc + (size_t)size * entry;
	void *map;

	/* of the kernel, or of something that pretends to be a socket: nothing outside of the mapping */
	if (offset->desc > 4096 || offset->producer + sizeof(uint32_t) > length || offset->consumer + sizeof(uint32_t) > length ||
		offset->flags + sizeof(uint32_t) > length)
		return -EINVAL;
	map = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, xsk->fd, at);
	if (map == MAP_FAILED)
		return -errno;
	*ring = (struct xsk_ring){
		.producer = (uint32_t *)((char *)map + offset->producer),
		.consumer = (uint32_t *)((char *)map + offset->consumer),
		.flags = (uint32_t *)((char *)map + offset->flags),
		.entries = (char *)map + offset->desc,
		.size = size,
		.mask = size - 1,
		.map = map,
		.map_length = length,
	};
	return 0;
}

static void unmap_ring(struct xsk_ring *ring)
{
	if (ring->map)
		munmap(ring->map, ring->map_length);
	*ring = (struct xsk_ring){0};
}

/* Where each end was left, by whoever had it before. */
static void resume_producer(struct xsk_ring *ring)
{
	ring->mine = __atomic_load_n(ring->producer, __ATOMIC_RELAXED);
	ring->theirs = __atomic_load_n(ring->consumer, __ATOMIC_ACQUIRE);
}

static void resume_consumer(struct xsk_ring *ring)
{
	ring->mine = __atomic_load_n(ring->consumer, __ATOMIC_RELAXED);
	ring->theirs = ring->mine;
}

int xsk_map(struct xsk *xsk)
{
	struct xdp_mmap_offsets offsets = {0};
	socklen_t length = sizeof(offsets);
	int r;

	if (!sizes_ok(&xsk->sizes))
		return -EINVAL;
	if (getsockopt(xsk->fd, SOL_XDP, XDP_MMAP_OFFSETS, &offsets, &length) < 0)
		return -errno;
	if (length != sizeof(offsets)) /* without flags: a kernel before 5.4 */
		return -EOPNOTSUPP;
	r = map_ring(xsk, &xsk->rx, xsk->sizes.rx, sizeof(struct xdp_desc), &offsets.rx, XDP_PGOFF_RX_RING);
	if (r >= 0 && xsk->sizes.tx)
		r = map_ring(xsk, &xsk->tx, xsk->sizes.tx, sizeof(struct xdp_desc), &offsets.tx, XDP_PGOFF_TX_RING);
	if (r >= 0)
		r = map_ring(xsk, &xsk->fill, xsk->sizes.fill, sizeof(uint64_t), &offsets.fr, (off_t)XDP_UMEM_PGOFF_FILL_RING);
	if (r >= 0)
		r = map_ring(xsk, &xsk->completion, xsk->sizes.completion, sizeof(uint64_t), &offsets.cr,
			(off_t)XDP_UMEM_PGOFF_COMPLETION_RING);
	if (r < 0) {
		xsk_unmap(xsk);
		return r;
	}
	resume_consumer(&xsk->rx);
	resume_producer(&xsk->fill);
	resume_consumer(&xsk->completion);
	if (xsk->sizes.tx)
		resume_producer(&xsk->tx);
	return 0;
}

void xsk_give_back(struct xsk *xsk)
{
	uint32_t from = 0, to = 0, n;

	if (!ring_mapped(&xsk->rx) || !ring_mapped(&xsk->fill))
		return;
	resume_consumer(&xsk->rx);
	resume_producer(&xsk->fill);
	n = ring_reserve(&xsk->fill, ring_peek(&xsk->rx, xsk->sizes.rx, &from), &to);
	for (uint32_t i = 0; i < n; i++)
		*ring_address(&xsk->fill, to + i) = ring_descriptor(&xsk->rx, from + i)->addr;
	if (n) {
		ring_submit(&xsk->fill);
		ring_release(&xsk->rx);
	}
	(void)xsk_wake_rx(xsk);
}

void xsk_unmap(struct xsk *xsk)
{
	unmap_ring(&xsk->rx);
	unmap_ring(&xsk->tx);
	unmap_ring(&xsk->fill);
	unmap_ring(&xsk->completion);
}

int xsk_is(int fd)
{
	socklen_t length = sizeof(int);
	int domain = 0;

	if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &length) < 0)
		return -errno;
	return domain == AF_XDP ? 0 : -EINVAL;
}

int xsk_attach(int fd, const struct xsk_sizes *sizes, struct xsk *ret)
{
	struct xsk xsk = {.fd = fd, .sizes = *sizes, .pieces = 1};
	struct xdp_options options = {0};
	socklen_t length = sizeof(options);
	int r = xsk_is(fd);

	if (r >= 0)
		r = xsk_map(&xsk);
	if (r < 0)
		return r;
	if (getsockopt(fd, SOL_XDP, XDP_OPTIONS, &options, &length) == 0)
		xsk.mode = options.flags & XDP_OPTIONS_ZEROCOPY ? XSK_ZERO_COPY : XSK_COPY;
	*ret = xsk;
	return 0;
}

int xsk_maps_late(const struct xsk *bound, bool *ret)
{
	struct xsk probe = {.fd = bound->fd, .sizes = bound->sizes};
	int r = xsk_map(&probe);

	if (r >= 0)
		xsk_unmap(&probe);
	else if (r != -EBUSY)
		return r;
	*ret = r >= 0;
	return 0;
}

void xsk_close(struct xsk *xsk)
{
	xsk_unmap(xsk);
	xsk->fd = safe_close(xsk->fd);
	xsk->mode = XSK_UNBOUND;
}

/* --- options, numbers, calls --- */

int xsk_busy_poll(struct xsk *xsk, const struct xsk_busy_poll *busy)
{
	int prefer = busy->us > 0, us = (int)busy->us, budget = (int)busy->budget;

	if (setsockopt(xsk->fd, SOL_SOCKET, SO_PREFER_BUSY_POLL, &prefer, sizeof(prefer)) < 0 ||
		setsockopt(xsk->fd, SOL_SOCKET, SO_BUSY_POLL, &us, sizeof(us)) < 0)
		return -errno;
	if (budget && setsockopt(xsk->fd, SOL_SOCKET, SO_BUSY_POLL_BUDGET, &budget, sizeof(budget)) < 0)
		return -errno;
	return 0;
}

int xsk_send_at_once(struct xsk *xsk, uint32_t frames)
{
	if (frames > xsk->sizes.tx)
		frames = xsk->sizes.tx;
	return frames > TX_SKB_BUDGET ? set(xsk->fd, XDP_MAX_TX_SKB_BUDGET, &frames, sizeof(frames)) : 0;
}

int xsk_statistics(int fd, struct xsk_statistics *ret)
{
	struct xdp_statistics said = {0};
	socklen_t length = sizeof(said);

	if (getsockopt(fd, SOL_XDP, XDP_STATISTICS, &said, &length) < 0)
		return -errno;
	*ret = (struct xsk_statistics){.rx_dropped = said.rx_dropped,
		.rx_invalid = said.rx_invalid_descs,
		.tx_invalid = said.tx_invalid_descs,
		.rx_ring_full = said.rx_ring_full,
		.fill_ring_empty = said.rx_fill_ring_empty_descs,
		.tx_ring_empty = said.tx_ring_empty_descs};
	return 0;
}

/* What ends by itself: the device is busy, its queue is full, a signal came. */
static bool passes(int error)
{
	return error == EAGAIN || error == EBUSY || error == ENOBUFS || error == EINTR;
}

int xsk_wake_tx(struct xsk *xsk)
{
	if (sendto(xsk->fd, NULL, 0, MSG_DONTWAIT, NULL, 0) < 0 && !passes(errno))
		return -errno;
	return 0;
}

int xsk_wake_rx(struct xsk *xsk)
{
	if (recvfrom(xsk->fd, NULL, 0, MSG_DONTWAIT, NULL, NULL) < 0 && !passes(errno))
		return -errno;
	return 0;
}
