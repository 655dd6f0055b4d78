/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <linux/nexthop.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sys/socket.h>

#include <libmnl/libmnl.h>

#include <netdev/underlay_parse.h>
#include <util/addr.h>

/* linux/if.h has it, and cannot be included beside net/if.h. */
#define LOWER_UP (1u << 16)

static bool read_addr(const void *data, size_t length, struct hd_addr *ret)
{
	__be32 address;

	switch (length) {
	case 4:
		memcpy(&address, data, sizeof(address));
		*ret = addr_from_ipv4(address);
		return true;
	case 16:
		memcpy(ret->b, data, sizeof(ret->b));
		return true;
	}
	return false;
}

static bool get_addr(const struct nlattr *attribute, struct hd_addr *ret)
{
	return read_addr(mnl_attr_get_payload(attribute), mnl_attr_get_payload_len(attribute), ret);
}

/* RTA_VIA: a gateway of the other family. */
static bool get_via(const struct nlattr *attribute, struct hd_addr *ret)
{
	const struct rtvia *via = mnl_attr_get_payload(attribute);
	size_t length = mnl_attr_get_payload_len(attribute);

	return length > sizeof(*via) && read_addr(via->rtvia_addr, length - sizeof(*via), ret);
}

static uint32_t get_u32(const struct nlattr *attribute)
{
	return mnl_attr_validate(attribute, MNL_TYPE_U32) < 0 ? 0 : mnl_attr_get_u32(attribute);
}

static void read_hop_attribute(const struct nlattr *attribute, struct underlay_hop *hop)
{
	switch (mnl_attr_get_type(attribute)) {
	case RTA_GATEWAY:
		hop->has_gateway = get_addr(attribute, &hop->gateway);
		break;
	case RTA_VIA:
		hop->has_gateway = get_via(attribute, &hop->gateway);
		break;
	case RTA_ENCAP_TYPE:
		hop->encapsulates = true;
		break;
	default:
		break;
	}
}

static bool is_dead(unsigned flags)
{
	return flags & (RTNH_F_DEAD | RTNH_F_LINKDOWN);
}

static void read_multipath(const struct nlattr *multipath, struct underlay_route *route)
{
	const struct rtnexthop *next = mnl_attr_get_payload(multipath);
	size_t left = mnl_attr_get_payload_len(multipath);

	while (left >= sizeof(*next) && next->rtnh_len >= sizeof(*next) && next->rtnh_len <= left &&
		route->n < UNDERLAY_HOPS_MAX) {
		struct underlay_hop *hop = &route->hop[route->n++];
		const struct nlattr *attribute;
		size_t step = MNL_ALIGN(next->rtnh_len);

		*hop = (struct underlay_hop){.ifindex = (uint32_t)next->rtnh_ifindex, .dead = is_dead(next->rtnh_flags)};
		for (attribute = (const void *)(next + 1);
			mnl_attr_ok(attribute, (int)((const char *)next + next->rtnh_len - (const char *)attribute));
			attribute = mnl_attr_next(attribute))
			read_hop_attribute(attribute, hop);
		if (step >= left)
			break;
		left -= step;
		next = (const struct rtnexthop *)((const uint8_t *)next + step);
	}
}

static uint32_t read_mtu(const struct nlattr *metrics)
{
	const struct nlattr *attribute;
	uint32_t mtu = 0;

	mnl_attr_for_each_nested(attribute, metrics)
	{
		if (mnl_attr_get_type(attribute) == RTAX_MTU)
			mtu = get_u32(attribute);
	}
	return mtu;
}

bool underlay_parse_route(const struct nlmsghdr *message, struct underlay_route *ret)
{
	const struct rtmsg *header = mnl_nlmsg_get_payload(message);
	struct underlay_hop lone = {0};
	const struct nlattr *attribute;

	if (mnl_nlmsg_get_payload_len(message) < sizeof(*header) ||
		(header->rtm_family != AF_INET && header->rtm_family != AF_INET6))
		return false;
	memset(ret, 0, offsetof(struct underlay_route, hop));
	ret->family = header->rtm_family;
	ret->type = header->rtm_type;
	ret->protocol = header->rtm_protocol;
	ret->cloned = header->rtm_flags & RTM_F_CLONED;
	ret->length = (uint8_t)(header->rtm_dst_len + (header->rtm_family == AF_INET ? 96 : 0));
	if (ret->length > 128)
		return false;
	if (header->rtm_family == AF_INET)
		ret->destination = addr_from_ipv4(0);
	lone.dead = is_dead(header->rtm_flags);
	mnl_attr_for_each(attribute, message, sizeof(*header))
	{
		switch (mnl_attr_get_type(attribute)) {
		case RTA_DST:
			if (!get_addr(attribute, &ret->destination))
				return false;
			break;
		case RTA_OIF:
			lone.ifindex = get_u32(attribute);
			break;
		case RTA_MULTIPATH:
			read_multipath(attribute, ret);
			break;
		case RTA_METRICS:
			ret->mtu = read_mtu(attribute);
			break;
		case RTA_NH_ID:
			ret->nexthop = get_u32(attribute);
			break;
		default:
			read_hop_attribute(attribute, &lone);
			break;
		}
	}
	if (ret->n == 0 && lone.ifindex)
		ret->hop[ret->n++] = lone;
	return true;
}

