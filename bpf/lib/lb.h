/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Frontend → live backend, by the tables that mesh/lb.h draws. The choice is a pure function of (tables, states, hash):
 *
 *   for each tier, lowest first:
 *     for probe k = 0, 1, … : h = mix(hash + k·φ); a segment of the tier, dead or alive, in proportion to its weight, by h;
 *                             a backend of the segment by its table and mix(h); taken if cluster, backend and node live
 *     then at most LB_SCAN_MAX backends one after another, from where h pointed
 *   and the same again with draining backends allowed, and at last (panic) whatever traffic has proved of their health.
 *
 * Because dead segments keep their share of the first draw, the death of one moves only the flows that were on it.
 */
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
#define HASH_TABLE 0x7feb352dU /* separates the draw within a segment from the draw of the segment */

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

/* State of one choice, handed to the loops. */
struct lb_choice {
	__u32 block; /* of the header */
	__u32 segments; /* in the header */
	__u32 hash;
	__u32 first; /* the tier is segments [first, end) */
	__u32 end;
	__u32 total; /* weight of the tier */
	__u32 at; /* what is left of the draw within the segment found; in the scan, the place of a backend */
	__u32 index; /* the segment found */
	__u32 scanned;
	__u32 slot; /* the answer; 0 = none yet */
	__u8 worst; /* enum lb_backend_state allowed */
	__u8 panic; /* whatever traffic has proved */
	__u8 pad[2];
};

static __always_inline struct lb_segment *lb_segment(const struct lb_choice *choice, __u32 index)
{
	__u32 slot = index + 1;
	__u32 number = choice->block + slot / LB_SLOTS_PER_BLOCK;
	struct lb_block *block = bpf_map_lookup_elem(&lb_arena, &number);

	return block ? &block->slots[slot % LB_SLOTS_PER_BLOCK] : NULL;
}

static __always_inline __u32 lb_weight(const struct lb_segment *segment)
{
	return segment->weight ?: segment->backends;
}

static __always_inline bool lb_cluster_may_take(const struct lb_choice *choice, const struct lb_segment *segment)
{
	return choice->panic ? cluster_is_up(segment->cluster_id) : cluster_may_take(segment->cluster_id, choice->hash);
}

/* The slot of the live backend at this place of the segment, or 0. */
static __always_inline __u32 lb_live_slot(const struct lb_choice *choice, const struct lb_segment *segment, __u32 place)
{
	__u32 slot = segment->backend_base + place;
	struct lb_backend *backend = lb_backend(slot);

	if (!backend || !lb_backend_serves(backend, choice->worst))
		return 0;
	return choice->panic || lb_backend_is_well(slot, backend) ? slot : 0;
}

/* The segment's backend for this hash, if cluster, backend and node live; or 0. */
static __always_inline __u32 lb_pick(const struct lb_choice *choice, const struct lb_segment *segment, __u32 hash)
{
	__u32 wide = segment->flags & LB_SEGMENT_WIDE ? 1 : 0;
	__u32 size = segment->table_size;
	struct lb_block *block;
	__u32 byte, number, place;

	if (!size || !lb_cluster_may_take(choice, segment))
		return 0;
	byte = segment->table + ((mix32(hash ^ HASH_TABLE) % size) << wide);
	number = byte / LB_BLOCK_BYTES;
	block = bpf_map_lookup_elem(&lb_arena, &number);
	if (!block)
		return 0;
	place = wide ? *(__u16 *)&block->table[byte & (LB_BLOCK_BYTES - 2)] : block->table[byte & (LB_BLOCK_BYTES - 1)];
	return place < segment->backends ? lb_live_slot(choice, segment, place) : 0;
}

/* Adds segment first + i to the tier; stops at the next tier. */
static long lb_extend_tier(__u32 i, struct lb_choice *choice)
{
	__u32 index = choice->first + i;
	struct lb_segment *segment, *first;

	if (index >= choice->segments)
		return 1;
	segment = lb_segment(choice, index);
	first = lb_segment(choice, choice->first);
	if (!segment || !first || segment->tier != first->tier)
		return 1;
	choice->total += lb_weight(segment);
	choice->end = index + 1;
	return 0;
}

