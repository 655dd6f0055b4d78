// SPDX-License-Identifier: Apache-2.0
#include <model/object.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <util/arena.h>

#define OBJECT_KIND_ROW(sym, name_, version_, namespaced_) \
	[OBJECT_##sym] = {.name = name_, .version = version_, .namespaced = namespaced_},
static const struct {
	const char *name, *version;
	bool namespaced;
} kinds[OBJECT_KIND_COUNT] = {OBJECT_KINDS(OBJECT_KIND_ROW)};

/* What kubectl and the documents' CRDs call them. */
static const struct {
	const char *name;
	enum object_kind kind;
} short_names[] = {
	{"ns", OBJECT_NAMESPACE},
	{"netpol", OBJECT_NETWORK_POLICY},
	{"anp", OBJECT_ADMIN_NETWORK_POLICY},
	{"banp", OBJECT_BASELINE_ADMIN_NETWORK_POLICY},
	{"cnp", OBJECT_CLUSTER_NETWORK_POLICY},
};

const char *object_kind_name(enum object_kind kind)
{
	return kinds[kind].name;
}

const char *object_kind_version(enum object_kind kind)
{
	return kinds[kind].version;
}

bool object_kind_namespaced(enum object_kind kind)
{
	return kinds[kind].namespaced;
}

const char *object_kind_namespace(enum object_kind kind, const char *namespace_)
{
	if (!kinds[kind].namespaced)
		return NULL;
	return namespace_ ? namespace_ : OBJECT_NAMESPACE_DEFAULT;
}

int object_kind_from_name(const char *name)
{
	size_t n = strlen(name);

	for (int kind = 0; kind < OBJECT_KIND_COUNT; kind++) {
		const char *is = kinds[kind].name;
		size_t length = strlen(is);

		if (strcasecmp(name, is) == 0)
			return kind;
		/* Plurals: Hosts, AddressGroups, HostPolicies. */
		if (n == length + 1 && strncasecmp(name, is, length) == 0 && (name[length] == 's' || name[length] == 'S'))
			return kind;
		if (is[length - 1] == 'y' && n == length + 2 && strncasecmp(name, is, length - 1) == 0 &&
			strcasecmp(name + length - 1, "ies") == 0)
			return kind;
	}
	for (size_t i = 0; i < sizeof(short_names) / sizeof(short_names[0]); i++)
		if (strcasecmp(name, short_names[i].name) == 0)
			return (int)short_names[i].kind;
	return -1;
}

char *object_title(enum object_kind kind, const char *namespace_, const char *name, char text[OBJECT_TITLE_MAX])
{
	snprintf(text, OBJECT_TITLE_MAX, "%s %s%s%s", object_kind_name(kind), namespace_ ? namespace_ : "", namespace_ ? "/" : "",
		name);
	return text;
}

static int compare_keys(enum object_kind kind_a, const char *namespace_a, const char *name_a, enum object_kind kind_b,
	const char *namespace_b, const char *name_b)
{
	int r = (kind_a > kind_b) - (kind_a < kind_b);

	if (r == 0)
		r = strcmp(namespace_a ? namespace_a : "", namespace_b ? namespace_b : "");
	if (r == 0)
		r = strcmp(name_a, name_b);
	return (r > 0) - (r < 0);
}

int object_compare(const struct object *a, const struct object *b)
{
	return compare_keys(a->kind, a->namespace_, a->name, b->kind, b->namespace_, b->name);
}

bool object_equal(const struct object *a, const struct object *b)
{
	return a == b || (object_compare(a, b) == 0 && a->hash == b->hash);
}

struct object *object_ref(struct object *object)
{
	object->refs++;
	return object;
}

void object_unref(struct object *object)
{
	/* The object lies in its own arena. */
	if (!object || --object->refs)
		return;
	arena_free(object->rules_arena);
	free(object->packed);
	arena_free(object->arena);
}

void object_list_clear(struct object_list *list)
{
	for (size_t i = 0; i < list->n; i++)
		object_unref(list->items[i]);
	free(list->items);
	*list = (struct object_list){0};
}

int object_list_add(struct object_list *list, struct object *object)
{
	/* Doubled when n is a power of two: no field for the size is needed. */
	if ((list->n & (list->n - 1)) == 0) {
		size_t size = list->n ? list->n * 2 : 1;
		struct object **items = realloc(list->items, size * sizeof(struct object *));
		if (!items)
			return -ENOMEM;
		list->items = items;
	}
	list->items[list->n++] = object_ref(object);
	return 0;
}

static int compare_items(const void *a, const void *b)
{
	return object_compare(*(struct object *const *)a, *(struct object *const *)b);
}

void object_list_sort(struct object_list *list)
{
	if (list->n)
		qsort(list->items, list->n, sizeof(struct object *), compare_items);
}

struct object *object_list_find(const struct object_list *list, enum object_kind kind, const char *namespace_, const char *name)
{
	size_t low = 0, high = list->n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		const struct object *at = list->items[middle];
		int r = compare_keys(kind, namespace_, name, at->kind, at->namespace_, at->name);

		if (r == 0)
			return list->items[middle];
		if (r < 0)
			high = middle;
		else
			low = middle + 1;
	}
	return NULL;
}