static void read_group(const struct nlattr *attribute, struct underlay_nexthop *ret)
{
	const struct nexthop_grp *entry = mnl_attr_get_payload(attribute);
	size_t n = mnl_attr_get_payload_len(attribute) / sizeof(*entry);

	for (size_t i = 0; i < n && ret->n < UNDERLAY_HOPS_MAX; i++)
		ret->id[ret->n++] = entry[i].id;
}

bool underlay_parse_nexthop(const struct nlmsghdr *message, struct underlay_nexthop *ret)
{
	const struct nhmsg *header = mnl_nlmsg_get_payload(message);
	const struct nlattr *attribute;

	if (message->nlmsg_type != RTM_NEWNEXTHOP || mnl_nlmsg_get_payload_len(message) < sizeof(*header))
		return false;
	*ret = (struct underlay_nexthop){.hop.dead = is_dead(header->nh_flags)};
	mnl_attr_for_each(attribute, message, sizeof(*header))
	{
		switch (mnl_attr_get_type(attribute)) {
		case NHA_GROUP:
			read_group(attribute, ret);
			break;
		case NHA_BLACKHOLE:
			ret->blackhole = true;
			break;
		case NHA_OIF:
			ret->hop.ifindex = get_u32(attribute);
			break;
		case NHA_GATEWAY:
			ret->hop.has_gateway = get_addr(attribute, &ret->hop.gateway);
			break;
		case NHA_ENCAP_TYPE:
			ret->hop.encapsulates = true;
			break;
		default:
			break;
		}
	}
	return true;
}

bool underlay_parse_neighbour(const struct nlmsghdr *message, struct underlay_neighbour *ret)
{
	const struct ndmsg *header = mnl_nlmsg_get_payload(message);
	const struct nlattr *attribute;
	bool found = false;

	if (mnl_nlmsg_get_payload_len(message) < sizeof(*header) ||
		(header->ndm_family != AF_INET && header->ndm_family != AF_INET6))
		return false;
	*ret = (struct underlay_neighbour){
		.ifindex = (uint32_t)header->ndm_ifindex, .state = header->ndm_state, .flags = header->ndm_flags};
	mnl_attr_for_each(attribute, message, sizeof(*header))
	{
		switch (mnl_attr_get_type(attribute)) {
		case NDA_DST:
			found = get_addr(attribute, &ret->address);
			break;
		case NDA_LLADDR:
			ret->has_mac = mnl_attr_get_payload_len(attribute) == sizeof(ret->mac);
			if (ret->has_mac)
				memcpy(ret->mac, mnl_attr_get_payload(attribute), sizeof(ret->mac));
			break;
		case NDA_PROTOCOL:
			if (mnl_attr_get_payload_len(attribute) == 1)
				ret->protocol = mnl_attr_get_u8(attribute);
			break;
		case NDA_FLAGS_EXT:
			ret->flags_ext = get_u32(attribute);
			break;
		default:
			break;
		}
	}
	/* Proxy entries speak for others. */
	return found && !(header->ndm_flags & NTF_PROXY);
}

bool underlay_parse_link(const struct nlmsghdr *message, struct underlay_link *ret)
{
	const struct ifinfomsg *header = mnl_nlmsg_get_payload(message);
	const struct nlattr *attribute;

	/* A bridge tells of its ports in its own family too. */
	if (mnl_nlmsg_get_payload_len(message) < sizeof(*header) || header->ifi_family != AF_UNSPEC)
		return false;
	*ret = (struct underlay_link){.ifindex = (uint32_t)header->ifi_index,
		.type = header->ifi_type,
		.up = (header->ifi_flags & (IFF_UP | LOWER_UP)) == (IFF_UP | LOWER_UP)};
	mnl_attr_for_each(attribute, message, sizeof(*header))
	{
		switch (mnl_attr_get_type(attribute)) {
		case IFLA_MTU:
			ret->mtu = get_u32(attribute);
			break;
		case IFLA_ADDRESS:
			if (mnl_attr_get_payload_len(attribute) == sizeof(ret->mac))
				memcpy(ret->mac, mnl_attr_get_payload(attribute), sizeof(ret->mac));
			break;
		default:
			break;
		}
	}
	return ret->ifindex != 0;
}

bool underlay_parse_address(const struct nlmsghdr *message, struct hd_addr *ret)
{
	const struct nlattr *attribute;
	bool local = false, found = false;

	if (mnl_nlmsg_get_payload_len(message) < sizeof(struct ifaddrmsg))
		return false;
	mnl_attr_for_each(attribute, message, sizeof(struct ifaddrmsg))
	{
		/* Of a point-to-point link IFA_ADDRESS is the other end. */
		if (mnl_attr_get_type(attribute) == IFA_LOCAL)
			local = found = get_addr(attribute, ret);
		else if (mnl_attr_get_type(attribute) == IFA_ADDRESS && !local)
			found = get_addr(attribute, ret);
	}
	return found;
}
