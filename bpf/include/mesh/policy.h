/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Network policy by identity. A verdict is
 *   policy_endpoints[endpoint id]    →  the rule set of each direction: THE commit word of an endpoint, written with one store
 *   policy_rows {set, identity}      →  what the set says of this peer; a peer without a row of its own has that of identity 0
 *   policy_ranges[first .. + count]  →  only where the answer depends on protocol and port: sorted, searched by halves
 * Endpoints with equal policy share a set. A set's rules never change: a changed policy is a new set, written whole before the
 * endpoint's word names it; rows are added to a set only for identities that become known. Deny rules, port ranges and wildcards are
 * resolved by the control plane, so that the packet path finds one answer and never weighs two.
 */
#ifndef MESH_POLICY_H
#define MESH_POLICY_H

#include "types.h"

#define POLICY_ENDPOINTS_MAX	65536		/* endpoint ids */
#define POLICY_ROWS_MAX		262144
#define POLICY_RANGES_MAX	262144
#define POLICY_RULES_MAX	16384		/* counters; 0 = no rule: the default of the direction */
#define POLICY_FLOWS_MAX	131072
#define POLICY_RANGES_PER_ROW	4096
#define POLICY_SEARCH_STEPS	12		/* log2 of the above */

enum policy_direction {
	POLICY_INGRESS = 0,	/* into the endpoint */
	POLICY_EGRESS = 1,
};

#define POLICY_UNDECIDED	0	/* nobody has said yet what holds: nothing passes but the node itself */
#define POLICY_UNENFORCED	1	/* everything passes */
#define POLICY_LEARNING		2	/* everything passes and is remembered: before a running pod's first policy */
#define POLICY_FIRST_SET	3
#define POLICY_SET_MASK		0x7fffffff
#define POLICY_AUDIT		0x80000000	/* what the set denies is counted, and passes */

/* Value of policy_endpoints: 8 bytes, always stored whole. */
struct policy_endpoint {
	__u32	ingress;	/* POLICY_*, or the number of a set */
	__u32	egress;
};

/* Key of policy_rows. */
struct policy_key {
	__u32	set;
	__u32	identity;	/* of the peer; 0 = any without a row of its own */
};

#define POLICY_VERDICT_ALLOW	0x80000000
#define POLICY_VERDICT_RULE	0x00ffffff	/* the rule that decided; 0 = none did */

/* Value of policy_rows. */
struct policy_row {
	__u32	answer;		/* ranges == 0: the verdict; otherwise the first of its ranges */
	__u32	ranges;
};

/* Value of policy_ranges: holds from start to the next range's start. The first range of a row starts at 0. */
struct policy_range {
	__u32	start;		/* protocol << 16 | port, or ICMP type, in host order */
	__u32	verdict;
};

/* Value of policy_counters (per CPU): packets that the rule decided; replies are decided by their flow. */
struct policy_counter {
	__u64	packets;
	__u64	bytes;
};

/*
 * Key of policy_flows: a flow that was let pass in one direction, so that its answers pass in the other. As the packet looks
 * between the endpoint and the other side: after translation to a backend.
 */
struct policy_flow_key {
	struct mesh_addr	source;
	struct mesh_addr	destination;
	__be16	source_port;
	__be16	destination_port;
	__u8	protocol;
	__u8	direction;	/* enum policy_direction: of the flow, seen from the endpoint */
	__u8	family;
	__u8	pad;
};

#define POLICY_FLOW_ANSWERED	0x01
#define POLICY_FLOW_CLOSING	0x02	/* FIN or RST seen */

/* Value of policy_flows. */
struct policy_flow {
	__u32	last_seen;	/* seconds of the monotonic clock */
	__u8	flags;		/* POLICY_FLOW_* */
	__u8	pad[3];
};

#endif
