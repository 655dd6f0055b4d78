/* SPDX-License-Identifier: Apache-2.0 */
/* spec.sriov of a Host: how many VFs a NIC shall have, and in which mode its switch shall be. */
#include <model/kinds.h>

#include <util/cleanup.h>

struct sriov_draft {
	const char *device;
	uint32_t vfs;
	int eswitch;
};

static const char *const eswitch_names[] = {"legacy", "switchdev", NULL};
const struct choice sriov_eswitches = {eswitch_names};
static const struct range vfs_range = {.min = 0, .max = 65535, .size = 4, .unit = ""};

static bool finish_sriov(struct decoder *d, const struct path *path, node_id node, const void *draft, void *out)
{
	const struct sriov_draft *from = draft;
	struct sriov_wish wish = {.device = from->device,
		.vfs = from->vfs,
		.has_vfs = node_field(d, node, "vfs") != NODE_NONE,
		.eswitch = SRIOV_ESWITCH_ANY};
	struct path field = {.up = path, .key = "vfs"};

	if (node_field(d, node, "eswitch") != NODE_NONE)
		wish.eswitch = SRIOV_ESWITCH_LEGACY + (unsigned)from->eswitch;
	if (!wish.has_vfs && wish.eswitch == SRIOV_ESWITCH_ANY)
		return want(d, &field, NODE_NONE, "vfs, eswitch or both");
	*(struct sriov_wish *)out = wish;
	return true;
}

static const struct field sriov_fields[] = {
	{"device", value_text, &device_text, offsetof(struct sriov_draft, device), true},
	{"vfs", value_uint, &vfs_range, offsetof(struct sriov_draft, vfs), false},
	{"eswitch", value_choice, &sriov_eswitches, offsetof(struct sriov_draft, eswitch), false},
};
static const struct schema sriov_schema = {
	.what = "a mapping with device",
	SCHEMA_FIELDS(sriov_fields),
	.draft_size = sizeof(struct sriov_draft),
	.finish = finish_sriov,
};
const struct list_type sriov_list = {
	.what = "devices",
	.item = value_mapping,
	.item_type = &sriov_schema,
	.item_size = sizeof(struct sriov_wish),
	.may_be_empty = true,
	.most = 64,
};
