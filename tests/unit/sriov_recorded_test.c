/* SPDX-License-Identifier: Apache-2.0 */
/* Who is whose in SR-IOV, as kernels told it: recordings (sriov/README.md), and what each comes to. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <libmnl/libmnl.h>

#include <netdev/sriov.h>
#include <util/cleanup.h>

#include "tree_env.h"

#define FOLDER "tests/unit/sriov"
#define DEVICES_MAX 64
#define LINE_SIZE 65536

struct recording {
	char root[64];
	struct netdev devices[DEVICES_MAX];
	size_t n;
	struct devlink devlink;
	struct sriov table;
	bool joined;
	unsigned expected;
};

/* A message of its own, aligned as one that was received. */
static size_t take_hex(const char *text, void **ret)
{
	size_t length = strlen(text) / 2;
	uint8_t *bytes = malloc(length);

	assert_non_null(bytes);
	for (size_t i = 0; i < length; i++) {
		unsigned byte;

		assert_int_equal(sscanf(text + 2 * i, "%2x", &byte), 1);
		bytes[i] = (uint8_t)byte;
	}
	*ret = bytes;
	return length;
}

static void take_message(struct recording *recording, const char *text, bool is_link)
{
	_cleanup_free_ void *message = NULL;
	size_t length = take_hex(text, &message);

	assert_true(mnl_nlmsg_ok(message, (int)length));
	if (is_link)
		assert_true(recording->n < DEVICES_MAX && netdev_parse(message, &recording->devices[recording->n++]));
	else
		(void)devlink_take(&recording->devlink, message, length);
	/* Cut short it is believed as far as it goes, at most. */
	for (size_t cut = 0; cut < length; cut++) {
		_cleanup_free_ void *copy = malloc(cut ?: 1);
		struct devlink_device device;
		struct devlink_port port;

		memcpy(copy, message, cut);
		assert_int_equal(devlink_parse(copy, cut, &device, &port), DEVLINK_NOTHING);
	}
}

static const char *or_none(const char *text)
{
	return text[0] ? text : "-";
}

static void expect(struct recording *recording, const char *line)
{
	static const char *const modes[] = {
		[ESWITCH_UNKNOWN] = "unknown", [ESWITCH_LEGACY] = "legacy", [ESWITCH_SWITCHDEV] = "switchdev"};
	char pf[32], pci[32], own[32], representor[32];
	_cleanup_close_ int fd = -1;
	const struct sriov_vf *vf;
	unsigned number;

	if (!recording->joined) {
		fd = open(recording->root, O_PATH | O_DIRECTORY | O_CLOEXEC);
		assert_int_equal(sriov_scan(fd, &recording->table), 0);
		sriov_join(&recording->table, recording->devices, recording->n, &recording->devlink);
		recording->joined = true;
	}
	recording->expected++;
	if (sscanf(line, "ports %u", &number) == 1) {
		assert_int_equal(recording->devlink.n_ports, number);
	} else if (sscanf(line, "mode %31s %31s", pf, own) == 2) {
		vf = sriov_find(&recording->table, recording->devices, recording->n, pf, 0);
		assert_non_null(vf);
		assert_string_equal(modes[recording->table.pfs[vf->pf].eswitch], own);
	} else if (sscanf(line, "vf %31s %u %31s %31s %31s", pf, &number, pci, own, representor) == 5) {
		vf = sriov_find(&recording->table, recording->devices, recording->n, pf, number);
		assert_non_null(vf);
		assert_string_equal(or_none(vf->address), pci);
		assert_string_equal(or_none(vf->name), own);
		assert_string_equal(or_none(vf->representor_name), representor);
	} else {
		fail_msg("expect %s: not understood", line);
	}
}

static void take_line(struct recording *recording, char *line)
{
	char path[PATH_MAX], text[PATH_MAX];

	line[strcspn(line, "\n")] = '\0';
	if (strncmp(line, "rtnetlink ", 10) == 0)
		take_message(recording, line + 10, true);
	else if (strncmp(line, "devlink ", 8) == 0)
		take_message(recording, line + 8, false);
	else if (sscanf(line, "file %4095s %4095s", path, text) == 2)
		tree_put(recording->root, path, text);
	else if (sscanf(line, "link %4095s %4095s", path, text) == 2)
		tree_link(recording->root, path, text);
	else if (strncmp(line, "expect ", 7) == 0)
		expect(recording, line + 7);
	else if (line[0] && line[0] != '#')
		fail_msg("%s: not understood", line);
}

static void play(const char *name)
{
	_cleanup_free_ char *line = malloc(LINE_SIZE);
	struct recording *recording = calloc(1, sizeof(*recording));
	_cleanup_fclose_ FILE *file = NULL;
	char path[PATH_MAX];

	assert_true(line && recording);
	snprintf(path, sizeof(path), FOLDER "/%s", name);
	file = fopen(path, "re");
	assert_non_null(file);
	print_message("# %s\n", name);
	tree_make(recording->root, sizeof(recording->root));
	while (fgets(line, LINE_SIZE, file))
		take_line(recording, line);
	assert_true(recording->expected > 0);
	tree_remove(recording->root);
	sriov_clear(&recording->table);
	free(recording->devlink.devices);
	free(recording->devlink.ports);
	free(recording);
}

static void test_recordings(void **state)
{
	_cleanup_closedir_ DIR *folder = opendir(FOLDER);
	const struct dirent *entry;
	unsigned n = 0;

	(void)state;
	assert_non_null(folder);
	while ((entry = readdir(folder))) {
		const char *dot = strrchr(entry->d_name, '.');

		if (!dot || strcmp(dot, ".txt") != 0)
			continue;
		play(entry->d_name);
		n++;
	}
	assert_true(n >= 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_recordings)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
