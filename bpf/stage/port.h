/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The record of an interface, and its policy in the generation of the packet. */
#ifndef HEDDLE_STAGE_PORT_H
#define HEDDLE_STAGE_PORT_H

#include "packet.h"

#include <maps/policy.bpf.h>

static __always_inline struct hd_port *port_find(__u32 ifindex)
{
	__u32 slot = ifindex & (HD_PORT_SLOTS - 1);
	struct hd_port *port = bpf_map_lookup_elem(&ports, &slot);

	if (likely(port && port->ifindex == ifindex))
		return port;
	/* Two interfaces of one slot: the later one is in the hash, and stays there when the first one goes. */
	return bpf_map_lookup_elem(&ports_hash, &ifindex);
}

/* Copies what p->generation says of the port. False: nothing yet. */
static __always_inline bool port_copy(struct pkt *p, const struct hd_port *port)
{
	const struct hd_port_policy *policy;
	int at = hd_port_policy_at(port, p->generation);

	if (at < 0 || !p->generation)
		return false;
	policy = &port->policy[at & 1];
	p->version[0] = policy->version[0];
	p->version[1] = policy->version[1];
	p->set[0] = policy->set[0];
	p->set[1] = policy->set[1];
	p->root[0] = policy->root[0];
	p->root[1] = policy->root[1];
	p->port_flags = port->flags;
	p->network = port->network;
	return true;
}

/* The shell has set ifindex, direction, hook, length, segments. */
static __always_inline int port_enter(struct pkt *p, const struct hd_control *c, const struct hd_port *port)
{
	p->now = bpf_jiffies64();
	/* Read once: a packet is judged by one generation. */
	p->generation = READ_ONCE(c->generation);
	return port_copy(p, port) ? 0 : HD_R_NOT_READY;
}

static __always_inline bool port_policy(struct pkt *p, __u32 ifindex)
{
	struct hd_port *port = port_find(ifindex);

	return port && port_copy(p, port);
}

static __always_inline bool port_versions(const struct hd_port *port, __u32 generation, __u32 version[2])
{
	int at = hd_port_policy_at(port, generation);

	if (at < 0)
		return false;
	version[0] = port->policy[at & 1].version[0];
	version[1] = port->policy[at & 1].version[1];
	return true;
}

#endif
