/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel's half: loads programs, owns maps and pins, attaches, and makes tables live. Nothing here knows of documents.
 *
 * Two families of maps. State maps (flows, counters, rules, frags, events) are adopted from the pins of an earlier agent.
 * Policy maps (control, ports, nodes, rows) are made afresh by each datapath_load(), filled while nobody reads them, and go live
 * when the links are updated to the programs that use them: so a restart, an upgrade and a table that must grow are one path,
 * and no packet sees half of anything. Pins are renamed over the old ones only after that.
 *
 * All functions return 0 or a negative errno, and log what the caller cannot know.
 */
#ifndef HEDDLE_DATAPATH_DATAPATH_H
#define HEDDLE_DATAPATH_DATAPATH_H

#include <net/if.h>

#include <heddle/event.h>
#include <heddle/explain.h>
#include <heddle/flow.h>
#include <heddle/limit.h>
#include <heddle/offload.h>
#include <heddle/reasons.h>
#include <heddle/steer.h>
#include <policy/compile.h>
#include <policy/topology.h>

struct datapath;

/* How the TC programs are attached. AUTO: TCX where the kernel has it, else clsact; HEDDLE_TC=tcx|clsact in the environment overrules it. */
enum datapath_tc { DATAPATH_TC_AUTO = 0, DATAPATH_TC_TCX, DATAPATH_TC_CLSACT };

struct datapath_config {
	const char *bpffs;   /* a bpffs mount point (mounted by datapath_open when it is not one); pins go under heddle/ in it */
	enum datapath_tc tc; /* for tests of the fallback */
};

/* Settings that live in hd_control besides the generation. */
struct datapath_settings {
	struct host_timeouts timeouts;
	uint32_t log_every, event_rate, reject_rate;
};

struct datapath_sizes {
	struct compiler_limits policy;
	uint32_t flows, flows_new, flows_other; /* state maps: used when they are created, otherwise kept as they are */
	uint32_t endpoints, members, routes, port_vlans, ports_hash;
	uint32_t peers, peer_addresses, vnis, peer_prefixes, peer_members; /* peers: one more than the highest index */
};

/* Opens or creates <bpffs>/heddle; takes a lock so that only one agent runs on it (-EBUSY). found: an earlier agent's state is there. */
int datapath_open(const struct datapath_config *config, struct datapath **ret, bool *found);
void datapath_close(struct datapath *dp); /* everything pinned keeps working */

uint32_t datapath_last_generation(const struct datapath *dp); /* 0: none */
/* The rule ids of an earlier agent, for compiler_adopt_rule. */
typedef int (*datapath_rule_cb)(uint32_t id, const struct hd_rule_info *info, void *userdata);
int datapath_rules(struct datapath *dp, datapath_rule_cb cb, void *userdata);

/*
 * Loads the programs over fresh policy maps of these sizes. The old ones stay in force until datapath_go_live().
 * pickup_seconds counts only on a first start (nothing found); an adopted pickup time runs on.
 */
int datapath_load(struct datapath *dp, const struct datapath_sizes *sizes, const struct datapath_settings *settings,
	uint32_t pickup_seconds);
/* Forgets what datapath_load() loaded and datapath_go_live() has not confirmed; what was in force before stays. Not after an attach. */
void datapath_abandon(struct datapath *dp);
int datapath_settings(struct datapath *dp, const struct datapath_settings *settings); /* of the loaded programs, in place */
void datapath_sizes(const struct datapath *dp, struct datapath_sizes *ret);

/*
 * Writes everything of the delta except the switch; invisible to packets until datapath_publish(). Of a delta that is not published, what
 * was written is overwritten by the next one (compiler_abort()).
 */
int datapath_write(struct datapath *dp, const struct policy_delta *delta);
/* The one store. topology: the one that datapath_ports() was given last, whose records get their ports' new policies; NULL: none. */
int datapath_publish(struct datapath *dp, const struct policy_delta *delta, const struct topology *topology);
/* Waits until no packet reads the generation before the published one (an RCU grace period). May take some 10 ms. */
int datapath_settle(struct datapath *dp);

/* --- attachment --- */

struct datapath_uplink {
	const char *device;
	uint32_t ifindex;
	enum xdp_mode xdp; /* what the document wants */
	const char *driver;
	bool forward_judge;
	bool ethernet; /* has an Ethernet header */
	/* What ethtool -K should be told, so that XDP sees the tags of networks; XDP is off until then. NULL: it sees them. */
	const char *hides_tags;
	bool tunnel;			       /* packets of the tunnel come in there */
	enum tunnel_decapsulation decapsulate; /* who shall take their headers off */
	bool slow;  /* the agent's own device: nothing else comes in there, whatever the policies say */
	bool sum;   /* beside it: our tunnel packets get their checksums there */
	bool stack; /* the agent's own: by it the host's stack sends to who is behind peers. No uplink at all */
};

