/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include <fastpath/forward_internal.h>
#include <util/cleanup.h>

static bool options_ok(const struct forward_options *options)
{
	uint32_t busy = 0; /* workers with a lane */

	if (options->n_lanes < 1 || options->n_lanes > FORWARD_LANES || options->workers < 1 ||
		options->workers > FORWARD_WORKERS || options->batch < 1 || options->batch > FORWARD_BATCH_MOST ||
		options->ring < options->batch)
		return false;
	for (uint32_t i = 0; i < options->n_lanes; i++) {
		if (options->lanes[i].device >= FORWARD_DEVICES || options->lanes[i].worker >= options->workers)
			return false;
		busy |= 1u << options->lanes[i].worker;
	}
	return busy == (1u << options->workers) - 1;
}

static int create_lane(struct forward *forward, const struct forward_options *options, uint32_t i)
{
	const struct forward_lane *wanted = &options->lanes[i];
	struct xsk_sizes sizes = {.rx = options->ring, .tx = options->ring, .fill = options->ring, .completion = options->ring};
	struct xsk_binding binding = {
		.ifindex = wanted->ifindex,
		.queue = wanted->queue,
		.generic = wanted->generic,
		.copy_only = wanted->copy_only,
		.several = options->several,
		.zero_copy_pieces = wanted->zero_copy_pieces,
	};
	struct lane *lane = &forward->lanes[i];
	int r;

	lane->device = wanted->device;
	lane->port = wanted->port;
	lane->worker = &forward->workers[wanted->worker];
	r = xsk_create(&forward->umem, &sizes, &lane->xsk);
	if (r >= 0)
		r = xsk_map(&lane->xsk);
	if (r >= 0)
		r = xsk_bind(&lane->xsk, &binding);
	if (r >= 0 && options->busy.us)
		r = xsk_busy_poll(&lane->xsk, &options->busy);
	if (r >= 0)
		(void)xsk_send_at_once(&lane->xsk, options->batch); /* else it takes more calls */
	return r;
}

/* Its lanes, what it sends by, and its share of the frames. */
static int create_worker(struct forward *forward, const struct forward_options *options, uint32_t number, struct lane **list)
{
	struct worker *worker = &forward->workers[number];
	int r;

	*worker = (struct worker){
		.forward = forward, .number = number, .cpu = options->cpus ? options->cpus[number] : -1, .lanes = list};
	worker->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (worker->wake_fd < 0)
		return -errno;
	for (uint32_t i = 0; i < forward->n_lanes; i++) {
		struct lane *lane = &forward->lanes[i];

		if (options->lanes[i].worker == number)
			worker->lanes[worker->n_lanes++] = lane;
		if (!worker->to[options->lanes[i].device] || options->lanes[i].worker == number)
			worker->to[options->lanes[i].device] = lane;
	}
	worker->free = calloc(forward->frames_each, sizeof(*worker->free));
	worker->in = calloc(forward->n_workers, sizeof(*worker->in));
	worker->handed = calloc(forward->n_workers, sizeof(*worker->handed));
	if (!worker->free || !worker->in || !worker->handed)
		return -ENOMEM;
	for (uint32_t i = 0; i < forward->frames_each; i++)
		worker->free[worker->n_free++] = ((uint64_t)number * forward->frames_each + i) * options->frame_size;
	for (uint32_t i = 0; i < forward->n_workers; i++) {
		r = i == number ? 0 : handoff_init(&worker->in[i], forward->frames_each * forward->n_workers);
		if (r < 0)
			return r;
	}
	worker_refill(worker);
	return 0;
}

