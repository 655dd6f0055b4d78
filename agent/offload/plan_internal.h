/* SPDX-License-Identifier: Apache-2.0 */
/* What plans of flows between ports, and of those that leave the host, share. */
#ifndef HEDDLE_OFFLOAD_PLAN_INTERNAL_H
#define HEDDLE_OFFLOAD_PLAN_INTERNAL_H

#include <offload/plan.h>

/* Whether what the flow is lets it be offloaded, wherever it goes. */
enum offload_reason plan_state(const struct datapath_flow *flow, const struct offload_world *world);
/* The port, that is a representor. */
enum offload_reason plan_end(uint32_t device, const struct offload_world *world, struct offload_port *ret);
/* What the direction asks of addresses and ports; everything else 0. */
void plan_addresses(const struct datapath_flow *flow, enum hd_flow_side side, struct offload_rule *ret);

/* One end is a port, the other one on the wire or behind a peer. */
enum offload_reason plan_outside(
	const struct datapath_flow *flow, const struct offload_world *world, struct offload_rule rules[2]);

#endif
