// SPDX-License-Identifier: Apache-2.0
/*
 * Traffic for the benchmarks, both ends.
 *
 *   traffic server ADDRESS PORT              until standard input closes:
 *                                            PORT echoes TCP, PORT+1 swallows TCP, PORT+2 counts UDP, PORT+3 tells that count
 *   traffic rr|awake|rr64|crr|bulk|udp ADDRESS PORT SECONDS
 *
 * rr: one byte to and fro on one connection. awake: the same, and neither end sleeps while it waits: for a CPU each. rr64: rr on each of
 * 64 connections, all under way at a time. crr: a connection for each byte, 64 of them under way at a time, ended by RST so that no port
 * stays in TIME_WAIT: with one at a time, waking the other end up is most of what is measured.
 * bulk: as much as goes. udp: 64-byte frames from 16 source ports; the receiver stays awake while they come: the whole path runs on the
 * sender's CPU, and how often that has to wake the receiver as well depends on which of the two happens to be a little faster.
 * Prints one JSON object: per_second, and for bulk bytes a second.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <error.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "measure.h"

#define UDP_SOCKETS 16
#define BATCH 32
#define CONNECTIONS 64 /* of rr64 and crr, under way at a time */
#define AWAKE 0.005    /* s; who stays awake does not sleep before nothing has come for so long */
#define AWAKE_BYTE 'a' /* asks the server to */
#define UDP_PAYLOAD 18 /* 64-byte frames with IPv4 and the FCS */

static uint64_t udp_received;

static socklen_t address(const char *host, int port, struct sockaddr_storage *ret)
{
	struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV}, *list;
	char service[8];
	socklen_t length;

	snprintf(service, sizeof(service), "%d", port);
	if (getaddrinfo(host, service, &hints, &list))
		error(2, 0, "%s: want a numeric address", host);
	memcpy(ret, list->ai_addr, list->ai_addrlen);
	length = list->ai_addrlen;
	freeaddrinfo(list);
	return length;
}

static int open_socket(int type, const char *host, int port, bool server)
{
	struct sockaddr_storage sa;
	socklen_t length = address(host, port, &sa);
	int fd = socket(sa.ss_family, type, 0), one = 1;
	bool stream = (type & ~SOCK_NONBLOCK) == SOCK_STREAM;

	if (fd < 0)
		error(1, errno, "socket");
	if (stream)
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (server) {
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
		if (bind(fd, (struct sockaddr *)&sa, length) || (stream && listen(fd, 4096)))
			error(1, errno, "%s port %d", host, port);
	} else if (connect(fd, (struct sockaddr *)&sa, length) && errno != EINPROGRESS) {
		error(1, errno, "connecting to %s port %d", host, port);
	}
	return fd;
}

static void watch(int epoll, int fd, uint32_t kind)
{
	struct epoll_event event = {.events = EPOLLIN, .data.u64 = (uint64_t)kind << 32 | (uint32_t)fd};

	if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event))
		error(1, errno, "epoll");
}

enum { LISTEN_ECHO, LISTEN_SINK, UDP_SINK, LISTEN_COUNT, ECHO, SINK, INPUT };

static void drain_udp(int fd)
{
	static char buffers[BATCH][64];
	struct iovec iov[BATCH];
	struct mmsghdr messages[BATCH];
	int n;

	memset(messages, 0, sizeof(messages));
	for (int i = 0; i < BATCH; i++) {
		iov[i] = (struct iovec){buffers[i], sizeof(buffers[i])};
		messages[i].msg_hdr.msg_iov = &iov[i];
		messages[i].msg_hdr.msg_iovlen = 1;
	}
	for (double until = now() + AWAKE; now() < until;) {
		while ((n = recvmmsg(fd, messages, BATCH, MSG_DONTWAIT, NULL)) > 0) {
			udp_received += (unsigned)n;
			until = now() + AWAKE;
		}
	}
}

/* What read() says, without sleeping until it says something, for so many seconds. */
static ssize_t read_awake(int fd, char *ret_byte, double seconds)
{
	ssize_t got;

	for (double until = now() + seconds; now() < until;)
		for (int i = 0; i < 1000; i++) {
			got = read(fd, ret_byte, 1);
			if (got >= 0 || errno != EAGAIN)
				return got;
		}
	return -1;
}

