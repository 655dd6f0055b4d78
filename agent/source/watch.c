// SPDX-License-Identifier: Apache-2.0
/*
 * Watches for the file source. Each path is walked as the kernel would, symbolic links included: every directory on the way is watched
 * for the one name that leads on, the last one for documents. So a file that is written or renamed over, a directory
 * that comes, goes or is replaced, and the swap of a ConfigMap's ..data are all seen, and nothing else in those directories is.
 */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <systemd/sd-event.h>
#include <unistd.h>

#include <source/files_internal.h>
#include <util/cleanup.h>
#include <util/clock.h>
#include <util/log.h>

#define QUIET_US 20000	   /* after the last change: an editor, rsync or kubelet makes several, some milliseconds apart at most */
#define PATIENCE_US 500000 /* since the first, should they never end */
#define LINKS_MOST 40	   /* as the kernel: ELOOP */

#define MASK_NAMES (IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR)
#define MASK_CONTENT (MASK_NAMES | IN_CLOSE_WRITE | IN_ATTRIB)

struct directory {
	int wd;
	bool documents; /* every document's name counts */
	bool content;	/* of what is named, changes of content too */
	bool wanted;	/* found again in this walk */
	char **names;
	size_t n_names;
};

struct watch {
	int fd;
	sd_event_source *io, *timer;
	uint64_t first_us; /* of the changes that are not told yet; 0: none */
	files_changed changed;
	void *userdata;
	struct directory *directories;
	size_t n;
	bool complained;
};

static void names_clear(struct directory *directory)
{
	for (size_t i = 0; i < directory->n_names; i++)
		free(directory->names[i]);
	free(directory->names);
	directory->names = NULL;
	directory->n_names = 0;
}

static int add_name(struct directory *directory, const char *name)
{
	for (size_t i = 0; i < directory->n_names; i++)
		if (strcmp(directory->names[i], name) == 0)
			return 0;
	char **names = realloc(directory->names, (directory->n_names + 1) * sizeof(*names));
	if (!names)
		return -ENOMEM;
	directory->names = names;
	names[directory->n_names] = strdup(name);
	return names[directory->n_names++] ? 0 : -ENOMEM;
}

/* name NULL: all documents. The same directory under two paths is one watch: both wishes are added up. */
static int watch_directory(struct watch *watch, const char *path, const char *name, bool content)
{
	/* IN_MASK_ADD: an earlier wish for this directory is not taken away. */
	int wd = inotify_add_watch(watch->fd, path, (content ? MASK_CONTENT : MASK_NAMES) | IN_MASK_ADD);
	struct directory *directory = NULL;

	if (wd < 0)
		return -errno;
	for (size_t i = 0; i < watch->n && !directory; i++)
		if (watch->directories[i].wd == wd)
			directory = &watch->directories[i];
	if (!directory) {
		struct directory *grown = realloc(watch->directories, (watch->n + 1) * sizeof(*grown));
		if (!grown)
			return -ENOMEM;
		watch->directories = grown;
		directory = &grown[watch->n++];
		*directory = (struct directory){.wd = wd};
	}
	if (!directory->wanted) { /* the first wish of this walk */
		names_clear(directory);
		directory->documents = directory->content = false;
	}
	directory->wanted = true;
	directory->content |= content;
	directory->documents |= name == NULL;
	return name ? add_name(directory, name) : 0;
}

static int walk(struct watch *watch, const char *path, bool documents);

/* Documents that are links lead elsewhere: what they point to counts as well. */
static int walk_links(struct watch *watch, const char *path)
{
	_cleanup_closedir_ DIR *directory = opendir(path);
	int r = 0;

	for (struct dirent *entry; r == 0 && directory && (entry = readdir(directory));) {
		char link[PATH_MAX];
		struct stat status;

		if (!files_is_document(entry->d_name) ||
			snprintf(link, sizeof(link), "%s/%s", path, entry->d_name) >= (int)sizeof(link))
			continue;
		if (lstat(link, &status) == 0 && S_ISLNK(status.st_mode))
			r = walk(watch, link, false);
	}
	return r;
}

