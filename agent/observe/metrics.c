/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <heddle/reasons.h>
#include <observe/counters.h>
#include <observe/fast_paths.h>
#include <observe/metrics.h>
#include <observe/names.h>
#include <observe/offloaded.h>
#include <observe/status.h>
#include <util/cleanup.h>

struct scrape {
	const struct view *view;
	struct buffer *text;
	struct hd_counter drops[HD_REASON_COUNT][2];
	struct hd_counter totals[HD_TOTAL_COUNT];
	uint64_t full[HD_TABLE_COUNT];
	uint64_t proven, unproven;
	struct status_memory memory;
};

/* A label value: backslash, quote and newline are escaped (OpenMetrics, "Label value"). */
static void add_label(struct buffer *text, const char *name, const char *value)
{
	buffer_printf(text, "%s=\"", name);
	for (; *value; value++) {
		if (*value == '\n')
			buffer_add_string(text, "\\n");
		else if (*value == '"' || *value == '\\')
			buffer_printf(text, "\\%c", *value);
		else
			buffer_add_char(text, *value);
	}
	buffer_add_char(text, '"');
}

static void drops(struct scrape *s, const char *name)
{
	for (unsigned reason = HD_R_NONE + 1; reason < HD_REASON_COUNT; reason++)
		for (unsigned direction = 0; direction < HD_DIRECTIONS; direction++)
			buffer_printf(s->text, "%s_total{reason=\"%s\",direction=\"%s\"} %" PRIu64 "\n", name,
				reason_name(reason), direction_name(direction), (uint64_t)s->drops[reason][direction].packets);
}

static void packets(struct scrape *s, const char *name)
{
	for (unsigned i = 0; i < HD_DIRECTIONS; i++)
		buffer_printf(s->text, "%s_total{direction=\"%s\"} %" PRIu64 "\n", name, direction_name(i),
			(uint64_t)s->totals[i].packets);
}

static void bytes(struct scrape *s, const char *name)
{
	for (unsigned i = 0; i < HD_DIRECTIONS; i++)
		buffer_printf(s->text, "%s_total{direction=\"%s\"} %" PRIu64 "\n", name, direction_name(i),
			(uint64_t)s->totals[i].bytes);
}

static void total(struct scrape *s, const char *name, enum hd_total which)
{
	buffer_printf(s->text, "%s_total %" PRIu64 "\n", name, (uint64_t)s->totals[which].packets);
}

static void flows(struct scrape *s, const char *name)
{
	buffer_printf(s->text, "%s{state=\"proven\"} %" PRIu64 "\n%s{state=\"unproven\"} %" PRIu64 "\n", name, s->proven, name,
		s->unproven);
}

static void flows_created(struct scrape *s, const char *name)
{
	total(s, name, HD_TOTAL_FLOWS_CREATED);
}

static void flows_proven(struct scrape *s, const char *name)
{
	total(s, name, HD_TOTAL_FLOWS_PROVEN);
}

static void flows_aged(struct scrape *s, const char *name)
{
	total(s, name, HD_TOTAL_FLOWS_AGED);
}

static void flows_rejudged(struct scrape *s, const char *name)
{
	total(s, name, HD_TOTAL_REJUDGED);
}

static void flows_cut(struct scrape *s, const char *name)
{
	total(s, name, HD_TOTAL_CUT);
}

static void flows_picked_up(struct scrape *s, const char *name)
{
	total(s, name, HD_TOTAL_PICKED_UP);
}

static void events_lost(struct scrape *s, const char *name)
{
	total(s, name, HD_TOTAL_EVENTS_LOST);
}

static void events_limited(struct scrape *s, const char *name)
{
	total(s, name, HD_TOTAL_EVENTS_LIMITED);
}

static void rejects_limited(struct scrape *s, const char *name)
{
	total(s, name, HD_TOTAL_REJECTS_LIMITED);
}

static void table_full(struct scrape *s, const char *name)
{
	for (unsigned i = 0; i < HD_TABLE_COUNT; i++)
		buffer_printf(s->text, "%s_total{table=\"%s\"} %" PRIu64 "\n", name, table_name(i), s->full[i]);
}

struct rule_samples {
	struct scrape *scrape;
	const char *name;
	bool bytes;
	unsigned shown;
	uint64_t other;
};

