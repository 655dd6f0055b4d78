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

static bool goes_on(const struct xdp_desc *desc)
{
	return desc->options & XDP_PKT_CONTD;
}

/* Room for as many as are given, and whole packets of these: what was taken beyond is given back. */
static uint32_t reserve_packets(struct xsk_ring *tx, const struct xdp_desc *descs, uint32_t n, uint32_t *ret_index)
{
	uint32_t room = ring_reserve(tx, n, ret_index), whole = room;

	while (room < n && whole && goes_on(&descs[whole - 1]))
		whole--;
	ring_cancel(tx, room - whole);
	return whole;
}

static void flush(struct worker *worker, struct lane *lane)
{
	uint32_t index = 0, n, bytes = 0, packets = 0, lost = 0;

	reap(worker, lane);
	n = reserve_packets(&lane->xsk.tx, lane->out, lane->n_out, &index);
	for (uint32_t i = 0; i < n; i++) {
		*ring_descriptor(&lane->xsk.tx, index + i) = lane->out[i];
		bytes += lane->out[i].len;
		packets += !goes_on(&lane->out[i]);
	}
	if (n)
		ring_submit(&lane->xsk.tx);
	count(&lane->counters.tx, packets);
	count(&lane->counters.tx_bytes, bytes);
	if (n < lane->n_out) {
		for (uint32_t i = n; i < lane->n_out; i++) {
			lost += !goes_on(&lane->out[i]);
			frame_home(worker, lane->out[i].addr);
		}
		count(&lane->counters.tx_full, lost);
	}
	lane->n_out = 0;
	kick(worker, lane);
}

/* A packet of n frames. */
static void put_out(struct worker *worker, struct lane *lane, const struct xdp_desc *pieces, uint32_t n)
{
	if (lane->n_out + n > FORWARD_BATCH_MOST)
		flush(worker, lane);
	for (uint32_t i = 0; i < n; i++)
		lane->out[lane->n_out++] =
			(struct xdp_desc){.addr = pieces[i].addr, .len = pieces[i].len, .options = i + 1 < n ? XDP_PKT_CONTD : 0};
}

/* --- packets in several frames --- */

static void pieces_home(struct worker *worker, const struct xdp_desc *pieces, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		frame_home(worker, pieces[i].addr);
}

/* True: that was the last one, and the packet is whole, or lost (chain->lost) and its frames at home. chain_end() is due. */
static bool chain_add(struct worker *worker, struct chain *chain, const struct xdp_desc *desc)
{
	if (chain->n == XSK_PIECES_MOST) {
		pieces_home(worker, chain->piece, chain->n);
		chain->n = 0;
		chain->lost = true;
	}
	if (chain->lost)
		frame_home(worker, desc->addr);
	else
		chain->piece[chain->n++] = *desc;
	return !goes_on(desc);
}

static void chain_end(struct chain *chain)
{
	chain->n = 0;
	chain->lost = false;
}

static uint32_t length_of(const struct xdp_desc *pieces, uint32_t n)
{
	uint32_t length = 0;

	for (uint32_t i = 0; i < n; i++)
		length += pieces[i].len;
	return length;
}

/*
 * Its pieces are as long as it says. In zero-copy, until Linux 7.0, the kernel leaves out the end of a packet for which the ring has no more room, and nothing but
 * this tells that what comes next is another one.
 */
static bool belongs_together(const struct umem *umem, const struct xdp_desc *pieces, uint32_t n)
{
	const uint8_t *frame = umem_data(umem, pieces[0].addr);
	uint32_t length = length_of(pieces, n), stated;

	if (pieces[0].len < ETH_HLEN + 20)
		return false;
	if (frame[12] == 0x08 && frame[13] == 0x00)
		stated = (uint32_t)frame[16] << 8 | frame[17];
	else if (frame[12] == 0x86 && frame[13] == 0xdd)
		stated = 40 + ((uint32_t)frame[18] << 8 | frame[19]);
	else
		return true;
	return length == ETH_HLEN + stated;
}

/* --- in --- */

static inline void forward_packet(struct worker *worker, struct lane *from, const struct xdp_desc *pieces, uint32_t n,
	const struct hd_fast_meta *meta, uint32_t now)
{
	struct lane *to = meta->device < FORWARD_DEVICES ? worker->to[meta->device] : NULL;

	if (!to || n > to->xsk.pieces) {
		count(to ? &from->counters.too_big : &from->counters.no_device, 1);
		pieces_home(worker, pieces, n);
		return;
	}
	if (meta->flags & HD_FAST_META_STAMP) {
		uint32_t ns = now - meta->stamp, bucket = ns ? 32 - (uint32_t)__builtin_clz(ns) : 0;

		count(&from->counters.latency[bucket < FORWARD_LATENCIES ? bucket : FORWARD_LATENCIES - 1], 1);
	}
	if (to->worker == worker) {
		put_out(worker, to, pieces, n);
		return;
	}
	count(&from->counters.handed, 1);
	for (uint32_t i = 0; i < n; i++)
		(void)handoff_put(
			&to->worker->in[worker->number], &(struct handoff_item){.address = pieces[i].addr,
								 .length = pieces[i].len | (i + 1 < n ? HANDOFF_MORE : 0),
								 .lane = to->index});
}

