// SPDX-License-Identifier: Apache-2.0
/*
 * Frames through a host that has two devices, A and B; a and b are the far ends of their veths.
 *
 *   forward workers  A B [BATCH [CPU]]   our AF_XDP workers, until standard input closes; for each byte there, prints {"received"} by A
 *   forward echo|drop A B [BATCH [CPU]]  the same, back by A or nowhere
 *   forward packet   A B [BATCH [CPU]]   the same with AF_PACKET: TPACKET_V3 in, a ring out
 *   forward redirect A B                 XDP_REDIRECT: the kernel alone
 *   forward rate     a b SECONDS [FRAME] 64-byte frames as fast as they go from a; prints {"sent", "received"} a second, at b
 *   forward latency  a b COUNT [FRAME]   one frame at a time; prints {"p50", "p99"} in us
 *   forward send     a SECONDS FRAME     the same frame over and over, as fast as it goes; prints {"sent"} a second and {"seconds"}
 *   forward count    b                   counts what comes in by b, and takes it away, until standard input closes; prints {"received"} for each byte
 *   forward handoff  SECONDS             the ring between two threads alone; prints {"per_second"}
 *
 * FRAME: its bytes in hexadecimal, for whoever looks at what he forwards. Objects are looked for beside the program.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <error.h>
#include <inttypes.h>
#include <linux/bpf.h>
#include <linux/if_link.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include <fastpath/forward.h>
#include <fastpath/handoff.h>
#include <heddle/steer.h>
#include <model/object.h>

#include "measure.h"

#ifndef BPF_F_TEST_XDP_LIVE_FRAMES
#define BPF_F_TEST_XDP_LIVE_FRAMES (1U << 1)
#endif
#define RING 2048
#define FRAME 60	/* bytes, without the FCS */
#define PROBE (1 << 16) /* frames of the first call, which tells how many a second go */

static uint32_t device(const char *name)
{
	uint32_t ifindex = if_nametoindex(name);

	if (!ifindex)
		error(1, errno, "%s", name);
	return ifindex;
}

static struct bpf_object *load(const char *self)
{
	struct bpf_object *object;
	char path[4096];

	snprintf(path, sizeof(path), "%s.bpf.o", self);
	object = bpf_object__open_file(path, NULL);
	if (!object || bpf_object__load(object))
		error(1, errno, "%s", path);
	return object;
}

static int program(struct bpf_object *object, const char *name)
{
	return bpf_program__fd(bpf_object__find_program_by_name(object, name));
}

static void attach(struct bpf_object *object, const char *name, const char *to)
{
	if (bpf_xdp_attach((int)device(to), program(object, name), XDP_FLAGS_DRV_MODE, NULL))
		error(1, errno, "XDP on %s", to);
}

static void ready(void)
{
	puts("ready");
	fflush(stdout);
}

static void until_closed(void)
{
	char byte;

	ready();
	while (read(STDIN_FILENO, &byte, 1) > 0)
		;
}

/* --- between the devices --- */

static void workers(struct bpf_object *object, const char *first, char *names[2], uint32_t batch, int cpu)
{
	struct forward_lane lanes[2] = {{.ifindex = device(names[0]), .device = 0}, {.ifindex = device(names[1]), .device = 1}};
	struct forward_options options = {.lanes = lanes,
		.n_lanes = 2,
		.workers = 1,
		.cpus = &cpu,
		.frame_size = 2048,
		.node = -1,
		.huge = true,
		.spin = true,
		.batch = batch,
		.ring = RING};
	int map = bpf_map__fd(bpf_object__find_map_by_name(object, "sockets")), r;
	struct forward_counters counters;
	struct forward *forward;
	uint32_t failed;
	char byte;

	r = forward_create(&options, &forward, &failed);
	if (r < 0)
		error(1, -r, "socket %u", failed);
	for (uint32_t i = 0; i < 2; i++) {
		uint32_t key = i * HD_FAST_QUEUES;

		if (bpf_map_update_elem(map, &key, &forward_socket(forward, i)->fd, BPF_ANY))
			error(1, errno, "XSKMAP");
	}
	attach(object, first, names[0]);
	attach(object, "second", names[1]);
	r = forward_start(forward);
	if (r < 0)
		error(1, -r, "threads");
	ready();
	while (read(STDIN_FILENO, &byte, 1) > 0) {
		forward_counters(forward, 0, &counters);
		printf("{\"received\": %" PRIu64 "}\n", counters.rx);
		fflush(stdout);
	}
	forward_free(forward);
}

