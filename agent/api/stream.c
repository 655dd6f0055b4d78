/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Streams of JSON lines, written as fast as their reader takes them. Each has a backlog of bounded size; what does not fit is
 * counted, and the stream says so as soon as there is room: {"type":"lost","count":N}.
 *
 * A stream with nothing to send is suspended in libmicrohttpd, which then does not look at its socket: we do, so that one
 * whose reader has gone does not keep its place.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include <sys/epoll.h>

#include <systemd/sd-event.h>

#include <api/http.h>
#include <observe/events.h>
#include <observe/flows.h>
#include <observe/json.h>
#include <util/cleanup.h>

#define STREAMS_MAX 16
#define STREAMS_FLOWS_MAX 4 /* each keeps a copy of the flows it has told */
#define BACKLOG_MONITOR (1u << 20)
#define BACKLOG_FLOWS (64u << 20) /* the first round tells every flow there is */
#define POLL_FLOWS_US 1000000
#define COMPACT_ABOVE 65536

struct stream {
	struct stream *next;
	struct api *api;
	enum stream_kind kind;
	struct MHD_Connection *connection;
	struct sd_event_source *hangup;
	struct buffer backlog;
	size_t sent;		 /* of the backlog */
	uint64_t lost;		 /* not told yet */
	uint64_t lost_in_kernel; /* HD_TOTAL_EVENTS_LOST when last told */
	bool suspended, ended;
	struct flow_watch *flows;
};

static void wake(struct stream *stream)
{
	if (!stream->suspended)
		return;
	stream->suspended = false;
	MHD_resume_connection(stream->connection);
	/* without threads libmicrohttpd has no way to wake its caller: it notices at its next run */
	(void)sd_event_source_set_enabled(stream->api->resumed, SD_EVENT_ONESHOT);
}

static void end(struct stream *stream)
{
	stream->ended = true;
	wake(stream);
}

static int on_hangup(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	struct stream *stream = userdata;

	(void)fd;
	(void)events;
	sd_event_source_set_enabled(source, SD_EVENT_OFF);
	end(stream);
	return 0;
}

static size_t backlog_limit(const struct stream *stream)
{
	return stream->kind == STREAM_FLOWS ? BACKLOG_FLOWS : BACKLOG_MONITOR;
}

static void put_line(struct stream *stream, json_t *line)
{
	struct buffer *backlog = &stream->backlog;
	size_t before = backlog->length;

	if (stream->sent == backlog->length) {
		stream->sent = backlog->length = 0;
		before = 0;
	} else if (stream->sent > COMPACT_ABOVE && stream->sent > backlog->length / 2) {
		memmove(backlog->data, backlog->data + stream->sent, backlog->length - stream->sent);
		before = backlog->length -= stream->sent;
		stream->sent = 0;
	}
	if (before - stream->sent > backlog_limit(stream)) {
		json_decref(line);
		stream->lost++;
		return;
	}
	if (json_write(line, backlog) < 0) {
		/* half a line must not stay */
		backlog->length = before;
		backlog->failed = false;
		stream->lost++;
		return;
	}
	buffer_add_char(backlog, '\n');
	if (backlog->failed) {
		backlog->length = before;
		backlog->failed = false;
		stream->lost++;
		return;
	}
	wake(stream);
}

static void tell_lost(struct stream *stream)
{
	uint64_t lost = stream->lost;

	if (!lost || stream->backlog.length - stream->sent > backlog_limit(stream) / 2)
		return;
	stream->lost = 0;
	put_line(stream, json_pack("{s:s, s:I}", "type", "lost", "count", (json_int_t)lost));
}

static ssize_t read_stream(void *userdata, uint64_t position, char *data, size_t max)
{
	struct stream *stream = userdata;
	size_t n;

	(void)position;
	if (stream->ended)
		return MHD_CONTENT_READER_END_OF_STREAM;
	tell_lost(stream);
	n = stream->backlog.length - stream->sent;
	if (!n) {
		/* a burst is over: its memory is not kept */
		buffer_clear(&stream->backlog);
		stream->sent = 0;
		MHD_suspend_connection(stream->connection);
		stream->suspended = true;
		return 0;
	}
	if (n > max)
		n = max;
	memcpy(data, stream->backlog.data + stream->sent, n);
	stream->sent += n;
	return (ssize_t)n;
}

static bool wanted(const struct api *api, enum stream_kind kind)
{
	for (const struct stream *stream = api->streams; stream; stream = stream->next)
		if (stream->kind == kind && !stream->ended)
			return true;
	return false;
}

bool api_monitoring(const struct api *api)
{
	return wanted(api, STREAM_MONITOR);
}

/* The data plane tells of allowed flows only while somebody listens; the flow tables are read only while somebody watches. */
static void follow_demand(struct api *api)
{
	if (api->view->datapath)
		datapath_monitor(api->view->datapath, api_monitoring(api));
	if (api->poll_flows)
		sd_event_source_set_enabled(api->poll_flows, wanted(api, STREAM_FLOWS) ? SD_EVENT_ONESHOT : SD_EVENT_OFF);
}

static void free_stream(void *userdata)
{
	struct stream *stream = userdata;
	struct api *api = stream->api;

	for (struct stream **at = &api->streams; *at; at = &(*at)->next)
		if (*at == stream) {
			*at = stream->next;
			api->n_streams--;
			break;
		}
	sd_event_source_disable_unref(stream->hangup);
	flow_watch_free(stream->flows);
	buffer_clear(&stream->backlog);
	free(stream);
	follow_demand(api);
}

