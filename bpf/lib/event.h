/* SPDX-License-Identifier: GPL-2.0 */
/* Tells a watcher what became of a packet. Costs one load while nobody watches. See mesh/event.h. */
#ifndef MESH_LIB_EVENT_H
#define MESH_LIB_EVENT_H

#include <mesh/drop.h>
#include <mesh/event.h>
#include "parse.h"

/* observing: 0 → until when somebody watches. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct observing);
} observing SEC(".maps");

/* events: records of struct event. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, EVENTS_BYTES);
} events SEC(".maps");

/* event_flows: flow and verdict → when it was last told. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, EVENT_FLOWS_MAX);
	__type(key, struct event_flow);
	__type(value, struct event_told);
} event_flows SEC(".maps");

/* event_drops: reason → drops told this second, a copy for each CPU. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTERS_MAX / 2);
	__type(key, __u32);
	__type(value, struct event_rate);
} event_drops SEC(".maps");

/* event_scratch: the event being made, too large for the stack beside what is there already. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct event);
} event_scratch SEC(".maps");

/* Ports, and the flags of TCP, at this offset; a packet that is cut short is told without them. */
static __always_inline void event_transport(struct __sk_buff *skb, struct event *event, __u32 at)
{
	__u8 header[14];

	if (event->flow.protocol == IPPROTO_TCP && !bpf_skb_load_bytes(skb, at, header, sizeof(header)))
		event->tcp_flags = header[13];
	else if ((event->flow.protocol != IPPROTO_UDP && event->flow.protocol != IPPROTO_SCTP) ||
		 bpf_skb_load_bytes(skb, at, header, 4))
		return;
	event->flow.source_port = *(__be16 *)header;
	event->flow.destination_port = *(__be16 *)(header + 2);
}

static __always_inline void event_headers(struct __sk_buff *skb, struct event *event)
{
	struct ipv6hdr ip6;
	struct iphdr ip;

	if (skb->protocol == bpf_htons(ETH_P_IP) && !bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip))) {
		event->flow.family = MESH_FAMILY_IPV4;
		event->flow.protocol = ip.protocol;
		event->flow.source.v4 = ip.saddr;
		event->flow.destination.v4 = ip.daddr;
		if (!(bpf_ntohs(ip.frag_off) & IPV4_FRAGMENT_OFFSET))
			event_transport(skb, event, ETH_HLEN + ip.ihl * 4);
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6) && !bpf_skb_load_bytes(skb, ETH_HLEN, &ip6, sizeof(ip6))) {
		event->flow.family = MESH_FAMILY_IPV6;
		event->flow.protocol = ip6.nexthdr;
		__builtin_memcpy(&event->flow.source, &ip6.saddr, 16);
		__builtin_memcpy(&event->flow.destination, &ip6.daddr, 16);
		event_transport(skb, event, ETH_HLEN + sizeof(ip6));
	}
}

/* May one more drop for this reason be told this second? */
static __always_inline bool event_drop_allowed(__u32 reason, __u64 now)
{
	struct event_rate *rate = bpf_map_lookup_elem(&event_drops, &reason);
	__u64 second = now / NANOSECONDS_PER_SECOND;

	if (!rate)
		return false;
	if (rate->second != second) {
		rate->second = second;
		rate->told = 0;
	}
	return rate->told++ < EVENT_DROPS_PER_SECOND;
}

/* Has the flow been silent, or untold, for an interval? Then event says how many packets it had. */
static __always_inline bool event_flow_due(struct event *event)
{
	struct event_told *told = bpf_map_lookup_elem(&event_flows, &event->flow);
	struct event_told first = { .last_ns = event->time_ns };

	event->packets = 1;
	if (!told) {
		bpf_map_update_elem(&event_flows, &event->flow, &first, BPF_ANY);
		return true;
	}
	if (event->time_ns - told->last_ns < EVENT_INTERVAL_NS) {
		__sync_fetch_and_add(&told->packets, 1);
		return false;
	}
	told->last_ns = event->time_ns;
	event->packets += told->packets;
	told->packets = 0;
	return true;
}

/* A blank event, when it is to be told; NULL when it is not, or nobody watches any more. */
static __always_inline struct event *event_begin(__u32 reason, __u32 direction)
{
	__u32 zero = 0;
	struct observing *watch = bpf_map_lookup_elem(&observing, &zero);
	struct event *event = bpf_map_lookup_elem(&event_scratch, &zero);
	__u64 now = bpf_ktime_get_ns();

	if (!watch || !event)
		return NULL;
	if (READ_ONCE(watch->until_ns) < now) { /* the watcher is gone */
		watch->until_ns = 0;
		return NULL;
	}
	if (reason != FORWARDED && !event_drop_allowed(reason, now))
		return NULL;
	__builtin_memset(event, 0, sizeof(*event));
	event->time_ns = now;
	event->packets = 1;
	event->flow.reason = reason;
	event->flow.direction = direction;
	return event;
}

static __always_inline void event_end(struct event *event)
{
	struct observing *watch;
	__u32 zero = 0;

	if (event->flow.reason == FORWARDED && !event_flow_due(event))
		return;
	watch = bpf_map_lookup_elem(&observing, &zero);
	if (bpf_ringbuf_output(&events, event, sizeof(*event), BPF_RB_NO_WAKEUP) && watch)
		__sync_fetch_and_add(&watch->lost, 1);
}

/* Of what came by the tunnel device. */
static __always_inline __u32 event_identity(struct __sk_buff *skb)
{
	struct bpf_tunnel_key key = {};
	__u64 flags = config.underlay_family == MESH_FAMILY_IPV6 ? BPF_F_TUNINFO_IPV6 : 0;

	return bpf_skb_get_tunnel_key(skb, &key, sizeof(key), flags) ? 0 : key.tunnel_id;
}

VERIFIED_ALONE int tell(struct __sk_buff *skb, __u32 reason, __u32 direction)
{
	struct event *event = event_begin(reason, direction);

	if (!event)
		return 0;
	event->length = skb->len;
	event->interface = skb->ifindex;
	if (direction == COUNTER_INGRESS && skb->ifindex == config.tunnel_interface)
		event->flow.identity = event_identity(skb);
	event_headers(skb, event);
	event_end(event);
	return 0;
}

static __always_inline bool is_observed(void)
{
	__u32 zero = 0;
	struct observing *watch = bpf_map_lookup_elem(&observing, &zero);

	return watch && READ_ONCE(watch->until_ns);
}

static __always_inline void observe(struct __sk_buff *skb, __u32 reason, __u32 direction)
{
	if (is_observed())
		tell(skb, reason, direction);
}

#endif
