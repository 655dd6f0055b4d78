/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The listeners. libmicrohttpd runs without threads: its epoll descriptor is one source of the agent's event loop, its next
 * timeout another. Nothing here blocks; connections, bodies, streams and the time of a request are bounded.
 */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <systemd/sd-event.h>

#include <api/http.h>
#include <util/cleanup.h>
#include <util/log.h>

/* One accepted connection. Those that dawdle are shut down, streams excepted; idle ones also for want of room. */
struct accepted {
	struct accepted *next, **at;
	struct listener *listener;
	int fd;
	uid_t user;
	bool authorised, streaming;
	bool asking;	   /* from a request's first line and headers to the end of its answer */
	bool ending;	   /* shut down: libmicrohttpd closes it in its next run */
	uint64_t deadline; /* us, CLOCK_MONOTONIC */
};

struct listener {
	struct api *api;
	bool tcp;
	bool closed; /* a connection went in the last run */
	gid_t group; /* of the socket's file */
	struct MHD_Daemon *daemon;
	struct sd_event_source *io, *timer, *reaper;
	struct accepted *accepted;
};

struct server {
	struct api api; /* first: a struct api pointer is one to this */
	struct listener local, metrics;
	char *socket_path;
	dev_t socket_device; /* of our socket's file, so that only that one is removed */
	ino_t socket_inode;
};

static uint64_t now_us(const struct api *api)
{
	uint64_t now = 0;

	sd_event_now(api->event, CLOCK_MONOTONIC, &now);
	return now;
}

/* --- who may --- */

static bool in_group(int fd, const struct ucred *peer, gid_t group)
{
	gid_t groups[256];
	socklen_t length = sizeof(groups);

	if (peer->gid == group)
		return true;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &length) < 0)
		return false;
	for (size_t i = 0; i < length / sizeof(gid_t); i++)
		if (groups[i] == group)
			return true;
	return false;
}

/* The mode of the socket says the same; this holds also where a descriptor was passed on before privileges were dropped. */
static bool may(const struct listener *listener, int fd, uid_t *ret_user)
{
	struct ucred peer;
	socklen_t length = sizeof(peer);

	*ret_user = (uid_t)-1;
	if (listener->tcp)
		return true;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) < 0)
		return false;
	*ret_user = peer.uid;
	return peer.uid == 0 || peer.uid == geteuid() || in_group(fd, &peer, listener->group);
}

static bool has_too_many(const struct listener *listener, uid_t user)
{
	unsigned n = 0;

	if (listener->tcp || user == 0)
		return false;
	for (const struct accepted *at = listener->accepted; at; at = at->next)
		n += at->user == user;
	return n >= API_CONNECTIONS_USER;
}

/* --- connections --- */

/* libmicrohttpd sees the end and closes. */
static void end(struct accepted *accepted)
{
	accepted->ending = true;
	shutdown(accepted->fd, SHUT_RDWR);
}

/* Nothing was asked, nor is anything waiting to be read that might be a question. */
static bool is_idle(const struct accepted *accepted)
{
	int waiting = 0;

	if (accepted->ending || accepted->asking || accepted->streaming)
		return false;
	return ioctl(accepted->fd, FIONREAD, &waiting) == 0 && !waiting;
}

/*
 * For a connection that is not in the list yet. The last place is for those who come: before it is taken, the one that has been idle for longest goes.
 * At its limit libmicrohttpd accepts nobody, and who asks something would wait until one of those who ask nothing is timed out.
 */
static void make_room(struct listener *listener)
{
	struct accepted *longest = NULL;
	unsigned n = 0;

	for (struct accepted *at = listener->accepted; at; at = at->next)
		n += !at->ending;
	if (n + 1 < API_CONNECTIONS)
		return;
	/* the deadline of an idle one is as far from when it became that as any other's; of one time, the later ones are first in the list */
	for (struct accepted *at = listener->accepted; at; at = at->next)
		if ((!longest || at->deadline <= longest->deadline) && is_idle(at))
			longest = at;
	if (longest)
		end(longest);
}

static int on_reap(sd_event_source *source, uint64_t now, void *userdata)
{
	struct listener *listener = userdata;
	uint64_t next = UINT64_MAX;

	for (struct accepted *at = listener->accepted; at; at = at->next) {
		if (at->streaming)
			continue;
		if (at->deadline <= now)
			end(at);
		else if (at->deadline < next)
			next = at->deadline;
	}
	if (next != UINT64_MAX) {
		sd_event_source_set_time(source, next);
		sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
	}
	return 0;
}

