/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Taking a frame from one hand to the other in XDP: plain TCP and UDP only, and only what is known to succeed. Everything
 * else (options, fragments, too big, no next hop) is passed up unchanged, where uplink_in does the same with the kernel's help.
 * All offsets are constants, so each function below is made once for each combination of families that it is called with.
 */
#ifndef MESH_LIB_XDP_H
#define MESH_LIB_XDP_H

#include "metrics.h"
#include "north.h"
#include "vxlan.h"

#define FAMILY_INET 2
#define FAMILY_INET6 10
/* What is put before an inner frame: Ethernet, IP, UDP and VXLAN headers. */
#define OUTER4 (ETH_HLEN + sizeof(struct iphdr) + sizeof(struct udphdr) + sizeof(struct vxlan_header))
#define OUTER6 (ETH_HLEN + sizeof(struct ipv6hdr) + sizeof(struct udphdr) + sizeof(struct vxlan_header))

static __always_inline void *xdp_at(struct xdp_md *ctx, const __u32 offset, const __u32 bytes)
{
	void *start = (void *)(long)ctx->data + offset;

	return start + bytes <= (void *)(long)ctx->data_end ? start : NULL;
}

static __always_inline __u32 xdp_length(struct xdp_md *ctx)
{
	long start = ctx->data, end = ctx->data_end;

	/* In 64 bits: the verifier knows half a packet pointer as nothing. */
	asm volatile("%0 -= %1" : "+r"(end) : "r"(start));
	return end;
}

/* Ports at this offset, as event_transport. */
static __always_inline void xdp_event_ports(struct xdp_md *ctx, struct event *event, __u32 at)
{
	__be16 ports[2];

	if ((event->flow.protocol != IPPROTO_TCP && event->flow.protocol != IPPROTO_UDP) ||
	    bpf_xdp_load_bytes(ctx, at, ports, sizeof(ports)))
		return;
	event->flow.source_port = ports[0];
	event->flow.destination_port = ports[1];
}

/* As tell, of a frame on the uplink: of one from the tunnel the outer headers, by which it is judged here. */
VERIFIED_ALONE int xdp_tell(struct xdp_md *ctx, __u32 reason)
{
	struct event *event = event_begin(reason, COUNTER_INGRESS);
	struct ipv6hdr ip6;
	struct iphdr ip;

	if (!event)
		return 0;
	event->length = xdp_length(ctx);
	event->interface = ctx->ingress_ifindex;
	if (!bpf_xdp_load_bytes(ctx, ETH_HLEN, &ip, sizeof(ip)) && ip.version == 4) {
		event->flow.family = MESH_FAMILY_IPV4;
		event->flow.protocol = ip.protocol;
		event->flow.source.v4 = ip.saddr;
		event->flow.destination.v4 = ip.daddr;
		if (!(bpf_ntohs(ip.frag_off) & IPV4_FRAGMENT_OFFSET))
			xdp_event_ports(ctx, event, ETH_HLEN + ip.ihl * 4);
	} else if (!bpf_xdp_load_bytes(ctx, ETH_HLEN, &ip6, sizeof(ip6)) && ip6.version == 6) {
		event->flow.family = MESH_FAMILY_IPV6;
		event->flow.protocol = ip6.nexthdr;
		__builtin_memcpy(&event->flow.source, &ip6.saddr, 16);
		__builtin_memcpy(&event->flow.destination, &ip6.daddr, 16);
		xdp_event_ports(ctx, event, ETH_HLEN + sizeof(ip6));
	}
	event_end(event);
	return 0;
}

static __always_inline void xdp_count(struct xdp_md *ctx, enum drop_reason reason)
{
	count(reason, COUNTER_INGRESS, xdp_length(ctx));
	if (is_observed())
		xdp_tell(ctx, reason);
}

static __always_inline int xdp_drop(struct xdp_md *ctx, enum drop_reason reason)
{
	xdp_count(ctx, reason);
	return XDP_DROP;
}

