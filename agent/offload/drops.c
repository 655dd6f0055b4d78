/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <netinet/in.h>

/* Out of memory leaves packets to the programs. */
#define HASH_NONFATAL_OOM 1
#define uthash_nonfatal_oom(element) ((element)->lost = true)
#include <uthash.h>

#include <heddle/network.h>
#include <heddle/reasons.h>
#include <offload/drops.h>
#include <util/addr.h>
#include <util/log.h>

/* What the programs would not drop so is asked about again. */
#define ASK_AGAIN_MS 10000u
/* Of one kind of packets, in a second and in a row. */
#define HOT_ROUNDS 2
#define HOT_EVENTS 2

#define ICMP_ECHO_REQUEST_KEY 0x0800 /* type << 8 | code */
#define ICMPV6_ECHO_REQUEST_KEY 0x8000
#define TCP_FLAGS_ASKED 0x17 /* FIN, SYN, RST, ACK */
#define TCP_SYN 0x02

/* What was true of an end when the rule was made. Compared as memory. */
struct end {
	uint32_t ifindex; /* 0: no port of ours */
	uint32_t moved, version[2];
	uint16_t network, flags, vlan, reserved;
};
static_assert(sizeof(struct end) == 24, "no holes");

struct plan {
	struct offload_rule rule;
	struct end ends[2]; /* who sends it, and whom it is for */
	bool gateway;	    /* for its MAC */
};

/* Packets of one kind: denied, and perhaps dropped by the NIC. */
struct tuple {
	struct offload_rule key; /* without MACs */
	struct plan plan;	 /* valid while dropped */
	uint32_t slot, rule_id;
	bool dropped;
	bool stuck;		 /* it could not be taken out: tried each round */
	bool wanted;		 /* a rule is worth it */
	bool lost;		 /* set by uthash when it found no memory */
	bool asked;		 /* the kernel, in this round */
	uint64_t packets, bytes; /* counted by its rule up to now, as the kernel does */
	uint64_t round_packets;	 /* in the last round */
	uint64_t all_bytes;	 /* of L3 */
	struct flower_seen seen; /* what the kernel told of it in this round; handle 0: nothing */
	unsigned events, hot, quiet;
	uint64_t retry; /* ms; nothing is tried until then */
	uint32_t pause;
	UT_hash_handle hh;
};

struct drops {
	struct drops_ops ops;
	const struct offload_world *world;
	unsigned header;
	struct tuple *tuples;
	struct tuple *slots[DROPS_MOST];
	unsigned budget;
	uint64_t events;   /* in this round */
	uint64_t software; /* packets that programs denied up to the last one */
	bool counted;	   /* that is known */
	struct tries tries;
	struct drops_status status;
};

int drops_new(const struct drops_ops *ops, const struct offload_world *world, unsigned header, struct drops **ret)
{
	struct drops *drops = calloc(1, sizeof(*drops));

	if (!drops)
		return -ENOMEM;
	drops->ops = *ops;
	drops->world = world;
	drops->header = header;
	*ret = drops;
	return 0;
}

static void forget(struct drops *drops, struct tuple *tuple)
{
	HASH_DEL(drops->tuples, tuple); /* NOLINT(clang-analyzer-core.NullDereference) */
	free(tuple);
}

void drops_free(struct drops *drops)
{
	struct tuple *tuple, *next;

	if (!drops)
		return;
	HASH_ITER (hh, drops->tuples, tuple, next)
		forget(drops, tuple);
	free(drops);
}

static uint64_t now_of(const struct drops *drops)
{
	return drops->ops.now_ms(drops->ops.userdata);
}

/* --- what is denied --- */

static bool is_icmp(const struct offload_rule *rule)
{
	return rule->protocol == IPPROTO_ICMP || rule->protocol == IPPROTO_ICMPV6;
}

