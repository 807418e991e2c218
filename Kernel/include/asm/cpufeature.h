/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The kernel's <asm/cpufeature.h>: a CPU with 48 bits of physical addresses, and none of the features that a hook can ask for. */
#ifndef __ASM_CPUFEATURE_H
#define __ASM_CPUFEATURE_H

#include <linux/types.h>

#include <asm/sysreg.h>

enum {
	ARM64_HAS_STAGE2_FWB,
	ARM64_HAS_CACHE_DIC,
	ARM64_HAS_CACHE_IDC,
	ARM64_HAS_XNX,
	ARM64_KVM_HVHE,
};

#define cpus_have_cap(feature)		((void)(feature), false)
#define cpus_have_const_cap(feature)	cpus_have_cap(feature)
#define cpus_have_final_cap(feature)	cpus_have_cap(feature)
#define system_supports_lpa2()		false
#define system_supports_bti_kernel()	false
#define system_supports_tlb_range()	false

static inline unsigned int cpuid_feature_extract_unsigned_field(u64 features, int field)
{
	return features >> field & 0xf;
}

static inline u32 id_aa64mmfr0_parange_to_phys_shift(int parange)
{
	(void)parange;
	return 48;
}

static inline unsigned int get_vmid_bits(u64 mmfr1)
{
	return (mmfr1 >> 4 & 0xf) == 2 ? 16 : 8;
}

#endif
