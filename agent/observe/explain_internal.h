/* SPDX-License-Identifier: Apache-2.0 */
/* Inside observe/explain*.c only: where a packet is judged. */
#ifndef HEDDLE_OBSERVE_EXPLAIN_INTERNAL_H
#define HEDDLE_OBSERVE_EXPLAIN_INTERNAL_H

#include <observe/explain.h>

struct explain_place {
	const struct netdev *device;
	const struct datapath_attachment *attachment;
	const struct topology_port *port; /* whose device it is; NULL: an uplink */
	uint32_t from;			  /* ifindex where a forwarded packet came in; 0: it is not one that leaves here */
	uint32_t to;			  /* ifindex of the port that has the destination, as far as documents say; 0: none */
	uint32_t to_peer;		  /* or the peer, of a packet from a port; 0: none */
	uint32_t network; /* on an uplink: whose frame it is by its tag, or by its VNI; 0: the host's, or none of ours */
	uint32_t peer;	  /* that sent it, of tc_tunnel_in; 0: nobody that is known */
	enum hd_direction direction;
	enum hd_hook hook;
};

/*
 * As asked for; else by the packet's addresses: from a port, from a peer, to a port, inbound to the host, outbound from it, else inbound at the
 * first uplink. -ENODEV with mistakes.
 */
int explain_find_place(const struct view *view, const struct explain_request *request, const struct packet_view *packet,
	struct explain_place *ret, struct buffer *mistakes);
/* The MACs of a packet that is only described, as its sender would set them. */
void explain_set_macs(
	const struct view *view, const struct explain_place *place, const struct packet_view *packet, uint8_t *frame);
bool explain_has_address(const struct topology_port *port, const struct hd_addr *address); /* by its document */

/* explain_tunnel.c: frames that come from a peer, in a network's VNI. */
struct explain_sender {
	uint32_t peer;
	uint16_t network;
	uint32_t to; /* as explain_place.to */
};
/* Who may have sent it to whom, in the named network ("" any): how many. to_host: the destination is the host's own. */
size_t explain_find_senders(
	const struct view *view, const char *named, const struct packet_view *packet, bool to_host, struct explain_sender *ret);
/* request->peer, in the network that is named, or is that of the destination. -ENODEV with mistakes. */
int explain_find_named_peer(const struct view *view, const struct explain_request *request, const struct packet_view *packet,
	struct explain_sender *ret, struct buffer *mistakes);
/* Where frames for the address go in the network, by the documents. False: not known, mac is as it was. */
bool explain_endpoint_mac(const struct view *view, uint16_t network, const struct hd_addr *address, uint8_t mac[6]);

/* The address is that of a peer's host itself, not of a workload. */
bool explain_is_node(const struct view *view, uint16_t network, const struct hd_addr *address);
/* What the uplink's program has found is that the frame is for tc_tunnel_in. */
bool explain_is_tunnel(const struct view *view, const struct explain_place *place, const struct packet_view *packet,
	const struct hd_explain *found);
/* Such a frame: makes the uplink's place that of tc_tunnel_in. HD_R_NONE, or why its inner frame is not even looked at. */
enum hd_reason explain_unwrap(
	const struct view *view, struct explain_place *place, const uint8_t *frame, size_t length, struct packet_tunnel *ret);
/* Sets place->to. */
void explain_find_receiver(const struct view *view, struct explain_place *place, const struct packet_view *inner);

#endif
