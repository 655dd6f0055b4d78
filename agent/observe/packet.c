/* SPDX-License-Identifier: Apache-2.0 */
#include <endian.h>
#include <errno.h>
#include <string.h>
#include <strings.h>

#include <arpa/inet.h>
#include <netinet/in.h>

#include <heddle/overlay.h>
#include <observe/packet.h>
#include <util/addr.h>

#define ETHERTYPE_IPV4 0x0800
#define ETHERTYPE_IPV6 0x86dd
#define ETHERTYPE_8021Q 0x8100
#define ETHERTYPE_8021AD 0x88a8

struct writer {
	uint8_t *data;
	size_t length;
};

static void put8(struct writer *w, uint8_t value)
{
	w->data[w->length++] = value;
}

static void put16(struct writer *w, uint16_t value)
{
	put8(w, value >> 8);
	put8(w, value & 0xff);
}

static void put32(struct writer *w, uint32_t value)
{
	put16(w, value >> 16);
	put16(w, value & 0xffff);
}

static void put_bytes(struct writer *w, const void *bytes, size_t n)
{
	memcpy(w->data + w->length, bytes, n);
	w->length += n;
}

static void put_zero(struct writer *w, size_t n)
{
	memset(w->data + w->length, 0, n);
	w->length += n;
}

static void set16(uint8_t *at, uint16_t value)
{
	at[0] = value >> 8;
	at[1] = value & 0xff;
}

static uint16_t get16(const uint8_t *at)
{
	return (uint16_t)(at[0] << 8 | at[1]);
}

/* RFC 1071, over what was summed before. */
static uint32_t sum(uint32_t total, const uint8_t *data, size_t length)
{
	size_t i;

	for (i = 0; i + 1 < length; i += 2)
		total += get16(data + i);
	if (i < length)
		total += (uint32_t)data[i] << 8;
	return total;
}

static uint16_t fold(uint32_t total)
{
	while (total >> 16)
		total = (total & 0xffff) + (total >> 16);
	return ~total & 0xffff;
}

/* Over the pseudo header of RFC 9293 section 3.1 or RFC 8200 section 8.1, and the payload. */
static uint16_t checksum_l4(
	const struct hd_addr *source, const struct hd_addr *destination, uint8_t protocol, const uint8_t *data, size_t length)
{
	size_t skip = addr_is_ipv4(source) ? 12 : 0;
	uint32_t total = sum(0, source->b + skip, 16 - skip);

	total = sum(total, destination->b + skip, 16 - skip);
	return fold(sum(total + protocol + (uint32_t)length, data, length));
}

/* CRC32c, which SCTP uses (RFC 9260 appendix A); bytewise is enough for one frame. */
static uint32_t crc32c(const uint8_t *data, size_t length)
{
	uint32_t crc = ~0u;

	while (length--) {
		crc ^= *data++;
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
	}
	return ~crc;
}

static void put_tcp(struct writer *w, const struct packet_spec *spec)
{
	size_t start = w->length;

	put16(w, spec->source_port);
	put16(w, spec->destination_port);
	put32(w, 1);				  /* sequence */
	put32(w, spec->tcp_flags & 0x10 ? 1 : 0); /* acknowledgement */
	put8(w, 5 << 4);
	put8(w, spec->tcp_flags);
	put16(w, 64240);
	put32(w, 0);
	set16(w->data + start + 16,
		checksum_l4(&spec->source, &spec->destination, IPPROTO_TCP, w->data + start, w->length - start));
}

static void put_udp(
	struct writer *w, const struct hd_addr *source, const struct hd_addr *destination, uint16_t sport, uint16_t dport)
{
	size_t start = w->length;
	uint16_t check;

	put16(w, sport);
	put16(w, dport);
	put16(w, 16);
	put16(w, 0);
	put_zero(w, 8);
	check = checksum_l4(source, destination, IPPROTO_UDP, w->data + start, w->length - start);
	set16(w->data + start + 6, check ? check : 0xffff);
}

