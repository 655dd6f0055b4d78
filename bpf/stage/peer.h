/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Peers: who they are, what they own, and what fits through the tunnel to them. Lookups, and nothing decided. */
#ifndef HEDDLE_STAGE_PEER_H
#define HEDDLE_STAGE_PEER_H

#include "packet.h"

#include <heddle/overlay.h>
#include <heddle/types.h>
#include <maps/overlay.bpf.h>

static __always_inline const struct hd_tunnel *tunnel_find(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&tunnel, &zero);
}

static __always_inline struct hd_peer *peer_find(__u32 index)
{
	struct hd_peer *peer;

	index &= ~HD_DEVICE_PEER;
	peer = bpf_map_lookup_elem(&peers, &index);
	return peer && index && peer->flags & HD_PEER_USED ? peer : NULL;
}

static __always_inline struct hd_peer_counters *peer_counters_find(__u32 index)
{
	index &= ~HD_DEVICE_PEER;
	return dry_run ? NULL : bpf_map_lookup_elem(&peer_counters, &index);
}

static __always_inline void peer_passed(__u32 index, const struct pkt *p, __u32 direction)
{
	struct hd_peer_counters *counters = peer_counters_find(index);

	if (likely(counters)) {
		counters->passed[direction].packets += p->segments;
		counters->passed[direction].bytes += p->l3_length;
	}
}

static __always_inline void peer_dropped(__u32 index, const struct pkt *p, __u32 direction)
{
	struct hd_peer_counters *counters = peer_counters_find(index);

	if (counters) {
		counters->dropped[direction].packets += p->segments;
		counters->dropped[direction].bytes += p->l3_length;
	}
}

/* Index of the one whose outer address it is; 0: nobody's. */
static __always_inline __u32 peer_at(const struct hd_addr *address)
{
	struct hd_addr key = *address; /* 6.1 takes a key from a map or the stack only */
	const __u32 *index = bpf_map_lookup_elem(&peer_addresses, &key);

	return index ? *index : 0;
}

/* The place for what is known of frames with that outer source and VNI. */
static __always_inline struct hd_tunnel_hint *tunnel_hint(const struct hd_addr *source, __u32 vni)
{
	__u64 x = (source->q[0] ^ source->q[1] ^ (__u64)vni << 8) * 0x9e3779b97f4a7c15ull;
	__u32 at = (x >> 40) & (HD_TUNNEL_HINTS - 1);

	return bpf_map_lookup_elem(&tunnel_hints, &at);
}

/* --- addresses --- */

static __always_inline void address4(struct hd_addr *to, __be32 from)
{
	to->q[0] = 0;
	to->w[2] = bpf_htonl(0xffff);
	to->w[3] = from;
}

static __always_inline bool address_is4(const struct hd_addr *address)
{
	return !address->q[0] && address->w[2] == bpf_htonl(0xffff);
}

static __always_inline bool address_same(const struct hd_addr *a, const struct hd_addr *b)
{
	return a->q[0] == b->q[0] && a->q[1] == b->q[1];
}

/* hd_control has 30 s in ticks; nothing here knows how long a tick is. */
static __always_inline __u32 path_mtu_ticks(__u32 fragment_timeout)
{
	static_assert(HD_PATH_MTU_SECONDS % 30 == 0, "written so");
	return fragment_timeout * (HD_PATH_MTU_SECONDS / 30);
}

/* Bytes of outer L3 that go through to the peer. */
static __always_inline __u32 peer_mtu(const struct hd_peer *peer, __u32 now, __u32 fragment_timeout)
{
	__u32 mtu = peer->mtu ? peer->mtu : 0xffff;

	if (unlikely(peer->path_mtu) && peer->path_mtu < mtu &&
		(__s32)(now - peer->path_mtu_seen) <= (__s32)path_mtu_ticks(fragment_timeout))
		mtu = peer->path_mtu;
	return mtu;
}

#endif
