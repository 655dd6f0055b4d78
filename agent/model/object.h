/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Typed documents. A decoded object is immutable and reference counted; everything it points to lives in its own arena and
 * goes with it. Strings are NUL-terminated UTF-8. Keep it small: 100,000 rules must fit in a few MiB.
 */
#ifndef HEDDLE_MODEL_OBJECT_H
#define HEDDLE_MODEL_OBJECT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <heddle/types.h>

/* X(SYMBOL, "Kind", "apiVersion", namespaced): the order of lists. */
#define OBJECT_KINDS(X) \
	X(HOST, "Host", "heddle.dev/v1alpha1", false) \
	X(NETWORK, "Network", "heddle.dev/v1alpha1", false) \
	X(PORT, "Port", "heddle.dev/v1alpha1", true) \
	X(PEER, "Peer", "heddle.dev/v1alpha1", false) \
	X(NAMESPACE, "Namespace", "v1", false) \
	X(ADDRESS_GROUP, "AddressGroup", "heddle.dev/v1alpha1", false) \
	X(HOST_POLICY, "HostPolicy", "heddle.dev/v1alpha1", false) \
	X(NETWORK_POLICY, "NetworkPolicy", "networking.k8s.io/v1", true) \
	X(ADMIN_NETWORK_POLICY, "AdminNetworkPolicy", "policy.networking.k8s.io/v1alpha1", false) \
	X(BASELINE_ADMIN_NETWORK_POLICY, "BaselineAdminNetworkPolicy", "policy.networking.k8s.io/v1alpha1", false) \
	X(CLUSTER_NETWORK_POLICY, "ClusterNetworkPolicy", "policy.networking.k8s.io/v1alpha2", false) \
	X(FAST_PATH, "FastPath", "heddle.dev/v1alpha1", false)
#define OBJECT_KIND_ENUM(sym, name, version, namespaced) OBJECT_##sym,
enum object_kind { OBJECT_KINDS(OBJECT_KIND_ENUM) OBJECT_KIND_COUNT };
#undef OBJECT_KIND_ENUM

/* An address block: IPv4 is mapped, so its length is 96..128. Host bits are zero after decoding. */
struct prefix {
	struct hd_addr addr;
	uint8_t length; /* bits, 0..128; ::/0 and ::ffff:0:0/96 (0.0.0.0/0) are distinct and do not cover each other */
};
static_assert(sizeof(struct prefix) == 20 || sizeof(struct prefix) == 24, "prefix");

/* One `from`/`to` item: a block with exceptions, or a group by name. */
struct peer {
	union {
		struct prefix prefix;
		struct {
			uint8_t behind_prefix[20]; /* prefix ends with padding: the count lies in it */
			uint32_t n_except;	   /* set it after prefix */
		};
	};
	const struct prefix *except;
	const char *group; /* NULL: prefix counts */
};
static_assert(sizeof(struct peer) == 40 && offsetof(struct prefix, length) < 20, "peer");

/* Destination (or source) ports of one protocol, host byte order. No port given: 0..65535 and any_port set. */
struct port_range {
	uint8_t protocol; /* IPPROTO_TCP, IPPROTO_UDP, IPPROTO_SCTP, or any other protocol number (then no ports) */
	bool any_port;
	uint16_t first, last;
};

struct icmp_match {
	uint8_t protocol;	       /* IPPROTO_ICMP or IPPROTO_ICMPV6 */
	uint8_t type_first, type_last; /* 0..255: no type given */
	uint8_t code_first, code_last;
};

/* Rarely used parts of a rule. */
struct rule_extra {
	const struct port_range *source_ports; /* protocol 0: of whatever protocol the rule's ports name */
	const struct icmp_match *icmp;
	uint32_t n_source_ports, n_icmp;
};

struct rule {
	const char *name;		/* NULL: none */
	const struct peer *peers;	/* n_peers 0: any */
	const struct port_range *ports; /* n_ports and n_icmp 0: any protocol */
	const struct rule_extra *extra; /* NULL: none */
	uint32_t line : 29;		/* where it stands in the origin's file; from 1 */
	uint32_t verdict : 2;		/* enum hd_verdict: HD_ALLOW, HD_DENY, HD_REJECT */
	uint32_t log : 1;
	uint32_t n_peers : 20; /* the decoder refuses more: an AddressGroup holds any number */
	uint32_t n_ports : 12;
};
#define RULE_LINE_MAX ((1u << 29) - 1)
#define RULE_PEERS_MAX ((1u << 20) - 1)
#define RULE_PORTS_MAX ((1u << 12) - 1)
static_assert(sizeof(struct rule) == 40, "rule");

