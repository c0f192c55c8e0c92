// SPDX-License-Identifier: GPL-2.0
/*
 * The uplink, both ways. uplink_in: what arrives there and is the mesh's (VXLAN frames, which are unwrapped here; packets from
 * outside to services, which are translated and sent on; packets to pods); everything else goes on to the stack as it came.
 * uplink_out: answers of this node's own processes that serve as backends.
 */
#include "lib/arrive.h"

#define ECN_CONGESTED 3

/* Takes the outer header off. FORWARDED with packet being the inner one, or a reason. */
VERIFIED_ALONE int unwrap(struct __sk_buff *skb, struct packet *packet, const struct vxlan_frame *header)
{
	__u64 flags = BPF_F_ADJ_ROOM_FIXED_GSO;
	__u32 identity, interface;
	__u8 family, congestion;
	struct ethhdr *eth;
	__be16 protocol;
	bool v6;

	if (!packet || !header)
		return DROP_TUNNEL_HEADER;
	protocol = header->eth.h_proto;
	v6 = protocol == bpf_htons(ETH_P_IPV6);
	identity = bpf_ntohl(header->vxlan.vni) >> 8;
	interface = packet->interface;
	family = packet->flow.family;
	congestion = traffic_class(skb, family) & 3;
	if (header->vxlan.flags != bpf_htonl(VXLAN_FLAGS) || header->vxlan.vni & bpf_htonl(0xff))
		return DROP_TUNNEL_HEADER;
	if (!v6 && protocol != bpf_htons(ETH_P_IP))
		return DROP_TUNNEL_HEADER;
	if (v6 != (family == MESH_FAMILY_IPV6))
		flags |= v6 ? BPF_F_ADJ_ROOM_DECAP_L3_IPV6 : BPF_F_ADJ_ROOM_DECAP_L3_IPV4;
	if (bpf_skb_adjust_room(skb, -(int)(packet->l4 - ETH_HLEN + sizeof(*header)), BPF_ADJ_ROOM_MAC, flags))
		return DROP_TUNNEL_HEADER;
	eth = frame_start(skb, ETH_HLEN);
	if (!eth)
		return DROP_TUNNEL_HEADER;
	eth->h_proto = protocol;
	*packet = (struct packet){ .interface = interface, .identity = identity };
	if (v6 ? !parse_ipv6(skb, packet) : !parse_ipv4(skb, packet))
		return DROP_TUNNEL_HEADER;
	if (congestion == ECN_CONGESTED && !bpf_skb_ecn_set_ce(skb))
		return DROP_CONGESTION_MARK;
	return FORWARDED;
}

/* A VXLAN frame to us. What has a checksum is left to the device, which verifies it. */
VERIFIED_ALONE int from_tunnel(struct __sk_buff *skb, struct packet *packet)
{
	struct vxlan_frame header;
	struct mesh_addr sender;
	enum drop_reason reason;
	__u8 family;

	if (!packet)
		return TC_ACT_UNSPEC;
	if (packet->l4 + sizeof(header) > ETH_HLEN + packet->length ||
	    bpf_skb_load_bytes(skb, packet->l4, &header, sizeof(header)))
		return drop(skb, DROP_TUNNEL_HEADER, COUNTER_INGRESS);
	if (header.udp.check)
		return TC_ACT_UNSPEC;
	sender = packet->flow.source;
	family = packet->flow.family;
	reason = unwrap(skb, packet, &header);
	return reason ? drop(skb, reason, COUNTER_INGRESS) : arrive_from(skb, packet, family, &sender);
}

/* A client's packet into the tunnel. */
VERIFIED_ALONE int into_tunnel(struct __sk_buff *skb, struct packet *packet)
{
	struct north_scratch *memory = scratch();
	__u32 index = memory ? memory->north.node : 0;
	struct node *node = bpf_map_lookup_elem(&nodes, &index);
	struct north *north;
	enum drop_reason reason;
	__u32 option;

	if (!packet || !memory || !node || READ_ONCE(node->family) == MESH_FAMILY_NONE)
		return drop(skb, DROP_NO_TUNNEL, COUNTER_INGRESS);
	if (READ_ONCE(node->state) == NODE_DOWN)
		return drop(skb, DROP_NODE_DOWN, COUNTER_INGRESS);
	if (!fits_tunnel(skb, packet))
		return refuse_too_big(skb, packet);
	north = &memory->north;
	option = packet->flow.family == MESH_FAMILY_IPV4 ? sizeof(struct dsr_option4) : sizeof(struct dsr_option6);
	/* A datagram with no room for the option goes without: an earlier one has told the backend's node. */
	if (north->carry && packet->fragment == FRAGMENT_NONE && packet->length + option <= config.pod_mtu &&
	    !put_virtual_address(skb, packet))
		return drop(skb, DROP_DSR_NOT_APPLIED, COUNTER_INGRESS);
	reason = apply_north(skb, packet, north);
	if (reason)
		return drop(skb, reason, COUNTER_INGRESS);
	return wrap(skb, packet, node, index, IDENTITY_WORLD, COUNTER_INGRESS);
}

/* Must the stack see what comes to a pod by the pod's own address, lest it takes the answers for something new and masquerades them? */
static __always_inline bool is_for_stack(const struct packet *packet)
{
	return config.flags & (packet->flow.family == MESH_FAMILY_IPV6 ? CONFIG_MASQUERADES_IPV6 : CONFIG_MASQUERADES_IPV4);
}

