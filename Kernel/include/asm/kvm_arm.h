/* The kernel's <asm/kvm_arm.h>: fields of EL2's registers. */
#ifndef __ARM64_KVM_ARM_H__
#define __ARM64_KVM_ARM_H__

#include <linux/types.h>

#include <asm/esr.h>
#include <asm/memory.h>

#define HPFAR_MASK		(~UL(0xf))
#define HPFAR_EL2_NS		((u64)1 << 63)
#define HPFAR_EL2_FIPA		(((u64)1 << 44) - 0x10)

#define VTCR_EL2_T0SZ_MASK	0x3f
#define VTCR_EL2_IPA(vtcr)	(64 - ((vtcr) & VTCR_EL2_T0SZ_MASK))

#endif
