// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* What the benchmarks of AF_XDP need in XDP: frames to sockets with their way in front of them, frames straight to a device, a source and a sink. */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>
#include <heddle/types.h>
#include <heddle/steer.h>

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, 2 * HD_FAST_QUEUES); /* of the first device, then of the second */
	__type(key, __u32);
	__type(value, __u32);
} sockets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} devices SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} sunk SEC(".maps");

static __always_inline int to_socket(struct xdp_md *ctx, __u32 from, __u32 to)
{
	struct hd_fast_meta *meta;

	if (bpf_xdp_adjust_meta(ctx, -(int)sizeof(*meta)))
		return XDP_DROP;
	meta = (void *)(long)ctx->data_meta;
	if ((void *)(meta + 1) > (void *)(long)ctx->data)
		return XDP_DROP;
	meta->device = to;
	meta->flags = 0;
	meta->stamp = 0;
	return bpf_redirect_map(&sockets, from * HD_FAST_QUEUES + ctx->rx_queue_index, XDP_DROP);
}

SEC("xdp")
int first(struct xdp_md *ctx)
{
	return to_socket(ctx, 0, 1);
}

SEC("xdp")
int second(struct xdp_md *ctx)
{
	return to_socket(ctx, 1, 0);
}

SEC("xdp")
int echo(struct xdp_md *ctx)
{
	return to_socket(ctx, 0, 0);
}

SEC("xdp")
int drop(struct xdp_md *ctx)
{
	return to_socket(ctx, 0, HD_FAST_PATHS); /* a device that nobody has */
}

SEC("xdp")
int straight(struct xdp_md *ctx)
{
	return bpf_redirect_map(&devices, 0, XDP_DROP);
}

SEC("xdp")
int back(struct xdp_md *ctx)
{
	return XDP_TX;
}

#define FRAME 60

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u8[FRAME]);
} frames SEC(".maps");

/* The buffers are used again and again, with what a router has written there. */
SEC("xdp")
int again(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	__u32 key = 0;
	void *frame = bpf_map_lookup_elem(&frames, &key);

	if (!frame || data + FRAME > (void *)(long)ctx->data_end)
		return XDP_DROP;
	__builtin_memcpy(data, frame, FRAME);
	return XDP_TX;
}

/* Behind the making of the skb, so that it is paid for whoever sent the frame. */
SEC("tc")
int sink(struct __sk_buff *skb)
{
	__u32 key = 0;
	__u64 *count = bpf_map_lookup_elem(&sunk, &key);

	if (count)
		(*count)++;
	return TC_ACT_SHOT;
}

char _license[] SEC("license") = "Dual BSD/GPL";
