/* SPDX-License-Identifier: Apache-2.0 */
/*
 * AF_XDP sockets over <linux/if_xdp.h>, for the agent, which makes and binds them, and for the library, which maps what it was handed. Functions
 * return 0 or a negative errno and log nothing.
 *
 * An owner's order: xsk_create(), xsk_map() if it will move frames itself, xsk_bind(). Kernels older than 6.4 map rings only before the socket is
 * bound; xsk_maps_late() finds out which it is.
 */
#ifndef HEDDLE_FASTPATH_XSK_H
#define HEDDLE_FASTPATH_XSK_H

#include <fastpath/ring.h>
#include <fastpath/umem.h>

#define XSK_REASON 160
#define XSK_RING_MOST 32768
/* Descriptors of one packet: what an skb takes at least (CONFIG_MAX_SKB_FRAGS), whichever way the kernel makes it. */
#define XSK_PIECES_MOST 17
/* The kernel keeps XDP_PACKET_HEADROOM in front of what it writes into a frame. */
#define XSK_FRAME_MOST(frame_size) ((frame_size)-256)

/* How packets reach the socket; the best first. */
enum xsk_mode { XSK_UNBOUND, XSK_ZERO_COPY, XSK_COPY, XSK_GENERIC };
const char *xsk_mode_name(enum xsk_mode mode);

struct xsk_sizes {
	uint32_t rx, tx, fill, completion; /* entries, powers of two; tx 0: it cannot send, and has no completion ring in use */
};

struct xsk {
	int fd;
	uint32_t ifindex, queue;
	enum xsk_mode mode;
	char reason[XSK_REASON]; /* why not a better mode; "" none */
	uint32_t pieces;	 /* descriptors that a packet can have at most; 1: it is in one */
	struct xsk_sizes sizes;
	struct xsk_ring rx, tx, fill, completion;
};
#define XSK_NONE ((struct xsk){.fd = -1})

/*
 * A socket with its rings. It registers the memory itself, which any number of sockets may do: so each is bound in the best mode of its own queue. Asks for
 * CAP_NET_RAW, and of RLIMIT_MEMLOCK without CAP_IPC_LOCK.
 */
int xsk_create(const struct umem *umem, const struct xsk_sizes *sizes, struct xsk *ret);

struct xsk_binding {
	uint32_t ifindex, queue;
	bool generic; /* the device's XDP program runs in generic mode: the kernel has copied the packet before it is seen */
	const char *copy_only; /* why zero-copy is not to be tried; NULL: it is */
	bool several; /* packets may be in several frames: rather by copies than in one only. -EOPNOTSUPP: xsk_takes_several() */
	uint32_t zero_copy_pieces; /* that the driver takes in zero-copy; 0: none are known, 1: one only */
};
/*
 * Zero-copy where the driver has it, else copies; need_wakeup either way. The device is fixed (SO_BINDTODEVICE), so that who has the fd can bind it to
 * no other. -EBUSY: the queue or the socket is taken.
 */
int xsk_bind(struct xsk *xsk, const struct xsk_binding *binding);
/* 0: the kernel has sockets whose packets are in several frames (Linux 6.6). -EOPNOTSUPP; -EPERM and others: it was not to be found out. */
int xsk_takes_several(void);
/* Bytes of the longest packet of so many pieces. */
uint32_t xsk_packet_most(uint32_t frame_size, uint32_t pieces, enum xsk_mode mode);
/* Fixed before the fd leaves the process, where binding comes after that. */
int xsk_fix_device(struct xsk *xsk, const char *device);

/* Maps the rings that it has. -EBUSY: bound already, and the kernel is older than 6.4. */
int xsk_map(struct xsk *xsk);
void xsk_unmap(struct xsk *xsk);
/* Maps rings of a socket that somebody else made, and says what it is like; the fd is taken on success. -ENOTSOCK, -EINVAL: it is no AF_XDP socket. */
int xsk_attach(int fd, const struct xsk_sizes *sizes, struct xsk *ret);
int xsk_is(int fd); /* 0: an AF_XDP socket */
int xsk_maps_late(const struct xsk *bound, bool *ret);
void xsk_close(struct xsk *xsk); /* idempotent */

/*
 * For one whose other user took nothing: what was received into its memory and is not taken is the kernel's again, which in zero-copy has nothing else to
 * receive by, whoever the packets are for. The other user's end of the rx ring is moved, by which it may know. Not while it moves frames.
 */
void xsk_give_back(struct xsk *xsk);

struct xsk_busy_poll {
	uint32_t us;	 /* 0: none */
	uint32_t budget; /* packets; 0: the kernel's */
};
/* SO_PREFER_BUSY_POLL and its two companions. Asks for CAP_NET_ADMIN. */
int xsk_busy_poll(struct xsk *xsk, const struct xsk_busy_poll *busy);

/* Where the kernel copies: so many frames with one call to wake it, instead of 32. -ENOPROTOOPT: not before Linux 6.17. */
int xsk_send_at_once(struct xsk *xsk, uint32_t frames);

struct xsk_statistics {
	uint64_t rx_dropped, rx_invalid, tx_invalid, rx_ring_full, fill_ring_empty, tx_ring_empty;
};
int xsk_statistics(int fd, struct xsk_statistics *ret);

/* The other end is called when it says that it sleeps. 0: done, or tried: it is asked again when there is more to do. */
int xsk_wake_tx(struct xsk *xsk);
int xsk_wake_rx(struct xsk *xsk);

#endif
