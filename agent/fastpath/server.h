/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent's end: a listening socket for each fast path, and who is served there. One consumer at a time has one; each has memory of its own.
 *
 * What becomes of a session:
 *   idle ─HELLO─► granted ─MAPPED─► live ─► idle      the connection ended, the consumer hung, the document changed
 *                    └─ five seconds ─► idle
 *   orphaned ─RESUME─► live                           an earlier agent's, found on disk
 *      └─ ten seconds ─► idle
 */
#ifndef HEDDLE_FASTPATH_SERVER_H
#define HEDDLE_FASTPATH_SERVER_H

#include <net/if.h>
#include <sys/types.h>

#include <systemd/sd-event.h>

#include <fastpath/protocol.h>
#include <fastpath/xsk.h>

struct fastpath_server;

#define FASTPATH_NAME_MAX 64

/* What a fast path shall be. Pointers need live only as long as the call. */
struct fastpath_config {
	const char *name;
	const char *waiting; /* why nobody can be served now; NULL: somebody can */
	char device[IF_NAMESIZE];
	uint32_t ifindex;
	uint16_t queues[FASTPATH_QUEUES];
	uint32_t n_queues;
	bool port; /* else an uplink */
	bool transmits;
	bool generic;				/* its XDP program runs in generic mode */
	const char *copy_only[FASTPATH_QUEUES]; /* of each of them: static; why zero-copy is not tried */
	bool several;		   /* a consumer that asks for it has packets in several frames: xsk_takes_several() */
	const char *several_copy;  /* and no zero-copy with them: static; why. NULL: as without */
	uint32_t zero_copy_pieces; /* as in struct xsk_binding */
	uint32_t frames, frame_size, ring;
	struct xsk_busy_poll busy;
	uint32_t stall_ms;
	const uint32_t *users, *groups;
	size_t n_users, n_groups;
	uint32_t mtu;
	uint8_t mac[6];
	int node; /* NUMA; -1: none */
};

/* What a session's sockets take, in bytes from the Ethernet header on. */
struct fastpath_room {
	uint32_t one, several; /* in one buffer, and in several of the driver's: 0: none */
};
/*
 * Has the socket get what comes by its queue; -1: nobody does, and room is NULL. Called in the order of events, also before fastpath_server_set()
 * returns.
 */
typedef int (*fastpath_socket_cb)(const char *name, uint16_t queue, int fd, const struct fastpath_room *room, void *userdata);
/* Before somebody is served: what may have changed without fastpath_server_set() being called. */
typedef void (*fastpath_refresh_cb)(const char *name, struct fastpath_config *config, void *userdata);

int fastpath_server_new(sd_event *event, const char *run_dir, fastpath_socket_cb socket_cb, fastpath_refresh_cb refresh_cb,
	void *userdata, struct fastpath_server **ret);
/* All fast paths, as they shall be from now on. Sessions go on where what they were made for did not change. The first error. */
int fastpath_server_set(struct fastpath_server *server, const struct fastpath_config *configs, size_t n);
/* Consumers keep their sockets, and the next agent finds who they are. NULL is fine. */
void fastpath_server_free(struct fastpath_server *server);
/* The sockets that consumers connect to, and what is kept of sessions: of a run directory that no agent serves any more. */
void fastpath_server_clear(const char *run_dir);

/* --- reading --- */

enum fastpath_phase { FASTPATH_WAITING, FASTPATH_IDLE, FASTPATH_GRANTED, FASTPATH_LIVE, FASTPATH_ORPHANED };
extern const char *const fastpath_phase_name[];

struct fastpath_queue_state {
	uint16_t queue;
	enum xsk_mode mode;
	const char *reason; /* why not a better one; "" none */
	bool counted;	    /* rx and tx are known */
	uint64_t rx, tx;    /* frames, of this session, since this agent knows of it */
	bool known;	    /* the kernel's numbers are */
	struct xsk_statistics kernel;
	uint32_t rx_pending; /* frames that the consumer has not taken yet */
};

struct fastpath_state {
	const char *name;
	enum fastpath_phase phase;
	const char *reason; /* of WAITING, or why the last session ended; NULL: none */
	pid_t pid;	    /* of GRANTED, LIVE */
	uid_t uid;
	bool huge;
	uint32_t pieces;	       /* frames that a packet may be in; of LIVE and ORPHANED */
	uint64_t sessions, ended_hung; /* of this agent */
	uint32_t n_queues;	       /* sockets; of LIVE and ORPHANED */
	struct fastpath_queue_state queue[FASTPATH_QUEUES];
};
/* -ENOENT. Strings live until the next change. */
int fastpath_server_state(struct fastpath_server *server, const char *name, struct fastpath_state *ret);

#endif
