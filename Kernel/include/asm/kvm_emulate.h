/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The kernel's <asm/kvm_emulate.h>: the registers of a vCPU, and the syndrome of its exit. */
#ifndef __ARM64_KVM_EMULATE_H__
#define __ARM64_KVM_EMULATE_H__

#include <linux/bitfield.h>
#include <linux/kvm_host.h>

#include <asm/byteorder.h>
#include <asm/esr.h>
#include <asm/kvm_arm.h>
#include <asm/kvm_hyp.h>
#include <asm/ptrace.h>
#include <asm/virt.h>

/* The functions with checks for the hook are in Kernel/runtime/vcpu.c. */
unsigned long vcpu_get_reg(const struct kvm_vcpu *vcpu, u8 reg_num);
void vcpu_set_reg(struct kvm_vcpu *vcpu, u8 reg_num, unsigned long val);

#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 11, 0)
void kvm_incr_pc(struct kvm_vcpu *vcpu);
#else
void kvm_skip_instr(struct kvm_vcpu *vcpu, bool is_wide_instr);
#endif

/* An exception for the guest. It is delivered by the model: see docs/your-code.md. */
void kvm_inject_undefined(struct kvm_vcpu *vcpu);
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 17, 0)
int kvm_inject_sea(struct kvm_vcpu *vcpu, bool iabt, u64 addr);
int kvm_inject_serror_esr(struct kvm_vcpu *vcpu, u64 esr);

static inline int kvm_inject_sea_dabt(struct kvm_vcpu *vcpu, u64 addr)
{
	return kvm_inject_sea(vcpu, false, addr);
}

static inline int kvm_inject_sea_iabt(struct kvm_vcpu *vcpu, u64 addr)
{
	return kvm_inject_sea(vcpu, true, addr);
}

static inline int kvm_inject_serror(struct kvm_vcpu *vcpu)
{
	return kvm_inject_serror_esr(vcpu, ESR_ELx_ISV);
}
#else
void kvm_inject_vabt(struct kvm_vcpu *vcpu);
void kvm_inject_dabt(struct kvm_vcpu *vcpu, unsigned long addr);
void kvm_inject_pabt(struct kvm_vcpu *vcpu, unsigned long addr);
#endif
void kvm_inject_size_fault(struct kvm_vcpu *vcpu);

static __always_inline unsigned long *vcpu_pc(const struct kvm_vcpu *vcpu)
{
	return (unsigned long *)&vcpu_gp_regs(vcpu)->pc;
}

static __always_inline unsigned long *vcpu_cpsr(const struct kvm_vcpu *vcpu)
{
	return (unsigned long *)&vcpu_gp_regs(vcpu)->pstate;
}

/* The guest is AArch64 code that begins at EL1. */
static __always_inline bool vcpu_el1_is_32bit(const struct kvm_vcpu *vcpu)
{
	return test_bit(KVM_ARCH_FLAG_EL1_32BIT, &vcpu->kvm->arch.flags);
}

static __always_inline bool vcpu_mode_is_32bit(const struct kvm_vcpu *vcpu)
{
	return !!(*vcpu_cpsr(vcpu) & PSR_MODE32_BIT);
}

static inline bool vcpu_mode_priv(const struct kvm_vcpu *vcpu)
{
	return (*vcpu_cpsr(vcpu) & PSR_MODE_MASK) != PSR_MODE_EL0t;
}

static inline bool vcpu_has_feature(struct kvm_vcpu *vcpu, int feature)
{
	return test_bit(feature, vcpu->arch.features);
}

#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 19, 0)
static __always_inline u64 kvm_vcpu_get_esr(const struct kvm_vcpu *vcpu)
#else
static __always_inline u32 kvm_vcpu_get_esr(const struct kvm_vcpu *vcpu)
#endif
{
	return vcpu->arch.fault.esr_el2;
}

static __always_inline int kvm_vcpu_get_condition(const struct kvm_vcpu *vcpu)
{
	return kvm_vcpu_get_esr(vcpu) & ESR_ELx_CV ?
		(int)((kvm_vcpu_get_esr(vcpu) & ESR_ELx_COND_MASK) >> ESR_ELx_COND_SHIFT) : -1;
}

/* The guest's virtual address. */
static __always_inline unsigned long kvm_vcpu_get_hfar(const struct kvm_vcpu *vcpu)
{
	return vcpu->arch.fault.far_el2;
}

/* The page of the guest's physical address, without the offset in the page. */
static __always_inline phys_addr_t kvm_vcpu_get_fault_ipa(const struct kvm_vcpu *vcpu)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 15, 0)
	if (!(vcpu->arch.fault.hpfar_el2 & HPFAR_EL2_NS))
		return INVALID_GPA;
	return FIELD_GET(HPFAR_EL2_FIPA, vcpu->arch.fault.hpfar_el2) << 12;
#else
	return ((phys_addr_t)vcpu->arch.fault.hpfar_el2 & HPFAR_MASK) << 8;
#endif
}

static inline u32 kvm_vcpu_hvc_get_imm(const struct kvm_vcpu *vcpu)
{
	return kvm_vcpu_get_esr(vcpu) & ESR_ELx_xVC_IMM_MASK;
}

