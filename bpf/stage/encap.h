/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Out: a frame in VXLAN (RFC 7348) or Geneve (RFC 8926), in UDP, over IPv4 or IPv6, to a peer. Super-packets stay whole: the kernel is told where
 * the inner headers are, and cuts them behind us.
 */
#ifndef HEDDLE_STAGE_ENCAP_H
#define HEDDLE_STAGE_ENCAP_H

#include "deliver.h"
#include "hot.h"
#include "mss.h"
#include "outer.h"
#include "peer.h"
#include "scratch.h"

#define ERROR_ALREADY (-114) /* EALREADY: the skb was encapsulated once, and says so for ever */

/*
 * room->head: everything up to the inner payload. What follows the outer IP header has fixed places; in front of that there are 40 bytes, of which
 * IPv4 uses the last 20.
 */
#define HEAD_UDP 56
#define HEAD_TUNNEL (HEAD_UDP + 8)
#define HEAD_INNER (HEAD_TUNNEL + 8)
#define HEAD_TYPE (HEAD_INNER + 12)
#define HEAD_IP4 (HEAD_UDP - sizeof(struct iphdr))
#define HEAD_IP6 (HEAD_UDP - sizeof(struct ipv6hdr))
static_assert(HEAD_IP6 == 16 && HEAD_TYPE + 8 + 2 <= 128, "fits");
static_assert(HEAD_IP4 - sizeof(struct ethhdr) + 128 <= HEAD_ROOM, "as the verifier sees it");

/* Tags that the frame has in the tunnel: its segment, and what is the sender's own affair. */
static __always_inline __u32 encap_tag_count(const struct pkt *p)
{
	if (p->routed || on_wire(p))
		return 0;
	if (p->port_flags & HD_PORT_QINQ)
		return 1 + !!p->vlan[0];
	return p->vlan[0] ? 1 + !!p->vlan[1] : !!p->segment;
}

/*
 * Notes them, from the frame as it came. A trunk's tag says the segment already; an access port's segment takes the place of a tag that says only a
 * priority; around a customer's tag comes a service tag.
 */
__noinline int encap_tags(HOOK_CTX *ctx)
{
	struct hd_scratch *room = scratch_room();
	struct {
		__be16 protocol, tci;
	} tag[2] = {};
	const struct pkt *p;

	if (!room)
		return HD_R_RULE_TREE;
	p = &room->port;
	room->tags = encap_tag_count(p);
	if (!room->tags)
		return 0;
	if (ctx->vlan_present) {
		tag[0].protocol = ctx->vlan_proto;
		tag[0].tci = bpf_htons(ctx->vlan_tci);
		if (p->vlan[1] && hook_load(ctx, 12, &tag[1], sizeof(tag[1])))
			return HD_R_NONLINEAR;
	} else if (p->vlan[0] && hook_load(ctx, 12, tag, p->vlan[1] ? sizeof(tag) : sizeof(tag[0]))) {
		return HD_R_NONLINEAR;
	}
	if (p->port_flags & HD_PORT_QINQ) {
		if (p->vlan[1])
			return HD_R_VLAN_DEPTH;
		tag[1] = tag[0];
		tag[0].protocol = bpf_htons(ETH_P_8021AD);
		tag[0].tci = bpf_htons(p->segment);
	} else if (!(p->vlan[0] & 0xfff) && p->segment) {
		tag[0].protocol = bpf_htons(ETH_P_8021Q);
		tag[0].tci = (tag[0].tci & bpf_htons(0xe000)) | bpf_htons(p->segment);
	}
	room->tag[0].protocol = tag[0].protocol;
	room->tag[0].tci = tag[0].tci;
	room->tag[1].protocol = tag[1].protocol;
	room->tag[1].tci = tag[1].tci;
	return 0;
}

/* Tags become part of the inner header that is written. */
static __always_inline int encap_untag(HOOK_CTX *ctx)
{
	int i;

	for (i = 0; i < 3; i++) {
		if (!ctx->vlan_present && !tag_protocol(ctx->protocol))
			return 0;
		if (bpf_skb_vlan_pop(ctx))
			break;
	}
	return HD_R_NONLINEAR;
}

