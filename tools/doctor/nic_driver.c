/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include <util/cleanup.h>

#include <tools/doctor/nic.h>

static const struct nic_driver drivers[] = {
	{"mlx5_core", NIC_PHYSICAL, true, true, true, NULL},
	{"mlx4_en", NIC_PHYSICAL, true, false, false, NULL},
	{"ice", NIC_PHYSICAL, true, true, true, NULL},
	{"i40e", NIC_PHYSICAL, true, true, false, NULL},
	{"iavf", NIC_PHYSICAL, false, false, false, NULL},
	{"ixgbe", NIC_PHYSICAL, true, true, false, NULL},
	{"ixgbevf", NIC_PHYSICAL, true, false, false, NULL},
	{"igb", NIC_PHYSICAL, true, false, false,
		"zero-copy AF_XDP from kernel 6.14 on, where queues share an interrupt for receiving and sending"},
	{"igbvf", NIC_PHYSICAL, false, false, false, NULL},
	{"igc", NIC_PHYSICAL, true, true, false, NULL},
	{"e1000e", NIC_PHYSICAL, false, false, false, NULL},
	{"bnxt_en", NIC_PHYSICAL, true, false, true, NULL},
	{"nfp", NIC_PHYSICAL, true, true, true, NULL},
	{"qede", NIC_PHYSICAL, true, false, false, NULL},
	{"sfc", NIC_PHYSICAL, true, false, true, NULL},
	{"ionic", NIC_PHYSICAL, true, false, false, NULL},
	{"r8169", NIC_PHYSICAL, false, false, false, NULL},
	{"tg3", NIC_PHYSICAL, false, false, false, NULL},
	{"stmmac", NIC_PHYSICAL, true, true, false, NULL},
	{"fsl_dpaa2_eth", NIC_PHYSICAL, true, true, false, NULL},
	{"fsl_enetc", NIC_PHYSICAL, true, false, false, NULL},
	{"rvu_nicpf", NIC_PHYSICAL, true, false, true, NULL},
	{"atlantic", NIC_PHYSICAL, true, false, false, NULL},
	{"ena", NIC_PARAVIRTUAL, true, false, false, "native XDP needs an MTU below 3498 and half of the queues free"},
	{"gve", NIC_PARAVIRTUAL, true, true, false, NULL},
	{"mana", NIC_PARAVIRTUAL, true, false, false, NULL},
	{"virtio_net", NIC_PARAVIRTUAL, true, false, false,
		"zero-copy AF_XDP from kernel 6.11 on; native XDP needs the host to let the guest turn its receive offloads off"},
	{"vmxnet3", NIC_PARAVIRTUAL, true, false, false, "native XDP from kernel 6.6 on"},
	{"hv_netvsc", NIC_PARAVIRTUAL, true, false, false, NULL},
	{"vif", NIC_PARAVIRTUAL, true, false, false, NULL},
	{"netdevsim", NIC_SIMULATED, true, false, true, NULL},
	{"tun", NIC_TAP, true, false, false, NULL},
};

const struct nic_driver *nic_driver(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(drivers); i++)
		if (strcmp(drivers[i].name, name) == 0)
			return &drivers[i];
	return NULL;
}
