/* SPDX-License-Identifier: Apache-2.0 */
/* Packets in several frames, over rings in memory of the test's own: what a worker makes of them, descriptor by descriptor. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include <fastpath/forward_internal.h>
#include <heddle/steer.h>

#define FRAME 2048
#define RING 32
#define FRAMES 4096u

struct ring_memory {
	uint32_t producer, consumer, flags;
	struct xdp_desc entries[RING];
};

/* Lanes a and b; of one worker, or of two. */
struct rig {
	struct forward forward;
	struct lane lanes[2];
	struct worker workers[2];
	struct lane *lists[2][2];
	struct ring_memory rx[2], tx[2], fill[2], completion[2];
	uint32_t next; /* frame that is received into; all of them are the first worker's */
};

static void make_ring(struct xsk_ring *ring, struct ring_memory *memory)
{
	memset(memory, 0, sizeof(*memory));
	*ring = (struct xsk_ring){.producer = &memory->producer,
		.consumer = &memory->consumer,
		.flags = &memory->flags,
		.entries = memory->entries,
		.size = RING,
		.mask = RING - 1};
}

static struct rig *make_rig(uint32_t workers, uint32_t batch)
{
	struct rig *rig = aligned_alloc(CACHE_LINE, (sizeof(*rig) + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE);

	assert_non_null(rig);
	memset(rig, 0, sizeof(*rig));
	rig->forward = (struct forward){.umem = {.fd = -1, .frame_size = FRAME, .frames = FRAMES},
		.lanes = rig->lanes,
		.workers = rig->workers,
		.n_lanes = 2,
		.n_workers = workers,
		.batch = batch,
		.frames_each = FRAMES,
		.bytes_each = (uint64_t)FRAMES * FRAME};
	rig->forward.umem.area = calloc(FRAMES, FRAME);
	assert_non_null(rig->forward.umem.area);
	for (uint32_t i = 0; i < 2; i++) {
		struct lane *lane = &rig->lanes[i];

		lane->xsk = XSK_NONE;
		lane->xsk.mode = XSK_COPY;
		lane->xsk.pieces = XSK_PIECES_MOST;
		lane->xsk.sizes = (struct xsk_sizes){.rx = RING, .tx = RING, .fill = RING, .completion = RING};
		lane->device = lane->index = i;
		lane->worker = &rig->workers[workers == 2 ? i : 0];
		make_ring(&lane->xsk.rx, &rig->rx[i]);
		make_ring(&lane->xsk.tx, &rig->tx[i]);
		make_ring(&lane->xsk.fill, &rig->fill[i]);
		make_ring(&lane->xsk.completion, &rig->completion[i]);
	}
	for (uint32_t i = 0; i < workers; i++) {
		struct worker *worker = &rig->workers[i];

		*worker = (struct worker){
			.forward = &rig->forward, .number = i, .cpu = -1, .wake_fd = -1, .lanes = rig->lists[i], .stop = true};
		for (uint32_t k = 0; k < 2; k++) {
			if (rig->lanes[k].worker == worker)
				worker->lanes[worker->n_lanes++] = &rig->lanes[k];
			worker->to[k] = &rig->lanes[k];
		}
		worker->free = calloc(FRAMES, sizeof(*worker->free));
		worker->in = calloc(workers, sizeof(*worker->in));
		worker->handed = calloc(workers, sizeof(*worker->handed));
		assert_true(worker->free && worker->in && worker->handed);
		for (uint32_t k = 0; k < workers; k++)
			assert_int_equal(k == i ? 0 : handoff_init(&worker->in[k], FRAMES), 0);
	}
	return rig;
}

static void free_rig(struct rig *rig)
{
	for (uint32_t i = 0; i < rig->forward.n_workers; i++) {
		for (uint32_t k = 0; k < rig->forward.n_workers; k++)
			handoff_destroy(&rig->workers[i].in[k]);
		free(rig->workers[i].free);
		free(rig->workers[i].in);
		free(rig->workers[i].handed);
	}
	free(rig->forward.umem.area);
	free(rig);
}

/* --- the kernel's side --- */

/* A piece of a packet for lane b, as the kernel puts it into lane a's ring; where it is. */
static uint64_t receive_piece(struct rig *rig, uint32_t length, bool more)
{
	struct ring_memory *rx = &rig->rx[0];
	uint64_t address = (uint64_t)rig->next++ * FRAME + 256;

	assert_true(rx->producer - rx->consumer < RING);
	((struct hd_fast_meta *)umem_data(&rig->forward.umem, address))[-1] = (struct hd_fast_meta){.device = 1};
	rx->entries[rx->producer++ % RING] =
		(struct xdp_desc){.addr = address, .len = length, .options = more ? XDP_PKT_CONTD : 0};
	return address;
}

static void receive_packet(struct rig *rig, uint32_t pieces)
{
	for (uint32_t i = 0; i < pieces; i++)
		(void)receive_piece(rig, 100 + i, i + 1 < pieces);
}

/* Rounds until nothing moves. */
static void work(struct rig *rig, uint32_t worker)
{
	(void)worker_main(&rig->workers[worker]);
}

/* What the kernel would send: takes the next packet; how many pieces. */
static uint32_t send_packet(struct rig *rig)
{
	struct ring_memory *tx = &rig->tx[1], *completion = &rig->completion[1];
	uint32_t n = 0;

	while (tx->consumer != tx->producer) {
		struct xdp_desc desc = tx->entries[tx->consumer++ % RING];

		((uint64_t *)completion->entries)[completion->producer++ % RING] = desc.addr;
		assert_int_equal(desc.len, 100 + n);
		n++;
		if (!(desc.options & XDP_PKT_CONTD))
			return n;
	}
	assert_int_equal(n, 0); /* never a part of one */
	return 0;
}

/* All frames that were received into are at hand again, or wait to be received into. */
static void all_home(struct rig *rig)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < 2; i++)
		n += rig->fill[i].producer;
	for (uint32_t i = 0; i < rig->forward.n_workers; i++)
		n += rig->workers[i].n_free;
	assert_int_equal(n, rig->next);
}