static void tell_flow(const struct datapath_flow *flow, const char *change, void *userdata)
{
	struct stream *stream = userdata;
	json_t *line = flow_json(stream->api->view, flow);

	if (line)
		json_object_set_new(line, "type", json_string(change));
	put_line(stream, line);
}

static void poll_stream(struct stream *stream)
{
	size_t missed = 0;
	int r = flow_watch_poll(stream->flows, stream->api->view, tell_flow, stream, &missed);

	if (r < 0 || missed)
		stream->lost += missed ? missed : 1;
	tell_lost(stream);
}

static int on_poll_flows(sd_event_source *source, uint64_t now, void *userdata)
{
	struct api *api = userdata;

	(void)now;
	for (struct stream *stream = api->streams; stream; stream = stream->next)
		if (stream->kind == STREAM_FLOWS && !stream->ended)
			poll_stream(stream);
	/* counted from now: a table that takes long to read must not be read without a pause */
	sd_event_source_set_time_relative(source, POLL_FLOWS_US);
	sd_event_source_set_enabled(source, wanted(api, STREAM_FLOWS) ? SD_EVENT_ONESHOT : SD_EVENT_OFF);
	return 0;
}

static int prepare(struct stream *stream)
{
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(stream->connection, MHD_CONNECTION_INFO_CONNECTION_FD);
	struct api *api = stream->api;
	int r;

	if (!info)
		return -EIO;
	r = sd_event_add_io(api->event, &stream->hangup, info->connect_fd, EPOLLRDHUP, on_hangup, stream);
	if (r < 0 || stream->kind != STREAM_FLOWS)
		return r;
	stream->flows = flow_watch_new();
	if (!stream->flows)
		return -ENOMEM;
	if (!api->poll_flows) {
		r = sd_event_add_time_relative(
			api->event, &api->poll_flows, CLOCK_MONOTONIC, POLL_FLOWS_US, 50000, on_poll_flows, api);
		if (r < 0)
			return r;
	}
	sd_event_source_set_time_relative(api->poll_flows, POLL_FLOWS_US);
	poll_stream(stream);
	return 0;
}

enum MHD_Result stream_start(struct request *request, enum stream_kind kind)
{
	struct api *api = request->api;
	struct MHD_Response *response;
	enum MHD_Result result;
	struct stream *stream;
	unsigned of_flows = 0;
	int r;

	for (stream = api->streams; stream; stream = stream->next)
		of_flows += stream->kind == STREAM_FLOWS;
	if (api->n_streams >= STREAMS_MAX || (kind == STREAM_FLOWS && of_flows >= STREAMS_FLOWS_MAX))
		return respond_error(request, MHD_HTTP_SERVICE_UNAVAILABLE, NULL, "too many streams are open");
	stream = calloc(1, sizeof(*stream));
	if (!stream)
		return respond_failure(request, -ENOMEM, NULL);
	stream->api = api;
	stream->kind = kind;
	stream->connection = request->connection;
	r = prepare(stream);
	if (r < 0) {
		free_stream(stream);
		return respond_failure(request, r, NULL);
	}
	response = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 65536, read_stream, stream, free_stream);
	if (!response) {
		free_stream(stream);
		return MHD_NO;
	}
	stream->next = api->streams;
	api->streams = stream;
	api->n_streams++;
	follow_demand(api);
	request->streaming = true;
	MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, "application/x-ndjson");
	MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
	result = MHD_queue_response(request->connection, MHD_HTTP_OK, response);
	MHD_destroy_response(response);
	return result;
}

void streams_end(struct api *api)
{
	for (struct stream *stream = api->streams; stream; stream = stream->next)
		end(stream);
}

/* The ring buffer's own losses are in a counter: it is read when an event shows that there is traffic to report, once a second at most. */
static void tell_kernel_losses(struct api *api)
{
	struct hd_counter totals[HD_TOTAL_COUNT];
	uint64_t now;

	if (sd_event_now(api->event, CLOCK_MONOTONIC, &now) < 0 || now - api->losses_read < 1000000)
		return;
	api->losses_read = now;
	if (!api->view->datapath || datapath_totals(api->view->datapath, totals) < 0)
		return;
	for (struct stream *stream = api->streams; stream; stream = stream->next) {
		uint64_t lost = totals[HD_TOTAL_EVENTS_LOST].packets + totals[HD_TOTAL_EVENTS_LIMITED].packets;

		if (stream->kind == STREAM_FLOWS)
			continue;
		if (stream->lost_in_kernel && lost > stream->lost_in_kernel)
			stream->lost += lost - stream->lost_in_kernel;
		/* 0 means not read yet */
		stream->lost_in_kernel = lost ? lost : 1;
		tell_lost(stream);
	}
}

void api_event(struct api *api, const struct hd_event *event)
{
	json_t *line = NULL;
	bool drop = event_is_drop(event);

	if (!api->streams)
		return;
	for (struct stream *stream = api->streams; stream; stream = stream->next) {
		if (stream->ended || stream->kind == STREAM_FLOWS || (stream->kind == STREAM_MONITOR_DROPS && !drop))
			continue;
		if (!line)
			line = event_json(api->view, event);
		if (line)
			put_line(stream, json_incref(line));
	}
	json_decref(line);
	tell_kernel_losses(api);
}
