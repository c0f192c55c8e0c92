/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The packet that an ICMP error quotes: enough of it to know its flow, and to make it speak of other addresses. Extension headers
 * and later fragments are not looked into: such an error is forwarded as it is.
 */
#ifndef MESH_LIB_QUOTED_H
#define MESH_LIB_QUOTED_H

#include <mesh/drop.h>
#include "csum.h"
#include "parse.h"

#define ICMP_HEADER_BYTES 8
#define ICMP_CHECKSUM 2
#define IPPROTO_ICMP6 58

struct quoted {
	struct flow flow; /* as quoted: of the packet that met the error */
	__u32 l3; /* offset of its IP header from the start of the frame */
	__u32 l4;
	__u32 checksum; /* offset of its transport checksum; 0 = has none, or it is not quoted */
};

static __always_inline bool is_icmp(const struct packet *packet)
{
	return packet->flow.protocol == (packet->flow.family == MESH_FAMILY_IPV4 ? IPPROTO_ICMP : IPPROTO_ICMP6);
}

static __always_inline bool is_error_type(__u8 family, __u8 type)
{
	if (family == MESH_FAMILY_IPV4)
		return type == 3 /* unreachable */ || type == 4 /* quench */ || type == 11 /* time exceeded */ || type == 12;
	return type >= 1 && type <= 4;
}

/* Of an ICMP error: does it say that nobody listens on the port? */
static __always_inline bool is_port_unreachable(struct __sk_buff *skb, const struct packet *packet)
{
	__u8 message[2];

	if (bpf_skb_load_bytes(skb, packet->l4, message, sizeof(message)))
		return false;
	return packet->flow.family == MESH_FAMILY_IPV4 ? message[0] == 3 && message[1] == 3 : message[0] == 1 && message[1] == 4;
}

/* True when the packet is an ICMP error and its quotation shows the ports. */
VERIFIED_ALONE int parse_quoted(struct __sk_buff *skb, struct packet *packet, struct quoted *quoted)
{
	__u32 end, field;
	__be16 ports[2];
	__u8 type;

	if (!packet || !quoted)
		return false;
	if (!is_icmp(packet) || packet->fragment != FRAGMENT_NONE || bpf_skb_load_bytes(skb, packet->l4, &type, 1) ||
	    !is_error_type(packet->flow.family, type))
		return false;
	end = ETH_HLEN + packet->length;
	quoted->l3 = packet->l4 + ICMP_HEADER_BYTES;
	quoted->flow.family = packet->flow.family;
	if (packet->flow.family == MESH_FAMILY_IPV4) {
		struct iphdr ip;

		if (quoted->l3 + sizeof(ip) > end || bpf_skb_load_bytes(skb, quoted->l3, &ip, sizeof(ip)))
			return false;
		if (ip.version != 4 || ip.ihl < 5 || ip.frag_off & bpf_htons(IPV4_FRAGMENT_OFFSET))
			return false;
		quoted->l4 = quoted->l3 + ip.ihl * 4;
		quoted->flow.protocol = ip.protocol;
		quoted->flow.source.v4 = ip.saddr;
		quoted->flow.destination.v4 = ip.daddr;
	} else {
		struct ipv6hdr ip;

		if (quoted->l3 + sizeof(ip) > end || bpf_skb_load_bytes(skb, quoted->l3, &ip, sizeof(ip)) || ip.version != 6)
			return false;
		quoted->l4 = quoted->l3 + sizeof(ip);
		quoted->flow.protocol = ip.nexthdr;
		__builtin_memcpy(&quoted->flow.source, &ip.saddr, 16);
		__builtin_memcpy(&quoted->flow.destination, &ip.daddr, 16);
	}
	if (quoted->flow.protocol != IPPROTO_TCP && quoted->flow.protocol != IPPROTO_UDP && quoted->flow.protocol != IPPROTO_SCTP)
		return false;
	if (quoted->l4 + sizeof(ports) > end || bpf_skb_load_bytes(skb, quoted->l4, ports, sizeof(ports)))
		return false;
	quoted->flow.source_port = ports[0];
	quoted->flow.destination_port = ports[1];
	field = checksum_offset(quoted->flow.protocol);
	quoted->checksum = field && quoted->l4 + field + 2 <= end ? quoted->l4 + field : 0;
	return true;
}

