// SPDX-License-Identifier: Apache-2.0
/*
 * The log: a first line with the version, then records:
 *
 *   VERB DEADLINE LENGTH HASH\n BODY \n
 *
 * VERB put, pending (DEADLINE: until when it must be confirmed), delete, confirm, rollback. BODY of put and pending:
 * {"items":[objects]}; of delete: KIND NAMESPACE NAME, "-" for no namespace. HASH covers all the rest of the record.
 */
#include <source/applied.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include <util/buffer.h>
#include <util/cleanup.h>
#include <util/clock.h>
#include <util/file.h>
#include <util/hash.h>
#include <util/log.h>

#define LOG_NAME "applied.log"
#define CNI_NAME "cni.log"
#define DAMAGED_SUFFIX ".damaged"
#define LOG_MAGIC "heddle-applied 1\n"
#define LOG_BYTES_MAX ((size_t)1 << 30)
#define COMPACT_FROM ((size_t)1 << 20)

enum verb { VERB_PUT, VERB_PENDING, VERB_DELETE, VERB_CONFIRM, VERB_ROLLBACK, VERB_COUNT };
static const char *const verb_names[VERB_COUNT] = {
	[VERB_PUT] = "put",
	[VERB_PENDING] = "pending",
	[VERB_DELETE] = "delete",
	[VERB_CONFIRM] = "confirm",
	[VERB_ROLLBACK] = "rollback",
};

struct state {
	struct object_list objects, before;
	bool pending;
	uint64_t deadline;
};

struct applied {
	char *path;	  /* of the log */
	const char *name; /* in its directory */
	int dir_fd;	  /* locked: one agent a state directory */
	int fd;
	size_t length, compacted_length;
	size_t replayed; /* objects in the records read at the start */
	struct state now;
	/* For applied_undo(). */
	struct state previous;
	size_t previous_length;
	bool can_undo;
};

static void state_clear(struct state *state)
{
	object_list_clear(&state->objects);
	object_list_clear(&state->before);
	*state = (struct state){0};
}

static int copy_list(struct object_list *to, const struct object_list *from)
{
	int r = 0;

	for (size_t i = 0; i < from->n && r == 0; i++)
		r = object_list_add(to, from->items[i]);
	return r;
}

static int state_copy(struct state *to, const struct state *from)
{
	int r = copy_list(&to->objects, &from->objects);

	if (r == 0)
		r = copy_list(&to->before, &from->before);
	to->pending = from->pending;
	to->deadline = from->deadline;
	return r;
}

/* --- what a record does --- */

static int state_put(struct state *state, struct object *const *objects, size_t n)
{
	struct object_list next = {0}, added = {0};
	size_t j = 0;
	int r = 0;

	for (size_t i = 0; i < n && r == 0; i++)
		r = object_list_add(&added, objects[i]);
	object_list_sort(&added);
	for (size_t i = 0; r == 0 && (i < state->objects.n || j < added.n);) {
		struct object *old = i < state->objects.n ? state->objects.items[i] : NULL;
		struct object *new = j < added.n ? added.items[j] : NULL;
		int order = !old ? 1 : !new ? -1 : object_compare(old, new);

		r = object_list_add(&next, order < 0 ? old : new);
		i += order <= 0;
		j += order >= 0;
	}
	object_list_clear(&added);
	if (r < 0) {
		object_list_clear(&next);
		return r;
	}
	object_list_clear(&state->objects);
	state->objects = next;
	return 0;
}

static int state_remove(struct state *state, enum object_kind kind, const char *namespace_, const char *name)
{
	const struct object *gone = object_list_find(&state->objects, kind, namespace_, name);
	struct object_list next = {0};
	int r = gone ? 0 : -ENOENT;

	for (size_t i = 0; r == 0 && i < state->objects.n; i++)
		if (state->objects.items[i] != gone)
			r = object_list_add(&next, state->objects.items[i]);
	if (r < 0) {
		object_list_clear(&next);
		return r;
	}
	object_list_clear(&state->objects);
	state->objects = next;
	return 0;
}

