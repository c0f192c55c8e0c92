/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What passes, told to whoever watches: a ring buffer of flows and drops. It is off unless somebody watches, and it ends by itself:
 * the watcher has to push the deadline on. A flow is told once a second and direction, with the packets since; drops are told each,
 * up to a bound per second and reason. Names are no business of the kernel: user space knows them.
 */
#ifndef MESH_EVENT_H
#define MESH_EVENT_H

#include "types.h"

#define EVENTS_BYTES		(1 << 20)	/* of the ring */
#define EVENT_FLOWS_MAX		16384		/* flows remembered as told */
#define EVENT_INTERVAL_NS	1000000000ULL	/* between two tellings of a flow */
#define EVENT_DROPS_PER_SECOND	200		/* of each reason, on each CPU */

/* Value of observing (one element, memory-mapped). */
struct observing {
	__u64	until_ns;	/* CLOCK_MONOTONIC; 0 = nobody watches. The kernel clears it when it is over */
	__u64	lost;		/* events for which the ring had no room */
	__u32	watcher;	/* process that reads the ring: there is only one place to read from */
	__u32	pad;
};

/* What one flow is told under: key of event_flows. */
struct event_flow {
	struct mesh_addr	source;
	struct mesh_addr	destination;
	__be16	source_port;
	__be16	destination_port;
	__u32	identity;	/* of the sender, as the tunnel says; 0 = its address tells it */
	__u16	reason;		/* enum drop_reason; FORWARDED = 0 */
	__u8	family;		/* MESH_FAMILY_*; NONE = no IP packet */
	__u8	protocol;	/* IPPROTO_* */
	__u8	direction;	/* COUNTER_* */
	__u8	pad[7];
};

/* Value of event_flows. */
struct event_told {
	__u64	last_ns;
	__u64	packets;	/* since then */
};

/* Value of event_drops, per CPU, by reason. */
struct event_rate {
	__u64	second;
	__u64	told;
};

/* A record of the ring. */
struct event {
	struct event_flow	flow;
	__u64	time_ns;	/* CLOCK_MONOTONIC */
	__u64	packets;	/* of this flow since it was last told, this one included */
	__u32	length;		/* of this frame */
	__u32	interface;	/* it arrived on */
	__u8	tcp_flags;
	__u8	pad[7];
};

#endif
