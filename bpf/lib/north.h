/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Packets from outside to services: what is to be done with one. Deciding and doing are apart, as in translate.h; what is decided
 * here is done by xdp.h on a frame and by uplink.h on an skb, so the two hooks cannot differ.
 *
 *   client ──→ virtual address ── backend here ────────────→ NAT_LOCAL:  destination only; the pod sees the client
 *                              ── on a node by the tunnel ─→ NAT_TUNNEL: source = our gateway address and a port of ours
 *                                                            NAT_DSR:    unchanged, with the virtual address as an option
 *                              ── on a node's own address ─→ NAT_DIRECT: source = our underlay address and a port of ours
 */
#ifndef MESH_LIB_NORTH_H
#define MESH_LIB_NORTH_H

#include "endpoint.h"
#include "ipcache.h"
#include "nat.h"
#include "sender.h"

/* What is to be done. */
enum north_what {
	NORTH_PASS = 0, /* not ours */
	NORTH_FORWARD, /* client → backend, by .way */
	NORTH_ANSWER, /* backend → client */
};

struct north {
	struct mesh_addr source; /* of the packet when it leaves, like the next three */
	struct mesh_addr destination;
	__be16 source_port;
	__be16 destination_port;
	__u8 what; /* enum north_what */
	__u8 way; /* enum nat_way */
	__u8 carry; /* NAT_DSR: this packet carries the virtual address */
	__u8 pad;
	__u32 node; /* index into nodes; 0 = no tunnel */
};

/* A plain packet of either family, as XDP reads it. */
struct frame {
	struct flow flow;
	__u32 length; /* of the IP packet */
	__u8 tcp_flags;
	__u8 ttl;
	__u8 traffic_class;
	__u8 pad;
};

/* The Ethernet header and device of the next hop. */
struct next_hop {
	__u8 destination[ETH_ALEN];
	__u8 source[ETH_ALEN];
	__u32 interface;
};

/* What one packet's way needs and the stack of 512 bytes has no room for. A copy for each CPU: a program is not interrupted by itself. */
struct north_scratch {
	struct frame frame;
	struct flow answers;
	struct north north;
	struct nat_value value;
	struct nat_search search;
	struct lb_client client;
	struct next_hop hop;
	struct bpf_fib_lookup route;
};

/* north_scratch: 0 → memory of the packet at hand. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct north_scratch);
} north_scratch SEC(".maps");

static __always_inline struct north_scratch *scratch(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&north_scratch, &zero);
}

static __always_inline bool is_zero(const struct mesh_addr *address)
{
	return !(address->v6[0] | address->v6[1] | address->v6[2] | address->v6[3]);
}

/* config lies in read-only memory that is volatile to the compiler: copied word by word. */
static __always_inline void own_address(struct mesh_addr *to, __u8 family, bool gateway)
{
	*to = (struct mesh_addr){};
	if (family == MESH_FAMILY_IPV4) {
		to->v4 = gateway ? config.gateway4 : config.direct4;
		return;
	}
	for (int i = 0; i < 4; i++)
		to->v6[i] = gateway ? config.gateway6.v6[i] : config.direct6.v6[i];
}

static __always_inline void underlay_address(struct mesh_addr *to)
{
	for (int i = 0; i < 4; i++)
		to->v6[i] = config.underlay.v6[i];
}

/* To an address of ours from which we send what we took in? */
static __always_inline bool is_own_address(const struct flow *flow, bool gateway)
{
	struct mesh_addr own;

	own_address(&own, flow->family, gateway);
	return same_address(&own, &flow->destination);
}

/* And to a port of those we take? */
static __always_inline bool is_own(const struct flow *flow, bool gateway)
{
	return nat_port_in_range(flow->destination_port) && is_own_address(flow, gateway);
}

