/* SPDX-License-Identifier: GPL-2.0 */
/*
 * North-south: flows between clients outside and services of this node's NodePort, LoadBalancer and external addresses. Two entries
 * a flow, in LRU maps of their own (nat4, nat6). The forward one says where a client's packets go; the reverse one turns the answers
 * back. A source port is taken by making the reverse entry: who makes it has it.
 */
#ifndef MESH_NORTH_H
#define MESH_NORTH_H

#include "types.h"

#define NAT_MAX		131072	/* of each family; the agent may ask for another size when it makes the maps */

enum nat_direction {
	NAT_FORWARD = 0,	/* client → virtual address */
	NAT_REVERSE = 1,	/* backend → whoever it takes for the client */
};

/* Where the packets of a flow go. */
enum nat_way {
	NAT_LOCAL = 0,		/* the backend is here; the client's address stays */
	NAT_TUNNEL = 1,		/* into the tunnel, with this node's gateway address as source */
	NAT_DIRECT = 2,		/* over the underlay (a backend with a node's own address), with this node's underlay address */
	NAT_DSR = 3,		/* into the tunnel as the client sent it; the backend's node answers the client itself */
};

/* Key of nat4. */
struct nat4_key {
	__be32	source;
	__be32	destination;
	__be16	source_port;
	__be16	destination_port;
	__u8	protocol;
	__u8	direction;	/* enum nat_direction */
	__u16	pad;
};

/* Key of nat6. */
struct nat6_key {
	__u8	source[16];
	__u8	destination[16];
	__be16	source_port;
	__be16	destination_port;
	__u8	protocol;
	__u8	direction;
	__u16	pad;
};

/* Value of both. */
struct nat_value {
	struct mesh_addr	address;	/* forward: the backend; reverse: the client */
	struct mesh_addr	virtual_address;	/* reverse: what the client talks to */
	__be16	port;			/* of address */
	__be16	virtual_port;		/* reverse: of virtual_address */
	__be16	source_port;		/* forward: that the backend sees */
	__u8	way;			/* enum nat_way */
	__u8	state;			/* NAT_* */
	__u32	node;			/* forward: index into nodes of the tunnel's other end, 0 = none */
	__u32	backend;		/* slot in lb_backends at the time of the choice; 0 in a reverse entry that another node's packet made */
	__u32	last_seen;		/* monotonic clock in units of 2^30 ns (1.07 s) */
	__u32	service;		/* forward: index into lb_services, so that a packet of a known flow asks for no frontend; 0 = not noted */
	__u32	pad[2];			/* 64 bytes: with the kernel's own 48 and an IPv4 key of 16 an entry fills two cache lines, not parts of three */
};

#define NAT_ANSWERED	0x01	/* both sides have spoken */
#define NAT_FIN_CLIENT	0x02
#define NAT_FIN_BACKEND	0x04
#define NAT_RESET	0x08

/*
 * The virtual address in a packet that a node forwards by DSR, as the option that Cilium uses: IPv4 option 0x9a, or IPv6
 * destination option 0x1b alone in its header, directly behind the fixed header. TCP carries it in SYNs only.
 */
#define DSR_OPTION4		0x9a
#define DSR_OPTION6		0x1b

struct dsr_option4 {
	__u8	type;
	__u8	length;		/* 8 */
	__be16	port;
	__be32	address;
};

struct dsr_option6 {
	__u8	next_header;
	__u8	header_length;	/* 2: 24 bytes */
	__u8	type;
	__u8	length;		/* 20 */
	__u8	address[16];
	__be16	port;
	__u16	pad;
};

#endif
