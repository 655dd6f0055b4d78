/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whatever decodes must compile, and the tables must be walkable: documents from the input, compiled after another set of documents
 * from its second half, then looked up all over.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <policy/compile.h>
#include <policy/lookup.h>

#define NODES 4096u
#define CLASSES 1024u
#define TABLES 64u

struct maps {
	struct hd_addr4_node addr4_nodes[NODES];
	struct hd_addr4_table addr4_tables[TABLES];
	struct hd_addr6_node addr6_nodes[NODES];
	struct hd_class classes[CLASSES];
	struct hd_rule_node rule_nodes[NODES];
	uint32_t generation;
};

static void check(bool good)
{
	if (!good)
		abort();
}

static void look_up(struct maps *maps, const struct policy_delta *delta)
{
	struct lookup_tables tables = {.addr4_nodes = maps->addr4_nodes,
		.addr4_tables = maps->addr4_tables,
		.addr6_nodes = maps->addr6_nodes,
		.classes = maps->classes,
		.rule_nodes = maps->rule_nodes,
		.n_addr4_nodes = NODES,
		.n_addr4_tables = TABLES,
		.n_addr6_nodes = NODES,
		.n_classes = CLASSES,
		.n_rule_nodes = NODES};

	for (size_t i = 0; i < delta->n_addr4_nodes; i++)
		maps->addr4_nodes[delta->addr4_nodes[i].id] = delta->addr4_nodes[i].node;
	for (size_t i = 0; i < delta->n_addr4_tables; i++)
		maps->addr4_tables[delta->addr4_tables[i].id] = delta->addr4_tables[i].node;
	for (size_t i = 0; i < delta->n_addr6_nodes; i++)
		maps->addr6_nodes[delta->addr6_nodes[i].id] = delta->addr6_nodes[i].node;
	for (size_t i = 0; i < delta->n_classes; i++) {
		struct hd_class *class = &maps->classes[delta->classes[i].id];
		int now = hd_class_rules_at(class, maps->generation);

		class->rules[now < 0 ? 0 : !now] = delta->classes[i].rules;
	}
	for (size_t i = 0; i < delta->n_rule_nodes; i++)
		maps->rule_nodes[delta->rule_nodes[i].id] = delta->rule_nodes[i].node;
	maps->generation = delta->generation;
	for (size_t u = 0; u < delta->n_uplinks; u++)
		for (size_t i = 0; i < (delta->n_addr4_nodes + delta->n_addr6_nodes) * HD_ADDR_FANOUT; i++) {
			size_t node = i / HD_ADDR_FANOUT, entry = i % HD_ADDR_FANOUT;
			bool ipv4 = node < delta->n_addr4_nodes;
			uint64_t key = ipv4 ? (uint64_t)delta->addr4_nodes[node].node.key[entry] << 32
					    : delta->addr6_nodes[node - delta->n_addr4_nodes].node.key[entry];
			struct lookup_packet packet = {.ip = true, .kind = (uint8_t)(i % HD_L4_ETHERTYPE)};
			struct lookup_result result;

			key -= i & 1;
			packet.number = (uint16_t)(key >> 17);
			packet.peer.q[0] = __builtin_bswap64(key);
			if (ipv4 || i % 3 == 0) {
				packet.peer.q[0] = 0;
				packet.peer.w[2] = __builtin_bswap32(0xffff);
				packet.peer.w[3] = __builtin_bswap32((uint32_t)(key >> 32));
			}
			check(lookup_packet(&tables, delta->generation, &delta->roots, &delta->uplinks[u].policy,
				      (enum hd_direction)(i / 2 % 2), &packet, &result) == 0);
			check((result.leaf >> HD_LEAF_VERDICT_SHIFT & 3) != HD_DROP);
		}
}

static void compile(struct compiler *compiler, struct networks *networks, struct maps *maps, const struct object_list *list)
{
	static struct uplink uplinks[] = {{.device = "eth0"}, {.device = "eth1"}};
	static struct host host = {.uplinks = uplinks, .n_uplinks = 2};
	struct policy_input input = {.host = &host, .objects = list, .networks = networks};
	struct compiler_limits needed;
	struct policy_delta *delta;
	struct diag diag = {0};
	int r;

	for (size_t i = 0; i < list->n; i++)
		if (list->items[i]->kind == OBJECT_HOST)
			input.host = &list->items[i]->host;
	r = networks_assign(networks, list, &diag);
	if (r == 0)
		r = compiler_compile(compiler, &input, &delta, &needed, &diag);
	check(r == 0 || r == -ENOSPC || (r == -E2BIG && diag.text));
	diag_clear(&diag);
	if (r < 0)
		return;
	look_up(maps, delta);
	networks_commit(networks);
	compiler_commit(compiler);
	compiler_settle(compiler);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct compiler_limits limits = {NODES, NODES, CLASSES, NODES, 1024, TABLES};
	static struct maps maps;
	const uint8_t *split = memchr(data, 0, size);
	size_t first = split ? (size_t)(split - data) : size;
	struct object_list lists[2] = {{0}};
	struct networks *networks;
	struct compiler *compiler;
	struct diag diag = {0};

	if (size > 16384)
		return 0;
	memset(&maps, 0, sizeof(maps));
	check(compiler_new(&limits, 1, &compiler) == 0);
	check(networks_new(&networks) == 0);
	if (decode_documents("a", (const char *)data, first, &lists[0], &diag) == 0 && model_validate(&lists[0], &diag) == 0)
		compile(compiler, networks, &maps, &lists[0]);
	if (split && decode_documents("b", (const char *)split + 1, size - first - 1, &lists[1], &diag) == 0 &&
		model_validate(&lists[1], &diag) == 0)
		compile(compiler, networks, &maps, &lists[1]);
	compiler_free(compiler);
	networks_free(networks);
	object_list_clear(&lists[0]);
	object_list_clear(&lists[1]);
	diag_clear(&diag);
	return 0;
}
