/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
#ifndef LINUX_CAPABILITY_H
#define LINUX_CAPABILITY_H

#include <linux/types.h>

#define CAP_CHOWN 0
#define CAP_DAC_OVERRIDE 1
#define CAP_FOWNER 3
#define CAP_KILL 5
#define CAP_SETUID 7
#define CAP_NET_ADMIN 12
#define CAP_SYS_MODULE 16
#define CAP_SYS_RAWIO 17
#define CAP_SYS_PTRACE 19
#define CAP_SYS_ADMIN 21
#define CAP_SYS_BOOT 22
#define CAP_SYS_NICE 23
#define CAP_SYS_RESOURCE 24
#define CAP_SYS_TIME 25

/* A program of root has all of them; another program has none. */
bool capable(int capability);
#define ns_capable(namespace, capability) capable(capability)

#endif
