// SPDX-License-Identifier: Apache-2.0
/*
 * What the server has said, down to what matters. An update that changes nothing of that (most are: heartbeats, status) ends here. An object
 * that cannot be decoded stays what it was, or is left out; the others go on.
 */
#include <source/kubernetes_internal.h>

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include <model/decode.h>
#include <model/kinds.h>
#include <model/write.h>
#include <util/addr.h>
#include <util/file.h>
#include <util/hash.h>
#include <util/log.h>

#define STATE_NAME "kubernetes.state"
#define STATE_MAX ((size_t)1 << 30)
#define STATE_HEAD "heddle kubernetes 1 "
#define STATE_END "end\n"

#define POLICY "policy.networking.k8s.io"
const struct kube_kind_info kube_kinds[KUBERNETES_KINDS] = {
	[KUBE_NODE] = {"Node", "v1", "/api/v1/nodes", false},
	[KUBE_NAMESPACE] = {"Namespace", "v1", "/api/v1/namespaces", false},
	[KUBE_POD] = {"Pod", "v1", "/api/v1/pods", false},
	[KUBE_NETWORK_POLICY] = {"NetworkPolicy", "networking.k8s.io/v1", "/apis/networking.k8s.io/v1/networkpolicies", false},
	[KUBE_ADMIN_NETWORK_POLICY] = {"AdminNetworkPolicy", POLICY "/v1alpha1", "/apis/" POLICY "/v1alpha1/adminnetworkpolicies",
		true},
	[KUBE_BASELINE_ADMIN_NETWORK_POLICY] = {"BaselineAdminNetworkPolicy", POLICY "/v1alpha1",
		"/apis/" POLICY "/v1alpha1/baselineadminnetworkpolicies", true},
	[KUBE_CLUSTER_NETWORK_POLICY] = {"ClusterNetworkPolicy", POLICY "/v1alpha2",
		"/apis/" POLICY "/v1alpha2/clusternetworkpolicies", true},
	[KUBE_SERVICE_CIDR] = {"ServiceCIDR", "networking.k8s.io/v1", "/apis/networking.k8s.io/v1/servicecidrs", true,
		"/apis/networking.k8s.io/v1beta1/servicecidrs"},
};

/* --- finding --- */

static uint64_t key_hash(enum kube_kind kind, const char *namespace_, const char *name)
{
	return hash_string(hash_string(kind + 1, namespace_), name);
}

struct kube_item *kube_find(const struct kubernetes *k, enum kube_kind kind, const char *namespace_, const char *name)
{
	uint64_t hash = key_hash(kind, namespace_, name);
	struct kube_item *item = k->n_buckets ? k->buckets[hash % k->n_buckets] : NULL;

	while (item && (item->hash != hash || item->kind != kind || strcmp(item->name, name) != 0 ||
			       strcmp(item->namespace_, namespace_) != 0))
		item = item->next_in_bucket;
	return item;
}

static int grow(struct kubernetes *k)
{
	size_t n = k->n_buckets ? 2 * k->n_buckets : 256;
	struct kube_item **buckets = calloc(n, sizeof(struct kube_item *));

	if (!buckets)
		return -ENOMEM;
	for (size_t i = 0; i < KUBERNETES_KINDS; i++) {
		for (struct kube_item *item = k->first[i]; item; item = item->next) {
			item->next_in_bucket = buckets[item->hash % n];
			buckets[item->hash % n] = item;
		}
	}
	free(k->buckets);
	k->buckets = buckets;
	k->n_buckets = n;
	return 0;
}

struct kube_host *kube_host(struct kubernetes *k, const char *name, bool make)
{
	struct kube_host **bucket = &k->hosts[hash_string(3, name) % KUBE_HOST_BUCKETS], *host = *bucket;

	while (host && strcmp(host->name, name) != 0)
		host = host->next;
	if (host || !make)
		return host;
	host = calloc(1, sizeof(*host) + strlen(name) + 1);
	if (!host)
		return NULL;
	memcpy(host->name, name, strlen(name));
	host->dirty = true;
	host->next = *bucket;
	*bucket = host;
	return host;
}

static struct kube_item *add_item(struct kubernetes *k, enum kube_kind kind, const char *namespace_, const char *name)
{
	size_t namespace_length = strlen(namespace_) + 1, name_length = strlen(name) + 1;
	struct kube_item *item;
	char *text;

