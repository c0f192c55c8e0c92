/* SPDX-License-Identifier: GPL-2.0 */
/* Address → identity and node: the exact map first, then the longest prefix. */
#ifndef MESH_LIB_IPCACHE_H
#define MESH_LIB_IPCACHE_H

#include <mesh/ipcache.h>
#include <mesh/types.h>
#include "maps.h"

/* ipcache4: pod address → identity and node. Not preallocated: a small cluster must not pay for a million pods. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, IPCACHE_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct ipcache4_key);
	__type(value, struct ipcache_value);
} ipcache4 SEC(".maps");

/* ipcache6: pod address → identity and node. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, IPCACHE_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct ipcache6_key);
	__type(value, struct ipcache_value);
} ipcache6 SEC(".maps");

/* ipcache4_prefixes: address range → identity and node. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, IPCACHE_PREFIXES_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct ipcache4_prefix_key);
	__type(value, struct ipcache_value);
} ipcache4_prefixes SEC(".maps");

/* ipcache6_prefixes: address range → identity and node. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, IPCACHE_PREFIXES_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct ipcache6_prefix_key);
	__type(value, struct ipcache_value);
} ipcache6_prefixes SEC(".maps");

static __always_inline struct ipcache_value *ipcache_lookup4(const struct mesh_addr *address)
{
	struct ipcache4_key exact = { .address = address->v4 };
	struct ipcache4_prefix_key range = { .prefix_length = IPCACHE_STATIC_BITS + 32, .address = address->v4 };
	struct ipcache_value *value = bpf_map_lookup_elem(&ipcache4, &exact);

	return value ?: bpf_map_lookup_elem(&ipcache4_prefixes, &range);
}

static __always_inline struct ipcache_value *ipcache_lookup6(const struct mesh_addr *address)
{
	struct ipcache6_key exact = {};
	struct ipcache6_prefix_key range = { .prefix_length = IPCACHE_STATIC_BITS + 128 };
	struct ipcache_value *value;

	__builtin_memcpy(exact.address, address, 16);
	value = bpf_map_lookup_elem(&ipcache6, &exact);
	if (value)
		return value;
	__builtin_memcpy(range.address, address, 16);
	return bpf_map_lookup_elem(&ipcache6_prefixes, &range);
}

#define IDENTITY_SCOPED 0xff000000 /* a number of this node only: that of an address range in a policy */

/* Is it an address of the mesh, or one of which only a policy speaks? */
static __always_inline bool ipcache_is_inside(const struct ipcache_value *known)
{
	return known && !(known->identity & IDENTITY_SCOPED);
}

/* NULL = outside the mesh. Outside may be an address range of a policy too: see ipcache_is_inside. */
static __always_inline struct ipcache_value *ipcache_lookup(__u8 family, const struct mesh_addr *address)
{
	return family == MESH_FAMILY_IPV4 ? ipcache_lookup4(address) : ipcache_lookup6(address);
}

#endif
