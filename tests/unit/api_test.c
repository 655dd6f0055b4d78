/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The API over a real socket in a real event loop, with a controller that only takes note: routes, limits, errors, streams. The client is a
 * thread, since the server has none.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <cmocka.h>
#include <jansson.h>
#include <systemd/sd-event.h>

#include <api/api.h>
#include <api/http.h>
#include <util/buffer.h>
#include <util/cleanup.h>
#include <util/clock.h>

#define HOST_DOCUMENT "apiVersion: heddle.dev/v1alpha1\nkind: Host\nmetadata: {name: node-a}\nspec: {uplinks: [{device: eth1}]}\n"
#define PORT_DOCUMENT(namespace_) \
	"---\napiVersion: heddle.dev/v1alpha1\nkind: Port\nmetadata: {name: web, namespace: " namespace_ "}\n" \
	"spec: {device: eth-" namespace_ ", network: blue}\n"
#define ANY_DOCUMENT \
	"---\napiVersion: heddle.dev/v1alpha1\nkind: HostPolicy\nmetadata: {name: any}\nspec: {ingress: [{action: allow}]}\n"
#define WORLD_DOCUMENTS HOST_DOCUMENT PORT_DOCUMENT("default") PORT_DOCUMENT("shop")

static struct {
	char run_dir[64];
	struct object_list objects;
	struct view view;
	sd_event *event;
	struct api *api;
	size_t applied;
	uint64_t confirm_ms;
	int cni;		/* the last verb that heddle-cni asked for */
	const char *namespace_; /* of the Port that is removed */
	int answer;		/* what the operations return */
} world;

/* --- a controller --- */

static int fake(json_t **ret, struct diag *diag)
{
	if (world.answer < 0) {
		diag_add(diag, "web.yaml", 14, "spec.ingress[0]", "want something else");
		return world.answer;
	}
	*ret = json_pack("{s:[]}", "items");
	return 0;
}

static int fake_apply(void *userdata, const struct object_list *objects, uint64_t confirm_ms, json_t **ret, struct diag *diag)
{
	(void)userdata;
	world.applied += objects->n;
	world.confirm_ms = confirm_ms;
	return fake(ret, diag);
}

static int fake_remove(
	void *userdata, enum object_kind kind, const char *namespace_, const char *name, json_t **ret, struct diag *diag)
{
	(void)userdata;
	if (kind == OBJECT_PORT)
		assert_string_equal(namespace_, world.namespace_);
	else
		assert_null(namespace_);
	assert_true(kind == OBJECT_HOST_POLICY || kind == OBJECT_PORT);
	assert_string_equal(name, "web");
	return fake(ret, diag);
}

static int fake_confirm(void *userdata, json_t **ret, struct diag *diag)
{
	(void)userdata;
	return fake(ret, diag);
}

static int fake_diff(void *userdata, const struct object_list *objects, struct buffer *text, struct diag *diag)
{
	(void)userdata;
	(void)objects;
	(void)diag;
	buffer_add_string(text, "{}");
	return world.answer;
}

static int fake_preview(void *userdata, const struct object_list *objects, struct preview **ret, struct diag *diag)
{
	const struct policy_input input = {.host = &objects->items[0]->host, .objects = objects};
	struct policy_image *images[2];

	(void)userdata;
	if (world.answer < 0) {
		diag_add(diag, "web.yaml", 14, "spec.ingress[0]", "want something else");
		return world.answer;
	}
	for (unsigned i = 0; i < 2; i++) {
		struct compiler_limits limits = {256, 256, 256, 256, 256, 1 << 8}, needed;
		struct policy_delta *delta;
		struct compiler *compiler;

		assert_int_equal(compiler_new(&limits, 1, &compiler), 0);
		assert_int_equal(compiler_compile(compiler, &input, &delta, &needed, diag), 0);
		assert_int_equal(policy_image_new(compiler, delta, input.host, &images[i]), 0);
	}
	return preview_new(&world.view, images[0], images[1], ret);
}

static int fake_whole(void *userdata, const struct object_list *objects, struct object_list *ret, struct diag *diag)
{
	(void)userdata;
	if (world.answer < 0) {
		diag_add(diag, "web.yaml", 14, "spec.ingress[0]", "want something else");
		return world.answer;
	}
	for (size_t i = 0; i < objects->n; i++)
		assert_int_equal(object_list_add(ret, objects->items[i]), 0);
	return 0;
}

