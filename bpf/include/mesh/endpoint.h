/* SPDX-License-Identifier: GPL-2.0 */
/* Pods of this node, and the node's own addresses, by address. */
#ifndef MESH_ENDPOINT_H
#define MESH_ENDPOINT_H

#include "types.h"

#define ENDPOINTS_MAX	4096

/* Key of endpoints. */
struct endpoint_key {
	struct mesh_addr	address;
	__u8	family;		/* MESH_FAMILY_* */
	__u8	pad[3];
};

/* Value of endpoints. */
struct endpoint {
	__u32	interface_index;	/* host side of the pod's veth, in the node's namespace */
	__u32	identity;		/* 0 = not known yet */
	__u8	mac[6];			/* pod side: destination of delivered frames */
	__u16	id;			/* endpoint id, for people */
	__u8	host_mac[6];		/* host side: the gateway the pod sees */
	__u16	flags;			/* ENDPOINT_* */
};

#define ENDPOINT_HOST	0x01	/* an address of the node itself: goes up to the stack */
#define ENDPOINT_POLICY	0x02	/* a pod whose word in policy_endpoints is asked */

#endif
