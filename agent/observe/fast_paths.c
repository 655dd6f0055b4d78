/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <string.h>

#include <observe/fast_paths.h>
#include <observe/json.h>

static const char *const total_name[HD_FAST_TOTALS] = {
	[HD_FAST_TAKEN] = "taken", [HD_FAST_PASSED] = "passed", [HD_FAST_DROPPED] = "dropped", [HD_FAST_TOO_BIG] = "too-big"};

static json_t *count_or_null(bool known, uint64_t n)
{
	return known ? json_integer((json_int_t)n) : json_null();
}

static json_t *sockets_json(const struct fastpath_state *state)
{
	json_t *items = json_array();

	for (uint32_t i = 0; i < state->n_queues; i++) {
		const struct fastpath_queue_state *queue = &state->queue[i];
		const struct xsk_statistics *kernel = &queue->kernel;

		json_array_append_new(items,
			json_pack("{s:i, s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "queue", (int)queue->queue, "mode",
				xsk_mode_name(queue->mode), "reason", json_text(queue->reason[0] ? queue->reason : NULL), "rx",
				count_or_null(queue->counted, queue->rx), "tx", count_or_null(queue->counted, queue->tx),
				"pending", count_or_null(queue->counted, queue->rx_pending), "dropped",
				count_or_null(queue->known, kernel->rx_dropped), "ringFull",
				count_or_null(queue->known, kernel->rx_ring_full), "fillEmpty",
				count_or_null(queue->known, kernel->fill_ring_empty), "txEmpty",
				count_or_null(queue->known, kernel->tx_ring_empty), "invalid",
				count_or_null(queue->known, kernel->rx_invalid + kernel->tx_invalid)));
	}
	return items;
}

/* Queues by which the device receives and no socket is, or will be: what RSS puts there goes by the fallback. */
static json_t *uncovered_json(const struct view_fast_path *path)
{
	json_t *items = json_array();

	for (uint32_t queue = 0; queue < path->queues; queue++)
		if (queue >= FASTPATH_QUEUES || !path->asks_queue[queue])
			json_array_append_new(items, json_integer(queue));
	return items;
}

static json_t *fast_path_json(const struct view *view, const struct view_fast_path *path)
{
	const struct fast_path *document = &path->object->fast_path;
	struct fastpath_state state = {.name = path->object->name, .phase = FASTPATH_WAITING};
	struct hd_counter totals[HD_FAST_TOTALS] = {0};
	bool served;

	if (view->fastpath)
		(void)fastpath_server_state(view->fastpath, path->object->name, &state);
	if (view->datapath)
		(void)datapath_fast_counters(view->datapath, path->index, totals);
	served = state.pid != 0;
	return json_pack("{s:s, s:o, s:o, s:o, s:s, s:o, s:o, s:o, s:s, s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:o}", "name",
		state.name, "uplink", json_text(document->uplink), "port",
		document->port ? json_sprintf("%s/%s", document->port_namespace, document->port) : json_null(), "device",
		json_device(view, path->ifindex), "state", fastpath_phase_name[state.phase], "reason", json_text(state.reason),
		"process", served ? json_integer(state.pid) : json_null(), "user", served ? json_integer(state.uid) : json_null(),
		"fallback", document->drop ? "drop" : "pass", "hugePages", state.huge, "sessions", (json_int_t)state.sessions,
		"hung", (json_int_t)state.ended_hung, "taken", (json_int_t)totals[HD_FAST_TAKEN].packets, "passed",
		(json_int_t)totals[HD_FAST_PASSED].packets, "dropped", (json_int_t)totals[HD_FAST_DROPPED].packets, "tooBig",
		(json_int_t)totals[HD_FAST_TOO_BIG].packets, "uncoveredQueues", uncovered_json(path), "sockets",
		sockets_json(&state));
}

json_t *fast_paths_json(const struct view *view)
{
	json_t *items = json_array();

	for (size_t i = 0; i < view->n_fast_paths; i++)
		json_array_append_new(items, fast_path_json(view, &view->fast_paths[i]));
	return items;
}

/* --- metrics; a document's name needs no escapes --- */

static void packets(const struct view *view, struct buffer *text, const char *name, const struct view_fast_path *path)
{
	struct hd_counter totals[HD_FAST_TOTALS] = {0};

	if (view->datapath)
		(void)datapath_fast_counters(view->datapath, path->index, totals);
	for (unsigned i = 0; i < HD_FAST_TOTALS; i++)
		buffer_printf(text, "%s_total{fast_path=\"%s\",fate=\"%s\"} %" PRIu64 "\n", name, path->object->name,
			total_name[i], (uint64_t)totals[i].packets);
}

static void lost(struct buffer *text, const char *name, const struct fastpath_state *state)
{
	uint64_t dropped = 0, ring_full = 0, fill_empty = 0, invalid = 0;

	for (uint32_t i = 0; i < state->n_queues; i++) {
		const struct xsk_statistics *kernel = &state->queue[i].kernel;

		dropped += kernel->rx_dropped;
		ring_full += kernel->rx_ring_full;
		fill_empty += kernel->fill_ring_empty;
		invalid += kernel->rx_invalid + kernel->tx_invalid;
	}
	buffer_printf(text,
		"%s_total{fast_path=\"%s\",cause=\"dropped\"} %" PRIu64
		"\n%s_total{fast_path=\"%s\",cause=\"ring-full\"} %" PRIu64
		"\n%s_total{fast_path=\"%s\",cause=\"fill-empty\"} %" PRIu64
		"\n%s_total{fast_path=\"%s\",cause=\"invalid\"} %" PRIu64 "\n",
		name, state->name, dropped, name, state->name, ring_full, name, state->name, fill_empty, name, state->name,
		invalid);
}

void fast_paths_metric(const struct view *view, struct buffer *text, const char *name, enum fast_path_number number)
{
	for (size_t i = 0; i < view->n_fast_paths; i++) {
		const struct view_fast_path *path = &view->fast_paths[i];
		struct fastpath_state state = {.name = path->object->name};

		if (view->fastpath)
			(void)fastpath_server_state(view->fastpath, path->object->name, &state);
		if (number == FAST_PATH_PACKETS)
			packets(view, text, name, path);
		else if (number == FAST_PATH_LOST)
			lost(text, name, &state);
		else
			buffer_printf(text, "%s{fast_path=\"%s\"} %d\n", name, state.name, state.phase == FASTPATH_LIVE);
	}
}
