// SPDX-License-Identifier: Apache-2.0
/* What can only be said of all objects together. */
#include <model/validate.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <util/cleanup.h>

void validate_complain(
	struct diag *diag, const struct object *object, uint32_t line, const char *path, const char *want, const char *got)
{
	char title[OBJECT_TITLE_MAX + 16] = "applied ";

	if (!object->file)
		object_title(object->kind, object->namespace_, object->name, title + strlen(title));
	diag_add(diag, object->file ? object->file : title, object->file ? line : 0, path, "want %s, got %s", want, got);
}

/* A group is missing: which rules name it. */
static void name_peers(
	const struct object_list *sorted, const struct object *object, enum hd_direction direction, struct diag *diag)
{
	const struct host_policy *policy = &object->policy;
	const struct rule *rules = object_rules(object, direction);
	const char *last = NULL;
	char path[128], got[320];

	for (size_t i = 0; i < policy->n_rules[direction]; i++) {
		const struct rule *rule = &rules[i];

		for (uint32_t j = 0; j < rule->n_peers; j++) {
			const char *group = rule->peers[j].group;

			/* Equal names of one object are one string: often the one just looked up. */
			if (!group || group == last)
				continue;
			if (object_list_find(sorted, OBJECT_ADDRESS_GROUP, NULL, group)) {
				last = group;
				continue;
			}
			snprintf(path, sizeof(path), "spec.%s[%zu].%s[%u].addressGroup",
				direction == HD_INGRESS ? "ingress" : "egress", i, direction == HD_INGRESS ? "from" : "to", j);
			snprintf(got, sizeof(got), "%s, which no document declares", group);
			validate_complain(diag, object, rule->line, path, "the name of an AddressGroup", got);
		}
	}
}

static void check_groups(const struct object_list *sorted, const struct object *object, struct diag *diag)
{
	const struct host_policy *policy = &object->policy;

	for (size_t i = 0; i < policy->n_groups; i++) {
		if (object_list_find(sorted, OBJECT_ADDRESS_GROUP, NULL, policy->groups[i]))
			continue;
		name_peers(sorted, object, HD_INGRESS, diag);
		name_peers(sorted, object, HD_EGRESS, diag);
		return;
	}
}

struct object **validate_kind(const struct object_list *sorted, enum object_kind kind, size_t *ret_n)
{
	size_t first = 0, last;

	while (first < sorted->n && sorted->items[first]->kind < kind)
		first++;
	for (last = first; last < sorted->n && sorted->items[last]->kind == kind;)
		last++;
	*ret_n = last - first;
	return sorted->items + first;
}

static void check_uplinks(const struct object *host, const struct object *object, struct diag *diag)
{
	const struct host_policy *policy = &object->policy;
	char path[64], wanted[320];

	for (size_t i = 0; i < policy->n_uplinks; i++) {
		if (host_has_uplink(&host->host, policy->uplinks[i]))
			continue;
		snprintf(path, sizeof(path), "spec.uplinks[%zu]", i);
		snprintf(wanted, sizeof(wanted), "an uplink of Host %s", host->name);
		validate_complain(diag, object, object->line, path, wanted, policy->uplinks[i]);
	}
}

int model_validate_change(const struct object_list *all, const struct object_list *valid, struct diag *diag)
{
	struct object_list sorted = {.n = all->n};
	_cleanup_free_ struct object **items = NULL;
	const struct object *host = NULL;
	unsigned errors = diag->errors;
	char title[OBJECT_TITLE_MAX], got[OBJECT_TITLE_MAX + 320];

	if (all->n == 0)
		return 0;
	sorted.items = items = malloc(all->n * sizeof(struct object *));
	if (!items)
		return -ENOMEM;
	memcpy(items, all->items, all->n * sizeof(struct object *));
	object_list_sort(&sorted);

	for (size_t i = 0; i < sorted.n; i++) {
		const struct object *object = items[i], *other = i ? items[i - 1] : NULL;

		if (other && object_compare(object, other) == 0) {
			if (!object->file) { /* the mistake is the file's: what was applied was there first */
				object = other;
				other = items[i];
			}
			object_title(object->kind, object->namespace_, object->name, title);
			if (other->file)
				snprintf(got, sizeof(got), "%s again (also in %.256s, line %u)", title, other->file, other->line);
			else
				snprintf(got, sizeof(got), "%s again (also applied through the API: delete it there first)",
					title);
			validate_complain(diag, object, object->line, NULL, "each object once", got);
		} else if (object->kind == OBJECT_HOST) {
			if (host) {
				snprintf(got, sizeof(got), "Host %s beside Host %s", object->name, host->name);
				validate_complain(diag, object, object->line, NULL, "at most one Host", got);
			}
			host = object;
		}
	}
	for (size_t i = 0; i < sorted.n; i++) {
		const struct object *object = items[i];

		if (object->kind != OBJECT_HOST_POLICY)
			continue;
		check_groups(&sorted, object, diag);
		if (host)
			check_uplinks(host, object, diag);
	}
	if (validate_networks(&sorted, diag) < 0 || validate_ports(&sorted, host, diag) < 0 || validate_nat(&sorted, diag) < 0 ||
		validate_peers(&sorted, host, diag) < 0 || validate_fast_paths(&sorted, host, diag) < 0)
		return -ENOMEM;
	if (validate_workloads(&sorted, diag->errors == errors ? valid : NULL, diag) < 0)
		return -ENOMEM;
	return diag->errors == errors ? 0 : -EINVAL;
}

int model_validate(const struct object_list *all, struct diag *diag)
{
	return model_validate_change(all, NULL, diag);
}
