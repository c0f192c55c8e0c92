/* SPDX-License-Identifier: GPL-2.0 */
/* What the outer headers of a VXLAN packet have in common, whoever writes them: see encap.h (skb) and xdp.h (frame). */
#ifndef MESH_LIB_VXLAN_H
#define MESH_LIB_VXLAN_H

#include "lb.h"
#include "maps.h"
#include "parse.h"

#define TUNNEL_TTL 64
#define VXLAN_FLAGS 0x08000000 /* the VNI is valid; nothing else is said */

struct vxlan_header {
	__be32 flags;
	__be32 vni; /* the highest 24 bits */
};

/* Behind the outer IP header. */
struct vxlan_frame {
	struct udphdr udp;
	struct vxlan_header vxlan;
	struct ethhdr eth;
} __attribute__((packed, aligned(2))); /* 30 bytes */

#define ROOM4 (sizeof(struct iphdr) + sizeof(struct vxlan_frame))
#define ROOM6 (sizeof(struct ipv6hdr) + sizeof(struct vxlan_frame))

/* The congestion bits of the outer header: what is marked inside is only able to be marked outside (RFC 6040). */
static __always_inline __u8 outer_congestion(__u8 traffic_class)
{
	return (traffic_class & 3) == 3 ? 2 : traffic_class & 3;
}

/* As the VXLAN device spreads flows over ports. */
static __always_inline __be16 outer_source_port(__u32 hash)
{
	hash ^= hash << 16;
	return bpf_htons(config.source_port_min + scale(hash, config.source_port_max - config.source_port_min));
}

#endif
