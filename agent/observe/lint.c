/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include <observe/json.h>
#include <observe/lint.h>
#include <observe/names.h>
#include <policy/lint.h>

static const char *const kinds[] = {
#define NAME(sym, name, text) name,
	LINT_KINDS(NAME)
#undef NAME
};

static void set(json_t *object, const char *key, json_t *value)
{
	if (object)
		json_object_set_new(object, key, value);
	else
		json_decref(value);
}

/* As a rule elsewhere, without an id and with its policy's kind and namespace. */
static json_t *place_json(const struct view *view, const struct lint_place *place)
{
	const struct object *policy = place->policy;
	json_t *json;

	if (!policy)
		return json_pack("{s:s, s:o, s:n, s:n, s:n, s:n}", "policy", "builtin", "name", json_text(place->name), "index",
			"direction", "file", "line");
	json = json_pack("{s:s, s:o, s:o, s:o, s:o, s:o}", "policy", policy->name, "name", json_text(place->name), "index",
		place->index < 0 ? json_null() : json_integer(place->index), "direction",
		place->direction < 0 ? json_null() : json_string(direction_name((unsigned)place->direction)), "file",
		json_text(policy->file), "line", policy->file ? json_integer(place->line) : json_null());
	return json_of_policy(json, policy->kind, policy->namespace_,
		view_source(view, policy->kind, policy->namespace_, policy->name, policy->file));
}

static json_t *because_json(const struct view *view, const struct lint_finding *finding)
{
	json_t *json = json_object(), *rules;

	if (finding->n_because) {
		rules = json_array();
		for (unsigned i = 0; i < finding->n_because; i++)
			json_array_append_new(rules, place_json(view, &finding->because[i]));
		set(json, "rule", place_json(view, &finding->because[0]));
		set(json, "rules", rules);
		set(json, "more", json_integer(finding->more));
	}
	if (finding->about)
		set(json, finding->about, json_text(finding->what));
	return json;
}

struct writing {
	const struct view *view;
	struct buffer *text;
	size_t n, omitted;
};

static int write_finding(const struct lint_finding *finding, void *userdata)
{
	struct writing *writing = userdata;

	if (writing->n == LINT_ITEMS_MAX) {
		writing->omitted++;
		return 0;
	}
	if (writing->n++)
		buffer_add_char(writing->text, ',');
	return json_write(json_pack("{s:s, s:s, s:s, s:o, s:s, s:o, s:o, s:s}", "kind", kinds[finding->kind], "severity",
				  finding->warning ? "warning" : "info", "policyKind", object_kind_name(finding->at.policy->kind),
				  "namespace", json_text(finding->at.policy->namespace_), "policy", finding->at.policy->name,
				  "rule", place_json(writing->view, &finding->at), "because",
				  because_json(writing->view, finding), "message", finding->message),
		writing->text);
}

int lint_text(const struct view *view, const struct object_list *objects, struct buffer *text)
{
	struct writing writing = {.view = view, .text = text};
	int r;

	buffer_add_string(text, "{\"items\":[");
	r = lint_policies(objects, write_finding, &writing);
	buffer_printf(text, "],\"omitted\":%zu}\n", writing.omitted);
	return r < 0 ? r : text->failed ? -ENOMEM : 0;
}
