/* SPDX-License-Identifier: GPL-2.0 */
/* Node index → tunnel endpoint and state. */
#ifndef MESH_LIB_NODE_H
#define MESH_LIB_NODE_H

#include <mesh/node.h>
#include "maps.h"

/* nodes: index → tunnel endpoint, and a state byte that takes the node out with one store. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, NODES_MAX);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct node);
} nodes SEC(".maps");

/* Down or silent. Index 0 is a node that we know nothing bad about. */
static __always_inline bool node_is_down(__u32 index)
{
	struct node *node;

	if (!index)
		return false;
	node = bpf_map_lookup_elem(&nodes, &index);
	return node && READ_ONCE(node->state) != NODE_UP;
}

#endif
