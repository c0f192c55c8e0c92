/* SPDX-License-Identifier: GPL-2.0 */
/* Nodes by a small index that ipcache values and backends carry, so that one store takes a node out or moves its tunnel. */
#ifndef MESH_NODE_H
#define MESH_NODE_H

#include "types.h"

#define NODES_MAX	65536		/* index 0 is never used */

enum node_state {
	NODE_UP = 0,
	NODE_DOWN = 1,
};

/* Value of nodes (memory-mapped array). */
struct node {
	struct mesh_addr	tunnel_endpoint;	/* underlay address */
	__u8	family;		/* MESH_FAMILY_* of the underlay; NONE = free slot */
	__u8	state;		/* enum node_state */
	__u16	cluster_id;
	__u32	last_seen_ms;	/* room for traffic-proven liveness; 0 today */
	__u8	next_hop_mac[6];	/* room for the hand-built outer header; zero today */
	__u8	source_mac[6];
	__u32	interface_index;
};

#endif