/* Whether ESR_EL2 describes the load or store: its size, its direction and its register. */
static __always_inline bool kvm_vcpu_dabt_isvalid(const struct kvm_vcpu *vcpu)
{
	return !!(kvm_vcpu_get_esr(vcpu) & ESR_ELx_ISV);
}

static inline unsigned long kvm_vcpu_dabt_iss_nisv_sanitized(const struct kvm_vcpu *vcpu)
{
	return kvm_vcpu_get_esr(vcpu) & (ESR_ELx_CM | ESR_ELx_WNR | ESR_ELx_FSC);
}

static inline bool kvm_vcpu_dabt_issext(const struct kvm_vcpu *vcpu)
{
	return !!(kvm_vcpu_get_esr(vcpu) & ESR_ELx_SSE);
}

static inline bool kvm_vcpu_dabt_issf(const struct kvm_vcpu *vcpu)
{
	return !!(kvm_vcpu_get_esr(vcpu) & ESR_ELx_SF);
}

static __always_inline int kvm_vcpu_dabt_get_rd(const struct kvm_vcpu *vcpu)
{
	return (kvm_vcpu_get_esr(vcpu) & ESR_ELx_SRT_MASK) >> ESR_ELx_SRT_SHIFT;
}

static __always_inline bool kvm_vcpu_abt_iss1tw(const struct kvm_vcpu *vcpu)
{
	return !!(kvm_vcpu_get_esr(vcpu) & ESR_ELx_S1PTW);
}

static __always_inline bool kvm_vcpu_dabt_iswrite(const struct kvm_vcpu *vcpu)
{
	return !!(kvm_vcpu_get_esr(vcpu) & ESR_ELx_WNR);
}

static inline bool kvm_vcpu_dabt_is_cm(const struct kvm_vcpu *vcpu)
{
	return !!(kvm_vcpu_get_esr(vcpu) & ESR_ELx_CM);
}

static __always_inline unsigned int kvm_vcpu_dabt_get_as(const struct kvm_vcpu *vcpu)
{
	return 1 << ((kvm_vcpu_get_esr(vcpu) & ESR_ELx_SAS) >> ESR_ELx_SAS_SHIFT);
}

static __always_inline bool kvm_vcpu_trap_il_is32bit(const struct kvm_vcpu *vcpu)
{
	return !!(kvm_vcpu_get_esr(vcpu) & ESR_ELx_IL);
}

static __always_inline u8 kvm_vcpu_trap_get_class(const struct kvm_vcpu *vcpu)
{
	return ESR_ELx_EC(kvm_vcpu_get_esr(vcpu));
}

static inline bool kvm_vcpu_trap_is_iabt(const struct kvm_vcpu *vcpu)
{
	return kvm_vcpu_trap_get_class(vcpu) == ESR_ELx_EC_IABT_LOW;
}

static inline bool kvm_vcpu_trap_is_exec_fault(const struct kvm_vcpu *vcpu)
{
	return kvm_vcpu_trap_is_iabt(vcpu) && !kvm_vcpu_abt_iss1tw(vcpu);
}

static __always_inline u8 kvm_vcpu_trap_get_fault(const struct kvm_vcpu *vcpu)
{
	return kvm_vcpu_get_esr(vcpu) & ESR_ELx_FSC;
}

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 8, 0)
static inline bool kvm_vcpu_trap_is_permission_fault(const struct kvm_vcpu *vcpu)
{
	return esr_fsc_is_permission_fault(kvm_vcpu_get_esr(vcpu));
}

static inline bool kvm_vcpu_trap_is_translation_fault(const struct kvm_vcpu *vcpu)
{
	return esr_fsc_is_translation_fault(kvm_vcpu_get_esr(vcpu));
}
#else
static __always_inline u8 kvm_vcpu_trap_get_fault_type(const struct kvm_vcpu *vcpu)
{
	return kvm_vcpu_get_esr(vcpu) & ESR_ELx_FSC_TYPE;
}

static __always_inline u8 kvm_vcpu_trap_get_fault_level(const struct kvm_vcpu *vcpu)
{
	return kvm_vcpu_get_esr(vcpu) & ESR_ELx_FSC_LEVEL;
}
#endif

static inline bool kvm_is_write_fault(struct kvm_vcpu *vcpu)
{
	if (kvm_vcpu_abt_iss1tw(vcpu))
		return (kvm_vcpu_get_esr(vcpu) & ESR_ELx_FSC_TYPE) == ESR_ELx_FSC_PERM;
	return !kvm_vcpu_trap_is_iabt(vcpu) && kvm_vcpu_dabt_iswrite(vcpu);
}

/* The guests of the model are little-endian, and this machine is, too. */
static inline bool kvm_vcpu_is_be(struct kvm_vcpu *vcpu)
{
	(void)vcpu;
	return false;
}

static inline unsigned long vcpu_data_guest_to_host(struct kvm_vcpu *vcpu, unsigned long data, unsigned int len)
{
	(void)vcpu;
	return len < sizeof(data) ? data & ((1UL << (8 * len)) - 1) : data;
}

static inline unsigned long vcpu_data_host_to_guest(struct kvm_vcpu *vcpu, unsigned long data, unsigned int len)
{
	return vcpu_data_guest_to_host(vcpu, data, len);
}

#endif
