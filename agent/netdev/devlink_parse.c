/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>
#include <linux/devlink.h>

#include <netdev/devlink_parse.h>
#include <util/genetlink.h>

/* What does not fit is no device that is looked for. */
static bool take_text(const struct nlattr *attribute, char *ret, size_t size)
{
	size_t length;

	if (mnl_attr_validate(attribute, MNL_TYPE_NUL_STRING) < 0)
		return false;
	length = strlen(mnl_attr_get_str(attribute));
	if (length >= size)
		return false;
	memcpy(ret, mnl_attr_get_str(attribute), length + 1);
	return true;
}

static uint16_t take_u16(const struct nlattr *attribute)
{
	return mnl_attr_validate(attribute, MNL_TYPE_U16) == 0 ? mnl_attr_get_u16(attribute) : UINT16_MAX;
}

static void take_function(const struct nlattr *function, struct devlink_port *ret)
{
	const struct nlattr *attribute;

	if (mnl_attr_validate(function, MNL_TYPE_NESTED) < 0)
		return;
	mnl_attr_for_each_nested(attribute, function) if (mnl_attr_get_type(attribute) == DEVLINK_PORT_FUNCTION_ATTR_HW_ADDR &&
							  mnl_attr_get_payload_len(attribute) == sizeof(ret->mac))
		memcpy(ret->mac, mnl_attr_get_payload(attribute), sizeof(ret->mac));
}

static enum devlink_flavour flavour_of(uint16_t flavour)
{
	switch (flavour) {
	case DEVLINK_PORT_FLAVOUR_PHYSICAL:
		return DEVLINK_PHYSICAL;
	case DEVLINK_PORT_FLAVOUR_PCI_PF:
		return DEVLINK_PCI_PF;
	case DEVLINK_PORT_FLAVOUR_PCI_VF:
		return DEVLINK_PCI_VF;
	case DEVLINK_PORT_FLAVOUR_PCI_SF:
		return DEVLINK_PCI_SF;
	default:
		return DEVLINK_OTHER;
	}
}

static enum eswitch_mode mode_of(uint16_t mode)
{
	return mode == DEVLINK_ESWITCH_MODE_SWITCHDEV ? ESWITCH_SWITCHDEV
	       : mode == DEVLINK_ESWITCH_MODE_LEGACY  ? ESWITCH_LEGACY
						      : ESWITCH_UNKNOWN;
}

enum devlink_what devlink_parse(
	const struct nlmsghdr *message, size_t length, struct devlink_device *ret_device, struct devlink_port *ret_port)
{
	const struct genlmsghdr *header = genetlink_head(message, length);
	bool has_bus = false, has_name = false, has_index = false;
	struct devlink_port port = {0};
	struct devlink_device device = {0};
	const struct nlattr *attribute;

	if (!header)
		return DEVLINK_NOTHING;
	mnl_attr_for_each(attribute, message, sizeof(*header))
	{
		switch (mnl_attr_get_type(attribute)) {
		case DEVLINK_ATTR_BUS_NAME:
			has_bus = take_text(attribute, port.bus, sizeof(port.bus));
			break;
		case DEVLINK_ATTR_DEV_NAME:
			has_name = take_text(attribute, port.name, sizeof(port.name));
			break;
		case DEVLINK_ATTR_PORT_INDEX:
			has_index = mnl_attr_validate(attribute, MNL_TYPE_U32) == 0;
			port.index = has_index ? mnl_attr_get_u32(attribute) : 0;
			break;
		case DEVLINK_ATTR_PORT_FLAVOUR:
			port.flavour = flavour_of(take_u16(attribute));
			break;
		case DEVLINK_ATTR_PORT_NETDEV_IFINDEX:
			port.ifindex = mnl_attr_validate(attribute, MNL_TYPE_U32) == 0 ? mnl_attr_get_u32(attribute) : 0;
			break;
		case DEVLINK_ATTR_PORT_PCI_PF_NUMBER:
			port.pf = take_u16(attribute);
			break;
		case DEVLINK_ATTR_PORT_PCI_VF_NUMBER:
			port.number = take_u16(attribute);
			break;
		case DEVLINK_ATTR_PORT_PCI_SF_NUMBER:
			port.number = mnl_attr_validate(attribute, MNL_TYPE_U32) == 0 ? mnl_attr_get_u32(attribute) : UINT32_MAX;
			break;
		case DEVLINK_ATTR_PORT_EXTERNAL:
			port.external = mnl_attr_validate(attribute, MNL_TYPE_U8) == 0 && mnl_attr_get_u8(attribute);
			break;
		case DEVLINK_ATTR_PORT_FUNCTION:
			take_function(attribute, &port);
			break;
		case DEVLINK_ATTR_ESWITCH_MODE:
			device.eswitch = mode_of(take_u16(attribute));
			break;
		default:
			break;
		}
	}
	if (!has_bus || !has_name)
		return DEVLINK_NOTHING;
	memcpy(device.bus, port.bus, sizeof(device.bus));
	memcpy(device.name, port.name, sizeof(device.name));
	switch (header->cmd) {
	case DEVLINK_CMD_GET: /* how the kernel answers */
	case DEVLINK_CMD_NEW:
	case DEVLINK_CMD_ESWITCH_GET:
		/* Asked for all ports, kernels such as 6.1 tell of each by the command for devices. */
		if (has_index) {
			*ret_port = port;
			return DEVLINK_PORT;
		}
		*ret_device = device;
		return DEVLINK_DEVICE;
	case DEVLINK_CMD_DEL:
		*ret_device = device;
		return DEVLINK_DEVICE_GONE;
	case DEVLINK_CMD_PORT_GET:
	case DEVLINK_CMD_PORT_NEW:
	case DEVLINK_CMD_PORT_DEL:
		if (!has_index)
			return DEVLINK_NOTHING;
		*ret_port = port;
		return header->cmd == DEVLINK_CMD_PORT_DEL ? DEVLINK_PORT_GONE : DEVLINK_PORT;
	default:
		return DEVLINK_NOTHING;
	}
}
