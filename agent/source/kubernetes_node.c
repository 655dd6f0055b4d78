// SPDX-License-Identifier: Apache-2.0
/*
 * What this node says of itself at the server, once it can serve: that Pods may come. Each step is judged by what the watch has said of the
 * Node since, so that nothing is done twice, and what others do to it meanwhile is not overwritten.
 */
#include <source/kubernetes_internal.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <util/hash.h>
#include <util/log.h>

#define AGAIN_MS 1000u
#define AGAIN_DOUBLINGS 6u
#define SHOWS_MS 10000u /* what was done, on the watch */

/*
 * With or without the taint; NULL: it is so already. The list is one value to the server: it must still be what it was. Where there is none, that is
 * said by the Node's version.
 */
static json_t *taint_patch(const struct kube_item *own, const json_t *node, const char *key, bool with)
{
	json_t *taints = json_object_get(json_object_get(node, "spec"), "taints"), *left = json_array(), *patch = json_array(),
	       *taint;
	bool found = false;
	char version[32];
	size_t i;

	json_array_foreach (taints, i, taint) {
		const char *its = json_string_value(json_object_get(taint, "key"));

		if (its && strcmp(its, key) == 0)
			found = true;
		else
			json_array_append(left, taint);
	}
	if (found == with) {
		json_decref(left);
		json_decref(patch);
		return NULL;
	}
	if (with)
		json_array_append_new(left, json_pack("{s:s, s:s}", "key", key, "effect", "NoSchedule"));
	snprintf(version, sizeof(version), "%llu", (unsigned long long)own->version);
	if (taints)
		json_array_append_new(patch, json_pack("{s:s, s:s, s:O}", "op", "test", "path", "/spec/taints", "value", taints));
	else if (own->version)
		json_array_append_new(
			patch, json_pack("{s:s, s:s, s:s}", "op", "test", "path", "/metadata/resourceVersion", "value", version));
	json_array_append_new(
		patch, json_pack("{s:s, s:s, s:o}", "op", taints ? "replace" : "add", "path", "/spec/taints", "value", left));
	return patch;
}

/* NULL: it is so already, or nobody has ever set it. */
static json_t *condition_patch(const json_t *node, bool ready)
{
	const json_t *condition = json_array_get(json_object_get(json_object_get(node, "status"), "conditions"), 0);
	const char *status = json_string_value(json_object_get(condition, "status")), *wanted = ready ? "False" : "True";
	time_t seconds = time(NULL);
	struct tm utc;
	char now[32];

	if (!condition || (status && strcmp(status, wanted) == 0))
		return NULL;
	(void)gmtime_r(&seconds, &utc);
	(void)strftime(now, sizeof(now), "%FT%TZ", &utc);
	return json_pack("{s:{s:[{s:s, s:s, s:s, s:s, s:s, s:s}]}}", "status", "conditions", "type", KUBE_CONDITION, "status",
		wanted, "reason", ready ? "HeddleIsReady" : "HeddleIsNotReady", "message",
		ready ? "heddle connects Pods on this node" : "heddle cannot connect Pods on this node", "lastTransitionTime",
		now, "lastHeartbeatTime", now);
}

/* The next request that is to be made of the node. 0: none. Both are freed by the caller. */
static int next_patch(const struct kubernetes *k, const struct kube_item *own, const char *taint, bool ready, char **ret_url,
	struct kube_asked *ret)
{
	json_t *node = NULL, *patch;
	bool status;
	int r = kube_parse(own->text, strlen(own->text), &node);

	if (r < 0)
		return r;
	patch = condition_patch(node, ready);
	status = patch != NULL;
	if (!patch)
		patch = taint_patch(own, node, taint, !ready);
	json_decref(node);
	if (!patch)
		return 0;
	ret->patch = json_dumps(patch, JSON_COMPACT);
	ret->patch_type = status ? "application/strategic-merge-patch+json" : "application/json-patch+json";
	json_decref(patch);
	if (!ret->patch || asprintf(ret_url, "%s%s/%s%s", k->config.server, kube_kinds[KUBE_NODE].path, k->node,
				   status ? "/status" : "") < 0) {
		free((char *)ret->patch);
		ret->patch = NULL;
		return -ENOMEM;
	}
	ret->url = *ret_url;
	return 1;
}

