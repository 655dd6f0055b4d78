/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <string.h>

#include <observe/fast_paths.h>
#include <observe/json.h>
#include <util/cleanup.h>

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

static void add_totals(const struct view *view, uint16_t index, struct hd_counter ret[HD_FAST_TOTALS])
{
	struct hd_counter totals[HD_FAST_TOTALS] = {0};

	if (!view->datapath || datapath_fast_counters(view->datapath, index, totals) < 0)
		return;
	for (unsigned i = 0; i < HD_FAST_TOTALS; i++) {
		ret[i].packets += totals[i].packets;
		ret[i].bytes += totals[i].bytes;
	}
}

/* Of all its devices. */
static void path_totals(const struct view *view, const struct view_fast_path *path, struct hd_counter ret[HD_FAST_TOTALS])
{
	memset(ret, 0, HD_FAST_TOTALS * sizeof(*ret));
	if (!path->workers.devices)
		add_totals(view, path->index, ret);
	for (size_t i = 0; path->workers.devices && i < path->object->fast_path.n_devices; i++)
		add_totals(view, path->workers.devices[i].index, ret);
}

/* --- workers --- */

static json_t *latency_json(const struct fast_path *document, const struct forward_counters *counters)
{
	json_t *items = document->latency ? json_array() : json_null();

	for (unsigned i = 0; document->latency && i < FORWARD_LATENCIES; i++)
		json_array_append_new(items, json_integer((json_int_t)counters->latency[i]));
	return items;
}

static json_t *lane_json(const struct view *view, const struct view_fast_path *path, uint32_t number)
{
	const struct view_workers *workers = &path->workers;
	const struct forward_lane *lane = &workers->lanes[number];
	const struct xsk *xsk = forward_socket(workers->forward, number);
	struct xsk_statistics kernel = {0};
	struct forward_counters counters;
	bool known = xsk_statistics(xsk->fd, &kernel) == 0;

	forward_counters(workers->forward, number, &counters);
	return json_pack("{s:o, s:i, s:i, s:s, s:o, s:i, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:o, "
			 "s:o, s:o, s:o}",
		"device", json_device(view, lane->ifindex), "queue", (int)lane->queue, "worker", (int)lane->worker, "mode",
		xsk_mode_name(xsk->mode), "reason", json_text(xsk->reason[0] ? xsk->reason : NULL), "pieces", (int)xsk->pieces,
		"rx", (json_int_t)counters.rx, "rxBytes", (json_int_t)counters.rx_bytes, "tx", (json_int_t)counters.tx, "txBytes",
		(json_int_t)counters.tx_bytes, "noRoom", (json_int_t)counters.tx_full, "noDevice", (json_int_t)counters.no_device,
		"handed", (json_int_t)counters.handed, "several", (json_int_t)counters.several, "tooBig",
		(json_int_t)counters.too_big, "checksums", (json_int_t)counters.checksums, "malformed",
		(json_int_t)counters.malformed, "wakeups", (json_int_t)counters.wakeups, "dropped",
		count_or_null(known, kernel.rx_dropped), "ringFull", count_or_null(known, kernel.rx_ring_full), "fillEmpty",
		count_or_null(known, kernel.fill_ring_empty), "invalid",
		count_or_null(known, kernel.rx_invalid + kernel.tx_invalid), "latency",
		latency_json(&path->object->fast_path, &counters));
}

static json_t *lanes_json(const struct view *view, const struct view_fast_path *path)
{
	json_t *items = json_array();

	for (uint32_t i = 0; path->workers.forward && i < path->workers.n_lanes; i++)
		json_array_append_new(items, lane_json(view, path, i));
	return items;
}

/* How frames that leave by the device get there; by workers the least of what its sockets are. NULL: it takes no part. */
static const char *device_way(const struct view_workers *workers, const struct view_fast_device *device)
{
	static const char *const by_worker[] = {
		[XSK_ZERO_COPY] = "worker-zero-copy", [XSK_COPY] = "worker-copy", [XSK_GENERIC] = "worker-generic"};
	enum xsk_mode least = XSK_ZERO_COPY;

	if (device->reason)
		return NULL;
	if (!device->direct_reason)
		return "redirect";
	if (!workers->forward)
		return "kernel";
	for (uint32_t i = 0; i < workers->n_lanes; i++) {
		const struct xsk *xsk = forward_socket(workers->forward, i);

		if (workers->lanes[i].ifindex == device->ifindex && xsk->mode > least)
			least = xsk->mode;
	}
	return by_worker[least];
}

