/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sends packets that all have different tuples, as fast as one CPU can: AF_PACKET and sendmmsg, right checksums, so that the
 * far stack answers them.
 *
 *	flood DEVICE SOURCE_MAC DESTINATION_MAC DESTINATION tcp|udp PORT COUNT [PACKETS_PER_SECOND]
 *
 * Sources are 10.128.0.0/9 or fd99::/64, one address for every 16,384 source ports. Prints what it sent.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netpacket/packet.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BATCH 64
#define PORTS 16384u

struct frame {
	uint8_t data[128];
	size_t length;
};

static uint32_t sum16(const uint8_t *data, size_t length, uint32_t sum)
{
	for (size_t i = 0; i + 1 < length; i += 2)
		sum += (uint32_t)data[i] << 8 | data[i + 1];
	if (length & 1)
		sum += (uint32_t)data[length - 1] << 8;
	return sum;
}

static uint16_t fold(uint32_t sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~sum;
}

static void put16(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static void put32(uint8_t *p, uint32_t v)
{
	put16(p, v >> 16);
	put16(p + 2, v & 0xffff);
}

static int parse_mac(const char *text, uint8_t *mac)
{
	return sscanf(text, "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", mac, mac + 1, mac + 2, mac + 3, mac + 4, mac + 5) == 6 ? 0 : -EINVAL;
}

/* Everything that is the same in all packets. */
static void make_template(struct frame *f, const uint8_t *source_mac, const uint8_t *destination_mac, int family,
	const uint8_t *destination, uint8_t protocol, uint16_t port)
{
	size_t l3 = family == AF_INET ? 20 : 40, l4 = protocol == IPPROTO_TCP ? 20 : 12;
	uint8_t *ip = f->data + ETH_HLEN, *header = ip + l3;

	memset(f, 0, sizeof(*f));
	f->length = ETH_HLEN + l3 + l4;
	memcpy(f->data, destination_mac, ETH_ALEN);
	memcpy(f->data + ETH_ALEN, source_mac, ETH_ALEN);
	put16(f->data + 12, family == AF_INET ? ETHERTYPE_IP : ETHERTYPE_IPV6);
	if (family == AF_INET) {
		ip[0] = 0x45;
		put16(ip + 2, (uint32_t)(l3 + l4));
		ip[8] = 64;
		ip[9] = protocol;
		memcpy(ip + 16, destination, 4);
	} else {
		ip[0] = 0x60;
		put16(ip + 4, (uint32_t)l4);
		ip[6] = protocol;
		ip[7] = 64;
		ip[8] = 0xfd;
		ip[9] = 0x99;
		memcpy(ip + 24, destination, 16);
	}
	put16(header + 2, port);
	if (protocol == IPPROTO_TCP) {
		header[12] = 5 << 4;
		header[13] = 0x02;
		put16(header + 14, 64240);
	} else {
		put16(header + 4, (uint32_t)l4);
		memcpy(header + 8, "hddl", 4);
	}
}

static void vary(struct frame *f, int family, uint8_t protocol, uint32_t number)
{
	size_t l3 = family == AF_INET ? 20 : 40, l4 = f->length - ETH_HLEN - l3, at = protocol == IPPROTO_TCP ? 16 : 6;
	uint8_t *ip = f->data + ETH_HLEN, *header = ip + l3;
	uint32_t sum;

	if (family == AF_INET) {
		put32(ip + 12, 0x0a800001u + number / PORTS);
		put16(ip + 10, 0);
		put16(ip + 10, fold(sum16(ip, l3, 0)));
		sum = sum16(ip + 12, 8, 0);
	} else {
		put32(ip + 20, 1 + number / PORTS);
		sum = sum16(ip + 8, 32, 0);
	}
	put16(header, 1024 + number % PORTS);
	if (protocol == IPPROTO_TCP)
		put32(header + 4, number * 2654435761u);
	put16(header + at, 0);
	put16(header + at, fold(sum16(header, l4, sum + protocol + (uint32_t)l4)));
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
	static struct frame frames[BATCH];
	struct mmsghdr messages[BATCH] = {0};
	struct iovec vectors[BATCH];
	uint8_t source_mac[ETH_ALEN], destination_mac[ETH_ALEN], destination[16];
	struct sockaddr_ll address = {.sll_family = AF_PACKET};
	int fd = -1, family;
	uint8_t protocol;
	uint32_t count, sent = 0;
	double rate, start;

	if (argc < 8 || parse_mac(argv[2], source_mac) || parse_mac(argv[3], destination_mac)) {
		fprintf(stderr,
			"usage: flood DEVICE SOURCE_MAC DESTINATION_MAC DESTINATION tcp|udp PORT COUNT [PACKETS_PER_SECOND]\n");
		return 2;
	}
	family = strchr(argv[4], ':') ? AF_INET6 : AF_INET;
	if (inet_pton(family, argv[4], destination) != 1)
		return 2;
	protocol = strcmp(argv[5], "tcp") == 0 ? IPPROTO_TCP : IPPROTO_UDP;
	count = (uint32_t)strtoul(argv[7], NULL, 10);
	rate = argc > 8 ? strtod(argv[8], NULL) : 0;

	fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
	address.sll_ifindex = (int)if_nametoindex(argv[1]);
	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
		perror("socket");
		return 1;
	}
	for (size_t i = 0; i < BATCH; i++) {
		make_template(&frames[i], source_mac, destination_mac, family, destination, protocol, (uint16_t)atoi(argv[6]));
		vectors[i] = (struct iovec){frames[i].data, frames[i].length};
		messages[i].msg_hdr = (struct msghdr){.msg_iov = &vectors[i], .msg_iovlen = 1};
	}
	start = now();
	while (sent < count) {
		uint32_t n = count - sent < BATCH ? count - sent : BATCH;
		int r;

		for (uint32_t i = 0; i < n; i++)
			vary(&frames[i], family, protocol, sent + i);
		r = sendmmsg(fd, messages, n, 0);
		if (r < 0 && errno != ENOBUFS && errno != EAGAIN) {
			perror("sendmmsg");
			return 1;
		}
		if (r > 0)
			sent += (uint32_t)r;
		while (rate > 0 && sent > (now() - start) * rate)
			usleep(200);
	}
	printf("%u packets in %.2f s\n", sent, now() - start);
	close(fd);
	return 0;
}
