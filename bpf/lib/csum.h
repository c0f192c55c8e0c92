/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Rewriting an address and port with the checksums that cover them, incrementally: a checksum that was wrong stays wrong, one
 * that the device will finish stays to be finished, and an IPv4 UDP checksum of zero (none) stays zero.
 */
#ifndef MESH_LIB_CSUM_H
#define MESH_LIB_CSUM_H

#include <stddef.h>
#include <mesh/drop.h>
#include "parse.h"

#define EINVAL 22

/* Linux 6.16: the address of an IPv6 packet changes, so a CHECKSUM_COMPLETE sum of the whole packet is unaffected. */
#define F_IPV6 (1ULL << 7)

enum rewrite {
	REWRITE_SOURCE,
	REWRITE_DESTINATION,
};

/* Where the checksum of a protocol lies in its header; 0 = it has none that covers addresses. */
static __always_inline __u32 checksum_offset(__u8 protocol)
{
	switch (protocol) {
	case IPPROTO_TCP:
		return offsetof(struct tcphdr, check);
	case IPPROTO_UDP:
		return offsetof(struct udphdr, check);
	case IPPROTO_ICMPV6:
		return 2;
	default:
		return 0;
	}
}

static __always_inline long transport_address_changed(struct __sk_buff *skb, const struct packet *packet, __u32 checksum,
						      const struct mesh_addr *from, const struct mesh_addr *to)
{
	__u64 flags = BPF_F_PSEUDO_HDR | (packet->flow.protocol == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0);
	__s64 difference;
	long error;

	if (packet->flow.family == MESH_FAMILY_IPV4)
		return bpf_l4_csum_replace(skb, checksum, from->v4, to->v4, flags | sizeof(__be32));
	difference = bpf_csum_diff((__be32 *)from->v6, 16, (__be32 *)to->v6, 16, 0);
	error = bpf_l4_csum_replace(skb, checksum, 0, difference, flags | F_IPV6);
	return error == -EINVAL ? bpf_l4_csum_replace(skb, checksum, 0, difference, flags) : error;
}

/* Changes one side of the packet to address:port. Later fragments change their address only: the sum is in the first one. */
VERIFIED_ALONE int rewrite(struct __sk_buff *skb, struct packet *packet, enum rewrite side, const struct mesh_addr *address,
			   __be16 port)
{
	__u32 field, port_offset;
	struct mesh_addr *old;
	struct flow *flow;
	__be16 *old_port;
	__u64 mangled;

	if (!packet || !address)
		return DROP_TRANSLATION;
	flow = &packet->flow;
	old = side == REWRITE_SOURCE ? &flow->source : &flow->destination;
	old_port = side == REWRITE_SOURCE ? &flow->source_port : &flow->destination_port;
	port_offset = packet->l4 + (side == REWRITE_SOURCE ? 0 : 2);
	field = checksum_offset(flow->protocol);
	mangled = flow->protocol == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0;

	if (packet->fragment != FRAGMENT_LATER) {
		if (!field && port != *old_port) /* SCTP's CRC covers the port */
			return DROP_SCTP_PORT;
		if (field) {
			__u32 checksum = packet->l4 + field;

			if (transport_address_changed(skb, packet, checksum, old, address))
				return DROP_TRANSLATION;
			if (port != *old_port) {
				if (bpf_l4_csum_replace(skb, checksum, *old_port, port, mangled | sizeof(__be16)))
					return DROP_TRANSLATION;
				if (bpf_skb_store_bytes(skb, port_offset, &port, sizeof(port), 0))
					return DROP_TRANSLATION;
			}
		}
	}
	if (flow->family == MESH_FAMILY_IPV4) {
		__u32 start = ETH_HLEN + (side == REWRITE_SOURCE ? offsetof(struct iphdr, saddr) : offsetof(struct iphdr, daddr));

		if (bpf_l3_csum_replace(skb, ETH_HLEN + offsetof(struct iphdr, check), old->v4, address->v4, sizeof(__be32)) ||
		    bpf_skb_store_bytes(skb, start, &address->v4, sizeof(__be32), 0))
			return DROP_TRANSLATION;
	} else {
		__u32 start =
			ETH_HLEN + (side == REWRITE_SOURCE ? offsetof(struct ipv6hdr, saddr) : offsetof(struct ipv6hdr, daddr));

		if (bpf_skb_store_bytes(skb, start, address, 16, 0))
			return DROP_TRANSLATION;
	}
	*old = *address;
	*old_port = port;
	return FORWARDED;
}

/* One hop less. The caller has seen that more than one is left. */
static __always_inline bool decrement_ttl(struct __sk_buff *skb, const struct packet *packet)
{
	if (packet->flow.family == MESH_FAMILY_IPV4) {
		struct ethhdr *eth = frame_start(skb, ETH_HLEN + sizeof(struct iphdr));
		struct iphdr *ip;
		__u32 sum;

		if (!eth)
			return false;
		ip = (void *)(eth + 1);
		sum = ip->check + bpf_htons(0x0100);
		ip->check = sum + (sum >= 0xffff);
		ip->ttl--;
	} else {
		struct ethhdr *eth = frame_start(skb, ETH_HLEN + sizeof(struct ipv6hdr));

		if (!eth)
			return false;
		((struct ipv6hdr *)(eth + 1))->hop_limit--;
	}
	return true;
}

#endif
