/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Uplink ingress where XDP runs: judges in full, and tells TC so in the packet's metadata. */
#include "stage/xdp.h"

#include "stage/judge.h"
#include "stage/match.h"
#include "stage/outer.h"
#include "stage/tunnel.h"
#include "stage/wire.h"
#include "stage/worker.h"

#include <maps/network.bpf.h>

/*
 * Every packet that is let through on a port whose TC program believes metadata gets ours. What another program put there is overwritten or
 * cut off. Where that fails, TC finds nothing with our magic and judges once more. magic 0: it shall.
 */
static __always_inline bool hand_over(struct xdp_md *ctx, const struct pkt *p, __u32 magic, __u32 what, __u32 whose)
{
	long present = (long)ctx->data - (long)ctx->data_meta;
	struct hd_meta *meta;

	if (!(p->port_flags & HD_PORT_XDP))
		return false;
	if (dry_run) {
		EXPLAIN(meta_written = 1);
		return true;
	}
	if (bpf_xdp_adjust_meta(ctx, (int)(present - (long)sizeof(*meta)))) {
		meta = (void *)(long)ctx->data_meta;
		if ((void *)(&meta->magic + 1) <= (void *)(long)ctx->data)
			meta->magic = 0;
		return false;
	}
	meta = (void *)(long)ctx->data_meta;
	if ((void *)(meta + 1) > (void *)(long)ctx->data)
		return false;
	static_assert(sizeof(*meta) == sizeof(struct hd_meta_tunnel), "one form");
	meta->magic = magic;
	meta->generation = p->generation;
	meta->rule = what;
	meta->reserved = whose;
	return true;
}

/* TC must believe what is taken out here, or it would be a packet of the underlay's. */
#define TAKES_OUT (HD_PORT_TUNNEL | HD_PORT_DECAP | HD_PORT_XDP)

/* The EtherType behind the tags of the inner frame, and the first bytes there: *l3. */
static __always_inline int inner_type(struct xdp_md *ctx, struct outer *o, __u32 *l3)
{
	struct {
		__be16 type;
		__u8 ip[2];
	} head;
	int i;

	*l3 = o->inner + sizeof(struct ethhdr);
	for (i = 0; i < 3; i++) {
		if (decap_read(ctx, *l3 - sizeof(head.type), &head, sizeof(head)))
			return HD_R_TUNNEL_MALFORMED;
		o->inner_type = head.type;
		o->inner_tos = head.type == bpf_htons(ETH_P_IPV6) ? (__u8)(head.ip[0] << 4 | head.ip[1] >> 4) : head.ip[1];
		if (!tag_protocol(head.type))
			return 0;
		*l3 += 4;
	}
	return HD_R_VLAN_DEPTH;
}

/* The mark of congestion on the inner header: IPv4's checksum follows (RFC 1624), IPv6 has none. */
static __always_inline long inner_mark(struct xdp_md *ctx, const struct outer *o, __u32 l3)
{
	__u8 tos = (o->inner_tos & ~ECN_MASK) | o->ecn;
	__u16 check;
	__be16 word;

	if (hook_load(ctx, l3, &word, sizeof(word)))
		return -1;
	if (o->inner_type == bpf_htons(ETH_P_IPV6)) {
		word = (word & bpf_htons(0xf00f)) | bpf_htons((__u32)tos << 4);
		return bpf_xdp_store_bytes(ctx, l3, &word, sizeof(word));
	}
	if (hook_load(ctx, l3 + offsetof(struct iphdr, check), &check, sizeof(check)))
		return -1;
	check = fold((__u16)~check + (__u16)~word + (__u16)((word & bpf_htons(0xff00)) | bpf_htons(tos)));
	return bpf_xdp_store_bytes(ctx, l3 + offsetof(struct iphdr, tos), &tos, sizeof(tos)) ||
	       bpf_xdp_store_bytes(ctx, l3 + offsetof(struct iphdr, check), &check, sizeof(check));
}

/* What take_out() says, with who->peer once that is known. */
static __always_inline int take_from(
	struct xdp_md *ctx, struct pkt *p, const struct hd_tunnel *own, struct outer *o, struct hd_tunnel_hint *who)
{
	__u32 l3;
	int r;

	r = decap_origin(ctx, own, p, o, who);
	if (r == DECAP_CONTROL) {
		p->rule = HD_RULE_TUNNEL;
		return TUNNEL_OURS;
	}
	if (!r)
		r = inner_type(ctx, o, &l3);
	if (!r)
		r = decap_ecn(o);
	if (r)
		return r;
	/*
	 * The headers may be in more than one buffer. Ahead of the metadata, which would have to be moved; a driver may have no room for that: what was
	 * taken off is still there, and is put back.
	 */
	if (bpf_xdp_adjust_head(ctx, o->inner))
		return TUNNEL_ENTER;
	if (!hand_over(ctx, p, HD_META_TUNNEL, who->network, who->peer))
		return bpf_xdp_adjust_head(ctx, -(int)o->inner) ? HD_R_NONLINEAR : TUNNEL_ENTER;
	return o->ecn != 0xff && inner_mark(ctx, o, l3 - o->inner) ? HD_R_NONLINEAR : 0;
}

/*
 * Takes the frame out of its tunnel, and tells tc_tunnel_in whose it is and where. 0; TUNNEL_OURS: for the host; TUNNEL_ENTER: it shall do it
 * itself; or a drop reason.
 */
