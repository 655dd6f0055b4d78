/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fastpath-forward [-d DIRECTORY] [-j] A B: an example consumer. What comes by the fast path A leaves by B, and the reverse. Both have memory of their own,
 * which nobody else sees, so a frame is copied from one to the other. -j: packets in several frames, too.
 */
#include <getopt.h>
#include <stdlib.h>

#include "common.h"

/* All frames of a packet, each into one; false: the other memory has smaller ones. */
static bool copy_packet(struct heddle_fastpath_frame *out, const struct heddle_fastpath_frame *in, uint32_t n, uint32_t room)
{
	for (uint32_t i = 0; i < n; i++) {
		if (in[i].length > room)
			return false;
		memcpy(out[i].data, in[i].data, in[i].length);
		out[i].length = in[i].length;
		heddle_fastpath_set_more(&out[i], i + 1 < n);
	}
	return true;
}

static int move_frames(struct heddle_fastpath *from, struct heddle_fastpath *to)
{
	struct heddle_fastpath_frame in[BATCH], out[BATCH];
	struct heddle_fastpath_info info;
	int n = heddle_fastpath_receive(from, in, BATCH), room, r;
	uint32_t n_out = 0;

	if (n <= 0)
		return n;
	heddle_fastpath_get_info(to, &info);
	room = heddle_fastpath_allocate(to, in[0].queue % info.queues, out, (uint32_t)n);
	for (int i = 0; i < n;) {
		uint32_t pieces = frames_of_packet(&in[i]);

		if ((int)(n_out + pieces) <= room && pieces <= heddle_fastpath_pieces(to) &&
			copy_packet(&out[n_out], &in[i], pieces, info.room))
			n_out += pieces;
		i += (int)pieces;
	}
	r = heddle_fastpath_release(from, in, (uint32_t)n);
	if (r >= 0 && room > (int)n_out)
		r = heddle_fastpath_release(to, out + n_out, (uint32_t)room - n_out);
	if (r >= 0)
		r = send_or_release(to, out, n_out);
	return r < 0 ? r : n;
}

int main(int argc, char **argv)
{
	struct heddle_fastpath *a, *b = NULL;
	const char *directory = NULL;
	uint32_t options = 0;
	int option, r = 0;

	while ((option = getopt(argc, argv, "d:j")) != -1) {
		if (option == 'd')
			directory = optarg;
		else if (option == 'j')
			options |= HEDDLE_FASTPATH_SEVERAL;
		else
			return 2;
	}
	if (optind + 2 != argc) {
		fprintf(stderr, "fastpath-forward [-d DIRECTORY] [-j] A B\n");
		return 2;
	}
	until_signal();
	a = open_fastpath(directory, argv[optind], options);
	if (a)
		b = open_fastpath(directory, argv[optind + 1], options);
	while (b && !ended && r >= 0) {
		int there = move_frames(a, b), back = there < 0 ? there : move_frames(b, a);

		r = there < 0 ? there : back;
		if (there == 0 && back == 0) {
			struct pollfd poll_fds[2] = {
				{.fd = heddle_fastpath_fd(a), .events = POLLIN}, {.fd = heddle_fastpath_fd(b), .events = POLLIN}};

			(void)poll(poll_fds, 2, 1000);
		}
	}
	if (r < 0)
		fprintf(stderr, "%s: %s\n", strerror(-r), heddle_fastpath_refusal());
	if (b) {
		print_statistics(argv[optind], a);
		print_statistics(argv[optind + 1], b);
	}
	heddle_fastpath_close(b);
	heddle_fastpath_close(a);
	return b && r >= 0 ? 0 : 1;
}
