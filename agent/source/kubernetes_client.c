// SPDX-License-Identifier: Apache-2.0
/*
 * One stream a kind: list it page by page, then watch from there for as long as that works, and list again when it does not. All of them
 * in the agent's event loop, through libcurl's multi interface. HTTP/1.1: a connection each, so that one that hangs does not hold the others up.
 *
 * libcurl and what it brings (TLS above all) are several MiB that an agent without Kubernetes shall not carry: it is loaded here.
 */
#include <source/kubernetes_internal.h>

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include <util/clock.h>
#include <util/file.h>
#include <util/log.h>

#define LIBRARY "libcurl.so.4"
#define PAGE 500
#define CONNECT_MS 5000L
#define STALLED_S 10L	   /* a page of a list that does not come any further */
#define PAGE_MOST_S 120L   /* or that drips */
#define WATCH_LEAST_S 240u /* then the server ends it, and it begins anew: so no half-dead connection lasts for ever */
#define WATCH_GRACE_S 15L
#define RETRY_FIRST_MS 100u
#define RETRY_MOST_MS 15000u
#define ABSENT_MS 60000u
#define REFUSAL_MAX 4096u
#define TOKEN_MAX 65536u
#define QUIET_US 5000u	   /* after the last event of one transaction */
#define PATIENCE_US 20000u /* since its first, should they never end */

#define CURL_FUNCTIONS(X) \
	X(global_init) \
	X(easy_init) \
	X(easy_setopt) \
	X(easy_getinfo) \
	X(easy_cleanup) \
	X(easy_strerror) \
	X(multi_init) \
	X(multi_setopt) \
	X(multi_add_handle) \
	X(multi_remove_handle) \
	X(multi_socket_action) \
	X(multi_assign) \
	X(multi_info_read) \
	X(multi_cleanup) \
	X(slist_append) \
	X(slist_free_all)
#define POINTER(name) __typeof__(curl_##name) *name;
static struct {
	CURL_FUNCTIONS(POINTER)
} curl;
#undef POINTER

int kube_client_load(void)
{
	static void *library;
	bool good;

	if (library)
		return 0;
	library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
	good = library != NULL;
#define FIND(name) good = good && (*(void **)&curl.name = dlsym(library, "curl_" #name)) != NULL;
	CURL_FUNCTIONS(FIND)
#undef FIND
	if (!good || curl.global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
		return log_err(-ELIBACC, "--kubernetes needs %s: %s", LIBRARY, library ? "it lacks what is needed" : dlerror());
	return 0;
}

/* --- telling --- */

static int on_told(sd_event_source *source, uint64_t now, void *userdata)
{
	struct kubernetes *k = userdata;

	(void)source, (void)now;
	k->first_us = 0;
	k->changed(k->userdata);
	return 0;
}

void kube_tell(struct kubernetes *k, bool now)
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

static int take_piece(void *userdata, const char *text, size_t length)
{
	struct kube_stream *stream = userdata;

	return stream->watching ? take_event(stream, text, length) : take_listed(stream, text, length);
}

static long status_of(CURL *easy)
{
	long status = 0;

	(void)curl.easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
	return status;
}

static size_t on_header(char *data, size_t size, size_t n, void *userdata)
{
	struct kube_stream *stream = userdata;

	/* the empty line: all of them are here */
	if (n == 2 && data[0] == '\r' && status_of(stream->easy) == 200) {
		stream->answered = true;
		if (stream->watching) {
			stream->state = KUBE_WATCHING;
			stream->error[0] = '\0';
			heard(stream->k);
		}
	}
	return size * n;
}

static size_t on_body(char *data, size_t size, size_t n, void *userdata)
{
	struct kube_stream *stream = userdata;
	size_t length = size * n, room = REFUSAL_MAX - stream->refusal.length;
	int r;

	if (!stream->answered) {
		buffer_add(&stream->refusal, data, length < room ? length : room);
		return length;
	}
	r = kube_split_feed(&stream->split, data, length);
	if (r == -EMSGSIZE)
		set_error(stream, "an object is too large");
	else if (r == -EBADMSG)
		set_error(stream, "an answer is no JSON");
	else if (r < 0 && r != -ESTALE)
		set_error(stream, strerror(-r));
	if (r < 0)
		stream->expired = true;
	return r < 0 ? 0 : length;
}

/* --- what is asked --- */

/* Read each time: the file is another one before the token in it runs out. */
static int add_token(struct kube_stream *stream)
{
	const struct kube_config *config = &stream->k->config;
	_cleanup_free_ char *read = NULL, *header = NULL;
	const char *token = config->token;
	struct curl_slist *grown;
	size_t length;

	if (config->token_file) {
		int r = file_read(AT_FDCWD, config->token_file, TOKEN_MAX, &read, &length, NULL);

		if (r < 0)
			return log_err(r, "cannot read %s", config->token_file);
		read[strcspn(read, "\r\n")] = '\0';
		token = read;
	}
	if (!token)
		return 0;
	if (asprintf(&header, "Authorization: Bearer %s", token) < 0) {
		header = NULL;
		return -ENOMEM;
	}
	grown = curl.slist_append(stream->headers, header);
	explicit_bzero(header, strlen(header));
	if (!grown)
		return -ENOMEM;
	stream->headers = grown;
	return 0;
}

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

static void set_blob(CURL *easy, CURLoption option, const struct kube_blob *blob)
{
	struct curl_blob copy = {.data = blob->data, .len = blob->length, .flags = CURL_BLOB_COPY};

	if (blob->data)
		(void)curl.easy_setopt(easy, option, &copy);
}

static void set_identity(CURL *easy, const struct kube_config *config)
{
	if (config->ca_file)
		(void)curl.easy_setopt(easy, CURLOPT_CAINFO, config->ca_file);
	if (config->certificate_file)
		(void)curl.easy_setopt(easy, CURLOPT_SSLCERT, config->certificate_file);
	if (config->key_file)
		(void)curl.easy_setopt(easy, CURLOPT_SSLKEY, config->key_file);
	set_blob(easy, CURLOPT_CAINFO_BLOB, &config->ca);
	set_blob(easy, CURLOPT_SSLCERT_BLOB, &config->certificate);
	set_blob(easy, CURLOPT_SSLKEY_BLOB, &config->key);
	if (config->insecure) {
		(void)curl.easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 0L);
		(void)curl.easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 0L);
	}
}

