/* SPDX-License-Identifier: Apache-2.0 */
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

bool view_is_uplink(const struct view *view, const char *device)
{
	for (size_t i = 0; view->host && i < view->host->n_uplinks; i++)
		if (!strcmp(view->host->uplinks[i].device, device))
			return true;
	return false;
}
