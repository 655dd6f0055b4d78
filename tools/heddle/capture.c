/* SPDX-License-Identifier: Apache-2.0 */
#include <pcap/pcap.h>
#include <stdlib.h>
#include <string.h>

#include <util/cleanup.h>

#include "capture.h"
#include "heddle.h"

#define ETHERNET_HEADER 14
#define FRAME_MAX ((size_t)65535 + ETHERNET_HEADER + 8) /* the longest IP packet behind two tags */

/* Where the EtherType and the packet stand in a frame of this link type. false: unknown to us. */
struct link_layer {
	size_t header; /* bytes before the packet */
	int type_at;   /* offset of the EtherType; -1: by the packet's version */
};

static bool link_layer(int datalink, struct link_layer *ret)
{
	switch (datalink) {
	case DLT_EN10MB:
		*ret = (struct link_layer){0, 0};
		return true;
	case DLT_RAW:
		*ret = (struct link_layer){0, -1};
		return true;
	case DLT_LINUX_SLL:
		*ret = (struct link_layer){16, 14};
		return true;
	case DLT_LINUX_SLL2:
		*ret = (struct link_layer){20, 0};
		return true;
	default:
		return false;
	}
}

/* Builds the Ethernet frame in buffer. 0: too short to hold its own link header. */
static size_t make_frame(int datalink, const struct link_layer *layer, const struct pcap_pkthdr *header,
	const unsigned char *data, unsigned char *buffer)
{
	size_t captured = header->caplen < FRAME_MAX ? header->caplen : FRAME_MAX;
	size_t length = header->len < FRAME_MAX ? header->len : FRAME_MAX, kept = 0;

	if (length < captured)
		length = captured;
	if (captured < layer->header || (layer->type_at < 0 && captured == 0))
		return 0;
	if (datalink != DLT_EN10MB) {
		static const unsigned char addresses[12] = {2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2}; /* locally administered */

		memcpy(buffer, addresses, sizeof(addresses));
		if (layer->type_at >= 0)
			memcpy(buffer + 12, data + layer->type_at, 2);
		else
			memcpy(buffer + 12, data[0] >> 4 == 6 ? "\x86\xdd" : "\x08\x00", 2);
		kept = ETHERNET_HEADER;
		data += layer->header;
		captured -= layer->header;
		length -= layer->header;
		if (length > FRAME_MAX - kept)
			length = FRAME_MAX - kept;
		if (captured > length)
			captured = length;
	}
	memcpy(buffer + kept, data, captured);
	memset(buffer + kept + captured, 0, length - captured);
	return kept + length;
}

int capture_each(const char *file, int (*frame)(const struct capture_frame *frame, void *userdata), void *userdata)
{
	_cleanup_free_ unsigned char *buffer = malloc(FRAME_MAX);
	char error[PCAP_ERRBUF_SIZE] = "";
	struct capture_frame current = {.number = 0};
	struct pcap_pkthdr *header;
	const unsigned char *data;
	struct link_layer layer = {0};
	int r, code = CLI_DONE;
	pcap_t *pcap;

	if (!buffer)
		return fail(CLI_REFUSED, "out of memory");
	pcap = pcap_open_offline(file, error);
	if (!pcap)
		/* libpcap says some of its errors with the file's name, some without */
		return fail(CLI_REFUSED, strncmp(error, file, strlen(file)) ? "%s: %s" : "%.0s%s", file, error);
	if (!link_layer(pcap_datalink(pcap), &layer)) {
		const char *name = pcap_datalink_val_to_name(pcap_datalink(pcap));

		code = fail(CLI_REFUSED, "%s: frames of link type %s: want Ethernet, raw IP or Linux cooked", file,
			name ? name : "?");
	}
	while (code == CLI_DONE) {
		r = pcap_next_ex(pcap, &header, &data);
		if (r == PCAP_ERROR_BREAK)
			break;
		if (r < 0) {
			code = fail(CLI_REFUSED, "%s: frame %zu: %s", file, current.number + 1, pcap_geterr(pcap));
			break;
		}
		current.number++;
		current.seconds = header->ts.tv_sec;
		current.microseconds = header->ts.tv_usec;
		current.data = buffer;
		current.length = make_frame(pcap_datalink(pcap), &layer, header, data, buffer);
		current.padded = header->len > header->caplen;
		code = frame(&current, userdata);
	}
	pcap_close(pcap);
	return code;
}

char *capture_hex(const struct capture_frame *frame)
{
	static const char digits[] = "0123456789abcdef";
	char *text = malloc(2 * frame->length + 1);

	if (!text)
		return NULL;
	for (size_t i = 0; i < frame->length; i++) {
		text[2 * i] = digits[frame->data[i] >> 4];
		text[2 * i + 1] = digits[frame->data[i] & 15];
	}
	text[2 * frame->length] = 0;
	return text;
}