enum xdp_mode { XDP_MODE_AUTO, XDP_MODE_NATIVE, XDP_MODE_GENERIC, XDP_MODE_OFF };

struct uplink {
	const char *device;
	enum xdp_mode xdp;
};

/* Host.spec.timeouts, in milliseconds (durations are written like 8h, 60s, 500ms, 1h30m). */
struct host_timeouts {
	uint32_t tcp_established, tcp_syn, tcp_fin, udp, udp_stream, icmp, other;
};

/* Which program takes the headers of the tunnel off. */
enum tunnel_decapsulation { TUNNEL_DECAPSULATE_AUTO, TUNNEL_DECAPSULATE_XDP, TUNNEL_DECAPSULATE_TC };

/* Host.spec.sriov: a PF, and what it shall be like before its VFs are used. */
enum sriov_eswitch { SRIOV_ESWITCH_ANY, SRIOV_ESWITCH_LEGACY, SRIOV_ESWITCH_SWITCHDEV };
struct sriov_wish {
	const char *device;
	uint32_t vfs;
	bool has_vfs;
	enum sriov_eswitch eswitch;
};

/* The outer UDP checksum of what is sent. */
enum tunnel_checksum { TUNNEL_CHECKSUM_ZERO, TUNNEL_CHECKSUM_FULL };

struct host {
	struct uplink *uplinks;
	size_t n_uplinks;
	struct port_range *failsafe; /* ingress */
	size_t n_failsafe;
	bool forward_judge;
	bool offload; /* flows go to NICs that forward them by themselves */
	struct host_timeouts timeouts;
	uint32_t pickup_seconds;
	/* tunnel: this end of the overlay */
	bool has_tunnel, tunnel_geneve;
	struct hd_addr tunnel_address;
	struct hd_addr *addresses; /* others of this host, by which policies know it */
	size_t n_addresses;
	uint16_t tunnel_port;
	uint8_t tunnel_ttl; /* outer TTL or hop limit */
	enum tunnel_decapsulation tunnel_decapsulate;
	enum tunnel_checksum tunnel_checksum;
	/* limits of the tables (Host.spec.limits); 0: the default */
	uint32_t limit_flows, limit_flows_new, limit_flows_other, limit_rules;
	/* Host.spec.log: {every, eventsPerSecond, rejectsPerSecond} */
	uint32_t log_every, event_rate, reject_rate;
	const char *kubernetes_network; /* that Pods are in; NULL: the default */
	struct sriov_wish *sriov;
	size_t n_sriov;
};
#define HOST_LOG_EVERY 1
#define HOST_EVENT_RATE 100
#define HOST_REJECT_RATE 100

struct address_group {
	struct prefix *cidrs;
	size_t n_cidrs;
};

struct host_policy {
	uint32_t priority;
	bool audit;	      /* what its rules would drop is logged and let through */
	const char **uplinks; /* n_uplinks 0: all declared */
	size_t n_uplinks;
	const char **groups; /* the AddressGroups that rules name, each once */
	size_t n_groups;
	struct rule *rules[HD_DIRECTIONS]; /* through object_rules() only: NULL while they are packed */
	size_t n_rules[HD_DIRECTIONS];
	int default_verdict[HD_DIRECTIONS]; /* enum hd_verdict; -1: not set */
};

/* --- networks and ports --- */

/* What the host does with packets from the network's subnets that leave for elsewhere. */
struct masquerade {
	enum { MASQUERADE_DEFAULT, MASQUERADE_ON, MASQUERADE_OFF } mode; /* by default: on, of a cluster's network */
	struct prefix *exclude;						 /* destinations */
	size_t n_exclude;
};

struct network {
	uint32_t vni;  /* 0: none */
	uint16_t vlan; /* on the uplinks; 0: none */
	bool l3;       /* routed by address only; else switched by MAC too */
	bool learning;
	bool peer_learning; /* MACs behind peers */
	struct prefix *subnets;
	size_t n_subnets;
	struct hd_addr *gateways;
	size_t n_gateways;
	const char **routes_to; /* names of networks; "host" is network 0, the host's own */
	size_t n_routes_to;
	uint32_t mtu; /* 0: auto */
	struct masquerade masquerade;
	struct prefix *services; /* addresses that the host's stack turns into others (ClusterIPs) */
	size_t n_services;
	bool services_said; /* else a cluster may say them */
};
#define NETWORK_HOST "host" /* no document may have this name */
bool network_routes_to_host(const struct network *network);
bool host_has_uplink(const struct host *host, const char *device);

