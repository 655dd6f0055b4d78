/* SPDX-License-Identifier: Apache-2.0 */
/* Policies as they are compiled: the document's rules and the compiled ones, and who has them. */
#include <policy/internal.h>

/* --- looking up --- */

uint32_t prepared_rules(const struct prepared *prepared, int direction)
{
	return prepared->expanded ? prepared->expanded->n_rules[direction]
				  : (uint32_t)prepared->object->policy.n_rules[direction];
}

uint32_t prepared_listed(const struct prepared *prepared, int direction)
{
	const struct object *object = prepared->object;

	return (uint32_t)(prepared->expanded ? object->workload.n_rules[direction] : object->policy.n_rules[direction]);
}

bool prepared_audit(const struct prepared *prepared)
{
	return prepared->expanded ? prepared->expanded->audit : prepared->object->policy.audit;
}

uint32_t prepared_source(const struct rule_place *place)
{
	const struct expanded *expanded = place->prepared->expanded;

	return expanded ? expanded->rules[place->direction][place->index].source : place->index;
}

const struct rule *prepared_rule(const struct prepared *prepared, int direction, uint32_t index)
{
	return prepared->expanded ? &prepared->expanded->rules[direction][index].rule
				  : &object_rules(prepared->object, (enum hd_direction)direction)[index];
}

/* NULL: all of the policy's pairs have it. */
const struct limited *rule_limited(const struct prepared *prepared, int direction, uint32_t index)
{
	const struct limited *limited = prepared->member.limited;

	if (direction == HD_INGRESS)
		for (uint32_t i = 0; i < prepared->member.n_limited && limited[i].rule <= index; i++)
			if (limited[i].rule == index)
				return &limited[i];
	return NULL;
}

/* The pairs that have the rule, ascending. */
const uint16_t *rule_pairs(const struct rule_place *place, uint32_t *ret_n)
{
	const struct limited *limited = rule_limited(place->prepared, place->direction, place->index);

	*ret_n = limited ? limited->n : place->prepared->member.n_pairs[place->direction];
	return limited ? limited->pairs : place->prepared->member.pairs[place->direction];
}

/* The policy whose orders these are; index: within its direction. */
static bool find_place(const struct tables *t, uint32_t order, struct rule_place *ret)
{
	size_t low = 0, high = t->policies.n;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (t->policies.data[middle]->base[HD_INGRESS] <= order)
			low = middle + 1;
		else
			high = middle;
	}
	if (low == 0)
		return false;
	const struct prepared *prepared = t->policies.data[low - 1];
	int direction = order >= prepared->base[HD_EGRESS];

	*ret = (struct rule_place){
		.prepared = prepared, .direction = (uint8_t)direction, .index = order - prepared->base[direction]};
	return true;
}

bool rule_place_by_order(const struct tables *t, uint32_t order, struct rule_place *ret)
{
	return find_place(t, order, ret) && ret->index < prepared_rules(ret->prepared, ret->direction);
}

bool rule_place_by_id(const struct tables *t, uint32_t id, struct rule_place *ret)
{
	/* A free id has a link there: only the rule itself can say. */
	return id >= HD_RULE_FIRST && id < t->rule_order.n && find_place(t, t->rule_order.data[id], ret) &&
	       ret->index < prepared_listed(ret->prepared, ret->direction) &&
	       ret->prepared->ids[ret->direction][ret->index] == id;
}

const struct rule *rule_by_order(const struct tables *t, uint32_t order, struct rule_place *where)
{
	struct rule_place place;

	if (!rule_place_by_order(t, order, &place))
		return NULL;
	if (where)
		*where = place;
	return prepared_rule(place.prepared, place.direction, place.index);
}

/* --- making --- */

static uint16_t *copy_pairs(uint16_t **at, const uint16_t *pairs, uint32_t n)
{
	uint16_t *copy = *at;

	if (n)
		memcpy(copy, pairs, n * sizeof(*pairs));
	*at += n;
	return copy;
}

struct prepared *prepared_new(struct object *object, struct expanded *expanded, const struct membership *member)
{
	struct prepared like = {.object = object, .expanded = expanded}, *prepared;
	size_t n = prepared_listed(&like, HD_INGRESS) + prepared_listed(&like, HD_EGRESS);
	size_t n_pairs = member->n_pairs[HD_INGRESS] + member->n_pairs[HD_EGRESS];
	struct limited *limited;
	uint16_t *at;

	for (uint32_t i = 0; i < member->n_limited; i++)
		n_pairs += member->limited[i].n;
	prepared =
		malloc(sizeof(*prepared) + member->n_limited * sizeof(*limited) + n * sizeof(uint32_t) + n_pairs * sizeof(*at));
	if (!prepared)
		return NULL;
	*prepared = (struct prepared){
		.object = object_ref(object), .expanded = expanded ? expanded_ref(expanded) : NULL, .member = *member};
	prepared->member.limited = limited = (struct limited *)(prepared + 1);
	prepared->ids[HD_INGRESS] = (uint32_t *)(limited + member->n_limited);
	prepared->ids[HD_EGRESS] = prepared->ids[HD_INGRESS] + prepared_listed(&like, HD_INGRESS);
	at = (uint16_t *)(prepared->ids[HD_INGRESS] + n);
	for (int d = 0; d < HD_DIRECTIONS; d++)
		prepared->member.pairs[d] = copy_pairs(&at, member->pairs[d], member->n_pairs[d]);
	for (uint32_t i = 0; i < member->n_limited; i++) {
		limited[i] = member->limited[i];
		limited[i].pairs = copy_pairs(&at, member->limited[i].pairs, member->limited[i].n);
	}
	return prepared;
}

void prepared_free(struct prepared *prepared)
{
	object_unref(prepared->object);
	expanded_unref(prepared->expanded);
	free(prepared);
}
