/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Why a packet was not let through: one list, from which the enum, the names, docs/reference.md and the metric labels come.
 * X(SYMBOL, "name", "what it means"). The numbers are part of the pinned schema: append, never insert.
 */
#ifndef HEDDLE_REASONS_H
#define HEDDLE_REASONS_H

#define HD_REASONS(X) \
	X(NONE, "none", "not dropped") \
	X(POLICY_DENY, "policy-deny", "a rule or a default says deny") \
	X(POLICY_REJECT, "policy-reject", "a rule says reject") \
	X(NOT_READY, "not-ready", "no policy is in force on this device yet") \
	X(ETH_TRUNCATED, "eth-truncated", "shorter than its Ethernet header") \
	X(VLAN_TRUNCATED, "vlan-truncated", "shorter than its VLAN tag") \
	X(VLAN_DEPTH, "vlan-depth", "more than two VLAN tags") \
	X(ARP_MALFORMED, "arp-malformed", "truncated ARP, or not Ethernet and IPv4") \
	X(IP4_TRUNCATED, "ip4-truncated", "shorter than its IPv4 header") \
	X(IP4_VERSION, "ip4-version", "IPv4 by EtherType, but the version is not 4") \
	X(IP4_IHL, "ip4-ihl", "IPv4 header length below 20 or past the total length") \
	X(IP4_TOTAL_LENGTH, "ip4-total-length", "IPv4 total length below the header or past the frame") \
	X(IP4_OPTIONS, "ip4-options", "source route option, or malformed options") \
	X(IP6_TRUNCATED, "ip6-truncated", "shorter than its IPv6 header") \
	X(IP6_VERSION, "ip6-version", "IPv6 by EtherType, but the version is not 6") \
	X(IP6_PAYLOAD_LENGTH, "ip6-payload-length", "IPv6 payload length past the frame, or a bad jumbogram") \
	X(IP6_MAPPED, "ip6-mapped", "an IPv4-mapped address on the wire") \
	X(IP6_EXT_TRUNCATED, "ip6-ext-truncated", "an IPv6 extension header past the payload") \
	X(IP6_EXT_CHAIN, "ip6-ext-chain", "more IPv6 extension headers than are followed, or one out of order") \
	X(IP6_ROUTING, "ip6-routing", "IPv6 routing header type 0 (RFC 5095)") \
	X(FRAG_UNKNOWN, "frag-unknown", "a later fragment whose first one was not seen") \
	X(FRAG_TINY, "frag-tiny", "a first fragment without the whole L4 header, or a later one that would overlay it") \
	X(FRAG_LENGTH, "frag-length", "fragment past 65535 bytes, or not a multiple of 8 with more to come") \
	X(TCP_TRUNCATED, "tcp-truncated", "shorter than its TCP header") \
	X(TCP_OFFSET, "tcp-offset", "TCP data offset below 5 or past the packet") \
	X(TCP_FLAGS, "tcp-flags", \
		"a TCP flag combination that no stack sends (none, SYN+FIN, SYN+RST, FIN+RST, FIN without ACK)") \
	X(UDP_TRUNCATED, "udp-truncated", "shorter than its UDP header") \
	X(UDP_LENGTH, "udp-length", "UDP length below 8 or past the packet") \
	X(SCTP_TRUNCATED, "sctp-truncated", "shorter than the SCTP common header and one chunk header") \
	X(ICMP_TRUNCATED, "icmp-truncated", "shorter than its ICMP header") \
	X(ICMP_EMBEDDED, "icmp-embedded", "an ICMP error whose embedded packet is truncated or contradicts the outer addresses") \
	X(ND_HOP_LIMIT, "nd-hop-limit", "neighbour or router discovery with a hop limit other than 255 (RFC 4861)") \
	X(L4_TRUNCATED, "l4-truncated", "shorter than the header its protocol needs") \
	X(TCP_NO_FLOW, "tcp-no-flow", "a TCP segment other than SYN without a known connection") \
	X(TCP_STATE, "tcp-state", "a TCP segment that does not fit the connection's state") \
	X(TCP_WINDOW, "tcp-window", "a RST whose sequence number is outside the receiver's window") \
	X(ICMP_UNRELATED, "icmp-unrelated", "an ICMP echo reply nobody asked for") \
	X(FLOW_TABLE, "flow-table", "the table of new flows took no entry") \
	X(RULE_TREE, "rule-tree", "a broken rule table; the agent is told to rebuild it") \
	X(NONLINEAR, "nonlinear", "headers that the driver did not make readable") \
	X(SOURCE_MAC, "source-mac", "a port sent with a MAC that is not its own") \
	X(SOURCE_IP4, "source-ip4", "a port sent with an IPv4 address that is not its own") \
	X(SOURCE_IP6, "source-ip6", "a port sent with an IPv6 address that is not its own") \
	X(SOURCE_VLAN, "source-vlan", "a port sent with a VLAN tag that it may not use, or without one where it has to") \
	X(ARP_SENDER, "arp-sender", "ARP whose sender is not the port") \
	X(ND_SOURCE, "nd-source", "neighbour discovery whose sender is not the port, or what only a router sends") \
	X(ND_TARGET, "nd-target", "a neighbour advertisement for an address that is not the port's") \
	X(NO_DESTINATION, "no-destination", "nobody has the destination in the networks that the port's network routes to") \
	X(TTL_EXCEEDED, "ttl-exceeded", "TTL or hop limit ran out at the gateway") \
	X(TOO_BIG, "too-big", "larger than the MTU of the way to the destination, and not to be fragmented") \
	X(NOT_ROUTED, "not-routed", "neither unicast IP nor address resolution, on a network that only routes") \
	X(TUNNEL_MALFORMED, "tunnel-malformed", "a VXLAN or Geneve header that is truncated or contradicts itself") \
	X(TUNNEL_OPTION, "tunnel-option", "a critical Geneve option that is not known here (RFC 8926)") \
	X(TUNNEL_VNI, "tunnel-vni", "a VNI that no network here has") \
	X(TUNNEL_PEER, "tunnel-peer", "a tunnel packet of somebody who is no peer") \
	X(TUNNEL_SOURCE, "tunnel-source", "a peer sent what it does not own in that network") \
	X(TUNNEL_ECN, "tunnel-ecn", "marked congested on the way, for an end that does not know ECN (RFC 6040)") \
	X(NO_WAY, "no-way", "no next hop to the peer is known") \
	X(FAST_PATH, "fast-path", "a FastPath whose fallback is drop has no socket for it, nor a device that takes it") \
	X(BANDWIDTH, "bandwidth", "past the rate of the port that it is from, or of the one that it is for, and past the burst")

#define HD_REASON_ENUM(sym, name, text) HD_R_##sym,
enum hd_reason { HD_REASONS(HD_REASON_ENUM) HD_REASON_COUNT };
#undef HD_REASON_ENUM

#endif
