/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file source: the PATHs of `heddled --config`, each a file or a directory (`*.yaml`, `*.yml`, `*.json` in name order;
 * hidden files are ignored; missing or empty is valid). Symbolic links are followed, so that a mounted Kubernetes ConfigMap
 * works.
 *
 * A round: files_load() → the controller makes the objects live → files_save(), or files_discard() when they were refused.
 */
#ifndef HEDDLE_SOURCE_FILES_H
#define HEDDLE_SOURCE_FILES_H

#include <model/decode.h>
#include <model/object.h>

struct files;
struct sd_event;

/* Something under the paths may have changed (many changes within 50 ms are told once). Called from the event loop. */
typedef void (*files_changed)(void *userdata);

int files_new(const char *const *paths, size_t n, struct files **ret);
void files_free(struct files *files);
static inline void files_free_p(struct files **files)
{
	files_free(*files);
}

/*
 * Starts to watch. A failure (too few inotify watches) leaves everything else working: changes are then seen at SIGHUP only.
 * Watches follow directories that come, go or are replaced, and the symbolic links on the way.
 */
int files_watch(struct files *files, struct sd_event *event, files_changed changed, void *userdata);

/*
 * Reads and decodes what is there now. A file that has not changed since the last load is not decoded again: its objects are
 * the same pointers. 0, or an error with the mistakes in diag and nothing added: -EINVAL for documents, the errno for a file that
 * cannot be read. What several files say together is checked by store_propose_files().
 */
int files_load(struct files *files, struct object_list *list, struct diag *diag);

/*
 * What was loaded last is in force: keeps it as the last good state under state_dir. Writes only files that changed; syncs; not
 * needed for the answer to anybody, so do it after the policy is live. 0 at once when nothing changed; -ESTALE: what was loaded
 * last was refused, or the files are not those that were loaded, so there is nothing to keep until the next load.
 */
int files_save(struct files *files, const char *state_dir);
/* What was loaded last was refused: lets its texts go. */
void files_discard(struct files *files);

/*
 * The last good state, with the file names and lines of the time: for a start with a configuration that cannot be read.
 * -ENOENT: none was ever kept; -EINVAL with diag: not readable any more.
 */
int files_load_last_good(const char *state_dir, struct object_list *list, struct diag *diag);

#endif
