/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Memory of the flows that this node takes in from outside: see mesh/north.h. Nothing here looks at a packet, so XDP and tc share
 * it. Expiry is lazy: an entry that has been silent for too long does not count, and the LRU takes it away in its time.
 */
#ifndef MESH_LIB_NAT_H
#define MESH_LIB_NAT_H

#include <mesh/drop.h>
#include <mesh/north.h>
#include "choice.h"
#include "maps.h"
#include "parse.h"

#define NAT_CLOCK_SHIFT 30 /* units of nat_value.last_seen */
#define NAT_TCP_OPENING 56 /* a minute, in those units */
#define NAT_TCP_ESTABLISHED 20116 /* six hours */
#define NAT_TCP_CLOSING 9 /* both sides have closed, or one has reset: ten seconds */
#define NAT_TCP_HALF_CLOSED 559 /* ten minutes */
#define NAT_DATAGRAM 112 /* two minutes */
#define NAT_PORT_PROBES 64

/* nat4: flow and direction → where its packets go. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, NAT_MAX);
	__type(key, struct nat4_key);
	__type(value, struct nat_value);
} nat4 SEC(".maps");

/* nat6: flow and direction → where its packets go. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, NAT_MAX);
	__type(key, struct nat6_key);
	__type(value, struct nat_value);
} nat6 SEC(".maps");

static __always_inline __u32 nat_now(void)
{
	return bpf_ktime_get_coarse_ns() >> NAT_CLOCK_SHIFT;
}

/* The entry, expired or not. */
static __always_inline struct nat_value *nat_entry(const struct flow *flow, enum nat_direction direction)
{
	if (flow->family == MESH_FAMILY_IPV4) {
		struct nat4_key key = FLOW_KEY4(flow, direction);

		return bpf_map_lookup_elem(&nat4, &key);
	} else {
		struct nat6_key key = FLOW_KEY6(flow, direction);

		SET_ADDRESSES6(key, flow);
		return bpf_map_lookup_elem(&nat6, &key);
	}
}

/* flags: BPF_ANY, or BPF_NOEXIST to be the one who makes it. */
static __always_inline bool nat_store(const struct flow *flow, enum nat_direction direction, const struct nat_value *value,
				      __u64 flags)
{
	if (flow->family == MESH_FAMILY_IPV4) {
		struct nat4_key key = FLOW_KEY4(flow, direction);

		return !bpf_map_update_elem(&nat4, &key, value, flags);
	} else {
		struct nat6_key key = FLOW_KEY6(flow, direction);

		SET_ADDRESSES6(key, flow);
		return !bpf_map_update_elem(&nat6, &key, value, flags);
	}
}

static __always_inline void nat_forget(const struct flow *flow, enum nat_direction direction)
{
	if (flow->family == MESH_FAMILY_IPV4) {
		struct nat4_key key = FLOW_KEY4(flow, direction);

		bpf_map_delete_elem(&nat4, &key);
	} else {
		struct nat6_key key = FLOW_KEY6(flow, direction);

		SET_ADDRESSES6(key, flow);
		bpf_map_delete_elem(&nat6, &key);
	}
}

static __always_inline bool nat_closed(const struct nat_value *value)
{
	return value->state & NAT_RESET ||
	       (value->state & (NAT_FIN_CLIENT | NAT_FIN_BACKEND)) == (NAT_FIN_CLIENT | NAT_FIN_BACKEND);
}

static __always_inline __u32 nat_lifetime(__u8 protocol, const struct nat_value *value)
{
	if (protocol != IPPROTO_TCP)
		return NAT_DATAGRAM;
	if (nat_closed(value))
		return NAT_TCP_CLOSING;
	if (value->state & (NAT_FIN_CLIENT | NAT_FIN_BACKEND))
		return NAT_TCP_HALF_CLOSED;
	return value->state & NAT_ANSWERED ? NAT_TCP_ESTABLISHED : NAT_TCP_OPENING;
}

static __always_inline bool nat_expired(__u8 protocol, const struct nat_value *value, __u32 now)
{
	__u32 silence = now - value->last_seen;

	return silence > NAT_TCP_CLOSING && silence > nat_lifetime(protocol, value);
}

/* The entry if it counts, or NULL. */
static __always_inline struct nat_value *nat_lookup(const struct flow *flow, enum nat_direction direction, __u32 now)
{
	struct nat_value *value = nat_entry(flow, direction);

	return value && !nat_expired(flow->protocol, value, now) ? value : NULL;
}

/* What a packet's flags say of the flow. An answered flow stays answered; a reset ends it whatever came before. */
static __always_inline __u8 nat_learned(__u8 tcp_flags, bool from_client)
{
	__u8 learned = 0;

	if (tcp_flags & TCP_FIN)
		learned |= from_client ? NAT_FIN_CLIENT : NAT_FIN_BACKEND;
	if (tcp_flags & TCP_RST)
		learned |= NAT_RESET;
	/* An answer, or what a client sends only after one. */
	if (!from_client || (tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_ACK)
		learned |= NAT_ANSWERED;
	return learned;
}

/*
 * Notes that a packet passed, and says what its partner must be told (0 = nothing). Writes only what changes: the cache line
 * is shared between CPUs. A second and more later the partner is told that the flow lives.
 */
static __always_inline bool nat_touch(struct nat_value *value, __u8 learned, __u32 now)
{
	bool news = value->last_seen != now;

	if (news)
		value->last_seen = now;
	if ((value->state | learned) != value->state) {
		value->state |= learned;
		news = true;
	}
	return news;
}

/* A source port towards the backend: the state of the search for one. */
struct nat_search {
	struct flow answer; /* backend → this node; its destination_port is tried */
	struct nat_value value; /* of the reverse entry */
	__u32 hash;
	__u32 now;
	__u8 found;
	__u8 only_own; /* the client's own port or none: SCTP, whose CRC covers it */
	__u8 pad[2];
};

static __always_inline bool nat_port_in_range(__be16 port)
{
	return bpf_ntohs(port) >= config.nat_port_min && bpf_ntohs(port) <= config.nat_port_max;
}

static __always_inline bool nat_same_client(const struct nat_value *one, const struct nat_value *other)
{
	return one->port == other->port && one->virtual_port == other->virtual_port &&
	       same_address(&one->address, &other->address) && same_address(&one->virtual_address, &other->virtual_address);
}

/* First the client's own port, then ports by the flow's hash: a flow whose forward entry was lost finds its port again. */
VERIFIED_ALONE int nat_try_port(__u32 i, struct nat_search *search)
{
	struct nat_value *taken;

	if (!search)
		return 1;
	if (search->only_own || (!i && nat_port_in_range(search->value.port)))
		search->answer.destination_port = search->value.port;
	else
		search->answer.destination_port =
			bpf_htons(config.nat_port_min +
				  scale(mix32(search->hash + i * HASH_STEP), config.nat_port_max - config.nat_port_min + 1));
	taken = nat_entry(&search->answer, NAT_REVERSE);
	if (!taken)
		search->found = nat_store(&search->answer, NAT_REVERSE, &search->value, BPF_NOEXIST);
	else if (nat_same_client(taken, &search->value) || nat_expired(search->answer.protocol, taken, search->now))
		search->found = nat_store(&search->answer, NAT_REVERSE, &search->value, BPF_ANY);
	return search->found || search->only_own;
}

#endif
