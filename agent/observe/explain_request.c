/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include <netinet/in.h>

#include <observe/explain.h>
#include <observe/names.h>
#include <util/addr.h>
#include <util/cleanup.h>

static bool parse_address(const json_t *value, struct hd_addr *ret)
{
	return json_is_string(value) && !addr_parse(json_string_value(value), ret);
}

static bool parse_number(const json_t *value, json_int_t max, json_int_t *ret)
{
	if (!json_is_integer(value) || json_integer_value(value) < 0 || json_integer_value(value) > max)
		return false;
	*ret = json_integer_value(value);
	return true;
}

static bool parse_device(const json_t *value, char ret[IF_NAMESIZE])
{
	size_t length = json_is_string(value) ? json_string_length(value) : 0;

	if (!length || length >= IF_NAMESIZE || strlen(json_string_value(value)) != length)
		return false;
	memcpy(ret, json_string_value(value), length + 1);
	return true;
}

static bool parse_name(const json_t *value, char ret[EXPLAIN_NAME_MAX])
{
	size_t length = json_is_string(value) ? json_string_length(value) : 0;

	if (!length || length >= EXPLAIN_NAME_MAX || strlen(json_string_value(value)) != length)
		return false;
	memcpy(ret, json_string_value(value), length + 1);
	return true;
}

