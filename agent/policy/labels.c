/* SPDX-License-Identifier: Apache-2.0 */
/* Identities and label groups: interned, with one bit for each pair of them. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define HASH_NONFATAL_OOM 1
#define uthash_nonfatal_oom(element) ((element)->lost = true)
#include <uthash.h>

#include <util/addr.h>
#include <util/buffer.h>
#include <util/cleanup.h>
#include <util/hash.h>

#include <policy/labels.h>

struct identity_entry {
	struct identity identity; /* first: the two are cast into each other */
	uint64_t key;
	bool lost; /* set by uthash when it found no memory */
	UT_hash_handle hh;
	struct label labels[]; /* the workload's own, then its named ports and all strings */
};

struct group_entry {
	struct label_group group; /* first */
	bool lost;
	UT_hash_handle hh;
	char text[];
};

struct named_entry {
	struct named_match match;
	uint64_t seen;
	bool lost;
	UT_hash_handle hh;
	char text[]; /* protocol and number, then the name */
};
#define NAMED_HEAD 3

struct labels {
	struct named_entry *named;   /* by text */
	struct named_match *by_name; /* the same, in order */
	size_t n_named;
	uint64_t named_rounds, named_version;
	struct identity_entry *identities; /* by key */
	struct group_entry *groups;	   /* by text */
	struct identity_entry **numbers;
	uint32_t *free, n_free;
	uint32_t n, capacity; /* capacity: a multiple of 64 */
};

int labels_new(struct labels **ret)
{
	struct labels *labels = calloc(1, sizeof(*labels));

	if (!labels)
		return -ENOMEM;
	*ret = labels;
	return 0;
}

static void identity_free(struct identity_entry *entry)
{
	object_unref(entry->identity.namespace_);
	free((void *)(uintptr_t)entry->identity.space);
	free(entry);
}

static void group_free(struct group_entry *entry)
{
	object_unref(entry->group.origin);
	free(entry->group.bits);
	free(entry);
}

void labels_free(struct labels *labels)
{
	struct identity_entry *identity, *next;
	struct group_entry *group, *after;
	struct named_entry *named, *last;

	if (!labels)
		return;
	HASH_ITER (hh, labels->identities, identity, next) {
		HASH_DEL(labels->identities, identity);
		identity_free(identity);
	}
	HASH_ITER (hh, labels->groups, group, after) {
		HASH_DEL(labels->groups, group);
		group_free(group);
	}
	HASH_ITER (hh, labels->named, named, last) {
		HASH_DEL(labels->named, named);
		free(named);
	}
	free(labels->by_name);
	free(labels->numbers);
	free(labels->free);
	free(labels);
}

uint32_t labels_identities(const struct labels *labels)
{
	return labels->n;
}

struct identity *labels_by_number(const struct labels *labels, uint32_t number)
{
	return number < labels->n && labels->numbers[number] ? &labels->numbers[number]->identity : NULL;
}

/* --- matching --- */

static bool peer_covers(const struct policy_peer *peer, const char *own, const struct identity *identity)
{
	const struct workload *workload = &identity->workload;

	if (peer->kind != POLICY_PEER_PODS)
		return false;
	if (peer->namespaces.present ? !selector_matches(&peer->namespaces, identity->space, identity->n_space)
				     : !own || strcmp(own, workload->namespace_) != 0)
		return false;
	return !peer->pods.present || selector_matches(&peer->pods, workload->labels, workload->n_labels);
}

static bool has_named(const struct identity *identity, const struct named_match *named)
{
	const struct workload *workload = &identity->workload;

	for (size_t i = 0; i < workload->n_ports; i++)
		if (workload->ports[i].port == named->port && workload->ports[i].protocol == named->protocol &&
			strcmp(workload->ports[i].name, named->name) == 0)
			return true;
	return false;
}

/* Whether the group covers the identity, or may cover some of its addresses. */
static bool group_matches(const struct label_group *group, const struct identity *identity)
{
	if (group->named.name && !has_named(identity, &group->named))
		return false;
	for (size_t i = 0; i < group->n_peers; i++)
		if ((group->blocks && group->peers[i].kind == POLICY_PEER_NETWORKS) ||
			peer_covers(&group->peers[i], group->origin->namespace_, identity))
			return true;
	return false;
}

