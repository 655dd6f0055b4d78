// SPDX-License-Identifier: Apache-2.0
#include <model/schema.h>

#include <ctype.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <util/duration.h>
#include <util/hash.h>

/* --- mistakes --- */

static void write_path(const struct path *path, struct buffer *text)
{
	if (!path)
		return;
	write_path(path->up, text);
	if (!path->key)
		buffer_printf(text, "[%u]", path->index);
	else
		buffer_printf(text, "%s%.100s", text->length ? "." : "", path->key);
}

/* What stands there, short enough for a line. */
static void describe(const struct decoder *d, node_id id, struct buffer *text)
{
	const struct node *node = tree_node(d->tree, id);

	if (id == NODE_NONE || tree_is_null(d->tree, id)) {
		buffer_add_string(text, "nothing");
	} else if (node->type == NODE_MAP) {
		buffer_add_string(text, "a mapping");
	} else if (node->type == NODE_LIST) {
		buffer_add_string(text, node->count ? "a list" : "an empty list");
	} else {
		const char *at = tree_text(d->tree, id), *quote = node->type == NODE_QUOTED ? "\"" : "";
		size_t length = node->count, shown = length <= 60 ? length : 57;

		while (shown < length && shown && ((unsigned char)at[shown] & 0xc0) == 0x80)
			shown--; /* not in the middle of a character */
		buffer_add_string(text, quote);
		for (size_t i = 0; i < shown; i++)
			buffer_add_char(text, iscntrl((unsigned char)at[i]) ? '?' : at[i]);
		buffer_printf(text, "%s%s", shown < length ? "..." : "", quote);
	}
}

bool want(struct decoder *d, const struct path *path, node_id node, const char *format, ...)
{
	_cleanup_buffer_ struct buffer where = {0}, wanted = {0}, got = {0};
	uint32_t line = node ? tree_node(d->tree, node)->line : d->line;
	va_list args;

	write_path(path, &where);
	va_start(args, format);
	buffer_vprintf(&wanted, format, args);
	va_end(args);
	describe(d, node, &got);
	if (where.failed || wanted.failed || got.failed)
		return decoder_no_memory(d);
	diag_add(d->diag, d->file, line, where.data, "want %s, got %s", wanted.data, got.data);
	return false;
}

bool mistake(struct decoder *d, const struct path *path, uint32_t line, const char *format, ...)
{
	_cleanup_buffer_ struct buffer where = {0}, message = {0};
	va_list args;

	write_path(path, &where);
	va_start(args, format);
	buffer_vprintf(&message, format, args);
	va_end(args);
	if (where.failed || message.failed)
		return decoder_no_memory(d);
	diag_add(d->diag, d->file, line, where.data, "%s", message.data);
	return false;
}

bool decoder_no_memory(struct decoder *d)
{
	d->no_memory = true;
	return false;
}

/* --- sharing --- */

struct interned {
	const void *data;
	uint32_t hash, size;
};

static bool grow_interned(struct decoder *d)
{
	uint32_t size = d->interned_size ? d->interned_size * 2 : 64;
	struct interned *table = calloc(size, sizeof(*table));

	if (!table)
		return false;
	for (uint32_t i = 0; i < d->interned_size; i++) {
		if (!d->interned[i].data)
			continue;
		uint32_t at = d->interned[i].hash & (size - 1);
		while (table[at].data)
			at = (at + 1) & (size - 1);
		table[at] = d->interned[i];
	}
	free(d->interned);
	d->interned = table;
	d->interned_size = size;
	return true;
}

const void *decoder_intern(struct decoder *d, const void *data, size_t size, size_t align)
{
	uint32_t hash = (uint32_t)hash_bytes(align, data, size), at;

	if (d->n_interned >= d->interned_size / 4 * 3 && !grow_interned(d)) {
		decoder_no_memory(d);
		return NULL;
	}
	for (at = hash & (d->interned_size - 1); d->interned[at].data; at = (at + 1) & (d->interned_size - 1)) {
		const struct interned *there = &d->interned[at];

		if (there->hash == hash && there->size == size && (uintptr_t)there->data % align == 0 &&
			memcmp(there->data, data, size) == 0)
			return there->data;
	}
	const void *copy = arena_copy(d->arena, data, size, align);
	if (!copy) {
		decoder_no_memory(d);
		return NULL;
	}
	d->interned[at] = (struct interned){.data = copy, .hash = hash, .size = (uint32_t)size};
	d->n_interned++;
	return copy;
}

void decoder_clear(struct decoder *d)
{
	free(d->interned);
	d->interned = NULL;
	d->n_interned = d->interned_size = 0;
}

node_id node_field(const struct decoder *d, node_id mapping, const char *name)
{
	for (node_id key = tree_first(d->tree, mapping), value; key; key = tree_next(d->tree, value)) {
		value = tree_next(d->tree, key);
		if (tree_is_scalar(d->tree, key) && strcmp(tree_text(d->tree, key), name) == 0)
			return value;
	}
	return NODE_NONE;
}

