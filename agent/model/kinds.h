/* SPDX-License-Identifier: Apache-2.0 */
/* The tables of the kinds, shared between the files that hold them. */
#ifndef HEDDLE_MODEL_KINDS_H
#define HEDDLE_MODEL_KINDS_H

#include <model/schema.h>

/* spec of each kind; *out is the object's union member. */
extern const struct schema host_spec_schema, group_spec_schema, policy_spec_schema, network_spec_schema, port_spec_schema,
	peer_spec_schema;
extern const struct schema network_policy_spec_schema, admin_policy_spec_schema, baseline_policy_spec_schema,
	cluster_policy_spec_schema, fast_path_spec_schema;

/* metadata of a kind; type: its enum object_kind, *out: the object. */
bool value_metadata(struct decoder *d, const struct path *path, node_id node, const void *type, void *out);
/* The annotation heddle.dev/audit, of which value_metadata() has seen that it is right. */
bool metadata_audit(const struct object *object);
/* Kinds whose schema is Kubernetes'. */
bool kind_is_kubernetes(enum object_kind kind);

/* --- values that several kinds have (values.c) --- */

extern const struct text_type subdomain_text; /* metadata.name, references to objects */
extern const struct text_type device_text;    /* an interface's name */
extern const struct text_type rule_name_text;
extern const struct text_type namespace_text; /* one label of a DNS name */
extern const struct text_type label_key_text, label_value_text;
extern const struct text_type port_name_text; /* IANA_SVC_NAME, RFC 6335 section 5.1 */

bool value_address(struct decoder *d, const struct path *path, node_id node, const void *type, void *out); /* struct hd_addr */
/* struct prefix; type non-NULL: host bits are cleared, as Kubernetes does. */
bool value_cidr(struct decoder *d, const struct path *path, node_id node, const void *type, void *out);
extern const char clear_host_bits[];
bool value_device(struct decoder *d, const struct path *path, node_id node, const void *type, void *out); /* const char * */
/* The same, but none of the devices that the agent makes for itself. */
bool value_guarded_device(struct decoder *d, const struct path *path, node_id node, const void *type, void *out);
bool value_selector(struct decoder *d, const struct path *path, node_id node, const void *type, void *out); /* struct selector */
/* TCP, UDP or SCTP by name; *out: uint8_t, the number. */
bool value_transport(struct decoder *d, const struct path *path, node_id node, const void *type, void *out);
/* metadata.labels; type non-NULL: annotations. *out: struct list of struct label, sorted. */
bool value_labels(struct decoder *d, const struct path *path, node_id node, const void *type, void *out);

/* {protocol, port, endPort} → struct port_range. */
enum port_use {
	PORT_DESTINATION, /* rule.ports: all of a protocol without port */
	PORT_SOURCE,	  /* rule.sourcePorts: protocol 0 without one; a port is required */
	PORT_FAILSAFE,	  /* a port is required where the protocol has them */
};
extern const struct schema port_schemas[]; /* by enum port_use */

/* "TCP", …; NULL: write the number. */
const char *document_protocol_name(uint8_t protocol);
bool document_protocol_has_ports(uint8_t protocol);
/* Can be one host's own: not unspecified, loopback, multicast or broadcast. */
bool document_address_is_unicast(const struct hd_addr *addr);
/* An end of a tunnel: unicast, and not a link-local one of IPv6, which would need a device beside it. */
bool document_address_of_tunnel(const struct hd_addr *addr);
extern const struct list_type host_address_list; /* of a Host or a Peer, beside that of its tunnel */
#define HOST_ADDRESSES_MOST 64
bool document_prefix_of_hosts(const struct prefix *prefix); /* false: all of it is of groups, loopback, link-local or nobody's */
/* The subnet that the address lies in; NULL: none. */
const struct prefix *document_subnet(const struct prefix *subnets, size_t n, const struct hd_addr *addr);
/* Unicast, and neither the number of the IPv4 subnet nor its broadcast address. */
bool document_address_of_host(const struct hd_addr *addr, const struct prefix *subnet);

extern const struct range vlan_range;

/* --- addresses that the host changes (nat.c) --- */

extern const struct schema masquerade_schema; /* struct masquerade */
bool value_host_ports(struct decoder *d, const struct path *path, node_id node, const void *type, void *out); /* struct list */
/* Each leads somewhere. node: the Port's spec. */
bool check_host_ports(struct decoder *d, const struct path *path, node_id node, const struct port *port);

/* 10M, 1.5G, 512Ki: as Kubernetes writes quantities; false: anything else, or no whole number. */
bool document_quantity(const char *text, uint64_t *ret);

/* --- what a workload has, here or behind a peer (port.c) --- */

struct mac {
	uint8_t octets[6];
	bool given;
};
bool value_mac(struct decoder *d, const struct path *path, node_id node, const void *type, void *out); /* struct mac */
/* The same, and not the gateway's. */
bool value_station_mac(struct decoder *d, const struct path *path, node_id node, const void *type, void *out);
/* Unicast addresses, each once. *out: struct list of struct hd_addr. */
bool value_workload_addresses(struct decoder *d, const struct path *path, node_id node, const void *type, void *out);
/* *out: struct list of struct named_port. */
bool value_named_ports(struct decoder *d, const struct path *path, node_id node, const void *type, void *out);

/* --- spec.vf of a Port (port_vf.c) --- */

struct port_vf_value {
	bool given;
	const char *pf; /* NULL: what is set is set on the VF at the Port's PCI address */
	uint32_t index;
	const struct port_vf *values; /* NULL: none is given */
};
extern const struct schema port_vf_schema;
extern const struct choice port_vf_link_states;

/* --- spec.sriov of a Host (host_sriov.c) --- */

extern const struct list_type sriov_list;
extern const struct choice sriov_eswitches; /* from SRIOV_ESWITCH_LEGACY on */

#endif
