/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by the controller*.c files only. */
#ifndef HEDDLE_CONTROLLER_INTERNAL_H
#define HEDDLE_CONTROLLER_INTERNAL_H

#include <systemd/sd-event.h>

#include <api/api.h>
#include <controller.h>
#include <netdev/hostnet.h>
#include <netdev/sriov.h>
#include <netdev/vf.h>
#include <netdev/nat.h>
#include <netdev/nftables.h>
#include <netdev/tunnel_slow.h>
#include <netdev/underlay.h>
#include <observe/view.h>
#include <netdev/tunnel_nic.h>
#include <offload/tc.h>
#include <source/applied.h>
#include <source/cni.h>
#include <source/files.h>
#include <source/ipam.h>
#include <source/kubernetes.h>
#include <source/remembered.h>
#include <source/store.h>
#include <util/cleanup.h>
#include <util/log.h>

struct controller {
	const struct controller_options *options;
	sd_event *event;
	int lock;  /* of run_dir: one agent at a time */
	int alone; /* the claim to the network namespace; -1: nobody can tell */

	/* sources */
	struct files *files;
	struct applied *applied; /* NULL: its log cannot be read, nothing can be applied */
	struct applied *cni;	 /* the CNI plugin's ports; NULL: their log cannot be read */
	struct ipam *ipam;	 /* where addresses are given out next */
	bool ipam_due;		 /* that is to be kept */
	struct reservation *reservations;
	int loans;		    /* fd of the records of VFs that containers have; negative: there are none */
	struct vf_loan *gone_loans; /* of those, as they were when their container's namespace ended */
	size_t n_gone_loans;
	struct kubernetes *kubernetes;	      /* NULL: no cluster is followed */
	struct store_deriver deriver;	      /* of its objects */
	unsigned kubernetes_failures;	      /* in a row, to put in force what it says */
	struct store store;		      /* what is in force */
	const struct object_list *activating; /* what is being put in force; NULL: nothing */
	bool state_taken;   /* the state directory is another agent's: nothing is written there, nor its last good state read */
	bool save;	    /* the files' last good state is to be kept */
	bool files_refused; /* the last load of the files was */
	bool files_again;   /* it may be another matter since something else changed */

	/* policy */
	struct datapath *datapath;
	struct compiler *compiler;	/* NULL: nothing loaded */
	struct compiler_limits limits;	/* of its tables */
	bool unsettled;			/* what is published; its grace period is to be waited for */
	struct uplink_policy *policies; /* of the generation in force; owned, with their names */
	size_t n_policies;
	struct datapath_settings settings; /* as loaded */
	struct object *host;		   /* reference; NULL: no Host document */

	/* devices */
	struct netdev_watch *watch;
	struct filter_watch *filters; /* NULL: the kernel would not tell */
	struct netdev *devices;
	size_t n_devices;
	int attach_error;      /* of the last attempt; 0: all that exist are attached */
	uint64_t attach_retry; /* us until the next attempt */

	/* VFs; nothing of it is opened before a document, or somebody who asks, needs it */
	struct sriov sriov;	 /* who is whose, as it was put together last */
	struct devlink *devlink; /* NULL: this kernel has none, or it is not needed yet */
	int sriov_events;	 /* fd; -1 */
	bool sriov_open;	 /* those two were opened, as far as they can be */
	bool sriov_due;		 /* something changed since */
	sd_event_source *sriov_io, *devlink_io, *sriov_job_done;
	struct vf_wish *vf_wishes; /* what VFs were set to */
	size_t n_vf_wishes;
	size_t vfs_left;		  /* settings that are to be put back one day */
	bool vfs_begun;			  /* what an earlier agent left is known */
	bool vfs_due;			  /* VFs may not be as they shall be */
	struct sriov_job *sriov_job;	  /* NULL: no NIC is being set up */
	uint64_t sriov_tried, sriov_told; /* hashes of what was */

