/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rule trees: an ordered list of matches becomes intervals over (kind, port), each with the first match that covers it, and those
 * a tree. Matches that also ask for source ports lead to a tree over these, in which the matches after them go on.
 */
#include <netinet/in.h>

#include <util/cleanup.h>

#include <policy/internal.h>

#define NO_LEAF HD_LEAF(HD_RULE_NONE, HD_DROP, false)

/* A part of the key space that a match covers. */
struct piece {
	uint32_t first, last;
	uint32_t match; /* index, so rank as well */
	bool partial;	/* source ports decide further */
};

struct leaf {
	uint32_t key, value, order;
};

struct tree_builder {
	VEC(struct piece) pieces, sub_pieces;
	VEC(struct leaf) leaves, sub_leaves;
	VEC(uint32_t) heap, sub_heap, popped; /* indexes of pieces */
	u32_vec found, found_before;	      /* indexes of matches, | FOUND_WHOLE */
	uint32_t found_kind;
};
/* The match does not ask for source ports here (it may elsewhere). */
#define FOUND_WHOLE 0x80000000u

void tree_builder_free(struct tree_builder *b)
{
	if (!b)
		return;
	VEC_FREE(&b->pieces);
	VEC_FREE(&b->sub_pieces);
	VEC_FREE(&b->leaves);
	VEC_FREE(&b->sub_leaves);
	VEC_FREE(&b->heap);
	VEC_FREE(&b->sub_heap);
	VEC_FREE(&b->found);
	VEC_FREE(&b->found_before);
	VEC_FREE(&b->popped);
	free(b);
}

static struct tree_builder *builder_get(struct round *round)
{
	if (!round->builder)
		round->builder = calloc(1, sizeof(*round->builder));
	return round->builder;
}

/* --- from rules to pieces --- */

static int l4_kind(uint8_t protocol)
{
	switch (protocol) {
	case IPPROTO_TCP:
		return HD_L4_TCP;
	case IPPROTO_UDP:
		return HD_L4_UDP;
	case IPPROTO_SCTP:
		return HD_L4_SCTP;
	case IPPROTO_ICMP:
		return HD_L4_ICMP;
	case IPPROTO_ICMPV6:
		return HD_L4_ICMPV6;
	default:
		return HD_L4_PROTOCOL;
	}
}

static bool has_ports(int kind)
{
	return kind == HD_L4_TCP || kind == HD_L4_UDP || kind == HD_L4_SCTP;
}

static int kind_protocol(int kind)
{
	return kind == HD_L4_TCP ? IPPROTO_TCP : kind == HD_L4_UDP ? IPPROTO_UDP : IPPROTO_SCTP;
}

static bool source_applies(const struct port_range *source, int kind)
{
	return source->protocol == 0 || source->protocol == kind_protocol(kind);
}

static int add_piece(struct tree_builder *b, uint32_t match, uint32_t first, uint32_t last, bool partial)
{
	return VEC_PUSH(&b->pieces, (struct piece){.first = first, .last = last, .match = match, .partial = partial});
}

/* Destination ports of one kind, and the rule's source ports where it has some. */
static int add_ports(struct tree_builder *b, uint32_t match, const struct rule *rule, int kind, uint16_t first, uint16_t last)
{
	bool partial = rule->extra && rule->extra->n_source_ports, applies = !partial;

	for (uint32_t i = 0; partial && i < rule->extra->n_source_ports; i++)
		applies |= source_applies(&rule->extra->source_ports[i], kind);
	return applies ? add_piece(b, match, HD_L4_KEY(kind, first), HD_L4_KEY(kind, last), partial) : 0;
}

/* A port range of a document. What has no ports cannot have the source ports that a rule asks for. */
static int add_port_range(struct tree_builder *b, uint32_t match, const struct rule *rule, const struct port_range *range)
{
	int kind = l4_kind(range->protocol), r = 0;

	if (has_ports(kind))
		return add_ports(b, match, rule, kind, range->first, range->last);
	if (rule->extra && rule->extra->n_source_ports)
		return 0;
	if (kind != HD_L4_PROTOCOL)
		r = add_piece(b, match, HD_L4_KEY(kind, 0), HD_L4_KEY(kind, 0xffff), false);
	/* ICMP in IPv6, and ICMPv6 in IPv4, are protocols like others to the parser. */
	if (r == 0)
		r = add_piece(
			b, match, HD_L4_KEY(HD_L4_PROTOCOL, range->protocol), HD_L4_KEY(HD_L4_PROTOCOL, range->protocol), false);
	return r;
}

