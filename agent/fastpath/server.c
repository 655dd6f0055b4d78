/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A consumer is not trusted: what it says is one message of one form, what it hands back is looked at before it is used, and what it writes into
 * rings is only ever compared. Nothing here waits for it.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <fastpath/server_internal.h>
#include <util/file.h>

#define HELLO_MS 5000
#define RESUME_MS 10000
#define TICK_MS 500
/* The kernel lets a queue go a moment after its socket is closed, and a process that dies closes ours last. */
#define BUSY_MS 2000
#define BUSY_TICK_MS 20
#define CLOSERS_MAX 16

const char *const fastpath_phase_name[] = {[FASTPATH_WAITING] = "waiting",
	[FASTPATH_IDLE] = "idle",
	[FASTPATH_GRANTED] = "connecting",
	[FASTPATH_LIVE] = "live",
	[FASTPATH_ORPHANED] = "orphaned"};

/* --- what others handed us --- */

static int closers;

static void *close_one(void *argument)
{
	close((int)(intptr_t)argument);
	__atomic_sub_fetch(&closers, 1, __ATOMIC_RELAXED);
	return NULL;
}

/* Closing what is not an AF_XDP socket may wait: for somebody's file system, or for data that nobody reads. Not in our thread. */
static void close_foreign(int fd)
{
	pthread_attr_t attributes;
	pthread_t thread;

	if (xsk_is(fd) == 0) {
		close(fd);
		return;
	}
	__atomic_add_fetch(&closers, 1, __ATOMIC_RELAXED);
	pthread_attr_init(&attributes);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attributes, PTHREAD_STACK_MIN);
	if (pthread_create(&thread, &attributes, close_one, (void *)(intptr_t)fd) != 0)
		__atomic_sub_fetch(&closers, 1, __ATOMIC_RELAXED); /* left open: better than to wait */
	pthread_attr_destroy(&attributes);
}

static bool in(uint32_t id, const uint32_t *list, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (list[i] == id)
			return true;
	return false;
}

static bool may(const struct endpoint *ep, const struct connection *connection)
{
	gid_t groups[64] = {0};
	socklen_t length = sizeof(groups);

	if (connection->who.uid == 0 || in(connection->who.uid, ep->config.users, ep->config.n_users) ||
		in(connection->who.gid, ep->config.groups, ep->config.n_groups))
		return true;
	if (!ep->config.n_groups || getsockopt(connection->fd, SOL_SOCKET, SO_PEERGROUPS, groups, &length) < 0)
		return false;
	for (size_t i = 0; i < length / sizeof(*groups); i++)
		if (in(groups[i], ep->config.groups, ep->config.n_groups))
			return true;
	return false;
}

/* --- connections --- */

void connection_free(struct connection *connection)
{
	if (!connection)
		return;
	for (size_t i = 0; i < CONNECTIONS_MAX; i++)
		if (connection->endpoint->connections[i] == connection)
			connection->endpoint->connections[i] = NULL;
	sd_event_source_disable_unref(connection->source);
	safe_close(connection->fd);
	free(connection);
}

void connection_tell(struct connection *connection, enum fastpath_type type, int error, const char *text)
{
	struct fastpath_message message = {.type = (uint16_t)type, .error = error};

	snprintf(message.text, sizeof(message.text), "%s", text);
	(void)fastpath_send(connection->fd, &message, NULL, 0);
}

/* --- what a connection says --- */

static void forget_pending(struct connection *connection)
{
	for (size_t i = 0; i < CONNECTIONS_MAX; i++)
		if (connection->endpoint->connections[i] == connection)
			connection->endpoint->connections[i] = NULL;
}

static void tick_soon(const struct fastpath_server *server)
{
	(void)sd_event_source_set_time(server->tick, clock_us() + BUSY_TICK_MS * 1000);
	(void)sd_event_source_set_enabled(server->tick, SD_EVENT_ONESHOT);
}