static bool parse_vlan(const json_t *value, struct packet_spec *spec)
{
	size_t n = json_is_array(value) ? json_array_size(value) : 1;

	if (n > PACKET_TAGS)
		return false;
	for (size_t i = 0; i < n; i++) {
		json_int_t id;

		if (!parse_number(json_is_array(value) ? json_array_get(value, i) : value, 4094, &id))
			return false;
		spec->vlan[i] = id;
	}
	spec->n_vlan = n;
	return true;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool parse_frame(const json_t *value, struct explain_request *ret)
{
	const char *text = json_string_value(value);
	size_t digits = json_is_string(value) ? json_string_length(value) : 0;

	if (digits % 2 || digits / 2 < 14 || digits / 2 > EXPLAIN_FRAME_MAX)
		return false;
	for (size_t i = 0; i < digits / 2; i++) {
		int high = hex_digit(text[2 * i]), low = hex_digit(text[2 * i + 1]);

		if (high < 0 || low < 0)
			return false;
		ret->frame[i] = high << 4 | low;
	}
	ret->length = digits / 2;
	return true;
}

/* "icmp" means the one of the addresses' family, once that is known. */
static bool parse_protocol(const json_t *value, struct packet_spec *spec)
{
	json_int_t number;
	int named;

	if (parse_number(value, 255, &number)) {
		spec->protocol = number;
		return true;
	}
	named = json_is_string(value) ? protocol_from_name(json_string_value(value)) : -1;
	if (named < 0)
		return false;
	spec->protocol = named;
	return true;
}

/* One field; false with *want set: the value is wrong; *want NULL: there is no such field. */
static bool parse_field(const char *key, const json_t *value, struct explain_request *ret, const char **want)
{
	struct packet_spec *spec = &ret->spec;
	json_int_t number = 0;
	bool ok;

#define FIELD(name, text) (!strcmp(key, name) && (*want = (text)))
	if (FIELD("from", "an address"))
		return parse_address(value, &spec->source);
	if (FIELD("to", "an address"))
		return parse_address(value, &spec->destination);
	if (FIELD("protocol", "a protocol name or 0..255"))
		return ret->has_protocol = parse_protocol(value, spec);
	if (FIELD("dport", "0..65535")) {
		ret->has_dport = ok = parse_number(value, 65535, &number);
		spec->destination_port = number;
		return ok;
	}
	if (FIELD("sport", "0..65535")) {
		ret->has_sport = ok = parse_number(value, 65535, &number);
		spec->source_port = number;
		return ok;
	}
	if (FIELD("icmpType", "0..255")) {
		ret->has_icmp_type = ok = parse_number(value, 255, &number);
		spec->icmp_type = number;
		return ok;
	}
	if (FIELD("icmpCode", "0..255")) {
		ok = parse_number(value, 255, &number);
		spec->icmp_code = number;
		return ok;
	}
	if (FIELD("icmpId", "0..65535")) {
		ok = parse_number(value, 65535, &number);
		spec->icmp_id = number;
		return ok;
	}
	if (FIELD("tcpFlags", "letters of FSRPAUEC, or syn,ack,…"))
		return ret->has_flags = json_is_string(value) && !tcp_flags_parse(json_string_value(value), &spec->tcp_flags);
	if (FIELD("vlan", "0..4094, or a list of two at most"))
		return parse_vlan(value, spec);
	if (FIELD("reply", "true or false")) {
		spec->reply = json_is_true(value);
		return json_is_boolean(value);
	}
	if (FIELD("uplink", "a device name"))
		return parse_device(value, ret->uplink);
	if (FIELD("egress", "a device name"))
		return parse_device(value, ret->egress);
	if (FIELD("network", "a network's name, or \"host\""))
		return parse_name(value, ret->network);
	if (FIELD("port", "a port's name"))
		return parse_name(value, ret->port);
	if (FIELD("peer", "a peer's name"))
		return parse_name(value, ret->peer);
	if (FIELD("namespace", "a namespace's name"))
		return parse_name(value, ret->namespace_);
	if (FIELD("frame", "28 or more hexadecimal digits, 9216 bytes at most"))
		return parse_frame(value, ret);
#undef FIELD
	*want = NULL;
	return false;
}

static void fill_in(struct explain_request *request)
{
	struct packet_spec *spec = &request->spec;
	bool ip6 = !addr_is_ipv4(&spec->source);

	if (!request->has_protocol)
		spec->protocol = request->has_icmp_type ? IPPROTO_ICMP : IPPROTO_TCP;
	if (spec->protocol == IPPROTO_ICMP && ip6)
		spec->protocol = IPPROTO_ICMPV6;
	if ((spec->protocol == IPPROTO_ICMP || spec->protocol == IPPROTO_ICMPV6) && !request->has_icmp_type)
		spec->icmp_type = ip6 ? (spec->reply ? 129 : 128) : (spec->reply ? 0 : 8);
	if (!spec->icmp_id)
		spec->icmp_id = request->has_sport ? spec->source_port : 1;
	/* the first port of the dynamic range (RFC 6335) stands for a client's */
	if (!request->has_sport)
		spec->source_port = 49152;
	if (!request->has_dport)
		spec->destination_port = 49152;
	if (!request->has_flags)
		spec->tcp_flags = spec->reply ? 0x10 : 0x02;
}

/* null is the same as absent: clients that fill a template send it. */
static bool is_given(const json_t *body, const char *key)
{
	const json_t *value = json_object_get(body, key);

	return value && !json_is_null(value);
}

static void check_described(struct explain_request *request, const json_t *body, struct buffer *mistakes)
{
	const struct packet_spec *spec = &request->spec;
	bool transport;

	if (!is_given(body, "from"))
		buffer_add_string(mistakes, "from: want an address\n");
	if (!is_given(body, "to"))
		buffer_add_string(mistakes, "to: want an address\n");
	if (mistakes->length)
		return;
	if (addr_is_ipv4(&spec->source) != addr_is_ipv4(&spec->destination)) {
		buffer_add_string(mistakes, "to: want an address of the family of `from`\n");
		return;
	}
	transport = request->has_protocol
			    ? spec->protocol == IPPROTO_TCP || spec->protocol == IPPROTO_UDP || spec->protocol == IPPROTO_SCTP
			    : !request->has_icmp_type;
	if (transport && !request->has_dport && !spec->reply)
		buffer_add_string(mistakes, "dport: want 0..65535 for this protocol\n");
}

int explain_parse(const json_t *body, struct explain_request *ret, struct buffer *mistakes)
{
	const char *key;
	json_t *value;
	size_t before = mistakes->length;

	*ret = (struct explain_request){0};
	if (!json_is_object(body)) {
		buffer_add_string(mistakes, "want a JSON object\n");
		return -EINVAL;
	}
	json_object_foreach ((json_t *)body, key, value) {
		const char *want = NULL;
		_cleanup_free_ char *got = NULL;

		if (json_is_null(value))
			continue;
		if (parse_field(key, value, ret, &want))
			continue;
		got = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
		if (want)
			buffer_printf(mistakes, "%.64s: want %s, got %.128s\n", key, want, got ? got : "?");
		else
			buffer_printf(mistakes, "%.64s: unknown field\n", key);
	}
	if (ret->port[0] && (ret->uplink[0] || ret->egress[0]))
		buffer_add_string(mistakes, "port: want a port, or an uplink or egress, not both\n");
	if (ret->peer[0] && (ret->port[0] || ret->egress[0]))
		buffer_add_string(mistakes, "peer: want a peer, or a port or egress, not both\n");
	if (mistakes->length > before)
		return -EINVAL;
	ret->described = !ret->length;
	if (ret->described) {
		check_described(ret, body, mistakes);
		if (mistakes->length == before)
			fill_in(ret);
	} else if (is_given(body, "from") || is_given(body, "to")) {
		buffer_add_string(mistakes, "frame: want a frame, or from and to, not both\n");
	}
	return mistakes->length > before ? -EINVAL : 0;
}