static int add_icmp(struct tree_builder *b, uint32_t match, const struct icmp_match *icmp)
{
	int kind = l4_kind(icmp->protocol), r = 0;

	if (icmp->code_first == 0 && icmp->code_last == 255)
		return add_piece(b, match, HD_L4_KEY(kind, (uint32_t)icmp->type_first << 8),
			HD_L4_KEY(kind, (uint32_t)icmp->type_last << 8 | 0xff), false);
	for (uint32_t type = icmp->type_first; type <= icmp->type_last && r == 0; type++)
		r = add_piece(b, match, HD_L4_KEY(kind, type << 8 | icmp->code_first),
			HD_L4_KEY(kind, type << 8 | icmp->code_last), false);
	return r;
}

static int add_rule(struct tree_builder *b, uint32_t match, const struct rule *rule)
{
	static const int port_kinds[] = {HD_L4_TCP, HD_L4_UDP, HD_L4_SCTP};
	uint32_t n_icmp = rule->extra ? rule->extra->n_icmp : 0;
	int r = 0;

	if (rule->n_ports == 0 && n_icmp == 0) {
		if (!rule->extra || !rule->extra->n_source_ports) /* frames that are not IP come from no address */
			return add_piece(b, match, 0, HD_L4_KEY(rule->n_peers ? HD_L4_ICMPV6 : HD_L4_ETHERTYPE, 0xffff), false);
		for (size_t i = 0; i < ARRAY_N(port_kinds) && r == 0; i++)
			r = add_ports(b, match, rule, port_kinds[i], 0, 0xffff);
		return r;
	}
	for (uint32_t i = 0; i < rule->n_ports && r == 0; i++)
		r = add_port_range(b, match, rule, &rule->ports[i]);
	for (uint32_t i = 0; i < n_icmp && r == 0; i++)
		r = add_icmp(b, match, &rule->extra->icmp[i]);
	return r;
}

static int add_match(struct tree_builder *b, uint32_t index, const struct rule_match *match)
{
	if (match->rule)
		return add_rule(b, index, match->rule);
	return add_piece(b, index, match->first, match->last, match->source_first != 0 || match->source_last != 0xffff);
}

/* --- the first match of each part --- */

static int piece_cmp(const void *a, const void *b)
{
	const struct piece *x = a, *y = b;

	return x->first < y->first ? -1 : x->first > y->first;
}

static void heap_push(const struct piece *pieces, uint32_t *heap, size_t n, uint32_t piece)
{
	size_t i = n;

	while (i && pieces[heap[(i - 1) / 2]].match > pieces[piece].match) {
		heap[i] = heap[(i - 1) / 2];
		i = (i - 1) / 2;
	}
	heap[i] = piece;
}

static void heap_pop(const struct piece *pieces, uint32_t *heap, size_t n)
{
	uint32_t last = heap[n - 1];
	size_t i = 0;

	n--;
	for (size_t child; (child = 2 * i + 1) < n; i = child) {
		if (child + 1 < n && pieces[heap[child + 1]].match < pieces[heap[child]].match)
			child++;
		if (pieces[last].match <= pieces[heap[child]].match)
			break;
		heap[i] = heap[child];
	}
	heap[i] = last;
}

static int add_leaf(struct leaf **leaves, size_t *n, size_t *capacity, uint32_t key, uint32_t value, uint32_t order)
{
	if (*n && (*leaves)[*n - 1].value == value && (*leaves)[*n - 1].order == order)
		return 0;
	if (*n == *capacity && vec_reserve(leaves, capacity, *n + 1, sizeof(**leaves)) < 0)
		return -ENOMEM;
	(*leaves)[(*n)++] = (struct leaf){.key = key, .value = value, .order = order};
	return 0;
}
#define ADD_LEAF(v, key, value, order) add_leaf(&(v)->data, &(v)->n, &(v)->capacity, key, value, order)

/* --- nodes --- */

