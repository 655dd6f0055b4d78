/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <string.h>

#include <observe/dropped.h>
#include <observe/json.h>
#include <observe/offloaded.h>

/* False: nobody asks for it. What has not begun has zeros. */
static bool read_status(const struct view *view, struct offload_status *ret)
{
	*ret = (struct offload_status){0};
	if (!view->host || !view->host->offload)
		return false;
	if (view->offload)
		offload_status(view->offload, ret);
	return true;
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

json_t *offloaded_json(const struct view *view)
{
	struct offload_status status;

	if (!read_status(view, &status))
		return json_null();
	return json_pack("{s:s, s:o, s:o, s:I, s:I, s:I, s:o, s:{s:I, s:I}, s:I, s:b, s:o, s:o, s:o}", "state",
		active(view) ? "on" : "waiting", "reason", json_text(view->offload_reason), "tunnelReason",
		json_text(view->offload_tunnel_reason), "flows", (json_int_t)status.now, "packets", (json_int_t)status.packets,
		"bytes", (json_int_t)status.bytes, "software", reasons_json(&status), "rules", "added",
		(json_int_t)status.rules_added, "removed", (json_int_t)status.rules_removed, "refused",
		(json_int_t)status.refused, "paused", status.paused, "lastRefusal",
		json_text(status.refusal ? strerror(-status.refusal) : NULL), "lastRefusalText",
		json_text(status.refusal_text[0] ? status.refusal_text : NULL), "drops", dropped_json(view));
}

static void software(const struct offload_status *status, struct buffer *text, const char *name)
{
	/* All of them, zeros too: a reason that comes up is a line that moves, not one that begins. */
	for (unsigned i = OFFLOAD_NONE + 1; i < OFFLOAD_REASON_COUNT; i++)
		buffer_printf(text, "%s{reason=\"%s\"} %" PRIu64 "\n", name, offload_reason_name[i], status->flows[i]);
}

void offloaded_metric(const struct view *view, struct buffer *text, const char *name, enum offloaded_number number)
{
	struct offload_status status;

	if (!read_status(view, &status))
		return;
	switch (number) {
	case OFFLOADED_ACTIVE:
		buffer_printf(text, "%s %d\n", name, active(view));
		break;
	case OFFLOADED_FLOWS:
		buffer_printf(text, "%s %" PRIu64 "\n", name, status.now);
		break;
	case OFFLOADED_SOFTWARE:
		software(&status, text, name);
		break;
	case OFFLOADED_PACKETS:
		buffer_printf(text, "%s_total %" PRIu64 "\n", name, status.packets);
		break;
	case OFFLOADED_BYTES:
		buffer_printf(text, "%s_total %" PRIu64 "\n", name, status.bytes);
		break;
	case OFFLOADED_RULES:
		buffer_printf(text, "%s_total{change=\"added\"} %" PRIu64 "\n%s_total{change=\"removed\"} %" PRIu64 "\n", name,
			status.rules_added, name, status.rules_removed);
		break;
	case OFFLOADED_REFUSED:
		buffer_printf(text, "%s_total %" PRIu64 "\n", name, status.refused);
		break;
	case OFFLOADED_PAUSED:
		buffer_printf(text, "%s %d\n", name, status.paused);
		break;
	}
}
