// SPDX-License-Identifier: Apache-2.0
/* Workloads, of Ports here and of Peers' ports elsewhere: in a network that there is, with a name and addresses that are theirs alone. */
#include <model/validate.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <model/kinds.h>
#include <util/addr.h>
#include <util/cleanup.h>
#include <util/hash.h>

/* A Port, or one of a Peer's. */
struct workload {
	const struct object *object;
	const struct peer_port *remote; /* NULL: a Port */
	uint32_t index;			/* among the Peer's */
	const struct object *network;	/* NULL: there is no such */
};

struct own_addresses {
	const struct hd_addr *items;
	size_t n;
};

static struct own_addresses addresses_of(const struct workload *workload)
{
	const struct port *port = &workload->object->port;

	return workload->remote ? (struct own_addresses){workload->remote->addresses, workload->remote->n_addresses}
				: (struct own_addresses){port->addresses, port->n_addresses};
}

/* NULL: none is given. */
static const uint8_t *mac_of(const struct workload *workload)
{
	const struct port *port = &workload->object->port;

	if (workload->remote)
		return workload->remote->has_mac ? workload->remote->mac : NULL;
	return port->has_mac ? port->mac : NULL;
}

static const char *namespace_of(const struct workload *workload)
{
	return workload->remote ? workload->remote->namespace_ : workload->object->namespace_;
}

static const char *name_of(const struct workload *workload)
{
	return workload->remote ? workload->remote->name : workload->object->name;
}

static const char *network_of(const struct workload *workload)
{
	return workload->remote ? workload->remote->network : workload->object->port.network;
}

/* field: of the workload, as its document has it; may be NULL. */
static void complain(struct diag *diag, const struct workload *workload, const char *field, const char *wanted, const char *got)
{
	char path[128];

	if (!workload->remote)
		snprintf(path, sizeof(path), "%s%s", field ? "spec." : "", field ? field : "");
	else
		snprintf(path, sizeof(path), "spec.ports[%u]%s%s", workload->index, field ? "." : "", field ? field : "");
	validate_complain(
		diag, workload->object, workload->remote ? workload->remote->line : workload->object->line, path, wanted, got);
}

/* --- with its network --- */

static bool is_gateway(const struct network *network, const struct hd_addr *addr)
{
	for (size_t i = 0; i < network->n_gateways; i++)
		if (memcmp(&network->gateways[i], addr, sizeof(*addr)) == 0)
			return true;
	return false;
}

static void check_addresses(const struct workload *workload, struct diag *diag)
{
	const struct object *network = workload->network;
	const struct own_addresses own = addresses_of(workload);
	char field[64], wanted[400], text[ADDR_TEXT_MAX], block[ADDR_TEXT_MAX];

	for (size_t i = 0; i < own.n; i++) {
		const struct hd_addr *addr = &own.items[i];
		const struct prefix *subnet = document_subnet(network->network.subnets, network->network.n_subnets, addr);

		if (!subnet)
			snprintf(wanted, sizeof(wanted), "an address in a subnet of Network %s", network->name);
		else if (!document_address_of_host(addr, subnet))
			snprintf(wanted, sizeof(wanted), "an address that one host in %s can have",
				addr_format_cidr(&subnet->addr, subnet->length, block));
		else if (is_gateway(&network->network, addr))
			snprintf(wanted, sizeof(wanted), "another address than the gateway's of Network %s", network->name);
		else
			continue;
		snprintf(field, sizeof(field), "addresses[%zu]", i);
		complain(diag, workload, field, wanted, addr_format(addr, text));
	}
}

static void check_network(const struct workload *workload, struct diag *diag)
{
	char got[320];

	if (!workload->network) {
		snprintf(got, sizeof(got), "%s, which no document declares", network_of(workload));
		complain(diag, workload, "network", "the name of a Network", got);
		return;
	}
	if (workload->remote && !workload->network->network.vni) {
		snprintf(got, sizeof(got), "%s, which has none", network_of(workload));
		complain(diag, workload, "network", "a Network with a vni", got);
	}
	check_addresses(workload, diag);
}

/* --- with the others --- */

/* Something that one workload of a network has and no other may have. */
struct claim {
	const struct object *network;
	uint8_t bytes[16];
	uint32_t owner; /* index of the workload */
	uint32_t index; /* of the address */
};

static int compare_claims(const void *a, const void *b)
{
	const struct claim *x = a, *y = b;

	if (x->network != y->network)
		return (uintptr_t)x->network < (uintptr_t)y->network ? -1 : 1;
	return memcmp(x->bytes, y->bytes, sizeof(x->bytes));
}

