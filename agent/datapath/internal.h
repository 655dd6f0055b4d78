/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of this folder share. Nothing outside it includes this. */
#ifndef HEDDLE_DATAPATH_INTERNAL_H
#define HEDDLE_DATAPATH_INTERNAL_H

#include <datapath/datapath.h>
#include <util/cleanup.h>
#include <util/log.h>

struct bpf_object;
struct bpf_program;
struct ring_buffer;

/*
 * What happens to a map when programs are loaded over the pins of an earlier agent.
 *   FLOW   adopted, all of the group or none: slots and flows point at each other
 *   KEPT   adopted with the size it has
 *   GROWN  adopted; where it is too small, a larger one takes over its contents
 *   FRESH  always new
 */
enum map_group { MAP_FLOW, MAP_KEPT, MAP_GROWN, MAP_FRESH };

#define DATAPATH_MAPS(X) \
	X(CONTROL, "control", FRESH) \
	X(PORTS, "ports", FRESH) \
	X(PORTS_HASH, "ports_hash", FRESH) \
	X(ADDR4_NODES, "addr4_nodes", FRESH) \
	X(ADDR4_TABLES, "addr4_tables", FRESH) \
	X(ADDR6_NODES, "addr6_nodes", FRESH) \
	X(CLASSES, "classes", FRESH) \
	X(RULE_NODES, "rule_nodes", FRESH) \
	X(FLOWS4, "flows4", FLOW) \
	X(FLOWS6, "flows6", FLOW) \
	X(FLOW_SLOTS, "flow_slots", FLOW) \
	X(FLOW_HINTS, "flow_hints", FLOW) \
	X(FLOW_HOT4, "flow_hot4", FLOW) \
	X(FLOW_HOT6, "flow_hot6", FLOW) \
	X(FLOW_FREE, "flow_free", FLOW) \
	X(FLOW_TIMER, "flow_timer", FLOW) \
	X(FLOWS4_OTHER, "flows4_other", KEPT) \
	X(FLOWS6_OTHER, "flows6_other", KEPT) \
	X(FLOWS4_NEW, "flows4_new", KEPT) \
	X(FLOWS6_NEW, "flows6_new", KEPT) \
	X(FRAGS, "frags", KEPT) \
	X(EVENTS, "events", KEPT) \
	X(RULES, "rules", GROWN) \
	X(RULE_COUNTERS, "rule_counters", GROWN) \
	X(DROPS, "drops", GROWN) \
	X(TOTALS, "totals", GROWN) \
	X(FULL, "full", GROWN) \
	X(EXPLAIN, "explain", FRESH) \
	X(NETWORKS, "networks", FRESH) \
	X(ENDPOINTS, "endpoints", FRESH) \
	X(MEMBERS, "members", FRESH) \
	X(ROUTES, "routes", FRESH) \
	X(PORT_VLANS, "port_vlans", FRESH) \
	X(FDB, "fdb", KEPT) \
	X(WIRE_VLANS, "wire_vlans", FRESH) \
	X(WIRE_PROGRAMS, "wire_programs", FRESH) \
	X(TUNNEL, "tunnel", FRESH) \
	X(PEERS, "peers", FRESH) \
	X(PEER_COUNTERS, "peer_counters", GROWN) \
	X(PEER_ADDRESSES, "peer_addresses", FRESH) \
	X(VNIS, "vnis", FRESH) \
	X(TUNNEL_HINTS, "tunnel_hints", FRESH) \
	X(PEER_PREFIXES, "peer_prefixes", FRESH) \
	X(PEER_MEMBERS, "peer_members", FRESH) \
	X(XSKS, "xsks", KEPT) \
	X(FAST_DEVICES, "fast_devices", KEPT) \
	X(FAST_MATCHES, "fast_matches", KEPT) \
	X(FAST_FORWARDS, "fast_forwards", KEPT) \
	X(FAST_ROOMS, "fast_rooms", KEPT) \
	X(FAST_NAMES, "fast_names", KEPT) \
	X(FAST_COUNTERS, "fast_counters", KEPT) \
	X(FAST_EXITS, "fast_exits", KEPT) \
	X(FAST_REDIRECTS, "fast_redirects", KEPT) \
	X(PORT_LIMITS, "port_limits", KEPT)

