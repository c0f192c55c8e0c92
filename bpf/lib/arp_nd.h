/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Every neighbour question of a pod has one answer: us. Pods have no neighbours but the host side of their veth, which routes.
 * A question about the asker's own address (probe, announcement, duplicate address detection) is not answered: silence means
 * that the address is free.
 */
#ifndef MESH_LIB_ARP_ND_H
#define MESH_LIB_ARP_ND_H

#include "endpoint.h"
#include "icmp.h"

#define ARP_ETHERNET 1
#define ARP_REQUEST 1
#define ARP_REPLY 2

#define ND_NEIGHBOUR_SOLICITATION 135
#define ND_NEIGHBOUR_ADVERTISEMENT 136
#define ND_HOP_LIMIT 255
#define ND_TARGET_LINK_ADDRESS 2
#define ND_SOLICITED_OVERRIDE 0x60000000

struct arp_frame {
	struct ethhdr eth;
	__be16 hardware;
	__be16 protocol;
	__u8 hardware_length;
	__u8 protocol_length;
	__be16 operation;
	__u8 sender_mac[ETH_ALEN];
	__be32 sender;
	__u8 target_mac[ETH_ALEN];
	__be32 target;
} __attribute__((packed, aligned(2)));

struct nd_message {
	__u8 type;
	__u8 code;
	__sum16 checksum;
	__be32 flags;
	__u8 target[16];
};

/* An advertisement with its one option. */
struct nd_advertisement {
	struct nd_message message;
	__u8 option;
	__u8 option_length; /* in units of 8 bytes */
	__u8 mac[ETH_ALEN];
};

struct nd_frame {
	struct ethhdr eth;
	struct ipv6hdr ip;
	struct nd_advertisement body;
} __attribute__((packed, aligned(2)));

/* The MAC address that the asker is told. */
static __always_inline void gateway_mac(__u8 mac[6], const struct endpoint *asker)
{
	if (asker && !(asker->flags & ENDPOINT_HOST) && !mac_is_zero(asker->host_mac))
		__builtin_memcpy(mac, asker->host_mac, ETH_ALEN);
	else
		for (int i = 0; i < ETH_ALEN; i++)
			mac[i] = config.gateway_mac[i];
}

static __always_inline int answer_arp(struct __sk_buff *skb, __u32 interface)
{
	struct arp_frame *arp = frame_start(skb, sizeof(*arp));
	struct mesh_addr sender = {};
	struct endpoint *asker;
	__be32 target;
	__u8 mac[ETH_ALEN];

	if (!arp || arp->hardware != bpf_htons(ARP_ETHERNET) || arp->protocol != bpf_htons(ETH_P_IP) ||
	    arp->hardware_length != ETH_ALEN || arp->protocol_length != sizeof(__be32))
		return drop(skb, DROP_INVALID_PACKET, COUNTER_EGRESS);
	sender.v4 = arp->sender;
	target = arp->target;
	if (arp->operation != bpf_htons(ARP_REQUEST) || !sender.v4 || sender.v4 == target)
		return pass_up(skb, COUNTER_EGRESS);
	asker = endpoint_lookup(MESH_FAMILY_IPV4, &sender);
	if (interface != config.host_interface && (!asker || asker->interface_index != interface))
		return drop(skb, DROP_INVALID_SOURCE, COUNTER_EGRESS);
	gateway_mac(mac, asker);

	arp = frame_start(skb, sizeof(*arp));
	if (!arp)
		return drop(skb, DROP_INVALID_PACKET, COUNTER_EGRESS);
	__builtin_memcpy(arp->eth.h_dest, arp->sender_mac, ETH_ALEN);
	__builtin_memcpy(arp->eth.h_source, mac, ETH_ALEN);
	arp->operation = bpf_htons(ARP_REPLY);
	__builtin_memcpy(arp->target_mac, arp->sender_mac, ETH_ALEN);
	__builtin_memcpy(arp->sender_mac, mac, ETH_ALEN);
	arp->sender = target;
	arp->target = sender.v4;
	return forward(skb, COUNTER_EGRESS, bpf_redirect(interface, 0));
}

