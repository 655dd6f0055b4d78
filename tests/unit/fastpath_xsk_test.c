/* SPDX-License-Identifier: Apache-2.0 */
/* Memory, rings and AF_XDP sockets, over a veth pair in a namespace of the test's own; handed to a process without a capability. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_link.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <cap-ng.h>
#include <cmocka.h>

#include <fastpath/protocol.h>
#include <fastpath/xsk.h>
#include <util/cleanup.h>

static const struct xsk_sizes sizes = {.rx = 64, .tx = 64, .fill = 64, .completion = 64};

static void run(const char *command)
{
	assert_int_equal(system(command), 0);
}

/* --- memory --- */

static void test_umem(void **state)
{
	struct umem umem = UMEM_NONE, other = UMEM_NONE;
	int fd = -1;

	(void)state;
	assert_int_equal(umem_create(1024, 16, -1, false, &umem), -EINVAL);
	assert_int_equal(umem_create(3000, 16, -1, false, &umem), -EINVAL);
	assert_int_equal(umem_create(2048, 0, -1, false, &umem), -EINVAL);
	assert_int_equal(umem_create(2048, UMEM_FRAMES_MOST + 1, -1, false, &umem), -EINVAL);
	assert_int_equal(umem_create(2048, 16, 0, false, &umem), 0);
	assert_false(umem.huge);
	assert_true(umem_holds(&umem, 0, 2048));
	assert_false(umem_holds(&umem, 1, 2048));
	assert_true(umem_holds(&umem, 15 * 2048 + 2047, 1));
	assert_false(umem_holds(&umem, 16 * 2048, 0));
	assert_false(umem_holds(&umem, UINT64_MAX, 1));

	/* whoever has the fd has the same bytes, and cannot change the size */
	fd = fcntl(umem.fd, F_DUPFD_CLOEXEC, 0);
	assert_int_equal(umem_attach(fd, 2048, 16, &other), 0);
	memcpy(umem_data(&umem, 2048), "frame", 6);
	assert_string_equal(umem_data(&other, 2048), "frame");
	assert_int_equal(ftruncate(other.fd, 4096), -1);
	assert_int_equal(errno, EPERM);
	umem_close(&other);
	umem_close(&other);

	/* what is said of it must be true */
	fd = fcntl(umem.fd, F_DUPFD_CLOEXEC, 0);
	assert_int_equal(umem_attach(fd, 2048, 17, &other), -EINVAL);
	assert_int_equal(umem_attach(fd, 2048, UINT32_MAX, &other), -EINVAL);
	assert_int_equal(umem_attach(fd, 0, 16, &other), -EINVAL);
	close(fd);
	umem_close(&umem);
	fd = memfd_create("unsealed", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, 16 * 2048), 0);
	assert_int_equal(umem_attach(fd, 2048, 16, &other), -EINVAL);
	close(fd);
	fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	assert_int_equal(umem_attach(fd, 2048, 16, &other), -EINVAL);
	close(fd);

	/* with huge pages where there are some; the memory is there either way */
	assert_int_equal(umem_create(4096, 1024, -1, true, &umem), 0);
	memset(umem.area, 1, (size_t)umem.frames * umem.frame_size);
	umem_close(&umem);
}

/* --- rings --- */

struct ends {
	uint32_t producer, consumer, flags;
	uint64_t entries[8];
};

static struct xsk_ring ring_over(struct ends *ends)
{
	return (struct xsk_ring){.producer = &ends->producer,
		.consumer = &ends->consumer,
		.flags = &ends->flags,
		.entries = ends->entries,
		.size = 8,
		.mask = 7};
}

