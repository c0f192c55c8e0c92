/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Into the tunnel. The VNI is the sender's identity. Where the agent has resolved the next hop, the outer headers are written here
 * and the frame goes straight to the uplink; else, and for what must be cut into fragments, the VXLAN device writes them from the
 * key set here. The frames are the same either way but for the IPv4 identification, which a packet that is never cut does not need.
 */
#ifndef MESH_LIB_ENCAP_H
#define MESH_LIB_ENCAP_H

#include "icmp.h"
#include "metrics.h"
#include "node.h"
#include "policy.h"
#include "translate.h"
#include "vxlan.h"

#define IDENTITY_BITS_MASK 0xffffff

/* Would the packet, or each segment of it, fit the tunnel once the device has added the outer header? */
static __always_inline bool fits_tunnel(const struct __sk_buff *skb, const struct packet *packet)
{
	__u32 length = skb->gso_size ? packet->segment_headers + skb->gso_size : packet->length;

	return !config.pod_mtu || length <= config.pod_mtu || !packet->dont_fragment;
}

static __always_inline __u32 identity_on_the_wire(__u32 identity)
{
	if (identity & IDENTITY_SCOPED)
		return IDENTITY_WORLD;
	return identity == IDENTITY_HOST ? IDENTITY_REMOTE_NODE : identity;
}

/* Can the outer packet do without being cut? */
static __always_inline bool is_whole(const struct __sk_buff *skb, const struct packet *packet)
{
	__u32 length = skb->gso_size ? packet->segment_headers + skb->gso_size : packet->length;

	return !config.pod_mtu || length <= config.pod_mtu;
}

static __always_inline __u8 traffic_class(struct __sk_buff *skb, __u8 family)
{
	__u8 bytes[2] = {};

	bpf_skb_load_bytes(skb, ETH_HLEN, bytes, sizeof(bytes));
	return family == MESH_FAMILY_IPV4 ? bytes[1] : bytes[0] << 4 | bytes[1] >> 4;
}

static __always_inline bool write_vxlan(struct __sk_buff *skb, __u32 at, const struct ethhdr *inner, __u32 payload, __be16 port,
					__u32 identity)
{
	struct vxlan_frame frame = {
		.udp = { .source = port, .dest = bpf_htons(config.tunnel_port), .len = bpf_htons(payload) },
		.vxlan = { .flags = bpf_htonl(VXLAN_FLAGS), .vni = bpf_htonl(identity << 8) },
		.eth = *inner,
	};

	return !bpf_skb_store_bytes(skb, at, &frame, sizeof(frame), 0);
}

static __always_inline bool write_outer4(struct __sk_buff *skb, const struct node *node, __u32 payload, __u8 class)
{
	struct iphdr ip = {
		.version = 4,
		.ihl = 5,
		.tos = outer_congestion(class),
		.tot_len = bpf_htons(sizeof(ip) + payload),
		.frag_off = bpf_htons(IPV4_DONT_FRAGMENT),
		.ttl = TUNNEL_TTL,
		.protocol = IPPROTO_UDP,
		.saddr = config.underlay.v4,
		.daddr = node->tunnel_endpoint.v4,
	};

	ip.check = fold(bpf_csum_diff(NULL, 0, (__be32 *)&ip, sizeof(ip), 0));
	return !bpf_skb_store_bytes(skb, ETH_HLEN, &ip, sizeof(ip), 0);
}

static __always_inline bool write_outer6(struct __sk_buff *skb, const struct node *node, __u32 payload, __u8 class)
{
	struct ipv6hdr ip = { .payload_len = bpf_htons(payload), .nexthdr = IPPROTO_UDP, .hop_limit = TUNNEL_TTL };

	*(__be32 *)&ip = bpf_htonl(6 << 28 | outer_congestion(class) << 20);
	for (int i = 0; i < 4; i++) {
		ip.saddr.in6_u.u6_addr32[i] = config.underlay.v6[i];
		ip.daddr.in6_u.u6_addr32[i] = node->tunnel_endpoint.v6[i];
	}
	return !bpf_skb_store_bytes(skb, ETH_HLEN, &ip, sizeof(ip), 0);
}

enum built {
	NOT_BUILT, /* the packet is as it was: the device may do it */
	BUILT,
	BUILT_BADLY,
};

