/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The answer to a rejected packet, as bytes: a TCP RST (RFC 9293 section 3.10.7.1), or an ICMP error, administratively prohibited
 * (RFC 792, RFC 1812 section 5.2.7.1; RFC 4443 section 3.1). To what a network's gateway could not pass on, the errors of a router (RFC 1191,
 * RFC 8201). Made afresh from what the event quotes; what arrived is not changed.
 */
#include <errno.h>
#include <string.h>
#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/ip_icmp.h>

#include <datapath/internal.h>

#define HOP_LIMIT 64
/* RFC 1812 section 4.3.2.5: an error goes out with precedence "internetwork control". */
#define TOS_ICMP_ERROR 0xc0
#define ICMP_QUOTE_MAX 256
#define EXTENSIONS_MAX 8

struct tcp_head {
	__be16 source, destination;
	__be32 seq, ack;
	uint8_t offset; /* words, in the upper four bits */
	uint8_t flags;
	__be16 window, checksum, urgent;
};
static_assert(sizeof(struct tcp_head) == 20, "tcp_head");
enum { TCP_FIN = 0x01, TCP_SYN = 0x02, TCP_RST = 0x04, TCP_ACK = 0x10 };

/* What was rejected, as far as the quote goes. */
struct quoted {
	const uint8_t *l3;
	size_t l3_length; /* quoted bytes from the IP header on, no more than the packet has */
	size_t total;	  /* bytes the IP header says */
	size_t l4;	  /* offset of the transport header in l3 */
	uint8_t family, protocol;
};

/* --- checksums (RFC 1071) --- */

static uint32_t sum_add(uint32_t sum, const void *data, size_t length)
{
	const uint8_t *byte = data;

	for (size_t i = 0; i < length; i++)
		sum += i & 1 ? byte[i] : (uint32_t)byte[i] << 8;
	return sum;
}

static __be16 sum_fold(uint32_t sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return htons((uint16_t)~sum);
}

static uint32_t sum_pseudo(uint8_t family, const void *addresses, size_t length, uint8_t protocol)
{
	return sum_add(0, addresses, family == 4 ? 8 : 32) + (uint32_t)length + protocol;
}

/* --- reading the quote --- */

static bool unicast4(__be32 address, bool source)
{
	uint32_t a = ntohl(address);

	if (a >> 28 >= 14)
		return false; /* multicast, class E, limited broadcast */
	return !source || (a >> 24 != 0 && a >> 24 != 127);
}

static bool unicast6(const struct in6_addr *address)
{
	return !IN6_IS_ADDR_MULTICAST(address) && !IN6_IS_ADDR_UNSPECIFIED(address);
}

static int quote4(struct quoted *quoted)
{
	struct iphdr ip;

	if (quoted->l3_length < sizeof(ip))
		return -EINVAL;
	memcpy(&ip, quoted->l3, sizeof(ip));
	quoted->l4 = ip.ihl * 4u;
	quoted->total = ntohs(ip.tot_len);
	quoted->protocol = ip.protocol;
	if (quoted->l4 < sizeof(ip) || ntohs(ip.frag_off) & IP_OFFMASK || !unicast4(ip.saddr, true) || !unicast4(ip.daddr, false))
		return -EINVAL;
	return 0;
}

