// SPDX-License-Identifier: Apache-2.0
#include <model/kinds.h>

#include <arpa/inet.h>
#include <ctype.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include <util/addr.h>

/* --- names --- */

/* One label of a DNS name (RFC 1123): lower-case letters, digits and '-', a letter or digit at both ends. */
static size_t dns_label(const char *text)
{
	size_t n = 0;

	while (islower((unsigned char)text[n]) || isdigit((unsigned char)text[n]) || text[n] == '-')
		n++;
	return n && text[0] != '-' && text[n - 1] != '-' ? n : 0;
}

static bool is_subdomain(const char *text, size_t length)
{
	if (length > 253)
		return false;
	for (;;) {
		size_t n = dns_label(text);
		if (n == 0)
			return false;
		text += n;
		if (!*text)
			return true;
		if (*text++ != '.')
			return false;
	}
}

const struct text_type subdomain_text = {"a name of at most 253 lower-case letters, digits, '-' and '.'", is_subdomain};

static bool is_namespace(const char *text, size_t length)
{
	return length <= 63 && dns_label(text) == length;
}

const struct text_type namespace_text = {"a name of at most 63 lower-case letters, digits and '-'", is_namespace};

/* What the kernel takes (dev_valid_name). */
static bool is_device(const char *text, size_t length)
{
	if (length == 0 || length >= IF_NAMESIZE || strcmp(text, ".") == 0 || strcmp(text, "..") == 0)
		return false;
	for (; *text; text++)
		if (*text == '/' || *text == ':' || isspace((unsigned char)*text))
			return false;
	return true;
}

const struct text_type device_text = {"the name of an interface, at most 15 bytes", is_device};

bool value_device(struct decoder *d, const struct path *path, node_id node, const void *type, void *out)
{
	(void)type;
	return value_text(d, path, node, &device_text, out);
}

/* Which netdev/tunnel_slow.h and tunnel_sum.h name. */
static const char *const own_devices[] = {"heddle-tunnel", "heddle-sum", "heddle-summed", "heddle-host", "heddle-nowhere"};

bool value_guarded_device(struct decoder *d, const struct path *path, node_id node, const void *type, void *out)
{
	if (!value_text(d, path, node, type, out))
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(own_devices); i++)
		if (strcmp(tree_text(d->tree, node), own_devices[i]) == 0)
			return want(d, path, node, "a device that is not the agent's own");
	return true;
}

static bool is_port_name(const char *text, size_t length)
{
	bool letter = false;

	if (length > 15 || dns_label(text) != length || strstr(text, "--"))
		return false;
	for (; *text; text++)
		letter |= islower((unsigned char)*text) != 0;
	return letter;
}

const struct text_type port_name_text = {
	"a name of at most 15 lower-case letters, digits and '-', one letter at least", is_port_name};

static bool is_rule_name(const char *text, size_t length)
{
	if (length == 0 || length > 100)
		return false;
	for (; *text; text++)
		if (iscntrl((unsigned char)*text))
			return false;
	return true;
}

const struct text_type rule_name_text = {"a name of 1..100 bytes without control characters", is_rule_name};

/* --- labels --- */

/* Letters, digits, '-', '_' and '.', a letter or digit at both ends. */
static bool is_label_word(const char *text, size_t n)
{
	if (n == 0 || n > 63 || !isalnum((unsigned char)text[0]) || !isalnum((unsigned char)text[n - 1]))
		return false;
	for (size_t i = 0; i < n; i++)
		if (!isalnum((unsigned char)text[i]) && !strchr("-_.", text[i]))
			return false;
	return true;
}

/* [DNS subdomain/]word, as Kubernetes has it. */
static bool is_label_key(const char *text)
{
	const char *slash = strchr(text, '/');
	char prefix[254];
	size_t n;

	if (!slash)
		return is_label_word(text, strlen(text));
	n = (size_t)(slash - text);
	if (n >= sizeof(prefix))
		return false;
	memcpy(prefix, text, n);
	prefix[n] = '\0';
	return is_subdomain(prefix, n) && is_label_word(slash + 1, strlen(slash + 1));
}

