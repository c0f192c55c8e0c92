/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Frame → struct packet. Nothing after this file looks at headers to decide: a packet that parses is whole as far as its lengths
 * say, and its addresses and ports are in one shape for both families. Reading only; a packet that is refused is unchanged.
 */
#ifndef MESH_LIB_PARSE_H
#define MESH_LIB_PARSE_H

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <mesh/types.h>
#include "maps.h"

#define IPV4_MORE_FRAGMENTS 0x2000
#define IPV4_DONT_FRAGMENT 0x4000
#define IPV4_FRAGMENT_OFFSET 0x1fff

#define IPV6_HOP_BY_HOP 0
#define IPV6_ROUTING 43
#define IPV6_FRAGMENT 44
#define IPV6_DESTINATION_OPTIONS 60
#define IPV6_EXTENSIONS_MAX 8

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

#ifndef IPPROTO_SCTP
#define IPPROTO_SCTP 132
#endif

/* One direction of a conversation. Ports are zero where the protocol has none. */
struct flow {
	struct mesh_addr source;
	struct mesh_addr destination;
	__be16 source_port;
	__be16 destination_port;
	__u8 family; /* MESH_FAMILY_* */
	__u8 protocol; /* IPPROTO_*, after IPv6 extension headers */
};

/* A key of a map of flows and directions; all such keys have these members. As an initializer: a value would be copied. */
#define FLOW_KEY4(flow, way)                                                                                                     \
	{                                                                                                                        \
		.source = (flow)->source.v4, .destination = (flow)->destination.v4, .source_port = (flow)->source_port,          \
		.destination_port = (flow)->destination_port, .protocol = (flow)->protocol, .direction = (way)                   \
	}

/* Without the addresses: SET_ADDRESSES6 adds them. */
#define FLOW_KEY6(flow, way)                                                                                                     \
	{                                                                                                                        \
		.source_port = (flow)->source_port, .destination_port = (flow)->destination_port, .protocol = (flow)->protocol,  \
		.direction = (way)                                                                                               \
	}

#define SET_ADDRESSES6(key, flow)                                                                                                \
	({                                                                                                                       \
		__builtin_memcpy((key).source, &(flow)->source, 16);                                                             \
		__builtin_memcpy((key).destination, &(flow)->destination, 16);                                                   \
	})

enum fragment {
	FRAGMENT_NONE,
	FRAGMENT_FIRST, /* has the ports */
	FRAGMENT_LATER, /* has not */
};

struct packet {
	struct flow flow;
	__u32 interface; /* that the frame arrived on */
	__u32 fragment_id;
	__u16 fragment_offset; /* in bytes */
	__u32 identity; /* of the sender; 0 = its address tells it */
	__u16 l4; /* offset of the transport header from the start of the frame */
	__u16 segment_headers; /* bytes of IP and transport headers, which a GSO packet repeats in each segment */
	__u32 length; /* of the IP packet, headers included, without Ethernet padding */
	__u8 fragment; /* enum fragment */
	__u8 ports_known;
	__u8 dont_fragment; /* always 1 in IPv6: routers never fragment it */
	__u8 tcp_flags;
	__u8 ttl; /* hop limit in IPv6 */
	__u8 scope; /* enum lb_scope of the sender: not read from the packet */
};

static __always_inline bool same_address(const struct mesh_addr *one, const struct mesh_addr *other)
{
	return !((one->v6[0] ^ other->v6[0]) | (one->v6[1] ^ other->v6[1]) | (one->v6[2] ^ other->v6[2]) |
		 (one->v6[3] ^ other->v6[3]));
}

/* Would a later fragment overwrite the transport header that the first one was judged by? */
static __always_inline bool fragment_overlaps(const struct packet *packet)
{
	__u32 header = packet->flow.protocol == IPPROTO_TCP  ? sizeof(struct tcphdr) :
		       packet->flow.protocol == IPPROTO_SCTP ? 12 :
							       8;

	return packet->fragment == FRAGMENT_LATER && packet->fragment_offset < header;
}

/* The first bytes of the frame in linear memory, or NULL where it has not so many. Invalidates earlier packet pointers. */
static __always_inline void *frame_start(struct __sk_buff *skb, __u32 bytes)
{
	void *start = (void *)(long)skb->data;

	if (start + bytes <= (void *)(long)skb->data_end)
		return start;
	if (bpf_skb_pull_data(skb, bytes))
		return NULL;
	/* Or the compiler keeps the addresses of the fields, which the verifier does not let it read through. */
	asm volatile("" : "+r"(skb));
	start = (void *)(long)skb->data;
	return start + bytes <= (void *)(long)skb->data_end ? start : NULL;
}