static int quote6(struct quoted *quoted)
{
	struct ip6_hdr ip;
	uint8_t next;

	if (quoted->l3_length < sizeof(ip))
		return -EINVAL;
	memcpy(&ip, quoted->l3, sizeof(ip));
	if (!unicast6(&ip.ip6_src) || !unicast6(&ip.ip6_dst))
		return -EINVAL;
	quoted->total = ip.ip6_plen ? sizeof(ip) + ntohs(ip.ip6_plen) : 0;
	quoted->l4 = sizeof(ip);
	next = ip.ip6_nxt;
	for (unsigned i = 0; i < EXTENSIONS_MAX; i++) {
		const uint8_t *header = quoted->l3 + quoted->l4;

		switch (next) {
		case IPPROTO_HOPOPTS:
		case IPPROTO_ROUTING:
		case IPPROTO_DSTOPTS:
		case IPPROTO_FRAGMENT:
		case IPPROTO_AH:
			if (quoted->l4 + 8 > quoted->l3_length)
				return -EINVAL;
			break;
		default:
			quoted->protocol = next;
			return 0;
		}
		if (next == IPPROTO_FRAGMENT) {
			if ((header[2] << 8 | header[3]) >> 3)
				return -EINVAL;
			quoted->l4 += 8;
		} else if (next == IPPROTO_AH) {
			quoted->l4 += (header[1] + 2u) * 4;
		} else {
			quoted->l4 += (header[1] + 1u) * 8;
		}
		next = header[0];
	}
	return -EINVAL;
}

static int read_quote(const struct hd_event *event, struct quoted *quoted)
{
	size_t length = event->packet_length;
	int r;

	if (length > sizeof(event->packet))
		length = sizeof(event->packet);
	if (event->l3_offset >= length)
		return -EINVAL;
	quoted->l3 = event->packet + event->l3_offset;
	quoted->l3_length = length - event->l3_offset;
	quoted->family = quoted->l3[0] >> 4;
	switch (quoted->family) {
	case 4:
		r = quote4(quoted);
		break;
	case 6:
		r = quote6(quoted);
		break;
	default:
		return -EINVAL;
	}
	if (r < 0)
		return r;
	/* A GSO packet larger than the field can say leaves it 0. */
	if (quoted->total == 0)
		quoted->total = event->length > event->l3_offset ? event->length - event->l3_offset : 0;
	if (quoted->l3_length > quoted->total)
		quoted->l3_length = quoted->total;
	return quoted->l4 >= quoted->l3_length ? -EINVAL : 0;
}

/* Errors about errors would go back and forth (RFC 1122 section 3.2.2, RFC 4443 section 2.4). */
static bool is_icmp_error(const struct quoted *quoted)
{
	uint8_t type = quoted->l3[quoted->l4];

	if (quoted->protocol == IPPROTO_ICMP && quoted->family == 4)
		return type == ICMP_DEST_UNREACH || type == ICMP_SOURCE_QUENCH || type == ICMP_REDIRECT ||
		       type == ICMP_TIME_EXCEEDED || type == ICMP_PARAMETERPROB;
	if (quoted->protocol == IPPROTO_ICMPV6 && quoted->family == 6)
		return type < ICMP6_INFOMSG_MASK || type == ND_REDIRECT;
	return false;
}

/* --- writing --- */

static void *put(struct reject_packet *packet, const void *data, size_t length)
{
	void *at = packet->data + packet->length;

	memcpy(at, data, length);
	packet->length += length;
	return at;
}

/* The frame goes back the way it came: addresses swapped, the same tags, also the one that stood in metadata. */
static int put_ethernet(const struct hd_event *event, struct reject_packet *packet)
{
	unsigned inlined = (event->l3_offset - ETH_HLEN) / 4, tags = 0;
	const uint8_t *frame = event->packet;

	if (event->l3_offset < ETH_HLEN || (event->l3_offset - ETH_HLEN) % 4 || inlined > 2 || frame[0] & 1)
		return -EINVAL;
	put(packet, frame + ETH_ALEN, ETH_ALEN);
	put(packet, frame, ETH_ALEN);
	while (tags < 2 && event->vlan[tags] & 0x1000)
		tags++;
	if (inlined > tags)
		return -EINVAL;
	for (unsigned i = 0; i < tags; i++) {
		__be16 tag[2] = {htons(tags == 2 && i == 0 ? ETH_P_8021AD : ETH_P_8021Q), htons(event->vlan[i] & 0xfff)};

		if (i >= tags - inlined)
			memcpy(&tag[0], frame + 2 * ETH_ALEN + 4 * (i - (tags - inlined)), sizeof(tag[0]));
		put(packet, tag, sizeof(tag));
	}
	put(packet, &(__be16){htons(packet->family == 4 ? ETH_P_IP : ETH_P_IPV6)}, 2);
	return 0;
}

