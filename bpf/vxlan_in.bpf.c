// SPDX-License-Identifier: GPL-2.0
/*
 * What arrives by the tunnel: attached to the ingress of mesh_vxlan. The sender's node has chosen the backend and put the
 * sender's identity into the VNI; here the packet is given to the pod or the host that has its address, and to nobody else.
 */
#include "lib/endpoint.h"

/* Reads the sender's identity. */
static __always_inline bool has_tunnel_key(struct __sk_buff *skb, struct packet *packet)
{
	struct bpf_tunnel_key key = {};
	__u64 flags = config.underlay_family == MESH_FAMILY_IPV6 ? BPF_F_TUNINFO_IPV6 : 0;

	if (bpf_skb_get_tunnel_key(skb, &key, sizeof(key), flags) &&
	    bpf_skb_get_tunnel_key(skb, &key, sizeof(key), flags ^ BPF_F_TUNINFO_IPV6))
		return false;
	/* Only we are this node's host. */
	packet->identity = key.tunnel_id == IDENTITY_HOST ? IDENTITY_REMOTE_NODE : key.tunnel_id;
	return true;
}

static __always_inline int from_tunnel(struct __sk_buff *skb, struct packet *packet)
{
	struct endpoint *endpoint = endpoint_lookup(packet->flow.family, &packet->flow.destination);

	if (fragment_overlaps(packet))
		return drop(skb, DROP_FRAGMENT_OVERLAP, COUNTER_INGRESS);
	return endpoint ? deliver(skb, packet, endpoint, COUNTER_INGRESS) : drop(skb, DROP_NO_ENDPOINT, COUNTER_INGRESS);
}

static __always_inline int arrive(struct __sk_buff *skb)
{
	struct packet packet = { .interface = skb->ifindex };

	if (!has_tunnel_key(skb, &packet))
		return drop(skb, DROP_NO_TUNNEL_KEY, COUNTER_INGRESS);
	switch (skb->protocol) {
	case bpf_htons(ETH_P_IP):
		return parse_ipv4(skb, &packet) ? from_tunnel(skb, &packet) : drop(skb, DROP_INVALID_PACKET, COUNTER_INGRESS);
	case bpf_htons(ETH_P_IPV6):
		return parse_ipv6(skb, &packet) ? from_tunnel(skb, &packet) : drop(skb, DROP_INVALID_PACKET, COUNTER_INGRESS);
	default:
		return drop(skb, DROP_INVALID_PACKET, COUNTER_INGRESS);
	}
}

SEC("tc")
int vxlan_in(struct __sk_buff *skb)
{
	return arrive(skb);
}

char LICENSE[] SEC("license") = "GPL";
