/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The kernel's <asm/cputype.h>: a hook needs nothing of it. */
#ifndef __ASM_CPUTYPE_H
#define __ASM_CPUTYPE_H
#endif