/* Of what came, one frame's packet, and that is all of the rig. */
static void only_one_goes(struct rig *rig)
{
	assert_int_equal(send_packet(rig), 1);
	assert_int_equal(send_packet(rig), 0);
	work(rig, 0);
	all_home(rig);
	free_rig(rig);
}

/* --- tests --- */

/* One round takes a batch: packets go over its end, and where a batch is smaller than they are. */
static void test_batches(void **state)
{
	static const uint32_t batches[] = {1, 2, 3, 7, 32}, sizes[] = {1, 3, 17, 1, 2, 1, 5};

	(void)state;
	for (size_t b = 0; b < sizeof(batches) / sizeof(*batches); b++) {
		struct rig *rig = make_rig(1, batches[b]);

		for (unsigned turn = 0; turn < 20; turn++) {
			for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++)
				receive_packet(rig, sizes[i]);
			work(rig, 0);
			for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++)
				assert_int_equal(send_packet(rig), sizes[i]);
			assert_int_equal(send_packet(rig), 0);
			work(rig, 0);
			all_home(rig);
		}
		assert_int_equal(rig->lanes[0].counters.rx, 20 * 7);
		assert_int_equal(rig->lanes[0].counters.several, 20 * 4);
		assert_int_equal(rig->lanes[1].counters.tx, 20 * 7);
		free_rig(rig);
	}
}

/* What has come of a packet waits for the rest, and nothing of it leaves. */
static void test_waits(void **state)
{
	struct rig *rig = make_rig(1, 8);

	(void)state;
	(void)receive_piece(rig, 100, true);
	(void)receive_piece(rig, 101, true);
	work(rig, 0);
	assert_int_equal(send_packet(rig), 0);
	assert_int_equal(rig->lanes[0].counters.rx, 0);
	(void)receive_piece(rig, 102, false);
	work(rig, 0);
	assert_int_equal(send_packet(rig), 3);
	free_rig(rig);
}

