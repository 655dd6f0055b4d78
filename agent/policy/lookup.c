/* SPDX-License-Identifier: Apache-2.0 */
#include <endian.h>
#include <errno.h>

#include <util/addr.h>

#include <policy/lookup.h>

#define NO_LEAF HD_LEAF(HD_RULE_NONE, HD_DROP, false)

static int walk_addr4(const struct lookup_tables *tables, uint32_t value, uint32_t base, uint32_t key, uint32_t *ret)
{
	uint64_t offset = hd_table_offset(value, base, key);

	for (unsigned depth = 0; (value & HD_TAG_MASK) == HD_TAG_TABLE; depth++) {
		uint32_t id = value & HD_TABLE_ID_MASK;

		if (id >= tables->n_addr4_tables || depth == HD_TABLE_DEPTH)
			return -EINVAL;
		value = tables->addr4_tables[id].value[hd_table_slot(value, offset)];
	}
	for (unsigned depth = 0; (value & HD_TAG_MASK) == HD_TAG_NODE; depth++) {
		const struct hd_addr4_node *node;

		if (value >= tables->n_addr4_nodes || depth == HD_ADDR_DEPTH)
			return -EINVAL;
		node = &tables->addr4_nodes[value];
		value = node->value[hd_addr4_node_find(node, key)];
	}
	*ret = value;
	return 0;
}

static int walk_addr6(const struct lookup_tables *tables, uint32_t value, uint64_t key, uint32_t *ret)
{
	for (unsigned depth = 0; (value & HD_TAG_MASK) == HD_TAG_NODE; depth++) {
		const struct hd_addr6_node *node;

		if (value >= tables->n_addr6_nodes || depth == HD_ADDR_DEPTH)
			return -EINVAL;
		node = &tables->addr6_nodes[value];
		value = node->value[hd_addr6_node_find(node, key)];
	}
	*ret = value;
	return 0;
}

/* *ret_class is HD_CLASS_NONE where no rule names the address. -EINVAL: a broken tree. */
static int lookup_class(
	const struct lookup_tables *tables, const struct hd_roots *roots, const struct hd_addr *addr, uint32_t *ret_class)
{
	uint32_t value;
	int r;

	if (addr_is_ipv4(addr))
		r = walk_addr4(tables, roots->addr4, roots->base4, be32toh(addr->w[3]), &value);
	else
		r = walk_addr6(tables, roots->addr6, be64toh(addr->q[0]), &value);
	if (r == 0 && (value & HD_TAG_MASK) == HD_TAG_NEXT && !addr_is_ipv4(addr))
		r = walk_addr6(tables, value & HD_VALUE_MASK, be64toh(addr->q[1]), &value);
	if (r == 0 && (value & HD_TAG_MASK) != HD_TAG_LEAF)
		r = -EINVAL;
	if (r == 0)
		*ret_class = value & HD_VALUE_MASK;
	return r;
}

/* root is a value with tag, 0 for none (a leaf that says "no rule here"). -EINVAL: a broken tree. */
static int lookup_rule(const struct lookup_tables *tables, uint32_t root, uint32_t key, uint16_t source_port, uint32_t *ret_leaf,
	uint32_t *ret_order)
{
	uint32_t value = root, order = HD_ORDER_LAST;
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

/* What the rules say that name the class. */
static int lookup_class_rules(const struct lookup_tables *tables, uint32_t generation, uint32_t set, uint32_t key,
	uint16_t source_port, struct lookup_result *result, uint32_t *ret_order)
{
	const struct hd_class_rules *rules;
	const struct hd_class *class;
	uint32_t value = 0, order;
	int at, r;

	if (result->class_id >= tables->n_classes)
		return -EINVAL;
	class = &tables->classes[result->class_id];
	at = hd_class_rules_at(class, generation);
	if (at < 0)
		return -EINVAL;
	rules = &class->rules[at];
	if (rules->set == set) {
		value = rules->value;
	} else if (rules->set == HD_SET_SEVERAL) {
		r = lookup_rule(tables, rules->value, set, 0, &value, &order);
		if (r < 0)
			return r;
		value &= HD_VALUE_MASK;
	}
	result->class_root = value;
	if ((value & HD_TAG_MASK) != HD_TAG_LEAF)
		return lookup_rule(tables, value, key, source_port, &result->class_leaf, ret_order);
	if (key >= rules->first && key <= rules->last) {
		result->class_leaf = value;
		*ret_order = rules->order;
	}
	return 0;
}

static int lookup_set(const struct lookup_tables *tables, uint32_t generation, uint32_t set, uint32_t root,
	const struct lookup_packet *packet, struct lookup_result *result)
{
	uint32_t key = HD_L4_KEY(packet->kind, packet->number), class_order = HD_ORDER_LAST, any_order = HD_ORDER_LAST;
	int r = 0;

	result->class_root = 0;
	result->class_leaf = NO_LEAF;
	if (result->class_id != HD_CLASS_NONE)
		r = lookup_class_rules(tables, generation, set, key, packet->source_port, result, &class_order);
	if (r == 0)
		r = lookup_rule(tables, root, key, packet->source_port, &result->any_leaf, &any_order);
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
