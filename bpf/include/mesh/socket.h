/* SPDX-License-Identifier: GPL-2.0 */
/* Per-socket memory of a translated address, so that replies and getpeername() show the virtual one. Freed with the socket. */
#ifndef MESH_SOCKET_H
#define MESH_SOCKET_H

#include "types.h"

/* Value of socket_translations (SK_STORAGE). A datagram socket that talks to several services remembers the latest. */
struct socket_translation {
	struct mesh_addr	virtual_address;
	struct mesh_addr	backend_address;
	__be16	virtual_port;
	__be16	backend_port;
	__u32	backend;	/* slot in lb_backends */
};

#endif