enum port_vlan_mode { PORT_VLAN_NONE, PORT_VLAN_ACCESS, PORT_VLAN_TRUNK, PORT_VLAN_QINQ };

struct vlan_range {
	uint16_t first, last;
};

struct named_port {
	const char *name;
	uint16_t port;	  /* host byte order */
	uint8_t protocol; /* IPPROTO_TCP, IPPROTO_UDP, IPPROTO_SCTP */
};

/* What the NIC shall do with a VF (Port.spec.vf); set through its PF. */
enum port_vf_knob { PORT_VF_MAC, PORT_VF_VLAN, PORT_VF_RATE, PORT_VF_SPOOF_CHECK, PORT_VF_TRUST, PORT_VF_LINK_STATE };
struct port_vf {
	uint32_t has; /* bits of enum port_vf_knob */
	uint8_t mac[6];
	uint16_t vlan;		     /* 0: none */
	uint32_t min_rate, max_rate; /* Mbit/s; 0: none */
	uint8_t qos;
	uint8_t link_state;	    /* 0 auto, 1 enable, 2 disable */
	uint8_t spoof_check, trust; /* 0 or 1 */
};
static_assert(sizeof(struct port_vf) == 24, "port_vf");

/* A port of the host's that leads to one of the workload's. */
struct host_port {
	struct hd_addr address; /* the host's */
	bool has_address, any;	/* any: no one address in particular */
	bool ipv4, ipv6;	/* of which families */
	uint16_t host_port, port;
	uint8_t protocol; /* as of named_port */
};
/* Both would have the same port of an address. */
bool host_ports_overlap(const struct host_port *a, const struct host_port *b);

/* What may go over a port in one direction. */
struct port_limit {
	uint64_t rate;	/* bit/s, whole kbit/s; 0: no limit */
	uint64_t burst; /* bits that may go ahead of it; 0: the default */
};
#define PORT_RATE_MIN UINT64_C(1000)
#define PORT_RATE_MAX UINT64_C(4000000000000)
#define PORT_BURST_MAX UINT64_C(1000000000000000)
#define PORT_BURST_MS 400 /* of the rate: the default */

struct port {
	const char *device; /* NULL: vf or pci */
	const char *vf_pf;
	uint32_t vf_index;
	const struct port_vf *vf; /* with vf_pf or pci; NULL: as it is */
	const char *pci;
	const char *network;
	uint8_t mac[6];
	bool has_mac; /* else: whatever the device's peer has */
	struct hd_addr *addresses;
	size_t n_addresses;
	enum port_vlan_mode vlan_mode;
	uint16_t vlan_id;     /* access */
	uint16_t vlan_native; /* trunk; 0: none */
	struct vlan_range *vlan_allowed;
	size_t n_vlan_allowed;
	struct named_port *ports;
	size_t n_ports;
	struct host_port *host_ports;
	size_t n_host_ports;
	struct port_limit limit[HD_DIRECTIONS]; /* ingress is to the workload, egress from it */
};
/* Where ports of the host lead in this family; NULL: it has no such address. */
const struct hd_addr *host_port_target(const struct port *port, bool ipv4);

/* --- other hosts --- */

/* A label or an annotation. */
struct label {
	const char *key, *value;
};

/* A workload of another host: what its Port document says there, as far as it matters here. */
struct peer_port {
	const char *name, *namespace_, *network;
	uint8_t mac[6];
	bool has_mac; /* else its frames are found by learning, and routed ones go to the gateway's MAC */
	struct hd_addr *addresses;
	const struct label *labels; /* in the order of their keys */
	const struct named_port *ports;
	size_t n_addresses, n_labels, n_ports;
	uint32_t line; /* where it stands in the origin's file */
};

/* Addresses that are behind another host, without a workload's labels. */
struct peer_prefix {
	const char *network;
	struct prefix cidr;
	uint8_t mac[6];
	bool has_mac; /* of the router there; else the gateway's, which every host of ours answers to */
	uint32_t line;
};

