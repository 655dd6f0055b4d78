/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One path makes a policy live, whether at start, at an upgrade, or because a table must grow: a fresh compiler and freshly loaded
 * programs over fresh tables, filled while nobody reads them. A change that fits is written into the tables in force instead.
 * Either way nothing is changed for packets before the last thing that can fail.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <sys/epoll.h>

#include <controller_internal.h>
#include <observe/events.h>

#define FIRST_LIMITS \
	((struct compiler_limits){ \
		.addr4_nodes = 256, .addr6_nodes = 128, .classes = 256, .rule_nodes = 512, .rules = 512, .addr4_tables = 16})
#define GUESS_ABOVE 4096 /* rules */
#define DEFAULT_FLOWS 65536
#define DEFAULT_FLOWS_NEW 32768
#define DEFAULT_FLOWS_OTHER 32768

const struct host policy_no_host = {
	.timeouts = {.tcp_established = 8 * 3600 * 1000,
		.tcp_syn = 60000,
		.tcp_fin = 10000,
		.udp = 30000,
		.udp_stream = 180000,
		.icmp = 10000,
		.other = 60000},
	.pickup_seconds = 60,
	.log_every = HOST_LOG_EVERY,
	.event_rate = HOST_EVENT_RATE,
	.reject_rate = HOST_REJECT_RATE,
};

const struct object *policy_host(const struct object_list *all)
{
	for (size_t i = 0; i < all->n; i++)
		if (all->items[i]->kind == OBJECT_HOST)
			return all->items[i];
	return NULL;
}

static struct datapath_settings settings_of(const struct host *host)
{
	struct datapath_settings settings;

	/* compared as bytes */
	memset(&settings, 0, sizeof(settings));
	settings.timeouts = host->timeouts;
	settings.log_every = host->log_every;
	settings.event_rate = host->event_rate;
	settings.reject_rate = host->reject_rate;
	return settings;
}

static uint32_t or_default(uint32_t value, uint32_t fallback)
{
	return value ? value : fallback;
}

static struct datapath_sizes sizes_of(const struct host *host, const struct compiler_limits *limits)
{
	return (struct datapath_sizes){
		.policy = *limits,
		.flows = or_default(host->limit_flows, DEFAULT_FLOWS),
		.flows_new = or_default(host->limit_flows_new, DEFAULT_FLOWS_NEW),
		.flows_other = or_default(host->limit_flows_other, DEFAULT_FLOWS_OTHER),
	};
}

static int adopt_rule(uint32_t id, const struct hd_rule_info *info, void *userdata)
{
	/* one that cannot be adopted gets a new id, and its counters begin anew: no reason to stop */
	(void)compiler_adopt_rule(userdata, id, info->key);
	return 0;
}

/* The larger of both in each: a limit that was found too small must not come back. */
static void raise_limits(struct compiler_limits *limits, const struct compiler_limits *to)
{
#define RAISE(field) \
	do { \
		if (limits->field < to->field) \
			limits->field = to->field; \
	} while (0)
	RAISE(addr4_nodes);
	RAISE(addr6_nodes);
	RAISE(classes);
	RAISE(rule_nodes);
	RAISE(rules);
	RAISE(addr4_tables);
#undef RAISE
}

/* So that a large policy is not compiled only to learn that it is large. A wrong guess costs one more round, or some memory. */
static struct compiler_limits guess_limits(const struct object_list *objects)
{
	struct compiler_limits limits = FIRST_LIMITS;
	uint32_t size = 1;
	size_t rules = 0;

	for (size_t i = 0; i < objects->n; i++)
		if (objects->items[i]->kind == OBJECT_HOST_POLICY)
			rules += objects->items[i]->policy.n_rules[HD_INGRESS] + objects->items[i]->policy.n_rules[HD_EGRESS];
	if (rules < GUESS_ABOVE || rules > HD_LEAF_RULE_MASK)
		return limits;
	while (size < rules + rules / 8)
		size *= 2;
	raise_limits(
		&limits, &(struct compiler_limits){.addr4_nodes = size / 8, .classes = size, .rules = size, .addr4_tables = 512});
	return limits;
}

int policy_compile_fresh(uint32_t first_generation, struct datapath *adopt, const struct compiler_limits *least,
	const struct policy_input *input, struct compiler **ret_compiler, struct compiler_limits *ret_limits,
	struct policy_delta **ret_delta, struct diag *diag)
{
	struct compiler_limits limits = guess_limits(input->objects);

