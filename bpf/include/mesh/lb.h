/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Load balancing. A lookup is
 *   lb4_services/lb6_services (hash)  →  service id
 *   lb_services[id] (one u64)         →  where the service's table lies: THE commit word, written with one release store
 *   lb_arena[block]                   →  header: lb_service_info, then segments, one per (cluster, tier); elsewhere their tables
 *   lb_backends[base + table[hash]]   →  address, and a state byte that takes one backend out with one store
 *   cluster_liveness, nodes, lb_backend_health  →  what traffic has proved to be lost: see mesh/liveness.h
 * Only the agent writes; the three arrays are memory-mapped (BPF_F_MMAPABLE). The order of an update is: new backends, new
 * blocks, commit word; what the old word reached is reused only after an RCU grace period.
 */
#ifndef MESH_LB_H
#define MESH_LB_H

#include "types.h"

#define LB_SERVICES_MAX		65536		/* service ids; 0 is never used */
#define LB_BACKENDS_MAX		524288		/* backend slots; 0 is never used */
#define LB_ARENA_BLOCKS		262144		/* of 64 bytes: 16 MiB; 0 is never used */
#define LB_BLOCK_BYTES		64
#define LB_SLOTS_PER_BLOCK	2		/* of 32 bytes in a header: slot 0 is the info, slot 1 + i is segment i */
#define LB_SEGMENTS_MAX		64		/* per service */
#define LB_PROBES_MAX		8		/* rehashes before the bounded scan */
#define LB_SCAN_MAX		64		/* backends scanned when every probe hit a dead one */

/* Who asks: with a traffic policy of Local the two may be given different backends. */
enum lb_scope {
	LB_SCOPE_EXTERNAL = 0,	/* from outside the cluster */
	LB_SCOPE_INTERNAL = 1,	/* pods and hosts of the cluster */
};

/* Key of lb4_services: a frontend. Address 0 = the port on every node of the cluster (NodePort). */
struct lb4_key {
	__be32	address;
	__be16	port;
	__u8	protocol;	/* IPPROTO_* */
	__u8	pad;
};

/* Key of lb6_services. */
struct lb6_key {
	__u8	address[16];
	__be16	port;
	__u8	protocol;
	__u8	pad;
};

/* Value of lb4_services and lb6_services: indexes into lb_services. */
struct lb_service_id {
	__u32	id;		/* for clients outside the cluster, and for all when internal_id is 0 */
	__u32	internal_id;	/* for pods and hosts of the cluster */
};

/* Value of lb_services: exactly 8 bytes, always read and written whole. All zero = no such service. */
struct lb_service {
	__u32	block;		/* first arena block of the header; 0 = no header: a service without backends or properties */
	__u8	segments;	/* number of segments in the header */
	__u8	flags;		/* LB_SERVICE_* */
	__u16	generation;	/* grows with each commit, for people and tests */
};

#define LB_SERVICE_PRESENT	0x01
#define LB_SERVICE_AFFINITY_LOCAL	0x02	/* for display only: the tiers say it */
#define LB_SERVICE_AFFINITY_REMOTE	0x04
#define LB_SERVICE_RANDOM		0x08	/* new flows choose by chance, not by hash: lb_service_info.algorithm */
#define LB_SERVICE_SESSION_AFFINITY	0x10	/* lb_service_info.affinity_seconds counts */
#define LB_SERVICE_SOURCE_RANGES	0x20	/* lb_service_info.source_ranges counts */

enum lb_forwarding {
	LB_FORWARD_SNAT = 0,	/* the answer comes back through the node that took the packet in */
	LB_FORWARD_DSR = 1,	/* the backend's node answers the client itself */
};

enum lb_algorithm {
	LB_ALGORITHM_MAGLEV = 0,	/* by the flow's hash: every node would choose the same */
	LB_ALGORITHM_RANDOM = 1,
};

enum lb_kind {
	LB_KIND_CLUSTER_IP = 0,
	LB_KIND_NODE_PORT = 1,
	LB_KIND_LOAD_BALANCER = 2,
	LB_KIND_EXTERNAL_IP = 3,
};

/* Slot 0 of a header: what holds for the service as a whole. 32 bytes, like a segment. */
struct lb_service_info {
	__u32	affinity_seconds;	/* a client keeps its backend until it has been silent for so long; 0 = none */
	__u32	source_ranges;		/* key of its ranges in lb4_source_ranges, lb6_source_ranges; 0 = every source */
	__u8	forwarding;		/* enum lb_forwarding, for packets from outside */
	__u8	algorithm;		/* enum lb_algorithm */
	__u8	kind;			/* enum lb_kind */
	__u8	flags;			/* LB_INFO_* */
	__u32	pad[5];
};

