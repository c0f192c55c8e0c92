/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Connection tracking of translated flows only: traffic that a socket hook has already translated never gets here. Two entries
 * a flow, both in an LRU: the forward one keeps a flow on its backend, the reverse one turns replies back into the virtual address.
 * Entries hold addresses, not indexes, so that a reused backend slot can never redirect an old flow.
 */
#ifndef MESH_CONNTRACK_H
#define MESH_CONNTRACK_H

#include "types.h"

#define CONNTRACK_MAX	131072

enum conntrack_direction {
	CONNTRACK_FORWARD = 0,	/* client → virtual address; value is the backend */
	CONNTRACK_REVERSE = 1,	/* backend → client; value is the virtual address */
};

/* Key of conntrack4. */
struct conntrack4_key {
	__be32	source;
	__be32	destination;
	__be16	source_port;
	__be16	destination_port;
	__u8	protocol;
	__u8	direction;	/* enum conntrack_direction */
	__u16	pad;
};

/* Key of conntrack6. */
struct conntrack6_key {
	__u8	source[16];
	__u8	destination[16];
	__be16	source_port;
	__be16	destination_port;
	__u8	protocol;
	__u8	direction;
	__u16	pad;
};

/* Value of both. */
struct conntrack_value {
	struct mesh_addr	address;	/* what the packet's address becomes */
	__be16	port;
	__u8	flags;			/* CONNTRACK_* */
	__u8	pad;
	__u32	backend;		/* slot in lb_backends, a hint */
	__u32	service;		/* index into lb_services */
	__u32	last_seen;		/* seconds of the monotonic clock */
};

/* How far the conversation is. Both entries of a flow learn each step. None = opening: nothing but the first packet was seen. */
#define CONNTRACK_ESTABLISHED	0x01	/* TCP: the handshake is over; others: an answer was seen */
#define CONNTRACK_CLIENT_FIN	0x02	/* the client has said all */
#define CONNTRACK_SERVER_FIN	0x04	/* the backend has */
#define CONNTRACK_RESET		0x08
#define CONNTRACK_CLOSING	(CONNTRACK_CLIENT_FIN | CONNTRACK_SERVER_FIN | CONNTRACK_RESET)	/* the next SYN chooses anew */
#define CONNTRACK_HAIRPIN	0x10	/* the client is its own backend: it sees its questions come from the loopback address */

#define CONNTRACK_ANSWERED	0x20	/* TCP: the backend has said something that is no reset */

/* Silence in seconds after which an entry no longer counts. */
#define CONNTRACK_OPENING_SECONDS	60
#define CONNTRACK_ESTABLISHED_SECONDS	21600
#define CONNTRACK_HALF_CLOSED_SECONDS	3600	/* one FIN: the other side may go on for long, but not in silence */
#define CONNTRACK_CLOSED_SECONDS	60	/* both FINs: as TIME_WAIT */
#define CONNTRACK_RESET_SECONDS		10
#define CONNTRACK_DATAGRAM_SECONDS	180	/* answered; CONNTRACK_OPENING_SECONDS while not */

/*
 * The address that a client sees as its peer when it is its own backend: link-local in IPv4, of the discard-only prefix
 * (RFC 6666) in IPv6. No packet with it ever leaves the node.
 */
#define LOOPBACK4	0xa9fe2a01	/* 169.254.42.1, host byte order */
#define LOOPBACK6	{ 0x01, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x6d, 0x65, 0x73, 0x68 }	/* 100::6d65:7368 */

#endif