static void test_ring(void **state)
{
	struct ends ends = {.producer = UINT32_MAX - 2, .consumer = UINT32_MAX - 2}; /* over the end of the numbers */
	struct xsk_ring in = ring_over(&ends), out = ring_over(&ends);
	uint32_t index = 0;
	uint64_t next = 0, seen = 0;

	(void)state;
	in.mine = in.theirs = out.mine = out.theirs = ends.producer;
	assert_int_equal(ring_peek(&out, 4, &index), 0);
	for (int round = 0; round < 100; round++) {
		uint32_t n = ring_reserve(&in, 5, &index);

		assert_true(n == 5 || n == 8 - ring_pending(&in));
		for (uint32_t i = 0; i < n; i++)
			*ring_address(&in, index + i) = next++;
		assert_int_equal(ends.producer, index); /* not yet the other end's */
		ring_submit(&in);
		n = ring_peek(&out, 3, &index);
		assert_true(n > 0 && n <= 3); /* what was there when it last looked */
		for (uint32_t i = 0; i < n; i++)
			assert_int_equal(*ring_address(&out, index + i), seen++);
		if (round % 7 == 0) {
			ring_cancel(&out, 1);
			seen--;
		}
		ring_release(&out);
	}
	assert_true(ring_pending(&in) <= 8);
}

static void test_broken_ring(void **state)
{
	struct ends ends = {0};
	struct xsk_ring in = ring_over(&ends), out = ring_over(&ends);
	uint32_t index = 0;

	(void)state;
	/* a consumer that says it has read what was never written, */
	ends.consumer = 100;
	assert_int_equal(ring_reserve(&in, 9, &index), 0);
	assert_true(in.broken);
	ends.consumer = 0;
	assert_int_equal(ring_reserve(&in, 1, &index), 0);
	/* and a producer that has written more than there is room for */
	ends.producer = 9;
	assert_int_equal(ring_peek(&out, 1, &index), 0);
	assert_true(out.broken);
	ends.producer = 1;
	assert_int_equal(ring_peek(&out, 1, &index), 0);
	ends.producer = 1u << 31;
	assert_int_equal(ring_pending(&out), 8);
}

/* --- sockets --- */

/* Redirects everything by queue to the map; what has no socket there passes. */
static int steer(int map, uint32_t ifindex, uint32_t flags)
{
	const struct bpf_insn code[] = {
		{.code = BPF_LDX | BPF_MEM | BPF_W, .dst_reg = BPF_REG_2, .src_reg = BPF_REG_1, .off = 16 /* rx_queue_index */},
		{.code = BPF_LD | BPF_DW, .dst_reg = BPF_REG_1, .src_reg = BPF_PSEUDO_MAP_FD, .imm = map},
		{0},
		{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_3, .imm = XDP_PASS},
		{.code = BPF_JMP | BPF_CALL, .imm = BPF_FUNC_redirect_map},
		{.code = BPF_JMP | BPF_EXIT},
	};
	int fd = bpf_prog_load(BPF_PROG_TYPE_XDP, "steer", "GPL", code, ARRAY_SIZE(code), NULL);

	assert_true(fd >= 0);
	assert_int_equal(bpf_xdp_attach((int)ifindex, fd, flags, NULL), 0);
	close(fd);
	return 0;
}

static void make_frame(uint8_t *frame, size_t length, uint8_t tag)
{
	memset(frame, tag, length);
	memset(frame, 0xff, 6);
	frame[6] = 2;
	frame[12] = 0x88; /* for experiments */
	frame[13] = 0xb5;
}

static int packet_socket(const char *device)
{
	struct sockaddr_ll address = {
		.sll_family = AF_PACKET, .sll_protocol = htons(0x88b5), .sll_ifindex = (int)if_nametoindex(device)};
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(0x88b5));

	assert_true(fd >= 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	return fd;
}

static void wait_for(int fd)
{
	struct pollfd poll_fd = {.fd = fd, .events = POLLIN};

	assert_int_equal(poll(&poll_fd, 1, 10000), 1);
}

static void give(struct xsk *xsk, uint32_t first, uint32_t n, uint32_t frame_size)
{
	uint32_t index = 0;

	assert_int_equal(ring_reserve(&xsk->fill, n, &index), n);
	for (uint32_t i = 0; i < n; i++)
		*ring_address(&xsk->fill, index + i) = (uint64_t)(first + i) * frame_size;
	ring_submit(&xsk->fill);
}