static uint32_t new_node(struct round *round, const struct leaf *entries, size_t n)
{
	struct rule_node_write write = {.id = node_id_new(&round->t->rule_nodes)};

	for (size_t i = 0; i < HD_RULE_FANOUT; i++) {
		const struct leaf *entry = &entries[i < n ? i : n - 1];

		write.node.key[i] = i < n ? entry->key : UINT32_MAX;
		write.node.value[i] = entry->value;
		write.node.order[i] = entry->order;
	}
	if (VEC_PUSH(&round->rule_writes, write) < 0 || VEC_PUSH(&round->tree, write.id) < 0)
		return 0;
	return write.id;
}

/* Nodes over the entries, level by level; uses them up. *ret: the root. */
static int make_nodes(struct round *round, struct leaf *entries, size_t n, uint32_t *ret)
{
	for (;;) {
		size_t nodes = (n + HD_RULE_FANOUT - 1) / HD_RULE_FANOUT;

		if (round->t->rule_nodes.live > RULE_NODES_MOST)
			return -EFBIG; /* there is no point in going on: check_sizes() says it */
		for (size_t i = 0; i < nodes; i++) {
			size_t from = i * n / nodes, to = (i + 1) * n / nodes;
			uint32_t key = entries[from].key, id = new_node(round, &entries[from], to - from);

			if (!id)
				return -ENOMEM;
			entries[i] = (struct leaf){.key = key, .value = HD_TAG_NODE | id};
		}
		if (nodes == 1) {
			*ret = entries[0].value;
			return 0;
		}
		n = nodes;
	}
}

/* --- source ports --- */

/* What decides among the found matches by source port: a leaf, or a tree behind HD_TAG_NEXT. */
static int source_tree(struct round *round, const struct rule_match *matches, int kind, struct leaf *ret)
{
	struct tree_builder *b = round->builder;
	uint32_t root, at = 0;
	size_t next = 0, n_heap = 0;
	int r = 0;

	b->sub_pieces.n = b->sub_leaves.n = 0;
	for (size_t i = 0; i < b->found.n && r == 0; i++) {
		const struct rule_match *match = &matches[b->found.data[i] & ~FOUND_WHOLE];
		struct piece piece = {.last = 0xffff, .match = b->found.data[i] & ~FOUND_WHOLE};

		if (b->found.data[i] & FOUND_WHOLE) {
			r = VEC_PUSH(&b->sub_pieces, piece);
			continue;
		}
		if (!match->rule) {
			piece.first = match->source_first;
			piece.last = match->source_last;
			r = VEC_PUSH(&b->sub_pieces, piece);
			continue;
		}
		for (uint32_t j = 0; j < match->rule->extra->n_source_ports && r == 0; j++) {
			const struct port_range *source = &match->rule->extra->source_ports[j];

			if (!source_applies(source, kind))
				continue;
			piece.first = source->first;
			piece.last = source->last;
			r = VEC_PUSH(&b->sub_pieces, piece);
		}
	}
	if (r == 0)
		r = VEC_RESERVE(&b->sub_heap, b->sub_pieces.n + 1);
	if (r < 0)
		return r;
	qsort(b->sub_pieces.data, b->sub_pieces.n, sizeof(*b->sub_pieces.data), piece_cmp);
	while (at <= 0xffff && r == 0) {
		const struct piece *pieces = b->sub_pieces.data;
		uint32_t stop = 0xffff;

		while (next < b->sub_pieces.n && pieces[next].first <= at)
			heap_push(pieces, b->sub_heap.data, n_heap++, (uint32_t)next++);
		while (n_heap && pieces[b->sub_heap.data[0]].last < at)
			heap_pop(pieces, b->sub_heap.data, n_heap--);
		if (next < b->sub_pieces.n)
			stop = pieces[next].first - 1;
		if (n_heap) {
			const struct piece *top = &pieces[b->sub_heap.data[0]];

			if (top->last < stop)
				stop = top->last;
			r = ADD_LEAF(&b->sub_leaves, at, matches[top->match].value, matches[top->match].order);
		} else {
			r = ADD_LEAF(&b->sub_leaves, at, NO_LEAF, HD_ORDER_LAST);
		}
		at = stop + 1;
	}
	if (r < 0)
		return r;
	if (b->sub_leaves.n == 1) {
		*ret = b->sub_leaves.data[0];
		return 0;
	}
	r = make_nodes(round, b->sub_leaves.data, b->sub_leaves.n, &root);
	if (r == 0)
		*ret = (struct leaf){.value = HD_TAG_NEXT | root, .order = HD_ORDER_LAST};
	return r;
}

