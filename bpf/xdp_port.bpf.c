/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The far end of a port's veth, where a consumer's sockets are bound: everything that comes here was let through to the port by tc_port_in or tc_port_out
 * at the near end, so nothing is judged. Large packets the kernel cuts up before they get here, since XDP takes segmentation offload from a veth. Loaded with the flag for
 * several buffers and without it: see xdp_generic.bpf.c.
 */
#include "stage/compat.h"

#include <heddle/reasons.h>

#include "stage/steer.h"

SEC("xdp")
int xdp_port(struct xdp_md *ctx)
{
	__u32 ifindex = ctx->ingress_ifindex;
	const struct hd_fast_device *device = bpf_map_lookup_elem(&fast_devices, &ifindex);
	int r;

	if (!device)
		return XDP_PASS;
	r = steer_to(ctx, device->index, device->flags);
	if (r == STEER_TAKEN)
		return XDP_REDIRECT;
	return r ? XDP_DROP : XDP_PASS;
}

char _license[] SEC("license") = "Dual BSD/GPL";