int forward_create(const struct forward_options *options, struct forward **ret, uint32_t *ret_lane)
{
	uint32_t most = 0, lane = 0;
	struct forward *forward;
	int r = 0;

	*ret_lane = options->n_lanes;
	if (!options_ok(options))
		return -EINVAL;
	forward = calloc(1, sizeof(*forward));
	if (!forward)
		return -ENOMEM;
	forward->umem = UMEM_NONE;
	forward->n_lanes = options->n_lanes;
	forward->n_workers = options->workers;
	forward->batch = options->batch;
	forward->spin = options->spin;
	forward->busy = options->busy.us > 0;
	for (uint32_t number = 0; number < options->workers; number++) {
		uint32_t n = 0;

		for (uint32_t i = 0; i < options->n_lanes; i++)
			n += options->lanes[i].worker == number;
		most = n > most ? n : most;
	}
	/* all that its rings can hold on the way in, as much on the way out, a batch in hand, and what waits for the rest of its packet */
	forward->frames_each = most * (2 * options->ring + options->batch + (options->several ? XSK_PIECES_MOST : 0));
	forward->bytes_each = (uint64_t)forward->frames_each * options->frame_size;
	forward->lanes = aligned_alloc(CACHE_LINE, options->n_lanes * sizeof(*forward->lanes));
	forward->workers = aligned_alloc(CACHE_LINE, options->workers * sizeof(*forward->workers));
	/* neither is 0: options_ok(). NOLINTNEXTLINE(clang-analyzer-optin.portability.UnixAPI) */
	forward->lane_list = calloc(options->n_lanes, options->workers * sizeof(struct lane *));
	if (!forward->lanes || !forward->workers || !forward->lane_list)
		r = -ENOMEM;
	/* what forward_free() may look at, whatever fails from here on */
	for (uint32_t i = 0; r >= 0 && i < options->n_lanes; i++)
		forward->lanes[i] = (struct lane){.xsk = XSK_NONE, .index = i};
	for (uint32_t i = 0; r >= 0 && i < options->workers; i++)
		forward->workers[i] = (struct worker){.wake_fd = -1};
	if (r < 0) {
		forward->n_lanes = forward->n_workers = 0;
		goto fail;
	}
	r = umem_create(
		options->frame_size, forward->frames_each * options->workers, options->node, options->huge, &forward->umem);
	for (lane = 0; r >= 0 && lane < options->n_lanes; lane++)
		r = create_lane(forward, options, lane);
	if (r < 0) {
		*ret_lane = lane ? lane - 1 : options->n_lanes;
		goto fail;
	}
	for (uint32_t i = 0; r >= 0 && i < options->workers; i++)
		r = create_worker(forward, options, i, forward->lane_list + (size_t)i * options->n_lanes);
	if (r < 0)
		goto fail;
	*ret = forward;
	return 0;
fail:
	forward_free(forward);
	return r;
}

int forward_start(struct forward *forward)
{
	sigset_t all, before;
	int r = 0;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	for (uint32_t i = 0; r == 0 && i < forward->n_workers; i++) {
		struct worker *worker = &forward->workers[i];

		if (worker->running)
			continue;
		__atomic_store_n(&worker->stop, false, __ATOMIC_RELAXED);
		r = pthread_create(&worker->thread, NULL, worker_main, worker);
		worker->running = r == 0;
	}
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (r)
		forward_stop(forward);
	return -r;
}

void forward_stop(struct forward *forward)
{
	for (uint32_t i = 0; i < forward->n_workers; i++) {
		__atomic_store_n(&forward->workers[i].stop, true, __ATOMIC_SEQ_CST);
		if (forward->workers[i].running)
			worker_wake(&forward->workers[i]);
	}
	for (uint32_t i = 0; i < forward->n_workers; i++) {
		if (forward->workers[i].running)
			pthread_join(forward->workers[i].thread, NULL);
		forward->workers[i].running = false;
	}
}

void forward_free(struct forward *forward)
{
	if (!forward)
		return;
	forward_stop(forward);
	for (uint32_t i = 0; i < forward->n_workers; i++) {
		struct worker *worker = &forward->workers[i];

		for (uint32_t k = 0; worker->in && k < forward->n_workers; k++)
			handoff_destroy(&worker->in[k]);
		free(worker->in);
		free(worker->handed);
		free(worker->free);
		safe_close(worker->wake_fd);
	}
	for (uint32_t i = 0; i < forward->n_lanes; i++)
		xsk_close(&forward->lanes[i].xsk);
	umem_close(&forward->umem);
	free(forward->lane_list);
	free(forward->workers);
	free(forward->lanes);
	free(forward);
}

uint32_t forward_missing(const struct forward *forward)
{
	uint32_t found = 0, all = forward->frames_each * forward->n_workers;

	for (uint32_t i = 0; i < forward->n_workers; i++) {
		found += forward->workers[i].n_free;
		for (uint32_t k = 0; k < forward->n_workers; k++)
			found += k == i ? 0 : handoff_count(&forward->workers[i].in[k]) + forward->workers[i].handed[k].n;
	}
	for (uint32_t i = 0; i < forward->n_lanes; i++) {
		const struct xsk *xsk = &forward->lanes[i].xsk;

		found += ring_pending(&xsk->fill) + ring_pending(&xsk->rx) + ring_pending(&xsk->tx) +
			 ring_pending(&xsk->completion) + forward->lanes[i].chain.n;
	}
	return found < all ? all - found : 0;
}

uint32_t forward_workers(const struct forward *forward)
{
	return forward->n_workers;
}

bool forward_huge(const struct forward *forward)
{
	return forward->umem.huge;
}

const struct xsk *forward_socket(const struct forward *forward, uint32_t lane)
{
	return &forward->lanes[lane].xsk;
}

void forward_counters(const struct forward *forward, uint32_t lane, struct forward_counters *ret)
{
	const uint64_t *from = (const uint64_t *)&forward->lanes[lane].counters;
	uint64_t *to = (uint64_t *)ret;

	for (size_t i = 0; i < sizeof(*ret) / sizeof(*to); i++)
		to[i] = __atomic_load_n(&from[i], __ATOMIC_RELAXED);
}
