// SPDX-License-Identifier: GPL-2.0
/*
 * Closes the sockets of one network namespace (that of the thread that reads the iterator) whose backend is lost, so that their
 * owners notice at once and connect anew: those that a socket hook has translated, whose node or cluster is proved silent, or that
 * still wait for the first answer of a backend that is ejected; and only while another backend of their service lives.
 */
#include "lib/ipcache.h"
#include "lib/socket.h"

/* The members that we read of the kernel's own structs, found by name when we are loaded. */
struct sock_common {
	volatile unsigned char skc_state;
	__be16 skc_dport;
} __attribute__((preserve_access_index));
struct udp_sock;
struct bpf_iter_meta;
struct bpf_iter__tcp {
	struct bpf_iter_meta *meta;
	struct sock_common *sk_common;
} __attribute__((preserve_access_index));
struct bpf_iter__udp {
	struct bpf_iter_meta *meta;
	struct udp_sock *udp_sk;
} __attribute__((preserve_access_index));

extern int bpf_sock_destroy(struct sock_common *socket) __ksym;

/* By the address: the slot may hold another backend by now. */
static __always_inline bool is_out_of_reach(__u8 family, const struct mesh_addr *address)
{
	struct ipcache_value *known = ipcache_lookup(family, address);
	__u32 index = known ? known->node : 0;
	struct node *node = index ? bpf_map_lookup_elem(&nodes, &index) : NULL;

	return node && node->family != MESH_FAMILY_NONE &&
	       (READ_ONCE(node->state) != NODE_UP || cluster_is_lost(READ_ONCE(node->cluster_id)));
}

static __always_inline bool waits_for_ejected(const struct socket_translation *memory)
{
	struct lb_backend *backend = lb_backend(memory->backend);
	struct lb_backend_health *health = lb_health(memory->backend);

	return backend && health && backend->port == memory->backend_port &&
	       same_address(&backend->address, &memory->backend_address) && health_is_ejected(health);
}

static __always_inline bool is_lost(const struct socket_translation *memory, __u8 protocol, __u8 state)
{
	const struct mesh_addr *address = &memory->backend_address;
	__u8 family = address->v6[1] | address->v6[2] | address->v6[3] ? MESH_FAMILY_IPV6 : MESH_FAMILY_IPV4;
	__u32 service;

	if (!is_out_of_reach(family, address) && (state != BPF_TCP_SYN_SENT || !waits_for_ejected(memory)))
		return false;
	service = lb_find_service(family, &memory->virtual_address, memory->virtual_port, protocol, LB_SCOPE_INTERNAL);
	return service && lb_select_living(service, bpf_get_prandom_u32());
}

static __always_inline bool talks_to(const struct socket_translation *memory, __u8 state, __be16 port)
{
	return port == memory->backend_port && state != BPF_TCP_CLOSE && state != BPF_TCP_LISTEN;
}

SEC("iter/tcp")
int close_tcp(struct bpf_iter__tcp *ctx)
{
	struct sock_common *socket = ctx->sk_common;
	struct socket_translation *memory;

	if (!socket)
		return 0;
	memory = bpf_sk_storage_get(&socket_translations, socket, 0, 0);
	if (memory && talks_to(memory, socket->skc_state, socket->skc_dport) && is_lost(memory, IPPROTO_TCP, socket->skc_state) &&
	    !bpf_sock_destroy(socket))
		COUNT_FAILOVER(sockets_closed);
	return 0;
}

/* Only connected ones: who names the service in each message is given another backend with the next. */
SEC("iter/udp")
int close_udp(struct bpf_iter__udp *ctx)
{
	struct sock_common *socket = (struct sock_common *)ctx->udp_sk;
	struct socket_translation *memory;

	if (!socket)
		return 0;
	memory = bpf_sk_storage_get(&socket_translations, socket, 0, 0);
	if (memory && socket->skc_dport && talks_to(memory, socket->skc_state, socket->skc_dport) &&
	    is_lost(memory, IPPROTO_UDP, BPF_TCP_ESTABLISHED) && !bpf_sock_destroy(socket))
		COUNT_FAILOVER(sockets_closed);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
