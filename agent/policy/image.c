/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <net/if.h>
#include <netinet/in.h>

#include <policy/image.h>
#include <policy/lookup.h>
#include <util/cleanup.h>
#include <util/hash.h>

#define ECHO_REQUEST 8
#define ECHO_REQUEST6 128

struct image_device {
	char name[IF_NAMESIZE];
	uint16_t network;
	struct hd_roots roots; /* of its network */
	struct hd_port_policy policy;
};

struct policy_image {
	struct compiler *compiler;
	struct lookup_tables tables; /* owned */
	uint32_t generation;
	bool forward_judge;
	struct image_device *uplinks, *ports; /* by name */
	size_t n_uplinks, n_ports;
	struct hd_roots networks[HD_NETWORKS]; /* by index; generation 0: there is none */
};

/* --- making --- */

/* One more than the highest id. */
#define IDS_END(writes, n) \
	({ \
		uint32_t end_ = 1; \
		for (size_t i_ = 0; i_ < (n); i_++) \
			if ((writes)[i_].id >= end_) \
				end_ = (writes)[i_].id + 1; \
		end_; \
	})

static int copy_tables(struct policy_image *image, const struct policy_delta *delta)
{
	struct lookup_tables *tables = &image->tables;
	struct hd_addr4_node *addr4_nodes;
	struct hd_addr4_table *addr4_tables;
	struct hd_addr6_node *addr6_nodes;
	struct hd_class *classes;
	struct hd_rule_node *rule_nodes;

	tables->n_addr4_nodes = IDS_END(delta->addr4_nodes, delta->n_addr4_nodes);
	tables->n_addr4_tables = IDS_END(delta->addr4_tables, delta->n_addr4_tables);
	tables->n_addr6_nodes = IDS_END(delta->addr6_nodes, delta->n_addr6_nodes);
	tables->n_classes = IDS_END(delta->classes, delta->n_classes);
	tables->n_rule_nodes = IDS_END(delta->rule_nodes, delta->n_rule_nodes);
	tables->addr4_nodes = addr4_nodes = calloc(tables->n_addr4_nodes, sizeof(*addr4_nodes));
	tables->addr4_tables = addr4_tables = calloc(tables->n_addr4_tables, sizeof(*addr4_tables));
	tables->addr6_nodes = addr6_nodes = calloc(tables->n_addr6_nodes, sizeof(*addr6_nodes));
	tables->classes = classes = calloc(tables->n_classes, sizeof(*classes));
	tables->rule_nodes = rule_nodes = calloc(tables->n_rule_nodes, sizeof(*rule_nodes));
	if (!addr4_nodes || !addr4_tables || !addr6_nodes || !classes || !rule_nodes)
		return -ENOMEM;
	for (size_t i = 0; i < delta->n_addr4_nodes; i++)
		addr4_nodes[delta->addr4_nodes[i].id] = delta->addr4_nodes[i].node;
	for (size_t i = 0; i < delta->n_addr4_tables; i++)
		addr4_tables[delta->addr4_tables[i].id] = delta->addr4_tables[i].node;
	for (size_t i = 0; i < delta->n_addr6_nodes; i++)
		addr6_nodes[delta->addr6_nodes[i].id] = delta->addr6_nodes[i].node;
	for (size_t i = 0; i < delta->n_classes; i++)
		classes[delta->classes[i].id].rules[0] = delta->classes[i].rules;
	for (size_t i = 0; i < delta->n_rule_nodes; i++)
		rule_nodes[delta->rule_nodes[i].id] = delta->rule_nodes[i].node;
	return 0;
}

static int device_cmp(const void *a, const void *b)
{
	return strncmp(((const struct image_device *)a)->name, ((const struct image_device *)b)->name, IF_NAMESIZE);
}

/* Cut as the kernel would: an interface with a longer name cannot exist. */
static void set_name(struct image_device *device, const char *name)
{
	strncpy(device->name, name, IF_NAMESIZE - 1);
}

void policy_image_name(const struct port *port, char ret[IF_NAMESIZE])
{
	uint64_t hash = hash_u64(hash_string(hash_string(1, port->vf_pf), port->pci), port->vf_index);

	if (port->device)
		snprintf(ret, IF_NAMESIZE, "%s", port->device);
	else
		snprintf(ret, IF_NAMESIZE, "/%014" PRIx64, hash & 0xffffffffffffff); /* no interface has a slash in its name */
}

