// SPDX-License-Identifier: Apache-2.0
/* One stream a kind: list it page by page, then watch from there for as long as that works, and list again when it does not. */
#include <source/kubernetes_internal.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include <util/clock.h>
#include <util/log.h>

#define PAGE 500
#define WATCH_LEAST_S 240u /* then the server ends it, and it begins anew: so no half-dead connection lasts for ever */
#define RETRY_FIRST_MS 100u
#define RETRY_MOST_MS 15000u
#define ABSENT_MS 60000u
#define QUIET_US 5000u	   /* after the last event of one transaction */
#define PATIENCE_US 20000u /* since its first, should they never end */

/* --- telling --- */

static int on_told(sd_event_source *source, uint64_t now, void *userdata)
{
	struct kubernetes *k = userdata;

	(void)source, (void)now;
	k->first_us = 0;
	k->changed(k->userdata);
	return 0;
}

static void kube_tell(struct kubernetes *k, bool now)
{
	uint64_t at = clock_us();

	if (!k->live)
		return;
	if (!k->first_us)
		k->first_us = at;
	if (!now)
		at = at + QUIET_US < k->first_us + PATIENCE_US ? at + QUIET_US : k->first_us + PATIENCE_US;
	(void)sd_event_source_set_time(k->told, at);
	(void)sd_event_source_set_enabled(k->told, SD_EVENT_ONESHOT);
}

static void heard(struct kubernetes *k)
{
	k->last_sync = (int64_t)(clock_wall_us() / 1000);
}

/* Every kind was listed once, or is not there: from now on the cluster counts. */
static void check_synced(struct kubernetes *k)
{
	bool was = k->live;

	for (size_t i = 0; i < KUBERNETES_KINDS; i++)
		if (!k->streams[i].synced)
			return;
	k->live = true;
	heard(k);
	kube_tell(k, !was);
}

/* --- when to try again --- */

static uint32_t random_number(void)
{
	uint32_t number;

	return getrandom(&number, sizeof(number), GRND_NONBLOCK) == sizeof(number) ? number : (uint32_t)clock_us();
}

static void begin(struct kube_stream *stream);

static int on_timer(sd_event_source *source, uint64_t now, void *userdata)
{
	(void)source, (void)now;
	begin(userdata);
	return 0;
}

/* Half of it and up to half as much again: agents that lost the server together do not come back together. */
static void again_in(struct kube_stream *stream, uint32_t ms)
{
	uint64_t us = ms ? 500ull * ms + random_number() % (1000ull * ms) : 0;

	if (sd_event_source_set_time_relative(stream->timer, us) >= 0)
		(void)sd_event_source_set_enabled(stream->timer, SD_EVENT_ONESHOT);
}

static void back_off(struct kube_stream *stream)
{
	uint32_t ms = stream->failures < 8 ? RETRY_FIRST_MS << stream->failures : RETRY_MOST_MS;

	stream->failures++;
	stream->state = KUBE_WAITING;
	again_in(stream, ms < RETRY_MOST_MS ? ms : RETRY_MOST_MS);
}

static void set_error(struct kube_stream *stream, const char *text)
{
	bool news = strncmp(stream->error, text, sizeof(stream->error) - 1) != 0;

	snprintf(stream->error, sizeof(stream->error), "%s", text);
	if (news && *text)
		log_warn(0, "%s%s: %s; what is in force stays", stream->k->config.server, kube_kinds[stream->kind].path, text);
}

/* From the beginning: what was listed so far is no longer a whole. */
static void forget_place(struct kube_stream *stream)
{
	free(stream->cursor);
	free(stream->version);
	stream->cursor = stream->version = NULL;
	stream->last_version = 0;
}

/* --- what comes --- */

static int take_version(struct kube_stream *stream, const json_t *metadata)
{
	const char *version = json_string_value(json_object_get(metadata, "resourceVersion"));
	char *copy = version ? strdup(version) : NULL;

	if (!copy)
		return version ? -ENOMEM : -EBADMSG;
	free(stream->version);
	stream->version = copy;
	return 0;
}

/* An object that is none is left out; without memory, all is to be listed again. */
static int taken(struct kube_stream *stream, int r)
{
	if (r == -EBADMSG) {
		log_warn(0, "%s%s: something that is no %s is left out", stream->k->config.server, kube_kinds[stream->kind].path,
			kube_kinds[stream->kind].name);
		return 0;
	}
	if (r > 0)
		kube_tell(stream->k, false);
	return r < 0 ? r : 0;
}

/* The server says versions in their order. One that goes back is of another history: all is to be listed again. */
static bool in_order(struct kube_stream *stream, const json_t *metadata)
{
	const char *text = json_string_value(json_object_get(metadata, "resourceVersion"));
	uint64_t version = text ? strtoull(text, NULL, 10) : 0;

	if (version && version < stream->last_version)
		return false;
	stream->last_version = version ? version : stream->last_version;
	return true;
}

static int expire(struct kube_stream *stream)
{
	stream->expired = true;
	return -ESTALE;
}

