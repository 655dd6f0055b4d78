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

#include <util/buffer.h>
#include <util/cleanup.h>
#include <util/ethtool.h>
#include <util/genetlink.h>

#include <tools/doctor/nic.h>
#include <tools/doctor/parse.h>

void nic_facts_clear(struct nic_facts *facts)
{
	free(facts->features);
	facts->features = NULL;
}

/* --- answers --- */

int nic_parse_eswitch(const void *message, size_t length)
{
	const struct nlattr *attribute;

	if (!genetlink_head(message, length))
		return -1;
	mnl_attr_for_each(attribute, message, sizeof(struct genlmsghdr))
	{
		if (mnl_attr_get_type(attribute) == DEVLINK_ATTR_ESWITCH_MODE && mnl_attr_validate(attribute, MNL_TYPE_U16) == 0)
			return mnl_attr_get_u16(attribute) == DEVLINK_ESWITCH_MODE_SWITCHDEV ? ESWITCH_SWITCHDEV : ESWITCH_LEGACY;
	}
	return -1;
}

/* --- questions --- */

static void ask_xdp(const char *name, struct nic_facts *facts)
{
	_cleanup_netlink_ struct mnl_socket *socket = NULL;
	unsigned ifindex = if_nametoindex(name);
	struct genetlink_family family;

	if (ifindex && genetlink_find(XDP_FEATURES_FAMILY, NULL, &family) == 0 && netlink_open(NETLINK_GENERIC, &socket) == 0)
		(void)xdp_features_ask(socket, family.number, ifindex, &facts->xdp);
}

static int take_eswitch(const struct nlmsghdr *message, void *userdata)
{
	*(int *)userdata = nic_parse_eswitch(message, MNL_ALIGN(message->nlmsg_len));
	return MNL_CB_OK;
}

static void ask_eswitch(struct doctor *doctor, const char *pci, struct nic_facts *facts)
{
	_cleanup_netlink_ struct mnl_socket *socket = NULL;
	NETLINK_REQUEST(buffer);
	struct genetlink_family family;
	struct nlmsghdr *request;
	int r;

	if (genetlink_find(DEVLINK_GENL_NAME, NULL, &family) < 0 || netlink_open(NETLINK_GENERIC, &socket) < 0)
		return;
	request = genetlink_request(buffer, family.number, DEVLINK_CMD_ESWITCH_GET, NLM_F_ACK);
	mnl_attr_put_strz(request, DEVLINK_ATTR_BUS_NAME, "pci");
	mnl_attr_put_strz(request, DEVLINK_ATTR_DEV_NAME, pci);
	r = netlink_ask(socket, request, take_eswitch, &facts->eswitch);
	if (r == -EPERM)
		doctor_unread(doctor, r, "the eswitch mode of %s (devlink; CAP_NET_ADMIN)", pci);
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