/* --- scalars --- */

bool node_number(const struct decoder *d, node_id node, uint64_t *ret)
{
	uint64_t value = 0;
	const char *text;
	size_t n;

	if (!node || tree_node(d->tree, node)->type != NODE_PLAIN)
		return false;
	text = tree_text(d->tree, node);
	n = strlen(text);
	/* "010" is eight to YAML 1.1 and ten to people: refused. */
	if (n == 0 || n > 19 || strspn(text, "0123456789") != n || (text[0] == '0' && n > 1))
		return false;
	for (size_t i = 0; i < n; i++)
		value = value * 10 + (uint64_t)(text[i] - '0');
	*ret = value;
	return true;
}

/* YAML 1.1 and JSON numbers, roughly: enough that nobody's number is silently taken for text. */
static bool looks_like_number(const char *text)
{
	char *end;

	if (!isdigit((unsigned char)*text) && !strchr("+-.", *text))
		return false;
	strtod(text, &end);
	return end != text && !*end;
}

bool node_is_text(const struct decoder *d, node_id node)
{
	static const char *const words[] = {"true", "false", "True", "False", "TRUE", "FALSE"};
	const char *text;

	if (!node || !tree_is_scalar(d->tree, node))
		return false;
	if (tree_node(d->tree, node)->type == NODE_QUOTED)
		return true;
	text = tree_text(d->tree, node);
	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		if (strcmp(text, words[i]) == 0)
			return false;
	return !tree_is_null(d->tree, node) && !looks_like_number(text);
}

bool value_bool(struct decoder *d, const struct path *path, node_id node, const void *type, void *out)
{
	const char *text = node && tree_node(d->tree, node)->type == NODE_PLAIN ? tree_text(d->tree, node) : "";

	(void)type;
	if (strcmp(text, "true") == 0)
		*(bool *)out = true;
	else if (strcmp(text, "false") == 0)
		*(bool *)out = false;
	else
		return want(d, path, node, "true or false");
	return true;
}

bool value_uint(struct decoder *d, const struct path *path, node_id node, const void *type, void *out)
{
	const struct range *range = type;
	uint64_t value;

	if (!node_number(d, node, &value) || value < range->min || value > range->max)
		return want(d, path, node, "%llu..%llu%s", (unsigned long long)range->min, (unsigned long long)range->max,
			range->unit);
	switch (range->size) {
	case 1:
		*(uint8_t *)out = (uint8_t)value;
		break;
	case 2:
		*(uint16_t *)out = (uint16_t)value;
		break;
	case 4:
		*(uint32_t *)out = (uint32_t)value;
		break;
	default:
		*(uint64_t *)out = value;
	}
	return true;
}

bool value_choice(struct decoder *d, const struct path *path, node_id node, const void *type, void *out)
{
	const struct choice *choice = type;
	_cleanup_buffer_ struct buffer names = {0};

	if (node && tree_is_scalar(d->tree, node)) {
		for (int i = 0; choice->names[i]; i++) {
			if (strcmp(tree_text(d->tree, node), choice->names[i]) == 0) {
				*(int *)out = i;
				return true;
			}
		}
	}
	for (int i = 0; choice->names[i]; i++)
		buffer_printf(&names, "%s%s", i == 0 ? "" : choice->names[i + 1] ? ", " : " or ", choice->names[i]);
	return names.failed ? decoder_no_memory(d) : want(d, path, node, "%s", names.data);
}

bool value_duration(struct decoder *d, const struct path *path, node_id node, const void *type, void *out)
{
	const struct range *range = type;
	char min[DURATION_TEXT_MAX], max[DURATION_TEXT_MAX];
	uint64_t ms;

	if (!node || !tree_is_scalar(d->tree, node) || duration_parse(tree_text(d->tree, node), &ms) < 0 || ms < range->min ||
		ms > range->max)
		return want(d, path, node, "a duration such as 90s or 1h30m, %s..%s", duration_format(range->min, min),
			duration_format(range->max, max));
	*(uint32_t *)out = (uint32_t)ms;
	return true;
}

bool value_text(struct decoder *d, const struct path *path, node_id node, const void *type, void *out)
{
	const struct text_type *text_type = type;
	const struct node *scalar = tree_node(d->tree, node);
	char *copy;

	if (node && tree_is_scalar(d->tree, node) && !tree_is_null(d->tree, node) && !node_is_text(d, node))
		return want(d, path, node, "text (in quotes, if this is meant)");
	if (!node_is_text(d, node) || !text_type->valid(tree_text(d->tree, node), scalar->count))
		return want(d, path, node, "%s", text_type->what);
	copy = arena_string(d->arena, tree_text(d->tree, node), scalar->count);
	if (!copy)
		return decoder_no_memory(d);
	*(const char **)out = copy;
	return true;
}

