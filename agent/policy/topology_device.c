/* SPDX-License-Identifier: Apache-2.0 */
/* Looking devices up: by name, and for Ports that name a VF or a PCI address. */
#include <policy/topology_internal.h>

static int compare_devices(const void *a, const void *b)
{
	return strcmp((*(const struct topology_device *const *)a)->name, (*(const struct topology_device *const *)b)->name);
}

const struct topology_device *topology_device(const struct building *b, const char *name)
{
	const struct topology_device wanted = {.name = name}, *key = &wanted, **found = NULL;

	if (b->input->n_devices)
		found = bsearch(&key, b->devices, b->input->n_devices, sizeof(struct topology_device *), compare_devices);
	return found ? *found : NULL;
}

void topology_index_devices(struct building *b)
{
	for (size_t i = 0; i < b->input->n_devices; i++)
		b->devices[i] = &b->input->devices[i];
	if (b->input->n_devices)
		qsort(b->devices, b->input->n_devices, sizeof(struct topology_device *), compare_devices);
}

static int compare_places(const void *a, const void *b)
{
	const struct topology_place *x = a, *y = b;

	return ((uintptr_t)x->port > (uintptr_t)y->port) - ((uintptr_t)x->port < (uintptr_t)y->port);
}

void topology_sort_places(struct topology_place *places, size_t n)
{
	if (n)
		qsort(places, n, sizeof(*places), compare_places);
}

const struct topology_place *topology_find_place(const struct building *b, const struct object *port)
{
	const struct topology_place key = {.port = port};

	return b->input->n_places ? bsearch(&key, b->input->places, b->input->n_places, sizeof(key), compare_places) : NULL;
}

const struct topology_port *topology_port_of_device(const struct building *b, uint32_t ifindex)
{
	for (size_t i = 0; i < b->ports.n && b->input->n_places; i++)
		if (b->ports.data[i].ifindex == ifindex)
			return &b->ports.data[i];
	return NULL;
}