/* To a pod of this node, without the stack. */
static __always_inline int to_pod(struct __sk_buff *skb, struct packet *packet)
{
	struct endpoint *endpoint = endpoint_lookup(packet->flow.family, &packet->flow.destination);

	if (!endpoint || endpoint->flags & ENDPOINT_HOST)
		return TC_ACT_UNSPEC;
	if (fragment_overlaps(packet))
		return drop(skb, DROP_FRAGMENT_OVERLAP, COUNTER_INGRESS);
	return deliver(skb, packet, endpoint, COUNTER_INGRESS);
}

/* Does what has been decided. Apart from the decision, which needs the stack for itself. */
VERIFIED_ALONE int do_north(struct __sk_buff *skb, struct packet *packet)
{
	struct north_scratch *memory = scratch();
	enum drop_reason reason;
	struct north *north;

	if (!packet || !memory)
		return TC_ACT_UNSPEC;
	north = &memory->north;
	if (north->what == NORTH_PASS)
		return is_for_stack(packet) ? TC_ACT_UNSPEC : to_pod(skb, packet);
	if (fragment_overlaps(packet))
		return drop(skb, DROP_FRAGMENT_OVERLAP, COUNTER_INGRESS);
	if (north->what == NORTH_ANSWER)
		return answer_client(skb, packet, north, COUNTER_INGRESS);
	if (north->way == NAT_TUNNEL || north->way == NAT_DSR)
		return into_tunnel(skb, packet);
	reason = apply_north(skb, packet, north);
	if (reason)
		return drop(skb, reason, COUNTER_INGRESS);
	return north->way == NAT_DIRECT ? send_on(skb, packet, COUNTER_INGRESS) : to_pod(skb, packet);
}

static __always_inline int from_outside(struct __sk_buff *skb, struct packet *packet)
{
	struct north_scratch *memory = scratch();
	enum drop_reason reason;
	struct north *north;

	if (!memory)
		return TC_ACT_UNSPEC;
	north = &memory->north;
	if (packet->fragment == FRAGMENT_LATER)
		fragment_recall(packet);
	north->what = NORTH_PASS;
	if (is_icmp(packet)) {
		int verdict =
			is_own_address(&packet->flow, false) ? error_to_client(skb, packet, COUNTER_INGRESS) : TC_ACT_UNSPEC;

		if (verdict != TC_ACT_UNSPEC)
			return verdict;
		verdict = turn_clients_error(skb, packet);
		if (verdict > FORWARDED)
			return drop(skb, verdict, COUNTER_INGRESS);
	}
	if (packet->ports_known && !(is_own(&packet->flow, false) && north_answer(&packet->flow, packet->tcp_flags, north) &&
				     north->way == NAT_DIRECT)) {
		reason = north_arrives(&packet->flow,
				       north_says(&packet->flow, packet->tcp_flags, packet->length, packet->fragment), north);
		if (reason)
			return drop(skb, reason, COUNTER_INGRESS);
	}
	return do_north(skb, packet);
}

static __always_inline bool parse(struct __sk_buff *skb, struct packet *packet)
{
	if (skb->protocol == bpf_htons(ETH_P_IP))
		return parse_ipv4(skb, packet);
	return skb->protocol == bpf_htons(ETH_P_IPV6) && parse_ipv6(skb, packet);
}

SEC("tc")
int uplink_in(struct __sk_buff *skb)
{
	struct packet packet = { .interface = skb->ifindex };

	if (skb->pkt_type || skb->vlan_present || !parse(skb, &packet))
		return TC_ACT_UNSPEC;
	if (packet.fragment == FRAGMENT_NONE && is_for_tunnel(&packet.flow))
		return config.flags & CONFIG_BUILT_HEADERS ? from_tunnel(skb, &packet) : TC_ACT_UNSPEC;
	return from_outside(skb, &packet);
}

/* A process of this node answers as a backend: the client knows another address and port. */
SEC("tc")
int uplink_out(struct __sk_buff *skb)
{
	struct packet packet = { .interface = skb->ifindex };
	struct north_scratch *memory = scratch();
	enum drop_reason reason;

	if (!memory || skb->vlan_present || !parse(skb, &packet) || packet.flow.destination_port == bpf_htons(config.tunnel_port))
		return TC_ACT_UNSPEC;
	if (packet.fragment == FRAGMENT_LATER)
		fragment_recall(&packet);
	if (is_icmp(&packet)) {
		int turned = turn_north_error(skb, &packet);

		if (turned == NOT_TURNED)
			return TC_ACT_UNSPEC;
		return turned ? drop(skb, turned, COUNTER_EGRESS) : forward(skb, COUNTER_EGRESS, TC_ACT_UNSPEC);
	}
	if (!packet.ports_known || !north_answer(&packet.flow, packet.tcp_flags, &memory->north) ||
	    memory->north.way != NAT_LOCAL)
		return TC_ACT_UNSPEC;
	reason = apply_north(skb, &packet, &memory->north);
	if (reason)
		return drop(skb, reason, COUNTER_EGRESS);
	return forward(skb, COUNTER_EGRESS, TC_ACT_UNSPEC);
}

char LICENSE[] SEC("license") = "GPL";