	raise_limits(&limits, least);
	raise_limits(&limits, &(struct compiler_limits){.rules = input->host->limit_rules});
	/* each round says what would do; more than a few are a fault */
	for (unsigned attempt = 0; attempt < 8; attempt++) {
		struct compiler_limits needed = limits;
		struct compiler *compiler;
		int r = compiler_new(&limits, first_generation, &compiler);

		if (r < 0)
			return r;
		if (adopt) {
			r = datapath_rules(adopt, adopt_rule, compiler);
			if (r < 0)
				log_warn(r, "counters of rules begin anew: cannot read the rules of the earlier agent");
		}
		r = compiler_compile(compiler, input, ret_delta, &needed, diag);
		if (r >= 0) {
			*ret_compiler = compiler;
			*ret_limits = limits;
			return 0;
		}
		compiler_free(compiler);
		if (r != -ENOSPC)
			return r;
		raise_limits(&limits, &needed);
	}
	diag_add(diag, NULL, 0, NULL, "the policy's tables cannot be sized");
	return -E2BIG;
}

static void free_policies(struct uplink_policy *policies, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free((char *)policies[i].device);
	free(policies);
}

/* The delta goes when its round ends; devices may come later. */
static int copy_policies(const struct policy_delta *delta, struct uplink_policy **ret)
{
	struct uplink_policy *copy = calloc(delta->n_uplinks ? delta->n_uplinks : 1, sizeof(*copy));

	if (!copy)
		return -ENOMEM;
	for (size_t i = 0; i < delta->n_uplinks; i++) {
		copy[i] = delta->uplinks[i];
		copy[i].device = strdup(delta->uplinks[i].device);
		if (!copy[i].device) {
			free_policies(copy, i);
			return -ENOMEM;
		}
	}
	*ret = copy;
	return 0;
}

static void set_host(struct controller *c, const struct object *host)
{
	struct object *old = c->host;

	c->host = host ? object_ref((struct object *)host) : NULL;
	object_unref(old);
	c->view.host = c->host ? &c->host->host : NULL;
}

/* What is in force now. Cannot fail. */
static void take_over(struct controller *c, const struct policy_delta *delta, struct uplink_policy *policies,
	const struct object *host, bool lockdown)
{
	free_policies(c->policies, c->n_policies);
	c->policies = policies;
	c->n_policies = delta->n_uplinks;
	c->unsettled = true;
	set_host(c, host);
	c->view.generation = delta->generation;
	c->view.lockdown = lockdown;
	c->view.adopted = false;
	c->view.datapath = c->datapath;
	c->view.compiler = c->compiler;
}

static int on_event_io(sd_event_source *source, int fd, uint32_t events, void *userdata);

static int watch_events(struct controller *c)
{
	int fd = datapath_events_fd(c->datapath);

	if (c->events && sd_event_source_get_io_fd(c->events) == fd)
		return 0;
	c->events = sd_event_source_disable_unref(c->events);
	return fd < 0 ? fd : sd_event_add_io(c->event, &c->events, fd, EPOLLIN, on_event_io, c);
}

/*
 * least: what the tables must hold in any case. A change may need room for old and new at once, which a fresh compilation alone does not.
 * Takes the topology over when it succeeds.
 */
static int load_and_attach(struct controller *c, const struct policy_input *input, const struct object *host,
	struct topology *topology, const struct compiler_limits *least, struct diag *diag)
{
	uint32_t generation = c->compiler ? c->view.generation : datapath_last_generation(c->datapath);
	struct datapath_settings settings = settings_of(input->host);
	struct uplink_policy *policies = NULL;
	struct compiler *compiler, *old = c->compiler;
	struct compiler_limits limits;
	struct policy_delta *delta;
	struct datapath_sizes sizes;
	int r;

	r = policy_compile_fresh(generation + 1, c->datapath, least, input, &compiler, &limits, &delta, diag);
	if (r < 0)
		return r;
	sizes = sizes_of(input->host, &limits);
	ports_sizes(topology, &sizes);
	r = datapath_load(c->datapath, &sizes, &settings, input->host->pickup_seconds);
	if (r >= 0)
		r = datapath_write(c->datapath, delta);
	if (r >= 0)
		r = datapath_publish(c->datapath, delta, NULL);
	if (r >= 0)
		r = copy_policies(delta, &policies);
	if (r < 0) {
		datapath_abandon(c->datapath);
		compiler_free(compiler);
		return r;
	}
	offload_before(c, NULL);
	c->compiler = compiler;
	c->limits = limits;
	c->settings = settings;
	compiler_commit(compiler);
	take_over(c, delta, policies, host, input->lockdown);
	ports_take_over(c, topology);
	c->topology_due = true; /* the new tables are empty */
	compiler_free(old);
	(void)devices_attach(c);
	r = datapath_go_live(c->datapath);
	if (r < 0)
		log_err(r, "cannot pin what was loaded: it is in force, but an agent that starts later will not find it");
	r = watch_events(c);
	if (r < 0)
		log_err(r, "cannot listen to events of the data plane: rejects will not be answered");
	if (c->api && api_monitoring(c->api))
		(void)datapath_monitor(c->datapath, true);
	return 0;
}

