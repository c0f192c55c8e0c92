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
#include "choice.h"
#include "quoted.h"

enum wanted {
	WANTED_NOTHING, /* not sent to a virtual address */
	WANTED_BACKEND,
	WANTED_HAIRPIN, /* the backend is the sender: it must not see its own address as source */
	WANTED_NEW, /* a backend is to be chosen yet */
};

/* Where a packet to a virtual address goes. */
struct translation {
	struct mesh_addr address;
	__u32 service; /* its id */
	__u32 slot; /* of a backend just chosen */
	__be16 port;
	__u8 wanted; /* enum wanted */
	__u8 attempt; /* backends tried before, towards which the ports are taken */
};

#define CHOICES_MAX 4

static __always_inline bool opens_flow(const struct packet *packet)
{
	return (packet->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
}

/* What a packet says about the backend in this slot, if the slot still holds it. outcome: enum lb_outcome. */
VERIFIED_ALONE int lb_judge(__u32 slot, const struct mesh_addr *address, __u32 port, __u32 outcome)
{
	struct lb_backend *backend = lb_backend(slot);

	if (!address || !backend || backend->port != port || !same_address(&backend->address, address))
		return 0;
	if (outcome == LB_ANSWERED)
		lb_prove(slot);
	else
		lb_eject(slot, backend, outcome);
	return 0;
}

/* A SYN that the client repeats because nobody has answered it: the backend is ejected, and this very SYN may choose another. */
static __always_inline void judge_repeated(const struct conntrack_value *value)
{
	struct mesh_addr address = value->address;

	if (!(value->flags & (CONNTRACK_ANSWERED | CONNTRACK_ESTABLISHED | CONNTRACK_CLOSING | CONNTRACK_HAIRPIN)) &&
	    value->last_seen != now_seconds())
		lb_judge(value->backend, &address, value->port, LB_UNANSWERED);
}

/* What the first answer to a SYN says: of the backend from which it comes. value: of the reverse direction. */
static __always_inline void judge_answer(const struct packet *packet, const struct conntrack_value *value)
{
	struct mesh_addr address = packet->flow.source;

	if (packet->flow.protocol != IPPROTO_TCP || packet->fragment == FRAGMENT_LATER ||
	    value->flags & (CONNTRACK_ANSWERED | CONNTRACK_ESTABLISHED | CONNTRACK_CLOSING))
		return;
	lb_judge(value->backend, &address, packet->flow.source_port, packet->tcp_flags & TCP_RST ? LB_REFUSED : LB_ANSWERED);
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
static __always_inline bool flow_stays(const struct packet *packet, __u32 service, struct conntrack_value *value)
{
	struct mesh_addr address = value->address;
	__u32 slot;

	if (packet->flow.protocol == IPPROTO_TCP && !opens_flow(packet))
		return !flow_is_lost(packet, service, value);
	if (value->flags & CONNTRACK_CLOSING)
		return false;
	if (packet->flow.protocol == IPPROTO_TCP)
		judge_repeated(value);
	if (lb_still_lives(value->backend, &address, value->port, LB_BACKEND_DRAINING))
		return true;
	slot = lb_find_backend(service, &address, value->port, LB_BACKEND_DRAINING);
	if (slot)
		value->backend = slot;
	return slot != 0;
}

static __always_inline void go_to(struct translation *to, const struct packet *packet, const struct mesh_addr *address,
				  __be16 port)
{
	to->address = *address;
	to->port = port;
	to->wanted = same_address(address, &packet->flow.source) ? WANTED_HAIRPIN : WANTED_BACKEND;
}

/* Would the answers of this flow be taken for those of another one, to another virtual address, that is still open? */
static __always_inline bool answers_collide(const struct flow *flow, const struct flow *reply)
{
	struct conntrack_value *other = conntrack_lookup(reply, CONNTRACK_REVERSE);

	return other && !(other->flags & CONNTRACK_CLOSING) &&
	       (other->port != flow->destination_port || !same_address(&other->address, &flow->destination));
}

/* Is the packet sent to a virtual address, and to which backend does its flow go? WANTED_NEW: it is the first of its flow. */
VERIFIED_ALONE int find_flow(struct packet *packet, struct translation *to)
{
	struct conntrack_value *value;

	if (!packet || !to)
		return DROP_TRANSLATION;

	if (packet->fragment == FRAGMENT_LATER)
		fragment_recall(packet);
	if (!packet->ports_known)
		return FORWARDED;
	to->service = lb_find_service(packet->flow.family, &packet->flow.destination, packet->flow.destination_port,
				      packet->flow.protocol, packet->scope);
	if (!to->service)
		return FORWARDED;
	value = conntrack_lookup(&packet->flow, CONNTRACK_FORWARD);
	if (value && flow_stays(packet, to->service, value)) {
		conntrack_touch(packet, CONNTRACK_FORWARD, value);
		go_to(to, packet, &value->address, value->port);
		return FORWARDED;
	}
	if (packet->fragment == FRAGMENT_LATER) /* its first part went to a backend that we no longer know */
		return DROP_FRAGMENT;
	to->wanted = WANTED_NEW;
	return FORWARDED;
}

/* Chooses a backend for a new flow. Apart from what is before and after it: the stack of all that runs at once is small. */
VERIFIED_ALONE int choose_backend(struct packet *packet, struct translation *to)
{
	struct lb_client client = {};
	struct lb_backend *backend;

	if (!packet || !to)
		return DROP_TRANSLATION;
	client.id = packet->flow.source;
	client.family = packet->flow.family;
	if (packet->scope == LB_SCOPE_EXTERNAL && !lb_source_allowed(to->service, client.family, &client.id))
		return DROP_NOT_IN_SOURCE_RANGE;
	to->slot = lb_choose(to->service, flow_hash(&packet->flow) + to->attempt * HASH_STEP, &client);
	backend = to->slot ? lb_backend(to->slot) : NULL;
	if (!backend || backend->family != packet->flow.family)
		return DROP_NO_SERVICE_BACKEND;
	if (packet->flow.protocol == IPPROTO_SCTP && backend->port != packet->flow.destination_port) /* its CRC covers the port */
		return DROP_SCTP_PORT;
	client.id = backend->address;
	go_to(to, packet, &client.id, backend->port);
	return FORWARDED;
}

/* Records both directions of a new flow. */
VERIFIED_ALONE int record_flow(struct packet *packet, struct translation *to)
{
	struct conntrack_value value = { .last_seen = now_seconds() };
	struct flow reply;

	if (!packet || !to)
		return DROP_TRANSLATION;
	value.service = to->service;
	value.flags = to->wanted == WANTED_HAIRPIN ? CONNTRACK_HAIRPIN : 0;
	reply = reversed(&packet->flow);
	reply.source = to->address;
	reply.source_port = to->port;
	if (to->wanted == WANTED_HAIRPIN)
		reply.destination = loopback_address(packet->flow.family);
	if (answers_collide(&packet->flow, &reply))
		return DROP_PORT_COLLISION;
	value.address = packet->flow.destination;
	value.port = packet->flow.destination_port;
	value.backend = to->slot;
	if (!conntrack_store(&reply, CONNTRACK_REVERSE, &value))
		return DROP_CONNTRACK;
	value.address = to->address;
	value.port = to->port;
	return conntrack_store(&packet->flow, CONNTRACK_FORWARD, &value) ? FORWARDED : DROP_CONNTRACK;
}

/* Decides; the packet is not touched. */
static __always_inline enum drop_reason find_translation(struct packet *packet, struct translation *to)
{
	enum drop_reason reason = find_flow(packet, to);

	if (reason || to->wanted != WANTED_NEW)
		return reason;
	for (int i = 0; i < CHOICES_MAX; i++) {
		to->attempt = i;
		reason = choose_backend(packet, to) ?: record_flow(packet, to);
		if (reason != DROP_PORT_COLLISION)
			break;
	}
	return reason;
}

/* A client's ICMP error about an answer from a virtual address is meant for the backend that gave the answer. */
VERIFIED_ALONE int translate_error(struct __sk_buff *skb, struct packet *packet)
{
	struct conntrack_value *value;
	struct quoted quoted = {};
	struct mesh_addr address;
	struct flow flow;
	bool hairpin;
	__be16 port;

	if (!packet || !parse_quoted(skb, packet, &quoted))
		return FORWARDED;
	flow = reversed(&quoted.flow);
	if (!same_address(&flow.destination, &packet->flow.destination))
		return FORWARDED;
	value = conntrack_lookup(&flow, CONNTRACK_FORWARD);
	if (!value)
		return FORWARDED;
	hairpin = value->flags & CONNTRACK_HAIRPIN;
	address = value->address;
	port = value->port;
	if (rewrite_quoted(skb, &quoted, REWRITE_SOURCE, &address, port))
		return DROP_ICMP_ERROR;
	if (hairpin) { /* it answered itself, and knows itself by the loopback address only */
		struct mesh_addr loopback = loopback_address(packet->flow.family);

		if (rewrite_quoted(skb, &quoted, REWRITE_DESTINATION, &loopback, quoted.flow.destination_port) ||
		    rewrite(skb, packet, REWRITE_SOURCE, &loopback, packet->flow.source_port))
			return DROP_ICMP_ERROR;
	}
	return rewrite(skb, packet, REWRITE_DESTINATION, &address, packet->flow.destination_port);
}

/* Does what find_translation decided. */
static __always_inline enum drop_reason apply_translation(struct __sk_buff *skb, struct packet *packet,
							  const struct translation *to)
{
	if (packet->fragment == FRAGMENT_FIRST)
		fragment_remember(packet);
	if (to->wanted == WANTED_HAIRPIN) {
		struct mesh_addr loopback = loopback_address(packet->flow.family);
		enum drop_reason reason = rewrite(skb, packet, REWRITE_SOURCE, &loopback, packet->flow.source_port);

		if (reason)
			return reason;
	}
	return rewrite(skb, packet, REWRITE_DESTINATION, &to->address, to->port);
}

/*
 * A backend says that nobody listens there: a datagram has no other way to be refused. slot: the backend's, 0 = no packet of the flow
 * was translated here, so a socket hook may have done it. Apart: the stack of all that runs at once is small.
 */
VERIFIED_ALONE int judge_unreachable(const struct flow *quoted, __u32 slot)
{
	struct lb_backend_health *health;
	struct lb_datagram_backend key;
	struct lb_backend *backend;
	__u32 *remembered;

	if (!quoted)
		return 0;
	key.address = quoted->destination;
	key.port = quoted->destination_port;
	key.family = quoted->family;
	key.pad = 0;
	if (!slot) {
		remembered = quoted->protocol == IPPROTO_UDP ? bpf_map_lookup_elem(&lb_datagram_backends, &key) : NULL;
		slot = remembered ? *remembered : 0;
	}
	health = slot ? lb_health(slot) : NULL;
	backend = slot ? lb_backend(slot) : NULL;
	/* What its prober is told, and sockets that do not listen to us, is no news. The slot may hold another by now. */
	if (health && backend && !health_is_ejected(health) && backend->port == key.port &&
	    same_address(&backend->address, &key.address))
		lb_eject(slot, backend, LB_REFUSED);
	return 0;
}

/* Of a connection it counts while it opens. value: of the reverse direction, may be NULL. */
static __always_inline bool is_judged(const struct flow *quoted, const struct conntrack_value *value)
{
	if (quoted->protocol == IPPROTO_TCP)
		return value && !(value->flags & (CONNTRACK_ANSWERED | CONNTRACK_ESTABLISHED));
	return quoted->protocol == IPPROTO_UDP;
}

/*
 * An ICMP error about a packet that the client sent to the virtual address and somebody met on its way to the backend: it must
 * speak of the packet that the client knows.
 */
VERIFIED_ALONE int translate_error_reply(struct __sk_buff *skb, struct packet *packet)
{
	struct conntrack_value *value;
	struct mesh_addr address, backend;
	struct quoted quoted = {};
	struct flow reply;
	__be16 port;

	if (!packet || !parse_quoted(skb, packet, &quoted))
		return FORWARDED;
	reply = reversed(&quoted.flow);
	if (!same_address(&reply.destination, &packet->flow.destination))
		return FORWARDED;
	value = conntrack_lookup(&reply, CONNTRACK_REVERSE);
	backend = quoted.flow.destination;
	if (is_judged(&quoted.flow, value) && same_address(&backend, &packet->flow.source) && is_port_unreachable(skb, packet))
		judge_unreachable(&quoted.flow, value ? value->backend : 0);
	if (!value || value->flags & CONNTRACK_HAIRPIN)
		return FORWARDED;
	address = value->address;
	port = value->port;
	if (rewrite_quoted(skb, &quoted, REWRITE_DESTINATION, &address, port))
		return DROP_ICMP_ERROR;
	if (!same_address(&backend, &packet->flow.source)) /* from a router on the way */
		return FORWARDED;
	return rewrite(skb, packet, REWRITE_SOURCE, &address, packet->flow.source_port);
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
	if (!value || value->flags & CONNTRACK_HAIRPIN)
		return FORWARDED;
	judge_answer(packet, value);
	conntrack_touch(packet, CONNTRACK_REVERSE, value);
	address = value->address;
	port = value->port;
	if (packet->fragment == FRAGMENT_FIRST)
		fragment_remember(packet);
	return rewrite(skb, packet, REWRITE_SOURCE, &address, port);
}

static __always_inline bool is_to_loopback(const struct packet *packet)
{
	struct mesh_addr loopback = loopback_address(packet->flow.family);

	return same_address(&loopback, &packet->flow.destination);
}

/* Has translate_error made it one about an answer to itself? */
static __always_inline bool is_from_loopback(const struct packet *packet)
{
	struct mesh_addr loopback = loopback_address(packet->flow.family);

	return same_address(&loopback, &packet->flow.source);
}

/* The ICMP error of a backend about its own question. */
VERIFIED_ALONE int turn_hairpin_error(struct __sk_buff *skb, struct packet *packet)
{
	struct mesh_addr address, self;
	struct conntrack_value *value;
	struct quoted quoted = {};
	struct flow reply;
	__be16 port;

	if (!packet)
		return DROP_TRANSLATION;

	self = packet->flow.source;
	if (!parse_quoted(skb, packet, &quoted))
		return DROP_HAIRPIN;
	reply = reversed(&quoted.flow);
	value = conntrack_lookup(&reply, CONNTRACK_REVERSE);
	if (!value)
		return DROP_HAIRPIN;
	address = value->address;
	port = value->port;
	if (rewrite_quoted(skb, &quoted, REWRITE_SOURCE, &self, quoted.flow.source_port) ||
	    rewrite_quoted(skb, &quoted, REWRITE_DESTINATION, &address, port))
		return DROP_ICMP_ERROR;
	return rewrite(skb, packet, REWRITE_SOURCE, &address, packet->flow.source_port) ?:
		       rewrite(skb, packet, REWRITE_DESTINATION, &self, packet->flow.destination_port);
}

/* The answer of a backend to its own question goes back to it, from the virtual address. */
VERIFIED_ALONE int turn_hairpin(struct __sk_buff *skb, struct packet *packet)
{
	struct mesh_addr address, self;
	struct conntrack_value *value;
	__be16 port;

	if (!packet)
		return DROP_TRANSLATION;

	self = packet->flow.source;
	if (packet->fragment == FRAGMENT_LATER)
		fragment_recall(packet);
	value = packet->ports_known ? conntrack_lookup(&packet->flow, CONNTRACK_REVERSE) : NULL;
	if (!value)
		return DROP_HAIRPIN;
	conntrack_touch(packet, CONNTRACK_REVERSE, value);
	address = value->address;
	port = value->port;
	if (packet->fragment == FRAGMENT_FIRST)
		fragment_remember(packet);
	return rewrite(skb, packet, REWRITE_SOURCE, &address, port) ?:
		       rewrite(skb, packet, REWRITE_DESTINATION, &self, packet->flow.destination_port);
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
