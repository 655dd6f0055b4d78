// SPDX-License-Identifier: Apache-2.0
#include <util/cleanup.h>

#include <errno.h>

int safe_close(int fd)
{
	if (fd >= 0) {
		int saved = errno;
		close(fd);
		errno = saved;
	}
	return -1;
}
