/* SPDX-License-Identifier: GPL-2.0 */
/* What north.h has decided, done to an skb: into the tunnel, out to a client, or to a pod of this node. */
#ifndef MESH_LIB_UPLINK_H
#define MESH_LIB_UPLINK_H

#include "encap.h"
#include "endpoint.h"
#include "north.h"

#define FAMILY_INET 2
#define FAMILY_INET6 10

#ifndef BPF_F_ADJ_ROOM_DECAP_L3_IPV4
#define BPF_F_ADJ_ROOM_DECAP_L3_IPV4 (1ULL << 7)
#define BPF_F_ADJ_ROOM_DECAP_L3_IPV6 (1ULL << 8)
#endif

/* The device that leads to an address from the uplink's side, or 0. */
VERIFIED_ALONE int find_route(struct __sk_buff *skb, __u32 family, const struct mesh_addr *source,
			      const struct mesh_addr *destination)
{
	struct north_scratch *memory = scratch();
	struct bpf_fib_lookup *route;
	long result;

	if (!source || !destination || !memory)
		return 0;
	route = &memory->route;
	__builtin_memset(route, 0, sizeof(*route));
	route->ifindex = config.uplink_interface;
	if (family == MESH_FAMILY_IPV4) {
		route->family = FAMILY_INET;
		route->ipv4_src = source->v4;
		route->ipv4_dst = destination->v4;
	} else {
		route->family = FAMILY_INET6;
		__builtin_memcpy(route->ipv6_src, source, 16);
		__builtin_memcpy(route->ipv6_dst, destination, 16);
	}
	result = bpf_fib_lookup(skb, route, sizeof(*route), 0);
	return result == BPF_FIB_LKUP_RET_SUCCESS || result == BPF_FIB_LKUP_RET_NO_NEIGH ? route->ifindex : 0;
}

/* Out to where the addresses are now, by the node's routes and neighbours. */
static __always_inline int send_on(struct __sk_buff *skb, struct packet *packet, __u32 direction)
{
	__u32 interface = find_route(skb, packet->flow.family, &packet->flow.source, &packet->flow.destination);

	if (!interface)
		return drop(skb, DROP_NO_ROUTE, direction);
	if (packet->ttl <= 1)
		return drop(skb, DROP_TTL, direction);
	if (!decrement_ttl(skb, packet))
		return drop(skb, DROP_INVALID_PACKET, direction);
	return forward(skb, direction, bpf_redirect_neigh(interface, NULL, 0, 0));
}

static __always_inline enum drop_reason apply_north(struct __sk_buff *skb, struct packet *packet, const struct north *north)
{
	enum drop_reason reason;

	if (packet->fragment == FRAGMENT_FIRST)
		fragment_remember(packet);
	if (!same_address(&north->source, &packet->flow.source) || north->source_port != packet->flow.source_port) {
		reason = rewrite(skb, packet, REWRITE_SOURCE, &north->source, north->source_port);
		if (reason)
			return reason;
	}
	if (!same_address(&north->destination, &packet->flow.destination) ||
	    north->destination_port != packet->flow.destination_port)
		return rewrite(skb, packet, REWRITE_DESTINATION, &north->destination, north->destination_port);
	return FORWARDED;
}

/* An answer of a taken-in flow, translated back, to the client. */
static __always_inline int answer_client(struct __sk_buff *skb, struct packet *packet, const struct north *north, __u32 direction)
{
	enum drop_reason reason = apply_north(skb, packet, north);

	return reason ? drop(skb, reason, direction) : send_on(skb, packet, direction);
}

#define NOT_TURNED -1

/*
 * An ICMP error about a packet of a flow that we took in, from where its backend is: it must speak of the packet that the client
 * knows. It comes from the virtual address whoever sent it, for the network outside knows none of the mesh's other addresses. A pod
 * speaks for itself only. NOT_TURNED: about no such flow; otherwise FORWARDED or why it is dropped.
 */
