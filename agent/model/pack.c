// SPDX-License-Identifier: Apache-2.0
/*
 * The rules of a policy in the form that lasts: 20 bytes for a prefix and a port, where the structs take 90. Nobody looks at
 * most rules between two changes of their policy.
 *
 *   rule    flags, line (difference to the rule before), [name NUL], [peers], [ports], [source ports], [icmp]
 *   list    count, items
 *   peer    tag: 0..128 length of an IPv6 block, PEER_IPV4 + 0..32 of an IPv4 one, then the bytes that the length covers;
 *           PEER_EXCEPT, block, list of blocks; PEER_GROUP, name NUL
 *   port    protocol, tag: any, one, range; the ports, 2 bytes each
 *   icmp    the 5 bytes of struct icmp_match
 *
 * Numbers are 7 bits a byte, lowest first. Every STRIDE rules the offset is kept, so that one rule is found without the others.
 */
#include <model/object.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <util/addr.h>
#include <util/arena.h>
#include <util/buffer.h>
#include <util/log.h>

#define STRIDE 64

enum {
	RULE_LOG = 1 << 2,
	RULE_NAME = 1 << 3,
	RULE_PEERS = 1 << 4,
	RULE_PORTS = 1 << 5,
	RULE_SOURCES = 1 << 6,
	RULE_ICMP = 1 << 7
};
enum { PEER_IPV4 = 160, PEER_EXCEPT = 254, PEER_GROUP = 255 };
enum { PORT_ANY, PORT_ONE, PORT_RANGE };

struct packed_rules {
	uint32_t *offsets[HD_DIRECTIONS]; /* of every STRIDE-th rule; behind bytes */
	unsigned char bytes[];
};

/* --- writing --- */

static void put_number(struct buffer *out, uint32_t number)
{
	for (; number >= 0x80; number >>= 7)
		buffer_add_char(out, (char)(number | 0x80));
	buffer_add_char(out, (char)number);
}

static void put_block(struct buffer *out, const struct prefix *prefix)
{
	bool ipv4 = prefix->length >= 96 && addr_is_ipv4(&prefix->addr);
	unsigned length = ipv4 ? prefix->length - 96u : prefix->length;

	buffer_add_char(out, (char)(ipv4 ? PEER_IPV4 + length : length));
	buffer_add(out, prefix->addr.b + (ipv4 ? 12 : 0), (length + 7) / 8);
}

static void put_peer(struct buffer *out, const struct peer *peer)
{
	if (peer->group) {
		buffer_add_char(out, (char)PEER_GROUP);
		buffer_add(out, peer->group, strlen(peer->group) + 1);
		return;
	}
	if (peer->n_except)
		buffer_add_char(out, (char)PEER_EXCEPT);
	put_block(out, &peer->prefix);
	if (peer->n_except)
		put_number(out, peer->n_except);
	for (uint32_t i = 0; i < peer->n_except; i++)
		put_block(out, &peer->except[i]);
}

static void put_ports(struct buffer *out, const struct port_range *ports, uint32_t n)
{
	put_number(out, n);
	for (uint32_t i = 0; i < n; i++) {
		buffer_add_char(out, (char)ports[i].protocol);
		buffer_add_char(out, ports[i].any_port ? PORT_ANY : ports[i].first == ports[i].last ? PORT_ONE : PORT_RANGE);
		if (!ports[i].any_port)
			buffer_add(out, &ports[i].first, sizeof(uint16_t));
		if (!ports[i].any_port && ports[i].first != ports[i].last)
			buffer_add(out, &ports[i].last, sizeof(uint16_t));
	}
}