__noinline int take_out(struct xdp_md *ctx, struct pkt *p)
{
	const struct hd_tunnel *own = tunnel_find();
	struct hd_tunnel_hint who = {};
	struct outer o = {};
	int r;

	if (!p || !own || dry_run)
		return TUNNEL_ENTER;
	r = decap_ip(ctx, p, &o);
	if (r)
		return r;
	r = take_from(ctx, p, own, &o, &who);
	if (unlikely(r > 0) && who.peer && p->l3_length) /* else the full way says so */
		peer_dropped(who.peer, p, HD_INGRESS);
	return r;
}

/*
 * Most of what an underlay brings, ahead of the parser: a whole packet of the plainest form to our end of the tunnel, in one buffer. Anything odd about
 * it is not asked here, nor what there is to be said against it: the full way does that.
 */
static __always_inline bool plainly_ours(struct xdp_md *ctx, struct pkt *p)
{
	const struct hd_tunnel *own = tunnel_find();
	struct ethhdr *eth = hook_data(ctx);
	void *end = hook_data_end(ctx);
	struct iphdr *ip4 = (void *)(eth + 1);
	struct ipv6hdr *ip6 = (void *)(eth + 1);
	__u32 left, stated;
	struct udphdr *udp;

	if (dry_run || !own || !own->protocol || (void *)(ip4 + 1) > end)
		return false;
	if (eth->h_proto == bpf_htons(ETH_P_IP)) {
		udp = (void *)(ip4 + 1);
		if (*(__u8 *)ip4 != 0x45 || ip4->protocol != PROTO_UDP || ip4->frag_off & bpf_htons(0xbfff))
			return false;
		stated = bpf_ntohs(ip4->tot_len) - sizeof(*ip4);
		address4(&p->destination, ip4->daddr);
	} else if (eth->h_proto == bpf_htons(ETH_P_IPV6) && (void *)(ip6 + 1) <= end) {
		udp = (void *)(ip6 + 1);
		if (*(__u8 *)ip6 >> 4 != 6 || ip6->nexthdr != PROTO_UDP)
			return false;
		stated = bpf_ntohs(ip6->payload_len);
		__builtin_memcpy(&p->destination, &ip6->daddr, sizeof(p->destination));
	} else {
		return false;
	}
	if ((void *)(udp + 1) > end)
		return false;
	left = (__u32)(end - (void *)udp);
	return udp->dest == own->port && bpf_ntohs(udp->len) == stated && stated >= sizeof(*udp) && stated <= left &&
	       address_same(&p->destination, &own->address);
}

#ifndef XDP_SECTION
#define XDP_SECTION "xdp.frags"
#endif
SEC(XDP_SECTION)
int xdp_uplink(struct xdp_md *ctx)
{
	struct pkt p = {};
	struct hd_control *c;
	struct hd_port *port;
	__u32 zero = 0;
	int reason;

	p.ifindex = ctx->ingress_ifindex;
	if (dry_run) {
		struct hd_explain *page = explain_page();

		if (page)
			p.ifindex = page->ifindex;
	}
	port = port_find(p.ifindex);
	c = bpf_map_lookup_elem(&control, &zero);
	if (!port || !c)
		return XDP_PASS;
	p.direction = HD_INGRESS;
	p.hook = HD_HOOK_XDP_UPLINK;
	p.length = ctx->data_end - ctx->data;
	p.segments = 1;
	reason = port_enter(&p, c, port);
	if (unlikely((p.port_flags & TAKES_OUT) == TAKES_OUT) && !reason && plainly_ours(ctx, &p) && !take_out(ctx, &p))
		return XDP_PASS;
	if (!reason)
		reason = parse(ctx, &p, false);
	/* A network's, which no policy of the host is asked about. */
	if (unlikely(p.vlan[0]) && !dry_run && !reason && wire_inline(ctx, &p)) {
		hand_over(ctx, &p, 0, 0, 0);
		return XDP_PASS;
	}
	if (unlikely(p.port_flags & HD_PORT_TUNNEL) && !reason) {
		reason = tunnel_outer(ctx, &p);
		if (reason == TUNNEL_ENTER && (p.port_flags & TAKES_OUT) == TAKES_OUT) {
			reason = take_out(ctx, &p);
			if (!reason)
				return XDP_PASS;
		}
		if (reason == TUNNEL_OURS)
			goto passed;
		if (reason == TUNNEL_ENTER) {
			hand_over(ctx, &p, 0, 0, 0);
			return XDP_PASS;
		}
	}
	if (!reason)
		reason = judge_parsed(ctx, &p);
	if (unlikely(p.port_flags & HD_PORT_FAST) && !reason) {
		reason = steer_matching(ctx, &p);
		if (reason == STEER_FORWARD) {
			reason = worker_way(ctx, &p);
			if (reason == STEER_TAKEN)
				reason = worker_leave(ctx, &p);
			if (reason == STEER_PORT) /* both policies were asked, and it is counted */
				return XDP_REDIRECT;
		}
		if (reason == STEER_TAKEN) {
			pass(&p);
			return XDP_REDIRECT;
		}
	}
	if (unlikely(reason)) {
		drop(ctx, &p, reason);
		return XDP_DROP;
	}
passed:
	pass(&p);
	hand_over(ctx, &p, HD_META_MAGIC, p.rule, 0);
	return XDP_PASS;
}

char _license[] SEC("license") = "Dual BSD/GPL";