#define DATAPATH_MAP_ENUM(sym, name, group) MAP_##sym,
enum { DATAPATH_MAPS(DATAPATH_MAP_ENUM) MAP_KNOWN, MAP_MAX = 64 };
#undef DATAPATH_MAP_ENUM

struct map {
	char name[16]; /* BPF_OBJ_NAME_LEN */
	int fd;	       /* -1: not there */
	uint32_t type, key_size, value_size, max_entries;
	bool fresh; /* made by this load */
};

/* Tables whose rows have keys of their own, in the order in which they are written; they are removed in the opposite one. */
enum {
	TABLE_PORT_VLANS,
	TABLE_ROUTES,
	TABLE_ENDPOINTS,
	TABLE_PEER_PREFIXES,
	TABLE_PEER_ADDRESSES,
	TABLE_VNIS,
	TABLE_WIRES,
	TABLES
};

/* What one of them holds, in the form and order of the topology's. Nobody but the agent writes it, so it need not be read. */
struct table_rows {
	uint8_t *rows;
	size_t n;
	bool unknown; /* a write failed half-way: the map must be read */
};

/* Whom the networks flood to: ports, and peers. The list of each network as packets walk it. */
enum { LISTS_PORTS, LISTS_PEERS, LISTS };
struct member_list {
	uint32_t *ids;
	uint32_t n;
	bool unknown;
};

/*
 * Programs of a load: one for each hook, XDP's other form, and those of steer.c: at far ends of ports' veths, and on ports of workers; each of these once more
 * with the flag for packets in several buffers.
 */
enum {
	PROGRAM_XDP_GENERIC = HD_HOOKS,
	PROGRAM_XDP_PORT,
	PROGRAM_XDP_PORT_SEVERAL,
	PROGRAM_XDP_SWITCH,
	PROGRAM_XDP_SWITCH_SEVERAL,
	PROGRAM_COUNT
};

/* One set of programs with the maps they use. Entries from MAP_KNOWN on are scratch maps of the programs' own. */
struct load {
	struct map maps[MAP_MAX];
	unsigned n_maps;
	int program[PROGRAM_COUNT]; /* those of generic XDP and of ports only once a device needs them */
	int ageing, ageing_type;    /* arms the kernel's timer when run */
	int clock, clock_type;	    /* tells the time in ticks when run */
	int credit;		    /* gives flows what a NIC has counted; -1 until first asked for */
	int deny;		    /* the same for rules that deny, loaded with it */
	int twin[HD_HOOKS];	    /* for explain; -1 until first asked for */
	struct datapath_program info[PROGRAM_COUNT];
	struct hd_control *control;  /* mapped; NULL: adopted maps only, of programs that some other agent loaded */
	struct hd_network *networks; /* mapped as far as networks_reach() was asked to; with control */
	uint32_t networks_mapped;
	uint32_t networks_end;	  /* entries from here on were never written */
	struct hd_peer *peers;	  /* mapped; with control */
	struct hd_tunnel *tunnel; /* mapped; with control */
	struct table_rows tables[TABLES];
	struct member_list *lists[LISTS]; /* HD_NETWORKS each; with control */
	bool attached;			  /* packets may be reading its tables */
	uint8_t *reset; /* bit for each rule id whose counters begin at 0 in this load; NULL: nothing to carry over */
};

#define HOOK_PROGRAMS(X) \
	X(XDP_UPLINK, "xdp_uplink") \
	X(TC_UPLINK_IN, "tc_uplink_in") \
	X(TC_UPLINK_OUT, "tc_uplink_out") \
	X(TC_PORT_IN, "tc_port_in") \
	X(TC_PORT_OUT, "tc_port_out") \
	X(TC_WIRE_IN, "tc_wire_in") \
	X(TC_TUNNEL_IN, "tc_tunnel_in") \
	X(TC_HOST_OUT, "tc_host_out")