/* A frame on the uplink that a switch has only flooded? Promiscuous devices see such. */
static __always_inline bool is_to_other_station(const struct ethhdr *eth, __u32 interface)
{
	__u8 different = 0, given = 0;

	if (interface != config.uplink_interface)
		return false;
	for (int i = 0; i < ETH_ALEN; i++) {
		different |= eth->h_dest[i] ^ config.uplink_mac[i];
		given |= config.uplink_mac[i];
	}
	return given && different;
}

/* A VXLAN packet to this node? */
static __always_inline bool is_for_tunnel(const struct flow *flow)
{
	struct mesh_addr own;

	if (flow->protocol != IPPROTO_UDP || flow->destination_port != bpf_htons(config.tunnel_port) ||
	    flow->family != config.underlay_family)
		return false;
	underlay_address(&own);
	return same_address(&own, &flow->destination);
}

static __always_inline bool opens_connection(__u8 tcp_flags)
{
	return (tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
}

/* Beside the flags of TCP: the packet has no room for the virtual address, so a flow that it begins cannot go by DSR. */
#define NORTH_NO_ROOM 0x100

static __always_inline __u32 north_says(const struct flow *flow, __u8 tcp_flags, __u32 length, bool fragment)
{
	__u32 option = flow->family == MESH_FAMILY_IPV4 ? sizeof(struct dsr_option4) : sizeof(struct dsr_option6);

	/* In the midst of a connection there is only the way that it has had, whatever we have forgotten. */
	if (flow->protocol == IPPROTO_TCP && !opens_connection(tcp_flags))
		return tcp_flags;
	return fragment || (config.pod_mtu && length + option > config.pod_mtu) ? tcp_flags | NORTH_NO_ROOM : tcp_flags;
}

static __always_inline void north_set(struct north *north, const struct flow *flow, const struct nat_value *value, __u8 tcp_flags)
{
	north->what = NORTH_FORWARD;
	north->way = value->way;
	north->node = value->node;
	north->destination = value->address;
	north->destination_port = value->port;
	north->source = flow->source;
	north->source_port = flow->source_port;
	if (value->way == NAT_TUNNEL || value->way == NAT_DIRECT) {
		own_address(&north->source, flow->family, value->way == NAT_TUNNEL);
		north->source_port = value->source_port;
	}
	north->carry = value->way == NAT_DSR && (flow->protocol != IPPROTO_TCP || opens_connection(tcp_flags));
}

/* Written in place: a value that is returned takes room on the stack first. like: a flow of the same family and protocol. */
static __always_inline void set_flow(struct flow *to, const struct flow *like, const struct mesh_addr *source, __be16 source_port,
				     const struct mesh_addr *destination, __be16 destination_port)
{
	to->source = *source;
	to->destination = *destination;
	to->source_port = source_port;
	to->destination_port = destination_port;
	to->family = like->family;
	to->protocol = like->protocol;
}

/* The flow of the answers to what leaves. */
static __always_inline void north_answers(struct flow *answers, const struct north *north, const struct flow *flow)
{
	set_flow(answers, flow, &north->destination, north->destination_port, &north->source, north->source_port);
}

static __always_inline void north_reverse(struct nat_value *reverse, const struct flow *flow, const struct nat_value *forward)
{
	__builtin_memset(reverse, 0, sizeof(*reverse));
	reverse->address = flow->source;
	reverse->virtual_address = flow->destination;
	reverse->port = flow->source_port;
	reverse->virtual_port = flow->destination_port;
	reverse->way = forward->way;
	reverse->backend = forward->backend;
	reverse->state = forward->state;
	reverse->last_seen = forward->last_seen;
}

/* The other entry of a flow learns what this one has learned; a reverse entry that the LRU has taken is made anew. */
VERIFIED_ALONE int tell_reverse(const struct flow *flow, const struct north *north, const struct nat_value *forward)
{
	struct north_scratch *memory = scratch();
	struct nat_value *reverse;

	if (!flow || !north || !forward || !memory || forward->way == NAT_DSR)
		return 0;
	north_answers(&memory->answers, north, flow);
	reverse = nat_entry(&memory->answers, NAT_REVERSE);
	if (reverse) {
		nat_touch(reverse, forward->state, forward->last_seen);
		return 0;
	}
	north_reverse(&memory->search.value, flow, forward);
	nat_store(&memory->answers, NAT_REVERSE, &memory->search.value, BPF_NOEXIST);
	return 0;
}

VERIFIED_ALONE int tell_forward(const struct flow *answer, const struct nat_value *reverse)
{
	struct north_scratch *memory = scratch();
	struct nat_value *forward;

	if (!answer || !reverse || !memory)
		return 0;
	set_flow(&memory->answers, answer, &reverse->address, reverse->port, &reverse->virtual_address, reverse->virtual_port);
	forward = nat_entry(&memory->answers, NAT_FORWARD);
	if (forward)
		nat_touch(forward, reverse->state, reverse->last_seen);
	return 0;
}

/* Does a refusal speak against the backend? A connection is refused while it opens. Answers by DSR do not pass here. */
static __always_inline bool is_north_judged(__u8 protocol, const struct nat_value *value)
{
	if (value->way == NAT_DSR)
		return false;
	return protocol == IPPROTO_UDP ||
	       (protocol == IPPROTO_TCP && !(value->state & (NAT_ANSWERED | NAT_RESET | NAT_FIN_CLIENT | NAT_FIN_BACKEND)));
}

/*
 * An answer to a flow that we took in: the client as destination, the virtual address as source. NORTH_PASS when it is none.
 * Called with what came out of the tunnel, what came over the underlay, and what a pod or the host of this node says.
 */
VERIFIED_ALONE int north_answer(const struct flow *flow, __u32 tcp_flags, struct north *north)
{
	__u32 now = nat_now();
	struct nat_value *value;

	if (!flow || !north)
		return false;
	value = nat_lookup(flow, NAT_REVERSE, now);
	if (!value)
		return false;
	north->what = NORTH_ANSWER;
	north->way = value->way;
	north->source = value->virtual_address;
	north->source_port = value->virtual_port;
	north->destination = value->address;
	north->destination_port = value->port;
	if (flow->protocol == IPPROTO_TCP && is_north_judged(IPPROTO_TCP, value))
		lb_judge(value->backend, &flow->source, flow->source_port, tcp_flags & TCP_RST ? LB_REFUSED : LB_ANSWERED);
	if (nat_touch(value, nat_learned(tcp_flags, false), now))
		tell_forward(flow, value);
	return true;
}

/* Where the backend is decides the way. FORWARDED, or why there is none. */
VERIFIED_ALONE int choose_way(const struct flow *flow, __u32 wants_dsr, struct nat_value *value)
{
	const struct mesh_addr *backend;
	struct ipcache_value *there, *client;
	struct endpoint *here;
	struct mesh_addr source;
	struct node *node;
	__u32 index;

	if (!flow || !value)
		return DROP_TRANSLATION;
	backend = &value->address;
	here = endpoint_lookup(flow->family, backend);
	value->way = NAT_LOCAL;
	if (here)
		return FORWARDED;
	own_address(&source, flow->family, false);
	if (same_address(&source, backend))
		return FORWARDED;
	there = ipcache_lookup(flow->family, backend);
	if (!there || !there->node) {
		value->way = NAT_DIRECT;
		return is_zero(&source) ? DROP_NO_ROUTE : FORWARDED;
	}
	index = there->node;
	value->node = index;
	value->way = NAT_TUNNEL;
	node = bpf_map_lookup_elem(&nodes, &index);
	if (wants_dsr && node && READ_ONCE(node->flags) & NODE_TAKES_DSR) {
		/* A client of the mesh speaks for itself only from its own node: its address must not come from ours. */
		client = ipcache_lookup(flow->family, &flow->source);
		if (!client || !is_pod_identity(client->identity)) {
			value->way = NAT_DSR;
			return FORWARDED;
		}
	}
	own_address(&source, flow->family, true);
	return is_zero(&source) ? DROP_NO_TUNNEL : FORWARDED;
}

/* The kernel lends a loop nothing but its caller's stack, and the search is too large for it. */
static long probe_port(__u32 i, void *nothing)
{
	struct north_scratch *memory = scratch();

	return !memory || nat_try_port(i, &memory->search) ? 1 : 0;
}

static __always_inline enum drop_reason take_port(const struct flow *flow, const struct north *north, struct nat_value *forward,
						  struct nat_search *search)
{
	north_answers(&search->answer, north, flow);
	north_reverse(&search->value, flow, forward);
	search->hash = flow_hash(flow);
	search->now = forward->last_seen;
	search->only_own = flow->protocol == IPPROTO_SCTP;
	search->found = 0;
	bpf_loop(NAT_PORT_PROBES, probe_port, NULL, 0);
	if (!search->found)
		return DROP_NAT_NO_PORT;
	forward->source_port = search->answer.destination_port;
	return FORWARDED;
}

/*
 * As flow_is_lost() in translate.h: another backend resets the connection, so that the client need not find out by silence. Apart: the
 * choice needs the stack.
 */
VERIFIED_ALONE int north_is_lost(const struct flow *flow, __u32 service, const struct nat_value *value)
{
	if (!flow || !value || !lb_is_lost(value->backend, &value->address, value->port) ||
	    !lb_select_living(service, flow_hash(flow)))
		return false;
	COUNT_FAILOVER(repicked);
	return true;
}

/* May the flow go on to the backend that it has? As flow_stays() in translate.h. An open connection is asked once a second. */
static __always_inline bool north_stays(const struct flow *flow, __u32 service, __u32 tcp_flags, struct nat_value *value,
					__u32 now)
{
	__u32 slot;

	if (flow->protocol == IPPROTO_TCP) {
		if (!opens_connection(tcp_flags))
			return value->last_seen == now || !north_is_lost(flow, service, value);
		if (value->state & (NAT_RESET | NAT_FIN_CLIENT | NAT_FIN_BACKEND))
			return false;
		if (value->last_seen != now && is_north_judged(IPPROTO_TCP, value)) /* repeated: nobody has answered */
			lb_judge(value->backend, &value->address, value->port, LB_UNANSWERED);
	}
	if (lb_still_lives(value->backend, &value->address, value->port, LB_BACKEND_DRAINING))
		return true;
	slot = lb_find_backend(service, &value->address, value->port, LB_BACKEND_DRAINING);
	if (slot)
		value->backend = slot;
	return slot != 0;
}

/*
 * The answers of a local backend are told by its address and the client's. A client that talks to it by two virtual addresses from
 * one port would get the answers of one as those of the other.
 */
VERIFIED_ALONE int take_answers(const struct flow *flow, const struct north *north, const struct nat_value *forward)
{
	struct north_scratch *memory = scratch();
	struct nat_value *taken;

	if (!flow || !north || !forward || !memory)
		return DROP_NAT_NOT_STORED;
	north_answers(&memory->answers, north, flow);
	north_reverse(&memory->search.value, flow, forward);
	taken = nat_lookup(&memory->answers, NAT_REVERSE, forward->last_seen);
	if (taken && !nat_closed(taken) && !nat_same_client(taken, &memory->search.value))
		return DROP_PORT_COLLISION;
	return nat_store(&memory->answers, NAT_REVERSE, &memory->search.value, BPF_ANY) ? FORWARDED : DROP_NAT_NOT_STORED;
}

/* A new flow: backend, way, source port, both entries. */
VERIFIED_ALONE int north_begin(const struct flow *flow, __u32 service, __u32 tcp_flags, struct north *north)
{
	struct north_scratch *memory = scratch();
	struct lb_service_info *info;
	struct lb_backend *backend;
	enum drop_reason reason;
	struct nat_value *value;
	__u32 slot;

	if (!flow || !north || !memory)
		return DROP_TRANSLATION;
	info = lb_info(lb_committed(service));
	if (info && info->kind == LB_KIND_CLUSTER_IP)
		return FORWARDED; /* not for outside */
	memory->client.id = flow->source;
	memory->client.family = flow->family;
	if (!lb_source_allowed(service, flow->family, &memory->client.id))
		return DROP_NOT_IN_SOURCE_RANGE;
	slot = lb_choose(service, flow_hash(flow), &memory->client);
	backend = slot ? lb_backend(slot) : NULL;
	if (!backend || backend->family != flow->family)
		return DROP_NO_SERVICE_BACKEND;
	if (flow->protocol == IPPROTO_SCTP && backend->port != flow->destination_port)
		return DROP_SCTP_PORT; /* its CRC covers the port */
	value = &memory->value;
	__builtin_memset(value, 0, sizeof(*value));
	value->address = backend->address;
	value->port = backend->port;
	value->source_port = flow->source_port;
	value->backend = slot;
	value->service = service;
	value->last_seen = nat_now();
	value->state = flow->protocol == IPPROTO_TCP ? nat_learned(tcp_flags, true) : 0;
	reason = choose_way(flow, info && info->forwarding == LB_FORWARD_DSR && !(tcp_flags & NORTH_NO_ROOM), value);
	if (reason)
		return reason;
	north_set(north, flow, value, tcp_flags);
	north->carry = value->way == NAT_DSR; /* whatever the flow begins with here */
	if (value->way == NAT_TUNNEL || value->way == NAT_DIRECT) {
		reason = take_port(flow, north, value, &memory->search);
		north->what = reason ? NORTH_PASS : NORTH_FORWARD;
		if (reason)
			return reason;
		north->source_port = value->source_port;
	} else if (value->way == NAT_LOCAL) {
		reason = take_answers(flow, north, value);
		if (reason) {
			north->what = NORTH_PASS;
			return reason;
		}
	}
	return nat_store(flow, NAT_FORWARD, value, BPF_ANY) ? FORWARDED : DROP_NAT_NOT_STORED;
}

/* By itself: its keys need not lie on the stack while a backend is chosen. */
VERIFIED_ALONE __u32 find_outside_service(const struct flow *flow)
{
	if (!flow)
		return 0;
	return lb_find_service(flow->family, &flow->destination, flow->destination_port, flow->protocol, LB_SCOPE_EXTERNAL);
}

/*
 * Is there still a service with this number? Of a known flow that is asked instead of a search for its frontend. What begins anew does
 * search, so a number that has come to mean another service misleads nobody.
 */
static __always_inline bool stands(__u32 service)
{
	return service && lb_committed(service).flags & LB_SERVICE_PRESENT;
}

/* What is to be done with a packet of a known flow. Returns the service in which the packet begins a flow; 0 = it begins none. */
VERIFIED_ALONE __u32 north_known(const struct flow *flow, __u32 tcp_flags, struct north *north)
{
	__u32 now = nat_now(), service;
	struct nat_value *value;

	if (!flow || !north)
		return 0;
	north->what = NORTH_PASS;
	value = nat_lookup(flow, NAT_FORWARD, now);
	if (!value)
		return find_outside_service(flow);
	if (!stands(value->service)) {
		service = find_outside_service(flow);
		if (!service)
			return 0;
		value->service = service;
	}
	if (!north_stays(flow, value->service, tcp_flags, value, now))
		return find_outside_service(flow);
	north_set(north, flow, value, tcp_flags);
	if (nat_touch(value, flow->protocol == IPPROTO_TCP ? nat_learned(tcp_flags, true) : 0, now))
		tell_reverse(flow, north, value);
	return 0;
}

/* A packet that arrives on the uplink: FORWARDED with north->what, or why it is dropped. says: of north_says. */
static __always_inline int north_arrives(const struct flow *flow, __u32 says, struct north *north)
{
	__u32 service = north_known(flow, says, north);

	/* Not from within: the choice of a backend needs the stack. */
	return service ? north_begin(flow, service, says, north) : FORWARDED;
}

#endif
