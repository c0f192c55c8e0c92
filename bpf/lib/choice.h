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
#ifndef MESH_LIB_CHOICE_H
#define MESH_LIB_CHOICE_H

#include "lb.h"

#define HASH_TABLE 0x7feb352dU /* separates the draw within a segment from the draw of the segment */

/* How well a backend must be. */
enum lb_worst {
	LB_WELL, /* active and not known to be lost */
	LB_DRAINING_TOO, /* the same, or draining */
	LB_WHATEVER, /* and whatever traffic has proved of its health: panic */
};

/* State of one choice within a tier, handed to the loops. */
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
	__u32 worst; /* enum lb_worst */
};

/* A segment of the service whose header begins with this block. */
static __always_inline struct lb_segment *lb_segment(__u32 header, __u32 index)
{
	__u32 slot = index + 1;
	__u32 number = header + slot / LB_SLOTS_PER_BLOCK;
	struct lb_block *block = bpf_map_lookup_elem(&lb_arena, &number);

	return block ? &block->slots[slot % LB_SLOTS_PER_BLOCK] : NULL;
}

static __always_inline __u32 lb_weight(const struct lb_segment *segment)
{
	return segment->weight ?: segment->backends;
}

static __always_inline bool lb_cluster_may_take(const struct lb_choice *choice, const struct lb_segment *segment)
{
	return choice->worst == LB_WHATEVER ? cluster_is_up(segment->cluster_id) :
					      cluster_may_take(segment->cluster_id, choice->hash);
}

/* The slot of the live backend at this place of the segment, or 0. */
static __always_inline __u32 lb_live_slot(const struct lb_choice *choice, const struct lb_segment *segment, __u32 place)
{
	__u32 slot = segment->backend_base + place;
	struct lb_backend *backend = lb_backend(slot);

	if (!backend || !lb_backend_serves(backend, choice->worst == LB_WELL ? LB_BACKEND_ACTIVE : LB_BACKEND_DRAINING))
		return 0;
	return choice->worst == LB_WHATEVER || lb_backend_is_well(slot, backend) ? slot : 0;
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
	segment = lb_segment(choice->block, index);
	first = lb_segment(choice->block, choice->first);
	if (!segment || !first || segment->tier != first->tier)
		return 1;
	choice->total += lb_weight(segment);
	choice->end = index + 1;
	return 0;
}

/* A draw among the segments of a tier, handed to its loop. */
struct lb_draw {
	__u32 block; /* of the header */
	__u32 first; /* segment of the tier */
	__u32 index; /* the segment found */
	__u32 at; /* what is left of the draw within it */
};

/* Spends the draw on segment first + i; stops where it falls. */
static long lb_spend_draw(__u32 i, struct lb_draw *draw)
{
	struct lb_segment *segment = lb_segment(draw->block, draw->first + i);

	if (!segment)
		return 1;
	draw->index = draw->first + i;
	if (draw->at < lb_weight(segment))
		return 1;
	draw->at -= lb_weight(segment);
	return 0;
}

/*
 * Where a hash falls among segments [first, end): the segment in the upper half, what is left of the draw in the lower. Alone, as
 * the tier below: a loop that is verified within another's turn is walked through anew for each state that the turns come to.
 */
VERIFIED_ALONE __u64 lb_draw(__u32 block, __u32 first, __u32 end, __u32 total, __u32 hash)
{
	struct lb_draw draw = { .block = block, .first = first, .index = first, .at = scale(hash, total) };

	bpf_loop(end - first, lb_spend_draw, &draw, 0);
	return (__u64)draw.index << 32 | draw.at;
}

/* Draws a segment of the tier. NULL = there is none. */
static __always_inline struct lb_segment *lb_draw_segment(struct lb_choice *choice, __u32 hash)
{
	__u64 drawn = lb_draw(choice->block, choice->first, choice->end, choice->total, hash);

	choice->index = drawn >> 32;
	choice->at = drawn;
	return lb_segment(choice->block, choice->index);
}

static long lb_probe(__u32 i, struct lb_choice *choice)
{
	__u32 hash = mix32(choice->hash + i * HASH_STEP);
	struct lb_segment *segment = lb_draw_segment(choice, hash);

	if (!segment)
		return 1;
	choice->slot = lb_pick(choice, segment, hash);
	return choice->slot != 0;
}

/* One backend of the scan, or one step past the end of a segment or past a dead one. */
static long lb_scan(__u32 i, struct lb_choice *choice)
{
	struct lb_segment *segment = lb_segment(choice->block, choice->index);

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

/* The tier that begins with this segment: its end in the upper half (first itself: there is none), the slot of its backend, or 0, in the lower. */
VERIFIED_ALONE __u64 lb_try_tier(__u32 block, __u32 segments, __u32 first, __u32 hash, __u32 worst)
{
	struct lb_choice choice = {
		.block = block,
		.segments = segments,
		.hash = hash,
		.first = first,
		.end = first,
		.worst = worst,
	};
	struct lb_segment *segment;

	bpf_loop(LB_SEGMENTS_MAX, lb_extend_tier, &choice, 0);
	if (choice.end == first)
		goto tried;
	bpf_loop(LB_PROBES_MAX, lb_probe, &choice, 0);
	if (choice.slot)
		goto tried;
	segment = lb_draw_segment(&choice, mix32(hash + LB_PROBES_MAX * HASH_STEP));
	if (!segment || !segment->backends)
		goto tried;
	choice.at %= segment->backends;
	bpf_loop(LB_SCAN_MAX + 2 * LB_SEGMENTS_MAX, lb_scan, &choice, 0);
tried:
	return (__u64)choice.end << 32 | choice.slot;
}

/* A backend of the service for a mixed hash that is no worse than this (enum lb_worst): its slot, or 0. */
VERIFIED_ALONE __u32 lb_try(__u32 id, __u32 hash, __u32 worst)
{
	struct lb_service service = lb_committed(id);
	__u32 first = 0;

	for (int tier = 0; tier < LB_SEGMENTS_MAX && first < service.segments; tier++) {
		__u64 tried = lb_try_tier(service.block, service.segments, first, hash, worst);

		if ((__u32)tried)
			return tried;
		if (tried >> 32 == first)
			return 0;
		first = tried >> 32;
	}
	return 0;
}

/* A backend that is not known to be lost, or 0. */
static __always_inline __u32 lb_select_living(__u32 id, __u32 hash)
{
	return lb_try(id, hash, LB_WELL) ?: lb_try(id, hash, LB_DRAINING_TOO);
}

/* A live backend of the service for a mixed hash, or when none is known to live any one that serves: its slot, or 0 without backends. */
static __always_inline __u32 lb_select(__u32 id, __u32 hash)
{
	__u32 slot = lb_select_living(id, hash);

	if (slot)
		return slot;
	slot = lb_try(id, hash, LB_WHATEVER);
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
	struct lb_segment *segment;

	if (i >= search->segments)
		return 1;
	segment = lb_segment(search->block, i);
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
