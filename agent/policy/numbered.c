/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>

#include <policy/numbered.h>
#include <util/cleanup.h>
#include <util/hash.h>

void network_key(const char *name, char ret[NETWORK_KEY_MAX])
{
	memset(ret, 0, NETWORK_KEY_MAX);
	if (strlen(name) < NETWORK_KEY_MAX)
		memcpy(ret, name, strlen(name));
	else /* names of objects have no '~' */
		snprintf(ret, NETWORK_KEY_MAX, "%.*s~%08" PRIx32, NETWORK_KEY_MAX - 10, name, (uint32_t)hash_string(0, name));
}

void numbered_clear(struct numbered_list *list)
{
	for (size_t i = 0; i < list->names.n; i++)
		free(list->names.data[i].name);
	VEC_FREE(&list->names);
}

/* Where the key is, or belongs. */
static size_t place(const struct numbered_list *list, const char *key)
{
	size_t low = 0, high = list->names.n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (strcmp(list->names.data[middle].key, key) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

const struct numbered *numbered_find(const struct numbered_list *list, const char *key)
{
	size_t at = place(list, key);

	return at < list->names.n && strcmp(list->names.data[at].key, key) == 0 ? &list->names.data[at] : NULL;
}

const char *numbered_name(const struct numbered_list *list, uint16_t index)
{
	for (size_t i = 0; i < list->names.n; i++)
		if (list->names.data[i].index == index)
			return list->names.data[i].name;
	return NULL;
}

static int add(struct numbered_list *list, const char *name, const char *key, uint16_t index)
{
	size_t at = place(list, key);
	struct numbered added = {.name = strdup(name), .index = index};

	if (!added.name || VEC_PUSH(&list->names, added) < 0) {
		free(added.name);
		return -ENOMEM;
	}
	memcpy(added.key, key, sizeof(added.key));
	memmove(&list->names.data[at + 1], &list->names.data[at], (list->names.n - 1 - at) * sizeof(struct numbered));
	list->names.data[at] = added;
	return 0;
}

int numbered_adopt(struct numbered_list *list, uint32_t index, const char name[NETWORK_KEY_MAX], uint32_t end)
{
	char key[NETWORK_KEY_MAX];

	memcpy(key, name, sizeof(key));
	key[sizeof(key) - 1] = '\0';
	if (!key[0] || index == 0 || index >= end || numbered_name(list, (uint16_t)index) || numbered_find(list, key))
		return 0;
	return add(list, key, key, (uint16_t)index);
}

uint16_t number_next(const uint8_t *taken, uint16_t last, uint32_t first, uint32_t n)
{
	uint32_t start = last >= first ? last - first + 1 : 0;

	for (uint32_t i = 0; i < n; i++) {
		uint32_t number = first + (start + i) % n;

		if (!(taken[number / 8] & 1 << number % 8))
			return (uint16_t)number;
	}
	return 0;
}

void number_take(uint8_t *taken, uint16_t number)
{
	taken[number / 8] |= (uint8_t)(1 << number % 8);
}

/* Those that have a number keep it; so nobody takes it from them, they come first. */
int numbered_assign(const struct numbered_list *now, struct numbered_list *next, const struct object_list *all,
	const struct numbered_kind *kind, struct diag *diag)
{
	_cleanup_free_ uint8_t *taken = calloc(1, 65536 / 8);
	char key[NETWORK_KEY_MAX];
	int r = 0;

	if (!taken)
		return -ENOMEM;
	next->last = now->last;
	for (size_t i = 0; i < now->names.n; i++)
		number_take(taken, now->names.data[i].index);
	for (size_t i = 0; i < all->n && r == 0; i++) {
		const struct object *object = all->items[i];
		const struct numbered *old;
		uint16_t index;

		if (object->kind != kind->kind)
			continue;
		network_key(object->name, key);
		if (numbered_find(next, key)) {
			diag_add(diag, object->file, object->line, "metadata.name", "the name cannot be told from another %s's",
				kind->what);
			return -E2BIG;
		}
		old = numbered_find(now, key);
		index = old ? old->index : number_next(taken, next->last, 1, kind->end - 1);
		if (!index) {
			diag_add(diag, object->file, object->line, NULL, "more than %u %ss on one host", kind->end - 1,
				kind->what);
			return -E2BIG;
		}
		number_take(taken, index);
		if (!old)
			next->last = index;
		r = add(next, object->name, key, index);
	}
	return r;
}
