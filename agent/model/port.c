// SPDX-License-Identifier: Apache-2.0
/* Port. */
#include <model/kinds.h>

#include <ctype.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include <heddle/network.h>
#include <util/addr.h>
#include <util/pci.h>

/* --- which device --- */

static const struct text_type pci_text = {"a PCI address such as 0000:01:10.0, lower case", pci_address_valid};
/* --- addresses --- */

bool value_mac(struct decoder *d, const struct path *path, node_id node, const void *type, void *out)
{
	static const uint8_t zero[6];
	struct mac *mac = out;

	(void)type;
	if (!node_is_text(d, node) || !mac_parse(tree_text(d->tree, node), mac->octets))
		return want(d, path, node, "a MAC address such as 02:00:00:00:00:01");
	if ((mac->octets[0] & 1) || memcmp(mac->octets, zero, 6) == 0)
		return want(d, path, node, "the MAC address of one station, not of a group or of nobody");
	mac->given = true;
	return true;
}

bool value_station_mac(struct decoder *d, const struct path *path, node_id node, const void *type, void *out)
{
	static const uint8_t gateway[6] = HD_GATEWAY_MAC;
	struct mac *mac = out;

	if (!value_mac(d, path, node, type, mac))
		return false;
	return memcmp(mac->octets, gateway, 6) != 0 || want(d, path, node, "another MAC address than the gateway's");
}

static const struct list_type address_list = {
	.what = "addresses",
	.item = value_address,
	.item_size = sizeof(struct hd_addr),
	.may_be_empty = true,
	.most = 256,
};

bool value_workload_addresses(struct decoder *d, const struct path *path, node_id node, const void *type, void *out)
{
	struct list *list = out;
	struct path item = {.up = path};
	node_id child = tree_first(d->tree, node);

	(void)type;
	if (!value_list(d, path, node, &address_list, list))
		return false;
	const struct hd_addr *addresses = list->items;
	for (size_t i = 0; i < list->n; i++, child = tree_next(d->tree, child)) {
		item.index = (uint32_t)i;
		if (!document_address_is_unicast(&addresses[i]))
			return want(d, &item, child, "a unicast address");
		for (size_t j = 0; j < i; j++)
			if (memcmp(&addresses[i], &addresses[j], sizeof(*addresses)) == 0)
				return want(d, &item, child, "each address once");
	}
	return true;
}

/* --- vlan --- */

struct vlan_draft {
	int mode; /* VLAN_ACCESS, … */
	uint16_t id, native;
	struct list allowed;
};
enum { VLAN_ACCESS, VLAN_TRUNK, VLAN_QINQ };

struct vlan {
	enum port_vlan_mode mode;
	uint16_t id, native;
	struct list allowed;
};

static int compare_ranges(const void *a, const void *b)
{
	const struct vlan_range *x = a, *y = b;

	return (x->first > y->first) - (x->first < y->first);
}

static bool check_access(struct decoder *d, const struct path *path, node_id node, const struct vlan_draft *from)
{
	static const char *const trunk[] = {"allowed", "native"};
	struct path field = {.up = path};

	for (size_t i = 0; i < ARRAY_SIZE(trunk); i++) {
		field.key = trunk[i];
		if (node_field(d, node, trunk[i]))
			return want(d, &field, node_field(d, node, trunk[i]), "%s only with mode: trunk", trunk[i]);
	}
	field.key = "id";
	return from->id ? true : want(d, &field, NODE_NONE, "1..4094");
}