static int compare_claims_and_owners(const void *a, const void *b)
{
	const struct claim *x = a, *y = b;
	int r = compare_claims(x, y);

	return r ? r : (x->owner > y->owner) - (x->owner < y->owner);
}

static void complain_taken(struct diag *diag, const struct workload *workload, const struct workload *first, const char *field,
	const char *wanted, const char *value)
{
	char title[OBJECT_TITLE_MAX], got[2 * OBJECT_TITLE_MAX];

	object_title(OBJECT_PORT, namespace_of(first), name_of(first), title);
	if (first->remote && first->object == workload->object)
		snprintf(got, sizeof(got), "%s, which spec.ports[%u] has", value, first->index);
	else if (first->remote)
		snprintf(got, sizeof(got), "%s, which %s of Peer %s has", value, title, first->object->name);
	else
		snprintf(got, sizeof(got), "%s, which %s has", value, title);
	complain(diag, workload, field, wanted, got);
}

static void check_macs(const struct workload *workloads, size_t n, struct claim *claims, struct diag *diag)
{
	size_t kept = 0;
	char value[MAC_TEXT_MAX];

	for (size_t i = 0; i < n; i++) {
		const uint8_t *mac = mac_of(&workloads[i]);

		if (!mac || !workloads[i].network)
			continue;
		claims[kept] = (struct claim){.network = workloads[i].network, .owner = (uint32_t)i};
		memcpy(claims[kept++].bytes, mac, 6);
	}
	if (kept)
		qsort(claims, kept, sizeof(*claims), compare_claims_and_owners);
	for (size_t i = 1; i < kept; i++) {
		if (compare_claims(&claims[i - 1], &claims[i]) != 0)
			continue;
		complain_taken(diag, &workloads[claims[i].owner], &workloads[claims[i - 1].owner], "mac",
			"a MAC address that no other Port of its network has", mac_format(claims[i].bytes, value));
	}
}

static void check_unique_addresses(const struct workload *workloads, size_t n, struct claim *claims, struct diag *diag)
{
	char field[64], text[ADDR_TEXT_MAX];
	size_t kept = 0;

	for (size_t i = 0; i < n; i++) {
		const struct own_addresses own = addresses_of(&workloads[i]);

		for (size_t j = 0; workloads[i].network && j < own.n; j++) {
			claims[kept] =
				(struct claim){.network = workloads[i].network, .owner = (uint32_t)i, .index = (uint32_t)j};
			memcpy(claims[kept++].bytes, &own.items[j], sizeof(struct hd_addr));
		}
	}
	if (kept)
		qsort(claims, kept, sizeof(*claims), compare_claims_and_owners);
	for (size_t i = 1; i < kept; i++) {
		const struct workload *workload = &workloads[claims[i].owner];

		if (compare_claims(&claims[i - 1], &claims[i]) != 0)
			continue;
		snprintf(field, sizeof(field), "addresses[%u]", claims[i].index);
		addr_format(&addresses_of(workload).items[claims[i].index], text);
		complain_taken(diag, workload, &workloads[claims[i - 1].owner], field,
			"an address that no other Port of its network has", text);
	}
}

static int compare_names(const void *a, const void *b)
{
	const struct workload *x = *(const struct workload *const *)a, *y = *(const struct workload *const *)b;
	int r = strcmp(namespace_of(x), namespace_of(y));

	if (r == 0)
		r = strcmp(name_of(x), name_of(y));
	return r ? r : (x > y) - (x < y);
}

/* Ports among themselves are objects of one name, of which others have complained. */
static int check_names(const struct workload *workloads, size_t n, struct diag *diag)
{
	_cleanup_free_ const struct workload **by_name = malloc(n * sizeof(struct workload *));
	char title[OBJECT_TITLE_MAX];

	if (!by_name)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++)
		by_name[i] = &workloads[i];
	qsort(by_name, n, sizeof(struct workload *), compare_names);
	for (size_t i = 1; i < n; i++) {
		const struct workload *a = by_name[i - 1], *b = by_name[i];

		if (!b->remote || strcmp(name_of(a), name_of(b)) != 0 || strcmp(namespace_of(a), namespace_of(b)) != 0)
			continue;
		snprintf(title, sizeof(title), "%.63s/%.253s", namespace_of(b), name_of(b));
		complain_taken(diag, b, a, "name", "a name that no other Port of its namespace has", title);
	}
	return 0;
}

/* --- those that have changed --- */

/* Ports and Peers of the whole: those that are to be checked, and those that are in order among themselves. */
struct split {
	struct object **changed, **before; /* before: what the object was when it was in order; NULL: it was not there */
	struct object **kept;
	size_t n_changed, n_kept;
};

