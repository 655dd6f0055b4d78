/* SPDX-License-Identifier: Apache-2.0 */
/* The records of VFs that containers have. */
#include <netdev/vf_loan.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <jansson.h>

#include <netdev/netns_id.h>
#include <util/addr.h>
#include <util/cleanup.h>
#include <util/file.h>

#define DIRECTORY "loans"
#define LOCK ".lock"
#define RECORD_MAX 65536
#define BOOT_ID "/proc/sys/kernel/random/boot_id"

void vf_loan_boot(char ret[64])
{
	_cleanup_free_ char *text = NULL;
	size_t length;

	if (file_read(AT_FDCWD, BOOT_ID, 64, &text, &length, NULL) < 0)
		text = NULL;
	snprintf(ret, 64, "%.40s", text ? text : "unknown");
	ret[strcspn(ret, "\n ")] = '\0';
}

bool vf_loan_is(const struct vf_loan *loan, const char *name, const char *container, const char *interface)
{
	return !strcmp(loan->container, container) && !strcmp(loan->interface, interface) && !strcmp(loan->name, name);
}

bool vf_loan_same(const struct vf_loan *a, const struct vf_loan *b)
{
	return !strcmp(a->pci, b->pci) && !strcmp(a->boot, b->boot) && vf_loan_is(a, b->name, b->container, b->interface) &&
	       a->netns_device == b->netns_device && a->netns_inode == b->netns_inode && a->netns_id == b->netns_id;
}

bool vf_loan_netns_is_there(const struct vf_loan *loan)
{
	struct stat status;

	return stat(loan->netns, &status) == 0 && (uint64_t)status.st_dev == loan->netns_device &&
	       (uint64_t)status.st_ino == loan->netns_inode;
}

/* --- the directory --- */