static void redirect(struct bpf_object *object, char *names[2])
{
	int map = bpf_map__fd(bpf_object__find_map_by_name(object, "devices"));
	uint32_t key = 0, to = device(names[1]);

	if (bpf_map_update_elem(map, &key, &to, BPF_ANY))
		error(1, errno, "devmap");
	attach(object, "straight", names[0]);
	until_closed();
}

#define BLOCK (1u << 18)
#define BLOCKS 32
#define SLOT 2048
#define SLOTS 2048

static int packet_ring(const char *name, bool receive, void **ret)
{
	int version = receive ? TPACKET_V3 : TPACKET_V2, fd = socket(AF_PACKET, SOCK_RAW, 0), one = 1;
	struct sockaddr_ll address = {
		.sll_family = AF_PACKET, .sll_protocol = receive ? htons(ETH_P_ALL) : 0, .sll_ifindex = (int)device(name)};
	struct tpacket_req3 in = {.tp_block_size = BLOCK,
		.tp_block_nr = BLOCKS,
		.tp_frame_size = SLOT,
		.tp_frame_nr = BLOCK / SLOT * BLOCKS,
		.tp_retire_blk_tov = 1};
	struct tpacket_req out = {
		.tp_block_size = BLOCK, .tp_block_nr = SLOTS / (BLOCK / SLOT), .tp_frame_size = SLOT, .tp_frame_nr = SLOTS};

	if (fd < 0 || setsockopt(fd, SOL_PACKET, PACKET_VERSION, &version, sizeof(version)))
		error(1, errno, "AF_PACKET");
	if (!receive && setsockopt(fd, SOL_PACKET, PACKET_QDISC_BYPASS, &one, sizeof(one)))
		error(1, errno, "PACKET_QDISC_BYPASS");
	if (receive ? setsockopt(fd, SOL_PACKET, PACKET_RX_RING, &in, sizeof(in))
		    : setsockopt(fd, SOL_PACKET, PACKET_TX_RING, &out, sizeof(out)))
		error(1, errno, "ring of %s", name);
	*ret = mmap(NULL, receive ? (size_t)BLOCK * BLOCKS : (size_t)SLOT * SLOTS, PROT_READ | PROT_WRITE,
		MAP_SHARED | MAP_POPULATE, fd, 0);
	if (*ret == MAP_FAILED || bind(fd, (struct sockaddr *)&address, sizeof(address)))
		error(1, errno, "%s", name);
	return fd;
}

/* Spins, as the workers do. */
static void packet(char *names[2], uint32_t batch, int cpu)
{
	void *in, *out;
	int from = packet_ring(names[0], true, &in), to = packet_ring(names[1], false, &out);
	struct pollfd stop = {.fd = STDIN_FILENO, .events = POLLIN};
	uint32_t block = 0, slot = 0, pending = 0, idle = 0;

	(void)from;
	pin(cpu);
	ready();
	for (;;) {
		struct tpacket_block_desc *b = (void *)((char *)in + (size_t)block * BLOCK);
		struct tpacket3_hdr *h;

		if (!(__atomic_load_n(&b->hdr.bh1.block_status, __ATOMIC_ACQUIRE) & TP_STATUS_USER)) {
			if (++idle % 65536 == 0 && poll(&stop, 1, 0))
				return;
			continue;
		}
		h = (void *)((char *)b + b->hdr.bh1.offset_to_first_pkt);
		for (uint32_t i = 0; i < b->hdr.bh1.num_pkts; i++) {
			struct tpacket2_hdr *o = (void *)((char *)out + (size_t)slot * SLOT);

			if (__atomic_load_n(&o->tp_status, __ATOMIC_ACQUIRE) == TP_STATUS_AVAILABLE) {
				memcpy((char *)o + TPACKET2_HDRLEN - sizeof(struct sockaddr_ll), (char *)h + h->tp_mac,
					h->tp_snaplen);
				o->tp_len = h->tp_snaplen;
				__atomic_store_n(&o->tp_status, TP_STATUS_SEND_REQUEST, __ATOMIC_RELEASE);
				slot = (slot + 1) % SLOTS;
				if (++pending == batch) {
					(void)sendto(to, NULL, 0, MSG_DONTWAIT, NULL, 0);
					pending = 0;
				}
			}
			h = (void *)((char *)h + h->tp_next_offset);
		}
		if (pending)
			(void)sendto(to, NULL, 0, MSG_DONTWAIT, NULL, 0);
		pending = 0;
		__atomic_store_n(&b->hdr.bh1.block_status, TP_STATUS_KERNEL, __ATOMIC_RELEASE);
		block = (block + 1) % BLOCKS;
		if (poll(&stop, 1, 0))
			return;
	}
}

