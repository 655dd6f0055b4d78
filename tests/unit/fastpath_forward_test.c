/* SPDX-License-Identifier: Apache-2.0 */
/* Workers between veth pairs in a namespace of the test's own: fwa0 and fwb0 are theirs, fwa1 and fwb1 the far ends. */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_link.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <cmocka.h>

#include <fastpath/forward.h>
#include <fastpath/handoff.h>
#include <heddle/steer.h>

#define NOWHERE 9
#define LENGTH 200

static void run(const char *command)
{
	assert_int_equal(system(command), 0);
}

/* --- between threads --- */

#define ITEMS 2000000u

static void *produce(void *argument)
{
	struct handoff *handoff = argument;

	for (uint64_t i = 0; i < ITEMS;) {
		if (handoff_put(handoff, &(struct handoff_item){.address = i, .length = (uint32_t)i, .lane = 7}))
			i++;
		else
			sched_yield();
	}
	return NULL;
}

static void test_handoff(void **state)
{
	struct handoff_item items[32];
	struct handoff handoff;
	pthread_t thread;

	(void)state;
	assert_int_equal(handoff_init(&handoff, 100), 0);
	assert_true(handoff_empty(&handoff));
	for (uint64_t i = 0; i < 100; i++)
		assert_true(handoff_put(&handoff, &(struct handoff_item){.address = i}));
	for (uint64_t i = 0; i < 100; i += 25)
		assert_int_equal(handoff_get(&handoff, items, 25), 25);
	assert_int_equal(handoff_get(&handoff, items, 25), 0);
	/* in order, none lost, none twice, over many turns of the ring */
	assert_int_equal(pthread_create(&thread, NULL, produce, &handoff), 0);
	for (uint64_t next = 0; next < ITEMS;) {
		uint32_t n = handoff_get(&handoff, items, 32);

		if (n == 0)
			sched_yield();
		for (uint32_t i = 0; i < n; i++, next++) {
			assert_int_equal(items[i].address, next);
			assert_int_equal(items[i].length, (uint32_t)next);
			assert_int_equal(items[i].lane, 7);
		}
	}
	pthread_join(thread, NULL);
	assert_true(handoff_empty(&handoff));
	handoff_destroy(&handoff);
}

/* --- devices --- */

/* Everything from that device goes to the socket of its queue in `map`, with that in front of it. */
static void steer(int map, const char *device, uint16_t to, uint16_t meta_flags, uint32_t flags)
{
	struct bpf_insn program[] = {
		{.code = BPF_ALU64 | BPF_MOV | BPF_X, .dst_reg = 6, .src_reg = 1},
		{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 2, .imm = -(int)sizeof(struct hd_fast_meta)},
		{.code = BPF_JMP | BPF_CALL, .imm = BPF_FUNC_xdp_adjust_meta},
		{.code = BPF_JMP | BPF_CALL, .imm = BPF_FUNC_ktime_get_ns},
		{.code = BPF_LDX | BPF_MEM | BPF_W, .dst_reg = 1, .src_reg = 6, .off = offsetof(struct xdp_md, data_meta)},
		{.code = BPF_LDX | BPF_MEM | BPF_W, .dst_reg = 2, .src_reg = 6, .off = offsetof(struct xdp_md, data)},
		{.code = BPF_ALU64 | BPF_MOV | BPF_X, .dst_reg = 3, .src_reg = 1},
		{.code = BPF_ALU64 | BPF_K, .dst_reg = 3, .imm = sizeof(struct hd_fast_meta)} /* BPF_ADD, which is 0 */,
		{.code = BPF_JMP | BPF_JGT | BPF_X, .dst_reg = 3, .src_reg = 2, .off = 9 /* it has no room */},
		{.code = BPF_ST | BPF_MEM | BPF_H, .dst_reg = 1, .off = 0, .imm = to},
		{.code = BPF_ST | BPF_MEM | BPF_H, .dst_reg = 1, .off = 2, .imm = meta_flags},
		{.code = BPF_STX | BPF_MEM | BPF_W, .dst_reg = 1, .src_reg = 0, .off = 4},
		{.code = BPF_LDX | BPF_MEM | BPF_W, .dst_reg = 2, .src_reg = 6, .off = offsetof(struct xdp_md, rx_queue_index)},
		{.code = BPF_LD | BPF_DW, .dst_reg = 1, .src_reg = BPF_PSEUDO_MAP_FD, .imm = map},
		{0},
		{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 3, .imm = XDP_PASS},
		{.code = BPF_JMP | BPF_CALL, .imm = BPF_FUNC_redirect_map},
		{.code = BPF_JMP | BPF_EXIT},
		{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 0, .imm = XDP_PASS},
		{.code = BPF_JMP | BPF_EXIT},
	};
	/* in generic mode the kernel makes one piece of it, as for the agent's programs there */
	LIBBPF_OPTS(bpf_prog_load_opts, opts, .prog_flags = flags & XDP_FLAGS_DRV_MODE ? BPF_F_XDP_HAS_FRAGS : 0);
	int fd = bpf_prog_load(BPF_PROG_TYPE_XDP, "steer", "GPL", program, sizeof(program) / sizeof(*program), &opts);

	assert_true(fd >= 0);
	assert_int_equal(bpf_xdp_attach((int)if_nametoindex(device), fd, flags, NULL), 0);
	close(fd);
}

