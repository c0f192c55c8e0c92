/* SPDX-License-Identifier: GPL-2.0 */
/*
 * May this packet pass between an endpoint and a peer? Asked in two places only: on the way out of a pod, when its destination is
 * known (after translation to a backend), and before delivery to one. Answers of flows that were let pass are let pass by their
 * flow, whatever the rules say of them, and so are ICMP errors about such flows.
 *
 * Flows are remembered only where somebody will ask: a direction is recorded when the opposite one is enforced. So an endpoint
 * without policy costs one read of its word.
 */
#ifndef MESH_LIB_POLICY_H
#define MESH_LIB_POLICY_H

#include <mesh/endpoint.h>
#include <mesh/policy.h>
#include "conntrack.h"
#include "fragment.h"
#include "ipcache.h"
#include "metrics.h"

#define IDENTITY_UNKNOWN 0
#define IDENTITY_HOST 1
#define IDENTITY_WORLD 2
#define IDENTITY_INIT 5
#define IDENTITY_REMOTE_NODE 6 /* what another node sees in our host */

#define ICMP_QUERY_BYTES 8
#define ICMP4_ECHO_REPLY 0
#define ICMP4_ECHO 8
#define ICMP6_ECHO 128
#define ICMP6_ECHO_REPLY 129

#define POLICY_UNANSWERED_SECONDS 60

/* policy_endpoints: endpoint id → its rule sets. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, POLICY_ENDPOINTS_MAX);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct policy_endpoint);
} policy_endpoints SEC(".maps");

/* policy_rows: rule set and peer → verdict, or where its ranges are. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, POLICY_ROWS_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct policy_key);
	__type(value, struct policy_row);
} policy_rows SEC(".maps");

/* policy_ranges: protocols and ports → verdict. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, POLICY_RANGES_MAX);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct policy_range);
} policy_ranges SEC(".maps");

/* policy_counters: rule → packets that it decided, a copy for each CPU. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, POLICY_RULES_MAX);
	__type(key, __u32);
	__type(value, struct policy_counter);
} policy_counters SEC(".maps");

/* policy_flows: flows that were let pass and whose answers would not be. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, POLICY_FLOWS_MAX);
	__type(key, struct policy_flow_key);
	__type(value, struct policy_flow);
} policy_flows SEC(".maps");

/* What is asked. The flow is as the other side sees it: with the backend as destination. */
struct policy_question {
	struct flow flow;
	__u32 peer; /* identity of the other side */
	__u16 endpoint; /* id of ours */
	__u8 direction; /* enum policy_direction */
	__u8 ports_known;
	__u32 set; /* filled in: the rules that were asked */
	__u8 audited; /* filled in: what they deny passes */
	__u8 is_error; /* filled in: an ICMP error, which is about another packet */
	__u16 pad;
};

static __always_inline bool policy_is_icmp(const struct flow *flow)
{
	return flow->protocol == (flow->family == MESH_FAMILY_IPV4 ? IPPROTO_ICMP : IPPROTO_ICMPV6);
}

static __always_inline struct policy_flow_key policy_flow_key(const struct flow *flow, __u8 direction)
{
	return (struct policy_flow_key){
		.source = flow->source,
		.destination = flow->destination,
		.source_port = flow->source_port,
		.destination_port = flow->destination_port,
		.protocol = flow->protocol,
		.direction = direction,
		.family = flow->family,
	};
}

static __always_inline bool policy_flow_expired(const struct policy_flow_key *key, const struct policy_flow *flow, __u32 now)
{
	__u32 silence = now - flow->last_seen;

	if (key->protocol != IPPROTO_TCP)
		return silence > CONNTRACK_DATAGRAM_SECONDS;
	if (flow->flags & POLICY_FLOW_CLOSING)
		return silence > CONNTRACK_CLOSED_SECONDS;
	return silence > (flow->flags & POLICY_FLOW_ANSWERED ? CONNTRACK_ESTABLISHED_SECONDS : POLICY_UNANSWERED_SECONDS);
}

static __always_inline struct policy_flow *policy_flow_lookup(const struct policy_flow_key *key)
{
	struct policy_flow *flow = bpf_map_lookup_elem(&policy_flows, key);

	return flow && !policy_flow_expired(key, flow, now_seconds()) ? flow : NULL;
}

