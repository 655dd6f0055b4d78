/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>

#include <libmnl/libmnl.h>

#include <netdev/vf.h>
#include <util/cleanup.h>
#include <util/netlink.h>

/* What 256 VFs say, without their statistics. An attribute's length has 16 bits: the kernel leaves out what is beyond. */
#define MESSAGE_SIZE (160 << 10)

const char *const vf_knob_names[VF_KNOBS] = {
	[VF_MAC] = "mac",
	[VF_VLAN] = "vlan",
	[VF_RATE] = "rate",
	[VF_SPOOF_CHECK] = "spoofCheck",
	[VF_TRUST] = "trust",
	[VF_LINK_STATE] = "linkState",
};
const char *const vf_link_state_names[] = {
	[VF_LINK_AUTO] = "auto", [VF_LINK_ENABLE] = "enable", [VF_LINK_DISABLE] = "disable", NULL};

bool vf_same(const struct vf_values *a, const struct vf_values *b, enum vf_knob knob)
{
	switch (knob) {
	case VF_MAC:
		return memcmp(a->mac, b->mac, sizeof(a->mac)) == 0;
	case VF_VLAN:
		return a->vlan == b->vlan && a->qos == b->qos;
	case VF_RATE:
		return a->min_rate == b->min_rate && a->max_rate == b->max_rate;
	case VF_SPOOF_CHECK:
		return a->spoof_check == b->spoof_check;
	case VF_TRUST:
		return a->trust == b->trust;
	case VF_LINK_STATE:
		return a->link_state == b->link_state;
	case VF_KNOBS:
		break;
	}
	return true;
}

/* --- reading --- */

static void take_vlans(const struct nlattr *list, struct vf_values *to)
{
	const struct nlattr *attribute;

	if (mnl_attr_validate(list, MNL_TYPE_NESTED) < 0)
		return;
	/* Of several, the one that all drivers know is the first. */
	mnl_attr_for_each_nested(attribute, list)
	{
		struct ifla_vf_vlan_info vlan;

		if (mnl_attr_get_type(attribute) != IFLA_VF_VLAN_INFO || mnl_attr_get_payload_len(attribute) < sizeof(vlan))
			continue;
		memcpy(&vlan, mnl_attr_get_payload(attribute), sizeof(vlan));
		to->vlan = (uint16_t)vlan.vlan;
		to->qos = (uint8_t)vlan.qos;
		to->has |= 1u << VF_VLAN;
		return;
	}
}

/* The kernel says all bits set where the driver does not know. */
#define TAKE(attribute, variable) \
	(mnl_attr_get_payload_len(attribute) >= sizeof(variable) && \
		memcpy(&(variable), mnl_attr_get_payload(attribute), sizeof(variable)))