/* Spends the draw on segment first + i; stops where it falls. */
static long lb_spend_draw(__u32 i, struct lb_choice *choice)
{
	__u32 index = choice->first + i;
	struct lb_segment *segment = lb_segment(choice, index);

	if (!segment)
		return 1;
	choice->index = index;
	if (choice->at < lb_weight(segment))
		return 1;
	choice->at -= lb_weight(segment);
	return 0;
}

static __always_inline void lb_draw(struct lb_choice *choice, __u32 hash)
{
	choice->at = scale(hash, choice->total);
	bpf_loop(choice->end - choice->first, lb_spend_draw, choice, 0);
}

static long lb_probe(__u32 i, struct lb_choice *choice)
{
	__u32 hash = mix32(choice->hash + i * HASH_STEP);
	struct lb_segment *segment;

	lb_draw(choice, hash);
	segment = lb_segment(choice, choice->index);
	if (!segment)
		return 1;
	choice->slot = lb_pick(choice, segment, hash);
	return choice->slot != 0;
}

/* One backend of the scan, or one step past the end of a segment or past a dead one. */
static long lb_scan(__u32 i, struct lb_choice *choice)
{
	struct lb_segment *segment = lb_segment(choice, choice->index);

	if (!segment || choice->scanned >= LB_SCAN_MAX)
		return 1;
	if (choice->at >= segment->backends || !lb_cluster_may_take(choice, segment)) {
		choice->at = 0;
		choice->index++;
		if (choice->index >= choice->end)
			choice->index = choice->first;
		return 0;
	}
	choice->slot = lb_live_slot(choice, segment, choice->at);
	choice->at++;
	choice->scanned++;
	return choice->slot != 0;
}

static long lb_try_tier(__u32 i, struct lb_choice *choice)
{
	struct lb_segment *segment;

	choice->first = choice->end;
	choice->total = 0;
	if (choice->first >= choice->segments)
		return 1;
	bpf_loop(LB_SEGMENTS_MAX, lb_extend_tier, choice, 0);
	if (choice->end == choice->first)
		return 1;
	bpf_loop(LB_PROBES_MAX, lb_probe, choice, 0);
	if (choice->slot)
		return 1;
	choice->scanned = 0;
	lb_draw(choice, mix32(choice->hash + LB_PROBES_MAX * HASH_STEP));
	segment = lb_segment(choice, choice->index);
	if (!segment || !segment->backends)
		return 1;
	choice->at %= segment->backends;
	bpf_loop(LB_SCAN_MAX + 2 * LB_SEGMENTS_MAX, lb_scan, choice, 0);
	return choice->slot != 0;
}

/* A backend of the service for a mixed hash that is no worse than this: its slot, or 0. */
VERIFIED_ALONE __u32 lb_try(__u32 id, __u32 hash, __u8 worst, __u8 panic)
{
	struct lb_service service = lb_committed(id);
	struct lb_choice choice = { .hash = hash, .worst = worst, .panic = panic };

	choice.block = service.block;
	choice.segments = service.segments;
	if (choice.segments > LB_SEGMENTS_MAX)
		choice.segments = LB_SEGMENTS_MAX;
	bpf_loop(LB_SEGMENTS_MAX, lb_try_tier, &choice, 0);
	return choice.slot;
}

/* A backend that is not known to be lost, or 0. */
static __always_inline __u32 lb_select_living(__u32 id, __u32 hash)
{
	return lb_try(id, hash, LB_BACKEND_ACTIVE, 0) ?: lb_try(id, hash, LB_BACKEND_DRAINING, 0);
}

/* A live backend of the service for a mixed hash, or when none is known to live any one that serves: its slot, or 0 without backends. */
static __always_inline __u32 lb_select(__u32 id, __u32 hash)
{
	__u32 slot = lb_select_living(id, hash);

	if (slot)
		return slot;
	slot = lb_try(id, hash, LB_BACKEND_DRAINING, 1);
	if (slot)
		COUNT_FAILOVER(panics);
	return slot;
}

/* A backend that is looked for by its address, handed to the loops. */
struct lb_search {
	struct mesh_addr address;
	__u32 block; /* of the header */
	__u32 segments;
	__u32 low; /* the backend is in slots [low, high) of the segment */
	__u32 high;
	__u32 slot; /* the answer; 0 = none yet */
	__be16 port;
	__u16 pad;
};

#define LB_SEARCH_STEPS 17 /* halves of 65535 backends */