static int rule_sample(uint32_t id, const struct rule_reference *rule, const struct hd_counter *counter, void *userdata)
{
	struct rule_samples *samples = userdata;
	struct buffer *text = samples->scrape->text;
	uint64_t value = samples->bytes ? counter->bytes : counter->packets;
	char label[16];

	if (samples->shown >= METRICS_RULES_MAX) {
		samples->other += value;
		return 0;
	}
	samples->shown++;
	snprintf(label, sizeof(label), "#%" PRIu32, rule->index);
	buffer_printf(text, "%s_total{", samples->name);
	if (rule->namespace_) {
		add_label(text, "namespace", rule->namespace_);
		buffer_add_char(text, ',');
	}
	add_label(text, "policy", rule->policy);
	buffer_add_char(text, ',');
	add_label(text, "direction", rule->builtin ? "" : direction_name(rule->direction));
	buffer_add_char(text, ',');
	add_label(text, "rule", rule->name ? rule->name : label);
	buffer_printf(text, ",id=\"%" PRIu32 "\"} %" PRIu64 "\n", id, value);
	return 0;
}

static void rules(struct scrape *s, const char *name, bool in_bytes)
{
	struct rule_samples samples = {.scrape = s, .name = name, .bytes = in_bytes};

	if (counters_each_rule(s->view, rule_sample, &samples) < 0)
		s->text->failed = true;
	if (samples.shown >= METRICS_RULES_MAX)
		buffer_printf(s->text, "%s_total{policy=\"\",direction=\"\",rule=\"other\",id=\"\"} %" PRIu64 "\n", name,
			samples.other);
}

static void rule_packets(struct scrape *s, const char *name)
{
	rules(s, name, false);
}

static void rule_bytes(struct scrape *s, const char *name)
{
	rules(s, name, true);
}

static void generation(struct scrape *s, const char *name)
{
	buffer_printf(s->text, "%s %" PRIu32 "\n", name, s->view->generation);
}

static void ready(struct scrape *s, const char *name)
{
	buffer_printf(s->text, "%s %d\n", name, s->view->ready);
}

static void objects(struct scrape *s, const char *name)
{
	for (unsigned kind = 0; kind < OBJECT_KIND_COUNT; kind++)
		buffer_printf(
			s->text, "%s{kind=\"%s\"} %zu\n", name, object_kind_name(kind), status_count_objects(s->view, kind));
}

static void uplinks(struct scrape *s, const char *name)
{
	size_t attached = 0, declared = s->view->host ? s->view->host->n_uplinks : 0;

	for (size_t i = 0; i < declared; i++) {
		const struct netdev *device = view_device_by_name(s->view, s->view->host->uplinks[i].device);

		attached += device && view_attachment(s->view, device->ifindex);
	}
	buffer_printf(
		s->text, "%s{state=\"attached\"} %zu\n%s{state=\"waiting\"} %zu\n", name, attached, name, declared - attached);
}

static void ports(struct scrape *s, const char *name)
{
	const struct topology *topology = s->view->topology;
	size_t ready_ports = 0, n = topology ? topology->n_ports : 0;

	for (size_t i = 0; i < n; i++)
		ready_ports += !topology->ports[i].reason && view_attachment(s->view, topology->ports[i].ifindex);
	buffer_printf(s->text, "%s{state=\"ready\"} %zu\n%s{state=\"waiting\"} %zu\n", name, ready_ports, name, n - ready_ports);
}

/* In the order of the documents, so those of one network lie apart. */
static void network_ports(struct scrape *s, const char *name)
{
	const struct topology *topology = s->view->topology;

	for (size_t i = 0; s->view->objects && i < s->view->objects->n; i++) {
		const struct object *object = s->view->objects->items[i];
		size_t n = 0;

		if (object->kind != OBJECT_NETWORK)
			continue;
		for (size_t j = 0; topology && j < topology->n_ports; j++)
			n += topology->ports[j].ifindex && !strcmp(topology->ports[j].object->port.network, object->name);
		buffer_printf(s->text, "%s{", name);
		add_label(s->text, "network", object->name);
		buffer_printf(s->text, "} %zu\n", n);
	}
}

static void peers(struct scrape *s, const char *name)
{
	const struct topology *topology = s->view->topology;
	size_t counts[UNDERLAY_REACH_COUNT] = {0};

	for (size_t i = 0; topology && i < topology->n_peers; i++)
		counts[status_peer_reach(s->view, topology->peers[i].index)]++;
	for (unsigned i = 0; i < UNDERLAY_REACH_COUNT; i++)
		buffer_printf(s->text, "%s{state=\"%s\"} %zu\n", name, underlay_reach_name[i], counts[i]);
}

