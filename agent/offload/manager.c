/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <netinet/in.h>

/* Out of memory leaves a flow in software. */
#define HASH_NONFATAL_OOM 1
#define uthash_nonfatal_oom(element) ((element)->lost = true)
#include <uthash.h>

#include <offload/manager.h>
#include <util/cleanup.h>
#include <util/log.h>

/* A flow that is offloaded, or was refused. */
struct entry {
	struct datapath_flow_key key;
	uint32_t id; /* of its rules: the handles are 2 * id and the one behind it */
	struct datapath_flow flow;
	struct offload_rule rules[2];
	uint64_t packets[2], bytes[2]; /* counted by its rules up to now */
	struct flower_seen seen[2];    /* what the kernel told of them in this round; handle 0: nothing */
	bool offloaded;
	bool walked;	/* seen since the last walk over the table began */
	uint64_t retry; /* ms; refused until then */
	uint32_t pause;
	bool lost; /* set by uthash when it found no memory */
	UT_hash_handle hh, by_id;
};

struct device {
	uint32_t ifindex;
	unsigned rules;
};

/* What NICs can or cannot: between ports, to the wire, to peers. */
#define KINDS 3

struct offload {
	struct offload_ops ops;
	const struct offload_world *world;
	struct offload_limits limits;
	struct entry *entries, *ids;
	struct device *devices;
	size_t n_devices;
	uint32_t last_id, cursor;
	unsigned budget; /* of this round */
	struct tries tries[KINDS];
	uint64_t counts[OFFLOAD_REASON_COUNT]; /* of the walk that is under way */
	struct offload_status status;
};

int offload_new(const struct offload_ops *ops, const struct offload_world *world, const struct offload_limits *limits,
	struct offload **ret)
{
	struct offload *offload = calloc(1, sizeof(*offload));

	if (!offload)
		return -ENOMEM;
	offload->ops = *ops;
	offload->world = world;
	offload->limits = *limits;
	*ret = offload;
	return 0;
}

static void forget(struct offload *offload, struct entry *entry)
{
	HASH_DEL(offload->entries, entry);
	HASH_DELETE(by_id, offload->ids, entry); /* NOLINT(clang-analyzer-core.NullDereference) */
	free(entry);
}

void offload_free(struct offload *offload)
{
	struct entry *entry, *next;

	if (!offload)
		return;
	HASH_ITER (hh, offload->entries, entry, next)
		forget(offload, entry);
	free(offload->devices);
	free(offload);
}

static struct entry *find(const struct offload *offload, const struct datapath_flow *flow)
{
	struct datapath_flow_key key = datapath_flow_key(flow);
	struct entry *entry;

	HASH_FIND(hh, offload->entries, &key, sizeof(key), entry);
	return entry;
}

static struct entry *find_or_make(struct offload *offload, const struct datapath_flow *flow)
{
	struct entry *entry = find(offload, flow);

	if (entry)
		return entry;
	entry = calloc(1, sizeof(*entry));
	if (!entry)
		return NULL;
	entry->key = datapath_flow_key(flow);
	/* Handles are 31 bits, and 0 is none. A number that is in use still, once round, is refused by the kernel. */
	offload->last_id = offload->last_id % 0x3fffffff + 1;
	entry->id = offload->last_id;
	HASH_ADD(hh, offload->entries, key, sizeof(entry->key), entry);
	if (!entry->lost)
		HASH_ADD(by_id, offload->ids, id, sizeof(entry->id), entry);
	if (!entry->lost)
		return entry;
	/* Which of the two has failed does not matter: what is not in a table is not taken out of it. */
	if (entry->hh.tbl)
		HASH_DEL(offload->entries, entry);
	free(entry);
	return NULL;
}

/* --- rules --- */