static int fake_cni(void *userdata, enum api_cni verb, const json_t *body, json_t **ret, struct diag *diag)
{
	(void)userdata;
	world.cni = (int)verb;
	assert_string_equal(json_string_value(json_object_get(body, "name")), "pods");
	return fake(ret, diag);
}

static void fake_tidy(void *userdata)
{
	(void)userdata;
}

static const struct api_ops ops = {.apply = fake_apply,
	.remove = fake_remove,
	.confirm = fake_confirm,
	.diff = fake_diff,
	.preview = fake_preview,
	.whole = fake_whole,
	.cni = fake_cni,
	.tidy = fake_tidy};

/* --- the client --- */

static int connect_to_server(void)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s/%s", world.run_dir, API_SOCKET_NAME);
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		return safe_close(fd);
	return fd;
}

struct exchange {
	const char *head;
	size_t body_length; /* of spaces, when body is NULL */
	const char *body;
	struct buffer got;
	int done;
};

static void send_all(int fd, const void *data, size_t length)
{
	const char *at = data;

	while (length) {
		ssize_t n = send(fd, at, length, MSG_NOSIGNAL);

		if (n <= 0)
			return; /* the server may have answered and closed */
		at += n;
		length -= (size_t)n;
	}
}

static void *talk(void *userdata)
{
	struct exchange *exchange = userdata;
	int fd = connect_to_server();
	char chunk[4096];
	ssize_t n;

	if (fd >= 0) {
		send_all(fd, exchange->head, strlen(exchange->head));
		if (exchange->body) {
			send_all(fd, exchange->body, strlen(exchange->body));
		} else if (exchange->body_length) {
			memset(chunk, ' ', sizeof(chunk));
			for (size_t left = exchange->body_length; left; left -= left < sizeof(chunk) ? left : sizeof(chunk))
				send_all(fd, chunk, left < sizeof(chunk) ? left : sizeof(chunk));
		}
		while ((n = recv(fd, chunk, sizeof(chunk), 0)) > 0)
			buffer_add(&exchange->got, chunk, (size_t)n);
		safe_close(fd);
	}
	eventfd_write(exchange->done, 1);
	return NULL;
}

static int on_done(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	(void)source;
	(void)fd;
	(void)events;
	*(bool *)userdata = true;
	return 0;
}

/* Sends a request of its own connection; returns the status, the body in *body when that is not NULL. */
static int exchange(const char *method, const char *path, const char *body, size_t body_length, struct buffer *ret_body)
{
	_cleanup_free_ char *head = NULL;
	struct exchange exchange = {.body = body, .body_length = body_length, .done = eventfd(0, EFD_CLOEXEC)};
	sd_event_source *source = NULL;
	bool done = false;
	pthread_t thread;
	const char *end;
	int status = 0;

	assert_true(asprintf(&head, "%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n", method, path,
			    body ? strlen(body) : body_length) > 0);
	exchange.head = head;
	assert_int_equal(pthread_create(&thread, NULL, talk, &exchange), 0);
	assert_true(sd_event_add_io(world.event, &source, exchange.done, EPOLLIN, on_done, &done) >= 0);
	while (!done)
		assert_true(sd_event_run(world.event, 10000000) > 0);
	sd_event_source_disable_unref(source);
	pthread_join(thread, NULL);
	safe_close(exchange.done);
	if (exchange.got.data)
		sscanf(exchange.got.data, "HTTP/1.1 %d", &status);
	end = exchange.got.data ? strstr(exchange.got.data, "\r\n\r\n") : NULL;
	if (ret_body && end)
		buffer_add_string(ret_body, end + 4);
	buffer_clear(&exchange.got);
	return status;
}

static json_t *get(const char *path, int want)
{
	_cleanup_buffer_ struct buffer body = {0};
	json_t *json;

	assert_int_equal(exchange("GET", path, NULL, 0, &body), want);
	json = json_loads(body.data, 0, NULL);
	assert_non_null(json);
	return json;
}

/* --- tests --- */

static int setup(void **state)
{
	struct diag diag = {0};

	(void)state;
	snprintf(world.run_dir, sizeof(world.run_dir), "/tmp/heddle-api-XXXXXX");
	assert_non_null(mkdtemp(world.run_dir));
	assert_int_equal(decode_documents("host.yaml", WORLD_DOCUMENTS, strlen(WORLD_DOCUMENTS), &world.objects, &diag), 0);
	world.view = (struct view){.objects = &world.objects, .generation = 3, .version = "test", .started = (int64_t)clock_ms()};
	assert_true(sd_event_new(&world.event) >= 0);
	assert_int_equal(api_new(world.event, &(struct api_config){.run_dir = world.run_dir, .view = &world.view, .ops = &ops},
				 &world.api),
		0);
	return 0;
}