static bool take_vf(const struct nlattr *info, struct vf_state *ret)
{
	const struct nlattr *attribute;
	bool has_index = false;

	*ret = (struct vf_state){0};
	if (mnl_attr_get_type(info) != IFLA_VF_INFO || mnl_attr_validate(info, MNL_TYPE_NESTED) < 0)
		return false;
	mnl_attr_for_each_nested(attribute, info)
	{
		struct ifla_vf_mac mac;
		struct ifla_vf_vlan vlan;
		struct ifla_vf_rate rate;
		struct ifla_vf_spoofchk spoof; /* and those that are alike */

		switch (mnl_attr_get_type(attribute)) {
		case IFLA_VF_MAC:
			if (!TAKE(attribute, mac))
				break;
			has_index = true;
			ret->index = mac.vf;
			memcpy(ret->values.mac, mac.mac, sizeof(ret->values.mac));
			ret->values.has |= 1u << VF_MAC;
			break;
		case IFLA_VF_VLAN:
			if (!TAKE(attribute, vlan) || ret->values.has & 1u << VF_VLAN)
				break;
			ret->values.vlan = (uint16_t)vlan.vlan;
			ret->values.qos = (uint8_t)vlan.qos;
			ret->values.has |= 1u << VF_VLAN;
			break;
		case IFLA_VF_VLAN_LIST:
			take_vlans(attribute, &ret->values);
			break;
		case IFLA_VF_RATE:
			if (!TAKE(attribute, rate))
				break;
			ret->values.min_rate = rate.min_tx_rate;
			ret->values.max_rate = rate.max_tx_rate;
			ret->values.has |= 1u << VF_RATE;
			break;
		case IFLA_VF_SPOOFCHK:
			if (!TAKE(attribute, spoof) || spoof.setting > 1)
				break;
			ret->values.spoof_check = spoof.setting;
			ret->values.has |= 1u << VF_SPOOF_CHECK;
			break;
		case IFLA_VF_TRUST:
			if (!TAKE(attribute, spoof) || spoof.setting > 1)
				break;
			ret->values.trust = spoof.setting;
			ret->values.has |= 1u << VF_TRUST;
			break;
		case IFLA_VF_LINK_STATE:
			if (!TAKE(attribute, spoof) || spoof.setting > VF_LINK_DISABLE)
				break;
			ret->values.link_state = (uint8_t)spoof.setting;
			ret->values.has |= 1u << VF_LINK_STATE;
			break;
		default:
			break;
		}
	}
	return has_index;
}

static int by_index(const void *a, const void *b)
{
	const struct vf_state *x = a, *y = b;

	return (x->index > y->index) - (x->index < y->index);
}

int vf_parse(const struct nlmsghdr *message, size_t length, struct vf_state **ret, size_t *ret_n)
{
	_cleanup_free_ struct vf_state *states = NULL;
	const struct nlattr *list, *info;
	size_t n = 0;

	/* libmnl takes the length for a signed one, and looks for attributes up to the aligned end. */
	if (length > INT32_MAX || !mnl_nlmsg_ok(message, (int)length) || message->nlmsg_len > length ||
		MNL_ALIGN(message->nlmsg_len) > length || message->nlmsg_type != RTM_NEWLINK ||
		mnl_nlmsg_get_payload_len(message) < sizeof(struct ifinfomsg))
		return -EBADMSG;
	mnl_attr_for_each(list, message, sizeof(struct ifinfomsg))
	{
		if (mnl_attr_get_type(list) != IFLA_VFINFO_LIST || mnl_attr_validate(list, MNL_TYPE_NESTED) < 0)
			continue;
		mnl_attr_for_each_nested(info, list)
		{
			struct vf_state *grown = reallocarray(states, n + 1, sizeof(*grown));

			if (!grown)
				return -ENOMEM;
			states = grown;
			n += take_vf(info, &states[n]);
		}
	}
	if (n)
		qsort(states, n, sizeof(*states), by_index);
	*ret = TAKE_PTR(states);
	*ret_n = n;
	return 0;
}

/* --- the kernel --- */

struct answer {
	struct vf_state *states;
	size_t n;
	int r;
};

static int on_link(const struct nlmsghdr *message, void *userdata)
{
	struct answer *answer = userdata;

	free(answer->states);
	answer->states = NULL;
	answer->r = vf_parse(message, message->nlmsg_len, &answer->states, &answer->n);
	return answer->r < 0 ? MNL_CB_ERROR : MNL_CB_OK;
}

static int exchange(struct nlmsghdr *request, mnl_cb_t answered, void *userdata)
{
	_cleanup_free_ uint8_t *buffer = malloc(MESSAGE_SIZE);
	_cleanup_netlink_ struct mnl_socket *socket = NULL;
	ssize_t length;
	int r = buffer ? netlink_open(NETLINK_ROUTE, &socket) : -ENOMEM;

	if (r < 0)
		return r;
	if (mnl_socket_sendto(socket, request, request->nlmsg_len) < 0)
		return -errno;
	length = mnl_socket_recvfrom(socket, buffer, MESSAGE_SIZE);
	if (length < 0 || mnl_cb_run(buffer, (size_t)length, 1, mnl_socket_get_portid(socket), answered, userdata) < 0)
		return -errno;
	return 0;
}

