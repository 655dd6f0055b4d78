/* SPDX-License-Identifier: Apache-2.0 */
#include <curl/curl.h>
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <util/duration.h>

#include "client.h"
#include "heddle.h"
#include "output.h"
#include "split.h"

/* More than any answer that is taken as a whole: 64 MiB of documents, twice, in diff. Long lists are taken member by member. */
#define ANSWER_MAX ((size_t)512 << 20)
#define LINE_MAX_BYTES ((size_t)1 << 20)
#define CONNECT_TIMEOUT_MS 5000L

struct client {
	CURL *curl;
	struct curl_slist *headers;
	uint64_t timeout_ms;
	char *socket;
	char *error;
};

/* What a transfer has brought so far. */
struct transfer {
	struct client *client;
	char *data;
	size_t length, size;
	bool too_large, no_memory;
	/* streams and long lists */
	client_line line;
	client_item item;
	struct splitter splitter;
	void *userdata;
	int code; /* the exit status a line asked for */
	bool bad_line;
};

struct client *client_new(const char *socket, uint64_t timeout_ms)
{
	struct client *client = calloc(1, sizeof(*client));

	if (!client)
		return NULL;
	client->socket = strdup(socket);
	client->timeout_ms = timeout_ms;
	client->curl = curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK ? curl_easy_init() : NULL;
	if (!client->socket || !client->curl) {
		client_free(client);
		return NULL;
	}
	return client;
}

void client_free(struct client *client)
{
	if (!client)
		return;
	curl_slist_free_all(client->headers);
	curl_easy_cleanup(client->curl);
	free(client->socket);
	free(client->error);
	free(client);
}

const char *client_error(const struct client *client)
{
	return client->error ? client->error : "no answer";
}

static int set_error(struct client *client, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));
static int set_error(struct client *client, int code, const char *format, ...)
{
	va_list arguments;
	char *text;

	va_start(arguments, format);
	if (vasprintf(&text, format, arguments) < 0)
		text = NULL;
	va_end(arguments);
	free(client->error);
	client->error = text;
	return code;
}

static bool transfer_room(struct transfer *transfer, size_t more, size_t limit)
{
	size_t size = transfer->size ? transfer->size : 16384;
	char *larger;

	if (transfer->length + more > limit) {
		transfer->too_large = true;
		return false;
	}
	while (size < transfer->length + more + 1)
		size *= 2;
	if (size == transfer->size)
		return true;
	larger = realloc(transfer->data, size);
	if (!larger) {
		transfer->no_memory = true;
		return false;
	}
	transfer->data = larger;
	transfer->size = size;
	return true;
}

static size_t take_answer(char *data, size_t one, size_t length, void *userdata)
{
	struct transfer *transfer = userdata;

	if (!transfer_room(transfer, one * length, ANSWER_MAX))
		return 0;
	memcpy(transfer->data + transfer->length, data, one * length);
	transfer->length += one * length;
	return one * length;
}

static bool good_status(CURL *curl)
{
	long status = 0;

	curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
	return status >= 200 && status < 300;
}

static bool take_line(struct transfer *transfer, const char *text, size_t length)
{
	json_auto_t *object = NULL;

	if (length == 0) /* an empty line keeps a quiet stream alive */
		return true;
	object = json_loadb(text, length, 0, NULL);
	if (!json_is_object(object)) {
		transfer->bad_line = true;
		return false;
	}
	transfer->code = transfer->line(object, transfer->userdata);
	return transfer->code == 0;
}

/* Cuts the stream into lines. The answer to a refused stream is one JSON document and is kept whole. */
static size_t take_stream(char *data, size_t one, size_t length, void *userdata)
{
	struct transfer *transfer = userdata;
	size_t total = one * length, start = 0;
	char *end;

	if (!good_status(transfer->client->curl))
		return take_answer(data, one, length, userdata);
	if (!transfer_room(transfer, total, LINE_MAX_BYTES + total))
		return 0;
	memcpy(transfer->data + transfer->length, data, total);
	transfer->length += total;
	while ((end = memchr(transfer->data + start, '\n', transfer->length - start))) {
		if (!take_line(transfer, transfer->data + start, (size_t)(end - transfer->data) - start))
			return 0;
		start = (size_t)(end - transfer->data) + 1;
	}
	memmove(transfer->data, transfer->data + start, transfer->length - start);
	transfer->length -= start;
	if (transfer->length > LINE_MAX_BYTES) {
		transfer->too_large = true;
		return 0;
	}
	return total;
}

static size_t take_items(char *data, size_t one, size_t length, void *userdata)
{
	struct transfer *transfer = userdata;
	int r;

	if (!good_status(transfer->client->curl))
		return take_answer(data, one, length, userdata);
	r = splitter_feed(&transfer->splitter, data, one * length, transfer->item, transfer->userdata);
	transfer->bad_line = r == -EINVAL;
	transfer->too_large = r == -E2BIG;
	transfer->no_memory = r == -ENOMEM;
	transfer->code = r > 0 ? r : 0;
	return r ? 0 : one * length;
}