/* --- at the far ends --- */

static uint8_t plain[FRAME] = {2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x88, 0xb5};
static bool changes; /* whoever forwards it changes it */

static uint64_t received(struct bpf_object *object)
{
	int cpus = libbpf_num_possible_cpus();
	uint64_t values[cpus], all = 0;
	uint32_t key = 0;

	if (bpf_map_lookup_elem(bpf_map__fd(bpf_object__find_map_by_name(object, "sunk")), &key, values))
		error(1, errno, "sunk");
	for (int i = 0; i < cpus; i++)
		all += values[i];
	return all;
}

/*
 * From its far end, without a stack, for so long: how many a second; *ret_seconds: how long it was. The kernel takes tens of milliseconds to begin and end a call,
 * in which nothing is sent and a receiver on another CPU waits: so nearly all goes in one.
 */
static double send_frames(
	struct bpf_object *object, uint8_t *frame, uint32_t length, uint32_t from, double seconds, double *ret_seconds)
{
	struct xdp_md context = {.data_end = length, .ingress_ifindex = from};
	LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = frame, .data_size_in = length, .ctx_in = &context,
		.ctx_size_in = sizeof(context), .repeat = PROBE, .flags = BPF_F_TEST_XDP_LIVE_FRAMES, .batch_size = 64);
	int source = program(object, changes ? "again" : "back");
	uint64_t sent = 0;
	uint32_t zero = 0;
	double started;

	if (changes && bpf_map_update_elem(bpf_map__fd(bpf_object__find_map_by_name(object, "frames")), &zero, frame, BPF_ANY))
		error(1, errno, "frames");
	started = now();
	do {
		if (bpf_prog_test_run_opts(source, &options))
			error(1, errno, "live frames");
		sent += (uint64_t)options.repeat;
		*ret_seconds = now() - started;
		/* what is left of the time; the kernel's duration is ns a frame, without the beginning and the end */
		options.repeat = PROBE + (int)((seconds - *ret_seconds) * 1e9 / (options.duration ? options.duration : 1));
	} while (*ret_seconds < seconds);
	return (double)sent / *ret_seconds;
}

static void sink_at(struct bpf_object *object, const char *name, struct bpf_tc_hook *hook)
{
	LIBBPF_OPTS(bpf_tc_opts, sink, .prog_fd = program(object, "sink"));

	*hook = (struct bpf_tc_hook){.sz = sizeof(*hook), .ifindex = (int)device(name), .attach_point = BPF_TC_INGRESS};
	if (bpf_tc_hook_create(hook) || bpf_tc_attach(hook, &sink))
		error(1, errno, "sink at %s", name);
}

static void rate(struct bpf_object *object, char *names[2], double seconds)
{
	struct bpf_tc_hook hook;
	double took, sent;
	uint64_t before;

	pin(0);
	sink_at(object, names[1], &hook);
	before = received(object);
	sent = send_frames(object, plain, FRAME, device(names[0]), seconds, &took);
	printf("{\"sent\": %.0f, \"received\": %.0f}\n", sent, (double)(received(object) - before) / took);
	bpf_tc_hook_destroy(&hook);
}

/* One half of rate() each, for ends in namespaces of their own. */
static void send_one(struct bpf_object *object, const char *name, double seconds, const char *hex)
{
	uint32_t length = (uint32_t)strlen(hex) / 2;
	uint8_t frame[length ? length : 1];
	double took, sent;

	read_frame(hex, frame, length);
	pin(0);
	sent = send_frames(object, frame, length, device(name), seconds, &took);
	printf("{\"sent\": %.0f, \"seconds\": %.4f}\n", sent, took);
}

static void count(struct bpf_object *object, const char *name)
{
	struct bpf_tc_hook hook;
	char byte;

	sink_at(object, name, &hook);
	ready();
	while (read(STDIN_FILENO, &byte, 1) > 0) {
		printf("{\"received\": %" PRIu64 "}\n", received(object));
		fflush(stdout);
	}
	hook.attach_point |= BPF_TC_EGRESS; /* the qdisc, with both */
	bpf_tc_hook_destroy(&hook);
}

