/* SPDX-License-Identifier: Apache-2.0 */
/* HTTP+JSON over the daemon's unix socket. */
#ifndef HEDDLE_CLI_CLIENT_H
#define HEDDLE_CLI_CLIENT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct client;

/* How long the daemon may take to answer one request; streams are not limited. HEDDLE_TIMEOUT overrides it. */
#define CLIENT_TIMEOUT_MS 60000

/* NULL: no memory. The socket's path is copied. */
struct client *client_new(const char *socket, uint64_t timeout_ms);
void client_free(struct client *client); /* NULL is fine */

struct client_request {
	const char *method; /* NULL: GET */
	const char *path;   /* with the query, escaped */
	const char *content_type;
	const void *body; /* NULL: none */
	size_t length;
	uint64_t timeout_ms; /* 0: the client's */
};

/*
 * Asks and reports: 0 and the answer (*ret to be released; may be NULL when the answer is empty), or an exit status with the
 * reason printed to stderr. quiet: nothing is printed, client_error() tells.
 */
int client_call(struct client *client, const struct client_request *request, json_t **ret);
int client_call_quietly(struct client *client, const struct client_request *request, json_t **ret);
const char *client_error(const struct client *client); /* of the last call that failed; never NULL */

/* Called for each member of {"items": [...]}, as they come in; borrowed. Non-zero ends it and is returned. */
typedef int (*client_item)(json_t *item, void *userdata);
/* Asks for a long list. Returns an exit status, the message printed; what came before a failure has been told by then. */
int client_items(struct client *client, const struct client_request *request, client_item item, void *userdata);

/* Called for each line of a stream; the object is borrowed. Non-zero ends the stream and is returned. */
typedef int (*client_line)(json_t *object, void *userdata);
/* Returns an exit status. That the daemon ends a stream is a failure: a listener wants to know. */
int client_stream(struct client *client, const char *path, client_line line, void *userdata);

/*
 * /v1/objects/KIND[/NAME][?namespace=NAMESPACE], with everything escaped that has a meaning in a URL. name and namespace_ may be
 * NULL. false: it does not fit.
 */
#define CLIENT_PATH_MAX 1000
bool client_object_path(char path[CLIENT_PATH_MAX], const char *kind, const char *namespace_, const char *name);

/*
 * NAMESPACE/NAME, as tables and messages have it, is taken apart: *name and *namespace_ (NULL: none was asked for) are the two parts then, the latter in buffer. A name
 * alone stays what it is. 0, or CLI_USAGE with the message printed.
 */
int client_split_name(const char **name, const char **namespace_, char buffer[CLIENT_PATH_MAX]);

#endif