static bool same_uplinks(const struct host *a, const struct host *b)
{
	if (a->n_uplinks != b->n_uplinks || a->forward_judge != b->forward_judge || a->has_tunnel != b->has_tunnel ||
		a->tunnel_decapsulate != b->tunnel_decapsulate || a->tunnel_checksum != b->tunnel_checksum)
		return false;
	for (size_t i = 0; i < a->n_uplinks; i++)
		if (strcmp(a->uplinks[i].device, b->uplinks[i].device) || a->uplinks[i].xdp != b->uplinks[i].xdp)
			return false;
	return true;
}

static void note_limits(const struct host *before, const struct host *after)
{
	if (before->limit_flows != after->limit_flows || before->limit_flows_new != after->limit_flows_new ||
		before->limit_flows_other != after->limit_flows_other)
		log_notice("Host.spec.limits: the flow tables keep their size until heddled --detach, and a new start");
}

/* What goes, goes before the policy changes: an address that gets another owner must not be judged as the earlier one's, nor the reverse. */
static int write_and_publish(struct controller *c, const struct policy_delta *delta, const struct topology *topology)
{
	int r = datapath_write(c->datapath, delta);

	if (r >= 0)
		offload_before(c, delta);
	if (r >= 0 && !topology_equal(c->topology, topology)) {
		drops_before_rows(c);
		r = datapath_remove(c->datapath, topology);
	}
	if (r >= 0)
		r = datapath_publish(c->datapath, delta, c->topology);
	return r;
}

static int activate(
	struct controller *c, const struct object_list *all, bool lockdown, struct topology *topology, struct diag *diag)
{
	const struct object *host_object = policy_host(all);
	const struct host *host = host_object ? &host_object->host : &policy_no_host,
			  *before = c->view.host ? c->view.host : &policy_no_host;
	const struct policy_input input = {.host = host, .objects = all, .networks = c->networks, .lockdown = lockdown};
	struct datapath_settings settings = settings_of(host);
	struct compiler_limits needed = {0};
	struct uplink_policy *policies = NULL;
	struct policy_delta *delta;
	bool attach;
	int r;

	if (!c->compiler || !ports_fit(c, topology))
		return load_and_attach(c, &input, host_object, topology, &c->limits, diag);
	r = compiler_compile(c->compiler, &input, &delta, &needed, diag);
	if (r == -ENOSPC) {
		log_debug("tables grow: %u and %u address nodes, %u classes, %u rule nodes, %u rules", needed.addr4_nodes,
			needed.addr6_nodes, needed.classes, needed.rule_nodes, needed.rules);
		raise_limits(&needed, &c->limits);
		return load_and_attach(c, &input, host_object, topology, &needed, diag);
	}
	if (r < 0)
		return r;
	r = copy_policies(delta, &policies);
	if (r >= 0)
		r = write_and_publish(c, delta, topology);
	if (r < 0) {
		if (policies)
			free_policies(policies, delta->n_uplinks);
		compiler_abort(c->compiler);
		/* what was taken out already comes back */
		c->topology_due = true;
		(void)ports_install(c);
		return r;
	}
	compiler_commit(c->compiler);
	attach = !same_uplinks(before, host) || c->attach_error;
	note_limits(before, host);
	take_over(c, delta, policies, host_object, lockdown);
	ports_take_over(c, topology);
	if (memcmp(&settings, &c->settings, sizeof(settings))) {
		r = datapath_settings(c->datapath, &settings);
		if (r < 0)
			log_err(r, "cannot change timeouts and rates");
		else
			c->settings = settings;
	}
	if (attach || c->topology_due || c->hostnet_due || vfs_wanted(c))
		(void)devices_attach(c);
	else
		offload_follow(c);
	return 0;
}

int policy_activate(struct controller *c, const struct object_list *all, bool lockdown, struct diag *diag)
{
	const struct object *host = policy_host(all);
	struct topology *topology = NULL;
	int r;

	policy_settle(c);
	r = ports_propose(c, all, host ? &host->host : &policy_no_host, &topology, diag);
	if (r < 0)
		return r;
	/* Under lockdown the documents are not known: nobody's number comes free. */
	r = lockdown ? 0 : identities_assign(c->identities, all, diag);
	c->activating = all;
	if (r >= 0)
		r = activate(c, all, lockdown, topology, diag);
	if (r >= 0)
		fastpaths_follow(c);
	c->activating = NULL;
	if (r < 0) {
		identities_abort(c->identities);
		networks_abort(c->networks);
		topology_free(topology);
		return r;
	}
	if (identities_commit(c->identities)) {
		c->remember = true;
		change_later(c);
	}
	/* under lockdown the documents are not known */
	if (!lockdown)
		nat_follow(c, all);
	return r;
}