static void peer_lines(struct scrape *s, const char *name, uint64_t (*number)(const struct hd_peer_counters *, enum hd_direction))
{
	_cleanup_free_ struct hd_peer_counters *counters = status_peer_counters(s->view);
	const struct topology *topology = s->view->topology;

	for (size_t i = 0; counters && topology && i < topology->n_peers; i++)
		for (unsigned direction = 0; direction < HD_DIRECTIONS; direction++) {
			buffer_printf(s->text, "%s_total{", name);
			add_label(s->text, "peer", networks_peer_name(s->view->networks, topology->peers[i].index));
			buffer_printf(s->text, ",direction=\"%s\"} %" PRIu64 "\n", direction_name(direction),
				number(&counters[topology->peers[i].index], direction));
		}
}

static uint64_t packets_of(const struct hd_peer_counters *counters, enum hd_direction direction)
{
	return counters->passed[direction].packets;
}

static uint64_t bytes_of(const struct hd_peer_counters *counters, enum hd_direction direction)
{
	return counters->passed[direction].bytes;
}

static uint64_t drops_of(const struct hd_peer_counters *counters, enum hd_direction direction)
{
	return counters->dropped[direction].packets;
}

static void peer_packets(struct scrape *s, const char *name)
{
	peer_lines(s, name, packets_of);
}

static void peer_bytes(struct scrape *s, const char *name)
{
	peer_lines(s, name, bytes_of);
}

static void peer_drops(struct scrape *s, const char *name)
{
	peer_lines(s, name, drops_of);
}

static void slow_packets(struct scrape *s, const char *name)
{
	struct tunnel_slow_counts counts = {0};

	if (s->view->slow)
		tunnel_slow_counts(s->view->slow, &counts);
	buffer_printf(s->text,
		"%s_total{what=\"sent\"} %" PRIu64 "\n%s_total{what=\"received\"} %" PRIu64 "\n%s_total{what=\"failed\"} %" PRIu64
		"\n%s_total{what=\"ignored\"} %" PRIu64 "\n",
		name, counts.sent, name, counts.received, name, counts.send_failed, name, counts.ignored);
}

static void fast_path_packets(struct scrape *s, const char *name)
{
	fast_paths_metric(s->view, s->text, name, FAST_PATH_PACKETS);
}

static void fast_path_lost(struct scrape *s, const char *name)
{
	fast_paths_metric(s->view, s->text, name, FAST_PATH_LOST);
}

static void fast_path_frames(struct scrape *s, const char *name)
{
	fast_paths_metric(s->view, s->text, name, FAST_PATH_LANES);
}

static void fast_path_redirects(struct scrape *s, const char *name)
{
	fast_paths_metric(s->view, s->text, name, FAST_PATH_REDIRECTS);
}

static void fast_path_up(struct scrape *s, const char *name)
{
	fast_paths_metric(s->view, s->text, name, FAST_PATH_UP);
}

static void offload_active(struct scrape *s, const char *name)
{
	offloaded_active_metric(s->view, s->text, name);
}

static void offload_flows(struct scrape *s, const char *name)
{
	offloaded_metric(s->view, s->text, name, OFFLOADED_NOW);
}

static void offload_software(struct scrape *s, const char *name)
{
	offloaded_software_metric(s->view, s->text, name);
}

static void offload_packets(struct scrape *s, const char *name)
{
	offloaded_metric(s->view, s->text, name, OFFLOADED_PACKETS);
}

static void offload_bytes(struct scrape *s, const char *name)
{
	offloaded_metric(s->view, s->text, name, OFFLOADED_BYTES);
}

static void offload_rules(struct scrape *s, const char *name)
{
	offloaded_metric(s->view, s->text, name, OFFLOADED_RULES);
}

static void offload_refused(struct scrape *s, const char *name)
{
	offloaded_metric(s->view, s->text, name, OFFLOADED_REFUSED);
}

static void offload_paused(struct scrape *s, const char *name)
{
	offloaded_metric(s->view, s->text, name, OFFLOADED_PAUSED);
}

static void dropped_rules(struct scrape *s, const char *name)
{
	dropped_metric(s->view, s->text, name, OFFLOADED_NOW);
}

