/* SPDX-License-Identifier: Apache-2.0 */
/*
 * VFs for containers. Nothing is done to a VF that is not in its record before, and nothing is put back but by that record: a DEL that comes late, or
 * twice, finds none, or that of the container which has the VF by now.
 */
#include <cni/cni.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <netdev/netns_id.h>
#include <netdev/vf_loan.h>
#include <util/clock.h>

#define BACK_MS 2000 /* a namespace that ends gives its interfaces back behind everybody's back */

static int cannot(struct failure *failure, const char *what, const char *pci, int r)
{
	return fail_with(failure, FAILURE_NETWORK, r, "cannot %s VF %s: %s", what, pci, strerror(-r));
}

/* --- namespaces --- */

static bool is_recorded(int netns, const struct vf_loan *loan)
{
	struct stat status;

	return fstat(netns, &status) == 0 && (uint64_t)status.st_dev == loan->netns_device &&
	       (uint64_t)status.st_ino == loan->netns_inode;
}

/* The namespace that the VF was moved into, if one of these paths still leads there; the runtime's own is none. */
static struct links *enter_recorded(const struct vf_loan *loan, const char *path)
{
	const char *paths[] = {path, loan->netns};
	struct links *links = NULL;

	for (size_t i = 0; i < ARRAY_SIZE(paths) && !links; i++) {
		_cleanup_close_ int netns = -1;

		if (!paths[i] || netns_open(paths[i], &netns) < 0 || !is_recorded(netns, loan) || netns_is_own(netns))
			continue;
		if (links_open_in(netns, &links) < 0)
			links = NULL;
	}
	return links;
}

/* --- giving back --- */

static int end(int loans, struct links *host, const struct vf_loan *loan, const char *netns)
{
	_cleanup_(links_close_p) struct links *inside = NULL;
	_cleanup_close_ int own = netns_own();
	char boot[64], reason[VF_LOAN_TEXT_MAX] = "";
	int r;

	if (own < 0)
		return -errno;
	vf_loan_boot(boot);
	if (strcmp(loan->boot, boot) != 0)
		return vf_loan_remove(loans, loan->pci);
	inside = enter_recorded(loan, netns);
	r = vf_loan_end(loans, links_socket(host), own, inside ? links_socket(inside) : NULL, loan, reason);
	if (reason[0])
		fprintf(stderr, "heddle-cni: VF %s: %s\n", loan->pci, reason);
	return r;
}

struct ending {
	const struct config *config;
	int loans;
	struct links *host;
	const char *container, *ifname, *netns; /* of one attachment */
	/* or of all but some */
	bool (*keep)(const struct config *config, const char *container, const char *ifname);
	int left;
};

static int end_if_meant(const struct vf_loan *loan, void *userdata)
{
	struct ending *ending = userdata;
	int r;

	if (ending->keep ? strcmp(loan->name, ending->config->name) != 0 ||
				   ending->keep(ending->config, loan->container, loan->interface)
			 : !vf_loan_is(loan, ending->config->name, ending->container, ending->ifname))
		return 0;
	r = end(ending->loans, ending->host, loan, ending->netns);
	ending->left |= r > 0;
	return r < 0 ? r : 0;
}

static int end_all(struct ending *ending, struct failure *failure)
{
	_cleanup_close_ int loans = vf_loans_open(ending->config->state_dir, false), lock = -1;
	int r;

	/* where there is no such directory, nobody has ever had a VF */
	if (loans == -ENOENT)
		return 0;
	if (loans < 0)
		return fail_with(failure, FAILURE_IO, loans, "stateDir: %s: %s", ending->config->state_dir, strerror(-loans));
	lock = vf_loans_lock(loans, true);
	ending->loans = loans;
	r = lock < 0 ? lock : vf_loans_each(loans, end_if_meant, ending);
	return r < 0 ? fail_with(failure, FAILURE_NETWORK, r, "cannot give VFs back: %s", strerror(-r)) : ending->left;
}

int vf_give_back(const struct config *config, struct links *host, const char *container, const char *ifname, const char *netns,
	struct failure *failure)
{
	struct ending ending = {.config = config, .host = host, .container = container, .ifname = ifname, .netns = netns};

	return end_all(&ending, failure);
}