/* Ports and flags of TCP or UDP at this offset. False for other protocols and for headers that are not whole. */
static __always_inline bool xdp_transport(struct xdp_md *ctx, const __u32 at, __u32 bytes, struct frame *frame)
{
	if (frame->flow.protocol == IPPROTO_TCP) {
		struct tcphdr *tcp = xdp_at(ctx, at, sizeof(*tcp));

		if (!tcp || tcp->doff < 5 || tcp->doff * 4u > bytes)
			return false;
		frame->flow.source_port = tcp->source;
		frame->flow.destination_port = tcp->dest;
		frame->tcp_flags = ((__u8 *)tcp)[13];
		return true;
	}
	if (frame->flow.protocol == IPPROTO_UDP) {
		struct udphdr *udp = xdp_at(ctx, at, sizeof(*udp));

		if (!udp || bytes < sizeof(*udp))
			return false;
		frame->flow.source_port = udp->source;
		frame->flow.destination_port = udp->dest;
		return true;
	}
	return false;
}

static __always_inline bool xdp_parse4(struct xdp_md *ctx, const __u32 at, struct frame *frame)
{
	struct iphdr *ip = xdp_at(ctx, at, sizeof(*ip));

	if (!ip || *(__u8 *)ip != 0x45 || ip->frag_off & bpf_htons(IPV4_MORE_FRAGMENTS | IPV4_FRAGMENT_OFFSET))
		return false;
	frame->length = bpf_ntohs(ip->tot_len);
	if (frame->length < sizeof(*ip) || at + frame->length > xdp_length(ctx))
		return false;
	frame->ttl = ip->ttl;
	frame->traffic_class = ip->tos;
	frame->flow.family = MESH_FAMILY_IPV4;
	frame->flow.protocol = ip->protocol;
	frame->flow.source.v4 = ip->saddr;
	frame->flow.destination.v4 = ip->daddr;
	return xdp_transport(ctx, at + sizeof(*ip), frame->length - sizeof(*ip), frame);
}

static __always_inline bool xdp_parse6(struct xdp_md *ctx, const __u32 at, struct frame *frame)
{
	struct ipv6hdr *ip = xdp_at(ctx, at, sizeof(*ip));

	if (!ip || ip->version != 6)
		return false;
	frame->length = sizeof(*ip) + bpf_ntohs(ip->payload_len);
	if (at + frame->length > xdp_length(ctx))
		return false;
	frame->ttl = ip->hop_limit;
	frame->traffic_class = ip->priority << 4 | ip->flow_lbl[0] >> 4;
	frame->flow.family = MESH_FAMILY_IPV6;
	frame->flow.protocol = ip->nexthdr;
	__builtin_memcpy(&frame->flow.source, &ip->saddr, 16);
	__builtin_memcpy(&frame->flow.destination, &ip->daddr, 16);
	return xdp_transport(ctx, at + sizeof(*ip), frame->length - sizeof(*ip), frame);
}

static __always_inline __u32 sum_added(__u32 sum, __u32 word)
{
	return sum + (word & 0xffff) + (word >> 16);
}

/* One's complement sum of what changes when these words change. */
static __always_inline __u32 sum_changed(__u32 sum, __u32 from, __u32 to)
{
	return sum + (~from & 0xffff) + (~from >> 16) + (to & 0xffff) + (to >> 16);
}

/* Puts an IPv6 address into a packet, word by word: all at once would take more registers than there are. */
static __always_inline __u32 sum_address_put(__u32 sum, __u32 *place, const struct mesh_addr *address)
{
#pragma unroll
	for (int i = 0; i < 4; i++) {
		__u32 word = address->v6[i];

		sum = sum_changed(sum, place[i], word);
		place[i] = word;
		asm volatile("" : "+r"(sum) : : "memory");
	}
	return sum;
}

