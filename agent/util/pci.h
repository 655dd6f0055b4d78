/* SPDX-License-Identifier: Apache-2.0 */
/* PCI addresses, by which devices are known whatever their interfaces are called. */
#ifndef HEDDLE_UTIL_PCI_H
#define HEDDLE_UTIL_PCI_H

#include <stdbool.h>
#include <stddef.h>

/* DOMAIN:BUS:DEVICE.FUNCTION, all of it and as /sys writes it: lower case; behind an Intel VMD the domain has five digits or more. */
bool pci_address_valid(const char *text, size_t length);

#endif
