/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The kernel's <asm/kvm_mmu.h>. */
#ifndef __ARM64_KVM_MMU_H__
#define __ARM64_KVM_MMU_H__

#include <linux/mm.h>
#include <linux/pgtable.h>

#include <asm/kvm_arm.h>
#include <asm/kvm_emulate.h>
#include <asm/kvm_host.h>
#include <asm/memory.h>
#include <asm/page-def.h>
#include <asm/stage2_pgtable.h>

#define kern_hyp_va(address)	(address)

int kvm_handle_guest_abort(struct kvm_vcpu *vcpu)
	HOOK_UNSUPPORTED("kvm_handle_guest_abort() is the caller of the hook, and runs in the model");

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 8, 0)
#define kvm_phys_shift(mmu)	((mmu)->pgt->ia_bits)
#define kvm_phys_size(mmu)	(1ULL << kvm_phys_shift(mmu))
#define kvm_phys_mask(mmu)	(kvm_phys_size(mmu) - 1ULL)
#else
#define kvm_phys_shift(kvm)	((kvm)->arch.mmu.pgt->ia_bits)
#define kvm_phys_size(kvm)	(1ULL << kvm_phys_shift(kvm))
#define kvm_phys_mask(kvm)	(kvm_phys_size(kvm) - 1ULL)
#endif

#endif
