/* SPDX-License-Identifier: Apache-2.0 */
/* The loop of a worker. Everything it touches is its own, but for the rings of the kernel and the handoffs. */
#include <errno.h>
#include <linux/if_ether.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>

#include <fastpath/checksum.h>
#include <fastpath/forward_internal.h>
#include <heddle/steer.h>

#define AHEAD 4		/* frames: what is fetched while others are handled */
#define ROUNDS_IDLE 512 /* without a frame, before it sleeps */
#define ROUNDS_LAST 64
#define ROUNDS_KICK 64 /* until a driver that sends by itself is told again */
#define RETRY 1	       /* ms; frames that the kernel did not take yet: its buffers are full, or the device is down */
#define SENDS_MOST 64 /* system calls for one batch; each takes 32 frames or so where the kernel copies, and is older than 6.17 */

static void count(uint64_t *counter, uint64_t n)
{
	__atomic_store_n(counter, *counter + n, __ATOMIC_RELAXED);
}

static uint32_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts); /* what bpf_ktime_get_ns() reads */
	return (uint32_t)((uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec);
}

/* --- frames --- */

static void frame_home(struct worker *worker, uint64_t address)
{
	uint64_t start = address & ~(uint64_t)(worker->forward->umem.frame_size - 1);
	uint32_t owner = worker->forward->n_workers > 1 ? (uint32_t)(start / worker->forward->bytes_each) : 0;

	/* of no frame: nobody but the kernel writes here, which gives back what it was given */
	if (owner >= worker->forward->n_workers)
		return;
	if (owner == worker->number)
		worker->free[worker->n_free++] = start;
	else
		(void)handoff_put(&worker->forward->workers[owner].in[worker->number],
			&(struct handoff_item){.address = start, .lane = HANDOFF_HOME});
}

static void refill(struct worker *worker, struct lane *lane)
{
	uint32_t index, n = worker->n_free < lane->xsk.sizes.fill ? worker->n_free : lane->xsk.sizes.fill;

	/* some stay for the other lanes */
	if (worker->n_lanes > 1 && n > worker->n_free / worker->n_lanes + worker->forward->batch)
		n = worker->n_free / worker->n_lanes + worker->forward->batch;
	n = ring_reserve(&lane->xsk.fill, n, &index);
	if (n == 0)
		return;
	for (uint32_t i = 0; i < n; i++)
		*ring_address(&lane->xsk.fill, index + i) = worker->free[--worker->n_free];
	ring_submit(&lane->xsk.fill);
}

void worker_refill(struct worker *worker)
{
	for (uint32_t i = 0; i < worker->n_lanes; i++)
		refill(worker, worker->lanes[i]);
}

static void reap(struct worker *worker, struct lane *lane)
{
	uint32_t index, n = ring_peek(&lane->xsk.completion, lane->xsk.sizes.completion, &index);

	if (n == 0)
		return;
	for (uint32_t i = 0; i < n; i++)
		frame_home(worker, *ring_address(&lane->xsk.completion, index + i));
	ring_release(&lane->xsk.completion);
}

/* --- out --- */

/* In copy mode the kernel sends as part of the call, a few frames each; -EAGAIN says that there are more. */
static void kick(struct worker *worker, struct lane *lane)
{
	if (!ring_needs_wakeup(&lane->xsk.tx))
		return;
	for (int i = 0; i < SENDS_MOST; i++) {
		count(&lane->counters.wakeups, 1);
		if (sendto(lane->xsk.fd, NULL, 0, MSG_DONTWAIT, NULL, 0) >= 0 || errno != EAGAIN)
			return;
		reap(worker, lane);
		if (ring_pending(&lane->xsk.tx) == 0)
			return;
	}
}

static void flush(struct worker *worker, struct lane *lane)
{
	uint32_t index = 0, n, bytes = 0;

	reap(worker, lane);
	n = ring_reserve(&lane->xsk.tx, lane->n_out, &index);
	for (uint32_t i = 0; i < n; i++) {
		*ring_descriptor(&lane->xsk.tx, index + i) = lane->out[i];
		bytes += lane->out[i].len;
	}
	if (n)
		ring_submit(&lane->xsk.tx);
	count(&lane->counters.tx, n);
	count(&lane->counters.tx_bytes, bytes);
	if (n < lane->n_out) {
		count(&lane->counters.tx_full, lane->n_out - n);
		for (uint32_t i = n; i < lane->n_out; i++)
			frame_home(worker, lane->out[i].addr);
	}
	lane->n_out = 0;
	kick(worker, lane);
}