static uint64_t redirected(const struct view *view, const struct view_fast_device *device)
{
	struct hd_counter counter = {0};

	if (view->datapath)
		(void)datapath_fast_redirects(view->datapath, device->index, &counter);
	return counter.packets;
}

static json_t *devices_json(const struct view *view, const struct view_fast_path *path)
{
	json_t *items = json_array();

	for (size_t i = 0; i < path->object->fast_path.n_devices; i++) {
		const struct view_fast_device *device = &path->workers.devices[i];
		const char *why = device->reason ? NULL : device->direct_reason;

		json_array_append_new(
			items, json_pack("{s:s, s:i, s:o, s:o, s:o, s:I, s:b, s:o}", "device", path->object->fast_path.devices[i],
				       "queues", (int)device->queues, "reason", json_text(device->reason), "way",
				       json_text(device_way(&path->workers, device)), "wayReason", json_text(why), "redirected",
				       (json_int_t)redirected(view, device), "multiBuffer", device->several, "mtuLimit",
				       device->mtu_limit ? json_integer(device->mtu_limit) : json_null()));
	}
	return items;
}

static json_t *workers_json(const struct view *view, const struct view_fast_path *path)
{
	const struct fast_path *document = &path->object->fast_path;
	const struct view_workers *workers = &path->workers;
	struct hd_counter totals[HD_FAST_TOTALS];
	bool live = workers->forward || workers->unneeded;

	path_totals(view, path, totals);
	return json_pack("{s:s, s:s, s:o, s:s, s:o, s:s, s:i, s:b, s:b, s:o, s:I, s:I, s:I, s:I, s:o}", "name",
		path->object->name, "consumer", "forward", "devices", devices_json(view, path), "state",
		fastpath_phase_name[live ? FASTPATH_LIVE : FASTPATH_WAITING], "reason", json_text(live ? NULL : workers->reason),
		"fallback", document->drop ? "drop" : "pass", "workers",
		workers->forward ? (int)forward_workers(workers->forward) : 0, "hugePages",
		workers->forward && forward_huge(workers->forward), "multiBuffer", live && workers->several, "multiBufferReason",
		json_text(workers->several_reason), "taken", (json_int_t)totals[HD_FAST_TAKEN].packets, "passed",
		(json_int_t)totals[HD_FAST_PASSED].packets, "dropped", (json_int_t)totals[HD_FAST_DROPPED].packets, "tooBig",
		(json_int_t)totals[HD_FAST_TOO_BIG].packets, "sockets", lanes_json(view, path));
}

/* --- all --- */

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
	return json_pack(
		"{s:s, s:s, s:o, s:o, s:o, s:s, s:o, s:o, s:o, s:s, s:b, s:o, s:o, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:o}",
		"name", state.name, "consumer", "socket", "uplink", json_text(document->uplink), "port",
		document->port ? json_sprintf("%s/%s", document->port_namespace, document->port) : json_null(), "device",
		json_device(view, path->ifindex), "state", fastpath_phase_name[state.phase], "reason", json_text(state.reason),
		"process", served ? json_integer(state.pid) : json_null(), "user", served ? json_integer(state.uid) : json_null(),
		"fallback", document->drop ? "drop" : "pass", "hugePages", state.huge, "pieces",
		state.pieces ? json_integer(state.pieces) : json_null(), "multiBufferReason", json_text(path->several_reason),
		"sessions", (json_int_t)state.sessions, "hung", (json_int_t)state.ended_hung, "taken",
		(json_int_t)totals[HD_FAST_TAKEN].packets, "passed", (json_int_t)totals[HD_FAST_PASSED].packets, "dropped",
		(json_int_t)totals[HD_FAST_DROPPED].packets, "tooBig", (json_int_t)totals[HD_FAST_TOO_BIG].packets,
		"uncoveredQueues", uncovered_json(path), "sockets", sockets_json(&state));
}

json_t *fast_paths_json(const struct view *view)
{
	json_t *items = json_array();

	for (size_t i = 0; i < view->n_fast_paths; i++)
		json_array_append_new(items, view->fast_paths[i].workers.devices ? workers_json(view, &view->fast_paths[i])
										 : fast_path_json(view, &view->fast_paths[i]));
	return items;
}

