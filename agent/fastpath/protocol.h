/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the agent and the library say to each other, over a SOCK_SEQPACKET unix socket, RUN_DIR/fastpath/NAME. One form of message, with its fds
 * as SCM_RIGHTS.
 *
 *   consumer                           agent
 *   HELLO                          ->          who it is, the kernel says (SO_PEERCRED)
 *                                  <- GRANT    memory and sockets; or REFUSED
 *   MAPPED                         ->          kernels before 6.4 map rings only before the socket is bound
 *                                  <- READY    bound: the modes are known; packets come from now on
 *   RESUME, with the sockets       ->          to an agent that was restarted
 *                                  <- READY    or REFUSED
 *                                  <- ENDED    at any time
 *
 * The end of the connection is the end of the session for the agent; for the consumer, it is when the next agent says so.
 */
#ifndef HEDDLE_FASTPATH_PROTOCOL_H
#define HEDDLE_FASTPATH_PROTOCOL_H

#include <stddef.h>
#include <stdint.h>

#define FASTPATH_MAGIC 0x68666131u
#define FASTPATH_PROTOCOL 1
#define FASTPATH_QUEUES 64
#define FASTPATH_FDS (FASTPATH_QUEUES + 1)
#define FASTPATH_DIRECTORY "fastpath" /* in the run directory */

enum fastpath_type {
	FASTPATH_HELLO = 1,
	FASTPATH_GRANT,
	FASTPATH_REFUSED,
	FASTPATH_MAPPED,
	FASTPATH_READY,
	FASTPATH_RESUME,
	FASTPATH_ENDED,
};

struct fastpath_message {
	uint32_t magic;
	uint16_t version;
	uint16_t type;	   /* enum fastpath_type */
	int32_t error;	   /* of REFUSED and ENDED: a negative errno */
	uint32_t n_queues; /* of GRANT, READY, RESUME */
	uint64_t session;  /* not 0 */
	/* of GRANT */
	uint32_t frame_size, frames;
	uint32_t rx, tx, fill, completion; /* sizes of the rings; tx 0: it does not send */
	uint32_t mtu;
	uint8_t mac[6];
	uint8_t huge;
	uint8_t reserved;
	uint32_t
		pieces; /* of HELLO: frames that a packet may be in, as far as the consumer goes; of GRANT: as it will be. 0 or 1: in one */
	struct {
		uint32_t ifindex;
		uint16_t queue;
		uint8_t mode; /* enum heddle_fastpath_mode; of READY */
		uint8_t reserved;
	} queue[FASTPATH_QUEUES];
	char text[160]; /* of REFUSED and ENDED: for people */
};
_Static_assert(sizeof(struct fastpath_message) == 64 + 8 * FASTPATH_QUEUES + 160, "no holes");

/* 0, or a negative errno. The fds stay the caller's. */
int fastpath_send(int fd, struct fastpath_message *message, const int *fds, size_t n);
/*
 * One message, whole, of this version and with no more fds than *n, or none: -EPROTO. *n is how many came along, in fds: the caller's, whatever is returned.
 * -EAGAIN: nothing is there (of a socket that does not block); -ECONNRESET: the other end is gone.
 */
int fastpath_recv(int fd, struct fastpath_message *message, int *fds, size_t *n);

#endif