	/* networks and ports */
	struct networks *networks;     /* their numbers */
	struct identities *identities; /* the numbers of sets of labels */
	bool remember;		       /* those are to be kept */
	struct topology
		*topology; /* as it shall be: by the documents in force and the devices that are there; NULL: nothing loaded */
	bool topology_due; /* the maps may not have it yet */
	struct settings_device *set_up; /* what was set on the devices of ports */
	size_t n_set_up;
	struct hostnet *hostnet;   /* NULL: no network routes to the host */
	bool hostnet_due;	   /* routes and neighbours may not be what the topology wants */
	struct hd_addr *addresses; /* the host's own; known with hostnet */
	size_t n_addresses;

	/* addresses that the host changes */
	char nat_table[NAT_TABLE_MAX];
	struct nft_watch *nat_watch; /* NULL: nothing is asked for */
	uint64_t nat_hash;	     /* of what is in force; 0: none of this run */
	bool nat_cleared;	     /* nothing of an earlier agent is left */
	uint64_t nat_retry_us;	     /* until the next attempt; 0: none failed */
	char *nat_reason;	     /* why what is asked for is not in force; NULL: it is */
	struct nat_port *nat_ports;  /* that were in force last, or led to who went while no agent ran */
	size_t n_nat_ports;
	sd_event_source *nat_changes, *nat_due;

	/* the other ends of the tunnel */
	struct hd_tunnel followed; /* this end, as the two below were opened for it; protocol HD_TUNNEL_NONE: they were not */
	struct underlay *underlay;
	struct tunnel_slow *slow;
	struct pair_devices sum, stack;
	bool sum_cleared, stack_cleared; /* none of an earlier agent is left */
	uint32_t stack_mtu;
	bool peers_due;		/* the underlay may not have those of the topology */
	bool ways_due;		/* some record did not take its ways */
	bool underlay_cleared;	/* nothing of an earlier agent is left */
	uint64_t slow_retry_us; /* until the next attempt; 0: none failed */
	sd_event_source *underlay_io, *underlay_look, *slow_due, *slow_device, *slow_socket;

	/* fast paths */
	struct fastpath_server *fastpath;  /* NULL: there never was one */
	struct view_fast_path *fast_paths; /* by the documents in force; they hold references */
	bool several, several_known;	   /* the kernel has sockets for packets in several frames: several_has() */
	size_t n_fast_paths;
	struct forwarder **forwarders; /* the workers of FastPaths */
	size_t n_forwarders;
	sd_event_source *forward_again, *forward_neighbours;
	struct xdp_watch *exits; /* NULL: no FastPath asks which devices take frames from XDP, or the kernel does not tell */
	sd_event_source *exits_io;
	bool confined; /* what it gives up is given up */

	/* flows that NICs forward */
	struct offload *offload;	     /* NULL: off */
	struct tc *offload_tc;		     /* with it */
	const struct policy_delta *changing; /* that is about to be published; NULL: none */
	bool offload_cleared;		     /* no rule of an earlier agent is left */
	struct offload_cache *offload_cache;
	uint32_t *offload_qdiscs; /* devices whose clsact was made for rules */
	size_t n_offload_qdiscs;
	uint32_t offload_tunnel; /* the kernel's device that stands for tunnels; 0: there is none */
	struct tunnel_nic offload_tunnel_for;
	sd_event_source *offload_round, *offload_look;
	struct drops *drops;	/* what NICs drop; NULL: off */
	uint64_t flows_refused; /* by NICs, up to the last round */

	/* event sources */
	sd_event_source *sweep, *later, *reattach, *pace, *confirm, *kubernetes_save, *kubernetes_again, *events, *netdev,
		*filter_changes, *alone_asked, *rebuild, *host_changes;

	struct view view;
	struct api *api;
	char *last_error;
	bool told_ready;
	struct told *told; /* what a runtime is told; NULL: nothing */
	sd_event_source *unready_due;
	bool unready; /* for so long that others are told of it */
	bool served;  /* the API has been there */
};

