/* SPDX-License-Identifier: GPL-2.0 */
/* Nodes by a small index that ipcache values and backends carry, so that one store takes a node out or moves its tunnel. */
#ifndef MESH_NODE_H
#define MESH_NODE_H

#include "types.h"

#define NODES_MAX	65536		/* index 0 is never used */

enum node_state {
	NODE_UP = 0,
	NODE_DOWN = 1,		/* taken out: packets to it are dropped */
	NODE_SILENT = 2,	/* proved silent: not chosen, but what is sent there by name still goes there, and so do probes */
};

/* Value of nodes (memory-mapped array). */
struct node {
	struct mesh_addr	tunnel_endpoint;	/* underlay address */
	__u8	family;		/* MESH_FAMILY_* of the underlay; NONE = free slot */
	__u8	state;		/* enum node_state */
	__u16	cluster_id;
	__u32	last_seen_ms;	/* monotonic clock when a packet of the node last came out of the tunnel; 0 = never */
	__u8	next_hop_mac[6];	/* of the outer frame; counts only with an interface_index */
	__u8	source_mac[6];
	__u32	interface_index;	/* device the outer frame leaves by; 0 = not resolved: ask the stack */
	__u32	flags;			/* NODE_* */
	__u32	pad;
};

#define NODE_TAKES_DSR	0x01	/* knows the virtual address in a packet and answers the client itself */

/* Value of tunnel_senders, whose key is struct endpoint_key: the underlay address. */
struct node_index {
	__u32	index;		/* into nodes */
};

#endif