static void send_one(struct xsk *xsk, const struct umem *umem, uint64_t address, uint32_t length)
{
	uint32_t index = 0;

	assert_int_equal(ring_reserve(&xsk->tx, 1, &index), 1);
	if (umem_holds(umem, address, length))
		make_frame(umem_data(umem, address), length, 0x42);
	*ring_descriptor(&xsk->tx, index) = (struct xdp_desc){.addr = address, .len = length};
	ring_submit(&xsk->tx);
	assert_int_equal(xsk_wake_tx(xsk), 0);
}

/* One frame each way, of a socket whose rings are mapped. */
static void both_ways(struct xsk *xsk, const struct umem *umem, int far_end)
{
	uint8_t frame[100], got[200];
	uint32_t index = 0, n;

	make_frame(frame, sizeof(frame), 0x17);
	assert_int_equal(write(far_end, frame, sizeof(frame)), sizeof(frame));
	wait_for(xsk->fd);
	assert_int_equal(ring_peek(&xsk->rx, 8, &index), 1);
	assert_int_equal(ring_descriptor(&xsk->rx, index)->len, sizeof(frame));
	assert_true(umem_holds(umem, ring_descriptor(&xsk->rx, index)->addr, sizeof(frame)));
	assert_memory_equal(umem_data(umem, ring_descriptor(&xsk->rx, index)->addr), frame, sizeof(frame));
	ring_release(&xsk->rx);

	send_one(xsk, umem, 40 * (uint64_t)umem->frame_size, 77);
	wait_for(far_end);
	assert_int_equal(read(far_end, got, sizeof(got)), 77);
	assert_int_equal(got[70], 0x42);
	n = ring_peek(&xsk->completion, 8, &index); /* newer kernels give back refused ones too */
	assert_true(n >= 1);
	assert_int_equal(*ring_address(&xsk->completion, index + n - 1), 40 * (uint64_t)umem->frame_size);
	ring_release(&xsk->completion);
}

/* What came and was not taken goes back to the kernel by somebody else's mapping of the same rings, which the one who did not take it can tell. */
static void given_back(struct xsk *xsk, const struct umem *umem, int far_end)
{
	struct xsk other = {.fd = dup(xsk->fd), .sizes = xsk->sizes};
	uint32_t index = 0, filled;
	uint8_t frame[60];

	assert_int_equal(xsk_map(&other), 0);
	make_frame(frame, sizeof(frame), 0x19);
	assert_int_equal(write(far_end, frame, sizeof(frame)), sizeof(frame));
	wait_for(xsk->fd);
	assert_int_equal(ring_pending(&xsk->rx), 1);
	filled = ring_pending(&xsk->fill);
	xsk_give_back(&other);
	assert_int_equal(ring_pending(&xsk->rx), 0);
	assert_int_equal(ring_pending(&xsk->fill), filled + 1);
	assert_int_equal(
		*ring_address(&xsk->fill, *xsk->fill.producer - 1), ring_descriptor(&xsk->rx, *xsk->rx.producer - 1)->addr);
	assert_int_not_equal(*xsk->rx.consumer, xsk->rx.mine);
	xsk_give_back(&other); /* there is nothing more */
	assert_int_equal(ring_pending(&xsk->fill), filled + 1);
	/* indexes that are none: nothing is given, nothing is read beyond the ring */
	*xsk->rx.producer += 1000000;
	xsk_give_back(&other);
	*xsk->rx.producer -= 1000000;
	assert_int_equal(ring_pending(&xsk->fill), filled + 1);
	xsk_close(&other);
	xsk_give_back(&other);
	xsk_unmap(xsk);
	assert_int_equal(xsk_map(xsk), 0);
	assert_int_equal(ring_peek(&xsk->rx, 1, &index), 0);
	both_ways(xsk, umem, far_end);
}

/* One call sends all that it may: here twice of what it is by itself. */
static void at_once(struct xsk *xsk)
{
	int r = xsk_send_at_once(xsk, 64), few = xsk_send_at_once(xsk, 32);
	uint32_t index = 0, n = ring_peek(&xsk->completion, 64, &index);

	assert_true(r == 0 || r == -ENOPROTOOPT);
	assert_int_equal(few, 0);
	if (n)
		ring_release(&xsk->completion);
	assert_int_equal(ring_reserve(&xsk->tx, 64, &index), 64);
	for (uint32_t i = 0; i < 64; i++)
		*ring_descriptor(&xsk->tx, index + i) = (struct xdp_desc){.addr = 0, .len = 60};
	ring_submit(&xsk->tx);
	assert_int_equal(xsk_wake_tx(xsk), 0);
	assert_int_equal(ring_pending(&xsk->tx), r == 0 ? 0 : 32);
}

