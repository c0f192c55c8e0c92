/* SPDX-License-Identifier: GPL-2.0 */
/* Memory of translated flows, so that a flow keeps its backend and its replies find their way back. See mesh/conntrack.h. */
#ifndef MESH_LIB_CONNTRACK_H
#define MESH_LIB_CONNTRACK_H

#include <mesh/conntrack.h>
#include "maps.h"
#include "parse.h"

/* Silence after which an entry no longer counts. A new conversation on the same ports must not be taken for the old one. */
#define CONNTRACK_TCP_SECONDS 21600
#define CONNTRACK_CLOSING_SECONDS 60
#define CONNTRACK_DATAGRAM_SECONDS 180

/* conntrack4: direction of a translated flow → what its address becomes. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, CONNTRACK_MAX);
	__type(key, struct conntrack4_key);
	__type(value, struct conntrack_value);
} conntrack4 SEC(".maps");

/* conntrack6: direction of a translated flow → what its address becomes. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, CONNTRACK_MAX);
	__type(key, struct conntrack6_key);
	__type(value, struct conntrack_value);
} conntrack6 SEC(".maps");

static __always_inline __u32 now_seconds(void)
{
	return bpf_ktime_get_coarse_ns() / NANOSECONDS_PER_SECOND;
}

static __always_inline struct conntrack4_key conntrack4_key(const struct flow *flow, enum conntrack_direction direction)
{
	return (struct conntrack4_key){
		.source = flow->source.v4,
		.destination = flow->destination.v4,
		.source_port = flow->source_port,
		.destination_port = flow->destination_port,
		.protocol = flow->protocol,
		.direction = direction,
	};
}

static __always_inline struct conntrack6_key conntrack6_key(const struct flow *flow, enum conntrack_direction direction)
{
	struct conntrack6_key key = {
		.source_port = flow->source_port,
		.destination_port = flow->destination_port,
		.protocol = flow->protocol,
		.direction = direction,
	};

	__builtin_memcpy(key.source, &flow->source, 16);
	__builtin_memcpy(key.destination, &flow->destination, 16);
	return key;
}

static __always_inline bool conntrack_expired(const struct flow *flow, const struct conntrack_value *value, __u32 now)
{
	__u32 silence = now - value->last_seen;

	if (flow->protocol != IPPROTO_TCP)
		return silence > CONNTRACK_DATAGRAM_SECONDS;
	return silence > (value->flags & CONNTRACK_CLOSING ? CONNTRACK_CLOSING_SECONDS : CONNTRACK_TCP_SECONDS);
}

/* The entry of this direction of the flow, or NULL when there is none or it has been silent for too long. */
static __always_inline struct conntrack_value *conntrack_lookup(const struct flow *flow, enum conntrack_direction direction)
{
	struct conntrack_value *value;

	if (flow->family == MESH_FAMILY_IPV4) {
		struct conntrack4_key key = conntrack4_key(flow, direction);

		value = bpf_map_lookup_elem(&conntrack4, &key);
	} else {
		struct conntrack6_key key = conntrack6_key(flow, direction);

		value = bpf_map_lookup_elem(&conntrack6, &key);
	}
	return value && !conntrack_expired(flow, value, now_seconds()) ? value : NULL;
}

/* Notes that a packet of the flow passed. Writes only what changes: the entry's cache line is shared between CPUs. */
static __always_inline void conntrack_touch(struct conntrack_value *value, __u8 tcp_flags)
{
	__u32 now = now_seconds();

	if (value->last_seen != now)
		value->last_seen = now;
	if (tcp_flags & (TCP_FIN | TCP_RST) && !(value->flags & CONNTRACK_CLOSING))
		value->flags |= CONNTRACK_CLOSING;
}

static __always_inline bool conntrack_store(const struct flow *flow, enum conntrack_direction direction,
					    const struct conntrack_value *value)
{
	if (flow->family == MESH_FAMILY_IPV4) {
		struct conntrack4_key key = conntrack4_key(flow, direction);

		return !bpf_map_update_elem(&conntrack4, &key, value, BPF_ANY);
	} else {
		struct conntrack6_key key = conntrack6_key(flow, direction);

		return !bpf_map_update_elem(&conntrack6, &key, value, BPF_ANY);
	}
}

static __always_inline void conntrack_forget(const struct flow *flow, enum conntrack_direction direction)
{
	if (flow->family == MESH_FAMILY_IPV4) {
		struct conntrack4_key key = conntrack4_key(flow, direction);

		bpf_map_delete_elem(&conntrack4, &key);
	} else {
		struct conntrack6_key key = conntrack6_key(flow, direction);

		bpf_map_delete_elem(&conntrack6, &key);
	}
}

/* The flow of the answers. */
static __always_inline struct flow reversed(const struct flow *flow)
{
	return (struct flow){
		.source = flow->destination,
		.destination = flow->source,
		.source_port = flow->destination_port,
		.destination_port = flow->source_port,
		.family = flow->family,
		.protocol = flow->protocol,
	};
}

#endif
