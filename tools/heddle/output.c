/* SPDX-License-Identifier: Apache-2.0 */
/* Machine formats and aligned tables. */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "output.h"

int print_value(enum output output, const json_t *value)
{
	int r;

	if (!value) {
		json_auto_t *empty = json_object();

		return empty ? print_value(output, empty) : fail(CLI_REFUSED, "out of memory");
	}
	if (output == OUTPUT_YAML)
		r = yaml_write(stdout, value);
	else
		r = json_dumpf(value, stdout, JSON_INDENT(2) | JSON_ENCODE_ANY) || fputc('\n', stdout) == EOF;
	return r ? fail(CLI_REFUSED, "cannot write the output: %m") : CLI_DONE;
}

int print_line(enum output output, const json_t *value)
{
	int r;

	if (output == OUTPUT_YAML)
		r = fputs("---\n", stdout) == EOF || yaml_write(stdout, value);
	else
		r = json_dumpf(value, stdout, JSON_COMPACT | JSON_ENCODE_ANY) || fputc('\n', stdout) == EOF;
	return r || fflush(stdout) ? fail(CLI_REFUSED, "cannot write the output: %m") : CLI_DONE;
}

struct items {
	struct yaml_items *yaml; /* NULL: JSON */
	size_t n;
};

struct items *items_begin(enum output output)
{
	struct items *items = calloc(1, sizeof(*items));

	if (!items)
		return NULL;
	if (output == OUTPUT_YAML) {
		items->yaml = yaml_items_begin(stdout);
		if (!items->yaml) {
			free(items);
			return NULL;
		}
	} else {
		printf("{\"items\": [");
	}
	return items;
}

int items_add(struct items *items, const json_t *member)
{
	int r;

	if (items->yaml)
		r = yaml_items_add(items->yaml, member);
	else
		r = fputs(items->n ? ",\n" : "\n", stdout) == EOF || json_dumpf(member, stdout, 0);
	items->n++;
	return r ? fail(CLI_REFUSED, "cannot write the output: %m") : CLI_DONE;
}

int items_end(struct items *items, int code)
{
	int r;

	if (items->yaml)
		r = yaml_items_end(items->yaml);
	else
		r = code == CLI_DONE && printf(items->n ? "\n]}\n" : "]}\n") < 0;
	free(items);
	return code == CLI_DONE && r ? fail(CLI_REFUSED, "cannot write the output: %m") : code;
}

void print_text(FILE *file, const char *text)
{
	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;

		if ((c < 0x20 && c != '\n' && c != '\t') || c == 0x7f)
			fprintf(file, "\\x%02x", c);
		else
			fputc(c, file);
	}
}

struct table {
	size_t n_columns, n_cells, size;
	char **cells;	     /* the heading first */
	unsigned long right; /* a bit a column */
};

static void *must(void *memory)
{
	if (!memory) {
		fputs("heddle: out of memory\n", stderr);
		exit(CLI_REFUSED);
	}
	return memory;
}

struct table *table_new(const char *const *columns, size_t n_columns)
{
	struct table *table = must(calloc(1, sizeof(*table)));

	table->n_columns = n_columns;
	for (size_t i = 0; i < n_columns; i++)
		table_cell(table, "%s", columns[i]);
	return table;
}

void table_right(struct table *table, size_t column)
{
	table->right |= 1UL << column;
}

void table_cell(struct table *table, const char *format, ...)
{
	va_list arguments;
	char *text = NULL;
	int length;

	if (table->n_cells == table->size) {
		table->size = table->size ? 2 * table->size : 64;
		table->cells = must(reallocarray(table->cells, table->size, sizeof(*table->cells)));
	}
	va_start(arguments, format);
	length = vasprintf(&text, format, arguments);
	va_end(arguments);
	must(length < 0 ? NULL : text);
	/* a cell is one line, whatever others put into a name */
	for (char *c = text; *c; c++)
		if ((unsigned char)*c < 0x20 || *c == 0x7f)
			*c = '?';
	table->cells[table->n_cells++] = text;
}

size_t table_rows(const struct table *table)
{
	return table->n_cells / table->n_columns - 1;
}

struct row {
	char **cells;
	size_t at;
	table_order order;
};

static int compare_rows(const void *a, const void *b)
{
	const struct row *x = a, *y = b;
	int order = x->order(x->cells, y->cells);

	return order ? order : x->at < y->at ? -1 : x->at > y->at;
}

void table_sort(struct table *table, table_order order)
{
	size_t n = table_rows(table), columns = table->n_columns;
	struct row *rows = must(calloc(n + 1, sizeof(*rows)));
	char **sorted = must(calloc(table->size, sizeof(*sorted)));

	for (size_t i = 0; i < n; i++)
		rows[i] = (struct row){.cells = table->cells + (i + 1) * columns, .at = i, .order = order};
	qsort(rows, n, sizeof(*rows), compare_rows);
	memcpy(sorted, table->cells, columns * sizeof(*sorted));
	for (size_t i = 0; i < n; i++)
		memcpy(sorted + (i + 1) * columns, rows[i].cells, columns * sizeof(*sorted));
	free(rows);
	free(table->cells);
	table->cells = sorted;
}

/* Columns on the screen, as far as one character is one column. */
static size_t width_of(const char *text)
{
	size_t width = 0;

	for (; *text; text++)
		width += ((unsigned char)*text & 0xc0) != 0x80;
	return width;
}

void table_free(struct table *table)
{
	for (size_t i = 0; i < table->n_cells; i++)
		free(table->cells[i]);
	free(table->cells);
	free(table);
}

void table_print(struct table *table, FILE *file)
{
	size_t *width = must(calloc(table->n_columns, sizeof(*width)));

	for (size_t i = 0; i < table->n_cells; i++) {
		size_t w = width_of(table->cells[i]), column = i % table->n_columns;

		if (w > width[column])
			width[column] = w;
	}
	for (size_t i = 0; i < table->n_cells; i++) {
		size_t column = i % table->n_columns, pad = width[column] - width_of(table->cells[i]);
		bool last = column + 1 == table->n_columns, right = table->right & 1UL << column;

		fprintf(file, "%*s%s%*s%s", right ? (int)pad : 0, "", table->cells[i], right || last ? 0 : (int)pad, "",
			last ? "\n" : "  ");
	}
	free(width);
	table_free(table);
}
