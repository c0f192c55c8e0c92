/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Who may send what by the tunnel. The outer source must be a node's tunnel endpoint; the identity in the VNI must be one of that
 * node's cluster, or a reserved one that nodes use for others than themselves; the inner source must be neither ours nor, as far
 * as the ipcache knows it, of another cluster than the node's.
 *
 * What we do not know is not held against a known node: a pod may speak before its address has reached us. An unknown node is
 * refused only once the agent has had every source's word (agent_state.senders_known); the mark and the senders outlive the agent,
 * so a restart asks nobody anew.
 */
#ifndef MESH_LIB_SENDER_H
#define MESH_LIB_SENDER_H

#include <mesh/drop.h>
#include <mesh/endpoint.h>
#include "endpoint.h"
#include "ipcache.h"
#include "node.h"
#include "parse.h"

#define IDENTITY_RESERVED_MAX 255

/* tunnel_senders: underlay address → index into nodes. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, NODES_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct endpoint_key);
	__type(value, struct node_index);
} tunnel_senders SEC(".maps");

/* A number of a cluster: neither reserved nor of this node only. */
static __always_inline bool is_pod_identity(__u32 identity)
{
	return identity > IDENTITY_RESERVED_MAX && !(identity & IDENTITY_SCOPED);
}

static __always_inline bool all_senders_known(void)
{
	__u32 zero = 0;
	struct agent_state *state = bpf_map_lookup_elem(&agent_state, &zero);

	return state && READ_ONCE(state->senders_known);
}

static __always_inline struct node *sending_node(__u8 family, const struct mesh_addr *address)
{
	struct endpoint_key key = { .address = *address, .family = family };
	struct node_index *found = bpf_map_lookup_elem(&tunnel_senders, &key);
	__u32 index = found ? found->index : 0;

	return index ? bpf_map_lookup_elem(&nodes, &index) : NULL;
}

/* The proof that a node's packets reach us. Written at most once a millisecond. */
static __always_inline void node_was_seen(struct node *node)
{
	__u32 now = bpf_ktime_get_coarse_ns() / NANOSECONDS_PER_MILLISECOND;

	if (READ_ONCE(node->last_seen_ms) != now)
		node->last_seen_ms = now;
}

/* Is the address, as the ipcache knows it, of another cluster? */
static __always_inline bool is_of_other_cluster(const struct ipcache_value *known, __u32 cluster)
{
	__u32 index = known->node;
	struct node *node;

	if (is_pod_identity(known->identity))
		return known->identity >> config.identity_cluster_shift != cluster;
	node = index ? bpf_map_lookup_elem(&nodes, &index) : NULL;
	return node && node->family != MESH_FAMILY_NONE && node->cluster_id != cluster;
}

/* Has the ipcache an entry for this very address? What it says of a range may be less true of one of its addresses. */
static __always_inline bool is_single(__u8 family, const struct mesh_addr *address)
{
	if (family == MESH_FAMILY_IPV4) {
		struct ipcache4_key key = { .address = address->v4 };

		return bpf_map_lookup_elem(&ipcache4, &key);
	} else {
		struct ipcache6_key key = {};

		__builtin_memcpy(key.address, address, 16);
		return bpf_map_lookup_elem(&ipcache6, &key);
	}
}

/* FORWARDED, or why the packet is refused. address: outer source; identity: of the VNI. */
VERIFIED_ALONE int sender_may(__u32 family, const struct mesh_addr *address, __u32 identity, const struct flow *inner)
{
	struct ipcache_value *known;
	struct node *node;

	if (!address || !inner)
		return DROP_INVALID_PACKET;
	node = sending_node(family, address);
	if (!node)
		return all_senders_known() ? DROP_UNKNOWN_SENDER : FORWARDED;
	node_was_seen(node);
	if (identity == IDENTITY_HOST)
		return DROP_FOREIGN_IDENTITY;
	if (identity > IDENTITY_RESERVED_MAX && identity >> config.identity_cluster_shift != node->cluster_id)
		return DROP_FOREIGN_IDENTITY;
	if (endpoint_lookup(inner->family, &inner->source))
		return DROP_FOREIGN_SOURCE;
	known = ipcache_lookup(inner->family, &inner->source);
	if (!ipcache_is_inside(known))
		return FORWARDED;
	if (is_of_other_cluster(known, node->cluster_id))
		return DROP_FOREIGN_SOURCE;
	if (identity && identity <= IDENTITY_RESERVED_MAX && is_pod_identity(known->identity) &&
	    is_single(inner->family, &inner->source))
		return DROP_FOREIGN_IDENTITY; /* a pod that claims to be a node, or the world */
	return FORWARDED;
}

#endif
