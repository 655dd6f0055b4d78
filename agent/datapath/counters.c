/* SPDX-License-Identifier: Apache-2.0 */
/* Counters, summed over CPUs, and the rules they belong to. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include <datapath/internal.h>

#define COUNTER_BATCH 512u

/*
 * Rows first..first+n-1 of a per-CPU array of `words` 64-bit numbers, summed into sums[row * words + word]. Rows that the
 * map does not have stay as they are.
 */
static int sum_rows(const struct map *map, uint32_t first, uint32_t n, unsigned words, __u64 *sums)
{
	int cpus = libbpf_num_possible_cpus();
	_cleanup_free_ __u64 *values = NULL;
	uint32_t keys[COUNTER_BATCH], cursor = first - 1;
	bool start = first == 0;

	if (cpus < 1)
		return cpus;
	if (map->fd < 0 || map->value_size != words * sizeof(__u64) || first >= map->max_entries)
		return map->fd < 0 ? -ENOTCONN : 0;
	if (n > map->max_entries - first)
		n = map->max_entries - first;
	values = malloc(COUNTER_BATCH * words * sizeof(__u64) * (size_t)cpus);
	if (!values)
		return -ENOMEM;
	for (uint32_t done = 0; done < n;) {
		uint32_t count = n - done < COUNTER_BATCH ? n - done : COUNTER_BATCH;

		/* The cursor of an array is the last index read. */
		if (bpf_map_lookup_batch(map->fd, start ? NULL : &cursor, &cursor, keys, values, &count, NULL) < 0 &&
			errno != ENOENT)
			return -errno;
		if (count == 0)
			break;
		start = false;
		for (uint32_t i = 0; i < count; i++)
			for (int cpu = 0; cpu < cpus; cpu++)
				for (unsigned word = 0; word < words; word++)
					sums[(keys[i] - first) * words + word] +=
						values[(i * (uint32_t)cpus + (uint32_t)cpu) * words + word];
		done += count;
	}
	return 0;
}

static const struct map *readable_map(const struct datapath *dp, unsigned index)
{
	static const struct map none = {.fd = -1};
	const struct load *load = load_readable(dp);

	return load ? &load->maps[index] : &none;
}

int datapath_drops(struct datapath *dp, struct hd_counter counters[HD_REASON_COUNT][2])
{
	memset(counters, 0, sizeof(counters[0]) * HD_REASON_COUNT);
	return sum_rows(readable_map(dp, MAP_DROPS), 0, HD_REASON_COUNT * 2, 2, &counters[0][0].packets);
}

int datapath_totals(struct datapath *dp, struct hd_counter totals[HD_TOTAL_COUNT])
{
	memset(totals, 0, sizeof(totals[0]) * HD_TOTAL_COUNT);
	return sum_rows(readable_map(dp, MAP_TOTALS), 0, HD_TOTAL_COUNT, 2, &totals[0].packets);
}

int datapath_full(struct datapath *dp, uint64_t counts[HD_TABLE_COUNT])
{
	__u64 sums[HD_TABLE_COUNT] = {0};
	int r = sum_rows(readable_map(dp, MAP_FULL), 0, HD_TABLE_COUNT, 1, sums);

	for (size_t i = 0; i < HD_TABLE_COUNT; i++)
		counts[i] = sums[i];
	return r;
}

int datapath_rule_counters(struct datapath *dp, uint32_t first, uint32_t n, struct hd_counter *counters)
{
	memset(counters, 0, sizeof(*counters) * n);
	return sum_rows(readable_map(dp, MAP_RULE_COUNTERS), first, n, 2, &counters[0].packets);
}

int datapath_peer_counters(struct datapath *dp, uint32_t first, uint32_t n, struct hd_peer_counters *counters)
{
	static_assert(sizeof(*counters) % sizeof(__u64) == 0, "words");
	memset(counters, 0, sizeof(*counters) * n);
	return sum_rows(
		readable_map(dp, MAP_PEER_COUNTERS), first, n, sizeof(*counters) / sizeof(__u64), &counters[0].passed[0].packets);
}

int datapath_rules(struct datapath *dp, datapath_rule_cb cb, void *userdata)
{
	const struct map *map = readable_map(dp, MAP_RULES);
	size_t page = (size_t)sysconf(_SC_PAGESIZE), length;
	const struct hd_rule_info *rules;
	int r = 0;

	if (map->fd < 0 || map->value_size != sizeof(*rules))
		return 0;
	length = (map->max_entries * sizeof(*rules) + page - 1) & ~(page - 1);
	rules = mmap(NULL, length, PROT_READ, MAP_SHARED, map->fd, 0);
	if (rules == MAP_FAILED)
		return log_err(-errno, "cannot read the rules of the earlier agent");
	for (uint32_t id = HD_RULE_FIRST; id < map->max_entries && r == 0; id++)
		if (rules[id].key)
			r = cb(id, &rules[id], userdata);
	munmap((void *)(uintptr_t)rules, length);
	return r;
}

int datapath_fast_counters(struct datapath *dp, uint16_t index, struct hd_counter ret[HD_FAST_TOTALS])
{
	memset(ret, 0, sizeof(*ret) * HD_FAST_TOTALS);
	return sum_rows(
		readable_map(dp, MAP_FAST_COUNTERS), HD_FAST_COUNTER((uint32_t)index, 0), HD_FAST_TOTALS, 2, &ret[0].packets);
}

int datapath_fast_redirects(struct datapath *dp, uint16_t index, struct hd_counter *ret)
{
	*ret = (struct hd_counter){0};
	return sum_rows(readable_map(dp, MAP_FAST_REDIRECTS), index, 1, 2, &ret->packets);
}