static int packet_socket(const char *name)
{
	uint16_t type = (uint16_t)(plain[12] | plain[13] << 8); /* in network byte order */
	struct sockaddr_ll address = {.sll_family = AF_PACKET, .sll_protocol = type, .sll_ifindex = (int)device(name)};
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, type);

	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)))
		error(1, errno, "%s", name);
	return fd;
}

/* Who receives spins: it shall be seen what is between the ends, not how one is woken up. */
static void latency(char *names[2], int n)
{
	uint8_t got[FRAME];
	int from = packet_socket(names[0]), to = packet_socket(names[1]), lost = 0, done = 0;
	double *us = calloc((size_t)n, sizeof(*us));

	pin(0);
	for (int i = 0; us && i < n; i++) {
		struct timespec pause = {.tv_nsec = 300000};
		double started;

		nanosleep(&pause, NULL);
		started = now();
		if (send(from, plain, FRAME, 0) != FRAME)
			error(1, errno, "%s", names[0]);
		while (recv(to, got, FRAME, MSG_DONTWAIT) != FRAME && now() - started < 0.1)
			;
		if (now() - started < 0.1)
			us[done++] = (now() - started) * 1e6;
		else
			lost++;
	}
	tell_latency(us, done, lost);
}

static void *take(void *argument)
{
	struct handoff *handoff = argument;
	struct handoff_item items[32];
	uint64_t next = 0;

	pin(1);
	for (;;) {
		uint32_t n = handoff_get(handoff, items, 32);

		for (uint32_t i = 0; i < n; i++)
			if (items[i].lane == HANDOFF_HOME)
				return NULL;
			else if (items[i].address != next++)
				error(1, 0, "an item is missing");
	}
}

static void handoff(double seconds)
{
	struct handoff_item end = {.lane = HANDOFF_HOME};
	struct handoff ring;
	pthread_t thread;
	uint64_t put = 0;
	double started;

	if (handoff_init(&ring, 4095) || pthread_create(&thread, NULL, take, &ring))
		error(1, errno, "thread");
	pin(0);
	started = now();
	while (now() - started < seconds)
		for (int batches = 0; batches < 1024; batches++)
			for (int i = 0; i < 32; i++) {
				while (!handoff_put(&ring, &(struct handoff_item){.address = put}))
					;
				put++;
			}
	while (!handoff_put(&ring, &end))
		;
	pthread_join(thread, NULL);
	printf("{\"per_second\": %.0f}\n", (double)put / (now() - started));
	handoff_destroy(&ring);
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	struct bpf_object *object;

	if (!strcmp(what, "handoff") && argc == 3) {
		handoff(atof(argv[2]));
		return 0;
	}
	if (argc < 4 && strcmp(what, "count") != 0)
		error(2, 0, "usage: see the head of forward.c");
	object = load(argv[0]);
	if (argc == 6 && (!strcmp(what, "rate") || !strcmp(what, "latency"))) {
		read_frame(argv[--argc], plain, FRAME);
		changes = true;
	}
	if (!strcmp(what, "send") && argc == 5)
		send_one(object, argv[2], atof(argv[3]), argv[4]);
	else if (!strcmp(what, "count") && argc == 3)
		count(object, argv[2]);
	else if (!strcmp(what, "workers") || !strcmp(what, "echo") || !strcmp(what, "drop"))
		workers(object, *what == 'w' ? "first" : what, argv + 2, argc > 4 ? (uint32_t)atoi(argv[4]) : FAST_PATH_BATCH,
			argc > 5 ? atoi(argv[5]) : 1);
	else if (!strcmp(what, "packet"))
		packet(argv + 2, argc > 4 ? (uint32_t)atoi(argv[4]) : 32, argc > 5 ? atoi(argv[5]) : 1);
	else if (!strcmp(what, "redirect"))
		redirect(object, argv + 2);
	else if (!strcmp(what, "rate") && argc == 5)
		rate(object, argv + 2, atof(argv[4]));
	else if (!strcmp(what, "latency") && argc == 5)
		latency(argv + 2, atoi(argv[4]));
	else
		error(2, 0, "usage: see the head of forward.c");
	bpf_object__close(object);
	return 0;
}
