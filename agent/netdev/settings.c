/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <util/ethtool.h>
#include <netdev/settings.h>
#include <util/buffer.h>
#include <util/cleanup.h>
#include <util/file.h>
#include <util/log.h>

#define FILE_NAME "settings"
#define FILE_LIMIT (4u << 20)
#define SCTP_FEATURE "tx-sctp-segmentation"

/* What there is to set. get and set work on the device as it is called now. -EOPNOTSUPP, -ENOENT: it has no such thing. */
struct knob {
	const char *name;
	int wanted;
	int (*get)(const char *device);
	int (*set)(const char *device, int value);
};

/* --- a feature of ethtool --- */

static int sctp_get(const char *device)
{
	struct ethtool_feature feature;
	int r = ethtool_feature_get(device, SCTP_FEATURE, &feature);

	return r < 0 ? r : feature.available ? feature.requested : -EOPNOTSUPP;
}

static int sctp_set(const char *device, int value)
{
	return ethtool_feature_set(device, SCTP_FEATURE, value);
}

/* --- IPv6 --- */

int settings_open_ipv6(const char *device, int flags)
{
	const char *sysctls = getenv("HEDDLE_PROC_SYS");
	char path[PATH_MAX];
	int fd = -1;

	snprintf(path, sizeof(path), "%s/net/ipv6/conf/%s/disable_ipv6", sysctls && *sysctls ? sysctls : "/proc/sys", device);
	fd = open(path, flags | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

static int ipv6_get(const char *device)
{
	_cleanup_close_ int fd = settings_open_ipv6(device, O_RDONLY);
	char value[4] = "";

	if (fd < 0)
		return fd;
	return read(fd, value, sizeof(value) - 1) < 1 ? -EIO : value[0] != '0';
}

static int ipv6_set(const char *device, int value)
{
	_cleanup_close_ int fd = settings_open_ipv6(device, O_WRONLY);

	if (fd < 0)
		return fd;
	return file_write_all(fd, value ? "1" : "0", 1);
}

/* --- promiscuous mode: what somebody set; that of packet sockets is counted apart --- */

static int flags_get(const char *device, int *ret_socket, struct ifreq *request)
{
	_cleanup_close_ int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	snprintf(request->ifr_name, sizeof(request->ifr_name), "%s", device);
	if (ioctl(fd, SIOCGIFFLAGS, request) < 0)
		return -errno;
	*ret_socket = TAKE_FD(fd);
	return 0;
}

static int promiscuous_get(const char *device)
{
	_cleanup_close_ int fd = -1;
	struct ifreq request = {0};
	int r = flags_get(device, &fd, &request);

	return r < 0 ? r : (request.ifr_flags & IFF_PROMISC) != 0;
}

static int promiscuous_set(const char *device, int value)
{
	_cleanup_close_ int fd = -1;
	struct ifreq request = {0};
	int r = flags_get(device, &fd, &request);

	if (r < 0)
		return r;
	request.ifr_flags = (short)(value ? request.ifr_flags | IFF_PROMISC : request.ifr_flags & ~IFF_PROMISC);
	return ioctl(fd, SIOCSIFFLAGS, &request) < 0 ? -errno : 0;
}

enum { KNOB_SCTP, KNOB_IPV6, KNOB_PROMISCUOUS, KNOBS };
static const struct knob knobs[KNOBS] = {
	[KNOB_SCTP] = {SCTP_FEATURE, 0, sctp_get, sctp_set},
	[KNOB_IPV6] = {"disable_ipv6", 0, ipv6_get, ipv6_set},
	[KNOB_PROMISCUOUS] = {"promiscuous", 1, promiscuous_get, promiscuous_set},
};

/* --- what was --- */

struct noted {
	uint32_t ifindex;
	unsigned knob;
	int before;
};

struct notes {
	struct noted *items;
	size_t n;
	bool changed;
};

static struct noted *find(const struct notes *notes, uint32_t ifindex, unsigned knob)
{
	for (size_t i = 0; i < notes->n; i++)
		if (notes->items[i].ifindex == ifindex && notes->items[i].knob == knob)
			return &notes->items[i];
	return NULL;
}

static int note(struct notes *notes, uint32_t ifindex, unsigned knob, int before)
{
	struct noted *grown = reallocarray(notes->items, notes->n + 1, sizeof(*grown));

	if (!grown)
		return -ENOMEM;
	notes->items = grown;
	notes->items[notes->n++] = (struct noted){.ifindex = ifindex, .knob = knob, .before = before};
	notes->changed = true;
	return 0;
}

static int read_notes(const char *path, struct notes *ret)
{
	_cleanup_free_ char *text = NULL;
	size_t length;
	int r = file_read(AT_FDCWD, path, FILE_LIMIT, &text, &length, NULL);

	if (r < 0)
		return r == -ENOENT ? 0 : r;
	for (char *line = text, *next; *line && r >= 0; line = next) {
		char name[32];
		uint32_t ifindex;
		int before;

		next = line + strcspn(line, "\n");
		next += *next != '\0';
		/* Another version's line, or one that somebody else wrote: not ours to put back. */
		if (sscanf(line, "%" SCNu32 " %31s %d", &ifindex, name, &before) != 3)
			continue;
		for (unsigned knob = 0; knob < KNOBS && r >= 0; knob++)
			if (strcmp(knobs[knob].name, name) == 0 && !find(ret, ifindex, knob))
				r = note(ret, ifindex, knob, before);
	}
	ret->changed = false;
	return r;
}

static int write_notes(const char *path, struct notes *notes)
{
	_cleanup_buffer_ struct buffer text = {0};
	int r;

	if (!notes->changed)
		return 0;
	for (size_t i = 0; i < notes->n; i++)
		buffer_printf(&text, "%" PRIu32 " %s %d\n", notes->items[i].ifindex, knobs[notes->items[i].knob].name,
			notes->items[i].before);
	if (text.failed)
		return -ENOMEM;
	if (notes->n)
		r = file_write_fleeting(AT_FDCWD, path, text.data, text.length, 0600);
	else
		r = unlink(path) < 0 && errno != ENOENT ? -errno : 0;
	if (r == 0)
		notes->changed = false;
	return r;
}

/* --- the difference --- */

static bool wants(const struct settings_device *device, unsigned knob)
{
	if (knob == KNOB_PROMISCUOUS)
		return device->uplink;
	return !device->uplink && (knob != KNOB_IPV6 || device->ipv6);
}

static int by_ifindex(const void *a, const void *b)
{
	const struct settings_device *x = a, *y = b;

	return x->ifindex < y->ifindex ? -1 : x->ifindex > y->ifindex;
}

void settings_sort(struct settings_device *devices, size_t n)
{
	if (n)
		qsort(devices, n, sizeof(*devices), by_ifindex);
}

struct settings_device *settings_find(struct settings_device *devices, size_t n, uint32_t ifindex)
{
	struct settings_device key = {.ifindex = ifindex};

	return n ? bsearch(&key, devices, n, sizeof(key), by_ifindex) : NULL;
}

static bool is_wanted(struct settings_device *devices, size_t n, const struct noted *noted)
{
	const struct settings_device *device = settings_find(devices, n, noted->ifindex);

	return device && wants(device, noted->knob);
}

static bool is_done(struct settings_device *devices, size_t n, uint32_t ifindex)
{
	const struct settings_device *device = settings_find(devices, n, ifindex);

	return device && device->is_done;
}

static void put_back(struct notes *notes, struct settings_device *devices, size_t n)
{
	for (size_t i = notes->n; i-- > 0;) {
		const struct noted *noted = &notes->items[i];
		const struct knob *knob = &knobs[noted->knob];
		char device[IF_NAMESIZE];
		int r = 0;

		if (is_wanted(devices, n, noted))
			continue;
		/* Whoever changed it since then wants it as it is. */
		if (if_indextoname(noted->ifindex, device) && knob->get(device) == knob->wanted)
			r = knob->set(device, noted->before);
		if (r < 0)
			log_warn(r, "cannot set %s of %s back to %d", knob->name, device, noted->before);
		notes->items[i] = notes->items[--notes->n];
		notes->changed = true;
	}
}

/* First all that is to change is noted and on disk, then it is changed. */
static int note_all(struct notes *notes, struct settings_device *devices, size_t n)
{
	char name[IF_NAMESIZE];
	int r = 0;

	for (size_t i = 0; i < n && r == 0; i++)
		for (unsigned knob = 0; knob < KNOBS && r == 0; knob++) {
			int now;

			if (devices[i].is_done || !wants(&devices[i], knob) || find(notes, devices[i].ifindex, knob) ||
				!if_indextoname(devices[i].ifindex, name))
				continue;
			now = knobs[knob].get(name);
			if (now >= 0 && now != knobs[knob].wanted)
				r = note(notes, devices[i].ifindex, knob, now);
		}
	return r;
}

static void set_all(const struct notes *notes, struct settings_device *devices, size_t n)
{
	for (size_t i = 0; i < notes->n; i++) {
		const struct knob *knob = &knobs[notes->items[i].knob];
		char device[IF_NAMESIZE];
		int r = 0;

		if (is_done(devices, n, notes->items[i].ifindex))
			continue;
		if (if_indextoname(notes->items[i].ifindex, device) && knob->get(device) != knob->wanted)
			r = knob->set(device, knob->wanted);
		if (r < 0)
			log_warn(r, "cannot set %s of %s to %d", knob->name, device, knob->wanted);
	}
}

int settings_sync(const char *run_dir, struct settings_device *devices, size_t n)
{
	_cleanup_free_ char *path = NULL;
	struct notes notes = {0};
	int r;

	if (asprintf(&path, "%s/" FILE_NAME, run_dir) < 0) {
		path = NULL;
		return -ENOMEM;
	}
	r = read_notes(path, &notes);
	if (r >= 0) {
		put_back(&notes, devices, n);
		r = note_all(&notes, devices, n);
	}
	if (r >= 0)
		r = write_notes(path, &notes);
	if (r >= 0)
		set_all(&notes, devices, n);
	free(notes.items);
	return r < 0 ? log_err(r, "cannot set up the devices of ports") : 0;
}