static int take_error(struct kube_stream *stream, const json_t *object)
{
	const char *message = json_string_value(json_object_get(object, "message"));

	if (json_integer_value(json_object_get(object, "code")) == 410)
		return expire(stream);
	set_error(stream, message ? message : "the watch ended with an error");
	return expire(stream);
}

static int take_event(struct kube_stream *stream, const char *text, size_t length)
{
	const json_t *object, *metadata;
	const char *type;
	json_t *event;
	int r = kube_parse(text, length, &event);

	if (r < 0)
		return r;
	type = json_string_value(json_object_get(event, "type"));
	object = json_object_get(event, "object");
	metadata = json_object_get(object, "metadata");
	if (!type || !json_is_object(object)) {
		r = -EBADMSG;
	} else if (strcmp(type, "ERROR") == 0) {
		r = take_error(stream, object);
	} else if (!in_order(stream, metadata)) {
		set_error(stream, "an event came out of order");
		r = expire(stream);
	} else {
		if (strcmp(type, "ADDED") == 0 || strcmp(type, "MODIFIED") == 0)
			r = taken(stream, kube_put(stream->k, stream->kind, object));
		else if (strcmp(type, "DELETED") == 0)
			r = taken(stream, kube_delete(stream->k, stream->kind, object));
		/* a BOOKMARK is its version, and so is what may come in the future */
		if (r == 0)
			r = take_version(stream, metadata);
		heard(stream->k);
	}
	json_decref(event);
	return r == -EBADMSG ? expire(stream) : r;
}

static int take_listed(struct kube_stream *stream, const char *text, size_t length)
{
	json_t *object;
	int r = kube_parse(text, length, &object);

	if (r < 0)
		return r;
	r = taken(stream, kube_put(stream->k, stream->kind, object));
	json_decref(object);
	return r;
}

int kube_take_piece(void *userdata, const char *text, size_t length)
{
	struct kube_stream *stream = userdata;

	return stream->watching ? take_event(stream, text, length) : take_listed(stream, text, length);
}

static void on_answered(void *userdata)
{
	struct kube_stream *stream = userdata;

	stream->answered = true;
	if (stream->watching) {
		stream->state = KUBE_WATCHING;
		stream->error[0] = '\0';
		heard(stream->k);
	}
}

static int on_body(void *userdata, const char *data, size_t length)
{
	struct kube_stream *stream = userdata;
	int r = kube_split_feed(&stream->split, data, length);

	if (r == -EMSGSIZE)
		set_error(stream, "an object is too large");
	else if (r == -EBADMSG)
		set_error(stream, "an answer is no JSON");
	else if (r < 0 && r != -ESTALE)
		set_error(stream, strerror(-r));
	if (r < 0)
		stream->expired = true;
	return r;
}

/* --- what is asked --- */

/* What a cursor or a version holds is the server's: only what needs no escape is sent as it is. */
static void add_escaped(struct buffer *url, const char *text)
{
	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;

		if ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || strchr("-_.~", c))
			buffer_add_char(url, (char)c);
		else
			buffer_printf(url, "%%%02X", c);
	}
}

static int ask(struct kube_stream *stream)
{
	_cleanup_buffer_ struct buffer url = {0};
	struct kube_asked asked = {0};

	stream->watching = stream->version != NULL;
	stream->answered = stream->expired = false;
	stream->began_us = clock_us();
	kube_split_reset(&stream->split, !stream->watching);
	buffer_printf(&url, "%s%s?", stream->k->config.server,
		stream->earlier ? kube_kinds[stream->kind].earlier : kube_kinds[stream->kind].path);
	if (stream->watching) {
		asked.watch_seconds = WATCH_LEAST_S + random_number() % WATCH_LEAST_S;
		buffer_printf(&url, "watch=1&allowWatchBookmarks=true&timeoutSeconds=%u&resourceVersion=", asked.watch_seconds);
		add_escaped(&url, stream->version);
	} else {
		/* what is absent is so until it is there */
		stream->state = stream->state == KUBE_ABSENT ? KUBE_ABSENT : KUBE_LISTING;
		buffer_printf(&url, "limit=%d", PAGE);
		if (stream->cursor) {
			buffer_add_string(&url, "&continue=");
			add_escaped(&url, stream->cursor);
		} else {
			stream->round = ++stream->k->round;
		}
	}
	asked.url = url.data;
	return url.failed ? -ENOMEM : kube_request_begin(&stream->request, &asked);
}

static void begin(struct kube_stream *stream)
{
	int r = ask(stream);

	if (r < 0) {
		set_error(stream, strerror(-r));
		back_off(stream);
	}
}

/* --- how it ended --- */

