/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Which packets go to AF_XDP sockets: by device, then by the fields of a packet that some match of the device asks about. */
#ifndef HEDDLE_STEER_H
#define HEDDLE_STEER_H

#include <heddle/types.h>

#define HD_FAST_PATHS 64  /* documents; the index of one is a number below that */
#define HD_FAST_QUEUES 64 /* of a device */
#define HD_FAST_SHAPES 8  /* of the matches of one device */
#define HD_FAST_MATCHES 4096

/* Where the socket of a queue is in `xsks`. */
#define HD_FAST_SOCKET(index, queue) ((index)*HD_FAST_QUEUES + (queue))

enum hd_match_field {
	HD_MATCH_RULE = 1 << 0, /* that let the packet in */
	HD_MATCH_PROTOCOL = 1 << 1,
	HD_MATCH_SPORT = 1 << 2,
	HD_MATCH_DPORT = 1 << 3,
	HD_MATCH_VLAN = 1 << 4,
};

enum hd_fast_flags {
	HD_FAST_DROP = 1 << 0, /* what no socket takes */
	HD_FAST_FORWARD =
		1 << 1, /* of a match: for the agent's workers, if the host would forward it: hd_fast_forward says where */
	/* Of hd_fast_forward: */
	HD_FAST_STAMP = 1 << 2,	 /* with the time */
	HD_FAST_PORT = 1 << 3,	 /* a port: what XDP tells of its frames is in front of each, as part of it */
	HD_FAST_INSIDE = 1 << 4, /* beside PORT: to other ports only, since netfilter has to see what leaves for elsewhere */
	HD_FAST_DIRECT = 1 << 5, /* takes frames from XDP: what leaves by it goes there at once, without a worker */
	HD_FAST_DIRECT_SEVERAL = 1 << 6, /* beside DIRECT: frames in several buffers, too, which other devices would lose */
};

/* Matches of one shape ask about the same fields, and as many bits of the addresses: a packet is looked up once for all of them. */
struct hd_match_shape {
	struct hd_addr source, destination; /* masks; all zero: any address, and frames that are not IP */
	__u32 fields;			    /* enum hd_match_field */
	__u32 id;			    /* HD_MATCH_SHAPE: the same for the same shape, wherever it stands */
};
#define HD_MATCH_SHAPE(fields, source_bits, destination_bits) ((fields) | (source_bits) << 8 | (destination_bits) << 16)
static_assert(sizeof(struct hd_match_shape) == 40, "hd_match_shape");

struct hd_fast_device {
	__u32 shapes; /* 0: everything goes to index */
	__u16 index;
	__u16 flags;				     /* enum hd_fast_flags */
	struct hd_match_shape shape[HD_FAST_SHAPES]; /* the narrowest first */
};
static_assert(sizeof(struct hd_fast_device) == 8 + HD_FAST_SHAPES * sizeof(struct hd_match_shape), "hd_fast_device");

/* Fields that the shape does not ask about are 0. */
struct hd_match_key {
	__u32 ifindex;
	__u32 shape; /* its id */
	struct hd_addr source, destination;
	__u32 rule;
	__be16 sport, dport;
	__u16 vlan; /* id of the outer tag, without any flag */
	__u8 protocol;
	__u8 reserved[5];
};
static_assert(sizeof(struct hd_match_key) == 56, "hd_match_key");

struct hd_match {
	__u16 index;
	__u16 flags; /* enum hd_fast_flags */
};
static_assert(sizeof(struct hd_match) == 4, "hd_match");

/* A device between which and the others of its group frames are moved, by XDP itself or the agent's workers. Each has an index of its own. */
struct hd_fast_forward {
	__u16 index; /* also its number in hd_fast_meta */
	__u16 group; /* those of one document */
	__u16 flags; /* enum hd_fast_flags */
	__u8 mac[6]; /* frames to another one are not the host's to forward */
};
static_assert(sizeof(struct hd_fast_forward) == 12, "hd_fast_forward");

/*
 * What the sockets of an index take, in bytes from the Ethernet header on. Frames of any socket hold HD_FAST_SURE, so most packets are not looked up. 0: in one
 * buffer any length (the kernel sees what does not fit, and counts it); in several none.
 */
#define HD_FAST_SURE 1776
struct hd_fast_room {
	__u32 one;     /* in one buffer */
	__u32 several; /* in several */
};
static_assert(sizeof(struct hd_fast_room) == 8, "hd_fast_room");

/* Whose an index is. It stays the document's over restarts, since sockets and counters are found by it. */
struct hd_fast_name {
	char name[64]; /* "": nobody's */
};
static_assert(sizeof(struct hd_fast_name) == 64, "hd_fast_name");

/* Per fast path, in `fast_counters`. */
enum hd_fast_total {
	HD_FAST_TAKEN = 0, /* went to a socket; what became of it there, the socket knows */
	HD_FAST_PASSED,	   /* no socket was there: it went on to the kernel, */
	HD_FAST_DROPPED,   /* or not */
	HD_FAST_TOO_BIG,   /* for its sockets (hd_fast_room), among those passed or dropped */
	HD_FAST_TOTALS
};
#define HD_FAST_COUNTER(index, what) ((index)*HD_FAST_TOTALS + (what))

/*
 * What XDP writes in front of a frame for the agent's own workers: of an uplink as metadata (bpf_xdp_adjust_meta), which the kernel keeps there; of a port as
 * the first bytes of the frame, since taps have no metadata before 6.15. A workload cannot write them: its frame begins behind.
 */
enum hd_fast_meta_flags { HD_FAST_META_STAMP = 1 << 0 /* stamp is set */ };
struct hd_fast_meta {
	__u16 device; /* that it shall leave by: its index */
	__u16 flags;  /* enum hd_fast_meta_flags */
	__u32 stamp;  /* ns of the monotonic clock, lower half */
};
static_assert(sizeof(struct hd_fast_meta) == 8, "hd_fast_meta");

#endif
