/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The flow tables: keys, lookup, creation, promotion, end. What the states mean to a packet is told in tcp.h and track.h. */
#ifndef HEDDLE_STAGE_FLOW_H
#define HEDDLE_STAGE_FLOW_H

#include "event.h"
#include "hot.h"
#include "packet.h"
#include "scratch.h"
#include "slot.h"

#include <maps/flow.bpf.h>

/* Of the hook: see track.h. */
static __always_inline void flow_stamp(const struct pkt *p, struct hd_flow *flow);

/* flow_lookup and its kin: the table of proven flows of the packet's protocol, or that of unproven ones. */
enum { TABLE_PROVEN, TABLE_NEW };

/* Which end sent the echo request of this packet's exchange is part of its key. */
static __always_inline __u8 flow_kind(const struct pkt *p)
{
	bool request;

	if (p->family == 4 && p->protocol == PROTO_ICMP)
		request = p->icmp_type == ICMP_ECHO_REQUEST;
	else if (p->family == 6 && p->protocol == PROTO_ICMPV6)
		request = p->icmp_type == ICMPV6_ECHO_REQUEST;
	else
		return HD_FLOW_PLAIN;
	return request == !!p->from_hi ? HD_FLOW_ECHO_BY_HI : HD_FLOW_ECHO_BY_LO;
}

static __always_inline void flow_key4(struct pkt *p, struct hd_flow_key4 *key)
{
	__be32 source = p->source.w[3], destination = p->destination.w[3];
	bool hi = bpf_ntohl(source) > bpf_ntohl(destination) ||
		  (source == destination && bpf_ntohs(p->sport) > bpf_ntohs(p->dport));

	p->from_hi = hi;
	key->network = p->network;
	key->kind = flow_kind(p);
	key->protocol = p->protocol;
	key->lo = hi ? destination : source;
	key->hi = hi ? source : destination;
	key->lo_port = hi ? p->dport : p->sport;
	key->hi_port = hi ? p->sport : p->dport;
}

static __always_inline void flow_key6(struct pkt *p, struct hd_flow_key6 *key)
{
	__u64 s0 = bpf_be64_to_cpu(p->source.q[0]), s1 = bpf_be64_to_cpu(p->source.q[1]);
	__u64 d0 = bpf_be64_to_cpu(p->destination.q[0]), d1 = bpf_be64_to_cpu(p->destination.q[1]);
	bool hi = s0 > d0 || (s0 == d0 && (s1 > d1 || (s1 == d1 && bpf_ntohs(p->sport) > bpf_ntohs(p->dport))));

	p->from_hi = hi;
	key->network = p->network;
	key->kind = flow_kind(p);
	key->protocol = p->protocol;
	if (hi) {
		key->lo = p->destination;
		key->hi = p->source;
		key->lo_port = p->dport;
		key->hi_port = p->sport;
	} else {
		key->lo = p->source;
		key->hi = p->destination;
		key->lo_port = p->sport;
		key->hi_port = p->dport;
	}
}

static __always_inline void flow_key(struct pkt *p, union hd_flow_key *key)
{
	if (p->family == 4)
		flow_key4(p, &key->key4);
	else
		flow_key6(p, &key->key6);
}

/* CALL(map, key) on the right table but that of proven TCP, which is in slots: the one place that knows that there are four. */
#define WITH_TABLE(p, table, key, CALL) \
	((p)->family == 4 ? ((table) == TABLE_NEW ? CALL(&flows4_new, &(key)->key4) : CALL(&flows4_other, &(key)->key4)) \
			  : ((table) == TABLE_NEW ? CALL(&flows6_new, &(key)->key6) : CALL(&flows6_other, &(key)->key6)))

static __always_inline struct hd_flow *flow_lookup(const struct pkt *p, int table, const union hd_flow_key *key)
{
	struct hd_flow *flow;

	if (table == TABLE_PROVEN && p->protocol == PROTO_TCP) {
		/* A SYN seldom has a flow, and a hint that leads nowhere is two lines of memory for nothing. */
		flow = p->tcp_flags & TCP_SYN ? NULL : slot_by_hint(p->family, key);
		if (likely(flow))
			return flow;
		flow = slot_by_hash(p->family, key);
		if (flow && !dry_run)
			slot_give_hint(p->family, key, flow->slot);
		return flow;
	}
	return WITH_TABLE(p, table, key, bpf_map_lookup_elem);
}

/* Of a flow that is not TCP: where it was found. */
static __always_inline void flow_give_hint(const struct pkt *p, int table, const union hd_flow_key *key)
{
	if (!dry_run)
		slot_give_hint(p->family, key, table == TABLE_NEW ? HD_FLOW_HINT_NEW : 0);
}