/*
 * The matches at one place in order, down to the first that does not ask for source ports. Moves *stop back to where one of
 * them ends. *ret_same: they are the ones found last time, in the same kind.
 */
static int collect(struct tree_builder *b, size_t *n_heap, uint32_t at, uint32_t *stop, bool *ret_same)
{
	const struct piece *pieces = b->pieces.data;
	u32_vec swap = b->found_before;
	size_t kept = 0;
	bool done = false;

	b->found_before = b->found;
	b->found = swap;
	b->found.n = 0;
	b->popped.n = 0;
	while (*n_heap && !done) {
		uint32_t top = b->heap.data[0], mark = pieces[top].match | (pieces[top].partial ? 0 : FOUND_WHOLE);

		heap_pop(pieces, b->heap.data, (*n_heap)--);
		if (pieces[top].last < at)
			continue;
		if (VEC_PUSH(&b->popped, top) < 0)
			return -ENOMEM;
		if (pieces[top].last < *stop)
			*stop = pieces[top].last;
		done = !pieces[top].partial;
		if (b->found.n && b->found.data[b->found.n - 1] == mark)
			continue;
		if (VEC_PUSH(&b->found, mark) < 0)
			return -ENOMEM;
	}
	for (; kept < b->popped.n; kept++)
		heap_push(pieces, b->heap.data, (*n_heap)++, b->popped.data[kept]);
	*ret_same = b->found_kind == at >> 16 && b->found.n == b->found_before.n &&
		    memcmp(b->found.data, b->found_before.data, b->found.n * sizeof(*b->found.data)) == 0;
	b->found_kind = at >> 16;
	return 0;
}

/* Whether the leaves say something for a single range only, and what. */
static bool one_range(const struct leaf *leaves, size_t n, struct hd_class_rules *ret)
{
	const struct leaf *says = NULL;

	for (size_t i = 0; i < n; i++) {
		if (leaves[i].value == NO_LEAF)
			continue;
		if (says || (leaves[i].value & HD_TAG_MASK) != HD_TAG_LEAF)
			return false;
		says = &leaves[i];
	}
	if (!says)
		return false;
	ret->value = says->value;
	ret->order = says->order;
	ret->first = says->key;
	ret->last = says + 1 < leaves + n ? says[1].key - 1 : UINT32_MAX;
	return true;
}

/*
 * The tree of an ordered list of matches, ascending in order. *ret 0: they match nothing. shared: for tree_share(). alone, if not NULL,
 * takes what a single range can say; *ret is TREE_RANGE then.
 */
int tree_build(
	struct round *round, const struct rule_match *matches, size_t n, bool shared, struct hd_class_rules *alone, uint32_t *ret)
{
	struct tree_builder *b = builder_get(round);
	struct leaf source = {0};
	size_t next = 0, n_heap = 0;
	uint32_t at = 0, root;
	bool sorted = true;
	int r = 0;

	if (!b)
		return -ENOMEM;
	b->pieces.n = b->leaves.n = b->found.n = b->found_before.n = 0;
	b->found_kind = UINT32_MAX;
	round->tree.n = 0;
	*ret = 0;
	for (size_t i = 0; i < n && r == 0; i++)
		r = add_match(b, (uint32_t)i, &matches[i]);
	if (r == 0)
		r = VEC_RESERVE(&b->heap, b->pieces.n + 1);
	if (r < 0 || b->pieces.n == 0)
		return r;
	for (size_t i = 1; i < b->pieces.n && sorted; i++)
		sorted = b->pieces.data[i - 1].first <= b->pieces.data[i].first;
	if (!sorted)
		qsort(b->pieces.data, b->pieces.n, sizeof(*b->pieces.data), piece_cmp);
	for (bool last = false; !last && r == 0;) {
		const struct piece *pieces = b->pieces.data;
		uint32_t stop = UINT32_MAX;

		while (next < b->pieces.n && pieces[next].first <= at)
			heap_push(pieces, b->heap.data, n_heap++, (uint32_t)next++);
		while (n_heap && pieces[b->heap.data[0]].last < at)
			heap_pop(pieces, b->heap.data, n_heap--);
		if (next < b->pieces.n)
			stop = pieces[next].first - 1;
		if (n_heap && pieces[b->heap.data[0]].partial) {
			bool same;

			r = collect(b, &n_heap, at, &stop, &same);
			if (r == 0 && !same)
				r = source_tree(round, matches, (int)(at >> 16), &source);
			if (r == 0)
				r = ADD_LEAF(&b->leaves, at, source.value, source.order);
		} else if (n_heap) {
			const struct piece *top = &pieces[b->heap.data[0]];

			if (top->last < stop)
				stop = top->last;
			r = ADD_LEAF(&b->leaves, at, matches[top->match].value, matches[top->match].order);
		} else {
			r = ADD_LEAF(&b->leaves, at, NO_LEAF, HD_ORDER_LAST);
		}
		last = stop == UINT32_MAX;
		at = stop + 1;
	}
	if (r == 0 && alone && one_range(b->leaves.data, b->leaves.n, alone)) {
		*ret = TREE_RANGE;
		return 0;
	}
	if (r == 0)
		r = make_nodes(round, b->leaves.data, b->leaves.n, &root);
	return r < 0 ? r : tree_new(round->t, &round->tree, shared, ret);
}

