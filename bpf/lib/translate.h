/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Virtual address → backend for packets that no socket hook has translated, and back. Deciding and doing are apart: the packet
 * is looked at as the sender sent it until we know that it will leave.
 */
#ifndef MESH_LIB_TRANSLATE_H
#define MESH_LIB_TRANSLATE_H

#include "conntrack.h"
#include "csum.h"
#include "fragment.h"
#include "lb.h"

/* Where a packet to a virtual address goes. wanted = 0: it was not sent to one. */
struct translation {
	struct mesh_addr address;
	__be16 port;
	__u8 wanted;
	__u8 pad;
};

static __always_inline bool opens_flow(const struct packet *packet)
{
	return (packet->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
}

/*
 * The flow's backend is out of reach, and another one is not: that one will answer an established connection with a reset, so that
 * both ends know at once what they would find out by minutes of silence.
 */
static __always_inline bool flow_is_lost(const struct packet *packet, __u32 service, const struct conntrack_value *value)
{
	if (!lb_is_lost(value->backend, &value->address, value->port) || !lb_select_living(service, flow_hash(&packet->flow)))
		return false;
	COUNT_FAILOVER(repicked);
	return true;
}

/*
 * An established TCP flow stays with its backend whatever its state: only that backend knows the connection. What can begin
 * anew, a SYN or a datagram, does when the backend is gone, and a SYN also when the old connection was closing.
 */
static __always_inline bool flow_stays(const struct packet *packet, __u32 service, const struct conntrack_value *value)
{
	if (packet->flow.protocol == IPPROTO_TCP && !opens_flow(packet))
		return !flow_is_lost(packet, service, value);
	if (value->flags & CONNTRACK_CLOSING)
		return false;
	return lb_still_lives(value->backend, &value->address, value->port);
}

/* Chooses a backend and records both directions of the flow. */
static __always_inline enum drop_reason begin_flow(const struct packet *packet, __u32 service, struct translation *to)
{
	const struct flow *flow = &packet->flow;
	struct conntrack_value value = { .last_seen = now_seconds() };
	struct lb_backend *backend;
	struct flow reply;
	__u32 slot = lb_select(service, flow_hash(flow));

	backend = slot ? lb_backend(slot) : NULL;
	if (!backend || backend->family != flow->family)
		return DROP_NO_SERVICE_BACKEND;
	if (flow->protocol == IPPROTO_SCTP && backend->port != flow->destination_port) /* its CRC covers the port */
		return DROP_TRANSLATION;
	to->address = backend->address;
	to->port = backend->port;

	value.address = to->address;
	value.port = to->port;
	value.backend = slot;
	if (!conntrack_store(flow, CONNTRACK_FORWARD, &value))
		return DROP_CONNTRACK;

	reply = reversed(flow);
	reply.source = to->address;
	reply.source_port = to->port;
	value.address = flow->destination;
	value.port = flow->destination_port;
	value.backend = 0;
	if (!conntrack_store(&reply, CONNTRACK_REVERSE, &value))
		return DROP_CONNTRACK;
	to->wanted = 1;
	return FORWARDED;
}

/* Decides; the packet is not touched. */
VERIFIED_ALONE int find_translation(struct packet *packet, struct translation *to)
{
	struct conntrack_value *value;
	__u32 service;

	if (!packet || !to)
		return DROP_TRANSLATION;

	if (packet->fragment == FRAGMENT_LATER)
		fragment_recall(packet);
	if (!packet->ports_known)
		return FORWARDED;
	service = lb_find_service(packet->flow.family, &packet->flow.destination, packet->flow.destination_port,
				  packet->flow.protocol);
	if (!service)
		return FORWARDED;
	value = conntrack_lookup(&packet->flow, CONNTRACK_FORWARD);
	if (value && flow_stays(packet, service, value)) {
		conntrack_touch(value, packet->tcp_flags);
		to->address = value->address;
		to->port = value->port;
		to->wanted = 1;
		return FORWARDED;
	}
	if (packet->fragment == FRAGMENT_LATER) /* its first part went to a backend that we no longer know */
		return DROP_FRAGMENT;
	return begin_flow(packet, service, to);
}

/* Does what find_translation decided. */
static __always_inline enum drop_reason apply_translation(struct __sk_buff *skb, struct packet *packet,
							  const struct translation *to)
{
	if (packet->fragment == FRAGMENT_FIRST)
		fragment_remember(packet);
	return rewrite(skb, packet, REWRITE_DESTINATION, &to->address, to->port);
}

/* A reply of a translated flow gets the virtual address as its source again. Called where the client is: before delivery. */
VERIFIED_ALONE int translate_reply(struct __sk_buff *skb, struct packet *packet)
{
	struct conntrack_value *value;
	struct mesh_addr address;
	__be16 port;

	if (!packet)
		return DROP_TRANSLATION;

	if (packet->fragment == FRAGMENT_LATER && !packet->ports_known)
		fragment_recall(packet);
	if (!packet->ports_known)
		return FORWARDED;
	value = conntrack_lookup(&packet->flow, CONNTRACK_REVERSE);
	if (!value)
		return FORWARDED;
	conntrack_touch(value, packet->tcp_flags);
	address = value->address;
	port = value->port;
	if (packet->fragment == FRAGMENT_FIRST)
		fragment_remember(packet);
	return rewrite(skb, packet, REWRITE_SOURCE, &address, port);
}

/*
 * The sender opens a connection to this very address, without a virtual one: replies on these ports are no longer those of an
 * older translated flow.
 */
static __always_inline void forget_stale_translation(const struct packet *packet)
{
	struct flow reply;

	if (!opens_flow(packet))
		return;
	reply = reversed(&packet->flow);
	conntrack_forget(&reply, CONNTRACK_REVERSE);
}

#endif
