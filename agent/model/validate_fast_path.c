// SPDX-License-Identifier: Apache-2.0
/* FastPaths with the Host, Ports and HostPolicies that they name, and among themselves: a packet has one way to go. */
#include <model/validate.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <heddle/steer.h>
#include <util/cleanup.h>

static bool is_uplink(const struct object *host, const char *device)
{
	return host && host_has_uplink(&host->host, device);
}

static bool is_port(const struct object_list *sorted, const char *device)
{
	for (size_t i = 0; i < sorted->n; i++)
		if (sorted->items[i]->kind == OBJECT_PORT && sorted->items[i]->port.device &&
			strcmp(sorted->items[i]->port.device, device) == 0)
			return true;
	return false;
}

static void check_uplink(
	const struct object *host, const struct object *object, const char *path, const char *device, struct diag *diag)
{
	char wanted[320];

	if (is_uplink(host, device))
		return;
	snprintf(wanted, sizeof(wanted), "an uplink of %s%s%s", host ? "Host " : "a Host", host ? host->name : "",
		object->fast_path.devices ? ", or a Port's device" : "");
	validate_complain(diag, object, object->line, path, wanted, device);
}

static void check_place(
	const struct object_list *sorted, const struct object *host, const struct object *object, struct diag *diag)
{
	const struct fast_path *path = &object->fast_path;
	const struct object *port;
	char at[40], got[600];

	if (path->port) {
		port = object_list_find(sorted, OBJECT_PORT, path->port_namespace, path->port);
		snprintf(got, sizeof(got), "%.250s/%.250s, which %s", path->port_namespace, path->port,
			port ? "has none" : "no document declares");
		if (!port || !port->port.device)
			validate_complain(diag, object, object->line, "spec.port",
				port ? "a Port with a device" : "the name of a Port", got);
		return;
	}
	if (path->uplink)
		check_uplink(host, object, "spec.uplink", path->uplink, diag);
	for (size_t i = 0; i < path->n_devices; i++) {
		snprintf(at, sizeof(at), "spec.devices[%zu]", i);
		if (!is_port(sorted, path->devices[i]))
			check_uplink(host, object, at, path->devices[i], diag);
	}
}

static bool has_rule(const struct object *policy, const char *name)
{
	struct rule_head head;

	for (uint32_t i = 0; i < policy->policy.n_rules[HD_INGRESS]; i++)
		if (object_rule_head(policy, HD_INGRESS, i, &head) == 0 && head.name && strcmp(head.name, name) == 0)
			return true;
	return false;
}

static void check_policies(const struct object_list *sorted, const struct object *object, struct diag *diag)
{
	char path[64], got[600];

	for (size_t i = 0; i < object->fast_path.n_matches; i++) {
		const struct fast_match *match = &object->fast_path.matches[i];
		const struct object *policy =
			match->policy ? object_list_find(sorted, OBJECT_HOST_POLICY, NULL, match->policy) : NULL;

		if (match->policy && !policy) {
			snprintf(path, sizeof(path), "spec.match[%zu].hostPolicy", i);
			snprintf(got, sizeof(got), "%s, which no document declares", match->policy);
			validate_complain(diag, object, match->line, path, "the name of a HostPolicy", got);
		} else if (policy && match->rule && !has_rule(policy, match->rule)) {
			snprintf(path, sizeof(path), "spec.match[%zu].rule", i);
			snprintf(got, sizeof(got), "%.250s, which HostPolicy %.250s has not", match->rule, match->policy);
			validate_complain(diag, object, match->line, path, "the name of an ingress rule", got);
		}
	}
}

/* --- which of two gets a packet --- */

struct claim {
	const struct object *object;
	const char *device; /* on which it is */
	const struct fast_match *match;
	size_t index;
};

/* Equal for matches that ask about the same fields (HD_MATCH_SHAPE). */
static uint32_t fast_match_shape(const struct fast_match *match)
{
	uint32_t fields = (match->policy ? HD_MATCH_RULE : 0) | (match->protocol ? HD_MATCH_PROTOCOL : 0) |
			  (match->source_port ? HD_MATCH_SPORT : 0) | (match->port ? HD_MATCH_DPORT : 0) |
			  (match->vlan ? HD_MATCH_VLAN : 0);

	return HD_MATCH_SHAPE(fields, (uint32_t)match->source.length, (uint32_t)match->destination.length);
}

static int compare_text(const char *a, const char *b)
{
	if (!a || !b)
		return (a != NULL) - (b != NULL);
	return strcmp(a, b);
}

static int compare_keys(const struct claim *x, const struct claim *y)
{
	const struct fast_match *a = x->match, *b = y->match;
	uint32_t m = fast_match_shape(a), n = fast_match_shape(b);
	int r = strcmp(x->device, y->device);

	if (r == 0)
		r = (m > n) - (m < n);
	if (r == 0)
		r = memcmp(&a->source.addr, &b->source.addr, sizeof(a->source.addr));
	if (r == 0)
		r = memcmp(&a->destination.addr, &b->destination.addr, sizeof(a->destination.addr));
	if (r == 0)
		r = (a->protocol - b->protocol) ? a->protocol - b->protocol : a->port - b->port;
	if (r == 0)
		r = (a->source_port - b->source_port) ? a->source_port - b->source_port : a->vlan - b->vlan;
	if (r == 0)
		r = compare_text(a->policy, b->policy);
	return r ? r : compare_text(a->rule, b->rule);
}

static int compare_claims(const void *a, const void *b)
{
	const struct claim *x = a, *y = b;
	int r = compare_keys(x, y);

	if (r == 0)
		r = object_compare(x->object, y->object);
	return r ? r : (x->index > y->index) - (x->index < y->index);
}

