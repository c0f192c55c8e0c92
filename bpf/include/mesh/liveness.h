/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Who may be sent new flows, by proof: of clusters, of nodes (node.state) and of single backends. Every choice asks here, so that
 * one store takes a cluster out, however many services and backends it has. What is told here never withdraws the tables' rows, and
 * it is never obeyed when nothing else is left: the last one standing is sent flows, dead or alive (panic), and that is counted.
 */
#ifndef MESH_LIVENESS_H
#define MESH_LIVENESS_H

#include "types.h"

#define CLUSTER_WORDS	8		/* 512 clusters */
#define CLUSTERS_MAX	(CLUSTER_WORDS * 64)
#define RAMP_FULL	255

/* Value of cluster_liveness (one element, memory-mapped). Bit c % 64 of word c / 64 is cluster c. */
struct cluster_liveness {
	__u64	up[CLUSTER_WORDS];	/* configured: the control plane says so */
	__u64	alive[CLUSTER_WORDS];	/* not proved silent by traffic; the prober says so */
	__u64	drill_until_ns[CLUSTERS_MAX];	/* rehearsed as lost until this time of CLOCK_MONOTONIC; 0 = no. In the map, so that it ends by itself */
	__u8	ramp[CLUSTERS_MAX];	/* takes a new flow with chance n / 255: less than RAMP_FULL on the way back */
};

/* Value of lb_backend_health (memory-mapped, same index as lb_backends): what connections from this node have met. */
struct lb_backend_health {
	__u32	ejected_until_ms;	/* low 32 bits of CLOCK_MONOTONIC in milliseconds; 0 = not ejected */
	__u16	node;			/* index into nodes, 0 = unknown */
	__u8	failures;		/* in a row: each doubles the next ejection */
	__u8	pad;
};

#define LB_EJECTION_MS		1000	/* of the first failure */
#define LB_EJECTION_DOUBLINGS	5	/* at most 32 s */
#define LB_EJECTIONS_RECENT	256

/* Value of failover (one element, memory-mapped): what has been done, and the latest ejections for the agent to follow up. */
struct failover {
	__u64	panics;			/* choices of a backend that is not known to live, because none is */
	__u64	refused;		/* connection attempts answered by a reset or an error */
	__u64	unanswered;		/* connection attempts whose first question was not answered in time */
	__u64	recovered;		/* ejected backends that a connection proved to be well */
	__u64	repicked;		/* established flows given another backend because theirs was lost */
	__u64	sockets_closed;		/* sockets closed because their backend was lost */
	__u32	syn_timeout_ms;		/* the first question of a connection to a backend is repeated after this; 0 = the kernel's 1000 */
	__u32	drill_error_ppm;	/* of a million new flows, those that may fail before the agent ends a drill; 0 = any number */
	__u64	ejections;		/* the next one's place in recent is this, modulo LB_EJECTIONS_RECENT */
	__u32	recent[LB_EJECTIONS_RECENT];	/* slots of lb_backends */
};

#endif
