/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The flow tables. One entry for both directions of a connection: the two endpoints are ordered (by address, then port, as
 * big-endian numbers), the entry says which one was the originator.
 *
 * IPv4 has a 16-byte key of its own: 118 ns against 149 ns with a 44-byte one for a whole established-flow program.
 */
#ifndef HEDDLE_FLOW_H
#define HEDDLE_FLOW_H

#include <heddle/types.h>

/* hd_flow_key*.kind. For ICMP echo: which endpoint sent the request, so that A pinging B and B pinging A differ. */
enum hd_flow_kind { HD_FLOW_PLAIN = 0, HD_FLOW_ECHO_BY_LO = 1, HD_FLOW_ECHO_BY_HI = 2 };

struct hd_flow_key4 {
	__u16 network;		 /* index of the network, 0 = the host's own; between two networks: hd_route.zone */
	__u8 kind;		 /* enum hd_flow_kind */
	__u8 protocol;		 /* IANA protocol number */
	__be32 lo, hi;		 /* addresses, lo <= hi as big-endian numbers */
	__be16 lo_port, hi_port; /* ICMP echo: the identifier in both; other protocols without ports: 0 */
};
static_assert(sizeof(struct hd_flow_key4) == 16, "hd_flow_key4");

struct hd_flow_key6 {
	__u16 network;
	__u8 kind;
	__u8 protocol;
	__be16 lo_port, hi_port;
	struct hd_addr lo, hi;
};
static_assert(sizeof(struct hd_flow_key6) == 40, "hd_flow_key6");

/*
 * States. Each has a timeout of its own in hd_control.timeout[]. X(SYMBOL, "name", timeout key in Host.spec.timeouts).
 * A TCP flow is proven, and moves from flows*_new to flows*, by the originator's ACK of the SYN-ACK (its number checked).
 */
#define HD_FLOW_STATES(X) \
	X(TCP_SYN_SENT, "syn-sent", tcp_syn) \
	X(TCP_SYN_RECEIVED, "syn-received", tcp_syn) \
	X(TCP_ESTABLISHED, "established", tcp_established) \
	X(TCP_FIN_ORIGINATOR, "fin-originator", tcp_fin) \
	X(TCP_FIN_RESPONDER, "fin-responder", tcp_fin) \
	X(TCP_CLOSED, "closed", tcp_fin) \
	X(UDP_NEW, "udp-new", udp) \
	X(UDP_REPLIED, "udp-replied", udp_stream) \
	X(ICMP_NEW, "icmp-new", icmp) \
	X(ICMP_REPLIED, "icmp-replied", icmp) \
	X(OTHER_NEW, "new", other) \
	X(OTHER_REPLIED, "replied", other)
#define HD_FLOW_STATE_ENUM(sym, name, timeout) HD_FS_##sym,
enum hd_flow_state { HD_FLOW_STATES(HD_FLOW_STATE_ENUM) HD_FLOW_STATE_COUNT };
#undef HD_FLOW_STATE_ENUM

enum hd_flow_flags {
	HD_FLOW_ORIG_IS_HI = 1 << 0, /* the originator is the hi endpoint; else lo */
	HD_FLOW_DIR_EGRESS = 1 << 1, /* opened by the host's side (egress policy judged it); else from the wire */
	HD_FLOW_PICKUP = 1 << 2,     /* picked up without its handshake: sequence tracking starts late, window scale unknown */
	HD_FLOW_FORWARDED = 1 << 3,  /* passes through the host under forward: pass; not judged */
	HD_FLOW_MARKED = 1 << 4,     /* ageing, first phase: expired at the last sweep; traffic clears it */
	HD_FLOW_LOGGED = 1 << 5,
	HD_FLOW_HOT = 1 << 6, /* its numbers go on in flow_hot4 or flow_hot6, see heddle/hot.h */
	HD_FLOW_TURNED =
		1
		<< 7, /* a port's, whose destination the host's stack has changed to another port: answers go back there. `ifindex` is whose */
};

/* Index of per-direction arrays in a flow. */
enum hd_flow_side { HD_ORIG = 0, HD_REPLY = 1 };

/*
 * In place of a port: somebody behind the uplinks, with the tag of the network. By which of them, the fdb says. Peers, and who is behind one or the
 * other: see HD_DEVICE_PEER.
 */
#define HD_DEVICE_WIRE 0xffffffffu

