/* SPDX-License-Identifier: Apache-2.0 */
/* heddle status: what guards which device, in which mode, and what is wrong. */
#include <stdarg.h>
#include <string.h>

#include "client.h"
#include "heddle.h"
#include "output.h"

static void print_state(const json_t *status)
{
	const json_t *error = json_object_get(status, "lastError");
	const json_t *unsaved = json_object_get(status, "unsaved"), *item;
	const char *confirm_before = string_at(json_object_get(status, "pendingConfirm"), "confirmBefore");
	char uptime[TEXT_MAX];
	size_t i;

	printf("heddled %s: %s, generation %lld, up %s\n", text_at(status, "version"),
		true_at(status, "ready") ? "ready" : "NOT READY", number_at(status, "generation"),
		duration_text((double)number_at(status, "uptime"), uptime));
	if (true_at(status, "lockdown"))
		printf("LOCKDOWN: there is no valid policy; only failsafe ports and the built-in rules let anything in\n");
	if (true_at(status, "adopted"))
		printf("ADOPTED: what an earlier agent put in force is left as it is, since there is nothing better to put in "
		       "its place\n");
	if (confirm_before)
		printf("an unconfirmed apply rolls back at %s (heddle confirm keeps it)\n", confirm_before);
	json_array_foreach (unsaved, i, item)
		printf("NOT ON DISK since %s: %s (%s): %s\n", text_at(item, "since"), text_at(item, "what"),
			text_at(item, "file"), text_at(item, "reason"));
	if (!json_is_object(error))
		return;
	printf("last error, %s:\n", text_at(error, "time"));
	print_details(stdout, error);
}

/* tunnel: frames come out of one on the uplinks. */
static void print_uplinks(const json_t *uplinks, bool ports, bool tunnel)
{
	static const char *const columns[] = {"UPLINK", "STATE", "XDP", "TC", "AHEAD OF US", "NOTE"};
	static const char *const with_tunnel[] = {"UPLINK", "STATE", "XDP", "TC", "DECAPSULATION", "AHEAD OF US", "NOTE"};
	struct table *table;
	const json_t *uplink;
	size_t i;

	if (!json_array_size(uplinks)) {
		printf("\nno uplink is declared%s\n", ports ? "" : ": nothing is guarded");
		return;
	}
	table = tunnel ? table_new(with_tunnel, 7) : table_new(columns, 6);
	table_right(table, tunnel ? 5 : 4);
	json_array_foreach (uplinks, i, uplink) {
		const char *decapsulation = string_at(uplink, "decapsulation"),
			   *reason = string_at(uplink, "decapsulationReason");
		const char *note = string_at(uplink, "xdpReason");

		table_cell(table, "%s", text_at(uplink, "device"));
		table_cell(table, "%s", text_at(uplink, "state"));
		table_cell(table, "%s", text_at(uplink, "xdp"));
		table_cell(table, "%s", text_at(uplink, "tc"));
		if (tunnel)
			table_cell(table, "%s", decapsulation ? decapsulation : "-");
		table_cell(table, "%lld", number_at(uplink, "foreignAhead"));
		if (tunnel && decapsulation && reason)
			table_cell(
				table, "%s%sdecapsulation in %s: %s", note ? note : "", note ? "; " : "", decapsulation, reason);
		else
			table_cell(table, "%s", note ? note : "");
	}
	printf("\n");
	table_print(table, stdout);
}

static void print_ports(const json_t *ports)
{
	static const char *const columns[] = {"PORT", "NETWORK", "DEVICE", "STATE", "MAC", "ADDRESSES", "NOTE"};
	struct table *table;
	const json_t *port, *address;
	size_t i, j;

	if (!json_array_size(ports))
		return;
	table = table_new(columns, 7);
	json_array_foreach (ports, i, port) {
		const char *device = string_at(port, "device"), *mac = string_at(port, "mac"),
			   *reason = string_at(port, "reason");
		const json_t *addresses = json_object_get(port, "addresses");
		char text[TEXT_MAX] = "";
		size_t length = 0;

		/* what does not fit is in -o json */
		json_array_foreach (addresses, j, address)
			if (length < sizeof(text))
				length += (size_t)snprintf(
					text + length, sizeof(text) - length, "%s%s", j ? "," : "", json_string_value(address));
		table_cell(table, "%s/%s", text_at(port, "namespace"), text_at(port, "name"));
		table_cell(table, "%s", text_at(port, "network"));
		table_cell(table, "%s", device ? device : "-");
		table_cell(table, "%s", text_at(port, "state"));
		table_cell(table, "%s", mac ? mac : "-");
		table_cell(table, "%s", text);
		table_cell(table, "%s", reason ? reason : "");
	}
	printf("\n");
	table_print(table, stdout);
}

