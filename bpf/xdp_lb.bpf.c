// SPDX-License-Identifier: GPL-2.0
/*
 * The uplink at the earliest place: native XDP. Clients' packets to services are translated and sent on to the backend's node in
 * the tunnel without ever becoming an skb; answers that come back by the tunnel are unwrapped and sent to the client. What this
 * program does not do itself it passes up unchanged, to uplink_in, which does all of it.
 */
#include "lib/xdp.h"

/* The next hop towards a node: as the agent has resolved it, or as the kernel knows it. */
static __always_inline bool towards(struct xdp_md *ctx, const struct node *node, struct next_hop *hop)
{
	struct mesh_addr own;

	hop->interface = READ_ONCE(node->interface_index);
	if (hop->interface) {
		__builtin_memcpy(hop->destination, node->next_hop_mac, ETH_ALEN);
		__builtin_memcpy(hop->source, node->source_mac, ETH_ALEN);
		return true;
	}
	underlay_address(&own);
	return xdp_find_route(ctx, node->family, &own, &node->tunnel_endpoint, 0);
}

/* outer: bytes of the outer headers; more: of the option; both constants. */
static __always_inline int wrap(struct xdp_md *ctx, struct north_scratch *memory, const struct node *node, const __u8 family,
				const __u32 outer, const __u32 more)
{
	const __u32 at = outer + ETH_HLEN; /* of the inner IP header */
	const struct frame *frame = &memory->frame;
	__u32 payload = sizeof(struct udphdr) + sizeof(struct vxlan_header) + ETH_HLEN + frame->length + more;
	__u32 hash = flow_hash(&frame->flow);
	bool written;

	if (bpf_xdp_adjust_head(ctx, -(int)(outer + more)))
		return XDP_PASS;
	if (more) {
		written = family == MESH_FAMILY_IPV4 ? xdp_carry4(ctx, at, &frame->flow) : xdp_carry6(ctx, at, &frame->flow);
		if (!written)
			return xdp_drop(ctx, DROP_DSR_NOT_APPLIED);
	}
	written = xdp_write_inner_eth(ctx, outer, family == MESH_FAMILY_IPV4 ? bpf_htons(ETH_P_IP) : bpf_htons(ETH_P_IPV6)) &&
		  xdp_rewrite(ctx, at, more, family, frame->flow.protocol, &memory->north, 0) &&
		  (outer == OUTER4 ? xdp_write_outer4(ctx, node, &memory->hop, payload, hash, frame->traffic_class) :
				     xdp_write_outer6(ctx, node, &memory->hop, payload, hash, frame->traffic_class));
	return written ? xdp_send(ctx, memory->hop.interface) : xdp_drop(ctx, DROP_ENCAPSULATION);
}

static __always_inline int into_tunnel(struct xdp_md *ctx, const __u8 family)
{
	struct north_scratch *memory = scratch();
	const __u32 option = family == MESH_FAMILY_IPV4 ? sizeof(struct dsr_option4) : sizeof(struct dsr_option6);
	__u32 index = memory ? memory->north.node : 0, more;
	struct node *node = bpf_map_lookup_elem(&nodes, &index);

	if (!node || !memory || READ_ONCE(node->family) == MESH_FAMILY_NONE || node->family != config.underlay_family)
		return xdp_drop(ctx, DROP_NO_TUNNEL);
	if (READ_ONCE(node->state) == NODE_DOWN)
		return xdp_drop(ctx, DROP_NODE_DOWN);
	more = memory->north.carry ? option : 0;
	if ((config.pod_mtu && memory->frame.length + more > config.pod_mtu) ||
	    xdp_is_unfinished(ctx, ETH_HLEN, family, &memory->frame) || !towards(ctx, node, &memory->hop))
		return XDP_PASS;
	if (config.underlay_family == MESH_FAMILY_IPV6)
		return more ? wrap(ctx, memory, node, family, OUTER6, option) : wrap(ctx, memory, node, family, OUTER6, 0);
	return more ? wrap(ctx, memory, node, family, OUTER4, option) : wrap(ctx, memory, node, family, OUTER4, 0);
}

/* Each by itself: together they need more stack than there is. */
VERIFIED_ALONE int into_tunnel4(struct xdp_md *ctx)
{
	return into_tunnel(ctx, MESH_FAMILY_IPV4);
}

VERIFIED_ALONE int into_tunnel6(struct xdp_md *ctx)
{
	return into_tunnel(ctx, MESH_FAMILY_IPV6);
}

/* Out of one of our devices, without a tunnel. The IP header is at this offset; what is before it goes. */
static __always_inline int send_on(struct xdp_md *ctx, struct north_scratch *memory, const __u8 family, const __u32 at)
{
	__be16 protocol = family == MESH_FAMILY_IPV4 ? bpf_htons(ETH_P_IP) : bpf_htons(ETH_P_IPV6);
	const struct north *north = &memory->north;

	if (memory->frame.ttl <= 1 || xdp_is_unfinished(ctx, at, family, &memory->frame) ||
	    !xdp_find_route(ctx, family, &north->source, &north->destination, memory->frame.length))
		return XDP_PASS;
	if (at > ETH_HLEN && bpf_xdp_adjust_head(ctx, at - ETH_HLEN))
		return XDP_PASS;
	if (!xdp_rewrite(ctx, ETH_HLEN, 0, family, memory->frame.flow.protocol, north, 1) ||
	    !xdp_set_macs(ctx, &memory->hop, protocol))
		return xdp_drop(ctx, DROP_TRANSLATION);
	return xdp_send(ctx, memory->hop.interface);
}