static int far_end(const char *device)
{
	struct sockaddr_ll address = {
		.sll_family = AF_PACKET, .sll_protocol = htons(0x88b5), .sll_ifindex = (int)if_nametoindex(device)};
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(0x88b5)), size = 8 << 20;

	assert_true(fd >= 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size));
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	return fd;
}

static void make_frame(uint8_t *frame, uint32_t number)
{
	memset(frame, (int)number, LENGTH);
	memset(frame, 0xff, 6);
	frame[12] = 0x88; /* for experiments */
	frame[13] = 0xb5;
	memcpy(frame + 14, &number, sizeof(number));
}

static bool receive(int fd, uint8_t *frame, int ms)
{
	struct pollfd poll_fd = {.fd = fd, .events = POLLIN};

	return poll(&poll_fd, 1, ms) == 1 && recv(fd, frame, 2 * LENGTH, MSG_DONTWAIT) == LENGTH;
}

/* Frames from one far end to the other: all arrive, as they were, in order. */
static void pass(int from, int to, uint32_t n)
{
	uint8_t frame[LENGTH], got[2 * LENGTH];
	uint32_t sent = 0;

	for (uint32_t i = 0; i < n; i++) {
		/* no more under way than the rings hold */
		for (; sent < n && sent < i + 48; sent++) {
			make_frame(frame, sent);
			assert_int_equal(write(from, frame, LENGTH), LENGTH);
		}
		make_frame(frame, i);
		assert_true(receive(to, got, 10000));
		assert_memory_equal(got, frame, LENGTH);
	}
}

struct sum {
	uint64_t rx, tx, handed, no_device, latencies, sleeps;
};

static struct sum sum(const struct forward *forward, uint32_t lanes)
{
	struct forward_counters counters;
	struct sum s = {0};

	for (uint32_t i = 0; i < lanes; i++) {
		forward_counters(forward, i, &counters);
		s.rx += counters.rx;
		s.tx += counters.tx;
		s.handed += counters.handed;
		s.no_device += counters.no_device;
		s.sleeps += counters.sleeps;
		for (int k = 0; k < FORWARD_LATENCIES; k++)
			s.latencies += counters.latency[k];
	}
	return s;
}

