/* SPDX-License-Identifier: Apache-2.0 */
/* The four lists of rules that are judged in one order each, and the words for what was found. */
#include <stdarg.h>
#include <stdio.h>

#include <util/buffer.h>

#include <policy/lint_internal.h>

static void lint_clear(struct lint *lint)
{
	VEC_FREE(&lint->policies);
	VEC_FREE(&lint->groups);
	VEC_FREE(&lint->ports);
	VEC_FREE(&lint->peers);
	VEC_FREE(&lint->namespaces);
	VEC_FREE(&lint->hosts);
	VEC_FREE(&lint->rules);
	VEC_FREE(&lint->pieces);
	VEC_FREE(&lint->notes);
	lint_relation_free(&lint->selectors);
	lint_relation_free(&lint->scopes);
}

/* --- numbers by hash --- */

int lint_index_room(struct lint_index *index)
{
	struct lint_index grown = {.size = index->size ? index->size * 2 : 256};

	if (2 * index->n < index->size)
		return 0;
	grown.slots = calloc(grown.size, sizeof(*grown.slots));
	if (!grown.slots)
		return -ENOMEM;
	for (size_t i = 0; i < index->size; i++) {
		struct lint_slot *slot = lint_index_at(&grown, index->slots[i].hash);

		if (!index->slots[i].used)
			continue;
		while (slot->used)
			slot = lint_index_next(&grown, slot);
		lint_index_put(&grown, slot, index->slots[i].hash, index->slots[i].number);
	}
	free(index->slots);
	*index = grown;
	return 0;
}

void lint_index_free(struct lint_index *index)
{
	free(index->slots);
	*index = (struct lint_index){0};
}

/* --- notes --- */

int lint_note_rule(struct lint *lint, const struct lint_rule *rule, enum lint_kind kind, enum lint_detail detail, bool warning,
	const char *about, const char *what)
{
	return VEC_PUSH(&lint->notes, (struct lint_note){.kind = kind,
					      .detail = detail,
					      .warning = warning,
					      .at = lint_place_of(lint, rule),
					      .about = about,
					      .what = what,
					      .policy_order = rule->policy_order});
}

int lint_note_policy(struct lint *lint, const struct object *policy, int direction, enum lint_kind kind, enum lint_detail detail,
	bool warning, const char *about, const char *what)
{
	return VEC_PUSH(&lint->notes, (struct lint_note){.kind = kind,
					      .detail = detail,
					      .warning = warning,
					      .at = {.policy = policy, .direction = direction, .index = -1, .line = policy->line},
					      .about = about,
					      .what = what,
					      .policy_order = lint->policy_order});
}

static int note_cmp(const void *a, const void *b)
{
	const struct lint_note *x = a, *y = b;

	if (x->policy_order != y->policy_order)
		return x->policy_order < y->policy_order ? -1 : 1;
	if (x->at.direction != y->at.direction)
		return x->at.direction < y->at.direction ? -1 : 1;
	if (x->at.index != y->at.index)
		return x->at.index < y->at.index ? -1 : 1;
	return (x->kind > y->kind) - (x->kind < y->kind);
}

/* --- words --- */

static void add_place(struct buffer *text, const struct lint_place *place)
{
	char title[OBJECT_TITLE_MAX];

	if (!place->policy) {
		buffer_printf(text, "the built-in rule %s", place->name ? place->name : "?");
		return;
	}
	buffer_add_string(text, object_title(place->policy->kind, place->policy->namespace_, place->policy->name, title));
	if (place->index >= 0)
		buffer_printf(text, " %s[%lld]", place->direction == HD_EGRESS ? "egress" : "ingress", (long long)place->index);
	if (place->index >= 0 && place->name)
		buffer_printf(text, " %s", place->name);
}

static void add_causes(struct buffer *text, const struct lint_note *note)
{
	for (unsigned i = 0; i < note->n_because; i++) {
		if (i)
			buffer_add_string(text, i + 1 == note->n_because && !note->more ? " and " : ", ");
		add_place(text, &note->because[i]);
	}
	if (note->more)
		buffer_printf(text, " and %u more", note->more);
}

