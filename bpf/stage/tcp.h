/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * TCP state of a flow (RFC 9293 as seen from the middle).
 *
 * What is believed: packets that leave the host (egress) are the host's own and move the tracked numbers freely. Packets from the wire
 * may be forged, so they move them only within what the host has acknowledged and announced. The host's acknowledgements are thus always
 * true, and a forged RST has to hit them exactly to end a flow.
 *
 * ack[side] is what `side` expects next (RCV.NXT); while the handshake is under way it is the least that side may expect.
 */
#ifndef HEDDLE_STAGE_TCP_H
#define HEDDLE_STAGE_TCP_H

#include "flow.h"
#include "packet.h"

/* Beside the drop reasons: what the caller has to do. */
#define TCP_RENEW 1000 /* a SYN that begins a new connection under an old one's ports */
#define TCP_ASK \
	1001 /* a SYN within a live connection: passes if the policy allows it (RFC 5961 section 4), and changes nothing */

/* Bytes past the announced window that tracking still follows: window updates may be on their way, and probes go beyond it. */
#define TCP_SLACK 65536

/* Sequence numbers are compared by difference. a is not before b. */
static __always_inline bool seq_from(__u32 a, __u32 b)
{
	return (__s32)(a - b) >= 0;
}

/* first <= number <= last */
static __always_inline bool seq_within(__u32 number, __u32 first, __u32 last)
{
	return number - first <= last - first;
}

/* The window scale option (RFC 7323 section 2) of a SYN. */
__noinline int tcp_options(HOOK_CTX *ctx, struct pkt *p)
{
	__u8 options[40];
	__u32 length, at, step;
	int i;

	if (!p)
		return 0;
	at = p->zero;
	p->wscale = 0xff;
	length = p->tcp_offset - sizeof(struct tcphdr);
	if (length < 4 || length > sizeof(options))
		return 0;
	__builtin_memset(options, 0, sizeof(options));
	if (hook_load(ctx, p->l4 + sizeof(struct tcphdr), options, length))
		return 0;
	for (i = 0; i < 40; i++) {
		if (at + 2 >= sizeof(options) || options[at] == TCP_OPTION_END)
			return 0;
		step = 1;
		if (options[at] != TCP_OPTION_NOP) {
			step = options[at + 1];
			if (options[at] == TCP_OPTION_WSCALE && step == 3) {
				p->wscale = options[at + 2] > TCP_WSCALE_MAX ? TCP_WSCALE_MAX : options[at + 2];
				return 0;
			}
			if (step < 2 || at + step > sizeof(options))
				return 0;
		}
		at = (at + step) & 63;
	}
	return 0;
}

static __always_inline __u32 tcp_scaled(const struct hd_flow *flow, const struct pkt *p, __u32 side)
{
	__u8 scale = flow->wscale[side & 1];

	return (__u32)p->window << (scale > TCP_WSCALE_MAX ? TCP_WSCALE_MAX : scale);
}

/*
 * The numbers of a segment with ACK, whose sender's highest is *seq_end and who expects *ack next. end: one past the last number it takes;
 * edge: as far as the receiver lets it go. True: what it says of its own window is news.
 */
static __always_inline bool tcp_move(__u32 *seq_end, __u32 *ack, __u32 other_end, __u32 edge, const struct pkt *p, __u32 end)
{
	bool ours = p->direction == HD_EGRESS;

	if (!seq_from(*seq_end, end) && (ours || seq_from(edge + TCP_SLACK, end)))
		*seq_end = end;
	/* Acknowledges something new, or the same again, of what the other end really sent. */
	if (!seq_within(p->ack, *ack, other_end) && !(ours && seq_from(p->ack, *ack)))
		return false;
	*ack = p->ack;
	return true;
}

static __always_inline void tcp_follow(struct hd_flow *flow, const struct pkt *p, __u32 side, __u32 end)
{
	__u32 other = side ^ 1;

	if (dry_run)
		return;
	if (tcp_move(&flow->seq_end[side & 1], &flow->ack[side & 1], flow->seq_end[other & 1],
		    flow->ack[other & 1] + flow->win[other & 1], p, end))
		flow->win[side & 1] = tcp_scaled(flow, p, side);
}

/*
 * The whole of what an ordinary segment of an established connection does; everything else goes the long way. True: done, the packet
 * may pass.
 */
static __always_inline bool tcp_ordinary(struct hd_flow *flow, const struct pkt *p, __u32 side)
{
	if (p->tcp_flags & (TCP_SYN | TCP_FIN | TCP_RST) || flow->state != HD_FS_TCP_ESTABLISHED)
		return false;
	tcp_follow(flow, p, side, p->seq + p->payload);
	return true;
}