VERIFIED_ALONE int turn_north_error(struct __sk_buff *skb, struct packet *packet)
{
	struct north_scratch *memory = scratch();
	struct ipcache_value *sender;
	struct quoted quoted = {};
	struct nat_value *value;

	if (!packet || !memory || !parse_quoted(skb, packet, &quoted) ||
	    !same_address(&quoted.flow.source, &packet->flow.destination))
		return NOT_TURNED;
	sender = ipcache_lookup(packet->flow.family, &packet->flow.source);
	if (sender && is_pod_identity(sender->identity) && !same_address(&quoted.flow.destination, &packet->flow.source))
		return NOT_TURNED;
	set_flow(&memory->answers, &quoted.flow, &quoted.flow.destination, quoted.flow.destination_port, &quoted.flow.source,
		 quoted.flow.source_port);
	value = nat_lookup(&memory->answers, NAT_REVERSE, nat_now());
	if (!value)
		return NOT_TURNED;
	memory->value = *value;
	if (is_north_judged(quoted.flow.protocol, &memory->value) &&
	    same_address(&quoted.flow.destination, &packet->flow.source) && is_port_unreachable(skb, packet))
		judge_unreachable(&quoted.flow, memory->value.backend);
	if (rewrite_quoted(skb, &quoted, REWRITE_SOURCE, &memory->value.address, memory->value.port) ||
	    rewrite_quoted(skb, &quoted, REWRITE_DESTINATION, &memory->value.virtual_address, memory->value.virtual_port) ||
	    rewrite(skb, packet, REWRITE_SOURCE, &memory->value.virtual_address, packet->flow.source_port) ||
	    rewrite(skb, packet, REWRITE_DESTINATION, &memory->value.address, packet->flow.destination_port))
		return DROP_ICMP_ERROR;
	return FORWARDED;
}

/* The same, and out to the client. TC_ACT_UNSPEC: it is no such error. */
static __always_inline int error_to_client(struct __sk_buff *skb, struct packet *packet, __u32 direction)
{
	int reason = turn_north_error(skb, packet);

	if (reason == NOT_TURNED)
		return TC_ACT_UNSPEC;
	return reason ? drop(skb, reason, direction) : send_on(skb, packet, direction);
}

/*
 * An ICMP error about an answer that a client got from a virtual address, of the client itself or of a router on the way to it. Only
 * here it is known whose answer that was: the error goes to the backend, by the way of the client's own packets, and speaks of the
 * answer as the backend gave it. NOT_TURNED: about no such answer; otherwise FORWARDED, with the way in north, or why it is dropped.
 */
VERIFIED_ALONE int turn_clients_error(struct __sk_buff *skb, struct packet *packet)
{
	struct north_scratch *memory = scratch();
	struct quoted quoted = {};
	struct nat_value *value;
	struct north *north;

	if (!packet || !memory || !parse_quoted(skb, packet, &quoted) ||
	    !same_address(&quoted.flow.source, &packet->flow.destination))
		return NOT_TURNED;
	set_flow(&memory->answers, &quoted.flow, &quoted.flow.destination, quoted.flow.destination_port, &quoted.flow.source,
		 quoted.flow.source_port);
	value = nat_lookup(&memory->answers, NAT_FORWARD, nat_now());
	if (!value)
		return NOT_TURNED;
	memory->value = *value;
	north = &memory->north;
	north_set(north, &memory->answers, &memory->value, 0);
	if (rewrite_quoted(skb, &quoted, REWRITE_SOURCE, &north->destination, north->destination_port) ||
	    rewrite_quoted(skb, &quoted, REWRITE_DESTINATION, &north->source, north->source_port))
		return DROP_ICMP_ERROR;
	/* The message itself has no ports, and whoever sent it, the backend's node knows us. */
	if (north->way == NAT_LOCAL || north->way == NAT_DSR)
		north->source = packet->flow.source;
	north->source_port = packet->flow.source_port;
	north->destination_port = packet->flow.destination_port;
	north->carry = 0;
	return FORWARDED;
}

