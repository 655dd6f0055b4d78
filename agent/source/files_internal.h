/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the file source share. */
#ifndef HEDDLE_SOURCE_FILES_INTERNAL_H
#define HEDDLE_SOURCE_FILES_INTERNAL_H

#include <stdbool.h>
#include <sys/stat.h>

#include <source/files.h>

struct file_entry {
	char *path;
	struct stat status;
	uint64_t hash; /* of the text */
	size_t length;
	char *text; /* until files_save() or files_discard() */
	struct object_list objects;
	bool decoded; /* without a mistake: objects counts */
	bool settled; /* status tells a change for sure */
	bool gone;
};

struct file_entries {
	struct file_entry *items;
	size_t n;
};

struct watch;

struct files {
	char **paths;
	size_t n_paths;
	struct file_entries entries; /* as of the last load */
	bool good;		     /* entries were loaded without a mistake, and not discarded since */
	struct watch *watch;	     /* NULL: not watching */
};

/* Ends as a document's name does, and is not hidden. */
bool files_is_document(const char *name);
void files_drop_texts(struct files *files);
void files_update_watches(struct files *files);
void files_unwatch(struct files *files);

#endif
