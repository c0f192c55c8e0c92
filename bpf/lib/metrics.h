/* SPDX-License-Identifier: GPL-2.0 */
/* Every packet ends here, once: forwarded, or dropped for a named reason. */
#ifndef MESH_LIB_METRICS_H
#define MESH_LIB_METRICS_H

#include <linux/pkt_cls.h>
#include <mesh/drop.h>
#include "event.h"
#include "maps.h"

/* counters: reason * 2 + direction → packets and bytes, a copy for each CPU. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTERS_MAX);
	__type(key, __u32);
	__type(value, struct counter);
} counters SEC(".maps");

static __always_inline void count(enum drop_reason reason, __u32 direction, __u32 bytes)
{
	__u32 index = reason * 2 + direction;
	struct counter *counter = bpf_map_lookup_elem(&counters, &index);

	if (!counter)
		return;
	counter->packets++;
	counter->bytes += bytes;
}

static __always_inline int drop(struct __sk_buff *skb, enum drop_reason reason, __u32 direction)
{
	count(reason, direction, skb->len);
	observe(skb, reason, direction);
	return TC_ACT_SHOT;
}

/* The verdict of a redirect helper: TC_ACT_REDIRECT. */
static __always_inline int forward(struct __sk_buff *skb, __u32 direction, int verdict)
{
	count(FORWARDED, direction, skb->len);
	observe(skb, FORWARDED, direction);
	return verdict;
}

/* The same of a frame that is already wrapped, and has been told before that: its own headers are inside. */
static __always_inline int forward_wrapped(struct __sk_buff *skb, __u32 direction, int verdict)
{
	count(FORWARDED, direction, skb->len);
	return verdict;
}

/* Up to the stack of this node, whatever MAC address the frame was sent to: the pod may know us by any. */
static __always_inline int pass_up(struct __sk_buff *skb, __u32 direction)
{
	if (skb->pkt_type == 3 /* PACKET_OTHERHOST */)
		bpf_skb_change_type(skb, 0 /* PACKET_HOST */);
	return forward(skb, direction, TC_ACT_OK);
}

#endif
