/* SPDX-License-Identifier: Apache-2.0 */
/*
 * heddle-cni: one verb of one container, and out. Steps answer 0 or a negative errno that is already told in a struct failure, whose code is
 * the specification's.
 */
#ifndef HEDDLE_CNI_CNI_H
#define HEDDLE_CNI_CNI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include <heddle/types.h>
#include <util/addr.h>
#include <util/buffer.h>
#include <util/cleanup.h>

/* --- failures --- */

enum failure_code {
	FAILURE_VERSION = 1,	  /* incompatible CNI version */
	FAILURE_FIELD = 2,	  /* unsupported field */
	FAILURE_CONTAINER = 3,	  /* unknown container: nothing to clean up */
	FAILURE_ENVIRONMENT = 4,  /* missing or invalid environment variables */
	FAILURE_IO = 5,		  /* standard input cannot be read, … */
	FAILURE_DECODE = 6,	  /* not JSON, or of another shape */
	FAILURE_CONFIG = 7,	  /* invalid network configuration */
	FAILURE_NETNS = 8,	  /* the namespace is not the container's */
	FAILURE_AGAIN = 11,	  /* try again later */
	FAILURE_UNAVAILABLE = 50, /* STATUS: no ADD can be done */
	FAILURE_NETWORK = 100,	  /* ours: netlink refused something */
	FAILURE_AGENT = 101,	  /* ours: heddled refused something */
	FAILURE_CHECK = 102,	  /* ours: what an ADD made is not there any more */
	FAILURE_INTERNAL = 999,
};

struct failure {
	unsigned code; /* 0: none */
	struct buffer message, details;
};
void failure_clear(struct failure *failure);
/* The first one stays. r: a negative errno, which is returned; 0 becomes -EINVAL. */
int fail_with(struct failure *failure, unsigned code, int r, const char *format, ...) __attribute__((format(printf, 4, 5)));
/* As standard output wants it. NULL: no memory. */
json_t *failure_json(const struct failure *failure, const char *version);

/* --- config.c: environment and standard input --- */

enum verb { VERB_ADD, VERB_DEL, VERB_CHECK, VERB_GC, VERB_STATUS, VERB_VERSION, VERB_COUNT };

enum version {
	VERSION_010,
	VERSION_020,
	VERSION_030,
	VERSION_031,
	VERSION_040,
	VERSION_100,
	VERSION_110,
	VERSION_COUNT,
};
#define VERSION_NEWEST VERSION_110
const char *version_name(enum version version);
int version_from_name(const char *name); /* -1: unknown */

/* What CNI_* say; an empty one is NULL. */
struct environment {
	const char *command, *container, *netns, *ifname, *args, *path, *netns_override;
};

struct config {
	enum verb verb;
	enum version version; /* of the configuration, and of the answer */
	struct environment env;
	char *arguments; /* a copy of CNI_ARGS, which the next five point into */
	const char *pod, *namespace_, *uid, *args_ip, *args_mac;
	json_t *root;		/* standard input */
	const char *name;	/* of the configuration; NULL: VERSION, and STATUS without one */
	const char *network;	/* of heddle; NULL: none given */
	const char *socket;	/* heddled's */
	const char *state_dir;	/* heddled's, where VFs that containers have are recorded */
	char pci[20];		/* of a VF, lower case; "": a veth pair is made */
	const json_t *vf;	/* what its NIC shall do for it, as spec.vf of a Port has it; NULL: nothing in particular */
	const char *ipam;	/* an IPAM plugin to run; NULL: heddled's own */
	const json_t *ranges;	/* of the built-in one; NULL: the network's subnets */
	json_t *labels;		/* of the Port; never NULL */
	json_t *ips;		/* wanted addresses; never NULL */
	json_t *host_ports;	/* ports of the host that lead to it, as a Port has them; never NULL */
	const char *mac;	/* wanted; NULL: any */
	json_t *dns;		/* as the result has it; never NULL */
	json_t *bandwidth;	/* of the Port: empty where the runtime says none; never NULL */
	const json_t *previous; /* prevResult; NULL: none */
	const json_t *valid;	/* GC: attachments to keep */
};
void config_clear(struct config *config);

