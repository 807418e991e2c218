/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The kernel's <asm/stage2_pgtable.h>. */
#ifndef __ARM64_S2_PGTABLE_H_
#define __ARM64_S2_PGTABLE_H_

#include <linux/pgtable.h>

/* Up to 16 start-level tables lie side by side, so that the start level covers four more bits of the address. */
#define stage2_pgtable_levels(ipa)	ARM64_HW_PGTABLE_LEVELS((ipa) - 4)
#define kvm_stage2_levels(kvm)		stage2_pgtable_levels((kvm)->arch.mmu.pgt->ia_bits)
#define kvm_mmu_cache_min_pages(kvm)	(kvm_stage2_levels(kvm) - 1)

#endif
