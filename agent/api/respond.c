/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include <api/http.h>
#include <observe/json.h>
#include <util/cleanup.h>

/* Takes text over. */
static enum MHD_Result respond(struct request *request, unsigned status, const char *type, char *text, size_t length)
{
	struct MHD_Response *response = MHD_create_response_from_buffer(length, text, MHD_RESPMEM_MUST_FREE);
	enum MHD_Result result;

	if (!response) {
		free(text);
		return MHD_NO;
	}
	MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
	MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
	result = MHD_queue_response(request->connection, status, response);
	MHD_destroy_response(response);
	return result;
}

enum MHD_Result respond_text(struct request *request, unsigned status, const char *type, struct buffer *text)
{
	char *data = text->data;
	size_t length = text->length;

	if (text->failed || !data) {
		buffer_clear(text);
		return respond_error(request, MHD_HTTP_SERVICE_UNAVAILABLE, NULL, "out of memory");
	}
	*text = (struct buffer){0};
	request->large = length > API_ANSWER_LARGE;
	return respond(request, status, type, data, length);
}

enum MHD_Result respond_json(struct request *request, unsigned status, json_t *body)
{
	struct buffer text = {0};

	if (json_write(body, &text) < 0) {
		buffer_clear(&text);
		/* for the error itself there may be memory again; if not, the connection is closed */
		if (status == MHD_HTTP_SERVICE_UNAVAILABLE)
			return MHD_NO;
		return respond_error(request, MHD_HTTP_SERVICE_UNAVAILABLE, NULL, "out of memory");
	}
	buffer_add_char(&text, '\n');
	return respond_text(request, status, "application/json", &text);
}

enum MHD_Result respond_error(struct request *request, unsigned status, const char *details, const char *format, ...)
{
	_cleanup_buffer_ struct buffer message = {0};
	va_list args;

	va_start(args, format);
	buffer_vprintf(&message, format, args);
	va_end(args);
	return respond_json(request, status,
		json_pack("{s:o, s:o}", "error", json_text(message.data ? message.data : "out of memory"), "details",
			json_lines(details)));
}

enum MHD_Result respond_failure(struct request *request, int r, const struct diag *diag)
{
	const char *details = diag ? diag->text : NULL;

	switch (r) {
	case -EINVAL:
		return respond_error(request, MHD_HTTP_BAD_REQUEST, details, "refused: what was in force stays in force");
	case -E2BIG:
		return respond_error(request, MHD_HTTP_BAD_REQUEST, details, "refused: too large");
	case -EPERM:
		return respond_error(request, MHD_HTTP_CONFLICT, details, "refused: a file owns the object");
	case -EACCES:
		return respond_error(
			request, MHD_HTTP_CONFLICT, details, "refused: the CNI plugin or the cluster owns the object");
	case -EEXIST:
		return respond_error(request, MHD_HTTP_CONFLICT, details, "refused: it is attached already");
	case -EADDRINUSE:
		return respond_error(request, MHD_HTTP_CONFLICT, details, "refused: that port of the host is taken");
	case -EADDRNOTAVAIL:
		return respond_error(request, MHD_HTTP_CONFLICT, details, "refused: no such address is free");
	case -EAGAIN:
		return respond_error(request, MHD_HTTP_SERVICE_UNAVAILABLE, details, "not now");
	case -EBUSY:
		return respond_error(request, MHD_HTTP_CONFLICT, details, "refused: an apply waits for its confirmation");
	case -ENOENT:
		return respond_error(request, MHD_HTTP_NOT_FOUND, details, "not found");
	case -ENODEV:
		return respond_error(request, MHD_HTTP_CONFLICT, details, "no such device under guard");
	case -EMSGSIZE:
		return respond_error(request, MHD_HTTP_BAD_REQUEST, details, "the frame is too large to be run");
	case -ENOMEM:
		return respond_error(request, MHD_HTTP_SERVICE_UNAVAILABLE, details, "out of memory");
	default:
		return respond_error(request, MHD_HTTP_INTERNAL_SERVER_ERROR, details, "failed: %s", strerror(-r));
	}
}

const char *request_argument(const struct request *request, const char *name)
{
	return MHD_lookup_connection_value(request->connection, MHD_GET_ARGUMENT_KIND, name);
}

bool request_flag(const struct request *request, const char *name)
{
	const char *value = NULL;

	if (MHD_lookup_connection_value_n(request->connection, MHD_GET_ARGUMENT_KIND, name, strlen(name), &value, NULL) !=
		MHD_YES)
		return false;
	return !value || !*value || !strcmp(value, "1") || !strcmp(value, "true");
}
