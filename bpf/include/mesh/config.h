/* SPDX-License-Identifier: GPL-2.0 */
/* Constants of one node, written into .rodata between open and load, and the small map that says who runs the datapath. */
#ifndef MESH_CONFIG_H
#define MESH_CONFIG_H

#include "types.h"

/* The one .rodata struct of every program. */
struct node_config {
	__u32	cluster_id;
	__u32	tunnel_interface;	/* index of the collect-metadata VXLAN device; 0 = no tunnel */
	__u32	host_interface;		/* index of mesh_net, the agent's veth into the host stack; 0 = none */
	__u32	identity_cluster_shift;	/* 16 with 255 clusters, 15 with 511 */
	__u32	underlay_family;	/* MESH_FAMILY_* */
	__u32	pod_mtu;		/* largest inner IP packet that fits the tunnel */
	__u8	gateway_mac[6];		/* answer to every ARP and neighbour question of a pod */
	__u16	tunnel_port;		/* UDP port of the tunnel */
	__u32	flags;			/* CONFIG_* */
	__u32	uplink_interface;	/* index of the device with the underlay address; 0 = unknown */
	struct mesh_addr	underlay;	/* this node's tunnel endpoint, of underlay_family */
	struct mesh_addr	gateway6;	/* CiliumInternalIPs: the source of what is taken into the tunnel; zero = none */
	struct mesh_addr	direct6;	/* this node's addresses on the underlay; zero = none */
	__be32	gateway4;
	__be32	direct4;
	__u16	nat_port_min;		/* source ports of taken-in flows: outside the range that the stack hands out */
	__u16	nat_port_max;
	__u16	source_port_min;	/* outer source ports, as the VXLAN device takes them: min ≤ port < max */
	__u16	source_port_max;
	__u16	node_port_first;	/* range of NodePorts, host byte order; 0 and 0 = none */
	__u16	node_port_last;
	__u8	uplink_mac[6];		/* frames on the uplink to another address are not ours; zero = do not ask */
	__u16	pad;
};

#define CONFIG_BUILT_HEADERS	0x01	/* VXLAN headers are written and removed by our programs, the device is the fallback */
/* XDP sends a frame back by redirecting it to its device: for XDP_TX the other end of a veth is not woken unless it has a program too. */
#define CONFIG_SEND_BY_REDIRECT	0x02
/* The stack masquerades what pods send to the world: it must see both directions of what the world sends to pods. */
#define CONFIG_MASQUERADES_IPV4	0x04
#define CONFIG_MASQUERADES_IPV6	0x08

/* Value of agent_state (one element, memory-mapped). */
struct agent_state {
	__u64	abi;		/* MESH_ABI_VERSION << 32 | checksum of the struct layouts */
	__u64	heartbeat_ms;	/* monotonic clock of the agent's last turn */
	__u64	generation;	/* agent starts since the maps were made */
	__u64	senders_known;	/* 1 = every node that may send has been in tunnel_senders once: unknown ones are refused */
};

#endif
