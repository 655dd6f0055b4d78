/* SPDX-License-Identifier: Apache-2.0 */
#include <netdev/nat.h>

#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter_ipv4.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <netdev/nftables.h>
#include <util/addr.h>
#include <util/cleanup.h>
#include <util/hash.h>

#define TABLE "heddle"
#define RUN_DIR "/run/heddle" /* of the instance whose table has no more to its name */

void nat_table(const char *run_dir, char ret[NAT_TABLE_MAX])
{
	_cleanup_free_ char *real = realpath(run_dir, NULL);
	const char *path = real ? real : run_dir;
	uint64_t hash;

	if (strcmp(path, RUN_DIR) == 0) {
		snprintf(ret, NAT_TABLE_MAX, TABLE);
		return;
	}
	hash = hash_string(5, path);
	snprintf(ret, NAT_TABLE_MAX, TABLE "-%08x", (unsigned)(hash ^ hash >> 32));
}

/* --- what differs between the families --- */

static const struct family {
	bool ipv4;
	uint8_t number; /* of netfilter */
	uint8_t source, destination, size;
	const char *ports, *ports_at, *self;
	uint32_t type;
	uint32_t port_register; /* behind an address that is in NFT_REG_1 */
} families[] = {
	{true, NFPROTO_IPV4, offsetof(struct iphdr, saddr), offsetof(struct iphdr, daddr), 4, "ports4", "ports4_at", "self4",
		NFT_TYPE_IPV4, NFT_REG32_01},
	{false, NFPROTO_IPV6, offsetof(struct ip6_hdr, ip6_src), offsetof(struct ip6_hdr, ip6_dst), 16, "ports6", "ports6_at",
		"self6", NFT_TYPE_IPV6, NFT_REG_2},
};

static const void *bytes_of(const struct family *family, const struct hd_addr *addr)
{
	return &addr->b[16 - family->size];
}

static void match_family(struct nft_batch *batch, const struct family *family)
{
	nft_meta(batch, NFT_META_NFPROTO, NFT_REG_1);
	nft_equal(batch, NFT_REG_1, &family->number, sizeof(family->number));
}

static void match_block(struct nft_batch *batch, const struct family *family, uint8_t offset, const struct nat_block *block)
{
	unsigned bits = (unsigned)block->length - (family->ipv4 ? 96 : 0);
	uint8_t mask[16] = {0};

	match_family(batch, family);
	if (!bits)
		return;
	for (unsigned i = 0; i < bits; i++)
		mask[i / 8] |= (uint8_t)(0x80 >> i % 8);
	nft_payload(batch, NFT_PAYLOAD_NETWORK_HEADER, offset, family->size, NFT_REG_1);
	if (bits < 8u * family->size)
		nft_mask(batch, NFT_REG_1, mask, family->size);
	nft_equal(batch, NFT_REG_1, bytes_of(family, &block->addr), family->size);
}

static bool is_of(const struct family *family, const struct nat_block *block)
{
	return (block->length >= 96 && addr_is_ipv4(&block->addr)) == family->ipv4;
}

/* --- sources --- */

static void add_masquerade(struct nft_batch *batch, const struct nat_content *content)
{
	nft_add_chain(batch, "leaving", NULL, 0, 0);
	for (size_t f = 0; f < ARRAY_SIZE(families); f++)
		for (size_t i = 0; i < content->n_kept; i++) {
			if (!is_of(&families[f], &content->kept[i]))
				continue;
			nft_begin_rule(batch, "leaving");
			match_block(batch, &families[f], families[f].destination, &content->kept[i]);
			nft_jump(batch, NULL);
			nft_end_rule(batch);
		}
	nft_begin_rule(batch, "leaving");
	nft_masquerade(batch);
	nft_end_rule(batch);
	for (size_t f = 0; f < ARRAY_SIZE(families); f++)
		for (size_t i = 0; i < content->n_from; i++) {
			if (!is_of(&families[f], &content->from[i]))
				continue;
			nft_begin_rule(batch, "postrouting");
			match_block(batch, &families[f], families[f].source, &content->from[i]);
			nft_jump(batch, "leaving");
			nft_end_rule(batch);
		}
}

/* --- ports of the host --- */

/* In a map: addresses in network byte order, each part filled up to four bytes. */
struct key {
	uint8_t bytes[24];
	size_t size;
};

static void append(struct key *key, const void *data, size_t size)
{
	memcpy(&key->bytes[key->size], data, size);
	key->size += (size + 3) / 4 * 4;
}

static void append_port(struct key *key, uint16_t port)
{
	port = htons(port);
	append(key, &port, sizeof(port));
}