static void set_deadline(struct accepted *accepted)
{
	struct listener *listener = accepted->listener;
	int enabled = SD_EVENT_OFF;

	accepted->deadline = now_us(listener->api) + (uint64_t)API_REQUEST_SECONDS * 1000000;
	sd_event_source_get_enabled(listener->reaper, &enabled);
	if (enabled == SD_EVENT_OFF) {
		sd_event_source_set_time(listener->reaper, accepted->deadline);
		sd_event_source_set_enabled(listener->reaper, SD_EVENT_ONESHOT);
	}
}

static void on_connection(
	void *userdata, struct MHD_Connection *connection, void **context, enum MHD_ConnectionNotificationCode code)
{
	struct listener *listener = userdata;
	struct accepted *accepted = *context;

	if (code == MHD_CONNECTION_NOTIFY_STARTED) {
		accepted = calloc(1, sizeof(*accepted));
		if (!accepted)
			return; /* refused at its first request */
		accepted->listener = listener;
		accepted->fd = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
		accepted->authorised = may(listener, accepted->fd, &accepted->user);
		if (has_too_many(listener, accepted->user))
			end(accepted);
		else
			make_room(listener);
		accepted->next = listener->accepted;
		accepted->at = &listener->accepted;
		if (accepted->next)
			accepted->next->at = &accepted->next;
		listener->accepted = accepted;
		set_deadline(accepted);
		*context = accepted;
		return;
	}
	listener->closed = true;
	if (!accepted)
		return;
	*accepted->at = accepted->next;
	if (accepted->next)
		accepted->next->at = accepted->at;
	free(accepted);
	*context = NULL;
	if (!listener->accepted)
		sd_event_source_set_enabled(listener->reaper, SD_EVENT_OFF);
}

static struct accepted *accepted_of(struct MHD_Connection *connection)
{
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);

	return info ? info->socket_context : NULL;
}

/* --- requests --- */

static void request_free(struct request *request)
{
	request->api->bodies -= request->body.length;
	buffer_clear(&request->body);
	free(request->path);
	free(request);
}

static void on_completed(void *userdata, struct MHD_Connection *connection, void **state, enum MHD_RequestTerminationCode code)
{
	struct accepted *accepted = accepted_of(connection);
	struct request *request = *state;

	(void)userdata;
	(void)code;
	if (request) {
		if (request->large)
			request->api->ops->tidy(request->api->userdata);
		request_free(request);
	}
	*state = NULL;
	if (accepted) {
		accepted->asking = false;
		set_deadline(accepted);
	}
}

/* A request that cannot be served is answered before its body is read, and the connection closed. */
static enum MHD_Result begin(
	struct listener *listener, struct MHD_Connection *connection, const char *path, const char *method, void **state)
{
	const char *length_text = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_CONTENT_LENGTH);
	struct accepted *accepted = accepted_of(connection);
	struct request *request = calloc(1, sizeof(*request));
	unsigned status;

	if (!request)
		return MHD_NO;
	*state = request;
	if (accepted)
		accepted->asking = true;
	request->api = listener->api;
	request->connection = connection;
	if (!accepted || !accepted->authorised)
		return respond_error(request, MHD_HTTP_FORBIDDEN, NULL, "only root and the group of the socket may ask");
	request->path = strdup(path);
	if (!request->path)
		return respond_failure(request, -ENOMEM, NULL);
	request->route = route_find(method, request->path, listener->tcp, &request->kind, &request->name, &status);
	if (!request->route)
		return respond_error(request, status, NULL, status == MHD_HTTP_NOT_FOUND ? "no such path" : "not by this method");
	request->limit = request->route->body;
	if (length_text && strtoull(length_text, NULL, 10) > request->limit)
		return respond_error(
			request, MHD_HTTP_CONTENT_TOO_LARGE, NULL, "the body may have %zu bytes at most", request->limit);
	return MHD_YES;
}

static enum MHD_Result on_request(void *userdata, struct MHD_Connection *connection, const char *url, const char *method,
	const char *version, const char *data, size_t *size, void **state)
{
	struct request *request = *state;
	enum MHD_Result result;

	(void)version;
	if (!request)
		return begin(userdata, connection, url, method, state);
	if (*size) {
		struct api *api = request->api;

		if (request->body.length + *size > request->limit || api->bodies + *size > API_BODIES_TOTAL) {
			request->too_large = true;
		} else if (!request->too_large) {
			size_t before = request->body.length;

			buffer_add(&request->body, data, *size);
			api->bodies += request->body.length - before;
		}
		*size = 0;
		/* without an announced length there is no end in sight: closed */
		return request->too_large ? MHD_NO : MHD_YES;
	}
	if (request->body.failed)
		return respond_failure(request, -ENOMEM, NULL);
	result = request->route->handle(request);
	if (request->streaming)
		accepted_of(connection)->streaming = true;
	return result;
}

