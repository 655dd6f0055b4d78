// SPDX-License-Identifier: Apache-2.0
#include <model/node.h>

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

/* 128 MiB of nodes: far more than the largest input anybody writes, and a bound for what a short text can blow up to. */
#define NODES_MAX ((uint32_t)8 << 20)

struct tree_parser {
	yaml_parser_t yaml;
	const char *file;
	struct diag *diag;
	struct buffer rewritten;
	bool ended;
};

static int hex4(const char *text)
{
	int value = 0;

	for (int i = 0; i < 4; i++) {
		if (!isxdigit((unsigned char)text[i]))
			return -1;
		value = value << 4 |
			(isdigit((unsigned char)text[i]) ? text[i] - '0' : tolower((unsigned char)text[i]) - 'a' + 10);
	}
	return value;
}

/* The code point at text, and how many bytes it has; malformed UTF-8 is one byte of itself: libyaml will say so. */
static unsigned code_point(const unsigned char *text, size_t left, unsigned *bytes)
{
	unsigned n = *text >= 0xf0   ? 4
		     : *text >= 0xe0 ? 3
		     : *text >= 0xc0 ? 2
				     : 1,
		 code = n == 1 ? *text : *text & (0xffu >> (n + 1));

	if (n > left)
		n = 1;
	for (unsigned i = 1; i < n; i++)
		code = code << 6 | (text[i] & 0x3f);
	*bytes = n;
	return code;
}

/*
 * Where JSON is not YAML to libyaml: a character beyond the BMP as two escapes (RFC 8259 section 7: "\ud83d\ude00"), which
 * it refuses, and characters that JSON takes as they are and YAML does not print, or takes for line breaks. All of them
 * inside double quotes; they become escapes that libyaml reads, and no line moves. Only for text that begins as JSON. out stays
 * empty when there are none.
 */
static void json_to_yaml(const char *text, size_t length, struct buffer *out)
{
	size_t at = 0, copied = 0;
	bool quoted = false;

	while (at < length) {
		unsigned char c = (unsigned char)text[at];
		unsigned bytes = 1, code;
		int high, low = -1;

		if (quoted && c == '\\' && length - at >= 2) {
			high = length - at >= 12 && text[at + 1] == 'u' ? hex4(text + at + 2) : -1;
			if (high >= 0xd800 && high <= 0xdbff && text[at + 6] == '\\' && text[at + 7] == 'u')
				low = hex4(text + at + 8);
			if (low < 0xdc00 || low > 0xdfff) {
				at += 2;
				continue;
			}
			code = 0x10000u + ((unsigned)(high - 0xd800) << 10) + (unsigned)(low - 0xdc00);
			bytes = 12;
		} else if (quoted && c >= 0x7f) {
			code = code_point((const unsigned char *)text + at, length - at, &bytes);
			if ((bytes == 1 && code != 0x7f) || (code > 0xa0 && code != 0x2028 && code != 0x2029 && code != 0xfeff &&
								    code != 0xfffe && code != 0xffff)) {
				at += bytes;
				continue;
			}
		} else {
			quoted ^= c == '"';
			at++;
			continue;
		}
		buffer_add(out, text + copied, at - copied);
		buffer_printf(out, "\\U%08X", code);
		at += bytes;
		copied = at;
	}
	if (copied)
		buffer_add(out, text + copied, length - copied);
}

static bool begins_as_json(const char *text, size_t length)
{
	size_t at = 0;

	if (length >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0)
		at = 3;
	while (at < length && isspace((unsigned char)text[at]))
		at++;
	return at < length && (text[at] == '{' || text[at] == '[');
}

int tree_parser_new(const char *file, const char *text, size_t length, struct diag *diag, struct tree_parser **ret)
{
	struct tree_parser *parser = calloc(1, sizeof(*parser));

	if (!parser)
		return -ENOMEM;
	parser->file = file;
	parser->diag = diag;
	if (begins_as_json(text, length)) {
		json_to_yaml(text, length, &parser->rewritten);
		if (parser->rewritten.data) {
			text = parser->rewritten.data;
			length = parser->rewritten.length;
		}
	}
	if (parser->rewritten.failed || !yaml_parser_initialize(&parser->yaml)) {
		buffer_clear(&parser->rewritten);
		free(parser);
		return -ENOMEM;
	}
	yaml_parser_set_input_string(&parser->yaml, (const unsigned char *)text, length);
	*ret = parser;
	return 0;
}

void tree_parser_free(struct tree_parser *parser)
{
	if (!parser)
		return;
	yaml_parser_delete(&parser->yaml);
	buffer_clear(&parser->rewritten);
	free(parser);
}

void tree_clear(struct tree *tree)
{
	free(tree->nodes);
	buffer_clear(&tree->text);
	*tree = (struct tree){0};
}

bool tree_is_null(const struct tree *tree, node_id id)
{
	const char *text;

	if (tree->nodes[id].type != NODE_PLAIN)
		return false;
	text = tree_text(tree, id);
	return !*text || strcmp(text, "~") == 0 || strcmp(text, "null") == 0 || strcmp(text, "Null") == 0 ||
	       strcmp(text, "NULL") == 0;
}

static int mistake(struct tree_parser *parser, size_t line, const char *want, const char *got)
{
	diag_add(parser->diag, parser->file, (uint32_t)line, NULL, "want %s, got %s", want, got);
	parser->ended = true;
	return -EINVAL;
}