static void put_rule(struct buffer *out, const struct rule *rule, uint32_t line_before)
{
	static const struct rule_extra none;
	const struct rule_extra *extra = rule->extra ? rule->extra : &none;
	int32_t lines = (int32_t)rule->line - (int32_t)line_before;

	buffer_add_char(out, (char)(rule->verdict | (rule->log ? RULE_LOG : 0) | (rule->name ? RULE_NAME : 0) |
				     (rule->n_peers ? RULE_PEERS : 0) | (rule->n_ports ? RULE_PORTS : 0) |
				     (extra->n_source_ports ? RULE_SOURCES : 0) | (extra->n_icmp ? RULE_ICMP : 0)));
	put_number(out, lines < 0 ? (uint32_t)-lines << 1 | 1 : (uint32_t)lines << 1);
	if (rule->name)
		buffer_add(out, rule->name, strlen(rule->name) + 1);
	if (rule->n_peers)
		put_number(out, rule->n_peers);
	for (uint32_t i = 0; i < rule->n_peers; i++)
		put_peer(out, &rule->peers[i]);
	if (rule->n_ports)
		put_ports(out, rule->ports, rule->n_ports);
	if (extra->n_source_ports)
		put_ports(out, extra->source_ports, extra->n_source_ports);
	if (extra->n_icmp) {
		put_number(out, extra->n_icmp);
		buffer_add(out, extra->icmp, extra->n_icmp * sizeof(*extra->icmp));
	}
}

static size_t n_offsets(const struct host_policy *policy, int direction)
{
	return (policy->n_rules[direction] + STRIDE - 1) / STRIDE;
}

/* NULL: no memory. */
static struct packed_rules *pack_rules(const struct host_policy *policy)
{
	_cleanup_buffer_ struct buffer out = {0};
	size_t n = n_offsets(policy, HD_INGRESS) + n_offsets(policy, HD_EGRESS), k = 0;
	_cleanup_free_ uint32_t *offsets = malloc((n + 1) * sizeof(*offsets));
	struct packed_rules *packed;

	if (!offsets)
		return NULL;
	for (int direction = 0; direction < HD_DIRECTIONS; direction++) {
		uint32_t line = 0;

		for (size_t i = 0; i < policy->n_rules[direction]; i++) {
			if (i % STRIDE == 0) {
				offsets[k++] = (uint32_t)out.length;
				line = 0;
			}
			put_rule(&out, &policy->rules[direction][i], line);
			line = policy->rules[direction][i].line;
		}
	}
	if (out.failed || out.length > UINT32_MAX)
		return NULL;
	size_t aligned = (out.length + 3) & ~(size_t)3;
	packed = malloc(sizeof(*packed) + aligned + n * sizeof(*offsets));
	if (!packed)
		return NULL;
	if (out.length)
		memcpy(packed->bytes, out.data, out.length);
	packed->offsets[HD_INGRESS] = (uint32_t *)(void *)(packed->bytes + aligned);
	packed->offsets[HD_EGRESS] = packed->offsets[HD_INGRESS] + n_offsets(policy, HD_INGRESS);
	memcpy(packed->offsets[HD_INGRESS], offsets, n * sizeof(*offsets));
	return packed;
}

/* --- reading: only what was written above --- */

struct reader {
	const unsigned char *at;
	struct arena *arena;
	bool no_memory;
};

static uint32_t get_number(struct reader *in)
{
	uint32_t number = 0;
	unsigned shift = 0;

	for (; *in->at & 0x80; shift += 7)
		number |= (uint32_t)(*in->at++ & 0x7f) << shift;
	return number | (uint32_t)*in->at++ << shift;
}

static const char *get_text(struct reader *in)
{
	const char *text = (const char *)in->at;

	in->at += strlen(text) + 1;
	return text; /* it stays where it is */
}

static void *get_array(struct reader *in, size_t size, size_t n, size_t align)
{
	void *array = arena_alloc(in->arena, size * n, align);

	in->no_memory |= !array;
	return array;
}

static void get_block(struct reader *in, unsigned tag, struct prefix *ret)
{
	unsigned length = tag >= PEER_IPV4 ? tag - PEER_IPV4 : tag;

	if (tag >= PEER_IPV4)
		ret->addr = addr_from_ipv4(0);
	memcpy(ret->addr.b + (tag >= PEER_IPV4 ? 12 : 0), in->at, (length + 7) / 8);
	in->at += (length + 7) / 8;
	ret->length = (uint8_t)(tag >= PEER_IPV4 ? length + 96 : length);
}

