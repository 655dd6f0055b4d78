/* SPDX-License-Identifier: Apache-2.0 */
/* Policy sets: uplinks with the same policies share a pair of sets, one a direction. */
#include <util/cleanup.h>

#include <policy/internal.h>

static bool policy_names(const struct host_policy *policy, const char *device)
{
	for (size_t i = 0; i < policy->n_uplinks; i++)
		if (strcmp(policy->uplinks[i], device) == 0)
			return true;
	return policy->n_uplinks == 0;
}

/* Both uplinks belong to the same policies. */
static bool same_policies(const struct round *round, const char *a, const char *b)
{
	for (size_t i = 0; i < round->limited.n; i++)
		if (policy_names(&round->limited.data[i]->policy, a) != policy_names(&round->limited.data[i]->policy, b))
			return false;
	return true;
}

static uint32_t pair_before(const struct tables *t, const char *device)
{
	for (size_t i = 0; i < t->uplinks.n; i++)
		if (strcmp(t->uplinks.data[i].device, device) == 0)
			return t->uplinks.data[i].pair;
	return UINT32_MAX;
}

int pair_new(struct round *round, bool ports, uint32_t *ret)
{
	struct tables *t = round->t;
	size_t i = round->pairs_used; /* none below is free */

	while (i < t->pairs.n && t->pairs.data[i].state != PAIR_FREE)
		i++;
	if (i == PAIRS_MAX) {
		diag_add(round->diag, NULL, 0, NULL, "more than %u uplinks and ports with different policies", PAIRS_MAX);
		return -E2BIG;
	}
	if (i == t->pairs.n && VEC_PUSH(&t->pairs, (struct pair){0}) < 0)
		return -ENOMEM;
	round->pairs_used = i + 1;
	t->pairs.data[i] = (struct pair){.state = PAIR_LIVE, .ports = ports};
	*ret = (uint32_t)i;
	return 0;
}

void set_is_new(struct round *round, uint32_t pair)
{
	for (int d = 0; d < HD_DIRECTIONS; d++)
		round->sets.data[SET_ID(pair, d)] |= SET_TOUCHED | SET_ANY | SET_MEANING;
}

int sets_cover(struct round *round)
{
	if (VEC_RESERVE(&round->sets, round->t->pairs.n * 2 + 1) < 0)
		return -ENOMEM;
	while (round->sets.n < round->t->pairs.n * 2 + 1)
		round->sets.data[round->sets.n++] = 0;
	return 0;
}

/* Which uplinks share a pair now. A group of uplinks keeps the pair that one of them had, so that little changes. */
int sets_update(struct round *round)
{
	const struct host *host = round->input->host;
	struct tables *t = round->t;
	size_t n = host->n_uplinks, old_pairs = t->pairs.n;
	_cleanup_free_ uint32_t *pair = malloc((n + 1) * sizeof(*pair));
	_cleanup_free_ bool *taken = calloc(old_pairs + 1, sizeof(*taken));
	int r = 0;

	if (!pair || !taken)
		return -ENOMEM;
	for (size_t i = 0; i < round->new_policies.n && r == 0; i++)
		if (round->new_policies.data[i]->kind == OBJECT_HOST_POLICY && round->new_policies.data[i]->policy.n_uplinks)
			r = VEC_PUSH(&round->limited, round->new_policies.data[i]);
	for (size_t i = 0; i < n && r == 0; i++) {
		size_t first = 0;
		uint32_t old = UINT32_MAX;

		while (first < i && !same_policies(round, host->uplinks[first].device, host->uplinks[i].device))
			first++;
		if (first < i) {
			pair[i] = pair[first];
			continue;
		}
		for (size_t j = i; j < n && old == UINT32_MAX; j++) {
			if (!same_policies(round, host->uplinks[i].device, host->uplinks[j].device))
				continue;
			old = pair_before(t, host->uplinks[j].device);
			if (old != UINT32_MAX && taken[old])
				old = UINT32_MAX;
		}
		if (old != UINT32_MAX) {
			taken[old] = true;
			pair[i] = old;
			continue;
		}
		r = pair_new(round, false, &pair[i]);
		if (r == 0)
			r = sets_cover(round);
		if (r == 0 && pair[i] < old_pairs)
			taken[pair[i]] = true;
		if (r == 0)
			set_is_new(round, pair[i]);
	}
	if (r == 0)
		r = sets_cover(round);
	if (r == 0)
		r = VEC_RESERVE(&t->uplinks, n);
	if (r < 0)
		return r;
	for (size_t i = 0; i < old_pairs; i++)
		if (t->pairs.data[i].state == PAIR_LIVE && !t->pairs.data[i].ports && !taken[i])
			t->pairs.data[i].state = PAIR_RETIRED;
	t->uplinks.n = 0;
	for (size_t i = 0; i < n; i++) {
		struct uplink_pair *uplink = &t->uplinks.data[t->uplinks.n++];

		*uplink = (struct uplink_pair){.pair = pair[i]};
		strncpy(uplink->device, host->uplinks[i].device, sizeof(uplink->device) - 1);
	}
	return 0;
}

