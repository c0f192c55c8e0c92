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
	__u32	backend;		/* slot in lb_backends at the time of the choice; forward entries only */
	__u32	last_seen;		/* seconds of the monotonic clock */
};

#define CONNTRACK_CLOSING	0x01	/* FIN or RST seen: the next SYN chooses anew */

#endif