/* A Peer: another host's tunnel endpoint, and what it owns. */
struct tunnel_peer {
	struct hd_addr address;
	struct hd_addr *host_addresses; /* others of that host, which its own stack sends from */
	struct peer_port *ports;
	struct peer_prefix *prefixes;
	size_t n_host_addresses, n_ports, n_prefixes;
};

/* --- packets for user space --- */

/* What is 0, NULL or of length 0 is not asked about. */
struct fast_match {
	struct prefix source, destination;
	const char *policy; /* a HostPolicy, one of whose ingress rules let the packet in; */
	const char *rule;   /* the one of this name, NULL: any */
	uint16_t port, source_port;
	uint16_t vlan;
	uint8_t protocol;
	uint32_t line;
};

enum fast_path_consumer { FAST_PATH_SOCKET, FAST_PATH_FORWARD };
/* Who takes frames to the device that they leave by: workers, XDP where the device takes them from it, or XDP there and workers else. */
enum fast_path_way { FAST_PATH_WORKERS, FAST_PATH_REDIRECT, FAST_PATH_AUTO };

struct fast_path {
	const char *uplink; /* device; NULL: of a port, or of devices */
	const char *port, *port_namespace;
	const uint16_t *queues; /* n_queues 0: all that the device has */
	size_t n_queues;
	const struct fast_match *matches; /* of uplinks: at least one */
	size_t n_matches;
	const uint32_t *users, *groups; /* who may connect, beside root */
	size_t n_users, n_groups;
	enum fast_path_consumer consumer;
	bool drop;    /* what nobody takes; else it goes on to the kernel */
	bool copy;    /* zero-copy is not tried */
	bool trusted; /* the uplink's consumer may send, and see all that its queues bring */
	uint32_t frames, frame_size, ring;
	uint32_t busy_us, busy_budget; /* 0: no busy polling */
	uint32_t stall_ms;
	/* of FAST_PATH_FORWARD */
	const char *const *devices; /* uplinks, two at least; NULL: of a socket */
	size_t n_devices;
	const uint32_t *cpus; /* one for each worker; n_cpus 0: any */
	size_t n_cpus;
	uint32_t workers, batch;
	enum fast_path_way way;
	bool spin;    /* workers never sleep */
	bool latency; /* each frame's time on the way is measured */
};
#define FAST_PATH_DEVICES_MOST 16
#define FAST_PATH_WORKERS_MOST 16
#define FAST_PATH_BATCH_MOST 256
#define FAST_PATH_BATCH 64
#define FAST_PATH_QUEUES_MOST 64
#define FAST_PATH_MATCHES_MOST 1024
#define FAST_PATH_NAME_MOST 63
#define FAST_PATH_FRAMES 4096
#define FAST_PATH_FRAME_SIZE 2048
#define FAST_PATH_RING 1024
#define FAST_PATH_STALL_MS 5000

/* --- Kubernetes' policies --- */

enum selector_operator { SELECTOR_IN, SELECTOR_NOT_IN, SELECTOR_EXISTS, SELECTOR_DOES_NOT_EXIST };

/* One line of matchExpressions, or of matchLabels (IN with one value). */
struct requirement {
	const char *key;
	const char **values; /* sorted */
	uint32_t n_values;
	enum selector_operator operator;
};

/* A LabelSelector: all requirements hold. present and none: everything. Not present: what that means is said where it is used. */
struct selector {
	const struct requirement *items; /* sorted by key, operator, values */
	size_t n;
	bool present;
};
/* labels: in the order of their keys, as objects have them. A selector that is not present matches everything. */
bool selector_matches(const struct selector *selector, const struct label *labels, size_t n_labels);

enum policy_peer_kind {
	POLICY_PEER_PODS, /* namespaces and pods below. In a NetworkPolicy, namespaces not present: the policy's own namespace */
	POLICY_PEER_NETWORKS, /* blocks: ipBlock (then one, with except) or networks of the cluster-wide kinds */
	POLICY_PEER_NODES,    /* nodes below: hosts, selected by their labels */
};
struct policy_peer {
	enum policy_peer_kind kind;
	struct selector namespaces, pods, nodes; /* pods not present: all pods of the namespaces */
	const struct prefix *blocks, *except;
	size_t n_blocks, n_except;
};

struct policy_port {
	const char *name;	 /* a named port of the destination; NULL: range counts */
	struct port_range range; /* with a name: protocol only, 0: whatever the named port has */
};

enum policy_action { POLICY_ALLOW, POLICY_DENY, POLICY_PASS };