static void print_kubernetes(const json_t *kubernetes)
{
	const json_t *kind;
	size_t i;

	if (!json_is_object(kubernetes))
		return;
	printf("\nkubernetes: %s, as %s: %s%s\n", text_at(kubernetes, "server"), text_at(kubernetes, "node"),
		json_is_true(json_object_get(kubernetes, "connected")) ? "connected" : "not connected",
		json_is_true(json_object_get(kubernetes, "synced")) ? "" : ", not in step yet");
	json_array_foreach (json_object_get(kubernetes, "kinds"), i, kind) {
		const char *error = string_at(kind, "error");
		long long out = number_at(kind, "leftOut");

		if (error || out)
			printf("kubernetes: %s: %s, %lld objects, %lld left out%s%s\n", text_at(kind, "kind"),
				text_at(kind, "state"), number_at(kind, "objects"), out, error ? ": " : "", error ? error : "");
	}
}

static void print_tunnel(const json_t *tunnel)
{
	const char *decapsulation = string_at(tunnel, "decapsulation");
	const char *reason = string_at(json_object_get(tunnel, "slowPath"), "reason");
	const json_t *checksum = json_object_get(tunnel, "checksum");
	long long mtu = number_at(tunnel, "mtu");

	if (!json_is_object(tunnel))
		return;
	printf("\ntunnel: %s, %s port %lld", text_at(tunnel, "protocol"), text_at(tunnel, "address"), number_at(tunnel, "port"));
	if (decapsulation)
		printf(", decapsulation in %s", decapsulation);
	if (mtu)
		printf(", MTU %lld", mtu);
	printf("%s\n", strcmp(text_at(checksum, "mode"), "full") == 0 ? ", UDP checksums" : "");
	if (string_at(tunnel, "reason"))
		printf("tunnel: %s: %s\n", text_at(tunnel, "state"), string_at(tunnel, "reason"));
	if (string_at(checksum, "reason"))
		printf("tunnel: no device heddle-sum: %s\n", string_at(checksum, "reason"));
	if (reason)
		printf("tunnel: no device heddle-tunnel: %s\n", reason);
}

static void print_offloaded_drops(const json_t *drops)
{
	const char *refusal = string_at(drops, "lastRefusal"), *text = string_at(drops, "lastRefusalText");
	char bytes[TEXT_MAX], from[TEXT_MAX], to[TEXT_MAX], rule[TEXT_MAX];
	const json_t *item;
	size_t i;

	if (!json_is_object(drops))
		return;
	if (number_at(drops, "now") || number_at(drops, "packets"))
		printf("offload: %lld kinds of denied packets dropped by NICs, %lld packets (%s) up to now\n",
			number_at(drops, "now"), number_at(drops, "packets"),
			bytes_text((double)number_at(drops, "bytes"), bytes));
	json_array_foreach (json_object_get(drops, "items"), i, item)
		printf("offload: drops %s %s > %s from %s, %s, %lld packets\n", text_at(item, "protocol"),
			endpoint_text(item, "source", "sourcePort", from),
			endpoint_text(item, "destination", "destinationPort", to), text_at(item, "device"),
			rule_text(json_object_get(item, "rule"), rule), number_at(item, "packets"));
	if (refusal)
		printf("offload: %lld rules that drop refused%s, last: %s%s%s\n", number_at(drops, "refused"),
			true_at(drops, "paused") ? ", pausing" : "", refusal, text ? ": " : "", text ? text : "");
}

static void print_offload(const json_t *offload)
{
	const char *reason = string_at(offload, "reason"), *refusal = string_at(offload, "lastRefusal"),
		   *text = string_at(offload, "lastRefusalText");
	const json_t *software;
	char bytes[TEXT_MAX];
	size_t i;

	if (!json_is_object(offload))
		return;
	printf("\noffload: %s%s%s, %lld flows forwarded by NICs, %lld packets (%s) up to now\n", text_at(offload, "state"),
		reason ? ": " : "", reason ? reason : "", number_at(offload, "flows"), number_at(offload, "packets"),
		bytes_text((double)number_at(offload, "bytes"), bytes));
	if (string_at(offload, "tunnelReason"))
		printf("offload: none to peers: %s\n", string_at(offload, "tunnelReason"));
	json_array_foreach (json_object_get(offload, "software"), i, software)
		printf("offload: %lld in software, %s: %s\n", number_at(software, "flows"), text_at(software, "reason"),
			text_at(software, "text"));
	if (refusal)
		printf("offload: %lld refused%s, last: %s%s%s\n", number_at(offload, "refused"),
			true_at(offload, "paused") ? ", pausing" : "", refusal, text ? ": " : "", text ? text : "");
	print_offloaded_drops(json_object_get(offload, "drops"));
}

