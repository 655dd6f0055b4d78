/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sends the answer to a rejected packet. To a peer on the wire, or a workload behind its port: by a packet socket that bypasses the queueing discipline, and
 * with it the egress hook, where our own program would drop a RST that belongs to no flow. To the host's own sockets
 * (egress policy): by a raw socket, through loopback, which is not judged.
 */
#include <errno.h>
#include <string.h>
#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <sys/socket.h>

#include <datapath/internal.h>

static int packet_socket(struct datapath *dp)
{
	_cleanup_close_ int fd = -1;

	if (dp->packet_socket >= 0)
		return dp->packet_socket;
	/* Protocol 0: it receives nothing. */
	fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || setsockopt(fd, SOL_PACKET, PACKET_QDISC_BYPASS, &(int){1}, sizeof(int)) < 0)
		return log_err(-errno, "cannot open the packet socket that answers rejected packets");
	dp->packet_socket = TAKE_FD(fd);
	return dp->packet_socket;
}

static int raw_socket(struct datapath *dp, uint8_t family)
{
	int *fd = &dp->raw_socket[family == 6];

	if (*fd >= 0)
		return *fd;
	/* IPPROTO_RAW: the header comes with the packet, in both families. */
	*fd = socket(family == 6 ? AF_INET6 : AF_INET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_RAW);
	return *fd < 0 ? log_err(-errno, "cannot open the raw socket that answers rejected packets") : *fd;
}

static int send_to_wire(struct datapath *dp, const struct hd_event *event, const struct reject_packet *packet)
{
	struct sockaddr_ll to = {.sll_family = AF_PACKET,
		.sll_ifindex = (int)event->ifindex,
		.sll_protocol = htons(packet->family == 4 ? 0x0800 : 0x86dd)};
	int fd = packet_socket(dp);

	if (fd < 0)
		return fd;
	if (sendto(fd, packet->data, packet->length, 0, (struct sockaddr *)&to, sizeof(to)) < 0)
		return -errno;
	return 0;
}

static int send_to_host(struct datapath *dp, const struct hd_event *event, const struct reject_packet *packet)
{
	struct sockaddr_in to4 = {.sin_family = AF_INET};
	struct sockaddr_in6 to6 = {.sin6_family = AF_INET6};
	int fd = raw_socket(dp, packet->family);
	ssize_t n;

	if (fd < 0)
		return fd;
	if (packet->family == 4) {
		memcpy(&to4.sin_addr, packet->data + offsetof(struct iphdr, daddr), sizeof(to4.sin_addr));
		n = sendto(fd, packet->data, packet->length, 0, (struct sockaddr *)&to4, sizeof(to4));
	} else {
		memcpy(&to6.sin6_addr, packet->data + offsetof(struct ip6_hdr, ip6_dst), sizeof(to6.sin6_addr));
		if (IN6_IS_ADDR_LINKLOCAL(&to6.sin6_addr))
			to6.sin6_scope_id = event->ifindex;
		n = sendto(fd, packet->data, packet->length, 0, (struct sockaddr *)&to6, sizeof(to6));
	}
	return n < 0 ? -errno : 0;
}

int datapath_reject(struct datapath *dp, const struct hd_event *event, const struct datapath_router *router)
{
	struct reject_packet packet;
	int r = reject_build(event, router, &packet);

	if (r < 0)
		return r;
	r = reject_to_device(event) ? send_to_wire(dp, event, &packet) : send_to_host(dp, event, &packet);
	if (r < 0)
		log_debug("cannot answer a rejected packet: %s", strerror(-r));
	return r;
}
