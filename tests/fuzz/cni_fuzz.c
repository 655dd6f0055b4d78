/* SPDX-License-Identifier: Apache-2.0 */
/* What a runtime may hand to heddle-cni: variables, one a line, then standard input, as configuration and as a result; and a record of a VF. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cni/cni.h>
#include <netdev/vf_loan.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool good)
{
	if (!good)
		abort();
}

/* Cuts one line off; NULL for an empty one. */
static const char *line(char **rest)
{
	char *end = strchr(*rest, '\n'), *begin = *rest;

	if (!end)
		return NULL;
	*end = '\0';
	*rest = end + 1;
	return *begin ? begin : NULL;
}

static void try_result(const struct config *config, const json_t *json)
{
	struct failure failure = {0};
	struct result result = {0};
	json_t *told;

	if (result_decode(json, config->env.ifname, &result, &failure) == 0 && config->env.ifname && config->env.netns) {
		told = result_encode(config, &result, "hd0", "02:00:00:00:00:01");
		check(told != NULL || result.n_addresses > 0);
		json_decref(told);
	} else if (failure.code) {
		told = failure_json(&failure, version_name(config->version));
		check(told != NULL);
		json_decref(told);
	}
	failure_clear(&failure);
	result_clear(&result);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct environment env = {0};
	struct failure failure = {0};
	struct config config = {0};
	char *text = malloc(size + 1), *rest = text, device[DEVICE_NAME_MAX], alias[ALIAS_MAX];
	struct vf_loan loan;
	json_t *told;

	check(text != NULL);
	if (vf_loan_decode((const char *)data, size, &loan) == 0)
		check(loan.vf.ifindex ? loan.vf.name[0] : !loan.vf.name[0]);
	memcpy(text, data, size);
	text[size] = '\0';
	env.command = line(&rest);
	env.container = line(&rest);
	env.netns = line(&rest);
	env.ifname = line(&rest);
	env.args = line(&rest);
	env.path = line(&rest);
	if (config_decode(&env, rest, size - (size_t)(rest - text), &config, &failure) < 0) {
		check(failure.code != 0);
		told = failure_json(&failure, version_name(config.version));
		check(told != NULL);
		json_decref(told);
	} else if (config.verb == VERB_ADD || config.verb == VERB_DEL || config.verb == VERB_CHECK) {
		config_device(config.name, env.container, env.ifname, device);
		config_alias(env.container, env.ifname, alias);
		check(strlen(device) == DEVICE_NAME_MAX - 1 && strlen(alias) < ALIAS_MAX - 1);
	}
	if (config.root)
		try_result(&config, config.previous ? config.previous : config.root);
	config_clear(&config);
	failure_clear(&failure);
	free(text);
	return 0;
}