static __always_inline __u16 sum_folded(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

/*
 * Is the checksum of the packet's transport header still to be finished by a device? Senders on the same machine leave it so (the
 * field then holds the sum of the pseudo header alone), and XDP is not told. A finished one looks so once in 65536 packets: they
 * take the way through the stack too.
 */
static __always_inline bool xdp_is_unfinished(struct xdp_md *ctx, const __u32 at, const __u8 family, const struct frame *frame)
{
	const __u32 header = family == MESH_FAMILY_IPV4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr);
	const __u32 words = family == MESH_FAMILY_IPV4 ? 1 : 4;
	__u32 sum = bpf_htons(frame->length - header) + bpf_htons(frame->flow.protocol);
	__be16 *check;

	check = xdp_at(ctx,
		       at + header +
			       (frame->flow.protocol == IPPROTO_TCP ? offsetof(struct tcphdr, check) :
								      offsetof(struct udphdr, check)),
		       sizeof(*check));
#pragma unroll
	for (__u32 i = 0; i < words; i++) {
		sum = sum_added(sum, frame->flow.source.v6[i]);
		sum = sum_added(sum, frame->flow.destination.v6[i]);
	}
	return check && *check && *check == sum_folded(sum);
}

/* Ports, and the checksum that covers them and the addresses; sum is what the addresses change. */
static __always_inline bool xdp_rewrite_transport(struct xdp_md *ctx, const __u32 at, __u8 protocol, const struct north *to,
						  __u32 sum)
{
	struct udphdr *udp = xdp_at(ctx, at, sizeof(*udp)); /* TCP has its ports in the same place */
	__be16 *check;

	if (!udp)
		return false;
	if (protocol == IPPROTO_TCP) {
		struct tcphdr *tcp = xdp_at(ctx, at, sizeof(*tcp));

		if (!tcp)
			return false;
		check = &tcp->check;
	} else {
		check = &udp->check;
	}
	sum = sum_changed(sum, udp->source, to->source_port);
	sum = sum_changed(sum, udp->dest, to->destination_port);
	udp->source = to->source_port;
	udp->dest = to->destination_port;
	if (protocol == IPPROTO_TCP || *check) {
		__u16 result = ~sum_folded((__u16) ~*check + sum);

		*check = protocol == IPPROTO_UDP && !result ? 0xffff : result;
	}
	return true;
}

/*
 * Addresses, ports and checksums of the packet whose IP header is at this offset, with so many bytes of options behind it.
 * hops: taken off its time to live.
 */
static __always_inline bool xdp_rewrite(struct xdp_md *ctx, const __u32 at, const __u32 options, const __u8 family, __u8 protocol,
					const struct north *to, const __u8 hops)
{
	__u32 sum = 0;

	if (family == MESH_FAMILY_IPV4) {
		struct iphdr *ip = xdp_at(ctx, at, sizeof(*ip));
		__u32 header;

		if (!ip)
			return false;
		sum = sum_changed(sum, ip->saddr, to->source.v4);
		sum = sum_changed(sum, ip->daddr, to->destination.v4);
		ip->saddr = to->source.v4;
		ip->daddr = to->destination.v4;
		header = (__u16)~ip->check + sum;
		if (hops) {
			header += (__u16)~bpf_htons(0x0100);
			ip->ttl -= 1;
		}
		ip->check = ~sum_folded(header);
		return xdp_rewrite_transport(ctx, at + sizeof(*ip) + options, protocol, to, sum);
	} else {
		struct ipv6hdr *ip = xdp_at(ctx, at, sizeof(*ip));

		if (!ip)
			return false;
		sum = sum_address_put(sum, ip->saddr.in6_u.u6_addr32, &to->source);
		sum = sum_address_put(sum, ip->daddr.in6_u.u6_addr32, &to->destination);
		ip->hop_limit -= hops;
		return xdp_rewrite_transport(ctx, at + sizeof(*ip) + options, protocol, to, sum);
	}
}