/*
 * payload: bytes behind the IP header. source: NULL, the answer comes from where the packet was going. Returns the two addresses in the packet, for
 * the pseudo header.
 */
static const void *put_ip(const struct quoted *quoted, struct reject_packet *packet, const struct hd_addr *source,
	uint8_t protocol, uint8_t tos, size_t payload)
{
	if (quoted->family == 4) {
		struct iphdr old, ip = {.version = 4, .ihl = 5, .tos = tos, .ttl = HOP_LIMIT, .protocol = protocol};
		uint8_t *at;

		memcpy(&old, quoted->l3, sizeof(old));
		ip.tot_len = htons((uint16_t)(sizeof(ip) + payload));
		ip.frag_off = htons(IP_DF);
		ip.saddr = source ? source->w[3] : old.daddr;
		ip.daddr = old.saddr;
		ip.check = sum_fold(sum_add(0, &ip, sizeof(ip)));
		at = put(packet, &ip, sizeof(ip));
		return at + offsetof(struct iphdr, saddr);
	} else {
		struct ip6_hdr old, ip = {.ip6_flow = htonl(6u << 28), .ip6_nxt = protocol, .ip6_hlim = HOP_LIMIT};
		uint8_t *at;

		memcpy(&old, quoted->l3, sizeof(old));
		ip.ip6_plen = htons((uint16_t)payload);
		ip.ip6_src = old.ip6_dst;
		if (source)
			memcpy(&ip.ip6_src, source->b, sizeof(ip.ip6_src));
		ip.ip6_dst = old.ip6_src;
		at = put(packet, &ip, sizeof(ip));
		return at + offsetof(struct ip6_hdr, ip6_src);
	}
}

static int put_rst(const struct quoted *quoted, struct reject_packet *packet)
{
	struct tcp_head old, rst = {.offset = 5 << 4, .flags = TCP_RST};
	const void *addresses;
	size_t header;

	if (quoted->l4 + sizeof(old) > quoted->l3_length)
		return -EINVAL;
	memcpy(&old, quoted->l3 + quoted->l4, sizeof(old));
	header = (old.offset >> 4) * 4u;
	if (old.flags & TCP_RST || header < sizeof(old) || quoted->l4 + header > quoted->total)
		return -EINVAL;
	rst.source = old.destination;
	rst.destination = old.source;
	if (old.flags & TCP_ACK) {
		rst.seq = old.ack;
	} else {
		uint32_t length = (uint32_t)(quoted->total - quoted->l4 - header);

		length += (old.flags & TCP_SYN ? 1 : 0) + (old.flags & TCP_FIN ? 1 : 0);
		rst.ack = htonl(ntohl(old.seq) + length);
		rst.flags |= TCP_ACK;
	}
	addresses = put_ip(quoted, packet, NULL, IPPROTO_TCP, 0, sizeof(rst));
	rst.checksum = sum_fold(sum_add(sum_pseudo(quoted->family, addresses, sizeof(rst), IPPROTO_TCP), &rst, sizeof(rst)));
	put(packet, &rst, sizeof(rst));
	return 0;
}

struct icmp_kind {
	uint8_t type, code;
	bool router; /* comes from the gateway */
	bool mtu;
};

