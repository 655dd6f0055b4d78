/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <string.h>
#include <arpa/inet.h>

#include <observe/dropped.h>
#include <observe/json.h>

#define ITEMS 16

static struct drops_status read_status(const struct view *view)
{
	struct drops_status status = {0};

	if (view->drops)
		drops_status(view->drops, &status);
	return status;
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

static json_t *items_json(const struct view *view)
{
	struct drops_item items[ITEMS];
	size_t n = view->drops ? drops_list(view->drops, items, ITEMS) : 0;
	json_t *array = json_array();

	for (size_t i = 0; i < n; i++)
		json_array_append_new(array, item_json(view, &items[i]));
	return array;
}

json_t *dropped_json(const struct view *view)
{
	struct drops_status status = read_status(view);

	return json_pack("{s:I, s:I, s:I, s:I, s:{s:I, s:I}, s:I, s:b, s:o, s:o, s:o}", "now", (json_int_t)status.now, "waiting",
		(json_int_t)status.waiting, "packets", (json_int_t)status.packets, "bytes", (json_int_t)status.bytes, "rules",
		"added", (json_int_t)status.rules_added, "removed", (json_int_t)status.rules_removed, "refused",
		(json_int_t)status.refused, "paused", status.paused, "lastRefusal",
		json_text(status.refusal ? strerror(-status.refusal) : NULL), "lastRefusalText",
		json_text(status.refusal_text[0] ? status.refusal_text : NULL), "items", items_json(view));
}

void dropped_metric(const struct view *view, struct buffer *text, const char *name, enum dropped_number number)
{
	struct drops_status status = read_status(view);

	if (!view->host || !view->host->offload)
		return;
	switch (number) {
	case DROPPED_RULES:
		buffer_printf(text, "%s %" PRIu64 "\n", name, status.now);
		break;
	case DROPPED_PACKETS:
		buffer_printf(text, "%s_total %" PRIu64 "\n", name, status.packets);
		break;
	case DROPPED_BYTES:
		buffer_printf(text, "%s_total %" PRIu64 "\n", name, status.bytes);
		break;
	case DROPPED_REFUSED:
		buffer_printf(text, "%s_total %" PRIu64 "\n", name, status.refused);
		break;
	case DROPPED_PAUSED:
		buffer_printf(text, "%s %d\n", name, status.paused);
		break;
	}
}