static int state_pend(struct state *state, uint64_t deadline)
{
	struct object_list before = {0};
	int r = copy_list(&before, &state->objects);

	if (r < 0) {
		object_list_clear(&before);
		return r;
	}
	object_list_clear(&state->before);
	state->before = before;
	state->pending = true;
	state->deadline = deadline;
	return 0;
}

static void state_settle(struct state *state, bool roll_back)
{
	if (roll_back) {
		object_list_clear(&state->objects);
		state->objects = state->before;
		state->before = (struct object_list){0};
	} else {
		object_list_clear(&state->before);
	}
	state->pending = false;
	state->deadline = 0;
}

/* --- writing --- */

static uint64_t record_hash(enum verb verb, uint64_t deadline, const char *body, size_t length)
{
	return hash_bytes(hash_u64(hash_string(1, verb_names[verb]), deadline), body, length);
}

static void write_record(struct buffer *out, enum verb verb, uint64_t deadline, const char *body, size_t length)
{
	buffer_printf(out, "%s %" PRIu64 " %zu %016" PRIx64 "\n", verb_names[verb], deadline, length,
		record_hash(verb, deadline, body, length));
	buffer_add(out, body, length);
	buffer_add_char(out, '\n');
}

/* Objects that are in `known` with the same content are left out. False: all of them. */
static bool write_objects(struct buffer *out, struct object *const *objects, size_t n, const struct object_list *known)
{
	bool first = true;

	buffer_add_string(out, "{\"items\":[");
	for (size_t i = 0; i < n; i++) {
		const struct object *there =
			known ? object_list_find(known, objects[i]->kind, objects[i]->namespace_, objects[i]->name) : NULL;

		if (there && object_equal(there, objects[i]))
			continue;
		buffer_add_string(out, first ? "\n" : ",\n");
		first = false;
		encode_text(objects[i], out);
	}
	buffer_add_string(out, "]}");
	return !first;
}

/* Adds a record and syncs it; when that fails the log is as it was. */
static int append(struct applied *applied, enum verb verb, uint64_t deadline, const char *body, size_t length)
{
	_cleanup_buffer_ struct buffer record = {0};
	int r;

	write_record(&record, verb, deadline, body, length);
	if (record.failed)
		return -ENOMEM;
	if (lseek(applied->fd, (off_t)applied->length, SEEK_SET) < 0)
		return -errno;
	r = file_write_all(applied->fd, record.data, record.length);
	if (r == 0 && fdatasync(applied->fd) < 0)
		r = -errno;
	if (r < 0) {
		if (ftruncate(applied->fd, (off_t)applied->length) < 0)
			log_err(-errno, "cannot cut off half a record of %s: the next start will", applied->path);
		return r;
	}
	applied->length += record.length;
	return 0;
}

/* --- reading --- */

struct record {
	enum verb verb;
	uint64_t deadline;
	const char *body;
	size_t length;
};

/* The record at text; its size, or 0 when it is damaged. */
static size_t parse_record(const char *text, size_t left, struct record *ret)
{
	char header[100], verb[16];
	uint64_t deadline, hash;
	size_t length, begin;
	int scanned = 0;
	const char *end = memchr(text, '\n', left < sizeof(header) ? left : sizeof(header));

	if (!end)
		return 0;
	/* A copy: sscanf() measures all of the text, which may be many MiB, each time. */
	begin = (size_t)(end - text) + 1;
	memcpy(header, text, begin - 1);
	header[begin - 1] = '\0';
	if (sscanf(header, "%15s %" SCNu64 " %zu %" SCNx64 "%n", verb, &deadline, &length, &hash, &scanned) != 4 ||
		header[scanned])
		return 0;
	if (length > left || left - length < begin + 1 || text[begin + length] != '\n')
		return 0;
	for (int i = 0; i < VERB_COUNT; i++) {
		if (strcmp(verb, verb_names[i]) != 0)
			continue;
		*ret = (struct record){.verb = (enum verb)i, .deadline = deadline, .body = text + begin, .length = length};
		return hash == record_hash(ret->verb, deadline, ret->body, length) ? begin + length + 1 : 0;
	}
	return 0;
}