bool label_group_has(const struct label_group *group, const struct identity *identity, const struct hd_addr *addr)
{
	if (!label_group_covers(group, identity))
		return false;
	if (!group->blocks)
		return true;
	for (size_t i = 0; i < group->n_peers; i++) {
		const struct policy_peer *peer = &group->peers[i];
		bool in = peer_covers(peer, group->origin->namespace_, identity);

		for (size_t j = 0; peer->kind == POLICY_PEER_NETWORKS && j < peer->n_blocks && !in; j++)
			in = addr_in_prefix(addr, &peer->blocks[j].addr, peer->blocks[j].length);
		for (size_t j = 0; peer->kind == POLICY_PEER_NETWORKS && j < peer->n_except && in; j++)
			in = !addr_in_prefix(addr, &peer->except[j].addr, peer->except[j].length);
		if (in)
			return true;
	}
	return false;
}

uint32_t label_group_size(const struct labels *labels, const struct label_group *group)
{
	uint32_t n = 0;

	for (uint32_t word = 0; word * 64 < labels->n; word++)
		n += (uint32_t)__builtin_popcountll(group->bits[word]);
	return n;
}

static void set_bit(struct label_group *group, const struct identity *identity)
{
	uint64_t bit = 1ull << identity->number % 64;

	group->bits[identity->number / 64] &= ~bit;
	if (group_matches(group, identity))
		group->bits[identity->number / 64] |= bit;
}

/* --- identities --- */

static bool labels_equal(const struct label *a, size_t n_a, const struct label *b, size_t n_b)
{
	if (n_a != n_b)
		return false;
	for (size_t i = 0; i < n_a; i++)
		if (strcmp(a[i].key, b[i].key) != 0 || strcmp(a[i].value, b[i].value) != 0)
			return false;
	return true;
}

static bool ports_equal(const struct workload *a, const struct workload *b)
{
	if (a->n_ports != b->n_ports)
		return false;
	for (size_t i = 0; i < a->n_ports; i++)
		if (a->ports[i].port != b->ports[i].port || a->ports[i].protocol != b->ports[i].protocol ||
			strcmp(a->ports[i].name, b->ports[i].name) != 0)
			return false;
	return true;
}

static bool alike(const struct identity *identity, const struct workload *workload, const struct object *namespace_)
{
	const struct object *space = identity->namespace_;
	const struct workload *own = &identity->workload;

	return strcmp(own->namespace_, workload->namespace_) == 0 &&
	       labels_equal(own->labels, own->n_labels, workload->labels, workload->n_labels) &&
	       labels_equal(space ? space->labels : NULL, space ? space->n_labels : 0, namespace_ ? namespace_->labels : NULL,
		       namespace_ ? namespace_->n_labels : 0) &&
	       ports_equal(own, workload);
}

static uint64_t labels_hash(uint64_t hash, const struct label *list, size_t n)
{
	hash = hash_u64(hash, n);
	for (size_t i = 0; i < n; i++)
		hash = hash_string(hash_string(hash, list[i].key), list[i].value);
	return hash;
}

static uint64_t identity_hash(uint64_t seed, const struct workload *workload, const struct object *namespace_)
{
	uint64_t hash = labels_hash(hash_string(seed, workload->namespace_), workload->labels, workload->n_labels);

	hash = labels_hash(hash, namespace_ ? namespace_->labels : NULL, namespace_ ? namespace_->n_labels : 0);
	for (size_t i = 0; i < workload->n_ports; i++) {
		const struct named_port *named = &workload->ports[i];

		hash = hash_u64(hash_string(hash, named->name), (uint64_t)named->protocol << 16 | named->port);
	}
	return hash;
}

void labels_key(const struct workload *workload, const struct object *namespace_, uint64_t ret[2])
{
	for (int i = 0; i < 2; i++)
		ret[i] = identity_hash(1 + (uint64_t)i, workload, namespace_);
}

struct workload workload_of_port(const struct object *port)
{
	return (struct workload){.namespace_ = port->namespace_,
		.labels = port->labels,
		.ports = port->port.ports,
		.n_labels = port->n_labels,
		.n_ports = port->port.n_ports};
}

struct workload workload_of_peer(const struct peer_port *port)
{
	return (struct workload){.namespace_ = port->namespace_,
		.labels = port->labels,
		.ports = port->ports,
		.n_labels = port->n_labels,
		.n_ports = port->n_ports};
}

