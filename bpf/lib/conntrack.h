/* SPDX-License-Identifier: GPL-2.0 */
/* Memory of translated flows, so that a flow keeps its backend and its replies find their way back. See mesh/conntrack.h. */
#ifndef MESH_LIB_CONNTRACK_H
#define MESH_LIB_CONNTRACK_H

#include <mesh/conntrack.h>
#include "maps.h"
#include "parse.h"

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

/* How long an entry may be silent. A new conversation on the same ports must not be taken for the old one. */
static __always_inline __u32 conntrack_timeout(__u8 protocol, __u8 flags)
{
	const __u8 both = CONNTRACK_CLIENT_FIN | CONNTRACK_SERVER_FIN;

	if (flags & CONNTRACK_RESET)
		return CONNTRACK_RESET_SECONDS;
	if ((flags & both) == both)
		return CONNTRACK_CLOSED_SECONDS;
	if (!(flags & CONNTRACK_ESTABLISHED))
		return CONNTRACK_OPENING_SECONDS;
	if (protocol != IPPROTO_TCP)
		return CONNTRACK_DATAGRAM_SECONDS;
	return flags & both ? CONNTRACK_HALF_CLOSED_SECONDS : CONNTRACK_ESTABLISHED_SECONDS;
}

static __always_inline bool conntrack_expired(const struct flow *flow, const struct conntrack_value *value, __u32 now)
{
	__u32 silence = now - value->last_seen;

	/* Another CPU may have seen a packet since we read the clock. */
	return (__s32)silence > 0 && silence > conntrack_timeout(flow->protocol, value->flags);
}

/* The entry of this direction of the flow, or NULL when there is none or it has been silent for too long. */
static __always_inline struct conntrack_value *conntrack_lookup(const struct flow *flow, enum conntrack_direction direction)
{
	struct conntrack_value *value;

	if (flow->family == MESH_FAMILY_IPV4) {
		struct conntrack4_key key = FLOW_KEY4(flow, direction);

		value = bpf_map_lookup_elem(&conntrack4, &key);
	} else {
		struct conntrack6_key key = FLOW_KEY6(flow, direction);

		SET_ADDRESSES6(key, flow);
		value = bpf_map_lookup_elem(&conntrack6, &key);
	}
	return value && !conntrack_expired(flow, value, now_seconds()) ? value : NULL;
}

static __always_inline bool conntrack_store(const struct flow *flow, enum conntrack_direction direction,
					    const struct conntrack_value *value)
{
	if (flow->family == MESH_FAMILY_IPV4) {
		struct conntrack4_key key = FLOW_KEY4(flow, direction);

		return !bpf_map_update_elem(&conntrack4, &key, value, BPF_ANY);
	} else {
		struct conntrack6_key key = FLOW_KEY6(flow, direction);

		SET_ADDRESSES6(key, flow);
		return !bpf_map_update_elem(&conntrack6, &key, value, BPF_ANY);
	}
}

static __always_inline void conntrack_forget(const struct flow *flow, enum conntrack_direction direction)
{
	if (flow->family == MESH_FAMILY_IPV4) {
		struct conntrack4_key key = FLOW_KEY4(flow, direction);

		bpf_map_delete_elem(&conntrack4, &key);
	} else {
		struct conntrack6_key key = FLOW_KEY6(flow, direction);

		SET_ADDRESSES6(key, flow);
		bpf_map_delete_elem(&conntrack6, &key);
	}
}

static __always_inline struct mesh_addr loopback_address(__u8 family)
{
	struct mesh_addr address = { .bytes = LOOPBACK6 };

	if (family == MESH_FAMILY_IPV6)
		return address;
	address = (struct mesh_addr){};
	address.v4 = bpf_htonl(LOOPBACK4);
	return address;
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

/* The entry of the other direction. */
static __always_inline struct conntrack_value *conntrack_twin(const struct flow *flow, enum conntrack_direction direction,
							      const struct conntrack_value *value)
{
	struct flow twin = reversed(flow);

	if (direction == CONNTRACK_FORWARD) {
		twin.source = value->address;
		twin.source_port = value->port;
		if (value->flags & CONNTRACK_HAIRPIN)
			twin.destination = loopback_address(flow->family);
	} else {
		twin.destination = value->address;
		twin.destination_port = value->port;
		if (value->flags & CONNTRACK_HAIRPIN)
			twin.source = flow->source;
	}
	return conntrack_lookup(&twin, direction == CONNTRACK_FORWARD ? CONNTRACK_REVERSE : CONNTRACK_FORWARD);
}

/* What this packet says about the conversation, beside what is known. */
static __always_inline __u8 conntrack_step(const struct packet *packet, enum conntrack_direction direction)
{
	__u8 flags = packet->tcp_flags, step = 0;

	if (packet->flow.protocol != IPPROTO_TCP)
		return direction == CONNTRACK_REVERSE ? CONNTRACK_ESTABLISHED : 0;
	if (packet->fragment == FRAGMENT_LATER)
		return 0;
	if (flags & TCP_RST)
		return CONNTRACK_RESET;
	if (direction == CONNTRACK_REVERSE)
		step |= CONNTRACK_ANSWERED;
	if ((flags & (TCP_SYN | TCP_ACK)) == TCP_ACK)
		step |= CONNTRACK_ESTABLISHED;
	if (flags & TCP_FIN)
		step |= direction == CONNTRACK_FORWARD ? CONNTRACK_CLIENT_FIN : CONNTRACK_SERVER_FIN;
	return step;
}

/*
 * Notes that a packet of the flow passed. Writes only what changes: the entry's cache line is shared between CPUs. A step of the
 * conversation is written to both entries, so that each knows by itself how long it counts.
 */
static __always_inline void conntrack_touch(const struct packet *packet, enum conntrack_direction direction,
					    struct conntrack_value *value)
{
	__u8 step = conntrack_step(packet, direction);
	struct conntrack_value *twin;
	__u32 now = now_seconds();

	if (value->last_seen != now)
		value->last_seen = now;
	if (!(step & ~value->flags))
		return;
	value->flags |= step;
	twin = conntrack_twin(&packet->flow, direction, value);
	if (twin)
		twin->flags |= step;
}

#endif