static bool check_trunk(struct decoder *d, const struct path *path, node_id node, const struct vlan_draft *from)
{
	struct vlan_range *ranges = from->allowed.items;
	struct path field = {.up = path, .key = "id"};
	bool native = from->native == 0;

	if (from->id)
		return want(d, &field, node_field(d, node, "id"), "id only with mode: access or qinq");
	field.key = "allowed";
	if (from->allowed.n == 0)
		return want(d, &field, NODE_NONE, "a list of VLANs");
	qsort(ranges, from->allowed.n, sizeof(*ranges), compare_ranges);
	for (size_t i = 0; i < from->allowed.n; i++) {
		if (i && ranges[i].first <= ranges[i - 1].last)
			return mistake(d, &field, tree_node(d->tree, node_field(d, node, "allowed"))->line,
				"want each VLAN once, got %u again", ranges[i].first);
		native |= from->native >= ranges[i].first && from->native <= ranges[i].last;
	}
	field.key = "native";
	return native ? true : want(d, &field, node_field(d, node, "native"), "one of the allowed VLANs");
}

static bool finish_vlan(struct decoder *d, const struct path *path, node_id node, const void *draft, void *out)
{
	const struct vlan_draft *from = draft;
	static const enum port_vlan_mode modes[] = {
		[VLAN_ACCESS] = PORT_VLAN_ACCESS, [VLAN_TRUNK] = PORT_VLAN_TRUNK, [VLAN_QINQ] = PORT_VLAN_QINQ};

	d->line = tree_node(d->tree, node)->line;
	*(struct vlan *)out = (struct vlan){
		.mode = modes[from->mode],
		.id = from->id,
		.native = from->native,
		.allowed = from->allowed,
	};
	return from->mode == VLAN_TRUNK ? check_trunk(d, path, node, from) : check_access(d, path, node, from);
}

/* Takes the number that the text begins with. 0: none. */
static uint32_t take_vlan(const char **text)
{
	size_t digits = strspn(*text, "0123456789");
	uint32_t number = digits && digits <= 4 && **text != '0' ? (uint32_t)strtoul(*text, NULL, 10) : 0;

	*text += digits;
	return number <= vlan_range.max ? number : 0;
}

/* A number, or FIRST-LAST. */
static bool value_vlans(struct decoder *d, const struct path *path, node_id node, const void *type, void *out)
{
	const char *text = node && tree_is_scalar(d->tree, node) ? tree_text(d->tree, node) : "";
	uint32_t first = take_vlan(&text), last = first;

	(void)type;
	if (*text == '-') {
		text++;
		last = take_vlan(&text);
	}
	if (*text || first == 0 || last < first)
		return want(d, path, node, "1..4094 or a range of them such as 100-110");
	*(struct vlan_range *)out = (struct vlan_range){.first = (uint16_t)first, .last = (uint16_t)last};
	return true;
}

const struct range vlan_range = {.min = 1, .max = 4094, .size = 2, .unit = ""};
static const char *const vlan_names[] = {[VLAN_ACCESS] = "access", [VLAN_TRUNK] = "trunk", [VLAN_QINQ] = "qinq", NULL};
static const struct choice vlan_choice = {vlan_names};
static const struct list_type allowed_list = {
	.what = "VLANs",
	.item = value_vlans,
	.item_size = sizeof(struct vlan_range),
	.required = true,
	.most = 4094,
};
static const struct field vlan_fields[] = {
	{"mode", value_choice, &vlan_choice, offsetof(struct vlan_draft, mode), true},
	{"id", value_uint, &vlan_range, offsetof(struct vlan_draft, id), false},
	{"allowed", value_list, &allowed_list, offsetof(struct vlan_draft, allowed), false},
	{"native", value_uint, &vlan_range, offsetof(struct vlan_draft, native), false},
};
static const struct schema vlan_schema = {
	.what = "a mapping with mode",
	SCHEMA_FIELDS(vlan_fields),
	.draft_size = sizeof(struct vlan_draft),
	.finish = finish_vlan,
};

/* --- named ports --- */

