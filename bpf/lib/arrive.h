/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What arrives by the tunnel, once its outer header is known and gone: from the device (vxlan_in) or from the uplink (uplink_in).
 * The sender's node has chosen the backend and put the sender's identity into the VNI; here the packet is given to the pod or the
 * host that has its address, or back to the client that we took it in for, and to nobody else.
 */
#ifndef MESH_LIB_ARRIVE_H
#define MESH_LIB_ARRIVE_H

#include "endpoint.h"
#include "sender.h"
#include "uplink.h"

/* The packet is parsed and has the identity of its VNI. family, sender: of the outer header. */
static __always_inline int arrive_from(struct __sk_buff *skb, struct packet *packet, __u8 family, const struct mesh_addr *sender)
{
	struct north_scratch *memory = scratch();
	enum drop_reason reason = sender_may(family, sender, packet->identity, &packet->flow);
	struct endpoint *endpoint;

	if (reason || !memory)
		return drop(skb, reason ?: DROP_INVALID_PACKET, COUNTER_INGRESS);
	if (packet->identity == IDENTITY_HOST) /* only we are this node's host */
		packet->identity = IDENTITY_REMOTE_NODE;
	if (fragment_overlaps(packet))
		return drop(skb, DROP_FRAGMENT_OVERLAP, COUNTER_INGRESS);
	if (packet->fragment == FRAGMENT_LATER)
		fragment_recall(packet);
	if (packet->ports_known && is_own(&packet->flow, true) && north_answer(&packet->flow, packet->tcp_flags, &memory->north))
		return answer_client(skb, packet, &memory->north, COUNTER_INGRESS);
	if (is_icmp(packet) && is_own_address(&packet->flow, true)) {
		int verdict = error_to_client(skb, packet, COUNTER_INGRESS);

		if (verdict != TC_ACT_UNSPEC)
			return verdict;
	}
	endpoint = endpoint_lookup(packet->flow.family, &packet->flow.destination);
	if (!endpoint)
		return drop(skb, DROP_NO_ENDPOINT, COUNTER_INGRESS);
	if (packet->identity == IDENTITY_WORLD) {
		reason = take_virtual_address(skb, packet);
		if (reason)
			return drop(skb, reason, COUNTER_INGRESS);
	}
	return deliver(skb, packet, endpoint, COUNTER_INGRESS);
}

#endif