static void dropped_packets(struct scrape *s, const char *name)
{
	dropped_metric(s->view, s->text, name, OFFLOADED_PACKETS);
}

static void dropped_bytes(struct scrape *s, const char *name)
{
	dropped_metric(s->view, s->text, name, OFFLOADED_BYTES);
}

static void dropped_refused(struct scrape *s, const char *name)
{
	dropped_metric(s->view, s->text, name, OFFLOADED_REFUSED);
}

static void dropped_paused(struct scrape *s, const char *name)
{
	dropped_metric(s->view, s->text, name, OFFLOADED_PAUSED);
}

static void vf_abandoned(struct scrape *s, const char *name)
{
	buffer_printf(s->text, "%s_total %" PRIu64 "\n", name, s->view->vf_abandoned);
}

static void last_error(struct scrape *s, const char *name)
{
	buffer_printf(s->text, "%s %d\n", name, s->view->last_error != NULL);
}

static void unsaved(struct scrape *s, const char *name)
{
	for (unsigned i = 0; i < VIEW_KEPT_COUNT; i++)
		buffer_printf(s->text, "%s{file=\"%s\"} %d\n", name, view_kept_file(i), s->view->unsaved[i].error != 0);
}

static void resident(struct scrape *s, const char *name)
{
	buffer_printf(s->text, "%s %" PRIu64 "\n", name, s->memory.rss);
}

static void build_info(struct scrape *s, const char *name)
{
	buffer_printf(s->text, "%s_info{", name);
	add_label(s->text, "version", s->view->version);
	buffer_printf(s->text, ",schema=\"%d\"} 1\n", HD_SCHEMA_VERSION);
}

