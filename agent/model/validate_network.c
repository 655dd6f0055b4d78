// SPDX-License-Identifier: Apache-2.0
/* Networks beside one another: numbers of their own, routes that lead somewhere, addresses that are clear to whoever can reach them. */
#include <model/validate.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <util/addr.h>
#include <util/cleanup.h>

/* --- VNI and VLAN --- */

static int compare_vnis(const void *a, const void *b)
{
	const struct object *x = *(struct object *const *)a, *y = *(struct object *const *)b;
	int r = (x->network.vni > y->network.vni) - (x->network.vni < y->network.vni);

	return r ? r : object_compare(x, y);
}

static int compare_vlans(const void *a, const void *b)
{
	const struct object *x = *(struct object *const *)a, *y = *(struct object *const *)b;
	int r = (x->network.vlan > y->network.vlan) - (x->network.vlan < y->network.vlan);

	return r ? r : object_compare(x, y);
}

static void check_numbers(struct object **networks, size_t n, bool vlan, struct diag *diag)
{
	char got[320];

	qsort(networks, n, sizeof(struct object *), vlan ? compare_vlans : compare_vnis);
	for (size_t i = 1; i < n; i++) {
		const struct network *a = &networks[i - 1]->network, *b = &networks[i]->network;
		uint32_t before = vlan ? a->vlan : a->vni, number = vlan ? b->vlan : b->vni;

		if (!number || number != before)
			continue;
		snprintf(got, sizeof(got), "%u, which Network %s has", number, networks[i - 1]->name);
		validate_complain(diag, networks[i], networks[i]->line, vlan ? "spec.vlan" : "spec.vni",
			"a number that no other Network has", got);
	}
}

/* --- routes --- */

static void check_routes(const struct object_list *sorted, const struct object *object, struct diag *diag)
{
	const struct network *network = &object->network;
	char path[64], got[320];

	for (size_t i = 0; i < network->n_routes_to; i++) {
		const char *to = network->routes_to[i];
		bool itself = strcmp(to, object->name) == 0;

		if (!itself && (strcmp(to, NETWORK_HOST) == 0 || object_list_find(sorted, OBJECT_NETWORK, NULL, to)))
			continue;
		snprintf(path, sizeof(path), "spec.routesTo[%zu]", i);
		snprintf(got, sizeof(got), "%s, which %s", to, itself ? "it is itself" : "no document declares");
		validate_complain(diag, object, object->line, path, "the name of another Network, or host", got);
	}
}

/* --- overlapping subnets --- */

struct claim {
	const struct prefix *subnet;
	const struct object *network;
};

struct claims {
	struct claim *items;
	size_t n, size;
};

static int add_subnets(struct claims *claims, const struct object *network)
{
	for (size_t i = 0; i < network->network.n_subnets; i++) {
		if (claims->n == claims->size) {
			size_t size = claims->size ? claims->size * 2 : 64;
			struct claim *items = realloc(claims->items, size * sizeof(*items));
			if (!items)
				return -ENOMEM;
			claims->items = items;
			claims->size = size;
		}
		claims->items[claims->n++] = (struct claim){.subnet = &network->network.subnets[i], .network = network};
	}
	return 0;
}

static bool is_ipv4(const struct prefix *subnet)
{
	return subnet->length >= 96 && addr_is_ipv4(&subnet->addr);
}

/* By family and address, and the larger block first: what lies in a block comes right behind it. */
static int compare_claims(const void *a, const void *b)
{
	const struct claim *x = a, *y = b;
	int r = is_ipv4(x->subnet) - is_ipv4(y->subnet);

	if (r == 0)
		r = memcmp(&x->subnet->addr, &y->subnet->addr, sizeof(x->subnet->addr));
	if (r == 0)
		r = x->subnet->length - y->subnet->length;
	return r ? r : object_compare(x->network, y->network);
}

/* The first two that overlap. Those of one network do not, the decoder has seen to that. */
static bool find_overlap(struct claims *claims, const struct claim **ret_a, const struct claim **ret_b)
{
	const struct claim *cover = NULL;

	if (claims->n)
		qsort(claims->items, claims->n, sizeof(*claims->items), compare_claims);
	for (size_t i = 0; i < claims->n; i++) {
		const struct claim *claim = &claims->items[i];

		if (cover && addr_prefix_in_prefix(
				     &claim->subnet->addr, claim->subnet->length, &cover->subnet->addr, cover->subnet->length)) {
			*ret_a = cover;
			*ret_b = claim;
			return true;
		}
		cover = claim;
	}
	return false;
}

static void complain_overlap(const struct object *object, const struct claim *a, const struct claim *b, struct diag *diag)
{
	char block_a[ADDR_TEXT_MAX], block_b[ADDR_TEXT_MAX], got[700];

	snprintf(got, sizeof(got), "%s of %s and %s of %s", addr_format_cidr(&a->subnet->addr, a->subnet->length, block_a),
		a->network->name, addr_format_cidr(&b->subnet->addr, b->subnet->length, block_b), b->network->name);
	validate_complain(diag, object, object->line, "spec.routesTo", "networks whose subnets are apart from one another", got);
}

static bool routes_to(const struct network *network, const char *name)
{
	for (size_t i = 0; i < network->n_routes_to; i++)
		if (strcmp(network->routes_to[i], name) == 0)
			return true;
	return false;
}

/* Whatever one network can reach, itself included, must be told apart by its address. */
static int check_reach(const struct object_list *sorted, const struct object *object, struct claims *claims, struct diag *diag)
{
	const struct network *network = &object->network;
	const struct claim *a, *b;

	claims->n = 0;
	if (add_subnets(claims, object) < 0)
		return -ENOMEM;
	for (size_t i = 0; i < network->n_routes_to; i++) {
		const struct object *to = object_list_find(sorted, OBJECT_NETWORK, NULL, network->routes_to[i]);

		if (to && to != object && add_subnets(claims, to) < 0)
			return -ENOMEM;
	}
	if (network->n_routes_to && find_overlap(claims, &a, &b))
		complain_overlap(object, a, b, diag);
	return 0;
}

/* And whatever routes to the host, by the host. */
static int check_host(struct object **networks, size_t n, struct claims *claims, struct diag *diag)
{
	const struct claim *a, *b;

	claims->n = 0;
	for (size_t i = 0; i < n; i++)
		if (routes_to(&networks[i]->network, NETWORK_HOST) && add_subnets(claims, networks[i]) < 0)
			return -ENOMEM;
	if (find_overlap(claims, &a, &b))
		complain_overlap(b->network, a, b, diag);
	return 0;
}

int validate_networks(const struct object_list *sorted, struct diag *diag)
{
	size_t n;
	struct object **networks = validate_kind(sorted, OBJECT_NETWORK, &n);
	_cleanup_free_ struct object **by_number = NULL;
	struct claims claims = {0};
	int r = 0;

	if (n == 0)
		return 0;
	by_number = malloc(n * sizeof(struct object *));
	if (!by_number)
		return -ENOMEM;
	memcpy(by_number, networks, n * sizeof(struct object *));
	check_numbers(by_number, n, false, diag);
	check_numbers(by_number, n, true, diag);
	for (size_t i = 0; i < n && r == 0; i++) {
		check_routes(sorted, networks[i], diag);
		r = check_reach(sorted, networks[i], &claims, diag);
	}
	if (r == 0)
		r = check_host(networks, n, &claims, diag);
	free(claims.items);
	return r;
}
