/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bpffs: <bpffs>/heddle/maps/NAME, progs/NAME, links/KIND_DEVICE, fast/IFINDEX (links at far ends of veths), and clsact/IFINDEX, an empty directory that says the
 * qdisc was made by us. A pin is made under a temporary name and renamed over the old one, so that a name is never missing.
 */
#include <errno.h>
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>

#include <bpf/bpf.h>

#include <datapath/compat.h>
#include <datapath/internal.h>
#include <util/clock.h>
#include <util/file.h>

/* bpffs keeps dots in names for itself. The colon cannot be in a device's name, so it may stand for one, and mark our temporary names. */
#define PIN_TEMPORARY "new:"

bool bpffs_is(const char *path)
{
	struct statfs fs;

	return statfs(path, &fs) == 0 && (uint32_t)fs.f_type == BPF_FS_MAGIC;
}

int bpffs_prepare(const char *bpffs)
{
	int r;

	if (bpffs_is(bpffs))
		return 0;
	r = file_make_directory(bpffs, 0755);
	if (r < 0)
		return log_err(r, "cannot make the directory %s", bpffs);
	/* The source's name is how datapath_detach() knows that the mount is ours to take away. */
	if (mount(BPFFS_SOURCE, bpffs, "bpf", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0700") < 0)
		return log_err(-errno, "cannot mount a bpffs at %s", bpffs);
	return 0;
}

/* Whoever holds the lock of a directory that was removed and made again holds nothing. */
static bool still_there(int fd, const char *path)
{
	struct stat a, b;

	return fstat(fd, &a) == 0 && stat(path, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

int bpffs_lock(const char *bpffs, bool create, unsigned patience_ms, int *ret_fd)
{
	uint64_t deadline = clock_ms() + patience_ms;
	char path[PATH_MAX];

	if (snprintf(path, sizeof(path), "%s/heddle", bpffs) >= (int)sizeof(path))
		return -ENAMETOOLONG;
	for (;;) {
		_cleanup_close_ int fd = -1;

		if (create && mkdir(path, 0700) < 0 && errno != EEXIST)
			return -errno;
		fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (fd < 0)
			return -errno;
		if (flock(fd, LOCK_EX | LOCK_NB) == 0) {
			if (!still_there(fd, path))
				continue;
			*ret_fd = TAKE_FD(fd);
			return 0;
		}
		if (errno != EWOULDBLOCK)
			return -errno;
		if (clock_ms() >= deadline)
			return -EBUSY;
		nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
	}
}

static int pin_path(char path[PATH_MAX], const char *bpffs, const char *directory, const char *prefix, const char *name)
{
	int n = snprintf(path, PATH_MAX, "%s/heddle/%s/%s%s", bpffs, directory, prefix, name);

	return n >= PATH_MAX ? -ENAMETOOLONG : 0;
}

static int make_directory(const char *bpffs, const char *directory)
{
	char path[PATH_MAX];

	if (snprintf(path, sizeof(path), "%s/heddle/%s", bpffs, directory) >= (int)sizeof(path))
		return -ENAMETOOLONG;
	return mkdir(path, 0700) < 0 && errno != EEXIST ? -errno : 0;
}

int pin_over(const char *bpffs, const char *directory, const char *name, int fd)
{
	char path[PATH_MAX], temporary[PATH_MAX];
	int r = make_directory(bpffs, directory);

	if (r == 0)
		r = pin_path(path, bpffs, directory, "", name);
	if (r == 0)
		r = pin_path(temporary, bpffs, directory, PIN_TEMPORARY, name);
	if (r < 0)
		return r;
	(void)unlink(temporary); /* left by an agent that was killed right here */
	if (bpf_obj_pin(fd, temporary) < 0)
		return -errno;
	if (rename(temporary, path) < 0) {
		r = -errno;
		(void)unlink(temporary);
		return r;
	}
	return 0;
}

void link_pin_name(char name[LINK_PIN_NAME], const char *device, enum link_kind kind)
{
	snprintf(name, LINK_PIN_NAME, "%s_%s", link_kind_name[kind], device);
	for (char *dot = name; (dot = strchr(dot, '.'));)
		*dot = ':';
}

int pin_link(const struct datapath *dp, const struct attached *at, enum link_kind kind)
{
	char name[LINK_PIN_NAME];

	link_pin_name(name, at->device, kind);
	return pin_over(dp->bpffs, "links", name, at->link[kind]);
}

void pin_link_remove(const struct datapath *dp, const char *device, enum link_kind kind)
{
	char name[LINK_PIN_NAME], path[PATH_MAX];

	link_pin_name(name, device, kind);
	if (pin_path(path, dp->bpffs, "links", "", name) == 0)
		(void)unlink(path);
}

int pin_each(const char *bpffs, const char *directory, pin_cb cb, void *userdata)
{
	_cleanup_closedir_ DIR *dir = NULL;
	char path[PATH_MAX];
	int r = pin_path(path, bpffs, directory, "", "");

	if (r < 0)
		return r;
	dir = opendir(path);
	if (!dir)
		return errno == ENOENT ? 0 : -errno;
	for (struct dirent *entry; (entry = readdir(dir)) && r == 0;) {
		if (entry->d_name[0] == '.')
			continue;
		r = pin_path(path, bpffs, directory, "", entry->d_name);
		if (r == 0)
			r = cb(path, entry->d_name, userdata);
	}
	return r;
}

void pin_remove(const char *bpffs, const char *directory, const char *name)
{
	char path[PATH_MAX];

	if (pin_path(path, bpffs, directory, "", name) == 0)
		(void)unlink(path);
}

static int remove_temporary(const char *path, const char *name, void *userdata)
{
	(void)userdata;
	if (strncmp(name, PIN_TEMPORARY, strlen(PIN_TEMPORARY)) == 0)
		(void)unlink(path);
	return 0;
}

void pin_remove_temporaries(const char *bpffs)
{
	static const char *const directories[] = {"maps", "progs", "links", "fast"};

	for (size_t i = 0; i < ARRAY_SIZE(directories); i++)
		(void)pin_each(bpffs, directories[i], remove_temporary, NULL);
}

static int clsact_mark_path(char path[PATH_MAX], const char *bpffs, uint32_t ifindex)
{
	char name[16];

	snprintf(name, sizeof(name), "%u", ifindex);
	return pin_path(path, bpffs, "clsact", "", name);
}

int clsact_mark(const char *bpffs, uint32_t ifindex)
{
	char path[PATH_MAX];
	int r = make_directory(bpffs, "clsact");

	if (r == 0)
		r = clsact_mark_path(path, bpffs, ifindex);
	if (r < 0)
		return r;
	return mkdir(path, 0700) < 0 && errno != EEXIST ? -errno : 0;
}

bool clsact_marked(const char *bpffs, uint32_t ifindex)
{
	char path[PATH_MAX];

	return clsact_mark_path(path, bpffs, ifindex) == 0 && access(path, F_OK) == 0;
}

bool clsact_unmark(const char *bpffs, uint32_t ifindex)
{
	char path[PATH_MAX];

	return clsact_mark_path(path, bpffs, ifindex) == 0 && rmdir(path) == 0;
}