/* The same on what the flow lent. False: not now, take the flow itself. */
static __always_inline bool tcp_hot(struct hd_hot *hot, struct pkt *p)
{
	__u32 flags = HD_HOT_FLAGS(hot), side = !!p->from_hi == !!(flags & HD_HOT_ORIG_IS_HI) ? HD_ORIG : HD_REPLY;
	__u32 other = side ^ 1, host = hot_host(hot), packets, bytes, edge;

	/* Or clang drops the masks below, which 6.1 needs. */
	asm volatile("" : "+r"(side), "+r"(other));
	if (p->tcp_flags & (TCP_SYN | TCP_FIN | TCP_RST) || hot_due(hot, p->now))
		return false;
	if (hot->version != by_direction(p->version, flags & HD_HOT_EGRESS ? HD_EGRESS : HD_INGRESS))
		return false;
	packets = hot->packets[side & 1] + p->segments;
	bytes = hot->bytes[side & 1] + p->l3_length;
	if (hot->port != (p->ifindex & (HD_PORT_SLOTS - 1)) || packets > 0xffff || bytes < p->l3_length)
		return false;
	edge = hot->ack[other & 1] + hot_window(hot); /* counts for what comes from the wire, so it is the host's */
	if (tcp_move(&hot->seq_end[side & 1], &hot->ack[side & 1], hot->seq_end[other & 1], edge, p, p->seq + p->payload) &&
		side == host)
		hot->window = p->window;
	hot->packets[side & 1] = packets;
	hot->bytes[side & 1] = bytes;
	p->rule = hot->rule & HD_HOT_RULE_MASK;
	return true;
}

static __always_inline void tcp_state(struct hd_flow *flow, __u8 state)
{
	if (!dry_run)
		flow->state = state;
}

static __always_inline int tcp_reset(struct hd_flow *flow, const struct pkt *p, __u32 side)
{
	__u32 other = side ^ 1, offset;

	if (flow->state == HD_FS_TCP_SYN_SENT) {
		if (side == HD_REPLY) {
			/* The refusal: it must answer the very SYN. */
			if (p->tcp_flags & TCP_ACK && seq_within(p->ack, flow->ack[HD_REPLY], flow->seq_end[HD_ORIG])) {
				tcp_state(flow, HD_FS_TCP_CLOSED);
				return 0;
			}
			return p->direction == HD_INGRESS ? HD_R_TCP_WINDOW : 0;
		}
		/* An answer to a challenge ACK of an older connection has numbers of that one; it is for the stack to check. */
		if (p->seq == flow->ack[HD_REPLY] || p->seq == flow->seq_end[HD_ORIG])
			tcp_state(flow, HD_FS_TCP_CLOSED);
		return 0;
	}
	if (p->seq == flow->ack[other & 1] || p->seq == flow->seq_end[side & 1]) {
		tcp_state(flow, HD_FS_TCP_CLOSED);
		return 0;
	}
	/* Numbers that are not known, as while a NIC forwards, cannot be hit: whoever is believed ends its own connection. */
	if (p->direction == HD_EGRESS && flow->flags & HD_FLOW_PICKUP)
		tcp_state(flow, HD_FS_TCP_CLOSED);
	if (p->direction == HD_EGRESS || flow->flags & HD_FLOW_PICKUP)
		return 0;
	offset = p->seq - flow->ack[other & 1];
	return offset < flow->win[other & 1] ? 0 : HD_R_TCP_WINDOW;
}

static __always_inline int tcp_syn(struct hd_flow *flow, const struct pkt *p, __u32 side)
{
	__u32 end = p->seq + 1 + p->payload;

	switch (flow->state) {
	case HD_FS_TCP_SYN_SENT:
	case HD_FS_TCP_SYN_RECEIVED:
		if (side == HD_ORIG) {
			/* The same SYN again, with or without the data of a fast open (RFC 7413). */
			if (p->seq + 1 == flow->ack[HD_REPLY] || end == flow->seq_end[HD_ORIG])
				return 0;
			return TCP_RENEW;
		}
		if (flow->state != HD_FS_TCP_SYN_SENT)
			return HD_R_TCP_STATE;
		if (!dry_run) { /* simultaneous open (RFC 9293 section 3.5) */
			flow->seq_end[HD_REPLY] = end;
			flow->ack[HD_ORIG] = p->seq + 1;
			flow->win[HD_REPLY] = p->window;
			flow->wscale[HD_REPLY] = p->wscale;
		}
		return 0;
	case HD_FS_TCP_CLOSED:
		return TCP_RENEW;
	}
	return TCP_ASK;
}