/* Ports and TCP flags. False when the transport header is cut short. */
VERIFIED_ALONE int parse_transport(struct __sk_buff *skb, struct packet *packet)
{
	__u8 header[14];
	__u32 length, end;

	if (!packet)
		return false;
	end = ETH_HLEN + packet->length;

	switch (packet->flow.protocol) {
	case IPPROTO_TCP:
		if (packet->l4 + sizeof(struct tcphdr) > end || bpf_skb_load_bytes(skb, packet->l4, header, 14))
			return false;
		length = (header[12] >> 4) * 4;
		if (length < sizeof(struct tcphdr) || packet->l4 + length > end)
			return false;
		packet->tcp_flags = header[13];
		break;
	case IPPROTO_UDP:
	case IPPROTO_SCTP:
		length = packet->flow.protocol == IPPROTO_UDP ? sizeof(struct udphdr) : 12;
		if (packet->l4 + length > end || bpf_skb_load_bytes(skb, packet->l4, header, 8))
			return false;
		break;
	default:
		return true;
	}
	packet->flow.source_port = *(__be16 *)header;
	packet->flow.destination_port = *(__be16 *)(header + 2);
	packet->ports_known = 1;
	packet->segment_headers += length;
	return true;
}

static __always_inline bool parse_ipv4(struct __sk_buff *skb, struct packet *packet)
{
	struct ethhdr *eth = frame_start(skb, ETH_HLEN + sizeof(struct iphdr));
	struct iphdr *ip;
	__u32 header;
	__u16 offset;

	if (!eth)
		return false;
	ip = (void *)(eth + 1);
	header = ip->ihl * 4;
	packet->length = bpf_ntohs(ip->tot_len);
	if (!packet->length && skb->gso_size) /* BIG TCP: the length does not fit the field */
		packet->length = skb->len - ETH_HLEN;
	if (ip->version != 4 || header < sizeof(*ip) || packet->length < header || ETH_HLEN + packet->length > skb->len)
		return false;

	offset = bpf_ntohs(ip->frag_off);
	packet->dont_fragment = !!(offset & IPV4_DONT_FRAGMENT);
	if (offset & IPV4_FRAGMENT_OFFSET)
		packet->fragment = FRAGMENT_LATER;
	else if (offset & IPV4_MORE_FRAGMENTS)
		packet->fragment = FRAGMENT_FIRST;
	packet->fragment_id = ip->id;
	packet->fragment_offset = (offset & IPV4_FRAGMENT_OFFSET) * 8;
	packet->ttl = ip->ttl;
	packet->l4 = ETH_HLEN + header;
	packet->segment_headers = header;
	packet->flow.family = MESH_FAMILY_IPV4;
	packet->flow.protocol = ip->protocol;
	packet->flow.source.v4 = ip->saddr;
	packet->flow.destination.v4 = ip->daddr;
	return packet->fragment == FRAGMENT_LATER || parse_transport(skb, packet);
}

/* Walks the extension headers to the transport header. False when the chain is cut short or longer than any honest one. */
VERIFIED_ALONE int parse_extensions(struct __sk_buff *skb, struct packet *packet)
{
	struct {
		__u8 next;
		__u8 length;
		__be16 fragment_offset;
		__be32 fragment_id;
	} extension;
	__u32 end;

	if (!packet)
		return false;
	end = ETH_HLEN + packet->length;

	for (int i = 0; i <= IPV6_EXTENSIONS_MAX; i++) {
		__u8 protocol = packet->flow.protocol;

		if (protocol != IPV6_HOP_BY_HOP && protocol != IPV6_ROUTING && protocol != IPV6_FRAGMENT &&
		    protocol != IPV6_DESTINATION_OPTIONS)
			return true;
		if (packet->fragment == FRAGMENT_LATER) /* what follows is payload */
			return true;
		if (packet->l4 + sizeof(extension) > end || bpf_skb_load_bytes(skb, packet->l4, &extension, sizeof(extension)))
			return false;
		packet->flow.protocol = extension.next;
		if (protocol == IPV6_FRAGMENT) {
			__u16 offset = bpf_ntohs(extension.fragment_offset);

			packet->l4 += sizeof(extension);
			packet->fragment_id = extension.fragment_id;
			packet->fragment_offset = offset & 0xfff8;
			if (offset & 0xfff8)
				packet->fragment = FRAGMENT_LATER;
			else if (offset & 1)
				packet->fragment = FRAGMENT_FIRST;
		} else {
			packet->l4 += (extension.length + 1) * 8;
		}
		if (packet->l4 > end)
			return false;
	}
	return false;
}

static __always_inline bool parse_ipv6(struct __sk_buff *skb, struct packet *packet)
{
	struct ethhdr *eth = frame_start(skb, ETH_HLEN + sizeof(struct ipv6hdr));
	struct ipv6hdr *ip;

	if (!eth)
		return false;
	ip = (void *)(eth + 1);
	packet->length = sizeof(*ip) + bpf_ntohs(ip->payload_len);
	if (!ip->payload_len && skb->gso_size)
		packet->length = skb->len - ETH_HLEN;
	if (ip->version != 6 || ETH_HLEN + packet->length > skb->len)
		return false;

	packet->dont_fragment = 1;
	packet->ttl = ip->hop_limit;
	packet->l4 = ETH_HLEN + sizeof(*ip);
	packet->flow.family = MESH_FAMILY_IPV6;
	packet->flow.protocol = ip->nexthdr;
	__builtin_memcpy(&packet->flow.source, &ip->saddr, 16);
	__builtin_memcpy(&packet->flow.destination, &ip->daddr, 16);
	if (!parse_extensions(skb, packet))
		return false;
	packet->segment_headers = packet->l4 - ETH_HLEN;
	return packet->fragment == FRAGMENT_LATER || parse_transport(skb, packet);
}

#endif
