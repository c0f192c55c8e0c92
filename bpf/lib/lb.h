/* SPDX-License-Identifier: GPL-2.0 */
/* Services and backends as mesh/lb.h draws them, and what is asked of them. Which backend a flow gets is choice.h. */
#ifndef MESH_LIB_LB_H
#define MESH_LIB_LB_H

#include <mesh/lb.h>
#include "maps.h"
#include "liveness.h"
#include "node.h"
#include "parse.h"

/* lb4_services: frontend → service id. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, LB_SERVICES_MAX);
	__type(key, struct lb4_key);
	__type(value, struct lb_service_id);
} lb4_services SEC(".maps");

/* lb6_services: frontend → service id. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, LB_SERVICES_MAX);
	__type(key, struct lb6_key);
	__type(value, struct lb_service_id);
} lb6_services SEC(".maps");

/* lb_services: service id → struct lb_service, the commit word: where the service's header lies in the arena. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, LB_SERVICES_MAX);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct lb_service);
} lb_services SEC(".maps");

/* lb_arena: block number → 64 bytes of segments or of table. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, LB_ARENA_BLOCKS);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct lb_block);
} lb_arena SEC(".maps");

/* lb_backends: backend slot → address and state. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, LB_BACKENDS_MAX);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct lb_backend);
} lb_backends SEC(".maps");

/* lb4_source_ranges: set of ranges and address → 1, for services that serve some sources only. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, LB_RANGES_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct lb4_range_key);
	__type(value, __u32);
} lb4_source_ranges SEC(".maps");

/* lb6_source_ranges: set of ranges and address → 1. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, LB_RANGES_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct lb6_range_key);
	__type(value, __u32);
} lb6_source_ranges SEC(".maps");

/* lb_node_addresses: address of a node of this cluster → enum lb_node_place. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, LB_NODE_ADDRESSES_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct lb_node_address);
	__type(value, __u32);
} lb_node_addresses SEC(".maps");

/* lb_affinity: client and service → the backend that it must stay with. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, LB_AFFINITY_MAX);
	__type(key, struct lb_affinity_key);
	__type(value, struct lb_affinity);
} lb_affinity SEC(".maps");

/* lb_datagram_backends: backend that a socket hook has given to a socket for datagrams → its slot, for the ICMP errors about it. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, LB_DATAGRAM_BACKENDS_MAX);
	__type(key, struct lb_datagram_backend);
	__type(value, __u32);
} lb_datagram_backends SEC(".maps");

#define HASH_STEP 0x9e3779b9U /* 2³² / golden ratio */

static __always_inline __u32 mix32(__u32 hash)
{
	hash ^= hash >> 16;
	hash *= 0x85ebca6bU;
	hash ^= hash >> 13;
	hash *= 0xc2b2ae35U;
	hash ^= hash >> 16;
	return hash;
}

/* hash · size / 2³²: a number below size, for a mixed hash. */
static __always_inline __u32 scale(__u32 hash, __u32 size)
{
	return ((__u64)hash * size) >> 32;
}

static __always_inline __u32 hash_address(__u32 hash, __u8 family, const struct mesh_addr *address)
{
	hash = mix32(hash ^ address->v6[0]);
	if (family == MESH_FAMILY_IPV6) {
		hash = mix32(hash ^ address->v6[1]);
		hash = mix32(hash ^ address->v6[2]);
		hash = mix32(hash ^ address->v6[3]);
	}
	return hash;
}

/* The same for every packet of one direction of a conversation. */
static __always_inline __u32 flow_hash(const struct flow *flow)
{
	__u32 hash = HASH_STEP ^ flow->protocol;

	hash = hash_address(hash, flow->family, &flow->source);
	hash = hash_address(hash, flow->family, &flow->destination);
	return mix32(hash ^ ((__u32)flow->source_port << 16 | flow->destination_port));
}

static __always_inline struct lb_service_id *lb_find_frontend(__u8 family, const struct mesh_addr *address, __be16 port,
							      __u8 protocol)
{
	if (family == MESH_FAMILY_IPV4) {
		struct lb4_key key = { .address = address->v4, .port = port, .protocol = protocol };

		return bpf_map_lookup_elem(&lb4_services, &key);
	} else {
		struct lb6_key key = { .port = port, .protocol = protocol };

		__builtin_memcpy(key.address, address, 16);
		return bpf_map_lookup_elem(&lb6_services, &key);
	}
}