/* Where a walk is, without links, and what remains of the path. */
struct walk {
	char at[PATH_MAX], rest[PATH_MAX];
	int links;
};

static int set_text(char text[PATH_MAX], const char *from)
{
	return snprintf(text, PATH_MAX, "%s", from) < PATH_MAX ? 0 : -ENAMETOOLONG;
}

/* Takes the first component off the rest, "" at the end. last: only slashes are left. */
static int take_component(struct walk *walk, char component[PATH_MAX], bool *last)
{
	char *begin = walk->rest + strspn(walk->rest, "/"), *after;
	size_t n = strcspn(begin, "/");

	memcpy(component, begin, n);
	component[n] = '\0';
	after = begin + n + strspn(begin + n, "/");
	*last = !*after;
	memmove(walk->rest, after, strlen(after) + 1);
	return n != 0;
}

static void go_up(struct walk *walk)
{
	char *slash = strrchr(walk->at, '/');

	/* There are no links in it: its parent is the text before the last slash. */
	slash[slash == walk->at ? 1 : 0] = '\0';
}

/* The link's target takes its place in what remains. */
static int follow(struct walk *walk, const char *link)
{
	char target[PATH_MAX], rest[PATH_MAX];
	ssize_t length = readlink(link, target, sizeof(target) - 1);

	if (length < 0)
		return -errno;
	target[length] = '\0';
	if (++walk->links > LINKS_MOST)
		return -ELOOP;
	if (snprintf(rest, sizeof(rest), "%s%s%s", target, walk->rest[0] ? "/" : "", walk->rest) >= (int)sizeof(rest))
		return -ENAMETOOLONG;
	if (target[0] == '/')
		walk->at[1] = '\0';
	return set_text(walk->rest, rest);
}

/* One component further. 1: there is more to walk; 0: the end, or what is not there yet. */
static int walk_step(struct watch *watch, struct walk *walk, const char *component, bool last)
{
	char next[PATH_MAX];
	struct stat status;
	int r;

	if (strcmp(component, ".") == 0)
		return 1;
	if (strcmp(component, "..") == 0) {
		go_up(walk);
		return 1;
	}
	/* Before looking: what changes in between is told. */
	r = watch_directory(watch, walk->at, component, last);
	if (r < 0)
		return r == -ENOENT || r == -ENOTDIR ? 0 : r;
	if (snprintf(next, sizeof(next), "%s%s%s", walk->at, walk->at[1] ? "/" : "", component) >= (int)sizeof(next))
		return -ENAMETOOLONG;
	if (lstat(next, &status) < 0)
		return 0; /* the watch will say when it comes */
	if (S_ISLNK(status.st_mode)) {
		r = follow(walk, next);
		return r == 0 ? 1 : r == -ENAMETOOLONG ? r : 0; /* a link that leads nowhere is said by the load */
	}
	if (!S_ISDIR(status.st_mode))
		return 0; /* the file itself; its directory is watched for it */
	r = set_text(walk->at, next);
	return r < 0 ? r : 1;
}

/* Watches all that decides what `path` is; documents: and, when it is a directory, what is in it. */
static int walk(struct watch *watch, const char *path, bool documents)
{
	struct walk walk = {.at = "/"};
	char component[PATH_MAX];
	bool last;
	int r;

	if (path[0] != '/' && !getcwd(walk.at, sizeof(walk.at)))
		return -errno;
	r = set_text(walk.rest, path);
	if (r < 0)
		return r;
	while (take_component(&walk, component, &last)) {
		r = walk_step(watch, &walk, component, last);
		if (r <= 0)
			return r;
	}
	if (!documents)
		return 0;
	r = watch_directory(watch, walk.at, NULL, true);
	return r < 0 ? r : walk_links(watch, walk.at);
}