static void sockets(bool generic)
{
	uint32_t flags = generic ? XDP_FLAGS_SKB_MODE : XDP_FLAGS_DRV_MODE, ifindex = if_nametoindex("fpx0"), queue = 0,
		 index = 0;
	struct xsk_binding binding = {.ifindex = ifindex, .generic = generic};
	struct xsk xsk = XSK_NONE, second = XSK_NONE;
	struct xsk_statistics said, before;
	struct umem umem = UMEM_NONE;
	uint8_t frame[60];
	bool late = false;
	int near_end = -1, map = bpf_map_create(BPF_MAP_TYPE_XSKMAP, "socks", 4, 4, 4, NULL), far_end = packet_socket("fpx1");

	assert_true(map >= 0);
	steer(map, ifindex, flags);
	assert_int_equal(umem_create(2048, 128, -1, false, &umem), 0);
	assert_int_equal(xsk_create(&umem, &(struct xsk_sizes){.rx = 3, .fill = 4, .completion = 4}, &xsk), -EINVAL);
	assert_int_equal(xsk_create(&umem, &sizes, &xsk), 0);
	assert_int_equal(xsk_fix_device(&xsk, "fpx0"), 0);
	assert_int_equal(xsk_map(&xsk), 0);
	binding.ifindex = if_nametoindex("fpx1");
	assert_int_equal(xsk_bind(&xsk, &binding), -EINVAL); /* fixed to the other one */
	binding.ifindex = ifindex;
	assert_int_equal(xsk_bind(&xsk, &binding), 0);
	assert_int_equal(xsk.mode, generic ? XSK_GENERIC : XSK_COPY); /* veth has no zero-copy */
	assert_string_equal(xsk.reason,
		generic ? "the XDP program of the device runs in generic mode" : "the driver has no zero-copy on queue 0");
	assert_int_equal(xsk_maps_late(&xsk, &late), 0);
	assert_int_equal(bpf_map_update_elem(map, &queue, &xsk.fd, BPF_ANY), 0);
	/* the queue is taken; a second socket registers the same memory for another one */
	assert_int_equal(xsk_create(&umem, &sizes, &second), 0);
	assert_int_equal(xsk_bind(&second, &binding), -EBUSY);
	xsk_close(&second);
	assert_int_equal(xsk_create(&umem, &sizes, &second), 0);
	binding.queue = 1;
	assert_int_equal(xsk_bind(&second, &binding), 0);
	assert_int_equal(second.mode, xsk.mode);
	xsk_close(&second);
	xsk_close(&second);

	/* without frames: the kernel counts it; then with some */
	give(&xsk, 0, 8, umem.frame_size);
	both_ways(&xsk, &umem, far_end);
	/* descriptors that are none are refused, one by one */
	assert_int_equal(xsk_statistics(xsk.fd, &before), 0);
	send_one(&xsk, &umem, 128 * 2048, 60);
	send_one(&xsk, &umem, UINT64_MAX - 5, 60);
	send_one(&xsk, &umem, 100, 2048);
	assert_int_equal(xsk_statistics(xsk.fd, &said), 0);
	assert_int_equal(said.tx_invalid - before.tx_invalid, 3);
	assert_int_equal(ring_reserve(&xsk.fill, 1, &index), 1);
	*ring_address(&xsk.fill, index) = UINT64_MAX;
	ring_submit(&xsk.fill);
	both_ways(&xsk, &umem, far_end);
	if (late)
		given_back(&xsk, &umem, far_end);
	assert_int_equal(xsk_statistics(-1, &said), -EBADF);
	at_once(&xsk);
	xsk_close(&xsk);
	/* what goes leaves the map, and packets pass */
	near_end = packet_socket("fpx0");
	make_frame(frame, sizeof(frame), 0x18);
	assert_int_equal(write(far_end, frame, sizeof(frame)), sizeof(frame));
	wait_for(near_end);
	close(near_end);
	close(map);
	close(far_end);
	umem_close(&umem);
	assert_int_equal(bpf_xdp_detach((int)ifindex, flags, NULL), 0);
}