/* To a service, or an answer that came over the underlay. */
static __always_inline int from_outside(struct xdp_md *ctx, struct north_scratch *memory, const __u8 family)
{
	struct frame *frame = &memory->frame;
	struct north *north = &memory->north;
	int reason;

	if (is_own(&frame->flow, false) && north_answer(&frame->flow, frame->tcp_flags, north) && north->way == NAT_DIRECT)
		return send_on(ctx, memory, family, ETH_HLEN);
	reason = north_arrives(&frame->flow, north_says(&frame->flow, frame->tcp_flags, frame->length, false), north);
	if (reason)
		return xdp_drop(ctx, reason);
	if (north->what == NORTH_PASS)
		return XDP_PASS;
	switch (north->way) {
	case NAT_TUNNEL:
	case NAT_DSR:
		return family == MESH_FAMILY_IPV4 ? into_tunnel4(ctx) : into_tunnel6(ctx);
	case NAT_DIRECT:
		return send_on(ctx, memory, family, ETH_HLEN);
	default:
		if (xdp_is_unfinished(ctx, ETH_HLEN, family, &memory->frame))
			return XDP_PASS;
		if (!xdp_rewrite(ctx, ETH_HLEN, 0, family, frame->flow.protocol, north, 0))
			return xdp_drop(ctx, DROP_TRANSLATION);
		return XDP_PASS;
	}
}

/* Out of the tunnel: answers to what we took in. Everything else is uplink_in's. at: of the inner Ethernet header. */
static __always_inline int from_tunnel(struct xdp_md *ctx, const __u32 at)
{
	struct north_scratch *memory = scratch();
	struct vxlan_header *vxlan = xdp_at(ctx, at - sizeof(*vxlan), sizeof(*vxlan));
	struct udphdr *udp = xdp_at(ctx, at - sizeof(*vxlan) - sizeof(*udp), sizeof(*udp));
	struct ethhdr *eth = xdp_at(ctx, at, sizeof(*eth));
	struct mesh_addr sender;
	struct frame *frame;
	__u32 identity;
	int reason;
	bool v4;

	if (!memory || !vxlan || !udp || !eth || udp->check || vxlan->flags != bpf_htonl(VXLAN_FLAGS))
		return XDP_PASS;
	identity = bpf_ntohl(vxlan->vni) >> 8;
	v4 = eth->h_proto == bpf_htons(ETH_P_IP);
	if (!v4 && eth->h_proto != bpf_htons(ETH_P_IPV6))
		return XDP_PASS;
	frame = &memory->frame;
	sender = frame->flow.source;
	*frame = (struct frame){};
	if (v4 ? !xdp_parse4(ctx, at + ETH_HLEN, frame) : !xdp_parse6(ctx, at + ETH_HLEN, frame))
		return XDP_PASS;
	if (!is_own(&frame->flow, true))
		return XDP_PASS;
	reason = sender_may(config.underlay_family, &sender, identity, &frame->flow);
	if (reason)
		return xdp_drop(ctx, reason);
	if (!north_answer(&frame->flow, frame->tcp_flags, &memory->north))
		return XDP_PASS;
	return v4 ? send_on(ctx, memory, MESH_FAMILY_IPV4, at + ETH_HLEN) : send_on(ctx, memory, MESH_FAMILY_IPV6, at + ETH_HLEN);
}

VERIFIED_ALONE int from_tunnel4(struct xdp_md *ctx)
{
	return from_tunnel(ctx, OUTER4);
}

VERIFIED_ALONE int from_tunnel6(struct xdp_md *ctx)
{
	return from_tunnel(ctx, OUTER6);
}

SEC("xdp")
int xdp_lb(struct xdp_md *ctx)
{
	struct ethhdr *eth = xdp_at(ctx, 0, sizeof(*eth));
	struct north_scratch *memory = scratch();

	if (!eth || !memory || is_to_other_station(eth, ctx->ingress_ifindex))
		return XDP_PASS;
	memory->frame = (struct frame){};
	if (eth->h_proto == bpf_htons(ETH_P_IP)) {
		if (!xdp_parse4(ctx, ETH_HLEN, &memory->frame))
			return XDP_PASS;
		if (is_for_tunnel(&memory->frame.flow))
			return from_tunnel4(ctx);
		return from_outside(ctx, memory, MESH_FAMILY_IPV4);
	}
	if (eth->h_proto == bpf_htons(ETH_P_IPV6)) {
		if (!xdp_parse6(ctx, ETH_HLEN, &memory->frame))
			return XDP_PASS;
		if (is_for_tunnel(&memory->frame.flow))
			return from_tunnel6(ctx);
		return from_outside(ctx, memory, MESH_FAMILY_IPV6);
	}
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "GPL";
