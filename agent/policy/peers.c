/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The workloads of Peers: who they are, and where. They are selected by policies and never subject to them here, so all that becomes of them is
 * a list of addresses with identities. There may be a hundred times as many as ports here: what a Peer has is worked out once, and kept
 * while it stays as it is.
 */
#include <util/cleanup.h>
#include <util/hash.h>

#include <policy/internal.h>

typedef VEC(struct endpoint) endpoint_vec;

static int name_cmp(const void *a, const void *b)
{
	return strcmp((*(struct object *const *)a)->name, (*(struct object *const *)b)->name);
}

/* What the identities and network indexes of a Peer's ports depend on besides itself. */
static uint64_t surroundings(const struct round *round)
{
	uint64_t hash = hash_u64(0, round->new_namespaces.n);

	for (size_t i = 0; i < round->new_namespaces.n; i++)
		hash = hash_u64(hash, round->new_namespaces.data[i]->hash);
	for (size_t i = 1; i < round->t->networks.n; i++)
		hash = hash_u64(hash_string(hash, round->t->networks.data[i].object->name), round->t->networks.data[i].index);
	return hash;
}

/* --- one peer --- */

static void peer_unref(struct peer_entry *entry)
{
	if (!entry || --entry->refs)
		return;
	object_unref(entry->object);
	free(entry);
}

void peers_unref(struct tables *t)
{
	for (size_t i = 0; i < t->peers.n; i++)
		peer_unref(t->peers.data[i]);
}

static int index_cmp(const void *a, const void *b)
{
	return *(const uint16_t *)a - *(const uint16_t *)b;
}

/* The networks of a Peer's ports and prefixes, one after the other. What names one that is not there is said in diag. */
static int find_networks(struct round *round, const struct object *object, uint16_t *indexes)
{
	const struct tunnel_peer *peer = &object->tunnel_peer;
	const char *last = NULL;
	int network = 0;

	for (size_t i = 0; i < peer->n_ports + peer->n_prefixes; i++) {
		bool port = i < peer->n_ports;
		const char *name = port ? peer->ports[i].network : peer->prefixes[i - peer->n_ports].network;
		char path[64];

		/* Many are in the network of the one before. */
		if (!last || strcmp(last, name) != 0)
			network = network_of(round->t, name);
		last = name;
		if (network < 0) {
			snprintf(path, sizeof(path), "spec.%s[%zu].network", port ? "ports" : "prefixes",
				port ? i : i - peer->n_ports);
			diag_add(round->diag, object->file, port ? peer->ports[i].line : peer->prefixes[i - peer->n_ports].line,
				path, "want a Network, got %s", name);
			return -EINVAL;
		}
		indexes[i] = (uint16_t)network;
	}
	return 0;
}

static struct peer_entry *peer_new(struct object *object, const uint16_t *indexes, size_t n)
{
	struct peer_entry *entry;
	size_t kept = 0;

	entry = calloc(1, sizeof(*entry) + n * sizeof(*indexes));
	if (!entry)
		return NULL;
	entry->refs = 1;
	entry->object = object_ref(object);
	for (size_t i = 0; i < n; i++)
		if (i == 0 || indexes[i] != indexes[i - 1])
			entry->networks[kept++] = indexes[i];
	if (kept)
		qsort(entry->networks, kept, sizeof(*indexes), index_cmp);
	for (size_t i = 0; i < kept; i++)
		if (i == 0 || entry->networks[i] != entry->networks[entry->n_networks - 1])
			entry->networks[entry->n_networks++] = entry->networks[i];
	return entry;
}

