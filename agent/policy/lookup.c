/* SPDX-License-Identifier: Apache-2.0 */
#include <endian.h>
#include <errno.h>

#include <util/addr.h>

#include <policy/lookup.h>

#define NO_LEAF HD_LEAF(HD_RULE_NONE, HD_DROP, false)

static int walk_addr(const struct lookup_tables *tables, uint32_t value, uint64_t key, uint32_t *ret)
{
	for (unsigned depth = 0; (value & HD_TAG_MASK) == HD_TAG_NODE; depth++) {
		const struct hd_addr_node *node;

		if (value >= tables->n_addr_nodes || depth == HD_ADDR_DEPTH)
			return -EINVAL;
		node = &tables->addr_nodes[value];
		value = node->value[hd_addr_node_find(node, key)];
	}
	*ret = value;
	return 0;
}

int lookup_class(
	const struct lookup_tables *tables, const struct hd_roots *roots, const struct hd_addr *addr, uint32_t *ret_class)
{
	bool ipv4 = addr_is_ipv4(addr);
	uint64_t key = ipv4 ? (uint64_t)be32toh(addr->w[3]) << 32 : be64toh(addr->q[0]);
	uint32_t value = ipv4 ? roots->addr4 : roots->addr6;
	int r = walk_addr(tables, value, key, &value);

	if (r == 0 && (value & HD_TAG_MASK) == HD_TAG_NEXT && !ipv4)
		r = walk_addr(tables, value & HD_VALUE_MASK, be64toh(addr->q[1]), &value);
	if (r == 0 && (value & HD_TAG_MASK) != HD_TAG_LEAF)
		r = -EINVAL;
	if (r == 0)
		*ret_class = value & HD_VALUE_MASK;
	return r;
}

int lookup_rule(const struct lookup_tables *tables, uint32_t root, uint32_t key, uint16_t source_port, uint32_t *ret_leaf,
	uint32_t *ret_order)
{
	uint32_t value = HD_TAG_NODE | root, order = HD_ORDER_LAST;
	bool next = false;

	if (!root)
		value = NO_LEAF;
	for (unsigned depth = 0; (value & HD_TAG_MASK) != HD_TAG_LEAF; depth++) {
		const struct hd_rule_node *node;
		uint32_t i;

		if ((value & HD_TAG_MASK) == HD_TAG_NEXT) {
			if (next)
				return -EINVAL;
			next = true;
			key = source_port;
		}
		value &= HD_VALUE_MASK;
		if (value >= tables->n_rule_nodes || depth == HD_RULE_DEPTH)
			return -EINVAL;
		node = &tables->rule_nodes[value];
		i = hd_rule_node_find(node, key);
		value = node->value[i];
		order = node->order[i];
	}
	*ret_leaf = value;
	*ret_order = order;
	return 0;
}

static bool says_nothing(uint32_t leaf)
{
	return (leaf >> HD_LEAF_VERDICT_SHIFT & 3) == HD_DROP;
}

static int lookup_set(const struct lookup_tables *tables, uint32_t generation, uint32_t set, uint32_t root,
	const struct lookup_packet *packet, struct lookup_result *result)
{
	uint32_t key = HD_L4_KEY(packet->kind, packet->number), class_order = HD_ORDER_LAST, any_order = HD_ORDER_LAST;
	struct hd_class_key row_key = {.set = set, .class_id = result->class_id};
	const struct hd_class_rules *row = NULL;
	int r;

	result->class_root = 0;
	if (result->class_id != HD_CLASS_NONE)
		row = tables->row(tables->userdata, row_key);
	if (row)
		result->class_root = (int32_t)(generation - row->generation) >= 0 ? row->root : row->previous;
	r = lookup_rule(tables, result->class_root, key, packet->source_port, &result->class_leaf, &class_order);
	if (r == 0)
		r = lookup_rule(tables, root & HD_VALUE_MASK, key, packet->source_port, &result->any_leaf, &any_order);
	if (r < 0)
		return r;
	result->leaf = result->any_leaf;
	result->order = any_order;
	if (!says_nothing(result->class_leaf) && class_order < any_order) {
		result->leaf = result->class_leaf;
		result->order = class_order;
	}
	return 0;
}

int lookup_packet(const struct lookup_tables *tables, uint32_t generation, const struct hd_roots *roots,
	const struct hd_port_policy *policy, enum hd_direction direction, const struct lookup_packet *packet,
	struct lookup_result *ret)
{
	struct lookup_result result = {0};
	int r = 0;

	if (packet->ip)
		r = lookup_class(tables, roots, &packet->peer, &result.class_id);
	if (r == 0)
		r = lookup_set(tables, generation, policy->set[direction], policy->root[direction], packet, &result);
	if (r == 0 && result.leaf & HD_LEAF_PASS && policy->pass_set[direction]) {
		result.pass_leaf = result.leaf;
		r = lookup_set(tables, generation, policy->pass_set[direction], policy->pass_root[direction], packet, &result);
	}
	if (r == 0)
		*ret = result;
	return r;
}
