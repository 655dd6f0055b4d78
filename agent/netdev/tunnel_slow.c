/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/udp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <heddle/overlay.h>
#include <netdev/settings.h>
#include <netdev/tunnel_slow.h>
#include <util/addr.h>
#include <util/cleanup.h>
#include <util/file.h>
#include <util/log.h>

/* linux/udp.h has these, and cannot be included beside netinet/udp.h. */
#define NO_CHECK6_TX 101
#define NO_CHECK6_RX 102

#define DEVICE_MTU 65521 /* the most that a tap takes: 65535 with its Ethernet header */
#define PACKET_MAX 65535
#define FRAME_MAX (ETH_HLEN + PACKET_MAX)
#define FRAMES_A_TURN 64
#define DATAGRAMS_A_CALL 8
#define CALLS_A_TURN 8
#define RECEIVE_BUFFER (1 << 20)
#define CONTROL_SIZE 128

#define SHIM_SIZE 8 /* of VXLAN and Geneve */
#define GENEVE_CONTROL 0x80

struct tunnel_slow {
	int device, socket;
	uint32_t ifindex;
	struct hd_addr address;
	__be16 port;
	bool geneve;
	uint8_t mac[ETH_ALEN];
	struct tunnel_slow_counts counts;
	uint8_t frame[FRAME_MAX];
	uint8_t datagrams[DATAGRAMS_A_CALL][PACKET_MAX];
	uint8_t control[DATAGRAMS_A_CALL][CONTROL_SIZE] __attribute__((aligned(8)));
};
DEFINE_CLEANUP(struct tunnel_slow *, tunnel_slow_close);

/* --- the device --- */

void tunnel_refuse_ipv6(const char *device)
{
	_cleanup_close_ int fd = settings_open_ipv6(device, O_WRONLY);
	int r = fd < 0 ? fd : file_write_all(fd, "1", 1);

	if (r < 0)
		log_debug("cannot disable IPv6 on %s: %s", device, strerror(-r));
}

static int set_up_device(struct tunnel_slow *slow)
{
	_cleanup_close_ int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct ifreq request = {.ifr_name = TUNNEL_SLOW_DEVICE};

	if (fd < 0)
		return -errno;
	tunnel_refuse_ipv6(request.ifr_name);
	if (ioctl(fd, SIOCGIFINDEX, &request) < 0)
		return -errno;
	slow->ifindex = (uint32_t)request.ifr_ifindex;
	if (ioctl(fd, SIOCGIFHWADDR, &request) < 0)
		return -errno;
	memcpy(slow->mac, request.ifr_hwaddr.sa_data, sizeof(slow->mac));
	request.ifr_mtu = DEVICE_MTU;
	if (ioctl(fd, SIOCSIFMTU, &request) < 0 || ioctl(fd, SIOCGIFFLAGS, &request) < 0)
		return -errno;
	request.ifr_flags |= IFF_UP | IFF_NOARP;
	return ioctl(fd, SIOCSIFFLAGS, &request) < 0 ? -errno : 0;
}

static int open_device(struct tunnel_slow *slow)
{
	struct ifreq request = {.ifr_name = TUNNEL_SLOW_DEVICE, .ifr_flags = (short)(IFF_TAP | IFF_NO_PI | IFF_TUN_EXCL)};

	slow->device = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
	if (slow->device < 0 || ioctl(slow->device, TUNSETIFF, &request) < 0)
		return -errno;
	return set_up_device(slow);
}

/* --- the socket --- */

struct option {
	int level, name, value;
};