static int set_request(struct kube_stream *stream, const char *url, unsigned watch_seconds)
{
	CURL *easy = stream->easy;
	CURLcode code = curl.easy_setopt(easy, CURLOPT_URL, url);

	(void)curl.easy_setopt(easy, CURLOPT_PRIVATE, stream);
	(void)curl.easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	(void)curl.easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "https");
	(void)curl.easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	(void)curl.easy_setopt(easy, CURLOPT_PROXY, "");
	(void)curl.easy_setopt(easy, CURLOPT_USERAGENT, "heddled/" HEDDLE_VERSION);
	(void)curl.easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, CONNECT_MS);
	(void)curl.easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
	(void)curl.easy_setopt(easy, CURLOPT_TCP_KEEPIDLE, 15L);
	(void)curl.easy_setopt(easy, CURLOPT_TCP_KEEPINTVL, 5L);
	(void)curl.easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
	(void)curl.easy_setopt(easy, CURLOPT_HEADERDATA, stream);
	(void)curl.easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
	(void)curl.easy_setopt(easy, CURLOPT_WRITEDATA, stream);
	(void)curl.easy_setopt(easy, CURLOPT_HTTPHEADER, stream->headers);
	if (stream->watching) {
		(void)curl.easy_setopt(easy, CURLOPT_TIMEOUT, (long)watch_seconds + WATCH_GRACE_S);
	} else {
		(void)curl.easy_setopt(easy, CURLOPT_LOW_SPEED_LIMIT, 1L);
		(void)curl.easy_setopt(easy, CURLOPT_LOW_SPEED_TIME, STALLED_S);
		(void)curl.easy_setopt(easy, CURLOPT_TIMEOUT, PAGE_MOST_S);
	}
	set_identity(easy, &stream->k->config);
	return code == CURLE_OK ? 0 : -ENOMEM;
}

static void end_request(struct kube_stream *stream)
{
	if (stream->easy) {
		(void)curl.multi_remove_handle(stream->k->multi, stream->easy);
		curl.easy_cleanup(stream->easy);
	}
	stream->easy = NULL;
	if (stream->headers)
		curl.slist_free_all(stream->headers);
	stream->headers = NULL;
}