static int server(const char *host, int port)
{
	static char buffer[1 << 18];
	int epoll = epoll_create1(0), size = 1 << 22, udp;
	struct epoll_event events[256];

	watch(epoll, open_socket(SOCK_STREAM | SOCK_NONBLOCK, host, port, true), LISTEN_ECHO);
	watch(epoll, open_socket(SOCK_STREAM | SOCK_NONBLOCK, host, port + 1, true), LISTEN_SINK);
	udp = open_socket(SOCK_DGRAM, host, port + 2, true);
	setsockopt(udp, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size));
	watch(epoll, udp, UDP_SINK);
	watch(epoll, open_socket(SOCK_STREAM, host, port + 3, true), LISTEN_COUNT);
	watch(epoll, STDIN_FILENO, INPUT);
	puts("ready");
	fflush(stdout);
	for (;;) {
		int n = epoll_wait(epoll, events, 256, -1);

		for (int i = 0; i < n; i++) {
			int fd = (int)(uint32_t)events[i].data.u64;
			uint32_t kind = (uint32_t)(events[i].data.u64 >> 32);
			ssize_t got;
			int peer, one = 1;

			switch (kind) {
			case LISTEN_ECHO:
			case LISTEN_SINK:
				while ((peer = accept4(fd, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
					setsockopt(peer, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
					watch(epoll, peer, kind == LISTEN_ECHO ? ECHO : SINK);
				}
				break;
			case LISTEN_COUNT:
				peer = accept(fd, NULL, NULL);
				if (peer < 0)
					break;
				drain_udp(udp);
				if (write(peer, &udp_received, sizeof(udp_received)) < 0)
					perror("count");
				close(peer);
				break;
			case UDP_SINK:
				drain_udp(fd);
				break;
			case ECHO:
			case SINK:
				got = read(fd, buffer, kind == ECHO ? 1024 : sizeof(buffer));
				while (got == 1 && kind == ECHO && buffer[0] == AWAKE_BYTE) {
					if (write(fd, buffer, 1) != 1)
						break;
					got = read_awake(fd, buffer, AWAKE);
				}
				if (got < 0 && errno == EAGAIN)
					break;
				if (got <= 0 || (kind == ECHO && write(fd, buffer, (size_t)got) < 0))
					close(fd);
				break;
			case INPUT:
				if (read(fd, buffer, 16) <= 0)
					return 0;
				break;
			}
		}
	}
}

static uint64_t told_count(const char *host, int port)
{
	int fd = open_socket(SOCK_STREAM, host, port + 3, false);
	uint64_t count = 0;

	if (read(fd, &count, sizeof(count)) != sizeof(count))
		error(1, errno, "the server's count");
	close(fd);
	return count;
}

/* Connections with one byte to and fro each, until the time is over. */
static uint64_t connections(const char *host, int port, double until)
{
	struct epoll_event events[CONNECTIONS], event = {.events = EPOLLOUT};
	struct linger linger = {1, 0};
	int epoll = epoll_create1(0);
	uint64_t count = 0;
	char byte = 'x';

	for (int i = 0; i < CONNECTIONS; i++) {
		event.data.fd = open_socket(SOCK_STREAM | SOCK_NONBLOCK, host, port, false);
		epoll_ctl(epoll, EPOLL_CTL_ADD, event.data.fd, &event);
	}
	while (now() < until) {
		int n = epoll_wait(epoll, events, CONNECTIONS, 1000);

		if (n <= 0)
			error(1, errno, "crr: nothing moves after %llu", (unsigned long long)count);
		for (int i = 0; i < n; i++) {
			int fd = events[i].data.fd;

			event = (struct epoll_event){.events = EPOLLIN, .data.fd = fd};
			if (events[i].events & EPOLLOUT) {
				if (write(fd, &byte, 1) != 1 || epoll_ctl(epoll, EPOLL_CTL_MOD, fd, &event))
					error(1, errno, "crr after %llu", (unsigned long long)count);
				continue;
			}
			if (read(fd, &byte, 1) != 1)
				error(1, errno, "crr after %llu", (unsigned long long)count);
			setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
			close(fd);
			count++;
			event = (struct epoll_event){
				.events = EPOLLOUT, .data.fd = open_socket(SOCK_STREAM | SOCK_NONBLOCK, host, port, false)};
			epoll_ctl(epoll, EPOLL_CTL_ADD, event.data.fd, &event);
		}
	}
	return count;
}

/* One byte to and fro on one connection for so many seconds, and no end sleeps. */
static uint64_t transactions_awake(const char *host, int port, double seconds)
{
	int fd = open_socket(SOCK_STREAM | SOCK_NONBLOCK, host, port, false), epoll = epoll_create1(0);
	struct epoll_event event = {.events = EPOLLOUT};
	uint64_t count = 0;
	char byte = AWAKE_BYTE;

	if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) || epoll_wait(epoll, &event, 1, 1000) != 1)
		error(1, errno, "awake: no connection");
	for (double begin = now(); now() - begin < seconds; count++)
		if (write(fd, &byte, 1) != 1 || read_awake(fd, &byte, 5) != 1)
			error(1, errno, "awake after %llu", (unsigned long long)count);
	return count;
}

