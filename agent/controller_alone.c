/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One agent a network namespace. Filters of clsact, routes, rules of NICs and devices for the tunnel are known by what they are, not by who made them: a
 * second agent, with directories of its own, would take them for an earlier one's, and change or remove them under the first.
 *
 * The claim is the name of an abstract unix socket, which belongs to the namespace and ends with its process. Anybody can take such a
 * name, so one that is held by another user counts for nothing: nobody may keep the agent from its work.
 */
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <controller_internal.h>

#define CLAIM_NAME "heddled" /* behind the byte 0 */
#define CLAIM_WAITING 64

static const struct sockaddr_un claim_address = {.sun_family = AF_UNIX, .sun_path = "\0" CLAIM_NAME};
static const socklen_t claim_length = offsetof(struct sockaddr_un, sun_path) + sizeof("\0" CLAIM_NAME) - 1;

/* -EBUSY: an agent of this user. -EPERM: who holds it is somebody else, or does not say. */
static int look_at_holder(pid_t *ret)
{
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct ucred holder;
	socklen_t length = sizeof(holder);

	if (fd < 0)
		return -errno;
	if (connect(fd, (const struct sockaddr *)&claim_address, claim_length) < 0 ||
		getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &holder, &length) < 0 || holder.uid != geteuid())
		return -EPERM;
	*ret = holder.pid;
	return -EBUSY;
}

static int try_claim(int *ret, pid_t *ret_holder)
{
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return -errno;
	if (bind(fd, (const struct sockaddr *)&claim_address, claim_length) < 0)
		return errno == EADDRINUSE ? look_at_holder(ret_holder) : -errno;
	if (listen(fd, CLAIM_WAITING) < 0)
		return -errno;
	*ret = TAKE_FD(fd);
	return 0;
}

int alone_claim(unsigned patience_ms, int *ret)
{
	pid_t holder = 0;
	int r;

	/* Whoever has bound but does not listen yet, or is ending, is asked again as well. */
	while ((r = try_claim(ret, &holder)) == -EBUSY || r == -EPERM) {
		if (!patience_ms)
			break;
		usleep(10000);
		patience_ms -= patience_ms < 10 ? patience_ms : 10;
	}
	if (r == -EBUSY && holder > 0)
		return log_err(r, "another heddled runs in this network namespace (process %d)", (int)holder);
	if (r == -EBUSY)
		return log_err(r, "another heddled runs in this network namespace");
	if (r < 0)
		log_warn(r, "cannot tell whether another heddled runs in this network namespace");
	return 0;
}

bool alone_elsewhere(pid_t agent)
{
	char path[64];
	struct stat theirs, own;

	snprintf(path, sizeof(path), "/proc/%d/ns/net", (int)agent);
	return stat(path, &theirs) == 0 && stat("/proc/self/ns/net", &own) == 0 &&
	       (theirs.st_ino != own.st_ino || theirs.st_dev != own.st_dev);
}

/* Those who ask have their answer as soon as they are connected. */
static int on_question(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	int asking;

	(void)source;
	(void)events;
	(void)userdata;
	while ((asking = accept4(fd, NULL, NULL, SOCK_CLOEXEC)) >= 0)
		safe_close(asking);
	return 0;
}

int alone_serve(struct controller *c)
{
	return c->alone < 0 ? 0 : sd_event_add_io(c->event, &c->alone_asked, c->alone, EPOLLIN, on_question, c);
}

void alone_free(struct controller *c)
{
	sd_event_source_disable_unref(c->alone_asked);
	c->alone = safe_close(c->alone);
}
