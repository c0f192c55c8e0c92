/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Into the tunnel: the VXLAN device in collect-metadata mode builds the outer header from the key set here. The VNI is the
 * sender's identity. (A header built by hand, chosen by a field of node_config, will take the place of set_tunnel_key.)
 */
#ifndef MESH_LIB_ENCAP_H
#define MESH_LIB_ENCAP_H

#include "icmp.h"
#include "metrics.h"
#include "node.h"
#include "policy.h"
#include "translate.h"

#define IDENTITY_BITS_MASK 0xffffff
#define TUNNEL_TTL 64

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

static __always_inline long set_tunnel_key(struct __sk_buff *skb, const struct node *node, __u32 identity)
{
	struct bpf_tunnel_key key = {
		.tunnel_id = identity_on_the_wire(identity),
		.tunnel_ttl = TUNNEL_TTL,
	};
	__u64 flags = BPF_F_ZERO_CSUM_TX;

	if (node->family == MESH_FAMILY_IPV6) {
		flags |= BPF_F_TUNINFO_IPV6;
		__builtin_memcpy(key.remote_ipv6, &node->tunnel_endpoint, 16);
	} else {
		key.remote_ipv4 = bpf_ntohl(node->tunnel_endpoint.v4);
	}
	return bpf_skb_set_tunnel_key(skb, &key, sizeof(key), flags);
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
	if (set_tunnel_key(skb, node, identity))
		return drop(skb, DROP_ENCAPSULATION, COUNTER_EGRESS);
	return forward(skb, COUNTER_EGRESS, bpf_redirect(config.tunnel_interface, 0));
}

#endif