static void print_nat(const json_t *nat)
{
	const char *reason = string_at(nat, "reason");

	if (json_is_object(nat))
		printf("\nnat: table inet %s of nftables%s%s\n", text_at(nat, "table"), reason ? ", NOT IN FORCE: " : "",
			reason ? reason : "");
}

static void print_peers(const json_t *peers)
{
	static const char *const columns[] = {"PEER", "ADDRESS", "STATE", "MTU", "WAYS", "SENT", "RECEIVED", "DROPPED", "NOTE"};
	struct table *table;
	const json_t *peer, *way;
	size_t i, j;

	if (!json_array_size(peers))
		return;
	table = table_new(columns, 9);
	table_right(table, 3);
	for (unsigned column = 5; column < 8; column++)
		table_right(table, column);
	json_array_foreach (peers, i, peer) {
		const char *reason = string_at(peer, "reason");
		const json_t *sent = json_object_get(peer, "sent"), *received = json_object_get(peer, "received");
		long long mtu = number_at(peer, "mtu");
		char text[TEXT_MAX] = "";
		size_t length = 0;

		json_array_foreach (json_object_get(peer, "ways"), j, way)
			if (length < sizeof(text))
				length += (size_t)snprintf(text + length, sizeof(text) - length, "%s%s via %s", j ? "," : "",
					text_at(way, "device"), text_at(way, "nextHop"));
		table_cell(table, "%s", text_at(peer, "name"));
		table_cell(table, "%s", text_at(peer, "address"));
		table_cell(table, "%s", text_at(peer, "state"));
		if (mtu)
			table_cell(table, "%lld", mtu);
		else
			table_cell(table, "-");
		table_cell(table, "%s", text);
		table_cell(table, "%lld", number_at(sent, "packets"));
		table_cell(table, "%lld", number_at(received, "packets"));
		table_cell(table, "%lld", number_at(sent, "dropped") + number_at(received, "dropped"));
		table_cell(table, "%s", reason ? reason : "");
	}
	printf("\n");
	table_print(table, stdout);
}

static void print_programs(const json_t *programs)
{
	static const char *const columns[] = {"HOOK", "DEVICE", "MODE", "PROGRAM", "NOTE"};
	struct table *table;
	const json_t *program;
	size_t i;

	if (!json_array_size(programs))
		return;
	table = table_new(columns, 5);
	table_right(table, 3);
	json_array_foreach (programs, i, program) {
		const char *note = string_at(program, "reason");

		table_cell(table, "%s", text_at(program, "hook"));
		table_cell(table, "%s", text_at(program, "device"));
		table_cell(table, "%s", text_at(program, "mode"));
		table_cell(table, "%lld", number_at(program, "id"));
		table_cell(table, "%s", note ? note : "");
	}
	printf("\n");
	table_print(table, stdout);
}

static void print_flows(const json_t *flows)
{
	const json_t *limits = json_object_get(flows, "limits");

	printf("\nflows: %lld proven (at most %lld of TCP, %lld of others), %lld unproven (at most %lld)\n",
		number_at(flows, "proven"), number_at(limits, "flows"), number_at(limits, "flowsOther"),
		number_at(flows, "unproven"), number_at(limits, "flowsNew"));
}

static void print_rest(const json_t *status)
{
	const json_t *objects = json_object_get(status, "objects"), *value;
	const json_t *memory = json_object_get(status, "memory"), *unguarded = json_object_get(status, "unguarded");
	char rss[TEXT_MAX], maps[TEXT_MAX];
	const char *key;
	size_t i, n = 0;

	printf("objects:");
	json_object_foreach ((json_t *)objects, key, value) {
		if (!json_integer_value(value))
			continue;
		printf(" %s %" JSON_INTEGER_FORMAT, key, json_integer_value(value));
		n++;
	}
	printf("%s\nmemory: agent %s, policy maps %s\n", n ? "" : " none", bytes_text((double)number_at(memory, "rss"), rss),
		bytes_text((double)number_at(json_object_get(memory, "maps"), "policyBytes"), maps));
	printf("not guarded:");
	json_array_foreach (unguarded, i, value)
		printf(" %s", json_is_string(value) ? json_string_value(value) : "-");
	printf("%s\n", json_array_size(unguarded) ? "" : " none");
}