/* In front of the frame, or of a port its first bytes. */
static const struct hd_fast_meta *meta_of(const struct lane *lane, const struct umem *umem, const struct xdp_desc *desc)
{
	const struct hd_fast_meta *frame = umem_data(umem, desc->addr);

	return lane->port ? frame : frame - 1;
}

/* What a workload sent, without what XDP put before it, and with its checksum. False: it has not come through our program. */
static bool take_front(struct lane *lane, const struct umem *umem, struct xdp_desc *pieces, uint32_t n)
{
	struct checksum_piece at[XSK_PIECES_MOST];

	if (pieces[0].len < sizeof(struct hd_fast_meta) + ETH_HLEN)
		return false;
	pieces[0].addr += sizeof(struct hd_fast_meta);
	pieces[0].len -= (uint32_t)sizeof(struct hd_fast_meta);
	for (uint32_t i = 0; i < n; i++)
		at[i] = (struct checksum_piece){.data = umem_data(umem, pieces[i].addr), .length = pieces[i].len};
	if (checksum_complete_pieces(at, n))
		count(&lane->counters.checksums, 1);
	return true;
}

/* A whole packet, of how many bytes for its receiver. */
static inline uint32_t take_packet(struct worker *worker, struct lane *lane, struct xdp_desc *pieces, uint32_t n, uint32_t *now)
{
	const struct umem *umem = &worker->forward->umem;
	const struct hd_fast_meta *meta = meta_of(lane, umem, &pieces[0]);

	/* one reading of the clock a batch: they came together */
	if (!*now && meta->flags & HD_FAST_META_STAMP)
		*now = now_ns();
	if ((lane->port && !take_front(lane, umem, pieces, n)) || (n > 1 && !belongs_together(umem, pieces, n))) {
		count(&lane->counters.malformed, 1);
		pieces_home(worker, pieces, n);
		return 0;
	}
	forward_packet(worker, lane, pieces, n, meta, *now);
	return n == 1 ? pieces[0].len : length_of(pieces, n);
}

/* True: that was the last one of its packet. */
static bool take_piece(struct worker *worker, struct lane *lane, const struct xdp_desc *desc, uint32_t *now, uint64_t *bytes)
{
	struct chain *chain = &lane->chain;

	if (!chain_add(worker, chain, desc))
		return false;
	count(&lane->counters.several, 1);
	if (chain->lost)
		count(&lane->counters.too_big, 1);
	else
		*bytes += take_packet(worker, lane, chain->piece, chain->n, now);
	chain_end(chain);
	return true;
}

static uint32_t receive(struct worker *worker, struct lane *lane)
{
	const struct umem *umem = &worker->forward->umem;
	uint32_t index = 0, n = ring_peek(&lane->xsk.rx, worker->forward->batch, &index), now = 0, packets = 0;
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

		if (i + AHEAD < n)
			__builtin_prefetch(meta_of(lane, umem, ring_descriptor(&lane->xsk.rx, index + i + AHEAD)));
		if (__builtin_expect(goes_on(&desc) || lane->chain.n || lane->chain.lost, 0)) {
			packets += take_piece(worker, lane, &desc, &now, &bytes);
			continue;
		}
		bytes += take_packet(worker, lane, &desc, 1, &now);
		packets++;
	}
	ring_release(&lane->xsk.rx);
	count(&lane->counters.rx, packets);
	count(&lane->counters.rx_bytes, bytes);
	return n;
}

/* All of a packet come one after the other, but not always before we look. */
static inline void put_handed(struct worker *worker, uint32_t from, const struct handoff_item *item)
{
	struct lane *lane = &worker->forward->lanes[item->lane];
	struct chain *chain = &worker->handed[from];
	const struct xdp_desc desc = {.addr = item->address,
		.len = item->length & ~HANDOFF_MORE,
		.options = item->length & HANDOFF_MORE ? XDP_PKT_CONTD : 0};

	if (!chain->n && !goes_on(&desc)) {
		put_out(worker, lane, &desc, 1);
	} else if (chain_add(worker, chain, &desc)) {
		put_out(worker, lane, chain->piece, chain->n);
		chain_end(chain);
	}
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
					put_handed(worker, i, &items[k]);
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
