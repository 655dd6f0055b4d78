// SPDX-License-Identifier: Apache-2.0
/* Network. */
#include <model/kinds.h>

#include <string.h>

#include <util/addr.h>

#define IPV6_MTU_MIN 1280 /* RFC 8200 section 5 */

enum { MODE_L2, MODE_L3 };

struct network_draft {
	uint32_t vni, mtu;
	uint16_t vlan;
	bool learning, peer_learning;
	int mode;
	struct list subnets, gateways, routes_to;
	struct masquerade masquerade;
	struct list services;
};

static bool check_subnets(struct decoder *d, const struct path *path, node_id node, const struct network_draft *from)
{
	const struct prefix *subnets = from->subnets.items;
	struct path list = {.up = path, .key = "subnets"}, item = {.up = &list};
	struct path mtu = {.up = path, .key = "mtu"};
	node_id child = tree_first(d->tree, node_field(d, node, "subnets"));
	char text[ADDR_TEXT_MAX];

	for (size_t i = 0; i < from->subnets.n; i++, child = tree_next(d->tree, child)) {
		const struct prefix *subnet = &subnets[i];

		item.index = (uint32_t)i;
		for (size_t j = 0; j < i; j++)
			if (addr_prefix_in_prefix(&subnet->addr, subnet->length, &subnets[j].addr, subnets[j].length) ||
				addr_prefix_in_prefix(&subnets[j].addr, subnets[j].length, &subnet->addr, subnet->length))
				return want(d, &item, child, "a block apart from %s",
					addr_format_cidr(&subnets[j].addr, subnets[j].length, text));
		if (from->mtu && from->mtu < IPV6_MTU_MIN && !(subnet->length >= 96 && addr_is_ipv4(&subnet->addr)))
			return want(d, &mtu, node_field(d, node, "mtu"), "%d..65535 with an IPv6 subnet", IPV6_MTU_MIN);
	}
	return true;
}

static bool check_gateways(struct decoder *d, const struct path *path, node_id node, const struct network_draft *from)
{
	const struct prefix *subnets = from->subnets.items;
	const struct hd_addr *gateways = from->gateways.items;
	struct path list = {.up = path, .key = "gateway"}, item = {.up = &list};
	node_id child = tree_first(d->tree, node_field(d, node, "gateway"));
	char text[ADDR_TEXT_MAX];

	for (size_t i = 0; i < from->gateways.n; i++, child = tree_next(d->tree, child)) {
		const struct prefix *subnet = document_subnet(subnets, from->subnets.n, &gateways[i]);

		item.index = (uint32_t)i;
		if (!subnet)
			return want(d, &item, child, "an address in one of the network's subnets");
		if (!document_address_of_host(&gateways[i], subnet))
			return want(d, &item, child, "an address that one host in %s can have",
				addr_format_cidr(&subnet->addr, subnet->length, text));
		for (size_t j = 0; j < i; j++)
			if (document_subnet(subnets, from->subnets.n, &gateways[j]) == subnet)
				return want(d, &item, child, "one gateway for %s",
					addr_format_cidr(&subnet->addr, subnet->length, text));
	}
	return true;
}

static bool check_routes(struct decoder *d, const struct path *path, node_id node, const struct network_draft *from)
{
	const char *const *names = from->routes_to.items;
	struct path list = {.up = path, .key = "routesTo"}, item = {.up = &list};
	node_id child = tree_first(d->tree, node_field(d, node, "routesTo"));

	for (size_t i = 0; i < from->routes_to.n; i++, child = tree_next(d->tree, child)) {
		item.index = (uint32_t)i;
		for (size_t j = 0; j < i; j++)
			if (strcmp(names[i], names[j]) == 0)
				return want(d, &item, child, "each network once");
	}
	return true;
}

/* Else there is nothing that the host could change. */
static bool check_changes(struct decoder *d, const struct path *path, node_id node, const struct network_draft *from)
{
	const char *const *names = from->routes_to.items;
	struct path field = {.up = path};

	for (size_t i = 0; i < from->routes_to.n; i++)
		if (strcmp(names[i], NETWORK_HOST) == 0)
			return true;
	if (from->masquerade.mode == MASQUERADE_ON)
		field.key = "masquerade";
	else if (from->services.n)
		field.key = "services";
	return !field.key || want(d, &field, node_field(d, node, field.key), "it only with host among routesTo");
}

