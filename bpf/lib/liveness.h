/* SPDX-License-Identifier: GPL-2.0 */
/* Clusters, nodes and backends that traffic has proved to be lost, and what is remembered of it. See mesh/liveness.h. */
#ifndef MESH_LIB_LIVENESS_H
#define MESH_LIB_LIVENESS_H

#include <mesh/lb.h>
#include <mesh/liveness.h>
#include "maps.h"
#include "node.h"

/* cluster_liveness: 0 → who may be sent new flows. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct cluster_liveness);
} cluster_liveness SEC(".maps");

/* lb_backend_health: backend slot → its node, and whether it is ejected. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, LB_BACKENDS_MAX);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct lb_backend_health);
} lb_backend_health SEC(".maps");

/* failover: 0 → counters, and the latest ejections. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct failover);
} failover SEC(".maps");

/* cluster_choices: cluster → new flows given to its backends, a copy for each CPU. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, CLUSTERS_MAX);
	__type(key, __u32);
	__type(value, __u64);
} cluster_choices SEC(".maps");

static __always_inline void count_choice(__u32 cluster)
{
	__u64 *choices = bpf_map_lookup_elem(&cluster_choices, &cluster);

	if (choices)
		++*choices;
}

static __always_inline struct failover *failover_state(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&failover, &zero);
}

/* Counts an event that is too rare to need a copy for each CPU. */
#define COUNT_FAILOVER(member)                                                                                                   \
	do {                                                                                                                     \
		struct failover *state = failover_state();                                                                       \
                                                                                                                                 \
		if (state)                                                                                                       \
			__sync_fetch_and_add(&state->member, 1);                                                                 \
	} while (0)

static __always_inline struct cluster_liveness *liveness_of_clusters(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&cluster_liveness, &zero);
}

static __always_inline bool cluster_bit(const __u64 *words, __u32 cluster)
{
	return READ_ONCE(words[cluster / 64]) >> (cluster % 64) & 1;
}

/* Configured, whatever is known of its health. */
static __always_inline bool cluster_is_up(__u32 cluster)
{
	struct cluster_liveness *liveness = liveness_of_clusters();

	return liveness && cluster < CLUSTERS_MAX && cluster_bit(liveness->up, cluster);
}

/* Proved silent: what goes there is lost. */
static __always_inline bool cluster_is_lost(__u32 cluster)
{
	struct cluster_liveness *liveness = liveness_of_clusters();

	return liveness && cluster < CLUSTERS_MAX && !cluster_bit(liveness->alive, cluster);
}

static __always_inline bool cluster_in_drill(const struct cluster_liveness *liveness, __u32 cluster)
{
	__u64 until = READ_ONCE(liveness->drill_until_ns[cluster]);

	return until && bpf_ktime_get_ns() < until;
}

/* Configured, not proved silent, not rehearsed as lost. */
static __always_inline bool cluster_lives(__u32 cluster)
{
	struct cluster_liveness *liveness = liveness_of_clusters();

	return liveness && cluster < CLUSTERS_MAX && cluster_bit(liveness->up, cluster) &&
	       cluster_bit(liveness->alive, cluster) && !cluster_in_drill(liveness, cluster);
}

/* May it be sent the new flow with this hash? On its way back a cluster takes its share of them, the same ones each time. */
static __always_inline bool cluster_may_take(__u32 cluster, __u32 hash)
{
	struct cluster_liveness *liveness = liveness_of_clusters();
	__u32 share;

	if (!liveness || cluster >= CLUSTERS_MAX || !cluster_bit(liveness->up, cluster) ||
	    !cluster_bit(liveness->alive, cluster) || cluster_in_drill(liveness, cluster))
		return false;
	share = READ_ONCE(liveness->ramp[cluster]);
	if (share == RAMP_FULL)
		return true;
	/* Bits that neither the draw of the segment nor that of the backend looks at first. */
	hash ^= cluster * 0x9e3779b9U;
	hash *= 0x85ebca6bU;
	return (hash ^ hash >> 15) % RAMP_FULL < share;
}

static __always_inline struct lb_backend_health *lb_health(__u32 slot)
{
	return bpf_map_lookup_elem(&lb_backend_health, &slot);
}

static __always_inline __u32 now_ms(void)
{
	return bpf_ktime_get_ns() / NANOSECONDS_PER_MILLISECOND;
}

static __always_inline bool health_is_ejected(const struct lb_backend_health *health)
{
	__u32 until = READ_ONCE(health->ejected_until_ms);

	return until && (__s32)(until - now_ms()) > 0;
}

/* Neither ejected nor on a node that is proved silent. Of a backend that nobody has judged nothing bad is known. */
static __always_inline bool lb_backend_is_well(__u32 slot, const struct lb_backend *backend)
{
	struct lb_backend_health *health = lb_health(slot);

	if (!health)
		return true;
	return !health_is_ejected(health) && !node_is_down(READ_ONCE(backend->node) ?: READ_ONCE(health->node));
}

/* On a node or in a cluster that is proved silent: no packet gets there, and no answer comes. */
static __always_inline bool lb_backend_is_lost(__u32 slot, const struct lb_backend *backend)
{
	struct lb_backend_health *health = lb_health(slot);

	return cluster_is_lost(READ_ONCE(backend->cluster_id)) ||
	       (health && node_is_down(READ_ONCE(backend->node) ?: READ_ONCE(health->node)));
}

/* Of a connection attempt. */
enum lb_outcome {
	LB_REFUSED,
	LB_UNANSWERED,
	LB_ANSWERED,
};

/*
 * A connection attempt to the backend in this slot failed: no new flow for a time that doubles with every failure in a row. Not when
 * its node or cluster is lost anyway: that is judged elsewhere, and its backends must not have to be proved one by one afterwards.
 */
static __always_inline void lb_eject(__u32 slot, const struct lb_backend *backend, enum lb_outcome outcome)
{
	struct lb_backend_health *health = lb_health(slot);
	struct failover *state = failover_state();
	__u32 doublings, until;
	__u64 number;

	if (!health || !state || lb_backend_is_lost(slot, backend))
		return;
	__sync_fetch_and_add(outcome == LB_REFUSED ? &state->refused : &state->unanswered, 1);
	if (health_is_ejected(health))
		return;
	doublings = health->failures < LB_EJECTION_DOUBLINGS ? health->failures : LB_EJECTION_DOUBLINGS;
	if (health->failures < 255)
		health->failures++;
	until = now_ms() + (LB_EJECTION_MS << doublings);
	health->ejected_until_ms = until ?: 1;
	number = __sync_fetch_and_add(&state->ejections, 1);
	state->recent[number % LB_EJECTIONS_RECENT] = slot;
}

/* A connection to the backend in this slot was answered. */
static __always_inline void lb_prove(__u32 slot)
{
	struct lb_backend_health *health = lb_health(slot);

	if (!health || !health->failures)
		return;
	if (health_is_ejected(health))
		COUNT_FAILOVER(recovered);
	health->ejected_until_ms = 0;
	health->failures = 0;
}

#endif
