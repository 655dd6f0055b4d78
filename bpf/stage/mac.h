/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* MACs: six bytes at an even offset. */
#ifndef HEDDLE_STAGE_MAC_H
#define HEDDLE_STAGE_MAC_H

#include "compat.h"

#include <heddle/network.h>

static __always_inline bool mac_equal(const void *a, const void *b)
{
	const __u16 *x = a, *y = b;

	return x[0] == y[0] && x[1] == y[1] && x[2] == y[2];
}

static __always_inline bool mac_group(const __u8 *mac)
{
	return mac[0] & 1;
}

static __always_inline bool mac_gateway(const void *mac)
{
	const struct {
		__u8 b[6];
	} __attribute__((aligned(2))) gateway = {HD_GATEWAY_MAC};

	return mac_equal(mac, gateway.b);
}

static __always_inline bool mac_given(const void *mac)
{
	const __u16 *x = mac;

	return x[0] | x[1] | x[2];
}

static __always_inline void mac_copy(void *to, const void *from)
{
	__builtin_memcpy(to, from, 6);
}

#endif