static bool finish_network(struct decoder *d, const struct path *path, node_id node, const void *draft, void *out)
{
	const struct network_draft *from = draft;

	if (!check_subnets(d, path, node, from) || !check_gateways(d, path, node, from) || !check_routes(d, path, node, from) ||
		!check_changes(d, path, node, from))
		return false;
	*(struct network *)out = (struct network){
		.vni = from->vni,
		.vlan = from->vlan,
		.l3 = from->mode == MODE_L3,
		.learning = from->learning,
		.peer_learning = node_field(d, node, "peerLearning") ? from->peer_learning : from->learning,
		.subnets = from->subnets.items,
		.n_subnets = from->subnets.n,
		.gateways = from->gateways.items,
		.n_gateways = from->gateways.n,
		.routes_to = from->routes_to.items,
		.n_routes_to = from->routes_to.n,
		.mtu = from->mtu,
		.masquerade = from->masquerade,
		.services = from->services.items,
		.n_services = from->services.n,
		.services_said = node_field(d, node, "services") != NODE_NONE,
	};
	return true;
}

static bool value_mtu(struct decoder *d, const struct path *path, node_id node, const void *type, void *out)
{
	uint64_t number;

	(void)type;
	if (node && tree_is_scalar(d->tree, node) && strcmp(tree_text(d->tree, node), "auto") == 0)
		*(uint32_t *)out = 0;
	else if (node_number(d, node, &number) && number >= 68 && number <= 65535) /* RFC 791: every link takes 68 */
		*(uint32_t *)out = (uint32_t)number;
	else
		return want(d, path, node, "auto or 68..65535");
	return true;
}

static bool value_network_name(struct decoder *d, const struct path *path, node_id node, const void *type, void *out)
{
	(void)type;
	return value_text(d, path, node, &subdomain_text, out);
}

static const char *const mode_names[] = {[MODE_L2] = "l2", [MODE_L3] = "l3", NULL};
static const struct choice mode_choice = {mode_names};
static const struct range vni_range = {.min = 1, .max = (1 << 24) - 1, .size = 4, .unit = ""};
static const struct list_type subnet_list = {
	.what = "subnets",
	.item = value_cidr,
	.item_size = sizeof(struct prefix),
	.may_be_empty = true,
	.most = 256,
};
static const struct list_type service_list = {
	.what = "blocks",
	.item = value_cidr,
	.item_size = sizeof(struct prefix),
	.may_be_empty = true,
	.most = 64,
};
static const struct list_type gateway_list = {
	.what = "addresses",
	.item = value_address,
	.item_size = sizeof(struct hd_addr),
	.may_be_empty = true,
	.most = 256,
};
static const struct list_type route_list = {
	.what = "networks",
	.item = value_network_name,
	.item_size = sizeof(char *),
	.may_be_empty = true,
	.most = 4096,
};
static const struct field network_fields[] = {
	{"vni", value_uint, &vni_range, offsetof(struct network_draft, vni), false},
	{"vlan", value_uint, &vlan_range, offsetof(struct network_draft, vlan), false},
	{"mode", value_choice, &mode_choice, offsetof(struct network_draft, mode), false},
	{"subnets", value_list, &subnet_list, offsetof(struct network_draft, subnets), false},
	{"gateway", value_list, &gateway_list, offsetof(struct network_draft, gateways), false},
	{"learning", value_bool, NULL, offsetof(struct network_draft, learning), false},
	{"peerLearning", value_bool, NULL, offsetof(struct network_draft, peer_learning), false},
	{"routesTo", value_list, &route_list, offsetof(struct network_draft, routes_to), false},
	{"mtu", value_mtu, NULL, offsetof(struct network_draft, mtu), false},
	{"masquerade", value_mapping, &masquerade_schema, offsetof(struct network_draft, masquerade), false},
	{"services", value_list, &service_list, offsetof(struct network_draft, services), false},
};
static const struct network_draft network_defaults = {.learning = true};
const struct schema network_spec_schema = {
	.what = "the spec of a Network",
	SCHEMA_FIELDS(network_fields),
	.draft_size = sizeof(struct network_draft),
	.defaults = &network_defaults,
	.finish = finish_network,
};
