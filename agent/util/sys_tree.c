/* SPDX-License-Identifier: Apache-2.0 */
#include <util/sys_tree.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <util/cleanup.h>

const char *sys_tree(void)
{
	const char *another = getenv("HEDDLE_SYS");

	return another && *another ? another : "/sys";
}

static bool is_another(void)
{
	return strcmp(sys_tree(), "/sys") != 0;
}

/* One line; "": there is no such file, or it is longer than anything that is looked for. */
static void read_line(int directory, const char *entry, const char *file, char *ret, size_t size)
{
	_cleanup_close_ int fd = -1;
	char path[300];
	ssize_t length;

	ret[0] = '\0';
	if (snprintf(path, sizeof(path), "%s/%s", entry, file) >= (int)sizeof(path))
		return;
	fd = openat(directory, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	length = fd < 0 ? -1 : read(fd, ret, size - 1);
	ret[length < 0 ? 0 : length] = '\0';
	ret[strcspn(ret, "\n")] = '\0';
}

static DIR *open_list(int directory, const char *path)
{
	int fd = openat(directory, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *list = fd < 0 ? NULL : fdopendir(fd);

	if (!list)
		safe_close(fd);
	return list;
}

static bool find_in(int device, uint32_t ifindex, struct sys_tree_interface *ret)
{
	_cleanup_closedir_ DIR *list = open_list(device, "net");
	const struct dirent *entry;
	char number[16];

	while (list && (entry = readdir(list))) {
		if (entry->d_name[0] == '.')
			continue;
		read_line(dirfd(list), entry->d_name, "ifindex", number, sizeof(number));
		if (strtoul(number, NULL, 10) != ifindex)
			continue;
		read_line(dirfd(list), entry->d_name, "phys_port_name", ret->port_name, sizeof(ret->port_name));
		read_line(dirfd(list), entry->d_name, "phys_switch_id", ret->switch_id, sizeof(ret->switch_id));
		return true;
	}
	return false;
}

bool sys_tree_interface(uint32_t ifindex, struct sys_tree_interface *ret)
{
	_cleanup_closedir_ DIR *list = NULL;
	const struct dirent *entry;
	char path[300];
	bool found = false;

	if (!is_another() || snprintf(path, sizeof(path), "%s/bus/pci/devices", sys_tree()) >= (int)sizeof(path))
		return false;
	list = open_list(AT_FDCWD, path);
	while (list && !found && (entry = readdir(list))) {
		_cleanup_close_ int device = -1;

		if (entry->d_name[0] == '.' || strlen(entry->d_name) >= sizeof(ret->pci))
			continue;
		device = openat(dirfd(list), entry->d_name, O_PATH | O_DIRECTORY | O_CLOEXEC);
		*ret = (struct sys_tree_interface){0};
		snprintf(ret->pci, sizeof(ret->pci), "%.19s", entry->d_name);
		found = device >= 0 && find_in(device, ifindex, ret);
	}
	return found;
}
