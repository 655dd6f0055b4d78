/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The source "kubernetes": a list and a watch of each kind at the API server, kept as a cache of the few fields that matter, and what
 * that comes to as objects of ours: Namespaces and policies as they are, other Nodes with their Pods as Peers, the labels of
 * this node's Pods for the Ports that the CNI plugin made, the service CIDRs for the cluster's Network, and this
 * node's labels and addresses for the Host. What it comes to depends on the other objects (the tunnel, the Network, who owns
 * a name already), so the store asks for it anew in each of its proposals.
 */
#ifndef HEDDLE_SOURCE_KUBERNETES_H
#define HEDDLE_SOURCE_KUBERNETES_H

#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

#include <model/object.h>

struct kubernetes;
struct sd_event;

#define KUBERNETES_TAINT "heddle.dev/not-ready"
#define KUBERNETES_NETWORK "pods"				 /* where Host.spec.kubernetes names none */
#define KUBERNETES_TUNNEL_ANNOTATION "heddle.dev/tunnel-address" /* of a Node, when its InternalIP is not the tunnel's */

/* Something that counts may have changed (events of a short time are told once). Called from the event loop. */
typedef void (*kubernetes_changed)(void *userdata);

/*
 * kubeconfig: NULL for the in-cluster configuration. node: NULL for NODE_NAME, or the host's name. Loads libcurl: an agent without this source
 * does not carry it. Logs what is wrong.
 */
int kubernetes_new(const char *kubeconfig, const char *node, struct kubernetes **ret);
void kubernetes_free(struct kubernetes *k); /* NULL is fine */
/* The last state on disk counts until the server answers. -ENOENT: there is none of this server. */
int kubernetes_load(struct kubernetes *k, const char *state_dir);
int kubernetes_save(struct kubernetes *k, const char *state_dir); /* not synced: it may be lost with the machine */
int kubernetes_start(struct kubernetes *k, struct sd_event *event, kubernetes_changed changed, void *userdata);

void kubernetes_ask_again(struct kubernetes *k); /* for the kinds that the server did not have */

/*
 * What the cluster comes to beside `base` (sorted: files', applied and CNI plugin's objects; cni: the latter alone), sorted. Ports are to take
 * the place of the CNI plugin's ones of the same name, and the Host and the Network of the documents. What stays the same is the same pointer as the last time.
 */
int kubernetes_derive(
	struct kubernetes *k, const struct object_list *base, const struct object_list *cni, struct object_list *ret);
/* One of them is in the way of others: it is left out until it changes, or they do. */
void kubernetes_refuse(struct kubernetes *k, const struct object *object, const char *why);

bool kubernetes_live(const struct kubernetes *k); /* every kind was listed once, or the last state on disk counts */
/* A Pod of this node. Each may be NULL: no Pod, whichever has the name. */
struct kubernetes_wanted {
	const char *namespace_, *pod, *uid;
	bool address; /* one of this node's podCIDRs is needed */
};
const char *kubernetes_waits_for(
	const struct kubernetes *k, const struct kubernetes_wanted *wanted); /* before that may be connected; NULL: nothing */
const char *kubernetes_network(const struct host *host);		     /* that Pods are in; host may be NULL */
/* The podCIDRs of this node that lie in a subnet of the network, if that is the cluster's; new, or NULL: none. */
json_t *kubernetes_ranges(const struct kubernetes *k, const struct object *network);

/*
 * READY: the taint of this key is taken off this node, and its condition NetworkUnavailable, where it has one, becomes False. UNREADY: the other way
 * round; the taint's effect is NoSchedule, since Pods that run are not in want of an agent. Tried until it is done, or something else is called
 * for. To be called again when something has changed.
 */
enum kubernetes_mark { KUBERNETES_AS_IT_IS, KUBERNETES_READY, KUBERNETES_UNREADY };
void kubernetes_mark(struct kubernetes *k, const char *taint, enum kubernetes_mark as);
/* UNREADY, done before it returns, without kubernetes_start(). Logs what went wrong. */
int kubernetes_withdraw(struct kubernetes *k, const char *taint);

struct kubernetes_kind_status {
	const char *kind, *state; /* listing, watching, absent, waiting */
	const char *error;	  /* the last one since it worked; NULL: none */
	uint64_t objects, left_out;
};
#define KUBERNETES_KINDS 8
struct kubernetes_status {
	const char *server, *node;
	bool connected;	   /* every kind that the server has is being watched */
	int64_t last_sync; /* ms since the epoch, when the server last said something that counted; 0: never */
	struct kubernetes_kind_status kinds[KUBERNETES_KINDS];
};
void kubernetes_get_status(const struct kubernetes *k, struct kubernetes_status *ret);

#endif
