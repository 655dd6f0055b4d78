/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Workers that move frames from device to device through AF_XDP sockets. Where a frame goes, the XDP program has written in front of it
 * (heddle/steer.h): a worker judges nothing. What it does change is the checksum that a workload has left to its device, by which the frame does not leave
 * (checksum.h). Each queue of a device is a lane, and each lane belongs to one worker, a thread.
 *
 * All lanes share one memory, so that a frame is received and sent without a copy of ours; a frame whose device another worker has is handed to that
 * one, and comes home when it was sent.
 *
 * A packet is in one frame, the longest FORWARD_FRAME_MOST(), unless `several` was asked for: then in up to XSK_PIECES_MOST of them, which stay together: they
 * are handed over and sent all of them or none, with nothing between them.
 */
#ifndef HEDDLE_FASTPATH_FORWARD_H
#define HEDDLE_FASTPATH_FORWARD_H

#include <fastpath/xsk.h>

#define FORWARD_WORKERS 16
#define FORWARD_LANES 256
#define FORWARD_DEVICES 64
#define FORWARD_BATCH_MOST 256
#define FORWARD_FRAME_MOST(frame_size) XSK_FRAME_MOST(frame_size)
#define FORWARD_LATENCIES 32 /* bucket n: less than 2^n ns */

struct forward_lane {
	uint32_t ifindex, queue;
	uint32_t device; /* its number in what XDP writes, below FORWARD_DEVICES; the same for all queues of a device */
	uint32_t worker;
	bool port;	       /* of a workload: what XDP writes is the first bytes of each frame, and checksums may be missing */
	bool generic;	       /* as in struct xsk_binding */
	const char *copy_only; /* likewise */
	uint32_t zero_copy_pieces; /* likewise */
};

struct forward_options {
	const struct forward_lane *lanes;
	uint32_t n_lanes;
	uint32_t workers;
	const int *cpus;     /* of each worker; -1: any. NULL: any for all */
	uint32_t frame_size; /* as umem_create(); small ones stay in the caches */
	int node;	     /* NUMA node of the memory; -1: any */
	bool huge;	     /* pages, where there are some */
	bool several;	     /* packets may be in several frames: xsk_takes_several() */
	bool spin;	     /* never sleep; else a worker that finds nothing for a while waits in poll() */
	uint32_t batch;	     /* frames at once, 1 to FORWARD_BATCH_MOST */
	uint32_t ring;	     /* entries of each ring; a power of two */
	struct xsk_busy_poll busy;
};

struct forward_counters {
	uint64_t rx, rx_bytes, tx, tx_bytes; /* packets, in however many frames */
	uint64_t several;		     /* of rx: in more than one */
	uint64_t no_device;		     /* came in with a device that there is no lane for */
	uint64_t too_big;   /* came in in more frames than a packet can have, or than its device's socket takes */
	uint64_t tx_full;   /* its ring had no room */
	uint64_t checksums; /* that the sender had left to hardware: completed */
	uint64_t
		malformed; /* came in without what XDP writes, or were too short for it, or in pieces that do not belong together */
	uint64_t handed;   /* received here, sent by another worker */
	uint64_t wakeups; /* system calls to get the kernel going, */
	uint64_t sleeps;  /* and the worker's own waits (counted at its first lane) */
	uint64_t latency
		[FORWARD_LATENCIES]; /* from the XDP program to the ring of the device it leaves by, where that was asked for */
};

struct forward;

/*
 * Makes memory and sockets and binds them; no frame moves yet. On an error *ret_lane is the lane that failed, or n_lanes: -EINVAL: options out of
 * range; -EBUSY: another program has the queue; -ENOMEM, -EPERM.
 */
int forward_create(const struct forward_options *options, struct forward **ret, uint32_t *ret_lane);
/* Starts the threads; their signals are blocked. */
int forward_start(struct forward *forward);
/* Ends them; the sockets stay, and fill up. May be started again. */
void forward_stop(struct forward *forward);
/* Stops, closes and frees everything; NULL: nothing. */
void forward_free(struct forward *forward);

/* Frames that are neither at hand nor in a ring: the kernel is at work on them, or they are lost. After forward_stop(). */
uint32_t forward_missing(const struct forward *forward);

uint32_t forward_workers(const struct forward *forward);
bool forward_huge(const struct forward *forward);				/* its memory is of huge pages */
const struct xsk *forward_socket(const struct forward *forward, uint32_t lane); /* for the XSKMAP, and how it is bound */
/* May be called at any time, from another thread. */
void forward_counters(const struct forward *forward, uint32_t lane, struct forward_counters *ret);

#endif