int policy_rebuild(struct controller *c)
{
	const struct policy_input input = {.host = c->view.host ? c->view.host : &policy_no_host,
		.objects = &c->store.all,
		.networks = c->networks,
		.lockdown = c->view.lockdown};
	struct topology *topology = NULL;
	struct diag diag = {0};
	int r;

	policy_settle(c);
	r = ports_propose(c, input.objects, input.host, &topology, &diag);
	if (r >= 0) {
		r = load_and_attach(c, &input, c->host, topology, &c->limits, &diag);
		if (r < 0) {
			networks_abort(c->networks);
			topology_free(topology);
		}
	}
	diag_clear(&diag);
	return r;
}

void policy_settle(struct controller *c)
{
	int r;

	if (!c->unsettled)
		return;
	c->unsettled = false;
	r = datapath_settle(c->datapath);
	/* ids must not be used again while a packet may read them */
	if (r < 0)
		log_err(r, "cannot wait for the end of the earlier generation");
	else
		compiler_settle(c->compiler);
}

void policy_free(struct controller *c)
{
	free_policies(c->policies, c->n_policies);
	c->policies = NULL;
	c->n_policies = 0;
	compiler_free(c->compiler);
	c->compiler = NULL;
	object_unref(c->host);
	c->host = NULL;
}

/* --- events of the data plane --- */

#define REBUILD_PAUSE_US (60ull * 1000000)

static int on_rebuild(sd_event_source *source, uint64_t now, void *userdata)
{
	struct controller *c = userdata;
	int r;

	(void)source;
	(void)now;
	log_err(0, "a rule table is broken: loading all of it anew");
	r = policy_rebuild(c);
	if (r < 0)
		log_err(r, "cannot load the policy anew: what was in force stays");
	change_later(c);
	return 0;
}

/* At once, but not again within the pause: if that does not help, nothing will. */
static void want_rebuild(struct controller *c)
{
	uint64_t now, last = 0;

	if (sd_event_now(c->event, CLOCK_MONOTONIC, &now) < 0)
		return;
	if (!c->rebuild) {
		(void)sd_event_add_time(c->event, &c->rebuild, CLOCK_MONOTONIC, now, 0, on_rebuild, c);
		return;
	}
	(void)sd_event_source_get_time(c->rebuild, &last);
	if (now < last + REBUILD_PAUSE_US)
		return;
	(void)sd_event_source_set_time(c->rebuild, now);
	(void)sd_event_source_set_enabled(c->rebuild, SD_EVENT_ONESHOT);
}

/* A frame that was not for the gateway. */
static bool was_switched(const struct hd_event *event)
{
	static const uint8_t gateway[6] = HD_GATEWAY_MAC;

	return event->l3_offset && event->packet_length >= sizeof(gateway) &&
	       memcmp(event->packet, gateway, sizeof(gateway)) != 0;
}

static void answer(struct controller *c, const struct hd_event *event)
{
	struct datapath_router router = {0};
	struct topology_answer said;

	topology_answer(c->topology, event->ifindex, &event->destination, &said);
	/* Without a gateway that has an address, the one it was for is the only one whom the sender knows. */
	router.has_source = said.has_source && !(said.link_local && was_switched(event));
	router.source = said.source;
	router.mtu = event->mtu ? event->mtu : said.peer ? datapath_peer_mtu(c->datapath, said.peer) : said.mtu;
	(void)datapath_reject(c->datapath, event, &router);
}

static void on_event(const struct hd_event *event, size_t length, void *userdata)
{
	struct controller *c = userdata;

	if (length < HD_EVENT_SHORT)
		return;
	if (event->type == HD_EVENT_REJECT && length >= HD_EVENT_SHORT + event->packet_length)
		answer(c, event);
	if (event->type == HD_EVENT_DROP && event->reason == HD_R_RULE_TREE)
		want_rebuild(c);
	drops_event(c, event);
	event_log(&c->view, event);
	if (c->api)
		api_event(c->api, event);
}

static int on_event_io(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	struct controller *c = userdata;

	(void)source;
	(void)fd;
	(void)events;
	(void)datapath_events_dispatch(c->datapath, on_event, c);
	return 0;
}