/* Those before it are loaded at once, the ports' once there is a Port, the wire's once a network has a VLAN, the last two with the tunnel. */
#define UPLINK_HOOKS HD_HOOK_TC_PORT_IN
extern const char *const hook_program_name[HD_HOOKS];

enum link_kind { LINK_XDP, LINK_TCX_IN, LINK_TCX_OUT, LINK_KINDS };
extern const char *const link_kind_name[LINK_KINDS]; /* the pin is NAME_DEVICE */

/* STACK: the agent's device by which the host's stack sends to who is behind peers. It has no record: what our programs put in there is not judged again. */
enum attached_role { ROLE_UPLINK, ROLE_PORT, ROLE_STACK };

/* Who takes frames out of their tunnel on an uplink. NONE: they come in elsewhere, or it is not known. */
enum decap { DECAP_NONE, DECAP_XDP, DECAP_TC };

/* A guarded or switched device, or one that an earlier agent had. */
struct attached {
	char device[IF_NAMESIZE];
	uint32_t ifindex;
	enum attached_role role;
	const struct load *in;	    /* of a port: whose programs run there; NULL: not known */
	const struct load *written; /* of a port: in whose tables its record is; NULL: not known */
	struct hd_port record;	    /* of a port: as it was last written there, with its policy in [0] */
	bool doubtful;		    /* of a port: its links may have ended, or not be known */
	int refused;		    /* of a port that is not attached: why its record could not be written; 0: it was */
	bool listed;		    /* among the ports that are wanted */
	int link[LINK_KINDS];	    /* -1 */
	uint32_t xdp_flags;	    /* XDP_FLAGS_DRV_MODE or XDP_FLAGS_SKB_MODE while link[LINK_XDP] is there */
	bool clsact;		    /* our filters are on the clsact qdisc */
	char xdp_reason[160];
	enum decap decap;
	char decap_reason[DECAP_REASON];
	unsigned foreign_ahead;
};

#define ATTACHED_HINTS 4096

/* The agent's own, by ifindex; 0: not there. See hd_tunnel. */
struct tunnel_devices {
	uint32_t slow, sum, stack;
};

struct datapath {
	char *bpffs;
	enum datapath_tc tc;
	bool tcx_refused;  /* the kernel has no TCX */
	int lock;	   /* the directory <bpffs>/heddle, flock()ed */
	struct load *live; /* in force; adopted maps at first; NULL: nothing was found */
	struct load *next; /* loaded, not yet gone live */
	uint32_t last_generation;
	struct attached *attached;
	size_t n_attached;
	uint16_t attached_hint[ATTACHED_HINTS]; /* by ifindex: where one was found last */
	struct datapath_attachment *report;
	size_t n_report;
	bool grace_pending; /* published, and some packet may still read what was there before */
	int grace_outer, grace_inner;
	struct ring_buffer *ring;
	datapath_event_cb event_cb;
	void *event_data;
	unsigned event_budget;
	struct far_end *far_ends; /* of veths whose near end is a port, and ports of workers: steer.c */
	size_t n_far_ends;
	struct tunnel_devices tunnel_devices;
	int packet_socket, raw_socket[2];
};

/* The load that the next write goes to, or NULL: nothing loaded yet. */
struct load *load_writable(struct datapath *dp);
/* The load whose state maps hold the truth, or NULL. */
const struct load *load_readable(const struct datapath *dp);
static inline int load_map(const struct load *load, unsigned index)
{
	return load ? load->maps[index].fd : -1;
}