static int teardown(void **state)
{
	char path[128];
	struct stat st;

	(void)state;
	api_free(world.api);
	snprintf(path, sizeof(path), "%s/%s", world.run_dir, API_SOCKET_NAME);
	assert_int_equal(stat(path, &st), -1);
	sd_event_unref(world.event);
	object_list_clear(&world.objects);
	assert_int_equal(rmdir(world.run_dir), 0);
	return 0;
}

static void test_socket_mode(void **state)
{
	char path[128];
	struct stat st;

	(void)state;
	snprintf(path, sizeof(path), "%s/%s", world.run_dir, API_SOCKET_NAME);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0660);
}

static void test_read(void **state)
{
	static const char *const paths[] = {
		"/v1/status", "/v1/flows", "/v1/rules", "/v1/counters", "/v1/objects/builtin", "/v1/objects/hostpolicies"};
	_cleanup_buffer_ struct buffer metrics = {0};
	json_t *json;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(paths); i++)
		json_decref(get(paths[i], 200));
	json = get("/v1/objects/host", 200);
	assert_int_equal(json_array_size(json_object_get(json, "items")), 1);
	json_decref(json);
	json = get("/v1/objects/Host/node-a?namespace=whatever", 200);
	assert_string_equal(json_string_value(json_object_get(json, "kind")), "Host");
	json_decref(json);
	assert_int_equal(exchange("GET", "/metrics", NULL, 0, &metrics), 200);
	assert_non_null(strstr(metrics.data, "# EOF"));
}

/* Of one namespace, of all, of the default one. */
static void test_namespaces(void **state)
{
	static const struct {
		const char *path, *namespace_;
	} cases[] = {
		{"/v1/objects/port/web", "default"},
		{"/v1/objects/port/web?namespace=default", "default"},
		{"/v1/objects/ports/web?namespace=shop", "shop"},
	};
	json_t *json, *item;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		json = get(cases[i].path, 200);
		assert_string_equal(
			json_string_value(json_object_get(json_object_get(json, "metadata"), "namespace")), cases[i].namespace_);
		json_decref(json);
	}
	json = get("/v1/objects/port/web?namespace=lost", 404);
	assert_string_equal(json_string_value(json_object_get(json, "error")), "no such object: Port lost/web");
	json_decref(json);
	json = get("/v1/objects/ports", 200);
	assert_int_equal(json_array_size(json_object_get(json, "items")), 2);
	item = json_array_get(json_object_get(json, "origins"), 1);
	assert_string_equal(json_string_value(json_object_get(item, "namespace")), "shop");
	json_decref(json);
	json = get("/v1/objects/ports?namespace=shop", 200);
	assert_int_equal(json_array_size(json_object_get(json, "items")), 1);
	json_decref(json);
	json = get("/v1/objects/hosts?namespace=shop", 200);
	assert_int_equal(json_array_size(json_object_get(json, "items")), 1);
	item = json_array_get(json_object_get(json, "origins"), 0);
	assert_true(json_is_null(json_object_get(item, "namespace")));
	json_decref(json);
}

static void test_cni(void **state)
{
	static const struct {
		int answer;
		unsigned status;
	} answers[] = {{0, 200}, {-EINVAL, 400}, {-EEXIST, 409}, {-EADDRNOTAVAIL, 409}, {-ENOSPC, 500}, {-EACCES, 409},
		{-EAGAIN, 503}, {-ENOENT, 404}, {-EIO, 500}};
	static const char *const paths[] = {"/v1/cni/reserve", "/v1/cni/commit", "/v1/cni/release"};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(answers); i++)
		for (size_t j = 0; j < ARRAY_SIZE(paths); j++) {
			world.answer = answers[i].answer;
			assert_int_equal(exchange("POST", paths[j], "{\"name\":\"pods\"}", 0, NULL), answers[i].status);
			assert_int_equal(world.cni, j);
		}
	world.answer = 0;
	assert_int_equal(exchange("POST", paths[0], "{", 0, NULL), 400);
	assert_int_equal(exchange("POST", paths[0], "", 0, NULL), 400);
	/* the state directory cannot be used here, and nothing is in force */
	json_decref(get("/v1/cni/status", 503));
	json_decref(get("/v1/cni/attachments?name=pods", 200));
}