	if (k->n_items >= k->n_buckets && grow(k) < 0)
		return NULL;
	item = calloc(1, sizeof(*item) + namespace_length + name_length);
	if (!item)
		return NULL;
	text = (char *)(item + 1);
	item->kind = kind;
	item->namespace_ = memcpy(text, namespace_, namespace_length);
	item->name = memcpy(text + namespace_length, name, name_length);
	item->hash = key_hash(kind, namespace_, name);
	item->next_in_bucket = k->buckets[item->hash % k->n_buckets];
	k->buckets[item->hash % k->n_buckets] = item;
	item->next = k->first[kind];
	item->at = &k->first[kind];
	if (item->next)
		item->next->at = &item->next;
	k->first[kind] = item;
	k->count[kind]++;
	k->n_items++;
	return item;
}

/* --- Pods and their hosts --- */

static void leave_host(struct kubernetes *k, struct kube_item *item)
{
	struct kube_pod *pod = &item->pod;

	if (pod->host) {
		*pod->at_on_host = pod->next_on_host;
		if (pod->next_on_host)
			pod->next_on_host->pod.at_on_host = pod->at_on_host;
		pod->host->dirty = true;
		k->pods_changed = true;
	}
	free(pod->labels);
	free(pod->ports);
	free(pod->bandwidth);
	free(pod->addresses);
	*pod = (struct kube_pod){0};
}

static void join_host(struct kubernetes *k, struct kube_item *item, struct kube_host *host)
{
	struct kube_pod *pod = &item->pod;

	pod->host = host;
	pod->next_on_host = host->pods;
	pod->at_on_host = &host->pods;
	if (host->pods)
		host->pods->pod.at_on_host = &pod->next_on_host;
	host->pods = item;
	host->dirty = true;
	k->pods_changed = true;
}

static void free_item(struct kubernetes *k, struct kube_item *item)
{
	struct kube_item **at = &k->buckets[item->hash % k->n_buckets];

	while (*at != item)
		at = &(*at)->next_in_bucket;
	*at = item->next_in_bucket;
	*item->at = item->next;
	if (item->next)
		item->next->at = item->at;
	k->count[item->kind]--;
	k->n_items--;
	if (item->kind == KUBE_POD)
		leave_host(k, item);
	if (item->kind == KUBE_NODE) {
		struct kube_host *host = kube_host(k, item->name, false);

		if (host) {
			host->node = NULL;
			host->dirty = true;
		}
	}
	if (item->kind == KUBE_SERVICE_CIDR)
		kube_forget_services(k);
	object_unref(item->object);
	free(item->text);
	free(item);
}

/* --- down to what matters --- */

static void copy_field(json_t *to, const json_t *from, const char *name)
{
	json_t *value = json_object_get(from, name);

	if (value && !json_is_null(value))
		json_object_set(to, name, value);
}

/* Those of Pods, by direction. */
static const char *const bandwidth_annotations[HD_DIRECTIONS] = {
	[HD_INGRESS] = "kubernetes.io/ingress-bandwidth",
	[HD_EGRESS] = "kubernetes.io/egress-bandwidth",
};

/* Annotations are for people and other programs but for ours. */
static bool is_ours(const char *key, bool pod)
{
	return pod ? strcmp(key, bandwidth_annotations[HD_INGRESS]) == 0 || strcmp(key, bandwidth_annotations[HD_EGRESS]) == 0
		   : strncmp(key, "heddle.dev/", 11) == 0;
}

static json_t *reduce_metadata(const json_t *metadata, bool pod)
{
	json_t *ret = json_object(), *kept = json_object(), *value;
	const char *key;

	copy_field(ret, metadata, "name");
	copy_field(ret, metadata, "namespace");
	copy_field(ret, metadata, "labels");
	json_object_foreach (json_object_get(metadata, "annotations"), key, value)
		if (is_ours(key, pod))
			json_object_set(kept, key, value);
	if (json_object_size(kept))
		json_object_set(ret, "annotations", kept);
	json_decref(kept);
	return ret;
}

