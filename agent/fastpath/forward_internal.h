/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HEDDLE_FASTPATH_FORWARD_INTERNAL_H
#define HEDDLE_FASTPATH_FORWARD_INTERNAL_H

#include <pthread.h>

#include <fastpath/forward.h>
#include <fastpath/handoff.h>

#define CACHE_LINE 64

struct worker;

/* A packet's frames, as they come: it goes on when the last one is there. */
struct chain {
	uint32_t n;
	bool lost; /* there were too many: those that are still to come go, too */
	struct xdp_desc piece[XSK_PIECES_MOST];
};

struct lane {
	struct xsk xsk;
	uint32_t device, index;
	struct worker *worker;
	bool port;
	uint32_t waits;	    /* rounds with nothing new to send, while the driver has not sent all that it was told of */
	struct chain chain; /* of what comes in */
	uint32_t n_out;
	struct xdp_desc out[FORWARD_BATCH_MOST]; /* to be sent at the end of this round */
	struct forward_counters counters;	 /* written by its worker alone */
} __attribute__((aligned(CACHE_LINE)));

struct worker {
	struct forward *forward;
	uint32_t number;
	int cpu;
	pthread_t thread;
	bool running;

	struct lane **lanes;
	uint32_t n_lanes;
	struct lane *to[FORWARD_DEVICES]; /* what sends for a device: a lane of its own, where it has one */
	uint64_t *free;			  /* frames at hand */
	uint32_t n_free;
	struct handoff *in;   /* one from each worker, */
	struct chain *handed; /* and what of a packet has come of it */

	int wake_fd;
	bool sleeping, stop; /* atomic */
} __attribute__((aligned(CACHE_LINE)));

struct forward {
	struct umem umem;
	struct lane *lanes;
	struct worker *workers;
	struct lane **lane_list; /* of all workers, one after the other */
	uint32_t n_lanes, n_workers, batch, frames_each;
	uint64_t bytes_each; /* of the memory: a worker's frames */
	bool spin, busy;
};

/* Frames for the kernel to receive into, as far as there are some. */
void worker_refill(struct worker *worker);
void *worker_main(void *argument); /* a struct worker */
/* Wakes one that sleeps, or is about to. */
void worker_wake(struct worker *worker);

#endif
