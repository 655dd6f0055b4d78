/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* TC's half of the contract in packet.h. Included ahead of the stages. */
#ifndef HEDDLE_STAGE_TC_H
#define HEDDLE_STAGE_TC_H

#include "compat.h"

#include <stddef.h>

#define HOOK_CTX struct __sk_buff

/* Written out: clang otherwise moves the 32 bits of the context's field about, in which the verifier no longer sees a pointer. */
#define HOOK_POINTER(ctx, field) \
	({ \
		void *pointer_; \
		asm volatile("%0 = *(u32 *)(%1 + %2)" : "=r"(pointer_) : "r"(ctx), "i"(offsetof(struct __sk_buff, field))); \
		pointer_; \
	})

static __always_inline void *hook_data(HOOK_CTX *ctx)
{
	return HOOK_POINTER(ctx, data);
}

static __always_inline void *hook_data_end(HOOK_CTX *ctx)
{
	return HOOK_POINTER(ctx, data_end);
}

static __always_inline __u32 hook_length(HOOK_CTX *ctx)
{
	return ctx->len;
}

static __always_inline long hook_load(HOOK_CTX *ctx, __u32 at, void *to, __u32 length)
{
	return bpf_skb_load_bytes(ctx, at, to, length);
}

/* TC_ACT_UNSPEC for clsact, TCX_NEXT for tcx: whoever comes behind us still runs. */
#define NEXT (-1)

#endif
