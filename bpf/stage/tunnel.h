/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Outer packets of the overlay on an uplink, ahead of HostPolicy: which of them are for our own end of the tunnel, and what else belongs to it.
 * That is what the agent's socket sends and receives (fragments, and what waits for a neighbour), and what routers on the way say of them.
 */
#ifndef HEDDLE_STAGE_TUNNEL_H
#define HEDDLE_STAGE_TUNNEL_H

#include "fragment.h"
#include "icmp.h"
#include "peer.h"

/* What tunnel_outer() says, beside 0 (not of the overlay) and the drop reasons. */
#define TUNNEL_OURS -1	/* passes, by HD_RULE_TUNNEL */
#define TUNNEL_ENTER -2 /* is for tc_tunnel_in */

/* RFC 1191 section 4, RFC 8201 section 4: lower only, and never so low that nothing gets through any more. */
static __always_inline void path_mtu_note(struct pkt *p, struct hd_peer *peer, __u32 mtu)
{
	__u32 zero = 0;
	const struct hd_control *c = bpf_map_lookup_elem(&control, &zero);

	if (dry_run || !c || !mtu)
		return;
	if (mtu < HD_PATH_MTU_MIN)
		mtu = HD_PATH_MTU_MIN;
	if (mtu > peer_mtu(peer, p->now, c->fragment_timeout) || mtu > 0xffff)
		return;
	peer->path_mtu = mtu;
	peer->path_mtu_seen = p->now;
}

/* An error about one of our own tunnel packets to a known peer. */
static __always_inline int tunnel_error(HOOK_CTX *ctx, struct pkt *p, const struct hd_tunnel *own)
{
	struct hd_scratch *room = scratch_room();
	struct hd_peer *peer;
	struct pkt *q;
	struct {
		__be16 unused, mtu;
	} next = {};
	__u32 mtu = 0;

	if (!room)
		return 0;
	q = &room->packet;
	__builtin_memset(q, 0, sizeof(*q));
	if (icmp_quote(ctx, p, q) || q->fragment == FRAGMENT_LATER || q->protocol != PROTO_UDP || q->dport != own->port)
		return 0;
	peer = peer_find(peer_at(&q->destination));
	if (!peer)
		return 0;
	if (hook_load(ctx, p->l4 + 4, &next, sizeof(next)))
		return HD_R_ICMP_TRUNCATED;
	if (p->family == 4 && p->icmp_type == ICMP_UNREACHABLE && p->icmp_code == ICMP_FRAGMENTATION_NEEDED)
		mtu = bpf_ntohs(next.mtu);
	else if (p->family == 6 && p->icmp_type == ICMPV6_TOO_BIG)
		mtu = bpf_ntohs(next.unused) << 16 | bpf_ntohs(next.mtu);
	path_mtu_note(p, peer, mtu);
	return TUNNEL_OURS;
}

__noinline int tunnel_packet(HOOK_CTX *ctx, struct pkt *p)
{
	const struct hd_tunnel *own = tunnel_find();
	bool in;

	if (!p || !own || !own->protocol)
		return 0;
	in = p->direction == HD_INGRESS;
	if (!address_same(in ? &p->destination : &p->source, &own->address))
		return 0;
	if (p->protocol != PROTO_UDP)
		return in && icmp_is(p) && icmp_error(p) ? tunnel_error(ctx, p, own) : 0;
	if (p->dport != own->port)
		return 0;
	if (in && !p->fragment && !dry_run)
		return TUNNEL_ENTER;
	if (!peer_find(peer_at(in ? &p->source : &p->destination)))
		return in ? HD_R_TUNNEL_PEER : 0;
	return TUNNEL_OURS;
}

/*
 * After the parser, of an uplink with HD_PORT_TUNNEL. Later fragments have no ports: they follow what is noted here of the first one, as any do.
 */
static __always_inline int tunnel_outer(HOOK_CTX *ctx, struct pkt *p)
{
	int r;

	if (likely(p->protocol == PROTO_TCP) || !p->family || p->fragment == FRAGMENT_LATER || p->vlan[0])
		return 0;
	r = tunnel_packet(ctx, p);
	if (likely(!r) || r == TUNNEL_ENTER)
		return r;
	if (r == TUNNEL_OURS)
		p->rule = HD_RULE_TUNNEL;
	if (p->fragment == FRAGMENT_FIRST)
		fragment_first(p, r == TUNNEL_OURS ? 0 : r);
	return r;
}

#endif