static bool is_label_key_text(const char *text, size_t length)
{
	(void)length;
	return is_label_key(text);
}

static bool is_label_value(const char *text, size_t length)
{
	return length == 0 || is_label_word(text, length);
}

#define LABEL_VALUE "at most 63 letters, digits, '-', '_' and '.', a letter or digit at both ends"
const struct text_type label_key_text = {"a key such as app or example.org/app", is_label_key_text};
const struct text_type label_value_text = {LABEL_VALUE, is_label_value};

static int compare_labels(const void *a, const void *b)
{
	return strcmp(((const struct label *)a)->key, ((const struct label *)b)->key);
}

bool value_labels(struct decoder *d, const struct path *path, node_id node, const void *type, void *out)
{
	bool annotations = type, good = true;
	struct path key_path = {.up = path};
	struct label *labels;
	size_t n = 0;

	if (!node || tree_node(d->tree, node)->type != NODE_MAP)
		return want(d, path, node, "a mapping of names to text");
	labels = arena_array(d->arena, struct label, tree_node(d->tree, node)->count);
	if (!labels)
		return decoder_no_memory(d);
	for (node_id key = tree_first(d->tree, node), value; key; key = tree_next(d->tree, value)) {
		value = tree_next(d->tree, key);
		key_path.key = tree_is_scalar(d->tree, key) ? tree_text(d->tree, key) : "";
		if (!is_label_key(key_path.key)) {
			good = want(d, path, key, "keys such as app or example.org/app");
		} else if (!node_is_text(d, value)) {
			good = want(d, &key_path, value, "text (numbers and true or false in quotes)");
		} else if (!annotations && !is_label_value(tree_text(d->tree, value), tree_node(d->tree, value)->count)) {
			good = want(d, &key_path, value, LABEL_VALUE);
		} else {
			labels[n].key = arena_string(d->arena, key_path.key, strlen(key_path.key));
			labels[n].value = arena_string(d->arena, tree_text(d->tree, value), tree_node(d->tree, value)->count);
			if (!labels[n].key || !labels[n].value)
				return decoder_no_memory(d);
			n++;
		}
	}
	qsort(labels, n, sizeof(*labels), compare_labels);
	for (size_t i = 1; i < n; i++) {
		if (strcmp(labels[i].key, labels[i - 1].key) == 0) {
			key_path.key = labels[i].key;
			good = mistake(d, &key_path, tree_node(d->tree, node)->line, "want each key once, got it again");
		}
	}
	*(struct list *)out = (struct list){.items = labels, .n = n};
	return good;
}

/* --- addresses --- */

bool value_address(struct decoder *d, const struct path *path, node_id node, const void *type, void *out)
{
	(void)type;
	if (!node || !tree_is_scalar(d->tree, node) || addr_parse(tree_text(d->tree, node), out) < 0)
		return want(d, path, node, "an IPv4 or IPv6 address");
	return true;
}

bool document_address_is_unicast(const struct hd_addr *addr)
{
	static const uint8_t loopback[16] = {[15] = 1}, unspecified[16];
	const uint8_t *at = addr->b;

	if (addr_is_ipv4(addr))
		return at[12] != 0 && at[12] != 127 && at[12] < 224;
	return at[0] != 0xff && memcmp(at, unspecified, 16) != 0 && memcmp(at, loopback, 16) != 0;
}

/* RFC 1122 section 3.2.1.3, RFC 3927, RFC 4291 section 2.4; of IPv4 as it is mapped. */
bool document_prefix_of_hosts(const struct prefix *prefix)
{
	static const struct prefix none[] = {
		{.addr.b = {[10] = 0xff, [11] = 0xff, [12] = 0}, .length = 96 + 8},
		{.addr.b = {[10] = 0xff, [11] = 0xff, [12] = 127}, .length = 96 + 8},
		{.addr.b = {[10] = 0xff, [11] = 0xff, [12] = 169, [13] = 254}, .length = 96 + 16},
		{.addr.b = {[10] = 0xff, [11] = 0xff, [12] = 224}, .length = 96 + 3},
		{.addr.b = {0}, .length = 128},
		{.addr.b = {[15] = 1}, .length = 128},
		{.addr.b = {0xfe, 0x80}, .length = 10},
		{.addr.b = {0xff}, .length = 8},
	};

	for (size_t i = 0; i < ARRAY_SIZE(none); i++)
		if (addr_prefix_in_prefix(&prefix->addr, prefix->length, &none[i].addr, none[i].length))
			return false;
	return true;
}