static void test_native(void **state)
{
	(void)state;
	sockets(false);
}

static void test_generic(void **state)
{
	(void)state;
	sockets(true);
}

/* --- another process --- */

/* Without a capability, with nothing but what came over its socket. */
static int consumer(int connection)
{
	struct fastpath_message message;
	struct xsk xsk = XSK_NONE;
	struct umem umem = UMEM_NONE;
	int fds[FASTPATH_FDS];
	size_t n = FASTPATH_FDS;
	uint32_t index = 0;

	capng_clear(CAPNG_SELECT_ALL);
	if (capng_apply(CAPNG_SELECT_CAPS) < 0 || socket(AF_XDP, SOCK_RAW, 0) >= 0 || errno != EPERM)
		return 1;
	if (fastpath_recv(connection, &message, fds, &n) < 0 || n != 2)
		return 2;
	if (umem_attach(fds[0], message.frame_size, message.frames, &umem) < 0)
		return 3;
	/* neither memory for a socket nor a larger ring than there is */
	if (xsk_attach(fds[0], &sizes, &xsk) != -ENOTSOCK || xsk_attach(connection, &sizes, &xsk) != -EINVAL ||
		xsk_attach(fds[1], &(struct xsk_sizes){.rx = 4096, .tx = 64, .fill = 64, .completion = 64}, &xsk) != -EINVAL)
		return 4;
	if (xsk_attach(fds[1], &sizes, &xsk) < 0)
		return 5;
	give(&xsk, 0, 8, umem.frame_size);
	message.type = FASTPATH_MAPPED;
	if (fastpath_send(connection, &message, NULL, 0) < 0)
		return 6;
	for (;;) { /* echoes, until its frames come no more */
		struct pollfd poll_fd[2] = {{.fd = xsk.fd, .events = POLLIN}, {.fd = connection, .events = POLLIN}};

		if (poll(poll_fd, 2, 10000) <= 0)
			return 7;
		if (poll_fd[1].revents)
			return 0;
		if (ring_peek(&xsk.rx, 1, &index) == 1) {
			struct xdp_desc frame = *ring_descriptor(&xsk.rx, index);

			ring_release(&xsk.rx);
			if (ring_reserve(&xsk.tx, 1, &index) != 1)
				return 8;
			*ring_descriptor(&xsk.tx, index) = frame;
			ring_submit(&xsk.tx);
			if (xsk_wake_tx(&xsk) < 0)
				return 9;
		}
	}
}

static void test_hand_over(void **state)
{
	struct fastpath_message message = {.type = FASTPATH_GRANT, .frame_size = 2048, .frames = 128};
	struct xsk_binding binding = {.ifindex = if_nametoindex("fpx0")};
	int map = bpf_map_create(BPF_MAP_TYPE_XSKMAP, "socks", 4, 4, 4, NULL), far_end = packet_socket("fpx1"), pair[2],
	    status = 0;
	struct xsk xsk = XSK_NONE;
	struct umem umem = UMEM_NONE;
	uint8_t frame[64], got[100];
	uint32_t queue = 0;
	size_t none = 0;
	pid_t child;

	(void)state;
	steer(map, binding.ifindex, XDP_FLAGS_DRV_MODE);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		close(pair[0]);
		_exit(consumer(pair[1]));
	}
	close(pair[1]);
	assert_int_equal(umem_create(2048, 128, -1, false, &umem), 0);
	assert_int_equal(xsk_create(&umem, &sizes, &xsk), 0);
	umem_unmap(&umem); /* nothing of it is needed here */
	assert_int_equal(xsk_fix_device(&xsk, "fpx0"), 0);
	assert_int_equal(fastpath_send(pair[0], &message, (int[]){umem.fd, xsk.fd}, 2), 0);
	assert_int_equal(fastpath_recv(pair[0], &message, NULL, &none), 0);
	assert_int_equal(message.type, FASTPATH_MAPPED);
	assert_int_equal(xsk_bind(&xsk, &binding), 0);
	assert_int_equal(bpf_map_update_elem(map, &queue, &xsk.fd, BPF_ANY), 0);
	/* the other process alone keeps it alive */
	xsk_close(&xsk);
	umem_close(&umem);
	make_frame(frame, sizeof(frame), 0x55);
	for (int i = 0; i < 4; i++) {
		assert_int_equal(write(far_end, frame, sizeof(frame)), sizeof(frame));
		wait_for(far_end);
		assert_int_equal(read(far_end, got, sizeof(got)), sizeof(frame));
		assert_memory_equal(got, frame, sizeof(frame));
	}
	close(pair[0]);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	close(map);
	close(far_end);
	assert_int_equal(bpf_xdp_detach((int)binding.ifindex, XDP_FLAGS_DRV_MODE, NULL), 0);
}