/* A counter's samples end in _total and an info's in _info; the family's name does not. */
static const struct metric {
	const char *name, *type, *unit, *help;
	void (*write)(struct scrape *s, const char *name);
} metrics[] = {
	{"heddle_build", "info", NULL, "Version of heddled and of the pinned schema.", build_info},
	{"heddle_ready", "gauge", NULL, "1 when the policy is in force on every declared uplink that exists.", ready},
	{"heddle_generation", "gauge", NULL, "Number of the policy in force.", generation},
	{"heddle_objects", "gauge", NULL, "Documents in force, by kind.", objects},
	{"heddle_uplinks", "gauge", NULL, "Declared uplinks, by state.", uplinks},
	{"heddle_ports", "gauge", NULL, "Declared ports, by state.", ports},
	{"heddle_network_ports", "gauge", NULL, "Ports of each network that are switched here.", network_ports},
	{"heddle_peers", "gauge", NULL, "Other hosts of the overlay, by whether a way there is known.", peers},
	{"heddle_peer_packets", "counter", NULL, "Packets from each peer (ingress) and to it.", peer_packets},
	{"heddle_peer_bytes", "counter", NULL, "Bytes of the inner IP packets from each peer and to it.", peer_bytes},
	{"heddle_peer_drops", "counter", NULL, "Packets from each peer and to it that were not let through.", peer_drops},
	{"heddle_tunnel_slow_packets", "counter", NULL, "Tunnel packets that the agent sent and received by a socket.",
		slow_packets},
	{"heddle_fast_path_up", "gauge", NULL,
		"1 while a consumer of the FastPath is served, or frames are moved between its devices.", fast_path_up},
	{"heddle_fast_path_packets", "counter", NULL, "Packets that a FastPath asked for, by what became of them.",
		fast_path_packets},
	{"heddle_fast_path_lost", "counter", NULL, "What sockets of the FastPath's consumer lost or refused, by cause.",
		fast_path_lost},
	{"heddle_fast_path_redirected", "counter", NULL, "Frames that XDP itself sent to a device of a FastPath.",
		fast_path_redirects},
	{"heddle_fast_path_frames", "counter", NULL, "What sockets of a FastPath's workers did, since they were made.",
		fast_path_frames},
	{"heddle_cni_vf_abandoned", "counter", NULL, "VFs that containers left without a DEL.", vf_abandoned},
	{"heddle_config_error", "gauge", NULL, "1 while the last change of the configuration stands refused.", last_error},
	{"heddle_unsaved", "gauge", NULL, "1 while a file of the state directory could not be written, by file.", unsaved},
	{"heddle_packets", "counter", NULL, "Packets judged at the uplinks and ports.", packets},
	{"heddle_bytes", "counter", NULL, "Bytes of the packets judged at the uplinks and ports.", bytes},
	{"heddle_drops", "counter", NULL, "Packets not let through, by reason.", drops},
	{"heddle_rule_packets", "counter", NULL, "Packets on which a rule decided.", rule_packets},
	{"heddle_rule_bytes", "counter", NULL, "Bytes of the packets on which a rule decided.", rule_bytes},
	{"heddle_flows", "gauge", NULL, "Entries in the flow tables.", flows},
	{"heddle_flows_created", "counter", NULL, "Flows created.", flows_created},
	{"heddle_flows_proven", "counter", NULL, "Flows that were proven.", flows_proven},
	{"heddle_flows_aged", "counter", NULL, "Proven flows removed after their timeout.", flows_aged},
	{"heddle_flows_rejudged", "counter", NULL, "Flows judged again after a policy change.", flows_rejudged},
	{"heddle_flows_cut", "counter", NULL, "Flows ended because a new policy denies them.", flows_cut},
	{"heddle_flows_picked_up", "counter", NULL, "Running connections taken over after a first start.", flows_picked_up},
	{"heddle_offload_active", "gauge", NULL, "1 while flows may be given to NICs, 0 while that waits.", offload_active},
	{"heddle_offload_flows", "gauge", NULL, "Flows that NICs forward.", offload_flows},
	{"heddle_offload_software_flows", "gauge", NULL, "Flows of ports that stay in software, by reason.", offload_software},
	{"heddle_offload_packets", "counter", NULL, "Packets that NICs forwarded.", offload_packets},
	{"heddle_offload_bytes", "counter", NULL, "Bytes of the packets that NICs forwarded.", offload_bytes},
	{"heddle_offload_rules", "counter", NULL, "Rules given to NICs and taken out again.", offload_rules},
	{"heddle_offload_refused", "counter", NULL, "Times a NIC did not take a flow, or lost it.", offload_refused},
	{"heddle_offload_paused", "gauge", NULL, "1 while nothing is given to NICs, after many refusals.", offload_paused},
	{"heddle_offload_drops", "gauge", NULL, "Rules by which NICs drop what policy denies.", dropped_rules},
	{"heddle_offload_dropped_packets", "counter", NULL, "Denied packets that NICs dropped.", dropped_packets},
	{"heddle_offload_dropped_bytes", "counter", NULL, "Bytes of the packets that NICs dropped.", dropped_bytes},
	{"heddle_offload_drops_refused", "counter", NULL, "Times a NIC did not take a rule that drops, or lost it.",
		dropped_refused},
	{"heddle_offload_drops_paused", "gauge", NULL, "1 while NICs are given nothing to drop.", dropped_paused},
	{"heddle_table_full", "counter", NULL, "Times a table took no entry.", table_full},
	{"heddle_events_lost", "counter", NULL, "Events lost because the ring buffer was full.", events_lost},
	{"heddle_events_limited", "counter", NULL, "Events held back by the rate limit.", events_limited},
	{"heddle_rejects_limited", "counter", NULL, "Rejects left unanswered by the rate limit.", rejects_limited},
	{"heddle_resident_memory_bytes", "gauge", "bytes", "Resident memory of heddled.", resident},
};

int metrics_text(const struct view *view, struct buffer *text)
{
	_cleanup_free_ struct scrape *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	s->view = view;
	s->text = text;
	status_memory(&s->memory);
	if (view->datapath && (datapath_drops(view->datapath, s->drops) < 0 || datapath_totals(view->datapath, s->totals) < 0 ||
				      datapath_full(view->datapath, s->full) < 0 ||
				      datapath_flow_counts(view->datapath, &s->proven, &s->unproven) < 0))
		return -EIO;
	for (size_t i = 0; i < ARRAY_SIZE(metrics); i++) {
		const struct metric *metric = &metrics[i];

		buffer_printf(text, "# TYPE %s %s\n", metric->name, metric->type);
		if (metric->unit)
			buffer_printf(text, "# UNIT %s %s\n", metric->name, metric->unit);
		buffer_printf(text, "# HELP %s %s\n", metric->name, metric->help);
		metric->write(s, metric->name);
	}
	buffer_add_string(text, "# EOF\n");
	return text->failed ? -ENOMEM : 0;
}
