/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Later fragments carry no ports, so a translated flow leaves them here when its first fragment passes. A later fragment that
 * overtakes its first one finds nothing and is not translated.
 */
#ifndef MESH_LIB_FRAGMENT_H
#define MESH_LIB_FRAGMENT_H

#include "maps.h"
#include "parse.h"

#define FRAGMENTS_MAX 8192

struct fragment_key {
	struct mesh_addr source;
	struct mesh_addr destination;
	__u32 id; /* as in the packet: 16 bits in IPv4, 32 in IPv6 */
	__u8 family;
	__u8 protocol;
	__u16 pad;
};

struct fragment_ports {
	__be16 source_port;
	__be16 destination_port;
};

/* fragments: packet identification → ports of its first fragment, for packets of translated flows. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, FRAGMENTS_MAX);
	__type(key, struct fragment_key);
	__type(value, struct fragment_ports);
} fragments SEC(".maps");

static __always_inline struct fragment_key fragment_key(const struct packet *packet)
{
	return (struct fragment_key){
		.source = packet->flow.source,
		.destination = packet->flow.destination,
		.id = packet->fragment_id,
		.family = packet->flow.family,
		.protocol = packet->flow.protocol,
	};
}

/* Call before the addresses are rewritten. */
static __always_inline void fragment_remember(const struct packet *packet)
{
	struct fragment_key key = fragment_key(packet);
	struct fragment_ports ports = {
		.source_port = packet->flow.source_port,
		.destination_port = packet->flow.destination_port,
	};

	bpf_map_update_elem(&fragments, &key, &ports, BPF_ANY);
}

/* Fills in the ports of a later fragment when its first one was of a translated flow. */
static __always_inline void fragment_recall(struct packet *packet)
{
	struct fragment_key key = fragment_key(packet);
	struct fragment_ports *ports = bpf_map_lookup_elem(&fragments, &key);

	if (!ports)
		return;
	packet->flow.source_port = ports->source_port;
	packet->flow.destination_port = ports->destination_port;
	packet->ports_known = 1;
}

#endif
