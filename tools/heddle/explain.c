/* SPDX-License-Identifier: Apache-2.0 */
/* heddle explain: what the loaded programs would do with a packet, and which rule says so. */
#include <string.h>
#include <time.h>

#include <util/cleanup.h>

#include "capture.h"
#include "client.h"
#include "heddle.h"
#include "output.h"

enum {
	OPT_FROM,
	OPT_TO,
	OPT_PROTOCOL,
	OPT_DPORT,
	OPT_SPORT,
	OPT_ICMP_TYPE,
	OPT_ICMP_CODE,
	OPT_TCP_FLAGS,
	OPT_VLAN,
	OPT_REPLY,
	OPT_NETWORK,
	OPT_PORT,
	OPT_PEER,
	OPT_NAMESPACE,
	OPT_UPLINK,
	OPT_EGRESS,
	OPT_PCAP,
};
static const struct cli_option options[] = {
	[OPT_FROM] = {"from", 0, "ADDR", NULL, "source address, IPv4 or IPv6"},
	[OPT_TO] = {"to", 0, "ADDR", NULL, "destination address"},
	[OPT_PROTOCOL] = {"protocol", 0, "NAME", "tcp udp sctp icmp icmpv6", "name or number"},
	[OPT_DPORT] = {"dport", 0, "N", NULL, "destination port"},
	[OPT_SPORT] = {"sport", 0, "N", NULL, "source port"},
	[OPT_ICMP_TYPE] = {"icmp-type", 0, "N", NULL, "ICMP or ICMPv6 type"},
	[OPT_ICMP_CODE] = {"icmp-code", 0, "N", NULL, "and code"},
	[OPT_TCP_FLAGS] = {"tcp-flags", 0, "FLAGS", "S SA A FA R RA", "as tcpdump writes them (S, SA, A ...) or syn,ack"},
	[OPT_VLAN] = {"vlan", 0, "ID[,ID]", NULL, "VLAN tags of the frame, the outer one first"},
	[OPT_REPLY] = {"reply", 0, NULL, NULL, "the packet is an answer, not the first of a connection"},
	[OPT_NETWORK] = {"network", 0, "NAME", NULL, "the network it belongs to"},
	[OPT_PORT] = {"port", 0, "[NAMESPACE/]NAME", NULL, "it comes from this port"},
	[OPT_PEER] = {"peer", 0, "NAME", NULL, "it comes from this peer, and is what was in its tunnel packet"},
	[OPT_NAMESPACE] = {"namespace", 'n', "NAMESPACE", "@namespace", "where the port is; default"},
	[OPT_UPLINK] = {"uplink", 0, "DEV", "@device", "it comes in here"},
	[OPT_EGRESS] = {"egress", 0, "DEV", "@device", "it leaves here"},
	[OPT_PCAP] = {"pcap", 0, "FILE", "@file",
		"explain each frame of a capture file, one result a frame; - is standard input"},
	{NULL, 0, NULL, NULL, NULL},
};

/* Texts that the daemon reads, under their names in the request. */
static const struct {
	int option;
	const char *key;
} texts[] = {
	{OPT_FROM, "from"},
	{OPT_TO, "to"},
	{OPT_PROTOCOL, "protocol"},
	{OPT_TCP_FLAGS, "tcpFlags"},
	{OPT_NETWORK, "network"},
	{OPT_PORT, "port"},
	{OPT_PEER, "peer"},
	{OPT_NAMESPACE, "namespace"},
	{OPT_UPLINK, "uplink"},
	{OPT_EGRESS, "egress"},
};

static const struct {
	int option;
	const char *key;
	long long max;
} numbers[] = {
	{OPT_DPORT, "dport", 65535},
	{OPT_SPORT, "sport", 65535},
	{OPT_ICMP_TYPE, "icmpType", 255},
	{OPT_ICMP_CODE, "icmpCode", 255},
};

static int add_vlans(json_t *request, const char *text)
{
	char first[16];
	const char *comma = strchr(text, ',');
	long long outer, inner;

	if (!comma) {
		if (parse_number(text, 0, 4094, &outer))
			return fail(CLI_USAGE, "--vlan %s: want 0..4094, or two of these with a comma", text);
		json_object_set_new(request, "vlan", json_integer(outer));
		return 0;
	}
	if ((size_t)(comma - text) >= sizeof(first))
		return fail(CLI_USAGE, "--vlan %s: want 0..4094, or two of these with a comma", text);
	memcpy(first, text, (size_t)(comma - text));
	first[comma - text] = 0;
	if (parse_number(first, 0, 4094, &outer) || parse_number(comma + 1, 0, 4094, &inner))
		return fail(CLI_USAGE, "--vlan %s: want 0..4094, or two of these with a comma", text);
	json_object_set_new(request, "vlan", json_pack("[I,I]", (json_int_t)outer, (json_int_t)inner));
	return 0;
}

