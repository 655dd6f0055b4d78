/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Containers on VFs: what the plugin is told of one, and what becomes of it when nobody says that the container is gone. The plugin moves the interface
 * and keeps the record (netdev/vf_loan.h); here is what the NIC and the policy shall do for it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <sys/stat.h>

#include <controller_internal.h>
#include <netdev/netns_id.h>
#include <netdev/vf_loan.h>
#include <observe/json.h>
#include <observe/status.h>
#include <util/netlink.h>

#define YOUNG_S 10

/* --- what is asked for --- */

/* Drivers that hand a device to a process: they make no interface. */
static bool is_user_space(const char *driver)
{
	return strstr(driver, "vfio") || strncmp(driver, "uio", 3) == 0 || strcmp(driver, "igb_uio") == 0;
}

static const struct netdev *device_at(const struct controller *c, uint32_t ifindex)
{
	return ifindex ? view_device(&c->view, ifindex) : NULL;
}

/* One that names the VF another way; those by PCI address are compared with everything else that a Port says. */
static const struct object *other_port(const struct controller *c, const struct sriov_vf *vf)
{
	for (size_t i = 0; i < c->store.all.n; i++) {
		const struct object *object = c->store.all.items[i];

		if (object->kind == OBJECT_PORT && object->port.vf_pf &&
			sriov_find(&c->sriov, c->devices, c->n_devices, object->port.vf_pf, object->port.vf_index) == vf)
			return object;
	}
	return NULL;
}

/* The NIC switches it onto the wire, by the tag that it is told, and past everything of ours. */
static int check_legacy(const struct cni_request *request, const struct object *network, struct diag *diag)
{
	if (!json_object_get(request->vf, "vlan") && !network->network.vlan) {
		diag_add(diag, NULL, 0, "vf.vlan",
			"want a VLAN, or 0 for the untagged wire: the NIC's switch is in legacy mode, and Network %s is not on "
			"the wire",
			network->name);
		return -EINVAL;
	}
	if (request->host_ports || request->bandwidth) {
		diag_add(diag, NULL, 0, request->host_ports ? "portMappings" : "bandwidth",
			"want none of a VF whose NIC's switch is in legacy mode: its packets pass none of heddle's programs");
		return -EINVAL;
	}
	return 0;
}

int cni_vf_find(struct controller *c, const struct cni_request *request, const struct object *network, struct cni_vf *ret,
	struct diag *diag)
{
	const struct sriov_vf *vf;
	const struct object *other;
	int r;

	/* a driver that is bound has no event of ours */
	c->sriov_due = true;
	r = sriov_look(c);
	if (r < 0)
		return r;
	vf = sriov_find_address(&c->sriov, request->pci);
	if (!vf) {
		diag_add(diag, NULL, 0, "deviceID", "want the PCI address of a VF, got %s: there is no such VF", request->pci);
		return -EINVAL;
	}
	*ret = (struct cni_vf){.vf = vf, .pf = &c->sriov.pfs[vf->pf]};
	ret->representor = device_at(c, vf->representor);
	ret->legacy = !ret->representor && ret->pf->eswitch != ESWITCH_SWITCHDEV;
	ret->interface = !is_user_space(vf->driver);
	if (!vf->driver[0] || (!ret->legacy && !ret->representor)) {
		diag_add(diag, NULL, 0, NULL, "VF %s has no %s (yet)", request->pci, vf->driver[0] ? "representor" : "driver");
		return -EAGAIN;
	}
	other = other_port(c, vf);
	if (other) {
		diag_add(diag, NULL, 0, NULL, "VF %s is that of Port %s/%s", request->pci, other->namespace_, other->name);
		return -EEXIST;
	}
	return ret->legacy ? check_legacy(request, network, diag) : 0;
}

json_t *cni_vf_spec(const struct cni_request *request, const struct cni_vf *vf, const struct object *network, const char *mac)
{
	json_t *spec = request->vf ? json_deep_copy(request->vf) : json_object();

	json_object_set_new(spec, "mac", json_string(mac));
	if (!vf->legacy)
		return spec;
	if (!json_object_get(spec, "vlan"))
		json_object_set_new(spec, "vlan", json_integer(network->network.vlan));
	if (!json_object_get(spec, "spoofCheck"))
		json_object_set_new(spec, "spoofCheck", json_true());
	return spec;
}

json_t *cni_vf_json(const struct cni_vf *vf)
{
	const struct netdev *representor = vf->representor;
	json_t *device = json_null();

	if (representor)
		device = json_pack("{s:s, s:I, s:o}", "device", representor->name, "ifindex", (json_int_t)representor->ifindex,
			"mac", json_mac(representor->mac));
	return json_pack("{s:s, s:s, s:i, s:s, s:s, s:b, s:o}", "pci", vf->vf->address, "pf", vf->pf->name, "index",
		(int)vf->vf->index, "driver", vf->vf->driver, "mode", vf->legacy ? "legacy" : "switchdev", "interface",
		vf->interface, "representor", device);
}