void files_update_watches(struct files *files)
{
	struct watch *watch = files->watch;
	int r = 0;

	if (!watch)
		return;
	for (size_t i = 0; i < watch->n; i++)
		watch->directories[i].wanted = false;
	for (size_t i = 0; i < files->n_paths && r == 0; i++)
		r = walk(watch, files->paths[i], true);
	if (r < 0 && !watch->complained)
		log_warn(r, "cannot watch the configuration, changes are seen at SIGHUP only");
	watch->complained = r < 0;

	size_t kept = 0;
	for (size_t i = 0; i < watch->n; i++) {
		struct directory *directory = &watch->directories[i];

		if (directory->wanted) {
			watch->directories[kept++] = *directory;
		} else {
			inotify_rm_watch(watch->fd, directory->wd); /* fails when the directory is gone: fine */
			names_clear(directory);
		}
	}
	watch->n = kept;
}

/* --- events --- */

static bool concerns_us(struct watch *watch, const struct inotify_event *event)
{
	if (event->mask & IN_Q_OVERFLOW)
		return true;
	for (size_t i = 0; i < watch->n; i++) {
		struct directory *directory = &watch->directories[i];

		if (directory->wd != event->wd)
			continue;
		if (event->mask & IN_IGNORED) {
			/* The number may be given to another directory: this one must not be taken for it. */
			names_clear(directory);
			*directory = watch->directories[--watch->n];
			return true;
		}
		if (event->mask & (IN_DELETE_SELF | IN_MOVE_SELF | IN_UNMOUNT))
			return true;
		if (event->len == 0)
			return directory->documents &&
			       event->mask & IN_ATTRIB; /* of the directory itself: it may be readable now */
		if (directory->documents && files_is_document(event->name))
			return true;
		for (size_t j = 0; j < directory->n_names; j++)
			if (strcmp(directory->names[j], event->name) == 0)
				return true;
		return false;
	}
	return false;
}

static int on_timer(sd_event_source *source, uint64_t time, void *userdata)
{
	struct watch *watch = userdata;

	(void)source, (void)time;
	watch->first_us = 0;
	watch->changed(watch->userdata);
	return 0;
}

static void arm(struct watch *watch)
{
	uint64_t now = clock_us(), at = now + QUIET_US;

	if (!watch->first_us)
		watch->first_us = now;
	if (at > watch->first_us + PATIENCE_US)
		at = watch->first_us + PATIENCE_US;
	sd_event_source_set_time(watch->timer, at);
	sd_event_source_set_enabled(watch->timer, SD_EVENT_ONESHOT);
}

static int on_events(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	_Alignas(struct inotify_event) char events[8192];
	struct watch *watch = userdata;
	bool ours = false;
	ssize_t n;

	(void)source, (void)revents;
	while ((n = read(fd, events, sizeof(events))) > 0) {
		const struct inotify_event *event;

		for (char *at = events; at < events + n; at += sizeof(*event) + event->len) {
			event = (const struct inotify_event *)at;
			ours |= concerns_us(watch, event);
		}
	}
	if (ours)
		arm(watch);
	return 0;
}

void files_unwatch(struct files *files)
{
	struct watch *watch = files->watch;

	if (!watch)
		return;
	sd_event_source_unref(watch->io);
	sd_event_source_unref(watch->timer);
	safe_close(watch->fd);
	for (size_t i = 0; i < watch->n; i++)
		names_clear(&watch->directories[i]);
	free(watch->directories);
	free(watch);
	files->watch = NULL;
}

int files_watch(struct files *files, sd_event *event, files_changed changed, void *userdata)
{
	struct watch *watch = calloc(1, sizeof(*watch));
	int r;

	if (!watch)
		return -ENOMEM;
	files_unwatch(files);
	files->watch = watch;
	watch->changed = changed;
	watch->userdata = userdata;
	watch->fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	r = watch->fd < 0 ? -errno : 0;
	if (r == 0)
		r = sd_event_add_time(event, &watch->timer, CLOCK_MONOTONIC, UINT64_MAX, 1000, on_timer, watch);
	if (r >= 0)
		r = sd_event_source_set_enabled(watch->timer, SD_EVENT_OFF);
	if (r >= 0)
		r = sd_event_add_io(event, &watch->io, watch->fd, EPOLLIN, on_events, watch);
	if (r < 0) {
		files_unwatch(files);
		return r;
	}
	files_update_watches(files);
	return 0;
}
