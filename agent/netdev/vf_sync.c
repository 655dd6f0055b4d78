/* SPDX-License-Identifier: Apache-2.0 */
/* What VFs shall be like, and what they were: set, remembered, put back. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <netdev/vf.h>
#include <util/addr.h>
#include <util/buffer.h>
#include <util/cleanup.h>
#include <util/file.h>
#include <util/log.h>

#define FILE_NAME "vfs"
#define FILE_LIMIT (4u << 20)
#define VALUE_MAX 32

struct noted {
	char pf[20];
	uint32_t index;
	enum vf_knob knob;
	struct vf_values before, set; /* of the knob alone */
};

struct notes {
	struct noted *items;
	size_t n;
	bool changed;
};

/* --- the file: a line of the boot, then PF INDEX KNOB BEFORE SET --- */

static void write_value(const struct vf_values *values, enum vf_knob knob, char text[VALUE_MAX])
{
	switch (knob) {
	case VF_MAC:
		(void)mac_format(values->mac, text);
		break;
	case VF_VLAN:
		snprintf(text, VALUE_MAX, "%u,%u", values->vlan, values->qos);
		break;
	case VF_RATE:
		snprintf(text, VALUE_MAX, "%u,%u", values->min_rate, values->max_rate);
		break;
	case VF_SPOOF_CHECK:
		snprintf(text, VALUE_MAX, "%d", values->spoof_check);
		break;
	case VF_TRUST:
		snprintf(text, VALUE_MAX, "%d", values->trust);
		break;
	case VF_LINK_STATE:
	case VF_KNOBS:
		snprintf(text, VALUE_MAX, "%u", values->link_state);
		break;
	}
}

static bool read_value(const char *text, enum vf_knob knob, struct vf_values *ret)
{
	uint32_t a = 0, b = 0;
	int end = 0;

	*ret = (struct vf_values){0};
	if (knob == VF_MAC)
		return mac_parse(text, ret->mac);
	if (knob == VF_VLAN || knob == VF_RATE) {
		if (sscanf(text, "%" SCNu32 ",%" SCNu32 "%n", &a, &b, &end) != 2 || text[end])
			return false;
		ret->vlan = (uint16_t)a;
		ret->qos = (uint8_t)b;
		ret->min_rate = a;
		ret->max_rate = b;
		return knob == VF_RATE || (a < 4096 && b < 8);
	}
	if (sscanf(text, "%" SCNu32 "%n", &a, &end) != 1 || text[end] || a > VF_LINK_DISABLE)
		return false;
	ret->spoof_check = ret->trust = a;
	ret->link_state = (uint8_t)a;
	return true;
}

static struct noted *find(const struct notes *notes, const char *pf, uint32_t index, enum vf_knob knob)
{
	for (size_t i = 0; i < notes->n; i++)
		if (notes->items[i].index == index && notes->items[i].knob == knob && strcmp(notes->items[i].pf, pf) == 0)
			return &notes->items[i];
	return NULL;
}

static struct noted *add(struct notes *notes, const char *pf, uint32_t index, enum vf_knob knob)
{
	struct noted *grown = reallocarray(notes->items, notes->n + 1, sizeof(*grown));

	if (!grown)
		return NULL;
	notes->items = grown;
	grown = &notes->items[notes->n++];
	*grown = (struct noted){.index = index, .knob = knob};
	snprintf(grown->pf, sizeof(grown->pf), "%s", pf);
	notes->changed = true;
	return grown;
}

/* The last one takes its place. */
static void drop(struct notes *notes, struct noted *noted)
{
	if (!notes->items)
		return;
	*noted = notes->items[--notes->n];
	notes->changed = true;
}