/* Of this node alone: what there is to do once it is ready. */
static json_t *reduce_conditions(const json_t *conditions)
{
	json_t *ret = json_array(), *condition, *kept;
	size_t i;

	json_array_foreach (conditions, i, condition) {
		const char *type = json_string_value(json_object_get(condition, "type"));

		if (!type || strcmp(type, KUBE_CONDITION) != 0)
			continue;
		kept = json_object();
		copy_field(kept, condition, "type");
		copy_field(kept, condition, "status");
		json_array_append_new(ret, kept);
	}
	return ret;
}

static json_t *reduce_node(const json_t *spec, const json_t *status, bool is_own, json_t *ret)
{
	json_t *own = json_object(), *addresses = json_array(), *address, *state;
	size_t i;

	copy_field(own, spec, "podCIDRs");
	if (!json_array_size(json_object_get(own, "podCIDRs")) && json_is_string(json_object_get(spec, "podCIDR")))
		json_object_set_new(own, "podCIDRs", json_pack("[O]", json_object_get(spec, "podCIDR")));
	json_array_foreach (json_object_get(status, "addresses"), i, address) {
		const char *type = json_string_value(json_object_get(address, "type"));

		if (type && strcmp(type, "InternalIP") == 0)
			json_array_append(addresses, address);
	}
	state = json_pack("{s:o}", "addresses", addresses);
	if (is_own) {
		copy_field(own, spec, "taints");
		json_object_set_new(state, "conditions", reduce_conditions(json_object_get(status, "conditions")));
	}
	json_object_set_new(ret, "spec", own);
	json_object_set_new(ret, "status", state);
	return ret;
}

static void reduce_containers(const json_t *containers, bool init, json_t *ports)
{
	json_t *container, *port;
	size_t i, j;

	json_array_foreach (containers, i, container) {
		const char *restart = json_string_value(json_object_get(container, "restartPolicy"));

		/* of those that run before the others only sidecars stay */
		if (init && !(restart && strcmp(restart, "Always") == 0))
			continue;
		json_array_foreach (json_object_get(container, "ports"), j, port) {
			json_t *kept;

			if (!json_is_string(json_object_get(port, "name")))
				continue;
			kept = json_object();
			copy_field(kept, port, "name");
			copy_field(kept, port, "protocol");
			copy_field(kept, port, "containerPort");
			json_array_append_new(ports, kept);
		}
	}
}

static json_t *reduce_pod(const json_t *spec, const json_t *status, json_t *ret)
{
	const char *phase = json_string_value(json_object_get(status, "phase"));
	json_t *own = json_object(), *ports = json_array(), *state = json_object();

	copy_field(own, spec, "nodeName");
	if (json_is_true(json_object_get(spec, "hostNetwork")))
		copy_field(own, spec, "hostNetwork");
	reduce_containers(json_object_get(spec, "initContainers"), true, ports);
	reduce_containers(json_object_get(spec, "containers"), false, ports);
	if (json_array_size(ports))
		json_object_set_new(own, "containers", json_pack("[{s:O}]", "ports", ports));
	json_decref(ports);
	if (phase && (strcmp(phase, "Succeeded") == 0 || strcmp(phase, "Failed") == 0))
		copy_field(state, status, "phase");
	copy_field(state, status, "podIPs");
	if (!json_array_size(json_object_get(state, "podIPs")) && json_is_string(json_object_get(status, "podIP")))
		json_object_set_new(state, "podIPs", json_pack("[{s:O}]", "ip", json_object_get(status, "podIP")));
	json_object_set_new(ret, "spec", own);
	json_object_set_new(ret, "status", state);
	return ret;
}

/* Of Pods of this node alone: kubelet says of which one it speaks, a name may be another's by now. */
static void keep_uid(json_t *to, const json_t *metadata)
{
	json_t *mirror = json_object_get(json_object_get(metadata, "annotations"), KUBE_MIRROR);

	copy_field(to, metadata, "uid");
	if (json_is_string(mirror))
		json_object_set_new(to, "annotations", json_pack("{s:O}", KUBE_MIRROR, mirror));
}

static bool is_own(const struct kubernetes *k, const json_t *name)
{
	return json_is_string(name) && strcmp(json_string_value(name), k->node) == 0;
}

