/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include <util/cleanup.h>

#include "changes.h"
#include "output.h"

#define PATH_MAX_LENGTH 512
#define VALUE_SHOWN 200 /* characters of one value; more is cut with an ellipsis */

struct changes {
	FILE *file;
	const char *indent;
	size_t lines;
};

static void compare(struct changes *changes, const char *path, const json_t *before, const json_t *after);

static void print_json(FILE *file, const json_t *value)
{
	_cleanup_free_ char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_SORT_KEYS);
	size_t length = text ? strlen(text) : 0;

	if (length > VALUE_SHOWN) {
		/* not in the middle of a character */
		for (length = VALUE_SHOWN; length && ((unsigned char)text[length] & 0xc0) == 0x80; length--)
			;
		fprintf(file, "%.*s ...", (int)length, text);
	} else {
		fputs(text ? text : "?", file);
	}
}

static void print_change(struct changes *changes, const char *path, const json_t *before, const json_t *after)
{
	changes->lines++;
	fprintf(changes->file, "%s%c %s: ", changes->indent, !before ? '+' : !after ? '-' : '~', path);
	if (before)
		print_json(changes->file, before);
	if (before && after)
		fputs(" -> ", changes->file);
	if (after)
		print_json(changes->file, after);
	fputc('\n', changes->file);
}

static void compare_objects(struct changes *changes, const char *path, const json_t *before, const json_t *after)
{
	char below[PATH_MAX_LENGTH];
	const json_t *value;
	const char *key;

	json_object_foreach ((json_t *)before, key, value) {
		snprintf(below, sizeof(below), "%s%s%s", path, *path ? "." : "", key);
		compare(changes, below, value, json_object_get(after, key));
	}
	json_object_foreach ((json_t *)after, key, value) {
		if (json_object_get(before, key))
			continue;
		snprintf(below, sizeof(below), "%s%s%s", path, *path ? "." : "", key);
		compare(changes, below, NULL, value);
	}
}

#define NAME_MAX_LENGTH 400

/* What a member is known by: its name, within a namespace where it says one. NULL: nothing. */
static const char *name_of(const json_t *item, char text[NAME_MAX_LENGTH])
{
	const char *name = string_at(item, "name"), *namespace_ = string_at(item, "namespace");

	if (!name || !namespace_)
		return name;
	snprintf(text, NAME_MAX_LENGTH, "%s/%s", namespace_, name);
	return text;
}

/* Every member an object with a name, and no name twice. */
static bool all_named(const json_t *list, json_t *by_name)
{
	char text[NAME_MAX_LENGTH];
	json_t *item;
	size_t i;

	json_array_foreach (list, i, item) {
		const char *name = name_of(item, text);

		if (!name || json_object_get(by_name, name) || json_object_set(by_name, name, item))
			return false;
	}
	return true;
}

static size_t place_of(const json_t *list, const json_t *wanted)
{
	for (size_t i = 0; i < json_array_size(list); i++)
		if (json_array_get(list, i) == wanted)
			return i;
	return 0;
}

static void compare_named(struct changes *changes, const char *path, const json_t *before, const json_t *after,
	json_t *before_names, json_t *after_names)
{
	char below[PATH_MAX_LENGTH], text[NAME_MAX_LENGTH], other[NAME_MAX_LENGTH];
	size_t kept_before = 0, kept_after = 0;
	const json_t *item;
	size_t i;

	json_array_foreach (before, i, item) {
		const char *name = name_of(item, text);

		snprintf(below, sizeof(below), "%s[%s]", path, name);
		compare(changes, below, item, json_object_get(after_names, name));
	}
	json_array_foreach (after, i, item) {
		const char *name = name_of(item, text);

		if (json_object_get(before_names, name))
			continue;
		snprintf(below, sizeof(below), "%s[%s]", path, name);
		compare(changes, below, NULL, item);
	}
	/* The order decides what matches first: those that stayed, in another order, is a change of its own. */
	for (;;) {
		const json_t *b, *a;

		while ((b = json_array_get(before, kept_before)) && !json_object_get(after_names, name_of(b, text)))
			kept_before++;
		while ((a = json_array_get(after, kept_after)) && !json_object_get(before_names, name_of(a, text)))
			kept_after++;
		if (!a || !b)
			return;
		if (strcmp(name_of(a, text), name_of(b, other)) != 0) {
			changes->lines++;
			fprintf(changes->file, "%s~ %s: order: %s was at place %zu, %s comes here now\n", changes->indent, path,
				name_of(b, other), place_of(before, b), name_of(a, text));
			return;
		}
		kept_before++;
		kept_after++;
	}
}