/* --- controller_alone.c: one agent a network namespace --- */

/*
 * -EBUSY, which is logged: there is one, and waiting for so long did not help. The claim holds as long as *ret is open; it stays as it was where nobody
 * can tell, which is logged as well.
 */
int alone_claim(unsigned patience_ms, int *ret);
/* It runs in another network namespace than this process. False: in the same one, or that cannot be told. */
bool alone_elsewhere(pid_t agent);
int alone_serve(struct controller *c); /* answers those who ask */
void alone_free(struct controller *c);

/* --- controller_policy.c: a set of objects becomes the policy in force --- */

/*
 * 0: in force on every uplink that exists and could be attached (see attach_error for the others). On an error what was in force
 * still is: -EINVAL and -E2BIG with diag, others from the kernel.
 */
int policy_activate(struct controller *c, const struct object_list *all, bool lockdown, struct diag *diag);
/* The same objects over freshly loaded programs and tables: when a table is broken. */
int policy_rebuild(struct controller *c);
/* Waits for the grace period of the last change, if that was not done yet. */
void policy_settle(struct controller *c);
void policy_free(struct controller *c);
/* compiler_compile() with tables as large as it takes. On success *compiler is the one to commit on. */
int policy_compile_fresh(uint32_t first_generation, struct datapath *adopt, const struct compiler_limits *least,
	const struct policy_input *input, struct compiler **ret_compiler, struct compiler_limits *ret_limits,
	struct policy_delta **ret_delta, struct diag *diag);
const struct object *policy_host(const struct object_list *all); /* NULL: none */
/* What counts where there is no Host document. */
extern const struct host policy_no_host;

/* --- controller_devices.c: interfaces, and our programs on them --- */

int devices_start(struct controller *c);
void devices_free(struct controller *c);
/* Attaches what is declared and exists, ports included. The error is kept in attach_error, logged, and tried again later. */
int devices_attach(struct controller *c);
void devices_attach_later(struct controller *c, uint64_t us); /* after a new look at the devices and addresses */

/* --- controller_ports.c: networks and ports --- */

int ports_start(struct controller *c); /* takes over the numbers that an earlier agent gave */
void ports_free(struct controller *c);
/* What the objects come to on the devices that are there, under numbers that are to be committed or aborted. -EINVAL with diag. */
int ports_propose(
	struct controller *c, const struct object_list *all, const struct host *host, struct topology **ret, struct diag *diag);
/* It counts from now on; ports_install() puts it in force. */
void ports_take_over(struct controller *c, struct topology *topology);
bool ports_fit(const struct controller *c, const struct topology *topology); /* in the tables that are loaded */
void ports_sizes(const struct topology *topology, struct datapath_sizes *sizes);
void ports_prepare(struct controller *c); /* ahead of the uplinks */
int ports_install(struct controller *c);
/* Without devices, for --check. */
int ports_check(const struct object_list *all, const struct host *host, const struct networks *networks, struct diag *diag);
void ports_look_again(struct controller *c); /* devices or addresses changed */

/* --- controller_sriov.c: VFs, and the devices that stand for them --- */

/* Where the ports are that name a VF or a PCI address; *ret, to be freed, holds the texts too. n 0: there are none. */
int sriov_places(struct controller *c, const struct object_list *all, struct topology_place **ret, size_t *ret_n);
/* The table as of now. */
int sriov_look(struct controller *c);
/* A device that may decide where such a port is came, changed, or went. */
bool sriov_concerned(struct controller *c, const struct netdev *device);
/* MAC of who is behind the device of such a port; false: not told. */
bool sriov_mac(const struct controller *c, uint32_t ifindex, uint8_t ret[6]);
int sriov_once(struct controller *c); /* the same without an event loop; fills in c->devices too */
void sriov_free(struct controller *c);