static int take_line(const char *line, struct notes *to)
{
	char pf[20], name[16], before[VALUE_MAX], set[VALUE_MAX];
	struct noted noted = {0}, *added;

	/* Another version's line, or one that somebody else wrote: not ours to put back. */
	if (sscanf(line, "%19s %" SCNu32 " %15s %31s %31s", pf, &noted.index, name, before, set) != 5)
		return 0;
	while (noted.knob < VF_KNOBS && strcmp(vf_knob_names[noted.knob], name) != 0)
		noted.knob++;
	if (noted.knob == VF_KNOBS || find(to, pf, noted.index, noted.knob) || !read_value(before, noted.knob, &noted.before) ||
		!read_value(set, noted.knob, &noted.set))
		return 0;
	added = add(to, pf, noted.index, noted.knob);
	if (!added)
		return -ENOMEM;
	added->before = noted.before;
	added->set = noted.set;
	return 0;
}

static int read_notes(const char *path, const char *boot_id, struct notes *ret)
{
	_cleanup_free_ char *text = NULL;
	char *line, *rest;
	size_t length;
	int r = file_read(AT_FDCWD, path, FILE_LIMIT, &text, &length, NULL);

	if (r < 0)
		return r == -ENOENT ? 0 : r;
	line = strtok_r(text, "\n", &rest);
	/* Of an earlier boot: those VFs are gone. */
	if (!line || strcmp(line, boot_id) != 0) {
		ret->changed = true;
		return 0;
	}
	while (r == 0 && (line = strtok_r(NULL, "\n", &rest)))
		r = take_line(line, ret);
	ret->changed = false;
	return r;
}

static int write_notes(const char *path, const char *boot_id, struct notes *notes)
{
	_cleanup_buffer_ struct buffer text = {0};
	int r;

	if (!notes->changed)
		return 0;
	buffer_printf(&text, "%s\n", boot_id);
	for (size_t i = 0; i < notes->n; i++) {
		const struct noted *noted = &notes->items[i];
		char before[VALUE_MAX], set[VALUE_MAX];

		write_value(&noted->before, noted->knob, before);
		write_value(&noted->set, noted->knob, set);
		buffer_printf(
			&text, "%s %" PRIu32 " %s %s %s\n", noted->pf, noted->index, vf_knob_names[noted->knob], before, set);
	}
	if (text.failed)
		return -ENOMEM;
	if (notes->n)
		r = file_write(AT_FDCWD, path, text.data, text.length, 0600);
	else
		r = unlink(path) < 0 && errno != ENOENT ? -errno : 0;
	if (r == 0)
		notes->changed = false;
	return r;
}

/* --- what VFs are like, asked once a PF --- */

struct seen {
	uint32_t ifindex;
	struct vf_state *states;
	size_t n;
};

struct look {
	const struct vf_backend *backend;
	struct seen *items;
	size_t n;
};

static void look_clear(struct look *look)
{
	for (size_t i = 0; i < look->n; i++)
		free(look->items[i].states);
	free(look->items);
}

/* NULL: there is no such VF (any more). */
static struct vf_values *look_at(struct look *look, uint32_t ifindex, uint32_t index)
{
	struct seen *seen = NULL, *grown;

	for (size_t i = 0; i < look->n && !seen; i++)
		if (look->items[i].ifindex == ifindex)
			seen = &look->items[i];
	if (!seen) {
		grown = reallocarray(look->items, look->n + 1, sizeof(*grown));
		if (!grown)
			return NULL;
		look->items = grown;
		seen = &look->items[look->n++];
		*seen = (struct seen){.ifindex = ifindex};
		if (look->backend->read(look->backend->userdata, ifindex, &seen->states, &seen->n) < 0)
			seen->n = 0;
	}
	for (size_t i = 0; i < seen->n; i++)
		if (seen->states[i].index == index)
			return &seen->states[i].values;
	return NULL;
}

/* --- the difference --- */

static struct vf_wish *find_wish(struct vf_wish *wishes, size_t n, const struct noted *noted)
{
	for (size_t i = 0; i < n; i++)
		if (wishes[i].index == noted->index && wishes[i].values.has & 1u << noted->knob &&
			strcmp(wishes[i].pf, noted->pf) == 0)
			return &wishes[i];
	return NULL;
}

