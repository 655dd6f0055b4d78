/* SPDX-License-Identifier: Apache-2.0 */
/* What changes something, or would. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <api/http.h>
#include <observe/lint.h>
#include <util/duration.h>

#define CONFIRM_MAX_MS (24ull * 3600 * 1000)

static int decode_body(struct request *request, struct object_list *list, struct diag *diag)
{
	int r = decode_documents(NULL, request->body.data ? request->body.data : "", request->body.length, list, diag);

	/* a large body is not needed twice while the policy is compiled */
	request->api->bodies -= request->body.length;
	buffer_clear(&request->body);
	return r;
}

static enum MHD_Result finish(struct request *request, int r, json_t *answer, struct object_list *list, struct diag *diag)
{
	enum MHD_Result result = r < 0 ? respond_failure(request, r, diag) : respond_json(request, MHD_HTTP_OK, answer);

	if (list)
		object_list_clear(list);
	diag_clear(diag);
	return result;
}

enum MHD_Result api_post_apply(struct request *request)
{
	const char *confirm = request_argument(request, "confirm");
	struct object_list list = {0};
	struct diag diag = {0};
	json_t *answer = NULL;
	uint64_t confirm_ms = 0;
	int r;

	if (confirm && (duration_parse(confirm, &confirm_ms) < 0 || confirm_ms < 1000 || confirm_ms > CONFIRM_MAX_MS))
		return respond_error(
			request, MHD_HTTP_BAD_REQUEST, NULL, "confirm: want a duration of 1s..24h, got \"%.64s\"", confirm);
	r = decode_body(request, &list, &diag);
	if (r >= 0)
		r = request->api->ops->apply(request->api->userdata, &list, confirm_ms, &answer, &diag);
	request->api->ops->tidy(request->api->userdata);
	return finish(request, r, answer, &list, &diag);
}

enum MHD_Result api_post_diff(struct request *request)
{
	struct object_list list = {0};
	struct buffer text = {0};
	struct diag diag = {0};
	int r = decode_body(request, &list, &diag);

	if (r >= 0)
		r = request->api->ops->diff(request->api->userdata, &list, &text, &diag);
	request->api->ops->tidy(request->api->userdata);
	if (r >= 0) {
		object_list_clear(&list);
		return respond_text(request, MHD_HTTP_OK, "application/json", &text);
	}
	buffer_clear(&text);
	return finish(request, r, NULL, &list, &diag);
}

/* --- preview: the answer is written as fast as it is read, a piece at a time --- */

#define PIECE_BYTES 32768u

struct telling {
	struct api *api;
	struct preview *preview;
	struct buffer piece;
	size_t sent; /* of the piece */
	bool more;
};

static ssize_t tell(void *userdata, uint64_t position, char *data, size_t max)
{
	struct telling *telling = userdata;
	size_t n;
	int r;

	(void)position;
	if (telling->sent == telling->piece.length) {
		if (!telling->more)
			return MHD_CONTENT_READER_END_OF_STREAM;
		telling->sent = telling->piece.length = 0;
		r = preview_write(telling->preview, &telling->piece, PIECE_BYTES);
		if (r < 0)
			return MHD_CONTENT_READER_END_WITH_ERROR;
		telling->more = r > 0;
	}
	n = telling->piece.length - telling->sent;
	if (n > max)
		n = max;
	memcpy(data, telling->piece.data + telling->sent, n);
	telling->sent += n;
	return (ssize_t)n;
}

static void telling_free(void *userdata)
{
	struct telling *telling = userdata;

	telling->api->n_previews--;
	telling->api->ops->tidy(telling->api->userdata);
	preview_free(telling->preview);
	buffer_clear(&telling->piece);
	free(telling);
}

/* Takes the preview over. */
static enum MHD_Result respond_preview(struct request *request, struct preview *preview)
{
	struct telling *telling = calloc(1, sizeof(*telling));
	struct MHD_Response *response;
	enum MHD_Result result;

	if (!telling) {
		preview_free(preview);
		return respond_failure(request, -ENOMEM, NULL);
	}
	*telling = (struct telling){.api = request->api, .preview = preview, .more = true};
	request->api->n_previews++;
	response = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, PIECE_BYTES, tell, telling, telling_free);
	if (!response) {
		telling_free(telling);
		return MHD_NO;
	}
	MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, "application/json");
	MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
	result = MHD_queue_response(request->connection, MHD_HTTP_OK, response);
	MHD_destroy_response(response);
	return result;
}

enum MHD_Result api_post_preview(struct request *request)
{
	struct object_list list = {0};
	struct preview *preview = NULL;
	struct diag diag = {0};
	int r;

	if (request->api->n_previews >= API_PREVIEWS)
		return respond_error(request, MHD_HTTP_SERVICE_UNAVAILABLE, NULL, "too many previews are being read");
	r = decode_body(request, &list, &diag);
	if (r >= 0)
		r = request->api->ops->preview(request->api->userdata, &list, &preview, &diag);
	request->api->ops->tidy(request->api->userdata);
	if (r < 0)
		return finish(request, r, NULL, &list, &diag);
	object_list_clear(&list);
	diag_clear(&diag);
	return respond_preview(request, preview);
}

/* Of what is in force with these in it. */
enum MHD_Result api_post_lint(struct request *request)
{
	struct object_list list = {0}, whole = {0};
	struct buffer text = {0};
	struct diag diag = {0};
	int r = decode_body(request, &list, &diag);

	if (r >= 0)
		r = request->api->ops->whole(request->api->userdata, &list, &whole, &diag);
	if (r >= 0)
		r = lint_text(request->api->view, &whole, &text);
	request->api->ops->tidy(request->api->userdata);
	object_list_clear(&whole);
	if (r >= 0) {
		object_list_clear(&list);
		return respond_text(request, MHD_HTTP_OK, "application/json", &text);
	}
	buffer_clear(&text);
	return finish(request, r, NULL, &list, &diag);
}

enum MHD_Result api_post_confirm(struct request *request)
{
	struct diag diag = {0};
	json_t *answer = NULL;
	int r = request->api->ops->confirm(request->api->userdata, &answer, &diag);

	return finish(request, r, answer, NULL, &diag);
}

enum MHD_Result api_delete_object(struct request *request)
{
	int kind = object_kind_from_name(request->kind);
	const char *namespace_;
	struct diag diag = {0};
	json_t *answer = NULL;
	int r;

	if (kind < 0)
		return api_unknown_kind(request);
	namespace_ = object_kind_namespace((enum object_kind)kind, request_argument(request, "namespace"));
	r = request->api->ops->remove(request->api->userdata, kind, namespace_, request->name, &answer, &diag);
	return finish(request, r, answer, NULL, &diag);
}