static void forwarding(uint32_t workers, bool generic, bool spin)
{
	struct forward_lane lanes[2] = {
		{.ifindex = if_nametoindex("fwa0"), .device = 0, .generic = generic},
		{.ifindex = if_nametoindex("fwb0"), .device = 1, .worker = workers - 1, .generic = generic},
	};
	struct forward_options options = {.lanes = lanes,
		.n_lanes = 2,
		.workers = workers,
		.frame_size = 2048,
		.node = -1,
		.spin = spin,
		.batch = 32,
		.ring = 64};
	uint32_t flags = generic ? XDP_FLAGS_SKB_MODE : XDP_FLAGS_DRV_MODE, failed = 0, key = 0;
	int maps[2], a = far_end("fwa1"), b = far_end("fwb1");
	struct forward *forward = NULL;
	uint8_t frame[LENGTH], got[2 * LENGTH];
	struct sum before;

	for (int i = 0; i < 2; i++) {
		maps[i] = bpf_map_create(BPF_MAP_TYPE_XSKMAP, "socks", 4, 4, 4, NULL);
		assert_true(maps[i] >= 0);
	}
	steer(maps[0], "fwa0", 1, HD_FAST_META_STAMP, flags);
	steer(maps[1], "fwb0", 0, 0, flags);
	assert_int_equal(forward_create(&options, &forward, &failed), 0);
	assert_int_equal(forward_socket(forward, 0)->mode, generic ? XSK_GENERIC : XSK_COPY);
	for (uint32_t i = 0; i < 2; i++)
		assert_int_equal(bpf_map_update_elem(maps[i], &key, &forward_socket(forward, i)->fd, BPF_ANY), 0);
	assert_int_equal(forward_start(forward), 0);
	pass(a, b, 1000);
	pass(b, a, 1000);
	before = sum(forward, 2);
	assert_int_equal(before.rx, 2000);
	assert_int_equal(before.tx, 2000);
	assert_int_equal(before.handed, workers > 1 ? 2000 : 0);
	assert_int_equal(before.latencies, 1000);
	/* a worker that has nothing to do sleeps, and is woken by what comes */
	if (!spin) {
		for (int i = 0; i == 0 || sum(forward, 2).sleeps != before.sleeps; i++) {
			assert_true(i < 50);
			usleep(50000);
			before = sum(forward, 2);
			usleep(200000);
		}
		assert_true(before.sleeps > 0);
	}
	pass(a, b, 10);
	/* stopped: what comes stays in the ring; started again: it goes on */
	forward_stop(forward);
	make_frame(frame, 77);
	assert_int_equal(write(a, frame, LENGTH), LENGTH);
	assert_false(receive(b, got, 100));
	assert_int_equal(forward_start(forward), 0);
	assert_true(receive(b, got, 10000));
	assert_memory_equal(got, frame, LENGTH);
	/* for a device that is none of the workers' */
	steer(maps[0], "fwa0", NOWHERE, 0, flags);
	assert_int_equal(write(a, frame, LENGTH), LENGTH);
	assert_false(receive(b, got, 100));
	for (int i = 0; i < 200 && sum(forward, 2).no_device == 0; i++)
		usleep(50000);
	assert_int_equal(sum(forward, 2).no_device, 1);
	steer(maps[0], "fwa0", 1, 0, flags);
	/* the far device goes down: frames are lost, the workers are not, nor their frames */
	run("ip link set fwb1 down");
	for (uint32_t i = 0; i < 500; i++)
		(void)!write(a, frame, LENGTH);
	run("ip link set fwb1 up");
	for (int i = 0; !receive(b, got, 100); i++) {
		assert_true(i < 100);
		assert_int_equal(write(a, frame, LENGTH), LENGTH);
	}
	while (receive(b, got, 200))
		;
	pass(a, b, 500);
	/* all frames are somewhere, but for the one or two a socket that the kernel has taken for the next packet */
	usleep(50000);
	forward_stop(forward);
	assert_in_range(forward_missing(forward), 0, 4);
	forward_free(forward);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(bpf_xdp_detach((int)lanes[i].ifindex, flags, NULL), 0);
		close(maps[i]);
	}
	close(a);
	close(b);
}

static void test_one_worker(void **state)
{
	(void)state;
	forwarding(1, false, false);
}

static void test_two_workers(void **state)
{
	(void)state;
	forwarding(2, false, false);
}

