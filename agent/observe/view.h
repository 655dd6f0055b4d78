/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the agent lets others look at. The controller keeps one view up to date; everything in observe/ and the reading half
 * of api/ answers from it, that is from the live maps through `datapath`, never from a copy of its own.
 */
#ifndef HEDDLE_OBSERVE_VIEW_H
#define HEDDLE_OBSERVE_VIEW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <datapath/datapath.h>
#include <fastpath/forward.h>
#include <fastpath/server.h>
#include <model/object.h>
#include <netdev/netdev.h>
#include <netdev/sriov.h>
#include <netdev/tunnel_nic.h>
#include <netdev/tunnel_slow.h>
#include <netdev/tunnel_stack.h>
#include <netdev/tunnel_sum.h>
#include <netdev/underlay.h>
#include <offload/drops.h>
#include <offload/manager.h>
#include <policy/compile.h>
#include <policy/identities.h>
#include <policy/topology.h>
#include <source/kubernetes.h>

/* One of the devices between which XDP or workers move frames. */
struct view_fast_device {
	uint16_t index;		   /* of its counters */
	uint32_t ifindex;	   /* 0: not there */
	uint32_t queues;	   /* that it receives by */
	const char *reason;	   /* why it takes no part; NULL: it does */
	const char *direct_reason; /* of one that does: why frames that leave by it do not go there from XDP; NULL: they do */
	bool several;		   /* packets in several buffers can leave by it past the kernel */
	uint32_t mtu_limit;	   /* the largest with which it could take part; 0: any */
};

/* The workers of a FastPath. */
struct view_workers {
	const struct forward *forward; /* NULL: they do not run */
	const char *reason;	       /* why not */
	bool unneeded;		       /* all its devices take frames from XDP, or others' are left to the kernel */
	bool several;		       /* their sockets take packets in several frames */
	const char *several_reason;    /* why not; NULL: they do, or there are none */
	const struct forward_lane *lanes;
	uint32_t n_lanes;
	struct view_fast_device *devices; /* as in the document; owned */
};

/* A FastPath on the devices that are there. */
struct view_fast_path {
	const struct object *object;
	struct view_workers workers; /* devices NULL: of a socket */
	uint16_t index;		     /* below HD_FAST_PATHS; of its counters */
	uint32_t ifindex;	     /* where its sockets are bound; 0: there is none */
	uint32_t queues;	     /* that the device receives by; 0: not known */
	const char *
		several_reason; /* why no consumer can have packets in several frames; NULL: it can, or that is not known. Static */
	bool asks_queue[FASTPATH_QUEUES]; /* has a socket once a consumer is there */
};

/* Files of the state directory that are written once the answer is out. */
enum view_kept { VIEW_KEPT_FILES, VIEW_KEPT_IDENTITIES, VIEW_KEPT_IPAM, VIEW_KEPT_KUBERNETES, VIEW_KEPT_COUNT };
const char *view_kept_file(enum view_kept kept); /* its name */
const char *view_kept_text(enum view_kept kept); /* what is in it */

/* That the last write of one failed: what is in force is not what a start would find. */
struct view_unsaved {
	int error;     /* negative errno; 0: it did not fail */
	int64_t since; /* ms since the epoch */
};

struct view {
	struct datapath *datapath;		 /* NULL: nothing loaded, there is nothing to read */
	const struct compiler *compiler;	 /* NULL with it */
	const struct object_list *objects;	 /* the documents in force */
	const struct sriov *sriov;		 /* VFs; NULL: they were not looked for */
	const struct object_list *cni;		 /* those of them that are the CNI plugin's; NULL: its state cannot be used */
	uint64_t vf_abandoned;			 /* VFs of which containers ended without a DEL */
	const struct object_list *derived;	 /* and those that a cluster comes to */
	const struct kubernetes *kubernetes;	 /* NULL: no cluster is followed */
	const struct host *host;		 /* of the Host document in force; NULL: none */
	const struct topology *topology;	 /* networks and ports as they shall be; NULL: nothing loaded */
	const struct networks *networks;	 /* their numbers */
	const struct identities *identities;	 /* of sets of labels: their numbers */
	const struct underlay *underlay;	 /* the ways to peers; NULL: there is no tunnel */
	const struct tunnel_slow *slow;		 /* the device for what our programs cannot send; NULL: none */
	const char *nat_table;			 /* of nftables; NULL: nothing is asked of it */
	const char *nat_reason;			 /* why that is not in force; NULL: it is */
	const char *slow_reason;		 /* why there is none; NULL: there is, or it is on its way */
	const char *sum_reason;			 /* why there are no devices for checksums; NULL: there are, or need not be */
	const char *stack_reason;		 /* the same of those by which the host reaches workloads behind peers */
	bool stack;				 /* those are there, with our program */
	struct fastpath_server *fastpath;	 /* who is served; NULL: there is no FastPath */
	const struct offload *offload;		 /* flows that NICs forward; NULL: off */
	const struct drops *drops;		 /* what policy denies and they drop; with offload */
	const char *offload_reason;		 /* why there are none; NULL: there may be */
	const char *offload_tunnel_reason;	 /* why none of them go to peers; NULL: nothing is known against it */
	const struct view_fast_path *fast_paths; /* by the documents' order */
	size_t n_fast_paths;
	const struct netdev *devices; /* every interface of the machine */
	size_t n_devices;
	uint32_t generation;
	bool ready;		 /* in force on every declared uplink that exists */
	bool adopted;		 /* nothing valid to load: what an earlier agent put in force is left as it is */
	bool lockdown;		 /* no valid policy yet: failsafe and built-in rules only */
	int attach_error;	 /* negative errno: a declared uplink that exists is not guarded; 0: none */
	int64_t confirm_before;	 /* ms since the epoch; 0: nothing waits for a confirmation */
	const char *last_error;	 /* one mistake a line; NULL: none */
	int64_t last_error_time; /* ms since the epoch */
	struct view_unsaved unsaved[VIEW_KEPT_COUNT];
	int64_t started; /* ms, CLOCK_MONOTONIC */
	const char *version;
};

/* NULL: no such device. */
const struct netdev *view_device(const struct view *view, uint32_t ifindex);
const struct netdev *view_device_by_name(const struct view *view, const char *name);
/* NULL: not an uplink of ours, or not attached. */
const struct datapath_attachment *view_attachment(const struct view *view, uint32_t ifindex);
/* Where an object in force comes from: "file", "api" (applied), "cni" or "kubernetes". */
const char *view_source(
	const struct view *view, enum object_kind kind, const char *namespace_, const char *name, const char *file);
bool view_is_uplink(const struct view *view, const char *device);
/* The port on a device; NULL: none. */
const struct topology_port *view_port(const struct view *view, uint32_t ifindex);
/* The peer of an index; NULL: none. */
const struct topology_peer *view_peer(const struct view *view, uint32_t index);
/* Of an end of a flow, or of what a twin says, who is behind which peer: its index. 0: behind none. */
uint32_t view_device_peer(uint32_t device);
/* Whose end of the tunnel it is; NULL: no peer's. */
const struct topology_peer *view_peer_at(const struct view *view, const struct hd_addr *address);
/* Its name, or "#" and the number of one that is gone. buffer holds VIEW_PEER_MAX; never NULL. */
#define VIEW_PEER_MAX 16
const char *view_peer_name(const struct view *view, uint32_t index, char *buffer);
/* The name of a network, or of the two that a zone is between ("a>b"). buffer holds VIEW_NETWORK_MAX; never NULL. */
#define VIEW_NETWORK_MAX 512
const char *view_network(const struct view *view, uint16_t network, char *buffer);

#endif