/* False: nothing that a rule could be made for. */
static bool key_of(const struct hd_event *event, struct offload_rule *ret)
{
	uint16_t echo;

	if (event->type != HD_EVENT_DROP || event->reason != HD_R_POLICY_DENY || event->hook != HD_HOOK_TC_PORT_IN ||
		event->peer || event->vlan[0])
		return false;
	*ret = (struct offload_rule){.in = event->ifindex,
		.source = event->source,
		.destination = event->destination,
		.source_port = event->source_port,
		.destination_port = event->destination_port,
		.family = addr_is_ipv4(&event->source) ? 4 : 6,
		.protocol = event->protocol};
	switch (event->protocol) {
	case IPPROTO_TCP:
		ret->source_port = 0;
		return (event->tcp_flags & TCP_FLAGS_ASKED) == TCP_SYN && ret->destination_port;
	case IPPROTO_UDP:
	case IPPROTO_SCTP:
		return ret->source_port && ret->destination_port;
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		ret->source_port = 0;
		echo = ret->family == 4 ? ICMP_ECHO_REQUEST_KEY : ICMPV6_ECHO_REQUEST_KEY;
		return (ret->family == 4) == (event->protocol == IPPROTO_ICMP) && ret->destination_port == htons(echo);
	}
	return false;
}

static struct tuple *find_or_make(struct drops *drops, const struct offload_rule *key)
{
	struct tuple *tuple;

	HASH_FIND(hh, drops->tuples, key, sizeof(*key), tuple);
	if (tuple || HASH_COUNT(drops->tuples) >= DROPS_TUPLES)
		return tuple;
	tuple = calloc(1, sizeof(*tuple));
	if (!tuple)
		return NULL;
	tuple->key = *key;
	HASH_ADD(hh, drops->tuples, key, sizeof(tuple->key), tuple);
	if (!tuple->lost)
		return tuple;
	free(tuple);
	return NULL;
}

void drops_note(struct drops *drops, const struct hd_event *event)
{
	struct offload_rule key;
	struct tuple *tuple;

	/* Those for which there is no rule say as well how many packets an event stands for. */
	if (event->reason == HD_R_POLICY_DENY && event->direction == HD_EGRESS)
		drops->events++;
	tuple = key_of(event, &key) ? find_or_make(drops, &key) : NULL;
	if (tuple)
		tuple->events++;
}

/* Events are held back above some rate: how many packets one of this round stands for. */
static uint64_t weight(struct drops *drops)
{
	uint64_t denied = 0, software, fresh, events = drops->events;

	drops->events = 0;
	if (drops->ops.denied(&denied, drops->ops.userdata) < 0)
		return 1;
	software = denied > drops->status.work.packets ? denied - drops->status.work.packets : 0;
	fresh = drops->counted && software > drops->software ? software - drops->software : 0;
	drops->software = software;
	drops->counted = true;
	return events && fresh > events ? fresh / events : 1;
}

static void weigh(struct drops *drops)
{
	uint64_t each = weight(drops);
	struct tuple *tuple, *next;

	HASH_ITER (hh, drops->tuples, tuple, next) {
		tuple->hot = tuple->events >= HOT_EVENTS && tuple->events * each >= DROPS_LEAST ? tuple->hot + 1 : 0;
		tuple->events = 0;
		if (!tuple->dropped)
			tuple->wanted = tuple->hot >= HOT_ROUNDS || (tuple->wanted && tuple->hot);
	}
}

/* --- rules --- */

static bool end_of(uint32_t ifindex, const struct offload_world *world, struct offload_port *port, struct end *ret)
{
	const struct hd_port *record = &port->record;
	int at;

	if (!world->port(ifindex, port, world->userdata))
		return false;
	at = hd_port_policy_at(record, port->generation);
	if (at < 0)
		return false;
	*ret = (struct end){.ifindex = ifindex,
		.moved = record->moved,
		.version = {record->policy[at].version[0], record->policy[at].version[1]},
		.network = record->network,
		.flags = record->flags,
		.vlan = record->vlan};
	return true;
}

/* By what is known of the ends. False: there is no rule for such packets. */
static bool make_plan(const struct drops *drops, const struct offload_rule *key, struct plan *ret)
{
	static const uint8_t gateway[6] = HD_GATEWAY_MAC;
	const struct offload_world *world = drops->world;
	struct offload_port from, to;
	uint32_t target = 0;

	memset(ret, 0, sizeof(*ret));
	if (!end_of(key->in, world, &from, &ret->ends[0]) || !from.switch_id ||
		from.record.flags & (HD_PORT_TRUNK | HD_PORT_QINQ))
		return false;
	if (!drops->ops.owner(from.record.network, &key->destination, &target, drops->ops.userdata) || target == key->in)
		return false;
	if (target && !end_of(target, world, &to, &ret->ends[1]))
		return false;
	ret->gateway = !(from.record.flags & HD_PORT_L2) ||
		       !world->neighbours(from.record.network, &key->source, &key->destination, world->userdata);
	if (!target && (!ret->gateway || key->protocol == IPPROTO_UDP || key->protocol == IPPROTO_SCTP))
		return false;
	ret->rule = *key;
	/* Of what goes on to a port the TTL is looked at first: its end is answered. */
	ret->rule.routed = ret->gateway && target;
	offload_mac(&from.record, &key->source, world, ret->rule.source_mac);
	if (ret->gateway)
		memcpy(ret->rule.destination_mac, gateway, sizeof(gateway));
	else
		offload_mac(&to.record, &key->destination, world, ret->rule.destination_mac);
	return true;
}

