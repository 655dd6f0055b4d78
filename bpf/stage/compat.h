/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Numbers that the UAPI headers of a BPF build lack, or bring along with half of libc. */
#ifndef HEDDLE_STAGE_COMPAT_H
#define HEDDLE_STAGE_COMPAT_H

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#include <stdbool.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define READ_ONCE(x) (*(const volatile typeof(x) *)&(x))

/* Address families, for bpf_fib_lookup (sys/socket.h does not compile for BPF). */
#define AF_INET 2
#define AF_INET6 10

/* Of linux/bpf.h since 6.6: on 6.1 they are refused. */
#define ROOM_DECAP_L3_IPV4 (1ull << 7)
#define ROOM_DECAP_L3_IPV6 (1ull << 8)

#define FRAME_FOR_HOST 0 /* skb->pkt_type: PACKET_HOST of linux/if_packet.h */

/* IP protocols (linux/in.h has them as enum only in part). */
#define PROTO_HOPOPTS 0
#define PROTO_ICMP 1
#define PROTO_TCP 6
#define PROTO_DCCP 33
#define PROTO_UDP 17
#define PROTO_ROUTING 43
#define PROTO_FRAGMENT 44
#define PROTO_GRE 47
#define PROTO_ESP 50
#define PROTO_AH 51
#define PROTO_ICMPV6 58
#define PROTO_DSTOPTS 60
#define PROTO_SCTP 132
#define PROTO_UDPLITE 136

#define IP4_MORE 0x2000
#define IP4_OFFSET 0x1fff
#define IP4_DONT 0x4000
#define IP4_OPTION_END 0
#define IP4_OPTION_NOP 1
#define IP4_OPTION_LSRR 131
#define IP4_OPTION_SSRR 137

/* Of byte 13 of a TCP header. */
#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10
#define TCP_OPTION_END 0
#define TCP_OPTION_NOP 1
#define TCP_OPTION_MSS 2
#define TCP_OPTION_WSCALE 3
#define TCP_WSCALE_MAX 14

#define ICMP_ECHO_REPLY 0
#define ICMP_UNREACHABLE 3
#define ICMP_ECHO_REQUEST 8
#define ICMP_FRAGMENTATION_NEEDED 4 /* code of ICMP_UNREACHABLE */
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETER 12
#define ICMPV6_UNREACHABLE 1
#define ICMPV6_TOO_BIG 2
#define ICMPV6_PARAMETER 4
#define ICMPV6_ECHO_REQUEST 128
#define ICMPV6_ECHO_REPLY 129
#define ICMPV6_ND_FIRST 133 /* router solicitation, then advertisement, neighbour solicitation, advertisement, redirect */
#define ICMPV6_ND_LAST 137
#define ICMPV6_ROUTER_SOLICITATION 133
#define ICMPV6_ROUTER_ADVERTISEMENT 134
#define ICMPV6_NEIGHBOUR_SOLICITATION 135
#define ICMPV6_NEIGHBOUR_ADVERTISEMENT 136
#define ICMPV6_MLD_FIRST 130 /* query, report, done */
#define ICMPV6_MLD_LAST 132
#define ICMPV6_MLD2_REPORT 143

#endif
