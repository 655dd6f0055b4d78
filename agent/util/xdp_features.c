/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include <util/genetlink.h>
#include <util/xdp_features.h>

enum { COMMAND_GET = 1 };
enum { ATTRIBUTE_IFINDEX = 1, ATTRIBUTE_FEATURES = 3, ATTRIBUTE_ZERO_COPY_SEGMENTS = 4, ATTRIBUTE_METADATA = 5 };

bool xdp_features_parse(const struct nlmsghdr *message, size_t length, struct xdp_features *ret)
{
	struct xdp_features found = {0};
	const struct nlattr *attribute;
	bool told = false;

	if (!genetlink_head(message, length))
		return false;
	mnl_attr_for_each(attribute, message, sizeof(struct genlmsghdr))
	{
		unsigned type = mnl_attr_get_type(attribute);

		if (type == ATTRIBUTE_IFINDEX && mnl_attr_validate(attribute, MNL_TYPE_U32) == 0) {
			found.ifindex = mnl_attr_get_u32(attribute);
		} else if (type == ATTRIBUTE_FEATURES && mnl_attr_validate(attribute, MNL_TYPE_U64) == 0) {
			found.features = mnl_attr_get_u64(attribute);
			told = true;
		} else if (type == ATTRIBUTE_ZERO_COPY_SEGMENTS && mnl_attr_validate(attribute, MNL_TYPE_U32) == 0) {
			found.zero_copy_pieces = mnl_attr_get_u32(attribute);
		} else if (type == ATTRIBUTE_METADATA && mnl_attr_validate(attribute, MNL_TYPE_U64) == 0) {
			found.metadata = mnl_attr_get_u64(attribute);
			found.metadata_told = true;
		}
	}
	if (!found.ifindex || !told)
		return false;
	*ret = found;
	return true;
}

static int take_device(const struct nlmsghdr *message, void *userdata)
{
	(void)xdp_features_parse(message, MNL_ALIGN(message->nlmsg_len), userdata);
	return MNL_CB_OK;
}

int xdp_features_ask(struct mnl_socket *socket, uint16_t family, uint32_t ifindex, struct xdp_features *ret)
{
	NETLINK_REQUEST(buffer);
	struct nlmsghdr *request = genetlink_request(buffer, family, COMMAND_GET, NLM_F_ACK);
	struct xdp_features found = {0};
	int r;

	mnl_attr_put_u32(request, ATTRIBUTE_IFINDEX, ifindex);
	r = netlink_ask(socket, request, take_device, &found);
	if (r < 0)
		return r;
	if (found.ifindex != ifindex)
		return -ENODEV;
	*ret = found;
	return 0;
}