/* Sorted, claims of one uplink stand together, and of those the ones of one shape. */
static void check_claims(struct claim *claims, size_t n, struct diag *diag)
{
	unsigned shapes = 0;
	char path[64], got[400];

	qsort(claims, n, sizeof(*claims), compare_claims);
	for (size_t i = 0; i < n; i++) {
		const struct claim *a = i ? &claims[i - 1] : NULL, *b = &claims[i];
		bool same_uplink = a && strcmp(a->device, b->device) == 0;

		snprintf(path, sizeof(path), "spec.match[%zu]", b->index);
		if (a && compare_keys(a, b) == 0) {
			snprintf(got, sizeof(got), "what spec.match[%zu] of FastPath %s has", a->index, a->object->name);
			validate_complain(diag, b->object, b->match->line, path, "packets that no other FastPath takes", got);
		}
		if (!same_uplink)
			shapes = 1;
		else if (fast_match_shape(a->match) != fast_match_shape(b->match) && ++shapes == HD_FAST_SHAPES + 1)
			validate_complain(diag, b->object, b->match->line, path,
				"at most 8 kinds of matches on an uplink (fields that are asked about, lengths of blocks)",
				"a ninth");
	}
}

/* What a FastPath is on: an uplink, or the devices of workers. */
static size_t places(const struct fast_path *path)
{
	return path->uplink ? 1 : path->n_devices;
}

static const char *place(const struct fast_path *path, size_t i)
{
	return path->uplink ? path->uplink : path->devices[i];
}

static int check_matches(struct object **paths, size_t n, struct diag *diag)
{
	_cleanup_free_ struct claim *claims = NULL;
	size_t n_claims = 0;
	char got[64];

	for (size_t i = 0; i < n; i++)
		n_claims += places(&paths[i]->fast_path) * paths[i]->fast_path.n_matches;
	if (n_claims > FAST_PATH_MATCHES_MOST) {
		snprintf(got, sizeof(got), "%zu", n_claims);
		validate_complain(
			diag, paths[n - 1], paths[n - 1]->line, "spec.match", "at most 1024 matches of all FastPaths", got);
		return 0;
	}
	claims = calloc(n_claims + 1, sizeof(*claims));
	if (!claims)
		return -ENOMEM;
	n_claims = 0;
	for (size_t i = 0; i < n; i++) {
		const struct fast_path *path = &paths[i]->fast_path;

		for (size_t k = 0; k < places(path); k++)
			for (size_t j = 0; j < path->n_matches; j++)
				claims[n_claims++] = (struct claim){
					.object = paths[i], .device = place(path, k), .match = &path->matches[j], .index = j};
	}
	check_claims(claims, n_claims, diag);
	return 0;
}

static void check_ports(struct object **paths, size_t n, struct diag *diag)
{
	char got[400];

	for (size_t i = 0; i < n; i++)
		for (size_t j = 0; j < i && paths[i]->fast_path.port; j++) {
			const struct fast_path *a = &paths[j]->fast_path, *b = &paths[i]->fast_path;

			if (!a->port || strcmp(a->port, b->port) != 0 || strcmp(a->port_namespace, b->port_namespace) != 0)
				continue;
			snprintf(got, sizeof(got), "%s, which FastPath %s has", b->port, paths[j]->name);
			validate_complain(diag, paths[i], paths[i]->line, "spec.port", "a Port that no other FastPath has", got);
			break;
		}
}

/* A queue has one socket: what workers have, nobody else can have. */
static void check_devices(struct object **paths, size_t n, struct diag *diag)
{
	char at[40], got[400];

	for (size_t i = 0; i < n; i++)
		for (size_t j = 0; j < n; j++) {
			const struct fast_path *a = &paths[j]->fast_path, *b = &paths[i]->fast_path;

			/* said of the later one, or of the workers' */
			for (size_t k = 0; i != j && k < b->n_devices; k++)
				for (size_t l = 0; l < places(a); l++) {
					if ((a->devices && j > i) || strcmp(place(a, l), b->devices[k]) != 0)
						continue;
					snprintf(at, sizeof(at), "spec.devices[%zu]", k);
					snprintf(got, sizeof(got), "%s, which FastPath %s has", b->devices[k], paths[j]->name);
					validate_complain(
						diag, paths[i], paths[i]->line, at, "a device that no other FastPath has", got);
				}
		}
}

int validate_fast_paths(const struct object_list *sorted, const struct object *host, struct diag *diag)
{
	size_t n, indexes = 0;
	struct object **paths = validate_kind(sorted, OBJECT_FAST_PATH, &n);

	if (n == 0)
		return 0;
	for (size_t i = 0; i < n; i++)
		indexes += paths[i]->fast_path.n_devices ? paths[i]->fast_path.n_devices : 1;
	if (indexes > HD_FAST_PATHS)
		validate_complain(diag, paths[n - 1], paths[n - 1]->line, NULL,
			"at most 64 FastPaths, one of workers counting once for each device", "more");
	for (size_t i = 0; i < n; i++) {
		/* the name is that of a socket */
		if (strlen(paths[i]->name) > FAST_PATH_NAME_MOST)
			validate_complain(diag, paths[i], paths[i]->line, "metadata.name", "at most 63 letters", paths[i]->name);
		check_place(sorted, host, paths[i], diag);
		check_policies(sorted, paths[i], diag);
	}
	check_ports(paths, n, diag);
	check_devices(paths, n, diag);
	return check_matches(paths, n, diag);
}