/* INIT is what opens an association, alone in its packet with tag 0 (RFC 9260 section 3.3.2); else one DATA chunk. */
static void put_sctp(struct writer *w, const struct packet_spec *spec)
{
	size_t start = w->length;
	uint32_t crc;

	put16(w, spec->source_port);
	put16(w, spec->destination_port);
	put32(w, spec->reply ? 1 : 0);
	put32(w, 0);
	if (spec->reply) {
		put32(w, 0x00030014); /* DATA, unfragmented, 20 bytes */
		put32(w, 1);
		put_zero(w, 12);
	} else {
		put32(w, 0x01000014); /* INIT, 20 bytes */
		put32(w, 1);
		put32(w, 65536);
		put16(w, 1);
		put16(w, 1);
		put32(w, 1);
	}
	crc = htole32(crc32c(w->data + start, w->length - start));
	memcpy(w->data + start + 8, &crc, sizeof(crc));
}

static void put_ip(
	struct writer *w, const struct hd_addr *source, const struct hd_addr *destination, uint8_t protocol, uint8_t hops)
{
	if (addr_is_ipv4(source)) {
		size_t start = w->length;

		put16(w, 0x4500);
		put16(w, 0); /* total length: end_ip() */
		put16(w, 1);
		put16(w, 0x4000);
		put8(w, hops);
		put8(w, protocol);
		put16(w, 0);
		put_bytes(w, source->b + 12, 4);
		put_bytes(w, destination->b + 12, 4);
		set16(w->data + start + 10, fold(sum(0, w->data + start, 20)));
		return;
	}
	put32(w, 0x60000000);
	put16(w, 0);
	put8(w, protocol);
	put8(w, hops);
	put_bytes(w, source->b, 16);
	put_bytes(w, destination->b, 16);
}

/* Sets the length of the IP header at start, now that what follows is there. */
static void end_ip(struct writer *w, size_t start)
{
	uint8_t *ip = w->data + start;

	if (ip[0] >> 4 == 6) {
		set16(ip + 4, w->length - start - 40);
		return;
	}
	set16(ip + 2, w->length - start);
	set16(ip + 10, 0);
	set16(ip + 10, fold(sum(0, ip, 20)));
}

static bool icmp_is_error(bool ip6, uint8_t type)
{
	if (ip6)
		return type >= 1 && type <= 4;
	return type == 3 || type == 4 || type == 5 || type == 11 || type == 12;
}

/* Bytes after the first 8 that a message of the type has at least (RFC 4861 section 4; RFC 792 timestamps). */
static size_t icmp_body(bool ip6, uint8_t type)
{
	if (!ip6)
		return type == 13 || type == 14 ? 12 : 0;
	switch (type) {
	case 130 ... 132:
		return 16;
	case 134:
		return 8;
	case 135:
	case 136:
		return 16;
	case 137:
		return 32;
	default:
		return 0;
	}
}

static void put_icmp(struct writer *w, const struct packet_spec *spec, bool ip6)
{
	size_t start = w->length;

	put8(w, spec->icmp_type);
	put8(w, spec->icmp_code);
	put16(w, 0);
	if (icmp_is_error(ip6, spec->icmp_type)) {
		size_t quoted;

		/* about a UDP packet that the receiver of the error sent to the sender of it */
		put32(w, 0);
		quoted = w->length;
		put_ip(w, &spec->destination, &spec->source, IPPROTO_UDP, 1);
		put_udp(w, &spec->destination, &spec->source, spec->source_port, spec->destination_port);
		end_ip(w, quoted);
	} else {
		put16(w, spec->icmp_id);
		put16(w, 1);
		put_zero(w, icmp_body(ip6, spec->icmp_type));
	}
	if (ip6)
		set16(w->data + start + 2,
			checksum_l4(&spec->source, &spec->destination, IPPROTO_ICMPV6, w->data + start, w->length - start));
	else
		set16(w->data + start + 2, fold(sum(0, w->data + start, w->length - start)));
}

/* RFC 4861 asks for 255, RFC 3810 for 1; other packets come with what a host would send. */
static uint8_t hop_limit(const struct packet_spec *spec, bool ip6)
{
	if (!ip6 || spec->protocol != IPPROTO_ICMPV6)
		return 64;
	if (spec->icmp_type >= 133 && spec->icmp_type <= 137)
		return 255;
	if ((spec->icmp_type >= 130 && spec->icmp_type <= 132) || spec->icmp_type == 143)
		return 1;
	return 64;
}