/* By flow, so that the ways between the hosts share the load and none of them reorders. All pieces of a datagram go the same way. */
static __always_inline __u32 encap_spread(const struct pkt *p, const __u16 *macs)
{
	__u64 x;

	if (!p->family) {
		x = (__u64)(macs[0] ^ macs[3]) << 32 | (__u64)(macs[1] ^ macs[4]) << 16 | (macs[2] ^ macs[5]);
	} else {
		x = HD_FLOW_MIX(p->source.q[0] ^ p->source.q[1], 0x9e3779b97f4a7c15ull) ^
		    HD_FLOW_MIX(p->destination.q[0] ^ p->destination.q[1], 0xc2b2ae3d27d4eb4full);
		if (!p->fragment)
			x ^= HD_FLOW_MIX((__u64)p->sport << 32 | p->dport, 0xff51afd7ed558ccdull);
		x ^= p->protocol;
	}
	x ^= x >> 32;
	x *= 0xe7037ed1a0b428dbull;
	return x >> 32;
}

/*
 * Room for the headers, the kernel being told of it where it cuts super-packets or fills in checksums. What it refuses is not IP, or was encapsulated
 * before: then its inner headers are known already.
 */
static __always_inline long encap_grow(HOOK_CTX *ctx, const struct pkt *p, bool is4, __u32 inner)
{
	__u32 more =
		(is4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr)) + sizeof(struct udphdr) + sizeof(struct hd_vxlan) + inner;
	__u64 flags = BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_ENCAP_L4_UDP | BPF_F_ADJ_ROOM_ENCAP_L2_ETH |
		      BPF_F_ADJ_ROOM_ENCAP_L2(inner) | (is4 ? BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 : BPF_F_ADJ_ROOM_ENCAP_L3_IPV6);
	long r;

	if (unlikely(ctx->protocol != bpf_htons(ETH_P_IP) && ctx->protocol != bpf_htons(ETH_P_IPV6)))
		return bpf_skb_change_head(ctx, more, 0);
	r = bpf_skb_adjust_room(ctx, more, BPF_ADJ_ROOM_MAC, flags);
	if (likely(r != ERROR_ALREADY))
		return r;
	/* A tunnel within ours that somebody else would have to cut: the kernel has room for one only. */
	if (ctx->gso_size && p->protocol != PROTO_TCP)
		return r;
	return bpf_skb_adjust_room(ctx, more, BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO);
}

/* What the inner header is made of, and the DSCP behind it. Most frames are read where they are: a call costs as much as all else here. */
static __always_inline long encap_read(HOOK_CTX *ctx, void *to, __u32 size)
{
	const void *data = hook_data(ctx);

	if (unlikely(data + size > hook_data_end(ctx)))
		return hook_load(ctx, 0, to, size);
	__builtin_memcpy(to, data, size);
	return 0;
}

/* All that does not depend on the peer: the frame grows, room->head has its inner part. room->tags are what encap_tags() noted. */
static __always_inline int encap_frame(HOOK_CTX *ctx, struct hd_scratch *room, const struct hd_tunnel *own, __u32 vni)
{
	static const __u8 gateway[6] = HD_GATEWAY_MAC;
	struct {
		struct ethhdr eth;
		__u8 ip[2];
	} frame = {};
	const struct pkt *p = &room->port;
	__u32 n = room->tags;
	int r;

	if (p->routed && route_ttl(ctx, p))
		return HD_R_NONLINEAR;
	if (unlikely(p->vlan[0] || ctx->vlan_present)) {
		r = encap_untag(ctx);
		if (r)
			return r;
	}
	if (encap_read(ctx, &frame, sizeof(frame)))
		return HD_R_NONLINEAR;
	if (p->routed) {
		mac_copy(frame.eth.h_dest, p->peer_mac);
		mac_copy(frame.eth.h_source, gateway);
	}
	room->tos = p->family == 4 ? frame.ip[1] : p->family == 6 ? (__u8)(frame.ip[0] << 4 | frame.ip[1] >> 4) : 0;
	room->spread = encap_spread(p, (const __u16 *)&frame.eth);
	__builtin_memcpy(room->head + HEAD_INNER, &frame.eth, 12);
	if (unlikely(n)) {
		*(__be16 *)(room->head + HEAD_TYPE) = room->tag[0].protocol;
		*(__be16 *)(room->head + HEAD_TYPE + 2) = room->tag[0].tci;
		if (n == 2) {
			*(__be16 *)(room->head + HEAD_TYPE + 4) = room->tag[1].protocol;
			*(__be16 *)(room->head + HEAD_TYPE + 6) = room->tag[1].tci;
			*(__be16 *)(room->head + HEAD_TYPE + 8) = frame.eth.h_proto;
		} else {
			*(__be16 *)(room->head + HEAD_TYPE + 4) = frame.eth.h_proto;
		}
	} else {
		*(__be16 *)(room->head + HEAD_TYPE) = frame.eth.h_proto;
	}
	if (own->protocol == HD_TUNNEL_GENEVE)
		*(__be32 *)(room->head + HEAD_TUNNEL) = bpf_htonl(HD_GENEVE_ETHERNET); /* version, no options, no flags */
	else
		*(__be32 *)(room->head + HEAD_TUNNEL) = bpf_htonl((__u32)HD_VXLAN_VNI << 24);
	*(__be32 *)(room->head + HEAD_TUNNEL + 4) = bpf_htonl(vni << 8);
	return encap_grow(ctx, p, address_is4(&own->address), sizeof(struct ethhdr) + 4 * n) ? HD_R_NONLINEAR : 0;
}