/* Writes only what changes: the entry's cache line is shared between CPUs. */
static __always_inline void policy_flow_touch(struct policy_flow *flow, __u8 tcp_flags, __u8 flags)
{
	__u32 now = now_seconds();

	if (tcp_flags & (TCP_FIN | TCP_RST))
		flags |= POLICY_FLOW_CLOSING;
	if (flow->last_seen != now)
		flow->last_seen = now;
	if ((flow->flags & flags) != flags)
		flow->flags |= flags;
}

/* The flow may answer. What cannot be recorded is only this: its answers will be judged by the rules. */
static __always_inline void policy_flow_record(const struct policy_question *asked, __u8 tcp_flags)
{
	struct policy_flow_key key = policy_flow_key(&asked->flow, asked->direction);
	struct policy_flow fresh = { .last_seen = now_seconds() };
	struct policy_flow *known;

	if (policy_is_icmp(&asked->flow)) /* an echo, known by its number */
		key.destination_port = key.source_port;
	known = bpf_map_lookup_elem(&policy_flows, &key);
	if (known && !(tcp_flags & TCP_SYN)) {
		policy_flow_touch(known, tcp_flags, 0);
		return;
	}
	bpf_map_update_elem(&policy_flows, &key, &fresh, BPF_ANY);
}

