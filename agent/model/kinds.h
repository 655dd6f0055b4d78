/* SPDX-License-Identifier: Apache-2.0 */
/* The tables of the kinds, shared between the files that hold them. */
#ifndef HEDDLE_MODEL_KINDS_H
#define HEDDLE_MODEL_KINDS_H

#include <model/schema.h>

#define API_VERSION "heddle.dev/v1alpha1"

/* spec of each kind; *out is the object's union member. Host, AddressGroup, HostPolicy. */
extern const struct schema host_spec_schema, group_spec_schema, policy_spec_schema;

/* --- values that several kinds have (values.c) --- */

extern const struct text_type subdomain_text; /* metadata.name, references to objects */
extern const struct text_type device_text;    /* an interface's name */
extern const struct text_type rule_name_text;

bool value_address(struct decoder *d, const struct path *path, node_id node, const void *type, void *out); /* struct hd_addr */
bool value_cidr(struct decoder *d, const struct path *path, node_id node, const void *type, void *out);	   /* struct prefix */
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

#endif