static const char *readiness(bool ready)
{
	return ready ? "ready" : "not ready";
}

static void mark(struct kubernetes *k)
{
	const struct kube_item *own = kube_find(k, KUBE_NODE, "", k->node);
	uint64_t hash = own ? hash_string(k->patch_ready ? 6 : 7, own->text) : 0;
	struct kube_asked asked = {0};
	char *url = NULL;
	int r;

	/* the last state on disk may be of long ago */
	if (!k->patch_taint || k->patch.easy || !own || !k->streams[KUBE_NODE].synced || hash == k->patched)
		return;
	r = next_patch(k, own, k->patch_taint, k->patch_ready, &url, &asked);
	if (r == 0) {
		k->patched = hash;
		k->patch_failures = 0;
		return;
	}
	if (r > 0)
		r = kube_request_begin(&k->patch, &asked);
	if (r < 0)
		log_err(r, "cannot say at %s that this node is %s", k->config.server, readiness(k->patch_ready));
	free((char *)asked.patch);
	free(url);
}

static int on_again(sd_event_source *source, uint64_t now, void *userdata)
{
	(void)source, (void)now;
	mark(userdata);
	return 0;
}

/* What was done shows on the watch, which leads here again. Until then, and after a refusal, it is looked at again later. */
static void on_end(void *userdata, const char *error, bool timed_out)
{
	struct kubernetes *k = userdata;
	unsigned doublings = k->patch_failures < AGAIN_DOUBLINGS ? k->patch_failures : AGAIN_DOUBLINGS;
	char refusal[256];

	(void)timed_out;
	if (!error && k->patch.status != 200) {
		kube_request_refusal(&k->patch, refusal, sizeof(refusal));
		error = refusal;
	}
	/* once is no news where the Node is not any more what it was */
	if (error && k->patch_failures++ == (k->patch.status == 422))
		log_warn(0, "cannot say at %s that Node %s is %s: %s", k->config.server, k->node, readiness(k->patch_ready),
			error);
	if (!error)
		k->patch_failures = 0;
	if (sd_event_source_set_time_relative(k->patch_again, 1000ull * (error ? AGAIN_MS << doublings : SHOWS_MS)) >= 0)
		(void)sd_event_source_set_enabled(k->patch_again, SD_EVENT_ONESHOT);
}

static const struct kube_request_ops patch_ops = {.ended = on_end};

void kubernetes_mark(struct kubernetes *k, const char *taint, enum kubernetes_mark as)
{
	bool wanted = as != KUBERNETES_AS_IT_IS;
	int waits = SD_EVENT_OFF;

	if (!wanted || !k->patch_taint || strcmp(k->patch_taint, taint) != 0) {
		free(k->patch_taint);
		k->patch_taint = wanted ? strdup(taint) : NULL;
	}
	k->patch_ready = as == KUBERNETES_READY;
	/* while it waits to try again, the time for that is kept */
	if (k->patch_again && k->patch_failures)
		(void)sd_event_source_get_enabled(k->patch_again, &waits);
	if (k->multi && waits == SD_EVENT_OFF)
		mark(k);
}

int kube_node_start(struct kubernetes *k)
{
	k->patch = (struct kube_request){.k = k, .ops = &patch_ops, .userdata = k};
	return kube_add_timer(k, &k->patch_again, on_again, k);
}

void kube_node_free(struct kubernetes *k)
{
	if (k->multi)
		kube_request_free(&k->patch);
	sd_event_source_disable_unref(k->patch_again);
	free(k->patch_taint);
}

