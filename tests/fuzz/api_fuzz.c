/* SPDX-License-Identifier: Apache-2.0 */
/* What a client of the API can send besides documents: paths, and the bodies of explain, down to the frame made from them. */
#include <stdlib.h>
#include <string.h>

#include <api/http.h>
#include <observe/explain.h>
#include <util/buffer.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void route(const uint8_t *data, size_t size)
{
	static const char *const methods[] = {"GET", "POST", "DELETE", "PUT"};
	const char *kind, *name;
	unsigned status;
	char *path;

	if (!size)
		return;
	path = malloc(size);
	if (!path)
		return;
	memcpy(path, data + 1, size - 1);
	path[size - 1] = '\0';
	if (route_find(methods[*data & 3], path, *data & 4, &kind, &name, &status)) {
		if (kind && (!*kind || strchr(kind, '/')))
			abort();
		if (name && (!*name || strchr(name, '/')))
			abort();
	} else if (status != MHD_HTTP_NOT_FOUND && status != MHD_HTTP_METHOD_NOT_ALLOWED) {
		abort();
	}
	free(path);
}

static void explain(const uint8_t *data, size_t size)
{
	static struct explain_request request;
	json_t *body = json_loadb((const char *)data, size, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, NULL);
	struct buffer mistakes = {0};
	uint8_t frame[PACKET_MAX];
	size_t length;

	if (!body)
		return;
	if (explain_parse(body, &request, &mistakes) < 0) {
		/* never refused without a word */
		if (!mistakes.length && !mistakes.failed)
			abort();
	} else if (request.described) {
		(void)packet_build(&request.spec, frame, &length);
	}
	buffer_clear(&mistakes);
	json_decref(body);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (!size)
		return 0;
	if (*data == 'r')
		route(data + 1, size - 1);
	else
		explain(data, size);
	return 0;
}
