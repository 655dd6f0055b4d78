/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * libheddle-fastpath: packets to and from an unprivileged process over AF_XDP, by a FastPath document of heddled's configuration.
 *
 * The agent makes the memory and the sockets and hands their file descriptors over; from then on packets go past it. The data plane goes on with the
 * agent restarted: the library registers with the new one by itself, inside the calls below.
 *
 * Functions return 0, a count, or a negative errno. A handle is for one thread at a time; several handles do not know of each other. After fork(), one
 * of both processes may use it. Frames are shared with the kernel only: never with another consumer.
 */
#ifndef HEDDLE_FASTPATH_H
#define HEDDLE_FASTPATH_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define HEDDLE_FASTPATH_VERSION 1

struct heddle_fastpath;

/*
 * A frame, from its Ethernet header on. It is the caller's from receive() or allocate() until release() or transmit() takes it. Nothing may be
 * written outside of data[0 .. room - 1], where room is said by heddle_fastpath_info.
 */
struct heddle_fastpath_frame {
	void *data;
	uint32_t length;  /* bytes that are there, or shall be sent */
	uint32_t queue;	  /* index of the socket it came by, or goes out by: 0 .. queues - 1 */
	uint64_t address; /* the library's own: the place in memory; whole frames are known by it */
};

/*
 * A packet can be in several frames, one behind the other, where that was asked for (HEDDLE_FASTPATH_SEVERAL): all but the last have this in their address,
 * and headers are in the first. An array always has whole packets.
 */
#define HEDDLE_FASTPATH_MORE (1ull << 63)

static inline int heddle_fastpath_more(const struct heddle_fastpath_frame *frame)
{
	return (frame->address & HEDDLE_FASTPATH_MORE) != 0;
}

/* For packets that are put together, or taken apart, by the caller. */
static inline void heddle_fastpath_set_more(struct heddle_fastpath_frame *frame, int more)
{
	frame->address = more ? frame->address | HEDDLE_FASTPATH_MORE : frame->address & ~HEDDLE_FASTPATH_MORE;
}

/* How packets of a queue reach the memory. */
enum heddle_fastpath_mode { HEDDLE_FASTPATH_ZERO_COPY = 1, HEDDLE_FASTPATH_COPY = 2, HEDDLE_FASTPATH_GENERIC = 3 };

struct heddle_fastpath_info {
	uint32_t queues;   /* sockets of this handle */
	uint32_t frames;   /* in memory, of all queues */
	uint32_t room;	   /* bytes that a frame to be sent can have */
	uint32_t mtu;	   /* bytes behind the Ethernet header: of the device when the session began */
	uint8_t mac[6];	   /* which frames to be sent have as their source: the port's or the uplink's; zero: not known */
	uint8_t transmits; /* 0: an uplink without `trusted: true` */
	uint8_t huge;	   /* memory is in huge pages */
};

struct heddle_fastpath_queue {
	uint32_t ifindex, queue; /* of the device */
	uint32_t mode;		 /* enum heddle_fastpath_mode */
};

struct heddle_fastpath_statistics {
	uint64_t received, transmitted; /* frames, by this handle */
	uint64_t wakeups;		/* system calls that woke the kernel's side */
	uint64_t rx_dropped;		/* by the kernel: too long for a frame, or no room */
	uint64_t rx_ring_full;		/* the caller did not receive fast enough */
	uint64_t fill_ring_empty;	/* the caller kept too many frames */
	uint64_t tx_invalid;
};

/*
 * Connects to the agent. directory: its run directory, NULL: /run/heddle; name: of the FastPath document. Waits for the agent's answer, five seconds
 * at most. -EACCES: the document does not let this user in; -EBUSY: another consumer has it; -ENOENT, -ECONNREFUSED: no such document, no agent;
 * -ETIMEDOUT; -EPROTO: another version of the agent. heddle_fastpath_refusal() has the agent's words.
 */
int heddle_fastpath_open(const char *directory, const char *name, struct heddle_fastpath **ret);

/*
 * For heddle_fastpath_open_with(). SEVERAL: packets may be in several frames, as those of a jumbo MTU are; without it, and where it cannot be had (Linux
 * before 6.6, or a driver's zero-copy that has none), what is longer than a frame does not come: it goes by the document's fallback.
 */
#define HEDDLE_FASTPATH_SEVERAL (1u << 0)
/* The same with options, 0: none. -EINVAL: there is no such option. */
int heddle_fastpath_open_with(const char *directory, const char *name, uint32_t options, struct heddle_fastpath **ret);
/* Frames that a packet can be in at most, to be received or sent: 1, or with HEDDLE_FASTPATH_SEVERAL up to HEDDLE_FASTPATH_PIECES. */
#define HEDDLE_FASTPATH_PIECES 17
uint32_t heddle_fastpath_pieces(const struct heddle_fastpath *fp);

/* Why the last heddle_fastpath_open() of this thread failed; "": the agent did not say. */
const char *heddle_fastpath_refusal(void);
/* Everything goes back to the agent; frames must not be touched any more. NULL is fine. */
void heddle_fastpath_close(struct heddle_fastpath *fp);

void heddle_fastpath_get_info(const struct heddle_fastpath *fp, struct heddle_fastpath_info *ret);
/* -EINVAL: there is no such queue. */
int heddle_fastpath_get_queue(const struct heddle_fastpath *fp, uint32_t queue, struct heddle_fastpath_queue *ret);
int heddle_fastpath_get_statistics(struct heddle_fastpath *fp, uint32_t queue, struct heddle_fastpath_statistics *ret);

/* For poll(), select(), epoll: readable when receive() has something to do. The handle's own: not to be read or closed. */
int heddle_fastpath_fd(struct heddle_fastpath *fp);

/*
 * Up to n frames, of all queues in turn; 0: none is there. Never waits. -ENOTCONN: the agent has ended the session (the document went or
 * changed, or this consumer was taken for hung): nothing comes any more; close, and open again. -EINVAL: n is less than heddle_fastpath_pieces(), so
 * that there may be no room for a packet.
 */
int heddle_fastpath_receive(struct heddle_fastpath *fp, struct heddle_fastpath_frame *frames, uint32_t n);
/* Frames that are not needed any more. -EINVAL: one of them is not the caller's; those before it are released. */
int heddle_fastpath_release(struct heddle_fastpath *fp, const struct heddle_fastpath_frame *frames, uint32_t n);
/* Up to n empty frames to be filled and sent, for this queue; fewer, or 0, while all are in use. -EINVAL: there is no such queue. */
int heddle_fastpath_allocate(struct heddle_fastpath *fp, uint32_t queue, struct heddle_fastpath_frame *frames, uint32_t n);
/*
 * Sends frames by their queues, in order, whether received or allocated: a received frame is sent as it is, changed or not, without a copy. Returns how
 * many were taken, all of a packet or none; the others stay the caller's: the queue is full. -EINVAL: the first one that was not taken is not the caller's, its length is
 * nothing that can be sent or its queue does not exist, or its packet has no end, is in several queues or in more than heddle_fastpath_pieces() frames;
 * -EPERM: this handle only receives; -ENOTCONN as above.
 */
int heddle_fastpath_transmit(struct heddle_fastpath *fp, const struct heddle_fastpath_frame *frames, uint32_t n);

#ifdef __cplusplus
}
#endif

#endif