__noinline int encap_inner(HOOK_CTX *ctx, __u32 vni)
{
	const struct hd_tunnel *own = tunnel_find();
	struct hd_scratch *room = scratch_room();

	return room && own ? encap_frame(ctx, room, own, vni) : HD_R_NO_WAY;
}

/* DF is set: what is too large has been told to its sender, and what is lost on the way comes back as an error. */
static __always_inline void outer_ip4(
	struct iphdr *ip, const struct hd_tunnel *own, const struct hd_peer *peer, __u32 size, __u8 tos)
{
	__be32 source = own->address.w[3], destination = peer->address.w[3];
	__u32 sum;

	ip->version = 4;
	ip->ihl = 5;
	ip->tos = tos;
	ip->tot_len = bpf_htons(size);
	ip->id = 0;
	ip->frag_off = bpf_htons(IP4_DONT);
	ip->ttl = own->ttl;
	ip->protocol = PROTO_UDP;
	ip->saddr = source;
	ip->daddr = destination;
	sum = bpf_htons(0x4500 | tos) + ip->tot_len + bpf_htons(IP4_DONT) + bpf_htons((__u32)own->ttl << 8 | PROTO_UDP);
	sum += (source & 0xffff) + (source >> 16) + (destination & 0xffff) + (destination >> 16);
	ip->check = fold(sum);
}

static __always_inline void outer_ip6(
	struct ipv6hdr *ip, const struct hd_tunnel *own, const struct hd_peer *peer, __u32 size, __u8 tos)
{
	*(__be32 *)ip = bpf_htonl(0x60000000 | (__u32)tos << 20);
	ip->payload_len = bpf_htons(size);
	ip->nexthdr = PROTO_UDP;
	ip->hop_limit = own->ttl;
	__builtin_memcpy(&ip->saddr, &own->address, sizeof(ip->saddr));
	__builtin_memcpy(&ip->daddr, &peer->address, sizeof(ip->daddr));
}

/* A size that has no room in its field is that of a super-packet: every piece gets its own. */
static __always_inline __u32 size16(__u32 size)
{
	return size > 0xffff ? 0 : size;
}

/* For the agent's device. fits_tunnel() has found out how much is too much. */
static __always_inline void slow_note(void *macs, const struct pkt *p)
{
	struct hd_slow note = {};

	if (p->slow && p->fragment)
		note.cut = bpf_htons(p->mtu);
	__builtin_memcpy(macs, &note, sizeof(note));
}

/* Too large for the way: only the kernel's socket cuts on the outside. */
static __always_inline bool encap_slow(
	HOOK_CTX *ctx, const struct pkt *p, const struct hd_tunnel *own, const struct hd_peer *peer)
{
	__u32 zero = 0;
	const struct hd_control *c = bpf_map_lookup_elem(&control, &zero);

	if (likely(p->action != HD_ACT_FLOOD))
		return p->slow;
	return c && p->l3_length + own->overhead + 4 * encap_tag_count(p) > peer_mtu(peer, p->now, c->fragment_timeout);
}

/*
 * The outer headers towards a peer, around what encap_frame() left, and its mark. Returns the device that it goes out by: the uplink of one of the peer's
 * ways, or the one ahead of it that has the checksum filled in, or that of the agent, or 0: nothing leads there.
 */
