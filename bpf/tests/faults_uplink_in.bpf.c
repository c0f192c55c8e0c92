// SPDX-License-Identifier: GPL-2.0
/* uplink_in where the kernel refuses: see faults.h. Never attached. */
#include "faults.h"

#include "uplink_in.bpf.c"