static void copy_uplinks(struct policy_image *image, const struct policy_delta *delta)
{
	for (size_t i = 0; i < delta->n_uplinks; i++) {
		struct image_device *device = &image->uplinks[image->n_uplinks++];

		set_name(device, delta->uplinks[i].device);
		device->roots = delta->roots;
		device->policy = delta->uplinks[i].policy;
	}
	qsort(image->uplinks, image->n_uplinks, sizeof(*image->uplinks), device_cmp);
}

static void copy_ports(struct policy_image *image, const struct policy_delta *delta)
{
	for (size_t i = 0; i < delta->n_ports; i++) {
		const struct port_policy *port = &delta->ports[i];
		struct image_device *device = &image->ports[image->n_ports];

		policy_image_name(&port->port->port, device->name);
		device->network = port->network;
		device->roots = image->networks[port->network % HD_NETWORKS];
		device->policy = port->policy;
		image->n_ports++;
	}
	qsort(image->ports, image->n_ports, sizeof(*image->ports), device_cmp);
}

int policy_image_new(
	struct compiler *compiler, const struct policy_delta *delta, const struct host *host, struct policy_image **ret)
{
	_cleanup_(policy_image_free_p) struct policy_image *image = calloc(1, sizeof(*image));

	if (!image) {
		compiler_free(compiler);
		return -ENOMEM;
	}
	image->compiler = compiler;
	image->generation = delta->generation;
	image->forward_judge = host->forward_judge;
	image->uplinks = calloc(delta->n_uplinks + 1, sizeof(*image->uplinks));
	image->ports = calloc(delta->n_ports + 1, sizeof(*image->ports));
	if (!image->uplinks || !image->ports || copy_tables(image, delta) < 0)
		return -ENOMEM;
	copy_uplinks(image, delta);
	for (size_t i = 0; i < delta->n_networks; i++)
		image->networks[delta->networks[i].index % HD_NETWORKS] = delta->networks[i].roots;
	copy_ports(image, delta);
	/* The delta goes; rules keep their names. */
	compiler_commit(compiler);
	compiler_settle(compiler);
	*ret = TAKE_PTR(image);
	return 0;
}

void policy_image_drop_tables(struct policy_image *image)
{
	free((void *)image->tables.addr4_nodes);
	free((void *)image->tables.addr4_tables);
	free((void *)image->tables.addr6_nodes);
	free((void *)image->tables.classes);
	free((void *)image->tables.rule_nodes);
	image->tables = (struct lookup_tables){0};
	free(image->uplinks);
	free(image->ports);
	image->uplinks = image->ports = NULL;
	image->n_uplinks = image->n_ports = 0;
}

void policy_image_free(struct policy_image *image)
{
	if (!image)
		return;
	policy_image_drop_tables(image);
	compiler_free(image->compiler);
	free(image);
}

const struct compiler *policy_image_compiler(const struct policy_image *image)
{
	return image->compiler;
}

/* --- judging --- */

static const struct image_device *find_device(const struct image_device *devices, size_t n, const char *name)
{
	struct image_device key = {0};

	set_name(&key, name);
	return n ? bsearch(&key, devices, n, sizeof(*devices), device_cmp) : NULL;
}

const struct image_device *policy_image_uplink(const struct policy_image *image, const char *device)
{
	return find_device(image->uplinks, image->n_uplinks, device);
}

const struct image_device *policy_image_port(const struct policy_image *image, const char *device)
{
	return find_device(image->ports, image->n_ports, device);
}

/* As the packet that opened the flow: an echo flow was opened by a request. */
static struct lookup_packet opening_packet(const struct image_flow *flow, enum hd_direction direction)
{
	struct lookup_packet packet = {.ip = true,
		.peer = direction == HD_INGRESS ? flow->source : flow->destination,
		.number = flow->destination_port,
		.source_port = flow->source_port};

	switch (flow->protocol) {
	case IPPROTO_TCP:
		packet.kind = HD_L4_TCP;
		return packet;
	case IPPROTO_UDP:
		packet.kind = HD_L4_UDP;
		return packet;
	case IPPROTO_SCTP:
		packet.kind = HD_L4_SCTP;
		return packet;
	}
	packet.source_port = 0;
	if (flow->protocol == IPPROTO_ICMP && flow->family == 4) {
		packet.kind = HD_L4_ICMP;
		packet.number = ECHO_REQUEST << 8;
	} else if (flow->protocol == IPPROTO_ICMPV6 && flow->family == 6) {
		packet.kind = HD_L4_ICMPV6;
		packet.number = ECHO_REQUEST6 << 8;
	} else {
		packet.kind = HD_L4_PROTOCOL;
		packet.number = flow->protocol;
	}
	return packet;
}