int vf_collect(const struct config *config, struct links *host,
	bool (*keep)(const struct config *config, const char *container, const char *ifname), struct failure *failure)
{
	struct ending ending = {.config = config, .host = host, .keep = keep};

	return end_all(&ending, failure);
}

/* --- taking --- */

/* Until the interface is in the host's namespace. */
static int wait_for(struct links *host, const char *pci, struct vf_link *ret)
{
	uint64_t deadline = clock_ms() + BACK_MS;
	int r;

	while ((r = vf_link_find(links_socket(host), pci, ret)) == -ENODEV && clock_ms() < deadline)
		(void)poll(NULL, 0, 20);
	return r;
}

/* The container is there, and has it. One whose VF is in user space has it as long as it lives. */
static bool is_used(const struct vf_loan *loan)
{
	_cleanup_(links_close_p) struct links *inside = loan->ended ? NULL : enter_recorded(loan, NULL);
	struct vf_link link;

	return inside && (!loan->vf.ifindex || vf_link_find(links_socket(inside), loan->pci, &link) == 0);
}

/* Its Port goes too: two cannot have one VF. */
static void release_earlier(const struct config *config, const struct vf_loan *loan)
{
	__attribute__((cleanup(failure_clear))) struct failure ignored = {0};
	_cleanup_(agent_close_p) struct agent *agent = NULL;

	if (agent_connect(config->socket, AGENT_CONNECT_MS, &agent) == 0)
		(void)attachment_release(agent, loan->name, loan->container, loan->interface, &ignored);
}

/*
 * What an earlier container has left of it. *ret: how the interface was before that one had it, where that could not all be put back; ifindex 0: as it
 * is found.
 */
static int settle_earlier(
	const struct config *config, int loans, struct links *host, struct vf_link *ret, struct failure *failure)
{
	_cleanup_(links_close_p) struct links *inside = NULL;
	const struct environment *env = &config->env;
	struct vf_loan loan;
	struct vf_link link;
	bool own;
	int r = vf_loan_read(loans, config->pci, &loan);

	*ret = (struct vf_link){0};
	if (r == -ENOENT)
		return 0;
	if (r < 0)
		return fail_with(failure, FAILURE_IO, r, "stateDir: cannot read %s/loans/%s: %s", config->state_dir, config->pci,
			strerror(-r));
	own = vf_loan_is(&loan, config->name, env->container, env->ifname);
	if (!own && is_used(&loan))
		return fail_with(failure, FAILURE_AGAIN, -EBUSY, "VF %s is %s of container %s", config->pci, loan.interface,
			loan.container);
	inside = enter_recorded(&loan, NULL);
	/* that its namespace is out of reach does not say that it is gone: its interface does */
	if (loan.vf.ifindex && !inside && wait_for(host, config->pci, &link) < 0)
		return fail_with(
			failure, FAILURE_AGAIN, -EBUSY, "VF %s has not come back from container %s", config->pci, loan.container);
	r = end(loans, host, &loan, NULL);
	if (r < 0)
		return cannot(failure, "put back", config->pci, r);
	if (!own)
		release_earlier(config, &loan);
	if (r > 0)
		*ret = loan.vf;
	return 0;
}

static void record(const struct config *config, struct links *host, int netns, struct vf_loan *loan)
{
	struct stat status = {0};

	(void)fstat(netns, &status);
	*loan = (struct vf_loan){.netns_device = (uint64_t)status.st_dev, .netns_inode = (uint64_t)status.st_ino};
	/* Without it nobody is told when the namespace ends: it is then as if the container went on. */
	if (netns_id(links_socket(host), netns, &loan->netns_id) < 0)
		loan->netns_id = NETNS_ID_NONE;
	vf_loan_boot(loan->boot);
	memcpy(loan->pci, config->pci, sizeof(loan->pci));
	snprintf(loan->name, sizeof(loan->name), "%s", config->name);
	snprintf(loan->container, sizeof(loan->container), "%s", config->env.container);
	snprintf(loan->interface, sizeof(loan->interface), "%s", config->env.ifname);
	snprintf(loan->netns, sizeof(loan->netns), "%s", config->env.netns);
}

