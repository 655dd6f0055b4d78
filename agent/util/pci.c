/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include <util/pci.h>

#define HEX "0123456789abcdef"

bool pci_address_valid(const char *text, size_t length)
{
	size_t domain = strspn(text, HEX);
	const char *rest = text + domain;

	/* Five bits of a device, three of a function. */
	return domain >= 4 && domain <= 8 && length == domain + strlen(":01:10.0") && rest[0] == ':' &&
	       strspn(rest + 1, HEX) == 2 && rest[3] == ':' && strspn(rest + 4, HEX) == 2 && rest[4] <= '1' && rest[6] == '.' &&
	       rest[7] >= '0' && rest[7] <= '7';
}
