/* SPDX-License-Identifier: Apache-2.0 */
/* One consumer's sockets: made, handed over, watched, given back. */
#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include <fastpath/server_internal.h>

static uint64_t cookie_of(int fd)
{
	uint64_t cookie = 0;
	socklen_t length = sizeof(cookie);

	return getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &length) < 0 ? 0 : cookie;
}

static struct xsk_sizes sizes_of(const struct fastpath_config *config)
{
	return (struct xsk_sizes){
		.rx = config->ring, .tx = config->transmits ? config->ring : 0, .fill = config->ring, .completion = config->ring};
}

static void watch(struct watched *watched)
{
	const struct xsk *xsk = &watched->xsk;

	watched->moved_ms = clock_ms();
	if (!ring_mapped(&xsk->rx))
		return;
	watched->rx_seen = __atomic_load_n(xsk->rx.producer, __ATOMIC_RELAXED);
	watched->taken_seen = __atomic_load_n(xsk->rx.consumer, __ATOMIC_RELAXED);
	watched->tx_seen = ring_mapped(&xsk->tx) ? __atomic_load_n(xsk->tx.consumer, __ATOMIC_RELAXED) : 0;
}

/* Whoever wrote the indexes: how far they went since, and no more than fits between two looks of a busy queue. */
void session_count(struct watched *watched)
{
	const struct xsk *xsk = &watched->xsk;
	uint32_t now;

	if (!ring_mapped(&xsk->rx))
		return;
	now = __atomic_load_n(xsk->rx.producer, __ATOMIC_RELAXED);
	watched->rx += now - watched->rx_seen;
	watched->rx_seen = now;
	if (!ring_mapped(&xsk->tx))
		return;
	now = __atomic_load_n(xsk->tx.consumer, __ATOMIC_RELAXED);
	watched->tx += now - watched->tx_seen;
	watched->tx_seen = now;
}

/* What it has asked for, as far as every queue can have it: they are all alike. */
static uint32_t choose_pieces(const struct endpoint *ep, uint32_t asked)
{
	uint32_t most = XSK_PIECES_MOST, driver = ep->config.zero_copy_pieces;

	if (!ep->config.several || asked < 2)
		return 1;
	if (driver > 1 && driver < most && !ep->config.several_copy)
		most = driver;
	return asked < most ? asked : most;
}

static int bind_all(struct endpoint *ep)
{
	struct session *session = &ep->session;
	struct xsk_binding binding = {.ifindex = ep->config.ifindex,
		.generic = ep->config.generic,
		.several = session->pieces > 1,
		.zero_copy_pieces = ep->config.zero_copy_pieces};

	for (uint32_t i = 0; i < session->n; i++) {
		struct xsk *xsk = &session->queue[i].xsk;
		int r;

		if (xsk->mode != XSK_UNBOUND)
			continue;
		binding.queue = ep->config.queues[i];
		binding.copy_only = ep->config.copy_only[i] ? ep->config.copy_only[i]
				    : session->pieces > 1   ? ep->config.several_copy
							    : NULL;
		r = xsk_bind(xsk, &binding);
		if (r < 0)
			return r == -EBUSY ? r
					   : log_warn(r, "fast path %s: cannot bind queue %u of %s", ep->name, binding.queue,
						     ep->config.device);
		if (ep->config.busy.us && xsk_busy_poll(xsk, &ep->config.busy) < 0)
			log_debug("fast path %s: no busy polling on queue %u", ep->name, binding.queue);
	}
	return 0;
}

/* Each socket registers the memory for itself: so each queue has a mode of its own, whatever the others are in. */
static int make_sockets(struct endpoint *ep)
{
	struct session *session = &ep->session;
	struct xsk_sizes sizes = sizes_of(&ep->config);
	int r = umem_create(ep->config.frame_size, ep->config.frames, ep->config.node, true, &session->umem);

	if (r < 0)
		return r;
	session->huge = session->umem.huge;
	for (uint32_t i = 0; i < ep->config.n_queues && r >= 0; i++) {
		struct watched *watched = &session->queue[i];

		*watched = (struct watched){.xsk = XSK_NONE};
		r = xsk_create(&session->umem, &sizes, &watched->xsk);
		if (r < 0)
			break;
		session->n++;
		watched->cookie = cookie_of(watched->xsk.fd);
		r = xsk_fix_device(&watched->xsk, ep->config.device);
		/* here, since older kernels do it only now; to look at, while the consumer has the use of them */
		if (r >= 0)
			r = xsk_map(&watched->xsk);
	}
	if (r < 0)
		(void)log_warn(r, "fast path %s: cannot make its sockets", ep->name);
	return r;
}

