// SPDX-License-Identifier: Apache-2.0
/* spec of FastPath. */
#include <model/kinds.h>
#include <model/write.h>
#include <util/addr.h>
#include <util/duration.h>

static void numbers(struct buffer *out, const char *name, const uint32_t *list, size_t n)
{
	write_open(out, name, '[');
	for (size_t i = 0; i < n; i++) {
		write_comma(out);
		buffer_printf(out, "%u", list[i]);
	}
	buffer_add_char(out, ']');
}

static void write_memory(struct buffer *out, const struct fast_path *path)
{
	write_open(out, "memory", '{');
	if (!path->devices) {
		write_number(out, "frames", path->frames);
		write_number(out, "frameSize", path->frame_size);
	}
	write_number(out, "ring", path->ring);
	buffer_add_char(out, '}');
	if (path->busy_us) {
		write_open(out, "busyPoll", '{');
		write_number(out, "microseconds", path->busy_us);
		if (path->busy_budget)
			write_number(out, "budget", path->busy_budget);
		buffer_add_char(out, '}');
	}
}

static void block(struct buffer *out, const char *name, const struct prefix *prefix)
{
	char text[ADDR_TEXT_MAX];

	if (prefix->length)
		write_text(out, name, addr_format_cidr(&prefix->addr, prefix->length, text));
}

static void matches(struct buffer *out, const struct fast_path *path)
{
	write_open(out, "match", '[');
	for (size_t i = 0; i < path->n_matches; i++) {
		const struct fast_match *match = &path->matches[i];

		write_item(out, '{');
		if (match->protocol)
			write_text(out, "protocol", document_protocol_name(match->protocol));
		if (match->port)
			write_number(out, "port", match->port);
		if (match->source_port)
			write_number(out, "sourcePort", match->source_port);
		block(out, "source", &match->source);
		block(out, "destination", &match->destination);
		if (match->vlan)
			write_number(out, "vlan", match->vlan);
		if (match->policy)
			write_text(out, "hostPolicy", match->policy);
		if (match->rule)
			write_text(out, "rule", match->rule);
		buffer_add_char(out, '}');
	}
	buffer_add_char(out, ']');
}

static const char *const way_name[] = {
	[FAST_PATH_WORKERS] = "workers", [FAST_PATH_REDIRECT] = "redirect", [FAST_PATH_AUTO] = "auto"};

static void write_forward(struct buffer *out, const struct fast_path *path)
{
	write_open(out, "devices", '[');
	for (size_t i = 0; i < path->n_devices; i++) {
		write_comma(out);
		write_string(out, path->devices[i]);
	}
	buffer_add_char(out, ']');
	matches(out, path);
	write_text(out, "consumer", "forward");
	write_text(out, "way", way_name[path->way]);
	write_text(out, "fallback", path->drop ? "drop" : "pass");
	if (path->way == FAST_PATH_REDIRECT)
		return;
	write_number(out, "workers", path->workers);
	if (path->n_cpus)
		numbers(out, "cpus", path->cpus, path->n_cpus);
	write_bool(out, "spin", path->spin);
	write_number(out, "batch", path->batch);
	write_bool(out, "latency", path->latency);
	write_text(out, "mode", path->copy ? "copy" : "auto");
	write_memory(out, path);
}

void write_fast_path(struct buffer *out, const struct fast_path *path)
{
	char text[DURATION_TEXT_MAX];

	if (path->devices) {
		write_forward(out, path);
		return;
	}
	if (path->uplink) {
		write_text(out, "uplink", path->uplink);
		matches(out, path);
		write_bool(out, "trusted", path->trusted);
	} else {
		write_text(out, "port", path->port);
		write_text(out, "namespace", path->port_namespace);
	}
	if (path->n_queues) {
		write_open(out, "queues", '[');
		for (size_t i = 0; i < path->n_queues; i++) {
			write_comma(out);
			buffer_printf(out, "%u", path->queues[i]);
		}
		buffer_add_char(out, ']');
	} else {
		write_text(out, "queues", "all");
	}
	write_text(out, "consumer", "socket");
	write_open(out, "allow", '{');
	numbers(out, "users", path->users, path->n_users);
	numbers(out, "groups", path->groups, path->n_groups);
	buffer_add_char(out, '}');
	write_text(out, "fallback", path->drop ? "drop" : "pass");
	write_text(out, "mode", path->copy ? "copy" : "auto");
	write_memory(out, path);
	write_text(out, "stall", duration_format(path->stall_ms, text));
}
