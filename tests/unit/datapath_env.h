/* SPDX-License-Identifier: Apache-2.0 */
/* A network namespace, a mount namespace and a veth pair of the test's own; the far end lives in a namespace behind a child. */
#ifndef HEDDLE_TESTS_DATAPATH_ENV_H
#define HEDDLE_TESTS_DATAPATH_ENV_H

#include <sys/types.h>

#include <datapath/datapath.h>

#define ENV_DEVICE "dpu0"
#define ENV_ADDRESS "10.99.1.1"
#define ENV_PEER_ADDRESS "10.99.1.2"

struct env {
	char directory[64]; /* removed at the end */
	char bpffs[96];
	pid_t peer; /* holds the far end's namespace */
	uint32_t ifindex;
	const char *tc; /* what the kernel has: "tcx" or "clsact" */
};

/* NULL, and the reason printed, where this cannot be had (not root, no BPF). */
struct env *env_new(void);
void env_free(struct env *env);
int env_run(const char *format, ...) __attribute__((format(printf, 1, 2))); /* a shell command; its exit status */
int env_make_link(struct env *env);					    /* the veth pair, up, with addresses */
int env_ping(const struct env *env);					    /* from the far end; 0: answered */
pid_t env_ping_on(
	const struct env *env, const char *interval); /* until it gets SIGINT; its exit status is then 0 or 1 as above */
unsigned env_programs(const struct env *env);	      /* on the device: XDP and TCX, whoever's they are */
unsigned env_count(const char *format, ...) __attribute__((format(printf, 1, 2))); /* a command's output as a number */

/* A policy that gives all traffic one verdict in both directions, as a delta made by hand. */
struct flat_policy {
	struct policy_delta delta;
	struct rule_node_write node;
	struct rule_write rule;
	struct uplink_policy uplink[2];
};
#define FLAT_RULE 64
void flat_policy(struct flat_policy *ret, uint32_t generation, enum hd_verdict ingress);
extern const struct datapath_sizes env_sizes;
extern const struct datapath_settings env_settings;
/* Load, write, publish, attach, go live. */
int env_start(struct env *env, struct datapath *dp, uint32_t generation, enum hd_verdict ingress, enum xdp_mode xdp);
int env_attach(struct env *env, struct datapath *dp, const struct flat_policy *policy, enum xdp_mode xdp);

#endif
