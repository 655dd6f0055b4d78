/* SPDX-License-Identifier: Apache-2.0 */
/*
 * UDP flows that were tracked before a port of the host led elsewhere: a client that goes on from the same source port would be led to where it
 * was for as long as it does. TCP connections end by themselves.
 */
#ifndef HEDDLE_NETDEV_NAT_STALE_H
#define HEDDLE_NETDEV_NAT_STALE_H

#include <netdev/conntrack.h>
#include <netdev/nat.h>

/* Ports of protocols other than UDP are passed over. */
struct nat_ports {
	const struct nat_port *items;
	size_t n;
};

struct nat_change {
	struct nat_ports before, now;
	bool lost;		     /* nobody knows what was in force in between: all of `now` are as if they were new */
	const struct hd_addr *local; /* the host's addresses */
	size_t n_local;
};

/* Whether the flow leads where nobody would lead it now: to where a port that is gone led, or past one that is new. */
bool nat_is_stale(const struct nat_change *change, const struct conntrack_flow *flow);
/* Has the kernel forget them, if there can be any. 0, or a negative errno; *ret_n is how many went. */
int nat_forget_stale(const struct nat_change *change, size_t *ret_n);

#endif
