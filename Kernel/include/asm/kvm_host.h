/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The kernel's <asm/kvm_host.h>: a vCPU and a virtual machine of arm64. */
#ifndef __ARM64_KVM_HOST_H__
#define __ARM64_KVM_HOST_H__

#include <linux/atomic.h>
#include <linux/bitops.h>
#include <linux/kvm_types.h>
#include <linux/mutex.h>
#include <linux/types.h>
#include <linux/version.h>

#include <asm/cpufeature.h>
#include <asm/kvm_arm.h>
#include <asm/kvm_asm.h>
#include <asm/ptrace.h>
#include <asm/tlbflush.h>

#define KVM_MAX_VCPUS			512
#define KVM_VCPU_MAX_FEATURES		8
#define KVM_VCPU_MAX_FEATURES_BITMAP	KVM_VCPU_MAX_FEATURES

struct kvm_pgtable;
struct kvm_arch;

/* The type of the level of a table: the runtime uses it. */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 8, 0)
typedef s8 hook_level_t;
#else
typedef u32 hook_level_t;
#endif

struct kvm_vmid {
#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 18, 0)
	atomic64_t id;
#else
	u64 vmid_gen;
	u32 vmid;
#endif
};

/* The stage-2 tables of a virtual machine. */
struct kvm_s2_mmu {
	struct kvm_vmid vmid;
	/* The physical address of the first start-level table, and the tables. */
	phys_addr_t pgd_phys;
	struct kvm_pgtable *pgt;
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 8, 0)
	u64 vtcr;
#endif
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 5, 0)
	struct kvm_mmu_memory_cache split_page_cache;
	u64 split_page_chunk_size;
#endif
#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 14, 0)
	struct kvm_arch *arch;
#else
	struct kvm *kvm;
#endif
};

/* The hypercalls that the guest may make. */
struct kvm_smccc_features {
	unsigned long std_bmap;
	unsigned long std_hyp_bmap;
	unsigned long vendor_hyp_bmap;
};

struct kvm_arch {
	struct kvm_s2_mmu mmu;
	u64 vtcr;
	u32 psci_version;
	struct mutex config_lock;
	struct kvm_smccc_features smccc_feat;

#if LINUX_VERSION_CODE < KERNEL_VERSION(5, 18, 0)
	/* An abort without a valid syndrome goes to the VMM. */
	bool return_nisv_io_abort_to_user;
#endif
#define KVM_ARCH_FLAG_RETURN_NISV_IO_ABORT_TO_USER	0
#define KVM_ARCH_FLAG_MTE_ENABLED			1
#define KVM_ARCH_FLAG_HAS_RAN_ONCE			2
#define KVM_ARCH_FLAG_REG_WIDTH_CONFIGURED		3
#define KVM_ARCH_FLAG_EL1_32BIT				4
	unsigned long flags;
};

struct kvm_vcpu_fault_info {
#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 19, 0)
	u64 esr_el2;
#else
	u32 esr_el2;
#endif
	u64 far_el2;
	u64 hpfar_el2;
	u64 disr_el1;
};

/* The registers of the guest. regs.sp is SP_EL0. */
struct kvm_cpu_context {
	struct user_pt_regs regs;
	u64 sp_el1;
};

struct kvm_vcpu_arch {
	struct kvm_cpu_context ctxt;
	/* The tables that the vCPU uses. */
	struct kvm_s2_mmu *hw_mmu;
	u64 hcr_el2;
	struct kvm_vcpu_fault_info fault;
#if LINUX_VERSION_CODE < KERNEL_VERSION(5, 19, 0)
	u64 flags;
#endif
	/* Flags for the configuration, for the entry into the guest, and for the state: vcpu_get_flag(). */
	u8 cflags;
	u8 iflags;
	u8 sflags;
	bool pause;
	int target;
	DECLARE_BITMAP(features, KVM_VCPU_MAX_FEATURES);
};

