/* SPDX-License-Identifier: Apache-2.0 */
/*
 * igb and igc, up to Linux 6.18 at least: binding succeeds, and then
 * - buffers are told to the NIC in whole KiB (SRRCTL.BSIZEPKT), rounded down. What is longer is spread over several, each of which the driver then takes
 *   for a packet of its own: XDP would judge what is the middle of somebody's frame.
 * - where receiving and sending have interrupts of their own, a wake-up only gets the latter's going (until 7.0): a queue whose fill ring was empty once never
 *   receives again, for the kernel neither. And only the former's poll is stopped while a queue changes hands, both rings of which are emptied.
 */
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <net/ethernet.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <netdev/zero_copy.h>
#include <util/cleanup.h>
#include <util/sys_tree.h>

#define HEADROOM 256 /* XDP_PACKET_HEADROOM */
#define TAGS 8	     /* two VLAN tags */
#define STAMP 16     /* what igb and igc have the NIC write in front of a packet whose time is asked for */

static bool in_whole_kib(const struct netdev *device)
{
	return strcmp(device->driver, "igb") == 0 || strcmp(device->driver, "igc") == 0;
}

/* Of an interrupt: "DEV-rx-0" and "DEV-tx-0" of a queue, or "DEV-TxRx-0" where they share it. DEV may be an earlier name. */
static bool is_called(int root, const char *number, const char *suffix)
{
	_cleanup_close_ int fd = -1;
	char path[64], actions[128];
	ssize_t length;

	if (snprintf(path, sizeof(path), "kernel/irq/%s/actions", number) >= (int)sizeof(path))
		return false;
	fd = openat(root, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	length = fd < 0 ? -1 : read(fd, actions, sizeof(actions) - 1);
	while (length > 0 && actions[length - 1] == '\n')
		length--;
	return length >= (ssize_t)strlen(suffix) && memcmp(actions + length - strlen(suffix), suffix, strlen(suffix)) == 0;
}

static bool receives_alone(const struct netdev *device, uint32_t queue)
{
	_cleanup_close_ int root = open(sys_tree(), O_PATH | O_DIRECTORY | O_CLOEXEC);
	_cleanup_closedir_ DIR *list = NULL;
	char path[PATH_MAX], suffix[16];
	bool found = false;

	if (snprintf(path, sizeof(path), "%s/class/net/%s/device/msi_irqs", sys_tree(), device->name) < (int)sizeof(path))
		list = opendir(path);
	snprintf(suffix, sizeof(suffix), "-rx-%u", queue);
	for (struct dirent *entry; root >= 0 && list && !found && (entry = readdir(list));)
		found = entry->d_name[0] != '.' && is_called(root, entry->d_name, suffix);
	return found;
}

const char *zero_copy_unfit(const struct netdev *device, uint32_t queue, uint32_t frame_size)
{
	if (!in_whole_kib(device))
		return NULL;
	if (receives_alone(device, queue))
		return "this driver misses the wake-ups of zero-copy where receiving has an interrupt of its own";
	if (device->mtu + ETH_HLEN + TAGS + STAMP > ((frame_size - HEADROOM) & ~1023u))
		return frame_size < 4096 ? "in zero-copy this driver fills frames by the KiB: its MTU takes memory.frameSize 4096"
					 : "in zero-copy this driver fills frames by the KiB: its MTU is more than 3034";
	return NULL;
}
