/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether an uplink has the fq queue, which holds back what limited ports send until it should leave. Nobody tells when a queue changes but to those
 * who want to hear of every filter of every device: while a port has a rate, it is looked at now and then. Between two looks its packets are no
 * more than what the rate allows, either way.
 */
#include <string.h>

#include <controller_internal.h>
#include <netdev/queue.h>

#define LOOK_US (10ull * 1000000)

static bool any_limit(const struct controller *c)
{
	for (size_t i = 0; c->topology && i < c->topology->n_ports; i++)
		if (c->topology->ports[i].ifindex && c->topology->ports[i].record.flags & HD_PORT_LIMIT_OUT)
			return true;
	return false;
}

static bool any_fq(const struct controller *c)
{
	char kind[QUEUE_KIND_MAX];

	for (size_t i = 0; c->view.host && i < c->view.host->n_uplinks; i++) {
		const struct netdev *device = view_device_by_name(&c->view, c->view.host->uplinks[i].device);

		if (device && queue_kind(device->ifindex, kind) == 0 && strcmp(kind, "fq") == 0)
			return true;
	}
	return false;
}

static int on_look(sd_event_source *source, uint64_t now, void *userdata)
{
	struct controller *c = userdata;

	(void)now;
	if (!any_limit(c))
		return 0;
	datapath_pace(c->datapath, any_fq(c));
	if (sd_event_source_set_time_relative(source, LOOK_US) >= 0)
		(void)sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
	return 0;
}

void pace_follow(struct controller *c)
{
	int on = SD_EVENT_OFF;

	if (!any_limit(c) || (c->pace && sd_event_source_get_enabled(c->pace, &on) > 0))
		return;
	if (!c->pace)
		(void)sd_event_add_time_relative(c->event, &c->pace, CLOCK_MONOTONIC, LOOK_US, 1000000, on_look, c);
	if (c->pace)
		(void)on_look(c->pace, 0, c);
}
