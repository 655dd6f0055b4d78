/* SPDX-License-Identifier: Apache-2.0 */
/* Frames: any bytes can be looked at, and what is built from any description is looked at as it was described. */
#include <stdlib.h>
#include <string.h>

#include <netinet/in.h>

#include <heddle/overlay.h>
#include <observe/packet.h>
#include <util/addr.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void look(const uint8_t *data, size_t size)
{
	uint8_t *frame = malloc(size ? size : 1);
	struct packet_view view;
	uint16_t tci, protocol;

	if (!frame)
		return;
	memcpy(frame, data, size);
	for (unsigned kind = HD_TUNNEL_VXLAN; kind <= HD_TUNNEL_GENEVE; kind++) {
		struct packet_tunnel tunnel;

		if (packet_unwrap(frame, size, kind, &tunnel) == HD_R_NONE && !tunnel.control && tunnel.inner + 16 > size)
			abort();
	}
	do
		packet_look(frame, size, &view);
	while (packet_untag(frame, &size, &tci, &protocol));
	free(frame);
}

static void build(const uint8_t *data, size_t size)
{
	struct packet_spec spec;
	struct packet_view view;
	uint8_t frame[PACKET_MAX];
	size_t length;

	memset(&spec, 0, sizeof(spec));
	memcpy(&spec, data, size < sizeof(spec) ? size : sizeof(spec));
	spec.reply = spec.source_mac[0] & 1;
	spec.n_vlan %= PACKET_TAGS + 2;
	if (spec.source_mac[1] & 1) {
		spec.source = addr_from_ipv4(spec.source.w[0]);
		spec.destination = addr_from_ipv4(spec.destination.w[0]);
	}
	if (packet_build(&spec, frame, &length))
		return;
	if (length > PACKET_MAX)
		abort();
	packet_look(frame, length, &view);
	if (!view.ip || view.protocol != spec.protocol || view.n_vlan != spec.n_vlan ||
		memcmp(&view.source, &spec.source, sizeof(view.source)) ||
		memcmp(&view.destination, &spec.destination, sizeof(view.source)))
		abort();
	if (view.ports && (view.source_port != spec.source_port || view.destination_port != spec.destination_port))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (!size)
		return 0;
	if (*data & 1)
		look(data + 1, size - 1);
	else
		build(data + 1, size - 1);
	return 0;
}