struct hd_flow {
	/* What every packet touches: the first 80 bytes. */
	__u64 packets[2]; /* by enum hd_flow_side; a GSO packet counts its segments */
	__u64 bytes[2];	  /* L3 bytes as seen at the hook */
	__u32 last_seen;  /* tick */
	__u32 version;	  /* of the policy set that judged it, in the direction it was opened in */
	__u32 rule;	  /* id of that verdict's rule */
	__u8 state;	  /* enum hd_flow_state */
	__u8 flags;	  /* enum hd_flow_flags */
	__u8 wscale[2];	  /* window scale by side, 0..14; 0xff: not seen */
	__u32 ifindex;	  /* the uplink of the first packet; HD_FLOW_TURNED: the port that sent it */
	__u32 epoch;	  /* random, of this use of the memory: who frees the slot has to know it */
	__u32 seq_end[2]; /* by side: highest sequence number + length (+1 for SYN and FIN) sent */
	__u32 ack[2];	  /* by side: last acknowledgement sent */
	__u32 win[2];	  /* by side: last window announced, scaled, bytes */
	/* What few do. */
	__u32 created;			   /* tick */
	__u32 slot;			   /* its index in flow_slots (proven TCP only); 0: none */
	__u32 second_version, second_rule; /* the same where a second policy judged it: egress of a judged forward */
	union {
		struct hd_addr nat_addr; /* reserved for NAT */
		__u32 bulk[2]; /* tick, by side, 0: none: when a port last sent more than its MTU at once (xdp_switch) */
	};
	union {
		struct {
			__be16 nat_port[2]; /* reserved */
			__u32 rate_bucket;  /* reserved */
		};
		__u8 peer_mac[6]; /* with an end behind a peer or on the wire: the MAC that frames for that end go to */
	};
	__u32 device
		[2]; /* by side: the port (ifindex) that it lives behind; 0: the host or an uplink; HD_DEVICE_WIRE, HD_DEVICE_PEER */
};
static_assert(sizeof(struct hd_flow) == 128, "hd_flow");
static_assert(offsetof(struct hd_flow, created) == 80, "hd_flow, hot part");

union hd_flow_key {
	struct hd_flow_key4 key4;
	struct hd_flow_key6 key6;
	__u64 q[5];
};
static_assert(sizeof(union hd_flow_key) == 40, "hd_flow_key");

/*
 * A proven TCP flow, its key with it: key and hot part are two cache lines. flows4 and flows6 say which slot a key has; flow_hints, which
 * may be wrong, says it without a call. A timer in the kernel sweeps a bounded piece of the array a tick, instead of walking a hash of a
 * million entries in one RCU section. Free slots are on the stack flow_free; none left means the table is full and the flow stays in flows*_new.
 */
struct hd_flow_slot {
	union hd_flow_key key; /* IPv4: the rest is 0 */
	__u32 used;	       /* 0 free, 4 IPv4, 6 IPv6 */
	__u32 epoch;	       /* as in flow: the two change hands together */
	struct hd_flow flow;
	__u32 reserved[4];
};
static_assert(sizeof(struct hd_flow_slot) == 192, "hd_flow_slot");
static_assert(offsetof(struct hd_flow_slot, flow) + offsetof(struct hd_flow, created) == 128, "hd_flow_slot, hot part");

#define HD_FLOW_HINTS 131072 /* entries of flow_hints; a power of two */
/* There in place of a slot: the flow, not TCP, was last found among the unproven. No array has an entry of that number. */
#define HD_FLOW_HINT_NEW 0xffffffffu

/* Fragments: the first one's verdict, for the later ones (RFC 791 and RFC 8200 section 4.5 identify a datagram by these). */
struct hd_frag_key {
	struct hd_addr source, destination;
	__be32 id;
	__u16 network;
	__u8 protocol;	/* IPv4: the protocol; IPv6: 0 */
	__u8 direction; /* enum hd_direction */
};
static_assert(sizeof(struct hd_frag_key) == 40, "hd_frag_key");

enum hd_frag_flags {
	HD_FRAG_SLOW = 1 << 0,	 /* it went by hd_tunnel.slow: so do those that follow, or they would overtake it */
	HD_FRAG_TURNED = 1 << 1, /* it went to the host's stack, see HD_FLOW_TURNED */
	HD_FRAG_NODE = 1 << 2,	 /* it went to a peer's host, see HD_ENDPOINT_NODE */
};

struct hd_frag {
	__u32 seen;    /* tick of the first fragment; valid for hd_control.fragment_timeout */
	__u32 version; /* of the policy set that judged it */
	__u32 rule;
	__u8 reason;	 /* enum hd_reason: HD_R_NONE passes, anything else drops the later ones alike */
	__u8 flags;	 /* enum hd_frag_flags */
	__u16 first_end; /* bytes of L3 payload the first fragment covered: a later one may not begin below it */
};
static_assert(sizeof(struct hd_frag) == 16, "hd_frag");
#define HD_FRAGMENT_SECONDS 30 /* as long as Linux waits for the rest */

#endif