static bool is_extension_header(uint8_t protocol)
{
	switch (protocol) {
	case IPPROTO_HOPOPTS:
	case IPPROTO_ROUTING:
	case IPPROTO_FRAGMENT:
	case IPPROTO_AH:
	case IPPROTO_NONE:
	case IPPROTO_DSTOPTS:
	case IPPROTO_MH:
	case 139: /* HIP */
	case 140: /* shim6 */
		return true;
	default:
		return false;
	}
}

int packet_build(const struct packet_spec *spec, uint8_t frame[PACKET_MAX], size_t *ret_length)
{
	struct writer w = {.data = frame};
	bool ip6 = !addr_is_ipv4(&spec->source);
	size_t ip;

	if (ip6 == addr_is_ipv4(&spec->destination) || spec->n_vlan > PACKET_TAGS)
		return -EINVAL;
	if (ip6 && is_extension_header(spec->protocol))
		return -EINVAL;

	put_bytes(&w, spec->destination_mac, 6);
	put_bytes(&w, spec->source_mac, 6);
	for (unsigned i = 0; i < spec->n_vlan; i++) {
		put16(&w, spec->n_vlan == 2 && i == 0 ? ETHERTYPE_8021AD : ETHERTYPE_8021Q);
		put16(&w, spec->vlan[i] & 0xfff);
	}
	put16(&w, ip6 ? ETHERTYPE_IPV6 : ETHERTYPE_IPV4);

	ip = w.length;
	put_ip(&w, &spec->source, &spec->destination, spec->protocol, hop_limit(spec, ip6));
	switch (spec->protocol) {
	case IPPROTO_TCP:
		put_tcp(&w, spec);
		break;
	case IPPROTO_UDP:
		put_udp(&w, &spec->source, &spec->destination, spec->source_port, spec->destination_port);
		break;
	case IPPROTO_SCTP:
		put_sctp(&w, spec);
		break;
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		if (ip6 == (spec->protocol == IPPROTO_ICMPV6)) {
			put_icmp(&w, spec, ip6);
			break;
		}
		/* the other family's ICMP is just a protocol number */
		/* fall through */
	default:
		put_zero(&w, 24);
		break;
	}
	end_ip(&w, ip);
	*ret_length = w.length;
	return 0;
}

static const struct {
	char letter;
	char name[4];
} tcp_flags[8] = {{'F', "fin"}, {'S', "syn"}, {'R', "rst"}, {'P', "psh"}, {'A', "ack"}, {'U', "urg"}, {'E', "ece"}, {'C', "cwr"}};

static int flag_by_name(const char *text, size_t length)
{
	for (int i = 0; i < 8; i++)
		if (length == 3 && !strncasecmp(text, tcp_flags[i].name, 3))
			return i;
	return -1;
}

int tcp_flags_parse(const char *text, uint8_t *ret)
{
	uint8_t flags = 0;
	size_t length = strlen(text);

	if (!length)
		return -EINVAL;
	if (!strcasecmp(text, "none")) {
		*ret = 0;
		return 0;
	}
	if (strchr(text, ',') || flag_by_name(text, length) >= 0) {
		for (const char *at = text;; at += length + 1) {
			int bit;

			length = strcspn(at, ",");
			bit = flag_by_name(at, length);
			if (bit < 0)
				return -EINVAL;
			flags |= 1 << bit;
			if (!at[length])
				break;
		}
		*ret = flags;
		return 0;
	}
	for (const char *at = text; *at; at++) {
		int bit = -1;

		for (int i = 0; i < 8; i++)
			if ((*at & ~0x20) == tcp_flags[i].letter)
				bit = i;
		if (*at == '.')
			bit = 4;
		if (bit < 0)
			return -EINVAL;
		flags |= 1 << bit;
	}
	*ret = flags;
	return 0;
}

