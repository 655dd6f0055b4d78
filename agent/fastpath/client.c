/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libheddle-fastpath: the consumer's end. Every frame is in one hand at a time, which `owner` notes: so neither a caller's mistake nor nonsense in
 * a ring gives a frame to two.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <unistd.h>

#include <fastpath/protocol.h>
#include <fastpath/umem.h>
#include <fastpath/xsk.h>
#include <heddle/fastpath.h>
#include <util/cleanup.h>
#include <util/clock.h>

#define PUBLIC __attribute__((visibility("default")))
#define DEFAULT_DIRECTORY "/run/heddle"
#define OPEN_PATIENCE_MS 5000
#define RETRY_MS 200 /* to reach the next agent */
/* Between two looks at the agent's connection, in calls of receive(): who polls in a loop has many empty ones, which are cheap, and a look is not. */
#define LOOK_AFTER 4096
#define LOOK_EMPTY 64 /* what an empty call counts for */
#define BATCH 64

_Static_assert((int)HEDDLE_FASTPATH_ZERO_COPY == (int)XSK_ZERO_COPY && (int)HEDDLE_FASTPATH_COPY == (int)XSK_COPY &&
		       (int)HEDDLE_FASTPATH_GENERIC == (int)XSK_GENERIC,
	"modes are the same numbers");
_Static_assert(HEDDLE_FASTPATH_PIECES == XSK_PIECES_MOST, "as many pieces");

enum owner { FREE, FILLING, CALLER, SENDING };

struct queue {
	struct xsk xsk;
	uint32_t filling; /* frames in the fill ring, or on their way to the rx ring */
	uint32_t target;  /* that shall be there */
	bool skipping;	  /* a packet in too many frames: what comes of it goes, up to its end */
	uint64_t received, transmitted, wakeups;
};

struct heddle_fastpath {
	char *path; /* of the agent's socket */
	int control, epoll, timer;
	bool resuming; /* the next agent has been told of us, and has not answered yet */
	int ended;     /* why; 0: the session lives, as far as we know */
	uint64_t session;
	unsigned since_look;
	bool polled; /* the caller sleeps on our fd: an empty call is rare, and may be about the agent */
	struct umem umem;
	uint8_t *owner; /* enum owner, by frame */
	uint32_t *free;
	uint32_t n_free;
	uint32_t n_queues, next;
	uint32_t pieces; /* frames that a packet can be in: what was asked for, then what was granted */
	struct heddle_fastpath_info info;
	struct queue queue[FASTPATH_QUEUES];
};

static _Thread_local char refusal[160];

PUBLIC const char *heddle_fastpath_refusal(void)
{
	return refusal;
}

/* --- frames --- */

static uint32_t frame_of(const struct heddle_fastpath *fp, uint64_t address)
{
	return (uint32_t)(address / fp->umem.frame_size);
}

/* The frame at this place goes to a new owner, if it has the one that was thought. */
static bool hand(struct heddle_fastpath *fp, uint64_t address, enum owner from, enum owner to)
{
	uint64_t frame = address / fp->umem.frame_size;

	if (frame >= fp->umem.frames || fp->owner[frame] != from)
		return false;
	fp->owner[frame] = (uint8_t)to;
	if (to == FREE)
		fp->free[fp->n_free++] = (uint32_t)frame;
	return true;
}

static uint64_t take_free(struct heddle_fastpath *fp, enum owner to)
{
	uint32_t frame = fp->free[--fp->n_free];

	fp->owner[frame] = (uint8_t)to;
	return (uint64_t)frame * fp->umem.frame_size;
}

/* The agent has given frames back to the kernel in our place (xsk_give_back()): the session is over, and its rings are not ours to move any more. */
static bool taken_over(const struct queue *queue)
{
	return __atomic_load_n(queue->xsk.rx.consumer, __ATOMIC_RELAXED) != queue->xsk.rx.mine;
}

static void fill(struct heddle_fastpath *fp, struct queue *queue)
{
	uint32_t want = queue->target > queue->filling ? queue->target - queue->filling : 0, index, n;

	if (taken_over(queue))
		return;
	if (want > fp->n_free)
		want = fp->n_free;
	n = want ? ring_reserve(&queue->xsk.fill, want, &index) : 0;
	for (uint32_t i = 0; i < n; i++)
		*ring_address(&queue->xsk.fill, index + i) = take_free(fp, FILLING);
	if (n) {
		ring_submit(&queue->xsk.fill);
		queue->filling += n;
	}
}