static int ask(const struct drops *drops, const struct offload_rule *rule, struct drop_answer *ret)
{
	*ret = (struct drop_answer){0};
	return drops->ops.ask(rule, ret, drops->ops.userdata);
}

/* The same packets the other way: as the other end would open the flow. */
static bool reverse_denied(const struct drops *drops, const struct plan *plan)
{
	const struct offload_rule *rule = &plan->rule;
	struct offload_rule reverse = *rule;
	struct drop_answer answer;
	struct offload_port to;
	struct end end;

	if (!end_of(plan->ends[1].ifindex, drops->world, &to, &end))
		return false;
	reverse.in = plan->ends[1].ifindex;
	reverse.source = rule->destination;
	reverse.destination = rule->source;
	reverse.source_port = rule->destination_port;
	reverse.destination_port = rule->source_port;
	offload_mac(&to.record, &reverse.source, drops->world, reverse.source_mac);
	memcpy(reverse.destination_mac, plan->gateway ? rule->destination_mac : rule->source_mac,
		sizeof(reverse.destination_mac));
	return ask(drops, &reverse, &answer) == 0 && answer.denied;
}

/* The programs would drop all that the rule matches, and go on doing so until one of the ends changes. */
static bool is_denied(const struct drops *drops, const struct plan *plan, uint32_t *ret_rule)
{
	struct drop_answer answer;

	if (ask(drops, &plan->rule, &answer) < 0 || !answer.denied || !answer.silent)
		return false;
	/* By a port in another network, whose changes are not followed. */
	if (!answer.by_sender && !plan->ends[1].ifindex)
		return false;
	*ret_rule = answer.rule;
	return plan->rule.protocol == IPPROTO_TCP || is_icmp(&plan->rule) || reverse_denied(drops, plan);
}

static struct flower_filter filter_of(const struct tuple *tuple)
{
	return (struct flower_filter){.rule = tuple->plan.rule, .handle = DROPS_HANDLE + tuple->slot};
}

/* What its rule has counted in addition to what is known. */
static void take(struct drops *drops, struct tuple *tuple, const struct flower_seen *seen)
{
	uint64_t packets, bytes, header;

	tuple->round_packets = 0;
	if (seen->packets <= tuple->packets)
		return;
	packets = seen->packets - tuple->packets;
	bytes = seen->bytes > tuple->bytes ? seen->bytes - tuple->bytes : 0;
	header = packets * drops->header;
	bytes = bytes > header ? bytes - header : 0;
	tuple->packets = seen->packets;
	tuple->bytes = seen->bytes;
	tuple->round_packets = packets;
	tuple->all_bytes += bytes;
	tuple->pause = 0;
	drops->status.work.packets += packets;
	drops->status.work.bytes += bytes;
	(void)drops->ops.credit(tuple->rule_id, packets, bytes, bytes + packets * ETH_HLEN, drops->ops.userdata);
}

static void take_back(struct drops *drops, struct tuple *tuple)
{
	static struct log_limit limit = {.burst = 5, .interval_ms = 60000};
	struct flower_filter filter = filter_of(tuple);
	struct flower_seen seen = {0};
	int r;

	if (!tuple->dropped)
		return;
	r = drops->ops.remove(&filter, &seen, drops->ops.userdata);
	take(drops, tuple, &seen);
	/* Its device has gone, and the rule with it. */
	tuple->stuck = r < 0 && r != -ENOENT && r != -ENODEV && r != -EINVAL;
	if (tuple->stuck) {
		if (log_limit_pass(&limit, NULL))
			log_err(r, "cannot take a rule that drops back from the NIC: %#x of interface %u stays", filter.handle,
				filter.rule.in);
		return;
	}
	drops->slots[tuple->slot] = NULL;
	tuple->dropped = false;
	tuple->quiet = 0;
	drops->status.work.rules_removed++;
	drops->status.work.now--;
}

