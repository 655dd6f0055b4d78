/* SPDX-License-Identifier: Apache-2.0 */
/* Which addresses a selector covers, and from what changed there the operations on the address trees. */
#include <util/addr.h>
#include <util/cleanup.h>

#include <policy/ranges.h>

void ranges_clear(struct ranges *ranges)
{
	VEC_FREE(&ranges->family[0]);
	VEC_FREE(&ranges->family[1]);
}

static u128 addr_number(const struct hd_addr *addr)
{
	return (u128)be64toh(addr->q[0]) << 64 | be64toh(addr->q[1]);
}

/* 0: IPv4, 1: IPv6. */
static int prefix_range(const struct prefix *prefix, struct range *ret)
{
	u128 first = addr_number(&prefix->addr);
	unsigned host_bits = 128u - prefix->length;
	u128 mask = host_bits == 128 ? ~(u128)0 : ((u128)1 << host_bits) - 1;

	first &= ~mask;
	if (prefix->length >= 96 && addr_is_ipv4(&prefix->addr)) {
		ret->first = (uint32_t)first;
		ret->last = (uint32_t)first | (uint32_t)mask;
		return 0;
	}
	ret->first = first;
	ret->last = first | mask;
	return 1;
}

static int range_cmp(const void *a, const void *b)
{
	const struct range *x = a, *y = b;

	return x->first < y->first ? -1 : x->first > y->first;
}

static bool touches(const struct range *a, const struct range *b)
{
	return b->first <= a->last || b->first - a->last == 1;
}

/* Sorts, and makes one of those that overlap or touch. */
static size_t merge(struct range *ranges, size_t n)
{
	size_t kept = 0;
	bool sorted = true;

	for (size_t i = 1; i < n && sorted; i++)
		sorted = ranges[i - 1].first <= ranges[i].first;
	if (!sorted)
		qsort(ranges, n, sizeof(*ranges), range_cmp);
	for (size_t i = 0; i < n; i++) {
		if (kept && touches(&ranges[kept - 1], &ranges[i])) {
			if (ranges[kept - 1].last < ranges[i].last)
				ranges[kept - 1].last = ranges[i].last;
			continue;
		}
		ranges[kept++] = ranges[i];
	}
	return kept;
}

/* A block without its exceptions. */
static int add_block(struct ranges *ranges, const struct prefix *prefix, const struct prefix *except, uint32_t n_except)
{
	_cleanup_free_ struct range *holes = NULL;
	struct range block, hole;
	int family = prefix_range(prefix, &block);
	size_t n = 0;

	if (n_except) {
		holes = malloc(n_except * sizeof(*holes));
		if (!holes)
			return -ENOMEM;
		for (uint32_t i = 0; i < n_except; i++)
			if (prefix_range(&except[i], &hole) == family && hole.first <= block.last && hole.last >= block.first)
				holes[n++] = hole;
		n = merge(holes, n);
	}
	for (size_t i = 0; i < n; i++) {
		if (holes[i].first > block.first &&
			VEC_PUSH(&ranges->family[family], (struct range){block.first, holes[i].first - 1}) < 0)
			return -ENOMEM;
		if (holes[i].last >= block.last)
			return 0;
		block.first = holes[i].last + 1;
	}
	return VEC_PUSH(&ranges->family[family], block);
}

static int name_cmp(const void *key, const void *item)
{
	return strcmp(key, (*(struct object *const *)item)->name);
}

const struct object *group_find(struct object *const *groups, size_t n, const char *name)
{
	struct object *const *found = n ? bsearch(name, groups, n, sizeof(struct object *), name_cmp) : NULL;

	return found ? *found : NULL;
}

int ranges_of_peers(const struct peer *peers, uint32_t n, struct object *const *groups, size_t n_groups, struct ranges *ret)
{
	int r = 0;

	for (uint32_t i = 0; i < n && r == 0; i++) {
		const struct object *group;

		if (!peers[i].group) {
			r = add_block(ret, &peers[i].prefix, peers[i].except, peers[i].n_except);
			continue;
		}
		group = group_find(groups, n_groups, peers[i].group);
		for (size_t j = 0; group && j < group->group.n_cidrs && r == 0; j++)
			r = add_block(ret, &group->group.cidrs[j], NULL, 0);
	}
	for (int f = 0; f < 2; f++)
		ret->family[f].n = merge(ret->family[f].data, ret->family[f].n);
	return r;
}

/* --- edges --- */

