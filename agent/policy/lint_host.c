/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HostPolicies for lint: what each rule matches, and which lists of peers contain which. For the latter one address of each list is looked
 * up: whatever contains the list contains that address. The lists that do are found by a sweep over all their ranges, then compared as a whole.
 */
#include <netinet/in.h>

#include <util/hash.h>

#include <policy/lint_internal.h>
#include <policy/ranges.h>

#define SELECTOR_EVERYBODY 0u  /* rules without peers */
#define RANGES_MOST (1u << 20) /* of all lists together: beyond, a list is compared with equal ones only */
#define CANDIDATES_MOST 256u   /* lists that have the address, compared as a whole */
static const struct range everything[2] = {{0, UINT32_MAX}, {0, ~(u128)0}};

struct host_selector {
	const struct peer *peers;
	uint32_t n_peers;
	struct ranges ranges;
	bool opaque; /* its ranges are not known */
};

struct host_lint {
	struct lint *lint;
	VEC(struct host_selector) selectors;
	struct lint_index index;
	size_t n_ranges;
	VEC(uint64_t) sources; /* hashes of lists of source ports; numbers begin at 1 */
	/* scopes: for each so many flags, one a declared uplink */
	VEC(uint8_t) scopes;
	size_t n_uplinks;
};

static void host_clear(struct host_lint *host)
{
	for (size_t i = 0; i < host->selectors.n; i++)
		ranges_clear(&host->selectors.data[i].ranges);
	VEC_FREE(&host->selectors);
	VEC_FREE(&host->sources);
	VEC_FREE(&host->scopes);
	lint_index_free(&host->index);
}

/* --- peers --- */

static int host_selector_get(struct host_lint *host, const struct peer *peers, uint32_t n, uint32_t *ret)
{
	struct host_selector selector = {.peers = peers, .n_peers = n};
	uint64_t hash = n ? peers_hash(peers, n) : 0;
	struct lint_slot *slot;
	int r = 0;

	if (lint_index_room(&host->index) < 0)
		return -ENOMEM;
	for (slot = lint_index_at(&host->index, hash); slot->used; slot = lint_index_next(&host->index, slot)) {
		const struct host_selector *known = &host->selectors.data[slot->number];

		if (slot->hash == hash && peers_equal(known->peers, known->n_peers, peers, n)) {
			*ret = slot->number;
			return 0;
		}
	}
	selector.opaque = host->n_ranges >= RANGES_MOST;
	if (n && !selector.opaque)
		r = ranges_of_peers(peers, n, host->lint->groups.data, host->lint->groups.n, &selector.ranges);
	for (int f = 0; f < 2 && n == 0 && r == 0; f++)
		r = VEC_PUSH(&selector.ranges.family[f], everything[f]);
	host->n_ranges += selector.ranges.family[0].n + selector.ranges.family[1].n;
	if (r == 0)
		r = VEC_PUSH(&host->selectors, selector);
	if (r < 0) {
		ranges_clear(&selector.ranges);
		return r;
	}
	*ret = (uint32_t)host->selectors.n - 1;
	lint_index_put(&host->index, slot, hash, *ret);
	return 0;
}

static bool has_all(const struct host_selector *selector, int family)
{
	const struct range *ranges = selector->ranges.family[family].data;

	return selector->ranges.family[family].n == 1 && ranges->first == 0 && ranges->last == everything[family].last;
}

static bool contains(const struct host_selector *outer, const struct host_selector *inner)
{
	for (int f = 0; f < 2; f++) {
		const struct range *of = outer->ranges.family[f].data;

		for (size_t i = 0; i < inner->ranges.family[f].n; i++) {
			const struct range *range = &inner->ranges.family[f].data[i];
			size_t low = 0, high = outer->ranges.family[f].n;

			while (low < high) {
				size_t middle = (low + high) / 2;

				if (of[middle].first <= range->first)
					low = middle + 1;
				else
					high = middle;
			}
			if (low == 0 || of[low - 1].last < range->last)
				return false;
		}
	}
	return true;
}

/* --- the sweep --- */

struct sweep_range {
	const struct range *range;
	uint32_t selector;
};