/* --- the event loop --- */

static void run(struct listener *listener)
{
	MHD_UNSIGNED_LONG_LONG timeout;

	/* An answer is written in the run after the one that made it: now, not after what the event loop has in between. */
	for (unsigned round = 0; round < 8; round++) {
		listener->closed = false;
		MHD_run(listener->daemon);
		/* Once more after a connection went: at its limit libmicrohttpd listens again only from its next run on, and nothing else wakes it. */
		if (!listener->closed && (MHD_get_timeout(listener->daemon, &timeout) != MHD_YES || timeout))
			break;
	}
	if (MHD_get_timeout(listener->daemon, &timeout) == MHD_YES) {
		sd_event_source_set_time_relative(listener->timer, (uint64_t)timeout * 1000);
		sd_event_source_set_enabled(listener->timer, SD_EVENT_ONESHOT);
	} else {
		sd_event_source_set_enabled(listener->timer, SD_EVENT_OFF);
	}
}

static int on_io(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	(void)source;
	(void)fd;
	(void)events;
	run(userdata);
	return 0;
}

static int on_timer(sd_event_source *source, uint64_t now, void *userdata)
{
	(void)source;
	(void)now;
	run(userdata);
	return 0;
}

static int on_resumed(sd_event_source *source, void *userdata)
{
	(void)source;
	run(userdata);
	return 0;
}

static void log_mhd(void *userdata, const char *format, va_list args) __attribute__((format(printf, 2, 0)));
static void log_mhd(void *userdata, const char *format, va_list args)
{
	(void)userdata;
	if (log_level() >= LOG_DEBUG)
		log_messagev(LOG_DEBUG, 0, format, args);
}

static int listener_start(struct listener *listener, struct api *api, int fd)
{
	const union MHD_DaemonInfo *info;
	int r;

	listener->api = api;
	r = sd_event_add_time_relative(api->event, &listener->reaper, CLOCK_MONOTONIC, 0, 1000000, on_reap, listener);
	if (r >= 0)
		r = sd_event_source_set_enabled(listener->reaper, SD_EVENT_OFF);
	if (r >= 0)
		r = sd_event_add_time_relative(api->event, &listener->timer, CLOCK_MONOTONIC, 0, 1000, on_timer, listener);
	if (r >= 0)
		r = sd_event_source_set_enabled(listener->timer, SD_EVENT_OFF);
	if (r < 0) {
		safe_close(fd);
		return r;
	}
	/* takes fd over */
	listener->daemon = MHD_start_daemon(MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG, 0, NULL, NULL,
		on_request, listener, MHD_OPTION_EXTERNAL_LOGGER, log_mhd, NULL, MHD_OPTION_LISTEN_SOCKET, fd,
		MHD_OPTION_CONNECTION_LIMIT, (unsigned)API_CONNECTIONS, MHD_OPTION_CONNECTION_TIMEOUT,
		(unsigned)API_CONNECTION_SECONDS, MHD_OPTION_NOTIFY_COMPLETED, on_completed, NULL, MHD_OPTION_NOTIFY_CONNECTION,
		on_connection, listener, MHD_OPTION_END);
	if (!listener->daemon) {
		safe_close(fd);
		return -EIO;
	}
	info = MHD_get_daemon_info(listener->daemon, MHD_DAEMON_INFO_EPOLL_FD);
	if (!info)
		return -EIO;
	return sd_event_add_io(api->event, &listener->io, info->epoll_fd, EPOLLIN, on_io, listener);
}

static void listener_stop(struct listener *listener)
{
	sd_event_source_disable_unref(listener->io);
	sd_event_source_disable_unref(listener->timer);
	if (listener->daemon) {
		/* once more for those that were just resumed: libmicrohttpd does not stop with suspended connections */
		MHD_run(listener->daemon);
		MHD_stop_daemon(listener->daemon);
	}
	sd_event_source_disable_unref(listener->reaper);
	*listener = (struct listener){0};
}

/* --- sockets --- */

