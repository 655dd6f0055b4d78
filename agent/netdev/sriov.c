/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <netdev/sriov.h>
#include <util/cleanup.h>
#include <util/port_name.h>

void sriov_clear(struct sriov *table)
{
	free(table->pfs);
	free(table->vfs);
	*table = (struct sriov){0};
}

static struct sriov_pf *find_pf(const struct sriov *table, const char *bus, const char *address)
{
	for (size_t i = 0; i < table->n_pfs && *address; i++)
		if (strcmp(table->pfs[i].address, address) == 0 && strcmp(table->pfs[i].bus, bus) == 0)
			return &table->pfs[i];
	return NULL;
}

static int by_pf_and_index(const void *a, const void *b)
{
	const struct sriov_vf *x = a, *y = b;

	return x->pf != y->pf ? (x->pf > y->pf) - (x->pf < y->pf) : (x->index > y->index) - (x->index < y->index);
}

static struct sriov_vf *find_vf(const struct sriov *table, size_t pf, uint32_t index)
{
	struct sriov_vf key = {.pf = pf, .index = index};

	return table->n_vfs ? bsearch(&key, table->vfs, table->n_vfs, sizeof(key), by_pf_and_index) : NULL;
}

static const struct netdev *find_device(const struct netdev *devices, size_t n, uint32_t ifindex)
{
	for (size_t i = 0; ifindex && i < n; i++)
		if (devices[i].ifindex == ifindex)
			return &devices[i];
	return NULL;
}

static void represent(struct sriov_vf *vf, const struct netdev *device)
{
	vf->representor = device->ifindex;
	memcpy(vf->representor_name, device->name, sizeof(vf->representor_name));
}

/* --- devlink's part --- */

/* Whose VF a port is the end of. */
static void take_port(struct sriov *table, const struct devlink_port *port, const struct netdev *devices, size_t n_devices)
{
	struct sriov_pf *pf = find_pf(table, port->bus, port->name);
	const struct netdev *device = find_device(devices, n_devices, port->ifindex);
	struct sriov_vf *vf;

	if (!pf || port->external)
		return;
	/* The number means this device only if it is one of that switch: the port's interface may be in another namespace. */
	if (device && (device->parent_name[0] ? strcmp(device->parent_name, port->name) != 0 : !device->switch_id))
		device = NULL;
	if (port->flavour == DEVLINK_PHYSICAL && device && !pf->ifindex) {
		pf->ifindex = device->ifindex;
		pf->switch_id = device->switch_id;
		memcpy(pf->name, device->name, sizeof(pf->name));
	}
	if (port->flavour != DEVLINK_PCI_VF)
		return;
	vf = find_vf(table, (size_t)(pf - table->pfs), port->number);
	/* A port may outlive its VF for a moment. */
	if (!vf)
		return;
	if (device)
		represent(vf, device);
	memcpy(vf->mac, port->mac, sizeof(vf->mac));
}

/* --- rtnetlink's part --- */

static void take_own(struct sriov *table, const struct netdev *device)
{
	struct port_name name = port_name_parse(device->port_name);
	struct sriov_pf *pf = find_pf(table, device->parent_bus, device->parent_name);

	if (name.flavour > PORT_UPLINK)
		return;
	/* A PF with several wires: the first is what it is called by, the others lead to it too. */
	if (pf && (!pf->ifindex || device->ifindex < pf->ifindex)) {
		pf->ifindex = device->ifindex;
		pf->switch_id = device->switch_id;
		memcpy(pf->name, device->name, sizeof(pf->name));
	}
	for (size_t i = 0; !pf && device->parent_name[0] && i < table->n_vfs; i++) {
		struct sriov_vf *vf = &table->vfs[i];

		if (strcmp(vf->address, device->parent_name) != 0)
			continue;
		vf->ifindex = device->ifindex;
		memcpy(vf->name, device->name, sizeof(vf->name));
		memcpy(vf->mac, device->mac, sizeof(vf->mac));
		return;
	}
}

/* "0000:01:00.1" is function 1. */
static bool is_function(const struct sriov_pf *pf, uint32_t number)
{
	const char *dot = strrchr(pf->address, '.');

	return dot && strtoul(dot + 1, NULL, 16) == number;
}

/* A representor that devlink has no port for: by its parent, or by the switch that it shares with a PF. */
static void take_representor(struct sriov *table, const struct netdev *device)
{
	struct port_name name = port_name_parse(device->port_name);
	struct sriov_pf *pf = find_pf(table, device->parent_bus, device->parent_name);
	struct sriov_vf *vf;
	size_t sharing = 0;

	if (name.flavour != PORT_VF || name.external)
		return;
	for (size_t i = 0; !pf && device->switch_id && i < table->n_pfs; i++)
		if (table->pfs[i].switch_id == device->switch_id && is_function(&table->pfs[i], name.pf))
			pf = &table->pfs[i];
	/* Where functions are numbered otherwise: the only one of that switch. */
	for (size_t i = 0; !pf && device->switch_id && i < table->n_pfs; i++)
		sharing += table->pfs[i].switch_id == device->switch_id;
	for (size_t i = 0; sharing == 1 && i < table->n_pfs; i++)
		if (table->pfs[i].switch_id == device->switch_id)
			pf = &table->pfs[i];
	vf = pf ? find_vf(table, (size_t)(pf - table->pfs), name.number) : NULL;
	if (vf && !vf->representor)
		represent(vf, device);
	/* Representors are there in this mode alone. */
	if (vf && pf->eswitch == ESWITCH_UNKNOWN)
		pf->eswitch = ESWITCH_SWITCHDEV;
}