/* text: standard input. 0 or a failure; *ret can be cleared either way, and its version says in which one to answer. */
int config_decode(const struct environment *env, const char *text, size_t length, struct config *ret, struct failure *failure);
/* The value of a key, exactly that one first, then in any case, as programs in Go write and read them. NULL: none, or null. */
json_t *any_case(const json_t *object, const char *key);

/* Of the host's end: the same for the same attachment, and nobody else's. */
#define DEVICE_NAME_MAX 16
void config_device(const char *name, const char *container, const char *ifname, char ret[DEVICE_NAME_MAX]);
#define ALIAS_MAX 256
void config_alias(const char *container, const char *ifname, char ret[ALIAS_MAX]);

/* --- result.c: what an ADD answers, and what others answered --- */

struct address {
	struct hd_addr addr;
	uint8_t length; /* bits in its own family's terms */
	bool has_gateway;
	struct hd_addr gateway;
};

struct route {
	struct hd_addr to;
	uint8_t length; /* as of an address */
	bool has_gateway;
	struct hd_addr gateway;
};

struct result {
	struct address *addresses;
	struct route *routes;
	size_t n_addresses, n_routes;
	json_t *dns; /* NULL: none */
	char mac[MAC_TEXT_MAX];
	uint32_t mtu;
};
void result_clear(struct result *result);
int result_add_address(struct result *result, const struct address *address);
int result_add_route(struct result *result, const struct route *route);
/* ips, routes and dns of any version's result; of those with interfaces, only the addresses of ifname (NULL: of all). */
int result_decode(const json_t *json, const char *ifname, struct result *ret, struct failure *failure);
/* In the configuration's version, behind what prevResult has. device NULL: the host has no end of it. NULL: no memory. */
json_t *result_encode(const struct config *config, const struct result *result, const char *device, const char *device_mac);

/* --- link.c: devices, by netlink --- */

struct links; /* a socket in one namespace */
struct mnl_socket;
struct mnl_socket *links_socket(struct links *links);
int links_open(struct links **ret);		  /* in this one */
int links_open_in(int netns, struct links **ret); /* in that one; this process stays where it is */
void links_close(struct links *links);		  /* NULL is fine */
static inline void links_close_p(struct links **links)
{
	links_close(*links);
}

struct link {
	uint32_t index; /* 0: there is none */
	bool up, veth;
	bool passes; /* operationally up: what is sent through it is not thrown away */
	uint32_t mtu;
	char name[DEVICE_NAME_MAX], mac[MAC_TEXT_MAX], alias[ALIAS_MAX];
};
int links_find(struct links *links, const char *name, struct link *ret); /* -ENODEV */
typedef int (*link_seen)(const struct link *link, void *userdata);
int links_each(struct links *links, link_seen seen, void *userdata);
/* Both ends down, the peer in another namespace from its first moment. -EEXIST: one of both names is in use. */
int links_make(struct links *links, const char *name, int peer_netns, const char *peer, const char *mac, uint32_t mtu);
int links_set_up(struct links *links, const char *name, const char *alias); /* alias NULL: as it is */
int links_wait(struct links *links, const char *name, unsigned ms);	    /* until it passes; -ETIMEDOUT */
int links_remove(struct links *links, uint32_t index);
int links_add_address(struct links *links, uint32_t index, const struct address *address);
/* gateway_on_link: it is in no subnet of the device. Where there is such a route already, it stays. */
int links_add_route(struct links *links, uint32_t index, const struct route *route, bool on_link);
int links_has_address(struct links *links, uint32_t index, const struct hd_addr *addr); /* 1, 0 or -errno */
int links_has_route(struct links *links, uint32_t index, const struct route *route);	/* the same; through whatever gateway */
/* A container's namespace: -EINVAL where the file is something else. */
int netns_own(void); /* an fd, or -1 with errno */
int netns_open(const char *path, int *ret);
bool netns_is_own(int netns);
int netns_allow_ipv6(int netns, const char *device);