static void add_message(struct buffer *text, const struct lint_note *note)
{
	const char *direction = note->at.direction == HD_EGRESS ? "egress" : "ingress", *what = note->what ? note->what : "?";
	bool many = note->n_because + note->more > 1;

	switch (note->detail) {
	case LINT_SAME_VERDICT:
		add_causes(text, note);
		buffer_printf(text, " decide%s all that it matches, and the same: it could be left out", many ? "" : "s");
		break;
	case LINT_OTHER_VERDICT:
		add_causes(text, note);
		buffer_printf(text, " decide%s all that it matches before it: it never takes effect", many ? "" : "s");
		break;
	case LINT_DEFAULT_REPLACED:
		buffer_printf(text, "its default for %s does not count: ", direction);
		add_causes(text, note);
		buffer_add_string(text, " sets one after it");
		break;
	case LINT_UPLINK_UNDECLARED:
		buffer_printf(
			text, "no Host declares the uplink %s%s", what, note->warning ? ": the policy applies nowhere" : "");
		break;
	case LINT_PEERS_EMPTY:
		if (note->what)
			buffer_printf(text, "the AddressGroup %s has no address: it matches nothing", what);
		else
			buffer_add_string(text, "its peers cover no address: it matches nothing");
		break;
	case LINT_PEERS_NOBODY:
		buffer_add_string(text, "its peers select no port and no host that there is");
		break;
	case LINT_SUBJECT_NOBODY:
		buffer_add_string(text, "it selects no port that there is");
		break;
	case LINT_NAMED_NOBODY:
		buffer_printf(text, "nobody it is about has a port named %s: it matches nothing", what);
		break;
	case LINT_NAMED_SOME:
		buffer_printf(text, "nobody it is about has a port named %s: that part of it matches nothing", what);
		break;
	case LINT_SELECTOR_CONTRADICTS:
		buffer_printf(text, "a %s contradicts itself: no labels meet it", what);
		break;
	case LINT_NO_SUCH_PACKET:
		buffer_add_string(
			text, "no packet is all that it asks for: protocol, ICMP type, source ports, family of its peers");
		break;
	case LINT_CONTAINS:
		buffer_add_string(text, "it allows all that ");
		add_causes(text, note);
		buffer_printf(text, " match%s, which therefore decide%s nothing", many ? "" : "es", many ? "" : "s");
		break;
	case LINT_ANY_TO_ANY:
		buffer_printf(
			text, "it allows every protocol and port %s everywhere", note->at.direction == HD_EGRESS ? "to" : "from");
		break;
	}
}

static int tell(const struct lint_note *note, lint_cb cb, void *userdata)
{
	struct buffer text = {0};
	struct lint_finding finding = {.kind = note->kind,
		.warning = note->warning,
		.at = note->at,
		.n_because = note->n_because,
		.more = note->more,
		.about = note->about,
		.what = note->what};
	int r;

	memcpy(finding.because, note->because, sizeof(finding.because));
	add_message(&text, note);
	finding.message = text.data;
	r = text.failed ? -ENOMEM : cb(&finding, userdata);
	buffer_clear(&text);
	return r;
}

/* --- the lists --- */

static int object_cmp(const void *a, const void *b)
{
	return object_compare(*(struct object *const *)a, *(struct object *const *)b);
}

/* The policies of one kind and what they are about. */
static int collect(struct lint *lint, bool for_ports)
{
	int r = 0;

	for (size_t i = 0; i < lint->objects->n && r == 0; i++) {
		struct object *object = lint->objects->items[i];

		if (object->kind == OBJECT_HOST)
			lint->host = &object->host;
		else if (object->kind == OBJECT_ADDRESS_GROUP)
			r = VEC_PUSH(&lint->groups, object);
		else if (object->kind == OBJECT_PORT)
			r = VEC_PUSH(&lint->ports, object);
		else if (object->kind == OBJECT_PEER)
			r = VEC_PUSH(&lint->peers, object);
		else if (object->kind == OBJECT_NAMESPACE)
			r = VEC_PUSH(&lint->namespaces, object);
		else if (for_ports ? policy_for_ports(object) : object->kind == OBJECT_HOST_POLICY)
			r = VEC_PUSH(&lint->policies, object);
		if (r == 0 && policy_is_host(object))
			r = VEC_PUSH(&lint->hosts, object);
	}
	if (lint->policies.n)
		qsort(lint->policies.data, lint->policies.n, sizeof(struct object *), policy_cmp);
	if (lint->groups.n)
		qsort(lint->groups.data, lint->groups.n, sizeof(struct object *), object_cmp);
	if (lint->ports.n)
		qsort(lint->ports.data, lint->ports.n, sizeof(struct object *), object_cmp);
	return r;
}

static int lint_direction(const struct object_list *objects, bool for_ports, enum hd_direction direction, struct lint *all)
{
	__attribute__((cleanup(lint_clear))) struct lint lint = {.objects = objects, .direction = direction};
	int r = collect(&lint, for_ports);

	if (r == 0)
		r = for_ports ? lint_workloads(&lint) : lint_hosts(&lint);
	if (r == 0)
		r = lint_covered(&lint);
	for (size_t i = 0; i < lint.notes.n && r == 0; i++)
		r = VEC_PUSH(&all->notes, lint.notes.data[i]);
	return r;
}

int lint_policies(const struct object_list *objects, lint_cb cb, void *userdata)
{
	int r = 0;

	for (int for_ports = 0; for_ports < 2 && r == 0; for_ports++) {
		__attribute__((cleanup(lint_clear))) struct lint all = {0};

		for (int d = 0; d < HD_DIRECTIONS && r == 0; d++)
			r = lint_direction(objects, for_ports, (enum hd_direction)d, &all);
		if (all.notes.n)
			qsort(all.notes.data, all.notes.n, sizeof(*all.notes.data), note_cmp);
		for (size_t i = 0; i < all.notes.n && r == 0; i++)
			r = tell(&all.notes.data[i], cb, userdata);
	}
	return r;
}