static void get_peer(struct reader *in, struct peer *ret)
{
	unsigned tag = *in->at++;
	struct prefix *except;
	uint32_t n;

	if (tag == PEER_GROUP) {
		ret->group = get_text(in);
		return;
	}
	get_block(in, tag == PEER_EXCEPT ? *in->at++ : tag, &ret->prefix);
	if (tag != PEER_EXCEPT)
		return;
	n = get_number(in);
	except = get_array(in, sizeof(*except), n, _Alignof(struct prefix));
	if (!except)
		return;
	for (uint32_t i = 0; i < n; i++) {
		tag = *in->at++;
		get_block(in, tag, &except[i]);
	}
	ret->except = except;
	ret->n_except = n;
}

static const struct port_range *get_ports(struct reader *in, uint32_t *ret_n)
{
	uint32_t n = get_number(in);
	struct port_range *ports = get_array(in, sizeof(*ports), n, _Alignof(struct port_range));

	for (uint32_t i = 0; ports && i < n; i++) {
		unsigned tag;

		ports[i] = (struct port_range){.protocol = *in->at++, .last = UINT16_MAX};
		tag = *in->at++;
		ports[i].any_port = tag == PORT_ANY;
		if (tag == PORT_ANY)
			continue;
		memcpy(&ports[i].first, in->at, sizeof(uint16_t));
		in->at += sizeof(uint16_t);
		ports[i].last = ports[i].first;
		if (tag == PORT_ONE)
			continue;
		memcpy(&ports[i].last, in->at, sizeof(uint16_t));
		in->at += sizeof(uint16_t);
	}
	*ret_n = n;
	return ports;
}

static unsigned get_head(struct reader *in, uint32_t *line, const char **ret_name)
{
	unsigned flags = *in->at++;
	uint32_t lines = get_number(in);

	*line = lines & 1 ? *line - (lines >> 1) : *line + (lines >> 1);
	*ret_name = flags & RULE_NAME ? get_text(in) : NULL;
	return flags;
}

static void get_rule(struct reader *in, uint32_t *line, struct rule *ret)
{
	const char *name;
	unsigned flags = get_head(in, line, &name);
	struct rule_extra *extra;
	uint32_t n;

	*ret = (struct rule){.name = name, .line = *line & RULE_LINE_MAX, .verdict = flags & 3, .log = !!(flags & RULE_LOG)};
	if (flags & RULE_PEERS) {
		n = get_number(in);
		struct peer *peers = get_array(in, sizeof(*peers), n, _Alignof(struct peer));
		for (uint32_t i = 0; !in->no_memory && i < n; i++)
			get_peer(in, &peers[i]);
		ret->peers = peers;
		ret->n_peers = n & RULE_PEERS_MAX;
	}
	if (!in->no_memory && flags & RULE_PORTS) {
		ret->ports = get_ports(in, &n);
		ret->n_ports = n & RULE_PORTS_MAX;
	}
	if (in->no_memory || !(flags & (RULE_SOURCES | RULE_ICMP)))
		return;
	extra = get_array(in, sizeof(*extra), 1, _Alignof(struct rule_extra));
	if (!extra)
		return;
	ret->extra = extra;
	if (flags & RULE_SOURCES)
		extra->source_ports = get_ports(in, &extra->n_source_ports);
	if (!in->no_memory && flags & RULE_ICMP) {
		extra->n_icmp = get_number(in);
		extra->icmp = (const struct icmp_match *)in->at;
		in->at += extra->n_icmp * sizeof(*extra->icmp);
	}
}

/* Goes over a rule without looking at it. */
static void skip_blocks(struct reader *in, uint32_t n)
{
	for (; n; n--) {
		unsigned tag = *in->at++;

		in->at += ((tag >= PEER_IPV4 ? tag - PEER_IPV4 : tag) + 7) / 8;
	}
}