/* load.c */
int program_describe(int fd, enum hd_hook hook, struct datapath_program *ret);
struct load *load_new(void);
void load_free(struct load *load);
DEFINE_CLEANUP(struct load *, load_free);
void load_drop(struct datapath *dp, struct load *load);	   /* frees it, and what is known of devices in it */
int load_generic(struct load *load);			   /* the program of generic XDP, unless it is there */
int load_ports(struct load *load, bool wire, bool tunnel); /* the programs of ports, and those two; unless they are there */
int load_steer(struct load *load, unsigned program);	   /* one of those of steer.c, unless it is there */
int load_reuse_maps(const struct load *load, struct bpf_object *object); /* another object over the same maps */
int map_index(const char *name);					 /* -ENOENT: a scratch map */
int map_fill_info(struct map *map);					 /* from map->fd */
uint32_t tick_now(const struct load *load);				 /* 0 without programs */
uint64_t ticks_of_ms(uint64_t ms);					 /* rounded up */
uint64_t ms_of_ticks(uint64_t ticks);

/* objects.c: the embedded BPF objects */
enum object_id {
	OBJECT_XDP,
	OBJECT_XDP_GENERIC,
	OBJECT_XDP_PORT,
	OBJECT_XDP_SWITCH,
	OBJECT_TC,
	OBJECT_TC_PORT,
	OBJECT_AGEING,
	OBJECT_SLOTS,
	OBJECT_OFFLOAD,
	OBJECT_COUNT
};
static inline enum object_id program_object(unsigned program)
{
	switch (program) {
	case PROGRAM_XDP_GENERIC:
		return OBJECT_XDP_GENERIC;
	case PROGRAM_XDP_PORT:
	case PROGRAM_XDP_PORT_SEVERAL:
		return OBJECT_XDP_PORT;
	case PROGRAM_XDP_SWITCH:
	case PROGRAM_XDP_SWITCH_SEVERAL:
		return OBJECT_XDP_SWITCH;
	case HD_HOOK_XDP_UPLINK:
		return OBJECT_XDP;
	case HD_HOOK_TC_PORT_IN:
	case HD_HOOK_TC_PORT_OUT:
	case HD_HOOK_TC_WIRE_IN:
	case HD_HOOK_TC_TUNNEL_IN:
	case HD_HOOK_TC_HOST_OUT:
		return OBJECT_TC_PORT;
	}
	return OBJECT_TC;
}
int object_open(enum object_id id, struct bpf_object **ret);
void objects_forget(void); /* gives the memory of their bytes back (1.6 MiB); who opens one reads it from the executable again */
int object_set_constant(
	struct bpf_object *object, const char *name, const void *value, size_t value_size); /* in .rodata, before loading */
int object_load(struct bpf_object *object, const char *what);				    /* logs the verifier's first cause */
void object_log_init(void);
int program_run_once(int fd, int type, uint32_t *ret_value);

/* carry.c: contents from an older map to a larger new one */
int map_carry(const struct map *from, const struct map *to,
	const uint8_t *skip); /* an index whose bit is set in skip keeps what `to` holds */

/* pins.c */
#define BPFFS_SOURCE "heddle"
int bpffs_prepare(const char *bpffs);
bool bpffs_is(const char *path);
int bpffs_lock(const char *bpffs, bool create, unsigned patience_ms, int *ret_fd);
int pin_over(const char *bpffs, const char *directory, const char *name, int fd);
#define LINK_PIN_NAME 64
void link_pin_name(char name[LINK_PIN_NAME], const char *device, enum link_kind kind);
int pin_link(const struct datapath *dp, const struct attached *at, enum link_kind kind);
void pin_link_remove(const struct datapath *dp, const char *device, enum link_kind kind);
void pin_remove(const char *bpffs, const char *directory, const char *name);
void pin_remove_temporaries(const char *bpffs);
/* Every name in <bpffs>/heddle/<directory>; cb may remove it. Non-zero ends the walk. A missing directory is an empty one. */
typedef int (*pin_cb)(const char *path, const char *name, void *userdata);
int pin_each(const char *bpffs, const char *directory, pin_cb cb, void *userdata);
/* That the clsact qdisc of a device was made by us. */
int clsact_mark(const char *bpffs, uint32_t ifindex);
bool clsact_marked(const char *bpffs, uint32_t ifindex);
bool clsact_unmark(const char *bpffs, uint32_t ifindex); /* true: it was marked */

