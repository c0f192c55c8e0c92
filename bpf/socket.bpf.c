// SPDX-License-Identifier: GPL-2.0
/* The socket hooks of the cgroup that the agent is given: translation of service addresses before there is a packet. */
#include "lib/socket.h"

SEC("cgroup/connect4")
int connect4(struct bpf_sock_addr *ctx)
{
	return send_to4(ctx);
}

SEC("cgroup/connect6")
int connect6(struct bpf_sock_addr *ctx)
{
	return send_to6(ctx);
}

SEC("cgroup/sendmsg4")
int sendmsg4(struct bpf_sock_addr *ctx)
{
	return send_to4(ctx);
}

SEC("cgroup/sendmsg6")
int sendmsg6(struct bpf_sock_addr *ctx)
{
	return send_to6(ctx);
}

SEC("cgroup/recvmsg4")
int recvmsg4(struct bpf_sock_addr *ctx)
{
	return seen_as4(ctx);
}

SEC("cgroup/recvmsg6")
int recvmsg6(struct bpf_sock_addr *ctx)
{
	return seen_as6(ctx);
}

SEC("cgroup/getpeername4")
int getpeername4(struct bpf_sock_addr *ctx)
{
	return seen_as4(ctx);
}

SEC("cgroup/getpeername6")
int getpeername6(struct bpf_sock_addr *ctx)
{
	return seen_as6(ctx);
}

char LICENSE[] SEC("license") = "GPL";