static const char *take_string(char **at, const char *text)
{
	size_t size = strlen(text) + 1;
	char *copy = memcpy(*at, text, size);

	*at += size;
	return copy;
}

/* An identity with a copy of the workload, in one piece. */
static struct identity_entry *identity_new(const struct workload *from)
{
	size_t size =
		from->n_labels * sizeof(struct label) + from->n_ports * sizeof(struct named_port) + strlen(from->namespace_) + 1;
	struct identity_entry *entry;
	struct named_port *ports;
	char *at;

	for (size_t i = 0; i < from->n_labels; i++)
		size += strlen(from->labels[i].key) + strlen(from->labels[i].value) + 2;
	for (size_t i = 0; i < from->n_ports; i++)
		size += strlen(from->ports[i].name) + 1;
	entry = calloc(1, sizeof(*entry) + size);
	if (!entry)
		return NULL;
	ports = (struct named_port *)(entry->labels + from->n_labels);
	at = (char *)(ports + from->n_ports);
	for (size_t i = 0; i < from->n_labels; i++) {
		entry->labels[i].key = take_string(&at, from->labels[i].key);
		entry->labels[i].value = take_string(&at, from->labels[i].value);
	}
	for (size_t i = 0; i < from->n_ports; i++) {
		ports[i] = from->ports[i];
		ports[i].name = take_string(&at, from->ports[i].name);
	}
	entry->identity.workload = *from;
	entry->identity.workload.namespace_ = take_string(&at, from->namespace_);
	entry->identity.workload.labels = entry->labels;
	entry->identity.workload.ports = ports;
	return entry;
}

/* The namespace's labels, in the order of their keys, with its name in the place of whatever its document says there. */
static bool fill_space(struct identity *identity)
{
	const struct object *namespace_ = identity->namespace_;
	uint32_t n = namespace_ ? namespace_->n_labels : 0;
	struct label *space = calloc(n + 1, sizeof(*space)), name = {LABEL_NAMESPACE_NAME, identity->workload.namespace_};
	bool placed = false;

	if (!space)
		return false;
	identity->space = space;
	for (uint32_t i = 0; i < n; i++) {
		int c = strcmp(namespace_->labels[i].key, name.key);

		if (c >= 0 && !placed) {
			space[identity->n_space++] = name;
			placed = true;
		}
		if (c != 0)
			space[identity->n_space++] = namespace_->labels[i];
	}
	if (!placed)
		space[identity->n_space++] = name;
	return true;
}

static bool grow(struct labels *labels)
{
	uint32_t capacity = labels->capacity ? labels->capacity * 2 : 64;
	struct identity_entry **numbers = reallocarray(labels->numbers, capacity, sizeof(struct identity_entry *));
	uint32_t *free_numbers;

	if (!numbers)
		return false;
	labels->numbers = numbers;
	free_numbers = reallocarray(labels->free, capacity, sizeof(*free_numbers));
	if (!free_numbers)
		return false;
	labels->free = free_numbers;
	for (struct group_entry *entry = labels->groups; entry; entry = entry->hh.next) {
		uint64_t *bits = reallocarray(entry->group.bits, capacity / 64, sizeof(*bits));

		if (!bits)
			return false;
		memset(bits + labels->capacity / 64, 0, (capacity - labels->capacity) / 64 * sizeof(*bits));
		entry->group.bits = bits;
	}
	labels->capacity = capacity;
	return true;
}

struct identity *labels_identity(struct labels *labels, const struct workload *workload, struct object *namespace_)
{
	uint64_t key = identity_hash(1, workload, namespace_);
	struct identity_entry *entry;

	for (;; key++) {
		HASH_FIND(hh, labels->identities, &key, sizeof(key), entry);
		if (!entry)
			break;
		if (alike(&entry->identity, workload, namespace_))
			return &entry->identity;
	}
	if (labels->n_free == 0 && labels->n == labels->capacity && !grow(labels))
		return NULL;
	entry = identity_new(workload);
	if (!entry)
		return NULL;
	entry->key = key;
	entry->identity.namespace_ = namespace_ ? object_ref(namespace_) : NULL;
	if (!fill_space(&entry->identity)) {
		identity_free(entry);
		return NULL;
	}
	HASH_ADD(hh, labels->identities, key, sizeof(entry->key), entry);
	if (entry->lost) {
		identity_free(entry);
		return NULL;
	}
	entry->identity.number = labels->n_free ? labels->free[--labels->n_free] : labels->n++;
	labels->numbers[entry->identity.number] = entry;
	for (struct group_entry *group = labels->groups; group; group = group->hh.next)
		set_bit(&group->group, &entry->identity);
	return &entry->identity;
}