/* Adds a difference of one's complement sums to a checksum. */
static __always_inline __sum16 adjusted(__sum16 checksum, __s64 difference)
{
	__u64 sum = (__u16)~checksum + (__u64)(__u32)difference;

	sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

/*
 * Changes one side of the quoted packet, its checksums, and the checksum of the error around it. What changes within the
 * quotation is payload to the error: its pseudo header is not concerned.
 */
VERIFIED_ALONE int rewrite_quoted(struct __sk_buff *skb, struct quoted *quoted, enum rewrite side,
				  const struct mesh_addr *address, __be16 port)
{
	struct {
		struct mesh_addr address;
		__be32 port;
	} before = {}, after = {};
	__u32 outer, field;
	__s64 difference;
	bool source = side == REWRITE_SOURCE;

	if (!quoted || !address)
		return DROP_TRANSLATION;
	outer = quoted->l3 - ICMP_HEADER_BYTES + ICMP_CHECKSUM;
	before.address = source ? quoted->flow.source : quoted->flow.destination;
	before.port = source ? quoted->flow.source_port : quoted->flow.destination_port;
	after.address = *address;
	after.port = port;

	if (quoted->flow.family == MESH_FAMILY_IPV4) {
		/* The header's own checksum takes up what its address changes, so the sum around both stays. */
		field = quoted->l3 + (source ? offsetof(struct iphdr, saddr) : offsetof(struct iphdr, daddr));
		if (bpf_l3_csum_replace(skb, quoted->l3 + offsetof(struct iphdr, check), before.address.v4, after.address.v4,
					4) ||
		    bpf_skb_store_bytes(skb, field, &after.address.v4, sizeof(__be32), 0))
			return DROP_TRANSLATION;
	} else {
		field = quoted->l3 + (source ? offsetof(struct ipv6hdr, saddr) : offsetof(struct ipv6hdr, daddr));
		difference = bpf_csum_diff(before.address.v6, 16, after.address.v6, 16, 0);
		if (bpf_l4_csum_replace(skb, outer, 0, difference, 0) ||
		    bpf_skb_store_bytes(skb, field, after.address.bytes, 16, 0))
			return DROP_TRANSLATION;
	}
	field = quoted->l4 + (source ? 0 : 2);
	if (port != (__be16)before.port && (bpf_l4_csum_replace(skb, outer, before.port, port, sizeof(port)) ||
					    bpf_skb_store_bytes(skb, field, &port, sizeof(port), 0)))
		return DROP_TRANSLATION;
	if (quoted->checksum) {
		__sum16 old, new;

		if (bpf_skb_load_bytes(skb, quoted->checksum, &old, sizeof(old)))
			return DROP_TRANSLATION;
		difference = bpf_csum_diff((__be32 *)&before, sizeof(before), (__be32 *)&after, sizeof(after), 0);
		new = adjusted(old, difference);
		if (quoted->flow.protocol == IPPROTO_UDP) {
			if (!old) /* none */
				new = 0;
			else if (!new)
				new = 0xffff;
		}
		if (new != old && (bpf_l4_csum_replace(skb, outer, old, new, sizeof(new)) ||
				   bpf_skb_store_bytes(skb, quoted->checksum, &new, sizeof(new), 0)))
			return DROP_TRANSLATION;
	}
	if (source) {
		quoted->flow.source = *address;
		quoted->flow.source_port = port;
	} else {
		quoted->flow.destination = *address;
		quoted->flow.destination_port = port;
	}
	return FORWARDED;
}

#endif