/* No DF: what is here because it is too big for the way is fragmented. A checksum of 0 is what our programs send too (RFC 6935), mostly. */
static const struct option options4[] = {
	{IPPROTO_IP, IP_FREEBIND, 1},
	{IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DONT},
	{IPPROTO_IP, IP_RECVTOS, 1},
	{IPPROTO_IP, IP_RECVTTL, 1},
	{SOL_SOCKET, SO_NO_CHECK, 1},
};
static const struct option options6[] = {
	{IPPROTO_IPV6, IPV6_V6ONLY, 1},
	{IPPROTO_IPV6, IPV6_FREEBIND, 1},
	{IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_DONT},
	{IPPROTO_IPV6, IPV6_RECVTCLASS, 1},
	{IPPROTO_IPV6, IPV6_RECVHOPLIMIT, 1},
	{IPPROTO_UDP, NO_CHECK6_TX, 1},
	{IPPROTO_UDP, NO_CHECK6_RX, 1},
};

union socket_address {
	struct sockaddr any;
	struct sockaddr_in in;
	struct sockaddr_in6 in6;
};

static socklen_t put_address(union socket_address *to, const struct hd_addr *address, __be16 port)
{
	memset(to, 0, sizeof(*to));
	if (addr_is_ipv4(address)) {
		to->in.sin_family = AF_INET;
		to->in.sin_port = port;
		to->in.sin_addr.s_addr = address->w[3];
		return sizeof(to->in);
	}
	to->in6.sin6_family = AF_INET6;
	to->in6.sin6_port = port;
	memcpy(&to->in6.sin6_addr, address->b, sizeof(to->in6.sin6_addr));
	return sizeof(to->in6);
}