static void test_generic(void **state)
{
	(void)state;
	forwarding(1, true, false);
}

static void test_spinning(void **state)
{
	(void)state;
	forwarding(1, false, true);
}

/* --- packets in several frames --- */

#define JUMBO 9000

static void make_jumbo(uint8_t *frame, uint32_t number, uint32_t length)
{
	make_frame(frame, number);
	for (uint32_t i = LENGTH; i < length; i++)
		frame[i] = (uint8_t)(number * 7 + i * 13 + i / 256);
}

static uint32_t jumbo_length(uint32_t number)
{
	static const uint32_t lengths[] = {LENGTH, 1514, 1784, 1792, 1793, 3584, 3585, 3840, 3841, 5000, 7680, 7681, 9014};

	return lengths[number % (sizeof(lengths) / sizeof(*lengths))];
}

static void pass_jumbo(int from, int to, uint32_t n)
{
	static uint8_t frame[JUMBO + 14], got[2 * JUMBO];
	uint32_t sent = 0;

	for (uint32_t i = 0; i < n; i++) {
		struct pollfd poll_fd = {.fd = to, .events = POLLIN};

		for (; sent < n && sent < i + 8; sent++) {
			make_jumbo(frame, sent, jumbo_length(sent));
			assert_int_equal(write(from, frame, jumbo_length(sent)), jumbo_length(sent));
		}
		make_jumbo(frame, i, jumbo_length(i));
		assert_int_equal(poll(&poll_fd, 1, 10000), 1);
		assert_int_equal(recv(to, got, sizeof(got), MSG_DONTWAIT), jumbo_length(i));
		assert_memory_equal(got, frame, jumbo_length(i));
	}
}

static void jumbo(uint32_t workers, bool generic, uint32_t frame_size)
{
	struct forward_lane lanes[2] = {
		{.ifindex = if_nametoindex("fwa0"), .device = 0, .generic = generic},
		{.ifindex = if_nametoindex("fwb0"), .device = 1, .worker = workers - 1, .generic = generic},
	};
	struct forward_options options = {.lanes = lanes,
		.n_lanes = 2,
		.workers = workers,
		.frame_size = frame_size,
		.node = -1,
		.several = true,
		.batch = 32,
		.ring = 64};
	uint32_t flags = generic ? XDP_FLAGS_SKB_MODE : XDP_FLAGS_DRV_MODE, failed = 0, key = 0;
	struct forward_counters counters;
	struct forward *forward = NULL;
	int maps[2], a, b;

	if (xsk_takes_several() < 0) {
		print_message("packets in several frames: not of this kernel\n");
		skip();
	}
	run("for d in fwa0 fwa1 fwb0 fwb1; do ip link set $d mtu 9000; done");
	a = far_end("fwa1");
	b = far_end("fwb1");
	for (int i = 0; i < 2; i++) {
		maps[i] = bpf_map_create(BPF_MAP_TYPE_XSKMAP, "socks", 4, 4, 4, NULL);
		assert_true(maps[i] >= 0);
	}
	steer(maps[0], "fwa0", 1, HD_FAST_META_STAMP, flags);
	steer(maps[1], "fwb0", 0, 0, flags);
	assert_int_equal(forward_create(&options, &forward, &failed), 0);
	for (uint32_t i = 0; i < 2; i++) {
		assert_int_equal(forward_socket(forward, i)->pieces, XSK_PIECES_MOST);
		assert_int_equal(bpf_map_update_elem(maps[i], &key, &forward_socket(forward, i)->fd, BPF_ANY), 0);
	}
	assert_int_equal(forward_start(forward), 0);
	pass_jumbo(a, b, 1300);
	pass_jumbo(b, a, 1300);
	forward_counters(forward, 0, &counters);
	assert_int_equal(counters.rx, 1300);
	assert_int_equal(counters.several, frame_size == 2048 ? 900 : 500);
	assert_int_equal(counters.tx, 1300);
	assert_int_equal(counters.too_big + counters.malformed + counters.tx_full, 0);
	/* more than the rings hold: some are lost, of none a part arrives, and no frame is lost with them */
	for (uint32_t round = 0; round < 20; round++) {
		static uint8_t frame[JUMBO + 14], got[2 * JUMBO];
		struct pollfd poll_fd = {.fd = b, .events = POLLIN};
		ssize_t n;

		for (uint32_t i = 0; i < 200; i++) {
			make_jumbo(frame, i, JUMBO + 14);
			(void)!write(a, frame, sizeof(frame));
		}
		while (poll(&poll_fd, 1, 100) == 1 && (n = recv(b, got, sizeof(got), MSG_DONTWAIT)) > 0) {
			uint32_t number;

			assert_int_equal(n, sizeof(frame));
			memcpy(&number, got + 14, sizeof(number));
			make_jumbo(frame, number, JUMBO + 14);
			assert_memory_equal(got, frame, sizeof(frame));
		}
	}
	pass_jumbo(a, b, 100);
	usleep(50000);
	forward_stop(forward);
	assert_in_range(forward_missing(forward), 0, 4);
	forward_free(forward);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(bpf_xdp_detach((int)lanes[i].ifindex, flags, NULL), 0);
		close(maps[i]);
	}
	close(a);
	close(b);
	run("for d in fwa0 fwa1 fwb0 fwb1; do ip link set $d mtu 1500; done");
}