static void on_grant(struct endpoint *ep, struct connection *connection)
{
	const char *why = "";
	size_t slot = 0;
	int r;

	forget_pending(connection);
	connection->waits = false;
	r = session_grant(ep, connection, &why);
	if (r >= 0)
		return;
	ep->session.connection = NULL;
	session_end(ep, why, false);
	while (slot < CONNECTIONS_MAX && ep->connections[slot])
		slot++;
	if (r == -EBUSY && slot < CONNECTIONS_MAX && clock_ms() - connection->since_ms < BUSY_MS) {
		ep->connections[slot] = connection;
		connection->waits = true;
		tick_soon(ep->server);
		return;
	}
	if (r == -EBUSY)
		(void)log_warn(r, "fast path %s: process %d is refused", ep->name, (int)connection->who.pid);
	connection_tell(connection, FASTPATH_REFUSED, r, why);
	connection_free(connection);
}

/* Where sockets are bound only now, a queue may not be free yet. */
static void on_mapped(struct endpoint *ep)
{
	struct session *session = &ep->session;
	int r = session_begin(ep);

	if (r >= 0)
		return;
	session->mapped = r == -EBUSY && clock_ms() - session->since_ms < BUSY_MS;
	if (session->mapped)
		tick_soon(ep->server);
	else
		session_end(ep, r == -EBUSY ? SESSION_HELD : "its sockets could not be put to use", true);
}

static void on_hello(struct endpoint *ep, struct connection *connection)
{
	struct session *session = &ep->session;
	const char *waiting = ep->waiting;
	char text[160];

	if (!waiting && session->phase == FASTPATH_IDLE) {
		ep->server->refresh_cb(ep->name, &ep->config, ep->server->userdata);
		waiting = ep->config.waiting;
		ep->config.waiting = NULL;
	}
	if (waiting) {
		connection_tell(connection, FASTPATH_REFUSED, -EAGAIN, waiting);
	} else if (session->phase != FASTPATH_IDLE) {
		if (session->connection)
			snprintf(text, sizeof(text), "process %d has it", (int)session->connection->who.pid);
		else
			snprintf(text, sizeof(text), "its consumer from before the agent's start is waited for");
		connection_tell(connection, FASTPATH_REFUSED, -EBUSY, text);
	} else {
		on_grant(ep, connection);
		return;
	}
	connection_free(connection);
}

static void on_resume(
	struct endpoint *ep, struct connection *connection, const struct fastpath_message *message, int *fds, size_t n)
{
	int r;

	forget_pending(connection);
	r = session_resume(ep, connection, message, fds, n);
	if (r >= 0)
		return;
	if (ep->session.connection == connection) {
		session_end(ep, "it could not be resumed", true);
		return;
	}
	connection_tell(
		connection, FASTPATH_REFUSED, r, r == -ENOENT ? "the session has ended" : "these are not the session's sockets");
	connection_free(connection);
}

static int on_connection(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	struct connection *connection = userdata;
	struct endpoint *ep = connection->endpoint;
	bool of_session = ep->session.connection == connection;
	struct fastpath_message message;
	int fds[FASTPATH_QUEUES];
	size_t n = !of_session && !connection->denied && __atomic_load_n(&closers, __ATOMIC_RELAXED) < CLOSERS_MAX
			   ? FASTPATH_QUEUES
			   : 0;
	int r = fastpath_recv(fd, &message, fds, &n);

	(void)source;
	(void)events;
	if (r == -EAGAIN || r == -EINTR)
		return 0;
	if (connection->denied) {
		log_debug("fast path %s: user %u may not have it", ep->name, (unsigned)connection->who.uid);
		connection_tell(connection, FASTPATH_REFUSED, -EACCES, "the document does not let this user in");
		connection_free(connection);
	} else if (r >= 0 && !of_session && message.type == FASTPATH_HELLO && n == 0) {
		connection->pieces = message.pieces;
		on_hello(ep, connection);
	} else if (r >= 0 && !of_session && message.type == FASTPATH_RESUME) {
		on_resume(ep, connection, &message, fds, n);
	} else if (r >= 0 && of_session && message.type == FASTPATH_MAPPED && ep->session.phase == FASTPATH_GRANTED) {
		on_mapped(ep);
	} else if (of_session) {
		session_end(ep, r == -ECONNRESET ? "the consumer went" : "the consumer spoke nonsense", false);
	} else {
		connection_free(connection);
	}
	while (n)
		if (fds[--n] >= 0)
			close_foreign(fds[n]);
	return 0;
}

