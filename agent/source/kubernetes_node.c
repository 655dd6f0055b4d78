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

/* Without the taint; NULL: it is not there. The list is one value to the server: it must still be what it was. */
static json_t *taint_patch(const json_t *node, const char *key)
{
	json_t *taints = json_object_get(json_object_get(node, "spec"), "taints"), *left = json_array(), *taint;
	bool found = false;
	size_t i;

	json_array_foreach (taints, i, taint) {
		const char *its = json_string_value(json_object_get(taint, "key"));

		if (its && strcmp(its, key) == 0)
			found = true;
		else
			json_array_append(left, taint);
	}
	if (!found) {
		json_decref(left);
		return NULL;
	}
	return json_pack("[{s:s, s:s, s:O}, {s:s, s:s, s:o}]", "op", "test", "path", "/spec/taints", "value", taints, "op",
		"replace", "path", "/spec/taints", "value", left);
}

/* NULL: it is False, or nobody has ever set it. */
static json_t *condition_patch(const json_t *node)
{
	const json_t *condition = json_array_get(json_object_get(json_object_get(node, "status"), "conditions"), 0);
	const char *status = json_string_value(json_object_get(condition, "status"));
	time_t seconds = time(NULL);
	struct tm utc;
	char now[32];

	if (!condition || (status && strcmp(status, "False") == 0))
		return NULL;
	(void)gmtime_r(&seconds, &utc);
	(void)strftime(now, sizeof(now), "%FT%TZ", &utc);
	return json_pack("{s:{s:[{s:s, s:s, s:s, s:s, s:s, s:s}]}}", "status", "conditions", "type", KUBE_CONDITION, "status",
		"False", "reason", "HeddleIsReady", "message", "heddle connects Pods on this node", "lastTransitionTime", now,
		"lastHeartbeatTime", now);
}

static void mark(struct kubernetes *k)
{
	const struct kube_item *own = kube_find(k, KUBE_NODE, "", k->node);
	uint64_t hash = own ? hash_string(6, own->text) : 0;
	json_t *node = NULL, *patch = NULL;
	char *text = NULL, *url = NULL;
	bool status = false;
	int r;

	/* the last state on disk may be of long ago */
	if (!k->patch_taint || k->patch.easy || !own || !k->streams[KUBE_NODE].synced || hash == k->patched ||
		kube_parse(own->text, strlen(own->text), &node) < 0)
		return;
	patch = condition_patch(node);
	status = patch != NULL;
	if (!patch)
		patch = taint_patch(node, k->patch_taint);
	if (!patch) {
		k->patched = hash;
		k->patch_failures = 0;
		goto finish;
	}
	text = json_dumps(patch, JSON_COMPACT);
	if (!text ||
		asprintf(&url, "%s%s/%s%s", k->config.server, kube_kinds[KUBE_NODE].path, k->node, status ? "/status" : "") < 0) {
		url = NULL;
		goto finish;
	}
	r = kube_request_begin(&k->patch,
		&(struct kube_asked){.url = url,
			.patch = text,
			.patch_type = status ? "application/strategic-merge-patch+json" : "application/json-patch+json"});
	if (r < 0)
		log_err(r, "cannot say at %s that this node is ready", k->config.server);
finish:
	json_decref(node);
	json_decref(patch);
	free(text);
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
		log_warn(0, "cannot say at %s that Node %s is ready: %s", k->config.server, k->node, error);
	if (!error)
		k->patch_failures = 0;
	if (sd_event_source_set_time_relative(k->patch_again, 1000ull * (error ? AGAIN_MS << doublings : SHOWS_MS)) >= 0)
		(void)sd_event_source_set_enabled(k->patch_again, SD_EVENT_ONESHOT);
}

static const struct kube_request_ops patch_ops = {.ended = on_end};

void kubernetes_mark_ready(struct kubernetes *k, const char *taint, bool ready)
{
	if (!ready || !k->patch_taint || strcmp(k->patch_taint, taint) != 0) {
		free(k->patch_taint);
		k->patch_taint = ready ? strdup(taint) : NULL;
	}
	/* while it waits to try again, the time for that is kept */
	if (k->multi && !k->patch_failures)
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