static json_t *reduce(const struct kubernetes *k, enum kube_kind kind, const json_t *object)
{
	const json_t *metadata = json_object_get(object, "metadata"), *spec = json_object_get(object, "spec");
	json_t *ret = json_pack("{s:s, s:s, s:o}", "apiVersion", kube_kinds[kind].version, "kind", kube_kinds[kind].name,
		"metadata", reduce_metadata(metadata, kind == KUBE_POD));

	if (!ret)
		return NULL;
	switch (kind) {
	case KUBE_NODE:
		return reduce_node(spec, json_object_get(object, "status"), is_own(k, json_object_get(metadata, "name")), ret);
	case KUBE_POD:
		if (json_object_get(metadata, "deletionTimestamp"))
			json_object_set_new(json_object_get(ret, "metadata"), "deletionTimestamp", json_string("1"));
		if (is_own(k, json_object_get(spec, "nodeName")))
			keep_uid(json_object_get(ret, "metadata"), metadata);
		return reduce_pod(spec, json_object_get(object, "status"), ret);
	case KUBE_NAMESPACE:
		return ret;
	default:
		copy_field(ret, object, "spec");
		return ret;
	}
}

/* --- taking it in --- */

static void write_pod_ports(struct buffer *out, const json_t *ports)
{
	json_t *port, *other;
	size_t i, j;

	buffer_add_char(out, '[');
	json_array_foreach (ports, i, port) {
		const char *name = json_string_value(json_object_get(port, "name"));
		const char *protocol = json_string_value(json_object_get(port, "protocol"));
		json_int_t number = json_integer_value(json_object_get(port, "containerPort"));
		bool again = false;

		json_array_foreach (ports, j, other) {
			const char *its = json_string_value(json_object_get(other, "protocol"));

			again |= j < i && strcmp(name, json_string_value(json_object_get(other, "name"))) == 0 &&
				 strcmp(protocol ? protocol : "TCP", its ? its : "TCP") == 0;
		}
		if (again || number < 1 || number > 65535)
			continue;
		write_item(out, '{');
		write_text(out, "name", name);
		write_text(out, "protocol", protocol ? protocol : "TCP");
		write_number(out, "port", (uint64_t)number);
		buffer_add_char(out, '}');
	}
	buffer_add_char(out, ']');
}

/* What is no rate is as good as none: the Pod runs, and whoever wrote it can read why it has no limit. */
static char *pod_bandwidth(const struct kube_item *item, const json_t *metadata)
{
	static const char *const names[HD_DIRECTIONS] = {[HD_INGRESS] = "ingress", [HD_EGRESS] = "egress"};
	json_t *bandwidth = json_object();
	char *ret;

	for (int direction = 0; direction < HD_DIRECTIONS; direction++) {
		const char *key = bandwidth_annotations[direction];
		const json_t *value = json_object_get(json_object_get(metadata, "annotations"), key);
		const char *text = json_string_value(value);
		uint64_t rate;

		if (!value)
			continue;
		if (!text || !document_quantity(text, &rate) || rate < PORT_RATE_MIN || rate > PORT_RATE_MAX)
			log_warn(0,
				"Pod %s/%s has no limit by its annotation %s: want bits a second from 1k to 4T, such as 10M, got "
				"%.64s",
				item->namespace_, item->name, key, text ? text : "something else");
		else
			json_object_set_new(bandwidth, names[direction], json_pack("{s:s}", "rate", text));
	}
	ret = json_object_size(bandwidth) ? json_dumps(bandwidth, JSON_COMPACT) : NULL;
	json_decref(bandwidth);
	return ret;
}

static int take_pod(struct kubernetes *k, struct kube_item *item, const json_t *object)
{
	const json_t *metadata = json_object_get(object, "metadata"), *spec = json_object_get(object, "spec");
	const json_t *status = json_object_get(object, "status"), *ips = json_object_get(status, "podIPs");
	const char *node = json_string_value(json_object_get(spec, "nodeName"));
	struct buffer ports = {0};
	struct kube_pod pod = {
		.host_network = json_object_get(spec, "hostNetwork") != NULL,
		.finished = json_object_get(status, "phase") != NULL,
		.leaving = json_object_get(metadata, "deletionTimestamp") != NULL,
	};
	json_t *ip;
	size_t i;

	leave_host(k, item);
	pod.labels = json_dumps(json_object_get(metadata, "labels"), JSON_COMPACT);
	write_pod_ports(&ports, json_object_get(json_array_get(json_object_get(spec, "containers"), 0), "ports"));
	pod.ports = ports.data;
	pod.bandwidth = pod_bandwidth(item, metadata);
	if (json_array_size(ips))
		pod.addresses = calloc(json_array_size(ips), sizeof(*pod.addresses));
	json_array_foreach (ips, i, ip) {
		const char *text = json_string_value(json_object_get(ip, "ip"));

		if (pod.addresses && text && addr_parse(text, &pod.addresses[pod.n_addresses]) == 0)
			pod.n_addresses++;
	}
	item->pod = pod;
	if (node && *node) {
		struct kube_host *host = kube_host(k, node, true);

		if (!host)
			return -ENOMEM;
		join_host(k, item, host);
	}
	return ports.failed ? -ENOMEM : 0;
}