static int on_listener(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	struct endpoint *ep = userdata;
	struct connection *connection;
	_cleanup_close_ int peer = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	socklen_t length = sizeof(connection->who);
	size_t slot = 0, denied = 0;

	(void)source;
	(void)events;
	for (size_t i = 0; i < CONNECTIONS_MAX; i++)
		denied += ep->connections[i] && ep->connections[i]->denied;
	while (slot < CONNECTIONS_MAX && ep->connections[slot])
		slot++;
	if (peer < 0 || slot == CONNECTIONS_MAX)
		return 0;
	connection = calloc(1, sizeof(*connection));
	if (!connection)
		return 0;
	connection->endpoint = ep;
	connection->since_ms = clock_ms();
	connection->fd = TAKE_FD(peer);
	connection->denied =
		getsockopt(connection->fd, SOL_SOCKET, SO_PEERCRED, &connection->who, &length) < 0 || !may(ep, connection);
	if ((connection->denied && denied >= DENIED_MAX) ||
		sd_event_add_io(ep->server->event, &connection->source, connection->fd, EPOLLIN, on_connection, connection) < 0) {
		connection_free(connection);
		return 0;
	}
	ep->connections[slot] = connection;
	return 0;
}

/* --- time --- */

static void look(struct endpoint *ep)
{
	struct session *session = &ep->session;
	uint64_t now = clock_ms();

	for (size_t i = 0; i < CONNECTIONS_MAX; i++) {
		struct connection *connection = ep->connections[i];

		if (connection && connection->waits)
			on_hello(ep, connection);
		else if (connection && now - connection->since_ms >= HELLO_MS)
			connection_free(connection);
	}
	if (session->phase == FASTPATH_GRANTED && session->mapped)
		on_mapped(ep);
	/* again: what began just now would be older than time itself */
	now = clock_ms();
	if (session->phase == FASTPATH_GRANTED && now - session->since_ms >= HELLO_MS)
		session_end(ep, "the consumer did not take what it was granted", true);
	else if (session->phase == FASTPATH_ORPHANED && now - session->since_ms >= RESUME_MS)
		session_end(ep, "its consumer was not heard of after the agent's start", false);
	else if (session->phase == FASTPATH_LIVE && session_hung(ep, now)) {
		ep->ended_hung++;
		log_notice("fast path %s: process %d takes no packets: it is taken for hung", ep->name,
			(int)session->connection->who.pid);
		session_give_back(ep);
		session_end(ep, "the consumer took no packets: it was taken for hung", true);
	}
}

static int on_tick(sd_event_source *source, uint64_t when, void *userdata)
{
	struct fastpath_server *server = userdata;

	(void)when;
	(void)sd_event_source_set_time(source, clock_us() + TICK_MS * 1000);
	for (size_t i = 0; i < server->n; i++)
		look(server->endpoints[i]);
	return sd_event_source_set_enabled(source, server->n ? SD_EVENT_ONESHOT : SD_EVENT_OFF);
}

/* --- endpoints --- */

static int listen_at(struct endpoint *ep)
{
	struct fastpath_server *server = ep->server;
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	mode_t mode = ep->config.n_users || ep->config.n_groups ? 0666 : 0600, mask;
	int r;

	if (fd < 0)
		return -errno;
	/* by the directory's fd: a run directory may have a longer path than fits */
	if (snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/%s", server->directory_fd, ep->name) >=
		(int)sizeof(address.sun_path))
		return -ENAMETOOLONG;
	(void)unlinkat(server->directory_fd, ep->name, 0);
	mask = umask(0777 & ~mode);
	r = bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ? -errno : 0;
	umask(mask);
	if (r >= 0 && listen(fd, CONNECTIONS_MAX) < 0)
		r = -errno;
	if (r >= 0)
		r = sd_event_add_io(server->event, &ep->source, fd, EPOLLIN, on_listener, ep);
	if (r < 0)
		return r;
	ep->listener = TAKE_FD(fd);
	ep->mode = mode;
	return 0;
}

static void stop_listening(struct endpoint *ep)
{
	ep->source = sd_event_source_disable_unref(ep->source);
	ep->listener = safe_close(ep->listener);
}

static void endpoint_free(struct endpoint *ep)
{
	for (size_t i = 0; i < CONNECTIONS_MAX; i++)
		connection_free(ep->connections[i]);
	connection_free(ep->session.connection);
	session_free_sockets(&ep->session);
	stop_listening(ep);
	free((uint32_t *)ep->config.users);
	free((uint32_t *)ep->config.groups);
	free(ep->waiting);
	free(ep);
}