bool document_address_of_tunnel(const struct hd_addr *addr)
{
	return document_address_is_unicast(addr) && !(addr->b[0] == 0xfe && (addr->b[1] & 0xc0) == 0x80);
}

const struct prefix *document_subnet(const struct prefix *subnets, size_t n, const struct hd_addr *addr)
{
	for (size_t i = 0; i < n; i++)
		if (addr_in_prefix(addr, &subnets[i].addr, subnets[i].length))
			return &subnets[i];
	return NULL;
}

bool document_address_of_host(const struct hd_addr *addr, const struct prefix *subnet)
{
	uint32_t host, mask;

	if (!document_address_is_unicast(addr))
		return false;
	/* Two addresses or one are all of hosts (RFC 3021). */
	if (!addr_is_ipv4(addr) || subnet->length > 126)
		return true;
	mask = subnet->length > 96 ? UINT32_MAX >> (subnet->length - 96) : UINT32_MAX;
	host = ntohl(addr->w[3]) & mask;
	return host != 0 && host != mask;
}

const char clear_host_bits[] = "clear";

bool value_cidr(struct decoder *d, const struct path *path, node_id node, const void *type, void *out)
{
	struct prefix *prefix = out;
	struct hd_addr addr;
	uint8_t length;
	char text[ADDR_TEXT_MAX];
	int r;

	if (!node || !tree_is_scalar(d->tree, node))
		return want(d, path, node, "a block such as 10.0.0.0/8 or fd00::/8");
	r = addr_parse_cidr(tree_text(d->tree, node), &addr, &length);
	switch (r == ADDR_CIDR_HOST_BITS && type ? 0 : r) {
	case 0:
		prefix->addr = addr;
		prefix->length = length;
		return true;
	case ADDR_CIDR_HOST_BITS:
		return want(d, path, node, "%s", addr_format_cidr(&addr, length, text));
	case ADDR_CIDR_LENGTH:
		return want(d, path, node, "an address and a length, such as %s/%d", addr_format(&addr, text),
			addr_is_ipv4(&addr) ? 32 : 128);
	default:
		return want(d, path, node, "a block such as 10.0.0.0/8 or fd00::/8");
	}
}

/* --- protocols and ports --- */

static const struct {
	const char *name;
	uint8_t number;
} protocols[] = {
	{"TCP", IPPROTO_TCP},
	{"UDP", IPPROTO_UDP},
	{"SCTP", IPPROTO_SCTP},
	{"ICMP", IPPROTO_ICMP},
	{"ICMPv6", IPPROTO_ICMPV6},
	{"IGMP", IPPROTO_IGMP},
	{"GRE", IPPROTO_GRE},
	{"ESP", IPPROTO_ESP},
	{"AH", IPPROTO_AH},
};

const char *document_protocol_name(uint8_t protocol)
{
	for (size_t i = 0; i < ARRAY_SIZE(protocols); i++)
		if (protocols[i].number == protocol)
			return protocols[i].name;
	return NULL;
}

bool document_protocol_has_ports(uint8_t protocol)
{
	return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP || protocol == IPPROTO_SCTP;
}

bool value_transport(struct decoder *d, const struct path *path, node_id node, const void *type, void *out)
{
	static const char *const names[] = {"TCP", "UDP", "SCTP", NULL};
	static const uint8_t numbers[] = {IPPROTO_TCP, IPPROTO_UDP, IPPROTO_SCTP};
	static const struct choice choice = {names};
	int chosen;

	(void)type;
	if (!value_choice(d, path, node, &choice, &chosen))
		return false;
	*(uint8_t *)out = numbers[chosen];
	return true;
}