/* adopt.c */
int adopt(struct datapath *dp, bool *found);

/* attach*.c */
struct attached *attached_by_ifindex(struct datapath *dp, uint32_t ifindex);
struct attached *attached_by_device(struct datapath *dp, const char *device);
struct attached *attached_add(struct datapath *dp, const char *device, uint32_t ifindex); /* an uplink, unless it was there */
void attached_release(struct datapath *dp, size_t index); /* takes everything of ours off it, or forgets what went with it */
void attached_refresh(struct datapath *dp, struct attached *at, const char *device, bool *renamed); /* its links and its name */
void attached_remove_old_names(struct datapath *dp); /* pins of links, after a rename */
int attach_tc(struct datapath *dp, struct load *load, struct attached *at);
void count_foreign(const struct load *load, struct attached *at);
int carry_over(struct datapath *dp); /* counters, just before the first update of a link */
/* The program on one side of the device: HD_INGRESS is what comes in from it. */
static inline enum hd_hook attached_hook(const struct attached *at, enum hd_direction side)
{
	if (at->role == ROLE_PORT)
		return side == HD_INGRESS ? HD_HOOK_TC_PORT_IN : HD_HOOK_TC_PORT_OUT;
	if (at->role == ROLE_STACK && side == HD_EGRESS)
		return HD_HOOK_TC_HOST_OUT;
	return side == HD_INGRESS ? HD_HOOK_TC_UPLINK_IN : HD_HOOK_TC_UPLINK_OUT;
}
int link_inspect(int fd, enum link_kind *ret_kind, uint32_t *ret_ifindex, uint32_t *ret_program);
int attached_report(struct datapath *dp); /* what datapath_attachments() tells */
int xdp_attach(struct datapath *dp, struct load *load, struct attached *at, const struct datapath_uplink *uplink);
bool xdp_keeps(const struct attached *at, enum xdp_mode want);
bool xdp_spoils_tunnel(const struct datapath_uplink *uplink); /* XDP is better left off there, unless the document asks for it */
static inline bool uplink_is_veth(const struct datapath_uplink *uplink)
{
	return strcmp(uplink->driver, "veth") == 0;
}
int xdp_mode_of(uint32_t ifindex, uint32_t program_id, uint32_t *ret_flags);
unsigned xdp_program(uint32_t flags); /* which one of a load goes with this mode */
int xdp_update(struct load *load, const struct attached *at);
unsigned xdp_foreign(uint32_t ifindex, uint32_t own_id);
int tcx_attach(struct datapath *dp, struct load *load, struct attached *at);
unsigned tcx_foreign_ahead(uint32_t ifindex, int attach_type, uint32_t own_id); /* own_id 0: all that is there */
void attached_drop_link(struct datapath *dp, struct attached *at, enum link_kind kind);

/* attach_decap.c */
/* The record says so already, and shall go on. */
bool decap_stays(struct load *load, const struct attached *at, const struct datapath_uplink *uplink);
/* Once XDP and TC are attached: XDP takes frames out where it shall, and status says why or why not. */
int decap_begin(struct load *load, struct attached *at, const struct datapath_uplink *uplink);
/* XDP does it no more, and no frame that it took out is on its way any more: waits for that. */
void decap_end(struct datapath *dp, const struct attached *at);

int clsact_make(const char *bpffs, uint32_t ifindex); /* the qdisc. 1: there was none; -EEXIST: another one is in its place */
int clsact_attach(struct datapath *dp, struct load *load, struct attached *at);
/* Takes our filters off the device, and the qdisc when it was made by us and nobody else uses it. */
int clsact_detach(const char *bpffs, uint32_t ifindex);
bool clsact_whole(uint32_t ifindex); /* both of our filters are there, or the kernel does not say */
struct clsact_filter {
	uint32_t ifindex;
	enum hd_direction direction;
	uint32_t handle, priority;
	uint32_t program_id; /* 0: not of kind bpf */
	bool ours;
};
typedef int (*clsact_filter_cb)(const struct clsact_filter *filter, void *userdata);
int clsact_each(uint32_t ifindex, clsact_filter_cb cb, void *userdata); /* of one device */
unsigned clsact_foreign_ahead(uint32_t ifindex);
int clsact_devices(uint32_t **ret, size_t *ret_n); /* ifindexes with a clsact qdisc */