/* What the kernel has sent. */
static void reclaim(struct heddle_fastpath *fp, struct queue *queue)
{
	uint32_t index, n;

	while ((n = ring_peek(&queue->xsk.completion, BATCH, &index)) > 0) {
		for (uint32_t i = 0; i < n; i++)
			(void)hand(fp, *ring_address(&queue->xsk.completion, index + i), SENDING, FREE);
		ring_release(&queue->xsk.completion);
	}
}

/* --- the agent's connection --- */

static int dial(const char *path, int flags, int *ret)
{
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | flags, 0);
	const struct timeval patience = {.tv_sec = OPEN_PATIENCE_MS / 1000, .tv_usec = OPEN_PATIENCE_MS % 1000 * 1000};
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	if (fd < 0)
		return -errno;
	if (strlen(path) >= sizeof(address.sun_path))
		return -ENAMETOOLONG;
	memcpy(address.sun_path, path, strlen(path) + 1);
	if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) < 0 ||
		setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)) < 0)
		return -errno;
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		return errno == EAGAIN ? -ETIMEDOUT : -errno;
	*ret = TAKE_FD(fd);
	return 0;
}

/* The next message; one of another type than wanted is the agent's refusal, or nothing we know. */
static int answer(int fd, enum fastpath_type wanted, struct fastpath_message *message, int *fds, size_t *n)
{
	int r = fastpath_recv(fd, message, fds, n);

	if (r == 0 && message->type == wanted)
		return 0;
	while (*n)
		safe_close(fds[--*n]);
	if (r < 0)
		return r == -EAGAIN ? -ETIMEDOUT : r;
	if ((message->type != FASTPATH_REFUSED && message->type != FASTPATH_ENDED) || message->error >= 0)
		return -EPROTO;
	memcpy(refusal, message->text, sizeof(refusal));
	refusal[sizeof(refusal) - 1] = '\0';
	return message->error;
}

static void watch(const struct heddle_fastpath *fp, int fd)
{
	struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};

	(void)epoll_ctl(fp->epoll, EPOLL_CTL_ADD, fd, &event);
}

static void set_timer(const struct heddle_fastpath *fp, unsigned ms)
{
	const struct itimerspec when = {.it_value = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000}};

	(void)timerfd_settime(fp->timer, 0, &when, NULL);
}

static void over(struct heddle_fastpath *fp, const struct fastpath_message *message)
{
	memcpy(refusal, message->text, sizeof(refusal));
	fp->ended = -ENOTCONN;
	fp->control = safe_close(fp->control);
	set_timer(fp, 1); /* readable, so that receive() is called and says so */
}

/* The agent is gone: the sockets work on, and the next agent is told that they do. Its answer is not waited for. */
static void reconnect(struct heddle_fastpath *fp)
{
	struct fastpath_message message = {.type = FASTPATH_RESUME, .session = fp->session, .n_queues = fp->n_queues};
	int fds[FASTPATH_QUEUES];
	_cleanup_close_ int fd = -1;
	int r = dial(fp->path, SOCK_NONBLOCK, &fd);

	for (uint32_t i = 0; i < fp->n_queues; i++)
		fds[i] = fp->queue[i].xsk.fd;
	if (r >= 0)
		r = fastpath_send(fd, &message, fds, fp->n_queues);
	if (r < 0) {
		set_timer(fp, RETRY_MS);
		return;
	}
	fp->control = TAKE_FD(fd);
	fp->resuming = true;
	watch(fp, fp->control);
}

static void on_message(struct heddle_fastpath *fp, const struct fastpath_message *message)
{
	if (message->type == FASTPATH_ENDED || message->type == FASTPATH_REFUSED)
		over(fp, message);
	else if (message->type == FASTPATH_READY && message->session == fp->session)
		fp->resuming = false;
}