static void test_unknown(void **state)
{
	json_t *json;

	(void)state;
	json = get("/v1/nothing", 404);
	assert_string_equal(json_string_value(json_object_get(json, "error")), "no such path");
	json_decref(json);
	json_decref(get("/v1/objects/", 404));
	json_decref(get("/v1/objects/nonsense", 404));
	json_decref(get("/v1/objects/host/nobody", 404));
	json_decref(get("/v1/objects/host/a/b", 404));
	json_decref(get("/v1/apply", 405));
	assert_int_equal(exchange("POST", "/v1/status", "x", 0, NULL), 405);
	assert_int_equal(exchange("DELETE", "/v1/objects/host", NULL, 0, NULL), 405);
}

static void test_apply(void **state)
{
	_cleanup_buffer_ struct buffer refused = {0}, bad = {0}, preview = {0}, lint = {0};

	(void)state;
	world.applied = 0;
	world.answer = 0;
	assert_int_equal(exchange("POST", "/v1/apply?confirm=90s", HOST_DOCUMENT, 0, NULL), 200);
	assert_int_equal(world.applied, 1);
	assert_int_equal(world.confirm_ms, 90000);
	assert_int_equal(exchange("POST", "/v1/apply?confirm=soon", HOST_DOCUMENT, 0, NULL), 400);
	assert_int_equal(exchange("POST", "/v1/apply?confirm=0s", HOST_DOCUMENT, 0, NULL), 400);
	assert_int_equal(exchange("POST", "/v1/apply", "kind: [", 0, &bad), 400);
	assert_non_null(strstr(bad.data, "\"details\""));
	assert_int_equal(world.applied, 1);
	world.answer = -EINVAL;
	assert_int_equal(exchange("POST", "/v1/apply", HOST_DOCUMENT, 0, &refused), 400);
	assert_non_null(strstr(refused.data, "web.yaml:14: spec.ingress[0]: want something else"));
	world.answer = -EPERM;
	assert_int_equal(exchange("POST", "/v1/apply", HOST_DOCUMENT, 0, NULL), 409);
	world.answer = -EBUSY;
	assert_int_equal(exchange("POST", "/v1/apply", HOST_DOCUMENT, 0, NULL), 409);
	world.answer = -ENOENT;
	assert_int_equal(exchange("DELETE", "/v1/objects/hostpolicy/web", NULL, 0, NULL), 404);
	assert_int_equal(exchange("POST", "/v1/confirm", NULL, 0, NULL), 404);
	world.answer = 0;
	assert_int_equal(exchange("DELETE", "/v1/objects/hostpolicy/web", NULL, 0, NULL), 200);
	assert_int_equal(exchange("DELETE", "/v1/objects/hostpolicy/web?namespace=shop", NULL, 0, NULL), 200);
	world.namespace_ = "default";
	assert_int_equal(exchange("DELETE", "/v1/objects/port/web", NULL, 0, NULL), 200);
	world.namespace_ = "shop";
	assert_int_equal(exchange("DELETE", "/v1/objects/ports/web?namespace=shop", NULL, 0, NULL), 200);
	assert_int_equal(exchange("POST", "/v1/diff", HOST_DOCUMENT, 0, NULL), 200);
	assert_int_equal(exchange("POST", "/v1/preview", HOST_DOCUMENT, 0, &preview), 200);
	assert_string_equal(preview.data, "D\r\n{\"items\":[]}\n\r\n0\r\n\r\n");
	assert_int_equal(exchange("GET", "/v1/lint", NULL, 0, &lint), 200);
	assert_string_equal(lint.data, "{\"items\":[],\"omitted\":0}\n");
	buffer_clear(&lint);
	assert_int_equal(exchange("POST", "/v1/lint", HOST_DOCUMENT ANY_DOCUMENT, 0, &lint), 200);
	assert_non_null(strstr(lint.data, "\"kind\":\"over-broad\",\"severity\":\"warning\",\"policyKind\":\"HostPolicy\""));
	world.answer = -EINVAL;
	assert_int_equal(exchange("POST", "/v1/lint", HOST_DOCUMENT, 0, NULL), 400);
	assert_int_equal(exchange("POST", "/v1/preview", HOST_DOCUMENT, 0, NULL), 400);
	world.answer = 0;
	/* one that is over makes room for the next */
	for (unsigned i = 0; i < 2 * API_PREVIEWS; i++)
		assert_int_equal(exchange("POST", "/v1/preview", HOST_DOCUMENT, 0, NULL), 200);
	assert_int_equal(exchange("POST", "/v1/confirm", NULL, 0, NULL), 200);
}

