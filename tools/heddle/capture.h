/* SPDX-License-Identifier: Apache-2.0 */
/* Capture files, frame by frame, as Ethernet. */
#ifndef HEDDLE_CLI_CAPTURE_H
#define HEDDLE_CLI_CAPTURE_H

#include <stdbool.h>
#include <stddef.h>
#include <time.h>

struct capture_frame {
	size_t number; /* from 1, as Wireshark counts */
	time_t seconds;
	long microseconds;
	const unsigned char *data; /* with an Ethernet header, made up where the capture has none */
	size_t length;
	bool padded; /* the capture held only its start: the rest is zeros, so that length fields still agree */
};

/*
 * Calls frame for each; non-zero from it ends the walk and is returned. "-" is stdin. Returns an exit status, the message
 * printed. Link types: Ethernet, raw IP, and the two "cooked" ones of `tcpdump -i any`.
 */
int capture_each(const char *file, int (*frame)(const struct capture_frame *frame, void *userdata), void *userdata);

/* The bytes in hexadecimal; to be freed. NULL: no memory. */
char *capture_hex(const struct capture_frame *frame);

#endif