/* Order of backends within a segment: address, then port, as numbers. */
static __always_inline int lb_compare(const struct lb_backend *backend, const struct lb_search *search)
{
	for (int i = 0; i < 4; i++) {
		__u32 here = bpf_ntohl(backend->address.v6[i]), wanted = bpf_ntohl(search->address.v6[i]);

		if (here != wanted)
			return here < wanted ? -1 : 1;
	}
	return (int)bpf_ntohs(backend->port) - (int)bpf_ntohs(search->port);
}

static long lb_halve(__u32 i, struct lb_search *search)
{
	__u32 middle = search->low + (search->high - search->low) / 2;
	struct lb_backend *backend;
	int order;

	if (search->low >= search->high)
		return 1;
	backend = lb_backend(middle);
	if (!backend)
		return 1;
	order = lb_compare(backend, search);
	if (!order) {
		search->slot = middle;
		return 1;
	}
	if (order < 0)
		search->low = middle + 1;
	else
		search->high = middle;
	return 0;
}

static long lb_search_segment(__u32 i, struct lb_search *search)
{
	struct lb_choice header = { .block = search->block };
	struct lb_segment *segment;

	if (i >= search->segments)
		return 1;
	segment = lb_segment(&header, i);
	if (!segment)
		return 1;
	search->low = segment->backend_base;
	search->high = search->low + segment->backends;
	bpf_loop(LB_SEARCH_STEPS, lb_halve, search, 0);
	return search->slot != 0;
}

/*
 * The slot of this backend of the service if it lives, or 0. For flows, sockets and clients that chose it earlier: its slot may
 * have changed since (others came or went), or have been given to another.
 */
VERIFIED_ALONE __u32 lb_find_backend(__u32 id, struct mesh_addr *address, __u32 port, __u32 worst)
{
	struct lb_service service = lb_committed(id);
	struct lb_search search = { .block = service.block, .segments = service.segments, .port = port };

	if (!address)
		return 0;
	search.address = *address;
	bpf_loop(LB_SEGMENTS_MAX, lb_search_segment, &search, 0);
	return search.slot && lb_still_lives(search.slot, address, port, worst) ? search.slot : 0;
}

/* Who wants a backend: matters to services with session affinity. */
struct lb_client {
	struct mesh_addr id; /* its address, or the cookie of its network namespace */
	__u8 family; /* MESH_FAMILY_*; NONE = a cookie */
	__u8 pad[3];
};

static __always_inline __u32 lb_choose_affine(__u32 id, __u32 seconds, const struct lb_client *client)
{
	struct lb_affinity_key key = { .client = client->id, .service = id, .family = client->family };
	struct lb_affinity *known = bpf_map_lookup_elem(&lb_affinity, &key);
	__u32 now = now_seconds(), slot;
	struct lb_affinity chosen = { .last_used = now };
	struct lb_backend *backend;

	if (known && now - known->last_used <= seconds) {
		chosen.address = known->address;
		slot = lb_find_backend(id, &chosen.address, known->port, LB_BACKEND_ACTIVE);
		if (slot) {
			known->last_used = now;
			return slot;
		}
	}
	/* By the client alone, so that it finds the same backend also after its entry was lost, and on another node. */
	slot = lb_select(id, hash_address(HASH_STEP, MESH_FAMILY_IPV6, &client->id));
	backend = slot ? lb_backend(slot) : NULL;
	if (!backend)
		return 0;
	chosen.address = backend->address;
	chosen.port = backend->port;
	bpf_map_update_elem(&lb_affinity, &key, &chosen, BPF_ANY);
	return slot;
}

/* A live backend for a new flow, by all that the service asks for: session affinity, chance, or the flow's hash. Its slot, or 0. */
VERIFIED_ALONE __u32 lb_choose(__u32 id, __u32 hash, struct lb_client *client)
{
	struct lb_service service = lb_committed(id);
	struct lb_service_info *info = NULL;
	struct lb_backend *backend;
	__u32 slot;

	if (service.flags & LB_SERVICE_SESSION_AFFINITY && client)
		info = lb_info(service);
	if (info && info->affinity_seconds)
		slot = lb_choose_affine(id, info->affinity_seconds, client);
	else
		slot = lb_select(id, service.flags & LB_SERVICE_RANDOM ? bpf_get_prandom_u32() : hash);
	backend = slot ? lb_backend(slot) : NULL;
	if (backend)
		count_choice(READ_ONCE(backend->cluster_id));
	return slot;
}

#endif