static __always_inline bool is_unspecified(const struct mesh_addr *address)
{
	return !(address->v6[0] | address->v6[1] | address->v6[2] | address->v6[3]);
}

static __always_inline bool is_link_local(const struct mesh_addr *address)
{
	return address->bytes[0] == 0xfe && (address->bytes[1] & 0xc0) == 0x80;
}

/* Is the packet a question that answer_solicitation should see? Extension headers are not allowed in one that counts. */
static __always_inline bool is_solicitation(struct __sk_buff *skb, const struct packet *packet)
{
	__u8 type;

	return packet->flow.protocol == IPPROTO_ICMPV6 && packet->l4 == ETH_HLEN + sizeof(struct ipv6hdr) &&
	       packet->fragment == FRAGMENT_NONE && !bpf_skb_load_bytes(skb, packet->l4, &type, 1) &&
	       type == ND_NEIGHBOUR_SOLICITATION;
}

/* asker: who the source address belongs to, NULL for a link-local one. */
static __always_inline int answer_solicitation(struct __sk_buff *skb, const struct packet *packet, const struct endpoint *asker)
{
	struct nd_advertisement answer = {};
	struct mesh_addr target = {};
	struct nd_message question;
	struct nd_frame *frame;
	__s64 sum;

	if (packet->ttl != ND_HOP_LIMIT || packet->l4 + sizeof(question) > ETH_HLEN + packet->length ||
	    bpf_skb_load_bytes(skb, packet->l4, &question, sizeof(question)) || question.code)
		return drop(skb, DROP_INVALID_PACKET, COUNTER_EGRESS);
	__builtin_memcpy(&target, question.target, 16);
	if (target.bytes[0] == 0xff)
		return drop(skb, DROP_INVALID_PACKET, COUNTER_EGRESS);
	if (is_unspecified(&packet->flow.source) || same_address(&target, &packet->flow.source))
		return pass_up(skb, COUNTER_EGRESS);

	answer.message.type = ND_NEIGHBOUR_ADVERTISEMENT;
	answer.message.flags = bpf_htonl(ND_SOLICITED_OVERRIDE);
	__builtin_memcpy(answer.message.target, &target, 16);
	answer.option = ND_TARGET_LINK_ADDRESS;
	answer.option_length = 1;
	gateway_mac(answer.mac, asker);
	sum = bpf_csum_diff(NULL, 0, (__be32 *)&target, 16, bpf_htonl(IPPROTO_ICMPV6));
	sum = bpf_csum_diff(NULL, 0, (__be32 *)&packet->flow.source, 16, sum);
	sum = bpf_csum_diff(NULL, 0, (__be32 *)&answer, sizeof(answer), sum + bpf_htonl(sizeof(answer)));
	answer.message.checksum = fold(sum);

	if (bpf_skb_change_tail(skb, sizeof(*frame), 0))
		return drop(skb, DROP_INVALID_PACKET, COUNTER_EGRESS);
	frame = frame_start(skb, sizeof(*frame));
	if (!frame)
		return drop(skb, DROP_INVALID_PACKET, COUNTER_EGRESS);
	__builtin_memcpy(frame->eth.h_dest, frame->eth.h_source, ETH_ALEN);
	__builtin_memcpy(frame->eth.h_source, answer.mac, ETH_ALEN);
	frame->ip.payload_len = bpf_htons(sizeof(answer));
	__builtin_memcpy(&frame->ip.saddr, &target, 16);
	__builtin_memcpy(&frame->ip.daddr, &packet->flow.source, 16);
	__builtin_memcpy(&frame->body, &answer, sizeof(answer));
	return forward(skb, COUNTER_EGRESS, bpf_redirect(packet->interface, 0));
}

#endif