void labels_sweep(struct labels *labels)
{
	struct identity_entry *entry, *next;

	HASH_ITER (hh, labels->identities, entry, next) {
		if (entry->identity.used) {
			entry->identity.used = false;
			continue;
		}
		HASH_DEL(labels->identities, entry);
		labels->numbers[entry->identity.number] = NULL;
		labels->free[labels->n_free++] = entry->identity.number;
		identity_free(entry);
	}
}

/* --- named ports --- */

static int named_seen(struct labels *labels, const struct named_port *port, bool *changed)
{
	size_t length = NAMED_HEAD + strlen(port->name);
	struct named_entry *entry;
	char text[NAMED_HEAD + 64];

	if (length >= sizeof(text))
		return 0; /* no document has such a name */
	text[0] = (char)port->protocol;
	memcpy(text + 1, &port->port, sizeof(port->port));
	memcpy(text + NAMED_HEAD, port->name, length - NAMED_HEAD + 1);
	HASH_FIND(hh, labels->named, text, length, entry);
	if (!entry) {
		entry = calloc(1, sizeof(*entry) + length + 1);
		if (!entry)
			return -ENOMEM;
		memcpy(entry->text, text, length + 1);
		entry->match =
			(struct named_match){.name = entry->text + NAMED_HEAD, .port = port->port, .protocol = port->protocol};
		HASH_ADD_KEYPTR(hh, labels->named, entry->text, length, entry);
		if (entry->lost) {
			free(entry);
			return -ENOMEM;
		}
		*changed = true;
	}
	entry->seen = labels->named_rounds;
	return 0;
}

static int named_cmp(const void *a, const void *b)
{
	const struct named_match *x = a, *y = b;
	int c = strcmp(x->name, y->name);

	if (c == 0)
		c = x->protocol - y->protocol;
	return c ? c : x->port - y->port;
}

int labels_named_update(struct labels *labels)
{
	struct named_entry *entry, *next;
	bool changed = HASH_COUNT(labels->named) != labels->n_named; /* there was no memory for the list */
	size_t n = 0;

	labels->named_rounds++;
	for (uint32_t i = 0; i < labels->n; i++) {
		const struct identity *identity = labels->numbers[i] ? &labels->numbers[i]->identity : NULL;

		for (size_t j = 0; identity && identity->used && j < identity->workload.n_ports; j++)
			if (named_seen(labels, &identity->workload.ports[j], &changed) < 0)
				return -ENOMEM;
	}
	for (entry = labels->named; entry && !changed; entry = entry->hh.next)
		changed = entry->seen != labels->named_rounds;
	if (!changed)
		return 0;
	/* Until the list is there again nothing is known of the one before. */
	labels->named_version++;
	free(labels->by_name);
	labels->n_named = 0;
	labels->by_name = malloc((HASH_COUNT(labels->named) + 1) * sizeof(*labels->by_name));
	if (!labels->by_name)
		return -ENOMEM;
	HASH_ITER (hh, labels->named, entry, next) {
		if (entry->seen == labels->named_rounds) {
			labels->by_name[n++] = entry->match;
			continue;
		}
		HASH_DEL(labels->named, entry);
		free(entry);
	}
	labels->n_named = n;
	if (n)
		qsort(labels->by_name, n, sizeof(*labels->by_name), named_cmp);
	return 0;
}