static void split_clear(struct split *split)
{
	free(split->changed);
	free(split->before);
	free(split->kept);
}
#define _cleanup_split_ __attribute__((cleanup(split_clear)))

static bool same_networks(const struct object_list *sorted, const struct object_list *valid)
{
	size_t n, n_before;
	struct object **now = validate_kind(sorted, OBJECT_NETWORK, &n),
		      **before = validate_kind(valid, OBJECT_NETWORK, &n_before);

	if (n != n_before)
		return false;
	for (size_t i = 0; i < n; i++)
		if (object_compare(now[i], before[i]) != 0 || !object_equal(now[i], before[i]))
			return false;
	return true;
}

static int split_objects(const struct object_list *sorted, const struct object_list *valid, struct split *ret)
{
	ret->changed = calloc(sorted->n + 1, sizeof(struct object *));
	ret->before = calloc(sorted->n + 1, sizeof(struct object *));
	ret->kept = calloc(sorted->n + 1, sizeof(struct object *));
	if (!ret->changed || !ret->before || !ret->kept)
		return -ENOMEM;
	for (size_t i = 0, j = 0; i < sorted->n; i++) {
		struct object *object = sorted->items[i], *before = NULL;

		if (object->kind != OBJECT_PORT && object->kind != OBJECT_PEER)
			continue;
		while (valid && j < valid->n && object_compare(valid->items[j], object) < 0)
			j++;
		if (valid && j < valid->n && object_compare(valid->items[j], object) == 0)
			before = valid->items[j];
		if (before && (before == object || object_equal(before, object))) {
			ret->kept[ret->n_kept++] = object;
		} else {
			ret->before[ret->n_changed] = before;
			ret->changed[ret->n_changed++] = object;
		}
	}
	return 0;
}

static size_t count_workloads(const struct object *object)
{
	return object->kind == OBJECT_PEER ? object->tunnel_peer.n_ports : 1;
}

static struct workload workload_at(const struct object *object, size_t i)
{
	if (object->kind != OBJECT_PEER)
		return (struct workload){.object = object};
	return (struct workload){.object = object, .remote = &object->tunnel_peer.ports[i], .index = (uint32_t)i};
}

/* Many are in the network of the one before. */
static void find_network(const struct object_list *sorted, struct workload *workload, const struct object **last)
{
	if (!*last || strcmp((*last)->name, network_of(workload)) != 0)
		*last = object_list_find(sorted, OBJECT_NETWORK, NULL, network_of(workload));
	workload->network = *last;
}

/* --- those that have changed, with the others --- */

/* A hash set of what was nobody's among those that have changed. */
struct fresh {
	uint64_t *slots; /* 0: empty */
	size_t size;	 /* a power of two, more than twice of what is in it */
	size_t n;
};

static uint64_t hash_name(const struct workload *workload)
{
	return hash_string(hash_string(1, namespace_of(workload)), name_of(workload)) | 1;
}

static uint64_t hash_mac(const struct workload *workload)
{
	return hash_bytes((uintptr_t)workload->network, mac_of(workload), 6) | 1;
}

static uint64_t hash_address(const struct workload *workload, const struct hd_addr *addr)
{
	return hash_bytes((uintptr_t)workload->network, addr, sizeof(*addr)) | 1;
}

static bool fresh_has(const struct fresh *fresh, uint64_t hash)
{
	for (size_t place = hash >> 1;; place++) {
		place &= fresh->size - 1;
		if (fresh->slots[place] == hash || !fresh->slots[place])
			return fresh->slots[place] == hash;
	}
}

static void fresh_add(struct fresh *fresh, uint64_t hash)
{
	size_t place = (hash >> 1) & (fresh->size - 1);

	while (fresh->slots[place] && fresh->slots[place] != hash)
		place = (place + 1) & (fresh->size - 1);
	fresh->slots[place] = hash;
	fresh->n++;
}

/* The workload of that name as it was: at the same place from the beginning, or from the end. False: it is not there. */
static bool find_before(const struct object *before, const struct workload *workload, struct workload *ret)
{
	size_t n = before ? count_workloads(before) : 0, behind = count_workloads(workload->object) - workload->index;
	size_t places[] = {workload->index, n - behind};

	for (size_t i = 0; i < 2; i++) {
		if (places[i] >= n) /* n - behind, too, where that is less than nothing */
			continue;
		*ret = workload_at(before, places[i]);
		if (strcmp(name_of(ret), name_of(workload)) == 0 && strcmp(namespace_of(ret), namespace_of(workload)) == 0)
			return true;
	}
	return false;
}