static int add_edges(struct round *round, int family, u128 first, u128 last, uint32_t selector, enum edge_kind kind)
{
	u128 end = last + 1;
	struct edge edge = {.selector = selector, .kind = (uint8_t)kind};
	int r;

	edge.high = family ? (uint64_t)(first >> 64) : (uint64_t)first << 32;
	edge.low = family ? (uint64_t)first : 0;
	r = VEC_PUSH(&round->edges[family], edge);
	/* What reaches the last address has no end. */
	if (r < 0 || (family ? end == 0 : end >> 32 != 0))
		return r;
	edge.high = family ? (uint64_t)(end >> 64) : (uint64_t)end << 32;
	edge.low = family ? (uint64_t)end : 0;
	edge.kind++;
	return VEC_PUSH(&round->edges[family], edge);
}

/* Edges of what is in a and not in b. */
static int add_difference(
	struct round *round, const struct ranges *a, const struct ranges *b, uint32_t selector, enum edge_kind kind)
{
	for (int f = 0; f < 2; f++) {
		size_t j = 0;

		for (size_t i = 0; i < a->family[f].n; i++) {
			u128 at = a->family[f].data[i].first, last = a->family[f].data[i].last;
			bool rest = true;

			while (j < b->family[f].n && b->family[f].data[j].last < at)
				j++;
			for (size_t k = j; k < b->family[f].n && b->family[f].data[k].first <= last; k++) {
				const struct range *hole = &b->family[f].data[k];

				if (hole->first > at && add_edges(round, f, at, hole->first - 1, selector, kind) < 0)
					return -ENOMEM;
				if (hole->last >= last) {
					rest = false;
					break;
				}
				at = hole->last + 1;
			}
			if (rest && add_edges(round, f, at, last, selector, kind) < 0)
				return -ENOMEM;
		}
	}
	return 0;
}

/*
 * Edges for a selector whose rules or groups changed: from nothing to all that it covers, the other way round, or the
 * difference.
 */
int selector_edges(struct round *round, const struct touched *touched, bool is)
{
	const struct tables *old = &round->compiler->before, *new = round->t;
	_cleanup_ranges_ struct ranges before = {0}, after = {0};
	int r = 0;

	if (touched->was)
		r = ranges_of_peers(touched->peers, touched->n_peers, old->groups.data, old->groups.n, &before);
	if (is && r == 0)
		r = ranges_of_peers(touched->peers, touched->n_peers, new->groups.data, new->groups.n, &after);
	if (r == 0)
		r = add_difference(round, &after, &before, touched->selector, EDGE_ADD);
	if (r == 0)
		r = add_difference(round, &before, &after, touched->selector, EDGE_REMOVE);
	return r;
}

/* The same for one address of a label group. */
int endpoint_edges(struct round *round, const struct hd_addr *addr, uint32_t selector, bool add)
{
	struct prefix prefix = {.addr = *addr, .length = 128};
	struct range range;
	int family = prefix_range(&prefix, &range);

	return add_edges(round, family, range.first, range.last, selector, add ? EDGE_ADD : EDGE_REMOVE);
}

/* --- sorting --- */

static int edge_cmp(const void *a, const void *b)
{
	const struct edge *x = a, *y = b;

	if (x->high != y->high)
		return x->high < y->high ? -1 : 1;
	return x->low < y->low ? -1 : x->low > y->low;
}

/* By bytes, least first, leaving out those that all have in common: several times faster than qsort for many. */
static int sort_edges(struct edge *edges, size_t n)
{
	_cleanup_free_ struct edge *other = NULL;
	struct edge *from = edges, *to;
	uint64_t differ[2] = {0, 0};

	if (n < 2)
		return 0;
	if (n < 512) {
		qsort(edges, n, sizeof(*edges), edge_cmp);
		return 0;
	}
	other = malloc(n * sizeof(*other));
	if (!other)
		return -ENOMEM;
	to = other;
	for (size_t i = 1; i < n; i++) {
		differ[0] |= edges[i].low ^ edges[0].low;
		differ[1] |= edges[i].high ^ edges[0].high;
	}
	for (unsigned byte = 0; byte < 16; byte++) {
		unsigned shift = byte % 8 * 8;
		size_t count[257] = {0};
		struct edge *swap;

		if (!(differ[byte / 8] >> shift & 0xff))
			continue;
		for (size_t i = 0; i < n; i++)
			count[((byte < 8 ? from[i].low : from[i].high) >> shift & 0xff) + 1]++;
		for (unsigned i = 1; i < 256; i++)
			count[i] += count[i - 1];
		for (size_t i = 0; i < n; i++)
			to[count[(byte < 8 ? from[i].low : from[i].high) >> shift & 0xff]++] = from[i];
		swap = from;
		from = to;
		to = swap;
	}
	if (from != edges)
		memcpy(edges, from, n * sizeof(*edges));
	return 0;
}

/* --- operations --- */

