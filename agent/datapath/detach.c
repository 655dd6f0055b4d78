/* SPDX-License-Identifier: Apache-2.0 */
/* Taking everything away, without an agent and without knowing which version put it there. */
#include <errno.h>
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include <bpf/bpf.h>

#include <datapath/internal.h>
#include <util/clock.h>

#define DETACH_PATIENCE_MS 3000 /* an agent that was told to end a moment ago may still be at it */
#define VANISH_PATIENCE_MS 1000

struct doomed {
	struct {
		uint32_t id;
		bool program;
	} object[256];
	size_t n;
};

static void doom(struct doomed *doomed, uint32_t id, bool program)
{
	for (size_t i = 0; i < doomed->n; i++)
		if (doomed->object[i].id == id && doomed->object[i].program == program)
			return;
	if (doomed->n < ARRAY_SIZE(doomed->object)) {
		doomed->object[doomed->n].id = id;
		doomed->object[doomed->n++].program = program;
	}
}

static void doom_program(struct doomed *doomed, uint32_t id)
{
	_cleanup_close_ int fd = bpf_prog_get_fd_by_id(id);
	uint32_t ids[MAP_MAX] = {0};
	struct bpf_prog_info info = {.nr_map_ids = MAP_MAX, .map_ids = (uintptr_t)ids};
	__u32 size = sizeof(info);

	if (fd < 0 || bpf_obj_get_info_by_fd(fd, &info, &size) < 0)
		return;
	doom(doomed, id, true);
	for (unsigned i = 0; i < info.nr_map_ids && i < MAP_MAX; i++)
		doom(doomed, ids[i], false);
}

static int detach_link(const char *path, const char *name, void *userdata)
{
	_cleanup_close_ int fd = bpf_obj_get(path);
	struct bpf_link_info info = {0};
	__u32 size = sizeof(info);

	(void)name;
	if (fd >= 0 && bpf_obj_get_info_by_fd(fd, &info, &size) == 0) {
		doom_program(userdata, info.prog_id);
		/* The kernel defers what the last close does; this does it now. Some kinds of links refuse, and end with the close. */
		(void)bpf_link_detach(fd);
	}
	return unlink(path) < 0 && errno != ENOENT ? -errno : 0;
}

/* Programs that no link leads to, and the maps of those: called by others, or pinned. */
static int doom_pinned_program(const char *path, const char *name, void *userdata)
{
	_cleanup_close_ int fd = bpf_obj_get(path);
	struct bpf_prog_info info = {0};
	__u32 size = sizeof(info);

	(void)name;
	if (fd >= 0 && bpf_obj_get_info_by_fd(fd, &info, &size) == 0)
		doom_program(userdata, info.id);
	return 0;
}

static int doom_pinned_map(const char *path, const char *name, void *userdata)
{
	_cleanup_close_ int fd = bpf_obj_get(path);
	struct bpf_map_info info = {0};
	__u32 size = sizeof(info);

	(void)name;
	if (fd >= 0 && bpf_obj_get_info_by_fd(fd, &info, &size) == 0)
		doom(userdata, info.id, false);
	return 0;
}

struct filters_to_detach {
	struct doomed *doomed;
	bool ours;
};

static int doom_filter(const struct clsact_filter *filter, void *userdata)
{
	struct filters_to_detach *to = userdata;

	if (filter->ours) {
		to->ours = true;
		doom_program(to->doomed, filter->program_id);
	}
	return 0;
}

static int detach_filters(const char *bpffs, struct doomed *doomed)
{
	_cleanup_free_ uint32_t *devices = NULL;
	size_t n = 0;
	int r = clsact_devices(&devices, &n), first_error = r;

	for (size_t i = 0; i < n && r == 0; i++) {
		struct filters_to_detach to = {.doomed = doomed};

		r = clsact_each(devices[i], doom_filter, &to);
		if (r == 0 && (to.ours || clsact_marked(bpffs, devices[i])))
			r = clsact_detach(bpffs, devices[i]);
		if (r < 0 && first_error == 0)
			first_error = r;
		r = 0;
	}
	return first_error;
}