/* --- records --- */

static bool is_of_this_boot(const struct vf_loan *loan)
{
	char boot[64];

	vf_loan_boot(boot);
	return strcmp(loan->boot, boot) == 0;
}

/* Its interface is in this namespace: no container has it. */
static const struct netdev *here(const struct controller *c, const char *pci)
{
	for (size_t i = 0; i < c->n_devices; i++)
		if (strcmp(c->devices[i].parent_bus, "pci") == 0 && strcmp(c->devices[i].parent_name, pci) == 0)
			return &c->devices[i];
	return NULL;
}

bool cni_vf_has(const struct controller *c, const struct object *port)
{
	const struct cni_key key = cni_key_of(port);
	struct vf_loan loan;

	return c->loans >= 0 && key.name && vf_loan_read(c->loans, port->port.pci, &loan) == 0 && !loan.ended &&
	       vf_loan_is(&loan, key.name, key.container, key.interface) && is_of_this_boot(&loan) &&
	       !(loan.vf.ifindex && here(c, port->port.pci));
}

/* Policy, or what the NIC can do in its place, is in force. A VLAN that it does not take would put the container among others. */
int cni_vf_check(const struct controller *c, const struct object *port, struct diag *diag)
{
	const struct sriov_vf *vf = sriov_find_address(&c->sriov, port->port.pci);
	const struct sriov_pf *pf = vf ? &c->sriov.pfs[vf->pf] : NULL;
	const struct vf_wish *wish = NULL;

	for (size_t i = 0; vf && !c->vfs_due && i < c->n_vf_wishes; i++)
		if (c->vf_wishes[i].index == vf->index && strcmp(c->vf_wishes[i].pf, pf->address) == 0)
			wish = &c->vf_wishes[i];
	if (wish && !(wish->refused[VF_VLAN] && wish->values.vlan))
		return 0;
	diag_add(diag, NULL, 0, NULL, "VF %s cannot be set up through its PF: %s", port->port.pci,
		wish ? strerror(-wish->refused[VF_VLAN]) : "that is not there");
	return -EIO;
}

bool cni_vf_is_legacy(const struct controller *c, const struct object *port)
{
	return port->port.pci && status_port_legacy(&c->view, port);
}

/* --- containers that ended without a DEL --- */

/*
 * A VF that a driver of user space has comes back to nobody, so there is no event of it; that of a namespace's end there is. Whose record had that
 * number until then has ended: numbers are given anew, but this is looked at ahead of whatever the plugin asks for next.
 */
static void note_gone(struct controller *c, const struct vf_loan *loan)
{
	struct vf_loan *grown = reallocarray(c->gone_loans, c->n_gone_loans + 1, sizeof(*grown));

	if (!grown) {
		log_err(-ENOMEM, "cannot take note that container %s ended", loan->container);
		return;
	}
	c->gone_loans = grown;
	c->gone_loans[c->n_gone_loans++] = *loan;
}

struct looking {
	struct controller *c;
	struct mnl_socket *socket;
	int32_t id; /* that has ended; NETNS_ID_NONE: whichever has */
};

/* Written a moment ago: the kernel gives a number anew just before it says that its earlier owner has ended. */
static bool is_young(const struct controller *c, const struct vf_loan *loan)
{
	struct stat status;
	time_t now = time(NULL);

	return fstatat(c->loans, loan->pci, &status, 0) < 0 || status.st_mtime > now || now - status.st_mtime < YOUNG_S;
}

static int note_if_gone(const struct vf_loan *loan, void *userdata)
{
	const struct looking *looking = userdata;
	const struct cni_key key = {.name = loan->name, .container = loan->container, .interface = loan->interface};
	bool told = loan->netns_id == looking->id;

	if (loan->ended || loan->netns_id < 0 || !is_of_this_boot(loan) || cni_is_reserved(looking->c, &key) ||
		!(told || looking->id == NETNS_ID_NONE))
		return 0;
	if ((told && !is_young(looking->c, loan)) || netns_id_is_used(looking->socket, loan->netns_id) == 0)
		note_gone(looking->c, loan);
	return 0;
}

void cni_vf_namespace_ended(struct controller *c, int32_t id)
{
	_cleanup_netlink_ struct mnl_socket *socket = NULL;
	struct looking looking = {.c = c, .id = id};
	size_t before = c->n_gone_loans;
	int r;

	if (c->loans < 0)
		return;
	r = netlink_open(NETLINK_ROUTE, &socket);
	if (r < 0) {
		log_err(r, "cannot ask which namespaces of containers there are");
		return;
	}
	looking.socket = socket;
	(void)vf_loans_each(c->loans, note_if_gone, &looking);
	if (c->n_gone_loans > before)
		cni_sweep_later(c);
}

