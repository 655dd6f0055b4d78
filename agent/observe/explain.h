/* SPDX-License-Identifier: Apache-2.0 */
/* `heddle explain`: a described packet or a captured frame, run through the dry-run twin of the program that would judge it. */
#ifndef HEDDLE_OBSERVE_EXPLAIN_H
#define HEDDLE_OBSERVE_EXPLAIN_H

#include <jansson.h>

#include <observe/packet.h>
#include <observe/view.h>
#include <util/buffer.h>

#define EXPLAIN_FRAME_MAX 9216
#define EXPLAIN_NAME_MAX 254

/* What is asked: `spec` described, or `frame` as captured. */
struct explain_request {
	bool described;
	struct packet_spec spec;
	bool has_flags, has_sport, has_dport, has_icmp_type, has_protocol;
	uint8_t frame[EXPLAIN_FRAME_MAX];
	size_t length;
	/* "" where not given */
	char uplink[IF_NAMESIZE], egress[IF_NAMESIZE]; /* both: forwarded from one to the other, judged as it leaves */
	char port[EXPLAIN_NAME_MAX], namespace_[EXPLAIN_NAME_MAX], network[EXPLAIN_NAME_MAX];
	char peer[EXPLAIN_NAME_MAX]; /* it comes from there, without its outer headers */
};

/* Reads the JSON of POST /v1/explain. -EINVAL with one mistake a line in `mistakes`, `FIELD: want …, got …`. Pure. */
int explain_parse(const json_t *body, struct explain_request *ret, struct buffer *mistakes);

/* 0; -EINVAL with mistakes; -ENODEV with mistakes: no uplink or port to judge at; or the errno of the run. Changes *request: it is filled in. */
int explain_run(const struct view *view, struct explain_request *request, json_t **ret, struct buffer *mistakes);

#endif
