/* SPDX-License-Identifier: Apache-2.0 */
/* Whether two topologies come to the same for packets: then nothing has to be written. */
#include <string.h>

#include <policy/topology_internal.h>

static bool same_ports(const struct topology *a, const struct topology *b)
{
	if (a->n_ports != b->n_ports)
		return false;
	for (size_t i = 0; i < a->n_ports; i++) {
		const struct topology_port *x = &a->ports[i], *y = &b->ports[i];

		if (x->ifindex != y->ifindex || object_compare(x->object, y->object) != 0)
			return false;
		if (x->ifindex && (strcmp(x->device, y->device) != 0 || memcmp(&x->record, &y->record, sizeof(x->record)) != 0))
			return false;
	}
	return true;
}

/* The rows are made of zeroed memory and have no holes that anything else is written to. */
#define SAME_ROWS(a, b, field) \
	((a)->n_##field == (b)->n_##field && \
		((a)->n_##field == 0 || memcmp((a)->field, (b)->field, (a)->n_##field * sizeof(*(a)->field)) == 0))

bool topology_equal(const struct topology *a, const struct topology *b)
{
	static const struct topology none;

	a = a ? a : &none;
	b = b ? b : &none;
	return same_ports(a, b) && SAME_ROWS(a, b, networks) && SAME_ROWS(a, b, endpoints) && SAME_ROWS(a, b, members) &&
	       SAME_ROWS(a, b, routes) && SAME_ROWS(a, b, vlans) && SAME_ROWS(a, b, wires) && SAME_ROWS(a, b, host) &&
	       SAME_ROWS(a, b, vnis) && SAME_ROWS(a, b, peers) && SAME_ROWS(a, b, peer_addresses) && SAME_ROWS(a, b, prefixes) &&
	       SAME_ROWS(a, b, peer_members) && memcmp(&a->tunnel, &b->tunnel, sizeof(a->tunnel)) == 0;
}
