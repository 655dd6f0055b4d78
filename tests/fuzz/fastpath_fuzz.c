/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a consumer says to the agent: messages of any length and content, with whatever descriptors, to a fast path that waits, one that serves and one whose
 * session an earlier agent left. The server, its sockets and memory are the real ones, on `lo` of a namespace of its own.
 */
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <syslog.h>
#include <unistd.h>

#include <fastpath/server_internal.h>
#include <util/log.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { WAITING, SERVING, ORPHAN, PATHS };
static const char *const names[PATHS] = {"waiting", "serving", "orphan"};

static char directory[] = "/tmp/heddle-fuzz-XXXXXX";
static struct fastpath_server *server;
static struct fastpath_config configs[PATHS];
static sd_event *event;

static int on_socket(const char *name, uint16_t queue, int fd, const struct fastpath_room *room, void *userdata)
{
	(void)userdata;
	if (!name || queue >= FASTPATH_QUEUES || fd < -1 || (fd >= 0) != (room != NULL))
		abort();
	return 0;
}

static void on_refresh(const char *name, struct fastpath_config *config, void *userdata)
{
	(void)name;
	(void)config;
	(void)userdata;
}

static void clean(void)
{
	fastpath_server_free(server);
	fastpath_server_clear(directory);
	sd_event_unref(event);
	(void)rmdir(directory);
}

static void begin(void)
{
	int fd = -1;
	struct ifreq lo = {.ifr_name = "lo"};

	log_set_level(LOG_ERR);
	if (!mkdtemp(directory) || sd_event_new(&event) < 0 || unshare(CLONE_NEWNET) < 0)
		exit(1); /* as root only */
	fd = socket(AF_INET, SOCK_DGRAM, 0);
	if (fd < 0 || ioctl(fd, SIOCGIFFLAGS, &lo) < 0)
		exit(1);
	lo.ifr_flags |= IFF_UP;
	(void)ioctl(fd, SIOCSIFFLAGS, &lo);
	close(fd);
	for (unsigned i = 0; i < PATHS; i++) {
		configs[i] = (struct fastpath_config){.name = names[i],
			.waiting = i == WAITING ? "the device is not there" : NULL,
			.device = "lo",
			.ifindex = 1,
			.queues = {i == ORPHAN ? 1 : 0},
			.n_queues = 1,
			.transmits = true,
			.generic = true,
			.frames = 64,
			.frame_size = 2048,
			.ring = 64,
			.stall_ms = 5000,
			.mtu = 1500,
			.node = -1};
	}
	if (fastpath_server_new(event, directory, on_socket, on_refresh, NULL, &server) < 0 ||
		fastpath_server_set(server, configs, PATHS) < 0)
		exit(1);
	atexit(clean);
}

static void turn(void)
{
	for (int i = 0; i < 8 && sd_event_run(event, 0) > 0; i++)
		;
}

static struct endpoint *path(unsigned which)
{
	for (size_t i = 0; i < server->n; i++)
		if (strcmp(server->endpoints[i]->name, names[which]) == 0)
			return server->endpoints[i];
	abort();
}

/* As record_adopt() leaves it. */
static void orphan(struct endpoint *ep)
{
	if (ep->session.phase != FASTPATH_IDLE)
		return;
	ep->session = (struct session){.phase = FASTPATH_ORPHANED,
		.id = 77,
		.since_ms = clock_ms(),
		.umem = UMEM_NONE,
		.n = 1,
		.queue = {{.cookie = 5}}};
	ep->session.queue[0].xsk = XSK_NONE;
}

static int descriptor(uint8_t kind)
{
	switch (kind % 4) {
	case 0:
		return memfd_create("fuzz", MFD_CLOEXEC);
	case 1:
		return eventfd(0, EFD_CLOEXEC);
	case 2:
		return socket(AF_XDP, SOCK_RAW | SOCK_CLOEXEC, 0);
	default:
		return open("/dev/null", O_RDWR | O_CLOEXEC);
	}
}

/* Of the input: what the message holds, over a form that is let through more often than bytes at random would be. */
static size_t say(int fd, const uint8_t *data, size_t size)
{
	struct {
		struct fastpath_message message;
		uint8_t beyond[1024 - sizeof(struct fastpath_message)];
	} said = {.message = {.magic = FASTPATH_MAGIC, .version = FASTPATH_PROTOCOL, .n_queues = 1, .session = 77}};
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int) * 8)];
	} control = {0};
	struct iovec piece = {.iov_base = &said, .iov_len = sizeof(said.message)};
	struct msghdr head = {.msg_iov = &piece, .msg_iovlen = 1};
	size_t at, n;
	int fds[8];

	if (size < 4)
		return size;
	said.message.type = data[0];
	n = data[1] & 7;
	if (data[1] & 8)
		piece.iov_len = (size_t)data[2] * 4;
	at = data[2] * 4u % sizeof(said.message);
	data += 4;
	size = size - 4 < 40 ? size - 4 : 40;
	memcpy((uint8_t *)&said + at, data, size);
	if (n) {
		for (size_t i = 0; i < n; i++)
			fds[i] = descriptor((uint8_t)(at + i));
		head.msg_control = &control;
		head.msg_controllen = CMSG_SPACE(sizeof(int) * n);
		control.header = (struct cmsghdr){
			.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int) * n)};
		memcpy(CMSG_DATA(&control.header), fds, sizeof(int) * n);
	}
	(void)sendmsg(fd, &head, MSG_NOSIGNAL | MSG_DONTWAIT);
	for (size_t i = 0; i < n; i++)
		safe_close(fds[i]);
	return size + 4;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct fastpath_message answer;
	int fds[FASTPATH_FDS], fd = -1;
	unsigned which;
	size_t n;

	if (!server)
		begin();
	if (size < 1)
		return 0;
	which = data[0] % PATHS;
	if (which == ORPHAN)
		orphan(path(which));
	snprintf(address.sun_path, sizeof(address.sun_path), "%s/" FASTPATH_DIRECTORY "/%s", directory, names[which]);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		abort();
	turn();
	for (size_t at = 1; at < size;) {
		at += say(fd, data + at, size - at);
		turn();
		n = FASTPATH_FDS;
		while (fastpath_recv(fd, &answer, fds, &n) >= 0) {
			while (n)
				close(fds[--n]);
			n = FASTPATH_FDS;
		}
	}
	close(fd);
	turn();
	/* whoever goes leaves nothing: the next one finds it free */
	if (path(SERVING)->session.connection || path(WAITING)->session.phase != FASTPATH_IDLE)
		abort();
	return 0;
}