/* --- several sets --- */

/* The sets of one direction, and the gaps between them. */
static int add_sets(struct round *round, const struct row *rows, size_t n, uint32_t direction)
{
	struct tree_builder *b = round->builder;
	uint32_t end = 0; /* number behind the one before */
	int r = 0;

	for (size_t i = 0; i < n && r == 0; i++) {
		uint32_t number = SET_NUMBER(rows[i].set);

		if (SET_DIRECTION(rows[i].set) != direction)
			continue;
		if (end && end != number)
			r = ADD_LEAF(&b->leaves, end, HD_TAG_LEAF, 0);
		if (r == 0)
			r = ADD_LEAF(&b->leaves, number, HD_TAG_LEAF | tree_root(round->t, rows[i].tree), 0);
		end = number + 1;
	}
	return r == 0 && end ? ADD_LEAF(&b->leaves, end, HD_TAG_LEAF, 0) : r;
}

/* The tree that leads from a set's number to the root of its row; rows ascending. */
int tree_over_sets(struct round *round, const struct row *rows, size_t n, uint32_t *ret)
{
	struct tree_builder *b = builder_get(round);
	uint32_t root;
	int r;

	if (!b)
		return -ENOMEM;
	b->leaves.n = round->tree.n = 0;
	r = ADD_LEAF(&b->leaves, 0, HD_TAG_LEAF, 0);
	for (uint32_t d = 0; d < HD_DIRECTIONS && r == 0; d++)
		r = add_sets(round, rows, n, d);
	if (r == 0)
		r = make_nodes(round, b->leaves.data, b->leaves.n, &root);
	return r < 0 ? r : tree_new(round->t, &round->tree, false, ret);
}

/* --- the rules for any peer --- */

struct builtin {
	uint8_t directions; /* bits by enum hd_direction */
	uint8_t rule;
	uint16_t source_first, source_last;
	uint32_t first, last;
};
#define IN (1 << HD_INGRESS)
#define OUT (1 << HD_EGRESS)
#define ANY_SOURCE 0, 0xffff