struct sweep {
	VEC(struct sweep_range) by_first, by_last;
	uint64_t *active, *summary; /* a bit for each selector; one for each word of these */
	uint32_t n_active;
	VEC(uint64_t) found; /* selector << 32 | one that contains it */
};

static void sweep_clear(struct sweep *sweep)
{
	VEC_FREE(&sweep->by_first);
	VEC_FREE(&sweep->by_last);
	VEC_FREE(&sweep->found);
	free(sweep->active);
	free(sweep->summary);
}

static int first_cmp(const void *a, const void *b)
{
	const struct sweep_range *x = a, *y = b;

	return x->range->first < y->range->first ? -1 : x->range->first > y->range->first;
}

static int last_cmp(const void *a, const void *b)
{
	const struct sweep_range *x = a, *y = b;

	return x->range->last < y->range->last ? -1 : x->range->last > y->range->last;
}

static void set_active(struct sweep *sweep, uint32_t selector, bool active)
{
	uint32_t word = selector / 64;

	if (active)
		sweep->active[word] |= 1ull << selector % 64;
	else
		sweep->active[word] &= ~(1ull << selector % 64);
	if (sweep->active[word])
		sweep->summary[word / 64] |= 1ull << word % 64;
	else
		sweep->summary[word / 64] &= ~(1ull << word % 64);
}

/* The first active selector at or behind a number; n: none. */
static uint32_t next_active(const struct sweep *sweep, uint32_t at, uint32_t n)
{
	uint32_t word = at / 64;
	uint64_t bits;

	if (at >= n)
		return n;
	bits = sweep->active[word] & ~0ull << at % 64;
	if (!bits) {
		uint32_t summary = ++word / 64, n_summary = n / 4096 + 1;
		uint64_t words = word % 64 ? sweep->summary[summary] & ~0ull << word % 64 : sweep->summary[summary];

		while (!words && ++summary < n_summary)
			words = sweep->summary[summary];
		if (!words)
			return n;
		word = summary * 64 + (uint32_t)__builtin_ctzll(words);
		bits = sweep->active[word];
	}
	return word * 64 + (uint32_t)__builtin_ctzll(bits);
}

/* All that contain the selector, whose first range begins where the sweep is. The earliest first. */
static int find_containers(struct host_lint *host, struct sweep *sweep, uint32_t selector)
{
	const struct host_selector *all = host->selectors.data;
	uint32_t n = (uint32_t)host->selectors.n, n_found = 0, seen = 0;

	for (uint32_t at = next_active(sweep, 0, n); at < n && seen < CANDIDATES_MOST && n_found < LINT_CONTAINERS;
		at = next_active(sweep, at + 1, n), seen++) {
		if (at == selector || !contains(&all[at], &all[selector]))
			continue;
		if (VEC_PUSH(&sweep->found, (uint64_t)selector << 32 | at) < 0)
			return -ENOMEM;
		n_found++;
	}
	return 0;
}

/* The family in which a selector is looked up: that of its first range. */
static int family_of(const struct host_selector *selector)
{
	return selector->ranges.family[0].n ? 0 : 1;
}

static int sweep_family(struct host_lint *host, struct sweep *sweep, int family)
{
	size_t ended = 0, n;
	int r = 0;

	sweep->by_first.n = sweep->by_last.n = 0;
	for (uint32_t i = 0; i < host->selectors.n; i++)
		for (size_t j = 0; j < host->selectors.data[i].ranges.family[family].n; j++) {
			struct sweep_range range = {&host->selectors.data[i].ranges.family[family].data[j], i};

			if (VEC_PUSH(&sweep->by_first, range) < 0 || VEC_PUSH(&sweep->by_last, range) < 0)
				return -ENOMEM;
		}
	n = sweep->by_first.n;
	if (n == 0)
		return 0;
	qsort(sweep->by_first.data, n, sizeof(*sweep->by_first.data), first_cmp);
	qsort(sweep->by_last.data, n, sizeof(*sweep->by_last.data), last_cmp);
	for (size_t i = 0, end; i < n && r == 0; i = end) {
		u128 at = sweep->by_first.data[i].range->first;

		for (; ended < n && sweep->by_last.data[ended].range->last < at; ended++)
			set_active(sweep, sweep->by_last.data[ended].selector, false);
		for (end = i; end < n && sweep->by_first.data[end].range->first == at; end++)
			set_active(sweep, sweep->by_first.data[end].selector, true);
		for (size_t j = i; j < end && r == 0; j++) {
			const struct sweep_range *range = &sweep->by_first.data[j];
			const struct host_selector *selector = &host->selectors.data[range->selector];

			if (family_of(selector) == family && range->range == selector->ranges.family[family].data)
				r = find_containers(host, sweep, range->selector);
		}
	}
	/* all have ended but those that reach the last address */
	for (; ended < n; ended++)
		set_active(sweep, sweep->by_last.data[ended].selector, false);
	return r;
}