/* Adds the addresses of its ports to fresh, and the Peer to the tables. */
static int peer_add(struct round *round, struct object *object, endpoint_vec *fresh)
{
	const struct tunnel_peer *peer = &object->tunnel_peer;
	size_t n = peer->n_ports + peer->n_prefixes;
	_cleanup_free_ uint16_t *indexes = malloc((n + 1) * sizeof(*indexes));
	struct object *namespace_ = NULL;
	struct peer_entry *entry;
	const char *last = NULL;
	int r = indexes ? find_networks(round, object, indexes) : -ENOMEM;

	if (r < 0)
		return r;
	entry = peer_new(object, indexes, n);
	if (!entry)
		return -ENOMEM;
	if (VEC_PUSH(&round->t->peers, entry) < 0) {
		peer_unref(entry);
		return -ENOMEM;
	}
	for (size_t i = 0; i < peer->n_ports; i++) {
		const struct peer_port *port = &peer->ports[i];
		const struct workload workload = workload_of_peer(port);
		struct identity *identity;

		if (!last || strcmp(last, port->namespace_) != 0)
			namespace_ = namespace_find(round, port->namespace_);
		last = port->namespace_;
		/* Who has no address is nobody's source or destination. */
		identity = port->n_addresses ? labels_identity(round->compiler->labels, &workload, namespace_) : NULL;
		if (port->n_addresses && !identity)
			return -ENOMEM;
		for (size_t j = 0; j < port->n_addresses; j++)
			if (VEC_PUSH(fresh, (struct endpoint){.network = indexes[i],
						    .index = (uint32_t)i,
						    .addr = port->addresses[j],
						    .identity = identity,
						    .peer = entry}) < 0)
				return -ENOMEM;
	}
	return 0;
}

/* --- all of them --- */

static int claim_cmp(const void *a, const void *b)
{
	const struct endpoint *x = a, *y = b;
	int c = endpoint_cmp(x, y);

	if (c == 0 && x->peer != y->peer)
		c = strcmp(x->peer->object->name, y->peer->object->name);
	return c ? c : (x->index > y->index) - (x->index < y->index);
}

/* Puts the fresh ones in the place of those whose Peer is not kept. */
static int replace(struct tables *t, endpoint_vec *fresh)
{
	endpoint_vec merged = {0};
	size_t j = 0;

	if (VEC_RESERVE(&merged, t->remote.n + fresh->n) < 0)
		return -ENOMEM;
	if (fresh->n)
		qsort(fresh->data, fresh->n, sizeof(*fresh->data), claim_cmp);
	for (size_t i = 0; i < t->remote.n; i++) {
		if (!t->remote.data[i].peer->kept)
			continue;
		while (j < fresh->n && claim_cmp(&fresh->data[j], &t->remote.data[i]) < 0)
			merged.data[merged.n++] = fresh->data[j++];
		merged.data[merged.n++] = t->remote.data[i];
	}
	while (j < fresh->n)
		merged.data[merged.n++] = fresh->data[j++];
	free(t->remote.data);
	t->remote.data = merged.data;
	t->remote.n = merged.n;
	t->remote.capacity = merged.capacity;
	return 0;
}

static void mark_networks(struct tables *t)
{
	bool some[HD_NETWORKS] = {0};

	for (size_t i = 0; i < t->peers.n; i++)
		for (size_t j = 0; j < t->peers.data[i]->n_networks; j++)
			some[t->peers.data[i]->networks[j] % HD_NETWORKS] = true;
	for (size_t i = 1; i < t->networks.n; i++)
		t->networks.data[i].peers = some[t->networks.data[i].index % HD_NETWORKS];
}

/* Puts the Peers of the input into the tables; after networks and namespaces. */
int peers_update(struct round *round)
{
	const struct tables *before = &round->compiler->before;
	struct tables *t = round->t;
	uint64_t around = surroundings(round);
	endpoint_vec fresh = {0};
	bool changed = false;
	size_t n = round->new_peers.n;
	int r = VEC_RESERVE(&t->peers, n);

	if (r < 0)
		return r;
	if (n)
		qsort(round->new_peers.data, n, sizeof(struct object *), name_cmp);
	t->peers.n = 0;
	round->peers_referenced = true;
	for (size_t i = 0, j = 0; (i < n || j < before->peers.n) && r == 0;) {
		struct peer_entry *old = j < before->peers.n ? before->peers.data[j] : NULL;
		struct object *object = i < n ? round->new_peers.data[i] : NULL;
		int c = !object ? 1 : !old ? -1 : strcmp(object->name, old->object->name);
		bool same = c == 0 && around == t->surroundings && object_equal(old->object, object);

		if (old && c >= 0)
			old->kept = same;
		if (same) {
			old->refs++;
			t->peers.data[t->peers.n++] = old;
		} else if (c <= 0) {
			r = peer_add(round, object, &fresh);
		}
		changed = changed || !same;
		i += c <= 0;
		j += c >= 0;
	}
	if (r == 0 && changed)
		r = replace(t, &fresh);
	VEC_FREE(&fresh);
	if (r < 0)
		return r;
	t->surroundings = around;
	for (size_t i = 0; i < t->remote.n; i++)
		t->remote.data[i].identity->used = true;
	mark_networks(t);
	return 0;
}
