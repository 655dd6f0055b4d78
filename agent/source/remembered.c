/* SPDX-License-Identifier: Apache-2.0 */
/*
 * STATE_DIR/identities, one line an identity, those that no port has first, and the hash of all of it at its end:
 *
 *   heddle-identities 1 LAST\n
 *   HASH HASH NUMBER\n
 *   end HASH\n
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <source/remembered.h>
#include <util/buffer.h>
#include <util/cleanup.h>
#include <util/file.h>
#include <util/hash.h>

#define STATE_NAME "identities"
#define STATE_LIMIT (64u << 20)
#define END "end %016" PRIx64 "\n"
#define END_LENGTH 21

static int open_directory(const char *state_dir)
{
	int fd = open(state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

static int parse(const char *text, size_t length, struct identities *into)
{
	const char *end, *line;
	char expected[END_LENGTH + 1];
	uint32_t last;
	int r, used = 0;

	if (length < END_LENGTH)
		return -EINVAL;
	end = text + length - END_LENGTH;
	snprintf(expected, sizeof(expected), END, hash_bytes(1, text, (size_t)(end - text)));
	if (memcmp(end, expected, END_LENGTH) != 0 || sscanf(text, "heddle-identities 1 %" SCNu32 "\n%n", &last, &used) != 1)
		return -EINVAL;
	r = identities_adopt_last(into, last);
	for (line = text + used; line < end && r == 0; line += used) {
		struct identity_key key;
		uint32_t number;

		used = 0;
		if (sscanf(line, "%16" SCNx64 " %16" SCNx64 " %" SCNu32 "\n%n", &key.hash[0], &key.hash[1], &number, &used) !=
				3 ||
			used == 0)
			return -EINVAL;
		r = identities_adopt(into, &key, number);
	}
	return r;
}

int remembered_load(const char *state_dir, struct identities **identities)
{
	_cleanup_close_ int dir_fd = open_directory(state_dir);
	_cleanup_free_ char *text = NULL;
	struct identities *loaded = NULL;
	size_t length;
	int r = dir_fd < 0 ? dir_fd : file_read(dir_fd, STATE_NAME, STATE_LIMIT, &text, &length, NULL);

	if (r < 0)
		return r == -ENOENT ? 0 : r;
	r = identities_new(&loaded);
	if (r == 0)
		r = parse(text, length, loaded);
	if (r < 0) {
		identities_free(loaded);
		return r;
	}
	identities_free(*identities);
	*identities = loaded;
	return 0;
}

static int add_line(const struct identity_key *key, uint32_t number, void *userdata)
{
	buffer_printf(userdata, "%016" PRIx64 " %016" PRIx64 " %" PRIu32 "\n", key->hash[0], key->hash[1], number);
	return 0;
}

int remembered_save(const char *state_dir, const struct identities *identities)
{
	_cleanup_buffer_ struct buffer text = {0};
	_cleanup_close_ int dir_fd = -1;
	int r;

	buffer_printf(&text, "heddle-identities 1 %" PRIu32 "\n", identities_last(identities));
	r = identities_each(identities, add_line, &text);
	if (r < 0 || text.failed)
		return -ENOMEM;
	buffer_printf(&text, END, hash_bytes(1, text.data, text.length));
	if (text.failed)
		return -ENOMEM;
	r = file_make_directory(state_dir, 0700);
	if (r < 0)
		return r;
	dir_fd = open_directory(state_dir);
	return dir_fd < 0 ? dir_fd : file_write(dir_fd, STATE_NAME, text.data, text.length, 0600);
}