static void add_port_map(
	struct nft_batch *batch, const struct family *family, const char *name, bool any, const struct nat_content *content)
{
	uint32_t type = NFT_TYPE_CONCAT(NFT_TYPE_PROTOCOL, NFT_TYPE_PORT), size = 8 + (any ? 0u : family->size);

	nft_add_set(batch, name, any ? type : family->type << 12 | type, size, NFT_TYPE_CONCAT(family->type, NFT_TYPE_PORT),
		family->size + 4u);
	nft_begin_elements(batch, name);
	for (size_t i = 0; i < content->n_ports; i++) {
		const struct nat_port *port = &content->ports[i];
		struct key key = {0}, data = {0};

		if (port->any != any || addr_is_ipv4(&port->to) != family->ipv4)
			continue;
		if (!any)
			append(&key, bytes_of(family, &port->host), family->size);
		append(&key, &port->protocol, sizeof(port->protocol));
		append_port(&key, port->host_port);
		append(&data, bytes_of(family, &port->to), family->size);
		append_port(&data, port->to_port);
		nft_add_element(batch, name, key.bytes, key.size, data.bytes, data.size);
	}
	nft_end_elements(batch);
}

/* Of an address that has a port for itself, that one counts. */
static void add_port_rule(struct nft_batch *batch, const struct family *family, const char *name, bool any)
{
	/* behind the address, if that is part of the key; one of IPv6 fills the first register */
	uint32_t protocol = any ? NFT_REG_1 : family->port_register;
	uint32_t port = any ? NFT_REG32_01 : family->ipv4 ? NFT_REG32_02 : NFT_REG32_05;

	nft_begin_rule(batch, "ports");
	match_family(batch, family);
	if (!any)
		nft_payload(batch, NFT_PAYLOAD_NETWORK_HEADER, family->destination, family->size, NFT_REG_1);
	nft_meta(batch, NFT_META_L4PROTO, protocol);
	nft_payload(batch, NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2, port);
	nft_lookup(batch, name, NFT_REG_1, NFT_REG_1);
	nft_dnat(batch, family->number, NFT_REG_1, family->port_register);
	nft_end_rule(batch);
}

static int compare_targets(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct hd_addr));
}

/* A workload that goes by the host's port to itself would get packets with its own address as their source. */
static int add_self(struct nft_batch *batch, const struct family *family, const struct nat_content *content)
{
	_cleanup_free_ struct hd_addr *targets = calloc(content->n_ports, sizeof(*targets));
	size_t n = 0;

	if (!targets)
		return -ENOMEM;
	for (size_t i = 0; i < content->n_ports; i++)
		if (addr_is_ipv4(&content->ports[i].to) == family->ipv4)
			targets[n++] = content->ports[i].to;
	qsort(targets, n, sizeof(*targets), compare_targets);
	nft_add_set(batch, family->self, NFT_TYPE_CONCAT(family->type, family->type), 2u * family->size, 0, 0);
	nft_begin_elements(batch, family->self);
	for (size_t i = 0; i < n; i++) {
		struct key key = {0};
		uint8_t pair[32];

		if (i && compare_targets(&targets[i - 1], &targets[i]) == 0)
			continue;
		append(&key, bytes_of(family, &targets[i]), family->size);
		memcpy(pair, key.bytes, family->size);
		memcpy(pair + family->size, key.bytes, family->size);
		nft_add_element(batch, family->self, pair, 2u * family->size, NULL, 0);
	}
	nft_end_elements(batch);
	nft_begin_rule(batch, "postrouting");
	match_family(batch, family);
	nft_payload(batch, NFT_PAYLOAD_NETWORK_HEADER, family->source, family->size, NFT_REG_1);
	nft_payload(batch, NFT_PAYLOAD_NETWORK_HEADER, family->destination, family->size, family->port_register);
	nft_lookup(batch, family->self, NFT_REG_1, 0);
	nft_masquerade(batch);
	nft_end_rule(batch);
	return 0;
}

/* What is sent to the loopback would have to leave with that source. */
static void skip_loopback(struct nft_batch *batch)
{
	static const struct nat_block loopback4 = {.addr = {.b = {[10] = 0xff, [11] = 0xff, [12] = 127}}, .length = 96 + 8};
	static const struct nat_block loopback6 = {.addr = {.b = {[15] = 1}}, .length = 128};

	for (size_t f = 0; f < ARRAY_SIZE(families); f++) {
		nft_begin_rule(batch, "output");
		match_block(batch, &families[f], families[f].destination, families[f].ipv4 ? &loopback4 : &loopback6);
		nft_jump(batch, NULL);
		nft_end_rule(batch);
	}
}