/* Appends; what does not fit is in -o json. */
static void __attribute__((format(printf, 2, 3))) append(char text[TEXT_MAX], const char *format, ...)
{
	size_t length = strlen(text);
	va_list args;

	va_start(args, format);
	vsnprintf(text + length, TEXT_MAX - length, format, args);
	va_end(args);
}

static void print_fast_paths(const json_t *paths)
{
	static const char *const columns[] = {
		"FAST PATH", "DEVICE", "STATE", "PROCESS", "SOCKETS", "TAKEN", "PASSED", "DROPPED", "NOTE"};
	struct table *table;
	const json_t *path, *socket, *queue, *place;
	size_t i, j;

	if (!json_array_size(paths))
		return;
	table = table_new(columns, 9);
	for (int column = 5; column < 8; column++)
		table_right(table, column);
	json_array_foreach (paths, i, path) {
		const char *device = string_at(path, "device"), *reason = string_at(path, "reason");
		const json_t *uncovered = json_object_get(path, "uncoveredQueues"), *sockets = json_object_get(path, "sockets");
		const json_t *devices = json_object_get(path, "devices");
		char text[TEXT_MAX] = "", note[TEXT_MAX] = "", places[TEXT_MAX] = "";

		json_array_foreach (sockets, j, socket)
			append(text, "%s%s%s%lld:%s", j ? " " : "", devices ? text_at(socket, "device") : "", devices ? "/" : "",
				number_at(socket, "queue"), text_at(socket, "mode"));
		json_array_foreach (devices, j, place) {
			append(places, "%s%s", j ? "," : "", text_at(place, "device"));
			if (string_at(place, "way") && strcmp(string_at(place, "way"), "redirect") == 0)
				append(text, "%s%s:redirect", text[0] ? " " : "", text_at(place, "device"));
			if (string_at(place, "reason"))
				append(note, "%s%s: %s", note[0] ? "; " : "", text_at(place, "device"), text_at(place, "reason"));
			else if (string_at(place, "wayReason") && strcmp(string_at(place, "wayReason"), "by the document") != 0)
				append(note, "%s%s: %s", note[0] ? "; " : "", text_at(place, "device"),
					text_at(place, "wayReason"));
		}
		if (reason)
			append(note, "%s%s", note[0] ? "; " : "", reason);
		else if (json_array_size(sockets) && string_at(json_array_get(sockets, 0), "reason"))
			append(note, "%s", string_at(json_array_get(sockets, 0), "reason"));
		json_array_foreach (uncovered, j, queue)
			append(note, "%s%" JSON_INTEGER_FORMAT,
				j	  ? ","
				: note[0] ? "; no socket on queue "
					  : "no socket on queue ",
				json_integer_value(queue));
		table_cell(table, "%s", text_at(path, "name"));
		table_cell(table, "%s", devices ? places : device ? device : "-");
		table_cell(table, "%s", text_at(path, "state"));
		if (json_is_integer(json_object_get(path, "process")))
			table_cell(table, "%lld", number_at(path, "process"));
		else
			table_cell(table, "-");
		table_cell(table, "%s", text[0] ? text : "-");
		table_cell(table, "%lld", number_at(path, "taken"));
		table_cell(table, "%lld", number_at(path, "passed"));
		table_cell(table, "%lld", number_at(path, "dropped"));
		table_cell(table, "%s", note);
	}
	printf("\n");
	table_print(table, stdout);
}

static int status_run(struct cli *cli)
{
	json_auto_t *status = NULL;
	int code = client_call(cli->client, &(struct client_request){.path = "/v1/status"}, &status);

	if (code)
		return code;
	if (cli->output != OUTPUT_TABLE)
		return print_value(cli->output, status);
	print_state(status);
	print_uplinks(json_object_get(status, "uplinks"), json_array_size(json_object_get(status, "ports")) > 0,
		json_is_object(json_object_get(status, "tunnel")));
	print_ports(json_object_get(status, "ports"));
	print_kubernetes(json_object_get(status, "kubernetes"));
	print_tunnel(json_object_get(status, "tunnel"));
	print_peers(json_object_get(status, "peers"));
	print_offload(json_object_get(status, "offload"));
	print_nat(json_object_get(status, "nat"));
	print_fast_paths(json_object_get(status, "fastPaths"));
	print_programs(json_object_get(status, "programs"));
	print_flows(json_object_get(status, "flows"));
	print_rest(status);
	return CLI_DONE;
}

const struct verb verb_status = {
	.name = "status",
	.arguments = "",
	.summary = "what guards which device, in which mode, and what is wrong",
	.run = status_run,
};
