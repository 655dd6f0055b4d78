/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checksums that a workload has left to its device: the field of TCP or UDP holds the sum over the pseudo-header alone (CHECKSUM_PARTIAL over a veth,
 * VIRTIO_NET_HDR_F_NEEDS_CSUM of a VM behind a tap). What said so, the skb or the virtio header, does not get to an AF_XDP socket; the field itself
 * tells it. A whole checksum that looks the same is what it would be completed to.
 */
#ifndef HEDDLE_FASTPATH_CHECKSUM_H
#define HEDDLE_FASTPATH_CHECKSUM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct checksum_piece {
	uint8_t *data;
	size_t length;
};
/*
 * frame: Ethernet, untagged, of a workload that may have written anything; nothing outside of its length is read. True: TCP or UDP without a checksum of its
 * own, which has one now. Fragments, extension headers of IPv6 and what does not fit are left alone.
 */
bool checksum_complete(void *frame, size_t length);
/* The same of one in several pieces, whose headers are all in the first. */
bool checksum_complete_pieces(const struct checksum_piece *pieces, size_t n);

#endif
