/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * One frame to all members of a network that are in its segment, to the uplinks where that is on the wire, and to the peers that have something in
 * it. Each member's ingress policy is
 * asked: to a port that may not have a packet a flood is no other way.
 */
#ifndef HEDDLE_STAGE_FLOOD_H
#define HEDDLE_STAGE_FLOOD_H

#include "between.h"
#include "deliver.h"
#include "encap.h"
#include "scratch.h"

struct flood {
	HOOK_CTX *ctx;
	struct pkt *p;
	__u32 tag;  /* the frame as it is now, for members that want it so: with a tag, or without */
	__u32 rest; /* set: there are others */
};

/* A member's own view of the packet is in room->packet: only this uses it here. */
static __always_inline int flood_judge(struct pkt *view)
{
	int r = judge_view(view, HD_INGRESS, 0);

	/* One of many: not for it to answer. */
	if (r == HD_R_POLICY_REJECT) {
		r = HD_R_POLICY_DENY;
		view->verdict = HD_DENY;
	}
	return r;
}

/* What a member's policy says, and its rate; each of both only where it has a say. Accounted for either way. */
__noinline int flood_ask(HOOK_CTX *ctx, __u32 ifindex, __u32 limited)
{
	struct hd_scratch *room = scratch_room();
	struct pkt *view;
	int r;

	if (!room)
		return HD_R_RULE_TREE;
	view = &room->packet;
	if (!seen_by(view, &room->port, ifindex))
		return HD_R_NOT_READY;
	view->to = ifindex;
	view->direction = HD_INGRESS;
	r = view->judged ? flood_judge(view) : 0;
	if (!r && limited)
		r = limit(ctx, view, ifindex, HD_INGRESS);
	if (r)
		drop(ctx, view, r);
	else if (view->judged)
		counter_add(&rule_counters, view->rule, view->segments, view->l3_length);
	return r;
}

static long flood_member(__u32 index, struct flood *f)
{
	struct hd_member_key key = {.network = f->p->destination_network, .index = index};
	const struct hd_member *member = bpf_map_lookup_elem(&members, &key);
	const struct hd_port *port;
	__u32 ifindex, limited;

	if (!member)
		return 0;
	ifindex = member->ifindex;
	if (ifindex == f->p->ifindex)
		return 0;
	port = port_find(ifindex);
	if (!port || port->network != f->p->destination_network || !in_segment(port, f->p->segment))
		return 0;
	if (tag_wanted(f->p, port, f->p->segment) != f->tag) {
		f->rest = 1;
		return 0;
	}
	limited = port->flags & HD_PORT_LIMIT_IN;
	if ((f->p->judged || limited) && flood_ask(f->ctx, ifindex, limited))
		return 0;
	bpf_clone_redirect(f->ctx, ifindex, 0);
	return 0;
}

static long flood_uplink(__u32 index, struct flood *f)
{
	struct hd_member_key key = {.network = 0, .index = index};
	const struct hd_member *member = bpf_map_lookup_elem(&members, &key);

	if (member)
		bpf_clone_redirect(f->ctx, member->ifindex, 0);
	return 0;
}

/* What came from the wire does not go back there, by no uplink. */
static __always_inline int flood_wire(struct flood *f, __u32 vlan)
{
	const struct hd_network *host;
	__u32 zero = 0, n;
	int r;

	if (!vlan || on_wire(f->p))
		return 0;
	host = bpf_map_lookup_elem(&networks, &zero);
	n = host ? host->members : 0;
	if (!n)
		return 0;
	if (n > HD_MEMBERS_MAX)
		n = HD_MEMBERS_MAX;
	r = retag_wire(f->ctx, f->p, vlan, f->tag);
	if (r)
		return r;
	bpf_loop(n, flood_uplink, f, 0);
	return 0;
}

static long flood_peer(__u32 index, struct flood *f)
{
	struct hd_member_key key = {.network = f->p->destination_network, .index = index};
	const __u32 *member = bpf_map_lookup_elem(&peer_members, &key);
	__u32 ifindex;

	if (!member)
		return 0;
	ifindex = encap_outer(f->ctx, *member);
	if (ifindex)
		bpf_clone_redirect(f->ctx, ifindex, 0);
	return 0;
}

/* Wrapped once, and sent to each peer with other outer addresses. The frame is nobody else's any more: last of all. */
static __always_inline int flood_peers(struct flood *f, __u32 vni, __u32 n)
{
	int r;

	if (!vni || !n)
		return 0;
	if (n > HD_PEERS_MAX)
		n = HD_PEERS_MAX;
	r = encap_inner(f->ctx, vni);
	if (r)
		return r;
	bpf_loop(n, flood_peer, f, 0);
	return 0;
}

__noinline int flood(HOOK_CTX *ctx)
{
	struct hd_scratch *room = scratch_room();
	const struct hd_network *record;
	struct flood f = {.ctx = ctx};
	__u32 network, n, vlan, vni, n_peers;
	struct pkt *p;
	int r;

	if (!room)
		return HD_R_RULE_TREE;
	f.p = p = &room->port;
	f.tag = tag_present(p) != 0;
	network = p->destination_network;
	record = bpf_map_lookup_elem(&networks, &network);
	if (!record)
		return HD_R_NO_DESTINATION;
	n = record->members;
	vlan = record->vlan;
	vni = p->peer ? 0 : record->vni;
	n_peers = record->peers;
	/* While it has the tags that it came with. */
	if (vni && n_peers) {
		r = encap_tags(ctx);
		if (r)
			return r;
	}
	if (n > HD_MEMBERS_MAX)
		n = HD_MEMBERS_MAX;
	ctx->mark = HD_MARK;
	bpf_loop(n, flood_member, &f, 0);
	if (f.rest) {
		f.tag ^= 1;
		r = retag(ctx, p, f.tag ? p->segment : 0);
		if (r)
			return r;
		bpf_loop(n, flood_member, &f, 0);
	}
	r = flood_wire(&f, vlan);
	return r ? r : flood_peers(&f, vni, n_peers);
}

#endif