void session_free_sockets(struct session *session)
{
	for (uint32_t i = 0; i < session->n; i++)
		xsk_close(&session->queue[i].xsk);
	session->n = 0;
	umem_close(&session->umem);
}

/* Bound before it leaves the process where the kernel can: then nobody else has a say about what it is bound to. */
static int prepare(struct endpoint *ep, const char **ret_why)
{
	struct fastpath_server *server = ep->server;
	bool late = false;
	int r = make_sockets(ep);

	*ret_why = "the agent cannot make the sockets";
	if (r < 0 || server->late == LATE_NO)
		return r;
	r = bind_all(ep);
	if (r == -EBUSY)
		*ret_why = SESSION_HELD;
	if (r < 0 || server->late == LATE_YES)
		return r;
	r = xsk_maps_late(&ep->session.queue[0].xsk, &late);
	if (r < 0)
		return r;
	server->late = late ? LATE_YES : LATE_NO;
	if (late)
		return 0;
	log_info("this kernel maps rings only before a socket is bound: consumers have theirs unbound for a moment");
	session_free_sockets(&ep->session);
	return make_sockets(ep);
}

int session_grant(struct endpoint *ep, struct connection *connection, const char **ret_why)
{
	struct session *session = &ep->session;
	const struct fastpath_config *config = &ep->config;
	struct fastpath_message message = {
		.type = FASTPATH_GRANT, .n_queues = config->n_queues, .frame_size = config->frame_size, .frames = config->frames};
	struct xsk_sizes sizes = sizes_of(config);
	int fds[FASTPATH_FDS], r;

	*session =
		(struct session){.phase = FASTPATH_GRANTED, .connection = connection, .since_ms = clock_ms(), .umem = UMEM_NONE};
	session->pieces = choose_pieces(ep, connection->pieces);
	*ret_why = "the agent has no random numbers";
	while (session->id == 0)
		if (getrandom(&session->id, sizeof(session->id), 0) != sizeof(session->id))
			return -EIO;
	r = prepare(ep, ret_why);
	/* an unbound socket could be given a ring to send by, on whatever queue */
	if (r >= 0 && ep->server->late == LATE_NO && !config->port && !config->transmits) {
		r = -EOPNOTSUPP;
		*ret_why = "this kernel is older than 6.4: an uplink's consumer has to be trusted";
	}
	if (r < 0)
		return r;
	message.session = session->id;
	message.rx = sizes.rx;
	message.tx = sizes.tx;
	message.fill = sizes.fill;
	message.completion = sizes.completion;
	message.mtu = config->mtu;
	message.huge = session->huge;
	message.pieces = session->pieces;
	memcpy(message.mac, config->mac, sizeof(message.mac));
	fds[0] = session->umem.fd;
	for (uint32_t i = 0; i < session->n; i++) {
		fds[i + 1] = session->queue[i].xsk.fd;
		message.queue[i].ifindex = config->ifindex;
		message.queue[i].queue = config->queues[i];
	}
	r = fastpath_send(connection->fd, &message, fds, session->n + 1);
	umem_close(&session->umem); /* the kernel has the pages, and the consumer the memory */
	return r;
}

static void say_ready(struct endpoint *ep)
{
	struct session *session = &ep->session;
	struct fastpath_message message = {.type = FASTPATH_READY, .n_queues = session->n, .session = session->id};

	for (uint32_t i = 0; i < session->n; i++) {
		message.queue[i].ifindex = ep->config.ifindex;
		message.queue[i].queue = (uint16_t)session->queue[i].xsk.queue;
		message.queue[i].mode = (uint8_t)session->queue[i].xsk.mode;
	}
	(void)fastpath_send(session->connection->fd, &message, NULL, 0);
}

/* Of a session of one frame a packet: what is longer, the data plane sends by the fallback. */
static struct fastpath_room room_of(const struct endpoint *ep)
{
	const struct session *session = &ep->session;
	uint32_t most = XSK_FRAME_MOST(ep->config.frame_size);

	for (uint32_t i = 0; i < session->n && session->pieces > 1; i++) {
		uint32_t bytes = xsk_packet_most(ep->config.frame_size, session->pieces, session->queue[i].xsk.mode);

		most = i == 0 || bytes < most ? bytes : most;
	}
	return (struct fastpath_room){.one = most, .several = session->pieces > 1 ? most : 0};
}

