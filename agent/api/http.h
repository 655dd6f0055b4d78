/* SPDX-License-Identifier: Apache-2.0 */
/* Inside api/ only: one request, from its first line to its answer. */
#ifndef HEDDLE_API_HTTP_H
#define HEDDLE_API_HTTP_H

#include <microhttpd.h>

#include <api/api.h>
#include <util/buffer.h>

#define API_CONNECTIONS 64
#define API_CONNECTIONS_USER 16	       /* of one user, root excepted: the others find room */
#define API_CONNECTION_SECONDS 30      /* without a byte either way */
#define API_REQUEST_SECONDS 60	       /* from the connection's accept or its last answer to the end of the next request */
#define API_BODY_DOCUMENTS (64u << 20) /* apply, diff, preview, lint */
#define API_BODY_SMALL (64u << 10)
#define API_ANSWER_LARGE (1u << 20)   /* memory is tidied up after one */
#define API_PREVIEWS 2		      /* at once: each keeps two compiled policies until it is told */
#define API_BODIES_TOTAL (160u << 20) /* of all requests that are being received at once */

struct stream;
struct route;

struct api {
	struct sd_event *event;
	const struct view *view;
	const struct api_ops *ops;
	void *userdata;
	size_t bodies; /* bytes held in bodies of requests that are being received */
	struct stream *streams;
	unsigned n_streams, n_previews;
	struct sd_event_source *poll_flows;
	struct sd_event_source *resumed; /* has libmicrohttpd look at the streams that were resumed */
	uint64_t losses_read;		 /* us: when the data plane was last asked for its losses */
};

struct request {
	struct api *api;
	struct MHD_Connection *connection;
	const struct route *route;
	const char *kind, *name; /* of /v1/objects/KIND/NAME; point into path */
	char *path;
	struct buffer body;
	size_t limit;
	bool too_large;
	bool streaming;
	bool large; /* its answer */
};

/* Handlers answer by one of these. They take over what they are given. */
enum MHD_Result respond_json(struct request *request, unsigned status, json_t *body);
enum MHD_Result respond_text(struct request *request, unsigned status, const char *type, struct buffer *text);
enum MHD_Result respond_error(struct request *request, unsigned status, const char *details, const char *format, ...)
	__attribute__((format(printf, 4, 5)));
/* By the errno of an operation; diag may be empty. */
enum MHD_Result respond_failure(struct request *request, int r, const struct diag *diag);

const char *request_argument(const struct request *request, const char *name); /* of the query; NULL: not given */
bool request_flag(const struct request *request, const char *name);	       /* given as 1 or true, or without a value */

enum MHD_Result api_get_status(struct request *request);
enum MHD_Result api_get_objects(struct request *request);
enum MHD_Result api_get_object(struct request *request);
enum MHD_Result api_unknown_kind(struct request *request);
enum MHD_Result api_get_flows(struct request *request);
enum MHD_Result api_get_rules(struct request *request);
enum MHD_Result api_get_counters(struct request *request);
enum MHD_Result api_get_metrics(struct request *request);
enum MHD_Result api_get_monitor(struct request *request);
enum MHD_Result api_post_apply(struct request *request);
enum MHD_Result api_post_confirm(struct request *request);
enum MHD_Result api_post_diff(struct request *request);
enum MHD_Result api_post_preview(struct request *request);
enum MHD_Result api_get_lint(struct request *request);
enum MHD_Result api_post_lint(struct request *request);
enum MHD_Result api_post_explain(struct request *request);
enum MHD_Result api_post_cni_reserve(struct request *request);
enum MHD_Result api_post_cni_commit(struct request *request);
enum MHD_Result api_post_cni_release(struct request *request);
enum MHD_Result api_get_cni_attachments(struct request *request);
enum MHD_Result api_get_cni_status(struct request *request);
enum MHD_Result api_get_vfs(struct request *request);
enum MHD_Result api_delete_object(struct request *request);

/* Streams of JSON lines. */
enum stream_kind { STREAM_MONITOR, STREAM_MONITOR_DROPS, STREAM_FLOWS };
enum MHD_Result stream_start(struct request *request, enum stream_kind kind);
void streams_end(struct api *api);

struct route {
	const char *method, *path; /* a path that ends in '/' takes a KIND; `named`: KIND/NAME */
	bool named;
	bool scraped; /* also on the TCP listener */
	size_t body;
	enum MHD_Result (*handle)(struct request *request);
};
/* status: what to answer when there is none: 404, or 405 where the path has another method. Fills in kind and name. */
const struct route *route_find(const char *method, char *path, bool tcp, const char **kind, const char **name, unsigned *status);

#endif