static int ask(struct kube_stream *stream)
{
	_cleanup_buffer_ struct buffer url = {0};
	unsigned seconds = WATCH_LEAST_S + random_number() % WATCH_LEAST_S;
	int r;

	stream->watching = stream->version != NULL;
	stream->answered = stream->expired = false;
	stream->began_us = clock_us();
	stream->refusal.length = 0;
	kube_split_reset(&stream->split, !stream->watching);
	buffer_printf(&url, "%s%s?", stream->k->config.server, kube_kinds[stream->kind].path);
	if (stream->watching) {
		buffer_printf(&url, "watch=1&allowWatchBookmarks=true&timeoutSeconds=%u&resourceVersion=", seconds);
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
	stream->easy = curl.easy_init();
	if (url.failed || !stream->easy)
		return -ENOMEM;
	stream->headers = curl.slist_append(NULL, "Accept: application/json");
	r = stream->headers ? add_token(stream) : -ENOMEM;
	if (r == 0)
		r = set_request(stream, url.data, seconds);
	if (r == 0 && curl.multi_add_handle(stream->k->multi, stream->easy) != CURLM_OK)
		r = -ENOMEM;
	return r;
}

static void begin(struct kube_stream *stream)
{
	int r = ask(stream);

	if (r < 0) {
		end_request(stream);
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
	if (stream->version) {
		kube_sweep(stream->k, stream->kind, stream->round);
		stream->last_version = strtoull(stream->version, NULL, 10);
		stream->synced = true;
		stream->failures = 0;
		check_synced(stream->k);
	}
	again_in(stream, 0);
}

static void end_refused(struct kube_stream *stream, long status)
{
	json_t *answer = NULL;
	const char *message = NULL;
	char text[256];

	if (stream->refusal.length && kube_parse(stream->refusal.data, stream->refusal.length, &answer) == 0)
		message = json_string_value(json_object_get(answer, "message"));
	snprintf(text, sizeof(text), "HTTP %ld%s%s", status, message ? ": " : "", message ? message : "");
	json_decref(answer);
	if (status == 410) {
		forget_place(stream);
		back_off(stream);
		return;
	}
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

static void end_watch(struct kube_stream *stream, CURLcode result)
{
	bool soon = clock_us() - stream->began_us < 1000000;

	/* what was cut off in the middle comes again */
	if (stream->expired)
		forget_place(stream);
	else if (result != CURLE_OK && result != CURLE_OPERATION_TIMEDOUT)
		set_error(stream, curl.easy_strerror(result));
	stream->failures = soon ? stream->failures : 0;
	back_off(stream);
}

static void on_end(struct kube_stream *stream, CURLcode result)
{
	long status = status_of(stream->easy);

	end_request(stream);
	if (stream->expired && !stream->watching) {
		forget_place(stream);
		back_off(stream);
	} else if (stream->answered && stream->watching) {
		end_watch(stream, result);
	} else if (result != CURLE_OK) {
		set_error(stream, curl.easy_strerror(result));
		/* of a list, the pages so far still count: a cursor lives for minutes */
		back_off(stream);
	} else if (stream->answered) {
		end_list(stream);
	} else {
		end_refused(stream, status);
	}
}

/* --- in the event loop --- */

static void reap(struct kubernetes *k)
{
	CURLMsg *message;
	int left;

	while ((message = curl.multi_info_read(k->multi, &left))) {
		CURLcode result = message->data.result;
		struct kube_stream *stream = NULL;

		if (message->msg != CURLMSG_DONE)
			continue;
		(void)curl.easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&stream);
		if (stream)
			on_end(stream, result);
	}
}

static int on_socket(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	struct kubernetes *k = userdata;
	int running, action = (revents & EPOLLIN ? CURL_CSELECT_IN : 0) | (revents & EPOLLOUT ? CURL_CSELECT_OUT : 0) |
			      (revents & (EPOLLERR | EPOLLHUP) ? CURL_CSELECT_ERR : 0);

	(void)source;
	(void)curl.multi_socket_action(k->multi, fd, action, &running);
	reap(k);
	return 0;
}

static int on_multi_timer(sd_event_source *source, uint64_t now, void *userdata)
{
	struct kubernetes *k = userdata;
	int running;

	(void)source, (void)now;
	(void)curl.multi_socket_action(k->multi, CURL_SOCKET_TIMEOUT, 0, &running);
	reap(k);
	return 0;
}

static int want_timer(CURLM *multi, long ms, void *userdata)
{
	struct kubernetes *k = userdata;

	(void)multi;
	if (ms < 0)
		return sd_event_source_set_enabled(k->multi_timer, SD_EVENT_OFF) < 0 ? -1 : 0;
	if (sd_event_source_set_time_relative(k->multi_timer, (uint64_t)ms * 1000) < 0)
		return -1;
	return sd_event_source_set_enabled(k->multi_timer, SD_EVENT_ONESHOT) < 0 ? -1 : 0;
}

static int want_socket(CURL *easy, curl_socket_t fd, int what, void *userdata, void *assigned)
{
	struct kubernetes *k = userdata;
	sd_event_source *source = assigned;
	uint32_t events = (what & CURL_POLL_IN ? EPOLLIN : 0) | (what & CURL_POLL_OUT ? EPOLLOUT : 0);
	int r;

	(void)easy;
	if (what == CURL_POLL_REMOVE) {
		(void)curl.multi_assign(k->multi, fd, NULL);
		sd_event_source_disable_unref(source);
		return 0;
	}
	if (source)
		return sd_event_source_set_io_events(source, events) < 0 ? -1 : 0;
	r = sd_event_add_io(k->event, &source, fd, events, on_socket, k);
	if (r < 0)
		return -1;
	(void)curl.multi_assign(k->multi, fd, source);
	return 0;
}

static int add_timer(struct kubernetes *k, sd_event_source **ret, sd_event_time_handler_t handler, void *userdata)
{
	int r = sd_event_add_time(k->event, ret, CLOCK_MONOTONIC, 0, 500, handler, userdata);

	return r < 0 ? r : sd_event_source_set_enabled(*ret, SD_EVENT_OFF);
}

int kube_client_start(struct kubernetes *k)
{
	int r;

	k->multi = curl.multi_init();
	if (!k->multi)
		return -ENOMEM;
	r = add_timer(k, &k->multi_timer, on_multi_timer, k);
	if (r >= 0)
		r = add_timer(k, &k->told, on_told, k);
	if (r < 0)
		return r;
	(void)curl.multi_setopt(k->multi, CURLMOPT_SOCKETFUNCTION, want_socket);
	(void)curl.multi_setopt(k->multi, CURLMOPT_SOCKETDATA, k);
	(void)curl.multi_setopt(k->multi, CURLMOPT_TIMERFUNCTION, want_timer);
	(void)curl.multi_setopt(k->multi, CURLMOPT_TIMERDATA, k);
	for (size_t i = 0; i < KUBERNETES_KINDS; i++) {
		struct kube_stream *stream = &k->streams[i];

		r = add_timer(k, &stream->timer, on_timer, stream);
		if (r < 0)
			return r;
		again_in(stream, 0);
	}
	return 0;
}

void kube_client_free(struct kubernetes *k)
{
	for (size_t i = 0; i < KUBERNETES_KINDS; i++) {
		struct kube_stream *stream = &k->streams[i];

		if (k->multi)
			end_request(stream);
		sd_event_source_disable_unref(stream->timer);
		forget_place(stream);
		buffer_clear(&stream->refusal);
		buffer_clear(&stream->split.piece);
		buffer_clear(&stream->split.rest);
	}
	if (k->multi)
		(void)curl.multi_cleanup(k->multi);
	sd_event_source_disable_unref(k->multi_timer);
	sd_event_source_disable_unref(k->told);
	sd_event_unref(k->event);
}

int kubernetes_start(struct kubernetes *k, sd_event *event, kubernetes_changed changed, void *userdata)
{
	k->event = sd_event_ref(event);
	k->changed = changed;
	k->userdata = userdata;
	for (size_t i = 0; i < KUBERNETES_KINDS; i++) {
		k->streams[i].k = k;
		k->streams[i].kind = (enum kube_kind)i;
		k->streams[i].split.take = take_piece;
		k->streams[i].split.userdata = &k->streams[i];
	}
	return kube_client_start(k);
}