/* The record says that the container is gone, if it still is that container's. */
static int end_gone(struct controller *c, const struct vf_loan *gone)
{
	struct vf_loan loan;
	int r = vf_loan_read(c->loans, gone->pci, &loan);

	if (r == -ENOENT)
		return 0;
	if (r < 0 || loan.ended || !vf_loan_same(&loan, gone) || vf_loan_netns_is_there(&loan))
		return r;
	loan.ended = true;
	r = vf_loan_write(c->loans, &loan);
	if (r < 0)
		return r;
	c->view.vf_abandoned++;
	log_warn(0, "container %s ended without a DEL: VF %s is taken back", loan.container, loan.pci);
	return 0;
}

int cni_vf_end_gone(struct controller *c)
{
	_cleanup_close_ int lock = -1;
	int r;

	if (!c->n_gone_loans)
		return 0;
	lock = vf_loans_lock(c->loans, false);
	if (lock < 0)
		return lock;
	while (c->n_gone_loans) {
		const struct vf_loan *gone = &c->gone_loans[c->n_gone_loans - 1];

		r = end_gone(c, gone);
		if (r < 0)
			log_err(r, "cannot record that container %s, which had VF %s, is gone", gone->container, gone->pci);
		c->n_gone_loans--;
	}
	return 0;
}

/* --- what came back by itself --- */

struct sweeping {
	struct controller *c;
	struct mnl_socket *socket;
};

static bool is_over(const struct controller *c, const struct vf_loan *loan)
{
	const struct cni_key key = {.name = loan->name, .container = loan->container, .interface = loan->interface};

	if (cni_is_reserved(c, &key))
		return false;
	/* what a container has, and what an ADD that was cut short has left in one, comes here once that ends */
	return loan->vf.ifindex ? here(c, loan->pci) != NULL : loan->ended || !cni_find(&c->store.cni, &key);
}

static int end_if_over(const struct vf_loan *loan, void *userdata)
{
	const struct sweeping *sweeping = userdata;
	char reason[VF_LOAN_TEXT_MAX];
	int r;

	if (!is_of_this_boot(loan))
		return vf_loan_remove(sweeping->c->loans, loan->pci);
	if (!is_over(sweeping->c, loan))
		return 0;
	sweeping->c->view.vf_abandoned += !loan->ended;
	r = vf_loan_end(sweeping->c->loans, sweeping->socket, -1, NULL, loan, reason);
	if (r < 0)
		return log_err(r, "cannot put VF %s back", loan->pci);
	if (reason[0])
		log_warn(0, "VF %s is back from container %s: %s", loan->pci, loan->container, reason);
	else
		log_info("VF %s is back from container %s", loan->pci, loan->container);
	return 0;
}

int cni_vf_sweep(struct controller *c)
{
	_cleanup_netlink_ struct mnl_socket *socket = NULL;
	struct sweeping sweeping = {.c = c};
	_cleanup_close_ int lock = -1;
	int r;

	if (c->loans < 0)
		return 0;
	/* the plugin is at it */
	lock = vf_loans_lock(c->loans, false);
	if (lock < 0)
		return lock;
	r = netlink_open(NETLINK_ROUTE, &socket);
	sweeping.socket = socket;
	return r < 0 ? r : vf_loans_each(c->loans, end_if_over, &sweeping);
}

bool cni_vf_concerned(const struct controller *c, const struct netdev *device)
{
	return c->loans >= 0 && strcmp(device->parent_bus, "pci") == 0;
}

/* --- start and end --- */

static void on_namespace_ended(int32_t id, void *userdata)
{
	cni_vf_namespace_ended(userdata, id);
}

static void follow(struct controller *c)
{
	int r = netdev_watch_namespaces(c->watch, on_namespace_ended);

	if (r < 0)
		log_err(r, "cannot follow the end of containers that have VFs");
}

int cni_vf_open(struct controller *c)
{
	int fd = vf_loans_open(c->options->state_dir, true);

	if (fd < 0)
		return log_err(fd, "cannot make the directory of VFs that containers have in %s", c->options->state_dir);
	if (c->loans < 0)
		follow(c);
	safe_close(c->loans);
	c->loans = fd;
	return 0;
}

/* Before ports are placed: those of containers that ended while no agent ran are none. */
void cni_vf_start(struct controller *c)
{
	int r;

	c->loans = vf_loans_open(c->options->state_dir, false);
	if (c->loans < 0) {
		if (c->loans != -ENOENT)
			log_err(c->loans, "cannot read which VFs containers have in %s", c->options->state_dir);
		return;
	}
	follow(c);
	cni_vf_namespace_ended(c, NETNS_ID_NONE);
	r = cni_vf_end_gone(c);
	if (r < 0 && r != -EAGAIN)
		log_err(r, "cannot record which containers that had VFs are gone");
}

void cni_vf_free(struct controller *c)
{
	free(c->gone_loans);
	safe_close(c->loans);
}
