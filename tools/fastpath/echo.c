/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fastpath-echo [-d DIRECTORY] [-b] [-j] NAME: an example consumer. UDP datagrams go back to whoever sent them; other packets are counted and released.
 * -b polls without sleeping; -j: packets in several frames, too (a jumbo MTU), of which the first has the headers. Addresses and ports only change places, so no checksum changes.
 */
#include <getopt.h>
#include <netinet/in.h>
#include <stdlib.h>

#include "common.h"

static void swap(uint8_t *a, uint8_t *b, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		uint8_t one = a[i];

		a[i] = b[i];
		b[i] = one;
	}
}

/* Turns the frame round in place. False: it is not a plain UDP datagram. */
static bool turn_round(uint8_t *data, uint32_t length)
{
	uint8_t *l3 = data + 14, *l4;

	if (length < 14 + 20 + 8)
		return false;
	if (data[12] == 0x08 && data[13] == 0x00) {
		uint32_t header = (l3[0] & 15u) * 4;

		if (l3[0] >> 4 != 4 || header < 20 || l3[9] != IPPROTO_UDP || (l3[6] & 0x3f) || l3[7] || length < 14 + header + 8)
			return false;
		l4 = l3 + header;
		swap(l3 + 12, l3 + 16, 4);
	} else if (data[12] == 0x86 && data[13] == 0xdd) {
		if (length < 14 + 40 + 8 || l3[0] >> 4 != 6 || l3[6] != IPPROTO_UDP)
			return false;
		l4 = l3 + 40;
		swap(l3 + 8, l3 + 24, 16);
	} else {
		return false;
	}
	swap(l4, l4 + 2, 2);
	swap(data, data + 6, 6);
	return true;
}

static int serve(struct heddle_fastpath *fastpath)
{
	struct heddle_fastpath_frame frames[BATCH], back[BATCH], others[BATCH];
	int n = heddle_fastpath_receive(fastpath, frames, BATCH), r;
	uint32_t n_back = 0, n_others = 0;

	if (n <= 0)
		return n;
	for (int i = 0; i < n;) {
		uint32_t pieces = frames_of_packet(&frames[i]);
		bool ours = turn_round(frames[i].data, frames[i].length);

		for (uint32_t k = 0; k < pieces; k++, i++) {
			if (ours)
				back[n_back++] = frames[i];
			else
				others[n_others++] = frames[i];
		}
	}
	r = heddle_fastpath_release(fastpath, others, n_others);
	if (r >= 0)
		r = send_or_release(fastpath, back, n_back);
	return r < 0 ? r : n;
}

int main(int argc, char **argv)
{
	const char *directory = NULL;
	struct heddle_fastpath *fastpath;
	uint32_t options = 0;
	bool busy = false;
	int option, r = 0;

	while ((option = getopt(argc, argv, "d:bj")) != -1) {
		if (option == 'd')
			directory = optarg;
		else if (option == 'b')
			busy = true;
		else if (option == 'j')
			options |= HEDDLE_FASTPATH_SEVERAL;
		else
			return 2;
	}
	if (optind + 1 != argc) {
		fprintf(stderr, "fastpath-echo [-d DIRECTORY] [-b] [-j] NAME\n");
		return 2;
	}
	until_signal();
	fastpath = open_fastpath(directory, argv[optind], options);
	if (!fastpath)
		return 1;
	while (!ended && r >= 0) {
		r = serve(fastpath);
		if (r == 0 && !busy) {
			struct pollfd poll_fd = {.fd = heddle_fastpath_fd(fastpath), .events = POLLIN};

			(void)poll(&poll_fd, 1, 1000);
		}
	}
	if (r < 0)
		fprintf(stderr, "%s: %s: %s\n", argv[optind], strerror(-r), heddle_fastpath_refusal());
	print_statistics(argv[optind], fastpath);
	heddle_fastpath_close(fastpath);
	return r < 0 ? 1 : 0;
}
