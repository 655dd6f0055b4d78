// SPDX-License-Identifier: Apache-2.0
/* Ports of the host: each leads to one workload only, and that one has a way there; and Services, which are nobody's. */
#include <model/validate.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <model/kinds.h>
#include <util/addr.h>
#include <util/cleanup.h>

struct claim {
	const struct object *port;
	const struct host_port *from;
	uint32_t index;
};

static int compare_claims(const void *a, const void *b)
{
	const struct claim *x = a, *y = b;
	int r = x->from->protocol - y->from->protocol;

	if (r == 0)
		r = x->from->host_port - y->from->host_port;
	return r ? r : object_compare(x->port, y->port);
}

static void complain(const struct claim *claim, const struct claim *first, struct diag *diag)
{
	char title[OBJECT_TITLE_MAX], got[OBJECT_TITLE_MAX + 64], path[48];

	object_title(first->port->kind, first->port->namespace_, first->port->name, title);
	snprintf(got, sizeof(got), "%s %u, which %s has", document_protocol_name(claim->from->protocol), claim->from->host_port,
		title);
	snprintf(path, sizeof(path), "spec.hostPorts[%u]", claim->index);
	validate_complain(diag, claim->port, claim->port->line, path, "a port of the host that no other Port has", got);
}

static void check_network(const struct object_list *sorted, const struct object *port, struct diag *diag)
{
	const struct object *network = object_list_find(sorted, OBJECT_NETWORK, NULL, port->port.network);
	char got[320];

	/* that there is none is said elsewhere */
	if (!network || network_routes_to_host(&network->network))
		return;
	snprintf(got, sizeof(got), "Network %s, which does not route there", port->port.network);
	validate_complain(diag, port, port->line, "spec.hostPorts", "them only in a network with host among its routesTo", got);
}

/* What a Service has is no port's: else it would not be known whose policy is to be asked where. */
static void check_services(const struct object_list *sorted, const struct object *object, struct diag *diag)
{
	const struct network *network = &object->network;
	char block[ADDR_TEXT_MAX], got[400], path[48];
	size_t n;
	struct object **networks = validate_kind(sorted, OBJECT_NETWORK, &n);

	for (size_t s = 0; s < network->n_services; s++)
		for (size_t i = 0; i < n; i++)
			for (size_t j = 0; j < networks[i]->network.n_subnets; j++) {
				const struct prefix *a = &network->services[s], *b = &networks[i]->network.subnets[j];

				if (!addr_prefix_in_prefix(&a->addr, a->length, &b->addr, b->length) &&
					!addr_prefix_in_prefix(&b->addr, b->length, &a->addr, a->length))
					continue;
				snprintf(path, sizeof(path), "spec.services[%zu]", s);
				snprintf(got, sizeof(got), "%s, which overlaps Network %s",
					addr_format_cidr(&a->addr, a->length, block), networks[i]->name);
				validate_complain(diag, object, object->line, path, "a block apart from all subnets", got);
				return;
			}
}

static void validate_services(const struct object_list *sorted, struct diag *diag)
{
	size_t n;
	struct object **networks = validate_kind(sorted, OBJECT_NETWORK, &n);

	for (size_t i = 0; i < n; i++)
		check_services(sorted, networks[i], diag);
}

int validate_nat(const struct object_list *sorted, struct diag *diag)
{
	size_t n, n_claims = 0;
	struct object **ports = validate_kind(sorted, OBJECT_PORT, &n);
	_cleanup_free_ struct claim *claims = NULL;

	validate_services(sorted, diag);
	for (size_t i = 0; i < n; i++)
		n_claims += ports[i]->port.n_host_ports;
	if (!n_claims)
		return 0;
	claims = malloc(n_claims * sizeof(*claims));
	if (!claims)
		return -ENOMEM;
	n_claims = 0;
	for (size_t i = 0; i < n; i++) {
		for (uint32_t j = 0; j < ports[i]->port.n_host_ports; j++)
			claims[n_claims++] = (struct claim){ports[i], &ports[i]->port.host_ports[j], j};
		if (ports[i]->port.n_host_ports)
			check_network(sorted, ports[i], diag);
	}
	qsort(claims, n_claims, sizeof(*claims), compare_claims);
	/* of one number there are as many as the host has addresses, at most */
	for (size_t i = 1; i < n_claims; i++)
		for (size_t j = i; j-- > 0 && claims[j].from->protocol == claims[i].from->protocol &&
				   claims[j].from->host_port == claims[i].from->host_port;)
			if (claims[j].port != claims[i].port && host_ports_overlap(claims[j].from, claims[i].from)) {
				complain(&claims[i], &claims[j], diag);
				break;
			}
	return 0;
}