static void put_off(struct tuple *tuple, uint64_t now)
{
	tuple->pause = tries_longer(tuple->pause);
	tuple->retry = now + tuple->pause;
	tuple->wanted = false;
	tuple->hot = 0;
}

static void refused(struct drops *drops, struct tuple *tuple, int r, const char *reason, uint64_t now)
{
	static struct log_limit limit = {.burst = 5, .interval_ms = 60000};
	bool news = nic_refused(&drops->status.work, r, reason);

	put_off(tuple, now);
	if (news && log_limit_pass(&limit, NULL))
		log_info("what policy denies is dropped in software, the NIC does not take it: %s",
			reason[0] ? reason : strerror(-r));
	tries_refused(&drops->tries, now);
}

/* There is one. */
static uint32_t free_slot(const struct drops *drops)
{
	uint32_t i = 0;

	while (drops->slots[i])
		i++;
	return i;
}

static void add(struct drops *drops, struct tuple *tuple, uint64_t now)
{
	struct flower_filter filter = filter_of(tuple);
	char reason[FLOWER_REASON_MAX] = "";
	int r = drops->ops.add(&filter, reason, drops->ops.userdata);

	if (r < 0) {
		refused(drops, tuple, r, reason, now);
		return;
	}
	tuple->dropped = true;
	tuple->packets = tuple->bytes = tuple->all_bytes = 0;
	tuple->quiet = 0;
	drops->slots[tuple->slot] = tuple;
	drops->status.work.rules_added++;
	drops->status.work.now++;
	drops->tries = (struct tries){0};
}

static void offer(struct drops *drops, struct tuple *tuple, uint64_t now)
{
	if (tuple->retry > now)
		return;
	if (tries_paused(&drops->tries, now) || !drops->budget || drops->status.work.now >= DROPS_MOST) {
		drops->status.waiting++;
		return;
	}
	drops->budget--;
	tuple->slot = free_slot(drops);
	if (make_plan(drops, &tuple->key, &tuple->plan) && is_denied(drops, &tuple->plan, &tuple->rule_id)) {
		add(drops, tuple, now);
		return;
	}
	tuple->retry = now + ASK_AGAIN_MS;
	tuple->wanted = false;
	tuple->hot = 0;
}

/* --- rounds --- */

static void on_filter(const struct flower_seen *seen, void *userdata)
{
	struct drops *drops = userdata;
	uint32_t slot = seen->handle - DROPS_HANDLE;
	struct tuple *tuple = seen->handle >= DROPS_HANDLE && slot < DROPS_MOST ? drops->slots[slot] : NULL;

	if (tuple && tuple->plan.rule.in == seen->ifindex && !seen->lost)
		tuple->seen = *seen;
}

/* All rules of one device at once. */
static int ask_device(struct drops *drops, uint32_t ifindex)
{
	for (unsigned i = 0; i < DROPS_MOST; i++) {
		struct tuple *tuple = drops->slots[i];

		if (!tuple || tuple->plan.rule.in != ifindex)
			continue;
		tuple->asked = true;
		tuple->seen = (struct flower_seen){0};
	}
	return drops->ops.each(ifindex, on_filter, drops, drops->ops.userdata);
}

/* What has gone quiet has been dropped by somebody else, or is not sent any more; what never matched is not what is sent. */
static void count(struct drops *drops, struct tuple *tuple, uint64_t now)
{
	take(drops, tuple, &tuple->seen);
	tuple->quiet = tuple->round_packets < DROPS_QUIET ? tuple->quiet + 1 : 0;
	if (tuple->quiet < DROPS_QUIET_MAX)
		return;
	tuple->wanted = false;
	tuple->hot = 0;
	if (!tuple->packets)
		put_off(tuple, now);
	take_back(drops, tuple);
}

static void count_all(struct drops *drops, uint64_t now)
{
	for (unsigned i = 0; i < DROPS_MOST; i++)
		if (drops->slots[i])
			drops->slots[i]->asked = false;
	for (unsigned i = 0; i < DROPS_MOST; i++) {
		struct tuple *tuple = drops->slots[i];
		int r;

		if (!tuple || tuple->asked)
			continue;
		r = ask_device(drops, tuple->plan.rule.in);
		for (unsigned j = i; j < DROPS_MOST; j++) {
			struct tuple *other = drops->slots[j];

			if (!other || other->plan.rule.in != tuple->plan.rule.in)
				continue;
			if (r == 0 && other->seen.handle)
				continue;
			/* Somebody else took it out, or the NIC has it no more, or nobody can tell. */
			refused(drops, other, r < 0 ? r : -ENOENT, r < 0 ? "" : "the rule is not there any more", now);
			take_back(drops, other);
		}
	}
	for (unsigned i = 0; i < DROPS_MOST; i++)
		if (drops->slots[i])
			count(drops, drops->slots[i], now);
}