/* On the lower 64 bits of one upper half. */
static int push_part(struct round *round, uint64_t high, uint64_t first, uint64_t last, uint32_t plus, uint32_t minus)
{
	struct addr_op fresh = {.first = high, .last = high, .sub = (uint32_t)round->sub_ops.n}, before = {0};

	if (round->ops.n)
		before = round->ops.data[round->ops.n - 1];
	if ((before.n_sub == 0 || before.first != high) && VEC_PUSH(&round->ops, fresh) < 0)
		return -ENOMEM;
	round->ops.data[round->ops.n - 1].n_sub++;
	return VEC_PUSH(&round->sub_ops, (struct addr_op){.first = first, .last = last, .plus = plus, .minus = minus});
}

static int push_op(struct round *round, u128 first, u128 last, uint32_t plus, uint32_t minus)
{
	uint64_t high = (uint64_t)(first >> 64), low = (uint64_t)first;
	uint64_t last_high = (uint64_t)(last >> 64), last_low = (uint64_t)last;
	int r = 0;

	if (high == last_high && (low != 0 || last_low != UINT64_MAX))
		return push_part(round, high, low, last_low, plus, minus);
	if (low != 0) {
		r = push_part(round, high, low, UINT64_MAX, plus, minus);
		high++;
	}
	if (r == 0 && last_low != UINT64_MAX) {
		if (high < last_high)
			r = VEC_PUSH(&round->ops,
				(struct addr_op){.first = high, .last = last_high - 1, .plus = plus, .minus = minus});
		return r < 0 ? r : push_part(round, last_high, 0, last_low, plus, minus);
	}
	if (r == 0 && high <= last_high)
		r = VEC_PUSH(&round->ops, (struct addr_op){.first = high, .last = last_high, .plus = plus, .minus = minus});
	return r;
}

struct ranked_edge {
	uint64_t rank;
	struct edge edge;
};

static int ranked_cmp(const void *a, const void *b)
{
	const struct ranked_edge *x = a, *y = b;

	return x->rank < y->rank ? -1 : x->rank > y->rank;
}

/*
 * The edges of one place. First what ends there, so that a class in between does not hold both, the last of the chain first; then what
 * begins, in the order of chains: so each step changes the end of a chain, where there is nothing to make anew behind it.
 */
static int change_at(struct round *round, const struct edge *edges, size_t n, uint32_t *plus, uint32_t *minus)
{
	struct ranked_edge few[32], *ranked = few;
	_cleanup_free_ struct ranked_edge *many = NULL;
	int r = 0;

	if (n > ARRAY_N(few)) {
		ranked = many = malloc(n * sizeof(*many));
		if (!many)
			return -ENOMEM;
	}
	for (size_t i = 0; i < n; i++)
		ranked[i] = (struct ranked_edge){.rank = class_rank(round->t, edges[i].selector), .edge = edges[i]};
	if (n > 1)
		qsort(ranked, n, sizeof(*ranked), ranked_cmp);
	for (size_t i = n; i-- > 0 && r == 0;) {
		const struct edge *edge = &ranked[i].edge;

		if (edge->kind == EDGE_ADD_END)
			r = class_change(round, *plus, edge->selector, false, plus);
		if (edge->kind == EDGE_REMOVE_END)
			r = class_change(round, *minus, edge->selector, false, minus);
	}
	for (size_t i = 0; i < n && r == 0; i++) {
		const struct edge *edge = &ranked[i].edge;

		if (edge->kind == EDGE_ADD)
			r = class_change(round, *plus, edge->selector, true, plus);
		if (edge->kind == EDGE_REMOVE)
			r = class_change(round, *minus, edge->selector, true, minus);
	}
	return r;
}

/* Walks the edges from the lowest address up: between two of them the same selectors are added and removed. */
int ranges_to_ops(struct round *round, int family)
{
	const struct edge *edges = round->edges[family].data;
	size_t n = round->edges[family].n;
	uint32_t plus = 0, minus = 0;
	int r;

	round->ops.n = round->sub_ops.n = 0;
	r = sort_edges(round->edges[family].data, n);
	for (size_t i = 0, j; i < n && r == 0; i = j) {
		u128 first = (u128)edges[i].high << 64 | edges[i].low, last;

		for (j = i; j < n && edges[j].high == edges[i].high && edges[j].low == edges[i].low; j++)
			;
		r = change_at(round, &edges[i], j - i, &plus, &minus);
		last = j < n ? ((u128)edges[j].high << 64 | edges[j].low) - 1 : ~(u128)0;
		if (r == 0 && (plus | minus))
			r = push_op(round, first, last, plus, minus);
	}
	VEC_FREE(&round->edges[family]);
	return r;
}