/* Always let through, ahead of every policy. The hop limit of neighbour discovery is checked in the data plane. */
static const struct builtin builtins[] = {
	{IN | OUT, HD_RULE_ARP, ANY_SOURCE, HD_L4_KEY(HD_L4_ETHERTYPE, 0x0806), HD_L4_KEY(HD_L4_ETHERTYPE, 0x0806)},
	/* RFC 4861: router and neighbour solicitation and advertisement, redirect */
	{IN | OUT, HD_RULE_ND, ANY_SOURCE, HD_L4_KEY(HD_L4_ICMPV6, 133 << 8), HD_L4_KEY(HD_L4_ICMPV6, 137 << 8 | 0xff)},
	/* RFC 2710, RFC 3810 */
	{IN | OUT, HD_RULE_MLD, ANY_SOURCE, HD_L4_KEY(HD_L4_ICMPV6, 130 << 8), HD_L4_KEY(HD_L4_ICMPV6, 132 << 8 | 0xff)},
	{IN | OUT, HD_RULE_MLD, ANY_SOURCE, HD_L4_KEY(HD_L4_ICMPV6, 143 << 8), HD_L4_KEY(HD_L4_ICMPV6, 143 << 8 | 0xff)},
	/* RFC 2131 section 4.1, RFC 8415 section 7.2; servers may answer from any port in DHCPv6, but none does */
	{OUT, HD_RULE_DHCP_CLIENT, 68, 68, HD_L4_KEY(HD_L4_UDP, 67), HD_L4_KEY(HD_L4_UDP, 67)},
	{IN, HD_RULE_DHCP_CLIENT, 67, 67, HD_L4_KEY(HD_L4_UDP, 68), HD_L4_KEY(HD_L4_UDP, 68)},
	{OUT, HD_RULE_DHCP_CLIENT, 546, 546, HD_L4_KEY(HD_L4_UDP, 547), HD_L4_KEY(HD_L4_UDP, 547)},
	{IN, HD_RULE_DHCP_CLIENT, 547, 547, HD_L4_KEY(HD_L4_UDP, 546), HD_L4_KEY(HD_L4_UDP, 546)},
	/* LLDP, 802.3 slow protocols (LACP), 802.1X */
	{IN | OUT, HD_RULE_LINK_CONTROL, ANY_SOURCE, HD_L4_KEY(HD_L4_ETHERTYPE, 0x88cc), HD_L4_KEY(HD_L4_ETHERTYPE, 0x88cc)},
	{IN | OUT, HD_RULE_LINK_CONTROL, ANY_SOURCE, HD_L4_KEY(HD_L4_ETHERTYPE, 0x8809), HD_L4_KEY(HD_L4_ETHERTYPE, 0x8809)},
	{IN | OUT, HD_RULE_LINK_CONTROL, ANY_SOURCE, HD_L4_KEY(HD_L4_ETHERTYPE, 0x888e), HD_L4_KEY(HD_L4_ETHERTYPE, 0x888e)},
};

static int push_failsafe(struct round *round, const struct port_range *range, uint32_t order)
{
	int kind = l4_kind(range->protocol);
	struct rule_match match = {.order = order, .value = HD_LEAF(HD_RULE_FAILSAFE, HD_ALLOW, false), .source_last = 0xffff};

	if (has_ports(kind)) {
		match.first = HD_L4_KEY(kind, range->first);
		match.last = HD_L4_KEY(kind, range->last);
		return VEC_PUSH(&round->matches, match);
	}
	if (kind != HD_L4_PROTOCOL) {
		match.first = HD_L4_KEY(kind, 0);
		match.last = HD_L4_KEY(kind, 0xffff);
		if (VEC_PUSH(&round->matches, match) < 0)
			return -ENOMEM;
	}
	match.first = match.last = HD_L4_KEY(HD_L4_PROTOCOL, range->protocol);
	return VEC_PUSH(&round->matches, match);
}

/* Appends the rules of a set that come before every policy; the default, which comes after them, is default_match(). */
int push_builtins(struct round *round, const struct pair *pair, int direction)
{
	uint32_t order = 1;
	int r = 0;

	for (size_t i = 0; !pair->ports && direction == HD_INGRESS && i < round->t->failsafe.n && r == 0; i++)
		r = push_failsafe(round, &round->t->failsafe.data[i], order < ORDER_BUILTIN ? order++ : order);
	order = ORDER_BUILTIN;
	for (size_t i = 0; i < ARRAY_N(builtins) && r == 0; i++) {
		const struct builtin *builtin = &builtins[i];

		order++;
		if (!(builtin->directions & 1 << direction) || (pair->ports && builtin->rule == HD_RULE_LINK_CONTROL))
			continue;
		r = VEC_PUSH(&round->matches, (struct rule_match){.order = order,
						      .value = HD_LEAF(builtin->rule, HD_ALLOW, false),
						      .first = builtin->first,
						      .last = builtin->last,
						      .source_first = builtin->source_first,
						      .source_last = builtin->source_last});
	}
	return r;
}

int push_default(struct round *round, const struct pair *pair, int direction)
{
	uint32_t rule = pair->isolation[direction]			    ? HD_RULE_ISOLATED
			: round->input->lockdown && direction == HD_INGRESS ? HD_RULE_LOCKDOWN
			: direction == HD_INGRESS			    ? HD_RULE_DEFAULT_INGRESS
									    : HD_RULE_DEFAULT_EGRESS;

	return VEC_PUSH(&round->matches,
		(struct rule_match){.order = HD_ORDER_LAST,
			.value = HD_LEAF(rule, (uint8_t)pair->verdict[direction], false) |
				 (pair->audit[direction] || pair->isolation[direction] == ISOLATION_AUDIT ? HD_LEAF_AUDIT : 0),
			.last = UINT32_MAX,
			.source_last = 0xffff});
}