void tcp_flags_format(uint8_t flags, char *text)
{
	char *at = text;

	if (!flags) {
		memcpy(text, "none", sizeof("none"));
		return;
	}
	/* SYN before ACK and so on, as tcpdump has it: the order of the bits */
	for (int i = 0; i < 8; i++)
		if (flags & 1 << i)
			*at++ = tcp_flags[i].letter;
	*at = '\0';
}

bool packet_untag(uint8_t *frame, size_t *length, uint16_t *tci, uint16_t *protocol)
{
	if (*length < 18 || (get16(frame + 12) != ETHERTYPE_8021Q && get16(frame + 12) != ETHERTYPE_8021AD))
		return false;
	*protocol = get16(frame + 12);
	*tci = get16(frame + 14);
	memmove(frame + 12, frame + 16, *length - 16);
	*length -= 4;
	return true;
}

static void look_l4(const uint8_t *data, size_t length, struct packet_view *ret)
{
	switch (ret->protocol) {
	case IPPROTO_TCP:
		if (length >= 20) {
			ret->tcp = true;
			ret->tcp_flags = data[13];
		}
		/* fall through */
	case IPPROTO_UDP:
	case IPPROTO_SCTP:
		if (length >= 4) {
			ret->ports = true;
			ret->source_port = get16(data);
			ret->destination_port = get16(data + 2);
		}
		break;
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		if (length >= 2) {
			ret->icmp = true;
			ret->icmp_type = data[0];
			ret->icmp_code = data[1];
		}
		break;
	default:
		break;
	}
}

static void look_ip4(const uint8_t *ip, size_t length, struct packet_view *ret)
{
	size_t header;

	if (length < 20)
		return;
	ret->ip = true;
	ret->protocol = ip[9];
	memset(&ret->source, 0, sizeof(ret->source));
	ret->source.b[10] = ret->source.b[11] = 0xff;
	ret->destination = ret->source;
	memcpy(ret->source.b + 12, ip + 12, 4);
	memcpy(ret->destination.b + 12, ip + 16, 4);
	header = (size_t)(ip[0] & 15) * 4;
	if (header >= 20 && header <= length && !(get16(ip + 6) & 0x1fff))
		look_l4(ip + header, length - header, ret);
}

static void look_ip6(const uint8_t *ip, size_t length, struct packet_view *ret)
{
	size_t at = 40;

	if (length < 40)
		return;
	ret->ip = ret->ip6 = true;
	memcpy(ret->source.b, ip + 8, 16);
	memcpy(ret->destination.b, ip + 24, 16);
	ret->protocol = ip[6];
	for (int i = 0; i < 8; i++) {
		switch (ret->protocol) {
		case IPPROTO_HOPOPTS:
		case IPPROTO_ROUTING:
		case IPPROTO_DSTOPTS:
			if (at + 8 > length)
				return;
			ret->protocol = ip[at];
			at += (size_t)(ip[at + 1] + 1) * 8;
			break;
		case IPPROTO_FRAGMENT:
			if (at + 8 > length)
				return;
			ret->protocol = ip[at];
			if (get16(ip + at + 2) & 0xfff8)
				return;
			at += 8;
			break;
		default:
			if (at <= length)
				look_l4(ip + at, length - at, ret);
			return;
		}
		if (at > length)
			return;
	}
}

void packet_look(const uint8_t *frame, size_t length, struct packet_view *ret)
{
	size_t at = 14;

	*ret = (struct packet_view){0};
	if (length < 14)
		return;
	ret->ethertype = get16(frame + 12);
	while ((ret->ethertype == ETHERTYPE_8021Q || ret->ethertype == ETHERTYPE_8021AD) && ret->n_vlan < PACKET_TAGS) {
		if (at + 4 > length)
			return;
		ret->vlan[ret->n_vlan++] = get16(frame + at) & 0xfff;
		ret->ethertype = get16(frame + at + 2);
		at += 4;
	}
	if (ret->ethertype == ETHERTYPE_IPV4)
		look_ip4(frame + at, length - at, ret);
	else if (ret->ethertype == ETHERTYPE_IPV6)
		look_ip6(frame + at, length - at, ret);
}

/* --- tunnel packets --- */

/* Options that are not known may be skipped, unless they say otherwise (RFC 8926, section 3.5). */
static enum hd_reason look_options(const uint8_t *frame, size_t length, size_t at, size_t size)
{
	size_t end = at + size;

