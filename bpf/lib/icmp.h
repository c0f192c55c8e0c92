/* SPDX-License-Identifier: GPL-2.0 */
/*
 * "Packet too big", said to the sender: its own packet, cut, becomes the quotation of an ICMP error that goes back where it
 * came from. The error comes from the address that the sender was talking to, so no address of ours is needed.
 */
#ifndef MESH_LIB_ICMP_H
#define MESH_LIB_ICMP_H

#include "csum.h"
#include "metrics.h"

#define QUOTED_IPV4 68 /* the longest IPv4 header and 8 bytes; a packet that is too big has as many */
#define QUOTED_IPV6 128
#define ICMP_UNREACHABLE 3
#define ICMP_FRAGMENTATION_NEEDED 4 /* code */
#define ICMPV6_PACKET_TOO_BIG 2

/* Of both families. */
struct icmp_header {
	__u8 type;
	__u8 code;
	__sum16 checksum;
	__be32 mtu;
};

static __always_inline __u16 fold(__s64 sum)
{
	sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

/* Cuts the frame behind the quotation and makes room before it. Pointers are invalid afterwards. */
static __always_inline bool make_room(struct __sk_buff *skb, __u32 quoted, __u32 headers)
{
	return !bpf_skb_change_tail(skb, ETH_HLEN + quoted, 0) && !bpf_skb_adjust_room(skb, headers, BPF_ADJ_ROOM_MAC, 0);
}

static __always_inline void turn_macs(struct ethhdr *eth)
{
	__u8 mac[ETH_ALEN];

	__builtin_memcpy(mac, eth->h_source, ETH_ALEN);
	__builtin_memcpy(eth->h_source, eth->h_dest, ETH_ALEN);
	__builtin_memcpy(eth->h_dest, mac, ETH_ALEN);
}

static __always_inline bool answer_too_big4(struct __sk_buff *skb, const struct packet *packet)
{
	const __u32 headers = sizeof(struct iphdr) + sizeof(struct icmp_header);
	struct icmp_header *icmp;
	struct ethhdr *eth;
	struct iphdr *ip;

	if (!make_room(skb, QUOTED_IPV4, headers))
		return false;
	eth = frame_start(skb, ETH_HLEN + headers + QUOTED_IPV4);
	if (!eth)
		return false;
	ip = (void *)(eth + 1);
	icmp = (void *)(ip + 1);
	turn_macs(eth);
	*ip = (struct iphdr){
		.version = 4,
		.ihl = 5,
		.tot_len = bpf_htons(headers + QUOTED_IPV4),
		.ttl = 64,
		.protocol = IPPROTO_ICMP,
		.saddr = packet->flow.destination.v4,
		.daddr = packet->flow.source.v4,
	};
	ip->check = fold(bpf_csum_diff(NULL, 0, (__be32 *)ip, sizeof(*ip), 0));
	*icmp = (struct icmp_header){
		.type = ICMP_UNREACHABLE,
		.code = ICMP_FRAGMENTATION_NEEDED,
		.mtu = bpf_htonl(config.pod_mtu & 0xffff),
	};
	icmp->checksum = fold(bpf_csum_diff(NULL, 0, (__be32 *)icmp, sizeof(*icmp) + QUOTED_IPV4, 0));
	return true;
}

static __always_inline bool answer_too_big6(struct __sk_buff *skb, const struct packet *packet)
{
	const __u32 headers = sizeof(struct ipv6hdr) + sizeof(struct icmp_header);
	struct icmp_header *icmp;
	struct ethhdr *eth;
	struct ipv6hdr *ip;
	__s64 sum;

	if (!make_room(skb, QUOTED_IPV6, headers))
		return false;
	eth = frame_start(skb, ETH_HLEN + headers + QUOTED_IPV6);
	if (!eth)
		return false;
	ip = (void *)(eth + 1);
	icmp = (void *)(ip + 1);
	turn_macs(eth);
	*ip = (struct ipv6hdr){
		.version = 6,
		.payload_len = bpf_htons(sizeof(struct icmp_header) + QUOTED_IPV6),
		.nexthdr = IPPROTO_ICMPV6,
		.hop_limit = 64,
	};
	__builtin_memcpy(&ip->saddr, &packet->flow.destination, 16);
	__builtin_memcpy(&ip->daddr, &packet->flow.source, 16);
	*icmp = (struct icmp_header){
		.type = ICMPV6_PACKET_TOO_BIG,
		.mtu = bpf_htonl(config.pod_mtu),
	};
	sum = bpf_csum_diff(NULL, 0, (__be32 *)&ip->saddr, 32, bpf_htonl(IPPROTO_ICMPV6));
	sum = bpf_csum_diff(NULL, 0, (__be32 *)icmp, sizeof(*icmp) + QUOTED_IPV6, sum + bpf_htonl(sizeof(*icmp) + QUOTED_IPV6));
	icmp->checksum = fold(sum);
	return true;
}

/* Drops the packet as too big; what leaves instead is the answer. A GSO packet is only dropped: it cannot be cut in place. */
static __always_inline int refuse_too_big(struct __sk_buff *skb, const struct packet *packet)
{
	bool answered;

	count(DROP_TOO_BIG, COUNTER_EGRESS, skb->len);
	observe(skb, DROP_TOO_BIG, COUNTER_EGRESS);
	if (skb->gso_size || packet->fragment == FRAGMENT_LATER || packet->length < QUOTED_IPV6)
		return TC_ACT_SHOT;
	answered = packet->flow.family == MESH_FAMILY_IPV4 ? answer_too_big4(skb, packet) : answer_too_big6(skb, packet);
	return answered ? bpf_redirect(packet->interface, 0) : TC_ACT_SHOT;
}

#endif
