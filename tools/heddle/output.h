/* SPDX-License-Identifier: Apache-2.0 */
/* Ways to print what the daemon said: JSON, YAML, aligned tables. */
#ifndef HEDDLE_CLI_OUTPUT_H
#define HEDDLE_CLI_OUTPUT_H

#include "heddle.h"

/* The whole value in a machine's format. output must not be OUTPUT_TABLE. Returns an exit status. */
int print_value(enum output output, const json_t *value);
/* {"items": [...]} written member by member, in a machine's format. NULL: no memory. */
struct items;
struct items *items_begin(enum output output);
int items_add(struct items *items, const json_t *member); /* an exit status */
int items_end(struct items *items, int code);		  /* frees it; passes code on, or says what failed at last */

/* One of many: a line of JSON, or a YAML document of its own. Flushed, so that a reader of the pipe sees it at once. */
int print_line(enum output output, const json_t *value);

/* A YAML document without the leading marker. 0 or -EIO. */
int yaml_write(FILE *file, const json_t *value);
/* The same for {"items": [...]}, piece by piece. */
struct yaml_items;
struct yaml_items *yaml_items_begin(FILE *file); /* NULL: no memory */
int yaml_items_add(struct yaml_items *items, const json_t *member);
int yaml_items_end(struct yaml_items *items);

/* Text that others wrote, on a terminal: control characters as \xNN, so that they cannot drive the terminal. */
void print_text(FILE *file, const char *text);

/* A table is built row by row and printed at the end; every column is as wide as its widest cell. */
struct table;
struct table *table_new(const char *const *columns, size_t n_columns); /* exits when there is no memory, as all of these */
void table_cell(struct table *table, const char *format, ...) __attribute__((format(printf, 2, 3)));
void table_right(struct table *table, size_t column); /* align to the right: numbers */
size_t table_rows(const struct table *table);
typedef int (*table_order)(char *const *a, char *const *b); /* two rows, a cell a column */
void table_sort(struct table *table, table_order order);    /* rows that are equal stay in their order */
void table_print(struct table *table, FILE *file);	    /* and frees it */
void table_free(struct table *table);

/* --- fields of an answer; a missing or odd one reads as NULL, 0, or "-" --- */
const char *string_at(const json_t *object, const char *key);
const char *text_at(const json_t *object, const char *key); /* never NULL: "-" */
long long number_at(const json_t *object, const char *key);
bool true_at(const json_t *object, const char *key);

#define TEXT_MAX 320
/* 192.0.2.1:80, [2001:db8::1]:80, or the address alone without a port. */
const char *endpoint_text(const json_t *object, const char *address_key, const char *port_key, char out[TEXT_MAX]);
/* The same, with the peer behind which it is: 10.77.0.2:80 (node-b). */
const char *behind_text(
	const json_t *object, const char *address_key, const char *port_key, const char *peer_key, char out[TEXT_MAX]);
/* base/ssh, base#3 for a rule without a name, shop/web#3 where the policy is in a namespace; "-" none. */
const char *rule_text(const json_t *rule, char out[TEXT_MAX]);
/* HostPolicy/base, Port/shop/web-1: kind, namespace if there is one, name. */
#define TITLE_MAX 400
const char *title_text(const json_t *object, char out[TITLE_MAX]);
/* FILE:LINE, or "applied", "built in". */
const char *origin_text(const json_t *rule, char out[TEXT_MAX]);
const char *duration_text(double seconds, char out[TEXT_MAX]);
/* One line for the packet fields that monitor, explain --pcap and flows share: TCP 192.0.2.1:1 > 192.0.2.2:22 [SYN] vlan 10 */
const char *packet_text(const json_t *packet, char out[TEXT_MAX]);
/* The lines of "details" in an object, indented. */
void print_details(FILE *file, const json_t *object);
/* {"type":"lost","count":N} in a stream: prints it and is true. */
bool print_lost(const json_t *line);
const char *bytes_text(double bytes, char out[TEXT_MAX]);

#endif