/* What a pod says to a client outside that came by a virtual address leaves from there. TC_ACT_UNSPEC: it is no such answer. */
VERIFIED_ALONE int leave_as_answer(struct __sk_buff *skb, struct packet *packet)
{
	struct north_scratch *memory = scratch();

	if (!packet || !memory || !north_answer(&packet->flow, packet->tcp_flags, &memory->north))
		return TC_ACT_UNSPEC;
	return answer_client(skb, packet, &memory->north, COUNTER_EGRESS);
}

/* Corrects an IPv4 header whose options have grown or shrunk by so many bytes. */
static __always_inline bool resize_header4(struct __sk_buff *skb, __u32 before, int more)
{
	struct ethhdr *eth = frame_start(skb, ETH_HLEN + sizeof(struct iphdr));
	struct iphdr *ip = (void *)(eth + 1);
	__be16 old_start, old_length;
	__u32 sum;

	if (!eth)
		return false;
	old_start = *(__be16 *)ip;
	old_length = ip->tot_len;
	ip->ihl = (before + more) / 4;
	ip->tot_len = bpf_htons(bpf_ntohs(old_length) + more);
	sum = (__u16)~ip->check + (__u16)~old_start + *(__be16 *)ip + (__u16)~old_length + ip->tot_len;
	ip->check = fold(sum);
	return true;
}

/* Sums an option into the IPv4 header's checksum, or out of it. */
static __always_inline bool sum_option4(struct __sk_buff *skb, struct dsr_option4 *option, bool in)
{
	__s64 difference = in ? bpf_csum_diff(NULL, 0, (__be32 *)option, sizeof(*option), 0) :
				bpf_csum_diff((__be32 *)option, sizeof(*option), NULL, 0, 0);

	return !bpf_l3_csum_replace(skb, ETH_HLEN + offsetof(struct iphdr, check), 0, difference, 0);
}

/* Puts the virtual address (the packet's present destination) behind the IP header. */
VERIFIED_ALONE int put_virtual_address(struct __sk_buff *skb, struct packet *packet)
{
	__u32 start = ETH_HLEN + sizeof(struct iphdr);

	if (!packet)
		return false;
	if (packet->flow.family == MESH_FAMILY_IPV4) {
		struct dsr_option4 option = {
			.type = DSR_OPTION4,
			.length = sizeof(option),
			.port = packet->flow.destination_port,
			.address = packet->flow.destination.v4,
		};

		if (packet->l4 - ETH_HLEN > 60 - sizeof(option) ||
		    bpf_skb_adjust_room(skb, sizeof(option), BPF_ADJ_ROOM_NET, BPF_F_ADJ_ROOM_FIXED_GSO) ||
		    bpf_skb_store_bytes(skb, start, &option, sizeof(option), 0) ||
		    !resize_header4(skb, packet->l4 - ETH_HLEN, sizeof(option)) || !sum_option4(skb, &option, true))
			return false;
		packet->l4 += sizeof(option);
		packet->length += sizeof(option);
		packet->segment_headers += sizeof(option);
	} else {
		struct dsr_option6 option = {
			.header_length = sizeof(option) / 8 - 1,
			.type = DSR_OPTION6,
			.length = sizeof(option) - 4,
			.port = packet->flow.destination_port,
		};
		struct ethhdr *eth;
		struct ipv6hdr *ip;

		start = ETH_HLEN + sizeof(struct ipv6hdr);
		__builtin_memcpy(option.address, &packet->flow.destination, 16);
		if (bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct ipv6hdr, nexthdr), &option.next_header, 1) ||
		    bpf_skb_adjust_room(skb, sizeof(option), BPF_ADJ_ROOM_NET, BPF_F_ADJ_ROOM_FIXED_GSO) ||
		    bpf_skb_store_bytes(skb, start, &option, sizeof(option), 0))
			return false;
		eth = frame_start(skb, ETH_HLEN + sizeof(struct ipv6hdr));
		if (!eth)
			return false;
		ip = (void *)(eth + 1);
		ip->nexthdr = IPV6_DESTINATION_OPTIONS;
		ip->payload_len = bpf_htons(bpf_ntohs(ip->payload_len) + sizeof(option));
		packet->l4 += sizeof(option);
		packet->length += sizeof(option);
		packet->segment_headers += sizeof(option);
	}
	return true;
}