static bool same_session(const struct fastpath_config *a, const struct fastpath_config *b)
{
	return a->ifindex == b->ifindex && a->n_queues == b->n_queues &&
	       memcmp(a->queues, b->queues, a->n_queues * sizeof(*a->queues)) == 0 && a->transmits == b->transmits &&
	       a->frames == b->frames && a->frame_size == b->frame_size && a->ring == b->ring;
}

static uint32_t *copy_ids(const uint32_t *ids, size_t n)
{
	uint32_t *copy = calloc(n + 1, sizeof(*copy));

	if (copy && n)
		memcpy(copy, ids, n * sizeof(*copy));
	return copy;
}

static int endpoint_set(struct endpoint *ep, const struct fastpath_config *config)
{
	uint32_t *users = copy_ids(config->users, config->n_users), *groups = copy_ids(config->groups, config->n_groups);
	char *waiting = config->waiting ? strdup(config->waiting) : NULL;
	const struct session *session = &ep->session;
	mode_t mode = config->n_users || config->n_groups ? 0666 : 0600;

	if (!users || !groups || (config->waiting && !waiting)) {
		free(users);
		free(groups);
		free(waiting);
		return -ENOMEM;
	}
	/* one that is only waited for may have its device in a moment */
	if (session->phase != FASTPATH_IDLE &&
		(waiting ? session->phase != FASTPATH_ORPHANED : !same_session(&ep->config, config)))
		session_end(ep, waiting ? waiting : "the document or its device changed", true);
	free((uint32_t *)ep->config.users);
	free((uint32_t *)ep->config.groups);
	free(ep->waiting);
	if (waiting && session->phase == FASTPATH_ORPHANED) {
		ep->config.n_users = config->n_users;
		ep->config.n_groups = config->n_groups;
	} else {
		ep->config = *config;
	}
	ep->config.name = ep->name;
	ep->config.users = users;
	ep->config.groups = groups;
	ep->config.waiting = NULL;
	ep->waiting = waiting;
	if (session->connection && !may(ep, session->connection))
		session_end(ep, "the document does not let this user in any more", true);
	if (ep->listener >= 0 && ep->mode == mode)
		return 0;
	stop_listening(ep);
	return listen_at(ep);
}

static struct endpoint *endpoint_find(const struct fastpath_server *server, const char *name)
{
	for (size_t i = 0; i < server->n; i++)
		if (strcmp(server->endpoints[i]->name, name) == 0)
			return server->endpoints[i];
	return NULL;
}

static struct endpoint *endpoint_add(struct fastpath_server *server, const char *name)
{
	struct endpoint **grown = reallocarray(server->endpoints, server->n + 1, sizeof(struct endpoint *)), *ep;

	if (!grown)
		return NULL;
	server->endpoints = grown;
	ep = calloc(1, sizeof(*ep));
	if (!ep)
		return NULL;
	ep->server = server;
	ep->listener = -1;
	snprintf(ep->name, sizeof(ep->name), "%s", name);
	ep->session = (struct session){.phase = FASTPATH_IDLE, .umem = UMEM_NONE};
	record_adopt(ep);
	server->endpoints[server->n++] = ep;
	return ep;
}

int fastpath_server_set(struct fastpath_server *server, const struct fastpath_config *configs, size_t n)
{
	int first_error = 0;

	for (size_t i = 0; i < server->n; i++)
		server->endpoints[i]->wanted = false;
	for (size_t i = 0; i < n; i++) {
		struct endpoint *ep = endpoint_find(server, configs[i].name);
		int r;

		if (!ep)
			ep = endpoint_add(server, configs[i].name);
		if (!ep)
			return -ENOMEM;
		ep->wanted = true;
		r = endpoint_set(ep, &configs[i]);
		if (r < 0)
			(void)log_err(r, "fast path %s: cannot be listened for", ep->name);
		if (r < 0 && first_error == 0)
			first_error = r;
	}
	for (size_t i = server->n; i-- > 0;) {
		struct endpoint *ep = server->endpoints[i];

		if (ep->wanted)
			continue;
		session_end(ep, "its document is gone", true);
		(void)unlinkat(server->directory_fd, ep->name, 0);
		endpoint_free(ep);
		server->endpoints[i] = server->endpoints[--server->n];
	}
	if (server->n) {
		(void)sd_event_source_set_time(server->tick, clock_us() + TICK_MS * 1000);
		(void)sd_event_source_set_enabled(server->tick, SD_EVENT_ONESHOT);
	}
	return first_error;
}