static void test_jumbo(void **state)
{
	(void)state;
	jumbo(1, false, 4096);
}

static void test_jumbo_small_frames(void **state)
{
	(void)state;
	jumbo(1, false, 2048);
}

static void test_jumbo_two_workers(void **state)
{
	(void)state;
	jumbo(2, false, 4096);
}

static void test_jumbo_generic(void **state)
{
	(void)state;
	jumbo(1, true, 4096);
}

static void test_refused(void **state)
{
	struct forward_lane lane = {.ifindex = if_nametoindex("fwa0")};
	struct forward_options
		good = {.lanes = &lane, .n_lanes = 1, .workers = 1, .frame_size = 2048, .node = -1, .batch = 32, .ring = 64},
		options = good;
	struct forward *forward = NULL, *second = NULL;
	uint32_t failed = 99;

	(void)state;
	options.workers = 2; /* one has nothing to do */
	assert_int_equal(forward_create(&options, &forward, &failed), -EINVAL);
	options = good;
	options.batch = FORWARD_BATCH_MOST + 1;
	assert_int_equal(forward_create(&options, &forward, &failed), -EINVAL);
	options = good;
	options.ring = 100;
	assert_int_equal(forward_create(&options, &forward, &failed), -EINVAL);
	assert_int_equal(failed, 0);
	assert_int_equal(forward_create(&good, &forward, &failed), 0);
	assert_int_equal(forward_create(&good, &second, &failed), -EBUSY);
	assert_int_equal(failed, 0);
	assert_int_equal(forward_start(forward), 0);
	forward_free(forward);
	forward_free(NULL);
	lane.ifindex = 12345;
	assert_int_equal(forward_create(&good, &forward, &failed), -ENODEV);
}

static int set_up(void **state)
{
	(void)state;
	if (unshare(CLONE_NEWNET) < 0)
		return -1;
	run("ip link set lo up && ip link add fwa0 type veth peer name fwa1 && ip link add fwb0 type veth peer name fwb1");
	run("for d in fwa0 fwa1 fwb0 fwb1; do sysctl -qw net.ipv6.conf.$d.disable_ipv6=1; ip link set $d up; done");
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_handoff),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_one_worker),
		cmocka_unit_test(test_two_workers),
		cmocka_unit_test(test_generic),
		cmocka_unit_test(test_spinning),
		cmocka_unit_test(test_jumbo),
		cmocka_unit_test(test_jumbo_small_frames),
		cmocka_unit_test(test_jumbo_two_workers),
		cmocka_unit_test(test_jumbo_generic),
	};

	return cmocka_run_group_tests(tests, set_up, NULL);
}
