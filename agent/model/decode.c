// SPDX-License-Identifier: Apache-2.0
/* Documents: which kind each is, its metadata, and the lists that kubectl writes. */
#include <model/decode.h>

#include <errno.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include <model/content.h>
#include <model/kinds.h>

#define TRIM_FROM ((size_t)256 << 10) /* bytes of input from which freed memory is given back to the kernel */

static bool value_anything(struct decoder *d, const struct path *path, node_id node, const void *type, void *out)
{
	(void)d, (void)path, (void)node, (void)type, (void)out;
	return true;
}

/* A Namespace is name and labels; a cluster writes finalizers into its spec. */
static const struct field namespace_fields[] = {
	{"finalizers", value_anything, NULL, 0, false},
};
static const struct schema namespace_spec_schema = {
	.what = "a mapping",
	SCHEMA_FIELDS(namespace_fields),
	.null_is_absent = true,
};

static const struct kind {
	const struct schema *spec;
	bool kubernetes, spec_optional;
} kinds[OBJECT_KIND_COUNT] = {
	[OBJECT_HOST] = {&host_spec_schema, false, false},
	[OBJECT_NETWORK] = {&network_spec_schema, false, false},
	[OBJECT_PORT] = {&port_spec_schema, false, false},
	[OBJECT_PEER] = {&peer_spec_schema, false, false},
	[OBJECT_NAMESPACE] = {&namespace_spec_schema, true, true},
	[OBJECT_ADDRESS_GROUP] = {&group_spec_schema, false, false},
	[OBJECT_HOST_POLICY] = {&policy_spec_schema, false, false},
	[OBJECT_NETWORK_POLICY] = {&network_policy_spec_schema, true, false},
	[OBJECT_ADMIN_NETWORK_POLICY] = {&admin_policy_spec_schema, true, false},
	[OBJECT_BASELINE_ADMIN_NETWORK_POLICY] = {&baseline_policy_spec_schema, true, false},
	[OBJECT_CLUSTER_NETWORK_POLICY] = {&cluster_policy_spec_schema, true, false},
	[OBJECT_FAST_PATH] = {&fast_path_spec_schema, false, false},
};

bool kind_is_kubernetes(enum object_kind kind)
{
	return kinds[kind].kubernetes;
}

/* --- one object --- */

static bool value_constant(struct decoder *d, const struct path *path, node_id node, const void *type, void *out)
{
	(void)out;
	if (!node || !tree_is_scalar(d->tree, node) || strcmp(tree_text(d->tree, node), type) != 0)
		return want(d, path, node, "%s", (const char *)type);
	return true;
}

static bool decode_spec(struct decoder *d, const struct path *path, node_id node, enum object_kind kind, struct object *object)
{
	static const char *const status[] = {"status", NULL};
	const struct kind *row = &kinds[kind];
	const struct field fields[] = {
		{"apiVersion", value_constant, object_kind_version(kind), 0, true},
		{"kind", value_anything, NULL, 0, true},
		{"metadata", value_metadata, &kind, 0, true},
		{"spec", value_mapping, row->spec, offsetof(struct object, host), !row->spec_optional},
	};
	const struct schema schema = {
		.what = "an object",
		SCHEMA_FIELDS(fields),
		.draft_size = sizeof(struct object),
		.null_is_absent = row->kubernetes,
		.ignored = row->kubernetes ? status : NULL,
	};

	return value_mapping(d, path, node, &schema, object);
}

static bool decode_object(
	struct decoder *d, const struct path *path, node_id node, enum object_kind kind, struct object_list *list)
{
	_cleanup_arena_ struct arena *arena = arena_new(), *rules_arena = kind == OBJECT_HOST_POLICY ? arena_new() : NULL;
	struct object *object = arena ? arena_array(arena, struct object, 1) : NULL;
	bool good;

	if (!object || (kind == OBJECT_HOST_POLICY && !rules_arena))
		return decoder_no_memory(d);
	d->arena = d->object_arena = arena;
	d->rules_arena = rules_arena;
	good = decode_spec(d, path, node, kind, object);
	decoder_clear(d);
	d->arena = d->object_arena = d->rules_arena = NULL;
	if (!good)
		return false;
	object->refs = 1;
	object->kind = kind;
	object->line = tree_node(d->tree, node)->line;
	if (d->file) {
		object->file = arena_string(arena, d->file, strlen(d->file));
		if (!object->file)
			return decoder_no_memory(d);
	}
	if (kinds[kind].kubernetes && kind != OBJECT_NAMESPACE)
		object->workload.audit = metadata_audit(object);
	object->rules_arena = TAKE_PTR(rules_arena);
	object->hash = content_hash(object);
	object->arena = TAKE_PTR(arena);
	good = object_list_add(list, object) == 0;
	object_unref(object);
	return good ? true : decoder_no_memory(d);
}

/* --- documents --- */

static bool decode_document(struct decoder *d, const struct path *path, node_id node, bool in_list, struct object_list *list);