int policy_members(struct round *round, size_t index, struct membership *ret)
{
	const struct object *object = round->new_policies.data[index];
	const struct host *host = round->input->host;
	struct tables *t = round->t;

	if (policy_for_ports(object))
		return port_policy_members(round, index, ret);
	round->member.n = 0;
	for (size_t i = 0; i < t->uplinks.n; i++) {
		uint16_t pair = (uint16_t)t->uplinks.data[i].pair;
		size_t at = 0;

		if (!policy_names(&object->policy, host->uplinks[i].device))
			continue;
		while (at < round->member.n && round->member.data[at] < pair)
			at++;
		if (at < round->member.n && round->member.data[at] == pair)
			continue;
		if (VEC_PUSH(&round->member, 0) < 0)
			return -ENOMEM;
		memmove(&round->member.data[at + 1], &round->member.data[at], (round->member.n - 1 - at) * sizeof(uint16_t));
		round->member.data[at] = pair;
	}
	*ret = (struct membership){
		.pairs = {round->member.data, round->member.data},
		.n_pairs = {(uint32_t)round->member.n, (uint32_t)round->member.n},
	};
	return 0;
}

static bool is_member(const struct prepared *prepared, int direction, uint32_t pair)
{
	const uint16_t *pairs = prepared->member.pairs[direction];
	uint32_t low = 0, high = prepared->member.n_pairs[direction];

	while (low < high) {
		uint32_t middle = (low + high) / 2;

		if (pairs[middle] == pair)
			return true;
		if (pairs[middle] < pair)
			low = middle + 1;
		else
			high = middle;
	}
	return false;
}

/* What decides an uplink's default: the last of its policies that has one. NULL: none. */
static const struct object *default_policy(const struct tables *t, uint32_t pair, int direction)
{
	for (size_t i = t->policies.n; i-- > 0;) {
		const struct prepared *prepared = t->policies.data[i];

		if (!prepared->expanded && prepared->object->policy.default_verdict[direction] >= 0 &&
			is_member(prepared, direction, pair))
			return prepared->object;
	}
	return NULL;
}

static void default_update(struct round *round, uint32_t p, int direction)
{
	struct pair *pair = &round->t->pairs.data[p];
	const struct object *policy = pair->ports ? NULL : default_policy(round->t, p, direction);
	bool lockdown = round->input->lockdown, audit = policy && policy->policy.audit;
	int8_t verdict = HD_ALLOW;

	if (pair->ports)
		verdict = pair->isolation[direction] ? HD_DENY : HD_ALLOW;
	else if (policy)
		verdict = (int8_t)policy->policy.default_verdict[direction];
	else if (lockdown && direction == HD_INGRESS)
		verdict = HD_DENY;
	audit = audit && verdict != HD_ALLOW;
	if (verdict == pair->verdict[direction] && audit == pair->audit[direction] &&
		(pair->ports || round->t->lockdown == lockdown))
		return;
	pair->verdict[direction] = verdict;
	pair->audit[direction] = audit;
	round->sets.data[SET_ID(p, direction)] |= SET_ANY | SET_MEANING;
}

/* The default of each set. */
void defaults_update(struct round *round)
{
	for (uint32_t p = 0; p < round->t->pairs.n; p++)
		for (int d = 0; d < HD_DIRECTIONS; d++)
			if (round->t->pairs.data[p].state == PAIR_LIVE)
				default_update(round, p, d);
}

static bool failsafe_equal(const struct tables *t, const struct host *host)
{
	if (t->failsafe.n != host->n_failsafe)
		return false;
	for (size_t i = 0; i < host->n_failsafe; i++) {
		const struct port_range *a = &t->failsafe.data[i], *b = &host->failsafe[i];

		if (a->protocol != b->protocol || a->first != b->first || a->last != b->last)
			return false;
	}
	return true;
}

int failsafe_update(struct round *round)
{
	const struct host *host = round->input->host;
	struct tables *t = round->t;

	if (failsafe_equal(t, host))
		return 0;
	if (VEC_RESERVE(&t->failsafe, host->n_failsafe) < 0)
		return -ENOMEM;
	t->failsafe.n = host->n_failsafe;
	if (host->n_failsafe)
		memcpy(t->failsafe.data, host->failsafe, host->n_failsafe * sizeof(*host->failsafe));
	for (uint32_t p = 0; p < t->pairs.n; p++)
		if (!t->pairs.data[p].ports)
			round->sets.data[SET_ID(p, HD_INGRESS)] |= SET_ANY | SET_MEANING;
	return 0;
}

/* The policies of the uplinks. One that came to another set has another policy, even where neither set changed. */
int uplinks_finish(struct round *round)
{
	const struct host *host = round->input->host;
	const struct tables *before = &round->compiler->before;
	struct tables *t = round->t;

	for (size_t i = 0; i < host->n_uplinks; i++) {
		struct uplink_pair *at = &t->uplinks.data[i];
		struct uplink_policy uplink = {.device = host->uplinks[i].device, .policy = {.generation = round->generation}};
		const struct uplink_pair *old = NULL;

		for (size_t j = 0; j < before->uplinks.n && !old; j++)
			if (strcmp(before->uplinks.data[j].device, at->device) == 0)
				old = &before->uplinks.data[j];
		for (int d = 0; d < HD_DIRECTIONS; d++) {
			bool other = !old || old->pair != at->pair || round->sets.data[SET_ID(at->pair, d)] & SET_MEANING;

			at->version[d] = other ? round->generation : old->version[d];
			uplink.policy.set[d] = SET_NUMBER(SET_ID(at->pair, d));
			uplink.policy.version[d] = at->version[d];
			uplink.policy.root[d] = HD_TAG_NODE | tree_root(t, t->pairs.data[at->pair].tree[d]);
		}
		if (VEC_PUSH(&round->uplinks, uplink) < 0)
			return -ENOMEM;
	}
	return 0;
}
