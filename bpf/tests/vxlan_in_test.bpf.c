// SPDX-License-Identifier: GPL-2.0
/* vxlan_in for test runs, which cannot give a packet tunnel metadata: it gives itself some first. Of its own metadata the kernel tells the
 * local address as the remote one. Never attached. */
#include "vxlan_in.bpf.c"

SEC("tc")
int vxlan_in_test(struct __sk_buff *skb)
{
	struct bpf_tunnel_key key = { .tunnel_id = 0x10002, .remote_ipv4 = 0xac1e0102, .local_ipv4 = 0xac1e0102 };

	return bpf_skb_set_tunnel_key(skb, &key, sizeof(key), 0) ? TC_ACT_UNSPEC : arrive(skb);
}