/* flow: the entry itself. */
static __always_inline void flow_remove(const struct pkt *p, int table, const union hd_flow_key *key, struct hd_flow *flow)
{
	if (table != TABLE_PROVEN || p->protocol != PROTO_TCP) {
		WITH_TABLE(p, table, key, bpf_map_delete_elem);
		return;
	}
	if (flow->flags & HD_FLOW_HOT)
		hot_recall(p->family, key, flow, p->now);
	slot_remove(flow->slot, p->family, key, flow->epoch);
}

static __always_inline long flow_insert(const struct pkt *p, int table, const union hd_flow_key *key, struct hd_flow *flow)
{
#define FLOW_INSERT(map, key) bpf_map_update_elem(map, key, flow, BPF_ANY)
	if (table == TABLE_PROVEN && p->protocol == PROTO_TCP)
		return slot_insert(p->family, key, flow);
	return WITH_TABLE(p, table, key, FLOW_INSERT);
#undef FLOW_INSERT
}

static __always_inline __u32 flow_side(const struct pkt *p, const struct hd_flow *flow)
{
	return !!p->from_hi == !!(flow->flags & HD_FLOW_ORIG_IS_HI) ? HD_ORIG : HD_REPLY;
}

static __always_inline __u32 flow_direction(const struct hd_flow *flow)
{
	return flow->flags & HD_FLOW_DIR_EGRESS ? HD_EGRESS : HD_INGRESS;
}

static __always_inline bool flow_expired(const struct hd_flow *flow, const struct hd_control *c, __u32 now)
{
	__u32 late = flow->flags & HD_FLOW_HOT ? HD_HOT_TICKS : 0;

	/* Signed: another CPU may have seen the flow a tick later than this packet's clock says. */
	return (__s32)(now - flow->last_seen - late) > (__s32)c->timeout[flow->state & 15];
}

/* What every packet of a flow leaves behind. */
static __always_inline void flow_count(struct hd_flow *flow, const struct pkt *p, __u32 side)
{
	if (dry_run)
		return;
	flow->packets[side & 1] += p->segments;
	flow->bytes[side & 1] += p->l3_length;
	flow->last_seen = p->now;
}

/* Numbers that go on in the cache come back to the flow in its slot. */
__noinline int flow_recall(struct pkt *p, struct hd_flow *flow)
{
	union hd_flow_key key = {};

	if (!p || !flow || dry_run)
		return 0;
	flow_key(p, &key);
	hot_recall(p->family, &key, flow, p->now);
	return 0;
}

/* The time of the loan is over, and the flow still busy: gives back, and goes on. Where the flow has changed, it goes by its slot again. */
__noinline int flow_renew(struct pkt *p)
{
	union hd_flow_key key = {};
	struct hd_flow *flow;
	struct hd_hot *hot;

	if (!p || dry_run)
		return 0;
	flow_key(p, &key);
	hot = hot_find(p->family, &key);
	flow = hot ? hot_lender(hot, p->family, &key) : NULL;
	if (!flow || flow->state != HD_FS_TCP_ESTABLISHED || flow->version != hot->version)
		return 0;
	/* Longer than one loan without a packet: how long is asked at the slot. */
	if ((__s32)(p->now - hot->lent) > 2 * HD_HOT_TICKS)
		return 0;
	hot_settle(hot, flow, p->now);
	hot->lent = p->now;
	return 0;
}

/* Lends the numbers of a busy flow to the cache, where there is room. */
__noinline int flow_lend(struct pkt *p, struct hd_flow *flow)
{
	union hd_flow_key key = {};
	struct hd_hot *hot;
	__u32 index;

	if (!p || !flow || dry_run || flow->flags & HD_FLOW_HOT)
		return 0;
	flow_key(p, &key);
	hot = hot_find(p->family, &key);
	if (hot) { /* another CPU's, or an older one's: there must not be two */
		*(volatile __u32 *)&hot->rule = 0;
		return 0;
	}
	index = hot_index(p->family, &key);
	if (p->family == 4)
		return hot_lend4(index, &key, flow, p->now) || hot_lend4(index ^ 1, &key, flow, p->now);
	return hot_lend6(index, &key, flow, p->now) || hot_lend6(index ^ 1, &key, flow, p->now);
}

/* Takes the flow out of its table. */
__noinline int flow_delete(struct pkt *p, struct hd_flow *flow)
{
	union hd_flow_key key = {};

	if (!p || !flow || dry_run)
		return 0;
	flow_key(p, &key);
	flow_remove(p, p->found == HD_FOUND_NEW ? TABLE_NEW : TABLE_PROVEN, &key, flow);
	return 0;
}