static void skip_ports(struct reader *in)
{
	for (uint32_t n = get_number(in); n; n--) {
		unsigned tag = in->at[1];

		in->at += 2 + (tag == PORT_ANY ? 0 : tag == PORT_ONE ? 2 : 4);
	}
}

static void skip_rest(struct reader *in, unsigned flags)
{
	for (uint32_t n = flags & RULE_PEERS ? get_number(in) : 0; n; n--) {
		if (*in->at == PEER_GROUP) {
			in->at++;
			(void)get_text(in);
		} else if (*in->at == PEER_EXCEPT) {
			in->at++;
			skip_blocks(in, 1);
			skip_blocks(in, get_number(in));
		} else {
			skip_blocks(in, 1);
		}
	}
	if (flags & RULE_PORTS)
		skip_ports(in);
	if (flags & RULE_SOURCES)
		skip_ports(in);
	if (flags & RULE_ICMP)
		in->at += get_number(in) * sizeof(struct icmp_match);
}

static bool unpack_rules(struct host_policy *policy, const struct packed_rules *packed, struct arena *arena)
{
	struct reader in = {.at = packed->bytes, .arena = arena};
	struct rule *rules[HD_DIRECTIONS];

	for (int direction = 0; direction < HD_DIRECTIONS; direction++) {
		uint32_t line = 0;

		rules[direction] = get_array(&in, sizeof(struct rule), policy->n_rules[direction], _Alignof(struct rule));
		for (size_t i = 0; i < policy->n_rules[direction] && !in.no_memory; i++) {
			if (i % STRIDE == 0)
				line = 0;
			get_rule(&in, &line, &rules[direction][i]);
		}
	}
	if (in.no_memory)
		return false;
	memcpy(policy->rules, rules, sizeof(rules));
	return true;
}

/* --- what others call --- */

/* What an object says does not change with the form it has. */
static struct object *writable(const struct object *object)
{
	return (struct object *)(uintptr_t)object;
}

static bool ensure_packed(struct object *object)
{
	if (!object->packed)
		object->packed = pack_rules(&object->policy);
	return object->packed != NULL;
}

void object_pack(struct object *object)
{
	if (object->kind != OBJECT_HOST_POLICY || !object->rules_arena || !ensure_packed(object))
		return;
	object->policy.rules[HD_INGRESS] = object->policy.rules[HD_EGRESS] = NULL;
	arena_free(object->rules_arena);
	object->rules_arena = NULL;
}

void object_list_pack(const struct object_list *list)
{
	for (size_t i = 0; i < list->n; i++)
		object_pack(list->items[i]);
}

const struct rule *object_rules(const struct object *object, enum hd_direction direction)
{
	if (!object->rules_arena) {
		struct arena *arena = arena_new();

		if (!arena || !unpack_rules(&writable(object)->policy, object->packed, arena)) {
			/* Nobody could go on from here; the data plane does, and the agent is started again. */
			log_err(-ENOMEM, "cannot read the rules of HostPolicy %s", object->name);
			abort();
		}
		writable(object)->rules_arena = arena;
	}
	return object->policy.rules[direction];
}

int object_rule_head(const struct object *object, enum hd_direction direction, uint32_t index, struct rule_head *ret)
{
	uint32_t line = 0;
	unsigned flags;

	if (object->kind != OBJECT_HOST_POLICY || index >= object->policy.n_rules[direction])
		return -ENOENT;
	if (!ensure_packed(writable(object)))
		return -ENOMEM;
	struct reader in = {.at = object->packed->bytes + object->packed->offsets[direction][index / STRIDE]};
	for (uint32_t i = index % STRIDE;; i--) {
		flags = get_head(&in, &line, &ret->name);
		if (i == 0)
			break;
		skip_rest(&in, flags);
	}
	ret->line = line;
	ret->verdict = flags & 3;
	ret->log = flags & RULE_LOG;
	return 0;
}