static __always_inline __u32 encap_around(
	HOOK_CTX *ctx, struct hd_scratch *room, const struct hd_tunnel *own, const struct hd_peer *peer)
{
	__u32 ways = READ_ONCE(peer->ways), size = ctx->len - sizeof(struct ethhdr);
	__u32 length = HEAD_TYPE + 2 + 4 * (room->tags & 3), at, ifindex, mark = HD_MARK;
	struct udphdr *udp = (void *)(room->head + HEAD_UDP);
	struct ethhdr *eth;

	udp->source = bpf_htons(HD_TUNNEL_SOURCE_PORTS + (room->spread & 0x3fff));
	udp->dest = own->port;
	udp->check = 0;
	if (likely(address_is4(&own->address))) {
		outer_ip4((void *)(room->head + HEAD_IP4), own, peer, size16(size), room->tos);
		udp->len = bpf_htons(size16(size - sizeof(struct iphdr)));
		at = HEAD_IP4 - sizeof(*eth);
		eth = (void *)(room->head + HEAD_IP4 - sizeof(*eth));
		eth->h_proto = bpf_htons(ETH_P_IP);
	} else {
		outer_ip6((void *)(room->head + HEAD_IP6), own, peer, size16(size - sizeof(struct ipv6hdr)), room->tos);
		udp->len = bpf_htons(size16(size - sizeof(struct ipv6hdr)));
		at = HEAD_IP6 - sizeof(*eth);
		eth = (void *)(room->head + HEAD_IP6 - sizeof(*eth));
		eth->h_proto = bpf_htons(ETH_P_IPV6);
	}
	if (likely(HD_PEER_WAYS_COUNT(ways)) && likely(!encap_slow(ctx, &room->port, own, peer)) &&
		likely(!(own->flags & HD_TUNNEL_CHECKSUM) || own->sum)) {
		const struct hd_way *way = peer->way[HD_PEER_WAYS_SET(ways)];

		if (HD_PEER_WAYS_COUNT(ways) > 1)
			way += (room->spread >> 16) % HD_PEER_WAYS_COUNT(ways) & (HD_PEER_WAYS - 1);
		ifindex = way->ifindex;
		mac_copy(eth->h_dest, way->destination);
		mac_copy(eth->h_source, way->source);
		if (unlikely(own->flags & HD_TUNNEL_CHECKSUM)) { /* goes on from there: see sum.h */
			mark = ifindex;
			ifindex = own->sum;
		}
	} else {
		ifindex = own->slow;
		slow_note(eth, &room->port);
	}
	length -= at;
	asm volatile("" : "+r"(length), "+r"(at)); /* or clang joins bounds that 6.1 does not follow */
	at &= 31;
	length &= 127;
	if (!length || bpf_skb_store_bytes(ctx, 0, room->head + at, length, 0))
		return 0;
	ctx->mark = mark;
	return ifindex;
}

__noinline int encap_outer(HOOK_CTX *ctx, __u32 index)
{
	const struct hd_tunnel *own = tunnel_find();
	struct hd_scratch *room = scratch_room();
	const struct hd_peer *peer = peer_find(index);

	if (!room || !own || !peer)
		return 0;
	peer_passed(index, &room->port, HD_EGRESS);
	return encap_around(ctx, room, own, peer);
}

/* To one peer. */
__noinline int deliver_peer(HOOK_CTX *ctx)
{
	const struct hd_tunnel *own = tunnel_find();
	struct hd_scratch *room = scratch_room();
	const struct hd_network *record;
	const struct hd_peer *peer;
	__u32 network, ifindex;
	struct pkt *p;
	int r;

	if (!room || !own)
		return HD_R_NO_WAY;
	p = &room->port;
	network = p->destination_network;
	record = bpf_map_lookup_elem(&networks, &network);
	if (!record || !record->vni)
		return HD_R_NO_DESTINATION;
	if (unlikely(p->protocol == PROTO_TCP && p->tcp_flags & TCP_SYN))
		mss_lower(ctx, p, p->to);
	room->tags = 0;
	if (unlikely(p->vlan[0] || p->segment)) {
		r = encap_tags(ctx);
		if (r)
			return r;
	}
	r = encap_frame(ctx, room, own, record->vni);
	if (r)
		return r;
	peer = peer_find(p->to);
	ifindex = peer ? encap_around(ctx, room, own, peer) : 0;
	if (!ifindex)
		return HD_R_NO_WAY;
	peer_passed(p->to, p, HD_EGRESS);
	return bpf_redirect(ifindex, 0) == TC_ACT_REDIRECT ? 0 : HD_R_NO_WAY;
}

#endif
