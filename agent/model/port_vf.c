/* SPDX-License-Identifier: Apache-2.0 */
/* spec.vf of a Port: which VF, and what the NIC shall do with it. */
#include <model/kinds.h>

#include <assert.h>
#include <string.h>

#include <util/cleanup.h>

struct vf_draft {
	const char *pf;
	uint32_t index, min_rate, max_rate;
	struct mac mac;
	uint16_t vlan, qos;
	bool spoof_check, trust;
	int link_state;
};

static const char *const link_state_names[] = {"auto", "enable", "disable", NULL};
const struct choice port_vf_link_states = {link_state_names};

static const struct range index_range = {.min = 0, .max = 65535, .size = 4, .unit = ""};
static const struct range tag_range = {.min = 0, .max = 4094, .size = 2, .unit = ""};
static const struct range qos_range = {.min = 0, .max = 7, .size = 2, .unit = ""};
static const struct range rate_range = {.min = 0, .max = 10000000, .size = 4, .unit = " Mbit/s"};

static bool is_given(const struct decoder *d, node_id node, const char *name)
{
	return node_field(d, node, name) != NODE_NONE;
}

static bool finish_vf(struct decoder *d, const struct path *path, node_id node, const void *draft, void *out)
{
	const struct vf_draft *from = draft;
	struct port_vf_value *value = out;
	struct path field = {.up = path, .key = "qos"};
	struct port_vf vf = {.vlan = from->vlan,
		.qos = (uint8_t)from->qos,
		.link_state = (uint8_t)from->link_state,
		.min_rate = from->min_rate,
		.max_rate = from->max_rate,
		.spoof_check = from->spoof_check,
		.trust = from->trust};

	*value = (struct port_vf_value){.given = true, .pf = from->pf, .index = from->index};
	if (!from->pf != !is_given(d, node, "index")) {
		field.key = from->pf ? "index" : "pf";
		return mistake(d, &field, tree_node(d->tree, node)->line, "want both of pf and index, got nothing");
	}
	if (from->qos && !from->vlan)
		return want(d, &field, node_field(d, node, "qos"), "qos only with a vlan");
	field.key = "minRate";
	if (from->max_rate && from->min_rate > from->max_rate)
		return want(d, &field, node_field(d, node, "minRate"), "no more than maxRate");
	memcpy(vf.mac, from->mac.octets, sizeof(vf.mac));
	vf.has |= (uint32_t)from->mac.given << PORT_VF_MAC;
	vf.has |= (uint32_t)is_given(d, node, "vlan") << PORT_VF_VLAN;
	vf.has |= (uint32_t)(is_given(d, node, "minRate") || is_given(d, node, "maxRate")) << PORT_VF_RATE;
	vf.has |= (uint32_t)is_given(d, node, "spoofCheck") << PORT_VF_SPOOF_CHECK;
	vf.has |= (uint32_t)is_given(d, node, "trust") << PORT_VF_TRUST;
	vf.has |= (uint32_t)is_given(d, node, "linkState") << PORT_VF_LINK_STATE;
	if (!vf.has)
		return true;
	value->values = arena_copy(d->arena, &vf, sizeof(vf), _Alignof(struct port_vf));
	return value->values || decoder_no_memory(d);
}

static const struct field vf_fields[] = {
	{"pf", value_text, &device_text, offsetof(struct vf_draft, pf), false},
	{"index", value_uint, &index_range, offsetof(struct vf_draft, index), false},
	{"mac", value_mac, NULL, offsetof(struct vf_draft, mac), false},
	{"vlan", value_uint, &tag_range, offsetof(struct vf_draft, vlan), false},
	{"qos", value_uint, &qos_range, offsetof(struct vf_draft, qos), false},
	{"minRate", value_uint, &rate_range, offsetof(struct vf_draft, min_rate), false},
	{"maxRate", value_uint, &rate_range, offsetof(struct vf_draft, max_rate), false},
	{"spoofCheck", value_bool, NULL, offsetof(struct vf_draft, spoof_check), false},
	{"trust", value_bool, NULL, offsetof(struct vf_draft, trust), false},
	{"linkState", value_choice, &port_vf_link_states, offsetof(struct vf_draft, link_state), false},
};
const struct schema port_vf_schema = {
	.what = "a mapping with pf and index, or of what is set beside pci",
	SCHEMA_FIELDS(vf_fields),
	.draft_size = sizeof(struct vf_draft),
	.finish = finish_vf,
};
static_assert(sizeof(struct vf_draft) <= SCHEMA_DRAFT_MAX, "vf_draft");
