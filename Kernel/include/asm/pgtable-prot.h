/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The kernel's <asm/pgtable-prot.h>. */
#ifndef __ASM_PGTABLE_PROT_H
#define __ASM_PGTABLE_PROT_H

#include <linux/version.h>

#include <asm/cpufeature.h>
#include <asm/memory.h>
#include <asm/pgtable-hwdef.h>
#include <asm/pgtable-types.h>

/* The attributes of memory in an entry of stage 2. From 5.13 to 6.18 the caller says whether the CPU has FEAT_S2FWB. */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 13, 0) && LINUX_VERSION_CODE < KERNEL_VERSION(7, 0, 0)
#define PAGE_S2_MEMATTR(attribute, has_fwb) \
	((has_fwb) ? PTE_S2_MEMATTR(MT_S2_FWB_##attribute) : PTE_S2_MEMATTR(MT_S2_##attribute))
#else
#define PAGE_S2_MEMATTR(attribute) \
	(cpus_have_final_cap(ARM64_HAS_STAGE2_FWB) ? PTE_S2_MEMATTR(MT_S2_FWB_##attribute) : PTE_S2_MEMATTR(MT_S2_##attribute))
#endif

#endif
