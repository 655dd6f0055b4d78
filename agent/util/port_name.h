/* SPDX-License-Identifier: Apache-2.0 */
/* What drivers call the ports of an embedded switch (phys_port_name): whose end an interface is. */
#ifndef HEDDLE_UTIL_PORT_NAME_H
#define HEDDLE_UTIL_PORT_NAME_H

#include <stdbool.h>
#include <stdint.h>

enum port_flavour {
	PORT_NONE,
	PORT_UPLINK, /* p0, p0s1 where it is split, l2p0 on a line card */
	PORT_PF,     /* pf0; nfp with several: pf0s1 */
	PORT_VF,     /* pf0vf3; ice before 6.4: pf0vfr3; sfc: p0pf0vf3 */
	PORT_SF,     /* pf0sf5 */
};
struct port_name {
	enum port_flavour flavour;
	bool external; /* c1pf0vf3: a function of another host, on a DPU */
	uint32_t pf, number;
};
/* Anything else is PORT_NONE. */
struct port_name port_name_parse(const char *text);

#endif
