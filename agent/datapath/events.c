/* SPDX-License-Identifier: Apache-2.0 */
/* The ring buffer of events. */
#include <errno.h>
#include <string.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include <datapath/internal.h>

/* Events handed out in one go: a flood of them must not keep the caller's loop from its other work. */
#define EVENT_BUDGET 512

static int on_sample(void *context, void *data, size_t size)
{
	struct datapath *dp = context;

	if (dp->event_cb && size >= HD_EVENT_SHORT)
		dp->event_cb(data, size, dp->event_data);
	/* A negative value stops, after this sample has been taken. */
	return dp->event_budget-- > 1 ? 0 : -EAGAIN;
}

static int dispatch(struct datapath *dp, datapath_event_cb cb, void *userdata, unsigned budget)
{
	int r;

	dp->event_cb = cb;
	dp->event_data = userdata;
	dp->event_budget = budget;
	r = ring_buffer__consume(dp->ring);
	dp->event_cb = NULL;
	return r == -EAGAIN ? 0 : r < 0 ? r : 0;
}

int events_open(struct datapath *dp, int fd)
{
	if (dp->ring)
		return 0; /* the map is kept over loads */
	dp->ring = ring_buffer__new(fd, on_sample, dp, NULL);
	if (!dp->ring)
		return log_err(-errno, "cannot open the ring buffer of events");
	/* What came while no agent ran is history; to answer a packet of then would be worse than silence. */
	return dispatch(dp, NULL, NULL, ~0u);
}

int datapath_events_fd(const struct datapath *dp)
{
	return dp->ring ? ring_buffer__epoll_fd(dp->ring) : -ENOTCONN;
}

int datapath_events_dispatch(struct datapath *dp, datapath_event_cb cb, void *userdata)
{
	return dp->ring ? dispatch(dp, cb, userdata, EVENT_BUDGET) : -ENOTCONN;
}

int datapath_monitor(struct datapath *dp, bool on)
{
	struct load *loads[] = {dp->live, dp->next};
	bool done = false;

	for (size_t i = 0; i < ARRAY_SIZE(loads); i++) {
		if (!loads[i] || !loads[i]->control)
			continue;
		if (on)
			__atomic_or_fetch(&loads[i]->control->flags, HD_CONTROL_MONITOR, __ATOMIC_RELAXED);
		else
			__atomic_and_fetch(&loads[i]->control->flags, ~(uint32_t)HD_CONTROL_MONITOR, __ATOMIC_RELAXED);
		done = true;
	}
	return done ? 0 : -ENOTCONN;
}