static int take_node(struct kubernetes *k, struct kube_item *item)
{
	struct kube_host *host = kube_host(k, item->name, true);

	if (!host)
		return -ENOMEM;
	host->node = item;
	host->dirty = true;
	return 0;
}

static int take_object(struct kube_item *item, const char *text)
{
	_cleanup_object_list_ struct object_list list = {0};
	_cleanup_diag_ struct diag diag = {0};
	int r = decode_documents(NULL, text, strlen(text), &list, &diag);

	if (r == -ENOMEM)
		return r;
	item->bad = r < 0 || list.n != 1;
	item->refused = false;
	if (item->bad) {
		log_warn(0, "%s %s%s%s of the cluster %s: %s", kube_kinds[item->kind].name, item->namespace_,
			*item->namespace_ ? "/" : "", item->name, item->object ? "stays what it was" : "is left out",
			diag.text ? diag.text : "want one object");
		return 0;
	}
	object_unref(item->object);
	item->object = object_ref(list.items[0]);
	return 0;
}

int kube_parse(const char *text, size_t length, json_t **ret)
{
	json_error_t error;

	*ret = json_loadb(text, length, 0, &error);
	return json_is_object(*ret) ? 0 : (json_decref(*ret), *ret = NULL, -EBADMSG);
}

int kube_remake(json_t *document, const char *what, struct object **ret)
{
	_cleanup_object_list_ struct object_list list = {0};
	_cleanup_diag_ struct diag diag = {0};
	_cleanup_free_ char *text = document ? json_dumps(document, JSON_COMPACT) : NULL;
	int r;

	json_decref(document);
	if (!text)
		return -ENOMEM;
	r = decode_documents(NULL, text, strlen(text), &list, &diag);
	if (r == -EINVAL) {
		log_warn(0, "%s: %s", what, diag.text ? diag.text : "it cannot be decoded");
		return 0;
	}
	if (r == 0)
		*ret = object_ref(list.items[0]);
	return r;
}

/* "" for no namespace. */
static bool take_key(enum kube_kind kind, const json_t *object, const char **namespace_, const char **name, uint64_t *version)
{
	const json_t *metadata = json_object_get(object, "metadata"), *own = json_object_get(object, "kind");
	const char *text = json_string_value(json_object_get(metadata, "resourceVersion"));
	char *end;

	*name = json_string_value(json_object_get(metadata, "name"));
	*namespace_ = json_string_value(json_object_get(metadata, "namespace"));
	if (!*namespace_)
		*namespace_ = "";
	*version = text ? strtoull(text, &end, 10) : 0;
	if (text && *end)
		*version = 0;
	return *name && **name && (!own || (json_is_string(own) && strcmp(json_string_value(own), kube_kinds[kind].name) == 0));
}

