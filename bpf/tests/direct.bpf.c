// SPDX-License-Identifier: GPL-2.0
/*
 * The way between two pods on two nodes that costs the least: each packet is given the next hop's addresses and sent straight to the
 * device, with no header around it, no lookup and no check. What the tunnel's path is measured next to. Attached by benchmarks only.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

struct direct_way {
	__u8 macs[12]; /* destination, source */
	__u32 interface_index;
	__be32 address; /* of the pod, for what comes in */
};

/* direct_ways: 0 = out of the pod, 1 = into it. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct direct_way);
} direct_ways SEC(".maps");

SEC("tc")
int direct_out(struct __sk_buff *skb)
{
	__u32 out = 0;
	struct direct_way *way = bpf_map_lookup_elem(&direct_ways, &out);

	if (!way || skb->protocol != bpf_htons(ETH_P_IP) || bpf_skb_store_bytes(skb, 0, way->macs, sizeof(way->macs), 0))
		return TC_ACT_OK;
	return bpf_redirect(way->interface_index, 0);
}

SEC("tc")
int direct_in(struct __sk_buff *skb)
{
	__u32 in = 1;
	struct direct_way *way = bpf_map_lookup_elem(&direct_ways, &in);
	__be32 destination;

	if (!way || skb->protocol != bpf_htons(ETH_P_IP) ||
	    bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct iphdr, daddr), &destination, sizeof(destination)) ||
	    destination != way->address || bpf_skb_store_bytes(skb, 0, way->macs, sizeof(way->macs), 0))
		return TC_ACT_OK;
	return bpf_redirect_peer(way->interface_index, 0);
}

char LICENSE[] SEC("license") = "GPL";
