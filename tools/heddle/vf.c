/* SPDX-License-Identifier: Apache-2.0 */
/* heddle vf: VFs, what stands for them, and what the NIC does for them. */
#include "client.h"
#include "heddle.h"
#include "output.h"

static const char *on_off(const json_t *vf, const char *key)
{
	const json_t *value = json_object_get(vf, key);

	return json_is_true(value) ? "on" : json_is_false(value) ? "off" : "-";
}

static const char *number(const json_t *vf, const char *key, char out[TEXT_MAX])
{
	if (!json_is_integer(json_object_get(vf, key)))
		return "-";
	snprintf(out, TEXT_MAX, "%lld", number_at(vf, key));
	return out;
}

static void print_vfs(const json_t *items)
{
	static const char *const columns[] = {
		"PF", "VF", "PCI", "DEVICE", "REPRESENTOR", "PORT", "MAC", "VLAN", "RATE", "SPOOF CHECK", "TRUST", "LINK"};
	struct table *table = table_new(columns, 12);
	char text[TEXT_MAX];
	const json_t *vf;
	size_t i;

	table_right(table, 1);
	json_array_foreach (items, i, vf) {
		const json_t *port = json_object_get(vf, "port");

		table_cell(table, "%s", text_at(vf, "pf"));
		table_cell(table, "%lld", number_at(vf, "index"));
		table_cell(table, "%s", text_at(vf, "pci"));
		table_cell(table, "%s", text_at(vf, "device"));
		table_cell(table, "%s", text_at(vf, "representor"));
		if (json_is_object(port))
			table_cell(table, "%s/%s", text_at(port, "namespace"), text_at(port, "name"));
		else
			table_cell(table, "-");
		table_cell(table, "%s", text_at(vf, "mac"));
		table_cell(table, "%s", number(vf, "vlan", text));
		if (number_at(vf, "minRate"))
			table_cell(table, "%lld..%lld", number_at(vf, "minRate"), number_at(vf, "maxRate"));
		else
			table_cell(table, "%s", number(vf, "maxRate", text));
		table_cell(table, "%s", on_off(vf, "spoofCheck"));
		table_cell(table, "%s", on_off(vf, "trust"));
		table_cell(table, "%s", text_at(vf, "linkState"));
	}
	table_print(table, stdout);
}

static void print_refused(const json_t *items)
{
	const json_t *vf, *refused;
	size_t i, j;

	json_array_foreach (items, i, vf)
		json_array_foreach (json_object_get(vf, "refused"), j, refused)
			printf("VF %lld of %s: %s is refused: %s\n", number_at(vf, "index"), text_at(vf, "pf"),
				text_at(refused, "setting"), text_at(refused, "reason"));
}

static int vf_run(struct cli *cli)
{
	json_auto_t *answer = NULL;
	const json_t *pfs, *pf;
	int code = client_call(cli->client, &(struct client_request){.path = "/v1/vfs"}, &answer);
	size_t i;

	if (code)
		return code;
	if (cli->output != OUTPUT_TABLE)
		return print_value(cli->output, answer);
	pfs = json_object_get(answer, "pfs");
	if (!json_array_size(pfs))
		printf("no device here has VFs\n");
	json_array_foreach (pfs, i, pf) {
		printf("%s (%s, %s): %lld", text_at(pf, "device"), text_at(pf, "address"), text_at(pf, "driver"),
			number_at(pf, "vfs"));
		if (number_at(pf, "totalVfs"))
			printf(" of %lld", number_at(pf, "totalVfs"));
		printf(" VFs, %s\n", string_at(pf, "eswitch") ? string_at(pf, "eswitch") : "mode of its switch not told");
	}
	if (json_array_size(json_object_get(answer, "items"))) {
		printf("\n");
		print_vfs(json_object_get(answer, "items"));
		print_refused(json_object_get(answer, "items"));
	}
	return CLI_DONE;
}

const struct verb verb_vf = {
	.name = "vf",
	.arguments = "",
	.summary = "VFs: whose, which device stands for them, what the NIC does for them",
	.run = vf_run,
};