static __always_inline int tcp_syn_ack(struct hd_flow *flow, const struct pkt *p, __u32 side)
{
	switch (flow->state) {
	case HD_FS_TCP_SYN_SENT:
		if (side == HD_ORIG) {
			/* The second half of a simultaneous open: it acknowledges the other's SYN, which only its receiver can. */
			if (!flow->ack[HD_ORIG] || p->ack != flow->seq_end[HD_REPLY])
				return HD_R_TCP_STATE;
			tcp_state(flow, HD_FS_TCP_ESTABLISHED);
			return 0;
		}
		break;
	case HD_FS_TCP_SYN_RECEIVED:
		if (side == HD_ORIG)
			return HD_R_TCP_STATE;
		break;
	case HD_FS_TCP_CLOSED:
		return HD_R_TCP_STATE;
	default:
		return 0; /* again: its ACK was lost */
	}
	if (!seq_within(p->ack, flow->ack[HD_REPLY], flow->seq_end[HD_ORIG]))
		return HD_R_TCP_STATE;
	if (dry_run)
		return 0;
	flow->state = HD_FS_TCP_SYN_RECEIVED;
	flow->seq_end[HD_REPLY] = p->seq + 1 + p->payload;
	flow->ack[HD_ORIG] = p->seq + 1;
	flow->ack[HD_REPLY] = p->ack;
	flow->win[HD_REPLY] = p->window;
	if (p->wscale == 0xff || flow->wscale[HD_ORIG] == 0xff)
		flow->wscale[HD_ORIG] = flow->wscale[HD_REPLY] = 0;
	else
		flow->wscale[HD_REPLY] = p->wscale;
	return 0;
}

static __always_inline void tcp_fin(struct hd_flow *flow, const struct pkt *p, __u32 side, __u32 end)
{
	__u32 other = side ^ 1;
	__u8 mine = side == HD_ORIG ? HD_FS_TCP_FIN_ORIGINATOR : HD_FS_TCP_FIN_RESPONDER;

	if (p->direction == HD_INGRESS && !(flow->flags & HD_FLOW_PICKUP) &&
		!seq_within(end, flow->ack[other & 1], flow->ack[other & 1] + flow->win[other & 1] + 1))
		return;
	if (flow->state == HD_FS_TCP_ESTABLISHED)
		tcp_state(flow, mine);
	else if (flow->state != HD_FS_TCP_CLOSED && flow->state != mine)
		tcp_state(flow, HD_FS_TCP_CLOSED);
}

/* A segment of a known flow: 0, a drop reason, TCP_RENEW or TCP_ASK. */
static __always_inline int tcp_segment(struct hd_flow *flow, const struct pkt *p, __u32 side)
{
	__u32 end = p->seq + p->payload + !!(p->tcp_flags & TCP_FIN);
	bool over;

	if (p->tcp_flags & TCP_RST)
		return tcp_reset(flow, p, side);
	if (p->tcp_flags & TCP_SYN)
		return p->tcp_flags & TCP_ACK ? tcp_syn_ack(flow, p, side) : tcp_syn(flow, p, side);
	if (flow->state == HD_FS_TCP_SYN_SENT)
		/* A challenge ACK of an older connection under these ports makes the originator reset that one; data would be without handshake. */
		return side == HD_REPLY && !p->payload && !(p->tcp_flags & TCP_FIN) ? 0 : HD_R_TCP_STATE;
	if (flow->state == HD_FS_TCP_SYN_RECEIVED && side == HD_ORIG) {
		if (!seq_within(p->ack, flow->ack[HD_ORIG], flow->seq_end[HD_REPLY]))
			return HD_R_TCP_STATE;
		tcp_state(flow, HD_FS_TCP_ESTABLISHED);
	}
	/* Past the own FIN there is nothing more to say. */
	over = flow->state == HD_FS_TCP_CLOSED || (side == HD_ORIG && flow->state == HD_FS_TCP_FIN_ORIGINATOR) ||
	       (side == HD_REPLY && flow->state == HD_FS_TCP_FIN_RESPONDER);
	if (over && !seq_from(flow->seq_end[side & 1], end))
		return HD_R_TCP_STATE;
	if (p->tcp_flags & TCP_FIN && flow->state != HD_FS_TCP_SYN_RECEIVED) {
		tcp_fin(flow, p, side, end);
		/* Believed whatever its number is: then so is the number, or what acknowledges the other end's FIN would lie past it. */
		if (flow->flags & HD_FLOW_PICKUP && !dry_run)
			flow->seq_end[side & 1] = end;
	}
	tcp_follow(flow, p, side, end);
	return 0;
}

#endif