/* --- without the loop of an agent --- */

#define WITHDRAW_TRIES 5

struct exchange {
	struct kube_request request;
	struct buffer body;
	char error[256]; /* "": none */
	bool ended;
};

static int on_exchange_body(void *userdata, const char *data, size_t length)
{
	struct exchange *exchange = userdata;

	if (exchange->body.length + length > KUBE_PIECE_MAX)
		return -EMSGSIZE;
	buffer_add(&exchange->body, data, length);
	return exchange->body.failed ? -ENOMEM : 0;
}

static void on_exchange_end(void *userdata, const char *error, bool timed_out)
{
	struct exchange *exchange = userdata;

	(void)timed_out;
	exchange->ended = true;
	if (error)
		snprintf(exchange->error, sizeof(exchange->error), "%s", error);
	else if (exchange->request.status != 200)
		kube_request_refusal(&exchange->request, exchange->error, sizeof(exchange->error));
}

static const struct kube_request_ops exchange_ops = {.body = on_exchange_body, .ended = on_exchange_end};

static int run_exchange(struct kubernetes *k, struct exchange *exchange, const struct kube_asked *asked)
{
	int r;

	exchange->request =
		(struct kube_request){.k = k, .ops = &exchange_ops, .userdata = exchange, .refusal = exchange->request.refusal};
	exchange->ended = false;
	exchange->error[0] = '\0';
	exchange->body.length = 0;
	r = kube_request_begin(&exchange->request, asked);
	while (r >= 0 && !exchange->ended)
		r = sd_event_run(k->event, UINT64_MAX);
	return r < 0 ? r : *exchange->error ? -EREMOTEIO : 0;
}

/* 1: there is more to do; 0: none, or there is no such Node. */
static int withdraw_step(struct kubernetes *k, struct exchange *exchange, const char *taint)
{
	_cleanup_free_ char *url = NULL, *patch_url = NULL;
	struct kube_asked asked = {0};
	const struct kube_item *own;
	json_t *node = NULL;
	int r;

	if (asprintf(&url, "%s%s/%s", k->config.server, kube_kinds[KUBE_NODE].path, k->node) < 0) {
		url = NULL;
		return -ENOMEM;
	}
	r = run_exchange(k, exchange, &(struct kube_asked){.url = url});
	if (r == -EREMOTEIO && exchange->request.status == 404)
		return 0;
	if (r == 0)
		r = kube_parse(exchange->body.data ? exchange->body.data : "", exchange->body.length, &node);
	if (r == 0)
		r = kube_put(k, KUBE_NODE, node);
	json_decref(node);
	own = r >= 0 ? kube_find(k, KUBE_NODE, "", k->node) : NULL;
	if (!own)
		return r < 0 ? r : -EBADMSG;
	r = next_patch(k, own, taint, false, &patch_url, &asked);
	if (r <= 0)
		return r;
	r = run_exchange(k, exchange, &asked);
	free((char *)asked.patch);
	/* somebody else was faster: it is read again */
	if (r == -EREMOTEIO && (exchange->request.status == 422 || exchange->request.status == 409))
		r = 0;
	return r < 0 ? r : 1;
}

int kubernetes_withdraw(struct kubernetes *k, const char *taint)
{
	struct exchange exchange = {0};
	int r = sd_event_new(&k->event);

	if (r >= 0)
		r = kube_requests_start(k);
	if (r >= 0)
		r = 1;
	for (int i = 0; i < WITHDRAW_TRIES && r > 0; i++)
		r = withdraw_step(k, &exchange, taint);
	if (r != 0)
		log_err(r < 0 ? r : -EAGAIN, "cannot say at %s that Node %s is not ready%s%s", k->config.server, k->node,
			*exchange.error ? ": " : "", exchange.error);
	if (k->multi)
		kube_request_free(&exchange.request);
	buffer_clear(&exchange.body);
	return r > 0 ? -EAGAIN : r;
}