static struct icmp_kind icmp_kind(uint16_t reason, bool ipv4)
{
	switch (reason) {
	case HD_R_NO_DESTINATION:
		return ipv4 ? (struct icmp_kind){ICMP_DEST_UNREACH, ICMP_HOST_UNREACH, .router = true}
			    : (struct icmp_kind){ICMP6_DST_UNREACH, ICMP6_DST_UNREACH_ADDR, .router = true};
	case HD_R_TTL_EXCEEDED:
		return ipv4 ? (struct icmp_kind){ICMP_TIME_EXCEEDED, ICMP_EXC_TTL, .router = true}
			    : (struct icmp_kind){ICMP6_TIME_EXCEEDED, ICMP6_TIME_EXCEED_TRANSIT, .router = true};
	case HD_R_TOO_BIG:
		return ipv4 ? (struct icmp_kind){ICMP_DEST_UNREACH, ICMP_FRAG_NEEDED, .router = true, .mtu = true}
			    : (struct icmp_kind){ICMP6_PACKET_TOO_BIG, 0, .router = true, .mtu = true};
	default:
		return ipv4 ? (struct icmp_kind){ICMP_DEST_UNREACH, ICMP_PKT_FILTERED, .router = false}
			    : (struct icmp_kind){ICMP6_DST_UNREACH, ICMP6_DST_UNREACH_ADMIN, .router = false};
	}
}

static int put_icmp(
	const struct quoted *quoted, uint16_t reason, const struct datapath_router *router, struct reject_packet *packet)
{
	size_t quote = quoted->l3_length < ICMP_QUOTE_MAX ? quoted->l3_length : ICMP_QUOTE_MAX;
	uint8_t head[8] = {0};
	bool is4 = quoted->family == 4;
	uint8_t protocol = is4 ? IPPROTO_ICMP : IPPROTO_ICMPV6;
	struct icmp_kind kind = icmp_kind(reason, is4);
	const struct hd_addr *source = kind.router && router && router->has_source ? &router->source : NULL;
	const void *addresses;
	uint32_t sum;
	__be16 folded;

	if (is_icmp_error(quoted))
		return -EINVAL;
	head[0] = kind.type;
	head[1] = kind.code;
	if (kind.mtu) {
		/* Without the number a sender can only guess. */
		if (!router || !router->mtu)
			return -EINVAL;
		head[6] = (uint8_t)(router->mtu >> 8);
		head[7] = (uint8_t)router->mtu;
	}
	addresses = put_ip(quoted, packet, source, protocol, is4 ? TOS_ICMP_ERROR : 0, sizeof(head) + quote);
	sum = is4 ? 0 : sum_pseudo(6, addresses, sizeof(head) + quote, protocol);
	folded = sum_fold(sum_add(sum_add(sum, head, sizeof(head)), quoted->l3, quote));
	memcpy(head + 2, &folded, sizeof(folded));
	put(packet, head, sizeof(head));
	put(packet, quoted->l3, quote);
	return 0;
}

/* Back the way it came: from a wire, or from a port. What the host's stack sends to a port or a wire, it is told itself. */
bool reject_to_device(const struct hd_event *event)
{
	return event->hook == HD_HOOK_TC_PORT_IN || (event->direction == HD_INGRESS && event->hook != HD_HOOK_TC_PORT_OUT);
}

static bool is_policy(uint16_t reason)
{
	return reason == HD_R_NONE || reason == HD_R_POLICY_REJECT;
}

int reject_build(const struct hd_event *event, const struct datapath_router *router, struct reject_packet *ret)
{
	struct reject_packet packet = {0};
	struct quoted quoted = {0};
	int r = read_quote(event, &quoted);

	if (r < 0)
		return r;
	packet.family = quoted.family;
	if (reject_to_device(event)) {
		r = event->l3_offset ? put_ethernet(event, &packet) : 0;
		if (r < 0)
			return r;
	}
	packet.l3_offset = packet.length;
	if (quoted.protocol == IPPROTO_TCP && is_policy(event->reason))
		r = put_rst(&quoted, &packet);
	else
		r = put_icmp(&quoted, event->reason, router, &packet);
	if (r < 0)
		return r;
	*ret = packet;
	return 0;
}