static int remove_tree(int parent, const char *name)
{
	_cleanup_close_ int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	_cleanup_closedir_ DIR *dir = NULL;
	int copy;

	if (fd < 0)
		return errno == ENOENT ? 0 : -errno;
	copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	dir = copy < 0 ? NULL : fdopendir(copy);
	if (!dir) {
		safe_close(copy);
		return -ENOMEM;
	}
	for (struct dirent *entry; (entry = readdir(dir));) {
		int r = 0;

		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		if (entry->d_type == DT_DIR)
			r = remove_tree(fd, entry->d_name);
		else if (unlinkat(fd, entry->d_name, 0) < 0 && errno != ENOENT)
			r = -errno;
		if (r < 0)
			return r;
	}
	return unlinkat(parent, name, AT_REMOVEDIR) < 0 && errno != ENOENT ? -errno : 0;
}

/* The kernel frees programs and maps some time after their last user went; whoever looks right after us shall not see them. */
static void wait_until_gone(const struct doomed *doomed)
{
	uint64_t deadline = clock_ms() + VANISH_PATIENCE_MS;

	for (size_t i = 0; i < doomed->n;) {
		uint32_t id = doomed->object[i].id;
		int fd = doomed->object[i].program ? bpf_prog_get_fd_by_id(id) : bpf_map_get_fd_by_id(id);

		if (fd < 0) {
			i++;
			continue;
		}
		safe_close(fd);
		if (clock_ms() >= deadline)
			return;
		nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
	}
}

/* Only a mount that datapath_open() made, and only an empty one. */
static void unmount_ours(const char *bpffs)
{
	_cleanup_fclose_ FILE *mounts = fopen("/proc/self/mounts", "re");
	char line[2 * PATH_MAX + 256], source[PATH_MAX], target[PATH_MAX], type[64];
	_cleanup_free_ char *path = realpath(bpffs, NULL);
	bool ours = false;

	if (!mounts || !path)
		return;
	/* The last entry of a path is the one on top. */
	while (fgets(line, sizeof(line), mounts))
		if (sscanf(line, "%4095s %4095s %63s", source, target, type) == 3 && strcmp(target, path) == 0)
			ours = strcmp(type, "bpf") == 0 && strcmp(source, BPFFS_SOURCE) == 0;
	if (ours) {
		_cleanup_closedir_ DIR *dir = opendir(path);

		/* Names with a dot are the kernel's own (maps.debug, progs.debug): nobody else can make them. */
		for (struct dirent *entry; dir && (entry = readdir(dir));)
			if (!strchr(entry->d_name, '.'))
				return;
	}
	if (ours && umount2(path, 0) < 0)
		log_debug("%s stays mounted: %s", path, strerror(errno));
}

int datapath_detach(const struct datapath_config *config)
{
	struct doomed *doomed __attribute__((cleanup(free_p))) = calloc(1, sizeof(*doomed));
	_cleanup_close_ int lock = -1, mount = -1;
	int r = 0, filters;

	if (!doomed)
		return -ENOMEM;
	object_log_init();
	if (bpffs_is(config->bpffs)) {
		r = bpffs_lock(config->bpffs, false, DETACH_PATIENCE_MS, &lock);
		if (r == -EBUSY)
			return log_err(r, "heddled is running on %s/heddle: stop it first", config->bpffs);
		if (r < 0 && r != -ENOENT)
			return log_err(r, "cannot open %s/heddle", config->bpffs);
		r = 0;
	}
	if (lock >= 0)
		r = pin_each(config->bpffs, "links", detach_link, doomed);
	if (r == 0 && lock >= 0)
		r = pin_each(config->bpffs, "fast", detach_link, doomed);
	if (lock >= 0) {
		(void)pin_each(config->bpffs, "maps", doom_pinned_map, doomed);
		(void)pin_each(config->bpffs, "progs", doom_pinned_program, doomed);
	}
	filters = detach_filters(config->bpffs, doomed);
	if (filters < 0)
		(void)log_err(filters, "cannot remove our filters from the clsact qdiscs");
	if (r == 0 && lock >= 0) {
		mount = open(config->bpffs, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		r = mount < 0 ? -errno : remove_tree(mount, "heddle");
		safe_close(TAKE_FD(mount));
	}
	if (r < 0)
		return log_err(r, "cannot remove the pins in %s/heddle", config->bpffs);
	lock = safe_close(lock);
	wait_until_gone(doomed);
	if (bpffs_is(config->bpffs))
		unmount_ours(config->bpffs);
	return filters;
}