/* --- controller_vf.c: what documents want of VFs and of the NICs that give them --- */

bool vfs_wanted(const struct controller *c); /* documents, or what is to be put back, need one of the following */
int vfs_sync(struct controller *c);	     /* sets VFs, and puts back what was set on others */
int vfs_restore(const char *state_dir);	     /* all of them, with no agent running */
void host_sriov(struct controller *c, const struct host *host); /* numbers of VFs and modes, in a thread */
void vfs_free(struct controller *c);
int vfs_list(void *userdata, json_t **ret, struct diag *diag);

/* --- controller_nat.c: masquerading, and ports of the host --- */

/* As the objects say, which are in force. Errors are kept in nat_reason, logged, and tried again later. */
void nat_follow(struct controller *c, const struct object_list *all);
void nat_free(struct controller *c); /* leaves it in force */
/* Before the first policy: this one's ports of the host are not part of it. */
void nat_gone(struct controller *c, const struct port *port);
/* What leaves this network for elsewhere does so as the host. */
bool nat_masquerades(const struct controller *c, const struct object_list *all, const struct object *network);
/* Ports of the host that the other one has already: -EADDRINUSE with diag. */
int nat_conflict(const struct object *port, const struct object *other, struct diag *diag);
/* The port's ports of the host are in force, if it has any: 0, or -EIO with diag. */
int nat_check(const struct controller *c, const struct object *port, struct diag *diag);

/* --- controller_pace.c: where what limited ports send is held back --- */

void pace_follow(struct controller *c); /* once ports are installed */

/* --- controller_offload.c: flows that NICs forward --- */

void offload_follow(struct controller *c); /* as the Host and the devices say, once ports are installed */
/* Ahead of a change: what will not hold any more goes back to software. delta NULL: everything. */
void offload_before(struct controller *c, const struct policy_delta *delta);
void offload_gone(struct controller *c, uint32_t ifindex); /* the device is gone, or is another one now */
void offload_end(struct controller *c);			   /* takes all back */
int offload_clear(void);				   /* with no agent running */

/* --- controller_drops.c: what policy denies and NICs drop, beside the former --- */

int drops_begin(struct controller *c, const struct offload_ops *nic, const struct offload_world *world, unsigned header);
void drops_turn(struct controller *c);				      /* a round, behind that of flows */
void drops_event(struct controller *c, const struct hd_event *event); /* each one of the data plane */
/* Ahead of a change of who is where: nothing is dropped by what was so. */
void drops_before_rows(struct controller *c);
void drops_end(struct controller *c);

/* --- controller_underlay.c: the other ends of the tunnel --- */

/* After the topology is installed: its peers are followed from now on. Errors are logged, and no reason to wait. */
void underlay_follow(struct controller *c);
void underlay_free(struct controller *c);
void underlay_slow_again(struct controller *c); /* its device is gone */
#define UNDERLAY_UPLINKS 3
size_t underlay_uplinks(const struct controller *c, struct datapath_uplink *ret); /* that no document declares */
/* Ahead of everything that is attached: the devices of an earlier agent by which packets go are taken over. */
void underlay_prepare(struct controller *c);
void underlay_sum_again(struct controller *c);	 /* one of that pair is gone, or down */
void underlay_stack_again(struct controller *c); /* the same of the pair for the host's stack */
/* The device that routes to workloads behind peers lead to; 0: there is none. */
uint32_t underlay_stack(const struct controller *c);

/* --- controller_fastpath.c: packets for user space --- */

/* What the documents in force come to on the devices that are there. Errors are logged, and said by status. */
void fastpaths_follow(struct controller *c);
void fastpaths_free(struct controller *c);
/* Something about a device changed that FastPaths go by. */
bool fastpaths_concerned(const struct controller *c, const struct netdev *before, const struct netdev *now);

/* --- controller_exits.c: devices that take frames from XDP --- */