static int note_device(struct offload *offload, uint32_t ifindex, int change)
{
	struct device *grown;

	for (size_t i = 0; i < offload->n_devices; i++) {
		if (offload->devices[i].ifindex != ifindex)
			continue;
		offload->devices[i].rules += (unsigned)change;
		if (!offload->devices[i].rules)
			offload->devices[i] = offload->devices[--offload->n_devices];
		return 0;
	}
	grown = reallocarray(offload->devices, offload->n_devices + 1, sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	offload->devices = grown;
	offload->devices[offload->n_devices++] = (struct device){.ifindex = ifindex, .rules = (unsigned)change};
	return 0;
}

static struct flower_filter filter_of(const struct entry *entry, unsigned side)
{
	return (struct flower_filter){.rule = entry->rules[side], .handle = 2 * entry->id + side};
}

/* What the rule of that side counts in addition to what is known; true: something. */
static bool take(struct offload *offload, struct entry *entry, unsigned side, const struct flower_seen *seen, uint64_t packets[2],
	uint64_t bytes[2])
{
	uint64_t header, all;

	if (seen->packets <= entry->packets[side])
		return false;
	packets[side] = seen->packets - entry->packets[side];
	all = seen->bytes > entry->bytes[side] ? seen->bytes - entry->bytes[side] : 0;
	header = packets[side] * offload->limits.header;
	bytes[side] = all > header ? all - header : 0;
	entry->packets[side] = seen->packets;
	entry->bytes[side] = seen->bytes;
	offload->status.work.packets += packets[side];
	offload->status.work.bytes += bytes[side];
	return true;
}

static void remove_rule(struct offload *offload, struct entry *entry, unsigned side, uint64_t packets[2], uint64_t bytes[2])
{
	struct flower_filter filter = filter_of(entry, side);
	struct flower_seen seen = {0};
	int r = offload->ops.remove(&filter, &seen, offload->ops.userdata);

	offload->status.work.rules_removed++;
	(void)note_device(offload, entry->rules[side].in, -1);
	(void)take(offload, entry, side, &seen, packets, bytes);
	/* Its device has gone, and the rule with it. */
	if (r < 0 && r != -ENOENT && r != -ENODEV && r != -EINVAL)
		log_err(r, "cannot take a flow back from the NIC: the rule %#x of interface %u stays", filter.handle,
			filter.rule.in);
}

/* Both rules go. What they counted since the last round is still the flow's; that it was alive then says no more than that it was. */
static void take_back(struct offload *offload, struct entry *entry)
{
	uint64_t packets[2] = {0}, bytes[2] = {0};

	if (!entry->offloaded)
		return;
	for (unsigned side = HD_ORIG; side <= HD_REPLY; side++)
		remove_rule(offload, entry, side, packets, bytes);
	entry->offloaded = false;
	offload->status.work.now--;
	if (packets[HD_ORIG] || packets[HD_REPLY])
		(void)offload->ops.credit(&entry->flow, packets, bytes, 0, offload->ops.userdata);
}

static struct tries *tries_of(struct offload *offload, const struct offload_rule rules[2])
{
	static const uint8_t kinds[] = {
		[OFFLOAD_INSIDE] = 0, [OFFLOAD_TAG] = 1, [OFFLOAD_UNTAG] = 1, [OFFLOAD_ENCAP] = 2, [OFFLOAD_DECAP] = 2};

	return &offload->tries[kinds[rules[HD_ORIG].outside]];
}

static void refused(struct offload *offload, struct entry *entry, int r, const char *reason, uint64_t now)
{
	static struct log_limit limit = {.burst = 5, .interval_ms = 60000};
	bool news = nic_refused(&offload->status.work, r, reason);

	entry->pause = tries_longer(entry->pause);
	entry->retry = now + entry->pause;
	if (news && log_limit_pass(&limit, NULL))
		log_info("a flow stays in software, the NIC does not take it: %s", reason[0] ? reason : strerror(-r));
	tries_refused(tries_of(offload, entry->rules), now);
}

static int add_rules(struct offload *offload, struct entry *entry, char reason[FLOWER_REASON_MAX])
{
	static const uint64_t none[2];
	uint64_t packets[2] = {0}, bytes[2] = {0};
	int r = 0;

	reason[0] = '\0';
	memset(entry->packets, 0, sizeof(entry->packets));
	memset(entry->bytes, 0, sizeof(entry->bytes));
	/* From the first packet on that no program sees. */
	r = offload->ops.credit(&entry->flow, none, none, HD_CREDIT_BEGINS, offload->ops.userdata);
	for (unsigned side = HD_ORIG; side <= HD_REPLY && r == 0; side++) {
		struct flower_filter filter = filter_of(entry, side);

		r = note_device(offload, entry->rules[side].in, 1);
		if (r == 0) {
			r = offload->ops.add(&filter, reason, offload->ops.userdata);
			if (r < 0)
				(void)note_device(offload, entry->rules[side].in, -1);
		}
		if (r == 0)
			offload->status.work.rules_added++;
		else if (side == HD_REPLY)
			remove_rule(offload, entry, HD_ORIG, packets, bytes);
	}
	if (packets[HD_ORIG])
		(void)offload->ops.credit(&entry->flow, packets, bytes, HD_CREDIT_SEEN, offload->ops.userdata);
	return r;
}

static enum offload_reason offer(struct offload *offload, const struct datapath_flow *flow, const struct offload_rule rules[2])
{
	uint64_t now = offload->ops.now_ms(offload->ops.userdata);
	struct entry *entry = find(offload, flow);
	char reason[FLOWER_REASON_MAX];
	int r;

	if (entry && entry->retry > now)
		return OFFLOAD_REFUSED;
	if (tries_paused(tries_of(offload, rules), now))
		return OFFLOAD_REFUSED;
	if (offload->status.work.now >= offload->limits.flows)
		return OFFLOAD_FULL;
	if (!offload->budget)
		return OFFLOAD_WAITING;
	offload->budget--;
	entry = find_or_make(offload, flow);
	if (!entry)
		return OFFLOAD_WAITING;
	entry->flow = *flow;
	memcpy(entry->rules, rules, sizeof(entry->rules));
	entry->walked = true;
	r = add_rules(offload, entry, reason);
	if (r == -ENOENT && !reason[0] && offload->ops.again(&entry->flow, offload->ops.userdata) < 0)
		return OFFLOAD_STATE; /* it has ended meanwhile */
	if (r < 0) {
		refused(offload, entry, r, reason, now);
		return OFFLOAD_REFUSED;
	}
	entry->offloaded = true;
	entry->retry = entry->pause = 0;
	offload->status.work.now++;
	*tries_of(offload, rules) = (struct tries){0};
	return OFFLOAD_NONE;
}

/* --- rounds --- */

static void on_filter(const struct flower_seen *seen, void *userdata)
{
	struct offload *offload = userdata;
	uint32_t id = seen->handle / 2;
	unsigned side = seen->handle & 1;
	struct entry *entry;

	HASH_FIND(by_id, offload->ids, &id, sizeof(id), entry);
	if (!entry || !entry->offloaded || entry->rules[side].in != seen->ifindex || seen->lost)
		return;
	entry->seen[side] = *seen;
}

static void give_credit(struct offload *offload, struct entry *entry)
{
	uint64_t packets[2] = {0}, bytes[2] = {0};
	bool news = false;

	for (unsigned side = HD_ORIG; side <= HD_REPLY; side++)
		news |= take(offload, entry, side, &entry->seen[side], packets, bytes);
	if (news)
		(void)offload->ops.credit(&entry->flow, packets, bytes, HD_CREDIT_SEEN, offload->ops.userdata);
}

/* Whether the rules are those that the flow would get now. */
static bool holds(struct offload *offload, struct entry *entry)
{
	struct offload_rule rules[2];

	if (offload->ops.again(&entry->flow, offload->ops.userdata) < 0)
		return false;
	return offload_plan(&entry->flow, offload->world, rules) == OFFLOAD_NONE &&
	       memcmp(rules, entry->rules, sizeof(rules)) == 0;
}

/* What has ended is forgotten; what will be offered again is not: it may have been refused. */
static void drop(struct offload *offload, struct entry *entry)
{
	take_back(offload, entry);
	forget(offload, entry);
}

static void count_all(struct offload *offload)
{
	static struct log_limit limit = {.burst = 1, .interval_ms = 60000};
	uint64_t now = offload->ops.now_ms(offload->ops.userdata);
	struct entry *entry, *next;
	int r = 0;

	HASH_ITER (hh, offload->entries, entry, next)
		memset(entry->seen, 0, sizeof(entry->seen));
	for (size_t i = 0; i < offload->n_devices && r == 0; i++)
		r = offload->ops.each(offload->devices[i].ifindex, on_filter, offload, offload->ops.userdata);
	if (r < 0 && log_limit_pass(&limit, NULL))
		log_warn(r, "cannot read what the NIC has counted: flows go back to software");
	HASH_ITER (hh, offload->entries, entry, next) {
		if (!entry->offloaded)
			continue;
		if (entry->seen[HD_ORIG].handle && entry->seen[HD_REPLY].handle) {
			give_credit(offload, entry);
			continue;
		}
		/* Somebody else took it out, or the NIC has it no more, or nobody can tell. */
		take_back(offload, entry);
		refused(offload, entry, r < 0 ? r : -ENOENT, r < 0 ? "" : "the rule is not there any more", now);
	}
}

void offload_again(struct offload *offload)
{
	struct entry *entry, *next;

	HASH_ITER (hh, offload->entries, entry, next)
		if (entry->offloaded && !holds(offload, entry))
			drop(offload, entry);
}

static int on_flow(const struct datapath_flow *flow, void *userdata)
{
	struct offload *offload = userdata;
	struct entry *entry = find(offload, flow);
	struct offload_rule rules[2];
	enum offload_reason reason;

	if (entry && entry->flow.flow.epoch != flow->flow.epoch) {
		drop(offload, entry);
		entry = NULL;
	}
	if (entry)
		entry->walked = true;
	if (entry && entry->offloaded) {
		offload->counts[OFFLOAD_NONE]++;
		return 0;
	}
	reason = offload_plan(flow, offload->world, rules);
	if (reason == OFFLOAD_NONE)
		reason = offer(offload, flow, rules);
	offload->counts[reason]++;
	return 0;
}

/* A piece of the table. After the last one it is known what all of it is like. */
static void walk(struct offload *offload)
{
	struct entry *entry, *next;
	int r = offload->ops.walk(&offload->cursor, on_flow, offload, offload->ops.userdata);

	if (r != 0)
		return;
	memcpy(offload->status.flows, offload->counts, sizeof(offload->counts));
	memset(offload->counts, 0, sizeof(offload->counts));
	HASH_ITER (hh, offload->entries, entry, next) {
		if (!entry->walked && !entry->offloaded)
			forget(offload, entry);
		else
			entry->walked = false;
	}
}

bool offload_round(struct offload *offload)
{
	offload->budget = offload->limits.a_round;
	if (offload->status.work.now)
		count_all(offload);
	offload_again(offload);
	walk(offload);
	return offload->status.work.now > 0;
}

bool offload_look(struct offload *offload)
{
	const struct datapath_flow **flows __attribute__((cleanup(free_p))) =
		calloc(offload->status.work.now + 1, sizeof(struct datapath_flow *));
	struct entry **entries __attribute__((cleanup(free_p))) = calloc(offload->status.work.now + 1, sizeof(struct entry *));
	_cleanup_free_ bool *established = calloc(offload->status.work.now + 1, sizeof(*established));
	struct entry *entry, *next;
	size_t n = 0;

	if (!flows || !entries || !established)
		return offload->status.work.now > 0;
	HASH_ITER (hh, offload->entries, entry, next) {
		if (!entry->offloaded || entry->flow.protocol != IPPROTO_TCP)
			continue;
		flows[n] = &entry->flow;
		entries[n++] = entry;
	}
	if (n && offload->ops.established(flows, n, established, offload->ops.userdata) == 0)
		for (size_t i = 0; i < n; i++)
			if (!established[i])
				drop(offload, entries[i]);
	return offload->status.work.now > 0;
}

void offload_stop(struct offload *offload)
{
	struct entry *entry, *next;

	HASH_ITER (hh, offload->entries, entry, next)
		drop(offload, entry);
	memset(offload->counts, 0, sizeof(offload->counts));
	memset(offload->status.flows, 0, sizeof(offload->status.flows));
	offload->cursor = 0;
}

void offload_leave(struct offload *offload, uint32_t ifindex)
{
	struct entry *entry, *next;

	HASH_ITER (hh, offload->entries, entry, next)
		if (entry->rules[HD_ORIG].in == ifindex || entry->rules[HD_ORIG].out == ifindex)
			drop(offload, entry);
}

bool offload_has(const struct offload *offload, const struct datapath_flow *flow)
{
	const struct entry *entry = find(offload, flow);

	return entry && entry->offloaded && entry->flow.flow.epoch == flow->flow.epoch;
}

void offload_status(const struct offload *offload, struct offload_status *ret)
{
	*ret = offload->status;
	for (unsigned i = 0; i < KINDS; i++)
		ret->work.paused |= tries_paused(&offload->tries[i], offload->ops.now_ms(offload->ops.userdata));
}