static int replay(struct applied *applied, const char *file, const struct record *record, struct diag *diag)
{
	struct state *state = &applied->now;
	_cleanup_object_list_ struct object_list objects = {0};
	char text[600], kind[64], namespace_[256], name[256];
	int r, number;

	switch (record->verb) {
	case VERB_PENDING:
		r = state_pend(state, record->deadline);
		if (r < 0)
			return r;
		/* fall through */
	case VERB_PUT:
		r = decode_documents(NULL, record->body, record->length, &objects, diag);
		if (r == -EINVAL)
			diag_add(diag, file, 0, NULL, "want objects that this version reads, got the above");
		applied->replayed += objects.n;
		return r < 0 ? r : state_put(state, objects.items, objects.n);
	case VERB_DELETE:
		if (record->length >= sizeof(text))
			return -EINVAL;
		memcpy(text, record->body, record->length);
		text[record->length] = '\0';
		if (sscanf(text, "%63s %255s %255s", kind, namespace_, name) != 3)
			return -EINVAL;
		number = object_kind_from_name(kind);
		if (number < 0) {
			diag_add(diag, file, 0, NULL, "want a kind of object that this version knows, got %s", kind);
			return -EINVAL;
		}
		r = state_remove(state, (enum object_kind)number, strcmp(namespace_, "-") == 0 ? NULL : namespace_, name);
		return r == -ENOENT ? 0 : r;
	case VERB_CONFIRM:
	case VERB_ROLLBACK:
		if (state->pending)
			state_settle(state, record->verb == VERB_ROLLBACK);
		return 0;
	case VERB_COUNT:
		break;
	}
	return -EINVAL;
}

/*
 * A crash while writing damages the last record, which nobody was told of yet. One with a whole record behind it had been written and synced:
 * the disk has lost it, or somebody has changed it, and what follows is no better without it.
 */
static bool whole_record_follows(const char *text, size_t length)
{
	const char *end = text + length;
	struct record record;

	while ((text = memchr(text, '\n', (size_t)(end - text))) && ++text < end)
		if (parse_record(text, (size_t)(end - text), &record))
			return true;
	return false;
}

static int read_log(struct applied *applied, const char *file, const char *text, size_t length, struct diag *diag)
{
	size_t at = strlen(LOG_MAGIC);

	if (length < at || memcmp(text, LOG_MAGIC, at) != 0) {
		diag_add(diag, file, 1, NULL, "want \"heddle-applied 1\", got another file, or what a crash left of it");
		return -EINVAL;
	}
	while (at < length) {
		struct record record;
		size_t size = parse_record(text + at, length - at, &record);

		if (size == 0) {
			char damaged[64];
			int r;

			if (whole_record_follows(text + at, length - at)) {
				diag_add(diag, file, 0, NULL,
					"want whole records, got a damaged one at byte %zu, with others behind it that count: "
					"restore the file, or "
					"remove it to begin without what it has",
					at);
				return -EINVAL;
			}
			snprintf(damaged, sizeof(damaged), "%s" DAMAGED_SUFFIX, applied->name);
			r = file_write(applied->dir_fd, damaged, text + at, length - at, 0600);
			log_warn(r,
				"%s: %zu bytes at the end are damaged, as after a crash while writing; they are kept in "
				"%s" DAMAGED_SUFFIX,
				file, length - at, file);
			if (ftruncate(applied->fd, (off_t)at) < 0)
				return -errno;
			break;
		}
		int r = replay(applied, file, &record, diag);
		if (r < 0)
			return r;
		at += size;
	}
	applied->length = at;
	return 0;
}

