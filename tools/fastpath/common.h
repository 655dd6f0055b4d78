/* SPDX-License-Identifier: Apache-2.0 */
/* What the example consumers share: one opens, one waits, one says what it has. */
#ifndef FASTPATH_COMMON_H
#define FASTPATH_COMMON_H

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include <heddle/fastpath.h>

#define BATCH 64

static volatile sig_atomic_t ended;

static void on_signal(int number)
{
	(void)number;
	ended = 1;
}

static void until_signal(void)
{
	struct sigaction action = {.sa_handler = on_signal};

	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
}

static const char *mode_name(uint32_t mode)
{
	return mode == HEDDLE_FASTPATH_ZERO_COPY ? "zero-copy" : mode == HEDDLE_FASTPATH_COPY ? "copy" : "generic";
}

static struct heddle_fastpath *open_fastpath(const char *directory, const char *name, uint32_t options)
{
	struct heddle_fastpath *fastpath = NULL;
	struct heddle_fastpath_info info;
	int r = heddle_fastpath_open_with(directory, name, options, &fastpath);

	if (r < 0) {
		fprintf(stderr, "cannot open the fast path %s: %s%s%s\n", name, strerror(-r),
			*heddle_fastpath_refusal() ? ": " : "", heddle_fastpath_refusal());
		return NULL;
	}
	heddle_fastpath_get_info(fastpath, &info);
	printf("%s: %" PRIu32 " frames", name, info.frames);
	for (uint32_t i = 0; i < info.queues; i++) {
		struct heddle_fastpath_queue queue;

		if (heddle_fastpath_get_queue(fastpath, i, &queue) == 0)
			printf(", queue %" PRIu32 " %s", queue.queue, mode_name(queue.mode));
	}
	if (heddle_fastpath_pieces(fastpath) > 1)
		printf(", up to %" PRIu32 " a packet", heddle_fastpath_pieces(fastpath));
	printf("%s\n", info.transmits ? "" : ", receives only");
	fflush(stdout);
	return fastpath;
}

static void print_statistics(const char *name, struct heddle_fastpath *fastpath)
{
	struct heddle_fastpath_info info;

	heddle_fastpath_get_info(fastpath, &info);
	for (uint32_t i = 0; i < info.queues; i++) {
		struct heddle_fastpath_statistics s;

		if (heddle_fastpath_get_statistics(fastpath, i, &s) == 0)
			printf("%s %" PRIu32 ": received %" PRIu64 " transmitted %" PRIu64 " wakeups %" PRIu64 " dropped %" PRIu64
			       " ring-full %" PRIu64 " fill-empty %" PRIu64 " invalid %" PRIu64 "\n",
				name, i, s.received, s.transmitted, s.wakeups, s.rx_dropped, s.rx_ring_full, s.fill_ring_empty,
				s.tx_invalid);
	}
}

/* How many of these are the first packet. */
static uint32_t frames_of_packet(const struct heddle_fastpath_frame *frames)
{
	uint32_t n = 1;

	while (heddle_fastpath_more(&frames[n - 1]))
		n++;
	return n;
}

/* Everything is sent, or goes back: a full ring is a loss like any other. */
static int send_or_release(struct heddle_fastpath *fastpath, struct heddle_fastpath_frame *frames, uint32_t n)
{
	int sent = n ? heddle_fastpath_transmit(fastpath, frames, n) : 0;

	if (sent < 0 && sent != -EPERM)
		return sent;
	if (sent < 0)
		sent = 0;
	return heddle_fastpath_release(fastpath, frames + sent, n - (uint32_t)sent);
}

#endif