static void test_explain(void **state)
{
	(void)state;
	assert_int_equal(exchange("POST", "/v1/explain", "{", 0, NULL), 400);
	assert_int_equal(exchange("POST", "/v1/explain", "{\"from\":1}", 0, NULL), 400);
	/* right, but nothing is loaded */
	assert_int_equal(
		exchange("POST", "/v1/explain", "{\"from\":\"192.0.2.1\",\"to\":\"192.0.2.2\",\"dport\":1}", 0, NULL), 409);
}

static void test_too_large(void **state)
{
	(void)state;
	assert_int_equal(exchange("POST", "/v1/explain", NULL, API_BODY_SMALL + 1, NULL), 413);
	assert_int_equal(exchange("POST", "/v1/explain", NULL, API_BODY_SMALL, NULL), 400);
	assert_int_equal(world.api->bodies, 0);
}

/* A stream whose reader leaves gives its place back, though it had nothing to send; more than the limit are refused. */
static void test_streams(void **state)
{
	static const char request[] = "GET /v1/monitor HTTP/1.1\r\nHost: x\r\n\r\n";
	const struct hd_event event = {.type = HD_EVENT_DROP, .verdict = HD_DENY, .ifindex = 1};
	_cleanup_buffer_ struct buffer got = {0};
	char chunk[8192];
	int fds[16];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
		fds[i] = connect_to_server();
		assert_true(fds[i] >= 0);
		send_all(fds[i], request, strlen(request));
	}
	for (int i = 0; i < 1000 && world.api->n_streams < ARRAY_SIZE(fds); i++)
		assert_true(sd_event_run(world.event, 1000) >= 0);
	assert_int_equal(world.api->n_streams, ARRAY_SIZE(fds));
	assert_true(api_monitoring(world.api));
	json_decref(get("/v1/monitor", 503));

	api_event(world.api, &event);
	for (int i = 0; i < 1000 && !(got.data && strstr(got.data, "\"verdict\":\"deny\"")); i++) {
		ssize_t n = recv(fds[3], chunk, sizeof(chunk), MSG_DONTWAIT);

		if (n > 0)
			buffer_add(&got, chunk, (size_t)n);
		assert_true(sd_event_run(world.event, 1000) >= 0);
	}
	assert_non_null(strstr(got.data, "\"verdict\":\"deny\""));

	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		safe_close(fds[i]);
	for (int i = 0; i < 1000 && world.api->n_streams; i++)
		assert_true(sd_event_run(world.event, 1000) >= 0);
	assert_int_equal(world.api->n_streams, 0);
	assert_false(api_monitoring(world.api));
}

static bool is_closed(int fd)
{
	char byte;
	ssize_t n = recv(fd, &byte, 1, MSG_DONTWAIT | MSG_PEEK);

	return n == 0 || (n < 0 && errno != EAGAIN);
}

/* However many connections ask nothing, who comes is served; of those, the longest idle go, and no stream or request that is under way. */
static void test_idle_connections(void **state)
{
	static const char stream[] = "GET /v1/monitor HTTP/1.1\r\nHost: x\r\n\r\n";
	static const char half[] = "POST /v1/explain HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{";
	int asking[2] = {connect_to_server(), connect_to_server()}, idle[5 * API_CONNECTIONS];
	char answer[64] = "";

	(void)state;
	send_all(asking[0], stream, strlen(stream));
	send_all(asking[1], half, strlen(half));
	for (int i = 0; i < 1000 && !(world.api->n_streams && world.api->bodies); i++)
		assert_true(sd_event_run(world.event, 1000) >= 0);
	assert_int_equal(world.api->bodies, 1);
	for (size_t i = 0; i < ARRAY_SIZE(idle); i++) {
		idle[i] = connect_to_server();
		assert_true(idle[i] >= 0);
		while (sd_event_run(world.event, 0) > 0)
			;
		if (i % 16 == 0)
			json_decref(get("/v1/rules", 200));
	}
	for (size_t i = 0; i < 4 * API_CONNECTIONS; i++)
		assert_true(is_closed(idle[i]));
	for (size_t i = ARRAY_SIZE(idle) - API_CONNECTIONS / 2; i < ARRAY_SIZE(idle); i++)
		assert_false(is_closed(idle[i]));
	assert_int_equal(world.api->n_streams, 1);
	send_all(asking[1], "}", 1);
	for (int i = 0; i < 1000 && recv(asking[1], answer, sizeof(answer) - 1, MSG_DONTWAIT) < 0; i++)
		assert_true(sd_event_run(world.event, 1000) >= 0);
	assert_memory_equal(answer, "HTTP/1.1 400 ", 13);

	for (size_t i = 0; i < ARRAY_SIZE(idle); i++)
		safe_close(idle[i]);
	safe_close(asking[0]);
	safe_close(asking[1]);
	for (int i = 0; i < 1000 && world.api->n_streams; i++)
		assert_true(sd_event_run(world.event, 1000) >= 0);
	assert_int_equal(world.api->n_streams, 0);
}