	while (at < end) {
		if (at + sizeof(struct hd_geneve_option) > length)
			return HD_R_TUNNEL_MALFORMED;
		if (frame[at + 2] & HD_GENEVE_OPTION_CRITICAL)
			return HD_R_TUNNEL_OPTION;
		at += sizeof(struct hd_geneve_option) + 4 * (size_t)(frame[at + 3] & 0x1f);
	}
	return at == end ? HD_R_NONE : HD_R_TUNNEL_MALFORMED;
}

static enum hd_reason look_tunnel(const uint8_t *frame, size_t length, size_t at, unsigned protocol, struct packet_tunnel *ret)
{
	enum hd_reason reason = HD_R_NONE;
	size_t options;

	if (at + sizeof(struct hd_geneve) > length)
		return HD_R_TUNNEL_MALFORMED;
	ret->vni = (uint32_t)frame[at + 4] << 16 | (uint32_t)frame[at + 5] << 8 | frame[at + 6];
	ret->inner = at + sizeof(struct hd_geneve);
	if (protocol == HD_TUNNEL_VXLAN) {
		ret->header = frame[at] & HD_VXLAN_VNI;
		return ret->header ? HD_R_NONE : HD_R_TUNNEL_MALFORMED;
	}
	if (frame[at] >> 6)
		return HD_R_TUNNEL_MALFORMED;
	ret->control = frame[at + 1] & HD_GENEVE_CONTROL;
	if (!ret->control && get16(frame + at + 2) != HD_GENEVE_ETHERNET)
		return HD_R_TUNNEL_MALFORMED;
	options = 4 * (size_t)(frame[at] & 0x3f);
	if (!ret->control)
		reason = look_options(frame, length, ret->inner, options);
	ret->inner += options;
	ret->header = reason == HD_R_NONE;
	return reason;
}

/* The inner frame's form, and whether a mark of congestion on the outside may be lost (RFC 6040, section 4.2). */
static enum hd_reason look_inner(const uint8_t *frame, size_t length, uint8_t outer_tos)
{
	uint16_t type = length >= 16 ? get16(frame + 12) : 0;
	size_t at = 14;
	uint8_t tos;

	if (length < 16)
		return HD_R_TUNNEL_MALFORMED;
	for (unsigned tags = 0; type == ETHERTYPE_8021Q || type == ETHERTYPE_8021AD; tags++) {
		if (tags == PACKET_TAGS)
			return HD_R_VLAN_DEPTH;
		if (at + 6 > length)
			return HD_R_VLAN_TRUNCATED;
		type = get16(frame + at + 2);
		at += 4;
	}
	if ((outer_tos & 3) != 3 || (type != ETHERTYPE_IPV4 && type != ETHERTYPE_IPV6) || at + 2 > length)
		return HD_R_NONE;
	tos = type == ETHERTYPE_IPV4 ? frame[at + 1] : frame[at + 1] >> 4;
	return tos & 3 ? HD_R_NONE : HD_R_TUNNEL_ECN;
}

enum hd_reason packet_unwrap(const uint8_t *frame, size_t length, unsigned protocol, struct packet_tunnel *ret)
{
	struct packet_view outer;
	enum hd_reason reason;
	size_t header;

	*ret = (struct packet_tunnel){0};
	packet_look(frame, length, &outer);
	if (!outer.ip || outer.n_vlan || outer.protocol != IPPROTO_UDP)
		return HD_R_TUNNEL_MALFORMED;
	ret->source = outer.source;
	header = outer.ip6 ? 40 : (size_t)(frame[14] & 15) * 4;
	/* of IPv6 the programs take no extension headers there */
	if (outer.ip6 && frame[14 + 6] != IPPROTO_UDP)
		return HD_R_TUNNEL_MALFORMED;
	reason = look_tunnel(frame, length, 14 + header + 8, protocol, ret);
	if (reason || ret->control)
		return reason;
	return look_inner(frame + ret->inner, length - ret->inner, outer.ip6 ? (uint8_t)(get16(frame + 14) >> 4) : frame[15]);
}
