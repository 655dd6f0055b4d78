/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HTTP+JSON on a unix socket, and OpenMetrics on an optional TCP address, in the agent's own event loop. Reading is answered
 * from the view; whoever changes something is handed on through the operations, which the controller implements.
 */
#ifndef HEDDLE_API_API_H
#define HEDDLE_API_API_H

#include <jansson.h>

#include <model/decode.h>
#include <observe/preview.h>
#include <observe/view.h>
#include <util/buffer.h>

struct api;
struct sd_event;

enum api_cni { API_CNI_RESERVE, API_CNI_COMMIT, API_CNI_RELEASE };

/*
 * Each returns 0 with the answer in *ret, or a negative errno with what is wrong in diag: -EINVAL the documents, -EPERM a file
 * owns the object, -EACCES the CNI plugin does, -EBUSY an apply waits for its confirmation, -ENOENT no such thing. What was in force is in force then.
 */
struct api_ops {
	int (*apply)(void *userdata, const struct object_list *objects, uint64_t confirm_ms, json_t **ret, struct diag *diag);
	int (*remove)(
		void *userdata, enum object_kind kind, const char *namespace_, const char *name, json_t **ret, struct diag *diag);
	int (*confirm)(void *userdata, json_t **ret, struct diag *diag);
	/* JSON text, since it may be as long as the documents twice */
	int (*diff)(void *userdata, const struct object_list *objects, struct buffer *text, struct diag *diag);
	/* Nothing is changed. What to write is had piece by piece from *ret, which is the caller's. */
	int (*preview)(void *userdata, const struct object_list *objects, struct preview **ret, struct diag *diag);
	/* All objects as they would be with these, valid and sorted. Nothing is changed. */
	int (*whole)(void *userdata, const struct object_list *objects, struct object_list *ret, struct diag *diag);
	/* What the CNI plugin asks for, in the order of its ADD. -EEXIST: attached already; -EADDRNOTAVAIL: no such address is free; -EAGAIN: not now. */
	int (*cni)(void *userdata, enum api_cni verb, const json_t *body, json_t **ret, struct diag *diag);
	/* VFs as they are now */
	int (*vfs)(void *userdata, json_t **ret, struct diag *diag);
	/* much memory was just let go: give it back when there is time */
	void (*tidy)(void *userdata);
};

struct api_config {
	const char *run_dir; /* the socket is heddled.sock in it */
	const char *metrics; /* ADDR:PORT or [ADDR]:PORT; NULL: no TCP listener */
	const struct view *view;
	const struct api_ops *ops;
	void *userdata;
};

bool api_metrics_address(const char *text); /* it is one that api_config can have */
/* The caller holds the lock of run_dir: a socket found there is a stale one, and is replaced. Logs what fails. */
int api_new(struct sd_event *event, const struct api_config *config, struct api **ret);
void api_free(struct api *api);
static inline void api_free_p(struct api **api)
{
	if (*api)
		api_free(*api);
}

/* Hands an event of the data plane to those who monitor. */
void api_event(struct api *api, const struct hd_event *event);
/* Somebody wants events of allowed flows too: to be told to a data plane that was just loaded. */
bool api_monitoring(const struct api *api);

#define API_SOCKET_NAME "heddled.sock"

#endif
