/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Translation at the socket: the application names a virtual address, the kernel is given a backend, and no packet of the flow
 * is ever rewritten. What was translated is remembered with the socket and shown back by recvmsg() and getpeername().
 */
#ifndef MESH_LIB_SOCKET_H
#define MESH_LIB_SOCKET_H

#include <mesh/socket.h>
#include "choice.h"
#include "metrics.h"

#define EHOSTUNREACH 113

#define ALLOW 1
#define REFUSE 0

/* socket_translations: socket → the virtual address that its owner knows and the backend that it talks to. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct socket_translation);
} socket_translations SEC(".maps");

/* An address of a hook's context. */
struct peer {
	struct mesh_addr address;
	__be16 port;
	__u8 family; /* MESH_FAMILY_*; an IPv4-mapped IPv6 address counts as IPv4 */
};

static __always_inline struct peer peer4(struct bpf_sock_addr *ctx)
{
	struct peer peer = { .port = ctx->user_port, .family = MESH_FAMILY_IPV4 };

	/* Not in the initializer: that would leave the other twelve bytes of the union undefined. */
	peer.address.v4 = ctx->user_ip4;
	return peer;
}

static __always_inline struct peer peer6(struct bpf_sock_addr *ctx)
{
	struct peer peer = { .port = ctx->user_port, .family = MESH_FAMILY_IPV6 };
	__be32 a = ctx->user_ip6[0], b = ctx->user_ip6[1], c = ctx->user_ip6[2], d = ctx->user_ip6[3];

	if (!a && !b && c == bpf_htonl(0xffff)) {
		peer.family = MESH_FAMILY_IPV4;
		peer.address.v4 = d;
		return peer;
	}
	peer.address.v6[0] = a;
	peer.address.v6[1] = b;
	peer.address.v6[2] = c;
	peer.address.v6[3] = d;
	return peer;
}

static __always_inline void set_peer4(struct bpf_sock_addr *ctx, const struct peer *peer)
{
	ctx->user_ip4 = peer->address.v4;
	ctx->user_port = peer->port;
}

static __always_inline void set_peer6(struct bpf_sock_addr *ctx, const struct peer *peer)
{
	bool mapped = peer->family == MESH_FAMILY_IPV4;

	ctx->user_ip6[0] = mapped ? 0 : peer->address.v6[0];
	ctx->user_ip6[1] = mapped ? 0 : peer->address.v6[1];
	ctx->user_ip6[2] = mapped ? bpf_htonl(0xffff) : peer->address.v6[2];
	ctx->user_ip6[3] = mapped ? peer->address.v4 : peer->address.v6[3];
	ctx->user_port = peer->port;
}

static __always_inline bool same_peer(const struct peer *peer, const struct mesh_addr *address, __be16 port)
{
	return peer->port == port && same_address(&peer->address, address);
}

/*
 * TCP: any backend, at random. Datagrams: always the same for this socket and virtual address, as long as the tables stand,
 * because a conversation may be many messages.
 */
static __always_inline __u32 socket_hash(struct bpf_sock_addr *ctx, const struct peer *peer)
{
	__u64 cookie;

	if (ctx->protocol == IPPROTO_TCP)
		return bpf_get_prandom_u32();
	cookie = bpf_get_socket_cookie(ctx);
	return mix32(hash_address(mix32(cookie) ^ (__u32)(cookie >> 32), peer->family, &peer->address) ^ peer->port);
}

/* Is the backend of earlier datagrams still one of the service, and alive? Others may have come and gone. */
static __always_inline bool keeps_backend(__u32 service, struct socket_translation *memory)
{
	struct mesh_addr address = memory->backend_address;
	__u32 slot;

	if (lb_still_lives(memory->backend, &address, memory->backend_port, LB_BACKEND_DRAINING))
		return true;
	slot = lb_find_backend(service, &address, memory->backend_port, LB_BACKEND_DRAINING);
	if (slot)
		memory->backend = slot;
	return slot != 0;
}

