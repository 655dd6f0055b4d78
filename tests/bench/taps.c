// SPDX-License-Identifier: Apache-2.0
/*
 * Two machines as their host sees them: taps with virtio-net headers, held by this process.
 *
 *   taps A B FRAME ANSWER       makes the taps A and B, prints "ready", and does what lines of standard input ask for:
 *     rate SECONDS              writes FRAME (hexadecimal) to A as fast as it goes; prints {"sent", "received"} a second, at B
 *     latency COUNT             one FRAME at a time, for which B writes ANSWER; prints {"p50", "p99"} of the way to and fro, in us, and {"lost"}
 *
 * A's thread runs on CPU 0, B's on CPU 1; both sleep while they wait, as those of a VMM do.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <error.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "measure.h"

#define HEADER 10 /* struct virtio_net_hdr: all zero, nothing is left to the host */
#define LONGEST 2048
#define ETHERTYPE 12

struct frame {
	uint8_t data[HEADER + LONGEST];
	size_t length;
};

static struct frame frame, answer;
static int taps[2];
static uint64_t taken;
static bool answers;

static int open_tap(const char *name)
{
	struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
	int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);

	strncpy(request.ifr_name, name, IFNAMSIZ - 1);
	if (fd < 0 || ioctl(fd, TUNSETIFF, &request))
		error(1, errno, "%s", name);
	return fd;
}

static void parse(const char *hex, struct frame *ret)
{
	size_t length = strlen(hex) / 2;

	if (length > LONGEST)
		error(2, 0, "a frame has %d bytes at most", LONGEST);
	read_frame(hex, ret->data + HEADER, length);
	ret->length = HEADER + length;
}

/* Another's are neighbour discovery and the like. */
static bool is_like(const uint8_t *got, ssize_t length, const struct frame *wanted)
{
	return length >= HEADER + ETHERTYPE + 2 && !memcmp(got + HEADER + ETHERTYPE, wanted->data + HEADER + ETHERTYPE, 2);
}

static void *take(void *argument)
{
	struct pollfd poll_fd = {.fd = taps[1], .events = POLLIN};
	uint8_t got[HEADER + LONGEST];
	ssize_t length;

	(void)argument;
	pin(1);
	for (;;) {
		(void)poll(&poll_fd, 1, -1);
		while ((length = read(taps[1], got, sizeof(got))) > 0) {
			if (!is_like(got, length, &frame))
				continue;
			__atomic_add_fetch(&taken, 1, __ATOMIC_RELAXED);
			if (__atomic_load_n(&answers, __ATOMIC_RELAXED) && write(taps[1], answer.data, answer.length) < 0)
				perror("answer");
		}
	}
	return NULL;
}

static uint64_t taken_so_far(void)
{
	return __atomic_load_n(&taken, __ATOMIC_RELAXED);
}

static void rate(double seconds)
{
	uint64_t sent = 0, before = taken_so_far();
	double started = now(), took;

	do
		for (int i = 0; i < 64; i++)
			sent += write(taps[0], frame.data, frame.length) == (ssize_t)frame.length;
	while (now() - started < seconds);
	took = now() - started;
	usleep(20000);
	printf("{\"sent\": %.0f, \"received\": %.0f}\n", (double)sent / took, (double)(taken_so_far() - before) / took);
	fflush(stdout);
}

static void latency(int n)
{
	struct pollfd poll_fd = {.fd = taps[0], .events = POLLIN};
	double *us = calloc((size_t)n + 1, sizeof(*us));
	uint8_t got[HEADER + LONGEST];
	int done = 0, lost = 0;

	while (read(taps[0], got, sizeof(got)) > 0)
		;
	__atomic_store_n(&answers, true, __ATOMIC_RELAXED);
	for (int i = 0; us && i < n; i++) {
		double started = now();
		bool there = false;

		if (write(taps[0], frame.data, frame.length) < 0)
			error(1, errno, "write");
		while (!there && now() - started < 0.1) {
			(void)poll(&poll_fd, 1, 100);
			there = is_like(got, read(taps[0], got, sizeof(got)), &answer);
		}
		if (there)
			us[done++] = (now() - started) * 1e6;
		else
			lost++;
	}
	__atomic_store_n(&answers, false, __ATOMIC_RELAXED);
	tell_latency(us, done, lost);
}

int main(int argc, char **argv)
{
	pthread_t thread;
	char line[64];

	if (argc != 5)
		error(2, 0, "usage: taps A B FRAME ANSWER");
	for (int i = 0; i < 2; i++)
		taps[i] = open_tap(argv[1 + i]);
	parse(argv[3], &frame);
	parse(argv[4], &answer);
	if (pthread_create(&thread, NULL, take, NULL))
		error(1, errno, "thread");
	pin(0);
	puts("ready");
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin)) {
		if (!strncmp(line, "rate ", 5))
			rate(atof(line + 5));
		else if (!strncmp(line, "latency ", 8))
			latency(atoi(line + 8));
		else
			error(2, 0, "%s: want rate or latency", line);
	}
	return 0;
}