static int make_request(const struct cli *cli, json_t *request)
{
	const char *port = cli->value[OPT_PORT], *namespace_ = cli->value[OPT_NAMESPACE];
	char part[CLIENT_PATH_MAX];

	if (port && client_split_name(&port, &namespace_, part))
		return CLI_USAGE;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		const char *value = texts[i].option == OPT_PORT	       ? port
				    : texts[i].option == OPT_NAMESPACE ? namespace_
								       : cli->value[texts[i].option];

		if (!value)
			continue;
		if (json_object_set_new(request, texts[i].key, json_string(value)))
			return fail(CLI_USAGE, "--%s: not UTF-8", options[texts[i].option].name);
	}
	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
		const char *value = cli->value[numbers[i].option];
		long long number;

		if (!value)
			continue;
		if (parse_number(value, 0, numbers[i].max, &number))
			return fail(CLI_USAGE, "--%s %s: want 0..%lld", options[numbers[i].option].name, value, numbers[i].max);
		json_object_set_new(request, numbers[i].key, json_integer(number));
	}
	if (cli->value[OPT_REPLY])
		json_object_set_new(request, "reply", json_true());
	return cli->value[OPT_VLAN] ? add_vlans(request, cli->value[OPT_VLAN]) : 0;
}

static int ask(struct client *client, const json_t *request, json_t **ret)
{
	_cleanup_free_ char *body = json_dumps(request, JSON_COMPACT);

	if (!body)
		return fail(CLI_REFUSED, "out of memory");
	return client_call_quietly(client,
		&(struct client_request){.method = "POST",
			.path = "/v1/explain",
			.content_type = "application/json",
			.body = body,
			.length = strlen(body)},
		ret);
}

/* Where two policies had a say, both: the one that decided has been named already. */
static void print_rules(const json_t *rules)
{
	char text[TEXT_MAX], origin[TEXT_MAX];
	const json_t *rule, *policy;
	size_t i, j;

	json_array_foreach (rules, i, rule) {
		if (json_array_size(rules) > 1)
			printf("  %s of %s: %s, %s\n", text_at(rule, "direction"), text_at(rule, "port"), rule_text(rule, text),
				origin_text(rule, origin));
		json_array_foreach (json_object_get(rule, "isolatedBy"), j, policy)
			printf("    %s is isolated by %s/%s, %s\n", text_at(rule, "port"), text_at(policy, "namespace"),
				text_at(policy, "policy"), origin_text(policy, origin));
	}
}

static void print_explanation(const json_t *answer)
{
	const json_t *rule = json_object_get(answer, "rule"), *step;
	char text[TEXT_MAX], origin[TEXT_MAX];
	const char *reason = string_at(answer, "reason");
	size_t i;

	printf("verdict: %s%s\n", text_at(answer, "verdict"), true_at(answer, "audit") ? " (audit: it would be dropped)" : "");
	if (reason && strcmp(reason, "none") != 0)
		printf("reason:  %s\n", reason);
	if (json_is_object(rule)) {
		printf("rule:    %s", rule_text(rule, text));
		if (string_at(rule, "direction") && json_is_integer(json_object_get(rule, "index")))
			printf(", %s rule %lld", string_at(rule, "direction"), number_at(rule, "index"));
		printf(", %s\n", origin_text(rule, origin));
	} else {
		printf("rule:    none\n");
	}
	print_rules(json_object_get(answer, "rules"));
	printf("path:\n");
	json_array_foreach (json_object_get(answer, "path"), i, step) {
		printf("  %zu. ", i + 1);
		print_text(stdout, text_at(step, "text"));
		printf("\n");
	}
}

/* What the daemon made of a frame, in its words. */
static const char *packet_of(const json_t *answer)
{
	const json_t *step;
	size_t i;

	json_array_foreach (json_object_get(answer, "path"), i, step)
		if (strcmp(text_at(step, "step"), "packet") == 0)
			return text_at(step, "text");
	return "-";
}

struct replay {
	struct cli *cli;
	const json_t *request; /* what is the same for every frame */
	size_t n_failed;
};