/* roots: of the network that the peer is in. */
static int ask(const struct policy_image *image, const struct image_device *device, const struct hd_roots *roots,
	enum hd_direction direction, const struct image_flow *flow, struct image_verdict *ret)
{
	const struct lookup_packet packet = opening_packet(flow, direction);
	struct lookup_result found;
	int r = lookup_packet(&image->tables, image->generation, roots, &device->policy, direction, &packet, &found);
	uint8_t verdict;

	if (r < 0)
		return r;
	verdict = found.leaf >> HD_LEAF_VERDICT_SHIFT & 3;
	if (verdict == HD_DROP)
		return -EINVAL;
	*ret = (struct image_verdict){.verdict = found.leaf & HD_LEAF_AUDIT ? HD_ALLOW : verdict,
		.audit = found.leaf & HD_LEAF_AUDIT && verdict != HD_ALLOW,
		.rule = found.leaf & HD_LEAF_RULE_MASK};
	return 0;
}

/* What the uplinks that it may leave by say, if they agree to refuse it. */
static int ask_others(const struct policy_image *image, const struct image_flow *flow, struct image_verdict *ret)
{
	struct image_verdict refused = {0};

	for (size_t i = 0; i < image->n_uplinks; i++) {
		const struct image_device *other = &image->uplinks[i];
		int r;

		if (other == flow->uplink)
			continue;
		r = ask(image, other, &other->roots, HD_EGRESS, flow, &refused);
		if (r < 0 || refused.verdict == HD_ALLOW)
			return r;
	}
	if (refused.verdict != HD_ALLOW)
		*ret = refused;
	return 0;
}

static int judge_over_uplink(const struct policy_image *image, const struct image_flow *flow, struct image_verdict *ret)
{
	int r;

	*ret = (struct image_verdict){.verdict = HD_ALLOW, .rule = HD_RULE_NONE};
	if (!flow->uplink)
		return 0;
	if (flow->forwarded && !image->forward_judge) {
		ret->rule = HD_RULE_FORWARD;
		return 0;
	}
	r = ask(image, flow->uplink, &flow->uplink->roots, flow->direction, flow, ret);
	if (r == 0 && ret->verdict == HD_ALLOW && flow->left_elsewhere && image->forward_judge && flow->direction == HD_INGRESS)
		r = ask_others(image, flow, ret);
	return r;
}

/* The trees of where the other end is. One that is no port, nor in a network that there is, is in the device's own. */
static const struct hd_roots *other_roots(const struct policy_image *image, const struct image_device *device,
	const struct image_device *other, const struct image_flow *flow)
{
	uint16_t network = flow->network[flow->network[0] == device->network];
	const struct hd_roots *roots = &image->networks[network % HD_NETWORKS];

	if (other)
		return &other->roots;
	return network && roots->generation ? roots : &device->roots;
}

static int judge_between_ports(const struct policy_image *image, const struct image_flow *flow, struct image_verdict *ret)
{
	struct image_verdict first = {.verdict = HD_ALLOW}, second;
	const struct image_device *opener = flow->opener, *target = flow->target;
	int r = 0;

	if ((flow->has_opener && !opener) || (flow->has_target && !target) || (!opener && !target)) {
		*ret = (struct image_verdict){.verdict = HD_DROP, .rule = HD_RULE_NONE};
		return 0;
	}
	if (opener)
		r = ask(image, opener, other_roots(image, opener, target, flow), HD_EGRESS, flow, &first);
	else if (flow->from_node)
		first.rule = HD_RULE_NODE;
	*ret = first;
	if (r < 0 || first.verdict != HD_ALLOW || !target || (!opener && flow->from_node))
		return r;
	r = ask(image, target, other_roots(image, target, opener, flow), HD_INGRESS, flow, &second);
	if (r < 0)
		return r;
	if (opener && second.verdict == HD_ALLOW) {
		ret->second_rule = second.rule;
		ret->audit |= second.audit;
	} else {
		*ret = second;
	}
	return 0;
}

int policy_image_judge(const struct policy_image *image, const struct image_flow *flow, struct image_verdict *ret)
{
	return flow->between_ports ? judge_between_ports(image, flow, ret) : judge_over_uplink(image, flow, ret);
}