static void add_fresh(struct fresh *fresh, const struct workload *workload, const struct object *before)
{
	const struct own_addresses own = addresses_of(workload);
	struct own_addresses had = {0};
	const uint8_t *mac = mac_of(workload), *mac_before = NULL;
	struct workload was;
	bool found = find_before(before, workload, &was);

	if (!found)
		fresh_add(fresh, hash_name(workload));
	if (found && strcmp(network_of(&was), network_of(workload)) == 0) {
		had = addresses_of(&was);
		mac_before = mac_of(&was);
	}
	if (mac && !(mac_before && memcmp(mac, mac_before, 6) == 0))
		fresh_add(fresh, hash_mac(workload));
	for (size_t i = 0; i < own.n; i++)
		if (i >= had.n || memcmp(&own.items[i], &had.items[i], sizeof(struct hd_addr)) != 0)
			fresh_add(fresh, hash_address(workload, &own.items[i]));
}

static bool has_fresh(const struct fresh *fresh, const struct workload *workload)
{
	const struct own_addresses own = addresses_of(workload);

	if (fresh_has(fresh, hash_name(workload)) || (mac_of(workload) && fresh_has(fresh, hash_mac(workload))))
		return true;
	for (size_t i = 0; i < own.n; i++)
		if (fresh_has(fresh, hash_address(workload, &own.items[i])))
			return true;
	return false;
}

/* Whether something that was nobody's among the changed ones is, or may be, one of the others'. n_claims: how much that can be. */
static int check_others(
	const struct object_list *sorted, const struct split *split, const struct workload *workloads, size_t n_claims, bool *ret)
{
	_cleanup_free_ uint64_t *slots = NULL;
	struct fresh fresh = {.size = 64};
	const struct object *network = NULL;

	while (fresh.size < 2 * n_claims + 1)
		fresh.size *= 2;
	fresh.slots = slots = calloc(fresh.size, sizeof(*slots));
	if (!slots)
		return -ENOMEM;
	for (size_t i = 0; i < split->n_changed; i++)
		for (size_t j = 0; j < count_workloads(split->changed[i]); j++)
			add_fresh(&fresh, workloads++, split->before[i]);
	*ret = false;
	if (fresh.n == 0)
		return 0;
	for (size_t i = 0; i < split->n_kept && !*ret; i++) {
		for (size_t j = 0; j < count_workloads(split->kept[i]) && !*ret; j++) {
			struct workload other = workload_at(split->kept[i], j);

			find_network(sorted, &other, &network);
			*ret = has_fresh(&fresh, &other);
		}
	}
	return 0;
}

/* The changed ones by themselves, and whether they may be at odds with the others. */
static int check_changed(const struct object_list *sorted, const struct split *split, bool *ret_at_odds, struct diag *diag)
{
	_cleanup_free_ struct workload *workloads = NULL;
	_cleanup_free_ struct claim *claims = NULL;
	const struct object *network = NULL;
	size_t n = 0, n_claims = 0;

	*ret_at_odds = false;
	for (size_t i = 0; i < split->n_changed; i++)
		n += count_workloads(split->changed[i]);
	if (n == 0)
		return 0;
	workloads = malloc(n * sizeof(*workloads));
	if (!workloads)
		return -ENOMEM;
	n = 0;
	for (size_t i = 0; i < split->n_changed; i++) {
		for (size_t j = 0; j < count_workloads(split->changed[i]); j++) {
			workloads[n] = workload_at(split->changed[i], j);
			find_network(sorted, &workloads[n], &network);
			n_claims += 2 + addresses_of(&workloads[n++]).n;
		}
	}
	claims = malloc(n_claims * sizeof(*claims));
	if (!claims)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++)
		check_network(&workloads[i], diag);
	check_macs(workloads, n, claims, diag);
	check_unique_addresses(workloads, n, claims, diag);
	if (check_names(workloads, n, diag) < 0)
		return -ENOMEM;
	return split->n_kept ? check_others(sorted, split, workloads, n_claims, ret_at_odds) : 0;
}

/* Most changes touch few of many workloads. Where one of those is wrong, all are looked at again, for messages that do not depend on what was there. */
int validate_workloads(const struct object_list *sorted, const struct object_list *valid, struct diag *diag)
{
	bool at_odds = false;
	int r;

	if (valid && valid->n && same_networks(sorted, valid)) {
		_cleanup_split_ struct split split = {0};
		struct diag changed = {0};

		r = split_objects(sorted, valid, &split);
		if (r == 0)
			r = check_changed(sorted, &split, &at_odds, &changed);
		at_odds = at_odds || changed.errors;
		diag_clear(&changed);
		if (r < 0 || !at_odds)
			return r;
	}
	_cleanup_split_ struct split all = {0};

	r = split_objects(sorted, NULL, &all);
	return r < 0 ? r : check_changed(sorted, &all, &at_odds, diag);
}