static bool decode_items(struct decoder *d, const struct path *path, node_id node, struct object_list *list)
{
	struct path item = {.up = path};
	bool good = true;

	if (tree_node(d->tree, node)->type != NODE_LIST)
		return want(d, path, node, "a list of objects");
	for (node_id child = tree_first(d->tree, node); child && !d->no_memory; child = tree_next(d->tree, child), item.index++)
		good &= decode_document(d, &item, child, true, list);
	return good;
}

/* `kind: List`, and what `heddle get -o json` prints: {"items": [...]}. */
static bool decode_list(struct decoder *d, const struct path *path, node_id node, struct object_list *list)
{
	static const struct field fields[] = {
		{"apiVersion", value_constant, "v1", 0, false},
		{"kind", value_constant, "List", 0, false},
		{"metadata", value_anything, NULL, 0, false},
		{"items", value_anything, NULL, 0, true},
	};
	static const struct schema schema = {.what = "a list", SCHEMA_FIELDS(fields), .draft_size = 0};
	struct path items = {.up = path, .key = "items"};
	char nothing;

	return value_mapping(d, path, node, &schema, &nothing) && decode_items(d, &items, node_field(d, node, "items"), list);
}

static bool decode_document(struct decoder *d, const struct path *path, node_id node, bool in_list, struct object_list *list)
{
	struct path kind_path = {.up = path, .key = "kind"};
	_cleanup_buffer_ struct buffer names = {0};
	node_id kind = node_field(d, node, "kind");

	if (tree_node(d->tree, node)->type != NODE_MAP)
		return want(d, path, node, "a mapping with apiVersion, kind, metadata and spec");
	if (!in_list && ((kind && tree_is_scalar(d->tree, kind) && strcmp(tree_text(d->tree, kind), "List") == 0) ||
				(!kind && node_field(d, node, "items"))))
		return decode_list(d, path, node, list);
	for (int i = 0; i < OBJECT_KIND_COUNT; i++)
		if (kind && tree_is_scalar(d->tree, kind) &&
			strcmp(tree_text(d->tree, kind), object_kind_name((enum object_kind)i)) == 0)
			return decode_object(d, path, node, (enum object_kind)i, list);
	for (int i = 0; i < OBJECT_KIND_COUNT; i++)
		buffer_printf(&names, "%s%s",
			i == 0			    ? ""
			: i + 1 < OBJECT_KIND_COUNT ? ", "
						    : " or ",
			object_kind_name((enum object_kind)i));
	d->line = tree_node(d->tree, node)->line;
	return names.failed ? decoder_no_memory(d) : want(d, &kind_path, kind, "%s", names.data);
}

static int refuse_duplicates(struct decoder *d, const struct object_list *list)
{
	struct object_list sorted = {.n = list->n};
	char title[OBJECT_TITLE_MAX];

	if (list->n < 2)
		return 0;
	sorted.items = malloc(list->n * sizeof(struct object *));
	if (!sorted.items)
		return -ENOMEM;
	memcpy(sorted.items, list->items, list->n * sizeof(struct object *));
	object_list_sort(&sorted);
	for (size_t i = 1; i < sorted.n; i++) {
		const struct object *a = sorted.items[i - 1], *b = sorted.items[i];

		if (object_compare(a, b) != 0)
			continue;
		diag_add(d->diag, d->file, a->line > b->line ? a->line : b->line, NULL,
			"want each object once, got %s again (first in line %u)",
			object_title(a->kind, a->namespace_, a->name, title), a->line < b->line ? a->line : b->line);
	}
	free(sorted.items);
	return 0;
}

int decode_documents(const char *file, const char *text, size_t length, struct object_list *list, struct diag *diag)
{
	struct tree_parser *parser;
	struct tree tree = {0};
	struct decoder d = {.file = file, .diag = diag, .tree = &tree};
	_cleanup_object_list_ struct object_list decoded = {0};
	unsigned errors = diag->errors;
	int r;

	if (length > DECODE_BYTES_MAX) {
		diag_add(diag, file, 0, NULL, "want at most %zu bytes, got %zu", DECODE_BYTES_MAX, length);
		return -EINVAL;
	}
	r = tree_parser_new(file, text, length, diag, &parser);
	if (r < 0)
		return r;
	while ((r = tree_parser_next(parser, &tree)) > 0 && !d.no_memory)
		if (tree.root)
			decode_document(&d, NULL, tree.root, false, &decoded);
	tree_parser_free(parser);
	tree_clear(&tree);
	if (r == 0 || r == -EINVAL) {
		int r2 = refuse_duplicates(&d, &decoded);
		r = r2 < 0 ? r2 : r;
	}
	if (d.no_memory)
		r = -ENOMEM;
	if (r == 0 && diag->errors != errors)
		r = -EINVAL;

	size_t before = list->n;
	for (size_t i = 0; i < decoded.n && r == 0; i++)
		r = object_list_add(list, decoded.items[i]);
	while (r < 0 && list->n > before)
		object_unref(list->items[--list->n]);
	if (length >= TRIM_FROM)
		malloc_trim(0);
	return r;
}
