/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Uplink ingress where XDP runs: judges in full, and tells TC so in the packet's metadata. */
#include "stage/compat.h"

#define HOOK_CTX struct xdp_md

static __always_inline void *hook_data(HOOK_CTX *ctx)
{
	return (void *)(long)ctx->data;
}

static __always_inline void *hook_data_end(HOOK_CTX *ctx)
{
	return (void *)(long)ctx->data_end;
}

static __always_inline __u32 hook_length(HOOK_CTX *ctx)
{
	return bpf_xdp_get_buff_len(ctx);
}

static __always_inline long hook_load(HOOK_CTX *ctx, __u32 at, void *to, __u32 length)
{
	return bpf_xdp_load_bytes(ctx, at, to, length);
}

#include "stage/judge.h"
#include "stage/tunnel.h"
#include "stage/wire.h"

/*
 * Every packet that is let through on a port whose TC program believes metadata gets ours. What another program put there is overwritten or
 * cut off. Where that fails, TC finds nothing with our magic and judges once more. magic 0: it shall.
 */
static __always_inline void hand_over(struct xdp_md *ctx, const struct pkt *p, __u32 magic)
{
	long present = (long)ctx->data - (long)ctx->data_meta;
	struct hd_meta *meta;

	if (!(p->port_flags & HD_PORT_XDP))
		return;
	if (dry_run) {
		EXPLAIN(meta_written = 1);
		return;
	}
	if (bpf_xdp_adjust_meta(ctx, (int)(present - (long)sizeof(*meta)))) {
		meta = (void *)(long)ctx->data_meta;
		if ((void *)(&meta->magic + 1) <= (void *)(long)ctx->data)
			meta->magic = 0;
		return;
	}
	meta = (void *)(long)ctx->data_meta;
	if ((void *)(meta + 1) > (void *)(long)ctx->data)
		return;
	meta->magic = magic;
	meta->generation = p->generation;
	meta->rule = p->rule;
	meta->reserved = 0;
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
	if (!reason)
		reason = parse(ctx, &p, false);
	/* A network's, which no policy of the host is asked about. */
	if (unlikely(p.vlan[0]) && !dry_run && !reason && wire_inline(ctx, &p)) {
		hand_over(ctx, &p, 0);
		return XDP_PASS;
	}
	if (unlikely(p.port_flags & HD_PORT_TUNNEL) && !reason) {
		reason = tunnel_outer(ctx, &p);
		if (reason == TUNNEL_OURS)
			goto passed;
		if (reason == TUNNEL_ENTER) {
			hand_over(ctx, &p, 0);
			return XDP_PASS;
		}
	}
	if (!reason)
		reason = judge_parsed(ctx, &p);
	if (unlikely(reason)) {
		drop(ctx, &p, reason);
		return XDP_DROP;
	}
passed:
	pass(&p);
	hand_over(ctx, &p, HD_META_MAGIC);
	return XDP_PASS;
}

char _license[] SEC("license") = "Dual BSD/GPL";
