/* SPDX-License-Identifier: Apache-2.0 */
/* What heddle-cni asks. */
#include <errno.h>
#include <string.h>

#include <api/http.h>
#include <model/decode.h>
#include <observe/json.h>
#include <observe/status.h>
#include <source/cni.h>

static enum MHD_Result change(struct request *request, enum api_cni verb)
{
	struct diag diag = {0};
	json_t *body, *answer = NULL;
	enum MHD_Result result;
	json_error_t error;
	int r;

	body = json_loadb(request->body.data ? request->body.data : "", request->body.length, JSON_REJECT_DUPLICATES, &error);
	if (!body)
		return respond_error(request, MHD_HTTP_BAD_REQUEST, NULL, "not JSON: line %d: %s", error.line, error.text);
	r = request->api->ops->cni(request->api->userdata, verb, body, &answer, &diag);
	json_decref(body);
	result = r < 0 ? respond_failure(request, r, &diag) : respond_json(request, MHD_HTTP_OK, answer);
	diag_clear(&diag);
	return result;
}

enum MHD_Result api_post_cni_reserve(struct request *request)
{
	return change(request, API_CNI_RESERVE);
}

enum MHD_Result api_post_cni_commit(struct request *request)
{
	return change(request, API_CNI_COMMIT);
}

enum MHD_Result api_post_cni_release(struct request *request)
{
	return change(request, API_CNI_RELEASE);
}

/* --- what is only read --- */

/* As the Port says it. */
static json_t *host_ports_json(const struct object *port)
{
	json_t *document = encode_object(port), *list = json_object_get(json_object_get(document, "spec"), "hostPorts");
	json_t *ret = list ? json_incref(list) : json_array();

	json_decref(document);
	return ret;
}

/* Bits a second, as it is in force. */
static json_t *rate_json(const struct topology_port *at, enum hd_direction direction)
{
	uint64_t rate = at ? at->record.limit[direction].rate : 0;

	return rate ? json_integer((json_int_t)rate * 1000) : json_null();
}

static json_t *attachment_json(const struct view *view, const struct object *port, const struct cni_key *key)
{
	const struct topology_port *at = view->topology ? topology_find_port(view->topology, port) : NULL;
	const char *reason = at ? status_port_reason(view, at) : "no policy is in force";
	const char *state = !reason ? "ready" : at && status_port_legacy(view, port) ? "legacy" : "waiting";
	const char *device = at && at->ifindex ? at->device : port->port.device;
	json_t *addresses = json_array();

	for (size_t i = 0; i < port->port.n_addresses; i++)
		json_array_append_new(addresses, json_address(&port->port.addresses[i]));
	return json_pack("{s:s, s:s, s:s, s:s, s:o, s:o, s:o, s:o, s:{s:s, s:s}, s:s, s:o, s:o, s:o, s:{s:o, s:o}}", "name",
		key->name, "containerID", key->container, "ifname", key->interface, "network", port->port.network, "device",
		json_text(device), "pci", json_text(port->port.pci), "mac", json_mac(port->port.mac), "addresses", addresses,
		"port", "namespace", port->namespace_, "name", port->name, "state", state, "reason", json_text(reason),
		"hostPorts", host_ports_json(port), "hostPortsReason",
		json_text(port->port.n_host_ports ? view->nat_reason : NULL), "bandwidth", "ingress", rate_json(at, HD_INGRESS),
		"egress", rate_json(at, HD_EGRESS));
}

static bool is_asked(const char *wanted, const char *value)
{
	return !wanted || !strcmp(wanted, value);
}

enum MHD_Result api_get_cni_attachments(struct request *request)
{
	const struct view *view = request->api->view;
	const char *name = request_argument(request, "name"), *container = request_argument(request, "containerID"),
		   *interface = request_argument(request, "ifname");
	json_t *items = json_array();

	for (size_t i = 0; view->cni && i < view->cni->n; i++) {
		const struct object *port = view->cni->items[i];
		struct cni_key key = cni_key_of(port);

		if (key.name && is_asked(name, key.name) && is_asked(container, key.container) &&
			is_asked(interface, key.interface))
			json_array_append_new(items, attachment_json(view, port, &key));
	}
	return respond_json(request, MHD_HTTP_OK, json_pack("{s:o}", "items", items));
}

/* Whether an ADD to the network could be done now. */
enum MHD_Result api_get_cni_status(struct request *request)
{
	const char *network = request_argument(request, "network"), *addresses = request_argument(request, "addresses"), *reason;
	int r;

	if (addresses && strcmp(addresses, "given") != 0)
		return respond_error(request, MHD_HTTP_BAD_REQUEST, NULL, "addresses: want given, got %.64s", addresses);
	r = status_cni(request->api->view, network, addresses != NULL, &reason);
	if (r < 0)
		return respond_error(request, r == -ENOENT ? MHD_HTTP_NOT_FOUND : MHD_HTTP_SERVICE_UNAVAILABLE, NULL,
			"%s%s%.253s", reason, r == -ENOENT ? ": " : "", r == -ENOENT ? network : "");
	return respond_json(request, MHD_HTTP_OK, json_pack("{s:b}", "ready", 1));
}
