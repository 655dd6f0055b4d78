// SPDX-License-Identifier: Apache-2.0
/* Ports and their devices: each the one of nobody else, and no uplink. */
#include <model/validate.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <util/cleanup.h>

/* A device that one Port has and no other may have. */
struct claim {
	const char *scope; /* what kind of device */
	const char *text;
	uint32_t index; /* of a VF */
	const struct object *port;
};

static int compare_claims(const void *a, const void *b)
{
	const struct claim *x = a, *y = b;
	int r = strcmp(x->scope, y->scope);

	if (r == 0)
		r = strcmp(x->text, y->text);
	return r ? r : (x->index > y->index) - (x->index < y->index);
}

static int compare_claims_and_ports(const void *a, const void *b)
{
	int r = compare_claims(a, b);

	return r ? r : object_compare(((const struct claim *)a)->port, ((const struct claim *)b)->port);
}

static struct claim claim_device(const struct object *object)
{
	const struct port *port = &object->port;

	if (port->pci)
		return (struct claim){.scope = "pci", .text = port->pci, .port = object};
	if (port->vf_pf)
		return (struct claim){.scope = "vf", .text = port->vf_pf, .index = port->vf_index, .port = object};
	return (struct claim){.scope = "device", .text = port->device, .port = object};
}

static void complain(const struct claim *claim, const struct claim *first, struct diag *diag)
{
	char title[OBJECT_TITLE_MAX], got[OBJECT_TITLE_MAX + 128], path[32], value[64];

	if (claim->port->port.vf_pf)
		snprintf(value, sizeof(value), "VF %u of %s", claim->index, claim->text);
	else
		snprintf(value, sizeof(value), "%s", claim->text);
	object_title(first->port->kind, first->port->namespace_, first->port->name, title);
	snprintf(got, sizeof(got), "%s, which %s has", value, title);
	snprintf(path, sizeof(path), "spec.%s", claim->scope);
	validate_complain(diag, claim->port, claim->port->line, path, "a device that no other Port has", got);
}

static void check_uplink(const struct object *host, const struct object *object, struct diag *diag)
{
	if (object->port.device && host_has_uplink(&host->host, object->port.device))
		validate_complain(
			diag, object, object->line, "spec.device", "a device that is no uplink of the Host", object->port.device);
}

int validate_ports(const struct object_list *sorted, const struct object *host, struct diag *diag)
{
	size_t n;
	struct object **ports = validate_kind(sorted, OBJECT_PORT, &n);
	_cleanup_free_ struct claim *claims = NULL;

	if (n == 0)
		return 0;
	claims = malloc(n * sizeof(*claims));
	if (!claims)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		if (host)
			check_uplink(host, ports[i], diag);
		claims[i] = claim_device(ports[i]);
	}
	qsort(claims, n, sizeof(*claims), compare_claims_and_ports);
	for (size_t i = 1; i < n; i++)
		if (compare_claims(&claims[i - 1], &claims[i]) == 0)
			complain(&claims[i], &claims[i - 1], diag);
	return 0;
}
