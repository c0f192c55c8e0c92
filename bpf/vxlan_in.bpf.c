// SPDX-License-Identifier: GPL-2.0
/*
 * What arrives by the tunnel device: attached to the ingress of mesh_vxlan. With headers built by our own programs only fragments
 * and packets with a UDP checksum come here; without, everything does.
 */
#include "lib/arrive.h"

struct tunnel_origin {
	struct mesh_addr address;
	__u8 family;
};

/* Reads the sender's node and its identity. */
static __always_inline bool read_tunnel_key(struct __sk_buff *skb, struct packet *packet, struct tunnel_origin *origin)
{
	struct bpf_tunnel_key key = {};

	origin->family = config.underlay_family == MESH_FAMILY_IPV6 ? MESH_FAMILY_IPV6 : MESH_FAMILY_IPV4;
	if (bpf_skb_get_tunnel_key(skb, &key, sizeof(key), origin->family == MESH_FAMILY_IPV6 ? BPF_F_TUNINFO_IPV6 : 0)) {
		origin->family = origin->family == MESH_FAMILY_IPV6 ? MESH_FAMILY_IPV4 : MESH_FAMILY_IPV6;
		if (bpf_skb_get_tunnel_key(skb, &key, sizeof(key), origin->family == MESH_FAMILY_IPV6 ? BPF_F_TUNINFO_IPV6 : 0))
			return false;
	}
	if (origin->family == MESH_FAMILY_IPV6)
		__builtin_memcpy(&origin->address, key.remote_ipv6, 16);
	else
		origin->address.v4 = bpf_htonl(key.remote_ipv4);
	packet->identity = key.tunnel_id;
	return true;
}

static __always_inline int arrive(struct __sk_buff *skb)
{
	struct packet packet = { .interface = skb->ifindex };
	struct tunnel_origin origin = {};
	bool whole = false;

	if (!read_tunnel_key(skb, &packet, &origin))
		return drop(skb, DROP_NO_TUNNEL_KEY, COUNTER_INGRESS);
	if (skb->protocol == bpf_htons(ETH_P_IP))
		whole = parse_ipv4(skb, &packet);
	else if (skb->protocol == bpf_htons(ETH_P_IPV6))
		whole = parse_ipv6(skb, &packet);
	if (!whole)
		return drop(skb, DROP_INVALID_PACKET, COUNTER_INGRESS);
	return arrive_from(skb, &packet, origin.family, &origin.address);
}

SEC("tc")
int vxlan_in(struct __sk_buff *skb)
{
	return arrive(skb);
}

char LICENSE[] SEC("license") = "GPL";