static int open_socket(struct tunnel_slow *slow)
{
	bool ipv4 = addr_is_ipv4(&slow->address);
	const struct option *options = ipv4 ? options4 : options6;
	size_t n = ipv4 ? ARRAY_SIZE(options4) : ARRAY_SIZE(options6);
	union socket_address own;
	socklen_t length = put_address(&own, &slow->address, slow->port);

	slow->socket = socket(ipv4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (slow->socket < 0)
		return -errno;
	for (size_t i = 0; i < n; i++)
		if (setsockopt(slow->socket, options[i].level, options[i].name, &options[i].value, sizeof(int)) < 0)
			return -errno;
	(void)setsockopt(slow->socket, SOL_SOCKET, SO_RCVBUFFORCE, &(int){RECEIVE_BUFFER}, sizeof(int));
	return bind(slow->socket, &own.any, length) < 0 ? -errno : 0;
}

bool tunnel_address_is_here(const struct hd_addr *address)
{
	union socket_address own;
	socklen_t length = put_address(&own, address, 0);
	_cleanup_close_ int fd = socket(own.any.sa_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	return fd < 0 || bind(fd, &own.any, length) == 0 || errno != EADDRNOTAVAIL;
}

int tunnel_slow_open(const struct hd_addr *address, uint16_t port, bool geneve, struct tunnel_slow **ret)
{
	_cleanup_(tunnel_slow_close_p) struct tunnel_slow *slow = malloc(sizeof(*slow));
	int r;

	if (!slow)
		return -ENOMEM;
	/* Its buffers are not touched before they are used. */
	memset(slow, 0, offsetof(struct tunnel_slow, frame));
	slow->device = slow->socket = -1;
	slow->address = *address;
	slow->port = htons(port);
	slow->geneve = geneve;
	/* Before the device, so that none comes and goes each time this is tried. */
	r = open_socket(slow);
	if (r == 0)
		r = open_device(slow);
	if (r < 0)
		return r;
	*ret = TAKE_PTR(slow);
	return 0;
}

void tunnel_slow_close(struct tunnel_slow *slow)
{
	if (!slow)
		return;
	safe_close(slow->device);
	safe_close(slow->socket);
	free(slow);
}

uint32_t tunnel_slow_ifindex(const struct tunnel_slow *slow)
{
	return slow->ifindex;
}

int tunnel_slow_checksums(struct tunnel_slow *slow, bool on)
{
	bool ipv4 = addr_is_ipv4(&slow->address);
	int r = setsockopt(
		slow->socket, ipv4 ? SOL_SOCKET : IPPROTO_UDP, ipv4 ? SO_NO_CHECK : NO_CHECK6_TX, &(int){!on}, sizeof(int));

	return r < 0 ? -errno : 0;
}

int tunnel_slow_device_fd(const struct tunnel_slow *slow)
{
	return slow->device;
}

int tunnel_slow_socket_fd(const struct tunnel_slow *slow)
{
	return slow->socket;
}

void tunnel_slow_counts(const struct tunnel_slow *slow, struct tunnel_slow_counts *ret)
{
	*ret = slow->counts;
}

/* --- from the device to the socket --- */

struct outer {
	struct hd_addr destination;
	int tos, ttl;
	uint8_t *payload;
	size_t length;
};

static bool read_ipv4(uint8_t *packet, size_t length, struct outer *ret, size_t *ret_header)
{
	struct iphdr ip;

	if (length < sizeof(ip))
		return false;
	memcpy(&ip, packet, sizeof(ip));
	if (ip.version != 4 || ip.ihl < 5 || ip.protocol != IPPROTO_UDP || ip.frag_off & htons(0x3fff))
		return false;
	ret->destination = addr_from_ipv4(ip.daddr);
	ret->tos = ip.tos;
	ret->ttl = ip.ttl;
	*ret_header = ip.ihl * 4u;
	return true;
}

static bool read_ipv6(uint8_t *packet, size_t length, struct outer *ret, size_t *ret_header)
{
	struct ip6_hdr ip;

	if (length < sizeof(ip))
		return false;
	memcpy(&ip, packet, sizeof(ip));
	if (ip.ip6_nxt != IPPROTO_UDP)
		return false;
	memcpy(ret->destination.b, &ip.ip6_dst, sizeof(ret->destination.b));
	ret->tos = (int)(ntohl(ip.ip6_flow) >> 20 & 0xff);
	ret->ttl = ip.ip6_hlim;
	*ret_header = sizeof(ip);
	return true;
}

/* Of the tunnel's family, for its port. */
static bool read_outer(const struct tunnel_slow *slow, uint8_t *frame, size_t length, struct outer *ret)
{
	bool ipv4 = addr_is_ipv4(&slow->address), read;
	uint16_t ethertype = length >= ETH_HLEN ? (uint16_t)(frame[12] << 8 | frame[13]) : 0;
	size_t header = 0, udp_length;
	struct udphdr udp;

	if (ethertype != (ipv4 ? ETH_P_IP : ETH_P_IPV6))
		return false;
	frame += ETH_HLEN;
	length -= ETH_HLEN;
	read = ipv4 ? read_ipv4(frame, length, ret, &header) : read_ipv6(frame, length, ret, &header);
	if (!read || length < header + sizeof(udp))
		return false;
	memcpy(&udp, frame + header, sizeof(udp));
	udp_length = ntohs(udp.len);
	if (udp.dest != slow->port || udp_length < sizeof(udp) + SHIM_SIZE || header + udp_length > length)
		return false;
	ret->payload = frame + header + sizeof(udp);
	ret->length = udp_length - sizeof(udp);
	return true;
}

/* RFC 1071. */
static __be16 checksum(const struct iphdr *ip)
{
	uint16_t words[sizeof(*ip) / 2];
	uint32_t sum = 0;

	memcpy(words, ip, sizeof(words));
	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		sum += ntohs(words[i]);
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return htons((uint16_t)~sum);
}

static void put_control(struct msghdr *message, struct cmsghdr **at, int level, int type, int value)
{
	*at = *at ? CMSG_NXTHDR(message, *at) : CMSG_FIRSTHDR(message);
	(*at)->cmsg_level = level;
	(*at)->cmsg_type = type;
	(*at)->cmsg_len = CMSG_LEN(sizeof(value));
	memcpy(CMSG_DATA(*at), &value, sizeof(value));
}

/* Its payload in parts. Counts it. */
static void send_outer(struct tunnel_slow *slow, const struct outer *outer, struct iovec *parts, size_t n)
{
	bool ipv4 = addr_is_ipv4(&slow->address);
	uint8_t control[2 * CMSG_SPACE(sizeof(int))] __attribute__((aligned(8))) = {0};
	union socket_address to;
	struct msghdr message = {.msg_name = &to,
		.msg_namelen = put_address(&to, &outer->destination, slow->port),
		.msg_iov = parts,
		.msg_iovlen = n,
		.msg_control = control,
		.msg_controllen = sizeof(control)};
	struct cmsghdr *at = NULL;

	put_control(&message, &at, ipv4 ? IPPROTO_IP : IPPROTO_IPV6, ipv4 ? IP_TOS : IPV6_TCLASS, outer->tos);
	put_control(&message, &at, ipv4 ? IPPROTO_IP : IPPROTO_IPV6, ipv4 ? IP_TTL : IPV6_HOPLIMIT, outer->ttl);
	if (sendmsg(slow->socket, &message, 0) >= 0) {
		slow->counts.sent++;
	} else {
		slow->counts.send_failed++;
		log_debug("cannot send a tunnel packet: %s", strerror(errno));
	}
}

/* Where the inner packet begins, if it is one of that EtherType; 0: it is not. */
static size_t find_inner(const struct outer *outer, uint16_t wanted)
{
	size_t at = SHIM_SIZE + ETH_HLEN;

	for (unsigned tags = 0; at <= outer->length; tags++, at += 4) {
		uint16_t type = (uint16_t)(outer->payload[at - 2] << 8 | outer->payload[at - 1]);

		if (tags == 2 || (type != ETH_P_8021Q && type != ETH_P_8021AD))
			return type == wanted ? at : 0;
	}
	return 0;
}

/*
 * Cuts the inner packet (RFC 791 section 2.3). Options might have to be left out of all pieces but the first: such a packet, and any that is not what it is
 * said to be, goes as it is.
 */
static bool send_pieces4(struct tunnel_slow *slow, const struct outer *outer, size_t most)
{
	size_t at = find_inner(outer, ETH_P_IP), length, step;
	struct iphdr ip, piece;
	uint16_t place;

	if (!at || outer->length < at + sizeof(ip))
		return false;
	memcpy(&ip, outer->payload + at, sizeof(ip));
	length = ntohs(ip.tot_len);
	place = ntohs(ip.frag_off);
	if (ip.version != 4 || ip.ihl != 5 || length <= sizeof(ip) || at + length > outer->length || place & (IP_DF | IP_RF) ||
		most < sizeof(ip) + 8)
		return false;
	length -= sizeof(ip);
	step = (most - sizeof(ip)) & ~(size_t)7;
	piece = ip;
	for (size_t done = 0; done < length; done += step) {
		size_t n = length - done < step ? length - done : step;
		uint16_t more = done + n < length ? IP_MF : place & IP_MF;
		struct iovec parts[] = {
			{.iov_base = outer->payload, .iov_len = at},
			{.iov_base = &piece, .iov_len = sizeof(piece)},
			{.iov_base = outer->payload + at + sizeof(ip) + done, .iov_len = n},
		};

		piece.tot_len = htons((uint16_t)(sizeof(piece) + n));
		piece.frag_off = htons((uint16_t)(((place & IP_OFFMASK) + done / 8) | more));
		piece.check = 0;
		piece.check = checksum(&piece);
		send_outer(slow, outer, parts, ARRAY_SIZE(parts));
	}
	return true;
}

/*
 * A fragment of IPv6 again: to whoever puts the datagram together it is the same whether its source has cut it so small. Only where the fragment header is
 * the first one.
 */
static bool send_pieces6(struct tunnel_slow *slow, const struct outer *outer, size_t most)
{
	size_t at = find_inner(outer, ETH_P_IPV6), length, step;
	struct {
		struct ip6_hdr ip;
		struct ip6_frag fragment;
	} head;
	uint16_t place;

	if (!at || outer->length < at + sizeof(head))
		return false;
	memcpy(&head, outer->payload + at, sizeof(head));
	length = ntohs(head.ip.ip6_plen);
	place = ntohs(head.fragment.ip6f_offlg);
	if (ntohl(head.ip.ip6_flow) >> 28 != 6 || head.ip.ip6_nxt != IPPROTO_FRAGMENT || length <= sizeof(head.fragment) ||
		at + sizeof(head.ip) + length > outer->length || most < sizeof(head) + 8)
		return false;
	length -= sizeof(head.fragment);
	step = (most - sizeof(head)) & ~(size_t)7;
	for (size_t done = 0; done < length; done += step) {
		size_t n = length - done < step ? length - done : step;
		struct iovec parts[] = {
			{.iov_base = outer->payload, .iov_len = at},
			{.iov_base = &head, .iov_len = sizeof(head)},
			{.iov_base = outer->payload + at + sizeof(head) + done, .iov_len = n},
		};

		head.ip.ip6_plen = htons((uint16_t)(sizeof(head.fragment) + n));
		/* The offset is in the upper 13 bits, in bytes as it stands there. */
		head.fragment.ip6f_offlg = htons((uint16_t)(((place & 0xfff8) + done) | (done + n < length ? 1 : place & 1)));
		send_outer(slow, outer, parts, ARRAY_SIZE(parts));
	}
	return true;
}

static bool send_pieces(struct tunnel_slow *slow, const struct outer *outer, size_t most)
{
	return send_pieces4(slow, outer, most) || send_pieces6(slow, outer, most);
}

int tunnel_slow_send(struct tunnel_slow *slow)
{
	for (unsigned i = 0; i < FRAMES_A_TURN; i++) {
		ssize_t length = read(slow->device, slow->frame, sizeof(slow->frame));
		struct outer outer = {0};
		struct iovec whole;
		struct hd_slow note;

		if (length < 0)
			return errno == EAGAIN || errno == EINTR ? 0 : -errno;
		if (!read_outer(slow, slow->frame, (size_t)length, &outer)) {
			slow->counts.ignored++;
			continue;
		}
		memcpy(&note, slow->frame, sizeof(note));
		whole = (struct iovec){.iov_base = outer.payload, .iov_len = outer.length};
		if (!note.cut || !send_pieces(slow, &outer, ntohs(note.cut)))
			send_outer(slow, &outer, &whole, 1);
	}
	return 0;
}

/* --- from the socket to the device --- */

/* What a control message that asked to be received says; fallback without it. */
static uint8_t get_control(struct msghdr *message, int level, int type, uint8_t fallback)
{
	struct cmsghdr *at;
	int value;

	for (at = CMSG_FIRSTHDR(message); at; at = CMSG_NXTHDR(message, at)) {
		if (at->cmsg_level != level || at->cmsg_type != type)
			continue;
		/* IP_TOS comes as one byte. */
		if (at->cmsg_len < CMSG_LEN(sizeof(value)))
			return at->cmsg_len > CMSG_LEN(0) ? *CMSG_DATA(at) : fallback;
		memcpy(&value, CMSG_DATA(at), sizeof(value));
		return (uint8_t)value;
	}
	return fallback;
}

struct headers {
	uint8_t data[ETH_HLEN + sizeof(struct ip6_hdr) + sizeof(struct udphdr)];
	size_t length;
};

static void put(struct headers *headers, const void *data, size_t length)
{
	memcpy(headers->data + headers->length, data, length);
	headers->length += length;
}

static void put_ipv4(const struct tunnel_slow *slow, struct headers *headers, struct msghdr *message, size_t udp_length)
{
	const struct sockaddr_in *from = message->msg_name;
	struct iphdr ip = {.version = 4,
		.ihl = 5,
		.tos = get_control(message, IPPROTO_IP, IP_TOS, 0),
		.tot_len = htons((uint16_t)(sizeof(ip) + udp_length)),
		.frag_off = htons(IP_DF),
		.ttl = get_control(message, IPPROTO_IP, IP_TTL, 1),
		.protocol = IPPROTO_UDP,
		.saddr = from->sin_addr.s_addr,
		.daddr = slow->address.w[3]};

	ip.check = checksum(&ip);
	put(headers, &ip, sizeof(ip));
}

static void put_ipv6(const struct tunnel_slow *slow, struct headers *headers, struct msghdr *message, size_t udp_length)
{
	const struct sockaddr_in6 *from = message->msg_name;
	uint32_t class = get_control(message, IPPROTO_IPV6, IPV6_TCLASS, 0);
	struct ip6_hdr ip = {.ip6_flow = htonl(6u << 28 | class << 20),
		.ip6_plen = htons((uint16_t)udp_length),
		.ip6_nxt = IPPROTO_UDP,
		.ip6_hlim = get_control(message, IPPROTO_IPV6, IPV6_HOPLIMIT, 1),
		.ip6_src = from->sin6_addr};

	memcpy(&ip.ip6_dst, slow->address.b, sizeof(ip.ip6_dst));
	put(headers, &ip, sizeof(ip));
}

static void deliver(struct tunnel_slow *slow, struct msghdr *message, uint8_t *payload, size_t length)
{
	static const uint8_t sender[ETH_ALEN] = {0x02};
	bool ipv4 = addr_is_ipv4(&slow->address);
	const union socket_address *from = message->msg_name;
	struct udphdr udp = {.source = ipv4 ? from->in.sin_port : from->in6.sin6_port,
		.dest = slow->port,
		.len = htons((uint16_t)(sizeof(udp) + length))};
	struct headers headers = {0};
	struct iovec parts[2];

	/* The host gets control packets whole, and they would come here again. */
	if (message->msg_flags & MSG_TRUNC || length < SHIM_SIZE || (slow->geneve && payload[1] & GENEVE_CONTROL) ||
		length > PACKET_MAX - sizeof(struct iphdr) - sizeof(udp)) {
		slow->counts.ignored++;
		return;
	}
	put(&headers, slow->mac, ETH_ALEN);
	put(&headers, sender, ETH_ALEN);
	put(&headers, &(__be16){htons(ipv4 ? ETH_P_IP : ETH_P_IPV6)}, sizeof(__be16));
	if (ipv4)
		put_ipv4(slow, &headers, message, sizeof(udp) + length);
	else
		put_ipv6(slow, &headers, message, sizeof(udp) + length);
	put(&headers, &udp, sizeof(udp));
	parts[0] = (struct iovec){.iov_base = headers.data, .iov_len = headers.length};
	parts[1] = (struct iovec){.iov_base = payload, .iov_len = length};
	if (writev(slow->device, parts, 2) < 0)
		log_debug("cannot hand on a tunnel packet: %s", strerror(errno));
	else
		slow->counts.received++;
}

int tunnel_slow_receive(struct tunnel_slow *slow)
{
	union socket_address from[DATAGRAMS_A_CALL];
	struct iovec parts[DATAGRAMS_A_CALL];
	struct mmsghdr messages[DATAGRAMS_A_CALL];

	for (unsigned call = 0; call < CALLS_A_TURN; call++) {
		int n;

		for (unsigned i = 0; i < DATAGRAMS_A_CALL; i++) {
			parts[i] = (struct iovec){.iov_base = slow->datagrams[i], .iov_len = sizeof(slow->datagrams[i])};
			messages[i].msg_hdr = (struct msghdr){.msg_name = &from[i],
				.msg_namelen = sizeof(from[i]),
				.msg_iov = &parts[i],
				.msg_iovlen = 1,
				.msg_control = slow->control[i],
				.msg_controllen = sizeof(slow->control[i])};
		}
		n = recvmmsg(slow->socket, messages, DATAGRAMS_A_CALL, MSG_DONTWAIT, NULL);
		if (n < 0)
			return errno == EAGAIN || errno == EINTR ? 0 : -errno;
		for (int i = 0; i < n; i++)
			deliver(slow, &messages[i].msg_hdr, slow->datagrams[i], messages[i].msg_len);
		if (n < DATAGRAMS_A_CALL)
			break;
	}
	return 0;
}
