/* SPDX-License-Identifier: Apache-2.0 */
/* Who is served, kept for the next agent: in .NAME beside the socket that consumers connect to. Nobody but root writes there. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <fastpath/server_internal.h>
#include <util/file.h>

#define RECORD_MAGIC 0x68667331u

struct record {
	uint32_t magic, size;
	uint64_t session;
	uint32_t ifindex, n_queues;
	uint32_t frames, frame_size, ring;
	uint8_t transmits, huge;
	uint8_t pieces; /* 0, of an agent that knew of no others: 1 */
	uint8_t reserved;
	struct {
		uint64_t cookie; /* of the socket, which nobody can change */
		uint16_t queue;
		uint8_t mode, reserved[5];
		char reason[XSK_REASON];
	} queue[FASTPATH_QUEUES];
};

static void record_name(const struct endpoint *ep, char name[FASTPATH_NAME_MAX + 1])
{
	snprintf(name, FASTPATH_NAME_MAX + 1, ".%s", ep->name);
}

int record_write(const struct endpoint *ep)
{
	const struct session *session = &ep->session;
	_cleanup_free_ struct record *record = calloc(1, sizeof(*record));
	char name[FASTPATH_NAME_MAX + 1];

	if (!record)
		return -ENOMEM;
	record->magic = RECORD_MAGIC;
	record->size = sizeof(*record);
	record->session = session->id;
	record->ifindex = ep->config.ifindex;
	record->n_queues = session->n;
	record->frames = ep->config.frames;
	record->frame_size = ep->config.frame_size;
	record->ring = ep->config.ring;
	record->transmits = ep->config.transmits;
	record->huge = session->huge;
	record->pieces = (uint8_t)session->pieces;
	for (uint32_t i = 0; i < session->n; i++) {
		const struct watched *watched = &session->queue[i];

		record->queue[i].cookie = watched->cookie;
		record->queue[i].queue = (uint16_t)watched->xsk.queue;
		record->queue[i].mode = (uint8_t)watched->xsk.mode;
		memcpy(record->queue[i].reason, watched->xsk.reason, sizeof(record->queue[i].reason));
	}
	record_name(ep, name);
	return file_write_fleeting(ep->server->directory_fd, name, record, sizeof(*record), 0600);
}

void record_remove(const struct endpoint *ep)
{
	char name[FASTPATH_NAME_MAX + 1];

	record_name(ep, name);
	(void)unlinkat(ep->server->directory_fd, name, 0);
}

/* What an earlier agent left. */
void record_adopt(struct endpoint *ep)
{
	struct session *session = &ep->session;
	_cleanup_free_ char *text = NULL;
	char name[FASTPATH_NAME_MAX + 1];
	const struct record *record;
	size_t length = 0;

	record_name(ep, name);
	if (file_read(ep->server->directory_fd, name, sizeof(*record), &text, &length, NULL) < 0)
		return;
	record = (const struct record *)text;
	if (length != sizeof(*record) || record->magic != RECORD_MAGIC || record->size != sizeof(*record) ||
		record->session == 0 || record->n_queues == 0 || record->n_queues > FASTPATH_QUEUES) {
		log_notice("fast path %s: who was served is not known: a record of another version", ep->name);
		record_remove(ep);
		return;
	}
	*session = (struct session){.phase = FASTPATH_ORPHANED,
		.id = record->session,
		.since_ms = clock_ms(),
		.umem = UMEM_NONE,
		.huge = record->huge,
		.pieces = record->pieces ? record->pieces : 1,
		.n = record->n_queues};
	for (uint32_t i = 0; i < session->n; i++) {
		struct watched *watched = &session->queue[i];

		*watched = (struct watched){.xsk = XSK_NONE, .cookie = record->queue[i].cookie};
		watched->xsk.ifindex = record->ifindex;
		watched->xsk.queue = record->queue[i].queue;
		watched->xsk.mode = record->queue[i].mode <= XSK_GENERIC ? (enum xsk_mode)record->queue[i].mode : XSK_COPY;
		memcpy(watched->xsk.reason, record->queue[i].reason, sizeof(watched->xsk.reason));
		watched->xsk.reason[sizeof(watched->xsk.reason) - 1] = '\0';
	}
	/* as it was made for: endpoint_set() finds out whether that is still what is wanted */
	ep->config.ifindex = record->ifindex;
	ep->config.n_queues = record->n_queues;
	for (uint32_t i = 0; i < record->n_queues; i++)
		ep->config.queues[i] = record->queue[i].queue;
	ep->config.frames = record->frames;
	ep->config.frame_size = record->frame_size;
	ep->config.ring = record->ring;
	ep->config.transmits = record->transmits;
}
