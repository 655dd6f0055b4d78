/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * xdp_uplink for generic XDP: the same program without the flag that says it can read packets in several pieces. For a program
 * with the flag, kernels from 6.9 on copy a packet whose head is not writable by skb_pp_cow_data(), which forgets skb->mac_len: the TC
 * hook behind it then sees the IP header where the Ethernet header should be. Without it the packet is made linear first.
 */
#define XDP_SECTION "xdp"
#include "xdp_uplink.bpf.c"
