/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The applied source: objects that came through the API, kept in `STATE_DIR/applied.log`; and the CNI plugin's ports, in a log
 * of their own. A change is one record, added and
 * synced before it goes live, so that a crash leaves all of it or nothing. The log is rewritten when most of it is history.
 *
 * An unconfirmed apply is on disk together with its deadline (wall clock): applied_open() past the deadline rolls it back.
 */
#ifndef HEDDLE_SOURCE_APPLIED_H
#define HEDDLE_SOURCE_APPLIED_H

#include <model/decode.h>
#include <model/object.h>

struct applied;

/*
 * Reads the log, or starts an empty one. Damaged records at the end (a crash while writing) are cut off and said in the log.
 * -EINVAL with diag: records that this version cannot decode; nothing is overwritten then.
 */
int applied_open(const char *state_dir, struct applied **ret, struct diag *diag);
/* The same for `STATE_DIR/cni.log`, in a directory that applied_open() has locked. Nothing in it is ever unconfirmed. */
int applied_open_cni(const char *state_dir, struct applied **ret, struct diag *diag);
void applied_close(struct applied *applied);
static inline void applied_close_p(struct applied **applied)
{
	applied_close(*applied);
}

/* As the disk says, sorted: what is in force, the unconfirmed ones included. Valid until the next call that changes something. */
const struct object_list *applied_objects(const struct applied *applied);
/* What was there before an unconfirmed apply; NULL: none waits. */
const struct object_list *applied_before(const struct applied *applied);
const char *applied_path(const struct applied *applied); /* of the log; valid while it is open */
/* Wall clock, microseconds since 1970, until which the unconfirmed apply must be confirmed; 0: none waits. */
uint64_t applied_deadline(const struct applied *applied);

/*
 * Records a change: objects created or replaced. deadline 0: for good. -EBUSY while another apply waits for its confirmation;
 * -EIO, -ENOSPC, … of the disk: nothing has changed.
 */
int applied_put(struct applied *applied, struct object *const *objects, size_t n, uint64_t deadline);
int applied_remove(
	struct applied *applied, enum object_kind kind, const char *namespace_, const char *name); /* -ENOENT, -EBUSY */
/* Takes the last applied_put() or applied_remove() back, when it could not be made live after all. Once. */
int applied_undo(struct applied *applied);

int applied_confirm(struct applied *applied);  /* -ENOENT: nothing waits */
int applied_rollback(struct applied *applied); /* to applied_before(); -ENOENT */

/* True: the log is mostly history. The controller then calls applied_compact() when it has time. */
bool applied_wants_compaction(const struct applied *applied);
int applied_compact(struct applied *applied);

#endif
