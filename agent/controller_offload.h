/* SPDX-License-Identifier: Apache-2.0 */
/* What the controller_offload*.c files share. */
#ifndef HEDDLE_CONTROLLER_OFFLOAD_H
#define HEDDLE_CONTROLLER_OFFLOAD_H

#include <controller_internal.h>

struct flower_mode offload_mode(void);
uint64_t offload_switch(const struct netdev *device); /* of which NIC it is a representor; 0: of none */

/* --- controller_offload_outside.c --- */

void offload_outside_world(struct offload_world *world); /* what the plan asks of ends that are no ports */
/* The tunnel device, as the Host has a tunnel; and what of it the plan asks. */
void offload_outside_follow(struct controller *c, struct offload_world *world);
void offload_outside_end(struct controller *c); /* none of its rules is left, nor is the device */

#endif
