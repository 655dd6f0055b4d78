/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <string.h>
#include <arpa/inet.h>

#include <observe/json.h>
#include <observe/offloaded.h>

#define ITEMS 16 /* of what is dropped */

static bool asked_for(const struct view *view)
{
	return view->host && view->host->offload;
}

/* What has not begun has zeros. */
static struct offload_status read_flows(const struct view *view)
{
	struct offload_status status = {0};

	if (view->offload)
		offload_status(view->offload, &status);
	return status;
}

static struct drops_status read_drops(const struct view *view)
{
	struct drops_status status = {0};

	if (view->drops)
		drops_status(view->drops, &status);
	return status;
}

static bool active(const struct view *view)
{
	return view->offload && !view->offload_reason;
}

static json_t *reasons_json(const struct offload_status *status)
{
	json_t *reasons = json_array();

	for (unsigned i = OFFLOAD_NONE + 1; i < OFFLOAD_REASON_COUNT; i++)
		if (status->flows[i])
			json_array_append_new(reasons, json_pack("{s:s, s:I, s:s}", "reason", offload_reason_name[i], "flows",
							       (json_int_t)status->flows[i], "text", offload_reason_text[i]));
	return reasons;
}

/* Into an object that says the rest. */
static void add_work(json_t *json, const char *now, const struct nic_work *work)
{
	json_t *more = json_pack("{s:I, s:I, s:I, s:{s:I, s:I}, s:I, s:b, s:o, s:o}", now, (json_int_t)work->now, "packets",
		(json_int_t)work->packets, "bytes", (json_int_t)work->bytes, "rules", "added", (json_int_t)work->rules_added,
		"removed", (json_int_t)work->rules_removed, "refused", (json_int_t)work->refused, "paused", work->paused,
		"lastRefusal", json_text(work->refusal ? strerror(-work->refusal) : NULL), "lastRefusalText",
		json_text(work->refusal_text[0] ? work->refusal_text : NULL));

	json_object_update(json, more);
	json_decref(more);
}

static json_t *item_json(const struct view *view, const struct drops_item *item)
{
	const struct offload_rule *match = item->match;
	bool icmp = match->protocol == IPPROTO_ICMP || match->protocol == IPPROTO_ICMPV6;
	json_t *json = json_pack("{s:o, s:o, s:o, s:o, s:o, s:I, s:I}", "device", json_device(view, match->in), "protocol",
		json_protocol(match->protocol), "source", json_address(&match->source), "destination",
		json_address(&match->destination), "rule", json_rule(view, item->rule), "packets", (json_int_t)item->packets,
		"bytes", (json_int_t)item->bytes);

	if (json && match->source_port)
		json_object_set_new(json, "sourcePort", json_integer(ntohs(match->source_port)));
	if (json && !icmp)
		json_object_set_new(json, "destinationPort", json_integer(ntohs(match->destination_port)));
	return json;
}

static json_t *drops_json(const struct view *view)
{
	struct drops_status status = read_drops(view);
	struct drops_item items[ITEMS];
	size_t n = view->drops ? drops_list(view->drops, items, ITEMS) : 0;
	json_t *array = json_array(), *json;

	for (size_t i = 0; i < n; i++)
		json_array_append_new(array, item_json(view, &items[i]));
	json = json_pack("{s:I, s:o}", "waiting", (json_int_t)status.waiting, "items", array);
	add_work(json, "now", &status.work);
	return json;
}

json_t *offloaded_json(const struct view *view)
{
	struct offload_status status = read_flows(view);
	json_t *json;

	if (!asked_for(view))
		return json_null();
	json = json_pack("{s:s, s:o, s:o, s:o, s:o}", "state", active(view) ? "on" : "waiting", "reason",
		json_text(view->offload_reason), "tunnelReason", json_text(view->offload_tunnel_reason), "software",
		reasons_json(&status), "drops", drops_json(view));
	add_work(json, "flows", &status.work);
	return json;
}

static void work_metric(const struct nic_work *work, struct buffer *text, const char *name, enum offloaded_number number)
{
	switch (number) {
	case OFFLOADED_NOW:
		buffer_printf(text, "%s %" PRIu64 "\n", name, work->now);
		break;
	case OFFLOADED_PACKETS:
		buffer_printf(text, "%s_total %" PRIu64 "\n", name, work->packets);
		break;
	case OFFLOADED_BYTES:
		buffer_printf(text, "%s_total %" PRIu64 "\n", name, work->bytes);
		break;
	case OFFLOADED_RULES:
		buffer_printf(text, "%s_total{change=\"added\"} %" PRIu64 "\n%s_total{change=\"removed\"} %" PRIu64 "\n", name,
			work->rules_added, name, work->rules_removed);
		break;
	case OFFLOADED_REFUSED:
		buffer_printf(text, "%s_total %" PRIu64 "\n", name, work->refused);
		break;
	case OFFLOADED_PAUSED:
		buffer_printf(text, "%s %d\n", name, work->paused);
		break;
	}
}

void offloaded_metric(const struct view *view, struct buffer *text, const char *name, enum offloaded_number number)
{
	struct offload_status status = read_flows(view);

	if (asked_for(view))
		work_metric(&status.work, text, name, number);
}

void dropped_metric(const struct view *view, struct buffer *text, const char *name, enum offloaded_number number)
{
	struct drops_status status = read_drops(view);

	if (asked_for(view))
		work_metric(&status.work, text, name, number);
}

void offloaded_active_metric(const struct view *view, struct buffer *text, const char *name)
{
	if (asked_for(view))
		buffer_printf(text, "%s %d\n", name, active(view));
}

void offloaded_software_metric(const struct view *view, struct buffer *text, const char *name)
{
	struct offload_status status = read_flows(view);

	/* All of them, zeros too: a reason that comes up is a line that moves, not one that begins. */
	for (unsigned i = OFFLOAD_NONE + 1; i < OFFLOAD_REASON_COUNT && asked_for(view); i++)
		buffer_printf(text, "%s{reason=\"%s\"} %" PRIu64 "\n", name, offload_reason_name[i], status.flows[i]);
}