#define DECAP_REASON 256

/* What became of it. mode: "native", "generic", "off"; tc: "tcx", "clsact". */
struct datapath_attachment {
	char device[IF_NAMESIZE];
	uint32_t ifindex;
	const char *xdp_mode;
	char xdp_reason[160];		 /* why not better; "" none */
	const char *decapsulation;	 /* "xdp", "tc"; NULL: no tunnel packets come in there */
	char decap_reason[DECAP_REASON]; /* why there; "" not known */
	const char *tc_mode;
	uint32_t program_id[HD_HOOKS]; /* what runs there, by hook; 0: nothing, or not known */
	bool port;		       /* else an uplink */
	unsigned foreign_ahead;	       /* programs of others that see packets before ours */
};

/*
 * The set of guarded uplinks as it shall be, with the policy of each (by device name, from the delta in force): writes port records, attaches
 * what is missing, updates links to the loaded programs, detaches what is no longer named. A device that fails does not stop
 * the others: the first error is returned at the end. After datapath_load() this is also what makes the new programs live.
 */
int datapath_attach(struct datapath *dp, const struct datapath_uplink *uplinks, size_t n, const struct uplink_policy *policies,
	size_t n_policies);
/*
 * Networks and ports. A change goes: datapath_remove() (nobody finds any more what is going, or means something else from now on), then the
 * publishing of the policy that belongs to it, then datapath_ports(). Both make a difference to what the maps and devices have: whatever
 * an earlier attempt did not finish is finished.
 *
 * policies: by the topology's ports; one that is not there (generation 0) leaves the port closed. The first error of a device is returned
 * at the end; one of the tables ends it. Programs are attached to a new port before anybody finds it, and taken off one
 * that goes when nobody does any more.
 */
int datapath_remove(struct datapath *dp, const struct topology *topology);
/* Something about the device changed: what is attached to it, when it is a port, is looked at by the next datapath_ports(). */
void datapath_doubt(struct datapath *dp, uint32_t ifindex);
/* Filters were removed from the device (0: from any). true: ours among them, which datapath_attach() and datapath_ports() put back. */
bool datapath_filters_lost(struct datapath *dp, uint32_t ifindex);
int datapath_ports(struct datapath *dp, const struct topology *topology, const struct hd_port_policy *policies);
/*
 * Of freshly loaded tables, ahead of datapath_attach(): what uplinks must find there when they switch over to them, where networks have VLANs or
 * travel in a tunnel.
 */
int datapath_prepare(struct datapath *dp, const struct topology *topology, const struct hd_port_policy *policies);
/* What an earlier agent handed out: entries of networks that are used, and entry 0; routes. For networks_adopt and networks_adopt_route. */
typedef int (*datapath_network_cb)(uint16_t index, const struct hd_network *record, void *userdata);
typedef int (*datapath_route_cb)(const struct hd_route_key *key, const struct hd_route *route, void *userdata);
int datapath_networks(struct datapath *dp, datapath_network_cb network, datapath_route_cb route, void *userdata);
/* And to peers: records that are used. For networks_adopt_peer. */
typedef int (*datapath_peer_cb)(uint32_t index, const struct hd_peer *record, void *userdata);
int datapath_peers(struct datapath *dp, datapath_peer_cb cb, void *userdata);

/*
 * The next hops to a peer, and how many bytes of outer L3 go there (0: no limit known). A packet sees the old ones or the new ones. n 0: none is
 * known. -ENOENT: no such peer in force; -EINVAL: more than HD_PEER_WAYS. Freshly loaded tables begin with what the ones before had for the
 * same peer. Twice within a packet's way through, the second change may meet one that still reads the first: not more often than that.
 */
int datapath_peer_ways(struct datapath *dp, uint32_t peer, const struct hd_way *ways, size_t n, uint16_t mtu);
uint16_t datapath_peer_mtu(struct datapath *dp, uint32_t peer); /* of inner L3, as far as is known now; 0: not known */
/* Devices of the agent's own. */
enum tunnel_device {
	TUNNEL_SLOW,  /* takes what only the kernel's sockets can send */
	TUNNEL_SUM,   /* by which packets get UDP checksums, where there shall be some */
	TUNNEL_STACK, /* by which the host's stack and who is behind peers reach each other */
};
/* ifindex 0: there is none. Kept for tables that are loaded later. */
int datapath_tunnel_device(struct datapath *dp, enum tunnel_device which, uint32_t ifindex);