static void put_back(struct look *look, struct notes *notes, struct vf_wish *wishes, size_t n,
	uint32_t (*find_pf)(const char *pf, void *userdata), void *userdata)
{
	for (size_t i = notes->n; i-- > 0;) {
		const struct noted *noted = &notes->items[i];
		uint32_t ifindex;
		const struct vf_values *now;
		int r = 0;

		if (find_wish(wishes, n, noted))
			continue;
		ifindex = find_pf(noted->pf, userdata);
		now = ifindex ? look_at(look, ifindex, noted->index) : NULL;
		/* Whoever changed it since then wants it as it is; and a VF that was made anew is as it is made. */
		if (now && now->has & 1u << noted->knob && vf_same(now, &noted->set, noted->knob))
			r = look->backend->set(look->backend->userdata, ifindex, noted->index, noted->knob, &noted->before);
		if (r < 0)
			log_warn(r, "cannot set %s of VF %u of %s back", vf_knob_names[noted->knob], noted->index, noted->pf);
		drop(notes, &notes->items[i]);
	}
}

/* First all that is to change is noted and on disk, then it is changed. */
static int note_all(struct look *look, struct notes *notes, const struct vf_wish *wishes, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		const struct vf_values *now = look_at(look, wishes[i].pf_ifindex, wishes[i].index);

		for (enum vf_knob knob = 0; now && knob < VF_KNOBS; knob++) {
			struct noted *noted;

			if (!(wishes[i].values.has & 1u << knob) ||
				(now->has & 1u << knob && vf_same(now, &wishes[i].values, knob)))
				continue;
			noted = find(notes, wishes[i].pf, wishes[i].index, knob);
			/* What a driver does not tell cannot be put back. */
			if (!noted && !(now->has & 1u << knob))
				continue;
			if (!noted) {
				noted = add(notes, wishes[i].pf, wishes[i].index, knob);
				if (!noted)
					return -ENOMEM;
				noted->before = *now;
			}
			noted->set = wishes[i].values;
			notes->changed = true;
		}
	}
	return 0;
}

static void set_all(struct look *look, struct notes *notes, struct vf_wish *wishes, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		struct vf_values *now = look_at(look, wishes[i].pf_ifindex, wishes[i].index);

		for (enum vf_knob knob = 0; knob < VF_KNOBS; knob++) {
			struct noted *noted;
			int r;

			wishes[i].refused[knob] = 0;
			if (!(wishes[i].values.has & 1u << knob))
				continue;
			if (!now) {
				wishes[i].refused[knob] = -ENODEV;
				continue;
			}
			if (now->has & 1u << knob && vf_same(now, &wishes[i].values, knob))
				continue;
			r = look->backend->set(
				look->backend->userdata, wishes[i].pf_ifindex, wishes[i].index, knob, &wishes[i].values);
			if (r == 0)
				continue;
			wishes[i].refused[knob] = r;
			noted = find(notes, wishes[i].pf, wishes[i].index, knob);
			if (noted && vf_same(&noted->before, now, knob))
				drop(notes, noted); /* it is as it was: nothing to put back */
			else if (noted)
				noted->set = *now;
			notes->changed |= noted != NULL;
		}
	}
}

int vf_sync(const struct vf_backend *backend, const char *state_dir, const char *boot_id, struct vf_wish *wishes, size_t n,
	uint32_t (*find_pf)(const char *pf, void *userdata), void *userdata, size_t *ret_left)
{
	_cleanup_free_ char *path = NULL;
	struct look look = {.backend = backend};
	struct notes notes = {0};
	int r;

	if (asprintf(&path, "%s/" FILE_NAME, state_dir) < 0) {
		path = NULL;
		return -ENOMEM;
	}
	r = read_notes(path, boot_id, &notes);
	if (r == 0) {
		put_back(&look, &notes, wishes, n, find_pf, userdata);
		r = note_all(&look, &notes, wishes, n);
	}
	if (r == 0)
		r = write_notes(path, boot_id, &notes);
	if (r == 0) {
		set_all(&look, &notes, wishes, n);
		r = write_notes(path, boot_id, &notes);
	}
	*ret_left = notes.n;
	look_clear(&look);
	free(notes.items);
	return r < 0 ? log_err(r, "cannot set up VFs") : 0;
}