/* Remembers what the client talks to, so that its answers leave from there. */
static __always_inline enum drop_reason remember_virtual(const struct packet *packet, const struct mesh_addr *address,
							 __be16 port)
{
	struct north_scratch *memory = scratch();

	if (!memory)
		return DROP_NAT_NOT_STORED;
	memory->answers = reversed(&packet->flow);
	memory->value = (struct nat_value){
		.address = packet->flow.source,
		.virtual_address = *address,
		.port = packet->flow.source_port,
		.virtual_port = port,
		.way = NAT_DSR,
		.last_seen = nat_now(),
		.state = packet->flow.protocol == IPPROTO_TCP ? nat_learned(packet->tcp_flags, true) : 0,
	};
	return nat_store(&memory->answers, NAT_REVERSE, &memory->value, BPF_ANY) ? FORWARDED : DROP_NAT_NOT_STORED;
}

/*
 * Takes the virtual address out of a packet that another node forwards to a pod of ours. The option stays where the kernel cannot
 * take it out: pods pass over options that they do not know.
 */
VERIFIED_ALONE int take_virtual_address(struct __sk_buff *skb, struct packet *packet)
{
	struct mesh_addr address = {};
	enum drop_reason reason;

	if (!packet)
		return DROP_INVALID_PACKET;
	if (packet->fragment != FRAGMENT_NONE || !packet->ports_known)
		return FORWARDED;
	if (packet->flow.family == MESH_FAMILY_IPV4) {
		struct dsr_option4 option;

		if (packet->l4 < ETH_HLEN + sizeof(struct iphdr) + sizeof(option) ||
		    bpf_skb_load_bytes(skb, ETH_HLEN + sizeof(struct iphdr), &option, sizeof(option)) ||
		    option.type != DSR_OPTION4)
			return FORWARDED;
		if (option.length != sizeof(option))
			return DROP_DSR_NOT_APPLIED;
		address.v4 = option.address;
		reason = remember_virtual(packet, &address, option.port);
		if (reason)
			return reason;
		if (bpf_skb_adjust_room(skb, -(int)sizeof(option), BPF_ADJ_ROOM_NET, BPF_F_ADJ_ROOM_FIXED_GSO))
			return FORWARDED;
		if (!resize_header4(skb, packet->l4 - ETH_HLEN, -(int)sizeof(option)) || !sum_option4(skb, &option, false))
			return DROP_DSR_NOT_APPLIED;
		packet->l4 -= sizeof(option);
		packet->length -= sizeof(option);
		packet->segment_headers -= sizeof(option);
	} else {
		struct dsr_option6 option;
		struct ethhdr *eth = frame_start(skb, ETH_HLEN + sizeof(struct ipv6hdr));
		struct ipv6hdr *ip = (void *)(eth + 1);

		if (!eth || ip->nexthdr != IPV6_DESTINATION_OPTIONS ||
		    bpf_skb_load_bytes(skb, ETH_HLEN + sizeof(*ip), &option, sizeof(option)) || option.type != DSR_OPTION6)
			return FORWARDED;
		if (option.length != sizeof(option) - 4 || option.header_length != sizeof(option) / 8 - 1)
			return DROP_DSR_NOT_APPLIED;
		__builtin_memcpy(&address, option.address, 16);
		reason = remember_virtual(packet, &address, option.port);
		if (reason)
			return reason;
		if (bpf_skb_adjust_room(skb, -(int)sizeof(option), BPF_ADJ_ROOM_NET, BPF_F_ADJ_ROOM_FIXED_GSO))
			return FORWARDED;
		eth = frame_start(skb, ETH_HLEN + sizeof(struct ipv6hdr));
		if (!eth)
			return DROP_DSR_NOT_APPLIED;
		ip = (void *)(eth + 1);
		ip->nexthdr = option.next_header;
		ip->payload_len = bpf_htons(bpf_ntohs(ip->payload_len) - sizeof(option));
		packet->l4 -= sizeof(option);
		packet->length -= sizeof(option);
		packet->segment_headers -= sizeof(option);
	}
	return FORWARDED;
}

#endif
