/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <heddle/overlay.h>
#include <observe/flows.h>
#include <observe/json.h>
#include <observe/names.h>
#include <observe/preview.h>
#include <util/cleanup.h>

/* A flow whose verdict differs. */
struct changed {
	struct datapath_flow flow;
	struct image_verdict verdict[2]; /* NOW, THEN */
};

/* Flows are kept in pieces: a list that doubles would need three times their memory for a moment. */
#define PIECE 256
struct piece {
	struct piece *next;
	size_t n;
	struct changed changed[PIECE];
};

/* What either policy has for an interface. */
enum { NOW, THEN, POLICIES };
struct place {
	uint32_t ifindex;
	const struct image_device *uplink[POLICIES], *port[POLICIES];
};

struct preview {
	const struct view *view;
	struct policy_image *image[POLICIES];
	struct place *places; /* by ifindex; while flows are judged */
	struct piece *first, *last;
	size_t written; /* of the first piece */
	bool begun, some;
};

/* --- judging --- */

static int place_cmp(const void *a, const void *b)
{
	const struct place *x = a, *y = b;

	return (x->ifindex > y->ifindex) - (x->ifindex < y->ifindex);
}

static int make_places(struct preview *preview)
{
	const struct view *view = preview->view;
	struct place *places = preview->places = calloc(view->n_devices + 1, sizeof(*places));

	if (!places)
		return -ENOMEM;
	for (size_t i = 0; i < view->n_devices; i++) {
		const struct topology_port *port = view_port(view, view->devices[i].ifindex);
		char name[IF_NAMESIZE];

		if (port)
			policy_image_name(&port->object->port, name);
		else
			snprintf(name, sizeof(name), "%s", view->devices[i].name);
		places[i].ifindex = view->devices[i].ifindex;
		for (unsigned which = 0; which < POLICIES; which++) {
			places[i].uplink[which] = policy_image_uplink(preview->image[which], view->devices[i].name);
			places[i].port[which] = policy_image_port(preview->image[which], name);
		}
	}
	qsort(places, view->n_devices, sizeof(*places), place_cmp);
	return 0;
}

/* An interface that is gone is nobody's. */
static const struct place *find_place(const struct preview *preview, uint32_t ifindex)
{
	static const struct place nowhere;
	const struct place key = {.ifindex = ifindex}, *found = NULL;

	if (ifindex)
		found = bsearch(&key, preview->places, preview->view->n_devices, sizeof(key), place_cmp);
	return found ? found : &nowhere;
}

/* Else the host, somebody on the wire, or behind a peer: policy there is not ours. */
static bool is_port(uint32_t device)
{
	return device && !(device & HD_DEVICE_PEER);
}

static int judge_by(const struct preview *preview, unsigned which, const struct datapath_flow *flow, struct image_verdict *ret)
{
	const struct hd_flow *f = &flow->flow;
	uint32_t opener = f->flags & HD_FLOW_TURNED ? f->ifindex : f->device[HD_ORIG];
	struct image_flow question = {
		.source = flow->source,
		.destination = flow->destination,
		.source_port = flow->source_port,
		.destination_port = flow->destination_port,
		.protocol = flow->protocol,
		.family = flow->family,
		.between_ports = f->device[HD_ORIG] || f->device[HD_REPLY],
	};

	if (question.between_ports) {
		question.has_opener = is_port(opener);
		question.has_target = is_port(f->device[HD_REPLY]);
		if (flow->network < HD_NETWORKS)
			question.network[0] = question.network[1] = flow->network;
		else if (preview->view->networks)
			(void)networks_of_zone(
				preview->view->networks, flow->network, &question.network[0], &question.network[1]);
		question.from_node = !question.has_opener && f->rule == HD_RULE_NODE;
		question.opener = find_place(preview, opener)->port[which];
		question.target = find_place(preview, f->device[HD_REPLY])->port[which];
	} else {
		question.forwarded = f->flags & HD_FLOW_FORWARDED;
		question.left_elsewhere = f->second_version != 0;
		question.direction = f->flags & HD_FLOW_DIR_EGRESS ? HD_EGRESS : HD_INGRESS;
		question.uplink = find_place(preview, f->ifindex)->uplink[which];
	}
	return policy_image_judge(preview->image[which], &question, ret);
}

