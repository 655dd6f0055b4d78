// SPDX-License-Identifier: Apache-2.0
/* Ports: in a network that there is, with addresses that are theirs alone. */
#include <model/validate.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <model/kinds.h>
#include <util/addr.h>
#include <util/cleanup.h>

/* --- with its network --- */

static bool is_gateway(const struct network *network, const struct hd_addr *addr)
{
	for (size_t i = 0; i < network->n_gateways; i++)
		if (memcmp(&network->gateways[i], addr, sizeof(*addr)) == 0)
			return true;
	return false;
}

static void check_addresses(const struct object *object, const struct object *network, struct diag *diag)
{
	const struct port *port = &object->port;
	char path[64], wanted[400], text[ADDR_TEXT_MAX], block[ADDR_TEXT_MAX];

	for (size_t i = 0; i < port->n_addresses; i++) {
		const struct hd_addr *addr = &port->addresses[i];
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
		snprintf(path, sizeof(path), "spec.addresses[%zu]", i);
		validate_complain(diag, object, object->line, path, wanted, addr_format(addr, text));
	}
}

static void check_network(const struct object_list *sorted, const struct object *object, struct diag *diag)
{
	const struct object *network = object_list_find(sorted, OBJECT_NETWORK, NULL, object->port.network);
	char got[320];

	if (network) {
		check_addresses(object, network, diag);
		return;
	}
	snprintf(got, sizeof(got), "%s, which no document declares", object->port.network);
	validate_complain(diag, object, object->line, "spec.network", "the name of a Network", got);
}

/* --- with other ports --- */

/* Something that one Port has and no other may have. */
struct claim {
	const char *scope; /* the network, or what kind of device */
	const char *text;  /* NULL: bytes count */
	uint8_t bytes[16];
	const struct object *port;
	uint32_t index; /* of the address; or of the VF */
};

static int compare_claims(const void *a, const void *b)
{
	const struct claim *x = a, *y = b;
	int r = strcmp(x->scope, y->scope);

	if (r == 0)
		r = strcmp(x->text ? x->text : "", y->text ? y->text : "");
	return r ? r : memcmp(x->bytes, y->bytes, sizeof(x->bytes));
}

static int compare_claims_and_ports(const void *a, const void *b)
{
	int r = compare_claims(a, b);

	return r ? r : object_compare(((const struct claim *)a)->port, ((const struct claim *)b)->port);
}

static void sort_claims(struct claim *claims, size_t n)
{
	if (n)
		qsort(claims, n, sizeof(*claims), compare_claims_and_ports);
}

static void complain(const struct claim *claim, const struct claim *first, const char *path, const char *what, const char *value,
	struct diag *diag)
{
	char title[OBJECT_TITLE_MAX], got[OBJECT_TITLE_MAX + 64];

	object_title(first->port->kind, first->port->namespace_, first->port->name, title);
	snprintf(got, sizeof(got), "%s, which %s has", value, title);
	validate_complain(diag, claim->port, claim->port->line, path, what, got);
}

static struct claim claim_device(const struct object *object)
{
	const struct port *port = &object->port;
	struct claim claim = {.scope = "device", .text = port->device, .port = object, .index = port->vf_index};

	if (port->pci) {
		claim.scope = "pci";
		claim.text = port->pci;
	} else if (port->vf_pf) {
		claim.scope = "vf";
		claim.text = port->vf_pf;
		memcpy(claim.bytes, &port->vf_index, sizeof(port->vf_index));
	}
	return claim;
}

static void check_devices(struct object **ports, size_t n, struct claim *claims, struct diag *diag)
{
	char path[32], value[64];

	for (size_t i = 0; i < n; i++)
		claims[i] = claim_device(ports[i]);
	sort_claims(claims, n);
	for (size_t i = 1; i < n; i++) {
		if (compare_claims(&claims[i - 1], &claims[i]) != 0)
			continue;
		if (claims[i].port->port.vf_pf)
			snprintf(value, sizeof(value), "VF %u of %s", claims[i].index, claims[i].text);
		else
			snprintf(value, sizeof(value), "%s", claims[i].text);
		snprintf(path, sizeof(path), "spec.%s", claims[i].scope);
		complain(&claims[i], &claims[i - 1], path, "a device that no other Port has", value, diag);
	}
}

static void check_macs(struct object **ports, size_t n, struct claim *claims, struct diag *diag)
{
	size_t kept = 0;
	char value[18];

	for (size_t i = 0; i < n; i++) {
		if (!ports[i]->port.has_mac)
			continue;
		claims[kept] = (struct claim){.scope = ports[i]->port.network, .port = ports[i]};
		memcpy(claims[kept++].bytes, ports[i]->port.mac, sizeof(ports[i]->port.mac));
	}
	sort_claims(claims, kept);
	for (size_t i = 1; i < kept; i++) {
		const uint8_t *mac = claims[i].bytes;

		if (compare_claims(&claims[i - 1], &claims[i]) != 0)
			continue;
		snprintf(value, sizeof(value), "%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3], mac[4], mac[5]);
		complain(&claims[i], &claims[i - 1], "spec.mac", "a MAC address that no other Port of its network has", value,
			diag);
	}
}

static void check_unique_addresses(struct object **ports, size_t n, struct claim *claims, struct diag *diag)
{
	char path[64], text[ADDR_TEXT_MAX];
	size_t kept = 0;

	for (size_t i = 0; i < n; i++) {
		for (size_t j = 0; j < ports[i]->port.n_addresses; j++) {
			claims[kept] = (struct claim){.scope = ports[i]->port.network, .port = ports[i], .index = (uint32_t)j};
			memcpy(claims[kept++].bytes, &ports[i]->port.addresses[j], sizeof(struct hd_addr));
		}
	}
	sort_claims(claims, kept);
	for (size_t i = 1; i < kept; i++) {
		if (compare_claims(&claims[i - 1], &claims[i]) != 0)
			continue;
		snprintf(path, sizeof(path), "spec.addresses[%u]", claims[i].index);
		addr_format(&claims[i].port->port.addresses[claims[i].index], text);
		complain(&claims[i], &claims[i - 1], path, "an address that no other Port of its network has", text, diag);
	}
}

static void check_uplink(const struct object *host, const struct object *object, struct diag *diag)
{
	for (size_t i = 0; object->port.device && i < host->host.n_uplinks; i++)
		if (strcmp(host->host.uplinks[i].device, object->port.device) == 0)
			validate_complain(diag, object, object->line, "spec.device", "a device that is no uplink of the Host",
				object->port.device);
}

int validate_ports(const struct object_list *sorted, const struct object *host, struct diag *diag)
{
	size_t n, most;
	struct object **ports = validate_kind(sorted, OBJECT_PORT, &n);
	_cleanup_free_ struct claim *claims = NULL;

	if (n == 0)
		return 0;
	most = n;
	for (size_t i = 0; i < n; i++)
		most += ports[i]->port.n_addresses;
	claims = malloc(most * sizeof(*claims));
	if (!claims)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		check_network(sorted, ports[i], diag);
		if (host)
			check_uplink(host, ports[i], diag);
	}
	check_devices(ports, n, claims, diag);
	check_macs(ports, n, claims, diag);
	check_unique_addresses(ports, n, claims, diag);
	return 0;
}
