// SPDX-License-Identifier: GPL-2.0
/*
 * What a pod sends, and what the host's stack sends to pods: attached to the ingress of each pod's host-side veth and of
 * mesh_net. Here, and only here, a packet gets its identity, its backend and its way: to a pod of this node, into the tunnel,
 * or up to the stack of this node.
 */
#include "lib/arp_nd.h"
#include "lib/encap.h"
#include "lib/endpoint.h"
#include "lib/ipcache.h"
#include "lib/uplink.h"

/* The host's stack gave us the packet, so giving it back would be a loop. */
static __always_inline int leave_mesh(struct __sk_buff *skb, struct packet *packet, const struct translation *to, bool from_host)
{
	if (from_host)
		return drop(skb, DROP_NO_TUNNEL, COUNTER_EGRESS);
	if (to->wanted) {
		enum drop_reason reason = apply_translation(skb, packet, to);

		if (reason)
			return drop(skb, reason, COUNTER_EGRESS);
	}
	return pass_up(skb, COUNTER_EGRESS);
}

/* May the pod send to what it has chosen? */
static __always_inline enum drop_reason may_leave(struct __sk_buff *skb, struct packet *packet, const struct endpoint *pod,
						  const struct translation *to, const struct endpoint *endpoint,
						  const struct ipcache_value *known)
{
	__u32 peer = known ? known->identity : IDENTITY_WORLD;

	if (endpoint)
		peer = endpoint->flags & ENDPOINT_HOST ? IDENTITY_HOST : identity_of(endpoint);
	return policy_egress(skb, packet, pod, to->wanted ? &to->address : NULL, to->port, peer);
}

/* pod: the sender, NULL when it is the host's stack. */
static __always_inline int route(struct __sk_buff *skb, struct packet *packet, const struct endpoint *pod)
{
	struct translation to = {};
	enum drop_reason reason = is_icmp(packet) ? translate_error(skb, packet) : find_translation(packet, &to);
	const struct mesh_addr *destination = to.wanted ? &to.address : &packet->flow.destination;
	struct ipcache_value *known = NULL;
	struct endpoint *endpoint;

	if (reason)
		return drop(skb, reason, COUNTER_EGRESS);
	if (!to.wanted)
		forget_stale_translation(packet);
	endpoint = endpoint_lookup(packet->flow.family, destination);
	if (!endpoint)
		known = ipcache_lookup(packet->flow.family, destination);
	if (pod && is_icmp(packet) && is_from_loopback(packet))
		return deliver_to_pod(skb, packet, pod, COUNTER_EGRESS);
	if (pod && to.wanted == WANTED_HAIRPIN) { /* nobody is forbidden to speak with itself */
		reason = apply_translation(skb, packet, &to);
		return reason ? drop(skb, reason, COUNTER_EGRESS) : deliver_to_pod(skb, packet, pod, COUNTER_EGRESS);
	}
	reason = pod ? may_leave(skb, packet, pod, &to, endpoint, known) : FORWARDED;
	if (reason)
		return drop(skb, reason, COUNTER_EGRESS);
	if (endpoint) {
		reason = to.wanted ? apply_translation(skb, packet, &to) : FORWARDED;
		return reason ? drop(skb, reason, COUNTER_EGRESS) : deliver(skb, packet, endpoint, COUNTER_EGRESS);
	}
	if (pod && !to.wanted && (packet->ports_known || is_icmp(packet)) && (!known || !is_pod_identity(known->identity))) {
		int verdict = packet->ports_known ? leave_as_answer(skb, packet) : error_to_client(skb, packet, COUNTER_EGRESS);

		if (verdict != TC_ACT_UNSPEC)
			return verdict;
	}
	if (!known || !known->node)
		return leave_mesh(skb, packet, &to, !pod);
	return encapsulate(skb, packet, &to, known->node, packet->identity);
}

/* Link-local and unspecified sources speak only to neighbours: questions to us, and what the stack may listen to. */
static __always_inline int neighbour_talk(struct __sk_buff *skb, const struct packet *packet)
{
	const struct mesh_addr *destination = &packet->flow.destination;

	if (is_solicitation(skb, packet))
		return answer_solicitation(skb, packet, NULL);
	if (destination->bytes[0] == 0xff || is_link_local(destination))
		return pass_up(skb, COUNTER_EGRESS);
	return drop(skb, DROP_INVALID_SOURCE, COUNTER_EGRESS);
}

/* Of what the host's stack only passes on: not the host's own, so it has not the host's rights. */
static __always_inline __u32 forwarded_identity(const struct packet *packet)
{
	struct ipcache_value *known = ipcache_lookup(packet->flow.family, &packet->flow.source);

	return known ? known->identity : IDENTITY_WORLD;
}

static __always_inline int from_pod(struct __sk_buff *skb, struct packet *packet)
{
	struct flow *flow = &packet->flow;
	bool from_host = packet->interface == config.host_interface;
	enum drop_reason reason;
	struct endpoint *source;

	if (flow->family == MESH_FAMILY_IPV6 && (is_link_local(&flow->source) || is_unspecified(&flow->source)))
		return neighbour_talk(skb, packet);
	source = endpoint_lookup(flow->family, &flow->source);
	if (!from_host && (!source || source->interface_index != packet->interface || source->flags & ENDPOINT_HOST))
		return drop(skb, DROP_INVALID_SOURCE, COUNTER_EGRESS);
	if (flow->family == MESH_FAMILY_IPV6 && is_solicitation(skb, packet))
		return answer_solicitation(skb, packet, source);
	if (fragment_overlaps(packet))
		return drop(skb, DROP_FRAGMENT_OVERLAP, COUNTER_EGRESS);
	if (!from_host && is_to_loopback(packet)) {
		reason = is_icmp(packet) ? turn_hairpin_error(skb, packet) : turn_hairpin(skb, packet);
		return reason ? drop(skb, reason, COUNTER_EGRESS) : deliver_to_pod(skb, packet, source, COUNTER_EGRESS);
	}
	packet->identity = source ? identity_of(source) : forwarded_identity(packet);
	/* The host's stack may pass on what came from outside the cluster. */
	packet->scope =
		source || ipcache_is_inside(ipcache_lookup(flow->family, &flow->source)) ? LB_SCOPE_INTERNAL : LB_SCOPE_EXTERNAL;
	return route(skb, packet, from_host ? NULL : source);
}

SEC("tc")
int pod_in(struct __sk_buff *skb)
{
	struct packet packet = { .interface = skb->ifindex };

	if (skb->vlan_present)
		return drop(skb, DROP_INVALID_PACKET, COUNTER_EGRESS);
	switch (skb->protocol) {
	case bpf_htons(ETH_P_ARP):
		return answer_arp(skb, packet.interface);
	case bpf_htons(ETH_P_IP):
		return parse_ipv4(skb, &packet) ? from_pod(skb, &packet) : drop(skb, DROP_INVALID_PACKET, COUNTER_EGRESS);
	case bpf_htons(ETH_P_IPV6):
		return parse_ipv6(skb, &packet) ? from_pod(skb, &packet) : drop(skb, DROP_INVALID_PACKET, COUNTER_EGRESS);
	default:
		return pass_up(skb, COUNTER_EGRESS);
	}
}

char LICENSE[] SEC("license") = "GPL";
