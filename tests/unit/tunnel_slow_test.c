/* SPDX-License-Identifier: Apache-2.0 */
/* The agent's device and socket, in a namespace of the test's own; the other host is a socket in another one. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cmocka.h>

#include <netdev/tunnel_slow.h>
#include <util/addr.h>
#include <util/log.h>

#define PORT 4789
#define LONG 3000 /* longer than the link takes */

static void run(const char *command)
{
	if (system(command) != 0)
		fail_msg("%s", command);
}

static struct hd_addr addr(const char *text)
{
	struct hd_addr ret;

	assert_int_equal(addr_parse(text, &ret), 0);
	return ret;
}

static void set_up(void)
{
	run("ip link set lo up && ip netns add hds$PPID && ip link add hds0 type veth peer name p0 netns hds$PPID && ip link set "
	    "hds0 up && "
	    "ip addr add 10.7.0.1/24 dev hds0 && ip addr add fd07::1/64 dev hds0 nodad && ip -n hds$PPID link set p0 up && "
	    "ip -n hds$PPID addr add 10.7.0.2/24 dev p0 && ip -n hds$PPID addr add fd07::2/64 dev p0 nodad");
}

static void tear_down(void)
{
	run("ip link del hds0; ip netns del hds$PPID");
}

/* In the other namespace, bound to the port. */
static int far_socket(bool ipv4)
{
	struct sockaddr_in6 own6 = {.sin6_family = AF_INET6, .sin6_port = htons(PORT)};
	struct sockaddr_in own4 = {.sin_family = AF_INET, .sin_port = htons(PORT)};
	int here = open("/proc/self/ns/net", O_RDONLY), there, fd;
	char path[64];

	snprintf(path, sizeof(path), "/run/netns/hds%d", (int)getpid());
	there = open(path, O_RDONLY);
	assert_true(here >= 0 && there >= 0);
	assert_int_equal(setns(there, CLONE_NEWNET), 0);
	fd = socket(ipv4 ? AF_INET : AF_INET6, SOCK_DGRAM, 0);
	assert_int_equal(setns(here, CLONE_NEWNET), 0);
	assert_int_equal(
		ipv4 ? bind(fd, (struct sockaddr *)&own4, sizeof(own4)) : bind(fd, (struct sockaddr *)&own6, sizeof(own6)), 0);
	assert_int_equal(
		setsockopt(fd, ipv4 ? IPPROTO_IP : IPPROTO_IPV6, ipv4 ? IP_RECVTOS : IPV6_RECVTCLASS, &(int){1}, sizeof(int)), 0);
	if (!ipv4)
		assert_int_equal(setsockopt(fd, IPPROTO_UDP, 102 /* UDP_NO_CHECK6_RX */, &(int){1}, sizeof(int)), 0);
	close(here);
	close(there);
	return fd;
}

static int packet_socket(const struct tunnel_slow *slow)
{
	struct sockaddr_ll at = {
		.sll_family = AF_PACKET, .sll_ifindex = (int)tunnel_slow_ifindex(slow), .sll_protocol = htons(0x0003)};
	int fd = socket(AF_PACKET, SOCK_RAW, htons(0x0003));

	assert_true(fd >= 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof(at)), 0);
	return fd;
}

static void wait_for(int fd)
{
	struct pollfd poll_fd = {.fd = fd, .events = POLLIN};

	assert_int_equal(poll(&poll_fd, 1, 20000), 1);
}

/* A whole outer packet, as our programs make one. */
static size_t make_outer(uint8_t *frame, bool ipv4, uint16_t port, size_t payload)
{
	uint8_t *at = frame + 14;
	uint16_t udp = (uint16_t)(payload + 8);

	memset(frame, 0, 14 + 40 + 8 + payload);
	frame[12] = ipv4 ? 0x08 : 0x86;
	frame[13] = ipv4 ? 0x00 : 0xdd;
	if (ipv4) {
		memcpy(at, "\x45\xba\0\0\0\0\x40\0\x07\x11\0\0\x0a\x07\0\x01\x0a\x07\0\x02", 20);
		at[2] = (uint8_t)((udp + 20) >> 8);
		at[3] = (uint8_t)(udp + 20);
		at += 20;
	} else {
		memcpy(at, "\x6b\xa0\0\0\0\0\x11\x07", 8);
		at[4] = (uint8_t)(udp >> 8);
		at[5] = (uint8_t)udp;
		memcpy(at + 8, addr("fd07::1").b, 16);
		memcpy(at + 24, addr("fd07::2").b, 16);
		at += 40;
	}
	memcpy(at, &(uint16_t[]){htons(50000), htons(port), htons(udp), 0}, 8);
	for (size_t i = 0; i < payload; i++)
		at[8 + i] = (uint8_t)(i * 7);
	return (size_t)(at + 8 - frame) + payload;
}