struct policy_rule {
	const char *name; /* NULL: none */
	enum policy_action action;
	uint32_t line;
	const struct policy_peer *peers; /* n_peers 0: any */
	size_t n_peers;
	const struct policy_port *ports; /* n_ports 0: any */
	size_t n_ports;
};

/* NetworkPolicy, and the three cluster-wide kinds. */
struct workload_policy {
	/* subject. NetworkPolicy: pods of its namespace, namespaces not present. Others: namespaces, and pods if present. */
	struct selector namespaces, pods;
	bool applies[HD_DIRECTIONS]; /* NetworkPolicy: policyTypes, or what follows from the rules; others: always both */
	bool baseline;		     /* BaselineAdminNetworkPolicy, ClusterNetworkPolicy of tier Baseline */
	bool audit;		     /* annotation heddle.dev/audit: "true": what it would drop is logged and let through */
	uint32_t priority;	     /* lower is judged first; NetworkPolicy and BaselineAdminNetworkPolicy: 0 */
	struct policy_rule *rules[HD_DIRECTIONS];
	size_t n_rules[HD_DIRECTIONS];
};

struct arena;

struct object {
	unsigned refs;
	enum object_kind kind;
	const char *name;
	const char *namespace_; /* NULL for cluster-scoped kinds: all three of these */
	const char *file;	/* NULL: applied through the API */
	uint32_t line;		/* of the document's first line */
	uint32_t n_labels, n_annotations;
	const struct label *labels, *annotations; /* in the order of their keys */
	uint64_t hash;				  /* of the content; origin and line numbers excluded */
	struct arena *arena;
	struct arena *rules_arena;   /* of a HostPolicy's rules; NULL: they are packed */
	struct packed_rules *packed; /* kept once made */
	union {
		struct host host;
		struct address_group group;
		struct host_policy policy;
		struct network network;
		struct port port;
		struct tunnel_peer tunnel_peer;
		struct workload_policy workload;
		struct fast_path fast_path;
	};
};

const char *object_kind_name(enum object_kind kind);
const char *object_kind_version(enum object_kind kind); /* its apiVersion */
bool object_kind_namespaced(enum object_kind kind);
#define OBJECT_NAMESPACE_DEFAULT "default"
/* Accepts the kind's name in any case, its plural and kubectl's short names. -1: unknown. */
int object_kind_from_name(const char *name);

/* -1, 0, 1: the order of (kind, namespace, name), by which lists are sorted. */
int object_compare(const struct object *a, const struct object *b);
/* The same content, wherever it came from. */
bool object_equal(const struct object *a, const struct object *b);
/* The namespace an object of the kind is in when none is named, and NULL for cluster-scoped kinds whatever is named. */
const char *object_kind_namespace(enum object_kind kind, const char *namespace_);

/* "HostPolicy web" or "Port default/web-1", for messages. Returns text. */
#define OBJECT_TITLE_MAX 600
char *object_title(enum object_kind kind, const char *namespace_, const char *name, char text[OBJECT_TITLE_MAX]);

/*
 * The rules of a HostPolicy. They take 90 bytes each as structs and 20 packed: after a change, and after answers that needed
 * them, object_list_pack() lets the structs go; object_rules() brings them back. Every pointer into rules, and the names and
 * peers they lead to, is good until the next object_pack().
 */
const struct rule *object_rules(const struct object *object, enum hd_direction direction);
void object_pack(struct object *object); /* other kinds: nothing. Without memory they stay as they are. */

/* What a rule is called and where it stands, without unpacking the policy. name lives as long as the object. */
struct rule_head {
	const char *name; /* NULL: none */
	uint32_t line;
	uint8_t verdict;
	bool log;
};
int object_rule_head(
	const struct object *object, enum hd_direction direction, uint32_t index, struct rule_head *ret); /* -ENOENT */

struct object *object_ref(struct object *object);
void object_unref(struct object *object); /* NULL is fine */

/* A growing list of references. */
struct object_list {
	struct object **items;
	size_t n;
};
void object_list_clear(struct object_list *list);
int object_list_add(struct object_list *list, struct object *object); /* takes its own reference; -ENOMEM */
void object_list_pack(const struct object_list *list);
void object_list_sort(struct object_list *list);
/* By binary search in a sorted list; NULL: not there. */
struct object *object_list_find(const struct object_list *list, enum object_kind kind, const char *namespace_, const char *name);
#define _cleanup_object_list_ __attribute__((cleanup(object_list_clear)))

#endif