/* --- metrics; a document's name needs no escapes --- */

static void packets(const struct view *view, struct buffer *text, const char *name, const struct view_fast_path *path)
{
	struct hd_counter totals[HD_FAST_TOTALS];

	path_totals(view, path, totals);
	for (unsigned i = 0; i < HD_FAST_TOTALS; i++)
		buffer_printf(text, "%s_total{fast_path=\"%s\",fate=\"%s\"} %" PRIu64 "\n", name, path->object->name,
			total_name[i], (uint64_t)totals[i].packets);
}

struct losses {
	uint64_t dropped, ring_full, fill_empty, invalid;
};

static void lose(struct losses *losses, const struct xsk_statistics *kernel)
{
	losses->dropped += kernel->rx_dropped;
	losses->ring_full += kernel->rx_ring_full;
	losses->fill_empty += kernel->fill_ring_empty;
	losses->invalid += kernel->rx_invalid + kernel->tx_invalid;
}

static void lost(struct buffer *text, const char *name, const struct fastpath_state *state, const struct view_workers *workers)
{
	struct losses losses = {0};

	for (uint32_t i = 0; i < state->n_queues; i++)
		lose(&losses, &state->queue[i].kernel);
	for (uint32_t i = 0; workers->forward && i < workers->n_lanes; i++) {
		struct xsk_statistics kernel = {0};

		(void)xsk_statistics(forward_socket(workers->forward, i)->fd, &kernel);
		lose(&losses, &kernel);
	}
	buffer_printf(text,
		"%s_total{fast_path=\"%s\",cause=\"dropped\"} %" PRIu64
		"\n%s_total{fast_path=\"%s\",cause=\"ring-full\"} %" PRIu64
		"\n%s_total{fast_path=\"%s\",cause=\"fill-empty\"} %" PRIu64
		"\n%s_total{fast_path=\"%s\",cause=\"invalid\"} %" PRIu64 "\n",
		name, state->name, losses.dropped, name, state->name, losses.ring_full, name, state->name, losses.fill_empty,
		name, state->name, losses.invalid);
}

/* Of each socket of its workers, which an agent's restart begins anew. */
static void frames(const struct view *view, struct buffer *text, const char *name, const struct view_fast_path *path)
{
	const struct view_workers *workers = &path->workers;

	for (uint32_t i = 0; workers->forward && i < workers->n_lanes; i++) {
		const struct forward_lane *lane = &workers->lanes[i];
		const struct netdev *device = view_device(view, lane->ifindex);
		struct forward_counters counters;

		forward_counters(workers->forward, i, &counters);
		const struct {
			const char *what;
			uint64_t n;
		} numbers[] = {{"rx", counters.rx}, {"tx", counters.tx}, {"no-room", counters.tx_full},
			{"no-device", counters.no_device}, {"handed", counters.handed}, {"checksums", counters.checksums},
			{"several", counters.several}, {"too-big", counters.too_big}, {"malformed", counters.malformed},
			{"wakeups", counters.wakeups}};
		for (size_t j = 0; device && j < ARRAY_SIZE(numbers); j++)
			buffer_printf(text, "%s_total{fast_path=\"%s\",device=\"%s\",queue=\"%u\",what=\"%s\"} %" PRIu64 "\n",
				name, path->object->name, device->name, lane->queue, numbers[j].what, numbers[j].n);
	}
}

/* What XDP sent to each device itself. */
static void redirects(const struct view *view, struct buffer *text, const char *name, const struct view_fast_path *path)
{
	for (size_t i = 0; path->workers.devices && i < path->object->fast_path.n_devices; i++)
		buffer_printf(text, "%s_total{fast_path=\"%s\",device=\"%s\"} %" PRIu64 "\n", name, path->object->name,
			path->object->fast_path.devices[i], redirected(view, &path->workers.devices[i]));
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
			lost(text, name, &state, &path->workers);
		else if (number == FAST_PATH_LANES)
			frames(view, text, name, path);
		else if (number == FAST_PATH_REDIRECTS)
			redirects(view, text, name, path);
		else
			buffer_printf(text, "%s{fast_path=\"%s\"} %d\n", name, state.name,
				state.phase == FASTPATH_LIVE || path->workers.forward || path->workers.unneeded);
	}
}