/* --- all of it --- */

int fastpath_server_new(sd_event *event, const char *run_dir, fastpath_socket_cb socket_cb, fastpath_refresh_cb refresh_cb,
	void *userdata, struct fastpath_server **ret)
{
	struct fastpath_server *server = calloc(1, sizeof(*server));
	int r;

	if (!server)
		return -ENOMEM;
	server->event = sd_event_ref(event);
	server->directory_fd = -1;
	server->socket_cb = socket_cb;
	server->refresh_cb = refresh_cb;
	server->userdata = userdata;
	r = asprintf(&server->directory, "%s/" FASTPATH_DIRECTORY, run_dir) < 0 ? -ENOMEM : 0;
	if (r < 0)
		server->directory = NULL;
	else
		r = file_make_directory(server->directory, 0755);
	if (r >= 0) {
		server->directory_fd = open(server->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		r = server->directory_fd < 0 ? -errno : 0;
	}
	/* whatever umask the agent was started with: consumers have to get through */
	if (r >= 0 && fchmod(server->directory_fd, 0755) < 0)
		r = -errno;
	if (r >= 0)
		r = sd_event_add_time(event, &server->tick, CLOCK_MONOTONIC, 0, 10000, on_tick, server);
	if (r >= 0)
		r = sd_event_source_set_enabled(server->tick, SD_EVENT_OFF);
	if (r < 0) {
		fastpath_server_free(server);
		return r;
	}
	*ret = server;
	return 0;
}

void fastpath_server_free(struct fastpath_server *server)
{
	if (!server)
		return;
	for (size_t i = 0; i < server->n; i++)
		endpoint_free(server->endpoints[i]);
	free(server->endpoints);
	sd_event_source_disable_unref(server->tick);
	safe_close(server->directory_fd);
	free(server->directory);
	sd_event_unref(server->event);
	free(server);
}

void fastpath_server_clear(const char *run_dir)
{
	_cleanup_free_ char *path = NULL;
	_cleanup_closedir_ DIR *dir = NULL;

	if (asprintf(&path, "%s/" FASTPATH_DIRECTORY, run_dir) < 0) {
		path = NULL;
		return;
	}
	dir = opendir(path);
	for (struct dirent *entry; dir && (entry = readdir(dir));)
		if (entry->d_type != DT_DIR)
			(void)unlinkat(dirfd(dir), entry->d_name, 0);
	(void)rmdir(path);
}

int fastpath_server_state(struct fastpath_server *server, const char *name, struct fastpath_state *ret)
{
	struct endpoint *ep = endpoint_find(server, name);
	struct session *session;

	if (!ep)
		return -ENOENT;
	session = &ep->session;
	*ret = (struct fastpath_state){.name = ep->name,
		.phase = session->phase == FASTPATH_IDLE && ep->waiting ? FASTPATH_WAITING : session->phase,
		.reason = ep->waiting	? ep->waiting
			  : ep->last[0] ? ep->last
					: NULL,
		.huge = session->huge,
		.pieces = session->pieces,
		.sessions = ep->sessions,
		.ended_hung = ep->ended_hung,
		.n_queues = session->phase == FASTPATH_GRANTED ? 0 : session->n};
	if (session->connection) {
		ret->pid = session->connection->who.pid;
		ret->uid = session->connection->who.uid;
	}
	for (uint32_t i = 0; i < ret->n_queues; i++) {
		struct watched *watched = &session->queue[i];
		struct fastpath_queue_state *to = &ret->queue[i];

		session_count(watched);
		to->queue = (uint16_t)watched->xsk.queue;
		to->mode = watched->xsk.mode;
		to->reason = watched->xsk.reason;
		to->counted = ring_mapped(&watched->xsk.rx);
		to->rx = watched->rx;
		to->tx = watched->tx;
		to->rx_pending = to->counted ? ring_pending(&watched->xsk.rx) : 0;
		to->known = watched->xsk.fd >= 0 && xsk_statistics(watched->xsk.fd, &to->kernel) >= 0;
	}
	return 0;
}