static void to_peer(struct tunnel_slow *slow, int device, int far, bool ipv4)
{
	uint8_t frame[4096], got[4096], control[64] __attribute__((aligned(8)));
	struct iovec part = {.iov_base = got, .iov_len = sizeof(got)};
	union {
		struct sockaddr_in in;
		struct sockaddr_in6 in6;
	} from;
	struct msghdr message = {.msg_name = &from,
		.msg_namelen = sizeof(from),
		.msg_iov = &part,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control)};
	size_t length = make_outer(frame, ipv4, PORT, LONG);
	struct tunnel_slow_counts counts;
	const struct cmsghdr *tos;

	assert_int_equal(send(device, frame, length, 0), length);
	/* for another port, cut off, and nothing of IP */
	length = make_outer(got, ipv4, PORT + 1, 100);
	assert_int_equal(send(device, got, length, 0), length);
	(void)make_outer(got, ipv4, PORT, 100);
	assert_int_equal(send(device, got, 80, 0), 80);
	memset(got, 0, 60);
	assert_int_equal(send(device, got, 60, 0), 60);
	for (unsigned i = 0; i < 100; i++) {
		tunnel_slow_counts(slow, &counts);
		if (counts.sent + counts.ignored >= 4)
			break;
		wait_for(tunnel_slow_device_fd(slow));
		assert_int_equal(tunnel_slow_send(slow), 0);
	}
	assert_int_equal(counts.sent, 1);
	assert_int_equal(counts.ignored, 3);
	wait_for(far);
	assert_int_equal(recvmsg(far, &message, 0), LONG);
	make_outer(frame, ipv4, PORT, LONG);
	assert_memory_equal(got, frame + (ipv4 ? 42 : 62), LONG);
	assert_int_equal(ntohs(from.in.sin_port), PORT);
	tos = CMSG_FIRSTHDR(&message);
	assert_true(tos && *CMSG_DATA(tos) == 0xba);
}

#define INNER 22 /* in the payload, behind the shim and the inner Ethernet header */
#define CUT 577

/* A fragment in the middle of its datagram, cut into such as fit; with options, or of something else, it goes as it is. */
static void pieces_to_peer(struct tunnel_slow *slow, int device, int far, bool ipv4)
{
	uint8_t frame[4096], got[4096];
	size_t header = ipv4 ? 42 : 62, place = 1480 / 8, n = 1480, done = 0;
	size_t length = make_outer(frame, ipv4, PORT, INNER + 20 + n);
	uint8_t *inner = frame + header + INNER;

	frame[11] = CUT & 0xff;
	frame[10] = CUT >> 8;
	memcpy(inner - 2, "\x08\0", 2);
	memcpy(inner, "\x45\0\x05\xdc\x12\x34\x20\xb9\x40\x11\0\0\x0a\1\0\1\x0a\1\0\2", 20);
	assert_int_equal(send(device, frame, length, 0), length);
	wait_for(tunnel_slow_device_fd(slow));
	assert_int_equal(tunnel_slow_send(slow), 0);
	while (done < n) {
		size_t size = n - done < 552 ? n - done : 552, sum = 0; /* the most of 8 bytes each */

		wait_for(far);
		assert_int_equal(recv(far, got, sizeof(got), 0), INNER + 20 + size);
		assert_memory_equal(got, frame + header, INNER);
		assert_int_equal(got[INNER + 2] << 8 | got[INNER + 3], 20 + size);
		assert_int_equal(got[INNER + 6] << 8 | got[INNER + 7], 0x2000 | (place + done / 8));
		assert_memory_equal(got + INNER + 4, inner + 4, 2);
		assert_memory_equal(got + INNER + 12, inner + 12, 8);
		for (size_t i = 0; i < 20; i += 2)
			sum += (size_t)(got[INNER + i] << 8 | got[INNER + i + 1]);
		assert_int_equal((sum & 0xffff) + (sum >> 16), 0xffff);
		assert_memory_equal(got + INNER + 20, inner + 20 + done, size);
		done += size;
	}
	for (unsigned i = 0; i < 4; i++) {
		static const uint8_t change[][2] = {{0, 0x46}, {6, 0x60}, {2, 0x06}};

		memcpy(got, frame, length);
		if (i < 3)
			got[header + INNER + change[i][0]] = change[i][1];
		else
			got[header + INNER - 2] = 0x86; /* another type */
		assert_int_equal(send(device, got, length, 0), length);
		wait_for(tunnel_slow_device_fd(slow));
		assert_int_equal(tunnel_slow_send(slow), 0);
		wait_for(far);
		assert_int_equal(recv(far, got, sizeof(got), 0), INNER + 20 + n);
	}
}

