/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <netinet/in.h>

/* Out of memory is an error to report, not a reason to exit. */
#define HASH_NONFATAL_OOM 1
#define uthash_nonfatal_oom(element) ((element)->lost = true)
#include <uthash.h>

#include <observe/flows.h>
#include <observe/json.h>
#include <observe/names.h>

json_t *flow_json(const struct view *view, const struct datapath_flow *flow)
{
	const struct hd_flow *f = &flow->flow;
	bool icmp = flow->protocol == IPPROTO_ICMP || flow->protocol == IPPROTO_ICMPV6;
	char network[VIEW_NETWORK_MAX];
	json_t *json;

	json = json_pack("{s:s, s:o, s:o, s:i, s:o, s:i, s:s, s:b, s:s, s:I, s:I, s:{s:I, s:I}, s:{s:I, s:I}, s:o, s:o, s:I, "
			 "s:I, s:b, s:b}",
		"network", view_network(view, flow->network, network), "protocol", json_protocol(flow->protocol), "source",
		json_address(&flow->source), "sourcePort", icmp ? 0 : flow->source_port, "destination",
		json_address(&flow->destination), "destinationPort", icmp ? 0 : flow->destination_port, "state",
		flow_state_name(f->state), "proven", flow->proven, "direction",
		direction_name(f->flags & HD_FLOW_DIR_EGRESS ? HD_EGRESS : HD_INGRESS), "packets",
		(json_int_t)(f->packets[HD_ORIG] + f->packets[HD_REPLY]), "bytes",
		(json_int_t)(f->bytes[HD_ORIG] + f->bytes[HD_REPLY]), "original", "packets", (json_int_t)f->packets[HD_ORIG],
		"bytes", (json_int_t)f->bytes[HD_ORIG], "reply", "packets", (json_int_t)f->packets[HD_REPLY], "bytes",
		(json_int_t)f->bytes[HD_REPLY], "rule", json_rule(view, f->rule), "device", json_device(view, f->ifindex),
		"idleMs", (json_int_t)flow->idle_ms, "ageMs", (json_int_t)flow->age_ms, "pickedUp", !!(f->flags & HD_FLOW_PICKUP),
		"forwarded", !!(f->flags & HD_FLOW_FORWARDED));
	if (json && view->offload && offload_has(view->offload, flow))
		json_object_set_new(json, "offloaded", json_true());
	if (json && f->second_rule)
		json_object_set_new(json, "secondRule", json_rule(view, f->second_rule));
	for (unsigned side = HD_ORIG; json && side <= HD_REPLY; side++)
		if (view_device_peer(f->device[side]))
			json_object_set_new(json, side == HD_ORIG ? "sourcePeer" : "destinationPeer",
				json_peer(view, view_device_peer(f->device[side])));
	if (json && icmp)
		json_object_set_new(json, "icmpId", json_integer(flow->source_port));
	return json;
}

struct writing {
	const struct view *view;
	struct buffer *text;
	size_t n;
};

static int write_flow(const struct datapath_flow *flow, void *userdata)
{
	struct writing *writing = userdata;

	if (writing->n++)
		buffer_add_char(writing->text, ',');
	return json_write(flow_json(writing->view, flow), writing->text);
}

int flows_text(const struct view *view, struct buffer *text)
{
	struct writing writing = {.view = view, .text = text};
	int r;

	buffer_add_string(text, "{\"items\":[");
	r = view->datapath ? datapath_flows(view->datapath, write_flow, &writing) : 0;
	buffer_add_string(text, "]}\n");
	return r < 0 ? r : text->failed ? -ENOMEM : 0;
}

struct watched {
	struct datapath_flow_key key;
	struct datapath_flow flow;
	unsigned round;
	bool lost; /* set by uthash when it found no memory */
	UT_hash_handle hh;
};

struct flow_watch {
	struct watched *flows;
	unsigned round;
};

struct flow_watch *flow_watch_new(void)
{
	return calloc(1, sizeof(struct flow_watch));
}

void flow_watch_free(struct flow_watch *watch)
{
	struct watched *flow, *next;

	if (!watch)
		return;
	HASH_ITER (hh, watch->flows, flow, next) {
		HASH_DEL(watch->flows, flow);
		free(flow);
	}
	free(watch);
}

struct polling {
	struct flow_watch *watch;
	flow_watch_cb cb;
	void *userdata;
	size_t missed;
};

static int see_flow(const struct datapath_flow *flow, void *userdata)
{
	struct polling *polling = userdata;
	struct datapath_flow_key key = datapath_flow_key(flow);
	struct watched *known;

	HASH_FIND(hh, polling->watch->flows, &key, sizeof(key), known);
	if (known) {
		/* The same endpoints again with another start is another connection. */
		bool again = known->flow.flow.created != flow->flow.created, changed = known->flow.flow.state != flow->flow.state;

		if (again)
			polling->cb(&known->flow, "end", polling->userdata);
		known->flow = *flow;
		known->round = polling->watch->round;
		if (again || changed)
			polling->cb(flow, again ? "new" : "update", polling->userdata);
		return 0;
	}
	if (HASH_COUNT(polling->watch->flows) >= FLOW_WATCH_MAX) {
		polling->missed++;
		return 0;
	}
	known = calloc(1, sizeof(*known));
	if (!known)
		return -ENOMEM;
	known->key = key;
	known->flow = *flow;
	known->round = polling->watch->round;
	HASH_ADD(hh, polling->watch->flows, key, sizeof(key), known);
	if (known->lost) {
		free(known);
		return -ENOMEM;
	}
	polling->cb(flow, "new", polling->userdata);
	return 0;
}

int flow_watch_poll(struct flow_watch *watch, const struct view *view, flow_watch_cb cb, void *userdata, size_t *ret_missed)
{
	struct polling polling = {.watch = watch, .cb = cb, .userdata = userdata};
	struct watched *flow, *next;
	int r;

	watch->round++;
	r = view->datapath ? datapath_flows(view->datapath, see_flow, &polling) : 0;
	if (r < 0)
		return r;
	HASH_ITER (hh, watch->flows, flow, next) {
		if (flow->round == watch->round)
			continue;
		cb(&flow->flow, "end", userdata);
		/* the analyzer does not see that the head is there as long as an element is */
		HASH_DEL(watch->flows, flow); /* NOLINT(clang-analyzer-core.NullDereference) */
		free(flow);
	}
	*ret_missed = polling.missed;
	return 0;
}
