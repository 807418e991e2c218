/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The kernel's <asm/kvm_arm.h>: fields of EL2's registers. */
#ifndef __ARM64_KVM_ARM_H__
#define __ARM64_KVM_ARM_H__

#include <linux/types.h>
#include <linux/version.h>

#include <asm/esr.h>
#include <asm/memory.h>

#define HPFAR_MASK		(~UL(0xf))
#define HPFAR_EL2_NS		((u64)1 << 63)
#define HPFAR_EL2_FIPA		(((u64)1 << 44) - 0x10)

/* VTCR_EL2: the translation of stage 2. */
#define VTCR_EL2_T0SZ_MASK	0x3f
#define VTCR_EL2_SL0_SHIFT	6
#define VTCR_EL2_SL0_MASK	(3 << VTCR_EL2_SL0_SHIFT)
#define VTCR_EL2_SL0		VTCR_EL2_SL0_MASK
#define VTCR_EL2_PS_SHIFT	16
#define VTCR_EL2_PS		(7 << VTCR_EL2_PS_SHIFT)
#define VTCR_EL2_HA		(1 << 21)
#define VTCR_EL2_DS		(1UL << 32)
#if PAGE_SHIFT == 12
#define VTCR_EL2_TG0		(0 << 14)
#define VTCR_EL2_TGRAN_SL0_BASE	2UL
#elif PAGE_SHIFT == 14
#define VTCR_EL2_TG0		(2 << 14)
#define VTCR_EL2_TGRAN_SL0_BASE	3UL
#else
#define VTCR_EL2_TG0		(1 << 14)
#define VTCR_EL2_TGRAN_SL0_BASE	3UL
#endif
/* RES1, inner shareable, write-back write-allocate. */
#define VTCR_EL2_FLAGS		((1U << 31) | (3 << 12) | (1 << 10) | (1 << 8) | VTCR_EL2_TG0)
#define VTCR_EL2_IPA(vtcr)	(64 - ((vtcr) & VTCR_EL2_T0SZ_MASK))
#define VTCR_EL2_LVLS_TO_SL0(levels)	((VTCR_EL2_TGRAN_SL0_BASE - (4 - (levels))) << VTCR_EL2_SL0_SHIFT)
#define VTCR_EL2_SL0_TO_LVLS(sl0)	((sl0) + 4 - VTCR_EL2_TGRAN_SL0_BASE)
#define VTCR_EL2_LVLS(vtcr)	VTCR_EL2_SL0_TO_LVLS(((vtcr) & VTCR_EL2_SL0_MASK) >> VTCR_EL2_SL0_SHIFT)
#if LINUX_VERSION_CODE >= KERNEL_VERSION(7, 0, 0)
#define VTCR_EL2_T0SZ		VTCR_EL2_T0SZ_MASK
#define VTCR_EL2_VS		(1 << 19)
#else
#define VTCR_EL2_T0SZ(bits)	((u64)(64 - (bits)))
#define VTCR_EL2_VS_8BIT	(0 << 19)
#define VTCR_EL2_VS_16BIT	(1 << 19)
#endif

#endif
