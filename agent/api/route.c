/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include <api/http.h>
#include <util/cleanup.h>

static const struct route routes[] = {
	{"GET", "/v1/status", .handle = api_get_status},
	{"GET", "/v1/objects/", .handle = api_get_objects},
	{"GET", "/v1/objects/", .named = true, .handle = api_get_object},
	{"DELETE", "/v1/objects/", .named = true, .body = API_BODY_SMALL, .handle = api_delete_object},
	{"POST", "/v1/apply", .body = API_BODY_DOCUMENTS, .handle = api_post_apply},
	{"POST", "/v1/confirm", .body = API_BODY_SMALL, .handle = api_post_confirm},
	{"POST", "/v1/diff", .body = API_BODY_DOCUMENTS, .handle = api_post_diff},
	{"POST", "/v1/preview", .body = API_BODY_DOCUMENTS, .handle = api_post_preview},
	{"GET", "/v1/lint", .handle = api_get_lint},
	{"POST", "/v1/lint", .body = API_BODY_DOCUMENTS, .handle = api_post_lint},
	{"GET", "/v1/flows", .handle = api_get_flows},
	{"GET", "/v1/monitor", .handle = api_get_monitor},
	{"POST", "/v1/explain", .body = API_BODY_SMALL, .handle = api_post_explain},
	{"GET", "/v1/rules", .handle = api_get_rules},
	{"GET", "/v1/counters", .handle = api_get_counters},
	{"GET", "/v1/vfs", .handle = api_get_vfs},
	{"POST", "/v1/cni/reserve", .body = API_BODY_SMALL, .handle = api_post_cni_reserve},
	{"POST", "/v1/cni/commit", .body = API_BODY_SMALL, .handle = api_post_cni_commit},
	{"POST", "/v1/cni/release", .body = API_BODY_SMALL, .handle = api_post_cni_release},
	{"GET", "/v1/cni/attachments", .handle = api_get_cni_attachments},
	{"GET", "/v1/cni/status", .handle = api_get_cni_status},
	{"GET", "/metrics", .scraped = true, .handle = api_get_metrics},
};

/* /v1/objects/KIND or /v1/objects/KIND/NAME: cuts path at the slash between them. */
static bool match(const struct route *route, char *path, const char **kind, const char **name)
{
	size_t length = strlen(route->path);
	char *rest, *slash;

	if (route->path[length - 1] != '/')
		return !strcmp(path, route->path);
	if (strncmp(path, route->path, length))
		return false;
	rest = path + length;
	slash = strchr(rest, '/');
	if (route->named != (slash && slash[1]) || rest == slash || !*rest)
		return false;
	if (slash && strchr(slash + 1, '/'))
		return false;
	if (slash)
		*slash = '\0';
	*kind = rest;
	*name = route->named ? slash + 1 : NULL;
	return true;
}

const struct route *route_find(const char *method, char *path, bool tcp, const char **kind, const char **name, unsigned *status)
{
	*status = MHD_HTTP_NOT_FOUND;
	*kind = *name = NULL;
	for (size_t i = 0; i < ARRAY_SIZE(routes); i++) {
		const struct route *route = &routes[i];
		size_t length = strlen(path);

		if ((tcp && !route->scraped) || !match(route, path, kind, name))
			continue;
		if (!strcmp(route->method, method))
			return route;
		*status = MHD_HTTP_METHOD_NOT_ALLOWED;
		/* whole again for the next route of the same path */
		for (size_t at = 0; at < length; at++)
			if (!path[at])
				path[at] = '/';
	}
	return NULL;
}
