// SPDX-License-Identifier: Apache-2.0
/*
 * One request to the API server, through libcurl's multi interface in the agent's event loop. HTTP/1.1: a connection each, so that one that hangs
 * does not hold the others up.
 *
 * libcurl and what it brings (TLS above all) are several MiB that an agent without Kubernetes shall not carry: it is loaded here.
 */
#include <source/kubernetes_internal.h>

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include <util/file.h>
#include <util/log.h>

#define LIBRARY "libcurl.so.4"
#define CONNECT_MS 5000L
#define STALLED_S 10L	   /* an answer that does not come any further */
#define ANSWER_MOST_S 120L /* or that drips */
#define WATCH_GRACE_S 15L
#define REFUSAL_MAX 4096u
#define TOKEN_MAX 65536u

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

/* --- what is asked, and who asks --- */

static int add_header(struct kube_request *request, const char *text)
{
	struct curl_slist *grown = curl.slist_append(request->headers, text);

	if (!grown)
		return -ENOMEM;
	request->headers = grown;
	return 0;
}

/* Read each time: the file is another one before the token in it runs out. */
static int add_token(struct kube_request *request)
{
	const struct kube_config *config = &request->k->config;
	_cleanup_free_ char *read = NULL, *header = NULL;
	const char *token = config->token;
	int r;
	size_t length;

	if (config->token_file) {
		r = file_read(AT_FDCWD, config->token_file, TOKEN_MAX, &read, &length, NULL);
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
	r = add_header(request, header);
	explicit_bzero(header, strlen(header));
	return r;
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

/* --- what comes --- */

static size_t on_header(char *data, size_t size, size_t n, void *userdata)
{
	struct kube_request *request = userdata;

	/* the empty line: all of them are here */
	if (n == 2 && data[0] == '\r') {
		(void)curl.easy_getinfo(request->easy, CURLINFO_RESPONSE_CODE, &request->status);
		if (request->status == 200 && request->ops->answered)
			request->ops->answered(request->userdata);
	}
	return size * n;
}

static size_t on_body(char *data, size_t size, size_t n, void *userdata)
{
	struct kube_request *request = userdata;
	size_t length = size * n, room = REFUSAL_MAX - request->refusal.length;

	if (request->status != 200) {
		buffer_add(&request->refusal, data, length < room ? length : room);
		return length;
	}
	return !request->ops->body || request->ops->body(request->userdata, data, length) >= 0 ? length : 0;
}

void kube_request_refusal(const struct kube_request *request, char *ret, size_t size)
{
	json_t *answer = NULL;
	const char *message = NULL;

	if (request->refusal.length && kube_parse(request->refusal.data, request->refusal.length, &answer) == 0)
		message = json_string_value(json_object_get(answer, "message"));
	snprintf(ret, size, "HTTP %ld%s%s", request->status, message ? ": " : "", message ? message : "");
	json_decref(answer);
}

/* --- its life --- */

static int set_options(struct kube_request *request, const struct kube_asked *asked)
{
	CURL *easy = request->easy;
	CURLcode code = curl.easy_setopt(easy, CURLOPT_URL, asked->url);

	(void)curl.easy_setopt(easy, CURLOPT_PRIVATE, request);
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
	(void)curl.easy_setopt(easy, CURLOPT_HEADERDATA, request);
	(void)curl.easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
	(void)curl.easy_setopt(easy, CURLOPT_WRITEDATA, request);
	(void)curl.easy_setopt(easy, CURLOPT_HTTPHEADER, request->headers);
	if (asked->watch_seconds) {
		(void)curl.easy_setopt(easy, CURLOPT_TIMEOUT, (long)asked->watch_seconds + WATCH_GRACE_S);
	} else {
		(void)curl.easy_setopt(easy, CURLOPT_LOW_SPEED_LIMIT, 1L);
		(void)curl.easy_setopt(easy, CURLOPT_LOW_SPEED_TIME, STALLED_S);
		(void)curl.easy_setopt(easy, CURLOPT_TIMEOUT, ANSWER_MOST_S);
	}
	if (asked->patch) {
		(void)curl.easy_setopt(easy, CURLOPT_CUSTOMREQUEST, "PATCH");
		if (code == CURLE_OK)
			code = curl.easy_setopt(easy, CURLOPT_COPYPOSTFIELDS, asked->patch);
	}
	set_identity(easy, &request->k->config);
	return code == CURLE_OK ? 0 : -ENOMEM;
}

/* ended() is not told. */
static void kube_request_end(struct kube_request *request)
{
	if (request->easy) {
		(void)curl.multi_remove_handle(request->k->multi, request->easy);
		curl.easy_cleanup(request->easy);
	}
	request->easy = NULL;
	if (request->headers)
		curl.slist_free_all(request->headers);
	request->headers = NULL;
}

void kube_request_free(struct kube_request *request)
{
	kube_request_end(request);
	buffer_clear(&request->refusal);
}

int kube_request_begin(struct kube_request *request, const struct kube_asked *asked)
{
	char type[128];
	int r;

	request->status = 0;
	request->refusal.length = 0;
	request->easy = curl.easy_init();
	r = request->easy ? add_header(request, "Accept: application/json") : -ENOMEM;
	if (r == 0 && asked->patch) {
		snprintf(type, sizeof(type), "Content-Type: %s", asked->patch_type);
		r = add_header(request, type);
	}
	if (r == 0)
		r = add_token(request);
	if (r == 0)
		r = set_options(request, asked);
	if (r == 0 && curl.multi_add_handle(request->k->multi, request->easy) != CURLM_OK)
		r = -ENOMEM;
	if (r < 0)
		kube_request_end(request);
	return r;
}

/* --- in the event loop --- */

static void reap(struct kubernetes *k)
{
	CURLMsg *message;
	int left;

	while ((message = curl.multi_info_read(k->multi, &left))) {
		CURLcode result = message->data.result;
		struct kube_request *request = NULL;

		if (message->msg != CURLMSG_DONE)
			continue;
		(void)curl.easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&request);
		if (!request)
			continue;
		kube_request_end(request);
		request->ops->ended(request->userdata, result == CURLE_OK ? NULL : curl.easy_strerror(result),
			result == CURLE_OPERATION_TIMEDOUT);
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

int kube_add_timer(struct kubernetes *k, sd_event_source **ret, sd_event_time_handler_t handler, void *userdata)
{
	int r = sd_event_add_time(k->event, ret, CLOCK_MONOTONIC, 0, 500, handler, userdata);

	return r < 0 ? r : sd_event_source_set_enabled(*ret, SD_EVENT_OFF);
}

int kube_requests_start(struct kubernetes *k)
{
	int r;

	k->multi = curl.multi_init();
	if (!k->multi)
		return -ENOMEM;
	r = kube_add_timer(k, &k->multi_timer, on_multi_timer, k);
	if (r < 0)
		return r;
	(void)curl.multi_setopt(k->multi, CURLMOPT_SOCKETFUNCTION, want_socket);
	(void)curl.multi_setopt(k->multi, CURLMOPT_SOCKETDATA, k);
	(void)curl.multi_setopt(k->multi, CURLMOPT_TIMERFUNCTION, want_timer);
	(void)curl.multi_setopt(k->multi, CURLMOPT_TIMERDATA, k);
	return 0;
}

void kube_requests_free(struct kubernetes *k)
{
	if (k->multi)
		(void)curl.multi_cleanup(k->multi);
	sd_event_source_disable_unref(k->multi_timer);
}
