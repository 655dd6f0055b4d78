/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which flows are offloaded: by rounds over the flow table, a bounded piece and a bounded number of new rules in each. A flow is two rules, both or
 * none. The flow table stays what counts: rules are there only as long as the plan says the same of the flow as it is now.
 */
#ifndef HEDDLE_OFFLOAD_MANAGER_H
#define HEDDLE_OFFLOAD_MANAGER_H

#include <offload/flower.h>
#include <offload/nic.h>

#define OFFLOAD_ROUND_MS 1000
#define OFFLOAD_LOOK_MS 100 /* between two looks whether a TCP connection ends */

/* The world: the kernel's filters and the flow table. Replaced in tests. All return 0 or a negative errno unless told otherwise. */
struct offload_ops {
	int (*add)(const struct flower_filter *filter, char reason[FLOWER_REASON_MAX], void *userdata);
	int (*remove)(
		const struct flower_filter *filter, struct flower_seen *seen, void *userdata); /* seen: what it counted at last */
	int (*each)(uint32_t ifindex, void (*cb)(const struct flower_seen *seen, void *data), void *data, void *userdata);
	int (*again)(struct datapath_flow *flow, void *userdata); /* as datapath_flow_again() */
	int (*credit)(const struct datapath_flow *flow, const uint64_t packets[2], const uint64_t bytes[2], unsigned flags,
		void *userdata);
	int (*walk)(uint32_t *cursor, datapath_flow_cb cb, void *data, void *userdata); /* as datapath_proven() */
	/* Of n proven TCP flows, which ones are established still. */
	int (*established)(const struct datapath_flow *const *flows, size_t n, bool *ret, void *userdata);
	uint64_t (*now_ms)(void *userdata);
	void *userdata;
};

struct offload_limits {
	unsigned flows;	  /* offloaded at once */
	unsigned a_round; /* new ones */
	unsigned header;  /* bytes of a frame that the kernel counts and the flow table does not */
};

struct offload;
/* world stays the caller's: what it says may change, then offload_again(). */
int offload_new(const struct offload_ops *ops, const struct offload_world *world, const struct offload_limits *limits,
	struct offload **ret);
void offload_free(struct offload *offload); /* leaves rules where they are: offload_stop() */

/* Counters, what has gone, what may come. True: there is something to be looked at until the next one (OFFLOAD_LOOK_MS). */
bool offload_round(struct offload *offload);
/* Takes back connections that end: their last packets are the programs'. True as above. */
bool offload_look(struct offload *offload);
/* Something that the plan goes by changes, or has changed: whatever does not hold any more (or, ahead of a change, will not) is taken back at once. */
void offload_again(struct offload *offload);
/* Everything, or all that has an end there, goes back to software. */
void offload_stop(struct offload *offload);
void offload_leave(struct offload *offload, uint32_t ifindex);

bool offload_has(const struct offload *offload, const struct datapath_flow *flow);

struct offload_status {
	uint64_t flows
		[OFFLOAD_REASON_COUNT]; /* by why they are where they are, as the last walk over the whole table found them */
	struct nic_work work;
};
void offload_status(const struct offload *offload, struct offload_status *ret);

#endif
