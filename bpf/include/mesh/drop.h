/* SPDX-License-Identifier: GPL-2.0 */
/* Why a packet was dropped, and the counters. One list for C, C#, metrics and the CLI; numbers never change meaning. */
#ifndef MESH_DROP_H
#define MESH_DROP_H

#include "types.h"

enum drop_reason {
	FORWARDED = 0,			/* not a drop: counted in the same map */
	DROP_INVALID_PACKET = 1,	/* truncated or malformed headers */
	DROP_INVALID_SOURCE = 2,	/* a pod speaks with an address that is not its own */
	DROP_NO_SERVICE_BACKEND = 3,	/* the service has no live backend */
	DROP_NO_TUNNEL = 4,		/* the destination's node has no usable tunnel endpoint */
	DROP_NODE_DOWN = 5,		/* the destination's node is marked down */
	DROP_NO_ENDPOINT = 6,		/* arrived by the tunnel for a pod that is not here */
	DROP_NO_TUNNEL_KEY = 7,		/* arrived on the tunnel device without metadata */
	DROP_ENCAPSULATION = 8,		/* the kernel refused the tunnel key */
	DROP_FRAGMENT = 9,		/* a later fragment for a virtual address: its ports are unknown */
	DROP_TRANSLATION = 10,		/* rewriting addresses or checksums failed */
	DROP_CONNTRACK = 11,		/* the flow could not be recorded */
	DROP_TTL = 12,			/* time to live exhausted */
	DROP_TOO_BIG = 13,		/* larger than the tunnel's MTU, sender told by ICMP */
	DROP_HAIRPIN = 14,		/* an answer to oneself of which no question is known */
	DROP_FRAGMENT_OVERLAP = 15,	/* a later fragment that would overwrite the first one's ports */
	DROP_SCTP_PORT = 16,		/* the backend has another port, which SCTP's checksum would not survive */
	DROP_PORT_COLLISION = 17,	/* two virtual addresses, one client port, one backend: answers could not be told apart */
	DROP_ICMP_ERROR = 18,		/* an ICMP error about a translated flow that cannot be rewritten */
	DROP_UNKNOWN_SENDER = 30,	/* by the tunnel, from an address that is no node's */
	DROP_FOREIGN_IDENTITY = 31,	/* by the tunnel, with an identity that its node may not use */
	DROP_FOREIGN_SOURCE = 32,	/* by the tunnel, with a source address of this node or of another cluster */
	DROP_NOT_IN_SOURCE_RANGE = 33,	/* the client is in none of the service's source ranges */
	DROP_NAT_NO_PORT = 34,		/* no source port is free towards the backend */
	DROP_NAT_NOT_STORED = 35,	/* the flow could not be recorded */
	DROP_NO_ROUTE = 36,		/* no way to the client or to a backend on the underlay */
	DROP_DSR_NOT_APPLIED = 37,	/* the virtual address could not be put into, or taken out of, a packet */
	DROP_TUNNEL_HEADER = 38,	/* by the tunnel, with a header that is no VXLAN, or no whole packet inside */
	DROP_CONGESTION_MARK = 39,	/* by the tunnel, marked as congested, and the sender does not know such marks */
	DROP_POLICY_DENIED = 45,	/* no rule lets the peer speak with the pod */
	DROP_POLICY_DENIED_BY_DENYLIST = 46, /* a deny rule */
	DROP_POLICY_UNDECIDED = 47,	/* a new pod whose policy nobody has said yet */
	DROP_POLICY_FRAGMENT = 48,	/* a later fragment whose ports are unknown, and the rules ask for them */
	POLICY_AUDITED = 49,		/* not a drop: would have been one of these, and passed in audit mode; counted beside its fate */
	DROP_REASONS
};

#define COUNTER_EGRESS	0	/* from a pod or the host */
#define COUNTER_INGRESS	1	/* from the tunnel */

#define COUNTERS_MAX	256	/* index = reason * 2 + direction */

/* Value of counters (per CPU). */
struct counter {
	__u64	packets;
	__u64	bytes;
};

#endif
