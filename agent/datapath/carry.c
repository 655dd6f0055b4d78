/* SPDX-License-Identifier: Apache-2.0 */
/* Contents of a map that is too small (or of an older list of reasons), copied to the one that takes its place. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include <datapath/internal.h>

#define CARRY_BATCH 1024u

static bool is_percpu(const struct map *map)
{
	return map->type == BPF_MAP_TYPE_PERCPU_ARRAY;
}

static size_t row_size(const struct map *map)
{
	size_t size = (map->value_size + 7u) & ~7u; /* as user space sees per-CPU values */
	int cpus = libbpf_num_possible_cpus();

	return is_percpu(map) ? size * (size_t)(cpus > 0 ? cpus : 1) : map->value_size;
}

int map_carry(const struct map *from, const struct map *to, const uint8_t *skip)
{
	uint32_t n = from->max_entries < to->max_entries ? from->max_entries : to->max_entries;
	size_t size = row_size(from);
	_cleanup_free_ uint8_t *values = malloc(size * CARRY_BATCH);
	uint32_t keys[CARRY_BATCH], cursor = 0;
	bool first = true;

	if (!values)
		return -ENOMEM;
	for (uint32_t done = 0; done < n;) {
		uint32_t count = n - done < CARRY_BATCH ? n - done : CARRY_BATCH, kept = 0;
		int r = bpf_map_lookup_batch(from->fd, first ? NULL : &cursor, &cursor, keys, values, &count, NULL);

		if (r < 0 && r != -ENOENT)
			return r;
		if (count == 0)
			break;
		first = false;
		done += count;
		for (uint32_t i = 0; i < count; i++) {
			if (keys[i] >= to->max_entries || (skip && skip[keys[i] / 8] & 1 << keys[i] % 8))
				continue;
			keys[kept] = keys[i];
			memmove(values + size * kept, values + size * i, size);
			kept++;
		}
		if (kept) {
			r = bpf_map_update_batch(to->fd, keys, values, &kept, NULL);
			if (r < 0)
				return r;
		}
	}
	return 0;
}