static const struct range port_range = {.min = 1, .max = 65535, .size = 2, .unit = ""};
static const struct field named_port_fields[] = {
	{"name", value_text, &port_name_text, offsetof(struct named_port, name), true},
	{"protocol", value_transport, NULL, offsetof(struct named_port, protocol), false},
	{"port", value_uint, &port_range, offsetof(struct named_port, port), true},
};
static const struct named_port named_port_defaults = {.protocol = IPPROTO_TCP};
static const struct schema named_port_schema = {
	.what = "a mapping with name and port",
	SCHEMA_FIELDS(named_port_fields),
	.draft_size = sizeof(struct named_port),
	.defaults = &named_port_defaults,
};
static const struct list_type named_port_list = {
	.what = "named ports",
	.item = value_mapping,
	.item_type = &named_port_schema,
	.item_size = sizeof(struct named_port),
	.may_be_empty = true,
	.most = 256,
};

bool value_named_ports(struct decoder *d, const struct path *path, node_id node, const void *type, void *out)
{
	struct list *list = out;
	struct path item = {.up = path}, name = {.up = &item, .key = "name"};
	node_id child = tree_first(d->tree, node);

	(void)type;
	if (!value_list(d, path, node, &named_port_list, list))
		return false;
	const struct named_port *ports = list->items;
	for (size_t i = 0; i < list->n; i++, child = tree_next(d->tree, child)) {
		item.index = (uint32_t)i;
		for (size_t j = 0; j < i; j++)
			if (ports[i].protocol == ports[j].protocol && strcmp(ports[i].name, ports[j].name) == 0)
				return want(d, &name, node_field(d, child, "name"), "each name of one protocol once");
	}
	return true;
}

/* --- bandwidth --- */

bool document_quantity(const char *text, uint64_t *ret)
{
	static const struct {
		const char *suffix;
		uint64_t factor;
	} units[] = {
		{"", 1},
		{"k", 1000},
		{"M", 1000000},
		{"G", 1000000000},
		{"T", 1000000000000},
		{"Ki", UINT64_C(1) << 10},
		{"Mi", UINT64_C(1) << 20},
		{"Gi", UINT64_C(1) << 30},
		{"Ti", UINT64_C(1) << 40},
	};
	size_t digits = strspn(text, "0123456789"), decimals = 0;
	uint64_t number = 0, divisor = 1;

	if (text[digits] == '.')
		decimals = strspn(text + digits + 1, "0123456789");
	if (digits == 0 || digits + decimals > 15 || (text[0] == '0' && digits > 1) || (text[digits] == '.' && decimals == 0))
		return false;
	for (size_t i = 0; i < digits + decimals; i++) {
		number = number * 10 + (uint64_t)(text[i < digits ? i : i + 1] - '0');
		divisor *= i < digits ? 1 : 10;
	}
	text += digits + (decimals ? decimals + 1 : 0);
	for (size_t i = 0; i < ARRAY_SIZE(units); i++)
		if (strcmp(text, units[i].suffix) == 0) {
			__extension__ unsigned __int128 value = (unsigned __int128)number * units[i].factor;

			if (value % divisor || value / divisor > UINT64_MAX)
				return false;
			*ret = (uint64_t)(value / divisor);
			return true;
		}
	return false;
}

struct quantity {
	uint64_t min, max, step;
	const char *what;
};

/* A whole number of bits, in Kubernetes' way of writing it. */
static bool value_quantity(struct decoder *d, const struct path *path, node_id node, const void *type, void *out)
{
	const struct quantity *quantity = type;
	uint64_t value;

	if (!node || !tree_is_scalar(d->tree, node) || !document_quantity(tree_text(d->tree, node), &value) ||
		value < quantity->min || value > quantity->max)
		return want(d, path, node, "%s", quantity->what);
	*(uint64_t *)out = value - value % quantity->step;
	return true;
}

