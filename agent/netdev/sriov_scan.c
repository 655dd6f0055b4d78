/* SPDX-License-Identifier: Apache-2.0 */
/* PFs and their VFs as /sys shows them; and what tells that it shows others now. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <linux/netlink.h>

#include <netdev/sriov.h>
#include <util/cleanup.h>

#define VFS_MAX 65536

static bool read_number(int fd, const char *path, uint32_t *ret)
{
	_cleanup_close_ int file = openat(fd, path, O_RDONLY | O_CLOEXEC);
	char text[32];
	ssize_t length = file < 0 ? -1 : read(file, text, sizeof(text) - 1);
	unsigned long n;
	char *end;

	if (length <= 0)
		return false;
	text[length] = '\0';
	n = strtoul(text, &end, 10);
	if (end == text || (*end && *end != '\n') || n > VFS_MAX)
		return false;
	*ret = (uint32_t)n;
	return true;
}

/* The last part of where a link leads; "": none, or longer than anything that is looked for. */
static void read_link(int fd, const char *path, char *ret, size_t size)
{
	char target[PATH_MAX];
	ssize_t length = readlinkat(fd, path, target, sizeof(target) - 1);
	const char *slash;

	ret[0] = '\0';
	if (length <= 0)
		return;
	target[length] = '\0';
	slash = strrchr(target, '/');
	slash = slash ? slash + 1 : target;
	if (strlen(slash) < size)
		snprintf(ret, size, "%s", slash);
}

static int add_vfs(int fd, size_t pf, uint32_t n, bool on_bus, struct sriov *to)
{
	const char *address = to->pfs[pf].address;
	struct sriov_vf *grown = reallocarray(to->vfs, to->n_vfs + n + 1, sizeof(*grown));

	if (!grown)
		return -ENOMEM;
	to->vfs = grown;
	for (uint32_t i = 0; i < n; i++) {
		struct sriov_vf vf = {.pf = pf, .index = i};
		char path[96];

		if (!on_bus) {
			to->vfs[to->n_vfs++] = vf;
			continue;
		}
		snprintf(path, sizeof(path), "bus/pci/devices/%s/virtfn%u", address, i);
		read_link(fd, path, vf.address, sizeof(vf.address));
		/* It goes this moment: an event will say so. */
		if (!vf.address[0])
			continue;
		snprintf(path, sizeof(path), "bus/pci/devices/%s/virtfn%u/driver", address, i);
		read_link(fd, path, vf.driver, sizeof(vf.driver));
		to->vfs[to->n_vfs++] = vf;
	}
	return 0;
}

static int add_pf(int fd, const char *bus, const char *name, struct sriov *to)
{
	struct sriov_pf pf = {0}, *grown;
	char path[64], attribute[96];
	bool has_total, has_number;

	if (strlen(name) >= sizeof(pf.address))
		return 0;
	snprintf(path, sizeof(path), "bus/%.11s/devices/%.19s", bus, name);
	snprintf(attribute, sizeof(attribute), "%s/sriov_numvfs", path);
	has_number = read_number(fd, attribute, &pf.vfs);
	snprintf(attribute, sizeof(attribute), "%s/sriov_totalvfs", path);
	has_total = read_number(fd, attribute, &pf.total);
	/* netdevsim has as many as one likes. */
	if (!has_number || (has_total && !pf.total))
		return 0;
	snprintf(attribute, sizeof(attribute), "%s/driver", path);
	read_link(fd, attribute, pf.driver, sizeof(pf.driver));
	snprintf(pf.bus, sizeof(pf.bus), "%.11s", bus);
	snprintf(pf.address, sizeof(pf.address), "%.19s", name);
	grown = reallocarray(to->pfs, to->n_pfs + 1, sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	to->pfs = grown;
	to->pfs[to->n_pfs++] = pf;
	/* VFs of netdevsim are devices of no bus. */
	return add_vfs(fd, to->n_pfs - 1, pf.vfs, has_total, to);
}

static int scan_bus(int fd, const char *bus, struct sriov *to)
{
	_cleanup_closedir_ DIR *directory = NULL;
	const struct dirent *entry;
	char path[64];
	int list = -1, r = 0;

	snprintf(path, sizeof(path), "bus/%s/devices", bus);
	list = openat(fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	directory = list < 0 ? NULL : fdopendir(list);
	if (!directory) {
		r = -errno;
		safe_close(list);
		return r == -ENOENT ? 0 : r;
	}
	while (r == 0 && (entry = readdir(directory)))
		if (entry->d_name[0] != '.')
			r = add_pf(fd, bus, entry->d_name, to);
	return r;
}

int sriov_scan(int sys_fd, struct sriov *ret)
{
	struct sriov table = {0};
	int r = scan_bus(sys_fd, "pci", &table);

	if (r == 0)
		r = scan_bus(sys_fd, "netdevsim", &table);
	if (r < 0)
		sriov_clear(&table);
	else
		*ret = table;
	return r;
}

/* --- events --- */

int sriov_events_open(void)
{
	struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = 1 /* the kernel's own */};
	_cleanup_close_ int fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_KOBJECT_UEVENT);

	if (fd < 0 || bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
		return -errno;
	return TAKE_FD(fd);
}

bool sriov_event_counts(const char *event, size_t length)
{
	bool counts = false;

	/* ACTION@PATH, then NAME=VALUE, each ended by a zero byte. */
	for (size_t at = 0; at < length;) {
		size_t size = strnlen(event + at, length - at);

		if (at + size == length)
			return false;
		counts |= strcmp(event + at, "SUBSYSTEM=pci") == 0 || strcmp(event + at, "SUBSYSTEM=netdevsim") == 0;
		at += size + 1;
	}
	return counts;
}

bool sriov_events_dispatch(int fd)
{
	bool counts = false;

	for (;;) {
		char event[8192];
		struct sockaddr_nl from = {0};
		socklen_t size = sizeof(from);
		ssize_t length = recvfrom(fd, event, sizeof(event), 0, (struct sockaddr *)&from, &size);

		if (length < 0 && errno == ENOBUFS)
			counts = true;
		else if (length < 0 && errno != EINTR)
			return counts;
		else if (length > 0 && from.nl_pid == 0)
			counts |= sriov_event_counts(event, (size_t)length);
	}
}