static void put_out(struct worker *worker, struct lane *lane, struct xdp_desc desc)
{
	if (lane->n_out == FORWARD_BATCH_MOST)
		flush(worker, lane);
	lane->out[lane->n_out++] = desc;
}

/* --- in --- */

static void forward_frame(
	struct worker *worker, struct lane *from, const struct xdp_desc *desc, const struct hd_fast_meta *meta, uint32_t now)
{
	struct lane *to = meta->device < FORWARD_DEVICES ? worker->to[meta->device] : NULL;

	if (!to) {
		count(&from->counters.no_device, 1);
		frame_home(worker, desc->addr);
		return;
	}
	if (meta->flags & HD_FAST_META_STAMP) {
		uint32_t ns = now - meta->stamp, bucket = ns ? 32 - (uint32_t)__builtin_clz(ns) : 0;

		count(&from->counters.latency[bucket < FORWARD_LATENCIES ? bucket : FORWARD_LATENCIES - 1], 1);
	}
	if (to->worker == worker) {
		put_out(worker, to, (struct xdp_desc){.addr = desc->addr, .len = desc->len});
		return;
	}
	count(&from->counters.handed, 1);
	(void)handoff_put(&to->worker->in[worker->number],
		&(struct handoff_item){.address = desc->addr, .length = desc->len, .lane = to->index});
}

/* In front of the frame, or of a port its first bytes. */
static const struct hd_fast_meta *meta_of(const struct lane *lane, const struct umem *umem, const struct xdp_desc *desc)
{
	const struct hd_fast_meta *frame = umem_data(umem, desc->addr);

	return lane->port ? frame : frame - 1;
}

/* What a workload sent, without what XDP put before it. False: it has not come through our program. */
static bool take_frame(struct lane *lane, const struct umem *umem, struct xdp_desc *desc)
{
	if (desc->len < sizeof(struct hd_fast_meta) + ETH_HLEN) {
		count(&lane->counters.malformed, 1);
		return false;
	}
	desc->addr += sizeof(struct hd_fast_meta);
	desc->len -= (uint32_t)sizeof(struct hd_fast_meta);
	if (checksum_complete(umem_data(umem, desc->addr), desc->len))
		count(&lane->counters.checksums, 1);
	return true;
}

static uint32_t receive(struct worker *worker, struct lane *lane)
{
	const struct umem *umem = &worker->forward->umem;
	uint32_t index = 0, n = ring_peek(&lane->xsk.rx, worker->forward->batch, &index), now = 0;
	uint64_t bytes = 0;

	if (n == 0) {
		if (ring_needs_wakeup(&lane->xsk.fill) || worker->forward->busy) {
			count(&lane->counters.wakeups, 1);
			xsk_wake_rx(&lane->xsk);
		}
		return 0;
	}
	for (uint32_t i = 0; i < n && i < AHEAD; i++)
		__builtin_prefetch(meta_of(lane, umem, ring_descriptor(&lane->xsk.rx, index + i)));
	for (uint32_t i = 0; i < n; i++) {
		struct xdp_desc desc = *ring_descriptor(&lane->xsk.rx, index + i);
		const struct hd_fast_meta *meta = meta_of(lane, umem, &desc);

		if (i + AHEAD < n)
			__builtin_prefetch(meta_of(lane, umem, ring_descriptor(&lane->xsk.rx, index + i + AHEAD)));
		/* one reading of the clock a batch: they came together */
		if (!now && meta->flags & HD_FAST_META_STAMP)
			now = now_ns();
		if (lane->port && !take_frame(lane, umem, &desc)) {
			frame_home(worker, desc.addr);
			continue;
		}
		bytes += desc.len;
		forward_frame(worker, lane, &desc, meta, now);
	}
	ring_release(&lane->xsk.rx);
	count(&lane->counters.rx, n);
	count(&lane->counters.rx_bytes, bytes);
	return n;
}

static uint32_t take_handed(struct worker *worker)
{
	struct handoff_item items[64];
	uint32_t n, all = 0;

	for (uint32_t i = 0; i < worker->forward->n_workers; i++) {
		if (i == worker->number)
			continue;
		while ((n = handoff_get(&worker->in[i], items, sizeof(items) / sizeof(*items))) > 0) {
			for (uint32_t k = 0; k < n; k++) {
				if (items[k].lane == HANDOFF_HOME)
					worker->free[worker->n_free++] = items[k].address;
				else
					put_out(worker, &worker->forward->lanes[items[k].lane],
						(struct xdp_desc){.addr = items[k].address, .len = items[k].length});
			}
			all += n;
		}
	}
	return all;
}

