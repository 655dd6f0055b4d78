/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whom the networks flood to: lists of ports and of peers, as packets walk them. What stays in a list keeps its place where it can, so that little
 * is written. Rows first, then their number, then rows beyond it go: a frame that is being flooded meanwhile may reach somebody twice, or miss
 * the one that just moves.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <bpf/bpf.h>

#include <datapath/internal.h>

/* What one list is made from. */
struct wanted {
	const struct map *map;
	uint32_t *count; /* in the network's record */
	uint16_t network;
	const struct topology_member *members; /* of this network, sorted */
	size_t n;
};

int flood_init(struct load *load)
{
	for (unsigned i = 0; i < LISTS; i++) {
		load->lists[i] = calloc(HD_NETWORKS, sizeof(struct member_list));
		if (!load->lists[i])
			return -ENOMEM;
	}
	return 0;
}

void flood_free(struct load *load)
{
	for (unsigned i = 0; i < LISTS; i++) {
		for (unsigned network = 0; load->lists[i] && network < HD_NETWORKS; network++)
			free(load->lists[i][network].ids);
		free(load->lists[i]);
	}
}

static int compare_ids(const void *a, const void *b)
{
	const struct topology_member *x = a, *y = b;

	return x->id < y->id ? -1 : x->id > y->id;
}

/* Where it stands among those that are wanted; w->n: it is not. */
static size_t place_of(const struct wanted *w, uint32_t id)
{
	struct topology_member key = {.id = id};
	const struct topology_member *found = w->n ? bsearch(&key, w->members, w->n, sizeof(key), compare_ids) : NULL;

	return found ? (size_t)(found - w->members) : w->n;
}

static bool nothing_to_do(const struct wanted *w, const struct member_list *list)
{
	if (list->unknown || list->n != w->n)
		return false;
	for (size_t i = 0; i < w->n; i++)
		if (list->ids[i] != w->members[i].id)
			return false;
	return true;
}

/* The list as it shall be: who goes leaves a hole, into which the last one comes. Returns how many. */
static uint32_t arrange(const struct wanted *w, const struct member_list *list, bool add, uint32_t *ids, bool *listed)
{
	uint32_t n = 0;

	/* what is not wanted is 0, which is nobody's number */
	for (uint32_t i = 0; i < list->n; i++) {
		size_t place = place_of(w, list->ids[i]);

		ids[i] = place < w->n && !listed[place] ? list->ids[i] : 0;
		if (ids[i])
			listed[place] = true;
	}
	for (n = list->n; n > 0 && !ids[n - 1];)
		n--;
	for (uint32_t i = 0; i < n; i++) {
		if (ids[i])
			continue;
		ids[i] = ids[n - 1];
		do
			n--;
		while (n > i && !ids[n - 1]);
	}
	for (size_t i = 0; add && i < w->n; i++)
		if (!listed[i])
			ids[n++] = w->members[i].id;
	return n;
}

static int put(const struct wanted *w, const struct member_list *list, const uint32_t *ids, uint32_t n)
{
	_cleanup_free_ struct hd_member_key *keys = calloc(n + 1, sizeof(*keys));
	_cleanup_free_ uint32_t *values = calloc(n + 1, sizeof(*values));
	uint32_t changed = 0;
	int r;

	if (!keys || !values)
		return -ENOMEM;
	for (uint32_t i = 0; i < n; i++) {
		if (i < list->n && !list->unknown && list->ids[i] == ids[i])
			continue;
		keys[changed] = (struct hd_member_key){.network = w->network, .index = (uint16_t)i};
		values[changed++] = ids[i];
	}
	if (!changed)
		return 0;
	r = bpf_map_update_batch(w->map->fd, keys, values, &changed, NULL);
	return r == -E2BIG ? -ENOSPC : r;
}

static int write_list(const struct wanted *w, struct member_list *list, bool add)
{
	_cleanup_free_ uint32_t *ids = calloc(list->n + w->n + 1, sizeof(*ids));
	_cleanup_free_ bool *listed = calloc(w->n + 1, sizeof(*listed));
	uint32_t n;
	int r;

	if (!ids || !listed)
		return -ENOMEM;
	n = arrange(w, list, add, ids, listed);
	r = put(w, list, ids, n);
	if (r < 0) {
		/* Some rows may say one thing or the other: all of them are written next time. */
		list->unknown = true;
		return r;
	}
	__atomic_store_n(w->count, n, __ATOMIC_RELEASE);
	for (uint32_t i = n; i < list->n; i++) {
		struct hd_member_key key = {.network = w->network, .index = (uint16_t)i};

		(void)bpf_map_delete_elem(w->map->fd, &key);
	}
	free(list->ids);
	*list = (struct member_list){.ids = TAKE_PTR(ids), .n = n};
	return 0;
}

static int write_lists(
	struct load *load, unsigned which, const struct topology_member *members, size_t n_members, uint32_t most, bool add)
{
	struct wanted w = {.map = &load->maps[which == LISTS_PEERS ? MAP_PEER_MEMBERS : MAP_MEMBERS]};
	size_t i = 0;
	int r = 0;

	for (uint32_t network = 0; network < load->networks_end && r == 0; network++) {
		struct member_list *list = &load->lists[which][network];

		w.network = (uint16_t)network;
		w.count = which == LISTS_PEERS ? &load->networks[network].peers : &load->networks[network].members;
		w.members = members + i;
		for (w.n = 0; i < n_members && members[i].network == network; i++)
			w.n += w.n < most;
		if ((list->n || (add && w.n)) && !nothing_to_do(&w, list))
			r = write_list(&w, list, add);
	}
	return r < 0 ? log_err(r, "cannot write the list of %s that a network floods to",
			       which == LISTS_PEERS ? "peers" : "ports")
		     : 0;
}

int flood_write(struct load *load, const struct topology *t, bool add)
{
	int r = write_lists(load, LISTS_PORTS, t->members, t->n_members, HD_MEMBERS_MAX, add);

	return r < 0 ? r : write_lists(load, LISTS_PEERS, t->peer_members, t->n_peer_members, HD_PEERS_MAX, add);
}
