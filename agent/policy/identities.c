/* SPDX-License-Identifier: Apache-2.0 */
#include <policy/identities.h>

#include <policy/internal.h>
#include <util/cleanup.h>

struct known {
	struct identity_key key;
	uint32_t number;
	uint64_t released; /* when; 0: some port has it */
};

struct numbered_port {
	struct object *port; /* reference */
	uint32_t number;
};

struct identity_list {
	VEC(struct known) known;	 /* by key */
	VEC(struct numbered_port) ports; /* by (namespace, name) */
	uint32_t last;
	uint64_t now; /* counts releases */
};

struct identities {
	struct identity_list now, next;
	bool open; /* next counts */
	bool changed;
};

int identities_new(struct identities **ret)
{
	*ret = calloc(1, sizeof(**ret));
	return *ret ? 0 : -ENOMEM;
}

static void list_clear(struct identity_list *list)
{
	for (size_t i = 0; i < list->ports.n; i++)
		object_unref(list->ports.data[i].port);
	VEC_FREE(&list->ports);
	VEC_FREE(&list->known);
	*list = (struct identity_list){0};
}

void identities_free(struct identities *identities)
{
	if (!identities)
		return;
	list_clear(&identities->now);
	list_clear(&identities->next);
	free(identities);
}

static const struct identity_list *current(const struct identities *identities)
{
	return identities->open ? &identities->next : &identities->now;
}

/* --- what is known --- */

static int key_cmp(const struct identity_key *a, const struct identity_key *b)
{
	for (int i = 0; i < 2; i++)
		if (a->hash[i] != b->hash[i])
			return a->hash[i] < b->hash[i] ? -1 : 1;
	return 0;
}