/* The same of IPv6; what has another header ahead of the fragment's, or lies about its length, goes as it is. */
static void pieces6_to_peer(struct tunnel_slow *slow, int device, int far, bool ipv4)
{
	uint8_t frame[4096], got[4096];
	size_t header = ipv4 ? 42 : 62, place = 1232, n = 1229, done = 0;
	size_t length = make_outer(frame, ipv4, PORT, INNER + 48 + n);
	uint8_t *inner = frame + header + INNER;

	frame[11] = CUT & 0xff;
	frame[10] = CUT >> 8;
	memcpy(inner - 2, "\x86\xdd", 2);
	memset(inner, 0xfd, 40);
	memcpy(inner, "\x60\0\0\0\x04\xd5\x2c\x40", 8);
	memcpy(inner + 40, "\x11\0\x04\xd0\x12\x34\x56\x78", 8); /* the last one */
	assert_int_equal(send(device, frame, length, 0), length);
	wait_for(tunnel_slow_device_fd(slow));
	assert_int_equal(tunnel_slow_send(slow), 0);
	while (done < n) {
		size_t size = n - done < 528 ? n - done : 528; /* the most of 8 bytes each */

		wait_for(far);
		assert_int_equal(recv(far, got, sizeof(got), 0), INNER + 48 + size);
		assert_memory_equal(got, frame + header, INNER);
		assert_int_equal(got[INNER + 4] << 8 | got[INNER + 5], 8 + size);
		assert_memory_equal(got + INNER + 6, inner + 6, 36);
		assert_int_equal(got[INNER + 42] << 8 | got[INNER + 43], (place + done) | (done + size < n));
		assert_memory_equal(got + INNER + 44, inner + 44, 4);
		assert_memory_equal(got + INNER + 48, inner + 48 + done, size);
		done += size;
	}
	for (unsigned i = 0; i < 3; i++) {
		static const uint8_t change[][2] = {{0, 0x46}, {6, 0}, {4, 0x06}};

		memcpy(got, frame, length);
		got[header + INNER + change[i][0]] = change[i][1];
		assert_int_equal(send(device, got, length, 0), length);
		wait_for(tunnel_slow_device_fd(slow));
		assert_int_equal(tunnel_slow_send(slow), 0);
		wait_for(far);
		assert_int_equal(recv(far, got, sizeof(got), 0), INNER + 48 + n);
	}
}

