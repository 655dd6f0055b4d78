/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the source "kubernetes" share. */
#ifndef HEDDLE_SOURCE_KUBERNETES_INTERNAL_H
#define HEDDLE_SOURCE_KUBERNETES_INTERNAL_H

#include <curl/curl.h>
#include <systemd/sd-event.h>

#include <source/kubernetes.h>
#include <util/buffer.h>
#include <util/cleanup.h>

enum kube_kind {
	KUBE_NODE,
	KUBE_NAMESPACE,
	KUBE_POD,
	KUBE_NETWORK_POLICY,
	KUBE_ADMIN_NETWORK_POLICY,
	KUBE_BASELINE_ADMIN_NETWORK_POLICY,
	KUBE_CLUSTER_NETWORK_POLICY,
	KUBE_SERVICE_CIDR,
};
struct kube_kind_info {
	const char *name, *version, *path;
	bool optional;	     /* not every cluster has it */
	const char *earlier; /* where it was before; NULL: nowhere */
};
extern const struct kube_kind_info kube_kinds[KUBERNETES_KINDS];

#define KUBE_MIRROR "kubernetes.io/config.mirror" /* annotation of a static Pod's mirror: the UID that kubelet has for it */
#define KUBE_CONDITION "NetworkUnavailable"	  /* of a Node */

/* --- the server (kubernetes_config.c) --- */

struct kube_blob {
	char *data;
	size_t length;
};

/* Files are named, not read: each connection takes them as they are then. */
struct kube_config {
	char *server; /* https://HOST:PORT, no slash at the end */
	char *ca_file, *certificate_file, *key_file, *token_file, *token;
	struct kube_blob ca, certificate, key;
	bool insecure;
};
/* Logs what is wrong. */
int kube_config_read(const char *kubeconfig, struct kube_config *ret);
void kube_config_clear(struct kube_config *config);

/* --- JSON as it comes (kubernetes_split.c) --- */

/*
 * Cuts a stream into objects: of a watch, each value; of a list, each object in an array of the outermost mapping, the rest of
 * which is kept. Bounded, whatever comes.
 */
struct kube_split {
	bool list;
	int (*take)(void *userdata, const char *text, size_t length); /* an error ends it all */
	void *userdata;
	struct buffer piece, rest;
	unsigned depth;
	bool in_string, escaped, in_items, begun;
};
#define KUBE_PIECE_MAX ((size_t)4 << 20) /* etcd takes 1.5 MiB */
#define KUBE_REST_MAX ((size_t)64 << 10)
#define KUBE_DEPTH_MAX 256
int kube_split_feed(
	struct kube_split *split, const char *data, size_t length); /* -EBADMSG, -EMSGSIZE, -ENOMEM, what take() said */
bool kube_split_complete(const struct kube_split *split);	    /* nothing is open */
void kube_split_reset(struct kube_split *split, bool list);

/* --- the cache (kubernetes_cache.c) --- */

struct kube_host;

struct kube_pod {
	char *labels, *ports; /* JSON, as a Peer's port has them */
	char *bandwidth;      /* JSON, as a Port has it; NULL: no annotation says any */
	struct hd_addr *addresses;
	size_t n_addresses;
	struct kube_host *host; /* NULL: not placed yet */
	struct kube_item *next_on_host, **at_on_host;
	bool host_network, finished, leaving;
	bool blocked; /* another has its address or name */
	bool bad;     /* it cannot be decoded */
};

struct kube_item {
	struct kube_item *next_in_bucket;
	struct kube_item *next, **at; /* of its kind */
	enum kube_kind kind;
	const char *namespace_, *name; /* behind the struct; "" for none */
	uint64_t hash;		       /* of both */
	uint64_t order;		       /* of the last change: later ones have higher numbers */
	uint64_t version;	       /* resourceVersion; 0: no number */
	uint32_t round;		       /* the list that had it last */
	char *text;		       /* what matters of it, as Kubernetes writes it, on one line */
	struct object *object;	       /* Namespaces and policies; NULL: cannot be decoded */
	bool bad, refused;
	struct kube_pod pod;
};

/* A node, or the name of one that Pods are on. */
struct kube_host {
	struct kube_host *next;
	struct kube_item *node; /* NULL: not known */
	struct kube_item *pods;
	struct object *peer; /* as derived last; NULL: none */
	bool dirty, refused;
	char name[];
};
#define KUBE_HOST_BUCKETS 1024

/* A Port of the CNI plugin, with what its Pod has. */
struct kube_local {
	struct object *cni, *merged;
	uint64_t pod_hash; /* of the Pod's text */
	bool refused, seen;
};

struct kube_item *kube_find(const struct kubernetes *k, enum kube_kind kind, const char *namespace_, const char *name);
/* An object as the API writes it. 1: something that counts has changed; 0: nothing; -EBADMSG: no object of this kind. */
int kube_put(struct kubernetes *k, enum kube_kind kind, const json_t *object);
int kube_delete(struct kubernetes *k, enum kube_kind kind, const json_t *object);
void kube_sweep(struct kubernetes *k, enum kube_kind kind, uint32_t round); /* those of other rounds go */
void kube_cache_clear(struct kubernetes *k);
int kube_parse(const char *text, size_t length, json_t **ret); /* -EBADMSG */
/*
 * An object of ours, with what the cluster says of it: takes the document (NULL: out of memory). What no document could say does not count: `what`, and
 * why, is logged then, and *ret stays as it is.
 */