static int add_ports(struct nft_batch *batch, const struct nat_content *content)
{
	static const char *const chains[] = {"prerouting", "output"};
	int r = 0;

	nft_add_chain(batch, "prerouting", "nat", NF_INET_PRE_ROUTING, NF_IP_PRI_NAT_DST);
	nft_add_chain(batch, "output", "nat", NF_INET_LOCAL_OUT, NF_IP_PRI_NAT_DST);
	nft_add_chain(batch, "ports", NULL, 0, 0);
	for (size_t f = 0; f < ARRAY_SIZE(families) && r == 0; f++) {
		add_port_map(batch, &families[f], families[f].ports_at, false, content);
		add_port_map(batch, &families[f], families[f].ports, true, content);
		add_port_rule(batch, &families[f], families[f].ports_at, false);
		add_port_rule(batch, &families[f], families[f].ports, true);
		r = add_self(batch, &families[f], content);
	}
	skip_loopback(batch);
	for (size_t i = 0; i < ARRAY_SIZE(chains); i++) {
		nft_begin_rule(batch, chains[i]);
		nft_to_this_host(batch);
		nft_jump(batch, "ports");
		nft_end_rule(batch);
	}
	return r;
}

/* --- what is not judged yet --- */

/* What has the mark goes to one of those that are inside, where a policy is asked, or nowhere. */
static void add_gate(struct nft_batch *batch, const struct nat_content *content)
{
	nft_add_chain(batch, "unjudged", NULL, 0, 0);
	for (size_t f = 0; f < ARRAY_SIZE(families); f++)
		for (size_t i = 0; i < content->n_inside; i++) {
			if (!is_of(&families[f], &content->inside[i]))
				continue;
			nft_begin_rule(batch, "unjudged");
			match_block(batch, &families[f], families[f].destination, &content->inside[i]);
			nft_jump(batch, NULL);
			nft_end_rule(batch);
		}
	nft_begin_rule(batch, "unjudged");
	nft_drop(batch);
	nft_end_rule(batch);
	nft_add_chain(batch, "input", "filter", NF_INET_LOCAL_IN, NF_IP_PRI_FILTER);
	nft_add_chain(batch, "forward", "filter", NF_INET_FORWARD, NF_IP_PRI_FILTER);
	for (int forward = 0; forward <= 1; forward++) {
		nft_begin_rule(batch, forward ? "forward" : "input");
		nft_meta(batch, NFT_META_MARK, NFT_REG_1);
		nft_mask(batch, NFT_REG_1, &content->unjudged, sizeof(content->unjudged));
		nft_equal(batch, NFT_REG_1, &content->unjudged, sizeof(content->unjudged));
		if (forward)
			nft_jump(batch, "unjudged");
		else
			nft_drop(batch);
		nft_end_rule(batch);
	}
}

/* --- all of it --- */

static int explain(int r, const char *what, char **ret_why)
{
	int n = 0;

	if (r >= 0 || !ret_why)
		return r;
	if (r == -EOPNOTSUPP || r == -EPROTONOSUPPORT)
		n = asprintf(ret_why, "the kernel has no nf_tables");
	else
		n = asprintf(ret_why, "nf_tables refuses %s: %s", what, strerror(-r));
	if (n < 0)
		*ret_why = NULL;
	return r;
}

int nat_set(const char *table, const struct nat_content *content, char **ret_why)
{
	_cleanup_(nft_clear) struct nft_batch batch = {0};
	const char *what = "it";
	int r = 0;

	nft_begin(&batch, table);
	nft_add_table(&batch); /* or there would be none to remove, the first time */
	nft_delete_table(&batch);
	nft_add_table(&batch);
	nft_add_chain(&batch, "postrouting", "nat", NF_INET_POST_ROUTING, NF_IP_PRI_NAT_SRC);
	if (content->n_ports)
		r = add_ports(&batch, content);
	if (content->n_from)
		add_masquerade(&batch, content);
	if (content->unjudged)
		add_gate(&batch, content);
	if (r == 0)
		r = nft_commit(&batch, &what);
	return explain(r, what, ret_why);
}

int nat_clear(const char *table)
{
	_cleanup_(nft_clear) struct nft_batch batch = {0};
	const char *ignored;
	int r = nft_has_table(table);

	if (r <= 0)
		return r;
	nft_begin(&batch, table);
	nft_delete_table(&batch);
	r = nft_commit(&batch, &ignored);
	return r == -ENOENT ? 0 : r;
}