/* Is the packet an answer of a flow that was let pass the other way? What opens something, a SYN or an echo request, never is. */
static __always_inline bool policy_answers(const struct policy_question *asked, __u8 tcp_flags)
{
	struct flow asking = reversed(&asked->flow);
	struct policy_flow_key key;
	struct policy_flow *flow;

	if ((tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN)
		return false;
	if (policy_is_icmp(&asking)) {
		if (asking.source_port != bpf_htons(asking.family == MESH_FAMILY_IPV4 ? ICMP4_ECHO_REPLY : ICMP6_ECHO_REPLY))
			return false;
		asking.source_port = asking.destination_port;
	}
	key = policy_flow_key(&asking, !asked->direction);
	flow = policy_flow_lookup(&key);
	if (flow)
		policy_flow_touch(flow, tcp_flags, POLICY_FLOW_ANSWERED);
	return flow;
}

/* Last range that starts at or before the place. */
static __always_inline __u32 policy_search(__u32 first, __u32 count, __u32 place)
{
	__u32 low = first, high = first + count;

	for (int step = 0; step < POLICY_SEARCH_STEPS; step++) {
		__u32 middle = low + (high - low) / 2;
		struct policy_range *range;

		if (high - low <= 1)
			break;
		range = bpf_map_lookup_elem(&policy_ranges, &middle);
		if (!range)
			break;
		if (range->start <= place)
			low = middle;
		else
			high = middle;
	}
	return low;
}

/* The set's verdict, or 0 (denied by no rule) where it has none. Without ports only a verdict for all of them counts. */
static __always_inline __u32 policy_verdict(__u32 set, __u32 peer, const struct flow *flow, bool ports_known, bool *unknown)
{
	struct policy_key key = { .set = set, .identity = peer };
	struct policy_row *row = bpf_map_lookup_elem(&policy_rows, &key);
	struct policy_range *range;
	__u32 place, index;

	if (!row) {
		key.identity = IDENTITY_UNKNOWN;
		row = bpf_map_lookup_elem(&policy_rows, &key);
	}
	if (!row)
		return 0;
	if (!row->ranges)
		return row->answer;
	if (!ports_known) {
		*unknown = true;
		return 0;
	}
	place = (__u32)flow->protocol << 16 | bpf_ntohs(flow->destination_port);
	index = policy_search(row->answer, row->ranges, place);
	range = bpf_map_lookup_elem(&policy_ranges, &index);
	return range ? range->verdict : 0;
}

static __always_inline void policy_count(__u32 verdict, __u32 bytes)
{
	__u32 rule = verdict & POLICY_VERDICT_RULE;
	struct policy_counter *counter = bpf_map_lookup_elem(&policy_counters, &rule);

	if (!counter)
		return;
	counter->packets++;
	counter->bytes += bytes;
}

/* What the ICMP error quotes: the flow of the packet that it is about. False where it quotes too little to tell. */
static __always_inline bool policy_quoted(struct __sk_buff *skb, const struct packet *packet, struct flow *quoted)
{
	__u32 inner = packet->l4 + ICMP_QUERY_BYTES;
	__be16 ports[2];

	quoted->family = packet->flow.family;
	if (quoted->family == MESH_FAMILY_IPV4) {
		struct iphdr ip;

		if (bpf_skb_load_bytes(skb, inner, &ip, sizeof(ip)) || ip.version != 4 || ip.ihl < 5)
			return false;
		quoted->source.v4 = ip.saddr;
		quoted->destination.v4 = ip.daddr;
		quoted->protocol = ip.protocol;
		inner += ip.ihl * 4;
	} else {
		struct ipv6hdr ip;

		if (bpf_skb_load_bytes(skb, inner, &ip, sizeof(ip)) || ip.version != 6)
			return false;
		__builtin_memcpy(&quoted->source, &ip.saddr, 16);
		__builtin_memcpy(&quoted->destination, &ip.daddr, 16);
		quoted->protocol = ip.nexthdr;
		inner += sizeof(ip);
	}
	if (policy_is_icmp(quoted)) { /* an echo: known by its number */
		if (bpf_skb_load_bytes(skb, inner + 4, ports, 2))
			return false;
		quoted->source_port = quoted->destination_port = ports[0];
		return true;
	}
	if (bpf_skb_load_bytes(skb, inner, ports, sizeof(ports)))
		return false;
	quoted->source_port = ports[0];
	quoted->destination_port = ports[1];
	return true;
}

static __always_inline bool policy_is_error(const struct flow *flow, __u8 type)
{
	if (flow->family == MESH_FAMILY_IPV6)
		return flow->protocol == IPPROTO_ICMPV6 && type && type < 5;
	return flow->protocol == IPPROTO_ICMP && (type == 3 || type == 11 || type == 12);
}

/* Is the error about a flow that passes: a recorded one, or one that the rules would let pass in the error's direction? */
VERIFIED_ALONE int policy_related(struct __sk_buff *skb, struct packet *packet, struct policy_question *asked)
{
	struct flow quoted = {}, other;
	struct policy_flow_key key;
	struct ipcache_value *known;
	bool unknown = false;
	__u32 peer;

	if (!packet || !asked || !policy_quoted(skb, packet, &quoted))
		return false;
	/* Who gets the error sent the packet that it is about: nobody may be told of another one's flows. */
	if (!same_address(&quoted.source, &asked->flow.destination))
		return false;
	key = policy_flow_key(&quoted, !asked->direction);
	if (policy_flow_lookup(&key))
		return true;
	other = reversed(&quoted);
	key = policy_flow_key(&other, asked->direction);
	if (policy_flow_lookup(&key))
		return true;
	if (asked->direction == POLICY_EGRESS) {
		peer = asked->peer;
	} else {
		known = ipcache_lookup(other.family, &other.source);
		peer = known ? known->identity : IDENTITY_WORLD;
	}
	return !!(policy_verdict(asked->set, peer, &other, !policy_is_icmp(&other), &unknown) & POLICY_VERDICT_ALLOW);
}

/*
 * Ports, or what stands for them: of an ICMP message its type as destination and, of an echo, its number as source. Later
 * fragments have what their first one left; those of a translated flow have been recalled by the translation.
 */
static __always_inline void policy_ports(struct __sk_buff *skb, struct packet *packet, struct policy_question *asked)
{
	struct fragment_key key = fragment_key(packet);
	struct fragment_ports here, *left;
	__u8 icmp[ICMP_QUERY_BYTES];

	if (packet->fragment == FRAGMENT_LATER) {
		left = asked->ports_known ? NULL : bpf_map_lookup_elem(&fragments, &key);
		if (left) {
			asked->flow.source_port = left->source_port;
			asked->flow.destination_port = left->destination_port;
			asked->ports_known = 1;
		}
		return;
	}
	asked->ports_known = 1; /* or the protocol has none */
	if (policy_is_icmp(&asked->flow)) {
		if (bpf_skb_load_bytes(skb, packet->l4, icmp, sizeof(icmp))) {
			asked->ports_known = 0;
			return;
		}
		asked->is_error = policy_is_error(&asked->flow, icmp[0]);
		asked->flow.source_port = *(__be16 *)(icmp + 4);
		asked->flow.destination_port = bpf_htons(icmp[0]);
		here.source_port = asked->flow.source_port;
		here.destination_port = asked->flow.destination_port;
	} else {
		here.source_port = packet->flow.source_port;
		here.destination_port = packet->flow.destination_port;
	}
	if (packet->fragment == FRAGMENT_FIRST)
		bpf_map_update_elem(&fragments, &key, &here, BPF_ANY);
}

static __always_inline bool policy_enforced(__u32 word)
{
	return word != POLICY_UNENFORCED;
}

/* FORWARDED, or why not; then asked->audited says that it passes all the same. */
VERIFIED_ALONE int policy_ask(struct __sk_buff *skb, struct packet *packet, struct policy_question *asked)
{
	enum drop_reason reason = FORWARDED;
	struct policy_endpoint *word;
	__u32 id, mine, opposite, verdict;
	bool unknown = false;

	if (!packet || !asked)
		return DROP_POLICY_UNDECIDED;
	id = asked->endpoint;
	word = bpf_map_lookup_elem(&policy_endpoints, &id);
	if (!word)
		return DROP_POLICY_UNDECIDED;
	mine = asked->direction == POLICY_INGRESS ? READ_ONCE(word->ingress) : READ_ONCE(word->egress);
	opposite = asked->direction == POLICY_INGRESS ? READ_ONCE(word->egress) : READ_ONCE(word->ingress);
	if (mine == POLICY_UNENFORCED && opposite == POLICY_UNENFORCED)
		return FORWARDED;

	policy_ports(skb, packet, asked);
	if (policy_answers(asked, packet->tcp_flags))
		return FORWARDED;
	/* The node itself is always let in: it asks its pods how they are. */
	if (mine != POLICY_UNENFORCED && mine != POLICY_LEARNING &&
	    (asked->direction == POLICY_EGRESS || asked->peer != IDENTITY_HOST)) {
		if (mine == POLICY_UNDECIDED)
			return DROP_POLICY_UNDECIDED;
		asked->set = mine & POLICY_SET_MASK;
		asked->audited = mine >> 31;
		verdict = policy_verdict(asked->set, asked->peer, &asked->flow, asked->ports_known, &unknown);
		policy_count(verdict, skb->len);
		if (unknown)
			reason = DROP_POLICY_FRAGMENT;
		else if (!(verdict & POLICY_VERDICT_ALLOW))
			reason = verdict & POLICY_VERDICT_RULE ? DROP_POLICY_DENIED_BY_DENYLIST : DROP_POLICY_DENIED;
		if (reason && !asked->audited)
			return reason;
	}
	if (opposite != POLICY_UNENFORCED && asked->ports_known)
		policy_flow_record(asked, packet->tcp_flags);
	return reason;
}

/* FORWARDED, or why not. */
static __always_inline enum drop_reason policy_decide(struct __sk_buff *skb, struct packet *packet, struct policy_question *asked)
{
	enum drop_reason reason = policy_ask(skb, packet, asked);

	if (!reason || (asked->is_error && policy_related(skb, packet, asked)))
		return FORWARDED;
	if (!asked->audited)
		return reason;
	count(POLICY_AUDITED, asked->direction == POLICY_INGRESS, skb->len);
	observe(skb, POLICY_AUDITED, asked->direction == POLICY_INGRESS);
	return FORWARDED;
}

/*
 * On the way out of a pod, before anything of the packet is changed.
 * backend: NULL where the packet is not translated. peer: identity of the destination.
 */
static __always_inline enum drop_reason policy_egress(struct __sk_buff *skb, struct packet *packet, const struct endpoint *pod,
						      const struct mesh_addr *backend, __be16 port, __u32 peer)
{
	struct policy_question asked = {
		.flow = packet->flow,
		.peer = peer,
		.endpoint = pod->id,
		.direction = POLICY_EGRESS,
		.ports_known = packet->ports_known,
	};

	if (!(pod->flags & ENDPOINT_POLICY))
		return FORWARDED;
	if (backend) {
		asked.flow.destination = *backend;
		asked.flow.destination_port = port;
	}
	return policy_decide(skb, packet, &asked);
}

/* Before delivery to a pod. The sender's identity is the packet's, where it came with one; otherwise its address tells it. */
static __always_inline enum drop_reason policy_ingress(struct __sk_buff *skb, struct packet *packet, const struct endpoint *pod)
{
	struct policy_question asked = {
		.flow = packet->flow,
		.peer = packet->identity,
		.endpoint = pod->id,
		.direction = POLICY_INGRESS,
		.ports_known = packet->ports_known,
	};

	if (!(pod->flags & ENDPOINT_POLICY))
		return FORWARDED;
	if (asked.peer == IDENTITY_UNKNOWN || asked.peer == IDENTITY_WORLD) {
		struct ipcache_value *known = ipcache_lookup(packet->flow.family, &packet->flow.source);

		asked.peer = known ? known->identity : IDENTITY_WORLD;
	}
	return policy_decide(skb, packet, &asked);
}

#endif
