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
	uint32_t network;		  /* of a frame whose tag says that it is a network's on the uplinks; 0: the host's */
	enum hd_direction direction;
	enum hd_hook hook;
};

/*
 * As asked for; else by the packet's addresses: from a port, to a port, inbound to the host, outbound from it, else inbound at the first
 * uplink. -ENODEV with mistakes.
 */
int explain_find_place(const struct view *view, const struct explain_request *request, const struct packet_view *packet,
	struct explain_place *ret, struct buffer *mistakes);
/* The MACs of a packet that is only described, as its sender would set them. */
void explain_set_macs(
	const struct view *view, const struct explain_place *place, const struct packet_view *packet, uint8_t *frame);

#endif