/* One byte to and fro on each of many connections, until the time is over. */
static uint64_t transactions(const char *host, int port, double until)
{
	struct epoll_event events[CONNECTIONS], event = {.events = EPOLLIN};
	int epoll = epoll_create1(0);
	uint64_t count = 0;
	char byte = 'x';

	for (int i = 0; i < CONNECTIONS; i++) {
		event.data.fd = open_socket(SOCK_STREAM, host, port, false);
		epoll_ctl(epoll, EPOLL_CTL_ADD, event.data.fd, &event);
		if (write(event.data.fd, &byte, 1) != 1)
			error(1, errno, "rr64");
	}
	while (now() < until) {
		int n = epoll_wait(epoll, events, CONNECTIONS, 1000);

		if (n <= 0)
			error(1, errno, "rr64: nothing moves after %llu", (unsigned long long)count);
		for (int i = 0; i < n; i++, count++)
			if (read(events[i].data.fd, &byte, 1) != 1 || write(events[i].data.fd, &byte, 1) != 1)
				error(1, errno, "rr64 after %llu", (unsigned long long)count);
	}
	return count;
}

int main(int argc, char **argv)
{
	static char block[1 << 17];
	const char *mode, *host;
	uint64_t count = 0, bytes = 0;
	double begin, seconds;
	char byte = 'x';
	int port;

	if (argc == 4 && !strcmp(argv[1], "server"))
		return server(argv[2], atoi(argv[3]));
	if (argc != 5)
		error(2, 0, "usage: traffic server ADDRESS PORT | traffic rr|awake|rr64|crr|bulk|udp ADDRESS PORT SECONDS");
	mode = argv[1];
	host = argv[2];
	port = atoi(argv[3]);
	seconds = atof(argv[4]);
	begin = now();
	if (!strcmp(mode, "rr")) {
		int fd = open_socket(SOCK_STREAM, host, port, false);

		for (; now() - begin < seconds; count++)
			if (write(fd, &byte, 1) != 1 || read(fd, &byte, 1) != 1)
				error(1, errno, "rr after %llu", (unsigned long long)count);
	} else if (!strcmp(mode, "awake")) {
		count = transactions_awake(host, port, seconds);
	} else if (!strcmp(mode, "rr64")) {
		count = transactions(host, port, begin + seconds);
	} else if (!strcmp(mode, "crr")) {
		count = connections(host, port, begin + seconds);
	} else if (!strcmp(mode, "bulk")) {
		int fd = open_socket(SOCK_STREAM, host, port + 1, false);

		while (now() - begin < seconds) {
			ssize_t sent = write(fd, block, sizeof(block));

			if (sent < 0)
				error(1, errno, "bulk");
			bytes += (uint64_t)sent;
		}
		count = bytes;
	} else if (!strcmp(mode, "udp")) {
		struct iovec iov = {block, UDP_PAYLOAD};
		struct mmsghdr messages[BATCH];
		uint64_t before = told_count(host, port);
		int fds[UDP_SOCKETS], size = 1 << 22;

		memset(messages, 0, sizeof(messages));
		for (int i = 0; i < BATCH; i++) {
			messages[i].msg_hdr.msg_iov = &iov;
			messages[i].msg_hdr.msg_iovlen = 1;
		}
		for (int i = 0; i < UDP_SOCKETS; i++) {
			fds[i] = open_socket(SOCK_DGRAM, host, port + 2, false);
			setsockopt(fds[i], SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size));
		}
		begin = now();
		for (unsigned i = 0; now() - begin < seconds; i++)
			sendmmsg(fds[i % UDP_SOCKETS], messages, BATCH, 0);
		seconds = now() - begin;
		usleep(100000);
		count = told_count(host, port) - before;
	} else {
		error(2, 0, "%s: want rr, awake, rr64, crr, bulk or udp", mode);
	}
	printf("{\"per_second\":%.1f}\n", (double)count / seconds);
	return 0;
}
