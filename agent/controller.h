/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent itself: sources → store → compiler → data plane, in one thread and one event loop. Everything that must not happen
 * twice at once (a change of the policy) is a function call here.
 */
#ifndef HEDDLE_CONTROLLER_H
#define HEDDLE_CONTROLLER_H

#include <stdbool.h>
#include <stddef.h>

struct controller_options {
	const char *const *config;
	size_t n_config;
	const char *run_dir, *state_dir, *bpffs;
	const char *metrics;	/* NULL: no TCP listener */
	bool kubernetes;	/* follow an API server */
	const char *kubeconfig; /* NULL: the in-cluster configuration */
	const char *node_name;	/* NULL: NODE_NAME, then the host's name */
	const char *node_ready; /* the taint to take off this node once it can serve; NULL: nothing is said at the server */
	const char *cni_config; /* a configuration list for the runtime, there while this node can serve; NULL: none */
	const char *cni_dir;	/* where the runtime looks for it */
};

/* Runs until SIGTERM or SIGINT, which leave the data plane as it is. 0 or a negative errno; logs what fails. */
int controller_run(const struct controller_options *options);
/* Decodes and compiles what is configured; touches nothing. Mistakes go to stderr. 0 or a negative errno. */
int controller_check(const struct controller_options *options);
/* Ends the agent of this run_dir if one runs, then removes its programs, links, maps and pins. */
int controller_detach(const struct controller_options *options);

#endif