/* Where the key is, or belongs. */
static size_t place_of(const struct identity_list *list, const struct identity_key *key)
{
	size_t low = 0, high = list->known.n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (key_cmp(&list->known.data[middle].key, key) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static struct known *find(const struct identity_list *list, const struct identity_key *key)
{
	size_t at = place_of(list, key);

	return at < list->known.n && key_cmp(&list->known.data[at].key, key) == 0 ? &list->known.data[at] : NULL;
}

static int insert(struct identity_list *list, const struct known *known)
{
	size_t at = place_of(list, &known->key);

	if (VEC_PUSH(&list->known, *known) < 0)
		return -ENOMEM;
	memmove(&list->known.data[at + 1], &list->known.data[at], (list->known.n - 1 - at) * sizeof(*known));
	list->known.data[at] = *known;
	return 0;
}

int identities_adopt(struct identities *identities, const struct identity_key *key, uint32_t number)
{
	struct identity_list *now = &identities->now;

	if (number == 0 || number > IDENTITY_MAX || find(now, key))
		return -EINVAL;
	for (size_t i = 0; i < now->known.n; i++)
		if (now->known.data[i].number == number)
			return -EINVAL;
	return insert(now, &(struct known){.key = *key, .number = number, .released = ++now->now});
}

int identities_adopt_last(struct identities *identities, uint32_t last)
{
	if (last > IDENTITY_MAX)
		return -EINVAL;
	identities->now.last = last;
	return 0;
}

/* --- assignment --- */

static int number_cmp(const void *a, const void *b)
{
	const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

/* The next one after the last that nobody has or had: of numbers in order, the first gap. 0: there is none. */
static uint32_t next_number(const uint32_t *taken, size_t n, uint32_t last)
{
	uint32_t number = last < IDENTITY_MAX ? last + 1 : 1;

	for (int turn = 0; turn < 2; turn++, number = 1) {
		size_t i = 0;

		while (i < n && taken[i] < number)
			i++;
		for (; i < n && taken[i] == number; i++)
			number++;
		if (number <= IDENTITY_MAX)
			return number;
	}
	return 0;
}

/* Numbers go up until they begin again, so the list of those that are taken stays in order by itself but for that. */
static int number_new(struct identities *identities, const struct identity_key *key, uint32_t *taken, size_t *n)
{
	struct identity_list *next = &identities->next;
	uint32_t number = next_number(taken, *n, next->last);

	if (!number)
		return -E2BIG;
	taken[(*n)++] = number;
	if (*n > 1 && taken[*n - 2] > number)
		qsort(taken, *n, sizeof(*taken), number_cmp);
	next->last = number;
	identities->changed = true;
	return insert(next, &(struct known){.key = *key, .number = number});
}

static const struct object *namespace_of(const struct object_list *all, const char *name)
{
	return object_list_find(all, OBJECT_NAMESPACE, NULL, name);
}

static int number_ports(struct identities *identities, const struct object_list *all, uint32_t *taken, size_t n)
{
	struct identity_list *next = &identities->next;
	int r = 0;

	for (size_t i = 0; i < all->n && r == 0; i++) {
		struct object *port = all->items[i];
		struct workload workload;
		struct identity_key key;
		struct known *known;

		if (port->kind != OBJECT_PORT)
			continue;
		workload = workload_of_port(port);
		labels_key(&workload, namespace_of(all, port->namespace_), key.hash);
		known = find(next, &key);
		if (!known) {
			r = number_new(identities, &key, taken, &n);
			known = r < 0 ? NULL : find(next, &key);
		}
		if (!known)
			break;
		known->released = 0;
		r = VEC_PUSH(&next->ports, ((struct numbered_port){.port = port, .number = known->number}));
		if (r == 0)
			(void)object_ref(port);
	}
	return r;
}

static int ports_cmp(const void *a, const void *b)
{
	return object_compare(((const struct numbered_port *)a)->port, ((const struct numbered_port *)b)->port);
}

static int released_cmp(const void *a, const void *b)
{
	const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* Of those that nobody has any more the oldest are forgotten. */
static int forget(struct identity_list *next)
{
	_cleanup_free_ uint64_t *released = NULL;
	size_t n = 0, kept = 0;
	uint64_t least;

	for (size_t i = 0; i < next->known.n; i++)
		n += next->known.data[i].released != 0;
	if (n <= IDENTITIES_RELEASED)
		return 0;
	released = malloc(n * sizeof(*released));
	if (!released)
		return -ENOMEM;
	n = 0;
	for (size_t i = 0; i < next->known.n; i++)
		if (next->known.data[i].released)
			released[n++] = next->known.data[i].released;
	qsort(released, n, sizeof(*released), released_cmp);
	least = released[n - IDENTITIES_RELEASED];
	for (size_t i = 0; i < next->known.n; i++)
		if (!next->known.data[i].released || next->known.data[i].released >= least)
			next->known.data[kept++] = next->known.data[i];
	next->known.n = kept;
	return 0;
}

static int assign(struct identities *identities, const struct object_list *all)
{
	struct identity_list *now = &identities->now, *next = &identities->next;
	_cleanup_free_ uint32_t *taken = malloc((now->known.n + all->n + 1) * sizeof(*taken));
	int r = taken ? VEC_RESERVE(&next->known, now->known.n) : -ENOMEM;

	if (r < 0)
		return r;
	next->last = now->last;
	next->now = now->now + 1;
	for (size_t i = 0; i < now->known.n; i++) {
		next->known.data[i] = now->known.data[i];
		taken[i] = now->known.data[i].number;
		if (!now->known.data[i].released)
			next->known.data[i].released = next->now; /* unless a port has it still */
	}
	next->known.n = now->known.n;
	if (now->known.n)
		qsort(taken, now->known.n, sizeof(*taken), number_cmp);
	r = number_ports(identities, all, taken, now->known.n);
	if (r == 0 && next->ports.n)
		qsort(next->ports.data, next->ports.n, sizeof(*next->ports.data), ports_cmp);
	return r < 0 ? r : forget(next);
}

int identities_assign(struct identities *identities, const struct object_list *all, struct diag *diag)
{
	int r;

	identities_abort(identities);
	identities->open = true;
	r = assign(identities, all);
	if (r == -E2BIG)
		diag_add(diag, NULL, 0, NULL, "more than %u identities", IDENTITY_MAX);
	if (r < 0)
		identities_abort(identities);
	return r;
}

bool identities_commit(struct identities *identities)
{
	bool changed = identities->changed;

	if (!identities->open)
		return false;
	list_clear(&identities->now);
	identities->now = identities->next;
	identities->next = (struct identity_list){0};
	identities->open = identities->changed = false;
	return changed;
}

void identities_abort(struct identities *identities)
{
	list_clear(&identities->next);
	identities->open = identities->changed = false;
}

/* --- questions --- */

uint32_t identities_number(const struct identities *identities, const struct object *port)
{
	const struct identity_list *list = current(identities);
	const struct numbered_port key = {.port = (struct object *)port}, *found = NULL;

	if (list->ports.n)
		found = bsearch(&key, list->ports.data, list->ports.n, sizeof(key), ports_cmp);
	return found ? found->number : 0;
}

static int oldest_first(const void *a, const void *b)
{
	const struct known *x = *(const struct known *const *)a, *y = *(const struct known *const *)b;

	/* What is in use comes last. */
	if (x->released != y->released)
		return x->released - 1 < y->released - 1 ? -1 : 1;
	return x->number < y->number ? -1 : x->number > y->number;
}

int identities_each(const struct identities *identities, identities_cb cb, void *userdata)
{
	const struct identity_list *list = current(identities);
	_cleanup_free_ const struct known **order = calloc(list->known.n + 1, sizeof(struct known *));
	int r = 0;

	if (!order)
		return -ENOMEM;
	for (size_t i = 0; i < list->known.n; i++)
		order[i] = &list->known.data[i];
	qsort(order, list->known.n, sizeof(struct known *), oldest_first);
	for (size_t i = 0; i < list->known.n && r == 0; i++)
		r = cb(&order[i]->key, order[i]->number, userdata);
	return r;
}

uint32_t identities_last(const struct identities *identities)
{
	return current(identities)->last;
}