static void from_peer(struct tunnel_slow *slow, int device, int far, bool ipv4)
{
	struct sockaddr_in6 to6 = {.sin6_family = AF_INET6, .sin6_port = htons(PORT)};
	struct sockaddr_in to4 = {.sin_family = AF_INET, .sin_port = htons(PORT), .sin_addr.s_addr = inet_addr("10.7.0.1")};
	const struct sockaddr *to = ipv4 ? (const struct sockaddr *)&to4 : (const struct sockaddr *)&to6;
	socklen_t to_length = ipv4 ? sizeof(to4) : sizeof(to6);
	uint8_t payload[LONG], got[4096];
	size_t header = ipv4 ? 42 : 62;
	ssize_t length;

	memcpy(&to6.sin6_addr, addr("fd07::1").b, 16);
	for (size_t i = 0; i < LONG; i++)
		payload[i] = (uint8_t)(i * 3);
	payload[1] = 0x80;
	assert_int_equal(sendto(far, payload, LONG, 0, to, to_length), LONG); /* a control packet */
	payload[1] = 0;
	assert_int_equal(sendto(far, payload, 4, 0, to, to_length), 4);
	assert_int_equal(sendto(far, payload, LONG, 0, to, to_length), LONG);
	for (unsigned i = 0; i < 3; i++) {
		struct tunnel_slow_counts counts;

		tunnel_slow_counts(slow, &counts);
		if (counts.received)
			break;
		wait_for(tunnel_slow_socket_fd(slow));
		assert_int_equal(tunnel_slow_receive(slow), 0);
	}
	/* The packet socket sees what it sent itself too. */
	do {
		struct sockaddr_ll at;
		socklen_t at_length = sizeof(at);

		wait_for(device);
		length = recvfrom(device, got, sizeof(got), 0, (struct sockaddr *)&at, &at_length);
		if (at.sll_pkttype != PACKET_OUTGOING)
			break;
	} while (true);
	assert_int_equal(length, header + LONG);
	assert_memory_equal(got + header, payload, LONG);
	assert_int_equal(got[header - 8] << 8 | got[header - 7], PORT); /* both ports */
	assert_int_equal(got[header - 6] << 8 | got[header - 5], PORT);
	assert_int_equal(got[header - 4] << 8 | got[header - 3], LONG + 8);
	if (ipv4)
		assert_memory_equal(got + 26, "\x0a\x07\0\x02\x0a\x07\0\x01", 8);
	else
		assert_memory_equal(got + 14 + 24, addr("fd07::1").b, 16);
	assert_int_equal(got[ipv4 ? 22 : 21], 64); /* TTL */
}

static void both_ways(bool ipv4)
{
	const struct hd_addr own = addr(ipv4 ? "10.7.0.1" : "fd07::1");
	struct tunnel_slow *slow, *second;
	int device, far;

	set_up();
	assert_int_equal(tunnel_slow_open(&own, PORT, true, &slow), 0);
	assert_int_equal(tunnel_slow_open(&own, PORT, true, &second), -EADDRINUSE);
	assert_int_equal(tunnel_slow_open(&own, PORT + 1, true, &second), -EBUSY);
	device = packet_socket(slow);
	far = far_socket(ipv4);
	to_peer(slow, device, far, ipv4);
	pieces_to_peer(slow, device, far, ipv4);
	pieces6_to_peer(slow, device, far, ipv4);
	from_peer(slow, device, far, ipv4);
	run("ip -o addr show dev heddle-tunnel | grep -c . | grep -qx 0");
	run("ip link show dev heddle-tunnel | grep -q 'mtu 65521'");
	close(device);
	close(far);
	tunnel_slow_close(slow);
	assert_int_equal(if_nametoindex(TUNNEL_SLOW_DEVICE), 0);
	tear_down();
}

static void test_ipv4(void **state)
{
	(void)state;
	both_ways(true);
}

static void test_ipv6(void **state)
{
	(void)state;
	both_ways(false);
}

/* The address may come later. */
static void test_no_address(void **state)
{
	const struct hd_addr own4 = addr("10.99.0.1"), own6 = addr("fd99::1");
	struct tunnel_slow *slow;

	(void)state;
	assert_int_equal(tunnel_slow_open(&own4, PORT, false, &slow), 0);
	tunnel_slow_close(slow);
	assert_int_equal(tunnel_slow_open(&own6, PORT, false, &slow), 0);
	tunnel_slow_close(slow);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ipv4), cmocka_unit_test(test_ipv6), cmocka_unit_test(test_no_address)};

	if (unshare(CLONE_NEWNET) < 0) {
		printf("# skipped: needs root: %s\n", strerror(errno));
		return 0;
	}
	log_set_level(LOG_ERR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
