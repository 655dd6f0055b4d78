/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pair of devices by which the host's own stack and workloads behind peers reach each other. The stack's routes lead to TUNNEL_STACK_DEVICE; a program
 * takes what it sends there, and puts the answers in there. Nothing ever comes out of the other end. The stack resolves nobody on it: its MAC is
 * the gateway's.
 */
#ifndef HEDDLE_NETDEV_TUNNEL_STACK_H
#define HEDDLE_NETDEV_TUNNEL_STACK_H

#include <heddle/network.h>
#include <netdev/pair.h>

#define TUNNEL_STACK_DEVICE "heddle-host"
#define TUNNEL_STACK_FAR "heddle-nowhere"

static const struct pair tunnel_stack_pair = {.near = TUNNEL_STACK_DEVICE,
	.far = TUNNEL_STACK_FAR,
	.alias = "heddle: the host and workloads behind peers",
	.mtu = 1500,
	.stack = true,
	.mac = HD_GATEWAY_MAC};

#endif