const struct named_match *labels_named(const struct labels *labels, const char *name, size_t *ret_n)
{
	size_t low = 0, high = labels->n_named, n = 0;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (strcmp(labels->by_name[middle].name, name) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	while (low + n < labels->n_named && strcmp(labels->by_name[low + n].name, name) == 0)
		n++;
	*ret_n = n;
	return n ? &labels->by_name[low] : NULL;
}

uint64_t labels_named_version(const struct labels *labels)
{
	return labels->named_version;
}

/* --- groups --- */

/* Lengths tell where a text ends, whatever is in it. */
static void add_text(struct buffer *out, const char *text)
{
	buffer_printf(out, "%zu:%s", strlen(text), text);
}

static void add_selector(struct buffer *out, char what, const struct selector *selector)
{
	static const char operators[] = {
		[SELECTOR_IN] = '=', [SELECTOR_NOT_IN] = '!', [SELECTOR_EXISTS] = '+', [SELECTOR_DOES_NOT_EXIST] = '-'};

	if (!selector->present)
		return;
	buffer_add_char(out, what);
	for (size_t i = 0; i < selector->n; i++) {
		buffer_add_char(out, operators[selector->items[i].operator]);
		add_text(out, selector->items[i].key);
		for (uint32_t j = 0; j < selector->items[i].n_values; j++) {
			buffer_add_char(out, ',');
			add_text(out, selector->items[i].values[j]);
		}
	}
}

static void add_prefixes(struct buffer *out, char what, const struct prefix *prefixes, size_t n)
{
	char text[ADDR_TEXT_MAX];

	for (size_t i = 0; i < n; i++) {
		buffer_add_char(out, what);
		buffer_add_string(out, addr_format_cidr(&prefixes[i].addr, prefixes[i].length, text));
	}
}

static void describe(struct buffer *out, const struct object *policy, const struct policy_peer *peers, size_t n,
	const struct named_match *named)
{
	for (size_t i = 0; i < n; i++) {
		const struct policy_peer *peer = &peers[i];

		if (peer->kind == POLICY_PEER_NETWORKS && named->name) {
			buffer_add_char(out, '|');
			add_prefixes(out, '#', peer->blocks, peer->n_blocks);
			add_prefixes(out, '~', peer->except, peer->n_except);
		}
		if (peer->kind != POLICY_PEER_PODS)
			continue;
		buffer_add_char(out, '|');
		if (!peer->namespaces.present && policy->namespace_) {
			buffer_add_char(out, '@');
			add_text(out, policy->namespace_);
		}
		add_selector(out, 'n', &peer->namespaces);
		add_selector(out, 'p', &peer->pods);
	}
	if (named->name) {
		buffer_printf(out, ";%u/%u=", named->protocol, named->port);
		add_text(out, named->name);
	}
}

struct label_group *label_group_find(const struct labels *labels, const char *text)
{
	struct group_entry *entry;

	HASH_FIND(hh, labels->groups, text, strlen(text), entry);
	return entry ? &entry->group : NULL;
}

struct label_group *label_group_get(struct labels *labels, struct object *policy, const struct policy_peer *peers, size_t n_peers,
	const struct named_match *named)
{
	static const struct named_match nothing;
	_cleanup_buffer_ struct buffer text = {0};
	struct policy_peer subject = {
		.kind = POLICY_PEER_PODS, .namespaces = policy->workload.namespaces, .pods = policy->workload.pods};
	bool of_subject = !peers;
	struct group_entry *entry;
	struct label_group *group;

	if (of_subject) {
		peers = &subject;
		n_peers = 1;
	}
	named = named ? named : &nothing;
	buffer_add_string(&text, "pods");
	describe(&text, policy, peers, n_peers, named);
	if (text.failed)
		return NULL;
	group = label_group_find(labels, text.data);
	if (group) {
		group->refs++;
		return group;
	}
	entry = calloc(1, sizeof(*entry) + text.length + 1);
	if (!entry)
		return NULL;
	memcpy(entry->text, text.data, text.length + 1);
	group = &entry->group;
	group->refs = 1;
	group->text = entry->text;
	group->origin = object_ref(policy);
	group->subject = subject;
	group->peers = of_subject ? &group->subject : peers;
	group->n_peers = n_peers;
	group->named = *named;
	for (size_t i = 0; i < n_peers && named->name; i++)
		group->blocks = group->blocks || group->peers[i].kind == POLICY_PEER_NETWORKS;
	group->bits = calloc(labels->capacity / 64 + 1, sizeof(*group->bits));
	if (group->bits)
		HASH_ADD_KEYPTR(hh, labels->groups, group->text, text.length, entry);
	if (!group->bits || entry->lost) {
		group_free(entry);
		return NULL;
	}
	for (uint32_t i = 0; i < labels->n; i++)
		if (labels->numbers[i])
			set_bit(group, &labels->numbers[i]->identity);
	return group;
}

void label_group_unref(struct labels *labels, struct label_group *group)
{
	struct group_entry *entry = (struct group_entry *)group;

	if (!group || --group->refs)
		return;
	HASH_DEL(labels->groups, entry);
	group_free(entry);
}
