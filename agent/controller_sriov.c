/* SPDX-License-Identifier: Apache-2.0 */
/* Ports that name a VF or a PCI address: which device stands for them, and when that is another. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include <controller_internal.h>
#include <util/sys_tree.h>

/* A number of VFs comes as many events, and their interfaces behind them. */
#define EVENTS_US 20000

/* Whether it matters to a document. */
static bool any_place(const struct controller *c)
{
	if (c->view.host && c->view.host->n_sriov)
		return true;
	for (size_t i = 0; c->topology && i < c->topology->n_ports; i++)
		if (!c->topology->ports[i].object->port.device)
			return true;
	return false;
}

static void look_again(struct controller *c)
{
	c->sriov_due = true;
	if (any_place(c))
		devices_attach_later(c, EVENTS_US);
}

static int on_event(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	(void)source;
	(void)events;
	if (sriov_events_dispatch(fd))
		look_again(userdata);
	return 0;
}

static int on_devlink(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	struct controller *c = userdata;
	int r;

	(void)source;
	(void)fd;
	(void)events;
	r = devlink_dispatch(c->devlink);
	if (r < 0)
		log_err(r, "cannot follow the switches of NICs");
	if (r > 0)
		look_again(c);
	return 0;
}

/* What cannot be had is told once: all that it knows is missing then, and the rest works. */
static void open_all(struct controller *c)
{
	int r;

	if (c->sriov_open)
		return;
	c->sriov_open = c->sriov_due = true;
	c->sriov_events = sriov_events_open();
	r = c->sriov_events;
	if (r >= 0)
		r = sd_event_add_io(c->event, &c->sriov_io, c->sriov_events, EPOLLIN, on_event, c);
	if (r < 0)
		log_err(r, "VFs that come and go are noticed late: cannot follow the kernel's events");
	r = devlink_open(&c->devlink);
	if (r >= 0)
		r = sd_event_add_io(c->event, &c->devlink_io, devlink_fd(c->devlink), EPOLLIN, on_devlink, c);
	if (r < 0 && r != -ENOENT)
		log_err(r, "cannot follow the switches of NICs");
}

void sriov_free(struct controller *c)
{
	sd_event_source_disable_unref(c->sriov_io);
	sd_event_source_disable_unref(c->devlink_io);
	if (c->sriov_open && c->sriov_events >= 0)
		close(c->sriov_events);
	devlink_close(c->devlink);
	sriov_clear(&c->sriov);
}

static int put_together(struct controller *c)
{
	_cleanup_close_ int fd = -1;
	struct sriov table = {0};
	int r;

	fd = open(sys_tree(), O_PATH | O_DIRECTORY | O_CLOEXEC);
	r = fd < 0 ? -errno : sriov_scan(fd, &table);
	if (r < 0)
		return log_err(r, "cannot look for VFs");
	sriov_join(&table, c->devices, c->n_devices, c->devlink);
	sriov_clear(&c->sriov);
	c->sriov = table;
	c->view.sriov = &c->sriov;
	c->sriov_due = false;
	c->vfs_due = true;
	return 0;
}

int sriov_look(struct controller *c)
{
	open_all(c);
	return c->sriov_due ? put_together(c) : 0;
}

static void collect_device(const struct netdev *device, bool gone, void *userdata)
{
	struct controller *c = userdata;
	struct netdev *grown = gone ? NULL : reallocarray(c->devices, c->n_devices + 1, sizeof(*grown));

	if (!grown)
		return;
	c->devices = grown;
	c->devices[c->n_devices++] = *device;
}

int sriov_once(struct controller *c)
{
	int r = netdev_list(collect_device, c);

	return r < 0 ? r : put_together(c);
}

/* With the reason behind it, so that both go at once. */
struct place_text {
	char device[IF_NAMESIZE];
	char reason[SRIOV_REASON_MAX];
};

static void find_place(const struct controller *c, const struct port *port, struct topology_place *place, struct place_text *text)
{
	const struct sriov_name name = {.pf = port->vf_pf, .index = port->vf_index, .pci = port->pci};
	uint8_t mac[6];
	uint32_t ifindex = sriov_resolve(&c->sriov, c->devices, c->n_devices, &name, mac, text->reason);
	const struct netdev *device = ifindex ? view_device(&c->view, ifindex) : NULL;

	if (device) {
		snprintf(text->device, sizeof(text->device), "%s", device->name);
		place->device = text->device;
	} else {
		place->reason = text->reason;
	}
}

int sriov_places(struct controller *c, const struct object_list *all, struct topology_place **ret, size_t *ret_n)
{
	struct topology_place *places;
	struct place_text *texts;
	size_t n = 0;
	int r;

	for (size_t i = 0; i < all->n; i++)
		n += all->items[i]->kind == OBJECT_PORT && !all->items[i]->port.device;
	*ret = NULL;
	*ret_n = n;
	if (!n)
		return 0;
	r = sriov_look(c);
	if (r < 0)
		return r;
	places = calloc(n, sizeof(*places) + sizeof(*texts));
	if (!places)
		return -ENOMEM;
	texts = (struct place_text *)&places[n];
	n = 0;
	for (size_t i = 0; i < all->n; i++) {
		const struct object *object = all->items[i];

		if (object->kind != OBJECT_PORT || object->port.device)
			continue;
		places[n].port = object;
		find_place(c, &object->port, &places[n], &texts[n]);
		n++;
	}
	topology_sort_places(places, n);
	*ret = places;
	return 0;
}

bool sriov_concerned(struct controller *c, const struct netdev *device)
{
	/* Devices of no bus and no switch are nobody's VF; a veth is none of our concern. */
	if (!device->parent_name[0] && !device->port_name[0])
		return false;
	c->sriov_due = true;
	return any_place(c);
}

bool sriov_mac(const struct controller *c, uint32_t ifindex, uint8_t ret[6])
{
	static const uint8_t none[6];

	for (size_t i = 0; i < c->sriov.n_vfs; i++)
		if (c->sriov.vfs[i].representor == ifindex && memcmp(c->sriov.vfs[i].mac, none, 6) != 0) {
			memcpy(ret, c->sriov.vfs[i].mac, 6);
			return true;
		}
	return false;
}
