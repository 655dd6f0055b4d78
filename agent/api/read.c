/* SPDX-License-Identifier: Apache-2.0 */
/* What is only read. */
#include <errno.h>
#include <string.h>
#include <strings.h>

#include <api/http.h>
#include <observe/counters.h>
#include <observe/explain.h>
#include <observe/flows.h>
#include <observe/json.h>
#include <observe/lint.h>
#include <observe/metrics.h>
#include <observe/status.h>
#include <util/cleanup.h>

enum MHD_Result api_get_status(struct request *request)
{
	return respond_json(request, MHD_HTTP_OK, status_json(request->api->view));
}

static enum MHD_Result respond_written(struct request *request, const char *type, struct buffer *text, int r)
{
	if (r < 0) {
		buffer_clear(text);
		return respond_failure(request, r, NULL);
	}
	return respond_text(request, MHD_HTTP_OK, type, text);
}

enum MHD_Result api_get_flows(struct request *request)
{
	struct buffer text = {0};

	if (request_flag(request, "watch"))
		return stream_start(request, STREAM_FLOWS);
	return respond_written(request, "application/json", &text, flows_text(request->api->view, &text));
}

enum MHD_Result api_get_monitor(struct request *request)
{
	return stream_start(request, request_flag(request, "drops") ? STREAM_MONITOR_DROPS : STREAM_MONITOR);
}

enum MHD_Result api_get_rules(struct request *request)
{
	struct buffer text = {0};

	return respond_written(request, "application/json", &text, rules_text(request->api->view, &text));
}

/* Of what is in force. */
enum MHD_Result api_get_lint(struct request *request)
{
	struct buffer text = {0};
	int r = lint_text(request->api->view, request->api->view->objects, &text);

	/* the rules were unpacked for it */
	request->api->ops->tidy(request->api->userdata);
	return respond_written(request, "application/json", &text, r);
}

enum MHD_Result api_get_metrics(struct request *request)
{
	struct buffer text = {0};

	return respond_written(request, METRICS_CONTENT_TYPE, &text, metrics_text(request->api->view, &text));
}

enum MHD_Result api_get_counters(struct request *request)
{
	json_t *counters = counters_json(request->api->view);

	return counters ? respond_json(request, MHD_HTTP_OK, counters) : respond_failure(request, -EIO, NULL);
}

static bool in_namespace(const struct object *object, const char *wanted)
{
	return !wanted || !object->namespace_ || !strcmp(object->namespace_, wanted);
}

static bool is_builtin(const char *kind)
{
	return !strcasecmp(kind, "builtin") || !strcasecmp(kind, "builtins");
}

enum MHD_Result api_unknown_kind(struct request *request)
{
	_cleanup_buffer_ struct buffer kinds = {0};

	if (is_builtin(request->kind))
		return respond_error(
			request, MHD_HTTP_NOT_FOUND, NULL, "built-in rules have no documents: all are listed, without a name");
	buffer_add_string(&kinds, "want ");
	for (int kind = 0; kind < OBJECT_KIND_COUNT; kind++) {
		buffer_add_string(&kinds, object_kind_name((enum object_kind)kind));
		buffer_add_string(&kinds, kind + 1 < OBJECT_KIND_COUNT ? ", " : " or builtin");
	}
	return respond_error(request, MHD_HTTP_NOT_FOUND, kinds.failed ? NULL : kinds.data, "no such kind: %.64s", request->kind);
}

/*
 * {"items": the documents, "origins": where each comes from}. The origin is beside the document, not in it, so that what `get` prints can be applied.
 */
enum MHD_Result api_get_objects(struct request *request)
{
	const struct object_list *all = request->api->view->objects;
	const char *namespace_ = request_argument(request, "namespace");
	int kind = object_kind_from_name(request->kind);
	struct buffer text = {0};
	json_t *origins;
	size_t n = 0;