/* Lists of plain values and of nameless objects: what both have at the ends is left out, then what the other side has too. */
static void compare_lists(struct changes *changes, const char *path, const json_t *before, const json_t *after)
{
	size_t n = json_array_size(before), m = json_array_size(after), front = 0, back = 0;
	json_auto_t *seen = json_object();
	char below[PATH_MAX_LENGTH];
	bool plain = true;

	while (front < n && front < m && json_equal(json_array_get(before, front), json_array_get(after, front)))
		front++;
	while (back < n - front && back < m - front &&
		json_equal(json_array_get(before, n - 1 - back), json_array_get(after, m - 1 - back)))
		back++;
	for (size_t i = front; i < n - back; i++)
		plain &= json_is_string(json_array_get(before, i));
	for (size_t i = front; i < m - back; i++)
		plain &= json_is_string(json_array_get(after, i));
	if (!plain) {
		size_t end = (n > m ? n : m) - back;

		for (size_t i = front; i < end; i++) {
			snprintf(below, sizeof(below), "%s[%zu]", path, i);
			compare(changes, below, i < n - back ? json_array_get(before, i) : NULL,
				i < m - back ? json_array_get(after, i) : NULL);
		}
		return;
	}
	/* Long lists of addresses: as sets, in linear time. */
	for (size_t i = front; i < m - back; i++)
		json_object_set_new(seen, json_string_value(json_array_get(after, i)), json_true());
	for (size_t i = front; i < n - back; i++) {
		const char *text = json_string_value(json_array_get(before, i));

		if (json_object_del(seen, text))
			print_change(changes, path, json_array_get(before, i), NULL);
	}
	for (size_t i = front; i < m - back; i++)
		if (json_object_get(seen, json_string_value(json_array_get(after, i))))
			print_change(changes, path, NULL, json_array_get(after, i));
}

static void compare(struct changes *changes, const char *path, const json_t *before, const json_t *after)
{
	json_auto_t *before_names = NULL, *after_names = NULL, *nothing = NULL;

	if (before && after && json_equal(before, after))
		return;
	/* absent and empty mean the same in every list that may be empty */
	if ((!before && json_is_array(after) && !json_array_size(after)) ||
		(!after && json_is_array(before) && !json_array_size(before)))
		return;
	/* a list that appears or goes is shown member by member */
	if ((!before && json_array_size(after)) || (!after && json_array_size(before))) {
		nothing = json_array();
		before = before ?: nothing;
		after = after ?: nothing;
	}
	if (json_is_object(before) && json_is_object(after)) {
		compare_objects(changes, path, before, after);
		return;
	}
	if (!json_is_array(before) || !json_is_array(after)) {
		print_change(changes, path, before, after);
		return;
	}
	before_names = json_object();
	after_names = json_object();
	if (all_named(before, before_names) && all_named(after, after_names))
		compare_named(changes, path, before, after, before_names, after_names);
	else
		compare_lists(changes, path, before, after);
}

size_t changes_print(FILE *file, const char *indent, const json_t *before, const json_t *after)
{
	struct changes changes = {.file = file, .indent = indent};

	compare_objects(&changes, "", before, after);
	return changes.lines;
}
