/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which rules earlier ones leave nothing of. Rules are taken in the order in which they are judged. Those with the same peers, place, source
 * ports and tier make a bin, which answers one question: is there a range of keys that begins at or before this one and ends at or after
 * it? That is the highest end among the ranges that begin so early: a prefix maximum over the places where ranges begin (a Fenwick tree). A
 * rule asks the bins of all that contains its peers and its place, so the cost is the number of rules times that of such bins.
 */
#include <util/hash.h>

#include <policy/lint_internal.h>

#define ALL_TIERS UINT32_MAX
#define NO_PIECE UINT32_MAX
#define NO_BIN UINT32_MAX

void lint_relation_free(struct lint_relation *relation)
{
	VEC_FREE(&relation->start);
	VEC_FREE(&relation->item);
}

struct bin_key {
	uint32_t selector, scope, source, tier;
};

struct bin {
	struct bin_key key;
	size_t start, n; /* of its places */
};

/* A place where ranges of the bin begin: sorted by bin, then by key. */
struct begin {
	uint32_t bin, key;
};

struct cover {
	struct lint *lint;
	VEC(struct bin) bins;
	uint32_t *index; /* bins by key: number + 1, open addressing */
	size_t index_size;
	VEC(struct begin) begins;
	uint32_t *best;	   /* by place: the piece that ends last among those that the place answers for */
	uint32_t *rule_of; /* by piece */
	u32_vec asked;	   /* bins */
	VEC(struct lint_note) wider;
	VEC(uint64_t) contained; /* containing rule << 32 | contained one */
};

static void cover_clear(struct cover *cover)
{
	VEC_FREE(&cover->bins);
	VEC_FREE(&cover->begins);
	VEC_FREE(&cover->asked);
	VEC_FREE(&cover->wider);
	VEC_FREE(&cover->contained);
	free(cover->index);
	free(cover->best);
	free(cover->rule_of);
}

/* --- bins --- */

static uint32_t *bin_slot(const struct cover *cover, const struct bin_key *key)
{
	size_t slot = hash_bytes(0, key, sizeof(*key)) & (cover->index_size - 1);

	while (cover->index[slot] && memcmp(&cover->bins.data[cover->index[slot] - 1].key, key, sizeof(*key)) != 0)
		slot = (slot + 1) & (cover->index_size - 1);
	return &cover->index[slot];
}

static struct bin_key bin_key(const struct lint_rule *rule)
{
	return (struct bin_key){.selector = rule->selector,
		.scope = rule->scope,
		.source = rule->source,
		.tier = rule->own_tier ? rule->tier : ALL_TIERS};
}

static int begin_cmp(const void *a, const void *b)
{
	const struct begin *x = a, *y = b;

	if (x->bin != y->bin)
		return x->bin < y->bin ? -1 : 1;
	return x->key < y->key ? -1 : x->key > y->key;
}

static int make_bins(struct cover *cover)
{
	const struct lint *lint = cover->lint;
	size_t n_rules = lint->rules.n, kept = 0;

	for (cover->index_size = 64; cover->index_size < 2 * n_rules;)
		cover->index_size *= 2;
	cover->index = calloc(cover->index_size, sizeof(*cover->index));
	cover->rule_of = malloc((lint->pieces.n + 1) * sizeof(*cover->rule_of));
	if (!cover->index || !cover->rule_of || VEC_RESERVE(&cover->begins, lint->pieces.n + 1) < 0)
		return -ENOMEM;
	for (size_t i = 0; i < n_rules; i++) {
		const struct lint_rule *rule = &lint->rules.data[i];
		const struct bin_key key = bin_key(rule);
		uint32_t *slot = bin_slot(cover, &key);

		if (!*slot) {
			if (VEC_PUSH(&cover->bins, (struct bin){.key = key}) < 0)
				return -ENOMEM;
			*slot = (uint32_t)cover->bins.n;
		}
		for (uint32_t j = 0; j < rule->n_pieces; j++) {
			cover->rule_of[rule->piece + j] = (uint32_t)i;
			cover->begins.data[cover->begins.n++] =
				(struct begin){.bin = *slot - 1, .key = lint->pieces.data[rule->piece + j].first};
		}
	}
	if (cover->begins.n)
		qsort(cover->begins.data, cover->begins.n, sizeof(*cover->begins.data), begin_cmp);
	for (size_t i = 0; i < cover->begins.n; i++) {
		const struct begin *begin = &cover->begins.data[i];

		if (kept && begin_cmp(&cover->begins.data[kept - 1], begin) == 0)
			continue;
		if (!kept || cover->begins.data[kept - 1].bin != begin->bin)
			cover->bins.data[begin->bin].start = kept;
		cover->bins.data[begin->bin].n++;
		cover->begins.data[kept++] = *begin;
	}
	cover->begins.n = kept;
	cover->best = malloc((kept + 1) * sizeof(*cover->best));
	if (!cover->best)
		return -ENOMEM;
	memset(cover->best, 0xff, (kept + 1) * sizeof(*cover->best));
	return 0;
}