static int go_live(struct endpoint *ep)
{
	struct fastpath_server *server = ep->server;
	struct session *session = &ep->session;
	const struct fastpath_room room = room_of(ep);
	int r = 0;

	for (uint32_t i = 0; i < session->n && r >= 0; i++)
		r = server->socket_cb(
			ep->name, (uint16_t)session->queue[i].xsk.queue, session->queue[i].xsk.fd, &room, server->userdata);
	if (r < 0)
		return log_warn(r, "fast path %s: cannot lead packets to its sockets", ep->name);
	session->phase = FASTPATH_LIVE;
	for (uint32_t i = 0; i < session->n; i++)
		watch(&session->queue[i]);
	ep->sessions++;
	ep->last[0] = '\0';
	say_ready(ep);
	log_info("fast path %s: process %d of user %u is served", ep->name, (int)session->connection->who.pid,
		(unsigned)session->connection->who.uid);
	return 0;
}

int session_begin(struct endpoint *ep)
{
	int r = bind_all(ep);

	if (r >= 0) {
		/* first of all: an agent that ends right behind this leaves nothing that nobody knows of */
		r = record_write(ep);
		if (r < 0)
			(void)log_warn(r, "fast path %s: cannot keep who is served", ep->name);
	}
	return r < 0 ? r : go_live(ep);
}

static void lead_away(const struct endpoint *ep)
{
	for (uint32_t i = 0; i < ep->session.n; i++)
		(void)ep->server->socket_cb(ep->name, (uint16_t)ep->session.queue[i].xsk.queue, -1, NULL, ep->server->userdata);
}

void session_give_back(struct endpoint *ep)
{
	/* first, or more would come */
	lead_away(ep);
	for (uint32_t i = 0; i < ep->session.n; i++)
		if (ep->session.queue[i].xsk.mode == XSK_ZERO_COPY)
			xsk_give_back(&ep->session.queue[i].xsk);
}

void session_end(struct endpoint *ep, const char *why, bool tell)
{
	struct session *session = &ep->session;
	struct connection *connection = session->connection;

	if (session->phase == FASTPATH_IDLE)
		return;
	lead_away(ep);
	/* it is not one yet that was only tried to begin, as it may be again */
	if (session->phase != FASTPATH_GRANTED || connection)
		log_info("fast path %s: the session ended: %s", ep->name, why);
	snprintf(ep->last, sizeof(ep->last), "%s", why);
	if (tell && connection)
		connection_tell(connection, FASTPATH_ENDED, -ENOTCONN, why);
	session_free_sockets(session);
	record_remove(ep);
	*session = (struct session){.phase = FASTPATH_IDLE, .umem = UMEM_NONE};
	connection_free(connection);
}

/* An earlier agent's. fds stay the caller's unless they are taken out. */
int session_resume(struct endpoint *ep, struct connection *connection, const struct fastpath_message *message, int *fds, size_t n)
{
	struct session *session = &ep->session;
	struct xsk_sizes sizes = sizes_of(&ep->config);

	if (session->phase != FASTPATH_ORPHANED || message->session != session->id)
		return -ENOENT;
	if (n != session->n || message->n_queues != session->n)
		return -EINVAL;
	for (size_t i = 0; i < n; i++)
		if (xsk_is(fds[i]) < 0 || cookie_of(fds[i]) != session->queue[i].cookie)
			return -EINVAL;
	for (size_t i = 0; i < n; i++) {
		struct xsk *xsk = &session->queue[i].xsk;

		xsk->fd = TAKE_FD(fds[i]);
		xsk->sizes = sizes;
		/* where the kernel does not let us see the rings any more, the consumer is served without */
		(void)xsk_map(xsk);
	}
	session->connection = connection;
	return go_live(ep);
}

/* The consumer has something to take, or packets find no room, and it takes nothing for as long as the document says. */
bool session_hung(struct endpoint *ep, uint64_t now)
{
	bool any = false;

	for (uint32_t i = 0; i < ep->session.n; i++) {
		struct watched *watched = &ep->session.queue[i];
		struct xsk_statistics kernel;
		uint32_t taken;
		uint64_t lost;

		session_count(watched);
		if (!ring_mapped(&watched->xsk.rx) || xsk_statistics(watched->xsk.fd, &kernel) < 0)
			continue;
		taken = __atomic_load_n(watched->xsk.rx.consumer, __ATOMIC_RELAXED);
		lost = kernel.rx_ring_full + kernel.fill_ring_empty;
		/* of a packet that takes several frames the kernel counts only there that it had not enough of them */
		if (ep->session.pieces > 1)
			lost += kernel.rx_dropped;
		if (taken != watched->taken_seen || (ring_pending(&watched->xsk.rx) == 0 && lost == watched->lost_seen))
			watched->moved_ms = now;
		watched->taken_seen = taken;
		watched->lost_seen = lost;
		any |= now - watched->moved_ms >= ep->config.stall_ms;
	}
	return any;
}