void exits_watch(struct controller *c, bool wanted);
const char *exits_reason(struct controller *c, const struct netdev *device); /* why it does not; NULL: it does */
bool exits_take_several(struct controller *c, const struct netdev *device);  /* those in several buffers, too */
void exits_free(struct controller *c);

/* --- controller_several.c: packets in several frames --- */

bool several_has(struct controller *c); /* the kernel has sockets for them */
struct several_device {
	bool zero_copy;	 /* the driver has it, as far as is known */
	uint32_t pieces; /* and takes a packet in so many frames; 0: not told */
};
void several_ask(struct controller *c, const struct netdev *device, struct several_device *ret);
/* The largest MTU, with in_front bytes of ours in front of each frame. */
uint32_t several_mtu(bool several, uint32_t frame_size, uint32_t in_front);
/* Why an MTU is too large for sockets, whatever they are given; NULL: it is not. Static. */
const char *several_reason(struct controller *c, uint32_t mtu, uint32_t in_front);
/*
 * Its sockets shall take them: wherever that costs nothing. In zero-copy only for an MTU that needs it, since newer kernels then keep a part of each
 * frame for themselves, and many drivers have no zero-copy with it. copies: zero-copy is not tried.
 */
bool several_wanted(struct controller *c, const struct several_device *device, bool copies, uint32_t mtu, uint32_t frame_size);
/* Why sockets do not take them, where they do not. Static. */
const char *several_why_not(struct controller *c);
/* Why zero-copy is not to be tried with it; NULL: it is. Static. */
const char *several_refuses(const struct several_device *device, uint32_t mtu, uint32_t frame_size);

/* --- controller_forward.c: the workers among them --- */

/* What the workers of a document are made for. Compared as memory: everything behind what counts is zero. */
struct forward_plan {
	char name[FASTPATH_NAME_MAX];
	bool waiting; /* for devices, or they are not needed */
	bool copy, spin, has_cpus, several;
	uint32_t workers, batch, ring, frame_size;
	int cpus[FORWARD_WORKERS];
	int node;
	struct xsk_busy_poll busy;
	uint32_t n_devices;
	struct {
		char name[IF_NAMESIZE];
		uint32_t ifindex, queues;
		uint16_t index;
		bool port;		   /* of a network, else an uplink */
		bool generic;		   /* of a port only known once our program is there */
		uint64_t copy_only;	   /* queues, */
		const char *why_copy;	   /* static; as in struct forward_lane */
		uint32_t zero_copy_pieces; /* likewise */
	} devices[FAST_PATH_DEVICES_MOST];
};
/* Ends all that shall not go on as it is. */
void forwarders_end_others(struct controller *c, const struct forward_plan *plans, size_t n);
/* After that, and once packets may be steered: makes those that are not there. What fails is tried again. */
int forwarders_follow(struct controller *c, const struct forward_plan *plans, size_t n);
void forwarders_begin(struct controller *c); /* once confined */
void forwarders_view(struct controller *c, const char *name, struct view_workers *ret);
void forwarders_free(struct controller *c);

/* --- controller_change.c: what the API and the files ask for --- */

extern const struct api_ops change_ops;
void change_files(struct controller *c);      /* reads the configured files, makes them live */
int change_start(struct controller *c);	      /* the first policy of this run; -EINVAL: none could be had, lastError says why */
int change_arm_confirm(struct controller *c); /* sets the timer of an unconfirmed apply */
void change_error(struct controller *c, const struct diag *diag, const char *what); /* kept for status, and logged */
void change_clear_error(struct controller *c);
void change_later(struct controller *c); /* what can wait until after the answer: grace period, disk, memory */

int change_may(const struct controller *c, struct diag *diag); /* 0: something is in force that changes can build on */
/* What was proposed is made live; nothing is done where it is already. */
int change_activate(struct controller *c, struct store_proposal *proposal, struct diag *diag);
void change_commit(struct controller *c, struct store_proposal *proposal);