static void wake_others(struct worker *worker)
{
	for (uint32_t i = 0; i < worker->forward->n_workers; i++) {
		struct worker *other = &worker->forward->workers[i];

		if (i == worker->number || handoff_empty(&other->in[worker->number]))
			continue;
		__atomic_thread_fence(__ATOMIC_SEQ_CST); /* after what was put, before the look: as in rest() */
		if (__atomic_load_n(&other->sleeping, __ATOMIC_RELAXED))
			worker_wake(other);
	}
}

/* One round over everything that a worker has: how many frames moved. */
static uint32_t worker_round(struct worker *worker)
{
	uint32_t moved = 0;

	/* the kernel gets new frames before those that came go on: who waits for them may send the next ones at once */
	for (uint32_t i = 0; i < worker->n_lanes; i++) {
		moved += receive(worker, worker->lanes[i]);
		refill(worker, worker->lanes[i]);
	}
	if (worker->forward->n_workers > 1)
		moved += take_handed(worker);
	for (uint32_t i = 0; i < worker->n_lanes; i++) {
		struct lane *lane = worker->lanes[i];

		uint32_t pending = ring_pending(&lane->xsk.tx);

		/* in zero-copy telling is all there is to it, and it takes the driver a while; a call each round would only keep it from its work */
		if (!lane->n_out && pending && lane->xsk.mode == XSK_ZERO_COPY && ++lane->waits % ROUNDS_KICK)
			continue;
		if (lane->n_out || pending) {
			moved += lane->n_out;
			flush(worker, lane);
			moved += ring_pending(&lane->xsk.tx) < pending;
		}
	}
	for (uint32_t i = 0; i < worker->n_lanes; i++)
		reap(worker, worker->lanes[i]);
	if (worker->forward->n_workers > 1)
		wake_others(worker);
	return moved;
}

/* --- the thread --- */

void worker_wake(struct worker *worker)
{
	(void)eventfd_write(worker->wake_fd, 1);
}

/* Until something comes in, is handed over, or it shall stop. Who hands something over looks whether we sleep, after that; we look after we said so. */
static void rest(struct worker *worker, struct pollfd *fds)
{
	bool found = false, unsent = false;
	eventfd_t value;

	__atomic_store_n(&worker->sleeping, true, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	for (uint32_t i = 0; i < worker->forward->n_workers; i++)
		found |= i != worker->number && !handoff_empty(&worker->in[i]);
	for (uint32_t i = 0; i < worker->n_lanes; i++)
		unsent |= ring_pending(&worker->lanes[i]->xsk.tx) > 0;
	if (!found && !__atomic_load_n(&worker->stop, __ATOMIC_SEQ_CST)) {
		count(&worker->lanes[0]->counters.sleeps, 1);
		(void)poll(fds, worker->n_lanes + 1, unsent ? RETRY : -1);
	}
	__atomic_store_n(&worker->sleeping, false, __ATOMIC_RELAXED);
	(void)eventfd_read(worker->wake_fd, &value);
}

void *worker_main(void *argument)
{
	struct worker *worker = argument;
	struct pollfd fds[FORWARD_LANES + 1];
	uint32_t idle = 0;
	cpu_set_t cpus;

	pthread_setname_np(pthread_self(), "heddle-forward");
	if (worker->cpu >= 0 && worker->cpu < CPU_SETSIZE) {
		CPU_ZERO(&cpus);
		CPU_SET(worker->cpu, &cpus);
		(void)pthread_setaffinity_np(pthread_self(), sizeof(cpus), &cpus); /* a wish */
	}
	for (uint32_t i = 0; i < worker->n_lanes; i++)
		fds[i] = (struct pollfd){.fd = worker->lanes[i]->xsk.fd, .events = POLLIN};
	fds[worker->n_lanes] = (struct pollfd){.fd = worker->wake_fd, .events = POLLIN};
	while (!__atomic_load_n(&worker->stop, __ATOMIC_RELAXED)) {
		if (worker_round(worker) > 0 || worker->forward->spin)
			idle = 0;
		else if (++idle >= ROUNDS_IDLE)
			rest(worker, fds);
	}
	/* what has come goes out yet */
	for (int i = 0; i < ROUNDS_LAST && worker_round(worker) > 0; i++)
		;
	return NULL;
}