static void end_list(struct kube_stream *stream)
{
	json_t *list = NULL;
	const json_t *metadata;
	const char *cursor;
	int r = -EBADMSG;

	if (kube_split_complete(&stream->split) && stream->split.rest.data)
		r = kube_parse(stream->split.rest.data, stream->split.rest.length, &list);
	metadata = json_object_get(list, "metadata");
	cursor = json_string_value(json_object_get(metadata, "continue"));
	free(stream->cursor);
	stream->cursor = NULL;
	if (r == 0 && cursor && *cursor) {
		stream->cursor = strdup(cursor);
		r = stream->cursor ? 0 : -ENOMEM;
	} else if (r == 0) {
		r = take_version(stream, metadata);
	}
	json_decref(list);
	if (r < 0) {
		forget_place(stream);
		set_error(stream, "a list has no end");
		back_off(stream);
		return;
	}
	stream->error[0] = '\0';
	stream->elsewhere = false;
	if (stream->version) {
		kube_sweep(stream->k, stream->kind, stream->round);
		stream->last_version = strtoull(stream->version, NULL, 10);
		stream->synced = true;
		stream->failures = 0;
		check_synced(stream->k);
	}
	again_in(stream, 0);
}

static void end_refused(struct kube_stream *stream)
{
	long status = stream->request.status;
	char text[256];

	kube_request_refusal(&stream->request, text, sizeof(text));
	if (status == 410) {
		forget_place(stream);
		back_off(stream);
		return;
	}
	/* at the other of both places; absent is what is at neither */
	if (kube_kinds[stream->kind].earlier && status == 404 && !stream->elsewhere) {
		stream->elsewhere = true;
		stream->earlier = !stream->earlier;
		forget_place(stream);
		again_in(stream, 0);
		return;
	}
	stream->elsewhere = false;
	if (kube_kinds[stream->kind].optional && (status == 404 || status == 403)) {
		bool first = !stream->synced;

		forget_place(stream);
		if (first)
			log_info(
				"%s: %s: the cluster does not have it, or does not show it", kube_kinds[stream->kind].name, text);
		snprintf(stream->error, sizeof(stream->error), "%s", status == 404 ? "" : text);
		stream->state = KUBE_ABSENT;
		stream->synced = true;
		kube_sweep(stream->k, stream->kind, ++stream->k->round);
		check_synced(stream->k);
		again_in(stream, ABSENT_MS);
		return;
	}
	set_error(stream, text);
	back_off(stream);
}

static void end_watch(struct kube_stream *stream, const char *error)
{
	bool soon = clock_us() - stream->began_us < 1000000;

	/* what was cut off in the middle comes again */
	if (stream->expired)
		forget_place(stream);
	else if (error)
		set_error(stream, error);
	stream->failures = soon ? stream->failures : 0;
	back_off(stream);
}

static void on_end(void *userdata, const char *error, bool timed_out)
{
	struct kube_stream *stream = userdata;

	if (stream->expired && !stream->watching) {
		forget_place(stream);
		back_off(stream);
	} else if (stream->answered && stream->watching) {
		end_watch(stream, timed_out ? NULL : error);
	} else if (error) {
		set_error(stream, error);
		/* of a list, the pages so far still count: a cursor lives for minutes */
		back_off(stream);
	} else if (stream->answered) {
		end_list(stream);
	} else {
		end_refused(stream);
	}
}

static const struct kube_request_ops stream_ops = {.answered = on_answered, .body = on_body, .ended = on_end};

/* --- life --- */

static int client_start(struct kubernetes *k)
{
	int r = kube_requests_start(k);

	if (r >= 0)
		r = kube_add_timer(k, &k->told, on_told, k);
	for (size_t i = 0; i < KUBERNETES_KINDS && r >= 0; i++) {
		struct kube_stream *stream = &k->streams[i];

		r = kube_add_timer(k, &stream->timer, on_timer, stream);
		if (r >= 0)
			again_in(stream, 0);
	}
	if (r >= 0)
		r = kube_node_start(k);
	return r < 0 ? r : 0;
}

void kube_client_free(struct kubernetes *k)
{
	for (size_t i = 0; i < KUBERNETES_KINDS; i++) {
		struct kube_stream *stream = &k->streams[i];

		if (k->multi)
			kube_request_free(&stream->request);
		sd_event_source_disable_unref(stream->timer);
		forget_place(stream);
		buffer_clear(&stream->split.piece);
		buffer_clear(&stream->split.rest);
	}
	kube_node_free(k);
	kube_requests_free(k);
	sd_event_source_disable_unref(k->told);
	sd_event_unref(k->event);
}

void kubernetes_ask_again(struct kubernetes *k)
{
	for (size_t i = 0; i < KUBERNETES_KINDS; i++)
		if (k->streams[i].state == KUBE_ABSENT && !k->streams[i].request.easy)
			again_in(&k->streams[i], 0);
}

int kubernetes_start(struct kubernetes *k, sd_event *event, kubernetes_changed changed, void *userdata)
{
	k->event = sd_event_ref(event);
	k->changed = changed;
	k->userdata = userdata;
	for (size_t i = 0; i < KUBERNETES_KINDS; i++) {
		k->streams[i].k = k;
		k->streams[i].request = (struct kube_request){.k = k, .ops = &stream_ops, .userdata = &k->streams[i]};
		k->streams[i].kind = (enum kube_kind)i;
		k->streams[i].split.take = kube_take_piece;
		k->streams[i].split.userdata = &k->streams[i];
	}
	return client_start(k);
}