static int listen_local(struct server *server, const char *run_dir)
{
	_cleanup_close_ int directory = open(run_dir, O_PATH | O_DIRECTORY | O_CLOEXEC), fd = -1;
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct stat st;
	mode_t mask;
	int r;

	if (directory < 0)
		return -errno;
	if (asprintf(&server->socket_path, "%s/%s", run_dir, API_SOCKET_NAME) < 0) {
		server->socket_path = NULL;
		return -ENOMEM;
	}
	/* through the directory's descriptor: sun_path holds 108 bytes only, and run_dir may be longer */
	snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/%s", directory, API_SOCKET_NAME);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	if (unlinkat(directory, API_SOCKET_NAME, 0) < 0 && errno != ENOENT)
		return -errno;
	mask = umask(0117);
	r = bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ? -errno : 0;
	umask(mask);
	if (r < 0)
		return r;
	if (fstatat(directory, API_SOCKET_NAME, &st, AT_SYMLINK_NOFOLLOW) < 0 || listen(fd, API_CONNECTIONS) < 0)
		return -errno;
	server->local.group = st.st_gid;
	server->socket_device = st.st_dev;
	server->socket_inode = st.st_ino;
	return listener_start(&server->local, &server->api, TAKE_FD(fd));
}

/* Splits "1.2.3.4:9100", "[::1]:9100". */
static int split_address(const char *text, char **ret_host, const char **ret_port)
{
	const char *colon = strrchr(text, ':');
	size_t length = colon ? (size_t)(colon - text) : 0;

	if (!length || !colon[1])
		return -EINVAL;
	if (*text == '[') {
		if (length < 3 || text[length - 1] != ']')
			return -EINVAL;
		text++;
		length -= 2;
	} else if (memchr(text, ':', length)) {
		return -EINVAL;
	}
	*ret_host = strndup(text, length);
	*ret_port = colon + 1;
	return *ret_host ? 0 : -ENOMEM;
}

static int find_address(const char *text, struct addrinfo **ret)
{
	const struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE, .ai_socktype = SOCK_STREAM};
	_cleanup_free_ char *host = NULL;
	const char *port;
	int r = split_address(text, &host, &port);

	if (r < 0)
		return r;
	/* getaddrinfo() takes the lower 16 bits of whatever number it gets */
	if (strspn(port, "0123456789") != strlen(port) || strlen(port) > 5 || atoi(port) < 1 || atoi(port) > UINT16_MAX)
		return -EINVAL;
	return getaddrinfo(host, port, &hints, ret) ? -EINVAL : 0;
}

bool api_metrics_address(const char *text)
{
	struct addrinfo *found;

	if (find_address(text, &found) < 0)
		return false;
	freeaddrinfo(found);
	return true;
}

static int listen_tcp(struct server *server, const char *text)
{
	_cleanup_close_ int fd = -1;
	struct addrinfo *found;
	int r = find_address(text, &found), on = 1;

	if (r < 0)
		return r;
	fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	r = fd < 0 ? -errno : 0;
	if (r >= 0) {
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
		/* the address may come later than the agent, which starts before the network */
		setsockopt(fd, SOL_IP, IP_FREEBIND, &on, sizeof(on));
		setsockopt(fd, SOL_IPV6, IPV6_FREEBIND, &on, sizeof(on));
		if (bind(fd, found->ai_addr, found->ai_addrlen) < 0 || listen(fd, 16) < 0)
			r = -errno;
	}
	freeaddrinfo(found);
	if (r < 0)
		return r;
	server->metrics.tcp = true;
	return listener_start(&server->metrics, &server->api, TAKE_FD(fd));
}

int api_new(struct sd_event *event, const struct api_config *config, struct api **ret)
{
	struct server *server = calloc(1, sizeof(*server));
	int r;

	if (!server)
		return -ENOMEM;
	server->api = (struct api){.event = event, .view = config->view, .ops = config->ops, .userdata = config->userdata};
	r = sd_event_add_defer(event, &server->api.resumed, on_resumed, &server->local);
	if (r >= 0)
		r = sd_event_source_set_enabled(server->api.resumed, SD_EVENT_OFF);
	if (r >= 0)
		r = listen_local(server, config->run_dir);
	if (r < 0) {
		log_err(r, "cannot listen on %s/%s", config->run_dir, API_SOCKET_NAME);
		api_free(&server->api);
		return r;
	}
	if (config->metrics) {
		r = listen_tcp(server, config->metrics);
		if (r < 0) {
			log_err(r, "cannot serve metrics on %s", config->metrics);
			api_free(&server->api);
			return r;
		}
	}
	*ret = &server->api;
	return 0;
}

void api_free(struct api *api)
{
	struct server *server = CONTAINER_OF(api, struct server, api);
	struct stat st;

	streams_end(api);
	listener_stop(&server->local);
	listener_stop(&server->metrics);
	sd_event_source_disable_unref(api->poll_flows);
	sd_event_source_disable_unref(api->resumed);
	if (server->socket_path && server->socket_inode && !lstat(server->socket_path, &st) &&
		st.st_dev == server->socket_device && st.st_ino == server->socket_inode)
		unlink(server->socket_path);
	free(server->socket_path);
	free(server);
}
