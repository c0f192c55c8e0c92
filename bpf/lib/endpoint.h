/* SPDX-License-Identifier: GPL-2.0 */
/* The pods of this node and its own addresses, and how a packet gets to them. */
#ifndef MESH_LIB_ENDPOINT_H
#define MESH_LIB_ENDPOINT_H

#include <mesh/endpoint.h>
#include "metrics.h"
#include "policy.h"
#include "translate.h"

/* endpoints: address → interface, identity and MAC addresses of the pod that has it, or the node itself. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, ENDPOINTS_MAX);
	__type(key, struct endpoint_key);
	__type(value, struct endpoint);
} endpoints SEC(".maps");

static __always_inline struct endpoint *endpoint_lookup(__u8 family, const struct mesh_addr *address)
{
	struct endpoint_key key = { .address = *address, .family = family };

	return bpf_map_lookup_elem(&endpoints, &key);
}

/* A pod whose labels nobody has told yet is one that is beginning. */
static __always_inline __u32 identity_of(const struct endpoint *endpoint)
{
	return endpoint->identity ?: IDENTITY_INIT;
}

static __always_inline bool mac_is_zero(const __u8 mac[6])
{
	return !(mac[0] | mac[1] | mac[2] | mac[3] | mac[4] | mac[5]);
}

static __always_inline bool set_macs(struct __sk_buff *skb, const __u8 destination[6], const __u8 source[6])
{
	struct ethhdr *eth = frame_start(skb, ETH_HLEN);

	if (!eth)
		return false;
	__builtin_memcpy(eth->h_dest, destination, ETH_ALEN);
	__builtin_memcpy(eth->h_source, source, ETH_ALEN);
	return true;
}

/*
 * Into the stack of this node, out of mesh_host: there its answer's route points back, whatever reverse path filter is set.
 * Not redirect_peer, which wants the peer in another namespace.
 */
static __always_inline int deliver_to_host(struct __sk_buff *skb, const struct packet *packet, const struct endpoint *host,
					   __u32 direction)
{
	if (!config.host_interface || packet->interface == config.host_interface || mac_is_zero(host->mac))
		return pass_up(skb, direction);
	if (!set_macs(skb, host->mac, host->host_mac))
		return drop(skb, DROP_INVALID_PACKET, direction);
	return forward(skb, direction, bpf_redirect(config.host_interface, 0));
}

/* To a pod of this node: one hop, straight into its namespace. */
static __always_inline int deliver_to_pod(struct __sk_buff *skb, struct packet *packet, const struct endpoint *pod,
					  __u32 direction)
{
	if (packet->ttl <= 1)
		return drop(skb, DROP_TTL, direction);
	if (!decrement_ttl(skb, packet) || !set_macs(skb, pod->mac, pod->host_mac))
		return drop(skb, DROP_INVALID_PACKET, direction);
	return forward(skb, direction, bpf_redirect_peer(pod->interface_index, 0));
}

/* To an address of this node. Replies of translated flows are turned back here. */
static __always_inline int deliver(struct __sk_buff *skb, struct packet *packet, const struct endpoint *endpoint, __u32 direction)
{
	enum drop_reason reason = policy_ingress(skb, packet, endpoint);

	if (!reason)
		reason = is_icmp(packet) ? translate_error_reply(skb, packet) : translate_reply(skb, packet);
	if (reason)
		return drop(skb, reason, direction);
	if (endpoint->flags & ENDPOINT_HOST)
		return deliver_to_host(skb, packet, endpoint, direction);
	return deliver_to_pod(skb, packet, endpoint, direction);
}

#endif