/* The daemon's error and its details in one line. */
static void print_error_line(const char *error)
{
	_cleanup_free_ char *text = strdup(error);

	for (char *c = text; c && *c; c++)
		if (*c == '\n')
			*c = ';';
	print_text(stdout, text ?: error);
}

static int print_frame_result(enum output output, const struct capture_frame *frame, json_t *answer, const char *error)
{
	char rule[TEXT_MAX], time_text[40];
	const char *reason = string_at(answer, "reason");
	struct tm parts;

	if (!gmtime_r(&frame->seconds, &parts) || !strftime(time_text, sizeof(time_text), "%Y-%m-%dT%H:%M:%S", &parts))
		time_text[0] = '\0'; /* a year beyond reason, in a made-up file */
	snprintf(time_text + strlen(time_text), sizeof(time_text) - strlen(time_text), ".%06ldZ", frame->microseconds);
	if (output != OUTPUT_TABLE) {
		json_auto_t *line = error ? json_pack("{s:s}", "error", error) : json_incref(answer);

		json_object_set_new(line, "frame", json_integer((json_int_t)frame->number));
		json_object_set_new(line, "time", json_string(time_text));
		if (frame->padded)
			json_object_set_new(line, "padded", json_true());
		return print_line(output, line);
	}
	printf("%zu  %s  ", frame->number, time_text);
	if (error)
		print_error_line(error);
	else
		printf("%-6s  %s  %s", text_at(answer, "verdict"), packet_of(answer),
			rule_text(json_object_get(answer, "rule"), rule));
	if (reason && strcmp(reason, "none") != 0)
		printf("  %s", reason);
	printf("%s\n", frame->padded ? "  (captured in part: the rest taken as zeros)" : "");
	return fflush(stdout) ? fail(CLI_REFUSED, "cannot write the output: %m") : 0;
}

static int explain_frame(const struct capture_frame *frame, void *userdata)
{
	struct replay *replay = userdata;
	json_auto_t *request = json_copy((json_t *)replay->request), *answer = NULL;
	_cleanup_free_ char *hex = capture_hex(frame);
	int code;

	if (!hex || !request || json_object_set_new(request, "frame", json_string(hex)))
		return fail(CLI_REFUSED, "out of memory");
	code = ask(replay->cli->client, request, &answer);
	if (code == CLI_NO_DAEMON)
		return fail(code, "%s", client_error(replay->cli->client));
	if (code == 0 && !answer)
		code = CLI_REFUSED;
	replay->n_failed += code != 0;
	return print_frame_result(replay->cli->output, frame, answer, code ? client_error(replay->cli->client) : NULL);
}

static int explain_capture(struct cli *cli, const json_t *request)
{
	struct replay replay = {.cli = cli, .request = request};
	int code;

	for (size_t i = 0; i <= OPT_REPLY; i++)
		if (cli->value[i])
			return fail(CLI_USAGE, "--%s and --pcap exclude each other: the frames say it", options[i].name);
	code = capture_each(cli->value[OPT_PCAP], explain_frame, &replay);
	if (code)
		return code;
	return replay.n_failed ? fail(CLI_REFUSED, "%zu frames could not be explained", replay.n_failed) : CLI_DONE;
}

static int explain_run(struct cli *cli)
{
	json_auto_t *request = json_object(), *answer = NULL;
	int code;

	if (cli->value[OPT_UPLINK] && cli->value[OPT_EGRESS])
		return fail(CLI_USAGE, "--uplink and --egress exclude each other");
	if (cli->value[OPT_PORT] && (cli->value[OPT_UPLINK] || cli->value[OPT_EGRESS]))
		return fail(CLI_USAGE, "--port excludes --uplink and --egress");
	if (cli->value[OPT_PEER] && (cli->value[OPT_PORT] || cli->value[OPT_EGRESS]))
		return fail(CLI_USAGE, "--peer excludes --port and --egress");
	code = make_request(cli, request);
	if (code)
		return code;
	if (cli->value[OPT_PCAP])
		return explain_capture(cli, request);
	if (!cli->value[OPT_FROM] || !cli->value[OPT_TO])
		return fail(CLI_USAGE, "explain needs --from ADDR and --to ADDR, or --pcap FILE");
	code = ask(cli->client, request, &answer);
	if (code)
		return fail(code, "%s", client_error(cli->client));
	if (cli->output != OUTPUT_TABLE)
		return print_value(cli->output, answer);
	print_explanation(answer);
	return CLI_DONE;
}

const struct verb verb_explain = {
	.name = "explain",
	.arguments = "",
	.summary = "what the loaded programs would do with a packet, and which rule says so",
	.options = options,
	.run = explain_run,
};