struct port_draft {
	int protocol;	      /* -1: not given */
	uint32_t first, last; /* 0: not given */
};

static bool value_protocol(struct decoder *d, const struct path *path, node_id node, const void *type, void *out)
{
	uint64_t number;

	(void)type;
	if (node_number(d, node, &number) && number <= 255) {
		*(int *)out = (int)number;
		return true;
	}
	for (size_t i = 0; node && tree_is_scalar(d->tree, node) && i < ARRAY_SIZE(protocols); i++) {
		if (strcmp(protocols[i].name, tree_text(d->tree, node)) == 0) {
			*(int *)out = protocols[i].number;
			return true;
		}
	}
	return want(d, path, node, "TCP, UDP, SCTP, ICMP, ICMPv6, IGMP, GRE, ESP, AH or 0..255");
}

static bool finish_ports(
	struct decoder *d, const struct path *path, node_id node, const struct port_draft *draft, enum port_use use, void *out)
{
	struct port_range *range = out;
	/* As in a NetworkPolicy: no protocol means TCP. */
	uint8_t protocol = draft->protocol >= 0 ? (uint8_t)draft->protocol : use == PORT_SOURCE ? 0 : IPPROTO_TCP;
	bool has_ports = document_protocol_has_ports(protocol) || (use == PORT_SOURCE && draft->protocol < 0);
	struct path where = {.up = path, .key = "port"};
	node_id port = node_field(d, node, "port"), end_port = node_field(d, node, "endPort");

	d->line = tree_node(d->tree, node)->line;
	if (!has_ports && use == PORT_SOURCE) {
		where.key = "protocol";
		return want(d, &where, node_field(d, node, "protocol"), "TCP, UDP or SCTP, which have source ports");
	}
	if (!has_ports && (port || end_port)) {
		where.key = port ? "port" : "endPort";
		return want(d, &where, port ? port : end_port, "no port with a protocol that has none");
	}
	if (has_ports && !port && (end_port || use != PORT_DESTINATION))
		return want(d, &where, NODE_NONE, "1..65535");
	if (end_port && draft->last < draft->first) {
		where.key = "endPort";
		return want(d, &where, end_port, "%u..65535", draft->first);
	}
	*range = (struct port_range){
		.protocol = protocol,
		.any_port = !draft->first,
		.first = (uint16_t)draft->first,
		.last = draft->last    ? (uint16_t)draft->last
			: draft->first ? (uint16_t)draft->first
				       : UINT16_MAX,
	};
	return true;
}

static bool finish_destination(struct decoder *d, const struct path *path, node_id node, const void *draft, void *out)
{
	return finish_ports(d, path, node, draft, PORT_DESTINATION, out);
}

static bool finish_source(struct decoder *d, const struct path *path, node_id node, const void *draft, void *out)
{
	return finish_ports(d, path, node, draft, PORT_SOURCE, out);
}

static bool finish_failsafe(struct decoder *d, const struct path *path, node_id node, const void *draft, void *out)
{
	return finish_ports(d, path, node, draft, PORT_FAILSAFE, out);
}

static const struct range port_number = {.min = 1, .max = 65535, .size = 4, .unit = ""};
static const struct field port_fields[] = {
	{"protocol", value_protocol, NULL, offsetof(struct port_draft, protocol), false},
	{"port", value_uint, &port_number, offsetof(struct port_draft, first), false},
	{"endPort", value_uint, &port_number, offsetof(struct port_draft, last), false},
};
static const struct port_draft port_defaults = {.protocol = -1};

#define PORT_SCHEMA(check) \
	{ \
		.what = "a mapping with protocol and port", SCHEMA_FIELDS(port_fields), .draft_size = sizeof(struct port_draft), \
		.defaults = &port_defaults, .finish = (check), \
	}
const struct schema port_schemas[] = {
	[PORT_DESTINATION] = PORT_SCHEMA(finish_destination),
	[PORT_SOURCE] = PORT_SCHEMA(finish_source),
	[PORT_FAILSAFE] = PORT_SCHEMA(finish_failsafe),
};
