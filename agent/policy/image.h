/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A whole policy in memory: the tables as the maps would hold them after its first compilation, and what they make of a flow that is judged
 * again. For questions about a policy that is not in force; nothing here touches the one that is.
 */
#ifndef HEDDLE_POLICY_IMAGE_H
#define HEDDLE_POLICY_IMAGE_H

#include <net/if.h>

#include <policy/compile.h>

struct policy_image;

/*
 * Takes the compiler over, on failure too. delta: of its first round, which is open. host: as it was compiled; not kept. -ENOMEM.
 */
int policy_image_new(
	struct compiler *compiler, const struct policy_delta *delta, const struct host *host, struct policy_image **ret);
void policy_image_free(struct policy_image *image); /* NULL is fine */
static inline void policy_image_free_p(struct policy_image **image)
{
	policy_image_free(*image);
}
/* Nothing is to be judged any more: only compiler_rule() is still asked. */
void policy_image_drop_tables(struct policy_image *image);
const struct compiler *policy_image_compiler(const struct policy_image *image);

/* An uplink, or the device of a port. Good until the tables are dropped. NULL: neither, so nothing there is judged. */
struct image_device;
const struct image_device *policy_image_uplink(const struct policy_image *image, const char *device);
const struct image_device *policy_image_port(const struct policy_image *image, const char *device);

/* What a Port's device is called here. It is another than the kernel's where the document names a VF or a PCI address. */
void policy_image_name(const struct port *port, char ret[IF_NAMESIZE]);

/* A flow, from its opener's side. */
struct image_flow {
	struct hd_addr source, destination;
	uint16_t source_port, destination_port; /* host byte order */
	uint8_t protocol, family;
	bool between_ports; /* opener and target count; else the rest */
	/* over an uplink */
	bool forwarded;			   /* passes through the host unjudged, as long as that is what the Host says */
	bool left_elsewhere;		   /* also judged by the egress policy of the uplink it leaves by */
	enum hd_direction direction;	   /* in which it was opened */
	const struct image_device *uplink; /* of its first packet; NULL: not judged */
	/* between ports */
	bool from_node;				    /* opened by the host itself */
	bool has_opener, has_target;		    /* that end is a port; else the host, what is behind it, or behind a peer */
	const struct image_device *opener, *target; /* NULL with has_*: a port that is not there */
	uint16_t network[2];			    /* that it is routed between, in any order; else both 0 or the same */
};

struct image_verdict {
	uint8_t verdict;      /* enum hd_verdict; HD_DROP: one of its ports is not there */
	bool audit;	      /* it would be dropped, but for audit mode */
	uint32_t rule;	      /* that decided: HD_RULE_NONE where nothing is judged */
	uint32_t second_rule; /* of the target's ingress, where the opener's egress allows it by `rule`; 0: none */
};

/*
 * What becomes of the flow when it is judged again by this policy: the walk of the data plane. Where the uplink that it leaves by is not known
 * (left_elsewhere), that one's answer counts only if all others give it. -EINVAL: a broken table.
 */
int policy_image_judge(const struct policy_image *image, const struct image_flow *flow, struct image_verdict *ret);

#endif
