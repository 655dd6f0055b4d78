/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What no file of /sys says: features and queues (ethtool), XDP features (netlink's netdev family, from 6.3 on), eswitch mode (devlink). Of another
 * machine's tree: what sosreport keeps of the tools' output, below sos_commands/networking/.
 */
#include <ctype.h>
#include <errno.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>
#include <linux/devlink.h>
#include <linux/ethtool.h>
#include <linux/genetlink.h>

#include <libmnl/libmnl.h>

#include <util/buffer.h>
#include <util/cleanup.h>
#include <util/ethtool.h>
#include <util/netlink.h>

#include <tools/doctor/nic.h>
#include <tools/doctor/parse.h>

/* linux/netdev.h, which not every header package has. */
enum { NETDEV_GET = 1, NETDEV_IFINDEX = 1, NETDEV_XDP_FEATURES = 3, NETDEV_XDP_METADATA = 5 };

void nic_facts_clear(struct nic_facts *facts)
{
	free(facts->features);
	facts->features = NULL;
}

/* --- answers --- */

/* The attributes behind the generic header of a whole, well-formed message; NULL: it is none. */
static const struct nlmsghdr *checked(const void *message, size_t length)
{
	const struct nlmsghdr *header = message;

	/* libmnl takes the length for a signed one, and looks for attributes up to the aligned end. */
	if (length > INT32_MAX || !mnl_nlmsg_ok(header, (int)length) || header->nlmsg_len > length ||
		MNL_ALIGN(header->nlmsg_len) > length || header->nlmsg_type < NLMSG_MIN_TYPE ||
		mnl_nlmsg_get_payload_len(header) < sizeof(struct genlmsghdr))
		return NULL;
	return header;
}

int nic_parse_family(const void *message, size_t length)
{
	const struct nlmsghdr *header = checked(message, length);
	const struct nlattr *attribute;

	if (header)
		mnl_attr_for_each(
			attribute, header, sizeof(struct genlmsghdr)) if (mnl_attr_get_type(attribute) == CTRL_ATTR_FAMILY_ID &&
									  mnl_attr_validate(attribute, MNL_TYPE_U16) ==
										  0) return mnl_attr_get_u16(attribute);
	return -1;
}

int nic_parse_eswitch(const void *message, size_t length)
{
	const struct nlmsghdr *header = checked(message, length);
	const struct nlattr *attribute;

	if (header)
		mnl_attr_for_each(attribute, header,
			sizeof(struct genlmsghdr)) if (mnl_attr_get_type(attribute) == DEVLINK_ATTR_ESWITCH_MODE &&
						       mnl_attr_validate(attribute, MNL_TYPE_U16) ==
							       0) return mnl_attr_get_u16(attribute) ==
				DEVLINK_ESWITCH_MODE_SWITCHDEV
			? ESWITCH_SWITCHDEV
			: ESWITCH_LEGACY;
	return -1;
}

bool nic_parse_xdp(const void *message, size_t length, struct nic_xdp *ret)
{
	const struct nlmsghdr *header = checked(message, length);
	const struct nlattr *attribute;
	struct nic_xdp xdp = {0};

	if (!header)
		return false;
	mnl_attr_for_each(attribute, header, sizeof(struct genlmsghdr))
	{
		unsigned type = mnl_attr_get_type(attribute);

		if (type == NETDEV_IFINDEX && mnl_attr_validate(attribute, MNL_TYPE_U32) == 0) {
			xdp.ifindex = mnl_attr_get_u32(attribute);
		} else if (type == NETDEV_XDP_FEATURES && mnl_attr_validate(attribute, MNL_TYPE_U64) == 0) {
			xdp.features = mnl_attr_get_u64(attribute);
			xdp.told = true;
		} else if (type == NETDEV_XDP_METADATA && mnl_attr_validate(attribute, MNL_TYPE_U64) == 0) {
			xdp.metadata = mnl_attr_get_u64(attribute);
			xdp.metadata_told = true;
		}
	}
	if (!xdp.ifindex || !xdp.told)
		return false;
	*ret = xdp;
	return true;
}

/* --- questions --- */

#define MESSAGE_SIZE 8192

/* One question, one answer. -ENOENT: no such family. */
static ssize_t ask(struct nlmsghdr *request, void *answer)
{
	_cleanup_netlink_ struct mnl_socket *socket = NULL;
	const struct nlmsghdr *header = answer;
	ssize_t length;
	int r = netlink_open(NETLINK_GENERIC, &socket);

	if (r < 0)
		return r;
	request->nlmsg_flags = NLM_F_REQUEST;
	request->nlmsg_seq = 1;
	if (mnl_socket_sendto(socket, request, request->nlmsg_len) < 0)
		return -errno;
	length = mnl_socket_recvfrom(socket, answer, MESSAGE_SIZE);
	if (length < 0)
		return -errno;
	if (length >= (ssize_t)sizeof(*header) && header->nlmsg_type == NLMSG_ERROR) {
		const struct nlmsgerr *error = mnl_nlmsg_get_payload(header);

		return (size_t)length < sizeof(*header) + sizeof(*error) || !error->error ? -EBADMSG : error->error;
	}
	return length;
}

static struct nlmsghdr *begin(void *buffer, int family, uint8_t command)
{
	struct nlmsghdr *request = mnl_nlmsg_put_header(buffer);
	struct genlmsghdr *header;

	request->nlmsg_type = (uint16_t)family;
	header = mnl_nlmsg_put_extra_header(request, sizeof(*header));
	header->cmd = command;
	header->version = 1;
	return request;
}

static int find_family(const char *name)
{
	_Alignas(struct nlmsghdr) uint8_t buffer[256] = {0}, answer[MESSAGE_SIZE] = {0};
	struct nlmsghdr *request = begin(buffer, GENL_ID_CTRL, CTRL_CMD_GETFAMILY);
	ssize_t length;

	mnl_attr_put_strz(request, CTRL_ATTR_FAMILY_NAME, name);
	length = ask(request, answer);
	return length < 0 ? (int)length : nic_parse_family(answer, (size_t)length);
}

static void ask_xdp(const char *name, struct nic_facts *facts)
{
	_Alignas(struct nlmsghdr) uint8_t buffer[256] = {0}, answer[MESSAGE_SIZE] = {0};
	unsigned ifindex = if_nametoindex(name);
	int family = ifindex ? find_family("netdev") : -1;
	struct nlmsghdr *request;
	struct nic_xdp xdp;
	ssize_t length;

	if (family < 0)
		return;
	request = begin(buffer, family, NETDEV_GET);
	mnl_attr_put_u32(request, NETDEV_IFINDEX, ifindex);
	length = ask(request, answer);
	if (length > 0 && nic_parse_xdp(answer, (size_t)length, &xdp) && xdp.ifindex == ifindex)
		facts->xdp = xdp;
}

static void ask_eswitch(struct doctor *doctor, const char *pci, struct nic_facts *facts)
{
	_Alignas(struct nlmsghdr) uint8_t buffer[512] = {0}, answer[MESSAGE_SIZE] = {0};
	int family = find_family(DEVLINK_GENL_NAME);
	struct nlmsghdr *request;
	ssize_t length;

	if (family < 0)
		return;
	request = begin(buffer, family, DEVLINK_CMD_ESWITCH_GET);
	mnl_attr_put_strz(request, DEVLINK_ATTR_BUS_NAME, "pci");
	mnl_attr_put_strz(request, DEVLINK_ATTR_DEV_NAME, pci);
	length = ask(request, answer);
	if (length == -EPERM)
		doctor_unread(doctor, (int)length, "the eswitch mode of %s (devlink; CAP_NET_ADMIN)", pci);
	if (length > 0)
		facts->eswitch = nic_parse_eswitch(answer, (size_t)length);
}

/* --- ethtool --- */

static void add_feature(const char *name, size_t length, bool active, void *userdata)
{
	buffer_printf(userdata, "%.*s: %s\n", (int)length, name, active ? "on" : "off");
}

/* The kernel's own names; the tool has older ones for some, which nic.c knows too. */
static char *ask_features(const char *name)
{
	struct buffer text = {0};

	if (ethtool_features_each(name, add_feature, &text) < 0 || text.failed)
		buffer_clear(&text);
	return text.data;
}

static void ask_queues(const char *name, struct nic_facts *facts)
{
	struct ethtool_channels channels = {.cmd = ETHTOOL_GCHANNELS};
	struct ethtool_rxfh_indir table = {.cmd = ETHTOOL_GRXFHINDIR, .size = 0};

	if (ethtool_run(name, &channels) == 0) {
		/* Some have one interrupt for both directions, others one for each. */
		facts->combined = (int)(channels.combined_count ?: channels.rx_count);
		facts->combined_max = (int)(channels.max_combined ?: channels.max_rx);
	}
	if (ethtool_run(name, &table) == 0)
		facts->indirection = (int)table.size;
}

/* --- what sosreport keeps --- */

static void read_recorded(struct doctor *doctor, const char *name, const char *pci, struct nic_facts *facts)
{
	_cleanup_free_ char *channels = doctor_text(doctor, "sos_commands/networking/ethtool_-l_%s", name), *eswitch = NULL;
	char address[64];

	facts->features = doctor_text(doctor, "sos_commands/networking/ethtool_-k_%s", name);
	if (channels) {
		facts->combined_max = parse_channels(channels, true);
		facts->combined = parse_channels(channels, false);
	}
	if (!pci)
		return;
	snprintf(address, sizeof(address), "%s", pci);
	for (char *c = address; *c; c++)
		if (!isalnum((unsigned char)*c) && !strchr("_-.", *c))
			*c = '_';
	eswitch = doctor_text(doctor, "sos_commands/networking/devlink_dev_eswitch_show_pci_%s", address);
	if (eswitch && strstr(eswitch, "mode switchdev"))
		facts->eswitch = ESWITCH_SWITCHDEV;
	else if (eswitch && strstr(eswitch, "mode legacy"))
		facts->eswitch = ESWITCH_LEGACY;
}

void nic_ask(struct doctor *doctor, const char *name, const char *pci, struct nic_facts *ret)
{
	*ret = (struct nic_facts){.combined = -1, .combined_max = -1, .indirection = -1, .eswitch = -1};
	if (!doctor->live) {
		read_recorded(doctor, name, pci, ret);
		return;
	}
	ret->features = ask_features(name);
	ask_queues(name, ret);
	ask_xdp(name, ret);
	if (pci)
		ask_eswitch(doctor, pci, ret);
}