/* Pins the loaded maps and programs over the old ones and lets those go. After the first successful attach of a load. */
int datapath_go_live(struct datapath *dp);
size_t datapath_attachments(const struct datapath *dp, const struct datapath_attachment **ret);
/* Why a port was left without programs by the last datapath_ports(), in static storage; NULL: nothing is known against it. */
const char *datapath_port_refused(struct datapath *dp, uint32_t ifindex);

/* An uplink has the fq queue: what ports with a rate send is told when to leave. Taken over by tables that are loaded later. */
void datapath_pace(struct datapath *dp, bool on);
/* What the port has used of its rates. -ENOENT: nothing yet. */
int datapath_limit(struct datapath *dp, uint32_t ifindex, struct hd_limit_state *ret);

/* Removes every program, link, map and pin of this instance, also those of another version; idempotent. */
int datapath_detach(const struct datapath_config *config);

/* --- fast paths: packets for AF_XDP sockets --- */

/* What is 0 is not asked about: of a prefix, its length. */
struct datapath_match {
	bool has_rule; /* let in by this one */
	uint32_t rule;
	struct prefix source, destination;
	uint16_t source_port, destination_port; /* host byte order */
	uint16_t vlan;
	uint8_t protocol;
};

struct datapath_fast_path {
	uint16_t index; /* below HD_FAST_PATHS */
	uint32_t ifindex;
	bool uplink;  /* else, without forward, the far end of a port's veth, all of whose packets it gets */
	bool drop;    /* what no socket takes; else that goes on to the kernel */
	bool forward; /* for devices of the same group, by XDP or workers; beside uplink, or of a port, on its device */
	bool inside;  /* beside forward, of a port: to other ports only */
	bool stamp;   /* with the time */
	bool direct;  /* beside forward: the device takes frames from XDP. Cleared where it cannot be put where XDP finds it */
	bool direct_several; /* beside direct: those in several buffers, too */
	bool several; /* of far ends and ports: XDP of the driver shall see packets in several buffers. Generic XDP never does */
	uint16_t group;
	uint8_t mac[6];
	const struct datapath_match *matches;
	size_t n_matches;
	/* out, of far ends and ports */
	int error; /* why our program is not there: -EBUSY: somebody else's is; 0: it is */
	bool generic;
};
/* The index of each of these, which are all there are. -ENOTCONN as below; -E2BIG: more than HD_FAST_PATHS. */
int datapath_fast_indexes(struct datapath *dp, const char *const *names, size_t n, uint16_t *ret);
/*
 * All of them, as they shall be from now on. -ENOTCONN: no programs are loaded; -E2BIG: too many matches, or shapes on one device. A far end that fails
 * does not stop the others.
 */
int datapath_steer(struct datapath *dp, struct datapath_fast_path *paths, size_t n);
bool datapath_steers(const struct datapath *dp); /* some device has a fast path, of this agent or of an earlier one */
/* What its sockets take; NULL: nothing is known. */
int datapath_fast_room(struct datapath *dp, uint16_t index, const struct hd_fast_room *room);
/* The socket that gets what queue of the path's device brings; -1: none. One that is closed everywhere goes by itself. */
int datapath_fast_socket(struct datapath *dp, uint16_t index, uint16_t queue, int fd);

/* --- reading --- */

struct datapath_flow {
	uint8_t family; /* 4 or 6 */
	bool proven;
	uint8_t protocol, kind;
	uint16_t network;
	struct hd_addr source, destination;	/* of the originator's direction */
	uint16_t source_port, destination_port; /* host byte order */
	struct hd_flow flow;
	uint64_t idle_ms, age_ms;
};
/* Whose it is, whatever has become of it; compared as bytes. */
struct datapath_flow_key {
	struct hd_addr source, destination;
	uint16_t source_port, destination_port, network;
	uint8_t protocol, kind;
};
static_assert(sizeof(struct datapath_flow_key) == 40, "no holes");
static inline struct datapath_flow_key datapath_flow_key(const struct datapath_flow *flow)
{
	return (struct datapath_flow_key){
		.source = flow->source,
		.destination = flow->destination,
		.source_port = flow->source_port,
		.destination_port = flow->destination_port,
		.network = flow->network,
		.protocol = flow->protocol,
		.kind = flow->kind,
	};
}
typedef int (*datapath_flow_cb)(const struct datapath_flow *flow, void *userdata); /* non-zero ends the walk */
int datapath_flows(struct datapath *dp, datapath_flow_cb cb, void *userdata);	   /* expired ones left out; batched reads */
int datapath_flow_counts(struct datapath *dp, uint64_t *proven, uint64_t *unproven);

/*
 * The same of proven ones alone, a piece at a time: *cursor, 0 at first, is where the next call goes on, with `budget` slots of TCP; the other
 * protocols come as one piece at the end. 1: there is more; 0: that was all, and *cursor is 0 again.
 */
