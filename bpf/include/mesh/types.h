/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What every header of the ABI is built from. The structs in this folder are read and written by user space through pinned
 * maps: their layout is checked against C# from BTF, by a test and again by the agent at start, which refuses to run on a mismatch.
 * No implicit padding anywhere; every padding field is named pad and is zero (hash maps compare it).
 */
#ifndef MESH_TYPES_H
#define MESH_TYPES_H

#include <linux/types.h>

/* Raised whenever a pinned map's layout or meaning changes; part of the pin directory's name (v1, v2, …). */
#define MESH_ABI_VERSION	2

/* An address of either family: IPv4 takes the first four bytes, the rest is zero. Network byte order. */
struct mesh_addr {
	union {
		__u8	bytes[16];
		__be32	v4;
		__be32	v6[4];
	};
};

#define MESH_FAMILY_NONE	0
#define MESH_FAMILY_IPV4	4
#define MESH_FAMILY_IPV6	6

#endif