void sriov_join(struct sriov *table, const struct netdev *devices, size_t n_devices, const struct devlink *devlink)
{
	if (table->n_vfs)
		qsort(table->vfs, table->n_vfs, sizeof(*table->vfs), by_pf_and_index);
	for (size_t i = 0; i < table->n_pfs; i++)
		table->pfs[i].eswitch = devlink_eswitch(devlink, table->pfs[i].bus, table->pfs[i].address);
	for (size_t i = 0; devlink && i < devlink->n_ports; i++)
		take_port(table, &devlink->ports[i], devices, n_devices);
	for (size_t i = 0; i < n_devices; i++)
		take_own(table, &devices[i]);
	for (size_t i = 0; i < n_devices; i++)
		take_representor(table, &devices[i]);
}

/* --- looking up --- */

static const struct netdev *by_name(const struct netdev *devices, size_t n, const char *name)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(devices[i].name, name) == 0)
			return &devices[i];
	return NULL;
}

const struct sriov_vf *sriov_find(
	const struct sriov *table, const struct netdev *devices, size_t n_devices, const char *pf, uint32_t index)
{
	const struct netdev *device = by_name(devices, n_devices, pf);
	const struct sriov_pf *found = device ? find_pf(table, device->parent_bus, device->parent_name) : NULL;

	return found ? find_vf(table, (size_t)(found - table->pfs), index) : NULL;
}

const struct sriov_vf *sriov_find_address(const struct sriov *table, const char *address)
{
	for (size_t i = 0; i < table->n_vfs; i++)
		if (strcmp(table->vfs[i].address, address) == 0)
			return &table->vfs[i];
	return NULL;
}

static void say_no_vf(const struct sriov *table, const struct netdev *device, const struct sriov_name *name, char *reason)
{
	const struct sriov_pf *pf = device ? find_pf(table, device->parent_bus, device->parent_name) : NULL;

	if (!device)
		snprintf(reason, SRIOV_REASON_MAX, "there is no device %s", name->pf);
	else if (!pf)
		snprintf(reason, SRIOV_REASON_MAX, "%s is no device with VFs", name->pf);
	else if (!pf->vfs)
		snprintf(reason, SRIOV_REASON_MAX, "%s has no VFs yet (sriov_numvfs is 0)", name->pf);
	else
		snprintf(reason, SRIOV_REASON_MAX, "%s has %u VFs, and none of index %u", name->pf, pf->vfs, name->index);
}

static uint32_t resolve_vf(
	const struct sriov *table, const struct sriov_vf *vf, uint8_t ret_mac[6], char reason[SRIOV_REASON_MAX])
{
	const struct sriov_pf *pf = &table->pfs[vf->pf];

	memcpy(ret_mac, vf->mac, 6);
	if (vf->representor)
		return vf->representor;
	if (pf->eswitch == ESWITCH_SWITCHDEV)
		snprintf(reason, SRIOV_REASON_MAX, "VF %u of %s has no representor yet", vf->index,
			pf->name[0] ? pf->name : pf->address);
	else
		snprintf(reason, SRIOV_REASON_MAX,
			"VF %u of %s has no representor (the switch of the NIC is %s): no policy can be enforced on it, nor "
			"source checks, overlay or limits: what holds is what spec.vf sets",
			vf->index, pf->name[0] ? pf->name : pf->address,
			pf->eswitch == ESWITCH_LEGACY ? "in legacy mode" : "not in switchdev mode");
	return 0;
}

uint32_t sriov_resolve(const struct sriov *table, const struct netdev *devices, size_t n_devices, const struct sriov_name *name,
	uint8_t ret_mac[6], char reason[SRIOV_REASON_MAX])
{
	const struct sriov_vf *vf =
		name->pf ? sriov_find(table, devices, n_devices, name->pf, name->index) : sriov_find_address(table, name->pci);

	memset(ret_mac, 0, 6);
	reason[0] = '\0';
	if (vf)
		return resolve_vf(table, vf, ret_mac, reason);
	if (name->pf) {
		say_no_vf(table, by_name(devices, n_devices, name->pf), name, reason);
		return 0;
	}
	/* A device of that address that is no VF: its own interface, not those that stand for its VFs. */
	for (size_t i = 0; i < n_devices; i++)
		if (strcmp(devices[i].parent_bus, "pci") == 0 && strcmp(devices[i].parent_name, name->pci) == 0 &&
			port_name_parse(devices[i].port_name).flavour <= PORT_UPLINK)
			return devices[i].ifindex;
	snprintf(reason, SRIOV_REASON_MAX, "there is no interface of a PCI device %s", name->pci);
	return 0;
}