static void test_messages(void **state)
{
	struct fastpath_message message = {.type = FASTPATH_HELLO}, got;
	int pair[2], fds[FASTPATH_FDS], many[4] = {0, 1, 2, 0};
	size_t n = 2;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
	assert_int_equal(fastpath_recv(pair[1], &got, fds, &n), -EAGAIN);
	n = 2;
	assert_int_equal(fastpath_send(pair[0], &message, many, 2), 0);
	assert_int_equal(fastpath_recv(pair[1], &got, fds, &n), 0);
	assert_int_equal(n, 2);
	assert_int_equal(fcntl(fds[0], F_GETFD), FD_CLOEXEC);
	close(fds[0]);
	close(fds[1]);
	/* more fds than are wanted: the message is none, and what came of them is the caller's */
	assert_int_equal(fastpath_send(pair[0], &message, many, 4), 0);
	assert_int_equal(fastpath_recv(pair[1], &got, fds, &n), -EPROTO);
	assert_int_equal(n, 2);
	assert_int_equal(fcntl(fds[0], F_GETFD), FD_CLOEXEC);
	close(fds[0]);
	close(fds[1]);
	n = 0;
	assert_int_equal(fastpath_send(pair[0], &message, many, 1), 0);
	assert_int_equal(fastpath_recv(pair[1], &got, fds, &n), -EPROTO);
	/* short, long, of another version, with more queues than there can be */
	assert_int_equal(send(pair[0], &message, sizeof(message) - 1, 0), sizeof(message) - 1);
	assert_int_equal(fastpath_recv(pair[1], &got, fds, &n), -EPROTO);
	message.version++;
	assert_int_equal(send(pair[0], &message, sizeof(message), 0), sizeof(message));
	assert_int_equal(fastpath_recv(pair[1], &got, fds, &n), -EPROTO);
	message.n_queues = FASTPATH_QUEUES + 1;
	assert_int_equal(fastpath_send(pair[0], &message, NULL, 0), 0);
	assert_int_equal(fastpath_recv(pair[1], &got, fds, &n), -EPROTO);
	close(pair[0]);
	assert_int_equal(fastpath_recv(pair[1], &got, fds, &n), -ECONNRESET);
	close(pair[1]);
}

static int set_up(void **state)
{
	(void)state;
	if (unshare(CLONE_NEWNET) < 0)
		return -1;
	run("ip link set lo up && ip link add fpx0 numrxqueues 2 numtxqueues 2 type veth peer name fpx1 numrxqueues 2 "
	    "numtxqueues 2");
	run("for d in fpx0 fpx1; do sysctl -qw net.ipv6.conf.$d.disable_ipv6=1; ip link set $d up; done");
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_umem),
		cmocka_unit_test(test_ring),
		cmocka_unit_test(test_broken_ring),
		cmocka_unit_test(test_messages),
		cmocka_unit_test(test_native),
		cmocka_unit_test(test_generic),
		cmocka_unit_test(test_hand_over),
	};

	return cmocka_run_group_tests(tests, set_up, NULL);
}
