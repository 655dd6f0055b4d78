/* SPDX-License-Identifier: Apache-2.0 */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include <util/port_name.h>

static bool take_number(const char **text, uint32_t *ret)
{
	unsigned long n;
	char *end;

	if (!isdigit((unsigned char)**text))
		return false;
	n = strtoul(*text, &end, 10);
	*text = end;
	*ret = (uint32_t)n;
	return n <= UINT32_MAX;
}

static bool take(const char **text, const char *word)
{
	size_t length = strlen(word);

	if (strncmp(*text, word, length) != 0)
		return false;
	*text += length;
	return true;
}

struct port_name port_name_parse(const char *text)
{
	static const struct port_name none;
	struct port_name name = {0};
	bool on_card = *text == 'l';
	uint32_t ignored;

	if (on_card) {
		text++;
		if (!take_number(&text, &ignored))
			return none;
	} else if (take(&text, "c")) {
		if (!take_number(&text, &ignored))
			return none;
		name.external = true;
	}
	if (*text == 'p' && isdigit((unsigned char)text[1])) {
		text++;
		if (!take_number(&text, &ignored) || (take(&text, "s") && !take_number(&text, &ignored)))
			return none;
		name.flavour = PORT_UPLINK;
		if (!*text)
			return name;
	}
	if (on_card || !take(&text, "pf") || !take_number(&text, &name.pf))
		return none;
	name.flavour = PORT_PF;
	if (*text == 's' && isdigit((unsigned char)text[1])) {
		text++;
		if (!take_number(&text, &ignored) || *text)
			return none;
	}
	if (!*text)
		return name;
	name.flavour = take(&text, "vfr") || take(&text, "vf") ? PORT_VF : take(&text, "sf") ? PORT_SF : PORT_NONE;
	if (name.flavour == PORT_NONE || !take_number(&text, &name.number) || *text)
		return none;
	return name;
}
