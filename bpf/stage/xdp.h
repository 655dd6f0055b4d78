/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* XDP's half of the contract in packet.h. Included ahead of the stages. */
#ifndef HEDDLE_STAGE_XDP_H
#define HEDDLE_STAGE_XDP_H

#include "compat.h"

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

#endif