	if (is_builtin(request->kind))
		return respond_json(request, MHD_HTTP_OK, builtin_rules_json());
	if (kind < 0)
		return api_unknown_kind(request);
	origins = json_array();
	buffer_add_string(&text, "{\"items\":[");
	for (size_t i = 0; i < all->n; i++) {
		const struct object *object = all->items[i];

		if ((int)object->kind != kind || !in_namespace(object, namespace_))
			continue;
		if (n++)
			buffer_add_char(&text, ',');
		encode_text(object, &text);
		json_array_append_new(origins,
			json_pack("{s:s, s:o, s:o, s:o, s:s}", "name", object->name, "namespace", json_text(object->namespace_),
				"file", json_text(object->file), "line", object->file ? json_integer(object->line) : json_null(),
				"source",
				view_source(request->api->view, object->kind, object->namespace_, object->name, object->file)));
	}
	buffer_add_string(&text, "],\"origins\":");
	if (json_write(origins, &text) < 0)
		text.failed = true;
	buffer_add_string(&text, "}\n");
	return respond_text(request, MHD_HTTP_OK, "application/json", &text);
}

enum MHD_Result api_get_object(struct request *request)
{
	const struct object_list *all = request->api->view->objects;
	int kind = object_kind_from_name(request->kind);
	const char *namespace_;
	struct buffer text = {0};

	if (kind < 0)
		return api_unknown_kind(request);
	namespace_ = object_kind_namespace((enum object_kind)kind, request_argument(request, "namespace"));
	for (size_t i = 0; i < all->n; i++) {
		const struct object *object = all->items[i];

		if ((int)object->kind != kind || strcmp(object->name, request->name) || !in_namespace(object, namespace_))
			continue;
		encode_text(object, &text);
		return respond_text(request, MHD_HTTP_OK, "application/json", &text);
	}
	return respond_error(request, MHD_HTTP_NOT_FOUND, NULL, "no such object: %s %.253s%s%.253s", object_kind_name(kind),
		namespace_ ?: "", namespace_ ? "/" : "", request->name);
}

enum MHD_Result api_post_explain(struct request *request)
{
	_cleanup_buffer_ struct buffer mistakes = {0};
	_cleanup_free_ struct explain_request *explain = NULL;
	json_auto_t *body = NULL;
	json_t *answer = NULL;
	json_error_t error;
	int r;

	body = json_loadb(request->body.data ? request->body.data : "", request->body.length, JSON_REJECT_DUPLICATES, &error);
	if (!body)
		return respond_error(request, MHD_HTTP_BAD_REQUEST, NULL, "not JSON: line %d: %s", error.line, error.text);
	explain = malloc(sizeof(*explain));
	if (!explain)
		return respond_failure(request, -ENOMEM, NULL);
	r = explain_parse(body, explain, &mistakes);
	if (r >= 0 && !request->api->view->compiler)
		return respond_error(request, MHD_HTTP_CONFLICT, NULL, "no policy is in force: there is nothing to explain");
	if (r >= 0)
		r = explain_run(request->api->view, explain, &answer, &mistakes);
	if (r == -EINVAL && mistakes.length)
		return respond_error(request, MHD_HTTP_BAD_REQUEST, mistakes.data, "cannot make this packet");
	if (r == -EINVAL)
		return respond_error(
			request, MHD_HTTP_BAD_REQUEST, NULL, "the kernel does not run a frame like this (too short?)");
	if (r < 0)
		return respond_failure(request, r, &(struct diag){.text = mistakes.data});
	return respond_json(request, MHD_HTTP_OK, answer);
}

enum MHD_Result api_get_vfs(struct request *request)
{
	struct diag diag = {0};
	json_t *answer = NULL;
	int r = request->api->ops->vfs(request->api->userdata, &answer, &diag);
	enum MHD_Result result = r < 0 ? respond_failure(request, r, &diag) : respond_json(request, MHD_HTTP_OK, answer);

	diag_clear(&diag);
	return result;
}