static int open_log(struct applied *applied, struct diag *diag)
{
	_cleanup_free_ char *text = NULL;
	size_t length;
	int r;

	r = file_read(applied->dir_fd, applied->name, LOG_BYTES_MAX, &text, &length, NULL);
	if (r == -ENOENT) {
		r = file_write(applied->dir_fd, applied->name, LOG_MAGIC, strlen(LOG_MAGIC), 0600);
		applied->length = strlen(LOG_MAGIC);
	}
	if (r < 0)
		return r;
	applied->fd = openat(applied->dir_fd, applied->name, O_RDWR | O_CLOEXEC);
	if (applied->fd < 0)
		return -errno;
	if (applied->length == 0)
		r = read_log(applied, applied->path, text, length, diag);
	/* Roughly what would be left: the part of the objects in the records that still counts. */
	applied->compacted_length = applied->length / (applied->replayed + 1) * (applied->now.objects.n + 1);
	return r;
}

static int open_named(const char *state_dir, const char *name, bool lock, struct applied **ret, struct diag *diag)
{
	_cleanup_(applied_close_p) struct applied *applied = calloc(1, sizeof(*applied));
	int r;

	if (!applied)
		return -ENOMEM;
	applied->dir_fd = applied->fd = -1;
	applied->name = name;
	if (asprintf(&applied->path, "%s/%s", state_dir, name) < 0) {
		applied->path = NULL;
		return -ENOMEM;
	}
	r = file_make_directory(state_dir, 0700);
	if (r < 0)
		return r;
	applied->dir_fd = open(state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (applied->dir_fd < 0)
		return -errno;
	if (lock) {
		if (flock(applied->dir_fd, LOCK_EX | LOCK_NB) < 0)
			return errno == EWOULDBLOCK ? -EBUSY : -errno;
		file_remove_temporaries(applied->dir_fd);
	}
	r = open_log(applied, diag);
	if (r < 0)
		return r;
	if (applied->now.pending && clock_wall_us() >= applied->now.deadline) {
		log_notice("an apply was not confirmed in time: rolled back");
		r = applied_rollback(applied);
		if (r < 0)
			return r;
	}
	*ret = TAKE_PTR(applied);
	return 0;
}

int applied_open(const char *state_dir, struct applied **ret, struct diag *diag)
{
	return open_named(state_dir, LOG_NAME, true, ret, diag);
}

int applied_open_cni(const char *state_dir, struct applied **ret, struct diag *diag)
{
	return open_named(state_dir, CNI_NAME, false, ret, diag);
}

const char *applied_path(const struct applied *applied)
{
	return applied->path;
}

void applied_close(struct applied *applied)
{
	if (!applied)
		return;
	state_clear(&applied->now);
	state_clear(&applied->previous);
	safe_close(applied->fd);
	safe_close(applied->dir_fd);
	free(applied->path);
	free(applied);
}

const struct object_list *applied_objects(const struct applied *applied)
{
	return &applied->now.objects;
}

const struct object_list *applied_before(const struct applied *applied)
{
	return applied->now.pending ? &applied->now.before : NULL;
}

uint64_t applied_deadline(const struct applied *applied)
{
	return applied->now.pending ? applied->now.deadline : 0;
}

/* --- changes --- */

/* The record is on disk: the state that goes with it becomes the present one. */
static void take_state(struct applied *applied, struct state *next, size_t length_before)
{
	state_clear(&applied->previous);
	applied->previous = applied->now;
	applied->previous_length = length_before;
	applied->can_undo = true;
	applied->now = *next;
	*next = (struct state){0};
}

int applied_put(struct applied *applied, struct object *const *objects, size_t n, uint64_t deadline)
{
	_cleanup_buffer_ struct buffer body = {0};
	struct state next = {0};
	size_t length = applied->length;
	int r;

	if (applied->now.pending)
		return -EBUSY;
	r = state_copy(&next, &applied->now);
	if (r == 0 && deadline)
		r = state_pend(&next, deadline);
	if (r == 0)
		r = state_put(&next, objects, n);
	if (r == 0) {
		bool new = write_objects(&body, objects, n, &applied->now.objects);
		if (body.failed)
			r = -ENOMEM;
		else if (new || deadline)
			r = append(applied, deadline ? VERB_PENDING : VERB_PUT, deadline, body.data, body.length);
	}
	if (r == 0)
		take_state(applied, &next, length);
	state_clear(&next);
	return r;
}

int applied_remove(struct applied *applied, enum object_kind kind, const char *namespace_, const char *name)
{
	char body[600];
	struct state next = {0};
	size_t length = applied->length;
	int r;

	if (applied->now.pending)
		return -EBUSY;
	r = state_copy(&next, &applied->now);
	if (r == 0)
		r = state_remove(&next, kind, namespace_, name);
	if (r == 0) {
		int size = snprintf(body, sizeof(body), "%s %s %s", object_kind_name(kind), namespace_ ? namespace_ : "-", name);
		r = append(applied, VERB_DELETE, 0, body, (size_t)size);
	}
	if (r == 0)
		take_state(applied, &next, length);
	state_clear(&next);
	return r;
}

int applied_undo(struct applied *applied)
{
	if (!applied->can_undo)
		return -ENOENT;
	if (ftruncate(applied->fd, (off_t)applied->previous_length) < 0 || fdatasync(applied->fd) < 0)
		return -errno;
	applied->length = applied->previous_length;
	state_clear(&applied->now);
	applied->now = applied->previous;
	applied->previous = (struct state){0};
	applied->can_undo = false;
	return 0;
}

static int settle(struct applied *applied, enum verb verb)
{
	int r;

	if (!applied->now.pending)
		return -ENOENT;
	r = append(applied, verb, 0, "", 0);
	if (r < 0)
		return r;
	state_settle(&applied->now, verb == VERB_ROLLBACK);
	state_clear(&applied->previous);
	applied->can_undo = false;
	return 0;
}

int applied_confirm(struct applied *applied)
{
	return settle(applied, VERB_CONFIRM);
}

int applied_rollback(struct applied *applied)
{
	return settle(applied, VERB_ROLLBACK);
}

bool applied_wants_compaction(const struct applied *applied)
{
	return applied->length > applied->compacted_length * 2 + COMPACT_FROM;
}

/* One record an object: a log of many large objects stays within what the decoder takes at once. */
static int write_log(const struct applied *applied, struct buffer *text)
{
	const struct object_list *settled = applied->now.pending ? &applied->now.before : &applied->now.objects;
	_cleanup_buffer_ struct buffer body = {0};

	buffer_add_string(text, LOG_MAGIC);
	for (size_t i = 0; i < settled->n; i++) {
		body.length = 0;
		write_objects(&body, &settled->items[i], 1, NULL);
		if (body.failed)
			return -ENOMEM;
		write_record(text, VERB_PUT, 0, body.data, body.length);
	}
	if (applied->now.pending) {
		body.length = 0;
		write_objects(&body, applied->now.objects.items, applied->now.objects.n, settled);
		if (body.failed)
			return -ENOMEM;
		write_record(text, VERB_PENDING, applied->now.deadline, body.data, body.length);
	}
	return text->failed ? -ENOMEM : 0;
}

int applied_compact(struct applied *applied)
{
	_cleanup_buffer_ struct buffer text = {0};
	int r, fd = -1;

	r = write_log(applied, &text);
	if (r == 0)
		r = file_write(applied->dir_fd, applied->name, text.data, text.length, 0600);
	if (r < 0)
		return r;
	/* From here on the old descriptor is of a file without a name. */
	fd = openat(applied->dir_fd, applied->name, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	safe_close(applied->fd);
	applied->fd = fd;
	applied->length = applied->compacted_length = text.length;
	state_clear(&applied->previous);
	applied->can_undo = false;
	return 0;
}