static int transport_error(struct client *client, const struct transfer *transfer, CURLcode result, uint64_t timeout_ms)
{
	char duration[DURATION_TEXT_MAX];
	long os_error = 0;

	if (transfer->too_large)
		return set_error(client, CLI_REFUSED, "the daemon's answer is too long");
	if (transfer->no_memory)
		return set_error(client, CLI_REFUSED, "out of memory");
	if (transfer->bad_line)
		return set_error(client, CLI_REFUSED, "the daemon's answer is not JSON");
	curl_easy_getinfo(client->curl, CURLINFO_OS_ERRNO, &os_error);
	switch (result) {
	case CURLE_COULDNT_CONNECT:
		if (os_error == EACCES || os_error == EPERM)
			return set_error(client, CLI_REFUSED, "%s: permission denied (root and the socket's group may ask)",
				client->socket);
		return set_error(client, CLI_NO_DAEMON, "no daemon at %s (%s)", client->socket,
			os_error ? strerror((int)os_error) : "cannot connect");
	case CURLE_OPERATION_TIMEDOUT:
		return set_error(
			client, CLI_REFUSED, "the daemon did not answer within %s", duration_format(timeout_ms, duration));
	case CURLE_GOT_NOTHING:
	case CURLE_RECV_ERROR:
	case CURLE_SEND_ERROR:
	case CURLE_PARTIAL_FILE:
		return set_error(client, CLI_REFUSED, "the daemon closed the connection without a whole answer");
	default:
		return set_error(client, CLI_REFUSED, "%s: %s", client->socket, curl_easy_strerror(result));
	}
}

/* The error of an answer that is not 2xx: the one line, then the details a line each. */
static int answer_error(struct client *client, const struct transfer *transfer)
{
	json_auto_t *answer = json_loadb(transfer->data ? transfer->data : "", transfer->length, 0, NULL);
	const json_t *detail, *details = json_object_get(answer, "details");
	const char *error = string_at(answer, "error");
	char *text = NULL;
	size_t length = 0, i;
	long status = 0;
	FILE *stream;

	curl_easy_getinfo(client->curl, CURLINFO_RESPONSE_CODE, &status);
	stream = open_memstream(&text, &length);
	if (!stream)
		return set_error(client, CLI_REFUSED, "out of memory");
	if (error)
		fputs(error, stream);
	else
		fprintf(stream, "the daemon answered with HTTP status %ld", status);
	json_array_foreach (details, i, detail)
		if (json_is_string(detail))
			fprintf(stream, "\n  %s", json_string_value(detail));
	fclose(stream);
	set_error(client, CLI_REFUSED, "%s", text);
	free(text);
	return CLI_REFUSED;
}

static void prepare(struct client *client, const struct client_request *request, char *url, size_t size)
{
	CURL *curl = client->curl;
	char type[64];

	curl_easy_reset(curl); /* keeps the connection */
	snprintf(url, size, "http://heddled%s", request->path);
	curl_slist_free_all(client->headers);
	/* Without this, libcurl asks for leave before it sends a large body, and waits a second for it. */
	client->headers = curl_slist_append(NULL, "Expect:");
	if (request->content_type) {
		snprintf(type, sizeof(type), "Content-Type: %s", request->content_type);
		client->headers = curl_slist_append(client->headers, type);
	}
	curl_easy_setopt(curl, CURLOPT_URL, url);
	curl_easy_setopt(curl, CURLOPT_UNIX_SOCKET_PATH, client->socket);
	curl_easy_setopt(curl, CURLOPT_PATH_AS_IS, 1L); /* an object called ".." is not a step up */
	curl_easy_setopt(curl, CURLOPT_PROXY, "");	/* http_proxy is not for this */
	curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http");
	curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(curl, CURLOPT_HTTPHEADER, client->headers);
	curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS, CONNECT_TIMEOUT_MS);
	if (request->method)
		curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, request->method);
	if (request->body) {
		curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)request->length);
		curl_easy_setopt(curl, CURLOPT_POSTFIELDS, request->body);
	}
}

int client_call_quietly(struct client *client, const struct client_request *request, json_t **ret)
{
	uint64_t timeout_ms = request->timeout_ms ? request->timeout_ms : client->timeout_ms;
	struct transfer transfer = {.client = client};
	json_t *answer = NULL;
	CURLcode result;
	char url[CLIENT_PATH_MAX + 32];
	int code = 0;

	free(client->error);
	client->error = NULL;
	prepare(client, request, url, sizeof(url));
	curl_easy_setopt(client->curl, CURLOPT_TIMEOUT_MS, timeout_ms < INT_MAX ? (long)timeout_ms : INT_MAX);
	curl_easy_setopt(client->curl, CURLOPT_WRITEFUNCTION, take_answer);
	curl_easy_setopt(client->curl, CURLOPT_WRITEDATA, &transfer);
	result = curl_easy_perform(client->curl);
	if (result != CURLE_OK)
		code = transport_error(client, &transfer, result, timeout_ms);
	else if (!good_status(client->curl))
		code = answer_error(client, &transfer);
	else if (transfer.length) {
		answer = json_loadb(transfer.data, transfer.length, 0, NULL);
		if (!answer)
			code = set_error(client, CLI_REFUSED, "the daemon's answer is not JSON");
	}
	free(transfer.data);
	if (code == 0)
		*ret = answer;
	return code;
}