int vf_loans_open(const char *state_dir, bool make)
{
	_cleanup_close_ int state = open(state_dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	int fd = -1;

	if (state < 0)
		return -errno;
	if (make && mkdirat(state, DIRECTORY, 0700) < 0 && errno != EEXIST)
		return -errno;
	fd = openat(state, DIRECTORY, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

int vf_loans_lock(int loans, bool wait)
{
	_cleanup_close_ int fd = openat(loans, LOCK, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

	if (fd < 0)
		return -errno;
	while (flock(fd, LOCK_EX | (wait ? 0 : LOCK_NB)) < 0)
		if (errno != EINTR)
			return errno == EWOULDBLOCK ? -EAGAIN : -errno;
	return TAKE_FD(fd);
}

/* --- a record --- */

static json_t *link_json(const struct vf_link *link)
{
	char mac[MAC_TEXT_MAX];

	if (!link->ifindex)
		return json_null();
	return json_pack("{s:I, s:s, s:s, s:I, s:I}", "ifindex", (json_int_t)link->ifindex, "name", link->name, "mac",
		mac_format(link->mac, mac), "mtu", (json_int_t)link->mtu, "flags", (json_int_t)link->flags);
}

/* Inodes are 64 bits wide: as text, since numbers of JSON are not. */
static json_t *loan_json(const struct vf_loan *loan)
{
	json_t *id = loan->netns_id < 0 ? json_null() : json_integer(loan->netns_id);

	return json_pack("{s:s, s:s, s:s, s:s, s:s, s:{s:s, s:o, s:o, s:o}, s:b, s:o, s:o}", "pci", loan->pci, "boot", loan->boot,
		"name", loan->name, "containerID", loan->container, "ifname", loan->interface, "netns", "path", loan->netns,
		"device", json_sprintf("%" PRIu64, loan->netns_device), "inode", json_sprintf("%" PRIu64, loan->netns_inode),
		"id", id, "ended", loan->ended, "vf", link_json(&loan->vf), "representor", link_json(&loan->representor));
}

static bool take_text(const json_t *object, const char *key, char *ret, size_t size)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text && (size_t)snprintf(ret, size, "%s", text) < size &&
	       strlen(text) == json_string_length(json_object_get(object, key));
}

static bool take_wide(const json_t *object, const char *key, uint64_t *ret)
{
	const char *text = json_string_value(json_object_get(object, key));
	char *end;

	*ret = text ? strtoull(text, &end, 10) : 0;
	return text && end != text && !*end;
}

static bool take_number(const json_t *object, const char *key, uint32_t *ret)
{
	json_int_t number = json_integer_value(json_object_get(object, key));

	*ret = (uint32_t)number;
	return json_is_integer(json_object_get(object, key)) && number >= 0 && number <= INT32_MAX;
}

/* Records of earlier versions have none. */
static int32_t take_netns_id(const json_t *netns)
{
	uint32_t id;

	return take_number(netns, "id", &id) ? (int32_t)id : NETNS_ID_NONE;
}

/* What the kernel would refuse as a name is none that it had. */
static bool take_link(const json_t *object, const char *key, struct vf_link *ret)
{
	const json_t *link = json_object_get(object, key);
	char mac[MAC_TEXT_MAX];

	if (json_is_null(link))
		return true;
	return take_number(link, "ifindex", &ret->ifindex) && ret->ifindex &&
	       take_text(link, "name", ret->name, sizeof(ret->name)) && ret->name[0] && !strpbrk(ret->name, "/%: ") &&
	       take_text(link, "mac", mac, sizeof(mac)) && mac_parse(mac, ret->mac) && take_number(link, "mtu", &ret->mtu) &&
	       take_number(link, "flags", &ret->flags);
}

int vf_loan_decode(const char *text, size_t length, struct vf_loan *ret)
{
	json_auto_t *root = json_loadb(text, length, JSON_REJECT_DUPLICATES, NULL);
	const json_t *netns = json_object_get(root, "netns");
	struct vf_loan loan = {.ended = json_is_true(json_object_get(root, "ended")), .netns_id = take_netns_id(netns)};

	if (!take_text(root, "pci", loan.pci, sizeof(loan.pci)) || !take_text(root, "boot", loan.boot, sizeof(loan.boot)) ||
		!take_text(root, "name", loan.name, sizeof(loan.name)) ||
		!take_text(root, "containerID", loan.container, sizeof(loan.container)) ||
		!take_text(root, "ifname", loan.interface, sizeof(loan.interface)) ||
		!take_text(netns, "path", loan.netns, sizeof(loan.netns)) || !take_wide(netns, "device", &loan.netns_device) ||
		!take_wide(netns, "inode", &loan.netns_inode) || !take_link(root, "vf", &loan.vf) ||
		!take_link(root, "representor", &loan.representor))
		return -EBADMSG;
	loan.vf.flags &= VF_LOAN_FLAGS;
	loan.representor.flags &= VF_LOAN_FLAGS;
	*ret = loan;
	return 0;
}

int vf_loan_read(int loans, const char *pci, struct vf_loan *ret)
{
	_cleanup_free_ char *text = NULL;
	struct vf_loan loan;
	size_t length;
	int r = file_read(loans, pci, RECORD_MAX, &text, &length, NULL);

	if (r == 0)
		r = vf_loan_decode(text, length, &loan);
	if (r == 0 && strcmp(loan.pci, pci) != 0)
		r = -EBADMSG;
	if (r == 0)
		*ret = loan;
	return r;
}

int vf_loan_write(int loans, const struct vf_loan *loan)
{
	json_auto_t *root = loan_json(loan);
	_cleanup_free_ char *text = root ? json_dumps(root, JSON_COMPACT) : NULL;

	return text ? file_write(loans, loan->pci, text, strlen(text), 0600) : -ENOMEM;
}

int vf_loan_remove(int loans, const char *pci)
{
	return unlinkat(loans, pci, 0) < 0 && errno != ENOENT ? -errno : 0;
}

int vf_loans_each(int loans, int (*seen)(const struct vf_loan *loan, void *userdata), void *userdata)
{
	_cleanup_closedir_ DIR *directory = NULL;
	const struct dirent *entry;
	int fd = openat(loans, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), r = 0;

	directory = fd < 0 ? NULL : fdopendir(fd);
	if (!directory) {
		r = -errno;
		safe_close(fd);
		return r;
	}
	while (r >= 0 && (entry = readdir(directory))) {
		struct vf_loan loan;

		/* One that cannot be read says nothing about any VF; it is kept for whoever wants to know why. */
		if (entry->d_name[0] == '.' || vf_loan_read(loans, entry->d_name, &loan) < 0)
			continue;
		r = seen(&loan, userdata);
	}
	return r;
}