/* Room for a part of a packet is room for none of it, and for none behind it. */
static void test_partial_room(void **state)
{
	(void)state;
	for (uint32_t room = 0; room <= 8; room++) {
		struct rig *rig = make_rig(1, 32);
		struct ring_memory *tx = &rig->tx[1];
		uint32_t whole = room >= 7 ? 3 : room >= 6 ? 2 : room >= 4 ? 1 : 0;

		tx->producer = RING - room;
		rig->lanes[1].xsk.tx.mine = tx->producer;
		receive_packet(rig, 4);
		receive_packet(rig, 2);
		receive_packet(rig, 1);
		work(rig, 0);
		assert_int_equal(rig->lanes[1].counters.tx, whole);
		assert_int_equal(rig->lanes[1].counters.tx_full, 3 - whole);
		tx->consumer = RING - room;
		for (uint32_t i = 0; i < whole; i++)
			assert_int_equal(send_packet(rig), i == 0 ? 4 : i == 1 ? 2 : 1);
		assert_int_equal(send_packet(rig), 0);
		work(rig, 0);
		all_home(rig);
		free_rig(rig);
	}
}

/* More pieces than a packet can have, or than the other socket takes: all of it goes, and what comes next is whole. */
static void test_too_many(void **state)
{
	static const uint32_t pieces[] = {18, 19, 31};
	struct rig *rig;

	(void)state;
	for (size_t i = 0; i < sizeof(pieces) / sizeof(*pieces); i++) {
		rig = make_rig(1, 8);
		receive_packet(rig, pieces[i]);
		receive_packet(rig, 1);
		work(rig, 0);
		assert_int_equal(rig->lanes[0].counters.too_big, 1);
		only_one_goes(rig);
	}
	rig = make_rig(1, 8);
	rig->lanes[1].xsk.pieces = 1;
	receive_packet(rig, 2);
	receive_packet(rig, 1);
	work(rig, 0);
	assert_int_equal(rig->lanes[0].counters.too_big, 1);
	only_one_goes(rig);
}

/* An IPv4 packet whose end the kernel left out has the next one for its end. */
static void test_does_not_belong(void **state)
{
	struct rig *rig = make_rig(1, 8);
	uint8_t *frame;
	uint64_t at;

	(void)state;
	at = receive_piece(rig, 100, true);
	frame = umem_data(&rig->forward.umem, at);
	frame[12] = 0x08;
	frame[17] = 187; /* and 14 are 201 */
	(void)receive_piece(rig, 101, false);
	work(rig, 0);
	assert_int_equal(send_packet(rig), 2);
	at = receive_piece(rig, 100, true);
	frame = umem_data(&rig->forward.umem, at);
	frame[12] = 0x08;
	frame[17] = 187;
	receive_packet(rig, 2);
	receive_packet(rig, 1);
	work(rig, 0);
	assert_int_equal(rig->lanes[0].counters.malformed, 1);
	only_one_goes(rig);
}

/* From one worker to the other: whole, in order, though the other looks in between. */
static void test_handed(void **state)
{
	struct rig *rig = make_rig(2, 1);
	struct handoff *handoff = &rig->workers[1].in[0];
	struct handoff_item items[3];

	(void)state;
	for (unsigned turn = 0; turn < 50; turn++) {
		receive_packet(rig, 3);
		receive_packet(rig, 1);
		work(rig, 0);
		work(rig, 1);
		assert_int_equal(send_packet(rig), 3);
		assert_int_equal(send_packet(rig), 1);
		work(rig, 1);
		work(rig, 0);
	}
	assert_int_equal(rig->lanes[0].counters.handed, 100);
	/* as if it had looked while the first worker was at it */
	receive_packet(rig, 3);
	work(rig, 0);
	assert_int_equal(handoff_get(handoff, items, 3), 3);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(send_packet(rig), 0);
		assert_true(handoff_put(handoff, &items[i]));
		work(rig, 1);
	}
	assert_int_equal(send_packet(rig), 3);
	work(rig, 1);
	work(rig, 0);
	all_home(rig);
	free_rig(rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_batches),
		cmocka_unit_test(test_waits),
		cmocka_unit_test(test_partial_room),
		cmocka_unit_test(test_too_many),
		cmocka_unit_test(test_does_not_belong),
		cmocka_unit_test(test_handed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