int client_call(struct client *client, const struct client_request *request, json_t **ret)
{
	int code = client_call_quietly(client, request, ret);

	return code ? fail(code, "%s", client_error(client)) : 0;
}

int client_stream(struct client *client, const char *path, client_line line, void *userdata)
{
	struct client_request request = {.path = path};
	struct transfer transfer = {.client = client, .line = line, .userdata = userdata};
	CURLcode result;
	char url[CLIENT_PATH_MAX + 32];
	int code;

	prepare(client, &request, url, sizeof(url));
	curl_easy_setopt(client->curl, CURLOPT_WRITEFUNCTION, take_stream);
	curl_easy_setopt(client->curl, CURLOPT_WRITEDATA, &transfer);
	result = curl_easy_perform(client->curl);
	if (transfer.code) {
		free(transfer.data);
		return transfer.code;
	}
	if (result != CURLE_OK)
		code = transport_error(client, &transfer, result, 0);
	else if (!good_status(client->curl))
		code = answer_error(client, &transfer);
	else
		code = set_error(client, CLI_REFUSED, "the daemon ended the stream");
	free(transfer.data);
	return fail(code, "%s", client_error(client));
}

int client_items(struct client *client, const struct client_request *request, client_item item, void *userdata)
{
	struct transfer transfer = {.client = client, .item = item, .userdata = userdata};
	CURLcode result;
	char url[CLIENT_PATH_MAX + 32];
	int code = 0;

	prepare(client, request, url, sizeof(url));
	curl_easy_setopt(client->curl, CURLOPT_TIMEOUT_MS, client->timeout_ms < INT_MAX ? (long)client->timeout_ms : INT_MAX);
	curl_easy_setopt(client->curl, CURLOPT_WRITEFUNCTION, take_items);
	curl_easy_setopt(client->curl, CURLOPT_WRITEDATA, &transfer);
	result = curl_easy_perform(client->curl);
	if (!transfer.code && result != CURLE_OK)
		code = transport_error(client, &transfer, result, client->timeout_ms);
	else if (!transfer.code && !good_status(client->curl))
		code = answer_error(client, &transfer);
	else if (!transfer.code && !splitter_whole(&transfer.splitter))
		code = set_error(client, CLI_REFUSED, "the daemon's answer is not JSON");
	splitter_clear(&transfer.splitter);
	free(transfer.data);
	if (code)
		return fail(code, "%s", client_error(client));
	return transfer.code;
}

static bool path_add(char path[CLIENT_PATH_MAX], const char *text)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_~.";
	size_t length = strlen(path);

	for (; *text; text++) {
		if (length + 4 > CLIENT_PATH_MAX)
			return false;
		length += (size_t)snprintf(
			path + length, CLIENT_PATH_MAX - length, strchr(plain, *text) ? "%c" : "%%%02X", (unsigned char)*text);
	}
	return true;
}

bool client_object_path(char path[CLIENT_PATH_MAX], const char *kind, const char *namespace_, const char *name)
{
	snprintf(path, CLIENT_PATH_MAX, "/v1/objects/");
	if (!path_add(path, kind))
		return false;
	if (name) {
		strncat(path, "/", CLIENT_PATH_MAX - strlen(path) - 1);
		if (!path_add(path, name))
			return false;
	}
	if (!namespace_)
		return true;
	strncat(path, "?namespace=", CLIENT_PATH_MAX - strlen(path) - 1);
	return path_add(path, namespace_);
}

int client_split_name(const char **name, const char **namespace_, char buffer[CLIENT_PATH_MAX])
{
	const char *slash = strchr(*name, '/');

	if (!slash)
		return 0;
	if (slash == *name || !slash[1] || strchr(slash + 1, '/') || slash - *name >= CLIENT_PATH_MAX)
		return fail(CLI_USAGE, "%s: want NAME or NAMESPACE/NAME", *name);
	memcpy(buffer, *name, (size_t)(slash - *name));
	buffer[slash - *name] = '\0';
	if (*namespace_ && strcmp(*namespace_, buffer) != 0)
		return fail(CLI_USAGE, "%s: want NAME or %s/NAME, since -n says so", *name, *namespace_);
	*namespace_ = buffer;
	*name = slash + 1;
	return 0;
}