static int u64_cmp(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static int selectors_relate(struct host_lint *host)
{
	__attribute__((cleanup(sweep_clear))) struct sweep sweep = {0};
	struct lint_relation *relation = &host->lint->selectors;
	size_t words = host->selectors.n / 64 + 1, at = 0;
	int r;

	sweep.active = calloc(words + 1, sizeof(*sweep.active));
	sweep.summary = calloc(words / 64 + 2, sizeof(*sweep.summary));
	if (!sweep.active || !sweep.summary)
		return -ENOMEM;
	r = sweep_family(host, &sweep, 0);
	if (r == 0)
		r = sweep_family(host, &sweep, 1);
	if (sweep.found.n)
		qsort(sweep.found.data, sweep.found.n, sizeof(*sweep.found.data), u64_cmp);
	for (uint32_t i = 0; i < host->selectors.n && r == 0; i++) {
		bool everybody = i == SELECTOR_EVERYBODY;

		r = VEC_PUSH(&relation->start, (uint32_t)relation->item.n);
		if (r == 0)
			r = VEC_PUSH(&relation->item, i);
		for (; at < sweep.found.n && sweep.found.data[at] >> 32 == i && r == 0; at++) {
			everybody = everybody || (uint32_t)sweep.found.data[at] == SELECTOR_EVERYBODY;
			r = VEC_PUSH(&relation->item, (uint32_t)sweep.found.data[at]);
		}
		if (!everybody && r == 0)
			r = VEC_PUSH(&relation->item, SELECTOR_EVERYBODY);
	}
	return r < 0 ? r : VEC_PUSH(&relation->start, (uint32_t)relation->item.n);
}

/* --- uplinks --- */

static bool is_declared(const struct host_lint *host, const char *device)
{
	for (size_t i = 0; i < host->n_uplinks; i++)
		if (strcmp(host->lint->host->uplinks[i].device, device) == 0)
			return true;
	return false;
}

static bool names(const struct host_policy *policy, const char *device)
{
	for (size_t i = 0; i < policy->n_uplinks; i++)
		if (strcmp(policy->uplinks[i], device) == 0)
			return true;
	return policy->n_uplinks == 0;
}

/* Number 0 is all declared uplinks. */
static int scope_get(struct host_lint *host, const struct host_policy *policy, uint32_t *ret)
{
	size_t n = host->n_uplinks, count = n ? host->scopes.n / n : 1;
	uint8_t *flags;

	*ret = 0;
	if (n == 0)
		return 0;
	if (VEC_RESERVE(&host->scopes, host->scopes.n + n) < 0)
		return -ENOMEM;
	flags = &host->scopes.data[host->scopes.n];
	for (size_t i = 0; i < n; i++)
		flags[i] = !policy || names(policy, host->lint->host->uplinks[i].device);
	for (; *ret < count; ++*ret)
		if (memcmp(&host->scopes.data[*ret * n], flags, n) == 0)
			return 0;
	host->scopes.n += n;
	return 0;
}

static int scopes_relate(struct host_lint *host)
{
	struct lint_relation *relation = &host->lint->scopes;
	size_t n = host->n_uplinks, count = n ? host->scopes.n / n : 1;
	int r = VEC_RESERVE(&host->scopes, 1);

	for (size_t i = 0; i < count && r == 0; i++) {
		const uint8_t *inner = &host->scopes.data[i * n];
		uint32_t found = 0;

		r = VEC_PUSH(&relation->start, (uint32_t)relation->item.n);
		if (r == 0)
			r = VEC_PUSH(&relation->item, (uint32_t)i);
		for (size_t j = 0; j < count && found < LINT_CONTAINERS && r == 0; j++) {
			const uint8_t *outer = &host->scopes.data[j * n];
			bool all = j != i;

			for (size_t k = 0; k < n && all; k++)
				all = outer[k] || !inner[k];
			if (!all)
				continue;
			r = VEC_PUSH(&relation->item, (uint32_t)j);
			found++;
		}
	}
	return r < 0 ? r : VEC_PUSH(&relation->start, (uint32_t)relation->item.n);
}

/* False: it applies nowhere. */
static bool check_uplinks(struct host_lint *host, const struct object *policy, int *r)
{
	bool any = policy->policy.n_uplinks == 0;

	for (size_t i = 0; i < policy->policy.n_uplinks; i++)
		any = any || is_declared(host, policy->policy.uplinks[i]);
	/* said once, not for each direction */
	for (size_t i = 0; i < policy->policy.n_uplinks && *r == 0 && host->lint->direction == HD_INGRESS; i++)
		if (!is_declared(host, policy->policy.uplinks[i]))
			*r = lint_note_policy(host->lint, policy, -1, LINT_UNREACHABLE, LINT_UPLINK_UNDECLARED, !any, "uplink",
				policy->policy.uplinks[i]);
	return any;
}

/* --- ports --- */

static int add_piece(struct lint *lint, struct lint_rule *rule, uint32_t first, uint32_t last)
{
	rule->n_pieces++;
	return VEC_PUSH(&lint->pieces, (struct lint_piece){first, last});
}

static bool source_applies(const struct rule *rule, uint8_t protocol)
{
	if (!rule->extra || rule->extra->n_source_ports == 0)
		return true;
	for (uint32_t i = 0; i < rule->extra->n_source_ports; i++)
		if (rule->extra->source_ports[i].protocol == 0 || rule->extra->source_ports[i].protocol == protocol)
			return true;
	return false;
}

static int add_ports(struct lint *lint, struct lint_rule *to, const struct rule *rule, const struct port_range *range)
{
	static const struct {
		uint8_t protocol;
		enum hd_l4_kind kind;
		bool ports;
	} kinds[] = {
		{IPPROTO_TCP, HD_L4_TCP, true},
		{IPPROTO_UDP, HD_L4_UDP, true},
		{IPPROTO_SCTP, HD_L4_SCTP, true},
		{IPPROTO_ICMP, HD_L4_ICMP, false},
		{IPPROTO_ICMPV6, HD_L4_ICMPV6, false},
	};

	for (size_t i = 0; i < ARRAY_N(kinds); i++) {
		if (kinds[i].protocol != range->protocol)
			continue;
		if (kinds[i].ports)
			return source_applies(rule, range->protocol) ? add_piece(lint, to, HD_L4_KEY(kinds[i].kind, range->first),
									       HD_L4_KEY(kinds[i].kind, range->last))
								     : 0;
		if ((!rule->extra || rule->extra->n_source_ports == 0) &&
			add_piece(lint, to, HD_L4_KEY(kinds[i].kind, 0), HD_L4_KEY(kinds[i].kind, 0xffff)) < 0)
			return -ENOMEM;
	}
	/* ICMP in IPv6, and ICMPv6 in IPv4, are protocols like others. */
	if (rule->extra && rule->extra->n_source_ports)
		return 0;
	return add_piece(lint, to, HD_L4_KEY(HD_L4_PROTOCOL, range->protocol), HD_L4_KEY(HD_L4_PROTOCOL, range->protocol));
}

/* An ICMP type for one family alone does not meet peers of the other. */
static bool icmp_meets(const struct icmp_match *icmp, const struct host_selector *selector)
{
	return selector->opaque || selector->ranges.family[icmp->protocol == IPPROTO_ICMP ? 0 : 1].n;
}

static int add_icmp(struct lint *lint, struct lint_rule *to, const struct icmp_match *icmp)
{
	enum hd_l4_kind kind = icmp->protocol == IPPROTO_ICMP ? HD_L4_ICMP : HD_L4_ICMPV6;
	int r = 0;

	if (icmp->code_first == 0 && icmp->code_last == 255)
		return add_piece(lint, to, HD_L4_KEY(kind, (uint32_t)icmp->type_first << 8),
			HD_L4_KEY(kind, (uint32_t)icmp->type_last << 8 | 0xff));
	for (uint32_t type = icmp->type_first; type <= icmp->type_last && r == 0; type++)
		r = add_piece(
			lint, to, HD_L4_KEY(kind, type << 8 | icmp->code_first), HD_L4_KEY(kind, type << 8 | icmp->code_last));
	return r;
}

static int add_pieces(struct host_lint *host, struct lint_rule *to, const struct rule *rule, const struct host_selector *selector)
{
	static const uint8_t with_ports[] = {IPPROTO_TCP, IPPROTO_UDP, IPPROTO_SCTP};
	uint32_t n_icmp = rule->extra ? rule->extra->n_icmp : 0;
	struct lint *lint = host->lint;
	int r = 0;

	to->piece = lint->pieces.n;
	if (rule->n_ports == 0 && n_icmp == 0) {
		if (!rule->extra || rule->extra->n_source_ports == 0)
			return add_piece(lint, to, 0, rule->n_peers ? LINT_KEY_IP_LAST : LINT_KEY_LAST);
		for (size_t i = 0; i < ARRAY_N(with_ports) && r == 0; i++)
			r = add_ports(lint, to, rule, &(struct port_range){.protocol = with_ports[i], .last = 0xffff});
		return r;
	}
	for (uint32_t i = 0; i < rule->n_ports && r == 0; i++)
		r = add_ports(lint, to, rule, &rule->ports[i]);
	for (uint32_t i = 0; i < n_icmp && r == 0; i++)
		if (icmp_meets(&rule->extra->icmp[i], selector))
			r = add_icmp(lint, to, &rule->extra->icmp[i]);
	return r;
}

/* The number of a list of source ports: equal lists have the same. */
static int source_get(struct host_lint *host, const struct rule_extra *extra, uint32_t *ret)
{
	uint64_t hash = 0;

	*ret = 0;
	if (!extra || extra->n_source_ports == 0)
		return 0;
	for (uint32_t i = 0; i < extra->n_source_ports; i++)
		hash = hash_u64(hash, (uint64_t)extra->source_ports[i].protocol << 32 |
					      (uint32_t)extra->source_ports[i].first << 16 | extra->source_ports[i].last);
	/* few lists, or all of them different: the latest are looked at */
	for (size_t i = host->sources.n; i > 0 && i + LINT_CONTAINERS > host->sources.n; i--)
		if (host->sources.data[i - 1] == hash) {
			*ret = (uint32_t)i;
			return 0;
		}
	*ret = (uint32_t)host->sources.n + 1;
	return VEC_PUSH(&host->sources, hash);
}

/* --- rules --- */

static int check_rule(struct lint *lint, struct lint_rule *to, const struct host_selector *selector)
{
	const struct lint_piece *pieces = to->n_pieces ? &lint->pieces.data[to->piece] : NULL;

	if (selector->n_peers && !selector->opaque && !selector->ranges.family[0].n && !selector->ranges.family[1].n) {
		to->dead = true;
		return lint_note_rule(lint, to, LINT_UNREACHABLE, LINT_PEERS_EMPTY, true, "peers",
			selector->n_peers == 1 ? selector->peers->group : NULL);
	}
	if (!pieces) {
		to->dead = true;
		return lint_note_rule(lint, to, LINT_NEVER, LINT_NO_SUCH_PACKET, true, NULL, NULL);
	}
	if (to->verdict == HD_ALLOW && pieces->first == 0 && pieces->last >= LINT_KEY_IP_LAST && !to->source &&
		(has_all(selector, 0) || has_all(selector, 1)))
		return lint_note_rule(lint, to, LINT_BROAD, LINT_ANY_TO_ANY, lint->direction == HD_INGRESS, NULL, NULL);
	return 0;
}

static int add_rule(struct host_lint *host, const struct object *policy, uint32_t scope, uint32_t index)
{
	struct lint *lint = host->lint;
	const struct rule *rule = &object_rules(policy, lint->direction)[index];
	struct lint_rule to = {.policy = policy,
		.policy_order = (uint32_t)lint->policy_order,
		.name = rule->name,
		.index = index,
		.line = rule->line,
		.scope = scope,
		.verdict = (uint8_t)rule->verdict,
		.tier = TIER_HOST};
	int r = host_selector_get(host, rule->peers, rule->n_peers, &to.selector);

	if (r == 0)
		r = source_get(host, rule->extra, &to.source);
	if (r == 0)
		r = add_pieces(host, &to, rule, &host->selectors.data[to.selector]);
	if (r == 0)
		r = check_rule(lint, &to, &host->selectors.data[to.selector]);
	return r < 0 ? r : VEC_PUSH(&lint->rules, to);
}

/* Failsafe ports come before every policy. */
static int add_failsafe(struct host_lint *host)
{
	static const struct rule any;
	struct lint *lint = host->lint;
	struct lint_rule to = {.name = "failsafe", .piece = lint->pieces.n, .verdict = HD_ALLOW, .tier = TIER_HOST};
	int r = 0;

	for (size_t i = 0; lint->host && i < lint->host->n_failsafe && r == 0; i++)
		r = add_ports(lint, &to, &any, &lint->host->failsafe[i]);
	return r < 0 || to.n_pieces == 0 ? r : VEC_PUSH(&lint->rules, to);
}

static int add_policy(struct host_lint *host, const struct object *policy, const struct object **last_default)
{
	struct lint *lint = host->lint;
	uint32_t scope;
	int r = 0;

	if (!check_uplinks(host, policy, &r) || r < 0)
		return r;
	r = scope_get(host, &policy->policy, &scope);
	for (uint32_t i = 0; i < policy->policy.n_rules[lint->direction] && r == 0; i++)
		r = add_rule(host, policy, scope, i);
	if (scope == 0 && policy->policy.default_verdict[lint->direction] >= 0)
		*last_default = policy;
	return r;
}

/* Of defaults for all uplinks only the last one counts. */
static int check_defaults(struct lint *lint, const struct object *last)
{
	int r = 0;

	for (size_t i = 0; i < lint->policies.n && lint->policies.data[i] != last && last && r == 0; i++) {
		const struct object *policy = lint->policies.data[i];

		lint->policy_order = i;
		if (policy->policy.default_verdict[lint->direction] < 0)
			continue;
		r = lint_note_policy(lint, policy, (int)lint->direction, LINT_SHADOWED, LINT_DEFAULT_REPLACED,
			policy->policy.default_verdict[lint->direction] != last->policy.default_verdict[lint->direction], NULL,
			NULL);
		if (r < 0)
			return r;
		lint->notes.data[lint->notes.n - 1].because[0] =
			(struct lint_place){.policy = last, .direction = (int)lint->direction, .index = -1, .line = last->line};
		lint->notes.data[lint->notes.n - 1].n_because = 1;
	}
	return r;
}

int lint_hosts(struct lint *lint)
{
	__attribute__((cleanup(host_clear))) struct host_lint host = {
		.lint = lint, .n_uplinks = lint->host ? lint->host->n_uplinks : 0};
	const struct object *last_default = NULL;
	uint32_t none;
	int r = host_selector_get(&host, NULL, 0, &none);

	if (r == 0)
		r = scope_get(&host, NULL, &none);
	if (r == 0 && lint->direction == HD_INGRESS)
		r = add_failsafe(&host);
	for (size_t i = 0; i < lint->policies.n && r == 0; i++) {
		lint->policy_order = i;
		r = add_policy(&host, lint->policies.data[i], &last_default);
	}
	if (r == 0)
		r = check_defaults(lint, last_default);
	if (r == 0)
		r = selectors_relate(&host);
	return r < 0 ? r : scopes_relate(&host);
}
