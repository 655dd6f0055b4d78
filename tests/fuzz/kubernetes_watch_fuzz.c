// SPDX-License-Identifier: Apache-2.0
/*
 * What an API server says of any kind, as a list or as a watch, taken into the cache, and what it all comes to, beside a host with a tunnel and
 * the Network of the cluster. The input is lines; the first byte of each says of which kind it is, and how it comes. What is kept on disk
 * of it is read again.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <model/decode.h>
#include <source/kubernetes_internal.h>
#include <util/log.h>

#define BASE \
	"{\"apiVersion\": \"heddle.dev/v1alpha1\", \"kind\": \"Host\", \"metadata\": {\"name\": \"h\"}, \"spec\": " \
	"{\"uplinks\": [], \"tunnel\": " \
	"{\"protocol\": \"vxlan\", \"address\": \"192.0.2.1\"}}}\n---\n" \
	"{\"apiVersion\": \"heddle.dev/v1alpha1\", \"kind\": \"Network\", \"metadata\": {\"name\": \"pods\"}, \"spec\": " \
	"{\"vni\": 77, \"mode\": " \
	"\"l3\", \"subnets\": [\"10.77.0.0/16\", \"fd77::/48\"], \"gateway\": [\"10.77.255.254\", \"fd77::fe\"]}}\n"

static struct object_list base;

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	struct diag diag = {0};

	(void)argc, (void)argv;
	log_set_level(LOG_ERR);
	if (decode_documents(NULL, BASE, strlen(BASE), &base, &diag) < 0)
		abort();
	object_list_sort(&base);
	return 0;
}

static void say(struct kubernetes *k, const char *line, size_t length)
{
	struct kube_stream *stream;

	if (length < 2)
		return;
	stream = &k->streams[(unsigned char)line[0] % KUBERNETES_KINDS];
	stream->watching = !((unsigned char)line[0] & 0x80);
	stream->expired = false;
	kube_split_reset(&stream->split, !stream->watching);
	(void)kube_split_feed(&stream->split, line + 1, length - 1);
}

static size_t derive(struct kubernetes *k)
{
	_cleanup_object_list_ struct object_list list = {0};
	const struct object_list none = {0};
	struct kubernetes_status status;

	if (kubernetes_derive(k, &base, &none, &list) < 0)
		abort();
	for (size_t i = 0; i < list.n; i++)
		if (i % 3 == 2)
			kubernetes_refuse(k, list.items[i], "the fuzzer");
	kubernetes_get_status(k, &status);
	return list.n;
}

static struct kubernetes *make(void)
{
	struct kubernetes *k = calloc(1, sizeof(*k));

	if (!k)
		abort();
	k->node = strdup("node-1");
	k->config.server = strdup("https://192.0.2.9");
	for (size_t i = 0; i < KUBERNETES_KINDS; i++) {
		k->streams[i].k = k;
		k->streams[i].kind = (enum kube_kind)i;
		k->streams[i].split.take = kube_take_piece;
		k->streams[i].split.userdata = &k->streams[i];
	}
	return k;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct kubernetes_wanted wanted = {.namespace_ = "default", .pod = "n", .uid = "u", .address = true};
	const char *at = (const char *)data, *end = at + size;
	struct kubernetes *k = make(), *again = make();
	char directory[] = "/tmp/heddle-fuzz-XXXXXX", file[64];
	uint64_t n;

	while (at < end) {
		const char *next = memchr(at, '\n', (size_t)(end - at));

		say(k, at, (size_t)((next ? next : end) - at));
		at = next ? next + 1 : end;
		/* nothing is told to anybody while it is not live */
		k->live = true;
		(void)derive(k);
		k->live = false;
	}
	k->live = true;
	(void)derive(k);
	(void)kubernetes_waits_for(k, &wanted);
	n = k->n_items;
	if (size % 16)
		goto finish; /* a disk costs more than all the rest */
	if (!mkdtemp(directory) || kubernetes_save(k, directory) < 0 || kubernetes_load(again, directory) < 0 ||
		again->n_items != n)
		abort();
	(void)derive(again);
	snprintf(file, sizeof(file), "%s/kubernetes.state", directory);
	if (unlink(file) < 0 || rmdir(directory) < 0)
		abort();
finish:
	kubernetes_free(k);
	kubernetes_free(again);
	return 0;
}