static int syntax_error(struct tree_parser *parser)
{
	const yaml_parser_t *yaml = &parser->yaml;
	const char *problem = yaml->problem ? yaml->problem : "something else";

	parser->ended = true;
	if (yaml->error == YAML_MEMORY_ERROR)
		return -ENOMEM;
	if (yaml->error == YAML_READER_ERROR) /* no mark there, only a byte offset; the mark of the scanner is near */
		diag_add(parser->diag, parser->file, (uint32_t)yaml->mark.line + 1, NULL,
			"want YAML or JSON in UTF-8, got byte 0x%02x at offset %zu: %s", (unsigned)yaml->problem_value & 0xff,
			yaml->problem_offset, problem);
	else
		diag_add(parser->diag, parser->file, (uint32_t)yaml->problem_mark.line + 1, NULL,
			"want YAML or JSON, got in column %zu: %s%s%s", yaml->problem_mark.column + 1, problem,
			yaml->context ? ", " : "", yaml->context ? yaml->context : "");
	return -EINVAL;
}

static node_id add_node(struct tree *tree, enum node_type type, size_t line)
{
	if (tree->n == tree->size) {
		uint32_t size = tree->size ? tree->size * 2 : 256;
		struct node *nodes = realloc(tree->nodes, size * sizeof(*nodes));
		if (!nodes)
			return NODE_NONE;
		tree->nodes = nodes;
		tree->size = size;
	}
	tree->nodes[tree->n] = (struct node){.line = (uint32_t)line, .type = type};
	return tree->n++;
}

struct level {
	node_id node, last; /* the container, and its newest child */
};

/* Adds what the event says below the innermost open container. */
static int add_event(
	struct tree_parser *parser, struct tree *tree, const yaml_event_t *event, struct level *levels, unsigned *depth)
{
	size_t line = event->start_mark.line + 1;
	const unsigned char *tag = NULL;
	node_id id;

	switch (event->type) {
	case YAML_MAPPING_END_EVENT:
	case YAML_SEQUENCE_END_EVENT:
		if (*depth == 0)
			return -EINVAL; /* libyaml does not end what it has not begun */
		--*depth;
		if (event->type == YAML_MAPPING_END_EVENT)
			tree->nodes[levels[*depth].node].count /= 2;
		return 0;
	case YAML_ALIAS_EVENT:
		return mistake(parser, line, "values written out (anchors and aliases are not read)", "an alias");
	case YAML_SCALAR_EVENT:
		tag = event->data.scalar.tag;
		id = add_node(tree, event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE ? NODE_PLAIN : NODE_QUOTED, line);
		if (memchr(event->data.scalar.value, 0, event->data.scalar.length))
			return mistake(parser, line, "text", "text with a NUL character in it");
		if (id) {
			tree->nodes[id].value = (uint32_t)tree->text.length;
			tree->nodes[id].count = (uint32_t)event->data.scalar.length & 0x3fffffff;
			buffer_add(&tree->text, event->data.scalar.value, event->data.scalar.length + 1);
		}
		break;
	case YAML_SEQUENCE_START_EVENT:
		tag = event->data.sequence_start.tag;
		id = add_node(tree, NODE_LIST, line);
		break;
	case YAML_MAPPING_START_EVENT:
		tag = event->data.mapping_start.tag;
		id = add_node(tree, NODE_MAP, line);
		break;
	default:
		return 0;
	}
	if (!id || tree->text.failed)
		return -ENOMEM;
	if (tag)
		return mistake(parser, line, "values without a tag", (const char *)tag);
	if (tree->n >= NODES_MAX)
		return mistake(parser, line, "at most 8388608 values in a document", "more");

	if (*depth) {
		struct level *level = &levels[*depth - 1];

		if (level->last)
			tree->nodes[level->last].next = id;
		else
			tree->nodes[level->node].value = id;
		level->last = id;
		tree->nodes[level->node].count++;
	} else {
		tree->root = id;
	}
	if (event->type == YAML_SCALAR_EVENT)
		return 0;
	if (*depth == DECODE_DEPTH_MAX)
		return mistake(parser, line, "at most 32 levels of lists and mappings", "more");
	levels[(*depth)++] = (struct level){.node = id};
	return 0;
}

int tree_parser_next(struct tree_parser *parser, struct tree *tree)
{
	struct level levels[DECODE_DEPTH_MAX];
	unsigned depth = 0;

	tree->n = 0;
	tree->root = NODE_NONE;
	tree->text.length = 0;
	if (parser->ended)
		return 0;
	/* The number 0 means none. */
	add_node(tree, NODE_PLAIN, 0);
	if (tree->n == 0)
		return -ENOMEM;

	for (;;) {
		yaml_event_t event;
		int r = 0;

		if (!yaml_parser_parse(&parser->yaml, &event))
			return syntax_error(parser);
		if (event.type == YAML_STREAM_END_EVENT) {
			parser->ended = true;
			return 0;
		}
		yaml_event_type_t type = event.type;
		if (type != YAML_DOCUMENT_START_EVENT && type != YAML_DOCUMENT_END_EVENT && type != YAML_STREAM_START_EVENT)
			r = add_event(parser, tree, &event, levels, &depth);
		yaml_event_delete(&event);
		if (type == YAML_DOCUMENT_END_EVENT) {
			if (tree->root && tree_is_null(tree, tree->root))
				tree->root = NODE_NONE; /* "---" and nothing behind it */
			return 1;
		}
		if (r < 0)
			return r;
	}
}