/* Whether the rule is the one that would be made now, as far as is known without asking a program. */
static bool holds(const struct drops *drops, const struct tuple *tuple)
{
	struct plan plan;

	return !tuple->stuck && make_plan(drops, &tuple->key, &plan) &&
	       memcmp(&plan.rule, &tuple->plan.rule, sizeof(plan.rule)) == 0 &&
	       memcmp(plan.ends, tuple->plan.ends, sizeof(plan.ends)) == 0 && plan.gateway == tuple->plan.gateway;
}

static bool holds_still(const struct drops *drops, const struct tuple *tuple)
{
	uint32_t rule;

	return holds(drops, tuple) && is_denied(drops, &tuple->plan, &rule) && rule == tuple->rule_id;
}

void drops_before(struct drops *drops)
{
	for (unsigned i = 0; i < DROPS_MOST; i++)
		if (drops->slots[i] && !holds(drops, drops->slots[i]))
			take_back(drops, drops->slots[i]);
}

static void look_again(struct drops *drops)
{
	for (unsigned i = 0; i < DROPS_MOST; i++)
		if (drops->slots[i] && !holds_still(drops, drops->slots[i]))
			take_back(drops, drops->slots[i]);
}

void drops_again(struct drops *drops)
{
	struct tuple *tuple, *next;

	look_again(drops);
	/* What was not to be had may be now. */
	HASH_ITER (hh, drops->tuples, tuple, next)
		if (!tuple->pause)
			tuple->retry = 0;
}

void drops_round(struct drops *drops)
{
	uint64_t now = now_of(drops);
	struct tuple *tuple, *next;

	/* After a pause, one shows whether it is worth while. */
	drops->budget = drops->tries.refusals < TRIES_IN_A_ROW ? DROPS_A_ROUND : !tries_paused(&drops->tries, now);
	drops->status.waiting = 0;
	count_all(drops, now);
	look_again(drops);
	weigh(drops);
	HASH_ITER (hh, drops->tuples, tuple, next) {
		if (tuple->wanted && !tuple->dropped)
			offer(drops, tuple, now);
		if (!tuple->dropped && !tuple->wanted && !tuple->hot && tuple->retry <= now)
			forget(drops, tuple);
	}
}

void drops_stop(struct drops *drops)
{
	for (unsigned i = 0; i < DROPS_MOST; i++)
		if (drops->slots[i])
			take_back(drops, drops->slots[i]);
}

void drops_leave(struct drops *drops, uint32_t ifindex)
{
	struct tuple *tuple, *next;

	HASH_ITER (hh, drops->tuples, tuple, next) {
		if (tuple->dropped && (tuple->key.in == ifindex || tuple->plan.ends[1].ifindex == ifindex))
			take_back(drops, tuple);
		if (!tuple->dropped && tuple->key.in == ifindex)
			forget(drops, tuple);
	}
}

void drops_yield(struct drops *drops)
{
	if (!drops->status.work.now)
		return;
	drops_stop(drops);
	tries_pause(&drops->tries, now_of(drops));
}

/* --- what is told --- */

void drops_status(const struct drops *drops, struct drops_status *ret)
{
	*ret = drops->status;
	ret->work.paused = tries_paused(&drops->tries, now_of(drops));
}

/* Few are asked for: each finds its place among those. */
size_t drops_list(const struct drops *drops, struct drops_item *items, size_t n)
{
	size_t filled = 0;

	for (unsigned i = 0; i < DROPS_MOST; i++) {
		const struct tuple *tuple = drops->slots[i];
		size_t at;

		if (!tuple)
			continue;
		for (at = filled; at > 0 && items[at - 1].packets < tuple->packets; at--)
			if (at < n)
				items[at] = items[at - 1];
		if (at < n)
			items[at] = (struct drops_item){.match = &tuple->key,
				.rule = tuple->rule_id,
				.packets = tuple->packets,
				.bytes = tuple->all_bytes};
		filled += filled < n;
	}
	return filled;
}
