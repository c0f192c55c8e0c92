// SPDX-License-Identifier: GPL-2.0
/*
 * What a verdict costs: each run asks about a peer chosen at random among those that have rows, so that caches hold of the rows what
 * they would hold of so many. Beside it the choosing alone, and one trie of identity, protocol and port asked twice, which is the
 * shape of Cilium's policy map. Never attached.
 */
#include "lib/policy.h"

#define BENCH_SET 1000
#define BENCH_FIRST_PEER 0x20000
#define BENCH_LPM_STATIC 32
#define BENCH_LPM_FULL 64

#define BENCH_PORT 80

/* bench_rows: 0 → how many peers have rows. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} bench_rows SEC(".maps");

struct bench_lpm_key {
	__u32 prefix_length;
	__u32 identity;
	__u8 direction;
	__u8 protocol;
	__be16 port;
};

struct bench_lpm_value {
	__u32 verdict;
	__u32 pad[5]; /* as large as Cilium's */
};

/* bench_lpm: identity, protocol and port → verdict. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, POLICY_ROWS_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct bench_lpm_key);
	__type(value, struct bench_lpm_value);
} bench_lpm SEC(".maps");

static __always_inline __u32 bench_peer(void)
{
	__u32 zero = 0, *rows = bpf_map_lookup_elem(&bench_rows, &zero);

	return BENCH_FIRST_PEER + (rows ? bpf_get_prandom_u32() % *rows : 0);
}

SEC("tc")
int bench_none(struct __sk_buff *skb)
{
	return bench_peer() & 1;
}

SEC("tc")
int bench_verdict(struct __sk_buff *skb)
{
	struct flow flow = { .family = MESH_FAMILY_IPV4, .protocol = IPPROTO_TCP, .destination_port = bpf_htons(BENCH_PORT) };
	bool unknown = false;

	return policy_verdict(BENCH_SET, bench_peer(), &flow, true, &unknown) >> 31;
}

SEC("tc")
int bench_trie(struct __sk_buff *skb)
{
	struct bench_lpm_key key = {
		.prefix_length = BENCH_LPM_FULL, .identity = bench_peer(), .protocol = IPPROTO_TCP, .port = bpf_htons(BENCH_PORT)
	};
	struct bench_lpm_value *exact = bpf_map_lookup_elem(&bench_lpm, &key), *wildcard;

	key.identity = 0;
	wildcard = bpf_map_lookup_elem(&bench_lpm, &key);
	return (exact ? exact->verdict : 0) | (wildcard ? wildcard->verdict : 0);
}

char LICENSE[] SEC("license") = "GPL";
