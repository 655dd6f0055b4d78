/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <observe/view.h>

const struct netdev *view_device(const struct view *view, uint32_t ifindex)
{
	for (size_t i = 0; i < view->n_devices; i++)
		if (view->devices[i].ifindex == ifindex)
			return &view->devices[i];
	return NULL;
}

const struct netdev *view_device_by_name(const struct view *view, const char *name)
{
	for (size_t i = 0; i < view->n_devices; i++)
		if (!strcmp(view->devices[i].name, name))
			return &view->devices[i];
	return NULL;
}

const struct datapath_attachment *view_attachment(const struct view *view, uint32_t ifindex)
{
	const struct datapath_attachment *attachments;
	size_t n;

	if (!view->datapath)
		return NULL;
	n = datapath_attachments(view->datapath, &attachments);
	for (size_t i = 0; i < n; i++)
		if (attachments[i].ifindex == ifindex)
			return &attachments[i];
	return NULL;
}

const char *view_source(
	const struct view *view, enum object_kind kind, const char *namespace_, const char *name, const char *file)
{
	if (file)
		return "file";
	/* with its Pod's labels, a Port of the plugin is another object */
	if (view->cni && object_list_find(view->cni, kind, namespace_, name))
		return "cni";
	return view->derived && object_list_find(view->derived, kind, namespace_, name) ? "kubernetes" : "api";
}

static const char *const kept[][2] = {
	[VIEW_KEPT_FILES] = {"files.last-good", "the last good documents"},
	[VIEW_KEPT_IDENTITIES] = {"identities", "the numbers of identities"},
	[VIEW_KEPT_IPAM] = {"ipam", "where addresses are given out next"},
	[VIEW_KEPT_KUBERNETES] = {"kubernetes.state", "the state of the cluster"},
};
static_assert(sizeof(kept) / sizeof(kept[0]) == VIEW_KEPT_COUNT, "each has a name");

const char *view_kept_file(enum view_kept what)
{
	return kept[what][0];
}

const char *view_kept_text(enum view_kept what)
{
	return kept[what][1];
}

bool view_is_uplink(const struct view *view, const char *device)
{
	return view->host && host_has_uplink(view->host, device);
}

const struct topology_port *view_port(const struct view *view, uint32_t ifindex)
{
	for (size_t i = 0; ifindex && view->topology && i < view->topology->n_ports; i++)
		if (view->topology->ports[i].ifindex == ifindex)
			return &view->topology->ports[i];
	return NULL;
}

static int peer_cmp(const void *a, const void *b)
{
	const struct topology_peer *x = a, *y = b;

	return (x->index > y->index) - (x->index < y->index);
}

const struct topology_peer *view_peer(const struct view *view, uint32_t index)
{
	const struct topology_peer key = {.index = index};

	if (!view->topology || !view->topology->n_peers)
		return NULL;
	return bsearch(&key, view->topology->peers, view->topology->n_peers, sizeof(key), peer_cmp);
}

uint32_t view_device_peer(uint32_t device)
{
	return device & HD_DEVICE_PEER && device != HD_DEVICE_WIRE ? device & ~HD_DEVICE_PEER : 0;
}

const struct topology_peer *view_peer_at(const struct view *view, const struct hd_addr *address)
{
	for (size_t i = 0; view->topology && i < view->topology->n_peers; i++)
		if (!memcmp(&view->topology->peers[i].address, address, sizeof(*address)))
			return &view->topology->peers[i];
	return NULL;
}

const char *view_peer_name(const struct view *view, uint32_t index, char *buffer)
{
	const char *name = view->networks ? networks_peer_name(view->networks, index) : NULL;

	if (name)
		return name;
	snprintf(buffer, VIEW_PEER_MAX, "#%u", index);
	return buffer;
}

const char *view_network(const struct view *view, uint16_t network, char *buffer)
{
	const char *name = NULL, *other = NULL;
	uint16_t a, b;

	if (network == 0)
		return NETWORK_HOST;
	if (network < HD_NETWORKS) {
		name = view->networks ? networks_name(view->networks, network) : NULL;
	} else if (view->networks && networks_of_zone(view->networks, network, &a, &b) == 0) {
		name = networks_name(view->networks, a);
		other = networks_name(view->networks, b);
	}
	/* of a network that is gone, whose flows are still there */
	if (!name)
		snprintf(buffer, VIEW_NETWORK_MAX, "#%u", network);
	else
		snprintf(buffer, VIEW_NETWORK_MAX, "%s%s%s", name, other ? ">" : "", other ? other : "");
	return buffer;
}