/* The way to an address as the node's routes and neighbours have it now, in memory->hop. False: the stack must find it. */
VERIFIED_ALONE int xdp_find_route(struct xdp_md *ctx, __u32 family, const struct mesh_addr *source,
				  const struct mesh_addr *destination, __u32 length)
{
	struct north_scratch *memory = scratch();
	struct bpf_fib_lookup *route;
	struct next_hop *hop;

	if (!source || !destination || !memory)
		return false;
	hop = &memory->hop;
	route = &memory->route;
	__builtin_memset(route, 0, sizeof(*route));
	route->ifindex = ctx->ingress_ifindex;
	route->tot_len = length;
	if (family == MESH_FAMILY_IPV4) {
		route->family = FAMILY_INET;
		route->ipv4_src = source->v4;
		route->ipv4_dst = destination->v4;
	} else {
		route->family = FAMILY_INET6;
		__builtin_memcpy(route->ipv6_src, source, 16);
		__builtin_memcpy(route->ipv6_dst, destination, 16);
	}
	if (bpf_fib_lookup(ctx, route, sizeof(*route), 0) != BPF_FIB_LKUP_RET_SUCCESS)
		return false;
	__builtin_memcpy(hop->destination, route->dmac, ETH_ALEN);
	__builtin_memcpy(hop->source, route->smac, ETH_ALEN);
	hop->interface = route->ifindex;
	return true;
}

static __always_inline int xdp_send(struct xdp_md *ctx, __u32 interface)
{
	xdp_count(ctx, FORWARDED);
	return interface == ctx->ingress_ifindex && !(config.flags & CONFIG_SEND_BY_REDIRECT) ? XDP_TX :
												bpf_redirect(interface, 0);
}

/* The frame's Ethernet header, anew. */
static __always_inline bool xdp_set_macs(struct xdp_md *ctx, const struct next_hop *hop, __be16 protocol)
{
	struct ethhdr *eth = xdp_at(ctx, 0, sizeof(*eth));

	if (!eth)
		return false;
	__builtin_memcpy(eth->h_dest, hop->destination, ETH_ALEN);
	__builtin_memcpy(eth->h_source, hop->source, ETH_ALEN);
	eth->h_proto = protocol;
	return true;
}

static __always_inline bool xdp_write_vxlan(struct xdp_md *ctx, const __u32 at, __u32 payload, __u32 hash)
{
	struct udphdr *udp = xdp_at(ctx, at, sizeof(struct udphdr) + sizeof(struct vxlan_header));
	struct vxlan_header *vxlan = (void *)(udp + 1);

	if (!udp)
		return false;
	udp->source = outer_source_port(hash);
	udp->dest = bpf_htons(config.tunnel_port);
	udp->len = bpf_htons(payload);
	udp->check = 0;
	vxlan->flags = bpf_htonl(VXLAN_FLAGS);
	vxlan->vni = bpf_htonl(IDENTITY_WORLD << 8);
	return true;
}

/* The headers in front of an inner frame that has been moved behind them. payload: UDP header, VXLAN header and inner frame. */
static __always_inline bool xdp_write_outer4(struct xdp_md *ctx, const struct node *node, const struct next_hop *hop,
					     __u32 payload, __u32 hash, __u8 traffic_class)
{
	struct iphdr *ip = xdp_at(ctx, ETH_HLEN, sizeof(*ip));
	__u32 sum = 0;

	if (!ip || !xdp_set_macs(ctx, hop, bpf_htons(ETH_P_IP)))
		return false;
	*(__u8 *)ip = 0x45;
	ip->tos = outer_congestion(traffic_class);
	ip->tot_len = bpf_htons(sizeof(*ip) + payload);
	ip->id = 0;
	ip->frag_off = bpf_htons(IPV4_DONT_FRAGMENT);
	ip->ttl = TUNNEL_TTL;
	ip->protocol = IPPROTO_UDP;
	ip->check = 0;
	ip->saddr = config.underlay.v4;
	ip->daddr = node->tunnel_endpoint.v4;
#pragma unroll
	for (int i = 0; i < 5; i++)
		sum = sum_added(sum, ((__u32 *)ip)[i]);
	ip->check = ~sum_folded(sum);
	return xdp_write_vxlan(ctx, ETH_HLEN + sizeof(*ip), payload, hash);
}