int kube_put(struct kubernetes *k, enum kube_kind kind, const json_t *object)
{
	const char *namespace_, *name;
	struct kube_item *item;
	uint64_t version;
	json_t *reduced;
	char *text;
	int r;

	if (!take_key(kind, object, &namespace_, &name, &version))
		return -EBADMSG;
	reduced = reduce(k, kind, object);
	text = reduced ? json_dumps(reduced, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
	item = kube_find(k, kind, namespace_, name);
	if (!item && text)
		item = add_item(k, kind, namespace_, name);
	if (!item || !text) {
		free(text);
		json_decref(reduced);
		return -ENOMEM;
	}
	item->version = version;
	item->round = k->streams[kind].round;
	if (item->text && strcmp(item->text, text) == 0) {
		free(text);
		json_decref(reduced);
		return 0;
	}
	free(item->text);
	item->text = text;
	item->order = ++k->order;
	switch (kind) {
	case KUBE_POD:
		r = take_pod(k, item, reduced);
		break;
	case KUBE_NODE:
		r = take_node(k, item);
		break;
	case KUBE_SERVICE_CIDR:
		kube_forget_services(k);
		r = 0;
		break;
	default:
		r = take_object(item, text);
	}
	json_decref(reduced);
	return r < 0 ? r : 1;
}

int kube_delete(struct kubernetes *k, enum kube_kind kind, const json_t *object)
{
	const char *namespace_, *name;
	struct kube_item *item;
	uint64_t version;

	if (!take_key(kind, object, &namespace_, &name, &version))
		return -EBADMSG;
	item = kube_find(k, kind, namespace_, name);
	if (!item)
		return 0;
	free_item(k, item);
	return 1;
}

void kube_sweep(struct kubernetes *k, enum kube_kind kind, uint32_t round)
{
	for (struct kube_item *item = k->first[kind], *next; item; item = next) {
		next = item->next;
		if (item->round != round)
			free_item(k, item);
	}
}

void kube_cache_clear(struct kubernetes *k)
{
	kube_forget_services(k);
	kube_forget_host(k);
	for (size_t i = 0; i < KUBERNETES_KINDS; i++)
		while (k->first[i])
			free_item(k, k->first[i]);
	for (size_t i = 0; i < KUBE_HOST_BUCKETS; i++) {
		for (struct kube_host *host = k->hosts[i], *next; host; host = next) {
			next = host->next;
			object_unref(host->peer);
			free(host);
		}
		k->hosts[i] = NULL;
	}
	free(k->buckets);
	k->buckets = NULL;
	k->n_buckets = 0;
}

/* --- on disk: a line each, the server's name at the head, a mark at the end --- */

int kubernetes_save(struct kubernetes *k, const char *state_dir)
{
	_cleanup_buffer_ struct buffer out = {0};
	_cleanup_close_ int dir = -1;

	if (!k->live)
		return 0;
	buffer_printf(&out, STATE_HEAD "%s\n", k->config.server);
	for (size_t i = 0; i < KUBERNETES_KINDS; i++) {
		for (const struct kube_item *item = k->first[i]; item; item = item->next) {
			buffer_add_string(&out, item->text);
			buffer_add_char(&out, '\n');
		}
	}
	buffer_add_string(&out, STATE_END);
	if (out.failed)
		return -ENOMEM;
	dir = open(state_dir, O_DIRECTORY | O_PATH | O_CLOEXEC);
	return dir < 0 ? -errno : file_write_fleeting(dir, STATE_NAME, out.data, out.length, 0600);
}

static int load_line(struct kubernetes *k, const char *line, size_t length)
{
	json_t *object;
	const char *kind;
	int r = kube_parse(line, length, &object);

	if (r < 0)
		return r;
	kind = json_string_value(json_object_get(object, "kind"));
	r = -EBADMSG;
	for (size_t i = 0; i < KUBERNETES_KINDS && kind; i++)
		if (strcmp(kube_kinds[i].name, kind) == 0)
			r = kube_put(k, (enum kube_kind)i, object);
	json_decref(object);
	return r;
}

int kubernetes_load(struct kubernetes *k, const char *state_dir)
{
	_cleanup_free_ char *text = NULL, *head = NULL;
	_cleanup_close_ int dir = open(state_dir, O_DIRECTORY | O_PATH | O_CLOEXEC);
	size_t length, head_length, end = strlen(STATE_END);
	int r;

	if (dir < 0)
		return -errno;
	r = file_read(dir, STATE_NAME, STATE_MAX, &text, &length, NULL);
	if (r < 0)
		return r;
	if (asprintf(&head, STATE_HEAD "%s\n", k->config.server) < 0) {
		head = NULL;
		return -ENOMEM;
	}
	head_length = strlen(head);
	if (length < head_length + end || memcmp(text, head, head_length) != 0)
		return -ENOENT;
	if (memcmp(text + length - end, STATE_END, end) != 0)
		return -EBADMSG;
	for (char *line = text + head_length, *last = text + length - end, *next; line < last && r >= 0; line = next) {
		next = memchr(line, '\n', (size_t)(last - line));
		if (!next)
			return -EBADMSG;
		r = load_line(k, line, (size_t)(next++ - line));
	}
	if (r < 0) {
		kube_cache_clear(k);
		return r;
	}
	k->live = true;
	return 0;
}
