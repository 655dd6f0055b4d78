/* SPDX-License-Identifier: Apache-2.0 */
/* For `heddle explain`: frames made from a description, complete, with right lengths and checksums; and frames looked at. Pure functions. */
#ifndef HEDDLE_OBSERVE_PACKET_H
#define HEDDLE_OBSERVE_PACKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <heddle/reasons.h>
#include <heddle/types.h>

#define PACKET_MAX 256
#define PACKET_TAGS 2

struct packet_spec {
	struct hd_addr source, destination;	   /* one family; IPv4 is mapped */
	uint8_t source_mac[6], destination_mac[6]; /* the first twelve bytes: may be filled in later */
	uint8_t protocol;			   /* IANA number; for IPv6 not an extension header */
	uint16_t source_port, destination_port;	   /* TCP, UDP, SCTP; quoted in ICMP errors */
	uint8_t icmp_type, icmp_code;
	uint16_t icmp_id;
	uint8_t tcp_flags;	    /* as on the wire, 0 is none */
	bool reply;		    /* SCTP: a DATA chunk instead of INIT */
	uint16_t vlan[PACKET_TAGS]; /* ids, outer first, tagged 802.1Q (an outer one of two: 802.1ad) */
	unsigned n_vlan;
};

/* 0; -EINVAL: two families, too many tags, or an IPv6 extension header as the protocol. */
int packet_build(const struct packet_spec *spec, uint8_t frame[PACKET_MAX], size_t *ret_length);

/* Letters as tcpdump prints them (FSRPAUEC, `.` for ACK) or names joined by commas (syn,ack); any case; "none". -EINVAL. */
int tcp_flags_parse(const char *text, uint8_t *ret);
/* "SA" and the like, "none" for 0. text holds at least 9 bytes. */
void tcp_flags_format(uint8_t flags, char *text);

/* What a frame says of itself, as far as it can be read: for the words of an explanation, never for a verdict. */
struct packet_view {
	bool ip, ip6, ports, icmp, tcp;
	uint8_t protocol;
	uint8_t tcp_flags, icmp_type, icmp_code;
	uint16_t ethertype;
	uint16_t source_port, destination_port;
	struct hd_addr source, destination;
	uint16_t vlan[PACKET_TAGS];
	unsigned n_vlan;
};
void packet_look(const uint8_t *frame, size_t length, struct packet_view *ret);

/* Takes the outermost VLAN tag out, as a receiving stack does before TC sees the frame. false: there is none. */
bool packet_untag(uint8_t *frame, size_t *length, uint16_t *tci, uint16_t *protocol);

/* What a tunnel packet says, as far as it can be read. */
struct packet_tunnel {
	struct hd_addr source; /* outer */
	bool header;	       /* the tunnel header is a whole one, so that vni is valid */
	bool control;	       /* Geneve's O bit: nothing of a workload is in it */
	uint32_t vni;
	size_t inner; /* offset of the inner frame */
};
/*
 * Of an untagged frame that packet_look() says is UDP in IPv4 or IPv6; protocol: enum hd_tunnel_protocol. HD_R_NONE, or the reason that the programs would
 * have for it, whoever sent it.
 */
enum hd_reason packet_unwrap(const uint8_t *frame, size_t length, unsigned protocol, struct packet_tunnel *ret);

#endif
