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
#define ROWS 1024u

struct maps {
	struct hd_addr_node addr_nodes[NODES];
	struct hd_rule_node rule_nodes[NODES];
	struct class_row_write rows[ROWS];
	size_t n_rows;
};

static void check(bool good)
{
	if (!good)
		abort();
}

static const struct hd_class_rules *find_row(void *userdata, struct hd_class_key key)
{
	const struct maps *maps = userdata;

	for (size_t i = maps->n_rows; i-- > 0;)
		if (maps->rows[i].key.set == key.set && maps->rows[i].key.class_id == key.class_id)
			return &maps->rows[i].value;
	return NULL;
}

static void look_up(struct maps *maps, const struct policy_delta *delta)
{
	struct lookup_tables tables = {.addr_nodes = maps->addr_nodes,
		.rule_nodes = maps->rule_nodes,
		.n_addr_nodes = NODES,
		.n_rule_nodes = NODES,
		.row = find_row,
		.userdata = maps};

	for (size_t i = 0; i < delta->n_addr_nodes; i++)
		maps->addr_nodes[delta->addr_nodes[i].id] = delta->addr_nodes[i].node;
	for (size_t i = 0; i < delta->n_rule_nodes; i++)
		maps->rule_nodes[delta->rule_nodes[i].id] = delta->rule_nodes[i].node;
	for (size_t i = 0; i < delta->n_rows && maps->n_rows < ROWS; i++)
		maps->rows[maps->n_rows++] = delta->rows[i];
	for (size_t u = 0; u < delta->n_uplinks; u++)
		for (size_t i = 0; i < delta->n_addr_nodes * HD_ADDR_FANOUT; i++) {
			uint64_t key = delta->addr_nodes[i / HD_ADDR_FANOUT].node.key[i % HD_ADDR_FANOUT] - (i & 1);
			struct lookup_packet packet = {
				.ip = true, .kind = (uint8_t)(i % HD_L4_ETHERTYPE), .number = (uint16_t)(key >> 17)};
			struct lookup_result result;

			packet.peer.q[0] = __builtin_bswap64(key);
			if (i % 3 == 0) {
				packet.peer.q[0] = 0;
				packet.peer.w[2] = __builtin_bswap32(0xffff);
				packet.peer.w[3] = __builtin_bswap32((uint32_t)(key >> 32));
			}
			check(lookup_packet(&tables, delta->generation, &delta->roots, &delta->uplinks[u].policy, (enum hd_direction)(i / 2 % 2),
				      &packet, &result) == 0);
			check((result.leaf >> HD_LEAF_VERDICT_SHIFT & 3) != HD_DROP);
		}
}

static void compile(struct compiler *compiler, struct maps *maps, const struct object_list *list)
{
	static struct uplink uplinks[] = {{.device = "eth0"}, {.device = "eth1"}};
	static struct host host = {.uplinks = uplinks, .n_uplinks = 2};
	struct policy_input input = {.host = &host, .objects = list};
	struct compiler_limits needed;
	struct policy_delta *delta;
	struct diag diag = {0};
	int r;

	for (size_t i = 0; i < list->n; i++)
		if (list->items[i]->kind == OBJECT_HOST)
			input.host = &list->items[i]->host;
	r = compiler_compile(compiler, &input, &delta, &needed, &diag);
	check(r == 0 || r == -ENOSPC || (r == -E2BIG && diag.text));
	diag_clear(&diag);
	if (r < 0)
		return;
	look_up(maps, delta);
	compiler_commit(compiler);
	compiler_settle(compiler);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct compiler_limits limits = {NODES, NODES, ROWS / 2, 1024};
	static struct maps maps;
	const uint8_t *split = memchr(data, 0, size);
	size_t first = split ? (size_t)(split - data) : size;
	struct object_list lists[2] = {{0}};
	struct compiler *compiler;
	struct diag diag = {0};

	if (size > 16384)
		return 0;
	memset(&maps, 0, sizeof(maps));
	check(compiler_new(&limits, 1, &compiler) == 0);
	if (decode_documents("a", (const char *)data, first, &lists[0], &diag) == 0 && model_validate(&lists[0], &diag) == 0)
		compile(compiler, &maps, &lists[0]);
	if (split && decode_documents("b", (const char *)split + 1, size - first - 1, &lists[1], &diag) == 0 &&
		model_validate(&lists[1], &diag) == 0)
		compile(compiler, &maps, &lists[1]);
	compiler_free(compiler);
	object_list_clear(&lists[0]);
	object_list_clear(&lists[1]);
	diag_clear(&diag);
	return 0;
}