/* --- agent.c: heddled's API --- */

struct agent;								 /* a connection */
int agent_connect(const char *path, int timeout_ms, struct agent **ret); /* -EAGAIN: not in time */
/*
 * It ended in good order a moment ago, while it could serve, as it does when it is upgraded: the next one is on its way. A node that says meanwhile
 * that it has no network loses its Pods to other nodes' Services.
 */
bool agent_has_left(const char *path);
void agent_close(struct agent *agent); /* NULL is fine */
static inline void agent_close_p(struct agent **agent)
{
	agent_close(*agent);
}
/* body may be NULL: GET. *ret_status is HTTP's, *ret what was answered. Negative: no answer. */
int agent_ask(struct agent *agent, const char *path, const json_t *body, int timeout_ms, unsigned *ret_status, json_t **ret);
/* TEXT as it may stand behind `?key=`. */
void agent_quote(struct buffer *to, const char *text);

/* --- vf.c: the interface of a VF in place of a veth pair; its record is in heddled's state directory (netdev/vf_loan.h) --- */

/* What heddled says of it. */
struct vf_offer {
	bool interface;	      /* it has one; else a driver of user space has it */
	bool legacy;	      /* the NIC switches by itself: there is no representor */
	uint32_t representor; /* its ifindex */
};
/* Records it, and moves its interface, if it has one, into the container, where it is down and called CNI_IFNAME. */
int vf_take(const struct config *config, struct links *host, struct links *inside, int netns, const struct vf_offer *offer,
	uint32_t mtu, struct failure *failure);
/* Once heddled has told the NIC about it. */
int vf_set_mac(struct links *inside, uint32_t index, const char *mac, struct failure *failure);
/*
 * Gives back what this attachment has of VFs, wherever it is by now. netns: of CNI_NETNS; NULL: as recorded. 0 also where there is none; 1: not all of it
 * can be put back yet, heddled does that, or a second call behind the Port's release.
 */
int vf_give_back(const struct config *config, struct links *host, const char *container, const char *ifname, const char *netns,
	struct failure *failure);
/* Of this configuration, those of attachments that are not to be kept. */
int vf_collect(const struct config *config, struct links *host,
	bool (*keep)(const struct config *config, const char *container, const char *ifname), struct failure *failure);
/* CHECK. 1: it has an interface in the container. */
int vf_check(const struct config *config, struct failure *failure);

/* --- delegate.c: an IPAM plugin --- */

/* Runs it with this process's environment and standard input. *ret (may be NULL): what it wrote, if that is JSON. */
int delegate_run(const struct config *config, const char *command, json_t **ret, struct failure *failure);

/* --- the verbs --- */

/* answer: what goes to standard output; stays NULL where nothing does. */
int verb_add(const struct config *config, json_t **answer, struct failure *failure);
int verb_del(const struct config *config, struct failure *failure);
int verb_check(const struct config *config, struct failure *failure);
int verb_gc(const struct config *config, struct failure *failure);
int verb_status(const struct config *config, struct failure *failure);

/* Of whatever attachment, over an open connection: its Port and addresses go. */
int attachment_release(struct agent *agent, const char *name, const char *container, const char *ifname, struct failure *failure);
/* What all of them know of the agent's answers: the failure of one that is no success. */
int agent_failure(unsigned status, const json_t *answer, struct failure *failure);
#define AGENT_CONNECT_MS 1000
#define AGENT_ADD_CONNECT_MS 10000 /* many containers at once wait for each other */
#define AGENT_ANSWER_MS 20000
#define AGENT_DEL_MS 3000

/* The host's end of the attachment goes, if it is that. 0 also where there is none. */
int detach(struct links *links, const char *device, const char *alias, struct failure *failure);

#endif
