/* SPDX-License-Identifier: Apache-2.0 */
/* Features have names and no numbers: which bit one is, the kernel is asked each time. */
#include <errno.h>
#include <net/if.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <util/ethtool.h>
#include <util/cleanup.h>

#define FEATURES_MAX 256

int ethtool_run(const char *device, void *command)
{
	_cleanup_close_ int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct ifreq request = {.ifr_data = command};

	if (fd < 0)
		return -errno;
	snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", device);
	return ioctl(fd, SIOCETHTOOL, &request) < 0 ? -errno : 0;
}

static const char *name_at(const struct ethtool_gstrings *names, uint32_t i)
{
	return (const char *)&names->data[(size_t)i * ETH_GSTRING_LEN];
}

/* *ret: to be freed; NULL on error. */
static int feature_names(const char *device, struct ethtool_gstrings **ret)
{
	struct {
		struct ethtool_sset_info info;
		uint32_t count;
	} set = {.info = {.cmd = ETHTOOL_GSSET_INFO, .sset_mask = 1ull << ETH_SS_FEATURES}};
	_cleanup_free_ struct ethtool_gstrings *names = NULL;
	int r = ethtool_run(device, &set);

	if (r < 0)
		return r;
	if (!set.info.sset_mask || set.count > FEATURES_MAX)
		return -EOPNOTSUPP;
	names = calloc(1, sizeof(*names) + (size_t)set.count * ETH_GSTRING_LEN);
	if (!names)
		return -ENOMEM;
	names->cmd = ETHTOOL_GSTRINGS;
	names->string_set = ETH_SS_FEATURES;
	names->len = set.count;
	r = ethtool_run(device, names);
	if (r < 0)
		return r;
	if (names->len > set.count) /* more than there was room for */
		names->len = set.count;
	*ret = TAKE_PTR(names);
	return 0;
}

static int feature_index(const char *device, const char *name)
{
	_cleanup_free_ struct ethtool_gstrings *names = NULL;
	int r = feature_names(device, &names);

	if (r < 0)
		return r;
	for (uint32_t i = 0; i < names->len; i++)
		if (strncmp(name_at(names, i), name, ETH_GSTRING_LEN) == 0)
			return (int)i;
	return -EOPNOTSUPP;
}

int ethtool_features_each(const char *device, ethtool_feature_cb feature, void *userdata)
{
	struct {
		struct ethtool_gfeatures head;
		struct ethtool_get_features_block blocks[FEATURES_MAX / 32];
	} features = {.head = {.cmd = ETHTOOL_GFEATURES, .size = FEATURES_MAX / 32}};
	_cleanup_free_ struct ethtool_gstrings *names = NULL;
	int r = feature_names(device, &names);

	if (r == 0)
		r = ethtool_run(device, &features);
	for (uint32_t i = 0; r == 0 && i < names->len; i++)
		feature(name_at(names, i), ETH_GSTRING_LEN, features.blocks[i / 32].active & 1u << i % 32, userdata);
	return r;
}

int ethtool_feature_get(const char *device, const char *name, struct ethtool_feature *ret)
{
	struct {
		struct ethtool_gfeatures head;
		struct ethtool_get_features_block blocks[FEATURES_MAX / 32];
	} features = {.head = {.cmd = ETHTOOL_GFEATURES, .size = FEATURES_MAX / 32}};
	int index = feature_index(device, name), r = index < 0 ? index : ethtool_run(device, &features);
	const struct ethtool_get_features_block *block;
	uint32_t bit;

	*ret = (struct ethtool_feature){0};
	if (r < 0)
		return r;
	block = &features.blocks[index / 32];
	bit = 1u << index % 32;
	*ret = (struct ethtool_feature){
		.available = block->available & bit, .requested = block->requested & bit, .active = block->active & bit};
	return 0;
}

/* What the device cannot do without stays. */
int ethtool_features_off(const char *device)
{
	struct {
		struct ethtool_gfeatures head;
		struct ethtool_get_features_block blocks[FEATURES_MAX / 32];
	} now = {.head = {.cmd = ETHTOOL_GFEATURES, .size = FEATURES_MAX / 32}};
	struct {
		struct ethtool_sfeatures head;
		struct ethtool_set_features_block blocks[FEATURES_MAX / 32];
	} off = {.head = {.cmd = ETHTOOL_SFEATURES}};
	int r = ethtool_run(device, &now);

	if (r < 0)
		return r;
	off.head.size = now.head.size;
	for (uint32_t i = 0; i < now.head.size; i++)
		off.blocks[i].valid = now.blocks[i].available & ~now.blocks[i].never_changed;
	return ethtool_run(device, &off);
}

int ethtool_feature_set(const char *device, const char *name, bool on)
{
	struct {
		struct ethtool_sfeatures head;
		struct ethtool_set_features_block blocks[FEATURES_MAX / 32];
	} features = {.head = {.cmd = ETHTOOL_SFEATURES}};
	int index = feature_index(device, name);

	if (index < 0)
		return index;
	/* The kernel takes the number of blocks that it has, no more. */
	features.head.size = (uint32_t)index / 32 + 1;
	for (;;) {
		int r;

		features.blocks[index / 32].valid = 1u << index % 32;
		features.blocks[index / 32].requested = on ? 1u << index % 32 : 0;
		r = ethtool_run(device, &features);
		if (r != -EINVAL || ++features.head.size > FEATURES_MAX / 32)
			return r;
	}
}

int ethtool_rx_queues(const char *device, uint32_t *ret)
{
	struct ethtool_channels channels = {.cmd = ETHTOOL_GCHANNELS};
	int r = ethtool_run(device, &channels);

	if (r < 0)
		return r;
	*ret = channels.rx_count + channels.combined_count;
	return *ret ? 0 : -EOPNOTSUPP;
}