static int keep(struct preview *preview, const struct changed *changed)
{
	struct piece *piece = preview->last;

	if (!piece || piece->n == PIECE) {
		piece = malloc(sizeof(*piece));
		if (!piece)
			return -ENOMEM;
		piece->next = NULL;
		piece->n = 0;
		if (preview->last)
			preview->last->next = piece;
		else
			preview->first = piece;
		preview->last = piece;
	}
	piece->changed[piece->n++] = *changed;
	return 0;
}

static int judge(const struct datapath_flow *flow, void *userdata)
{
	struct preview *preview = userdata;
	struct changed changed = {.flow = *flow};
	int r;

	/* what is asked is asked of the flow that it leads to */
	if (flow->flow.rule == HD_RULE_SERVICE)
		return 0;
	r = judge_by(preview, NOW, flow, &changed.verdict[NOW]);
	if (r >= 0)
		r = judge_by(preview, THEN, flow, &changed.verdict[THEN]);
	if (r == -EINVAL)
		r = -EIO; /* not the documents' fault */
	return r < 0 || changed.verdict[NOW].verdict == changed.verdict[THEN].verdict ? r : keep(preview, &changed);
}

int preview_new(const struct view *view, struct policy_image *now, struct policy_image *then, struct preview **ret)
{
	_cleanup_(preview_free_p) struct preview *preview = calloc(1, sizeof(*preview));
	int r;

	if (!preview) {
		policy_image_free(now);
		policy_image_free(then);
		return -ENOMEM;
	}
	preview->view = view;
	preview->image[NOW] = now;
	preview->image[THEN] = then;
	r = make_places(preview);
	if (r == 0 && view->datapath)
		r = datapath_flows(view->datapath, judge, preview);
	if (r < 0)
		return r;
	free(TAKE_PTR(preview->places));
	policy_image_drop_tables(now);
	policy_image_drop_tables(then);
	*ret = TAKE_PTR(preview);
	return 0;
}

void preview_free(struct preview *preview)
{
	if (!preview)
		return;
	for (struct piece *piece = preview->first, *next; piece; piece = next) {
		next = piece->next;
		free(piece);
	}
	free(preview->places);
	policy_image_free(preview->image[NOW]);
	policy_image_free(preview->image[THEN]);
	free(preview);
}

/* --- writing --- */

/* A rule of a policy that is not in force has no id: those are given when it is. */
static json_t *rule_of(const struct view *view, const struct policy_image *image, uint32_t id)
{
	struct view other = *view;
	json_t *rule;

	other.compiler = policy_image_compiler(image);
	rule = json_rule(&other, id);
	if (json_is_object(rule) && id >= HD_RULE_FIRST)
		json_object_set_new(rule, "id", json_null());
	return rule;
}

static json_t *changed_json(const struct preview *preview, const struct changed *changed)
{
	const struct image_verdict *now = &changed->verdict[NOW], *then = &changed->verdict[THEN];
	json_t *json = flow_json(preview->view, &changed->flow);

	if (!json)
		return NULL;
	json_object_set_new(json, "now", json_string(verdict_name(now->verdict)));
	json_object_set_new(json, "then", json_string(verdict_name(then->verdict)));
	json_object_set_new(json, "audit", json_boolean(then->audit));
	json_object_set_new(json, "rule", rule_of(preview->view, preview->image[THEN], then->rule));
	json_object_set_new(json, "nowRule", rule_of(preview->view, preview->image[NOW], now->rule));
	json_object_del(json, "secondRule");
	if (then->second_rule)
		json_object_set_new(json, "secondRule", rule_of(preview->view, preview->image[THEN], then->second_rule));
	return json;
}

int preview_write(struct preview *preview, struct buffer *text, size_t size)
{
	size_t end = text->length + size;

	if (!preview->begun)
		buffer_add_string(text, "{\"items\":[");
	preview->begun = true;
	while (preview->first && text->length < end) {
		struct piece *piece = preview->first;

		if (preview->some)
			buffer_add_char(text, ',');
		preview->some = true;
		if (json_write(changed_json(preview, &piece->changed[preview->written++]), text) < 0)
			return -ENOMEM;
		if (preview->written < piece->n)
			continue;
		preview->first = piece->next;
		preview->written = 0;
		free(piece);
	}
	if (!preview->first)
		buffer_add_string(text, "]}\n");
	return text->failed ? -ENOMEM : preview->first != NULL;
}
