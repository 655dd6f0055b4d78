/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by server.c, session.c and record.c alone. */
#ifndef HEDDLE_FASTPATH_SERVER_INTERNAL_H
#define HEDDLE_FASTPATH_SERVER_INTERNAL_H

#include <sys/socket.h>

#include <fastpath/server.h>
#include <util/cleanup.h>
#include <util/clock.h>
#include <util/log.h>

#define CONNECTIONS_MAX 8 /* of one fast path, that have not said yet what they want */
#define SESSION_HELD \
	"a queue is held by another socket: of a consumer that was taken for hung and is still there, or of somebody else"
#define DENIED_MAX 4 /* of them, of users who may not have it: those find no place where the others would need it */

/* What the agent sees of a socket's rings: it maps them to read alone what indexes say. */
struct watched {
	struct xsk xsk;
	uint64_t cookie;
	uint32_t rx_seen, tx_seen, taken_seen; /* indexes, when last looked at */
	uint64_t rx, tx;
	uint64_t lost_seen; /* packets that found no room, when last looked at */
	uint64_t moved_ms;  /* when the consumer last took something, or had nothing to take */
};

struct endpoint;

struct connection {
	struct endpoint *endpoint;
	int fd;
	sd_event_source *source;
	struct ucred who;
	uint64_t since_ms;
	uint32_t pieces; /* that it has asked for: frames that a packet may be in */
	bool denied;	 /* is told so once it has spoken: what it said would be lost on it otherwise, and our answer with it */
	bool waits;	 /* has said HELLO, and the queue was not free yet */
};

struct session {
	enum fastpath_phase phase; /* IDLE, GRANTED, LIVE or ORPHANED */
	struct connection *connection;
	uint64_t id, since_ms;
	struct umem umem; /* while it is granted */
	bool huge;
	uint32_t pieces; /* frames that a packet may be in; 1: in one */
	bool mapped;	 /* by its consumer, and a queue was not free yet */
	uint32_t n;
	struct watched queue[FASTPATH_QUEUES];
};

struct endpoint {
	struct fastpath_server *server;
	char name[FASTPATH_NAME_MAX];
	struct fastpath_config config; /* with copies of users and groups */
	char *waiting;
	char last[160]; /* why the last session ended; "" none did */
	int listener;
	sd_event_source *source;
	mode_t mode;
	struct connection *connections[CONNECTIONS_MAX];
	struct session session;
	uint64_t sessions, ended_hung;
	bool wanted;
};

struct fastpath_server {
	sd_event *event;
	sd_event_source *tick;
	char *directory;
	int directory_fd;
	fastpath_socket_cb socket_cb;
	fastpath_refresh_cb refresh_cb;
	void *userdata;
	struct endpoint **endpoints;
	size_t n;
	enum { LATE_UNKNOWN, LATE_YES, LATE_NO } late; /* rings of bound sockets can be mapped */
};

/* --- server.c --- */

void connection_free(struct connection *connection); /* NULL is fine */
void connection_tell(struct connection *connection, enum fastpath_type type, int error, const char *text);

/* --- session.c --- */

/*
 * Makes memory and sockets and hands them over: the session is granted. On an error *ret_why is for people, and session_end() is due; -EBUSY: a queue
 * is not free, as it may be in a moment.
 */
int session_grant(struct endpoint *ep, struct connection *connection, const char **ret_why);
int session_begin(struct endpoint *ep); /* the consumer has mapped everything; -EBUSY as above */
/* An earlier agent's. The fds that it has use for it takes out of fds. -ENOENT: it has ended; -EINVAL: these are not its sockets. */
int session_resume(
	struct endpoint *ep, struct connection *connection, const struct fastpath_message *message, int *fds, size_t n);
void session_free_sockets(struct session *session);
/* Packets go elsewhere, and everything of ours is given back; its connection goes too. */
void session_end(struct endpoint *ep, const char *why, bool tell);
bool session_hung(struct endpoint *ep, uint64_t now);
/*
 * Ahead of the end of one that hangs: its process keeps the sockets, and while it lives its memory is all that queues in zero-copy receive by, the
 * kernel's packets too.
 */
void session_give_back(struct endpoint *ep);
void session_count(struct watched *watched);

/* --- record.c --- */

int record_write(const struct endpoint *ep);
void record_remove(const struct endpoint *ep);
void record_adopt(struct endpoint *ep); /* what an earlier agent left: the session is orphaned, if there was one */

#endif