/* Whether the agent has something to say, or is gone, or is to be sought again. */
static void look_at_agent(struct heddle_fastpath *fp)
{
	struct fastpath_message message;
	uint64_t expired;
	size_t none = 0;
	char one;
	ssize_t n;

	fp->since_look = 0;
	if (fp->ended)
		return;
	if (fp->control < 0) {
		if (read(fp->timer, &expired, sizeof(expired)) == sizeof(expired))
			reconnect(fp);
		return;
	}
	n = recv(fp->control, &one, sizeof(one), MSG_DONTWAIT | MSG_PEEK | MSG_TRUNC);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n > 0 && fastpath_recv(fp->control, &message, NULL, &none) == 0) {
		on_message(fp, &message);
		return;
	}
	fp->control = safe_close(fp->control);
	/* one that went before it answered may not be the one that stays */
	set_timer(fp, fp->resuming ? RETRY_MS : 1);
	fp->resuming = false;
}

/* --- opening --- */

static int make_path(const char *directory, const char *name, char **ret)
{
	if (!name[0] || strchr(name, '/') || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
		return -EINVAL;
	if (asprintf(ret, "%s/" FASTPATH_DIRECTORY "/%s", directory ? directory : DEFAULT_DIRECTORY, name) < 0) {
		*ret = NULL;
		return -ENOMEM;
	}
	return 0;
}

/* Takes each fd that it has made use of out of fds. */
static int take_grant(struct heddle_fastpath *fp, const struct fastpath_message *grant, int *fds, size_t n)
{
	const struct xsk_sizes sizes = {.rx = grant->rx, .tx = grant->tx, .fill = grant->fill, .completion = grant->completion};
	int r;

	if (grant->n_queues == 0 || n != grant->n_queues + 1u || grant->session == 0)
		return -EPROTO;
	r = umem_attach(fds[0], grant->frame_size, grant->frames, &fp->umem);
	if (r < 0)
		return r;
	fds[0] = -1;
	fp->owner = calloc(grant->frames, sizeof(*fp->owner));
	fp->free = calloc(grant->frames, sizeof(*fp->free));
	if (!fp->owner || !fp->free)
		return -ENOMEM;
	/* the first ones are taken first: fewer pages are touched */
	for (uint32_t i = 0; i < grant->frames; i++)
		fp->free[fp->n_free++] = grant->frames - 1 - i;
	for (uint32_t i = 0; i < grant->n_queues; i++) {
		struct queue *queue = &fp->queue[i];

		r = xsk_attach(fds[i + 1], &sizes, &queue->xsk);
		if (r < 0)
			return r;
		fds[i + 1] = -1;
		fp->n_queues++;
		queue->xsk.ifindex = grant->queue[i].ifindex;
		queue->xsk.queue = grant->queue[i].queue;
		/* half of the frames wait for packets, the others are in the caller's hands or being sent */
		queue->target = grant->tx ? grant->frames / 2 / grant->n_queues : grant->frames / grant->n_queues;
		if (queue->target > grant->fill)
			queue->target = grant->fill;
	}
	fp->session = grant->session;
	fp->pieces = grant->pieces < fp->pieces ? grant->pieces : fp->pieces;
	if (fp->pieces < 1) /* an agent that knows of no others */
		fp->pieces = 1;
	fp->info = (struct heddle_fastpath_info){
		.queues = grant->n_queues,
		.frames = grant->frames,
		.room = grant->frame_size,
		.mtu = grant->mtu,
		.transmits = grant->tx != 0,
		.huge = grant->huge,
	};
	memcpy(fp->info.mac, grant->mac, sizeof(fp->info.mac));
	return 0;
}

static int begin(struct heddle_fastpath *fp)
{
	struct fastpath_message message = {.type = FASTPATH_HELLO, .pieces = fp->pieces};
	int fds[FASTPATH_FDS];
	size_t n = FASTPATH_FDS, none = 0;
	int r;

	r = dial(fp->path, 0, &fp->control);
	if (r >= 0)
		r = fastpath_send(fp->control, &message, NULL, 0);
	if (r >= 0)
		r = answer(fp->control, FASTPATH_GRANT, &message, fds, &n);
	if (r < 0)
		return r;
	r = take_grant(fp, &message, fds, n);
	for (size_t i = 0; i < n; i++)
		safe_close(fds[i]);
	if (r < 0)
		return r;
	/* before the first packet can come */
	for (uint32_t i = 0; i < fp->n_queues; i++)
		fill(fp, &fp->queue[i]);
	message = (struct fastpath_message){.type = FASTPATH_MAPPED, .session = fp->session};
	r = fastpath_send(fp->control, &message, NULL, 0);
	if (r >= 0)
		r = answer(fp->control, FASTPATH_READY, &message, NULL, &none);
	if (r < 0)
		return r;
	for (uint32_t i = 0; i < fp->n_queues; i++) {
		fp->queue[i].xsk.mode = message.queue[i].mode;
		watch(fp, fp->queue[i].xsk.fd);
	}
	watch(fp, fp->control);
	watch(fp, fp->timer);
	return 0;
}

PUBLIC int heddle_fastpath_open(const char *directory, const char *name, struct heddle_fastpath **ret)
{
	return heddle_fastpath_open_with(directory, name, 0, ret);
}

PUBLIC int heddle_fastpath_open_with(const char *directory, const char *name, uint32_t options, struct heddle_fastpath **ret)
{
	struct heddle_fastpath *fp;
	int r;

	refusal[0] = '\0';
	if (options & ~HEDDLE_FASTPATH_SEVERAL)
		return -EINVAL;
	fp = calloc(1, sizeof(*fp));
	if (!fp)
		return -ENOMEM;
	fp->pieces = options & HEDDLE_FASTPATH_SEVERAL ? HEDDLE_FASTPATH_PIECES : 1;
	fp->control = fp->epoll = fp->timer = -1;
	fp->umem = UMEM_NONE;
	r = make_path(directory, name, &fp->path);
	if (r >= 0) {
		fp->epoll = epoll_create1(EPOLL_CLOEXEC);
		fp->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
		r = fp->epoll < 0 || fp->timer < 0 ? -errno : begin(fp);
	}
	if (r < 0) {
		heddle_fastpath_close(fp);
		return r;
	}
	*ret = fp;
	return 0;
}

PUBLIC void heddle_fastpath_close(struct heddle_fastpath *fp)
{
	if (!fp)
		return;
	for (uint32_t i = 0; i < fp->n_queues; i++)
		xsk_close(&fp->queue[i].xsk);
	safe_close(fp->control);
	safe_close(fp->timer);
	safe_close(fp->epoll);
	umem_close(&fp->umem);
	free(fp->owner);
	free(fp->free);
	free(fp->path);
	free(fp);
}

/* --- what is asked about it --- */

PUBLIC void heddle_fastpath_get_info(const struct heddle_fastpath *fp, struct heddle_fastpath_info *ret)
{
	*ret = fp->info;
}

PUBLIC uint32_t heddle_fastpath_pieces(const struct heddle_fastpath *fp)
{
	return fp->pieces;
}

PUBLIC int heddle_fastpath_get_queue(const struct heddle_fastpath *fp, uint32_t queue, struct heddle_fastpath_queue *ret)
{
	if (queue >= fp->n_queues)
		return -EINVAL;
	*ret = (struct heddle_fastpath_queue){.ifindex = fp->queue[queue].xsk.ifindex,
		.queue = fp->queue[queue].xsk.queue,
		.mode = (uint32_t)fp->queue[queue].xsk.mode};
	return 0;
}

PUBLIC int heddle_fastpath_get_statistics(struct heddle_fastpath *fp, uint32_t queue, struct heddle_fastpath_statistics *ret)
{
	struct xsk_statistics said;
	int r;

	if (queue >= fp->n_queues)
		return -EINVAL;
	r = xsk_statistics(fp->queue[queue].xsk.fd, &said);
	if (r < 0)
		return r;
	*ret = (struct heddle_fastpath_statistics){
		.received = fp->queue[queue].received,
		.transmitted = fp->queue[queue].transmitted,
		.wakeups = fp->queue[queue].wakeups,
		.rx_dropped = said.rx_dropped,
		.rx_ring_full = said.rx_ring_full,
		.fill_ring_empty = said.fill_ring_empty,
		.tx_invalid = said.tx_invalid,
	};
	return 0;
}

PUBLIC int heddle_fastpath_fd(struct heddle_fastpath *fp)
{
	fp->polled = true;
	return fp->epoll;
}

/* --- packets --- */

/* A frame that has come; false: it is nothing that we had given to the kernel. */
static bool take_frame(
	struct heddle_fastpath *fp, uint32_t which, const struct xdp_desc *descriptor, struct heddle_fastpath_frame *ret)
{
	struct queue *queue = &fp->queue[which];
	uint64_t address = descriptor->addr;
	uint32_t length = descriptor->len;

	/* by the kernel: what it was given, within it */
	if (queue->filling)
		queue->filling--;
	if (!umem_holds(&fp->umem, address, length) || !hand(fp, address, FILLING, CALLER))
		return false;
	*ret = (struct heddle_fastpath_frame){
		.data = umem_data(&fp->umem, address), .length = length, .queue = which, .address = address};
	return true;
}

/* All of a packet, or nothing, and its frames are free; lost: nothing in any case. */
static uint32_t take_packet(
	struct heddle_fastpath *fp, uint32_t which, uint32_t index, uint32_t n, bool lost, struct heddle_fastpath_frame *frames)
{
	uint32_t good = 0;

	for (uint32_t i = 0; i < n; i++) {
		const struct xdp_desc *descriptor = ring_descriptor(&fp->queue[which].xsk.rx, index + i);

		if (!take_frame(fp, which, descriptor, &frames[good]))
			lost = true;
		else
			heddle_fastpath_set_more(&frames[good++], i + 1 < n);
	}
	if (!lost)
		return good;
	for (uint32_t i = 0; i < good; i++)
		(void)hand(fp, frames[i].address & ~HEDDLE_FASTPATH_MORE, CALLER, FREE);
	return 0;
}

/* Of as many descriptors the packets that are whole. *ret_seen: descriptors that are done with; the others are for the next call. */
static uint32_t take_packets(struct heddle_fastpath *fp, uint32_t which, uint32_t index, uint32_t came,
	struct heddle_fastpath_frame *frames, uint32_t *ret_seen)
{
	struct queue *queue = &fp->queue[which];
	uint32_t good = 0, seen = 0;

	while (seen < came) {
		uint32_t n = 0;
		bool more = true, lost;

		while (more && seen + n < came)
			more = ring_descriptor(&queue->xsk.rx, index + seen + n++)->options & XDP_PKT_CONTD;
		lost = queue->skipping || n > fp->pieces || (more && n == fp->pieces);
		if (more && !lost)
			break;
		good += take_packet(fp, which, index + seen, n, lost, frames + good);
		queue->skipping = more;
		seen += n;
	}
	*ret_seen = seen;
	return good;
}

static uint32_t receive_from(struct heddle_fastpath *fp, uint32_t which, struct heddle_fastpath_frame *frames, uint32_t n)
{
	struct queue *queue = &fp->queue[which];
	uint32_t index = 0, came, seen, good;

	if (taken_over(queue)) {
		fp->since_look = LOOK_AFTER;
		return 0;
	}
	came = ring_peek(&queue->xsk.rx, n, &index);
	good = take_packets(fp, which, index, came, frames, &seen);
	ring_cancel(&queue->xsk.rx, came - seen);
	if (seen) {
		ring_release(&queue->xsk.rx);
		queue->received += good;
	}
	fill(fp, queue);
	if (queue->xsk.mode == XSK_ZERO_COPY && ring_needs_wakeup(&queue->xsk.fill)) {
		queue->wakeups++;
		(void)xsk_wake_rx(&queue->xsk);
	}
	return good;
}

PUBLIC int heddle_fastpath_receive(struct heddle_fastpath *fp, struct heddle_fastpath_frame *frames, uint32_t n)
{
	uint32_t got = 0;

	if (n > INT32_MAX)
		n = INT32_MAX;
	if (fp->pieces > 1 && n < fp->pieces)
		return -EINVAL;
	for (uint32_t i = 0; i < fp->n_queues && got < n; i++) {
		got += receive_from(fp, fp->next, frames + got, n - got);
		if (++fp->next == fp->n_queues)
			fp->next = 0;
	}
	fp->since_look += got ? 1 : fp->polled ? LOOK_AFTER : LOOK_EMPTY;
	if (fp->since_look >= LOOK_AFTER)
		look_at_agent(fp);
	return got ? (int)got : fp->ended;
}

PUBLIC int heddle_fastpath_release(struct heddle_fastpath *fp, const struct heddle_fastpath_frame *frames, uint32_t n)
{
	int r = 0;

	for (uint32_t i = 0; i < n && r >= 0; i++)
		if (!hand(fp, frames[i].address & ~HEDDLE_FASTPATH_MORE, CALLER, FREE))
			r = -EINVAL;
	for (uint32_t i = 0; i < fp->n_queues; i++)
		fill(fp, &fp->queue[i]);
	return r;
}

PUBLIC int heddle_fastpath_allocate(struct heddle_fastpath *fp, uint32_t queue, struct heddle_fastpath_frame *frames, uint32_t n)
{
	uint32_t got = 0;

	if (queue >= fp->n_queues)
		return -EINVAL;
	if (fp->info.transmits && fp->n_free < n)
		reclaim(fp, &fp->queue[queue]);
	for (; got < n && got < INT32_MAX && fp->n_free; got++) {
		uint64_t address = take_free(fp, CALLER);

		frames[got] =
			(struct heddle_fastpath_frame){.data = umem_data(&fp->umem, address), .queue = queue, .address = address};
	}
	return (int)got;
}

/* Where the bytes begin may have moved within the frame, as when a header was put on or taken off. */
static bool place(const struct heddle_fastpath *fp, const struct heddle_fastpath_frame *frame, uint64_t *ret)
{
	uint64_t address = (uint64_t)((const char *)frame->data - (const char *)fp->umem.area);

	if (!umem_holds(&fp->umem, address, frame->length) ||
		frame_of(fp, address) != (frame->address & ~HEDDLE_FASTPATH_MORE) / fp->umem.frame_size)
		return false;
	*ret = address;
	return true;
}

/* The frames of the first packet of these; 0: it has no end, or too many, or they are of several queues. */
static uint32_t packet_frames(const struct heddle_fastpath *fp, const struct heddle_fastpath_frame *frames, uint32_t n)
{
	for (uint32_t i = 0; i < n && i < fp->pieces && frames[i].queue == frames[0].queue; i++)
		if (!heddle_fastpath_more(&frames[i]))
			return i + 1;
	return 0;
}

/* All of a packet, or none of it is taken. */
static bool send_packet(
	struct heddle_fastpath *fp, struct queue *queue, uint32_t index, const struct heddle_fastpath_frame *frames, uint32_t n)
{
	uint32_t i;

	for (i = 0; i < n; i++) {
		uint64_t address;

		if (frames[i].length < (i ? 1 : 14) || !place(fp, &frames[i], &address) || !hand(fp, address, CALLER, SENDING))
			break;
		*ring_descriptor(&queue->xsk.tx, index + i) =
			(struct xdp_desc){.addr = address, .len = frames[i].length, .options = i + 1 < n ? XDP_PKT_CONTD : 0};
	}
	if (i == n)
		return true;
	while (i--)
		(void)hand(fp, frames[i].address & ~HEDDLE_FASTPATH_MORE, SENDING, CALLER);
	return false;
}

/* In copy mode a call sends a part: so often as it takes, and there is something left that goes. */
static void push(struct queue *queue)
{
	uint32_t before = ring_pending(&queue->xsk.tx);

	while (before && ring_needs_wakeup(&queue->xsk.tx)) {
		uint32_t after;

		queue->wakeups++;
		if (xsk_wake_tx(&queue->xsk) < 0)
			return;
		after = ring_pending(&queue->xsk.tx);
		if (after >= before || queue->xsk.mode == XSK_ZERO_COPY)
			return;
		before = after;
	}
}

PUBLIC int heddle_fastpath_transmit(struct heddle_fastpath *fp, const struct heddle_fastpath_frame *frames, uint32_t n)
{
	uint32_t done = 0;
	int r = 0;

	if (fp->ended)
		return fp->ended;
	if (!fp->info.transmits)
		return -EPERM;
	if (n > INT32_MAX)
		n = INT32_MAX;
	while (done < n && r >= 0) {
		uint32_t which = frames[done].queue, run = 1, index, room, used = 0;
		struct queue *queue;

		if (which >= fp->n_queues) {
			r = -EINVAL;
			break;
		}
		queue = &fp->queue[which];
		while (done + run < n && frames[done + run].queue == which)
			run++;
		reclaim(fp, queue);
		room = ring_reserve(&queue->xsk.tx, run, &index);
		while (used < room) {
			uint32_t more = packet_frames(fp, &frames[done + used], run - used);

			if (more && more > room - used)
				break;
			if (!more || !send_packet(fp, queue, index + used, &frames[done + used], more)) {
				r = -EINVAL;
				break;
			}
			used += more;
		}
		ring_cancel(&queue->xsk.tx, room - used);
		if (used)
			ring_submit(&queue->xsk.tx);
		queue->transmitted += used;
		done += used;
		push(queue);
		reclaim(fp, queue);
		if (used < run)
			break;
	}
	return done ? (int)done : r;
}