static int set_up_representor(struct links *host, const struct vf_link *representor, uint32_t mtu)
{
	int r = representor->mtu < mtu ? vf_link_set_mtu(links_socket(host), representor->ifindex, mtu) : 0;

	return r < 0 || representor->flags & IFF_UP
		       ? r
		       : vf_link_set_flags(links_socket(host), representor->ifindex, representor->flags | IFF_UP);
}

static int lend(const struct config *config, struct links *host, struct links *inside, int netns, const struct vf_loan *loan,
	uint32_t mtu, struct failure *failure)
{
	struct vf_link link = {0};
	int r;

	if (loan->representor.ifindex) {
		r = set_up_representor(host, &loan->representor, mtu);
		if (r < 0)
			return cannot(failure, "set up the representor of", config->pci, r);
	}
	if (!loan->vf.ifindex)
		return 0;
	r = vf_loan_lend(links_socket(host), loan, netns, config->env.ifname);
	if (r == 0)
		r = vf_link_find(links_socket(inside), config->pci, &link);
	if (r < 0)
		return cannot(failure, "give the container", config->pci, r);
	r = vf_link_set_mtu(links_socket(inside), link.ifindex, mtu);
	return r < 0 ? fail_with(
			       failure, FAILURE_NETWORK, r, "VF %s: cannot set an MTU of %u: %s", config->pci, mtu, strerror(-r))
		     : 0;
}

static int take(const struct config *config, int loans, struct links *host, struct links *inside, int netns,
	const struct vf_offer *offer, uint32_t mtu, struct failure *failure)
{
	struct vf_link before;
	struct vf_loan loan;
	int r = settle_earlier(config, loans, host, &before, failure);

	if (r < 0)
		return r;
	record(config, host, netns, &loan);
	if (offer->interface) {
		r = wait_for(host, config->pci, &loan.vf);
		if (r == -ENODEV)
			return fail_with(failure, FAILURE_AGAIN, r,
				"the interface of VF %s is not in the host's namespace: somebody has it still", config->pci);
		if (r < 0)
			return cannot(failure, "look for", config->pci, r);
		if (before.ifindex) {
			before.ifindex = loan.vf.ifindex;
			loan.vf = before;
		}
	}
	if (offer->representor) {
		r = vf_link_get(links_socket(host), offer->representor, &loan.representor);
		if (r < 0)
			return cannot(failure, "find the representor of", config->pci, r);
	}
	r = vf_loan_write(loans, &loan);
	if (r < 0)
		return fail_with(failure, FAILURE_IO, r, "stateDir: cannot write %s/loans/%s: %s", config->state_dir, config->pci,
			strerror(-r));
	return lend(config, host, inside, netns, &loan, mtu, failure);
}

int vf_take(const struct config *config, struct links *host, struct links *inside, int netns, const struct vf_offer *offer,
	uint32_t mtu, struct failure *failure)
{
	_cleanup_close_ int loans = vf_loans_open(config->state_dir, false), lock = -1;

	if (loans < 0)
		return fail_with(failure, FAILURE_CONFIG, loans, "stateDir: want heddled's --state-dir, got %s (%s)",
			config->state_dir, strerror(-loans));
	lock = vf_loans_lock(loans, true);
	if (lock < 0)
		return fail_with(failure, FAILURE_IO, lock, "stateDir: %s: %s", config->state_dir, strerror(-lock));
	return take(config, loans, host, inside, netns, offer, mtu, failure);
}

int vf_set_mac(struct links *inside, uint32_t index, const char *mac, struct failure *failure)
{
	uint8_t octets[6] = {0};
	int r;

	(void)mac_parse(mac, octets);
	r = vf_link_set_mac(links_socket(inside), index, octets);
	return r < 0 ? fail_with(failure, FAILURE_NETWORK, r, "the VF does not take the MAC %s", mac) : 0;
}

/* --- CHECK --- */

int vf_check(const struct config *config, struct failure *failure)
{
	_cleanup_close_ int loans = vf_loans_open(config->state_dir, false);
	struct vf_loan loan;
	int r = loans < 0 ? loans : vf_loan_read(loans, config->pci, &loan);

	if (r < 0 || loan.ended || !vf_loan_is(&loan, config->name, config->env.container, config->env.ifname))
		return fail_with(failure, FAILURE_CHECK, r, "VF %s is not the container's", config->pci);
	return loan.vf.ifindex != 0;
}