#define LB_INFO_LOCAL_ONLY	0x01	/* every backend is on this node: the traffic policy of the scope is Local */

/*
 * One cluster's backends of one service, sorted by address and port. Segments are sorted by tier; a tier is used only when no lower one has a live backend.
 * A flow picks a segment of the tier with chance weight / sum of weights, then a backend by the segment's table.
 * Two segments of one service may share backends and table (with different tiers or weights).
 */
struct lb_segment {
	__u32	backend_base;	/* first of its backends in lb_backends */
	__u32	table;		/* byte offset of its table from the start of the arena */
	__u16	backends;	/* number of backends, contiguous from backend_base; at least 1 */
	__u16	table_size;	/* entries in the table: a prime, at least 251 */
	__u16	cluster_id;
	__u8	tier;		/* 0 first */
	__u8	flags;		/* LB_SEGMENT_* */
	__u32	weight;		/* at most LB_WEIGHT_MAX; 0 = as many as backends */
	__u32	pad[3];
};

#define LB_WEIGHT_MAX		0x2000000	/* so that the weights of LB_SEGMENTS_MAX segments add up in 32 bits */

#define LB_SEGMENT_WIDE		0x01	/* table entries are __u16 instead of __u8: more than 255 backends */

/* Unit of the arena: two slots of a header, or 64 bytes of table. */
struct lb_block {
	union {
		struct lb_service_info	info;		/* of a header's first block */
		struct lb_segment	slots[LB_SLOTS_PER_BLOCK];
		__u8			table[LB_BLOCK_BYTES];
	};
};

enum lb_backend_state {
	LB_BACKEND_ACTIVE = 0,
	LB_BACKEND_DRAINING = 1,	/* no new flows while another backend lives */
	LB_BACKEND_DEAD = 2,
	LB_BACKEND_MAINTENANCE = 3,
};

/* Value of lb_backends. */
struct lb_backend {
	struct mesh_addr	address;
	__be16	port;
	__u8	protocol;
	__u8	state;		/* enum lb_backend_state */
	__u16	cluster_id;
	__u8	family;		/* MESH_FAMILY_*; NONE = free slot */
	__u8	flags;		/* LB_BACKEND_* */
	__u32	node;		/* index into nodes, 0 = unknown */
	__u32	pad;
};

/* Key of lb4_source_ranges and lb6_source_ranges: the prefix length counts the id (32 bits) too. Value: __u32, 1. */
struct lb4_range_key {
	__u32	prefix_length;
	__u32	id;		/* lb_service_info.source_ranges */
	__be32	address;
};

struct lb6_range_key {
	__u32	prefix_length;
	__u32	id;
	__u8	address[16];
};

#define LB_RANGES_MAX		65536
#define LB_RANGE_STATIC_BITS	32

/* Key of lb_node_addresses: an address of a node of this cluster. */
struct lb_node_address {
	struct mesh_addr	address;
	__u8	family;		/* MESH_FAMILY_* */
	__u8	pad[3];
};

/* Value of lb_node_addresses. */
enum lb_node_place {
	LB_NODE_HERE = 1,	/* this node */
	LB_NODE_ELSEWHERE = 2,
};

#define LB_NODE_ADDRESSES_MAX	65536

/* Key of lb_affinity: who must stay with a backend. */
struct lb_affinity_key {
	struct mesh_addr	client;	/* its address; of a socket the cookie of its network namespace */
	__u32	service;	/* index into lb_services */
	__u8	family;		/* MESH_FAMILY_*; NONE = a cookie */
	__u8	pad[3];
};

/* Value of lb_affinity. An address, not a slot: slots change whenever another backend comes or goes. */
struct lb_affinity {
	struct mesh_addr	address;
	__be16	port;
	__u16	pad;
	__u32	last_used;	/* seconds of the monotonic clock */
};

#define LB_AFFINITY_MAX		65536

/* Key of lb_datagram_backends. Value: __u32, its slot in lb_backends, a hint. */
struct lb_datagram_backend {
	struct mesh_addr	address;
	__be16	port;
	__u8	family;		/* MESH_FAMILY_* */
	__u8	pad;
};

#define LB_DATAGRAM_BACKENDS_MAX	16384

#define LB_BACKEND_HERE		0x01	/* it runs on this node */

#endif
