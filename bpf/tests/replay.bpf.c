// SPDX-License-Identifier: GPL-2.0
/*
 * Gives a program the same frame at each repetition of a test run: the kernel hands a repeated run what the last one left, so a
 * frame that was translated once would not be translated again. The frame is written anew and the program entered by a tail call;
 * with the table of programs empty, the run measures what the replaying itself costs. Never attached.
 */
#include <linux/pkt_cls.h>
#include "lib/parse.h"

#define REPLAY_FRAME_BYTES 96
#define REPLAY_TUNNEL_KEY 0x01 /* as if the frame came out of the tunnel */
#define REPLAY_NEW_FLOW 0x02 /* count up the source port at each repetition */

struct replay {
	__u8 frame[REPLAY_FRAME_BYTES];
	__u32 flags;
	__u16 port; /* the last one used */
	__u16 source_port; /* its offset in the frame */
};

/* replay_frame: the one frame. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct replay);
} replay_frame SEC(".maps");

/* replay_program: 0 → the program to measure. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} replay_program SEC(".maps");

SEC("tc")
int replay(struct __sk_buff *skb)
{
	struct bpf_tunnel_key key = { .tunnel_id = 0x20001, .remote_ipv4 = 0xac1e0002 };
	__u32 zero = 0;
	struct replay *replay = bpf_map_lookup_elem(&replay_frame, &zero);

	if (!replay || bpf_skb_store_bytes(skb, 0, replay->frame, sizeof(replay->frame), 0))
		return TC_ACT_SHOT;
	if (replay->flags & REPLAY_NEW_FLOW) {
		__be16 port = bpf_htons(++replay->port);

		if (bpf_skb_store_bytes(skb, replay->source_port, &port, sizeof(port), 0))
			return TC_ACT_SHOT;
	}
	if (replay->flags & REPLAY_TUNNEL_KEY && bpf_skb_set_tunnel_key(skb, &key, sizeof(key), 0))
		return TC_ACT_SHOT;
	bpf_tail_call(skb, &replay_program, 0);
	return TC_ACT_UNSPEC;
}

/* What reading the headers alone costs, for comparison. */
SEC("tc")
int parse_only(struct __sk_buff *skb)
{
	struct packet packet = { .interface = skb->ifindex };
	bool whole = skb->protocol == bpf_htons(ETH_P_IP) ? parse_ipv4(skb, &packet) : parse_ipv6(skb, &packet);

	return whole && packet.flow.source_port ? TC_ACT_OK : TC_ACT_SHOT;
}

char LICENSE[] SEC("license") = "GPL";