/* No packet says later which backend the socket was given: an ICMP error only names its address. */
static __always_inline void remember_datagram_backend(const struct peer *peer, __u32 slot)
{
	struct lb_datagram_backend key = { .address = peer->address, .port = peer->port, .family = peer->family };
	__u32 *known = bpf_map_lookup_elem(&lb_datagram_backends, &key);

	if (!known || *known != slot)
		bpf_map_update_elem(&lb_datagram_backends, &key, &slot, BPF_ANY);
}

/* Turns a frontend into a live backend. Returns 1 = translated, 0 = not a frontend, -EHOSTUNREACH = none lives. */
static __always_inline int translate_peer(struct bpf_sock_addr *ctx, struct peer *peer)
{
	struct socket_translation *memory;
	struct lb_client client = {};
	struct lb_backend *backend;
	__u32 service, slot;

	if (ctx->protocol != IPPROTO_TCP && ctx->protocol != IPPROTO_UDP)
		return 0;
	service = lb_find_service(peer->family, &peer->address, peer->port, ctx->protocol, LB_SCOPE_INTERNAL);
	if (!service)
		return 0;
	memory = bpf_sk_storage_get(&socket_translations, ctx->sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (memory && ctx->protocol == IPPROTO_UDP && same_peer(peer, &memory->virtual_address, memory->virtual_port) &&
	    keeps_backend(service, memory)) {
		peer->address = memory->backend_address;
		peer->port = memory->backend_port;
		return 1;
	}
	*(__u64 *)&client.id = bpf_get_netns_cookie(ctx);
	slot = lb_choose(service, socket_hash(ctx, peer), &client);
	backend = slot ? lb_backend(slot) : NULL;
	if (!backend || backend->family != peer->family)
		return -EHOSTUNREACH;
	if (memory) {
		memory->virtual_address = peer->address;
		memory->virtual_port = peer->port;
		memory->backend_address = backend->address;
		memory->backend_port = backend->port;
		memory->backend = slot;
	}
	peer->address = backend->address;
	peer->port = backend->port;
	if (ctx->protocol == IPPROTO_UDP)
		remember_datagram_backend(peer, slot);
	return 1;
}

/* Says at once what a packet would only find out by silence. */
static __always_inline int refuse(void)
{
	count(DROP_NO_SERVICE_BACKEND, COUNTER_EGRESS, 0);
	bpf_set_retval(-EHOSTUNREACH);
	return REFUSE;
}

static __always_inline int send_to4(struct bpf_sock_addr *ctx)
{
	struct peer peer = peer4(ctx);
	int translated = translate_peer(ctx, &peer);

	if (translated < 0)
		return refuse();
	if (translated)
		set_peer4(ctx, &peer);
	return ALLOW;
}

static __always_inline int send_to6(struct bpf_sock_addr *ctx)
{
	struct peer peer = peer6(ctx);
	int translated = translate_peer(ctx, &peer);

	if (translated < 0)
		return refuse();
	if (translated)
		set_peer6(ctx, &peer);
	return ALLOW;
}

/* The virtual address again, when the peer is the backend that stands for it. */
static __always_inline bool restore_peer(struct bpf_sock_addr *ctx, struct peer *peer)
{
	struct socket_translation *memory = bpf_sk_storage_get(&socket_translations, ctx->sk, 0, 0);

	if (!memory || !same_peer(peer, &memory->backend_address, memory->backend_port))
		return false;
	peer->address = memory->virtual_address;
	peer->port = memory->virtual_port;
	return true;
}

static __always_inline int seen_as4(struct bpf_sock_addr *ctx)
{
	struct peer peer = peer4(ctx);

	if (restore_peer(ctx, &peer))
		set_peer4(ctx, &peer);
	return ALLOW;
}

static __always_inline int seen_as6(struct bpf_sock_addr *ctx)
{
	struct peer peer = peer6(ctx);

	if (restore_peer(ctx, &peer))
		set_peer6(ctx, &peer);
	return ALLOW;
}

#endif
