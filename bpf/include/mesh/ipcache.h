/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Address → identity and node. Single addresses live in exact hash maps, ranges in LPM tries: the exact map is asked first
 * because a trie of many /32s costs several times as much per lookup.
 */
#ifndef MESH_IPCACHE_H
#define MESH_IPCACHE_H

#include "types.h"

#define IPCACHE_MAX		1048576
#define IPCACHE_PREFIXES_MAX	65536

/* Key of ipcache4. */
struct ipcache4_key {
	__be32	address;
	__u16	cluster_id;	/* 0 unless pod ranges overlap between clusters */
	__u16	pad;
};

/* Key of ipcache6. */
struct ipcache6_key {
	__u8	address[16];
	__u16	cluster_id;
	__u16	pad;
};

/* Key of ipcache4_prefixes: the prefix length counts the cluster and padding bits (32) too. */
struct ipcache4_prefix_key {
	__u32	prefix_length;
	__u16	cluster_id;
	__u16	pad;
	__be32	address;
};

/* Key of ipcache6_prefixes. */
struct ipcache6_prefix_key {
	__u32	prefix_length;
	__u16	cluster_id;
	__u16	pad;
	__u8	address[16];
};

#define IPCACHE_STATIC_BITS	32

/* Value of all four. */
struct ipcache_value {
	__u32	identity;	/* 24 bits */
	__u32	node;		/* index into nodes; 0 = no tunnel: an address of this node, or outside the mesh */
};

#endif
