/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>

#include <heddle/reasons.h>
#include <observe/counters.h>
#include <observe/json.h>
#include <observe/names.h>
#include <util/cleanup.h>

/* For JSON (camelCase); NULL: reserved. */
static const char *const total_names[HD_TOTAL_COUNT] = {
	[HD_TOTAL_INGRESS] = "ingress",
	[HD_TOTAL_EGRESS] = "egress",
	[HD_TOTAL_FLOWS_CREATED] = "flowsCreated",
	[HD_TOTAL_FLOWS_PROVEN] = "flowsProven",
	[HD_TOTAL_FLOWS_AGED] = "flowsAged",
	[HD_TOTAL_EVENTS_LOST] = "eventsLost",
	[HD_TOTAL_EVENTS_LIMITED] = "eventsLimited",
	[HD_TOTAL_REJECTS_LIMITED] = "rejectsLimited",
	[HD_TOTAL_REJUDGED] = "rejudged",
	[HD_TOTAL_CUT] = "cut",
	[HD_TOTAL_PICKED_UP] = "pickedUp",
};

static json_t *drops_json(struct hd_counter drops[HD_REASON_COUNT][2])
{
	json_t *items = json_array();

	for (unsigned reason = HD_R_NONE + 1; reason < HD_REASON_COUNT; reason++)
		for (unsigned direction = 0; direction < HD_DIRECTIONS; direction++) {
			const struct hd_counter *drop = &drops[reason][direction];

			if (drop->packets)
				json_array_append_new(
					items, json_pack("{s:s, s:s, s:I, s:I, s:s}", "reason", reason_name(reason), "direction",
						       direction_name(direction), "packets", (json_int_t)drop->packets, "bytes",
						       (json_int_t)drop->bytes, "description", reason_text(reason)));
		}
	return items;
}

json_t *counters_json(const struct view *view)
{
	struct hd_counter drops[HD_REASON_COUNT][2] = {0}, totals[HD_TOTAL_COUNT] = {0};
	uint64_t full[HD_TABLE_COUNT] = {0};
	json_t *total, *tables;

	if (view->datapath) {
		int r = datapath_drops(view->datapath, drops);

		if (r >= 0)
			r = datapath_totals(view->datapath, totals);
		if (r >= 0)
			r = datapath_full(view->datapath, full);
		if (r < 0)
			return NULL;
	}
	total = json_object();
	for (unsigned i = 0; i < HD_TOTAL_COUNT; i++) {
		if (!total_names[i])
			continue;
		if (i <= HD_TOTAL_EGRESS)
			json_object_set_new(total, total_names[i],
				json_pack("{s:I, s:I}", "packets", (json_int_t)totals[i].packets, "bytes",
					(json_int_t)totals[i].bytes));
		else
			json_object_set_new(total, total_names[i], json_integer((json_int_t)totals[i].packets));
	}
	tables = json_object();
	for (unsigned i = 0; i < HD_TABLE_COUNT; i++)
		json_object_set_new(tables, table_name(i), json_integer((json_int_t)full[i]));
	return json_pack("{s:o, s:o, s:o, s:I}", "drops", drops_json(drops), "totals", total, "tableFull", tables, "eventsLost",
		(json_int_t)totals[HD_TOTAL_EVENTS_LOST].packets);
}

int counters_each_rule(const struct view *view, counters_rule_cb cb, void *userdata)
{
	_cleanup_free_ struct hd_counter *counters = NULL;
	uint32_t limit;

	if (!view->datapath || !view->compiler)
		return 0;
	limit = compiler_rule_limit(view->compiler);
	counters = calloc(COUNTERS_RULES_AT_ONCE, sizeof(*counters));
	if (!counters)
		return -ENOMEM;
	for (uint32_t first = 0; first < limit; first += COUNTERS_RULES_AT_ONCE) {
		uint32_t n = limit - first < COUNTERS_RULES_AT_ONCE ? limit - first : COUNTERS_RULES_AT_ONCE;
		int r = datapath_rule_counters(view->datapath, first, n, counters);

		if (r < 0)
			return r;
		for (uint32_t i = 0; i < n; i++) {
			struct rule_reference rule;
			uint32_t id = first + i;

			if (id == HD_RULE_NONE)
				continue;
			if (id < HD_RULE_BUILTIN_COUNT)
				rule = (struct rule_reference){
					.policy = "builtin", .name = builtin_rule_name(id), .builtin = true};
			else if (compiler_rule(view->compiler, id, &rule) < 0)
				continue;
			r = cb(id, &rule, &counters[i], userdata);
			if (r)
				return r;
		}
	}
	return 0;
}

struct writing {
	const struct view *view;
	struct buffer *text;
	size_t n;
};

static int write_rule(uint32_t id, const struct rule_reference *rule, const struct hd_counter *counter, void *userdata)
{
	struct writing *writing = userdata;
	json_t *json;

	if (writing->n++)
		buffer_add_char(writing->text, ',');
	json = json_pack("{s:I, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:I, s:I}", "id", (json_int_t)id, "policy",
		json_text(rule->policy), "name", json_text(rule->name), "direction",
		rule->builtin ? json_null() : json_string(direction_name(rule->direction)), "index",
		rule->builtin ? json_null() : json_integer(rule->index), "action",
		rule->builtin ? json_null() : json_string(verdict_name(rule->verdict)), "file", json_text(rule->file), "line",
		rule->file ? json_integer(rule->line) : json_null(), "packets", (json_int_t)counter->packets, "bytes",
		(json_int_t)counter->bytes);
	if (!rule->builtin)
		json = json_of_policy(json, rule->kind, rule->namespace_,
			view_source(writing->view, rule->kind, rule->namespace_, rule->policy, rule->file));
	return json_write(json, writing->text);
}

int rules_text(const struct view *view, struct buffer *text)
{
	struct writing writing = {.view = view, .text = text};
	int r;

	buffer_add_string(text, "{\"items\":[");
	r = counters_each_rule(view, write_rule, &writing);
	buffer_add_string(text, "]}\n");
	return r < 0 ? r : text->failed ? -ENOMEM : 0;
}

json_t *builtin_rules_json(void)
{
	json_t *items = json_array();

	for (unsigned id = HD_RULE_NONE + 1; id < HD_RULE_BUILTIN_COUNT; id++)
		json_array_append_new(items, json_pack("{s:s, s:s, s:s}", "kind", "Builtin", "name", builtin_rule_name(id),
						     "description", builtin_rule_text(id)));
	return json_pack("{s:o}", "items", items);
}
