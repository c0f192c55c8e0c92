/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What every object has in common: the node's constants and the map that says which agent runs the datapath. All other maps are
 * declared by the header of their topic; objects that include the same header declare the same map, and user space makes them
 * one by giving them one pin path.
 */
#ifndef MESH_LIB_MAPS_H
#define MESH_LIB_MAPS_H

#include <stdbool.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>
#include <mesh/config.h>

/* A value that user space stores while we run: read it once, whole. */
#define READ_ONCE(place) (*(const volatile typeof(place) *)&(place))

/*
 * A function that the verifier checks once, by itself, instead of again on every path that leads to it. It must not trust its
 * pointers (NULL) nor anything that its caller knows.
 */
#define VERIFIED_ALONE __attribute__((noinline))

#define NANOSECONDS_PER_SECOND 1000000000ULL
#define NANOSECONDS_PER_MILLISECOND 1000000ULL

static __always_inline __u32 now_seconds(void)
{
	return bpf_ktime_get_coarse_ns() / NANOSECONDS_PER_SECOND;
}

/* Written by user space between open and load; the verifier then removes the branches that this node does not take. */
const volatile struct node_config config = {};

/* agent_state: 0 → which layout the maps have, and the heartbeat of the agent that fills them. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct agent_state);
} agent_state SEC(".maps");

#endif