/* --- lists and mappings --- */

bool value_list(struct decoder *d, const struct path *path, node_id node, const void *type, void *out)
{
	const struct list_type *list = type;
	_Alignas(16) char local[512];
	struct path item_path = {.up = path};
	bool good = true;
	char *items;

	if (!node || tree_node(d->tree, node)->type != NODE_LIST)
		return want(d, path, node, "a list of %s", list->what);
	size_t n = tree_node(d->tree, node)->count;
	if (n == 0 && !list->may_be_empty)
		return want(
			d, path, node, "at least one of %s%s", list->what, list->required ? "" : ", or no such field for any");
	if (n > list->most)
		return mistake(d, path, tree_node(d->tree, node)->line, "want at most %u %s, got %zu", list->most, list->what, n);
	if (n == 0) {
		*(struct list *)out = (struct list){0};
		return true;
	}

	bool shared = list->shared && n <= sizeof(local) / list->item_size;
	if (shared)
		items = memset(local, 0, n * list->item_size);
	else
		items = arena_alloc(d->arena, n * list->item_size, 8);
	if (!items)
		return decoder_no_memory(d);
	node_id child = tree_first(d->tree, node);
	for (size_t i = 0; i < n && !d->no_memory; i++, child = tree_next(d->tree, child)) {
		item_path.index = (uint32_t)i;
		good &= list->item(d, &item_path, child, list->item_type, items + i * list->item_size);
	}
	if (!good)
		return false;
	if (shared) {
		/* A list of structs with pointers needs their alignment, one of port ranges wastes 6 bytes with it. */
		size_t align = list->item_size % 8 == 0 ? 8 : list->item_size % 4 == 0 ? 4 : list->item_size % 2 == 0 ? 2 : 1;
		items = (char *)decoder_intern(d, items, n * list->item_size, align);
		if (!items)
			return false;
	}
	*(struct list *)out = (struct list){.items = items, .n = n};
	return true;
}

static void write_field_names(const struct schema *schema, struct buffer *text)
{
	for (unsigned i = 0; i < schema->n_fields; i++)
		buffer_printf(text, "%s%s", i == 0 ? "" : i + 1 < schema->n_fields ? ", " : " or ", schema->fields[i].name);
}

static bool is_ignored(const struct schema *schema, const char *name)
{
	for (const char *const *at = schema->ignored; at && *at; at++)
		if (strcmp(*at, name) == 0)
			return true;
	return false;
}

bool value_mapping(struct decoder *d, const struct path *path, node_id node, const void *type, void *out)
{
	const struct schema *schema = type;
	_Alignas(16) char draft[SCHEMA_DRAFT_MAX];
	uint32_t seen[32] = {0}; /* lines */
	struct path field_path = {.up = path};
	bool good = true;
	char *base = schema->finish ? draft : out;

	if (!node || tree_node(d->tree, node)->type != NODE_MAP)
		return want(d, path, node, "%s", schema->what);
	if (schema->defaults)
		memcpy(base, schema->defaults, schema->draft_size);
	else
		memset(base, 0, schema->draft_size);

	for (node_id key = tree_first(d->tree, node), value; key && !d->no_memory; key = tree_next(d->tree, value)) {
		uint32_t line = tree_node(d->tree, key)->line;
		unsigned i = 0;

		value = tree_next(d->tree, key);
		if (!tree_is_scalar(d->tree, key)) {
			good = want(d, path, key, "the name of a field");
			continue;
		}
		field_path.key = tree_text(d->tree, key);
		while (i < schema->n_fields && strcmp(schema->fields[i].name, field_path.key) != 0)
			i++;
		if (i == schema->n_fields && is_ignored(schema, field_path.key))
			continue;
		if (i == schema->n_fields) {
			_cleanup_buffer_ struct buffer names = {0};

			write_field_names(schema, &names);
			good = mistake(d, &field_path, line, "want one of the fields %s, got an unknown one",
				names.failed ? "" : names.data);
			continue;
		}
		if (seen[i]) {
			good = mistake(d, &field_path, line, "want each field once, got it again (first in line %u)", seen[i]);
			continue;
		}
		if (schema->null_is_absent && tree_is_null(d->tree, value))
			continue;
		seen[i] = line;
		field_path.key = schema->fields[i].name;
		good &= schema->fields[i].decode(d, &field_path, value, schema->fields[i].type, base + schema->fields[i].offset);
	}
	for (unsigned i = 0; i < schema->n_fields; i++) {
		if (!schema->fields[i].required || seen[i])
			continue;
		field_path.key = schema->fields[i].name;
		d->line = tree_node(d->tree, node)->line;
		good &= schema->fields[i].decode(
			d, &field_path, NODE_NONE, schema->fields[i].type, base + schema->fields[i].offset);
	}
	if (!good || d->no_memory)
		return false;
	return schema->finish ? schema->finish(d, path, node, draft, out) : true;
}