static const struct quantity rate_quantity = {PORT_RATE_MIN, PORT_RATE_MAX, 1000, "bits a second from 1k to 4T, such as 10M"};
static const struct quantity burst_quantity = {1, PORT_BURST_MAX, 1, "bits from 1 to 1000T, such as 4M"};
static const struct field limit_fields[] = {
	{"rate", value_quantity, &rate_quantity, offsetof(struct port_limit, rate), true},
	{"burst", value_quantity, &burst_quantity, offsetof(struct port_limit, burst), false},
};
static const struct schema limit_schema = {
	.what = "a mapping with rate",
	SCHEMA_FIELDS(limit_fields),
	.draft_size = sizeof(struct port_limit),
};
struct bandwidth {
	struct port_limit limit[HD_DIRECTIONS];
};
static const struct field bandwidth_fields[] = {
	{"ingress", value_mapping, &limit_schema, offsetof(struct bandwidth, limit[HD_INGRESS]), false},
	{"egress", value_mapping, &limit_schema, offsetof(struct bandwidth, limit[HD_EGRESS]), false},
};
static const struct schema bandwidth_schema = {
	.what = "a mapping with ingress and egress",
	SCHEMA_FIELDS(bandwidth_fields),
	.draft_size = sizeof(struct bandwidth),
};

/* --- the port --- */

struct port_draft {
	const char *device, *pci, *network;
	struct port_vf_value vf;
	struct mac mac;
	struct list addresses, ports, host_ports;
	struct vlan vlan;
	struct bandwidth bandwidth;
};

static bool finish_port(struct decoder *d, const struct path *path, node_id node, const void *draft, void *out)
{
	const struct port_draft *from = draft;
	int given = (from->device != NULL) + (from->vf.pf != NULL) + (from->pci != NULL);
	struct path vf = {.up = path, .key = "vf"};

	if (from->vf.given && !from->vf.pf && !from->pci)
		return mistake(d, &vf, tree_node(d->tree, node)->line, "want pf and index, or pci beside it, got neither");
	if (given != 1)
		return mistake(d, path, tree_node(d->tree, node)->line, "want one of device, vf or pci, got %s",
			given ? "several of them" : "none of them");
	struct port *port = out;
	*port = (struct port){
		.device = from->device,
		.vf_pf = from->vf.pf,
		.vf_index = from->vf.index,
		.vf = from->vf.values,
		.pci = from->pci,
		.network = from->network,
		.has_mac = from->mac.given,
		.addresses = from->addresses.items,
		.n_addresses = from->addresses.n,
		.vlan_mode = from->vlan.mode,
		.vlan_id = from->vlan.id,
		.vlan_native = from->vlan.native,
		.vlan_allowed = from->vlan.allowed.items,
		.n_vlan_allowed = from->vlan.allowed.n,
		.ports = from->ports.items,
		.n_ports = from->ports.n,
		.host_ports = from->host_ports.items,
		.n_host_ports = from->host_ports.n,
	};
	memcpy(port->mac, from->mac.octets, sizeof(port->mac));
	memcpy(port->limit, from->bandwidth.limit, sizeof(port->limit));
	return check_host_ports(d, path, node, port);
}

static const struct field port_fields[] = {
	{"device", value_guarded_device, &device_text, offsetof(struct port_draft, device), false},
	{"vf", value_mapping, &port_vf_schema, offsetof(struct port_draft, vf), false},
	{"pci", value_text, &pci_text, offsetof(struct port_draft, pci), false},
	{"network", value_text, &subdomain_text, offsetof(struct port_draft, network), true},
	{"mac", value_station_mac, NULL, offsetof(struct port_draft, mac), false},
	{"addresses", value_workload_addresses, NULL, offsetof(struct port_draft, addresses), false},
	{"vlan", value_mapping, &vlan_schema, offsetof(struct port_draft, vlan), false},
	{"ports", value_named_ports, NULL, offsetof(struct port_draft, ports), false},
	{"hostPorts", value_host_ports, NULL, offsetof(struct port_draft, host_ports), false},
	{"bandwidth", value_mapping, &bandwidth_schema, offsetof(struct port_draft, bandwidth), false},
};
const struct schema port_spec_schema = {
	.what = "the spec of a Port",
	SCHEMA_FIELDS(port_fields),
	.draft_size = sizeof(struct port_draft),
	.finish = finish_port,
};