/* --- controller_keep.c: what is written to the state directory after the answer --- */

/* How that went: negative errno, or 0. Kept for the status, and logged when it is another than before. */
void keep_result(struct controller *c, enum view_kept what, int r);
void keep_files(struct controller *c); /* before another load: it takes the texts of those in force away */
void keep_due(struct controller *c);   /* what has changed; what cannot be written stays due */

/* --- controller_cni.c: what the CNI plugin asks for --- */

int cni_start(struct controller *c, struct diag *diag); /* opens its log; -EINVAL: it cannot be read. Before the first policy */
void cni_sweep_later(struct controller *c); /* a port's device is gone: so is the attachment, if nobody else says so */
int cni_place(struct controller *c);	    /* the ports whose devices are still there */
void cni_free(struct controller *c);
int cni_change(void *userdata, enum api_cni verb, const json_t *body, json_t **ret, struct diag *diag);
bool cni_is_reserved(const struct controller *c, const struct cni_key *key);

/* --- controller_cni_vf.c: the VFs among them --- */

struct cni_vf {
	const struct sriov_vf *vf; /* in the table: until that is put together anew */
	const struct sriov_pf *pf;
	const struct netdev *representor; /* NULL: legacy */
	bool legacy;			  /* the NIC switches by itself */
	bool interface;			  /* else a driver of user space has it */
};
/* -EINVAL, -EEXIST, -EAGAIN with diag. */
int cni_vf_find(struct controller *c, const struct cni_request *request, const struct object *network, struct cni_vf *ret,
	struct diag *diag);
/* spec.vf of its Port. */
json_t *cni_vf_spec(const struct cni_request *request, const struct cni_vf *vf, const struct object *network, const char *mac);
json_t *cni_vf_json(const struct cni_vf *vf); /* for the plugin */
void cni_vf_start(struct controller *c);
int cni_vf_open(struct controller *c);					/* makes the directory */
bool cni_vf_has(const struct controller *c, const struct object *port); /* the container has it, as far as is known */
bool cni_vf_is_legacy(const struct controller *c, const struct object *port);
int cni_vf_check(const struct controller *c, const struct object *port, struct diag *diag); /* the NIC does as it was told */
int cni_vf_end_gone(
	struct controller *c);		/* records whose container's namespace has ended say so; -EAGAIN: the plugin is at it */
int cni_vf_sweep(struct controller *c); /* what came back is as it was */
void cni_vf_namespace_ended(struct controller *c, int32_t id);
void cni_vf_free(struct controller *c);
bool cni_vf_concerned(const struct controller *c, const struct netdev *device);

/* --- controller_kubernetes.c: what the API server says --- */

int cluster_open(struct controller *c);	 /* before the first policy: the last state on disk is part of it */
int cluster_start(struct controller *c); /* after it */
void cluster_free(struct controller *c); /* keeps its state */
/* 0, or -EAGAIN with why a Pod cannot be connected to the cluster's network yet. */
int cluster_may_connect(const struct controller *c, const struct cni_request *request, struct diag *diag);

/* --- controller_node.c: what a runtime and the cluster are told of this node --- */

int node_open(struct controller *c, bool fresh); /* reads what the runtime is to be told. fresh: nothing was in force */
void node_look(struct controller *c);		 /* whether it can serve may have changed */
void node_leave(struct controller *c);		 /* a clean end */
void node_free(struct controller *c);
/* --detach */
int node_withdraw(
	const struct controller_options *options); /* before anything is taken away: no Pod is to be placed here meanwhile */
int node_forget(const struct controller_options *options);

/* --- controller_rescue.c --- */

/* The first Host document that decodes, out of files that as a whole do not. NULL: none. */
struct object *rescue_host(const char *const *paths, size_t n);

/* --- controller_confine.c --- */

/* Gives up what a running agent does not need. Failures are logged and not fatal. */
void confine(const char *state_dir);

#endif