int kube_remake(json_t *document, const char *what, struct object **ret);

/* --- one request (kubernetes_request.c) --- */

/* What becomes of it. An `error` is why it broke off; without one, request->status says what the answer is. It may be begun anew from there. */
struct kube_request_ops {
	void (*answered)(void *userdata); /* with 200; may be NULL */
	int (*body)(
		void *userdata, const char *data, size_t length); /* of a 200; an error breaks it off. NULL: nobody reads it */
	void (*ended)(void *userdata, const char *error, bool timed_out);
};

struct kube_request {
	struct kubernetes *k;
	const struct kube_request_ops *ops;
	void *userdata;
	CURL *easy; /* NULL: nothing is under way */
	struct curl_slist *headers;
	long status;	       /* of the answer; 0: none yet */
	struct buffer refusal; /* the beginning of a body that is not what was asked for */
};

struct kube_asked {
	const char *url;
	unsigned watch_seconds;		/* 0: it has an end */
	const char *patch, *patch_type; /* NULL: only read */
};

int kube_client_load(void); /* libcurl; logs */
int kube_requests_start(struct kubernetes *k);
void kube_requests_free(struct kubernetes *k);
int kube_request_begin(struct kube_request *request, const struct kube_asked *asked);
void kube_request_free(struct kube_request *request);				       /* likewise */
void kube_request_refusal(const struct kube_request *request, char *ret, size_t size); /* what an answer other than 200 says */
int kube_add_timer(struct kubernetes *k, sd_event_source **ret, sd_event_time_handler_t handler, void *userdata); /* off */

/* --- this node at the server (kubernetes_node.c) --- */

int kube_node_start(struct kubernetes *k);
void kube_node_free(struct kubernetes *k);

/* --- streams (kubernetes_client.c) --- */

enum kube_state { KUBE_WAITING, KUBE_LISTING, KUBE_WATCHING, KUBE_ABSENT };

struct kube_stream {
	struct kubernetes *k;
	enum kube_kind kind;
	enum kube_state state;
	struct kube_request request;
	struct kube_split split;
	bool earlier;	       /* it is asked for where it was before, */
	bool elsewhere;	       /* since it was not at the other place a moment ago */
	char *cursor;	       /* of the next page of a list */
	char *version;	       /* to watch from; NULL: list */
	uint64_t last_version; /* of the watch's last event, as far as it is a number */
	uint32_t round;
	unsigned failures;
	uint64_t began_us;
	bool answered;	 /* with 200 */
	bool watching;	 /* what is under way is a watch */
	bool synced;	 /* was listed once, or is absent */
	bool expired;	 /* the version is too old */
	char error[256]; /* "": none */
	sd_event_source *timer;
};

int kube_take_piece(
	void *userdata, const char *text, size_t length); /* of a list or a watch, a struct kube_stream; an error ends it */
void kube_client_free(struct kubernetes *k);

struct kubernetes {
	struct kube_config config;
	char *node;
	/* cache */
	struct kube_item **buckets;
	size_t n_buckets, n_items;
	struct kube_item *first[KUBERNETES_KINDS];
	uint64_t count[KUBERNETES_KINDS];
	struct kube_host *hosts[KUBE_HOST_BUCKETS];
	uint64_t order;
	uint32_t round;
	bool live, pods_changed;
	/* what it came to last */
	struct object *host, *network; /* references */
	struct object *with_services;  /* the network with the cluster's service CIDRs; NULL: there are none */
	bool services_known, services_refused;
	struct object *with_node; /* the Host with what this node has at the server; NULL: nothing */
	uint64_t node_hash;	  /* of what that was made of */
	bool node_refused;
	uint64_t surroundings;
	struct kube_local *local;
	size_t n_local;
	/* streams */
	CURLM *multi;
	sd_event *event;
	sd_event_source *multi_timer, *told;
	struct kube_stream streams[KUBERNETES_KINDS];
	struct kube_request patch; /* of this node, see kubernetes_mark() */
	sd_event_source *patch_again;
	char *patch_taint; /* NULL: it is not to be marked */
	bool patch_ready;  /* as what */
	uint64_t patched;  /* hash of the node as it was when that was done, and as what */
	unsigned patch_failures;
	uint64_t first_us; /* of the changes that were not told yet; 0: none */
	int64_t last_sync;
	kubernetes_changed changed;
	void *userdata;
};

/* --- this node as a Host (kubernetes_host.c) --- */

void kube_forget_host(struct kubernetes *k); /* the Host is another one */
int kube_add_host(struct kubernetes *k, struct object_list *ret);

/* --- the cluster's service CIDRs (kubernetes_services.c) --- */

void kube_forget_services(struct kubernetes *k); /* they, or the network, have changed */
int kube_add_services(struct kubernetes *k, struct object_list *ret);

struct kube_host *kube_host(struct kubernetes *k, const char *name, bool make); /* NULL: none, or no memory */

#endif
