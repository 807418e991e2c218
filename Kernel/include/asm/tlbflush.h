/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The kernel's <asm/tlbflush.h>: the host's own TLB is no part of the model. That of the guest: <asm/kvm_asm.h>. */
#ifndef __ASM_TLBFLUSH_H
#define __ASM_TLBFLUSH_H

#include <asm/cpufeature.h>

#define TLBI_TTL_UNKNOWN	0x7fffffff
#define MAX_TLBI_RANGE_PAGES	(1UL << 21)
#define __TLBI_VADDR(address, asid)	((unsigned long)(address))
#define __tlbi_level(operation, address, level)	((void)(address), (void)(level))
#define __tlbi(operation, ...)		((void)0)
#define __tlbi_sync_s1ish_hyp()		((void)0)

#endif
