/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include <observe/json.h>
#include <observe/vfs.h>
#include <util/cleanup.h>

static json_t *text_or_null(const char *text)
{
	return *text ? json_string(text) : json_null();
}

static const char *mode_name(enum eswitch_mode mode)
{
	return mode == ESWITCH_SWITCHDEV ? "switchdev" : mode == ESWITCH_LEGACY ? "legacy" : "";
}

static json_t *mac_json(const uint8_t *mac, bool known)
{
	static const uint8_t none[6];

	return known && memcmp(mac, none, 6) != 0 ? json_mac(mac) : json_null();
}

/* By its representor, or by its name in the document while there is none. */
static const struct topology_port *port_of(const struct view *view, const struct sriov_pf *pf, const struct sriov_vf *vf)
{
	const struct topology *topology = view->topology;

	for (size_t i = 0; topology && i < topology->n_ports; i++) {
		const struct port *port = &topology->ports[i].object->port;
		const struct netdev *device = port->vf_pf ? view_device_by_name(view, port->vf_pf) : NULL;

		if ((vf->representor && topology->ports[i].ifindex == vf->representor) ||
			(device && port->vf_index == vf->index && strcmp(device->parent_name, pf->address) == 0) ||
			(port->pci && strcmp(port->pci, vf->address) == 0))
			return &topology->ports[i];
	}
	return NULL;
}

static json_t *port_json(const struct topology_port *port)
{
	return port ? json_pack("{s:s, s:s, s:s}", "namespace", port->object->namespace_, "name", port->object->name, "state",
			      port->ifindex && !port->reason ? "ready" : "waiting")
		    : json_null();
}

static json_t *refused_json(const struct sriov_pf *pf, const struct sriov_vf *vf, const struct vf_wish *wishes, size_t n)
{
	json_t *list = json_array();

	for (size_t i = 0; i < n; i++)
		for (enum vf_knob knob = 0; knob < VF_KNOBS && wishes[i].index == vf->index && !strcmp(wishes[i].pf, pf->address);
			knob++)
			if (wishes[i].refused[knob])
				json_array_append_new(list, json_pack("{s:s, s:s}", "setting", vf_knob_names[knob], "reason",
								    strerror(-wishes[i].refused[knob])));
	return list;
}

/* What the driver does not tell is null. */
static json_t *known(const struct vf_values *values, enum vf_knob knob, json_t *value)
{
	if (values->has & 1u << knob)
		return value;
	json_decref(value);
	return json_null();
}

static json_t *vf_json(const struct view *view, const struct sriov_pf *pf, const struct sriov_vf *vf,
	const struct vf_values *values, const struct vf_wish *wishes, size_t n_wishes)
{
	bool has_mac = values->has & 1u << VF_MAC;
	json_t *mac = mac_json(has_mac ? values->mac : vf->mac, true);

	/* The PF may not know what the VF's own driver, or devlink, says. */
	if (json_is_null(mac)) {
		json_decref(mac);
		mac = mac_json(vf->mac, true);
	}
	return json_pack("{s:o, s:i, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "pf",
		text_or_null(pf->name), "index", (int)vf->index, "pci", text_or_null(vf->address), "driver",
		text_or_null(vf->driver), "device", text_or_null(vf->name), "representor", text_or_null(vf->representor_name),
		"port", port_json(port_of(view, pf, vf)), "mac", mac, "vlan", known(values, VF_VLAN, json_integer(values->vlan)),
		"qos", known(values, VF_VLAN, json_integer(values->qos)), "minRate",
		known(values, VF_RATE, json_integer(values->min_rate)), "maxRate",
		known(values, VF_RATE, json_integer(values->max_rate)), "spoofCheck",
		known(values, VF_SPOOF_CHECK, json_boolean(values->spoof_check)), "trust",
		known(values, VF_TRUST, json_boolean(values->trust)), "linkState",
		known(values, VF_LINK_STATE, json_string(vf_link_state_names[values->link_state])), "refused",
		refused_json(pf, vf, wishes, n_wishes));
}

json_t *vfs_json(const struct view *view, const struct sriov *table, const struct vf_backend *backend,
	const struct vf_wish *wishes, size_t n_wishes)
{
	json_t *pfs = json_array(), *items = json_array();

	for (size_t i = 0; i < table->n_pfs; i++) {
		const struct sriov_pf *pf = &table->pfs[i];
		_cleanup_free_ struct vf_state *states = NULL;
		size_t n = 0;

		json_array_append_new(
			pfs, json_pack("{s:o, s:s, s:o, s:i, s:i, s:o}", "device", text_or_null(pf->name), "address", pf->address,
				     "driver", text_or_null(pf->driver), "vfs", (int)pf->vfs, "totalVfs", (int)pf->total,
				     "eswitch", text_or_null(mode_name(pf->eswitch))));
		if (pf->ifindex && backend->read(backend->userdata, pf->ifindex, &states, &n) < 0)
			n = 0;
		for (size_t v = 0; v < table->n_vfs; v++) {
			static const struct vf_values unknown;
			const struct vf_values *values = &unknown;

			if (table->vfs[v].pf != i)
				continue;
			for (size_t s = 0; s < n; s++)
				if (states[s].index == table->vfs[v].index)
					values = &states[s].values;
			json_array_append_new(items, vf_json(view, pf, &table->vfs[v], values, wishes, n_wishes));
		}
		/* A PF that knows of VFs of which nothing else does: in legacy mode, on no bus (netdevsim). */
		for (size_t s = 0; s < n; s++) {
			struct sriov_vf vf = {.pf = i, .index = states[s].index};
			bool there = false;

			for (size_t v = 0; v < table->n_vfs; v++)
				there |= table->vfs[v].pf == i && table->vfs[v].index == vf.index;
			if (!there)
				json_array_append_new(items, vf_json(view, pf, &vf, &states[s].values, wishes, n_wishes));
		}
	}
	return json_pack("{s:o, s:o}", "pfs", pfs, "items", items);
}