static __always_inline bool xdp_write_outer6(struct xdp_md *ctx, const struct node *node, const struct next_hop *hop,
					     __u32 payload, __u32 hash, __u8 traffic_class)
{
	struct ipv6hdr *ip = xdp_at(ctx, ETH_HLEN, sizeof(*ip));

	if (!ip || !xdp_set_macs(ctx, hop, bpf_htons(ETH_P_IPV6)))
		return false;
	*(__be32 *)ip = bpf_htonl(6 << 28 | outer_congestion(traffic_class) << 20);
	ip->payload_len = bpf_htons(payload);
	ip->nexthdr = IPPROTO_UDP;
	ip->hop_limit = TUNNEL_TTL;
#pragma unroll
	for (int i = 0; i < 4; i++) {
		ip->saddr.in6_u.u6_addr32[i] = config.underlay.v6[i];
		ip->daddr.in6_u.u6_addr32[i] = node->tunnel_endpoint.v6[i];
	}
	return xdp_write_vxlan(ctx, ETH_HLEN + sizeof(*ip), payload, hash);
}

/* The inner Ethernet header: between the gateways of two nodes, as packets of the pods have it. */
static __always_inline bool xdp_write_inner_eth(struct xdp_md *ctx, const __u32 at, __be16 protocol)
{
	struct ethhdr *eth = xdp_at(ctx, at, sizeof(*eth));

	if (!eth)
		return false;
	for (int i = 0; i < ETH_ALEN; i++)
		eth->h_dest[i] = eth->h_source[i] = config.gateway_mac[i];
	eth->h_proto = protocol;
	return true;
}

/* Makes room for the option behind the fixed IP header, which moves to the front by as much. at: of the IP header, after. */
static __always_inline bool xdp_carry4(struct xdp_md *ctx, const __u32 at, const struct flow *flow)
{
	const __u32 more = sizeof(struct dsr_option4);
	struct {
		struct iphdr ip;
		struct dsr_option4 option;
	} *start = xdp_at(ctx, at, sizeof(*start));
	struct iphdr *before = xdp_at(ctx, at + more, sizeof(*before)), ip;
	__u32 sum = 0;

	if (!start || !before)
		return false;
	ip = *before;
	start->ip = ip;
	start->option.type = DSR_OPTION4;
	start->option.length = more;
	start->option.port = flow->destination_port;
	start->option.address = flow->destination.v4;
	start->ip.ihl = (sizeof(start->ip) + more) / 4;
	start->ip.tot_len = bpf_htons(bpf_ntohs(start->ip.tot_len) + more);
	start->ip.check = 0;
#pragma unroll
	for (int i = 0; i < 7; i++)
		sum = sum_added(sum, ((__u32 *)start)[i]);
	start->ip.check = ~sum_folded(sum);
	return true;
}

static __always_inline bool xdp_carry6(struct xdp_md *ctx, const __u32 at, const struct flow *flow)
{
	const __u32 more = sizeof(struct dsr_option6);
	struct {
		struct ipv6hdr ip;
		struct dsr_option6 option;
	} *start = xdp_at(ctx, at, sizeof(*start));
	struct ipv6hdr *before = xdp_at(ctx, at + more, sizeof(*before)), ip;

	if (!start || !before)
		return false;
	ip = *before;
	ip.payload_len = bpf_htons(bpf_ntohs(ip.payload_len) + more);
	ip.nexthdr = IPV6_DESTINATION_OPTIONS;
	start->ip = ip;
	start->option.next_header = flow->protocol;
	start->option.header_length = more / 8 - 1;
	start->option.type = DSR_OPTION6;
	start->option.length = more - 4;
	__builtin_memcpy(start->option.address, &flow->destination, 16);
	start->option.port = flow->destination_port;
	start->option.pad = 0;
	return true;
}

#endif