/* One who does not read loses events, is told so, and costs a bounded amount of memory. */
static void test_slow_reader(void **state)
{
	static const char request[] = "GET /v1/monitor?drops=1 HTTP/1.1\r\nHost: x\r\n\r\n";
	const struct hd_event event = {.type = HD_EVENT_DROP, .verdict = HD_DENY, .ifindex = 1};
	_cleanup_buffer_ struct buffer got = {0};
	int fd = connect_to_server();
	char chunk[65536];
	bool told = false;

	(void)state;
	send_all(fd, request, strlen(request));
	for (int i = 0; i < 1000 && !world.api->n_streams; i++)
		assert_true(sd_event_run(world.event, 1000) >= 0);
	assert_false(api_monitoring(world.api)); /* drops only: allowed flows are not asked for */
	for (int i = 0; i < 20000; i++)
		api_event(world.api, &event);
	for (int i = 0; i < 2000 && !told; i++) {
		ssize_t n = recv(fd, chunk, sizeof(chunk), MSG_DONTWAIT);

		if (n > 0)
			buffer_add(&got, chunk, (size_t)n);
		told = got.data && strstr(got.data, "\"type\":\"lost\"");
		assert_true(sd_event_run(world.event, 1000) >= 0);
	}
	assert_true(told);
	assert_true(got.length < 4 << 20);
	safe_close(fd);
	for (int i = 0; i < 1000 && world.api->n_streams; i++)
		assert_true(sd_event_run(world.event, 1000) >= 0);
	assert_int_equal(world.api->n_streams, 0);
}

static void test_routes(void **state)
{
	static const struct {
		const char *method, *path;
		bool tcp;
		unsigned status; /* 0: found */
		const char *kind, *name;
	} cases[] = {
		{"GET", "/v1/objects/host/x", false, 0, "host", "x"},
		{"GET", "/v1/objects/host/", false, 0, "host", NULL},
		{"DELETE", "/v1/objects/host/x", false, 0, "host", "x"},
		{"PUT", "/v1/objects/host/x", false, 405, NULL, NULL},
		{"GET", "/v1/objects//x", false, 404, NULL, NULL},
		{"GET", "/metrics", true, 0, NULL, NULL},
		{"GET", "/v1/status", true, 404, NULL, NULL},
		{"POST", "/metrics", true, 405, NULL, NULL},
		{"GET", "", false, 404, NULL, NULL},
		{"GET", "/", false, 404, NULL, NULL},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char path[64];
		const char *kind, *name;
		unsigned status;
		const struct route *route;

		snprintf(path, sizeof(path), "%s", cases[i].path);
		route = route_find(cases[i].method, path, cases[i].tcp, &kind, &name, &status);
		if (!route != !!cases[i].status || (!route && status != cases[i].status))
			fail_msg("%s %s: status %u", cases[i].method, cases[i].path, status);
		if (route && cases[i].kind)
			assert_string_equal(kind, cases[i].kind);
		if (route && cases[i].name)
			assert_string_equal(name, cases[i].name);
		else if (route)
			assert_null(name);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_routes),
		cmocka_unit_test(test_socket_mode),
		cmocka_unit_test(test_read),
		cmocka_unit_test(test_namespaces),
		cmocka_unit_test(test_unknown),
		cmocka_unit_test(test_cni),
		cmocka_unit_test(test_apply),
		cmocka_unit_test(test_explain),
		cmocka_unit_test(test_too_large),
		cmocka_unit_test(test_streams),
		cmocka_unit_test(test_idle_connections),
		cmocka_unit_test(test_slow_reader),
	};

	return cmocka_run_group_tests_name("api", tests, setup, teardown);
}
