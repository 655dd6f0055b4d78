/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The UDP checksum of our own tunnel packets, where the Host wants one. A program sees neither whether the inner checksum is still to be filled in nor
 * what a super-packet will be cut into. So such a packet goes through a pair of devices without offloads ahead of the uplink: the kernel cuts it and
 * fills in what is inside, and at the other end of the pair this is asked.
 */
#ifndef HEDDLE_STAGE_SUM_H
#define HEDDLE_STAGE_SUM_H

#include "outer.h"
#include "peer.h"
#include "port.h"

/* The most that bpf_csum_diff() takes at once before 6.13. */
#define SUM_CHUNK 512
#define SUM_CHUNKS 128 /* 65536 bytes */

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u8[SUM_CHUNK + 4]);
} sum_rest SEC(".maps");

/* RFC 1071, not folded, of the bytes from `at` to the packet's end: of a linear one, as the device without offloads makes it. -1: it is not. */
__noinline __s64 sum_bytes(HOOK_CTX *ctx, __u32 at)
{
	__u32 zero = 0, left, i, length;
	void *data, *end;
	__s64 sum = 0;
	__u8 *rest;

	rest = bpf_map_lookup_elem(&sum_rest, &zero);
	length = hook_length(ctx);
	if (dry_run || !rest || at > 0xff || length <= at || length > 0xffff)
		return -1;
	data = hook_data(ctx);
	end = hook_data_end(ctx);
	for (i = 0; i < SUM_CHUNKS; i++) {
		void *chunk = data + at;

		if (at > 0xfff0 - SUM_CHUNK || chunk + SUM_CHUNK > end)
			break;
		sum = bpf_csum_diff(NULL, 0, chunk, SUM_CHUNK, sum);
		at += SUM_CHUNK;
	}
	left = length - at;
	if (!left)
		return sum;
	if (left > SUM_CHUNK)
		return -1;
	asm volatile("" : "+r"(left)); /* or clang leaves out what 6.1 needs to see */
	left = ((left - 1) & (SUM_CHUNK - 1)) + 1;
	if (hook_load(ctx, at, rest, left))
		return -1;
	*(__u32 *)(rest + left) = 0;
	return bpf_csum_diff(NULL, 0, (void *)rest, (left + 3) & ~3u, sum);
}

/* A packet may be on its way here while the ways change: it is one of those before. */
static __always_inline bool sum_way(const struct hd_peer *peer, __u32 ifindex)
{
	bool found = false;
	__u32 i;

	for (i = 0; i < HD_PEER_WAYS; i++)
		found |= peer->way[0][i].ifindex == ifindex || peer->way[1][i].ifindex == ifindex;
	return ifindex && found;
}

/*
 * Of a packet that the programs of ports have sent that way, which is known by its headers alone: nobody else's may go out unjudged. Returns the
 * uplink, which its mark says, or 0.
 */
__noinline __u32 sum_packet(HOOK_CTX *ctx, struct pkt *p)
{
	const struct hd_tunnel *own = tunnel_find();
	__u32 ifindex = ctx->mark;
	const struct hd_peer *peer;
	__s64 sum;
	__u16 check;

	if (dry_run || !p || !own || !own->protocol || p->protocol != PROTO_UDP || p->fragment || p->dport != own->port ||
		ctx->gso_size)
		return 0;
	peer = peer_find(peer_at(&p->destination));
	if (!peer || !address_same(&p->source, &own->address) || !sum_way(peer, ifindex))
		return 0;
	sum = sum_bytes(ctx, p->l4);
	if (sum < 0)
		return 0;
	/* The pseudo header. That of IPv4 is the same as of the mapped addresses: the two ffff that they have more are a zero. */
	static_assert(offsetof(struct pkt, destination) == offsetof(struct pkt, source) + sizeof(p->source), "summed up as one");
	sum = bpf_csum_diff(NULL, 0, (void *)&p->source, 2 * sizeof(p->source), sum);
	sum = (sum & 0xffff) + ((sum >> 16) & 0xffff) + bpf_htons(hook_length(ctx) - p->l4) + bpf_htons(PROTO_UDP);
	check = fold(sum);
	if (!check) /* says that there is none */
		check = 0xffff;
	return bpf_skb_store_bytes(ctx, p->l4 + offsetof(struct udphdr, check), &check, sizeof(check), 0) ? 0 : ifindex;
}

#endif
