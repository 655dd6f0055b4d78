/* SPDX-License-Identifier: Apache-2.0 */
/* The start of a rejected packet is what anyone on the wire sends; whatever it holds, the answer is none or a whole packet. */
#include <stdlib.h>
#include <string.h>

#include <datapath/internal.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct hd_event event = {0};
	struct reject_packet packet;

	if (size < 8)
		return 0;
	event.direction = data[0] & 1;
	event.l3_offset = data[1];
	event.length = data[2] << 8 | data[3];
	event.vlan[0] = (uint16_t)(data[4] << 8 | data[5]);
	event.vlan[1] = (uint16_t)(data[6] << 8 | data[7]);
	data += 8;
	size -= 8;
	event.packet_length = (uint16_t)(size > 300 ? 300 : size); /* more than there is room for: not to be believed */
	memcpy(event.packet, data, size < sizeof(event.packet) ? size : sizeof(event.packet));
	if (reject_build(&event, NULL, &packet) == 0 &&
		(packet.length > sizeof(packet.data) || packet.l3_offset + 28 > packet.length))
		abort();
	return 0;
}