/* 6.1 takes a value for a map from a map or the stack only, not from what a function was given. */
static __always_inline struct hd_flow *flow_copy(const struct hd_flow *from)
{
	struct hd_scratch *room = scratch_room();

	if (!from || !room || dry_run)
		return NULL;
	room->flow = *from;
	return &room->flow;
}

/*
 * Moves a flow from the unproven to the proven. Where that table is full, it stays where it is and works on, only less safe from floods.
 */
__noinline int flow_promote(struct pkt *p, struct hd_flow *from)
{
	struct hd_flow *flow = flow_copy(from);
	union hd_flow_key key = {};
	long r;

	if (!p || !flow || dry_run)
		return 0;
	flow_key(p, &key);
	r = flow_insert(p, TABLE_PROVEN, &key, flow);
	if (r) /* -EEXIST: another CPU was first */
		return r == -17 ? 0 : event_full(p, p->protocol == PROTO_TCP ? HD_TABLE_FLOWS : HD_TABLE_FLOWS_OTHER);
	flow_remove(p, TABLE_NEW, &key, flow);
	total_add(HD_TOTAL_FLOWS_PROVEN);
	return 0;
}

/* A closed connection gives its place up at once: what still comes of it finds it among the unproven. */
__noinline int flow_demote(struct pkt *p, struct hd_flow *from)
{
	struct hd_flow *flow = flow_copy(from);
	union hd_flow_key key = {};

	if (!p || !flow || !from || dry_run)
		return 0;
	flow_key(p, &key);
	flow->slot = 0;
	flow_insert(p, TABLE_NEW, &key, flow);
	flow_remove(p, TABLE_PROVEN, &key, from);
	return 0;
}

/* The numbers of the packet that a flow begins with. */
static __always_inline void flow_first_packet(const struct pkt *p, struct hd_flow *flow, __u32 side)
{
	bool ack = p->tcp_flags & TCP_ACK;
	__u32 end = p->seq + p->payload + !!(p->tcp_flags & (TCP_SYN | TCP_FIN));
	/* The least that the other end may expect next. */
	__u32 expected = p->tcp_flags & TCP_SYN ? p->seq + 1 : p->seq;
	__u32 window = ack ? (__u32)p->window << TCP_WSCALE_MAX : p->window;
	__u8 scale = p->tcp_flags & TCP_SYN ? p->wscale : 0xff;

	if (side == HD_ORIG) {
		flow->packets[HD_ORIG] = p->segments;
		flow->bytes[HD_ORIG] = p->l3_length;
	} else {
		flow->packets[HD_REPLY] = p->segments;
		flow->bytes[HD_REPLY] = p->l3_length;
	}
	if (p->protocol != PROTO_TCP)
		return;
	if (side == HD_ORIG) {
		flow->seq_end[HD_ORIG] = end;
		flow->win[HD_ORIG] = window;
		flow->wscale[HD_ORIG] = scale;
		flow->ack[HD_REPLY] = expected;
		if (ack)
			flow->ack[HD_ORIG] = flow->seq_end[HD_REPLY] = p->ack;
	} else { /* picked up in its middle */
		flow->seq_end[HD_REPLY] = end;
		flow->win[HD_REPLY] = window;
		flow->ack[HD_ORIG] = expected;
		flow->ack[HD_REPLY] = flow->seq_end[HD_ORIG] = p->ack;
	}
}

/* An entry for a packet that the policy let in. side: whose packet it is. 0 or the drop reason. */
__noinline int flow_create(struct pkt *p, __u32 state, __u32 flags, __u32 side)
{
	struct hd_scratch *room = scratch_room();
	union hd_flow_key key = {};
	struct hd_flow *flow;

	if (!p || !room)
		return HD_R_FLOW_TABLE;
	if (dry_run)
		return 0;
	flow = &room->flow;
	__builtin_memset(flow, 0, sizeof(*flow));
	flow->last_seen = flow->created = p->now;
	flow->epoch = bpf_get_prandom_u32() | 1;
	flow->state = state;
	flow->wscale[0] = flow->wscale[1] = 0xff;
	flow->ifindex = p->ifindex;
	flow_first_packet(p, flow, side);
	flow_key(p, &key); /* and from_hi with it */
	if (!!p->from_hi == (side == HD_ORIG))
		flags |= HD_FLOW_ORIG_IS_HI;
	if (p->log)
		flags |= HD_FLOW_LOGGED;
	flow->flags = flags;
	flow_stamp(p, flow);
	if (flow_insert(p, TABLE_NEW, &key, flow)) {
		event_full(p, HD_TABLE_FLOWS_NEW);
		return HD_R_FLOW_TABLE;
	}
	event_flow(p);
	return 0;
}

#endif
