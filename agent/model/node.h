/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One document as a tree of nodes with line numbers: what stands between libyaml and the schemas. Only for the time of
 * decoding, and compact: a document of 100,000 rules has 2 million nodes.
 */
#ifndef HEDDLE_MODEL_NODE_H
#define HEDDLE_MODEL_NODE_H

#include <stdbool.h>
#include <stdint.h>

#include <model/decode.h>
#include <util/buffer.h>

typedef uint32_t node_id; /* index in tree.nodes */
#define NODE_NONE 0

enum node_type { NODE_MAP, NODE_LIST, NODE_PLAIN, NODE_QUOTED }; /* the last two: scalars */

struct node {
	uint32_t line;	     /* from 1 */
	node_id next;	     /* sibling; in a map key and value take turns */
	uint32_t value;	     /* first child, or offset of the text */
	uint32_t type : 2;   /* enum node_type */
	uint32_t count : 30; /* items, pairs, or bytes of the text */
};

struct tree {
	struct node *nodes; /* [0] unused */
	uint32_t n, size;
	node_id root;
	struct buffer text;
};

struct tree_parser;

/* text must outlive the parser. -ENOMEM. */
int tree_parser_new(const char *file, const char *text, size_t length, struct diag *diag, struct tree_parser **ret);
void tree_parser_free(struct tree_parser *parser);
/*
 * The next document; its root is NODE_NONE when it is empty. 1; 0 at the end; -EINVAL with a mistake in diag, after which there
 * is nothing more to read; -ENOMEM. The tree's memory is used again for the next document.
 */
int tree_parser_next(struct tree_parser *parser, struct tree *tree);
void tree_clear(struct tree *tree);

static inline const struct node *tree_node(const struct tree *tree, node_id id)
{
	return &tree->nodes[id];
}

static inline bool tree_is_scalar(const struct tree *tree, node_id id)
{
	return tree->nodes[id].type >= NODE_PLAIN;
}

/* Of a scalar; NUL-terminated, without NUL inside. */
static inline const char *tree_text(const struct tree *tree, node_id id)
{
	return tree->text.data + tree->nodes[id].value;
}

static inline node_id tree_first(const struct tree *tree, node_id id)
{
	return tree->nodes[id].type <= NODE_LIST ? tree->nodes[id].value : NODE_NONE;
}

static inline node_id tree_next(const struct tree *tree, node_id id)
{
	return tree->nodes[id].next;
}

/* An empty value, ~ or null. */
bool tree_is_null(const struct tree *tree, node_id id);

#endif