static int kernel_read(void *userdata, uint32_t pf_ifindex, struct vf_state **ret, size_t *ret_n)
{
	_Alignas(struct nlmsghdr) uint8_t buffer[128] = {0};
	struct nlmsghdr *request = mnl_nlmsg_put_header(buffer);
	struct answer answer = {0};
	struct ifinfomsg *link;
	int r;

	(void)userdata;
	request->nlmsg_type = RTM_GETLINK;
	request->nlmsg_flags = NLM_F_REQUEST;
	request->nlmsg_seq = 1;
	link = mnl_nlmsg_put_extra_header(request, sizeof(*link));
	link->ifi_index = (int)pf_ifindex;
	mnl_attr_put_u32(request, IFLA_EXT_MASK, RTEXT_FILTER_VF | RTEXT_FILTER_SKIP_STATS);
	r = exchange(request, on_link, &answer);
	if (r < 0 || answer.r < 0) {
		free(answer.states);
		return answer.r < 0 ? answer.r : r;
	}
	*ret = answer.states;
	*ret_n = answer.n;
	return 0;
}

static int kernel_set(void *userdata, uint32_t pf_ifindex, uint32_t index, enum vf_knob knob, const struct vf_values *values)
{
	_Alignas(struct nlmsghdr) uint8_t buffer[256] = {0};
	struct nlmsghdr *request = mnl_nlmsg_put_header(buffer);
	const struct ifla_vf_vlan vlan = {.vf = index, .vlan = values->vlan, .qos = values->qos};
	const struct ifla_vf_rate rate = {.vf = index, .min_tx_rate = values->min_rate, .max_tx_rate = values->max_rate};
	struct ifla_vf_spoofchk setting = {.vf = index};
	struct ifla_vf_mac mac = {.vf = index};
	struct nlattr *list, *info;
	struct ifinfomsg *link;

	(void)userdata;
	request->nlmsg_type = RTM_SETLINK;
	request->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
	request->nlmsg_seq = 1;
	link = mnl_nlmsg_put_extra_header(request, sizeof(*link));
	link->ifi_index = (int)pf_ifindex;
	list = mnl_attr_nest_start(request, IFLA_VFINFO_LIST);
	info = mnl_attr_nest_start(request, IFLA_VF_INFO);
	switch (knob) {
	case VF_MAC:
		memcpy(mac.mac, values->mac, sizeof(values->mac));
		mnl_attr_put(request, IFLA_VF_MAC, sizeof(mac), &mac);
		break;
	case VF_VLAN:
		mnl_attr_put(request, IFLA_VF_VLAN, sizeof(vlan), &vlan);
		break;
	case VF_RATE:
		mnl_attr_put(request, IFLA_VF_RATE, sizeof(rate), &rate);
		break;
	case VF_SPOOF_CHECK:
		setting.setting = values->spoof_check;
		mnl_attr_put(request, IFLA_VF_SPOOFCHK, sizeof(setting), &setting);
		break;
	case VF_TRUST:
		setting.setting = values->trust;
		mnl_attr_put(request, IFLA_VF_TRUST, sizeof(setting), &setting);
		break;
	case VF_LINK_STATE:
		setting.setting = values->link_state;
		mnl_attr_put(request, IFLA_VF_LINK_STATE, sizeof(setting), &setting);
		break;
	case VF_KNOBS:
		return -EINVAL;
	}
	mnl_attr_nest_end(request, info);
	mnl_attr_nest_end(request, list);
	return exchange(request, NULL, NULL);
}

const struct vf_backend vf_kernel = {.read = kernel_read, .set = kernel_set};