/* How many of the bin's places are at or before the key. */
static size_t places_until(const struct cover *cover, const struct bin *bin, uint32_t key)
{
	size_t low = 0, high = bin->n;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (cover->begins.data[bin->start + middle].key <= key)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static void bin_add(struct cover *cover, const struct bin *bin, uint32_t piece)
{
	const struct lint_piece *pieces = cover->lint->pieces.data;

	for (size_t at = places_until(cover, bin, pieces[piece].first); at <= bin->n; at += at & -at) {
		uint32_t *best = &cover->best[bin->start + at - 1];

		if (*best == NO_PIECE || pieces[*best].last < pieces[piece].last)
			*best = piece;
	}
}

/* The piece that contains this one, or NO_PIECE. */
static uint32_t bin_find(const struct cover *cover, const struct bin *bin, const struct lint_piece *piece)
{
	const struct lint_piece *pieces = cover->lint->pieces.data;
	uint32_t found = NO_PIECE;

	for (size_t at = places_until(cover, bin, piece->first); at; at -= at & -at) {
		uint32_t best = cover->best[bin->start + at - 1];

		if (best != NO_PIECE && (found == NO_PIECE || pieces[found].last < pieces[best].last))
			found = best;
	}
	return found != NO_PIECE && pieces[found].last >= piece->last ? found : NO_PIECE;
}

/* --- rules --- */

static int ask_bin(struct cover *cover, uint32_t selector, uint32_t scope, uint32_t source, uint32_t tier)
{
	const struct bin_key key = {.selector = selector, .scope = scope, .source = source, .tier = tier};
	uint32_t bin = *bin_slot(cover, &key);

	return bin ? VEC_PUSH(&cover->asked, bin - 1) : 0;
}

/* All bins whose rules, where they match a key, match everything that the rule does. */
static int find_bins(struct cover *cover, const struct lint_rule *rule)
{
	const struct lint_relation *selectors = &cover->lint->selectors, *scopes = &cover->lint->scopes;
	int r = 0;

	cover->asked.n = 0;
	for (uint32_t i = selectors->start.data[rule->selector]; i < selectors->start.data[rule->selector + 1]; i++)
		for (uint32_t j = scopes->start.data[rule->scope]; j < scopes->start.data[rule->scope + 1] && r == 0; j++) {
			uint32_t selector = selectors->item.data[i], scope = scopes->item.data[j];

			r = ask_bin(cover, selector, scope, 0, ALL_TIERS);
			if (r == 0)
				r = ask_bin(cover, selector, scope, 0, rule->tier);
			if (r == 0 && rule->source)
				r = ask_bin(cover, selector, scope, rule->source, ALL_TIERS);
			if (r == 0 && rule->source)
				r = ask_bin(cover, selector, scope, rule->source, rule->tier);
		}
	return r;
}

static uint32_t find_cover(const struct cover *cover, const struct lint_piece *piece)
{
	for (size_t i = 0; i < cover->asked.n; i++) {
		uint32_t found = bin_find(cover, &cover->bins.data[cover->asked.data[i]], piece);

		if (found != NO_PIECE)
			return found;
	}
	return NO_PIECE;
}

static bool same_extent(const struct lint *lint, const struct lint_rule *a, const struct lint_rule *b)
{
	return a->selector == b->selector && a->scope == b->scope && a->source == b->source && a->n_pieces == b->n_pieces &&
	       (a->n_pieces == 0 || memcmp(&lint->pieces.data[a->piece], &lint->pieces.data[b->piece],
					    a->n_pieces * sizeof(struct lint_piece)) == 0);
}

static bool same_answer(const struct lint_rule *a, const struct lint_rule *b)
{
	return a->verdict == b->verdict && a->pass == b->pass;
}

/* The rule is covered: by which others, each once. */
static int note_shadowed(struct cover *cover, uint32_t number, const uint32_t *by, uint32_t n)
{
	struct lint *lint = cover->lint;
	const struct lint_rule *rule = &lint->rules.data[number];
	struct lint_note *note;
	bool other = false;

	for (uint32_t i = 0; i < n; i++)
		other = other || !same_answer(&lint->rules.data[by[i]], rule);
	if (lint_note_rule(lint, rule, LINT_SHADOWED, other ? LINT_OTHER_VERDICT : LINT_SAME_VERDICT, other, NULL, NULL) < 0)
		return -ENOMEM;
	note = &lint->notes.data[lint->notes.n - 1];
	for (uint32_t i = 0; i < n; i++) {
		const struct lint_rule *cause = &lint->rules.data[by[i]];

		if (i < LINT_BECAUSE)
			note->because[note->n_because++] = lint_place_of(lint, cause);
		else
			note->more++;
		if (cause->policy && cause->verdict == HD_ALLOW && !cause->pass && !same_extent(lint, cause, rule) &&
			VEC_PUSH(&cover->contained, (uint64_t)by[i] << 32 | number) < 0)
			return -ENOMEM;
	}
	return 0;
}

/* What a rule of many ranges is covered by: more than so many are as good as a few. */
#define CAUSES_MOST 16

/* 1: it is covered. What covers it covers all that it would cover. */
static int judge_rule(struct cover *cover, uint32_t number)
{
	struct lint *lint = cover->lint;
	const struct lint_rule *rule = &lint->rules.data[number];
	uint32_t by[CAUSES_MOST], n = 0;

	if (find_bins(cover, rule) < 0)
		return -ENOMEM;
	for (uint32_t i = 0; i < rule->n_pieces; i++) {
		uint32_t found = find_cover(cover, &lint->pieces.data[rule->piece + i]), j = 0;

		if (found == NO_PIECE)
			return 0;
		while (j < n && by[j] != cover->rule_of[found])
			j++;
		if (j == n && n < CAUSES_MOST)
			by[n++] = cover->rule_of[found];
	}
	return note_shadowed(cover, number, by, n) < 0 ? -ENOMEM : 1;
}

static int u64_cmp(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* The other side of it: allows that contain later rules. */
static int note_wider(struct cover *cover)
{
	struct lint *lint = cover->lint;

	if (cover->contained.n)
		qsort(cover->contained.data, cover->contained.n, sizeof(*cover->contained.data), u64_cmp);
	for (size_t i = 0, end; i < cover->contained.n; i = end) {
		const struct lint_rule *rule = &lint->rules.data[cover->contained.data[i] >> 32];
		struct lint_note *note;

		for (end = i; end < cover->contained.n && cover->contained.data[end] >> 32 == cover->contained.data[i] >> 32;)
			end++;
		if (lint_note_rule(lint, rule, LINT_WIDER, LINT_CONTAINS, false, NULL, NULL) < 0)
			return -ENOMEM;
		note = &lint->notes.data[lint->notes.n - 1];
		for (size_t j = i; j < end; j++) {
			const struct lint_rule *contained = &lint->rules.data[(uint32_t)cover->contained.data[j]];

			note->warning = note->warning || !same_answer(contained, rule);
			if (note->n_because < LINT_BECAUSE)
				note->because[note->n_because++] = lint_place_of(lint, contained);
			else
				note->more++;
		}
	}
	return 0;
}

int lint_covered(struct lint *lint)
{
	__attribute__((cleanup(cover_clear))) struct cover cover = {.lint = lint};
	int r = make_bins(&cover);

	for (uint32_t i = 0; i < lint->rules.n && r >= 0; i++) {
		const struct lint_rule *rule = &lint->rules.data[i];
		const struct bin_key key = bin_key(rule);

		if (rule->dead || rule->n_pieces == 0)
			continue;
		r = judge_rule(&cover, i);
		for (uint32_t j = 0; j < rule->n_pieces && r == 0; j++)
			bin_add(&cover, &cover.bins.data[*bin_slot(&cover, &key) - 1], (uint32_t)(rule->piece + j));
	}
	return r < 0 ? -ENOMEM : note_wider(&cover);
}
