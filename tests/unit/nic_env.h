/* SPDX-License-Identifier: Apache-2.0 */
/* A NIC that is made up, for what gives it rules: one that takes them, refuses them, loses them. Included once by a test. */
#ifndef HEDDLE_TESTS_NIC_ENV_H
#define HEDDLE_TESTS_NIC_ENV_H

#include <errno.h>
#include <stdio.h>

#include <offload/flower.h>

#define NIC_RULES 1040

struct nic {
	struct flower_filter rules[NIC_RULES];
	struct flower_seen counts[NIC_RULES];
	unsigned n_rules;
	int refuse; /* everything; or what goes out by refuse_out alone */
	uint32_t refuse_out;
	int keep; /* what is to be removed */
	int cannot_tell;
};

static int nic_find(const struct nic *nic, uint32_t ifindex, uint32_t handle)
{
	for (unsigned i = 0; i < nic->n_rules; i++)
		if (nic->rules[i].rule.in == ifindex && nic->rules[i].handle == handle)
			return (int)i;
	return -1;
}

static void nic_lose(struct nic *nic, int at)
{
	nic->n_rules--;
	nic->rules[at] = nic->rules[nic->n_rules];
	nic->counts[at] = nic->counts[nic->n_rules];
}

static int nic_add(struct nic *nic, const struct flower_filter *filter, char reason[FLOWER_REASON_MAX])
{
	assert_int_equal(nic_find(nic, filter->rule.in, filter->handle), -1);
	if (nic->refuse && (!nic->refuse_out || nic->refuse_out == filter->rule.out)) {
		snprintf(reason, FLOWER_REASON_MAX, "no room in the NIC");
		return nic->refuse;
	}
	assert_true(nic->n_rules < NIC_RULES);
	nic->rules[nic->n_rules] = *filter;
	nic->counts[nic->n_rules++] = (struct flower_seen){
		.ifindex = filter->rule.in, .handle = filter->handle, .ours = true, .family = filter->rule.family};
	return 0;
}

static int nic_remove(struct nic *nic, const struct flower_filter *filter, struct flower_seen *seen)
{
	int at = nic_find(nic, filter->rule.in, filter->handle);

	if (at < 0)
		return -ENOENT;
	*seen = nic->counts[at];
	if (nic->keep)
		return nic->keep;
	nic_lose(nic, at);
	return 0;
}

static int nic_each(const struct nic *nic, uint32_t ifindex, void (*cb)(const struct flower_seen *seen, void *data), void *data)
{
	for (unsigned i = 0; i < nic->n_rules && !nic->cannot_tell; i++)
		if (nic->rules[i].rule.in == ifindex)
			cb(&nic->counts[i], data);
	return nic->cannot_tell;
}

#endif