VERIFIED_ALONE int build_headers(struct __sk_buff *skb, const struct packet *packet, __u32 index, __u32 identity)
{
	bool v6 = config.underlay_family == MESH_FAMILY_IPV6;
	__u32 room = v6 ? ROOM6 : ROOM4, payload = skb->len + sizeof(struct udphdr) + sizeof(struct vxlan_header);
	struct node *node = bpf_map_lookup_elem(&nodes, &index);
	struct ethhdr inner, outer;
	__u64 flags;
	__be16 port;
	__u8 class;

	if (!packet || !node || !(config.flags & CONFIG_BUILT_HEADERS) || !READ_ONCE(node->interface_index) ||
	    node->family != config.underlay_family || !is_whole(skb, packet) || payload + sizeof(struct iphdr) > 0xffff ||
	    bpf_skb_load_bytes(skb, 0, &inner, sizeof(inner)))
		return NOT_BUILT;
	port = outer_source_port(bpf_get_hash_recalc(skb));
	class = traffic_class(skb, packet->flow.family);
	flags = BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_ENCAP_L4_UDP | BPF_F_ADJ_ROOM_ENCAP_L2(sizeof(inner)) |
		BPF_F_ADJ_ROOM_ENCAP_L2_ETH | (v6 ? BPF_F_ADJ_ROOM_ENCAP_L3_IPV6 : BPF_F_ADJ_ROOM_ENCAP_L3_IPV4);
	if (bpf_skb_adjust_room(skb, room, BPF_ADJ_ROOM_MAC, flags))
		return NOT_BUILT;
	__builtin_memcpy(outer.h_dest, node->next_hop_mac, ETH_ALEN);
	__builtin_memcpy(outer.h_source, node->source_mac, ETH_ALEN);
	outer.h_proto = v6 ? bpf_htons(ETH_P_IPV6) : bpf_htons(ETH_P_IP);
	if (bpf_skb_store_bytes(skb, 0, &outer, sizeof(outer), 0) ||
	    !write_vxlan(skb, ETH_HLEN + room - sizeof(struct vxlan_frame), &inner, payload, port, identity) ||
	    (v6 ? !write_outer6(skb, node, payload, class) : !write_outer4(skb, node, payload, class)))
		return BUILT_BADLY;
	return BUILT;
}

static __always_inline long set_tunnel_key(struct __sk_buff *skb, const struct packet *packet, const struct node *node,
					   __u32 identity)
{
	struct bpf_tunnel_key key = {
		.tunnel_id = identity_on_the_wire(identity),
		.tunnel_ttl = TUNNEL_TTL,
	};
	__u64 flags = BPF_F_ZERO_CSUM_TX | (is_whole(skb, packet) ? BPF_F_DONT_FRAGMENT : 0);

	if (node->family == MESH_FAMILY_IPV6) {
		flags |= BPF_F_TUNINFO_IPV6;
		__builtin_memcpy(key.remote_ipv6, &node->tunnel_endpoint, 16);
	} else {
		key.remote_ipv4 = bpf_ntohl(node->tunnel_endpoint.v4);
	}
	return bpf_skb_set_tunnel_key(skb, &key, sizeof(key), flags);
}

/* The packet as it is, to the node. */
static __always_inline int wrap(struct __sk_buff *skb, struct packet *packet, const struct node *node, __u32 index,
				__u32 identity, __u32 direction)
{
	observe(skb, FORWARDED, direction);
	switch (build_headers(skb, packet, index, identity_on_the_wire(identity))) {
	case BUILT:
		return forward_wrapped(skb, direction, bpf_redirect(READ_ONCE(node->interface_index), 0));
	case BUILT_BADLY:
		return drop(skb, DROP_ENCAPSULATION, direction);
	}
	if (!config.tunnel_interface || set_tunnel_key(skb, packet, node, identity))
		return drop(skb, DROP_ENCAPSULATION, direction);
	return forward_wrapped(skb, direction, bpf_redirect(config.tunnel_interface, 0));
}

/* To the node with this index: translate, wrap, send. */
static __always_inline int encapsulate(struct __sk_buff *skb, struct packet *packet, const struct translation *to, __u32 index,
				       __u32 identity)
{
	struct node *node = bpf_map_lookup_elem(&nodes, &index);

	if (!node || node->family == MESH_FAMILY_NONE || !config.tunnel_interface)
		return drop(skb, DROP_NO_TUNNEL, COUNTER_EGRESS);
	if (READ_ONCE(node->state) == NODE_DOWN)
		return drop(skb, DROP_NODE_DOWN, COUNTER_EGRESS);
	if (!fits_tunnel(skb, packet))
		return refuse_too_big(skb, packet);
	if (to->wanted) {
		enum drop_reason reason = apply_translation(skb, packet, to);

		if (reason)
			return drop(skb, reason, COUNTER_EGRESS);
	}
	return wrap(skb, packet, node, index, identity, COUNTER_EGRESS);
}

#endif
