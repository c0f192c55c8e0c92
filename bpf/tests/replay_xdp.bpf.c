// SPDX-License-Identifier: GPL-2.0
/*
 * As replay.bpf.c, for XDP, and with many frames in turn: writes the next frame anew, takes off what the last run has put in front
 * of it, and enters the program by a tail call. Beside it the floors that a load balancer is compared with. Never attached.
 */
#include "lib/xdp.h"

#define TEMPLATE_BYTES 80
#define TEMPLATES_MAX 65536

struct template
{
	__u64 frame[TEMPLATE_BYTES / 8];
};

struct replay_state {
	__u32 next;
	__u32 mask; /* frames in turn - 1; a power of two */
};

/* templates: number → frame. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, TEMPLATES_MAX);
	__type(key, __u32);
	__type(value, struct template);
} templates SEC(".maps");

/* replay_state: the one state. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct replay_state);
} replay_state SEC(".maps");

/* replay_program: 0 → the program to measure. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} replay_program SEC(".maps");

SEC("xdp")
int replay_xdp(struct xdp_md *ctx)
{
	__u32 zero = 0, index, extra = xdp_length(ctx) - TEMPLATE_BYTES;
	struct replay_state *state = bpf_map_lookup_elem(&replay_state, &zero);
	struct template *template;
	__u64 *frame;

	if (!state)
		return XDP_ABORTED;
	index = state->next++ & state->mask;
	template = bpf_map_lookup_elem(&templates, &index);
	if (!template || (extra && bpf_xdp_adjust_head(ctx, extra)))
		return XDP_ABORTED;
	frame = xdp_at(ctx, 0, TEMPLATE_BYTES);
	if (!frame)
		return XDP_ABORTED;
#pragma unroll
	for (int i = 0; i < TEMPLATE_BYTES / 8; i++)
		frame[i] = template->frame[i];
	bpf_tail_call(ctx, &replay_program, 0);
	return XDP_PASS;
}

static __always_inline bool read_frame(struct xdp_md *ctx, struct frame *frame)
{
	struct ethhdr *eth = xdp_at(ctx, 0, sizeof(*eth));

	if (!eth)
		return false;
	return eth->h_proto == bpf_htons(ETH_P_IP) ? xdp_parse4(ctx, ETH_HLEN, frame) : xdp_parse6(ctx, ETH_HLEN, frame);
}

/* What reading the headers alone costs. */
SEC("xdp")
int parse_xdp(struct xdp_md *ctx)
{
	struct frame frame = {};

	return read_frame(ctx, &frame) && frame.flow.source_port ? XDP_TX : XDP_DROP;
}

/* What reading them, one lookup in a hash of services and a redirect cost. */
SEC("xdp")
int redirect_xdp(struct xdp_md *ctx)
{
	struct frame frame = {};

	if (!read_frame(ctx, &frame) ||
	    !lb_find_frontend(frame.flow.family, &frame.flow.destination, frame.flow.destination_port, frame.flow.protocol))
		return XDP_DROP;
	return bpf_redirect(ctx->ingress_ifindex, 0);
}

/* counted: 0 → frames that came back. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} counted SEC(".maps");

/* The other end of the wire: what comes back is counted and gone. */
SEC("xdp")
int count_xdp(struct xdp_md *ctx)
{
	__u32 zero = 0;
	__u64 *frames = bpf_map_lookup_elem(&counted, &zero);

	if (frames)
		*frames += 1;
	return XDP_DROP;
}

/* Sends every frame: out of the wire when it is run, back where it came from when it is attached. */
SEC("xdp")
int transmit_xdp(struct xdp_md *ctx)
{
	return XDP_TX;
}

char LICENSE[] SEC("license") = "GPL";