/* enum lb_node_place of an address of this cluster's nodes; 0 = of no node. */
static __always_inline __u32 lb_node_place(__u8 family, const struct mesh_addr *address)
{
	struct lb_node_address key = { .address = *address, .family = family };
	__u32 *place = bpf_map_lookup_elem(&lb_node_addresses, &key);

	return place ? *place : 0;
}

/* The id of the service with this frontend for clients of this scope, or 0. A NodePort is a frontend of every node's addresses. */
static __always_inline __u32 lb_find_service(__u8 family, const struct mesh_addr *address, __be16 port, __u8 protocol,
					     enum lb_scope scope)
{
	struct lb_service_id *found = lb_find_frontend(family, address, port, protocol);
	const struct mesh_addr every_node = {};
	__u16 number = bpf_ntohs(port);

	if (!found && number && number >= config.node_port_first && number <= config.node_port_last &&
	    lb_node_place(family, address))
		found = lb_find_frontend(family, &every_node, port, protocol);
	if (!found)
		return 0;
	return scope == LB_SCOPE_INTERNAL && found->internal_id ? found->internal_id : found->id;
}

/* The service's commit word, whole; all zero = no such service. */
static __always_inline struct lb_service lb_committed(__u32 id)
{
	__u64 *commit = bpf_map_lookup_elem(&lb_services, &id);
	union {
		__u64 word;
		struct lb_service service;
	} committed = {};

	if (commit)
		committed.word = READ_ONCE(*commit);
	return committed.service;
}

/* What holds for the service as a whole; NULL = nothing special. */
static __always_inline struct lb_service_info *lb_info(struct lb_service service)
{
	__u32 number = service.block;
	struct lb_block *block = number ? bpf_map_lookup_elem(&lb_arena, &number) : NULL;

	return block ? &block->info : NULL;
}

/* May a client outside the cluster with this address use the service? Clients of the cluster always may. */
VERIFIED_ALONE int lb_source_allowed(__u32 id, __u32 family, struct mesh_addr *source)
{
	struct lb_service service = lb_committed(id);
	struct lb_service_info *info;

	if (!(service.flags & LB_SERVICE_SOURCE_RANGES))
		return true;
	info = lb_info(service);
	if (!info || !source)
		return false;
	if (family == MESH_FAMILY_IPV4) {
		struct lb4_range_key key = {
			.prefix_length = LB_RANGE_STATIC_BITS + 32,
			.id = info->source_ranges,
			.address = source->v4,
		};

		return bpf_map_lookup_elem(&lb4_source_ranges, &key) != NULL;
	} else {
		struct lb6_range_key key = { .prefix_length = LB_RANGE_STATIC_BITS + 128, .id = info->source_ranges };

		__builtin_memcpy(key.address, source, 16);
		return bpf_map_lookup_elem(&lb6_source_ranges, &key) != NULL;
	}
}

static __always_inline struct lb_backend *lb_backend(__u32 slot)
{
	return bpf_map_lookup_elem(&lb_backends, &slot);
}

/* May the backend be sent a flow, as far as the tables know? worst = LB_BACKEND_ACTIVE, or LB_BACKEND_DRAINING to allow both. */
static __always_inline bool lb_backend_serves(const struct lb_backend *backend, __u8 worst)
{
	return READ_ONCE(backend->state) <= worst && READ_ONCE(backend->family) != MESH_FAMILY_NONE;
}

/* The same, and as far as traffic has proved. */
static __always_inline bool lb_backend_lives(__u32 slot, const struct lb_backend *backend, __u8 worst)
{
	return lb_backend_serves(backend, worst) && lb_backend_is_well(slot, backend);
}

/* Does the slot hold this backend, alive? */
static __always_inline bool lb_still_lives(__u32 slot, const struct mesh_addr *address, __be16 port, __u8 worst)
{
	struct lb_backend *backend = lb_backend(slot);

	return backend && backend->port == port && same_address(&backend->address, address) &&
	       cluster_lives(READ_ONCE(backend->cluster_id)) && lb_backend_lives(slot, backend, worst);
}

/* Is the backend that was chosen earlier out of reach? Not when the slot holds another by now: then nothing is known. */
static __always_inline bool lb_is_lost(__u32 slot, const struct mesh_addr *address, __be16 port)
{
	struct lb_backend *backend = lb_backend(slot);

	return backend && backend->port == port && same_address(&backend->address, address) && lb_backend_is_lost(slot, backend);
}

#endif
