/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Included before a program: some helpers of the kernel refuse when a test says so. What the program does then is otherwise seen only
 * when memory runs out or a packet changes under its feet.
 */
#ifndef MESH_TESTS_FAULTS_H
#define MESH_TESTS_FAULTS_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <stdbool.h>

enum fault {
	FAULT_MAP_FULL = 0x01,
	FAULT_CHECKSUM = 0x02,
	FAULT_TUNNEL_KEY = 0x04,
};

/* faults: 0 → enum fault, added up. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, __u64);
} faults SEC(".maps");

static __always_inline bool refused(enum fault fault)
{
	__u32 zero = 0;
	__u64 *wanted = bpf_map_lookup_elem(&faults, &zero);

	return wanted && *(volatile __u64 *)wanted & fault;
}

#define bpf_map_update_elem(...) (refused(FAULT_MAP_FULL) ? -7 : bpf_map_update_elem(__VA_ARGS__))
#define bpf_l3_csum_replace(...) (refused(FAULT_CHECKSUM) ? -14 : bpf_l3_csum_replace(__VA_ARGS__))
#define bpf_l4_csum_replace(...) (refused(FAULT_CHECKSUM) ? -14 : bpf_l4_csum_replace(__VA_ARGS__))
#define bpf_skb_set_tunnel_key(...) (refused(FAULT_TUNNEL_KEY) ? -22 : bpf_skb_set_tunnel_key(__VA_ARGS__))

#endif