int datapath_proven(struct datapath *dp, uint32_t *cursor, uint32_t budget, datapath_flow_cb cb, void *userdata);
/* What has become of one of them since. -ENOENT: it is gone, timed out, or another connection has its place. */
int datapath_flow_again(struct datapath *dp, struct datapath_flow *flow);

/* --- flows that a NIC forwards --- */

/* What it has counted in addition, by enum hd_flow_side, bytes being those of L3. flags: enum hd_credit_flags. -ENOENT: the flow is gone. */
int datapath_credit(struct datapath *dp, const struct datapath_flow *flow, const uint64_t packets[2], const uint64_t bytes[2],
	unsigned flags);
/* What it has dropped in addition, sent by ports and denied by the rule: bytes of L3, and of whole frames. */
int datapath_credit_deny(struct datapath *dp, uint32_t rule, uint64_t packets, uint64_t bytes, uint64_t frames);
/* Of n proven TCP flows, which ones are established still: no more than a look at memory. */
int datapath_established(struct datapath *dp, const struct datapath_flow *const *flows, size_t n, bool *ret);
/* The record of a port or an uplink, and the generation that counts. -ENOENT: there is none. */
int datapath_record(struct datapath *dp, uint32_t ifindex, struct hd_port *ret, uint32_t *ret_generation);
/* Where a MAC was learnt in a network, outside of its segments, and is not forgotten yet. -ENOENT: nowhere. */
int datapath_learnt(struct datapath *dp, uint16_t network, const uint8_t mac[6], struct hd_fdb *ret);
int datapath_peer(struct datapath *dp, uint32_t peer, struct hd_peer *ret); /* its record. -ENOENT: there is none */
/* The clsact qdisc, for filters of ours beside the programs: made unless it is there. It is left to its other users, and to the programs. */
int datapath_clsact(struct datapath *dp, uint32_t ifindex);	     /* 1: there was none */
void datapath_clsact_release(struct datapath *dp, uint32_t ifindex); /* none of those filters is left */

int datapath_drops(struct datapath *dp, struct hd_counter counters[HD_REASON_COUNT][2]); /* summed over CPUs */
int datapath_totals(struct datapath *dp, struct hd_counter totals[HD_TOTAL_COUNT]);
int datapath_fast_counters(struct datapath *dp, uint16_t index, struct hd_counter ret[HD_FAST_TOTALS]); /* enum hd_fast_total */
int datapath_fast_redirects(struct datapath *dp, uint16_t index, struct hd_counter *ret); /* what XDP sent to the device itself */
int datapath_full(struct datapath *dp, uint64_t counts[HD_TABLE_COUNT]);
/* counters[0..n-1] of rule ids first.. */
int datapath_rule_counters(struct datapath *dp, uint32_t first, uint32_t n, struct hd_counter *counters);

/* counters[0..n-1] of peers first.. */
int datapath_peer_counters(struct datapath *dp, uint32_t first, uint32_t n, struct hd_peer_counters *counters);

typedef void (*datapath_event_cb)(const struct hd_event *event, size_t length, void *userdata);
int datapath_events_fd(const struct datapath *dp); /* poll for input, then: */
int datapath_events_dispatch(struct datapath *dp, datapath_event_cb cb, void *userdata);
int datapath_monitor(struct datapath *dp, bool on); /* events for allowed flows too */

struct datapath_program {
	const char *name;
	enum hd_hook hook;
	uint32_t id, insns_verified, jited_bytes;
};
size_t datapath_programs(const struct datapath *dp, const struct datapath_program **ret);

/* Who answers for a network: its gateway. Errors of routing come from there. */
struct datapath_router {
	bool has_source; /* of the packet's family; else the answer comes from the address that could not be reached */
	struct hd_addr source;
	uint16_t mtu; /* of the way to the packet's destination; 0: not known */
};
/*
 * Answers a reject event with a fresh packet: TCP RST or administratively prohibited for what policy rejects, else ICMP unreachable, time exceeded or
 * too big, by the event's reason. What came in from a device goes back there by a packet socket. router may be NULL.
 */
int datapath_reject(struct datapath *dp, const struct hd_event *event, const struct datapath_router *router);

/* --- explain --- */

struct datapath_probe {
	enum hd_hook hook;
	uint32_t ifindex, ingress_ifindex;
	uint16_t vlan_tci, vlan_proto;	  /* metadata tag (TC); vlan_proto 0: none */
	uint32_t from_network, from_peer; /* of tc_tunnel_in, whose frame is the inner one */
	const void *frame;
	size_t length; /* >= 14 */
};
/* Runs the dry-run twin of the hook's program (loaded at the first call, over the live maps). Changes nothing. */
int datapath_explain(struct datapath *dp, const struct datapath_probe *probe, struct hd_explain *ret);

#endif
