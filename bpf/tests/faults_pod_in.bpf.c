// SPDX-License-Identifier: GPL-2.0
/* pod_in where the kernel refuses: see faults.h. Never attached. */
#include "faults.h"

#include "pod_in.bpf.c"
