/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The CNI plugin's requests, and the Ports that they become. Annotations say which attachment a Port is: the Port is all that is kept of it.
 */
#ifndef HEDDLE_SOURCE_CNI_H
#define HEDDLE_SOURCE_CNI_H

#include <jansson.h>

#include <model/decode.h>
#include <model/object.h>

#define CNI_ANNOTATION_NAME "heddle.dev/cni-name"
#define CNI_ANNOTATION_CONTAINER "heddle.dev/cni-container"
#define CNI_ANNOTATION_INTERFACE "heddle.dev/cni-interface"
#define CNI_ANNOTATION_POD "heddle.dev/cni-pod" /* the name of a Pod that is too long for a label */
#define CNI_LABEL_POD "io.kubernetes.pod.name"
#define CNI_LABEL_NAMESPACE "io.kubernetes.pod.namespace"

/* What an attachment is known by: the `name` of the CNI configuration, CNI_CONTAINERID and CNI_IFNAME. */
struct cni_key {
	const char *name, *container, *interface;
};

/* Points into the JSON that it was read from. */
struct cni_request {
	struct cni_key key;
	const char *network;	      /* the Network's name */
	const char *device;	      /* the host's end; NULL: pci */
	const char *pci;	      /* a VF; NULL: device */
	const json_t *vf;	      /* as spec.vf of a Port beside pci; NULL: none */
	const char *namespace_, *pod; /* NULL: not told */
	const char *uid;	      /* of the Pod; NULL: not told */
	const char *mac;	      /* NULL: any */
	const json_t *labels;	      /* NULL: none */
	const json_t *ips;	      /* wanted; NULL: none in particular */
	const json_t *addresses;      /* given out by another IPAM; NULL: ours is asked */
	const json_t *ranges;	      /* NULL: the network's subnets */
	const json_t *host_ports;     /* as spec.hostPorts has them; NULL: none */
	const json_t *bandwidth;      /* as spec.bandwidth of a Port; NULL: none */
};

/* -EINVAL with diag. network and device are not asked for where `whole` is false: for those that only name an attachment. */
int cni_parse(const json_t *body, bool whole, struct cni_request *ret, struct diag *diag);

/*
 * The Port of a request: named after its pod, or its container, and the key, so that two containers of one pod do not meet. -EINVAL with diag.
 * mac may be NULL for the request's.
 */
int cni_make_port(const struct cni_request *request, const char *mac, const struct hd_addr *addresses, size_t n_addresses,
	struct object **ret, struct diag *diag);

struct cni_key cni_key_of(const struct object *port); /* all three NULL: not one of the plugin's */
bool cni_key_equal(const struct cni_key *a, const struct cni_key *b);
struct object *cni_find(const struct object_list *ports, const struct cni_key *key); /* NULL: none */

/* What the plugin writes on the host's end of an attachment, so that it knows it again. */
#define CNI_ALIAS_MAX 256
void cni_alias(const struct cni_key *key, char ret[CNI_ALIAS_MAX]);

#endif
