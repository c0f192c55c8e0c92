// SPDX-License-Identifier: GPL-2.0
/*
 * What becomes of connections whose address a socket hook has translated: attached to the same cgroup. A reset in answer to the first
 * packet, or no answer in time, ejects that backend on this node, at once and whoever runs; an answer proves it well again.
 */
#include "lib/socket.h"

#define ECONNABORTED 103
#define ECONNREFUSED 111

/* The members that we read of the kernel's own structs, found by name when we are loaded. */
struct sock {
	int sk_err;
} __attribute__((preserve_access_index));
struct inet_sock {
	struct sock sk;
} __attribute__((preserve_access_index));
struct inet_connection_sock {
	struct inet_sock icsk_inet;
} __attribute__((preserve_access_index));
struct tcp_sock {
	struct inet_connection_sock inet_conn;
} __attribute__((preserve_access_index));

/* The kernel wants times in ticks, whose length it tells nobody: measured. */
static __u64 first_tick;
static __u64 first_tick_ns;
static __u32 ticks_per_second;

static __always_inline void measure_ticks(void)
{
	__u64 tick = bpf_jiffies64(), now = bpf_ktime_get_ns(), elapsed;
	__u64 rate;

	if (!first_tick_ns) {
		first_tick = tick;
		first_tick_ns = now;
		return;
	}
	elapsed = now - first_tick_ns;
	if (elapsed < NANOSECONDS_PER_SECOND / 2)
		return;
	rate = (tick - first_tick) * NANOSECONDS_PER_SECOND / elapsed;
	ticks_per_second = rate < 175 ? 100 : rate < 275 ? 250 : rate < 650 ? 300 : 1000;
}

/* The memory of a socket that is connecting, or connected, to a backend of ours. */
static __always_inline struct socket_translation *memory_of(struct bpf_sock_ops *ops)
{
	struct bpf_sock *socket = ops->sk;
	struct socket_translation *memory = socket ? bpf_sk_storage_get(&socket_translations, socket, 0, 0) : NULL;
	const struct mesh_addr *address;

	if (!memory || bpf_ntohl(ops->remote_port) != bpf_ntohs(memory->backend_port))
		return NULL;
	/* The socket may have been connected elsewhere since. */
	address = &memory->backend_address;
	if (address->v6[1] | address->v6[2] | address->v6[3])
		return ops->remote_ip6[0] == address->v6[0] && ops->remote_ip6[3] == address->v6[3] ? memory : NULL;
	return ops->remote_ip4 == address->v4 ? memory : NULL;
}

static __always_inline struct lb_backend *backend_of(const struct socket_translation *memory)
{
	struct lb_backend *backend = lb_backend(memory->backend);

	/* The slot may hold another by now. */
	return backend && backend->port == memory->backend_port && same_address(&backend->address, &memory->backend_address) ?
		       backend :
		       NULL;
}

static __always_inline void failed(struct bpf_sock_ops *ops, enum lb_outcome outcome)
{
	struct socket_translation *memory = memory_of(ops);
	struct lb_backend *backend = memory ? backend_of(memory) : NULL;

	if (backend)
		lb_eject(memory->backend, backend, outcome);
}

static __always_inline int first_timeout(struct bpf_sock_ops *ops)
{
	struct failover *state = failover_state();
	__u32 milliseconds = state ? READ_ONCE(state->syn_timeout_ms) : 0;

	if (!milliseconds || !memory_of(ops))
		return -1;
	if (!ticks_per_second)
		measure_ticks();
	return ticks_per_second ? milliseconds * ticks_per_second / 1000 : -1;
}

/* It never got an answer, and the one who opened it did not close it: then there is an error. */
static __always_inline void closed(struct bpf_sock_ops *ops)
{
	struct bpf_sock *socket = ops->sk;
	struct tcp_sock *tcp;
	int error;

	if (ops->args[0] != BPF_TCP_SYN_SENT || ops->args[1] != BPF_TCP_CLOSE || !socket)
		return;
	tcp = bpf_skc_to_tcp_sock(socket);
	if (!tcp)
		return;
	error = tcp->inet_conn.icsk_inet.sk.sk_err;
	if (error && error != ECONNABORTED)
		failed(ops, error == ECONNREFUSED ? LB_REFUSED : LB_UNANSWERED);
}

static __always_inline void established(struct bpf_sock_ops *ops)
{
	struct socket_translation *memory;

	if (!ops->bpf_sock_ops_cb_flags)
		return;
	memory = memory_of(ops);
	if (!memory)
		return;
	bpf_sock_ops_cb_flags_set(ops, 0);
	if (backend_of(memory))
		lb_prove(memory->backend);
}

SEC("sockops")
int connect_outcome(struct bpf_sock_ops *ops)
{
	switch (ops->op) {
	case BPF_SOCK_OPS_TCP_CONNECT_CB:
		if (memory_of(ops))
			bpf_sock_ops_cb_flags_set(ops, BPF_SOCK_OPS_RTO_CB_FLAG | BPF_SOCK_OPS_STATE_CB_FLAG);
		break;
	case BPF_SOCK_OPS_TIMEOUT_INIT:
		ops->reply = first_timeout(ops);
		break;
	case BPF_SOCK_OPS_RTO_CB:
		if (ops->state == BPF_TCP_SYN_SENT)
			failed(ops, LB_UNANSWERED);
		break;
	case BPF_SOCK_OPS_STATE_CB:
		closed(ops);
		break;
	case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
		established(ops);
		break;
	}
	return 1;
}

char LICENSE[] SEC("license") = "GPL";