/* tables.c */
/* fixed: everything but `moved` and the policy, which stay as they are, the latter when policy is NULL. */
int port_write(struct load *load, const struct hd_port *fixed, const struct hd_port_policy *policy);
int port_set_flags(struct load *load, uint32_t ifindex, uint16_t set, uint16_t clear);
int port_set_moved(struct load *load, uint32_t ifindex, uint32_t tick);
int port_read(const struct load *load, uint32_t ifindex, struct hd_port *ret); /* -ENOENT */
int port_clear(struct load *load, uint32_t ifindex);

/* Who must look again: of whom an address, a MAC or a prefix came, went or moved. */
struct moved {
	uint32_t *ifindex; /* of ports; some more than once */
	size_t n, capacity;
	uint64_t peer[HD_PEERS_MAX / 64]; /* a bit for each index */
};

/* rows.c: networks, and tables by key */
int networks_reach(struct load *load, uint32_t end); /* their records are mapped as far as that */
void networks_leave(struct load *load);
void rows_free(struct load *load);
int rows_remove(
	struct load *load, const struct topology *t, struct moved *moved); /* what is not wanted, or shall mean something else */
int rows_networks(struct load *load, const struct topology *t);
int rows_write(struct load *load, const struct topology *t, const struct tunnel_devices *devices,
	struct moved *moved); /* all but the networks themselves */

/* limits.c: what ports have used of their rates */
void limits_forget(const struct load *load, uint32_t ifindex);
void limits_prune(const struct load *load);

/* flood.c: whom networks flood to */
int flood_init(struct load *load);
void flood_free(struct load *load);
int flood_write(struct load *load, const struct topology *t, bool add); /* else what is not wanted goes, and nothing comes */

/* overlay.c: this end of the tunnel, and the peers */
int overlay_map(struct load *load, const struct load *old); /* what old knows of the ways to peers is taken over */
void overlay_unmap(struct load *load);
void overlay_add(struct load *load, const struct topology *t); /* peers that are new, before anything leads to them */
/* Addresses that changed; this end. */
void overlay_change(struct load *load, const struct topology *t, const struct tunnel_devices *devices);
void overlay_remove(
	struct load *load, const struct topology *t); /* peers that nothing leads to any more; this end where there is none */
const struct topology_peer *overlay_find(const struct topology *t, uint32_t index);

/* flows.c */
void flow_key_of(const struct datapath_flow *flow, union hd_flow_key *ret); /* of an IPv4 flow, the rest is 0 */

/* steer.c: fast paths */
bool steer_at(const struct load *load, uint32_t ifindex); /* some packets of the device go to sockets: HD_PORT_FAST */
int steer_adopt(struct datapath *dp);			  /* what an earlier agent attached */
/* A port's programs are those of this load from now on: so is the one that asks the same tables before them. It goes where there is none of this load. */
void steer_follow(struct datapath *dp, struct load *load, uint32_t ifindex);
void steer_close(struct datapath *dp);

/* grace.c */
int grace_wait(struct datapath *dp);

/* events.c */
int events_open(struct datapath *dp, int fd);

/* reject_packet.c: no I/O */
struct reject_packet {
	uint8_t data[512];
	size_t length;
	size_t l3_offset;
	uint8_t family; /* 4 or 6 */
};
bool reject_to_device(const struct hd_event *event); /* else to the host's stack: no Ethernet header */
int reject_build(const struct hd_event *event, const struct datapath_router *router, struct reject_packet *ret);

#endif
