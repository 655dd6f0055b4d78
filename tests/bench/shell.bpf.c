// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * What the program benchmarks need in BPF: a shell that gives each run of a packet the next source of a list and tail-calls
 * the program under test (BPF_PROG_TEST_RUN repeats one packet; a real NIC does not), the empty programs as the floor, and a
 * bare LPM lookup as the yardstick for prefix lists.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

struct source {
	__u8 addr[16];		/* IPv4: the first four bytes */
	__u16 port;		/* network byte order, of the source */
	__u16 destination_port; /* 0: the packet's own stays */
	__u32 reserved;
};

struct draw {
	__u32 count; /* entries of sources in use */
	__u32 next;
	__u32 stride; /* coprime to count, so that neighbours in time are not neighbours in memory */
	__u32 runs;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 131072);
	__type(key, __u32);
	__type(value, struct source);
} sources SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct draw);
} draws SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} xdp_target SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} tc_target SEC(".maps");

struct lpm_key {
	__u32 length;
	__u8 addr[4];
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 131072);
	__type(key, struct lpm_key);
	__type(value, __u32);
} bare_lpm SEC(".maps");

/* Writes the next source over the packet's. at: of the IP header's source address; port: of the L4 source port. */
static __always_inline int draw_source(void *data, void *data_end)
{
	struct ethhdr *eth = data;
	struct draw *draw;
	struct source *source;
	__u32 zero = 0, index;

	draw = bpf_map_lookup_elem(&draws, &zero);
	if (!draw || data + 14 + 40 + 20 > data_end)
		return -1;
	draw->runs++;
	index = draw->next;
	draw->next = index + draw->stride;
	if (draw->next >= draw->count)
		draw->next -= draw->count;
	source = bpf_map_lookup_elem(&sources, &index);
	if (!source)
		return -1;
	if (eth->h_proto == bpf_htons(ETH_P_IP)) {
		__builtin_memcpy(data + 26, source->addr, 4);
		*(__u16 *)(data + 34) = source->port;
		if (source->destination_port)
			*(__u16 *)(data + 36) = source->destination_port;
	} else {
		__builtin_memcpy(data + 22, source->addr, 16);
		*(__u16 *)(data + 54) = source->port;
		if (source->destination_port)
			*(__u16 *)(data + 56) = source->destination_port;
	}
	return 0;
}

SEC("xdp.frags")
int draw_xdp(struct xdp_md *ctx)
{
	/* The test run hands the same buffer in again: what the last run left as metadata goes away first. */
	bpf_xdp_adjust_meta(ctx, ctx->data - ctx->data_meta);
	if (!draw_source((void *)(long)ctx->data, (void *)(long)ctx->data_end))
		bpf_tail_call(ctx, &xdp_target, 0);
	return XDP_ABORTED;
}

SEC("tc")
int draw_tc(struct __sk_buff *skb)
{
	if (!draw_source((void *)(long)skb->data, (void *)(long)skb->data_end))
		bpf_tail_call(skb, &tc_target, 0);
	return 2; /* TC_ACT_SHOT */
}

SEC("xdp.frags")
int empty_xdp(struct xdp_md *ctx)
{
	return XDP_PASS;
}

/* Live frames that pass would wander into the stack: their floor is a drop. */
SEC("xdp.frags")
int drop_xdp(struct xdp_md *ctx)
{
	return XDP_DROP;
}

SEC("tc")
int empty_tc(struct __sk_buff *skb)
{
	return -1;
}

SEC("xdp.frags")
int lpm_xdp(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *data_end = (void *)(long)ctx->data_end;
	struct lpm_key key = {.length = 32};

	if (data + 34 > data_end)
		return XDP_ABORTED;
	__builtin_memcpy(key.addr, data + 26, 4);
	return bpf_map_lookup_elem(&bare_lpm, &key) ? XDP_DROP : XDP_PASS;
}

/*
 * Room for the headers of a tunnel, and nothing else. A test run's skb has 64 bytes of headroom: where IPv6's need 70 the kernel moves the packet to a
 * new buffer, which is what the two differ by.
 */
SEC("tc")
int room4_tc(struct __sk_buff *skb)
{
	return bpf_skb_change_head(skb, 50, 0) ? -1 : 2; /* TC_ACT_SHOT */
}

SEC("tc")
int room6_tc(struct __sk_buff *skb)
{
	return bpf_skb_change_head(skb, 70, 0) ? -1 : 2;
}

char _license[] SEC("license") = "Dual BSD/GPL";