#if LINUX_VERSION_CODE < KERNEL_VERSION(5, 19, 0)
#define KVM_ARM64_PENDING_EXCEPTION	(1 << 8)
#define KVM_ARM64_INCREMENT_PC		(1 << 9)
#define KVM_ARM64_EXCEPT_MASK		(7 << 9)
#endif

/* A flag has three parts: the set of flags that it is in, its value, and the bits for it. */
#define __vcpu_single_flag(set, f)	set, (f), (f)
#define __unpack_flag(set, f, m)	f
#define unpack_vcpu_flag(...)		__unpack_flag(__VA_ARGS__)
#define __vcpu_get_flag(v, set, f, m)	((v)->arch.set & (m))
#define __vcpu_set_flag(v, set, f, m)	((void)((v)->arch.set = ((v)->arch.set & ~(m)) | (f)))
#define __vcpu_clear_flag(v, set, f, m)	((void)((v)->arch.set &= ~(m)))
#define vcpu_get_flag(v, ...)		__vcpu_get_flag((v), __VA_ARGS__)
#define vcpu_set_flag(v, ...)		__vcpu_set_flag((v), __VA_ARGS__)
#define vcpu_clear_flag(v, ...)		__vcpu_clear_flag((v), __VA_ARGS__)

#define PENDING_EXCEPTION	__vcpu_single_flag(iflags, BIT(0))
/* The move of the program counter shares its bits with the exceptions: a vCPU cannot have both. */
#define INCREMENT_PC		__vcpu_single_flag(iflags, BIT(1))
#define EXCEPT_MASK		__vcpu_single_flag(iflags, GENMASK(3, 1))
#define __vcpu_except_flags(f)	iflags, ((f) << 1), GENMASK(3, 1)
#define EXCEPT_AA32_UND		__vcpu_except_flags(0)
#define EXCEPT_AA32_IABT	__vcpu_except_flags(1)
#define EXCEPT_AA32_DABT	__vcpu_except_flags(2)
#define EXCEPT_AA64_EL1_SYNC	__vcpu_except_flags(0)
#define EXCEPT_AA64_EL1_IRQ	__vcpu_except_flags(1)
#define EXCEPT_AA64_EL1_FIQ	__vcpu_except_flags(2)
#define EXCEPT_AA64_EL1_SERR	__vcpu_except_flags(3)
#define EXCEPT_AA64_EL2_SYNC	__vcpu_except_flags(4)
#define EXCEPT_AA64_EL2_IRQ	__vcpu_except_flags(5)
#define EXCEPT_AA64_EL2_FIQ	__vcpu_except_flags(6)
#define EXCEPT_AA64_EL2_SERR	__vcpu_except_flags(7)

#define vcpu_gp_regs(v)		(&(v)->arch.ctxt.regs)

struct kvm_vm_stat {
	u64 remote_tlb_flush_requests;
};

struct kvm_vcpu_stat {
	u64 hvc_exit_stat;
	u64 wfe_exit_stat;
	u64 wfi_exit_stat;
	u64 mmio_exit_user;
	u64 mmio_exit_kernel;
	u64 signal_exits;
	u64 exits;
};

void kvm_mmio_write_buf(void *buf, unsigned int len, unsigned long data);
unsigned long kvm_mmio_read_buf(const void *buf, unsigned int len);
int kvm_handle_mmio_return(struct kvm_vcpu *vcpu);
int io_mem_abort(struct kvm_vcpu *vcpu, phys_addr_t fault_ipa);

#define kvm_call_hyp(function, ...)	function(__VA_ARGS__)
#define kvm_call_hyp_ret(function, ...)	function(__VA_ARGS__)
#define kvm_call_hyp_nvhe(function, ...) function(__VA_ARGS__)

/* The model has no protected virtual machines. */
#define is_protected_kvm_enabled()	false
#define kvm_vm_is_protected(kvm)	false
#define vcpu_is_protected(vcpu)		false
#define vcpu_has_nv(vcpu)		false

#endif
