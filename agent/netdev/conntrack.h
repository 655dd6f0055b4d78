/* SPDX-License-Identifier: Apache-2.0 */
/* What the kernel tracks of UDP: as much of ctnetlink as it takes to have it forget where a flow leads. */
#ifndef HEDDLE_NETDEV_CONNTRACK_H
#define HEDDLE_NETDEV_CONNTRACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <heddle/types.h>

/* Where the first packet of a flow was sent to, and who answers: somebody else, if it is led there. Ports in host byte order. */
struct conntrack_flow {
	struct hd_addr to, answers;
	uint16_t to_port, answers_port;
};

/*
 * Removes the UDP flows of this namespace for which `is` says so. port: only those to this port are looked at; 0: all. 0, or a negative errno:
 * -EOPNOTSUPP where the kernel does not tell; *ret_n is how many went, in any case.
 */
int conntrack_forget_udp(
	uint16_t port, bool (*is)(const struct conntrack_flow *flow, void *userdata), void *userdata, size_t *ret_n);

#endif
