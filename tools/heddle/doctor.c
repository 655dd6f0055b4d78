/* SPDX-License-Identifier: Apache-2.0 */
/* heddle doctor: what kernel, NICs and IOMMU offer, and which path is used because of it. */
#include <string.h>

#include <tools/doctor/doctor.h>

#include "heddle.h"
#include "output.h"

enum { OPT_SYSROOT, OPT_ALL, OPT_STRICT };
static const struct cli_option options[] = {
	[OPT_SYSROOT] = {"sysroot", 0, "DIR", "@file", "look at this tree of /proc and /sys instead: another machine's"},
	[OPT_ALL] = {"all", 'a', NULL, NULL, "what is as it should be, too"},
	[OPT_STRICT] = {"strict", 0, NULL, NULL, "exit status 1 when there is a warning"},
	{NULL, 0, NULL, NULL, NULL},
};

static bool is(const json_t *item, const char *severity)
{
	return strcmp(text_at(item, "severity"), severity) == 0;
}

static size_t count(const json_t *items, const char *severity)
{
	const json_t *item;
	size_t i, n = 0;

	json_array_foreach (items, i, item)
		n += is(item, severity);
	return n;
}

/* What is in order is told in short, unless heddle takes a particular way because of it. */
static bool is_shown(const json_t *item, bool all)
{
	return all || !is(item, "ok") || string_at(item, "path");
}

static void print_findings(const json_t *items, bool all)
{
	static const char *const columns[] = {"STATE", "AREA", "WHERE", "WHAT", "FOUND", "SO HEDDLE"};
	struct table *table = table_new(columns, 6);
	const json_t *item;
	size_t i;

	json_array_foreach (items, i, item) {
		if (!is_shown(item, all))
			continue;
		table_cell(table, "%s", text_at(item, "severity"));
		table_cell(table, "%s", text_at(item, "area"));
		table_cell(table, "%s", text_at(item, "subject"));
		table_cell(table, "%s", text_at(item, "name"));
		table_cell(table, "%s", text_at(item, "value"));
		table_cell(table, "%s", text_at(item, "path"));
	}
	table_print(table, stdout);
}

static void print_changes(const json_t *items)
{
	static const char *const columns[] = {"STATE", "WHERE", "WHAT", "CHANGE"};
	struct table *table = table_new(columns, 4);
	const json_t *item;
	size_t i;

	json_array_foreach (items, i, item) {
		if (!string_at(item, "change"))
			continue;
		table_cell(table, "%s", text_at(item, "severity"));
		table_cell(table, "%s", string_at(item, "subject") ? text_at(item, "subject") : text_at(item, "area"));
		table_cell(table, "%s", text_at(item, "name"));
		table_cell(table, "%s", text_at(item, "change"));
	}
	if (table_rows(table)) {
		printf("\nwhat can be changed:\n");
		table_print(table, stdout);
	} else {
		table_free(table);
	}
}

static void print_unread(const json_t *unread, bool root)
{
	const json_t *one;
	size_t i;

	if (!json_array_size(unread))
		return;
	printf("\nnot read%s:\n", root ? "" : " (run it as root)");
	json_array_foreach (unread, i, one) {
		printf("  ");
		print_text(stdout, text_at(one, "what"));
		printf(": %s\n", text_at(one, "reason"));
	}
}

static int doctor_verb(struct cli *cli)
{
	json_auto_t *report = NULL;
	const char *sysroot = cli->value[OPT_SYSROOT];
	int r = doctor_run(sysroot, &report), code = CLI_DONE;
	const json_t *items;
	size_t warnings;

	if (r < 0)
		return fail(CLI_REFUSED, "%s: %s", sysroot ? sysroot : "/", strerror(-r));
	items = json_object_get(report, "items");
	warnings = count(items, "warning");
	if (cli->output != OUTPUT_TABLE) {
		code = print_value(cli->output, report);
	} else {
		print_findings(items, cli->value[OPT_ALL] != NULL);
		print_changes(items);
		print_unread(json_object_get(report, "unread"), true_at(report, "root"));
		printf("\n%zu warnings, %zu notes, %zu not known\n", warnings, count(items, "note"), count(items, "unknown"));
	}
	if (!code && cli->value[OPT_STRICT] && warnings)
		return fail(CLI_REFUSED, "doctor: %zu warnings", warnings);
	return code;
}

const struct verb verb_doctor = {
	.name = "doctor",
	.arguments = "",
	.summary = "what kernel, NICs and IOMMU offer, which path is taken because of it, and what to change",
	.options = options,
	.local = true,
	.run = doctor_verb,
};
