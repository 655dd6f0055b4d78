// SPDX-License-Identifier: Apache-2.0
/* Label selectors: read into one sorted list of requirements, so that two that say the same are the same. */
#include <model/kinds.h>

#include <stdlib.h>
#include <string.h>

/* --- matching --- */

static const struct label *find_label(const struct label *labels, size_t n, const char *key)
{
	size_t low = 0;

	while (low < n) {
		size_t middle = low + (n - low) / 2;
		int r = strcmp(key, labels[middle].key);

		if (r == 0)
			return &labels[middle];
		if (r < 0)
			n = middle;
		else
			low = middle + 1;
	}
	return NULL;
}

static bool requirement_holds(const struct requirement *requirement, const struct label *label)
{
	bool listed = false;

	for (uint32_t i = 0; label && i < requirement->n_values && !listed; i++)
		listed = strcmp(requirement->values[i], label->value) == 0;
	switch (requirement->operator) {
	case SELECTOR_IN:
		return listed;
	case SELECTOR_NOT_IN: /* no such label is not one of the values either */
		return !listed;
	case SELECTOR_EXISTS:
		return label != NULL;
	case SELECTOR_DOES_NOT_EXIST:
		return label == NULL;
	}
	return false;
}

bool selector_matches(const struct selector *selector, const struct label *labels, size_t n_labels)
{
	for (size_t i = 0; i < selector->n; i++) {
		const struct requirement *requirement = &selector->items[i];

		if (!requirement_holds(requirement, find_label(labels, n_labels, requirement->key)))
			return false;
	}
	return true;
}

/* --- reading --- */

static int compare_texts(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int compare_requirements(const void *a, const void *b)
{
	const struct requirement *x = a, *y = b;
	int r = strcmp(x->key, y->key);

	if (r == 0)
		r = (x->operator> y->operator) - (x->operator<y->operator);
	for (uint32_t i = 0; r == 0 && i < x->n_values && i < y->n_values; i++)
		r = strcmp(x->values[i], y->values[i]);
	return r ? r : (x->n_values > y->n_values) - (x->n_values < y->n_values);
}

static bool value_label_value(struct decoder *d, const struct path *path, node_id node, const void *type, void *out)
{
	(void)type;
	return value_text(d, path, node, &label_value_text, out);
}

struct expression_draft {
	const char *key;
	int operator;
	struct list values;
};

static bool finish_expression(struct decoder *d, const struct path *path, node_id node, const void *draft, void *out)
{
	const struct expression_draft *from = draft;
	struct path values = {.up = path, .key = "values"};
	bool takes_values = from->operator== SELECTOR_IN || from->operator== SELECTOR_NOT_IN;
	const char **texts = from->values.items;
	uint32_t n = 0;

	d->line = tree_node(d->tree, node)->line;
	if (takes_values && from->values.n == 0)
		return want(d, &values, node_field(d, node, "values"), "values for In and NotIn");
	if (!takes_values && from->values.n)
		return want(d, &values, node_field(d, node, "values"), "no values for Exists and DoesNotExist");
	if (from->values.n)
		qsort(texts, from->values.n, sizeof(*texts), compare_texts);
	for (size_t i = 0; i < from->values.n; i++)
		if (n == 0 || strcmp(texts[i], texts[n - 1]) != 0)
			texts[n++] = texts[i];
	*(struct requirement *)out = (struct requirement){
		.key = from->key, .values = texts, .n_values = n, .operator=(enum selector_operator) from->operator, };
	return true;
}

static const char *const operator_names[] = {[SELECTOR_IN] = "In",
	[SELECTOR_NOT_IN] = "NotIn",
	[SELECTOR_EXISTS] = "Exists",
	[SELECTOR_DOES_NOT_EXIST] = "DoesNotExist",
	NULL};
static const struct choice operator_choice = {operator_names};
static const struct list_type value_texts = {
	.what = "values",
	.item = value_label_value,
	.item_size = sizeof(char *),
	.may_be_empty = true,
	.most = 4096,
};
static const struct field expression_fields[] = {
	{"key", value_text, &label_key_text, offsetof(struct expression_draft, key), true},
	{"operator", value_choice, &operator_choice, offsetof(struct expression_draft, operator), true},
	{"values", value_list, &value_texts, offsetof(struct expression_draft, values), false},
};
static const struct schema expression_schema = {
	.what = "a mapping with key and operator",
	SCHEMA_FIELDS(expression_fields),
	.draft_size = sizeof(struct expression_draft),
	.finish = finish_expression,
	.null_is_absent = true,
};
static const struct list_type expression_list = {
	.what = "expressions",
	.item = value_mapping,
	.item_type = &expression_schema,
	.item_size = sizeof(struct requirement),
	.may_be_empty = true,
	.most = 4096,
};

struct selector_draft {
	struct list labels, expressions;
};

static bool finish_selector(struct decoder *d, const struct path *path, node_id node, const void *draft, void *out)
{
	const struct selector_draft *from = draft;
	const struct label *labels = from->labels.items;
	size_t n = from->labels.n + from->expressions.n, kept = 0;
	struct requirement *items = arena_array(d->arena, struct requirement, n);
	const char **values = arena_array(d->arena, const char *, from->labels.n);

	(void)path, (void)node;
	if (!items || !values)
		return decoder_no_memory(d);
	for (size_t i = 0; i < from->labels.n; i++) {
		values[i] = labels[i].value;
		items[i] =
			(struct requirement){.key = labels[i].key, .values = &values[i], .n_values = 1, .operator= SELECTOR_IN };
	}
	if (from->expressions.n)
		memcpy(items + from->labels.n, from->expressions.items, from->expressions.n * sizeof(*items));
	if (n)
		qsort(items, n, sizeof(*items), compare_requirements);
	for (size_t i = 0; i < n; i++)
		if (kept == 0 || compare_requirements(&items[i], &items[kept - 1]) != 0)
			items[kept++] = items[i];
	*(struct selector *)out = (struct selector){.items = items, .n = kept, .present = true};
	return true;
}

static const struct field selector_fields[] = {
	{"matchLabels", value_labels, NULL, offsetof(struct selector_draft, labels), false},
	{"matchExpressions", value_list, &expression_list, offsetof(struct selector_draft, expressions), false},
};
static const struct schema selector_schema = {
	.what = "a label selector",
	SCHEMA_FIELDS(selector_fields),
	.draft_size = sizeof(struct selector_draft),
	.finish = finish_selector,
	.null_is_absent = true,
};

bool value_selector(struct decoder *d, const struct path *path, node_id node, const void *type, void *out)
{
	(void)type;
	return value_mapping(d, path, node, &selector_schema, out);
}
